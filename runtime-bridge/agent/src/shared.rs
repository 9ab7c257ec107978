//! A log that others write, or may write, beside the agent: nothing of it is staged any more, and while another process
//! under the agent has it open nothing is deferred.

use crate::log::Slot;
use crate::note;
use crate::records;
use crate::signals;
use crate::stage::StageOff;
use crate::sync::atomic::Ordering;

impl Slot {
    /// Nothing of the file is staged from now on: what is staged is written.
    pub fn revoke(&'static self, why: StageOff) {
        records::lost_by(why, &self.written);
        let mut core = self.lock();
        let stages = core.engine.rules().stages;
        let turned = core.stage.turn_off(why);
        if !turned && why != StageOff::OtherProcess {
            return;
        }
        self.publish(&mut core);
        drop(core);
        // The next call returns the error.
        let _ = self.settle();
        if why == StageOff::OtherProcess {
            let why = match self.crowd.has_no_entry() {
                true => "the table of all processes' logs has no room for it",
                false => "another process has the log open",
            };
            note::info(&format!(
                "{}: {why}; its syncs run as the application calls them",
                self.status.path(self.index)
            ));
        } else if stages {
            note::info(&format!(
                "{}: writes are no longer staged: {why}",
                self.status.path(self.index)
            ));
        }
    }

    /// Whether another process has the log open: told when it is first seen.
    #[inline]
    pub fn is_shared(&'static self) -> bool {
        if !self.crowd.is_crowded() {
            return false;
        }
        if !self.told_crowd.swap(true, Ordering::Relaxed) {
            self.revoke(StageOff::OtherProcess);
        }
        let gone = !signals::may_be_in_handler() && self.crowd.are_others_gone();
        if gone && self.told_crowd.swap(false, Ordering::Relaxed) {
            self.publish(&mut self.lock());
            note::aside(&format!(
                "{}: no other process has the log open any more",
                self.status.path(self.index)
            ));
        }
        !gone
    }

    /// Whether another process under the agent has the log open.
    pub fn is_crowded(&self) -> bool {
        self.crowd.is_crowded()
    }
}
