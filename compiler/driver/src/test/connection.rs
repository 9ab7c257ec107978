//! What belongs to connections and to no log: replies and turns of an event loop.

use super::check::Does;
use super::run::Runner;
use durac_abi::{Context, Hook, READING_MOST, Verdict};
use durac_prove::machine::{Ended, MachineError, Memory, World};

impl Runner<'_> {
    /// The application writes to a connection. What is held asks for a sync of all that is written.
    pub(super) fn reply(&mut self, bytes: u64, clean: bool) -> Result<Does, MachineError> {
        self.count();
        let context = Context {
            len: bytes.min(READING_MOST),
            // What is durable is clean, whoever asks.
            reply_clean: (clean || self.log.covered() >= self.log.written()).into(),
            ..Context::default()
        };
        if self.connection(Hook::Reply, context)? != Verdict::Hold {
            return Ok(Does::Passes);
        }
        if self.log.error().is_some() {
            self.why = Some("a sync has failed: what waits for it is never sent".to_owned());
            return Ok(Does::Holds);
        }
        if self.log.covered() >= self.log.written() {
            self.why = Some("everything written is durable: nothing has to be held".to_owned());
            return Ok(Does::Passes);
        }
        self.log.hold(self.log.written(), self.now);
        Ok(Does::Holds)
    }

    /// An event loop has waited, and hopes for more than this.
    pub(super) fn turn(&mut self, ready: u64) -> Result<Does, MachineError> {
        let context = Context { ready: ready.min(READING_MOST), ..Context::default() };
        Ok(match self.connection(Hook::Turn, context)? {
            Verdict::Gather(_) => Does::Gathers,
            _ => Does::Passes,
        })
    }

    /// Runs a program that belongs to no log.
    fn connection(&mut self, hook: Hook, context: Context) -> Result<Verdict, MachineError> {
        let context = Context { child_active: (self.children > 0).into(), ..context };
        let memory = self.machine.memory();
        memory.set_params(&self.params);
        memory.set_context(context);
        let mut seen = Seen { reached: &mut self.reached };
        match self.machine.run(hook, &mut seen)? {
            Ended::Verdict(verdict) => Ok(verdict),
            // It has no wait.
            Ended::Parked => Ok(Verdict::Pass),
        }
    }
}

/// Notes the probes.
struct Seen<'a> {
    reached: &'a mut Vec<u64>,
}

impl World for Seen<'_> {
    fn request(&mut self) {}

    fn wait(&mut self, _: u64, _: &Memory) -> bool {
        false
    }

    fn reached(&mut self, place: u64) {
        self.reached.push(place);
    }
}
