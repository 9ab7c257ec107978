//! Passes over MIR: folding, threading, and early hand-off.

use crate::hir::Arith;
use crate::mir::{BlockId, End, Function, Inst, InstKind, Program, Value};
use durac_abi::Verdict;

/// Runs every pass on every function.
pub fn optimise(program: &mut Program) {
    for function in &mut program.functions {
        fold(function);
        thread(function);
        share_returns(function);
        merge(function);
        hand_off_early(function);
    }
}

/// Computes constants and decides branches on them.
fn fold(function: &mut Function) {
    for block in &mut function.blocks {
        for inst in &mut block.insts {
            match &mut inst.kind {
                InstKind::Await(value) | InstKind::Store(_, value) => fold_value(value),
                InstKind::Request => {}
            }
        }
        if let End::Branch { cmp, left, right, then, otherwise } = &mut block.end {
            fold_value(left);
            fold_value(right);
            if let (Value::Const(a), Value::Const(b)) = (&*left, &*right) {
                let taken = if cmp.holds(*a, *b) { *then } else { *otherwise };
                block.end = End::Jump(taken);
            } else if matches!(left, Value::Const(_)) {
                // The machine compares a register with a constant, not the other way round.
                std::mem::swap(left, right);
                *cmp = cmp.swapped();
            }
        }
    }
}

fn fold_value(value: &mut Value) {
    if let Value::Test(cmp, a, b) = value {
        fold_value(a);
        fold_value(b);
        if let (Value::Const(x), Value::Const(y)) = (&**a, &**b) {
            *value = Value::Const(u64::from(cmp.holds(*x, *y)));
        } else if matches!(**a, Value::Const(_)) {
            std::mem::swap(a, b);
            *cmp = cmp.swapped();
        }
        return;
    }
    let Value::Arith(op, a, b) = value else { return };
    fold_value(a);
    fold_value(b);
    let folded = match (&**a, *op, &**b) {
        (Value::Const(x), op, Value::Const(y)) => Some(Value::Const(op.apply(*x, *y))),
        (x, Arith::Add | Arith::Sub | Arith::WrappingSub, Value::Const(0))
        | (x, Arith::Mul | Arith::Div, Value::Const(1))
        | (Value::Const(0), Arith::Add, x)
        | (Value::Const(1), Arith::Mul, x) => Some(x.clone()),
        (_, Arith::Mul, Value::Const(0)) | (Value::Const(0), Arith::Mul, _) => {
            Some(Value::Const(0))
        }
        _ => None,
    };
    if let Some(folded) = folded {
        *value = folded;
    } else if matches!(**a, Value::Const(_)) && matches!(op, Arith::Add | Arith::Mul) {
        std::mem::swap(a, b);
    }
}

