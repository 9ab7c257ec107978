//! Times that a policy keeps, beside its deadline.
//!
//! `every 1s { skip }` with `flush within 500ms` skips a call only if the one that it skipped last is durable: when
//! the second is over, the deadline is over too, and a sync call first waits for what is overdue. So a choice
//! in which a kept time is older than the deadline is none, while a call from before that time may be lost
//! (`docs/proof.md`, "Times that are kept, and the deadline").

use crate::cells::{self, Cell, Cells, NOW, Source};
use crate::mutants::{Mutant, makes};
use crate::state::{Open, State};
use durac_abi::Reading;
use durac_core::hir::{ExprKind, Policy, Stmt, StmtKind};
use durac_engine::Time;

/// The state variables that hold the time of a call, as bits of their numbers, and the deadline.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dates {
    variables: u64,
    within: Time,
}

impl Dates {
    /// Of a policy with a deadline, in which no call waits between two readings: the variables that are only ever
    /// set to `now` and compared with it.
    #[must_use]
    pub fn of(policy: &Policy, cells: &Cells) -> Self {
        let hooks = || policy.hooks.iter().filter(|body| body.hook.is_on_log());
        let waits = hooks().any(|body| waits(&body.body));
        let Some(within) = policy.flush_within.as_ref().map(|within| within.node) else {
            return Self::default();
        };
        if waits || !cells.relative_clock {
            return Self::default();
        }
        let assigned = cells::assignments(policy);
        let kept = cells.of.keys().filter_map(|source| match source {
            Source::Kept(id) if id.index() < u64::BITS as usize => Some(*id),
            _ => None,
        });
        let dated = kept.filter(|id| {
            let mut values = assigned.iter().filter(|a| a.to == *id).map(|a| &a.value.kind);
            values.all(|value| matches!(value, ExprKind::Read(Reading::Now)))
        });
        let variables = dated.fold(0, |variables, id| variables | 1 << id.index());
        Self { variables, within }
    }

    /// The bit of the variable if, with a value in this cell, the deadline of what was acknowledged before is over.
    #[must_use]
    pub fn overdue(self, source: Source, (_, last): Cell) -> u64 {
        let Source::Kept(id) = source else { return 0 };
        let within = if makes(Mutant::AnyDate) { 0 } else { self.within };
        let is_late = NOW.saturating_sub(last) > within;
        let bit = 1_u64.checked_shl(id.index() as u32).unwrap_or(0);
        if is_late { bit & self.variables } else { 0 }
    }

    /// The variables that hold the time of this run.
    #[must_use]
    pub fn set_in(self, vars: &[u64]) -> u64 {
        let now = vars.iter().enumerate().filter(|(_, value)| **value == NOW);
        let set = now.filter_map(|(index, _)| 1_u64.checked_shl(index as u32));
        set.fold(0, |set, bit| set | bit) & self.variables
    }

    /// For each variable, none of the calls is from before it.
    #[must_use]
    pub fn first(self) -> Vec<u64> {
        vec![0; (u64::BITS - self.variables.leading_zeros()) as usize]
    }
}

impl State {
    /// These variables have the time of this call.
    pub fn date(&mut self, open: &Open, set: u64) {
        // A write comes after every call that was acknowledged.
        let newest = if open.hook.is_sync() { open.number } else { self.log.calls() };
        for (index, date) in self.dates.iter_mut().enumerate() {
            if set >> index & 1 == 1 {
                *date = newest;
            }
        }
    }

    /// The variables before whose times a call was acknowledged that may be lost, as bits.
    #[must_use]
    pub fn dated(&self) -> u64 {
        let durable = self.log.durable();
        let may_be_lost = |date: u64| {
            let silent = self.silent.iter().filter(|number| **number <= date).count() as u64;
            date.saturating_sub(durable) > silent
        };
        let dates = self.dates.iter().enumerate().filter(|(_, date)| may_be_lost(**date));
        dates.fold(0, |dated, (index, _)| dated | 1 << index)
    }
}

fn waits(stmts: &[Stmt]) -> bool {
    stmts.iter().any(|stmt| match &stmt.node {
        StmtKind::Await(_) => true,
        StmtKind::If(_, a, b) => waits(a) || waits(b),
        StmtKind::EveryTime(.., body) | StmtKind::EveryCalls(.., body) => waits(body),
        StmtKind::Assign(..) | StmtKind::Verdict(_) | StmtKind::Commit => false,
    })
}
