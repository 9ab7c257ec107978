//! Syncs that BPFtime's programs start and wait for: `defer` and `await` there.
//!
//! State and rules are in [`durac_abi::uring`]; `docs/bpftime.md` says why they are safe. r8 is the state's
//! address throughout, r7 counts the syncs in flight while they are waited for. There are no loops: the
//! verifier accepts none.

use super::bpftime::{Ends, PROCESS, REGISTERS, find, process, stays_failed};
use super::session::{IN_FORCE, NOW, is_session};
use super::{EmitError, Emitter, KEY, Maps, PARAMS, STATE};
use crate::backend::Barrier;
use durac_abi::bpftime::Argument;
use durac_abi::insn::{Alu, Cond, Insn, Reg, Size};
use durac_abi::notify::count;
use durac_abi::object::Program;
use durac_abi::session::{OfHook, WORD_UNTIL, offset, word};
use durac_abi::uring::{MAX_OUT, Mode, TRIES, Word};
use durac_abi::{Helper, Hook, Reading, Verdict};
use durac_bpf::asm::{Asm, Label};
use durac_grammar::Sources;

/// Syncs out, while they are waited for; no parameter's address is kept.
const OUT: Reg = PARAMS;
/// Where the first value of the map is put together, below the context.
const VALUE: i16 = -128;
/// The result of every call once a sync has failed.
const BROKEN: Verdict = Verdict::Fail(super::bpftime::EIO);

/// What the programs of an object share that starts syncs.
#[derive(Clone, Copy, Debug)]
pub struct Ring {
    /// Offset of its first word in the state.
    pub base: i16,
    /// The parameter with the log's descriptor.
    pub fd: Argument,
    /// This program starts and waits.
    pub waits: bool,
}

impl Ring {
    pub(super) fn labels(self, asm: &mut Asm) -> Syncs {
        let (fails, passes, broken) = (asm.label(), asm.label(), asm.label());
        Syncs { base: self.base, fd: self.fd.offset().unwrap_or(0), fails, passes, broken }
    }
}

/// The same in a program, with the places where its code ends.
#[derive(Clone, Copy)]
pub(super) struct Syncs {
    base: i16,
    fd: i16,
    /// A sync could not be started.
    fails: Label,
    /// Wait for what is out, and leave the call to the application.
    pub(super) passes: Label,
    /// A sync has failed.
    broken: Label,
}

impl Syncs {
    fn load(&self, asm: &mut Asm, to: Reg, word: Word) {
        asm.push(Insn::ldx(Size::Dw, to, STATE, self.at(word)));
    }

    fn store(&self, asm: &mut Asm, word: Word, from: Reg) {
        asm.push(Insn::stx(Size::Dw, STATE, self.at(word), from));
    }

    fn at(&self, word: Word) -> i16 {
        self.base + 8 * word as i16
    }

    fn add_one(&self, asm: &mut Asm, word: Word) {
        self.load(asm, Reg::R1, word);
        asm.push(Insn::alu_imm(Alu::Add, Reg::R1, 1));
        self.store(asm, word, Reg::R1);
    }

    fn set(&self, asm: &mut Asm, mode: Mode) {
        asm.push(Insn::mov_imm(Reg::R1, mode as i32));
        self.store(asm, Word::Mode, Reg::R1);
    }

    /// Starts a sync.
    fn starts(&self, asm: &mut Asm, fails: Label) {
        asm.push(Insn::ldx(Size::Dw, Reg::R1, REGISTERS, self.fd));
        asm.push(Insn::call(Helper::RingSync));
        asm.jump_if_imm(Cond::Ne, Reg::R0, 0, fails);
        asm.push(Insn::call(Helper::RingSubmit));
        asm.jump_if_imm(Cond::Ne, Reg::R0, 1, fails);
        self.add_one(asm, Word::Started);
        self.add_one(asm, Word::Out);
    }

