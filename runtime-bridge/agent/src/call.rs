//! A sync call or a write of the application on a log: runs the policy's program and carries out
//! its verdict.

use crate::clock;
use crate::log::{Core, Held, Kind, Slot};
use crate::notify::Watch;
use crate::policy::{Policy, Program};
use crate::record::{self, Done};
use crate::registry::Registry;
use crate::stage::Pieces;
use crate::sync;
use durac_bpf::abi::{Context, Hook, Reading, Verdict};
use durac_engine::{Answer, Decision, Entry, Errno, Put as Answered, Time, Writing};
use libc::c_int;
use std::cell::Cell;
use std::ptr::null_mut;

/// What the helpers work on while a program runs. The thread holds the log's lock all the time
/// but in a wait: a program is some dozen instructions and was proved to end.
pub struct Current {
    policy: &'static Policy,
    slot: &'static Slot,
    /// None only if a helper panicked.
    core: Option<Held<'static>>,
    /// Number of the call; of the next sync call in a write.
    number: u64,
    /// Whether it is a sync call.
    is_sync: bool,
    /// The program has asked for a background sync.
    requested: bool,
    len: u64,
    context: *mut Context,
}

sync::thread_local! {
    static CURRENT: Cell<*mut Current> = const { Cell::new(null_mut()) };
}

/// Runs `body` on the current call; 0 if there is none.
pub fn with_current(body: impl FnOnce(&mut Current)) -> u64 {
    // SAFETY: only `run_program` sets it, to a call that outlives the program, and takes it away
    // afterwards. Helpers do not nest, so there is no second reference.
    if let Some(current) = unsafe { CURRENT.with(Cell::get).as_mut() } {
        body(current);
    }
    0
}

impl Current {
    /// The helper `durac_request`.
    pub fn request(&mut self) {
        let Some(core) = &mut self.core else { return };
        let now = clock::now();
        if self.is_sync {
            // The syncer is asked when the program waits or has ended: a thread that finds nobody at
            // work syncs itself, and need not have woken another.
            core.engine.request(self.number, now);
            self.requested = true;
        } else {
            core.engine.commit(now);
            self.slot.poke(core, now);
        }
    }

    /// The helper `durac_await`.
    pub fn await_distance(&mut self, distance: u64) {
        let Some(mut core) = self.core.take() else { return };
        // A write is no call that could become durable: it waits for calls before it.
        let distance = if self.is_sync { distance } else { distance.max(1) };
        let target = core.engine.await_target(self.number, distance);
        let waits = !core.engine.is_ready(target);
        if waits {
            self.slot.look(&mut core);
        }
        core = self.slot.wait(core, target);
        self.fill(&mut core, waits);
        self.core = Some(core);
    }

    /// Fills in what the program reads. With `looks`, what the kernel has seen comes first: not while
    /// the call goes on without having waited, so that it reads the same again.
    fn fill(&mut self, core: &mut Core, looks: bool) {
        let reads = |reading| self.policy.reads(reading);
        let needs_now = reads(Reading::Now) || reads(Reading::PendingAge);
        let now = if needs_now { clock::now() } else { 0 };
        if looks {
            self.slot.look(core);
        }
        if reads(Reading::PendingBytes) || reads(Reading::NotifyDone) {
            self.slot.count_written(core);
        }
        let engine = &core.engine;
        let context = Context {
            log: self.slot.index as u64,
            len: self.len,
            now,
            pending: engine.pending(self.number),
            pending_bytes: engine.pending_bytes(),
            pending_age: engine.pending_age(now),
            staged: engine.staged(self.number - u64::from(!self.is_sync)),
            sync_latency: engine.sync_latency(),
            notify_done: engine.notify_done().into(),
            notify_count: core.watch.as_ref().map_or(engine.counters().syncs, Watch::count),
            child_active: (reads(Reading::ChildActive) && crate::children::any()).into(),
        };
        // SAFETY: `run_program` owns the context and outlives the program, and the program does
        // not run now: it has called a helper, or has not begun.
        unsafe { self.context.write(context) };
    }
}

