//! Another policy comes in the place of the one that runs, between two calls.
//!
//! As in the agent: until it is there, no call asks the old policy any more. Each is the command's own, so what the old
//! one has acknowledged becomes less. In a moment in which no program runs and nothing is acknowledged and not
//! durable, with the locks of all logs held, the policy and the rules of every log are exchanged. Up to it the bound of
//! the old policy holds, and from it on that of the new one, which begins as with a log that was just opened.
//!
//! The old policy is never freed: others may read it without a lock.

use crate::clock;
use crate::fault_injection::{Fault, injects};
use crate::load::{self, Policy};
use crate::log::{Held, Slot, Syncer};
use crate::note;
use crate::page::{self, Force, Off};
use crate::serve::Supervisor;
use durac_engine::{Drain, Errno, Time};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Between two tries.
const NAP: Duration = Duration::from_micros(200);
/// How long calls of the old policy may take to end, nanoseconds.
pub const PATIENCE: Time = 10_000_000_000;

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

/// A log, and its lock.
pub type Locked<'a> = (&'a Slot, Held<'a>);

/// While it lives, no call is deferred.
pub struct Gate<'a>(&'a AtomicBool);

impl<'a> Gate<'a> {
    /// From now on.
    pub fn close(supervisor: &'a Supervisor) -> Self {
        supervisor.is_changing.store(true, Ordering::Release);
        Self(&supervisor.is_changing)
    }
}

impl Drop for Gate<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Supervisor {
    /// Puts the policy of an object in the place of the one that runs. Returns what there is to tell.
    ///
    /// # Errors
    /// Why it cannot come. Nothing has changed then.
    pub fn reload(&'static self, bytes: Vec<u8>) -> Result<String, String> {
        if self.stays_off() {
            return Err("the policy is off for the rest of this command".to_owned());
        }
        let next = load::admit(bytes).map_err(|why| why.to_string())?;
        self.fits(&next)?;
        let before = page::summary(self.policy(), Force { off: Off::No, ..self.force() });
        let next = &*Box::leak(Box::new(next));
        self.exchange(next).map_err(|why| why.to_string())?;
        note::info(&format!(
            "{before} → {}; until now everything acknowledged is durable",
            page::summary(next, Force { off: Off::No, ..self.force() })
        ));
        let mut text = String::new();
        for slot in self.logs.all().iter().filter(|slot| slot.is_counted_late()) {
            text.push_str(&format!(
                "{}: what is written is counted, and calls sync until then, from the next log on\n",
                slot.path
            ));
        }
        Ok(text)
    }

    /// Whether a policy can come without a restart of the command.
    fn fits(&self, next: &Policy) -> Result<(), String> {
        let (old, new) = (&self.policy().meta, &next.meta);
        let same = old.target == new.target
            && old.files == new.files
            && old.except == new.except
            && old.entries == new.entries
            && old.callers == new.callers
            && old.protects == new.protects
            && old.layout == new.layout;
        if !same {
            return Err(format!(
                "it is for target `{}`, and the command runs under `{}`: this needs a restart",
                new.target, old.target
            ));
        }
        // The filter of the command cannot be changed.
        if next.asked.writes && !self.asked.writes {
            return Err("it needs to see writes, and the command was started with a policy that does not: this needs a restart".to_owned());
        }
        if next.asked.opens && !self.asked.opens {
            return Err("it needs to see which files are opened, and the command was started with a policy that does not: this needs a restart".to_owned());
        }
        if let Some(why) = self.cannot_run(next) {
            return Err(format!("{why}: this needs a restart"));
        }
        Ok(())
    }

    /// What has happened that a policy could not run behind.
    fn cannot_run(&self, next: &Policy) -> Option<&'static str> {
        if self.is_unordered.load(Ordering::SeqCst) && next.can_be_off() {
            return Some(
                "something was done that cannot be ordered behind what it defers (a file opened with O_SYNC, a protected file that is mapped or spliced to, or SIGTERM)",
            );
        }
        let mapped = self.is_mapped.load(Ordering::SeqCst) && next.sees_writes();
        mapped.then_some("a log is mapped to be written: those writes cannot be seen")
    }

    fn exchange(&'static self, next: &'static Policy) -> Result<(), Unchanged> {
        let _gate = Gate::close(self);
        // A file whose server hangs is waited for here, where no lock is held.
        self.logs.all().iter().for_each(|slot| slot.look());
        let until = clock::now().saturating_add(PATIENCE);
        self.in_quiet(until, |logs| {
            // It would stop at once.
            if let Some(errno) = self.logs.stopped_by(next) {
                return Err(Unchanged::Failed(errno));
            }
            let now = clock::now();
            // What was written since the last look is found by the old policy, and keeps its deadline.
            logs.iter_mut().for_each(|(slot, core)| slot.look_locked(core, now));
            let looked = self.looks();
            self.exchange_policy(next);
            self.switch_on();
            let spared = usize::from(injects(Fault::OldRules));
            for (slot, core) in logs.iter_mut().skip(spared) {
                slot.follow(core, next, looked);
            }
            self.page.publish_policy(|| (next, Force { off: Off::No, ..self.force() }));
            Ok(())
        })??;
        // Before it was seen, or while.
        if let Some(why) = self.cannot_run(next) {
            self.turn_off(why);
        }
        // And what that look has found is durable, too.
        let _ = self.in_quiet(until, |_| ());
        // Something may have happened meanwhile.
        if self.force() != Force::WHOLE {
            self.publish_force();
        }
        Ok(())
    }

    /// Runs `body` with the locks of all logs, in a moment in which no program runs and nothing is acknowledged and not
    /// durable. The caller keeps new calls from being deferred.
    pub fn in_quiet<T>(
        &'static self,
        until: Time,
        body: impl FnOnce(&mut Vec<Locked<'_>>) -> T,
    ) -> Result<T, Unchanged> {
        loop {
            let slots = self.logs.lock();
            let all: Vec<Arc<Slot>> = slots.values().cloned().collect();
            let mut logs: Vec<Locked<'_>> = all.iter().map(|slot| (&**slot, slot.lock())).collect();
            let mut is_quiet = true;
            for (slot, core) in &mut logs {
                let durable = match core.engine.drain() {
                    _ if injects(Fault::HastyChange) => true,
                    Drain::Done => true,
                    Drain::Failed(errno) => return Err(Unchanged::Failed(errno)),
                    Drain::Wait(target) => {
                        core.engine.demand(target);
                        false
                    }
                    Drain::Sync => {
                        let target = core.engine.undrained().unwrap_or(0);
                        core.engine.demand(target);
                        false
                    }
                };
                if !durable {
                    slot.poke(core, clock::now());
                }
                is_quiet &= durable && core.asked == 0;
            }
            if is_quiet {
                return Ok(body(&mut logs));
            }
            // Nobody syncs in the background.
            let alone = |(_, core): &&Locked<'_>| {
                core.syncer == Syncer::Failed && core.engine.undrained().is_some()
            };
            let alone = logs.iter().find(alone).map(|(slot, _)| slot.index);
            drop(logs);
            drop(slots);
            if let Some(slot) = all.iter().find(|slot| Some(slot.index) == alone) {
                let _ = slot.drain(slot.lock());
            }
            if clock::now() > until {
                return Err(Unchanged::Busy);
            }
            std::thread::sleep(NAP);
        }
    }
}
