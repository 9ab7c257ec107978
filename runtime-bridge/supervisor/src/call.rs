//! A sync call or a write on a log: runs the policy's program and carries out its verdict.

use crate::clock;
use crate::fault_injection::{Fault, injects};
use crate::log::{Core, Held, Slot, Syncer};
use crate::maps;
use crate::note;
use crate::process::Process;
use crate::program::{self, Asking, Ran};
use crate::record::{self, Done, Recorded};
use durac_engine::{Answer, Decision, Entry, Errno, Put, Time, Writing};
use std::fs::{File, Metadata};
use std::time::Duration;

/// Calls in a row that found nothing appended, after which it is told once.
const IN_PLACE: u32 = 64;
/// The number of them once that is told.
const TOLD: u32 = u32::MAX;

/// A sync call.
pub struct Call<'a> {
    /// The caller's open file.
    pub file: &'a File,
    /// What it is.
    pub meta: &'a Metadata,
    /// `fsync`, not `fdatasync`.
    pub full: bool,
    /// The process.
    pub process: Process,
    /// The thread.
    pub thread: u32,
}

/// A call that is counted in a log until it leaves. If a bug has it leave by a panic, the log does not wait for it for ever,
/// and believes nothing of it: the next sync calls are the command's own, until one has succeeded.
struct Inside<'a> {
    slot: &'a Slot,
    count: fn(&mut Core) -> &mut u32,
}

impl<'a> Inside<'a> {
    /// Counts the call.
    fn enter(slot: &'a Slot, core: &mut Core, count: fn(&mut Core) -> &mut u32) -> Self {
        *count(core) += 1;
        Self { slot, count }
    }

    /// It leaves.
    fn leave(self, core: &mut Core) {
        *(self.count)(core) -= 1;
        std::mem::forget(self);
    }
}

impl Drop for Inside<'_> {
    /// A panic: whoever had the log's lock has let go of it.
    fn drop(&mut self) {
        let mut core = self.slot.lock();
        *(self.count)(&mut core) -= 1;
        core.engine.passed_by();
        core.used = clock::now();
        self.slot.publish(&mut core);
    }
}

/// Makes the call. What another log has deferred comes first. None if the log was forgotten meanwhile.
pub fn sync(slot: &Slot, call: &Call<'_>) -> Option<Result<(), Errno>> {
    if let Err(errno) = drain_others(slot, call) {
        return Some(Err(errno));
    }
    let mut core = slot.lock();
    if core.retired {
        return None;
    }
    let inside = Inside::enter(slot, &mut core, |core| &mut core.users);
    let (mut core, result) = sync_held(slot, core, call);
    // Somebody has it open.
    core.is_closed = false;
    core.search_pause = Duration::ZERO;
    core.search_at = 0;
    if let Some(recorded) = &slot.recorded {
        recorded.sync_ended(call.full, result);
    }
    inside.leave(&mut core);
    core.used = clock::now();
    slot.publish(&mut core);
    Some(result)
}

/// Makes durable what other logs have deferred.
fn drain_others(slot: &Slot, call: &Call<'_>) -> Result<(), Errno> {
    let result = slot.supervisor.logs.drain_others(Some(slot), Some(call.process));
    if let Some(recorded) = slot.recorded.as_ref().filter(|_| result.is_err()) {
        record::done(Done::Refused);
        recorded.sync_ended(call.full, result);
    }
    result
}