/// Runs a program; [`Verdict::Pass`] if it could not be run to its end. Answers also whether it has
/// asked for a background sync.
fn run_program(
    policy: &'static Policy,
    program: &Program,
    slot: &'static Slot,
    mut core: Held<'static>,
    call: (u64, bool, u64),
) -> (Held<'static>, Verdict, bool) {
    let (number, is_sync, len) = call;
    let mut context = Context::default();
    let context = &raw mut context;
    let requested = false;
    let mut current =
        Current { policy, slot, core: None, number, is_sync, requested, len, context };
    current.fill(&mut core, true);
    current.core = Some(core);
    let before = CURRENT.with(|place| place.replace(&raw mut current));
    // SAFETY: the context lives until the end of this function, and the current call is set.
    let verdict = unsafe { program.run(context) };
    CURRENT.with(|place| place.set(before));
    match current.core.take() {
        Some(core) => (core, verdict, current.requested),
        None => (slot.lock(), Verdict::Pass, false),
    }
}

/// `fsync` or `fdatasync` on a log.
pub fn sync(
    registry: &'static Registry,
    policy: &'static Policy,
    slot: &'static Slot,
    fd: c_int,
    hook: Hook,
) -> Result<(), Errno> {
    // What another log has deferred comes before what this call makes durable.
    crate::order::drain_others(Some(slot))?;
    let mut core = slot.lock();
    core.users += 1;
    let (mut core, result) = sync_held(registry, policy, slot, core, fd, hook);
    core.users -= 1;
    result
}

fn sync_held(
    registry: &'static Registry,
    policy: &'static Policy,
    slot: &'static Slot,
    mut core: Held<'static>,
    fd: c_int,
    hook: Hook,
) -> (Held<'static>, Result<(), Errno>) {
    stop_with_the_others(registry, slot, &mut core);
    slot.count_written(&mut core);
    let kind = if hook == Hook::Fsync { Kind::Full } else { Kind::Data };
    let program = policy.program(hook).filter(|_| !registry.is_closing());
    let (call, program) = match (core.engine.enter(kind == Kind::Full, program.is_some()), program)
    {
        (Entry::Refused(errno), _) => {
            record::done(Done::Refused);
            return (core, Err(errno));
        }
        (Entry::Ask(call), Some(program)) => (call, program),
        (Entry::Direct(call) | Entry::Ask(call), _) => {
            record::done(if call.barrier { Done::Barrier } else { Done::Pass });
            return slot.sync(core, Some(fd), kind);
        }
    };
    let timed = policy.rules.needs_time();
    if timed && let Some(target) = core.engine.overdue(clock::now()) {
        core = slot.wait(core, target);
    }
    let (mut core, verdict, requested) =
        run_program(policy, program, slot, core, (call.number, true, 0));
    stop_with_the_others(registry, slot, &mut core);
    let decision = match verdict {
        Verdict::Fail(errno) => Decision::Fail(errno),
        Verdict::Skip => Decision::Skip,
        Verdict::Defer => Decision::Defer,
        // Also what no runtime has for a sync.
        Verdict::Pass | Verdict::Stage | Verdict::Hold => Decision::Pass,
    };
    let asks = requested || decision == Decision::Defer;
    let now: Time = if timed || asks { clock::now() } else { 0 };
    let mut able = core.able();
    able.background &= !registry.is_closing();
    match core.engine.decide(call.number, decision, requested, able, now) {
        Answer::Return(result) => {
            record::done(match decision {
                _ if core.engine.error().is_some() => Done::Refused,
                Decision::Fail(_) => Done::Fail,
                Decision::Skip => Done::Skip,
                Decision::Defer | Decision::Pass => Done::Defer,
            });
            if result.is_ok() {
                slot.publish(&mut core);
                if timed || asks {
                    slot.poke(&mut core, now);
                }
                if core.is_left_alone(now) {
                    return slot.sync(core, Some(fd), kind);
                }
            }
            (core, result)
        }
        Answer::Sync => slot.sync(core, Some(fd), kind),
    }
}

