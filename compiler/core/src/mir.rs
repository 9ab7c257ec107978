//! The policy as a graph of blocks: every branch explicit, every wait and store an instruction.
//!
//! Architecture invariant: the graph has no cycle. The language has no loop, so every program ends.

use crate::hir::{Arith, Cmp, ParamId, StateId, id};
use durac_abi::{Hook, Reading, Verdict};
use durac_grammar::Span;
use std::fmt;

id!(
    /// A block of a function.
    BlockId, "b"
);

/// The functions of a policy, in the order of the hooks' numbers.
#[derive(Clone, Debug)]
pub struct Program {
    /// One for each hook.
    pub functions: Vec<Function>,
}

/// The graph of one hook. Entry is `b0`.
#[derive(Clone, Debug)]
pub struct Function {
    /// The hook.
    pub hook: Hook,
    /// The blocks; some may be unreachable between passes.
    pub blocks: Vec<Block>,
}

/// Instructions and how the block ends.
#[derive(Clone, Debug)]
pub struct Block {
    /// In order.
    pub insts: Vec<Inst>,
    /// The end.
    pub end: End,
    /// Where the end comes from.
    pub span: Span,
}

/// An instruction with its place.
#[derive(Clone, Debug)]
pub struct Inst {
    /// What it does.
    pub kind: InstKind,
    /// Where it comes from.
    pub span: Span,
}

/// What an instruction does.
#[derive(Clone, Debug, PartialEq)]
pub enum InstKind {
    /// Ask for a background sync: see [`durac_abi::Helper::Request`].
    Request,
    /// Park: see [`durac_abi::Helper::Await`].
    Await(Value),
    /// Change a state variable.
    Store(StateId, Value),
}

/// How a block ends.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// Go on there.
    Jump(BlockId),
    /// Compare, unsigned, and go on in one of two blocks.
    Branch {
        /// The comparison.
        cmp: Cmp,
        /// Its left side.
        left: Value,
        /// Its right side.
        right: Value,
        /// Taken when it holds.
        then: BlockId,
        /// Taken when it does not.
        otherwise: BlockId,
    },
    /// The program's verdict.
    Return(Verdict),
}

/// A number: a tree of readings and arithmetic, without effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A constant.
    Const(u64),
    /// A parameter.
    Param(ParamId),
    /// A state variable of this log.
    State(StateId),
    /// A reading.
    Read(Reading),
    /// Arithmetic.
    Arith(Arith, Box<Value>, Box<Value>),
    /// 1 if the comparison holds, else 0.
    Test(Cmp, Box<Value>, Box<Value>),
}

impl Value {
    /// Whether `test` holds for it or a part of it.
    pub fn any(&self, test: &mut dyn FnMut(&Value) -> bool) -> bool {
        test(self)
            || match self {
                Value::Arith(_, a, b) | Value::Test(_, a, b) => a.any(test) || b.any(test),
                _ => false,
            }
    }

    /// Whether it reads a parameter.
    #[must_use]
    pub fn reads_params(&self) -> bool {
        self.any(&mut |v| matches!(v, Value::Param(_)))
    }

    /// Whether it reads a state variable.
    #[must_use]
    pub fn reads_state(&self) -> bool {
        self.any(&mut |v| matches!(v, Value::State(_)))
    }

    /// Whether it reads the context.
    #[must_use]
    pub fn reads_context(&self) -> bool {
        self.any(&mut |v| matches!(v, Value::Read(_)))
    }
}

impl Function {
    /// The block `id`, if there is one.
    #[must_use]
    pub fn block(&self, id: BlockId) -> Option<&Block> {
        self.blocks.get(id.index())
    }

    /// Every value in it.
    pub fn values(&self) -> impl Iterator<Item = &Value> {
        let insts = self.blocks.iter().flat_map(|b| &b.insts);
        let of_insts = insts.filter_map(|inst| match &inst.kind {
            InstKind::Await(value) | InstKind::Store(_, value) => Some(value),
            InstKind::Request => None,
        });
        let of_ends = self.blocks.iter().filter_map(|block| match &block.end {
            End::Branch { left, right, .. } => Some([left, right]),
            _ => None,
        });
        of_insts.chain(of_ends.flatten())
    }

    /// Whether it reads this.
    #[must_use]
    pub fn reads(&self, reading: Reading) -> bool {
        self.values().any(|v| v.any(&mut |part| *part == Value::Read(reading)))
    }

    /// The blocks in reverse postorder: each before its successors. Unreachable ones are left out.
    #[must_use]
    pub fn order(&self) -> Vec<BlockId> {
        let mut order = Vec::new();
        let mut seen = vec![false; self.blocks.len()];
        // An explicit stack: a long policy must not overflow the machine's.
        let mut stack = vec![(BlockId(0), false)];
        while let Some((id, done)) = stack.pop() {
            if done {
                order.push(id);
                continue;
            }
            let Some(mark) = seen.get_mut(id.index()) else { continue };
            if std::mem::replace(mark, true) {
                continue;
            }
            stack.push((id, true));
            let successors = self.block(id).map(|b| b.end.successors()).unwrap_or_default();
            for next in successors {
                stack.push((next, false));
            }
        }
        order.reverse();
        order
    }
}

impl End {
    /// Where it can go on: first the branch not taken, last the one taken.
    #[must_use]
    pub fn successors(&self) -> Vec<BlockId> {
        match self {
            End::Jump(next) => vec![*next],
            End::Branch { then, otherwise, .. } => vec![*otherwise, *then],
            End::Return(_) => Vec::new(),
        }
    }

    /// Changes every place it can go to.
    pub fn retarget(&mut self, mut change: impl FnMut(BlockId) -> BlockId) {
        match self {
            End::Jump(next) => *next = change(*next),
            End::Branch { then, otherwise, .. } => {
                *then = change(*then);
                *otherwise = change(*otherwise);
            }
            End::Return(_) => {}
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, function) in self.functions.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{function}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "fn {} {{", self.hook)?;
        for id in self.order() {
            let Some(block) = self.block(id) else { continue };
            writeln!(f, "{id}:")?;
            for inst in &block.insts {
                writeln!(f, "    {}", inst.kind)?;
            }
            writeln!(f, "    {}", block.end)?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for InstKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InstKind::Request => f.write_str("request"),
            InstKind::Await(distance) => write!(f, "await {distance}"),
            InstKind::Store(state, value) => write!(f, "{state} = {value}"),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Jump(next) => write!(f, "jump {next}"),
            End::Branch { cmp, left, right, then, otherwise } => {
                write!(f, "branch {left} {} {right}, {then}, {otherwise}", cmp.text())
            }
            End::Return(Verdict::Fail(errno)) => write!(f, "return fail {errno}"),
            End::Return(Verdict::Gather(within)) => write!(f, "return gather {within}ns"),
            End::Return(verdict) => write!(f, "return {}", format!("{verdict:?}").to_lowercase()),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Const(value) => write!(f, "{value}"),
            Value::Param(id) => write!(f, "{id}"),
            Value::State(id) => write!(f, "{id}"),
            Value::Read(reading) => match crate::names::reading_name(*reading) {
                "" => write!(f, "log"),
                name => f.write_str(name),
            },
            Value::Arith(op, a, b) => write!(f, "({a} {} {b})", op.text()),
            Value::Test(cmp, a, b) => write!(f, "({a} {} {b})", cmp.text()),
        }
    }
}
