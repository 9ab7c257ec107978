//! What cannot be exceeded: the least of what follows from the text ([`durac_core::bounds`]) and of what
//! follows from how counters and calls rise together ([`crate::relate`]).
//!
//! Architecture invariant: nothing here was explored.

use crate::explore::{Derived, Most};
use crate::relate::Related;
use durac_core::Loss;
use durac_core::hir::{Bound, Failure, Guarantee, Policy};

/// The upper bounds of a policy.
pub struct Upper<'a> {
    policy: &'a Policy,
    process: Loss,
    related: Option<Related>,
}

impl<'a> Upper<'a> {
    /// What follows from the text alone.
    #[must_use]
    pub fn of_text(policy: &'a Policy) -> Self {
        Self { policy, process: policy.loss.process(), related: None }
    }

    /// The same, and what follows from the counters.
    #[must_use]
    pub fn new(policy: &'a Policy) -> Self {
        Self { related: crate::relate::relate(policy), ..Self::of_text(policy) }
    }

    /// For each vector of parameters.
    #[must_use]
    pub fn derived(&self, vectors: &[Vec<u64>]) -> Derived {
        let of = |loss: &Loss| -> Vec<Most> {
            let each = |v: &Vec<u64>| self.least(loss.syncs_for(v), |r| r.most_for(v));
            vectors.iter().map(each).collect()
        };
        Derived { syncs: of(&self.policy.loss), staged_syncs: of(&self.process) }
    }

    /// Acknowledged syncs that a power loss takes, whatever the parameters.
    #[must_use]
    pub fn syncs(&self) -> Most {
        self.least(self.policy.loss.greatest(&self.policy.params), Related::greatest)
    }

    /// Acknowledged syncs that die with the process, whatever the parameters: no more than a power loss
    /// takes.
    #[must_use]
    pub fn staged_syncs(&self) -> Most {
        self.least(self.process.greatest(&self.policy.params), Related::greatest)
    }

    /// At the default parameters: on a power loss, with the process.
    #[must_use]
    pub fn by_default(&self) -> (Most, Most) {
        let defaults = vec![self.policy.params.iter().map(|p| p.default).collect()];
        let of = self.derived(&defaults);
        let first = |of: &[Most]| of.first().copied().unwrap_or(Most::Unbounded);
        (first(&of.syncs), first(&of.staged_syncs))
    }

    /// Whether a guarantee holds, whatever the parameters.
    #[must_use]
    pub fn keeps(&self, guarantee: &Guarantee) -> bool {
        let counts = match (&guarantee.bound, guarantee.failure) {
            (Bound::Syncs(expr), _) => self.related.as_ref().is_some_and(|r| r.keeps(expr)),
            (
                Bound::Nothing | Bound::Writes(_) | Bound::Bytes(_) | Bound::Updates(_),
                Failure::PowerLoss,
            ) => self.related.as_ref().is_some_and(|r| r.greatest() == Some(0)),
            _ => false,
        };
        counts || self.policy.loss.keeps(guarantee, self.policy)
    }

    fn least(&self, text: Option<u64>, of: impl Fn(&Related) -> Option<u64>) -> Most {
        let related = self.related.as_ref().and_then(of);
        let both = [text, related].into_iter().flatten();
        both.min().map_or(Most::Unbounded, Most::Count)
    }
}
