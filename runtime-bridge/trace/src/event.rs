//! What a trace holds.

use std::fmt;

/// The format's name, the first field of every trace.
pub const FORMAT: &str = "durac-trace";
/// The version of the format that this crate writes, and the only one it reads.
pub const VERSION: u32 = 1;
/// Logs that a trace can have.
pub const MAX_LOGS: u64 = 1 << 20;
/// The most bytes that a system call writes: `MAX_RW_COUNT` of Linux with pages of 4 KiB (write(2)).
pub const MOST_WRITTEN: u64 = 0x7fff_f000;

/// What precedes the events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Version of the format.
    pub version: u32,
    /// How the trace came about.
    pub recorded: Recorded,
}

impl Header {
    /// A header of this version.
    #[must_use]
    pub fn new(recorded: Recorded) -> Self {
        Self { version: VERSION, recorded }
    }
}

/// How a trace came about. What is not known is empty, or 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Name and version of the tool that wrote it.
    pub tool: String,
    /// When it began: seconds since 1970.
    pub started: u64,
    /// Name of the policy that ran.
    pub policy: String,
    /// Name of the target, which says what is a log.
    pub target: String,
    /// The command that was recorded.
    pub command: Vec<String>,
    /// Processors of the machine.
    pub cores: u32,
    /// Version of the kernel.
    pub kernel: String,
    /// What saw the calls.
    pub source: Source,
}

/// A type whose values are words in the file.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$about])* $variant,)* }

        impl $name {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The word in the file.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// The value of a word.
            #[must_use]
            pub fn from_word(word: &[u8]) -> Option<Self> {
                Self::ALL.iter().copied().find(|v| v.word().as_bytes() == word)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

words! {
    /// What saw the calls.
    Source {
        /// The agent, inside the application.
        Agent = "agent",
        /// The supervisor, beside the application: a write stands where it was asked about.
        Supervisor = "supervisor",
        /// strace, from outside: nothing is known of CPU time, verdicts or waits.
        Strace = "strace",
        /// Nobody: a program or a person made them.
        #[default]
        Made = "made",
    }
}

words! {
    /// What happened.
    Op {
        /// A log was opened: its first descriptor.
        Open = "open",
        /// A log was closed: its last descriptor.
        Close = "close",
        /// A write call ended. With 0 bytes and success, the file's length was changed.
        #[default]
        Write = "write",
        /// An `fsync` call ended.
        Fsync = "fsync",
        /// An `fdatasync` call ended.
        Fdatasync = "fdatasync",
        /// A real sync ended: the one that a call passed on, or one in the background.
        Sync = "sync",
        /// The application forked a child.
        Fork = "fork",
        /// The application waited for a child that had ended.
        Reap = "reap",
    }
}

impl Op {
    /// Whether it is a call on which a policy can decide.
    #[must_use]
    pub fn is_call(self) -> bool {
        matches!(self, Op::Write | Op::Fsync | Op::Fdatasync)
    }

    /// Whether it asks for durability.
    #[must_use]
    pub fn is_sync_call(self) -> bool {
        matches!(self, Op::Fsync | Op::Fdatasync)
    }

    /// Whether it is about a log.
    #[must_use]
    pub fn has_log(self) -> bool {
        !matches!(self, Op::Fork | Op::Reap)
    }
}

words! {
    /// What was done with a call.
    Verdict {
        /// It is not a call, or no policy decided on it.
        #[default]
        None = "none",
        /// It ran as the application made it.
        Pass = "pass",
        /// Success was reported; the sync came later.
        Defer = "defer",
        /// Success was reported.
        Skip = "skip",
        /// Success was reported of a write; its bytes were written later.
        Stage = "stage",
        /// The policy failed it.
        Fail = "fail",
        /// A sync call with nothing new to sync, which waits for everything; no policy is called.
        Barrier = "barrier",
        /// An error had stopped the log.
        Refused = "refused",
    }
}

/// One event, one line of the file. All times are nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// When it ended, since the trace began. Events stand in the order of it.
    pub t: u64,
    /// What happened.
    pub op: Op,
    /// Number of the log, in the order of opening; 0 for fork and reap.
    pub log: u32,
    /// Number of the thread, in the order of their first events. A background syncer has one too.
    pub thread: u32,
    /// How long it took: it began at `t - took`.
    pub took: u64,
    /// CPU time that the thread used since its previous event ended; 0 if unknown. The work
    /// between calls, without the time it slept.
    pub cpu: u64,
    /// CPU time that the real sync used; 0 if unknown, or if there was none.
    pub sync_cpu: u64,
    /// Bytes that a write wrote, or that a sync was the first to cover.
    pub bytes: u64,
    /// What was done with a call.
    pub verdict: Verdict,
    /// Time that a call was parked.
    pub wait: u64,
    /// The highest sync call that a sync covers: those of each log are counted from 1 as they
    /// begin, refused ones left out.
    pub covers: u64,
    /// The sync ran in the background.
    pub background: bool,
    /// 0, or the error number with which it ended.
    pub result: i32,
    /// The file that was opened; empty if unknown, and for everything else.
    pub path: String,
}

impl Event {
    /// When it began.
    #[must_use]
    pub fn begin(&self) -> u64 {
        self.t.saturating_sub(self.took)
    }
}

/// What follows the events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// How many events there are.
    pub events: u64,
    /// How many are missing, because the recorder was too slow for them.
    pub dropped: u64,
}
