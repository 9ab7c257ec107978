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
    BadCharacter = "E0101", "unexpected character";
    BadNumber = "E0102", "a number that does not fit in 63 bits";
    BadSuffix = "E0103", "unknown unit suffix";
    UnterminatedString = "E0104", "unterminated string";
    Unexpected = "E0105", "unexpected token";
    TooDeep = "E0106", "expressions or blocks nested too deeply";
    MissingSeparator = "E0107", "two statements on a line without `;`";
    ChainedComparison = "E0108", "chained comparison";
    NotAscii = "E0109", "a name with characters outside ASCII";
    // E02xx: names.
    UnknownName = "E0201", "unknown name";
    UnknownHook = "E0202", "unknown hook";
    UnknownTarget = "E0203", "unknown target";
    UnknownType = "E0204", "unknown type";
    UnknownErrno = "E0205", "unknown error";
    UnknownFailure = "E0206", "unknown failure";
    Duplicate = "E0207", "declared twice";
    DuplicateHook = "E0208", "a hook written twice";
    ReservedName = "E0209", "reserved name";
    UnknownUse = "E0210", "unknown feature";
    UnknownErrorMode = "E0211", "unknown mode of `on error`";
    UnknownCapability = "E0212", "unknown action in a target";
    UnknownEngine = "E0213", "unknown engine in a target";
    UnknownCallers = "E0214", "unknown number of callers in a target";
    UnknownRecords = "E0215", "unknown records in a target";
    UnknownLayout = "E0216", "unknown layout in a target";
    NotALog = "E0217", "a target for files that are not a log";
    UnknownLinks = "E0218", "unknown connections in a target's `hold`";
    BadPattern = "E0219", "a pattern that matches no file";
    LongName = "E0220", "a policy's name that is too long";
    // E03xx: types and units.
    Mismatch = "E0301", "mismatched units";
    NotBool = "E0302", "expected a condition";
    NotANumber = "E0303", "expected a number";
    MissingUnit = "E0304", "missing unit";
    NotConstant = "E0305", "expected a constant";
    OutOfRange = "E0306", "a default outside its range";
    EmptyRange = "E0307", "an empty range";
    NoRange = "E0308", "a parameter without a range";
    DivisionByZero = "E0309", "division by zero";
    Overflow = "E0310", "a value that does not fit in 63 bits";
    // E04xx: meaning.
    NotAllowed = "E0401", "not allowed by the target";
    BadAwait = "E0402", "`await` takes `previous`, `all` or `pending < n`";
    AssignParam = "E0403", "a parameter cannot be assigned by the policy";
    AssignReading = "E0404", "a reading cannot be assigned";
    BadEvery = "E0405", "`every` takes a duration or a number of calls";
    BadFlush = "E0406", "`flush within` takes a duration above zero";
    BadGuarantee = "E0407", "invalid guarantee";
    BadHold = "E0408", "`hold` takes `until durable`";
    TargetFileAsPolicy = "E0409", "a target definition instead of a policy";
    EmptyTarget = "E0410", "a target without files or hooks";
    ZeroPeriod = "E0411", "a period of zero";
    TooComplex = "E0412", "an expression that needs too many registers";
    BadAssume = "E0413", "invalid assumption";
    TightFlush = "E0414", "a deadline shorter than two syncs";
    NoRecords = "E0415", "updates of a target that does not count them";
    BadGather = "E0416", "`gather` takes `within` and a duration of at most 10ms";
    NotInThisHook = "E0417", "not available in this hook";
    // E05xx: guarantees.
    LossBoundFails = "E0501", "the policy can lose more than its guarantee";
    LossUnbounded = "E0502", "unbounded loss";
    TimeBoundFails = "E0503", "unbounded or late loss in time";
    NotProved = "E0504", "a guarantee that could not be proved";
    NoAssumption = "E0505", "a bound in time without an assumption about syncs";
    // E06xx: this runtime.
    NotInRuntime = "E0601", "not supported by this runtime yet";
    VerifierRejects = "E0602", "rejected by the verifier";
    TooManyVariables = "E0603", "too many parameters or state variables";
    NotInBpftime = "E0610", "not safe in BPFtime";
    NoBpftimeEntry = "E0611", "a hook that BPFtime cannot attach to safely";
    NotInSupervisor = "E0612", "not available under the supervisor";
    // E07xx: traces.
    BadTrace = "E0701", "invalid trace";
    NotInTrace = "E0702", "not in the trace";
    // E08xx: tests.
    TestFails = "E0801", "a test fails";
    UnknownStep = "E0802", "unknown step in a test";
    BadStep = "E0803", "a step that this policy cannot make";
    // E09xx: the command line.
    BadSetting = "E0901", "a parameter that cannot be set to that";
    // W0xxx: warnings.
    Unreachable = "W0101", "unreachable statement";
    UnusedParam = "W0102", "unused parameter";
    UnusedState = "W0103", "unused state variable";
    NoDeadline = "W0104", "acknowledged data may stay unsynced while the application is idle";
    AlwaysTrue = "W0105", "constant condition";
    NothingDeferred = "W0106", "a deadline with nothing to flush";
    NotYetInRuntime = "W0107", "valid, but not supported by any runtime yet";
    NotExplored = "W0108", "a bound that was derived, not explored";
    UnusedAssumption = "W0109", "an assumption that nothing needs";
    WaitBeforeCall = "W0110", "a wait before a call that is made all the same";
    AlwaysFails = "W0111", "a hook that fails every call";
    NoLength = "W0112", "the length of a call that has no data";
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
