//! The background syncer: one thread per log, started when something is deferred for the first
//! time. Not earlier: servers fork into the background after they have started.

use crate::clock;
use crate::guard;
use crate::log::{Core, Flying, Slot, Syncer};
use crate::note;
use crate::policy;
use crate::ring::Ring;
use durac_bpf::abi::Engine;
use durac_engine::{Step, Time};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

/// Stack of the thread: it calls the engine and one system call.
const STACK: usize = 128 << 10;

/// How long the thread looks again by itself after it had work. A request that may wait that long
/// need not wake it, and a wake-up costs the application 10 µs.
const LINGER: Time = 2_000_000;

/// Starts the syncer of a log; if that fails, every sync of it is direct from now on.
pub fn start(slot: &'static Slot, core: &mut Core) {
    core.syncer = Syncer::Awake;
    core.users += 1;
    let spawned = without_signals(|| {
        std::thread::Builder::new()
            .name("durac-sync".into())
            .stack_size(STACK)
            .spawn(move || thread(slot))
    });
    if let Err(error) = spawned {
        core.syncer = Syncer::Failed;
        core.users -= 1;
        note::error(&format!("no background sync: {error}; syncs run as the application asks"));
    }
}

/// Runs `body` with all signals blocked, so that a thread it starts inherits that: the
/// application's handlers run on the application's threads.
fn without_signals<T>(body: impl FnOnce() -> T) -> T {
    let mut all = MaybeUninit::uninit();
    let mut old = MaybeUninit::uninit();
    // SAFETY: `sigfillset` fills `all`, `pthread_sigmask` fills `old`, both before their use.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), old.as_mut_ptr());
    }
    let result = body();
    // SAFETY: `old` was filled above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, old.as_ptr(), std::ptr::null_mut()) };
    result
}

fn thread(slot: &'static Slot) {
    let ended = guard::run(|| work(slot));
    let mut core = slot.lock();
    core.users -= 1;
    if ended.is_none() {
        // A bug of ours: what is out will never come home, and nobody may wait for it.
        core.engine.fail(libc::EIO);
        slot.publish(&mut core);
    }
    core.syncer = Syncer::Failed;
    drop(slot.wake_waiters(core));
}

fn work(slot: &'static Slot) {
    let mut core = slot.lock();
    let Some(fd) = core.own_fd else { return };
    let mut ring = own_ring();
    let mut last_work = clock::now();
    while !core.retired {
        let now = clock::now();
        let until = match core.engine.next(now) {
            Step::Start => {
                core = slot.fly(core, fd, Flying::Background(ring.as_mut())).0;
                last_work = clock::now();
                continue;
            }
            Step::At(time) => time,
            Step::Idle if now.saturating_sub(last_work) < LINGER => now + LINGER,
            Step::Idle => Time::MAX,
        };
        core = slot.park(core, now, until);
    }
}

/// A ring, if the policy's bytes are to be written through one.
fn own_ring() -> Option<Ring> {
    static SAID: AtomicBool = AtomicBool::new(false);
    let policy = policy::get().filter(|p| p.rules.stages && p.engine == Engine::IoUring)?;
    match Ring::new() {
        Ok(ring) => Some(ring),
        Err(error) => {
            if !SAID.swap(true, Ordering::Relaxed) {
                let policy = &policy.meta.policy;
                note::error(&format!(
                    "no io_uring: {error}; what `{policy}` stages is written with `write`"
                ));
            }
            None
        }
    }
}
