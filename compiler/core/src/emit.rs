//! MIR to BPF: registers, maps, layout.
//!
//! Values are trees without effect, so they are computed where they are used, in scratch
//! registers. Across calls live only the context pointer (r6), the parameters' address (r7) and
//! the state's (r8), each only in programs that need it.

use crate::hir::StateId;
use crate::mir::{Block, BlockId, End, Function, InstKind, Value};
use durac_abi::insn::{Alu, Cond, Insn, Reg, Size};
use durac_abi::object::{MAX_SLOTS, Program};
use durac_abi::{Helper, Hook, Reading, Verdict};
use durac_bpf::asm::{Asm, AsmError, Label};
use durac_grammar::{Sources, Span};
use std::collections::BTreeMap;

mod bpftime;
mod plan;
mod ring;
mod session;
mod value;

pub use bpftime::Frame;
pub use ring::{Ring, barrier};
pub use session::Range;

use plan::{LookedUp, Plan, SharedWait};

/// Why a function has no code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EmitError {
    /// An expression needs more registers than there are.
    TooComplex(Span),
    /// The code is too long for its jumps or for the verifier.
    TooLong,
}

/// Indices of the maps that programs load, in the object.
#[derive(Clone, Copy, Debug)]
pub struct Maps {
    /// The map `params`.
    pub params: u32,
    /// The map `state`.
    pub state: u32,
    /// The map `session`, if the runtime has it.
    pub session: u32,
    /// The map in which the kernel counts the syncs of BPFtime's programs.
    pub syncs: u32,
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

/// Emits one function: with a frame, what the runtime demands around it.
///
/// # Errors
/// The function does not fit the machine.
pub fn emit(
    function: &Function,
    maps: Maps,
    frame: Option<Frame>,
    sources: &Sources,
) -> Result<Program, EmitError> {
    let order = function.order();
    let ring = frame.as_ref().and_then(|frame| frame.ring).filter(|ring| ring.waits);
    let plan = Plan::new(function, &order, frame.as_ref().map(|_| ring.is_some()));
    let mut asm = Asm::new();
    let labels: BTreeMap<BlockId, Label> = order.iter().map(|id| (*id, asm.label())).collect();
    let exit = asm.label();
    let mut emitter = Emitter {
        function,
        sources,
        maps,
        framed: frame.is_some(),
        ring: ring.map(|ring| ring.labels(&mut asm)),
        plan,
        asm,
        labels,
        exits: Exits { exit, exit_bound: false, null: None, null_bound: false },
        held: Held::default(),
        calls: BTreeMap::new(),
        span: None,
    };
    match frame {
        None => emitter.all(&order)?,
        Some(frame) => {
            let ends = emitter.prologue(frame);
            emitter.all(&order)?;
            emitter.epilogue(ends);
        }
    }
    let program = emitter.asm.finish(function.hook).map_err(|_: AsmError| EmitError::TooLong)?;
    if program.insns.len() > MAX_SLOTS { Err(EmitError::TooLong) } else { Ok(program) }
}

/// Whether a block is the last to end the program, and the last to end it as a lookup without result does.
#[derive(Clone, Copy)]
struct Last {
    exit: bool,
    null: bool,
}

/// Where a program ends.
struct Exits {
    /// `exit`, with the verdict in r0.
    exit: Label,
    exit_bound: bool,
    /// Where a lookup that gives nothing goes: `r0 = if_null(hook); exit`.
    null: Option<Label>,
    null_bound: bool,
}

/// The verdict if a lookup gives nothing: the call runs as the application made it. A reply is held: the
/// prover, which does not know that a lookup always gives something, has to find `hold` on this path too.
fn if_null(hook: Hook) -> Verdict {
    if hook == Hook::Reply { Verdict::Hold } else { Verdict::Pass }
}

/// What registers hold between two instructions.
#[derive(Default)]
struct Held {
    /// The register with the parameters' address.
    params: Option<Reg>,
    /// The register with the state's address.
    state: Option<Reg>,
    /// A state variable whose value the last instruction left in a register.
    cached: Option<(StateId, Reg)>,
    /// The constant in r1 that a shared wait takes.
    distance: Option<u64>,
}

struct Emitter<'a> {
    function: &'a Function,
    sources: &'a Sources,
    maps: Maps,
    /// An epilogue follows, where every exit goes; and the process is one log.
    framed: bool,
    /// The syncs that the program starts.
    ring: Option<ring::Syncs>,
    plan: Plan,
    asm: Asm,
    labels: BTreeMap<BlockId, Label>,
    exits: Exits,
    held: Held,
    /// The calls of shared waits, by the block that holds them.
    calls: BTreeMap<BlockId, Label>,
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
            !self.has_no_code(*id)
                && self.function.block(*id).is_some_and(|b| matches!(b.end, End::Return(_)))
        };
        let last_return = order.iter().rposition(returning);
        let if_null = if_null(self.function.hook);
        let last_null = order.iter().rposition(|id| {
            let same = |b: &Block| b.end == End::Return(if_null);
            returning(id) && self.function.block(*id).is_some_and(same)
        });
        let mut falls_through = None;
        for (position, &id) in order.iter().enumerate() {
            let Some(block) = self.function.block(id) else { continue };
            if self.has_no_code(id) {
                continue;
            }
            // A constant set before a branch is still there when the branch falls through.
            if self.plan.predecessors.get(&id) != Some(&1) || falls_through != Some(id) {
                self.held.distance = None;
            }
            if let Some(label) = self.labels.get(&id) {
                self.asm.bind(*label);
            }
            let known = self.plan.at_start.get(&id).copied().unwrap_or(LookedUp::NOTHING);
            self.held.params = self.plan.register(MapKind::Params, known.params);
            self.held.state = self.plan.register(MapKind::State, known.state);
            self.held.cached = None;
            let shares_wait = self.plan.waits.get(&id).copied();
            for inst in &block.insts {
                self.place(inst.span);
                match shares_wait {
                    Some(wait) => self.shared_wait(id, wait),
                    None => self.inst(&inst.kind)?,
                }
            }
            let next =
                order.iter().skip(position + 1).copied().find(|next| !self.has_no_code(*next));
            // One that does not make the call it shares jumps there, past what comes next.
            if shares_wait.is_some_and(|wait| wait.leader != id) {
                falls_through = None;
                continue;
            }
            falls_through = next.filter(|next| block.end.successors().contains(next));
            self.place(block.span);
            let last =
                Last { exit: Some(position) == last_return, null: Some(position) == last_null };
            self.end(id, &block.end, next, last)?;
        }
        if self.framed {
            return Ok(());
        }
        if !self.exits.exit_bound {
            self.asm.bind(self.exits.exit);
            self.asm.push(Insn::exit());
        }
        if let Some(null) = self.exits.null
            && !self.exits.null_bound
        {
            // The lookup left 0 in r0, but as an address that is null: a verdict is a number.
            self.asm.bind(null);
            self.asm.push(Insn::mov_imm(Reg::R0, if_null.encode()));
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

    fn has_no_code(&self, id: BlockId) -> bool {
        self.folded_away(id) || self.plan.waits.get(&id).is_some_and(|wait| wait.absorbed)
    }

    /// `r1 = distance`, and the call or a jump to it.
    fn shared_wait(&mut self, id: BlockId, wait: SharedWait) {
        let call = self.shared_call(wait);
        self.set_distance(wait);
        if wait.leader == id {
            self.asm.bind(call);
            self.asm.push(Insn::call(Helper::Await));
            self.clobber();
        } else {
            self.asm.jump(call);
        }
    }

    fn shared_call(&mut self, wait: SharedWait) -> Label {
        let asm = &mut self.asm;
        *self.calls.entry(wait.leader).or_insert_with(|| asm.label())
    }

    fn set_distance(&mut self, wait: SharedWait) {
        if self.held.distance != Some(wait.distance) {
            self.asm.load_imm(Reg::R1, wait.distance);
            self.held.distance = Some(wait.distance);
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
            .filter(|r| Some(*r) != self.held.params && Some(*r) != self.held.state)
            .filter(|r| *r != Reg::R1 || self.held.distance.is_none())
            .collect()
    }

    /// After a call, only what is kept is known.
    fn clobber(&mut self) {
        self.held.params = self.held.params.filter(|r| *r == PARAMS);
        self.held.state = self.held.state.filter(|r| *r == STATE);
        self.held.cached = None;
        self.held.distance = None;
    }

    fn inst(&mut self, kind: &InstKind) -> Result<(), EmitError> {
        match kind {
            // A hint: the sync would overlap with the one that is waited for, and both were waited for.
            InstKind::Request if self.ring.is_some() => return Ok(()),
            InstKind::Request => {
                self.asm.push(Insn::call(Helper::Request));
                self.clobber();
            }
            InstKind::Await(distance) => {
                self.look_up_for(distance, false);
                self.value_into(distance, Reg::R1)?;
                match self.ring {
                    Some(syncs) => self.await_ring(&syncs),
                    None => self.asm.push(Insn::call(Helper::Await)),
                }
                self.clobber();
            }
            InstKind::Store(id, value) => {
                self.look_up_for(value, true);
                let base = self.held.state.unwrap_or(STATE);
                let offset = 8 * id.0 as i16;
                let free = self.scratch();
                let [first, rest @ ..] = free.as_slice() else { return Err(self.too_complex()) };
                // Through a register also for a constant: a store of an immediate is an instruction
                // of version 4 to LLVM's tools and to BPFtime.
                self.value(value, *first, rest)?;
                self.asm.push(Insn::stx(Size::Dw, base, offset, *first));
                self.held.cached = Some((*id, *first));
                return Ok(());
            }
        }
        self.held.cached = None;
        Ok(())
    }

    /// Makes sure the maps that a value needs have been looked up.
    fn look_up_for(&mut self, value: &Value, stores: bool) {
        self.look_up_wanted(value.reads_params(), stores || value.reads_state());
    }

    fn look_up_wanted(&mut self, params: bool, state: bool) {
        if state && self.held.state.is_none() {
            self.look_up(MapKind::State);
        }
        // With a frame they were copied to the stack.
        if params && !self.framed && self.held.params.is_none() {
            self.look_up(MapKind::Params);
        }
    }

    /// `r0 = lookup(map, key)`; a null address, which only another runtime could give, means `if_null`.
    fn look_up(&mut self, map: MapKind) {
        let (index, keep) = match map {
            MapKind::Params => (self.maps.params, self.plan.keep_params.then_some(PARAMS)),
            MapKind::State => (self.maps.state, self.plan.keep_state.then_some(STATE)),
        };
        match map {
            MapKind::Params => self.asm.push(Insn::mov_imm(Reg::R2, 0)),
            MapKind::State if self.framed => {
                self.asm.push(Insn::mov_imm(Reg::R2, 0));
            }
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
        // Jumps go forward: a lookup behind the last such verdict has an end of its own.
        if std::mem::take(&mut self.exits.null_bound) {
            self.exits.null = None;
        }
        let null = *self.exits.null.get_or_insert_with(|| self.asm.label());
        self.asm.jump_if_imm(Cond::Eq, Reg::R0, 0, null);
        let register = match keep {
            Some(register) => {
                self.asm.push(Insn::mov(register, Reg::R0));
                register
            }
            None => Reg::R0,
        };
        match map {
            MapKind::Params => self.held.params = Some(register),
            MapKind::State => self.held.state = Some(register),
        }
    }

    fn end(
        &mut self,
        id: BlockId,
        end: &End,
        next: Option<BlockId>,
        last: Last,
    ) -> Result<(), EmitError> {
        match end {
            End::Return(verdict) if self.framed => {
                self.asm.push(Insn::mov_imm(Reg::R0, verdict.encode()));
                if !last.exit {
                    self.asm.jump(self.exits.exit);
                }
            }
            End::Return(verdict) => {
                if last.null && !self.exits.null_bound {
                    let null = *self.exits.null.get_or_insert_with(|| self.asm.label());
                    self.exits.null_bound = true;
                    self.asm.bind(null);
                }
                self.asm.push(Insn::mov_imm(Reg::R0, verdict.encode()));
                if last.exit && !self.exits.exit_bound {
                    self.exits.exit_bound = true;
                    self.asm.bind(self.exits.exit);
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
                if let Some(wait) = self.plan.waits.get(then).copied().filter(|w| w.absorbed) {
                    let target = self.shared_call(wait);
                    self.set_distance(wait);
                    self.compare(*cmp, left, right, target, None)?;
                    if next != Some(*otherwise) {
                        self.jump(*otherwise);
                    }
                    return Ok(());
                }
                let early = self.early_return(id);
                if early.is_some() && std::mem::take(&mut self.exits.exit_bound) {
                    self.exits.exit = self.asm.label();
                }
                let mut reserved = None;
                if let Some(verdict) = early.and_then(|id| self.returns(id)) {
                    self.asm.push(Insn::mov_imm(Reg::R0, verdict.encode()));
                    reserved = Some(Reg::R0);
                }
                let (cmp, target, fall) = match early {
                    Some(id) if id == *then => (*cmp, self.exits.exit, *otherwise),
                    Some(_) => (cmp.negated(), self.exits.exit, *then),
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
        self.labels.get(&id).copied().unwrap_or(self.exits.exit)
    }

    fn jump(&mut self, target: BlockId) {
        let label = self.label(target);
        self.asm.jump(label);
    }
}
