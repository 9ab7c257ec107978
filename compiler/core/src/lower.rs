//! HIR to MIR: statements to blocks, conditions to branches.
//!
//! Architecture invariant: it knows no runtime; what a runtime cannot do is for its backend to say
//! (`backend`).

use crate::hir::{self, Arith, Cmp, Expr, ExprKind, Policy, Stmt, StmtKind};
use crate::mir::{Block, BlockId, End, Function, Inst, InstKind, Program, Value};
use durac_abi::{Reading, Verdict};
use durac_grammar::Span;

/// Lowers a policy. A runtime that cannot do what is in it refuses it before.
#[must_use]
pub fn lower(policy: &Policy) -> Program {
    let functions = policy
        .hooks
        .iter()
        .map(|hook| {
            let mut lowerer = Lowerer { blocks: Vec::new() };
            let entry = lowerer.new_block(hook.span);
            if let Some(end) = lowerer.stmts(&hook.body, entry) {
                lowerer.end(end, End::Return(Verdict::Pass), hook.span);
            }
            Function { hook: hook.hook, blocks: lowerer.blocks }
        })
        .collect();
    Program { functions }
}

struct Lowerer {
    blocks: Vec<Block>,
}

impl Lowerer {
    fn new_block(&mut self, span: Span) -> BlockId {
        let id = BlockId(self.blocks.len() as u32);
        self.blocks.push(Block { insts: Vec::new(), end: End::Return(Verdict::Pass), span });
        id
    }

    fn push(&mut self, block: BlockId, kind: InstKind, span: Span) {
        if let Some(block) = self.blocks.get_mut(block.index()) {
            block.insts.push(Inst { kind, span });
        }
    }

    fn end(&mut self, block: BlockId, end: End, span: Span) {
        if let Some(block) = self.blocks.get_mut(block.index()) {
            block.end = end;
            block.span = span;
        }
    }

    /// Lowers statements from `block` on; gives the block at their end unless the call has ended.
    fn stmts(&mut self, stmts: &[Stmt], mut block: BlockId) -> Option<BlockId> {
        for stmt in stmts {
            block = self.stmt(stmt, block)?;
        }
        Some(block)
    }

    fn stmt(&mut self, stmt: &Stmt, block: BlockId) -> Option<BlockId> {
        let span = stmt.span;
        match &stmt.node {
            StmtKind::Verdict(verdict) => {
                let verdict = match verdict {
                    hir::Verdict::Pass => Verdict::Pass,
                    hir::Verdict::Defer => Verdict::Defer,
                    hir::Verdict::Skip => Verdict::Skip,
                    hir::Verdict::Stage => Verdict::Stage,
                    hir::Verdict::Hold => Verdict::Hold,
                    hir::Verdict::Gather(within) => Verdict::Gather(*within),
                    hir::Verdict::Fail(_, errno) => Verdict::Fail(*errno),
                };
                self.end(block, End::Return(verdict), span);
                None
            }
            StmtKind::Await(distance) => {
                self.push(block, InstKind::Await(value(distance)), span);
                Some(block)
            }
            StmtKind::Commit => {
                self.push(block, InstKind::Request, span);
                Some(block)
            }
            StmtKind::Assign(state, expr) => Some(self.assign(*state, expr, block, span)),
            StmtKind::If(cond, then, otherwise) => {
                let then_block = self.new_block(span);
                let else_block = self.new_block(span);
                self.condition(cond, block, then_block, else_block);
                let then_end = self.stmts(then, then_block);
                let else_end = self.stmts(otherwise, else_block);
                let after = match (then_end, else_end) {
                    (None, None) => return None,
                    _ => self.new_block(span),
                };
                for end in [then_end, else_end].into_iter().flatten() {
                    self.end(end, End::Jump(after), span);
                }
                Some(after)
            }
            StmtKind::EveryTime(period, state, body) => {
                let since = Value::Arith(
                    Arith::WrappingSub,
                    Box::new(Value::Read(Reading::Now)),
                    Box::new(Value::State(*state)),
                );
                let run = self.new_block(span);
                let after = self.new_block(span);
                let branch = End::Branch {
                    cmp: Cmp::Ge,
                    left: since,
                    right: Value::Const(*period),
                    then: run,
                    otherwise: after,
                };
                self.end(block, branch, span);
                self.push(run, InstKind::Store(*state, Value::Read(Reading::Now)), span);
                self.close_body(body, run, after, span)
            }
            StmtKind::EveryCalls(period, state, body) => {
                let next = Value::Arith(
                    Arith::Add,
                    Box::new(Value::State(*state)),
                    Box::new(Value::Const(1)),
                );
                let run = self.new_block(span);
                let after = self.new_block(span);
                self.push(block, InstKind::Store(*state, next), span);
                let branch = End::Branch {
                    cmp: Cmp::Ge,
                    left: Value::State(*state),
                    right: Value::Const(*period),
                    then: run,
                    otherwise: after,
                };
                self.end(block, branch, span);
                self.push(run, InstKind::Store(*state, Value::Const(0)), span);
                self.close_body(body, run, after, span)
            }
        }
    }

