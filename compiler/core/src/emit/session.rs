//! What comes first in a program under BPFtime: whether its policy is in force in this call, as
//! [`durac_abi::session`] says, and the parameters as they are now.

use super::bpftime::{BASE, Ends, PROCESS, find};
use super::{Emitter, Maps};
use durac_abi::insn::{Alu, Cond, Insn, Reg, Size};
use durac_abi::session::{ID, OfHook, WORD_ID, WORD_OTHER, WORD_UNTIL, offset, word};
use durac_abi::{Helper, Hook};
use durac_bpf::asm::Asm;

/// The clock, while the session is checked.
pub(super) const NOW: Reg = Reg::R7;
/// Whether the policy is in force, where a program does not end at once if it is not.
pub(super) const IN_FORCE: Reg = Reg::R7;
/// The lowest place of the stack (`MAX_BPF_STACK`, `include/linux/filter.h`).
const STACK: usize = 512;

/// A parameter, by its place in the map, and its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Its index.
    pub place: usize,
    /// Least value.
    pub min: u64,
    /// Greatest value.
    pub max: u64,
}

/// What a call does that its policy is not for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Otherwise {
    /// It runs as it was made. The first call of all too: it syncs what was skipped before this loader.
    Passes,
    /// The same, but syncs that were started are waited for: the program goes on, with [`IN_FORCE`] 0 or 1.
    Goes,
}

/// Goes on in the thread that has called first, as long as the loader vouches; r6 is process and thread.
/// `clock` is the place on the stack where the program reads the time.
pub(super) fn in_force(
    asm: &mut Asm,
    maps: Maps,
    hook: Hook,
    clock: Option<i16>,
    or: Otherwise,
    ends: &Ends,
) {
    let [owner, thread, calls] =
        [OfHook::Owner, OfHook::Thread, OfHook::Calls].map(|of| offset(word(hook, of)));
    let (known, same, other, over, done) =
        (asm.label(), asm.label(), asm.label(), asm.label(), asm.label());
    asm.push(Insn::call(Helper::Clock));
    asm.push(Insn::mov(NOW, Reg::R0));
    if let Some(place) = clock {
        asm.push(Insn::stx(Size::Dw, Reg::R10, place, NOW));
    }
    is_session(asm, maps, ends);
    asm.push(Insn::ldx(Size::Dw, Reg::R2, Reg::R0, owner));
    asm.push(Insn::ldx(Size::Dw, Reg::R3, Reg::R0, offset(WORD_UNTIL)));
    asm.jump_if_imm(Cond::Ne, Reg::R2, 0, known);
    asm.jump_if(Cond::Ge, NOW, Reg::R3, ends.passes);
    asm.push(Insn::stx(Size::Dw, Reg::R0, owner, PROCESS));
    asm.jump(ends.passes);

    asm.bind(known);
    asm.jump_if(Cond::Eq, Reg::R2, PROCESS, same);
    asm.push(Insn::mov(Reg::R4, PROCESS));
    for process in [Reg::R2, Reg::R4] {
        asm.push(Insn::alu_imm(Alu::Rsh, process, 32));
    }
    asm.jump_if(Cond::Ne, Reg::R2, Reg::R4, other);
    asm.push(Insn::stx(Size::Dw, Reg::R0, thread, PROCESS));
    asm.jump(ends.passes);
    asm.bind(other);
    asm.push(Insn::stx(Size::Dw, Reg::R0, offset(WORD_OTHER), PROCESS));
    asm.jump(ends.passes);

    asm.bind(same);
    let over = if or == Otherwise::Passes { ends.passes } else { over };
    asm.jump_if(Cond::Ge, NOW, Reg::R3, over);
    asm.push(Insn::ldx(Size::Dw, Reg::R2, Reg::R0, thread));
    asm.jump_if_imm(Cond::Ne, Reg::R2, 0, over);
    asm.push(Insn::ldx(Size::Dw, Reg::R2, Reg::R0, calls));
    asm.push(Insn::alu_imm(Alu::Add, Reg::R2, 1));
    asm.push(Insn::stx(Size::Dw, Reg::R0, calls, Reg::R2));
    if or == Otherwise::Goes {
        asm.push(Insn::mov_imm(IN_FORCE, 1));
        asm.jump(done);
        asm.bind(over);
        asm.push(Insn::mov_imm(IN_FORCE, 0));
        asm.bind(done);
    }
}

/// r0 = the session, if it is that of the loader which has loaded this program.
pub(super) fn is_session(asm: &mut Asm, maps: Maps, ends: &Ends) {
    find(asm, maps.session, ends.passes);
    asm.load_imm(Reg::R2, ID);
    asm.push(Insn::ldx(Size::Dw, Reg::R3, Reg::R0, offset(WORD_ID)));
    asm.jump_if(Cond::Ne, Reg::R3, Reg::R2, ends.passes);
}

/// The place on the stack where a parameter is copied to; none if there is no room.
pub(super) fn param(place: usize) -> Option<i16> {
    let below = usize::from(BASE.unsigned_abs()) + 8 * (place + 1);
    i16::try_from(below)
        .ok()
        .filter(|below| usize::from(below.unsigned_abs()) <= STACK)
        .map(|below| -below)
}

impl Emitter<'_> {
    /// Copies the parameters that the program reads, each within its range: the map can be written while a call
    /// waits, and with any number.
    pub(super) fn copy_params(&mut self, ranges: &[Range], ends: &Ends) {
        if ranges.is_empty() {
            return;
        }
        let none = self.ring.map_or(ends.passes, |syncs| syncs.passes);
        find(&mut self.asm, self.maps.params, none);
        for range in ranges {
            let Some(at) = param(range.place) else { continue };
            let asm = &mut self.asm;
            asm.push(Insn::ldx(Size::Dw, Reg::R2, Reg::R0, offset(range.place)));
            // Through a register: not every runtime extends the sign of an immediate that is compared.
            if range.min > 0 {
                let fine = asm.label();
                asm.load_imm(Reg::R3, range.min);
                asm.jump_if(Cond::Ge, Reg::R2, Reg::R3, fine);
                asm.push(Insn::mov(Reg::R2, Reg::R3));
                asm.bind(fine);
            }
            if range.max < u64::MAX {
                let fine = asm.label();
                asm.load_imm(Reg::R3, range.max);
                asm.jump_if(Cond::Le, Reg::R2, Reg::R3, fine);
                asm.push(Insn::mov(Reg::R2, Reg::R3));
                asm.bind(fine);
            }
            asm.push(Insn::stx(Size::Dw, Reg::R10, at, Reg::R2));
        }
    }
}
