//! What tools ask of a running agent ([`durac_shm::status::ControlPage`]): another policy, none, or the old one
//! again.
//!
//! A hook sees that something is asked and starts a thread of the agent, which does all the work: it copies the
//! object, verifies and compiles it like one that the environment names, and has it exchanged
//! ([`crate::change`]). The thread ends with its work: a policy that needs no thread runs in a process without one.

use crate::change;
use crate::clock;
use crate::guard;
use crate::hooks::returns;
use crate::load;
use crate::note;
use crate::off;
use crate::page;
use crate::policy::{self, Policy};
use crate::registry::Registry;
use crate::replies;
use crate::signals;
use crate::staffing;
use crate::sync;
use crate::table;
use durac_abi::Runtime;
use durac_abi::object::fingerprint;
use durac_engine::Time;
use durac_shm::status::{Answer, Command, ControlPage, Request};
use std::sync::atomic::Ordering;

/// Stack of the thread: the verifier needs more than a syncer.
const STACK: usize = 8 << 20;
/// A line that a tool asks for has no more characters.
const LINE: usize = 1000;
/// How long calls of the old policy may take to end, nanoseconds.
const PATIENCE: Time = 10_000_000_000;

/// Looks whether something is asked: one load if the process has a log, and nothing is.
#[inline]
pub fn look() {
    staffing::look();
    returns::look();
    if let Some(registry) = table::registry()
        && registry.control.is_some_and(ControlPage::is_asked)
        && !signals::may_be_in_handler()
    {
        begin(registry);
    }
}

/// The same in a turn of an event loop, where no handler is.
#[inline]
pub fn look_in_turn() {
    staffing::look();
    returns::look();
    if let Some(registry) = table::registry()
        && registry.control.is_some_and(ControlPage::is_asked)
    {
        begin(registry);
    }
}

/// Starts the thread.
#[cold]
fn begin(registry: &'static Registry) {
    let kept = crate::errno::Kept::now();
    guard::run(|| {
        if !registry.is_ours() || registry.controls.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Err(error) = sync::spawn_with(STACK, c"durac-control", move || serve(registry)) {
            registry.controls.store(false, Ordering::Release);
            refuse_all(registry, &format!("the agent cannot start a thread: {error}"));
        }
    });
    drop(kept);
}

fn refuse_all(registry: &Registry, why: &str) {
    let Some(control) = registry.control else { return };
    if let Some(request) = control.take() {
        control.answer(&request, &Answer::Refused(why.to_owned()));
    }
}

/// Works until nothing is asked. A command that comes at its end is seen by the next hook.
fn serve(registry: &'static Registry) {
    guard::run(|| {
        let Some(control) = registry.control else { return };
        while let Some(request) = control.take() {
            // A panic must not leave the tool waiting.
            let body = std::panic::AssertUnwindSafe(|| answer(registry, &request));
            let answer = std::panic::catch_unwind(body).unwrap_or_else(|_| {
                Answer::Refused("this is a bug in durac: the agent failed".to_owned())
            });
            if let Answer::Refused(why) = &answer {
                note::later(&format!("the policy stays as it is: {why}"));
            }
            control.answer(&request, &answer);
        }
    });
    registry.controls.store(false, Ordering::Release);
}

fn answer(registry: &'static Registry, request: &Request) -> Answer {
    match try_answer(registry, request) {
        Ok(text) => Answer::Done(text),
        Err(why) => Answer::Refused(why),
    }
}

fn try_answer(registry: &'static Registry, request: &Request) -> Result<String, String> {
    if off::is_off() {
        return Err("the policy is off for the rest of this process".to_owned());
    }
    if registry.is_closing() {
        return Err("the process ends, or becomes another program: try again".to_owned());
    }
    let now = policy::loaded().ok_or("there is no policy")?;
    match request.command {
        Some(Command::Reload) => {
            let next = read(&request.bytes)?;
            fits(registry, now, &next)?;
            exchange(registry, now, Box::leak(Box::new(next)))
        }
        Some(Command::Off) => match now.instead_of {
            Some(_) => Err("it is off".to_owned()),
            None => exchange(registry, now, Box::leak(Box::new(now.plain()))),
        },
        Some(Command::On) => match now.instead_of {
            Some(policy) => exchange(registry, now, policy),
            None => Err("it is on".to_owned()),
        },
        Some(Command::Tell) => {
            let text = String::from_utf8_lossy(&request.bytes);
            note::later(&text.chars().take(LINE).collect::<String>());
            Ok(String::new())
        }
        Some(Command::Upgrade) => {
            Err("only a supervisor can be exchanged while it runs: an agent comes with its process"
                .to_owned())
        }
        None => Err("this agent does not know the command: it has another version".to_owned()),
    }
}

/// The policy of an object, with all checks of a start.
fn read(bytes: &[u8]) -> Result<Policy, String> {
    let object = durac_verify::admit(bytes, Runtime::Agent).map_err(|why| why.to_string())?;
    let mut policy = load::prepare(&object).map_err(|why| why.to_string())?;
    policy.object = fingerprint(bytes);
    Ok(policy)
}

/// Whether a policy can come in the place of another without a restart.
fn fits(registry: &Registry, now: &Policy, next: &Policy) -> Result<(), String> {
    let (old, new) = (&now.meta, &next.meta);
    let same = old.target == new.target
        && old.files == new.files
        && old.except == new.except
        && old.entries == new.entries
        && old.callers == new.callers;
    if !same {
        return Err(format!(
            "it is for target `{}`, and the process runs under `{}`: this needs a restart",
            new.target, old.target
        ));
    }
    if next.rules.holds_replies && !registry.replies.hold() {
        return Err(
            "it holds replies, and the process has connections whose replies could not be held: this needs a restart"
                .to_owned(),
        );
    }
    Ok(())
}

/// Exchanges them, and says so.
fn exchange(
    registry: &'static Registry,
    now: &'static Policy,
    next: &'static Policy,
) -> Result<String, String> {
    let shown = || {
        // The proof begins there. What it was when the policy was switched off says nothing of the calls since.
        if let Some(state) = next.state {
            (0..durac_abi::MAX_LOGS as usize).for_each(|index| state.reset(index));
        }
        if let Some(params) = now.params {
            params.freeze();
        }
        page::exchanged(next, registry.page);
    };
    change::change(registry, next, clock::now().saturating_add(PATIENCE), shown)
        .map_err(|why| why.to_string())?;
    replies::release();
    for slot in registry.slots().filter(|_| next.defers()) {
        slot.staff();
    }
    let (old, new) = (now.summary(), next.summary());
    note::later(&format!("{old} → {new}; until now everything acknowledged is durable"));
    let mut text = String::new();
    if next.watches && !now.watches {
        text.push_str("the kernel's counts (`use kernel notify`) are there after a restart only\n");
    }
    for slot in registry.slots().filter(|_| next.instead_of.is_none()) {
        if let Some(why) = slot.late() {
            text.push_str(&format!(
                "{}: {why} from the next log on\n",
                registry.page.path(slot.index)
            ));
        }
    }
    Ok(text)
}
