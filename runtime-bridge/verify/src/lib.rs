//! Verifies a policy object: it reads and writes only its own memory, calls only its runtime's helpers,
//! and terminates.
//!
//! Stage: bytes of a file → [`durac_abi::Object`] that may run ([`admit()`]); an object → [`Report`]
//! ([`verify`]).
//!
//! The compiler verifies before it writes an object, the agent before it runs one: an object is
//! never trusted because durac once made it. Three passes, each on what the one before accepted:
//!
//! | module | what it proves |
//! |---|---|
//! | `shape` | each instruction is one the agent's JIT runs as the standard says; jumps stay inside and go forward |
//! | `flow` | registers have values before they are read; the context is read only where the note says, and never written |
//! | `analysis` | memory safety and termination, by abstract interpretation (PREVAIL) |
//!
//! What the dependencies get wrong is in `quirks`.
//!
//! Architecture invariant: usable inside a foreign process. No threads, no environment, no I/O, no
//! panic, and a time that the size of the object bounds. It must not know the policy language, nor what
//! a policy can lose.

mod admit;
mod analysis;
mod flow;
mod platform;
mod quirks;
mod reason;
mod shape;

pub use admit::{Refused, admit};
use durac_abi::Hook;
use durac_abi::Object;
use durac_abi::object::{Line, Program};
pub use reason::Violation;
use std::fmt;

/// What is known of an accepted object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// One for each program, in the order of the object.
    pub programs: Vec<Verified>,
}

/// What is known of an accepted program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Its hook.
    pub hook: Hook,
    /// Slots of its code.
    pub insns: u32,
    /// Instructions it runs at most.
    pub max_steps: u32,
}

/// Why a program is refused, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The program's hook.
    pub hook: Hook,
    /// Index of the instruction in the program.
    pub slot: u32,
    /// The place in the source that the instruction comes from, if the object knows it.
    pub line: Option<Line>,
    /// What sort of mistake it is.
    pub kind: Violation,
    /// The same in words, with what is particular to this place.
    pub reason: String,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, instruction {}", self.hook, self.slot)?;
        if let Some(line) = self.line {
            write!(f, " (line {}, column {})", line.line, line.column)?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl std::error::Error for Rejection {}

/// Verifies every program of an object.
///
/// # Errors
/// Every instruction that was found wrong, in the order of the code, at least one. Mistakes that
/// only show when others are mended are not among them.
pub fn verify(object: &Object) -> Result<Report, Vec<Rejection>> {
    let mut programs = Vec::new();
    let mut rejections = Vec::new();
    for program in &object.programs {
        match verify_program(object, program) {
            Ok(verified) => programs.push(verified),
            Err(faults) => {
                let in_words = |fault: Fault| fault.at(program);
                rejections.extend(faults.into_iter().map(in_words));
            }
        }
    }
    if rejections.is_empty() { Ok(Report { programs }) } else { Err(rejections) }
}

fn verify_program(object: &Object, program: &Program) -> Result<Verified, Vec<Fault>> {
    shape::check(object, program)?;
    flow::check(object, program)?;
    analysis::check(object, program)?;
    let insns = program.insns.len() as u32;
    Ok(Verified { hook: program.hook, insns, max_steps: shape::longest_path(program) })
}

/// A [`Rejection`] on its way: what a pass finds, without the program it is in.
struct Fault {
    slot: u32,
    kind: Violation,
    detail: String,
}

impl Fault {
    fn new(slot: u32, kind: Violation, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { slot, kind, detail }
    }

    fn at(self, program: &Program) -> Rejection {
        let Fault { slot, kind, detail } = self;
        let line = program.lines.iter().rev().find(|line| line.slot <= slot);
        let reason = match detail.as_str() {
            "" => kind.to_string(),
            detail => format!("{kind}: {detail}"),
        };
        Rejection {
            hook: program.hook,
            slot,
            line: line.copied().filter(|line| line.line > 0),
            kind,
            reason,
        }
    }
}
