//! The sorts of mistakes, in our words.

use durac_abi::words;

words! {
    /// What sort of mistake makes a program be refused.
    pub enum Violation, text {
        /// No instruction, or more than the limit.
        Length => "the program is empty or too long",
        /// An instruction the agent's JIT does not run, or not as the standard says.
        Instruction => "the runtime does not run this instruction",
        /// A register that does not exist or must not be written.
        Register => "this register cannot be used here",
        /// A jump out of the code or into the middle of an instruction.
        Jump => "a jump leaves the code or enters the middle of an instruction",
        /// The end of the code can be passed without `exit`.
        NoExit => "the code can run past its end",
        /// A call of a function that the runtime does not have.
        UnknownHelper => "calls a function that the runtime does not have",
        /// A register or memory is read before it has a value.
        Uninitialised => "reads a value before it is set",
        /// A jump backwards: a loop. The language has none, and the verifier cannot prove in bounded
        /// time that one ends.
        Loop => "has a loop, which might never end",
        /// An access outside the value of a map.
        OutOfBounds => "accesses memory outside the value of the map",
        /// An access outside the stack.
        Stack => "accesses memory outside the stack",
        /// The result of a lookup is used without a test for null.
        NullPointer => "uses the result of a lookup that may be null",
        /// An access that is not of one whole number: 8 bytes at a multiple of 8, for a key 4.
        Misaligned => "accesses part of a number, or crosses from one into the next",
        /// A read of the context outside its fields.
        ContextRange => "reads the context outside its fields",
        /// A read of a field of the context that the note does not list.
        UnlistedReading => "reads a field of the context that the note does not list",
        /// A write to the context.
        ContextWrite => "writes to the context",
        /// A write to the parameters.
        ParameterWrite => "writes to the parameters",
        /// Arithmetic with a pointer whose result cannot be known.
        PointerArithmetic => "computes with a pointer",
        /// A pointer is needed and something else is there, or a pointer is where a number must be.
        Pointer => "uses a number as a pointer or a pointer as a number",
        /// A division whose divisor may be 0.
        Division => "may divide by zero",
        /// The verifier refused for a reason not named above, or failed.
        Other => "could not be verified",
    }
}
