//! MIR to BPF: registers, maps, layout.
//!
//! Values are trees without effect, so they are computed where they are used, in scratch
//! registers. Across calls live only the context pointer (r6), the parameters' address (r7) and
//! the state's (r8), each only in programs that need it.

use crate::hir::{Arith, Cmp, StateId};
use crate::mir::{Block, BlockId, End, Function, InstKind, Value};
use durac_bpf::abi::{Helper, Reading, Verdict};
use durac_bpf::asm::{Asm, AsmError, Label};
use durac_bpf::insn::{Alu, Cond, Insn, Reg, Size};
use durac_bpf::object::Program;
use durac_grammar::{Sources, Span};
use std::collections::BTreeMap;

/// Why a function has no code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EmitError {
    /// An expression needs more registers than there are.
    TooComplex(Span),
    /// The code is too long for its jumps.
    TooLong(AsmError),
}

/// Index of the map `params` and of the map `state` in the object.
#[derive(Clone, Copy, Debug)]
pub struct Maps {
    /// The parameters.
    pub params: u32,
    /// The state.
    pub state: u32,
}

const CONTEXT: Reg = Reg::R6;
const PARAMS: Reg = Reg::R7;
const STATE: Reg = Reg::R8;
/// Stack slot of a map key, bytes below the frame pointer.
const KEY: i16 = -4;

/// A map that a program has looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MapKind {
    Params,
    State,
}

/// Emits one function.
///
/// # Errors
/// The function does not fit the machine.
pub fn emit(function: &Function, maps: Maps, sources: &Sources) -> Result<Program, EmitError> {
    let order = function.order();
    let plan = Plan::new(function, &order);
    let mut asm = Asm::new();
    let labels: BTreeMap<BlockId, Label> = order.iter().map(|id| (*id, asm.label())).collect();
    let exit = asm.label();
    let mut emitter = Emitter {
        function,
        sources,
        maps,
        plan,
        asm,
        labels,
        exit,
        exit_bound: false,
        pass: None,
        pass_bound: false,
        params: None,
        state: None,
        cached: None,
        span: None,
    };
    emitter.all(&order)?;
    emitter.asm.finish(function.hook).map_err(EmitError::TooLong)
}

/// What is known about a function before its code is laid out.
struct Plan {
    /// Whether the context is read after a call, and so must be kept in r6.
    keep_context: bool,
    /// Whether the address of the parameters is used after a call, and so must be kept in r7.
    keep_params: bool,
    /// The same for the state and r8.
    keep_state: bool,
    /// What every path to a block has looked up.
    at_start: BTreeMap<BlockId, LookedUp>,
    /// What has been looked up when a block branches.
    at_end: BTreeMap<BlockId, LookedUp>,
    /// Maps that every path from the start of a block uses.
    wanted: BTreeMap<BlockId, (bool, bool)>,
    /// How many places each block is reached from.
    predecessors: BTreeMap<BlockId, u32>,
}

/// Where the address of a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Address {
    /// Nowhere.
    Unknown,
    /// In r7 or r8, if it is kept: there was a call since.
    Kept,
    /// In r0 as well: it was the last call.
    Fresh,
}

/// Where the addresses of the maps are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LookedUp {
    params: Address,
    state: Address,
}

impl LookedUp {
    const NOTHING: Self = Self { params: Address::Unknown, state: Address::Unknown };

    fn meet(self, other: Self) -> Self {
        Self { params: self.params.min(other.params), state: self.state.min(other.state) }
    }

    fn call(&mut self) {
        self.params = self.params.min(Address::Kept);
        self.state = self.state.min(Address::Kept);
    }
}

/// A place that computes values: what it reads and whether it calls.
#[derive(Clone, Copy, Default)]
struct Site {
    params: bool,
    state: bool,
    context: bool,
    calls: bool,
}

