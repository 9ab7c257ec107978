//! The prologue and epilogue of a program under BPFtime.
//!
//! The program itself is the one the agent runs. Before it, what it reads is put into a context on
//! the stack; after it, its verdict becomes `bpf_override_return`, which skips the hooked function.
//! A function that is not overridden runs: whatever goes wrong here ends in the original call.

use super::session::{self, Otherwise, Range};
use super::{Emitter, Ring, ring};
use durac_abi::bpftime::{Argument, MAX_ERRNO};
use durac_abi::insn::{Alu, Cond, Insn, Reg, Size};
use durac_abi::{CONTEXT_SIZE, Helper, Reading, Verdict};
use durac_bpf::asm::{Asm, Label};

/// The registers of the hooked call; the program leaves r9 alone.
pub(super) const REGISTERS: Reg = Reg::R9;
/// Process and thread, as the helper gives them, until the program begins.
pub(super) const PROCESS: Reg = Reg::R6;
/// The context on the stack, bytes below the frame pointer; above it is the key of a lookup.
pub(super) const BASE: i16 = -(CONTEXT_SIZE as i16) - 8;
/// Stack slot of the key.
const KEY: i16 = super::KEY;

/// `EIO` (`include/uapi/asm-generic/errno-base.h`).
pub(super) const EIO: i32 = 5;

/// What a program needs around it.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    /// It reads the clock.
    pub clock: bool,
    /// It reads the bytes of a write.
    pub reads_len: bool,
    /// The parameter with them; a sync has none.
    pub len: Option<Argument>,
    /// The parameter with the error of an earlier sync: then the call fails with it.
    pub failed: Option<Argument>,
    /// The parameters that it reads.
    pub params: Vec<Range>,
    /// It reads what the ring says.
    pub reads_ring: bool,
    /// The syncs that the object's programs start.
    pub ring: Option<Ring>,
}

/// Labels of the epilogue.
pub(super) struct Ends {
    /// Override with r2.
    pub(super) overrides: Label,
    /// Leave the call to the application.
    pub(super) passes: Label,
}

impl Emitter<'_> {
    /// Up to where the agent's program begins, with r1 the context.
    pub(super) fn prologue(&mut self, frame: Frame) -> Ends {
        let ends = Ends::new(&mut self.asm);
        if let Some(block) = self.function.block(crate::mir::BlockId(0)) {
            self.place(block.insts.first().map_or(block.span, |i| i.span));
        }
        self.asm.push(Insn::mov(REGISTERS, Reg::R1));
        if let Some(offset) = frame.failed.and_then(Argument::offset) {
            stays_failed(&mut self.asm, offset, &ends);
        }
        process(&mut self.asm);
        if frame.ring.is_some() {
            ring::is_owner(&mut self.asm, self.maps.syncs, &ends);
        }
        let otherwise = match self.ring {
            Some(_) => Otherwise::Goes,
            None => Otherwise::Passes,
        };
        let clock = frame.clock.then_some(BASE + Reading::Now.offset());
        let hook = self.function.hook;
        session::in_force(&mut self.asm, self.maps, hook, clock, otherwise, &ends);
        if let Some(syncs) = self.ring {
            self.begin_ring(&syncs, frame.reads_ring, &ends);
        }
        self.copy_params(&frame.params, &ends);
        if frame.reads_len {
            self.asm.push(match frame.len.and_then(Argument::offset) {
                Some(offset) => Insn::ldx(Size::Dw, Reg::R2, REGISTERS, offset),
                None => Insn::mov_imm(Reg::R2, 0),
            });
            self.field(Reading::CallLen, Reg::R2);
        }
        if frame.clock || frame.reads_len || frame.reads_ring || self.plan.keep_context {
            self.asm.push(Insn::mov(Reg::R1, Reg::R10));
            self.asm.push(Insn::alu_imm(Alu::Add, Reg::R1, i32::from(BASE)));
        }
        // A lookup that gives nothing goes where a call does that the policy is not for.
        self.exits.null = Some(self.ring.map_or(ends.passes, |syncs| syncs.passes));
        ends
    }

    /// Puts a reading into the context.
    pub(super) fn field(&mut self, reading: Reading, value: Reg) {
        self.asm.push(Insn::stx(Size::Dw, Reg::R10, BASE + reading.offset(), value));
    }

    /// From the verdict in r0 to what BPFtime does.
    pub(super) fn epilogue(&mut self, ends: Ends) {
        self.asm.bind(self.exits.exit);
        if let Some(syncs) = self.ring {
            return self.end_ring(&syncs, ends);
        }
        self.asm.jump_if_imm(Cond::Eq, Reg::R0, Verdict::Pass.encode(), ends.passes);
        self.asm.push(Insn::mov_imm(Reg::R2, 0));
        self.asm.jump_if_imm(Cond::Eq, Reg::R0, Verdict::Skip.encode(), ends.overrides);
        self.asm.push(Insn::mov(Reg::R2, Reg::R0));
        ends.close(&mut self.asm);
    }
}

impl Ends {
    pub(super) fn new(asm: &mut Asm) -> Self {
        Self { overrides: asm.label(), passes: asm.label() }
    }

    /// The end of every program.
    pub(super) fn close(self, asm: &mut Asm) {
        asm.bind(self.overrides);
        asm.push(Insn::mov(Reg::R1, REGISTERS));
        asm.push(Insn::call(Helper::Override));
        asm.bind(self.passes);
        asm.push(Insn::mov_imm(Reg::R0, 0));
        asm.push(Insn::exit());
    }
}

/// A sync that failed stays failed: its error is returned again, whatever the policy says.
pub(super) fn stays_failed(asm: &mut Asm, offset: i16, ends: &Ends) {
    let fine = asm.label();
    asm.push(Insn::ldx(Size::Dw, Reg::R2, REGISTERS, offset));
    asm.jump_if_imm(Cond::Eq, Reg::R2, 0, fine);
    // A value that is not an errno would be taken for success.
    // Two registers: not every runtime extends the sign of an immediate that is compared.
    asm.push(Insn::mov_imm(Reg::R3, -MAX_ERRNO));
    asm.jump_if(Cond::Ge, Reg::R2, Reg::R3, ends.overrides);
    asm.push(Insn::mov_imm(Reg::R2, Verdict::Fail(EIO).encode()));
    asm.jump(ends.overrides);
    asm.bind(fine);
}

/// r6 = process and thread
pub(super) fn process(asm: &mut Asm) {
    asm.push(Insn::call(Helper::Process));
    asm.push(Insn::mov(PROCESS, Reg::R0));
}

/// r0 = the entry of a map
pub(super) fn find(asm: &mut Asm, map: u32, none: Label) {
    asm.push(Insn::mov_imm(Reg::R2, 0));
    asm.push(Insn::stx(Size::W, Reg::R10, KEY, Reg::R2));
    asm.push(Insn::mov(Reg::R2, Reg::R10));
    asm.push(Insn::alu_imm(Alu::Add, Reg::R2, i32::from(KEY)));
    asm.load_map(Reg::R1, map);
    asm.push(Insn::call(Helper::MapLookup));
    asm.jump_if_imm(Cond::Eq, Reg::R0, 0, none);
}