    fn close_body(
        &mut self,
        body: &[Stmt],
        run: BlockId,
        after: BlockId,
        span: Span,
    ) -> Option<BlockId> {
        if let Some(end) = self.stmts(body, run) {
            self.end(end, End::Jump(after), span);
        }
        Some(after)
    }

    fn assign(&mut self, state: hir::StateId, expr: &Expr, block: BlockId, span: Span) -> BlockId {
        if let ExprKind::Compare(cmp, a, b) = &expr.kind
            && is_number(a)
            && is_number(b)
        {
            let test = Value::Test(*cmp, Box::new(value(a)), Box::new(value(b)));
            self.push(block, InstKind::Store(state, test), span);
            return block;
        }
        let is_condition = matches!(
            expr.kind,
            ExprKind::Not(_) | ExprKind::And(..) | ExprKind::Or(..) | ExprKind::Compare(..)
        );
        if !is_condition {
            self.push(block, InstKind::Store(state, value(expr)), span);
            return block;
        }
        let (yes, no) = (self.new_block(span), self.new_block(span));
        self.condition(expr, block, yes, no);
        let after = self.new_block(span);
        for (branch, bit) in [(yes, 1), (no, 0)] {
            self.push(branch, InstKind::Store(state, Value::Const(bit)), span);
            self.end(branch, End::Jump(after), span);
        }
        after
    }

    /// Ends `block` so that it goes on in `yes` when the condition holds and in `no` otherwise.
    fn condition(&mut self, cond: &Expr, block: BlockId, yes: BlockId, no: BlockId) {
        match &cond.kind {
            ExprKind::Not(inner) => self.condition(inner, block, no, yes),
            ExprKind::And(a, b) => {
                let both = self.new_block(b.span);
                self.condition(a, block, both, no);
                self.condition(b, both, yes, no);
            }
            ExprKind::Or(a, b) => {
                let other = self.new_block(b.span);
                self.condition(a, block, yes, other);
                self.condition(b, other, yes, no);
            }
            ExprKind::Compare(cmp @ (Cmp::Eq | Cmp::Ne), a, b)
                if !is_number(a) || !is_number(b) =>
            {
                // Two truth values: the first chooses how the second is read.
                let (if_a, if_not_a) = (self.new_block(b.span), self.new_block(b.span));
                self.condition(a, block, if_a, if_not_a);
                let (same, differ) = if *cmp == Cmp::Eq { (yes, no) } else { (no, yes) };
                self.condition(b, if_a, same, differ);
                self.condition(b, if_not_a, differ, same);
            }
            ExprKind::Compare(cmp, a, b) => {
                let branch = End::Branch {
                    cmp: *cmp,
                    left: value(a),
                    right: value(b),
                    then: yes,
                    otherwise: no,
                };
                self.end(block, branch, cond.span);
            }
            _ => {
                let branch = End::Branch {
                    cmp: Cmp::Ne,
                    left: value(cond),
                    right: Value::Const(0),
                    then: yes,
                    otherwise: no,
                };
                self.end(block, branch, cond.span);
            }
        }
    }
}

fn is_number(expr: &Expr) -> bool {
    expr.unit.is_number()
}

/// A number or a plain truth value; conditions with operators go through [`Lowerer::condition`].
fn value(expr: &Expr) -> Value {
    match &expr.kind {
        ExprKind::Const(value) => Value::Const(*value),
        ExprKind::Param(id) => Value::Param(*id),
        ExprKind::State(id) => Value::State(*id),
        ExprKind::Read(reading) => Value::Read(*reading),
        ExprKind::Arith(op, a, b) => Value::Arith(*op, Box::new(value(a)), Box::new(value(b))),
        ExprKind::Not(_) | ExprKind::And(..) | ExprKind::Or(..) | ExprKind::Compare(..) => {
            // No number is made of these: the checker gives them the unit `bool`, and every place
            // that takes a `bool` lowers it as a condition.
            Value::Const(0)
        }
    }
}
