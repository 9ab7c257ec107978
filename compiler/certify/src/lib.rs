//! Checks the certificate that a compiled policy carries.
//!
//! Stage: object with a certificate → [`Certified`], or why it is [`Refused`].
//!
//! A certificate is an invariant of a log under the policy, and the bound of what a power loss takes, in sync
//! calls. It is checked, not believed: a log begins in the invariant, every step of every program and of the engine
//! stays in it, and it implies the bound, which is what the note states. docs/certificate.md says what is covered.
//!
//! | module | what it holds |
//! |---|---|
//! | [`machine`] | the instructions, path by path |
//! | [`rules`] | what the engine promises; the conditions |
//! | [`linear`] | whether linear facts contradict one another |
//! | [`smt`] | the conditions for another solver |
//!
//! Architecture invariant: small, and independent of what it checks. It shares the reader of objects with the
//! compiler and nothing else: no prover, no engine, no policy language. No I/O, no clock, no panic, and a time that
//! its own limits bound.

pub mod linear;
pub mod machine;
pub mod rules;
pub mod smt;
mod text;

use durac_abi::Hook;
use durac_abi::certificate::{Certificate, Form};
use durac_abi::object::{Failure, Object};
use linear::TooLarge;
pub use text::{bound, cell};

/// Why a certificate is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is none.
    #[error("the object has no certificate")]
    None,
    /// It is of an object that the rules do not speak of.
    #[error(
        "the object has a certificate, but cannot have one: it is not for the agent, or keeps state in replies or turns"
    )]
    NotCovered,
    /// It does not fit the object.
    #[error("the certificate does not fit the object: it names what the object does not have")]
    Malformed,
    /// The checker cannot follow the program.
    #[error("the program of {hook} cannot be followed at instruction {slot}: {why}")]
    Program {
        /// The program's hook.
        hook: Hook,
        /// The instruction.
        slot: u32,
        /// Why not.
        why: &'static str,
    },
    /// A condition does not hold, or is not shown.
    #[error("a condition of the certificate does not hold: {condition}")]
    Condition {
        /// Which.
        condition: String,
    },
    /// The note states another bound.
    #[error("the certificate bounds the loss by {certified}, but the note states {stated}")]
    Bound {
        /// What the certificate says, at the default parameters.
        certified: String,
        /// What the note says.
        stated: String,
    },
    /// Writes that no sync call follows are acknowledged, any number of them.
    #[error("the policy defers writes, of which no certificate can bound the number")]
    Writes,
    /// It takes more numbers, paths or steps than are allowed.
    #[error("the certificate is too large to be checked")]
    TooLarge,
}

impl From<TooLarge> for Refused {
    fn from(_: TooLarge) -> Self {
        Refused::TooLarge
    }
}

/// What a certificate shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    /// The sync calls that a power loss takes at most, in terms of the parameters.
    pub bound: String,
    /// The same at the default parameters.
    pub syncs: u64,
    /// How many conditions were shown.
    pub conditions: usize,
}

/// A deliberate fault of the checker, for tests: each accepts a certificate of a bound that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
#[allow(missing_docs, reason = "each is named after what it does")]
pub enum Flaw {
    None,
    SkipsAPath,
    WaitPromisesOneMore,
    PendingCountsThisCall,
    OwnCallIsDurable,
    ParametersStay,
    CallersTakeTurns,
    BeginsAnywhere,
    StagesAll,
    ErrorsUndo,
    NeverWraps,
}

/// Checks the certificate of an object.
///
/// # Errors
/// Why it is refused; [`Refused::None`] if there is none.
pub fn check(object: &Object) -> Result<Certified, Refused> {
    check_with(object, Flaw::None)
}

/// As [`check`], with a fault.
///
/// # Errors
/// As [`check`].
#[doc(hidden)]
pub fn check_with(object: &Object, flaw: Flaw) -> Result<Certified, Refused> {
    let certificate = object.meta.certificate.as_ref().ok_or(Refused::None)?;
    if object.meta.defers_writes {
        return Err(Refused::Writes);
    }
    let conditions = rules::conditions(object, certificate, flaw)?;
    for condition in &conditions.all {
        if !conditions.symbols.implies(&condition.given, &condition.cells)? {
            return Err(Refused::Condition { condition: condition.name.clone() });
        }
    }
    let syncs = stated(object, certificate)?;
    let bound = text::bound(&object.meta, certificate);
    Ok(Certified { bound, syncs, conditions: conditions.all.len() })
}

/// The bound at the default parameters, which is the one that the note states.
fn stated(object: &Object, certificate: &Certificate) -> Result<u64, Refused> {
    let mut most = 0;
    for form in &certificate.bound {
        most = most.max(at_defaults(object, form)?);
    }
    let stated = object.meta.loss.iter().find(|loss| loss.failure == Failure::PowerLoss);
    let stated = stated.and_then(|loss| loss.syncs);
    let in_words = |syncs: Option<u64>| match syncs {
        Some(1) => "1 sync".to_owned(),
        Some(syncs) => format!("{syncs} syncs"),
        None => "no number of syncs".to_owned(),
    };
    let certified = u64::try_from(most).ok();
    match certified.filter(|_| certified == stated) {
        Some(syncs) => Ok(syncs),
        None => {
            let (certified, stated) = (in_words(certified), in_words(stated));
            Err(Refused::Bound { certified, stated })
        }
    }
}

fn at_defaults(object: &Object, form: &Form) -> Result<i128, TooLarge> {
    let mut sum = i128::from(form.constant);
    for (factor, param) in form.params.iter().zip(&object.meta.params) {
        let part = i128::from(*factor) * i128::from(param.default);
        sum = sum.checked_add(part).ok_or(TooLarge)?;
    }
    Ok(sum)
}
