//! Another policy comes in the place of the one that runs, between two calls.
//!
//! Until it is there, no call asks the old policy any more: each is the application's own. So what the old one
//! has acknowledged becomes less, until everything is durable and no program runs. At that moment, with the
//! locks of all logs held, the rules of every log and the policy are exchanged. Up to it the bound of the old
//! policy holds, from it on that of the new one, which begins as with a log that was just opened. Nothing
//! can be lost at any moment that neither of the two may lose.
//!
//! The old policy is never freed: a hook that a signal's handler has left by a jump never tells that it has ended.

use crate::clock;
use crate::fault_injection::{Fault, injects};
use crate::log::{Core, Held, Slot};
use crate::policy::{self, Policy};
use crate::registry::Registry;
use crate::sync;
use durac_abi::MAX_LOGS;
use durac_engine::{Errno, Time};
use std::time::Duration;

/// Between two tries.
const NAP: Duration = Duration::from_micros(200);

/// Why the policy was not exchanged. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unchanged {
    /// A log has failed, or fails now.
    #[error("a log has failed ({})", std::io::Error::from_raw_os_error(*.0))]
    Failed(Errno),
    /// A call of the old policy has not ended.
    #[error("a call did not finish within 10 s (slow disk?)")]
    Busy,
}

/// Puts `next` in the place of the policy that runs. `shown` runs in the moment of the exchange.
///
/// # Errors
/// If a log has failed, or calls of the old policy do not end until then.
pub fn change(
    registry: &'static Registry,
    next: &'static Policy,
    until: Time,
    shown: impl FnOnce(),
) -> Result<(), Unchanged> {
    let _gate = Gate::close(registry);
    // The memory for it now: the application may wait for a log's lock while it holds its allocator's.
    let mut cores: Vec<(&'static Slot, Held<'static>)> = Vec::with_capacity(MAX_LOGS as usize);
    loop {
        for slot in registry.slots().filter(|_| !injects(Fault::HastyChange)) {
            let mut core = slot.lock();
            core.users += 1;
            let (mut core, drained) = slot.drain(core);
            core.users -= 1;
            drop(core);
            drained.map_err(Unchanged::Failed)?;
        }
        // No log is opened or closed meanwhile.
        let files = registry.files();
        cores.extend(registry.slots().map(|slot| (slot, slot.lock())));
        let quiet = |core: &Core| core.asked == 0 && !core.is_dirty();
        if cores.iter().all(|(_, core)| quiet(core)) || injects(Fault::HastyChange) {
            for (slot, core) in cores.iter_mut().filter(|(_, core)| !core.retired) {
                slot.follow(core, next.rules);
                slot.begin_to_look(core, clock::now());
            }
            policy::exchange(next);
            shown();
            return Ok(());
        }
        cores.clear();
        drop(files);
        if clock::now() > until {
            return Err(Unchanged::Busy);
        }
        clock::pause(NAP);
        sync::yield_now();
    }
}

/// While it lives, no call asks the policy.
struct Gate(&'static Registry);

impl Gate {
    fn close(registry: &'static Registry) -> Self {
        registry.slots().for_each(|slot| slot.lock().changing = true);
        Self(registry)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.0.slots().for_each(|slot| slot.lock().changing = false);
    }
}
