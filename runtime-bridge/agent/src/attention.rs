//! Whether the policy has an effect: one line when the first log opens, and others when the application does not
//! ask it.
//!
//! A policy acts on sync calls. An application that writes and calls none (Redis under `appendfsync everysec` or
//! `no`) is as durable as without durac, and may believe that it is under the policy. So an event loop's turn looks, and
//! so does a sync call, whether something was written long ago that no sync call has followed. While every
//! write is followed by its sync call, that is two loads for each of a few logs.

use crate::clock;
use crate::errno::Kept;
use crate::guard;
use crate::log::Slot;
use crate::note;
use crate::policy::{self, Policy};
use crate::registry::Registry;
use crate::table::{self, Entry};
use durac_engine::Time;
use durac_shm::status::{NotAsked, no_log_hint};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Writes that no sync call has followed for so long are told, unless the deadline is later, nanoseconds.
const LONG: Time = 500_000_000;
/// After so long without any, the policy is asked again, nanoseconds.
const AGAIN: Time = 3_000_000_000;
/// A server that has no log open for so long is told of, nanoseconds.
const NO_LOG: Time = 5_000_000_000;
/// It was told of.
const TOLD: u64 = u64::MAX;
/// Logs that are looked at in a turn.
const AT_ONCE: usize = 4;

/// Since when no log is open; 0 while one is, or [`TOLD`].
static NONE_OPEN: AtomicU64 = AtomicU64::new(0);
/// The log that is looked at next.
static NEXT: AtomicUsize = AtomicUsize::new(0);
/// One of those that were looked at is open.
static OPEN: AtomicBool = AtomicBool::new(false);
/// The file system that was told of last ([`durac_shm::status::Storage::code`]).
static STORAGE: AtomicU64 = AtomicU64::new(0);
/// The environment was looked at.
static VARIABLES: AtomicBool = AtomicBool::new(false);

/// The process begins, with a policy.
pub fn begin() {
    NONE_OPEN.store(clock::now(), Ordering::Relaxed);
}

/// A log was opened. `alone`: why nothing is synced in the background.
pub fn opened(registry: &Registry, policy: &Policy, slot: &Slot, alone: Option<&str>) {
    NONE_OPEN.store(0, Ordering::Relaxed);
    OPEN.store(true, Ordering::Relaxed);
    let path = registry.page.path(slot.index);
    let mut core = slot.lock();
    let storage = core.storage;
    let alone = alone.filter(|_| core.own_fd.is_none() || policy.needs_thread());
    core.known.idle = alone.is_some();
    drop(core);
    match alone {
        Some(why) => note::later(&format!(
            "{path}: policy `{}` is not in force on it: {why}; it is as durable as without durac",
            policy.meta.policy
        )),
        None => in_force(registry, policy, slot),
    }
    // The next log of the same kind of file system needs no line.
    if STORAGE.swap(storage.code(), Ordering::Relaxed) != storage.code()
        && let Some(remark) = storage.remark()
    {
        note::later(&format!("{path}: {remark}"));
    }
    if !VARIABLES.swap(true, Ordering::Relaxed)
        && let Some(name) = unknown_variable()
    {
        note::later(&format!("unknown variable `{name}` in the environment: it has no effect"));
    }
}

/// The policy is in force on a log: told of the first, and of each of which it was told that it is not.
pub fn in_force(registry: &Registry, policy: &Policy, slot: &Slot) {
    if slot.has_failed() {
        return;
    }
    let was_idle = std::mem::take(&mut slot.lock().known.idle);
    let text = policy.describe(&registry.page.path(slot.index));
    if was_idle { note::later(&text) } else { note::in_force(&text) }
}

/// A variable of the environment that was meant for durac.
fn unknown_variable() -> Option<String> {
    let mut names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    names.find(|name| durac_abi::is_unknown_variable(name))
}

