//! Runs a policy's program on a call, and gives it its helpers.

use crate::clock;
use crate::fault_injection::{self, Fault, injects};
use crate::load::Policy;
use crate::log::{Held, Slot};
use crate::maps::MapArea;
use durac_abi::{CLOCK_MOST, Context, Helper, READING_MOST, Reading, Verdict};
use durac_engine::Time;
use durac_jit::{Code, HelperCode, entry};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;

/// Every helper, as the JIT compiler takes them.
pub const HELPERS: &[(Helper, HelperCode)] =
    &[(Helper::MapLookup, map_lookup), (Helper::Request, request), (Helper::Await, await_distance)];

entry!(map_lookup => map_lookup_body);
entry!(request => request_body);
entry!(await_distance => await_body);

unsafe extern "C" fn map_lookup_body(map: u64, key: u64) -> u64 {
    // SAFETY: the verifier has proved that the first argument is a map's address, put into the
    // code by the loader, and the second points to four readable bytes of the stack.
    let (map, key) = unsafe { (&*(map as *const MapArea), (key as *const u32).read_unaligned()) };
    if !map.is_parameters || key != 0 {
        return map.lookup(key) as u64;
    }
    // SAFETY: as in `with_current`; the address is read by the program of this call only.
    match unsafe { CURRENT.get().as_mut() } {
        Some(current) => current.parameters.as_mut_ptr() as u64,
        None => map.lookup(key) as u64,
    }
}

unsafe extern "C" fn request_body() -> u64 {
    catch_unwind(|| with_current(Current::request)).unwrap_or(0)
}

unsafe extern "C" fn await_body(distance: u64) -> u64 {
    let body = AssertUnwindSafe(|| with_current(|current| current.await_distance(distance)));
    catch_unwind(body).unwrap_or(0)
}

thread_local! {
    static CURRENT: Cell<*mut Current<'static>> = const { Cell::new(null_mut()) };
}

/// Runs `body` on the current call; 0 if there is none.
fn with_current(body: impl FnOnce(&mut Current<'static>)) -> u64 {
    // SAFETY: only `run` sets it, to a call that outlives the program, and takes it away afterwards. Helpers do not
    // nest, so there is no second reference.
    if let Some(current) = unsafe { CURRENT.get().as_mut() } {
        body(current);
    }
    0
}

/// What the helpers work on while a program runs. The thread holds the log's lock all the time but in a wait.
struct Current<'a> {
    policy: &'a Policy,
    slot: &'a Slot,
    /// None only if a helper panicked.
    core: Option<Held<'a>>,
    /// Number of the call; of the next sync call in a write.
    number: u64,
    /// The bytes of a write; none of a sync call.
    len: Option<u64>,
    requested: bool,
    /// The time, if somebody has looked since the call began or last waited: what is overdue, what the program reads and
    /// when the call is acknowledged are of one instant, which the proof relies on.
    at: Option<Time>,
    context: *mut Context,
    /// The parameters as they were when the call began: it sees one value of each to its end, which the proof
    /// relies on.
    parameters: Vec<u64>,
}

impl Current<'_> {
    fn request(&mut self) {
        let Some(core) = &mut self.core else { return };
        let now = *self.at.get_or_insert_with(clock::now);
        if self.len.is_some() {
            core.engine.commit(now);
            self.slot.poke(core, now);
            return;
        }
        core.engine.request(self.number, now);
        self.requested = true;
    }

    fn await_distance(&mut self, distance: u64) {
        let Some(mut core) = self.core.take() else { return };
        // A write never becomes durable itself: it waits for calls before it.
        let distance = if self.len.is_some() { distance.max(1) } else { distance };
        let target = core.engine.await_target(self.number, distance);
        if !core.engine.is_ready(target) && !injects(Fault::NoWait) {
            core = self.slot.wait(core, target);
            self.at = None;
        }
        self.fill(&core);
        self.core = Some(core);
    }

    /// Fills in what the program reads.
    fn fill(&mut self, core: &Held<'_>) {
        let timed = self.policy.reads(Reading::Now) || self.policy.reads(Reading::PendingAge);
        let now: Time = if timed { *self.at.get_or_insert_with(clock::now) } else { 0 };
        let engine = &core.engine;
        let context = Context {
            log: self.slot.index as u64,
            now: now.min(CLOCK_MOST),
            pending: engine.pending(self.number),
            pending_age: engine.pending_age(now).min(READING_MOST),
            sync_latency: engine.sync_latency().min(READING_MOST),
            notify_done: engine.notify_done().into(),
            notify_count: engine.counters().syncs,
            len: self.len.unwrap_or(0).min(READING_MOST),
            pending_bytes: core.pending_bytes(),
            // The compiler makes no program that reads the others.
            pending_updates: READING_MOST,
            ..Context::default()
        };
        // SAFETY: `run` owns the context and outlives the program, and the program does not run now: it has called
        // a helper, or has not begun.
        unsafe { self.context.write(context) };
    }
}

/// A program that has run.
pub struct Ran<'a> {
    /// The lock.
    pub core: Held<'a>,
    /// What it decided; [`Verdict::Pass`] if it could not be run to its end.
    pub verdict: Verdict,
    /// It has asked for a background sync.
    pub requested: bool,
    /// The time, if it is still known.
    pub at: Option<Time>,
}

/// The call that a program runs for.
pub struct Asking {
    /// Its number; that of the next sync call in a write.
    pub number: u64,
    /// The bytes of a write; none of a sync call.
    pub len: Option<u64>,
    /// The parameters.
    pub parameters: Vec<u64>,
}

/// Runs a program.
pub fn run<'a>(
    policy: &'a Policy,
    program: &Code,
    slot: &'a Slot,
    core: Held<'a>,
    asking: Asking,
    at: Option<Time>,
) -> Ran<'a> {
    let mut context = Context::default();
    let context = &raw mut context;
    let Asking { number, len, parameters } = asking;
    let requested = false;
    fault_injection::panics(Fault::PanicInProgram, |run| run % 5 == 0);
    let mut current =
        Current { policy, slot, core: None, number, len, requested, at, context, parameters };
    current.fill(&core);
    current.core = Some(core);
    let before = CURRENT.replace((&raw mut current).cast());
    // SAFETY: only verified programs are compiled; the context lives until the end of this function, and the
    // current call is set.
    let verdict = unsafe { program.run(context.cast(), size_of::<Context>()) };
    CURRENT.set(before);
    match current.core.take() {
        Some(core) => Ran { core, verdict, requested: current.requested, at: current.at },
        None => Ran { core: slot.lock(), verdict: Verdict::Pass, requested: false, at: None },
    }
}