    /// Waits for everything that is out, and compares; what the last sync covers is durable then.
    fn drains(&self, asm: &mut Asm, syncs: u32, broken: Label) {
        let done = asm.label();
        self.load(asm, OUT, Word::Out);
        for _ in 0..TRIES {
            let next = asm.label();
            asm.jump_if_imm(Cond::Eq, OUT, 0, done);
            asm.push(Insn::call(Helper::RingWait));
            asm.jump_if_imm(Cond::Ne, Reg::R0, 0, next);
            asm.push(Insn::alu_imm(Alu::Sub, OUT, 1));
            asm.bind(next);
        }
        asm.bind(done);
        self.store(asm, Word::Out, OUT);
        asm.jump_if_imm(Cond::Ne, OUT, 0, broken);
        find(asm, syncs, broken);
        asm.push(Insn::ldx(Size::Dw, Reg::R1, Reg::R0, count::COMPLETED));
        self.load(asm, Reg::R2, Word::Started);
        asm.jump_if(Cond::Ne, Reg::R1, Reg::R2, broken);
        self.load(asm, Reg::R1, Word::Covered);
        self.store(asm, Word::Durable, Reg::R1);
    }

    /// r2 = the result of this call and of every later one: a sync has failed.
    fn breaks(&self, asm: &mut Asm) {
        asm.bind(self.broken);
        self.set(asm, Mode::Broken);
        asm.push(Insn::mov_imm(Reg::R2, BROKEN.encode()));
    }
}

/// In another process than the one that made the ring the call runs as it was made. Before the maps of the
/// policy are touched: their addresses are those of that process.
pub(super) fn is_owner(asm: &mut Asm, syncs: u32, ends: &Ends) {
    counted(asm, syncs, ends);
    asm.jump_if(Cond::Ne, Reg::R2, Reg::R3, ends.passes);
}

/// r2 = the process that the kernel counts for, r3 = this one, of r6.
fn counted(asm: &mut Asm, syncs: u32, ends: &Ends) {
    find(asm, syncs, ends.passes);
    asm.push(Insn::ldx(Size::Dw, Reg::R2, Reg::R0, count::PROCESS));
    asm.push(Insn::mov(Reg::R3, PROCESS));
    asm.push(Insn::alu_imm(Alu::Rsh, Reg::R3, 32));
}

