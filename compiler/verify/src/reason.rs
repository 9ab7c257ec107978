//! The sorts of mistakes, in our words, and how PREVAIL's messages map to them.

use std::fmt;

/// What sort of mistake makes a program be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No instruction, or more than the limit.
    Length,
    /// An instruction the agent's JIT does not run, or not as the standard says.
    Instruction,
    /// A register that does not exist or must not be written.
    Register,
    /// A jump out of the code or into the middle of an instruction.
    Jump,
    /// The end of the code can be passed without `exit`.
    NoExit,
    /// A call of a function that the runtime does not have.
    UnknownHelper,
    /// A register or memory is read before it has a value.
    Uninitialised,
    /// A jump backwards: a loop. The language has none, and the verifier cannot prove in bounded
    /// time that one ends.
    Loop,
    /// An access outside the value of a map.
    OutOfBounds,
    /// An access outside the stack.
    Stack,
    /// The result of a lookup is used without a test for null.
    NullPointer,
    /// An access that is not of one whole number: 8 bytes at a multiple of 8, for a key 4.
    Misaligned,
    /// A read of the context outside its fields.
    ContextRange,
    /// A read of a field of the context that the note does not list.
    UnlistedReading,
    /// A write to the context.
    ContextWrite,
    /// A write to the parameters.
    ParameterWrite,
    /// Arithmetic with a pointer whose result cannot be known.
    PointerArithmetic,
    /// A pointer is needed and something else is there, or a pointer is where a number must be.
    Pointer,
    /// A division whose divisor may be 0.
    Division,
    /// The verifier refused for a reason not named above, or failed.
    Other,
}

impl Kind {
    /// In words.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Kind::Length => "the program is empty or too long",
            Kind::Instruction => "the runtime does not run this instruction",
            Kind::Register => "this register cannot be used here",
            Kind::Jump => "a jump leaves the code or enters the middle of an instruction",
            Kind::NoExit => "the code can run past its end",
            Kind::UnknownHelper => "calls a function that the runtime does not have",
            Kind::Uninitialised => "reads what has no value yet",
            Kind::Loop => "has a loop, which might never end",
            Kind::OutOfBounds => "accesses memory outside the value of the map",
            Kind::Stack => "accesses memory outside the stack",
            Kind::NullPointer => "uses the result of a lookup that may be null",
            Kind::Misaligned => "accesses part of a number, or across two",
            Kind::ContextRange => "reads the context outside its fields",
            Kind::UnlistedReading => "reads a field of the context that the note does not list",
            Kind::ContextWrite => "writes to the context",
            Kind::ParameterWrite => "writes to the parameters",
            Kind::PointerArithmetic => "computes with a pointer",
            Kind::Pointer => "takes a number for a pointer or a pointer for a number",
            Kind::Division => "may divide by zero",
            Kind::Other => "could not be verified",
        }
    }

    /// The sort of a message of PREVAIL (`crab/ebpf_checker.rs` has them all).
    pub(crate) fn of_message(message: &str) -> Kind {
        // In order: the first that occurs decides.
        const TABLE: [(&str, Kind); 16] = [
            ("Loop counter is too large", Kind::Loop),
            ("stack_size", Kind::Stack),
            ("Stack content is not numeric", Kind::Uninitialised),
            ("with a non-numerical value", Kind::Uninitialised),
            ("Possible null access", Kind::NullPointer),
            ("shared_region_size", Kind::OutOfBounds),
            ("Lower bound must be at least 0", Kind::OutOfBounds),
            ("division by zero", Kind::Division),
            ("can be added to pointers", Kind::PointerArithmetic),
            ("Cannot subtract pointers", Kind::PointerArithmetic),
            ("can be dereferenced", Kind::Pointer),
            ("cannot be dereferenced", Kind::Pointer),
            ("can be stored to externally", Kind::Pointer),
            ("can be used as a", Kind::Pointer),
            ("Invalid type", Kind::Pointer),
            ("helper function", Kind::UnknownHelper),
        ];
        let found = TABLE.iter().find(|(text, _)| message.contains(text));
        found.map_or(Kind::Other, |(_, kind)| *kind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