/// Follows jumps through blocks that do nothing, also when the block before decides the branch:
/// after `s0 = 1` a test of `s0` is known.
fn thread(function: &mut Function) {
    // Each round only shortens paths, and the graph has no cycle, so this ends.
    for _ in 0..function.blocks.len() {
        let mut changed = false;
        for index in 0..function.blocks.len() {
            let Some(block) = function.blocks.get(index) else { continue };
            let mut end = block.end.clone();
            end.retarget(|target| skip_empty(function, target));
            if let End::Jump(target) = end {
                let known = function.block(target).filter(|t| t.insts.is_empty());
                if let Some(decided) = known.and_then(|t| decide(&t.end, &block.insts)) {
                    end = End::Jump(decided);
                }
            }
            if let End::Branch { then, otherwise, .. } = end
                && then == otherwise
            {
                end = End::Jump(then);
            }
            if let Some(block) = function.blocks.get_mut(index)
                && block.end != end
            {
                block.end = end;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
}

fn skip_empty(function: &Function, target: BlockId) -> BlockId {
    match function.block(target) {
        Some(block) if block.insts.is_empty() => match block.end {
            End::Jump(next) => next,
            _ => target,
        },
        _ => target,
    }
}

/// Where a branch on a state variable goes, given the instructions before it.
fn decide(end: &End, before: &[Inst]) -> Option<BlockId> {
    let End::Branch { cmp, left: Value::State(state), right: Value::Const(limit), then, otherwise } =
        end
    else {
        return None;
    };
    let stored = before.iter().rev().find_map(|inst| match &inst.kind {
        InstKind::Store(s, value) if s == state => Some(value),
        _ => None,
    });
    match stored {
        Some(Value::Const(value)) if cmp.holds(*value, *limit) => Some(*then),
        Some(Value::Const(_)) => Some(*otherwise),
        _ => None,
    }
}

/// Makes every path that only returns the same verdict end in one block.
fn share_returns(function: &mut Function) {
    let mut shared: Vec<(Verdict, BlockId)> = Vec::new();
    for id in function.order() {
        let Some(block) = function.block(id) else { continue };
        if let End::Return(verdict) = block.end
            && block.insts.is_empty()
            && !shared.iter().any(|(v, _)| *v == verdict)
        {
            shared.push((verdict, id));
        }
    }
    let canonical = |function: &Function, target: BlockId| match function.block(target) {
        Some(block) if block.insts.is_empty() => match block.end {
            End::Return(verdict) => {
                shared.iter().find(|(v, _)| *v == verdict).map_or(target, |(_, id)| *id)
            }
            _ => target,
        },
        _ => target,
    };
    for index in 0..function.blocks.len() {
        let Some(block) = function.blocks.get(index) else { continue };
        let mut end = block.end.clone();
        end.retarget(|target| canonical(function, target));
        if let Some(block) = function.blocks.get_mut(index) {
            block.end = end;
        }
    }
}

/// Early hand-off: where every path ends in `defer` and one of them waits, the background sync is
/// requested before the wait. The device works while the call waits; without it, delayed-fsync
/// gains nothing. It changes no bound: a sync that starts sooner covers this call no less.
fn hand_off_early(function: &mut Function) {
    if !function.hook.is_sync() {
        return;
    }
    let order = function.order();
    let mut certain = vec![false; function.blocks.len()];
    let mut waits = vec![false; function.blocks.len()];
    let mut is_entry_of_region = vec![true; function.blocks.len()];
    let flag = |flags: &[bool], id: BlockId| flags.get(id.index()).copied().unwrap_or(false);
    for &id in order.iter().rev() {
        let Some(block) = function.block(id) else { continue };
        let next = block.end.successors();
        let defers = match block.end {
            End::Return(verdict) => verdict == Verdict::Defer,
            _ => next.iter().all(|n| flag(&certain, *n)),
        };
        let waits_here = block.insts.iter().any(|i| matches!(i.kind, InstKind::Await(_)))
            || next.iter().any(|n| flag(&waits, *n));
        if let Some(slot) = certain.get_mut(id.index()) {
            *slot = defers;
        }
        if let Some(slot) = waits.get_mut(id.index()) {
            *slot = waits_here;
        }
    }
    // A block whose predecessors are all certain inherits their request.
    let mut seen = vec![false; function.blocks.len()];
    for &id in &order {
        let Some(block) = function.block(id) else { continue };
        let requested = flag(&certain, id);
        for next in block.end.successors() {
            let first = !std::mem::replace(
                match seen.get_mut(next.index()) {
                    Some(slot) => slot,
                    None => continue,
                },
                true,
            );
            if let Some(slot) = is_entry_of_region.get_mut(next.index()) {
                *slot = if first { !requested } else { *slot || !requested };
            }
        }
    }
    for &id in &order {
        if !(flag(&certain, id) && flag(&waits, id) && flag(&is_entry_of_region, id)) {
            continue;
        }
        if let Some(block) = function.blocks.get_mut(id.index()) {
            let span = block.insts.first().map_or(block.span, |i| i.span);
            block.insts.insert(0, Inst { kind: InstKind::Request, span });
        }
    }
}

/// Joins a block with its only successor when that has no other predecessor.
fn merge(function: &mut Function) {
    let mut predecessors = vec![0_u32; function.blocks.len()];
    for id in function.order() {
        let Some(block) = function.block(id) else { continue };
        for next in block.end.successors() {
            if let Some(count) = predecessors.get_mut(next.index()) {
                *count += 1;
            }
        }
    }
    for id in function.order() {
        while let Some(End::Jump(next)) = function.block(id).map(|b| b.end.clone()) {
            if predecessors.get(next.index()) != Some(&1) || next == BlockId(0) {
                break;
            }
            let Some(tail) = function.block(next).cloned() else { break };
            if let Some(block) = function.blocks.get_mut(id.index()) {
                block.insts.extend(tail.insts);
                block.end = tail.end;
                block.span = tail.span;
            }
        }
    }
}