impl Emitter<'_> {
    /// The call gets its number, if the ring works.
    pub(super) fn begin_ring(&mut self, syncs: &Syncs, reads: bool, ends: &Ends) {
        find(&mut self.asm, self.maps.state, ends.passes);
        self.asm.push(Insn::mov(STATE, Reg::R0));
        syncs.load(&mut self.asm, Reg::R2, Word::Mode);
        self.asm.jump_if_imm(Cond::Eq, Reg::R2, Mode::Broken as i32, syncs.broken);
        self.asm.jump_if_imm(Cond::Ne, Reg::R2, Mode::Working as i32, ends.passes);
        syncs.add_one(&mut self.asm, Word::Calls);
        // Not in force any more: what is in flight is waited for, once.
        self.asm.jump_if_imm(Cond::Eq, IN_FORCE, 0, syncs.passes);
        self.read_ring(syncs, reads);
    }

    /// What the program reads of the ring.
    fn read_ring(&mut self, syncs: &Syncs, reads: bool) {
        if !reads {
            return;
        }
        let done = self.asm.label();
        syncs.load(&mut self.asm, Reg::R1, Word::Calls);
        syncs.load(&mut self.asm, Reg::R2, Word::Durable);
        self.asm.push(Insn::mov_imm(Reg::R3, 1));
        self.asm.push(Insn::mov_imm(Reg::R4, 0));
        self.asm.jump_if(Cond::Ge, Reg::R2, Reg::R1, done);
        self.asm.push(Insn::mov_imm(Reg::R3, 0));
        self.asm.push(Insn::mov(Reg::R4, Reg::R1));
        self.asm.push(Insn::alu(Alu::Sub, Reg::R4, Reg::R2));
        self.asm.push(Insn::alu_imm(Alu::Sub, Reg::R4, 1));
        self.asm.bind(done);
        self.field(Reading::NotifyDone, Reg::R3);
        self.field(Reading::Pending, Reg::R4);
    }

    /// Waits at the distance in r1.
    pub(super) fn await_ring(&mut self, syncs: &Syncs) {
        let (waits, done) = (self.asm.label(), self.asm.label());
        let asm = &mut self.asm;
        syncs.load(asm, Reg::R2, Word::Calls);
        asm.jump_if(Cond::Ge, Reg::R1, Reg::R2, done);
        asm.push(Insn::alu(Alu::Sub, Reg::R2, Reg::R1));
        syncs.load(asm, Reg::R3, Word::Durable);
        asm.jump_if(Cond::Ge, Reg::R3, Reg::R2, done);
        syncs.load(asm, Reg::R3, Word::Covered);
        asm.jump_if(Cond::Ge, Reg::R3, Reg::R2, waits);
        syncs.starts(asm, syncs.fails);
        covers(syncs, asm);
        asm.bind(waits);
        syncs.drains(asm, self.maps.syncs, syncs.broken);
        let function = self.function;
        let reads = [Reading::Pending, Reading::NotifyDone].into_iter().any(|r| function.reads(r));
        self.read_ring(syncs, reads);
        self.asm.bind(done);
    }

    /// From the verdict in r0 to what BPFtime does.
    pub(super) fn end_ring(&mut self, syncs: &Syncs, ends: Ends) {
        let (deferred, clean) = (self.asm.label(), self.asm.label());
        let asm = &mut self.asm;
        asm.jump_if_imm(Cond::Eq, Reg::R0, Verdict::Pass.encode(), syncs.passes);
        asm.push(Insn::mov_imm(Reg::R2, 0));
        asm.jump_if_imm(Cond::Eq, Reg::R0, Verdict::Skip.encode(), ends.overrides);
        asm.push(Insn::mov(Reg::R2, Reg::R0));
        asm.jump_if_imm(Cond::Ne, Reg::R0, Verdict::Defer.encode(), ends.overrides);

        // A wait may have started the call's sync.
        syncs.load(asm, Reg::R1, Word::Covered);
        syncs.load(asm, Reg::R2, Word::Calls);
        asm.jump_if(Cond::Eq, Reg::R1, Reg::R2, deferred);
        syncs.load(asm, Reg::R1, Word::Out);
        asm.jump_if_imm(Cond::Ge, Reg::R1, MAX_OUT, syncs.passes);
        syncs.starts(asm, syncs.fails);
        covers(syncs, asm);
        asm.bind(deferred);
        asm.push(Insn::mov_imm(Reg::R2, 0));
        asm.jump(ends.overrides);

        // What is left in the ring would be started with the next.
        asm.bind(syncs.fails);
        syncs.set(asm, Mode::NotStarted);
        asm.bind(syncs.passes);
        syncs.load(asm, Reg::R1, Word::Out);
        asm.jump_if_imm(Cond::Eq, Reg::R1, 0, clean);
        syncs.drains(asm, self.maps.syncs, syncs.broken);
        // If the application's own sync fails, the next call is told so.
        asm.bind(clean);
        covers(syncs, asm);
        syncs.store(asm, Word::Durable, Reg::R1);
        asm.jump(ends.passes);

        syncs.breaks(asm);
        ends.close(asm);
    }
}

/// The last sync covers this call. Leaves its number in r1.
fn covers(syncs: &Syncs, asm: &mut Asm) {
    syncs.load(asm, Reg::R1, Word::Calls);
    syncs.store(asm, Word::Covered, Reg::R1);
}

