//! Faults of the agent, made on purpose, so that the crash test can show that it finds them.
//!
//! Only a build with the feature `fault-injection` can make them, and only if the environment names one
//! (`DURAC_FAULT`); `tests/faulty` is such a build. No other build contains any of this.

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The syncer reports its sync as complete before it has made it.
    EarlyCompletion,
    /// Staged bytes are not copied.
    NoCopy,
    /// Nothing is drained at the end of the process, nor before a call on another file.
    NoDrain,
    /// A call that overlaps another runs the program all the same.
    Overlap,
    /// No reply is held.
    NoHold,
    /// A reply is sent when the one before it may be.
    EarlyRelease,
    /// What is sent to replicas is not held, whatever the target says.
    FreeReplicas,
    /// Every reply is said to be clean.
    CleanReplies,
    /// What the log names is not noted.
    Nameless,
    /// An event loop serves what is ready in the order in which the system reports it.
    LateWrites,
    /// A call sees parameters that change while it waits.
    LiveParameters,
    /// Every second update is not counted.
    Undercount,
    /// A descriptor is believed to be what the table says.
    StaleDescriptor,
    /// An interrupted sync stops the log.
    StickyInterrupt,
    /// A call is acknowledged long after its program has read the clock, and at that time.
    LateTime,
    /// A policy is exchanged without a look at what the old one has acknowledged.
    HastyChange,
}

/// Whether this fault is to be made.
#[cfg(feature = "fault-injection")]
pub fn injects(fault: Fault) -> bool {
    chosen() == Some(fault)
}

/// Whether this fault is to be made: never in this build.
#[cfg(not(feature = "fault-injection"))]
pub const fn injects(_: Fault) -> bool {
    false
}

/// Warns that this build can inject faults.
#[cfg(feature = "fault-injection")]
pub fn warn() {
    crate::note::error(&match chosen() {
        Some(fault) => {
            format!("FAULT INJECTION IS ON ({fault:?}): this agent loses data; for tests only")
        }
        None => "this agent is built with fault injection: for tests only".to_owned(),
    });
}

/// Warns that this build can inject faults: this one cannot.
#[cfg(not(feature = "fault-injection"))]
pub const fn warn() {}

#[cfg(feature = "fault-injection")]
fn chosen() -> Option<Fault> {
    static CHOSEN: std::sync::OnceLock<Option<Fault>> = std::sync::OnceLock::new();
    *CHOSEN.get_or_init(|| match std::env::var("DURAC_FAULT").as_deref() {
        Ok("early") => Some(Fault::EarlyCompletion),
        Ok("copy") => Some(Fault::NoCopy),
        Ok("drain") => Some(Fault::NoDrain),
        Ok("overlap") => Some(Fault::Overlap),
        Ok("hold") => Some(Fault::NoHold),
        Ok("release") => Some(Fault::EarlyRelease),
        Ok("replicas") => Some(Fault::FreeReplicas),
        Ok("clean") => Some(Fault::CleanReplies),
        Ok("nameless") => Some(Fault::Nameless),
        Ok("late") => Some(Fault::LateWrites),
        Ok("params") => Some(Fault::LiveParameters),
        Ok("undercount") => Some(Fault::Undercount),
        Ok("stale") => Some(Fault::StaleDescriptor),
        Ok("eintr") => Some(Fault::StickyInterrupt),
        Ok("time") => Some(Fault::LateTime),
        Ok("change") => Some(Fault::HastyChange),
        _ => None,
    })
}