fn inst_site(kind: &InstKind) -> Site {
    let of = |value: &Value, state: bool, calls: bool| Site {
        params: value.reads_params(),
        state: state || value.reads_state(),
        context: value.reads_context(),
        calls,
    };
    match kind {
        InstKind::Request => Site { calls: true, ..Site::default() },
        InstKind::Await(value) => of(value, false, true),
        InstKind::Store(_, value) => of(value, true, false),
    }
}

fn end_site(end: &End) -> Site {
    let mut site = Site::default();
    if let End::Branch { left, right, .. } = end {
        for value in [left, right] {
            site.params |= value.reads_params();
            site.state |= value.reads_state();
            site.context |= value.reads_context();
        }
    }
    site
}

impl Plan {
    fn new(function: &Function, order: &[BlockId]) -> Self {
        let mut plan = Plan {
            keep_context: false,
            keep_params: false,
            keep_state: false,
            at_start: BTreeMap::from([(BlockId(0), LookedUp::NOTHING)]),
            at_end: BTreeMap::new(),
            wanted: BTreeMap::new(),
            predecessors: BTreeMap::new(),
        };
        for &id in order.iter().rev() {
            let Some(block) = function.block(id) else { continue };
            let (params, state) = plan.wanted_after(&block.end);
            let mut wanted = (params, state);
            for site in block.insts.iter().map(|i| inst_site(&i.kind)).chain([end_site(&block.end)])
            {
                wanted = (wanted.0 || site.params, wanted.1 || site.state);
            }
            plan.wanted.insert(id, wanted);
        }
        let mut called: BTreeMap<BlockId, bool> = BTreeMap::new();
        for &id in order {
            let Some(block) = function.block(id) else { continue };
            let mut has_called = called.get(&id).copied().unwrap_or(false);
            let mut known = plan.at_start.get(&id).copied().unwrap_or(LookedUp::NOTHING);
            for inst in &block.insts {
                plan.follow(inst_site(&inst.kind), &mut known, &mut has_called);
            }
            let mut site = end_site(&block.end);
            let (params, state) = plan.wanted_after(&block.end);
            (site.params, site.state) = (site.params || params, site.state || state);
            plan.follow(site, &mut known, &mut has_called);
            plan.at_end.insert(id, known);
            for next in block.end.successors() {
                *plan.predecessors.entry(next).or_insert(0) += 1;
                *called.entry(next).or_insert(false) |= has_called;
                let before = plan.at_start.entry(next).or_insert(known);
                *before = before.meet(known);
            }
        }
        plan
    }

    /// The maps that both sides of a branch use: they are looked up once, before it.
    fn wanted_after(&self, end: &End) -> (bool, bool) {
        match end {
            End::Branch { then, otherwise, .. } => {
                let of = |id| self.wanted.get(id).copied().unwrap_or((false, false));
                let (a, b) = (of(then), of(otherwise));
                (a.0 && b.0, a.1 && b.1)
            }
            _ => (false, false),
        }
    }

    /// What a site does to the addresses, and what must be kept for it.
    fn follow(&mut self, site: Site, known: &mut LookedUp, has_called: &mut bool) {
        // In the order of `Emitter::look_up_for`: the state first, since its key is in the context.
        if site.state && known.state == Address::Unknown {
            self.keep_context |= *has_called;
            *has_called = true;
            known.call();
            known.state = Address::Fresh;
        }
        if site.params && known.params == Address::Unknown {
            *has_called = true;
            known.call();
            known.params = Address::Fresh;
        }
        self.keep_state |= site.state && known.state == Address::Kept;
        self.keep_params |= site.params && known.params == Address::Kept;
        self.keep_context |= site.context && *has_called;
        if site.calls {
            *has_called = true;
            known.call();
        }
    }

    /// The register an address is in.
    fn register(&self, map: MapKind, address: Address) -> Option<Reg> {
        let (keep, kept) = match map {
            MapKind::Params => (self.keep_params, PARAMS),
            MapKind::State => (self.keep_state, STATE),
        };
        match address {
            Address::Unknown => None,
            _ if keep => Some(kept),
            Address::Fresh => Some(Reg::R0),
            Address::Kept => None,
        }
    }
}