fn sync_held<'a>(
    slot: &'a Slot,
    mut core: Held<'a>,
    call: &Call<'_>,
) -> (Held<'a>, Result<(), Errno>) {
    let (supervisor, policy) = (slot.supervisor, slot.policy());
    if let Some(errno) = supervisor.logs.stopped(supervisor) {
        core.engine.fail(errno);
    }
    // What is not known to have been appended is a barrier: the call syncs.
    let grown = slot.has_grown(&mut core, call.process, call.meta);
    tell_in_place(slot, &mut core, grown);
    if injects(Fault::Uncounted) && grown && call.process.number % 2 == 1 {
        return (core, Ok(()));
    }
    let full = call.full;
    let asks = grown && supervisor.defers();
    let program = policy.program(full).filter(|_| asks);
    // What the engine does not know to have been appended may have been written all the same.
    let direct = slot.recorded.as_ref().map_or(Done::Pass, Recorded::direct);
    if let Some(recorded) = slot.recorded.as_ref().filter(|_| core.engine.error().is_none()) {
        recorded.begins();
    }
    let (number, program) = match (core.engine.enter(full, program.is_some()), program) {
        (Entry::Refused(errno), _) => {
            record::done(Done::Refused);
            if injects(Fault::ToldOnce) {
                core.engine = durac_engine::Log::new(policy.rules);
            }
            return (core, Err(errno));
        }
        (Entry::Ask(call), Some(program)) => (call.number, program),
        (Entry::Direct(_) | Entry::Ask(_), _) => {
            record::done(direct);
            let passed = core.engine.passed();
            let begun = Slot::written_beginnings(&core, call.thread);
            let (mut core, result) = slot.sync(core, Some(call.file), full);
            if result.is_ok() {
                core.engine.direct_done(passed);
                Slot::covers_beginnings(&mut core, &begun);
            }
            return (core, result);
        }
    };
    // From here on the policy is not exchanged.
    let asked = Inside::enter(slot, &mut core, |core| &mut core.asked);
    // A panic lets go of the lock before the call leaves.
    let mut core = core;
    let timed = policy.rules.needs_time();
    let mut at = timed.then(clock::now);
    if let Some(target) = at.and_then(|now| core.engine.overdue(now)) {
        core = slot.wait(core, target);
        at = None;
    }
    let parameters = maps::snapshot(&policy.meta.params, supervisor.page.status);
    let asking = Asking { number, len: None, parameters };
    let ran = program::run(policy, program, slot, core, asking, at);
    let Ran { mut core, verdict, requested, at } = ran;
    asked.leave(&mut core);
    let decision = Decision::from(verdict);
    let asks = requested || decision == Decision::Defer;
    let now: Time = match timed || asks {
        true => at.unwrap_or_else(clock::now),
        false => 0,
    };
    let mut able = core.able();
    // It may have been turned off while the program waited.
    let defers = supervisor.defers();
    able.background &= defers;
    able.descriptor &= defers;
    match core.engine.decide(number, decision, requested, able, now) {
        Answer::Return(result) => {
            record::done(match decision {
                _ if core.engine.error().is_some() => Done::Refused,
                Decision::Fail(_) => Done::Fail,
                Decision::Skip => Done::Skip,
                Decision::Defer | Decision::Pass => Done::Defer,
            });
            if result.is_ok() && (timed || asks) {
                slot.poke(&mut core, now);
                // Nobody would ever sync it.
                if core.syncer == Syncer::Failed {
                    return slot.sync(core, Some(call.file), full);
                }
            }
            (core, result)
        }
        Answer::Sync => slot.sync(core, Some(call.file), full),
    }
}

/// A write of `len` bytes is about to begin: the error that it returns, or none if it runs as the application made it.
/// None if the log was forgotten meanwhile.
pub fn write(slot: &Slot, len: u64) -> Option<Result<(), Errno>> {
    let mut core = slot.lock();
    if core.retired {
        return None;
    }
    let inside = Inside::enter(slot, &mut core, |core| &mut core.users);
    let (mut core, result) = write_held(slot, core, len);
    inside.leave(&mut core);
    core.used = clock::now();
    slot.publish(&mut core);
    Some(result)
}

fn write_held<'a>(slot: &'a Slot, mut core: Held<'a>, len: u64) -> (Held<'a>, Result<(), Errno>) {
    let (supervisor, policy) = (slot.supervisor, slot.policy());
    if let Some(errno) = supervisor.logs.stopped(supervisor) {
        core.engine.fail(errno);
    }
    if let Some(errno) = core.engine.error() {
        record::done(Done::Refused);
        return (core, Err(errno));
    }
    let Some(program) = policy.write.as_ref() else { return (core, Ok(())) };
    if !supervisor.defers() {
        core.engine.passed_by();
        return (core, Ok(()));
    }
    let number = core.engine.upcoming();
    let parameters = maps::snapshot(&policy.meta.params, supervisor.page.status);
    let asking = Asking { number, len: Some(len), parameters };
    let asked = Inside::enter(slot, &mut core, |core| &mut core.asked);
    let Ran { mut core, verdict, .. } = program::run(policy, program, slot, core, asking, None);
    asked.leave(&mut core);
    let able = core.able();
    let result = match core.engine.decide_write(Writing::from(verdict), false, able, 0) {
        Put::Fail(errno) => {
            record::done(if core.engine.error().is_some() { Done::Refused } else { Done::Fail });
            Err(errno)
        }
        Put::Copy | Put::Write => Ok(()),
    };
    (core, result)
}

/// Tells once of a log that does not grow: nothing is deferred on it.
fn tell_in_place(slot: &Slot, core: &mut Held<'_>, grown: bool) {
    if core.in_place == TOLD {
        return;
    }
    core.in_place = if grown { 0 } else { core.in_place + 1 };
    if core.in_place == IN_PLACE {
        core.in_place = TOLD;
        note::info(&format!(
            "{}: the last {IN_PLACE} syncs found nothing appended; such syncs run as the application calls them",
            slot.path
        ));
    }
}
