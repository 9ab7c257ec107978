//! A sync call or a write of the application on a log: runs the policy's program and carries out
//! its verdict.

use crate::clock;
use crate::family;
use crate::fault_injection::{Fault, injects};
use crate::flight::Kind;
use crate::log::{Core, Held, Slot};
use crate::maps::MapArea;
use crate::note;
use crate::policy::{self, Policy, Program};
use crate::record::{self, Done};
use crate::registry::Registry;
use crate::stage::{self, Pieces};
use crate::sync;
use crate::watch::Watch;
use durac_abi::{CLOCK_MOST, Callers, Context, Hook, READING_MOST, Reading, Verdict};
use durac_engine::{Able, Answer, Decision, Entry, Errno, Put as Answered, Time, Writing};
use durac_shm::status::{MAX_PARAMS, Uncounted};
use libc::c_int;
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

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
    updates: u64,
    /// The time, if somebody has looked since the call began or last waited. What is overdue, what the program reads and
    /// when the call is acknowledged are of one instant, which the proof relies on.
    at: Option<Time>,
    context: *mut Context,
    /// The parameters as they were when the call began.
    params: [MaybeUninit<u64>; MAX_PARAMS],
}

sync::zeroed_thread_local! {
    static CURRENT: Cell<*mut Current>;
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

/// Where the current call keeps its parameters, if that map holds them: it sees one value of each from its
/// beginning to its end, which the proof relies on.
pub fn parameters(map: &MapArea) -> Option<*mut u8> {
    // SAFETY: as in `with_current`; the address is read by the program of this call only.
    let current = unsafe { CURRENT.with(Cell::get).as_mut() }?;
    let params = current.policy.params?;
    std::ptr::eq(params, map).then(|| current.params.as_mut_ptr().cast())
}

impl Current {
    /// The helper `durac_request`.
    pub fn request(&mut self) {
        let Some(mut core) = self.core.take() else { return };
        if !self.is_sync {
            let now = self.now();
            core.engine.commit(now);
            self.slot.poke(&mut core, now);
        } else {
            // The syncer is asked when the program waits or has ended: a thread that finds nobody at
            // work syncs itself, and need not have woken another.
            match core.engine.times_requests() {
                true => core.engine.request(self.number, self.now()),
                false => core.engine.request_untimed(self.number),
            }
            self.requested = true;
        }
        self.core = Some(core);
    }

    /// The helper `durac_await`.
    pub fn await_distance(&mut self, distance: u64) {
        let Some(mut core) = self.core.take() else { return };
        // A write never becomes durable itself: it waits for calls before it.
        let distance = if self.is_sync { distance } else { distance.max(1) };
        let target = core.engine.await_target(self.number, distance);
        let waits = !core.engine.is_ready(target);
        if waits {
            self.slot.look(&mut core);
        }
        core = self.slot.wait(core, target);
        if waits {
            self.at = None;
        }
        self.fill(&mut core, waits);
        self.core = Some(core);
    }

    /// The time of this call, as good as now.
    fn now(&mut self) -> Time {
        *self.at.get_or_insert_with(clock::now)
    }

    /// Fills in what the program reads: nothing, if it reads nothing, which the verifier has seen to. With
    /// `looks`, what the kernel has seen comes first: not while the call goes on without having waited, so
    /// that it reads the same again.
    #[inline]
    fn fill(&mut self, core: &mut Core, looks: bool) {
        if injects(Fault::LiveParameters)
            && let Some(map) = self.policy.params
        {
            map.snapshot(&mut self.params);
        }
        if self.policy.reads_anything() {
            self.fill_readings(core, looks);
        } else if looks {
            self.slot.look(core);
        }
    }

    fn fill_readings(&mut self, core: &mut Core, looks: bool) {
        let reads = |reading| self.policy.reads(reading);
        let needs_now = reads(Reading::Now) || reads(Reading::PendingAge);
        let now = if needs_now { self.now() } else { 0 };
        if looks {
            self.slot.look(core);
        }
        if self.policy.rules.keeps_amounts || reads(Reading::NotifyDone) {
            self.slot.count_written(core);
        }
        let syncs = core.engine.counters().syncs;
        let notify_count = core.watch.as_mut().map_or(syncs, Watch::count);
        let engine = &core.engine;
        let context = Context {
            log: self.slot.index as u64,
            len: self.len.min(READING_MOST),
            now: now.min(CLOCK_MOST),
            pending: engine.pending(self.number),
            pending_bytes: engine.read_bytes(),
            pending_age: engine.pending_age(now).min(READING_MOST),
            staged: engine.staged(self.number - u64::from(!self.is_sync)),
            sync_latency: engine.sync_latency().min(READING_MOST),
            notify_done: engine.notify_done().into(),
            notify_count,
            child_active: (reads(Reading::ChildActive) && crate::children::any()).into(),
            pending_updates: engine.read_updates(),
            updates: self.updates.min(READING_MOST),
            ready: 0,
            reply_clean: 0,
        };
        // SAFETY: `run_program` owns the context and outlives the program, and the program does
        // not run now: it has called a helper, or has not begun.
        unsafe { self.context.write(context) };
    }
}

/// Runs a program; [`Verdict::Pass`] if it could not be run to its end. `at` is the time, if it is known.
fn run_program(
    policy: &'static Policy,
    program: &Program,
    slot: &'static Slot,
    mut core: Held<'static>,
    call: (u64, bool, u64, u64),
    at: Option<Time>,
) -> Ran {
    let (number, is_sync, len, updates) = call;
    let mut context = Context::default();
    let context = &raw mut context;
    let requested = false;
    let params = [const { MaybeUninit::uninit() }; MAX_PARAMS];
    let mut current = Current {
        policy,
        slot,
        core: None,
        number,
        is_sync,
        requested,
        len,
        updates,
        at,
        context,
        params,
    };
    if let Some(map) = policy.params {
        map.snapshot(&mut current.params);
    }
    current.fill(&mut core, true);
    current.core = Some(core);
    let before = CURRENT.with(|place| place.replace(&raw mut current));
    // SAFETY: the context lives until the end of this function, and the current call is set.
    let verdict = unsafe { program.run(context) };
    CURRENT.with(|place| place.set(before));
    match current.core.take() {
        Some(core) => Ran { core, verdict, requested: current.requested, at: current.at },
        None => Ran { core: slot.lock(), verdict: Verdict::Pass, requested: false, at: None },
    }
}

/// A program that has run.
struct Ran {
    core: Held<'static>,
    verdict: Verdict,
    /// It has asked for a background sync.
    requested: bool,
    /// The time, if it is still known.
    at: Option<Time>,
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
    let shared = slot.is_shared();
    let mut core = slot.lock();
    let policy = in_force(policy);
    core.users += 1;
    core.calls += 1;
    let (mut core, result) = sync_held(registry, policy, slot, core, (fd, hook, shared));
    core.calls -= 1;
    core.users -= 1;
    result
}

/// The policy by whose rules a log goes whose lock is held: another may have come since the call began.
fn in_force(policy: &'static Policy) -> &'static Policy {
    policy::loaded().unwrap_or(policy)
}

/// Whether this call overlaps another on a target with `callers one`. It then passes and is counted: the
/// proof follows one caller, and a call must not change what the program keeps while another waits.
fn overlaps(policy: &Policy, slot: &Slot, core: &mut Core) -> bool {
    let overlaps = policy.meta.callers == Callers::One && (core.calls > 1 || slot.is_writing());
    if !overlaps || injects(Fault::Overlap) {
        return false;
    }
    core.overlaps += 1;
    if !TOLD_OF_OVERLAP.swap(true, Ordering::Relaxed) {
        note::info("calls on one log overlap, and the target has `callers one`: those pass");
    }
    true
}

static TOLD_OF_OVERLAP: AtomicBool = AtomicBool::new(false);

fn sync_held(
    registry: &'static Registry,
    policy: &'static Policy,
    slot: &'static Slot,
    mut core: Held<'static>,
    (fd, hook, shared): (c_int, Hook, bool),
) -> (Held<'static>, Result<(), Errno>) {
    stop_with_the_others(registry, slot, &mut core);
    slot.called();
    slot.count_written(&mut core);
    let kind = if hook == Hook::Fsync { Kind::Full } else { Kind::Data };
    let overlaps = overlaps(policy, slot, &mut core);
    let asks = !shared && !overlaps && !core.changing && !registry.is_closing();
    let program = policy.program(hook).filter(|_| asks);
    // A write that has not ended may come after what the sync makes durable.
    let passed = if slot.is_writing() { 0 } else { core.engine.passed() };
    let (call, program) = match (core.engine.enter(kind == Kind::Full, program.is_some()), program)
    {
        (Entry::Refused(errno), _) => {
            record::done(Done::Refused);
            return (core, Err(errno));
        }
        (Entry::Ask(call), Some(program)) => (call, program),
        (Entry::Direct(call) | Entry::Ask(call), _) => {
            record::done(if call.barrier { Done::Barrier } else { Done::Pass });
            let (mut core, result) = slot.sync(core, Some(fd), kind);
            if result.is_ok() {
                core.engine.direct_done(passed);
            }
            return (core, result);
        }
    };
    // Until its verdict is carried out, no other policy comes.
    core.asked += 1;
    let timed = policy.rules.needs_time();
    let mut at = timed.then(clock::now);
    if let Some(target) = at.and_then(|now| core.engine.overdue(now)) {
        core = slot.wait(core, target);
        at = None;
    }
    let ran = run_program(policy, program, slot, core, (call.number, true, 0, 0), at);
    let Ran { mut core, verdict, requested, mut at } = ran;
    if injects(Fault::LateTime) {
        crate::sys::sleep(15_000_000);
        at = None;
    }
    core.asked = core.asked.saturating_sub(1);
    stop_with_the_others(registry, slot, &mut core);
    let decision = Decision::from(verdict);
    let asks = requested || decision == Decision::Defer;
    let needs_now = timed || asks && (!requested || core.engine.times_requests());
    let now: Time = if needs_now { at.unwrap_or_else(clock::now) } else { at.unwrap_or(0) };
    let mut able = able(registry, &core);
    if policy.rules.holds_replies && asks && core.syncs_in_call(now) {
        able.background = false;
    }
    match core.engine.decide(call.number, decision, requested, able, now) {
        Answer::Return(result) => {
            record::done(match decision {
                _ if core.engine.error().is_some() => Done::Refused,
                Decision::Fail(_) => Done::Fail,
                Decision::Skip => Done::Skip,
                Decision::Defer | Decision::Pass => Done::Defer,
            });
            if result.is_ok() {
                if call.number > core.engine.durable() {
                    core.deadlines.acknowledged(call.number, now);
                }
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
        Answer::Sync => {
            let (mut core, result) = slot.sync(core, Some(fd), kind);
            // What the program keeps says that this call was durable, as of a write that passed by: the next
            // calls sync, until one has succeeded.
            if result.is_err() && core.engine.error().is_none() {
                core.engine.passed_by();
            }
            (core, result)
        }
    }
}

/// What there is to work with: nothing, if the process ends before it is used.
fn able(registry: &Registry, core: &Core) -> Able {
    match registry.is_closing() {
        true => Able { descriptor: false, background: false },
        false => core.able(),
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
    /// How many updates it completes.
    pub updates: u64,
    /// Where they are, if they go to the position of the descriptor.
    pub pieces: Option<Pieces>,
}

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It runs as the application made it.
    Not,
    /// The same, and [`write_ended`] is called after it.
    Counted,
    /// Its bytes are kept; it returns their number.
    Kept(u64),
}

/// A write on a log is about to begin: what it does, or the error that it has to return.
pub fn before_write(
    registry: &'static Registry,
    policy: &'static Policy,
    slot: &'static Slot,
    put: &Put<'_>,
) -> Result<Written, Errno> {
    // Staging ends with it.
    slot.is_shared();
    let mut core = slot.lock();
    stop_with_the_others(registry, slot, &mut core);
    if let Some(errno) = core.engine.error() {
        record::done(Done::Refused);
        return Err(errno);
    }
    core.users += 1;
    core.calls += 1;
    // The program was another policy's, and what it was told is what that one reads.
    let passes = core.changing || !std::ptr::eq(in_force(policy), policy);
    let (mut core, result) = match overlaps(policy, slot, &mut core) || passes {
        true => pass_by(slot, core),
        false => put_held(registry, policy, slot, core, put),
    };
    core.calls -= 1;
    core.users -= 1;
    match result {
        Ok(Written::Not) if policy.meta.callers == Callers::One => {
            slot.writing.fetch_add(1, Ordering::Relaxed);
            Ok(Written::Counted)
        }
        result => result,
    }
}

/// A write that was [`Written::Counted`] has ended. Its thread was inside the agent all the time, and so has not
/// left it in another way.
pub fn write_ended(slot: &Slot) {
    slot.writing.fetch_sub(1, Ordering::Release);
}

/// A write that overlaps another call: it runs as the application made it, after what is staged.
fn pass_by(
    slot: &'static Slot,
    mut core: Held<'static>,
) -> (Held<'static>, Result<Written, Errno>) {
    core.engine.passed_by();
    slot.publish(&mut core);
    record::done(Done::Pass);
    let (core, result) = match core.stage.is_empty() {
        true => (core, Ok(())),
        false => slot.write_out(core),
    };
    (core, result.map(|()| Written::Not))
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
    let call = (number, false, put.len, put.updates);
    core.asked += 1;
    let Ran { mut core, verdict, at, .. } =
        run_program(policy, put.program, slot, core, call, None);
    core.asked = core.asked.saturating_sub(1);
    let decision = Writing::from(verdict);
    let timed = policy.rules.needs_time() && policy.rules.stages;
    let now = if timed { at.unwrap_or_else(clock::now) } else { 0 };
    let able = able(registry, &core);
    // A child has the file open: it could see that bytes are missing, or write where they belong.
    let shared = registry.children.share_files() || family::has_spread();
    let fits = decision == Writing::Stage && !shared && core.stage.has_room(put.len)
        // The first of a batch: the others follow it before the limit can change (`setrlimit` has a hook).
        && !(core.stage.is_empty() && stage::has_size_limit());
    let pieces = put.pieces.filter(|pieces| fits && pieces.are_readable());
    match (core.engine.decide_write(decision, pieces.is_some(), able, now), pieces) {
        (Answered::Fail(errno), _) => {
            let refused = core.engine.error().is_some();
            record::done(if refused { Done::Refused } else { Done::Fail });
            (core, Err(errno))
        }
        (Answered::Copy, Some(pieces)) => {
            // SAFETY: the pieces were found readable above.
            let kept = unsafe { core.stage.copy(pieces, put.len) };
            slot.add_written(kept);
            slot.count_written(&mut core);
            record::done(Done::Stage);
            slot.publish(&mut core);
            slot.poke(&mut core, now);
            if core.is_left_alone(now) {
                // An error is the next call's: this one has its success.
                core = slot.write_out(core).0;
            }
            (core, Ok(Written::Kept(kept)))
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

/// The file of a log has changed in a way that no policy decides. What a program keeps that runs for each write
/// says nothing of it.
pub fn after_change(slot: &Slot, policy: Option<&Policy>) {
    after_write(slot, 1);
    slot.written.lose_sight(Uncounted::Place);
    passed_by(&mut slot.lock(), policy);
}

/// Something was written that no program has seen.
pub fn passed_by(core: &mut Core, policy: Option<&Policy>) {
    match policy.is_some_and(|policy| policy.program(Hook::Write).is_some()) {
        true => core.engine.passed_by(),
        false => core.engine.wrote_unasked(),
    }
}

/// A write has ended that no program has seen. If the policy was exchanged meanwhile, the new one may have one that
/// should have.
#[inline]
pub fn after_plain_write(slot: &Slot, policy: &'static Policy) {
    if !std::ptr::eq(in_force(policy), policy) {
        slot.lock().engine.passed_by();
    }
}

/// A write on a log has put `bytes` there.
#[inline]
pub fn after_write(slot: &Slot, bytes: u64) {
    slot.add_written(bytes);
}