/// Looks at some logs, in turn: a process may have a thousand. `called` is the one, if any, whose sync call is about
/// to begin, so that what is written is none that no sync call follows.
#[inline]
pub fn look(called: Entry) {
    let Some(registry) = table::registry() else {
        if !matches!(NONE_OPEN.load(Ordering::Relaxed), 0 | TOLD) {
            no_log();
        }
        return;
    };
    let start = NEXT.load(Ordering::Relaxed);
    for index in start..start + AT_ONCE {
        let Some(slot) = registry.slot(index) else {
            NEXT.store(0, Ordering::Relaxed);
            if !OPEN.swap(false, Ordering::Relaxed) && NONE_OPEN.load(Ordering::Relaxed) != TOLD {
                no_log();
            }
            return;
        };
        if slot.is_open() {
            OPEN.store(true, Ordering::Relaxed);
        }
        let looks = match called == Entry::Log(index) {
            true => slot.was_uncalled(),
            false => slot.looks_uncalled(),
        };
        if looks {
            look_at(registry, slot);
        }
    }
    NEXT.store(start + AT_ONCE, Ordering::Relaxed);
}

/// No log is open: that is told after a while.
#[cold]
fn no_log() {
    let kept = Kept::now();
    guard::run(|| {
        let Some(policy) = policy::get() else { return };
        let (now, since) = (clock::now(), NONE_OPEN.load(Ordering::Relaxed));
        let (next, tells) = match since {
            0 => (now, false),
            since if now.saturating_sub(since) > NO_LOG => (TOLD, true),
            _ => return,
        };
        let exchanged =
            NONE_OPEN.compare_exchange(since, next, Ordering::Relaxed, Ordering::Relaxed);
        if !tells || exchanged.is_err() {
            return;
        }
        note::later(&format!(
            "policy `{}` has no effect: no file that it covers ({}) is open{}",
            policy.meta.policy,
            policy.meta.files.join(" "),
            no_log_hint(&policy.meta.target)
        ));
    });
    drop(kept);
}

#[cold]
fn look_at(registry: &'static Registry, slot: &'static Slot) {
    let kept = Kept::now();
    guard::run(|| {
        if registry.is_ours() {
            judge(registry, slot);
        }
    });
    drop(kept);
}

/// Tells when the policy is not asked any more, and when it is again.
fn judge(registry: &'static Registry, slot: &'static Slot) {
    let now = clock::now();
    let since = slot.uncalled(|| now);
    if !slot.is_due(now, since.map(|since| now.saturating_sub(since))) {
        return;
    }
    if policy::loaded().is_some_and(|policy| policy.rules.defers_writes) {
        return;
    }
    let within = policy::loaded().and_then(|policy| policy.rules.flush_within).unwrap_or(0);
    let long = since.is_some_and(|since| now.saturating_sub(since) > within.max(LONG));
    let mut core = slot.lock();
    if core.retired {
        return;
    }
    let said = match (core.not_asked, since) {
        (None, Some(_)) if long => {
            let why = if slot.was_called() { NotAsked::Rarely } else { NotAsked::Never };
            core.not_asked = Some(why);
            core.asked_since = None;
            slot.is_not_asked(true);
            Some(why)
        }
        (Some(_), Some(_)) => {
            core.asked_since = None;
            None
        }
        (Some(_), None) if slot.was_called() => {
            let written = slot.written.total();
            let (asked, before) = *core.asked_since.get_or_insert((now, written));
            if now.saturating_sub(asked) < AGAIN || written == before {
                return;
            }
            core.not_asked = None;
            core.asked_since = None;
            slot.is_not_asked(false);
            slot.publish(&mut core);
            drop(core);
            note::later(&format!(
                "{}: every write is followed by a sync call: the policy has an effect again",
                registry.page.path(slot.index)
            ));
            return;
        }
        _ => None,
    };
    slot.count_written(&mut core);
    slot.publish(&mut core);
    drop(core);
    if let (Some(why), Some(policy)) = (said, policy::loaded()) {
        note::later(&format!(
            "{}: {why} (for {} ms): policy `{}` has no effect on them; {}",
            registry.page.path(slot.index),
            now.saturating_sub(since.unwrap_or(now)) / 1_000_000,
            policy.meta.policy,
            why.hint(&policy.meta.target),
        ));
    }
}