/// The program that runs before a sync for which no other hook is called, and when a log was opened. The
/// first time it makes the ring and tries whether the kernel counts a sync of it: at that moment nothing has
/// been written whose error the sync could consume.
///
/// # Errors
/// Those of the assembler.
pub fn barrier(barrier: &Barrier, maps: Maps, sources: &Sources) -> Result<Program, EmitError> {
    let Barrier { hook, entry, ring, span } = barrier;
    let asm = &mut Asm::new();
    let position = sources.position(*span);
    asm.place(position.line, position.column);
    let (ends, syncs) = (Ends::new(asm), ring.labels(asm));
    let (first, own, broken) = (asm.label(), asm.label(), syncs.broken);
    asm.push(Insn::mov(REGISTERS, Reg::R1));
    if let Some(offset) = entry.failed.and_then(Argument::offset) {
        stays_failed(asm, offset, &ends);
    }
    process(asm);
    counted(asm, maps.syncs, &ends);
    asm.jump_if_imm(Cond::Eq, Reg::R2, 0, first);
    asm.jump_if(Cond::Ne, Reg::R2, Reg::R3, ends.passes);
    is_session(asm, maps, &ends);
    // Only the thread that made the ring can wait for it.
    asm.push(Insn::ldx(Size::Dw, Reg::R2, Reg::R0, offset(word(*hook, OfHook::Owner))));
    asm.jump_if(Cond::Eq, Reg::R2, PROCESS, own);
    asm.push(Insn::stx(Size::Dw, Reg::R0, offset(word(*hook, OfHook::Thread)), PROCESS));
    asm.jump(ends.passes);
    asm.bind(own);
    find(asm, maps.state, ends.passes);
    asm.push(Insn::mov(STATE, Reg::R0));
    syncs.load(asm, Reg::R1, Word::Mode);
    asm.jump_if_imm(Cond::Eq, Reg::R1, Mode::Broken as i32, broken);
    asm.jump_if_imm(Cond::Ne, Reg::R1, Mode::Working as i32, ends.passes);
    syncs.load(asm, Reg::R1, Word::Out);
    asm.jump_if_imm(Cond::Eq, Reg::R1, 0, ends.passes);
    syncs.drains(asm, maps.syncs, broken);
    asm.jump(ends.passes);

    // The process is claimed before an array is looked up: BPFtime keeps its address for all processes.
    asm.bind(first);
    claims(asm, maps.syncs);
    asm.jump_if_imm(Cond::Ne, Reg::R0, 0, ends.passes);
    asm.push(Insn::call(Helper::Clock));
    asm.push(Insn::mov(NOW, Reg::R0));
    is_session(asm, maps, &ends);
    asm.push(Insn::stx(Size::Dw, Reg::R0, offset(word(*hook, OfHook::Owner)), PROCESS));
    asm.push(Insn::ldx(Size::Dw, Reg::R3, Reg::R0, offset(WORD_UNTIL)));
    asm.jump_if(Cond::Ge, NOW, Reg::R3, ends.passes);
    find(asm, maps.state, ends.passes);
    asm.push(Insn::mov(STATE, Reg::R0));
    syncs.load(asm, Reg::R1, Word::Mode);
    asm.jump_if_imm(Cond::Ne, Reg::R1, Mode::New as i32, ends.passes);
    syncs.set(asm, Mode::NoRing);
    asm.push(Insn::call(Helper::RingInit));
    asm.jump_if_imm(Cond::Ne, Reg::R0, 0, ends.passes);
    syncs.set(asm, Mode::NoTrial);
    syncs.starts(asm, ends.passes);
    syncs.set(asm, Mode::NotCounted);
    syncs.drains(asm, maps.syncs, ends.passes);
    syncs.set(asm, Mode::Working);
    asm.jump(ends.passes);

    syncs.breaks(asm);
    ends.close(asm);
    std::mem::take(asm).finish(Hook::Barrier).map_err(|_| EmitError::TooLong)
}

/// Writes the process in r3 into the map, and that nothing is counted yet.
fn claims(asm: &mut Asm, syncs: u32) {
    asm.push(Insn::stx(Size::Dw, Reg::R10, VALUE + count::PROCESS, Reg::R3));
    asm.push(Insn::mov_imm(Reg::R1, 0));
    asm.push(Insn::stx(Size::Dw, Reg::R10, VALUE + count::COMPLETED, Reg::R1));
    asm.push(Insn::stx(Size::W, Reg::R10, KEY, Reg::R1));
    asm.load_map(Reg::R1, syncs);
    for (to, place) in [(Reg::R2, KEY), (Reg::R3, VALUE)] {
        asm.push(Insn::mov(to, Reg::R10));
        asm.push(Insn::alu_imm(Alu::Add, to, i32::from(place)));
    }
    asm.push(Insn::mov_imm(Reg::R4, 0));
    asm.push(Insn::call(Helper::MapUpdate));
}
