//! The one table of diagnostic codes. A code is never reused; its page is `docs/errors/CODE.md`.

use crate::diag::Severity;
use std::fmt;

macro_rules! codes {
    ($($name:ident = $text:literal, $summary:literal;)*) => {
        /// A diagnostic code. `E` codes stop compilation, `W` codes warn.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code { $(#[doc = $summary] $name,)* }

        impl Code {
            /// Every code, in order.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// The code as shown and as typed: `E0101`.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }

            /// One line that says what the code is about.
            #[must_use]
            pub fn summary(self) -> &'static str {
                match self { $(Code::$name => $summary,)* }
            }
        }
    };
}

codes! {
    // E00xx: the file itself.
    EmptyFile = "E0001", "the file has no hook";
    NotUtf8 = "E0002", "the file is not UTF-8 text";
    TooLarge = "E0003", "the file is too large";
    Unreadable = "E0004", "the file cannot be read";
    // E01xx: characters and grammar.
    BadCharacter = "E0101", "a character that no token begins with";
    BadNumber = "E0102", "a number that does not fit 64 bits";
    BadSuffix = "E0103", "a number with an unknown unit suffix";
    UnterminatedString = "E0104", "a string without its closing quote";
    Unexpected = "E0105", "something else was expected here";
    TooDeep = "E0106", "expressions or blocks nested too deeply";
    MissingSeparator = "E0107", "two statements on a line without `;`";
    ChainedComparison = "E0108", "comparisons do not chain";
    NotAscii = "E0109", "a name with characters outside ASCII";
    // E02xx: names.
    UnknownName = "E0201", "a name that nothing declares";
    UnknownHook = "E0202", "a hook that the target does not have";
    UnknownTarget = "E0203", "a target that does not exist";
    UnknownType = "E0204", "a type that does not exist";
    UnknownErrno = "E0205", "an error number that does not exist";
    UnknownFailure = "E0206", "a failure that does not exist";
    Duplicate = "E0207", "declared twice";
    DuplicateHook = "E0208", "a hook written twice";
    ReservedName = "E0209", "a name that the language uses";
    UnknownUse = "E0210", "a feature that does not exist";
    UnknownErrorMode = "E0211", "`on error` with an unknown mode";
    UnknownCapability = "E0212", "a target that grants an unknown action";
    UnknownEngine = "E0213", "a target that names an unknown engine";
    // E03xx: types and units.
    Mismatch = "E0301", "two different units meet";
    NotBool = "E0302", "a condition that is not true or false";
    NotANumber = "E0303", "arithmetic on something that is not a number";
    MissingUnit = "E0304", "a plain number where a unit is needed";
    NotConstant = "E0305", "a value that must be known when compiling";
    OutOfRange = "E0306", "a default outside its declared range";
    EmptyRange = "E0307", "a range without a value";
    NoRange = "E0308", "a parameter without a range";
    DivisionByZero = "E0309", "a division by zero";
    Overflow = "E0310", "a value that does not fit 64 bits";
    // E04xx: meaning.
    NotAllowed = "E0401", "the target does not let a policy do this here";
    BadAwait = "E0402", "`await` takes `previous`, `all` or `pending < n`";
    AssignParam = "E0403", "a parameter cannot be assigned by the policy";
    AssignReading = "E0404", "a reading cannot be assigned";
    BadEvery = "E0405", "`every` takes a duration or a number of calls";
    BadFlush = "E0406", "`flush within` takes a duration above zero";
    BadGuarantee = "E0407", "a guarantee of a form that is not understood";
    BadHold = "E0408", "`hold` takes `until durable`";
    TargetFileAsPolicy = "E0409", "a target definition where a policy is wanted";
    EmptyTarget = "E0410", "a target without files or hooks";
    ZeroPeriod = "E0411", "a period of zero";
    TooComplex = "E0412", "an expression that needs too many registers";
    // E05xx: guarantees.
    LossBoundFails = "E0501", "the policy can lose more than its guarantee";
    LossUnbounded = "E0502", "the policy can lose without bound";
    TimeBoundFails = "E0503", "nothing makes the loss end in time";
    NotProved = "E0504", "a guarantee that could not be proved";
    // E06xx: this runtime.
    NotInRuntime = "E0601", "not in this runtime yet";
    VerifierRejects = "E0602", "the verifier rejects the program";
    TooManyVariables = "E0603", "too many parameters or state variables";
    NotInBpftime = "E0610", "BPFtime cannot do this safely";
    NoBpftimeEntry = "E0611", "a hook that BPFtime cannot be attached to safely";
    // E07xx: traces.
    BadTrace = "E0701", "a trace that cannot be read";
    // W0xxx: warnings.
    Unreachable = "W0101", "a statement that never runs";
    UnusedParam = "W0102", "a parameter that nothing reads";
    UnusedState = "W0103", "a state variable that nothing reads";
    NoDeadline = "W0104", "acknowledged syncs may stay unsynced while the application is idle";
    AlwaysTrue = "W0105", "a condition that is always the same";
    NothingDeferred = "W0106", "a deadline with nothing to flush";
    NotYetInRuntime = "W0107", "right, but no runtime can run it yet";
    NotExplored = "W0108", "a bound that was derived, not explored";
}

impl Code {
    /// Whether the code stops compilation.
    #[must_use]
    pub fn severity(self) -> Severity {
        if self.text().starts_with('E') { Severity::Error } else { Severity::Warning }
    }

    /// The code that is written `text`, in either case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Code> {
        Code::ALL.iter().copied().find(|c| c.text().eq_ignore_ascii_case(text))
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
