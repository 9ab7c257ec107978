//! Steps that expect something, and the values that they name.

use super::check::short;
use super::ledger::Lost;
use super::program::{Call, context};
use super::run::{BEGIN, Fault, Runner};
use super::says;
use crate::report::amount as plural;
use durac_abi::{Hook, Reading};
use durac_core::hir::{Expr, ExprKind, Failure, Node, visit_expr};
use durac_core::names;
use durac_core::unit::{Unit, show};

impl Runner<'_> {
    pub(super) fn crash(
        &mut self,
        failure: Failure,
        at_most: bool,
        loses: Option<&Expr>,
    ) -> Result<(), Fault> {
        let lost = match failure {
            Failure::PowerLoss => self.ledger.power_loss(),
            Failure::ProcessCrash => self.ledger.process_crash(),
        };
        let kind = match failure {
            Failure::PowerLoss => "a power loss",
            Failure::ProcessCrash => "a process crash",
        };
        let amount = |unit, value: u64| match unit {
            Unit::Syncs => plural(value, "sync"),
            Unit::Writes => plural(value, "write"),
            Unit::Updates => plural(value, "update"),
            Unit::Duration => says::time(value),
            _ => show(value, unit),
        };
        let everything = self.everything(&lost);
        let Some(loses) = loses else {
            let nothing = lost == Lost::default();
            return if nothing {
                Ok(())
            } else {
                Err(Fault::new(
                    format!("{kind} loses {}, expected nothing", amount(Unit::Syncs, lost.syncs)),
                    self.step,
                    everything,
                ))
            };
        };
        let found = match loses.unit {
            Unit::Syncs => lost.syncs,
            Unit::Writes => lost.writes,
            Unit::Updates => lost.updates,
            Unit::Bytes => lost.bytes,
            _ => lost.since.map_or(0, |since| self.now - since),
        };
        let wanted = self.eval(loses);
        if found == wanted || at_most && found < wanted {
            return Ok(());
        }
        let most = if at_most { "at most " } else { "" };
        let message = format!(
            "{kind} loses {}, expected {most}{}",
            amount(loses.unit, found),
            amount(loses.unit, wanted)
        );
        Err(Fault::new(message, self.step, everything))
    }

    /// What is lost, in every unit.
    fn everything(&self, lost: &Lost) -> String {
        let Some(since) = lost.since else { return "nothing would be lost".to_owned() };
        format!(
            "loses {}, {}, {}; the oldest was acknowledged {} ago",
            plural(lost.syncs, "sync"),
            plural(lost.writes, "write"),
            show(lost.bytes, Unit::Bytes),
            says::time(self.now - since)
        )
    }

    pub(super) fn runs(&self, expected: bool) -> Result<(), Fault> {
        match (&self.flight, expected) {
            (None, true) => {
                let fault = Fault::new("no sync is under way", self.step, "expected one");
                Err(fault.help(self.next_sync()))
            }
            (Some(flight), false) => {
                let since = says::time(flight.since - BEGIN);
                let label = format!("one runs since {since}");
                Err(Fault::new("a sync is under way", self.step, label).help("`sync ends` ends it"))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn expect(&mut self, condition: &Expr) -> Result<(), Fault> {
        if self.eval(condition) != 0 {
            return Ok(());
        }
        let mut values: Vec<String> = Vec::new();
        visit_expr(condition, &mut |node| {
            if let Node::Expr(expr) = node
                && let Some(name) = self.name_of(expr)
            {
                let value = format!("`{name}` is {}", show(self.value(expr), expr.unit));
                if !values.contains(&value) {
                    values.push(value);
                }
            }
        });
        let text: Vec<&str> = self.sources.slice(condition.span).split_whitespace().collect();
        let message = format!("`{}` does not hold", short(&text.join(" ")));
        let label = if values.is_empty() { "is false".to_owned() } else { values.join(", ") };
        Err(Fault::new(message, condition.span, label))
    }

    fn name_of(&self, expr: &Expr) -> Option<String> {
        match &expr.kind {
            ExprKind::Param(id) => Some(self.policy.params.get(id.index())?.name.node.clone()),
            ExprKind::State(id) => Some(self.policy.states.get(id.index())?.name.node.clone()),
            ExprKind::Read(reading) => Some(names::reading_name(*reading).to_owned()),
            _ => None,
        }
    }

    pub(super) fn eval(&mut self, expr: &Expr) -> u64 {
        self.count();
        self.value(expr)
    }

    /// As the programs compute it. Readings are those of the next call.
    fn value(&self, expr: &Expr) -> u64 {
        let value = |e: &Expr| self.value(e);
        match &expr.kind {
            ExprKind::Const(value) => *value,
            ExprKind::Param(id) => self.params.get(id.index()).copied().unwrap_or(0),
            ExprKind::State(id) => self.state.get(id.index()).copied().unwrap_or(0),
            ExprKind::Read(reading) => self.reading(*reading),
            ExprKind::Not(a) => u64::from(value(a) == 0),
            ExprKind::And(a, b) => u64::from(value(a) != 0 && value(b) != 0),
            ExprKind::Or(a, b) => u64::from(value(a) != 0 || value(b) != 0),
            ExprKind::Compare(cmp, a, b) => u64::from(cmp.holds(value(a), value(b))),
            ExprKind::Arith(op, a, b) => op.apply(value(a), value(b)),
        }
    }

    fn reading(&self, reading: Reading) -> u64 {
        let call = Call::new(Hook::Write, self.log.upcoming(), 0, Vec::new());
        let read = context(&self.log, &call, self.now, self.children > 0);
        match reading {
            Reading::Log => read.log,
            Reading::CallLen => read.len,
            Reading::Now => read.now,
            Reading::Pending => read.pending,
            Reading::PendingBytes => read.pending_bytes,
            Reading::PendingUpdates => read.pending_updates,
            Reading::CallUpdates => read.updates,
            Reading::Ready => read.ready,
            Reading::ReplyClean => read.reply_clean,
            Reading::PendingAge => read.pending_age,
            Reading::Staged => read.staged,
            Reading::SyncLatency => read.sync_latency,
            Reading::NotifyDone => read.notify_done,
            Reading::NotifyCount => read.notify_count,
            Reading::ChildActive => read.child_active,
        }
    }
}
