//! What goes wrong, and how long things take.

use std::time::Duration;

/// An operation that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `write` and its like.
    Write,
    /// `fsync`, `fdatasync`.
    Sync,
}

/// A fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What fails.
    pub op: Op,
    /// Only on files whose path contains this.
    pub path: String,
    /// So many operations go well before.
    pub after: u64,
    /// So many fail; all later ones if `None`.
    pub times: Option<u64>,
    /// What happens to them.
    pub effect: Effect,
}

/// What a fault does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The operation fails with this errno.
    Fail(i32),
    /// A write of more than one byte writes the first half.
    Short,
    /// It takes so much longer.
    Slow(Duration),
}

/// How the file system behaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// How long a sync takes.
    pub latency: Duration,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// Bytes that fit; any number if `None`. What does not fit is `ENOSPC`.
    pub room: Option<u64>,
}

/// Counts operations against a plan.
#[derive(Debug)]
pub(crate) struct Counted {
    plan: Plan,
    seen: Vec<u64>,
    /// Operations that a fault has met.
    pub(crate) met: u64,
}

impl Counted {
    pub(crate) fn new(plan: Plan) -> Self {
        let seen = vec![0; plan.faults.len()];
        Self { plan, seen, met: 0 }
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// One more operation; answers what happens to it.
    pub(crate) fn next(&mut self, op: Op, path: &str) -> Option<Effect> {
        let mut effect = None;
        for (fault, seen) in self.plan.faults.iter().zip(&mut self.seen) {
            if fault.op != op || !path.contains(&fault.path) {
                continue;
            }
            let at = *seen;
            *seen += 1;
            let over = fault.times.is_some_and(|times| at >= fault.after.saturating_add(times));
            if at >= fault.after && !over {
                effect = effect.or(Some(fault.effect));
            }
        }
        self.met += u64::from(effect.is_some());
        effect
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_begins_and_ends() {
        let fault = Fault {
            op: Op::Sync,
            path: "log".into(),
            after: 2,
            times: Some(1),
            effect: Effect::Fail(libc::EIO),
        };
        let mut counted = Counted::new(Plan { faults: vec![fault], ..Plan::default() });
        let mut sync = |path| counted.next(Op::Sync, path).is_some();
        let seen = ["/log", "/other", "/log", "/log", "/log"].map(&mut sync);
        assert_eq!(seen, [false, false, false, true, false]);
        assert_eq!(counted.next(Op::Write, "/log"), None);
    }
}