/// Whether a block is the last to end the program, and the last to end it with `pass`.
#[derive(Clone, Copy)]
struct Last {
    exit: bool,
    pass: bool,
}

struct Emitter<'a> {
    function: &'a Function,
    sources: &'a Sources,
    maps: Maps,
    plan: Plan,
    asm: Asm,
    labels: BTreeMap<BlockId, Label>,
    exit: Label,
    exit_bound: bool,
    /// Where a lookup that gives nothing goes: `r0 = 0; exit`.
    pass: Option<Label>,
    pass_bound: bool,
    /// Register that holds the map's address now.
    params: Option<Reg>,
    state: Option<Reg>,
    /// A state variable whose value the last instruction left in a register.
    cached: Option<(StateId, Reg)>,
    /// The place being emitted, for errors.
    span: Option<Span>,
}

impl Emitter<'_> {
    fn all(&mut self, order: &[BlockId]) -> Result<(), EmitError> {
        if self.plan.keep_context {
            if let Some(block) = self.function.block(BlockId(0)) {
                let span = block.insts.first().map_or(block.span, |i| i.span);
                self.place(span);
            }
            self.asm.push(Insn::mov(CONTEXT, Reg::R1));
        }
        // Jumps to the end of the program go forward, to its last exit.
        let returning = |id: &BlockId| {
            !self.folded_away(*id)
                && self.function.block(*id).is_some_and(|b| matches!(b.end, End::Return(_)))
        };
        let last_return = order.iter().rposition(returning);
        let last_pass = order.iter().rposition(|id| {
            let passes = |b: &Block| b.end == End::Return(Verdict::Pass);
            returning(id) && self.function.block(*id).is_some_and(passes)
        });
        for (position, &id) in order.iter().enumerate() {
            let Some(block) = self.function.block(id) else { continue };
            if self.folded_away(id) {
                continue;
            }
            if let Some(label) = self.labels.get(&id) {
                self.asm.bind(*label);
            }
            let known = self.plan.at_start.get(&id).copied().unwrap_or(LookedUp::NOTHING);
            self.params = self.plan.register(MapKind::Params, known.params);
            self.state = self.plan.register(MapKind::State, known.state);
            self.cached = None;
            for inst in &block.insts {
                self.place(inst.span);
                self.inst(&inst.kind)?;
            }
            let next =
                order.iter().skip(position + 1).copied().find(|next| !self.folded_away(*next));
            self.place(block.span);
            let last =
                Last { exit: Some(position) == last_return, pass: Some(position) == last_pass };
            self.end(id, &block.end, next, last)?;
        }
        if !self.exit_bound {
            self.asm.bind(self.exit);
            self.asm.push(Insn::exit());
        }
        if let Some(pass) = self.pass
            && !self.pass_bound
        {
            // The lookup left 0 in r0, but as an address that is null: a verdict is a number.
            self.asm.bind(pass);
            self.asm.push(Insn::mov_imm(Reg::R0, Verdict::Pass.encode()));
            self.asm.push(Insn::exit());
        }
        Ok(())
    }

    /// Whether the block only returns a verdict.
    fn returns(&self, id: BlockId) -> Option<Verdict> {
        match self.function.block(id) {
            Some(block) if block.insts.is_empty() => match block.end {
                End::Return(verdict) => Some(verdict),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether the block's only predecessor sets the verdict before its branch.
    fn folded_away(&self, id: BlockId) -> bool {
        self.returns(id).is_some()
            && self.plan.at_end.keys().any(|p| self.early_return(*p) == Some(id))
    }

    /// The branch target that is replaced by setting r0 before the comparison and leaving at once.
    fn early_return(&self, id: BlockId) -> Option<BlockId> {
        let End::Branch { then, otherwise, .. } = &self.function.block(id)?.end else {
            return None;
        };
        let known = self.plan.at_end.get(&id)?;
        let in_r0 = |map, address| self.plan.register(map, address) == Some(Reg::R0);
        if in_r0(MapKind::Params, known.params) || in_r0(MapKind::State, known.state) {
            return None;
        }
        [then, otherwise]
            .into_iter()
            .copied()
            .find(|id| self.returns(*id).is_some() && self.plan.predecessors.get(id) == Some(&1))
    }

    fn place(&mut self, span: Span) {
        self.span = Some(span);
        let position = self.sources.position(span);
        self.asm.place(position.line, position.column);
    }

    fn too_complex(&self) -> EmitError {
        let nowhere = Span::new(durac_grammar::FileId(0), 0, 0);
        EmitError::TooComplex(self.span.unwrap_or(nowhere))
    }

    fn context(&self) -> Reg {
        if self.plan.keep_context { CONTEXT } else { Reg::R1 }
    }

    /// Registers that hold nothing: what a helper call may destroy, less what is in use.
    fn scratch(&self) -> Vec<Reg> {
        [Reg::R2, Reg::R3, Reg::R4, Reg::R5, Reg::R1, Reg::R0]
            .into_iter()
            .filter(|r| *r != self.context() || self.plan.keep_context)
            .filter(|r| Some(*r) != self.params && Some(*r) != self.state)
            .collect()
    }

    /// After a call, only what is kept is known.
    fn clobber(&mut self) {
        self.params = self.params.filter(|r| *r == PARAMS);
        self.state = self.state.filter(|r| *r == STATE);
        self.cached = None;
    }

    fn inst(&mut self, kind: &InstKind) -> Result<(), EmitError> {
        match kind {
            InstKind::Request => {
                self.asm.push(Insn::call(Helper::Request));
                self.clobber();
            }
            InstKind::Await(distance) => {
                self.look_up_for(distance, false);
                self.value_into(distance, Reg::R1)?;
                self.asm.push(Insn::call(Helper::Await));
                self.clobber();
            }
            InstKind::Store(id, value) => {
                self.look_up_for(value, true);
                let base = self.state.unwrap_or(STATE);
                let offset = 8 * id.0 as i16;
                let free = self.scratch();
                let [first, rest @ ..] = free.as_slice() else { return Err(self.too_complex()) };
                // Through a register also for a constant: a store of an immediate is an instruction
                // of version 4 to LLVM's tools and to BPFtime.
                self.value(value, *first, rest)?;
                self.asm.push(Insn::stx(Size::Dw, base, offset, *first));
                self.cached = Some((*id, *first));
                return Ok(());
            }
        }
        self.cached = None;
        Ok(())
    }

    /// Makes sure the maps that a value needs have been looked up.
    fn look_up_for(&mut self, value: &Value, stores: bool) {
        self.look_up_wanted(value.reads_params(), stores || value.reads_state());
    }

    fn look_up_wanted(&mut self, params: bool, state: bool) {
        if state && self.state.is_none() {
            self.look_up(MapKind::State);
        }
        if params && self.params.is_none() {
            self.look_up(MapKind::Params);
        }
    }

    /// `r0 = lookup(map, key)`; a null address, which only another runtime could give, means pass.
    fn look_up(&mut self, map: MapKind) {
        let (index, keep) = match map {
            MapKind::Params => (self.maps.params, self.plan.keep_params.then_some(PARAMS)),
            MapKind::State => (self.maps.state, self.plan.keep_state.then_some(STATE)),
        };
        match map {
            MapKind::Params => self.asm.push(Insn::mov_imm(Reg::R2, 0)),
            MapKind::State => {
                let context = self.context();
                self.asm.push(Insn::ldx(Size::Dw, Reg::R2, context, Reading::Log.offset()));
            }
        }
        self.asm.push(Insn::stx(Size::W, Reg::R10, KEY, Reg::R2));
        self.asm.push(Insn::mov(Reg::R2, Reg::R10));
        self.asm.push(Insn::alu_imm(Alu::Add, Reg::R2, i32::from(KEY)));
        self.asm.load_map(Reg::R1, index);
        self.asm.push(Insn::call(Helper::MapLookup));
        self.clobber();
        let pass = *self.pass.get_or_insert_with(|| self.asm.label());
        self.asm.jump_if_imm(Cond::Eq, Reg::R0, 0, pass);
        let register = match keep {
            Some(register) => {
                self.asm.push(Insn::mov(register, Reg::R0));
                register
            }
            None => Reg::R0,
        };
        match map {
            MapKind::Params => self.params = Some(register),
            MapKind::State => self.state = Some(register),
        }
    }

    /// Computes a value into the register a helper takes it from.
    fn value_into(&mut self, value: &Value, dst: Reg) -> Result<(), EmitError> {
        let free: Vec<_> = self.scratch().into_iter().filter(|r| *r != dst).collect();
        let is_leaf = !matches!(value, Value::Arith(..));
        if is_leaf || dst != self.context() {
            return self.value(value, dst, &free);
        }
        let [first, rest @ ..] = free.as_slice() else { return Err(self.too_complex()) };
        self.value(value, *first, rest)?;
        self.asm.push(Insn::mov(dst, *first));
        Ok(())
    }

    /// Computes a value into `dst`, with `free` for parts of it.
    fn value(&mut self, value: &Value, dst: Reg, free: &[Reg]) -> Result<(), EmitError> {
        match value {
            Value::Const(c) => self.asm.load_imm(dst, *c),
            Value::Param(id) => {
                let base = self.params.unwrap_or(PARAMS);
                self.asm.push(Insn::ldx(Size::Dw, dst, base, 8 * id.0 as i16));
            }
            Value::State(id) => {
                let base = self.state.unwrap_or(STATE);
                self.asm.push(Insn::ldx(Size::Dw, dst, base, 8 * id.0 as i16));
            }
            Value::Read(reading) => {
                let context = self.context();
                self.asm.push(Insn::ldx(Size::Dw, dst, context, reading.offset()));
            }
            Value::Arith(op, a, b) => return self.arith(*op, a, b, dst, free),
        }
        Ok(())
    }

    fn arith(
        &mut self,
        op: Arith,
        a: &Value,
        b: &Value,
        dst: Reg,
        free: &[Reg],
    ) -> Result<(), EmitError> {
        if let Value::Const(c) = b
            && let Ok(imm) = i32::try_from(*c)
        {
            self.value(a, dst, free)?;
            if op == Arith::Sub {
                // A difference below zero is zero: raise the left side to the right one first.
                let enough = self.asm.label();
                self.asm.jump_if_imm(Cond::Ge, dst, imm, enough);
                self.asm.push(Insn::mov_imm(dst, imm));
                self.asm.bind(enough);
            }
            self.asm.push(Insn::alu_imm(alu(op), dst, imm));
            return Ok(());
        }
        let [other, rest @ ..] = free else { return Err(self.too_complex()) };
        if need(b) > need(a) {
            // The side that needs more registers first, while all are free.
            let mut with_dst = rest.to_vec();
            with_dst.push(dst);
            self.value(b, *other, &with_dst)?;
            self.value(a, dst, rest)?;
        } else {
            self.value(a, dst, free)?;
            self.value(b, *other, rest)?;
        }
        if op == Arith::Sub {
            let enough = self.asm.label();
            self.asm.jump_if(Cond::Ge, dst, *other, enough);
            self.asm.push(Insn::mov(dst, *other));
            self.asm.bind(enough);
        }
        self.asm.push(Insn::alu(alu(op), dst, *other));
        Ok(())
    }

    fn end(
        &mut self,
        id: BlockId,
        end: &End,
        next: Option<BlockId>,
        last: Last,
    ) -> Result<(), EmitError> {
        match end {
            End::Return(verdict) => {
                if *verdict == Verdict::Pass && last.pass && !self.pass_bound {
                    let pass = *self.pass.get_or_insert_with(|| self.asm.label());
                    self.pass_bound = true;
                    self.asm.bind(pass);
                }
                self.asm.push(Insn::mov_imm(Reg::R0, verdict.encode()));
                if last.exit && !self.exit_bound {
                    self.exit_bound = true;
                    self.asm.bind(self.exit);
                }
                self.asm.push(Insn::exit());
            }
            End::Jump(target) => {
                if next != Some(*target) {
                    self.jump(*target);
                }
            }
            End::Branch { cmp, left, right, then, otherwise } => {
                let (params, state) = self.plan.wanted_after(end);
                self.look_up_wanted(
                    params || left.reads_params() || right.reads_params(),
                    state || left.reads_state() || right.reads_state(),
                );
                let early = self.early_return(id);
                let mut reserved = None;
                if let Some(verdict) = early.and_then(|id| self.returns(id)) {
                    self.asm.push(Insn::mov_imm(Reg::R0, verdict.encode()));
                    reserved = Some(Reg::R0);
                }
                let (cmp, target, fall) = match early {
                    Some(id) if id == *then => (*cmp, self.exit, *otherwise),
                    Some(_) => (cmp.negated(), self.exit, *then),
                    None if next == Some(*then) => (cmp.negated(), self.label(*otherwise), *then),
                    None => (*cmp, self.label(*then), *otherwise),
                };
                self.compare(cmp, left, right, target, reserved)?;
                if next != Some(fall) {
                    self.jump(fall);
                }
            }
        }
        Ok(())
    }

    fn label(&self, id: BlockId) -> Label {
        self.labels.get(&id).copied().unwrap_or(self.exit)
    }

    fn jump(&mut self, target: BlockId) {
        let label = self.label(target);
        self.asm.jump(label);
    }

    fn compare(
        &mut self,
        cmp: Cmp,
        left: &Value,
        right: &Value,
        target: Label,
        reserved: Option<Reg>,
    ) -> Result<(), EmitError> {
        let mut free = self.scratch();
        free.retain(|r| Some(*r) != reserved);
        let [a, rest @ ..] = free.as_slice() else { return Err(self.too_complex()) };
        let cond = cond(cmp);
        if let Value::Const(c) = right
            && let Ok(imm) = i32::try_from(*c)
        {
            match (left, self.cached) {
                (Value::State(id), Some((cached, register)))
                    if *id == cached && Some(register) != reserved =>
                {
                    self.asm.jump_if_imm(cond, register, imm, target);
                }
                _ => {
                    self.value(left, *a, rest)?;
                    self.asm.jump_if_imm(cond, *a, imm, target);
                }
            }
            return Ok(());
        }
        let [b, rest @ ..] = rest else { return Err(self.too_complex()) };
        if need(right) > need(left) {
            let mut with_a = rest.to_vec();
            with_a.push(*a);
            self.value(right, *b, &with_a)?;
            self.value(left, *a, rest)?;
        } else {
            let mut with_b = rest.to_vec();
            with_b.push(*b);
            self.value(left, *a, &with_b)?;
            self.value(right, *b, rest)?;
        }
        self.asm.jump_if(cond, *a, *b, target);
        Ok(())
    }
}

/// How many registers a value needs (Sethi and Ullman).
fn need(value: &Value) -> u32 {
    match value {
        Value::Arith(_, a, b) => {
            let (a, b) = (need(a), need(b));
            if matches!((a, b), (1, 1)) || a == b { a + 1 } else { a.max(b) }
        }
        _ => 1,
    }
}

fn alu(op: Arith) -> Alu {
    match op {
        Arith::Add => Alu::Add,
        Arith::Sub | Arith::WrappingSub => Alu::Sub,
        Arith::Mul => Alu::Mul,
        Arith::Div => Alu::Div,
        Arith::Rem => Alu::Mod,
    }
}

fn cond(cmp: Cmp) -> Cond {
    match cmp {
        Cmp::Eq => Cond::Eq,
        Cmp::Ne => Cond::Ne,
        Cmp::Lt => Cond::Lt,
        Cmp::Le => Cond::Le,
        Cmp::Gt => Cond::Gt,
        Cmp::Ge => Cond::Ge,
    }
}
