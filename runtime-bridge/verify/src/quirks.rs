//! What rbpf and PREVAIL get wrong, in one place: each function names the version it was found in and
//! where the fault is, so that an update of the dependency knows what to look at.

use crate::Violation;
use durac_abi::insn::{Alu, Insn, op};

/// Bytes below r10 that a program may use.
const STACK_SIZE: i32 = 512;

/// Why rbpf 0.4.1 would run an instruction otherwise than the standard and PREVAIL say, although it
/// knows it (`src/jit.rs` there, x86-64):
/// - 32-bit `mov` from a register copies all 64 bits, so the high half is not cleared;
/// - 32-bit `mod` by zero leaves the high half; 32-bit `div` is left out with it.
///
/// `le16` and `le32` do nothing there either; no byte swap is in the instruction set of a policy.
pub(crate) fn rbpf_misruns(insn: Insn) -> Option<&'static str> {
    let by_register = insn.opcode & op::X != 0;
    match Alu::of_opcode(insn.opcode).filter(|_| insn.class() == op::ALU)? {
        Alu::Mov if by_register => Some("would not clear the high half"),
        Alu::Div | Alu::Mod => Some("divides 32 bits"),
        _ => None,
    }
}

/// Whether rbpf 0.4.1 loads no program with this instruction: its own check refuses r10 as the left
/// side of a comparison.
pub(crate) fn rbpf_does_not_load(insn: Insn) -> bool {
    insn.dst == 10
}

/// Whether `size` bytes at a distance from r10 are all on the stack.
///
/// PREVAIL 0.2.6 lets the key of a lookup lie outside the stack (`check_valid_map_key_value` compares no
/// bounds). So the pass before it demands a key at a known place, and asks this function.
pub(crate) fn on_stack(at: i32, size: i32) -> bool {
    (-STACK_SIZE..=-size).contains(&at)
}

/// The violation that a message of PREVAIL 0.2.6 stands for: it gives text, and no code
/// (`crab/ebpf_checker.rs` has all of it). A message that is not known is [`Violation::Other`], never
/// an acceptance.
pub(crate) fn prevail_violation(message: &str) -> Violation {
    // In order: the first that occurs decides.
    const TABLE: [(&str, Violation); 16] = [
        ("Loop counter is too large", Violation::Loop),
        ("stack_size", Violation::Stack),
        ("Stack content is not numeric", Violation::Uninitialised),
        ("with a non-numerical value", Violation::Uninitialised),
        ("Possible null access", Violation::NullPointer),
        ("shared_region_size", Violation::OutOfBounds),
        ("Lower bound must be at least 0", Violation::OutOfBounds),
        ("division by zero", Violation::Division),
        ("can be added to pointers", Violation::PointerArithmetic),
        ("Cannot subtract pointers", Violation::PointerArithmetic),
        ("can be dereferenced", Violation::Pointer),
        ("cannot be dereferenced", Violation::Pointer),
        ("can be stored to externally", Violation::Pointer),
        ("can be used as a", Violation::Pointer),
        ("Invalid type", Violation::Pointer),
        ("helper function", Violation::UnknownHelper),
    ];
    let found = TABLE.iter().find(|(text, _)| message.contains(text));
    found.map_or(Violation::Other, |(_, violation)| *violation)
}