/// Stops this log if an error has stopped every log.
fn stop_with_the_others(registry: &Registry, slot: &Slot, core: &mut Core) {
    if let Some(errno) = registry.stopped() {
        core.engine.fail(errno);
        slot.publish(core);
    }
}

/// A write on a log.
pub struct Put<'a> {
    /// The policy's program.
    pub program: &'a Program,
    /// How many bytes it writes.
    pub len: u64,
    /// Where they are, if they go where the descriptor stands.
    pub pieces: Option<Pieces>,
}

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It runs as the application made it.
    Not,
    /// Its bytes are kept, so many; it returns their number.
    Kept(u64),
}

/// A write on a log is about to begin: what it does, or the error that it has to return.
pub fn before_write(
    registry: &'static Registry,
    policy: &'static Policy,
    slot: &'static Slot,
    put: &Put<'_>,
) -> Result<Written, Errno> {
    let mut core = slot.lock();
    stop_with_the_others(registry, slot, &mut core);
    if let Some(errno) = core.engine.error() {
        record::done(Done::Refused);
        return Err(errno);
    }
    core.users += 1;
    let (mut core, result) = put_held(registry, policy, slot, core, put);
    core.users -= 1;
    result
}

fn put_held(
    registry: &'static Registry,
    policy: &'static Policy,
    slot: &'static Slot,
    mut core: Held<'static>,
    put: &Put<'_>,
) -> (Held<'static>, Result<Written, Errno>) {
    if policy.rules.stages {
        slot.count_written(&mut core);
    }
    let number = core.engine.upcoming();
    let call = (number, false, put.len);
    let (mut core, verdict, _) = run_program(policy, put.program, slot, core, call);
    let decision = match verdict {
        Verdict::Fail(errno) => Writing::Fail(errno),
        Verdict::Stage => Writing::Stage,
        // Also what no runtime has for a write.
        Verdict::Pass | Verdict::Defer | Verdict::Skip | Verdict::Hold => Writing::Pass,
    };
    let now = if policy.rules.needs_time() && policy.rules.stages { clock::now() } else { 0 };
    let mut able = core.able();
    able.background &= !registry.is_closing();
    let pieces = put.pieces.filter(|_| core.stage.has_room(put.len));
    match (core.engine.decide_write(decision, pieces.is_some(), able, now), pieces) {
        (Answered::Fail(errno), _) => {
            let refused = core.engine.error().is_some();
            record::done(if refused { Done::Refused } else { Done::Fail });
            (core, Err(errno))
        }
        (Answered::Copy, Some(pieces)) => {
            // SAFETY: the application vouches for its bytes as it does to the real function.
            unsafe { core.stage.copy(pieces) };
            slot.add_written(put.len);
            slot.count_written(&mut core);
            record::done(Done::Stage);
            slot.publish(&mut core);
            slot.poke(&mut core, now);
            if core.is_left_alone(now) {
                // An error is the next call's: this one has its success.
                core = slot.write_out(core).0;
            }
            (core, Ok(Written::Kept(put.len)))
        }
        (Answered::Write | Answered::Copy, _) => {
            let (core, result) = match core.stage.is_empty() {
                true => (core, Ok(())),
                false => slot.write_out(core),
            };
            if result.is_err() {
                record::done(Done::Refused);
            }
            (core, result.map(|()| Written::Not))
        }
    }
}

/// The file of a log has changed in a way that no policy is asked about.
pub fn after_change(slot: &Slot) {
    after_write(slot, 1);
    slot.lock().engine.wrote_unasked();
}

/// A write on a log has put `bytes` there.
#[inline]
pub fn after_write(slot: &Slot, bytes: u64) {
    slot.add_written(bytes);
}
