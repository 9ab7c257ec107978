//! The kernel's programs of `use kernel notify`: their code. What they count, and in which maps, is in
//! [`durac_abi::notify`].
//!
//! Architecture invariant: the programs depend on nothing of the policy. An object has all of them, as
//! they are here, or none: the reader knows them by their digest, so that a program that loads them as root
//! knows what they do.

mod count;
mod emit;
mod programs;

use crate::asm::AsmError;
use durac_abi::Runtime;
use durac_abi::notify::{Counter, KernelProgram};

/// The kernel's programs of an object for that runtime.
///
/// # Errors
/// Those of the assembler; it has none for these.
pub fn programs_of(runtime: Runtime) -> Result<Vec<KernelProgram>, AsmError> {
    match runtime.backend().counter() {
        Counter::Files => programs::programs(),
        Counter::Process => count::programs(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use durac_abi::notify::digest;

    #[test]
    fn the_reader_knows_the_programs() {
        for runtime in Runtime::ALL {
            let mut programs = programs_of(runtime).unwrap();
            assert!(
                runtime.backend().counter().is_of(&programs),
                "{runtime:?}: {}",
                digest(&programs)
            );
            programs[0].insns[0].imm ^= 1;
            assert!(!runtime.backend().counter().is_of(&programs), "{runtime:?}: changed");
        }
    }
}
