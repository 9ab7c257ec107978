//! What a simulation found: plain data, for the table, the JSON and the page.
//!
//! The JSON is the serde form of [`Report`]: names as here, times in nanoseconds, what is unknown is
//! `null`. [`VERSION`] changes when a field changes its meaning or goes away.

use super::device::Device;
use durac_abi::object;
use serde::{Deserialize, Serialize};

/// Version of the JSON.
pub const VERSION: u32 = 2;

/// The result of a simulation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// What was replayed.
    pub trace: TraceFacts,
    /// What the trace says of the application and its clients; the simulation's parameters.
    pub application: ApplicationFacts,
    /// The device that was simulated.
    pub device: DeviceFacts,
    /// Where the random numbers began.
    pub seed: u64,
    /// How crashes were chosen.
    pub crashes: CrashChoice,
    /// The result: one policy after the other, in the order they were given.
    pub policies: Vec<PolicyReport>,
    /// Policies that could not be simulated, each with the reason.
    pub left_out: Vec<LeftOut>,
    /// What the reader has to know, whole sentences.
    pub notes: Vec<String>,
}

/// What was replayed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TraceFacts {
    /// The file's name, without its folder.
    pub file: String,
    /// Events in it.
    pub events: u64,
    /// Events that the recorder had to drop.
    pub dropped: u64,
    /// When the recording began, seconds since 1970.
    pub started: u64,
    /// Time from the first event to the last, seconds.
    pub seconds: f64,
    /// Sync calls in it.
    pub calls: u64,
    /// The policy under which it was recorded.
    pub policy: String,
    /// The target, which says what is a log.
    pub target: String,
    /// The command that was recorded.
    pub command: Vec<String>,
    /// Processors of the machine it was recorded on.
    pub cores: u32,
    /// Sync calls a second, as recorded.
    pub calls_per_second: f64,
    /// Commands a second, as recorded; none if they cannot be told apart.
    pub commands_per_second: Option<f64>,
}

/// The closed loop that makes the calls.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ApplicationFacts {
    /// `event loop`: one thread that takes what its clients have sent, turn by turn; or
    /// `threads`: each writes and syncs for itself.
    pub kind: String,
    /// Clients that wait for replies; threads.
    pub clients: u32,
    /// Bytes of a command in the log; none if they cannot be told apart.
    pub command_bytes: Option<u64>,
    /// The fitted parameters, in words and figures: `time per turn`, `6.1 µs`.
    pub parameters: Vec<Parameter>,
}

/// One parameter of the simulation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parameter {
    /// What it is.
    pub name: String,
    /// Its value, nanoseconds.
    pub ns: u64,
    /// Where it comes from: `measured`, `fitted`, or `preset`.
    pub source: String,
}

/// The device that was simulated.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceFacts {
    /// `as recorded`, or the preset's name.
    pub name: String,
    /// Median duration of a sync that runs alone.
    pub p50_ns: u64,
    /// Duration that one sync in a hundred exceeds.
    pub p99_ns: u64,
    /// Processor time of a sync.
    pub cpu_ns: u64,
    /// Median duration of a sync of a file that has grown into a new block.
    pub grown_p50_ns: u64,
    /// Processor time of such a sync.
    pub grown_cpu_ns: u64,
    /// Where the figures come from.
    pub source: String,
}

impl DeviceFacts {
    /// What a reader wants to know of a device.
    #[must_use]
    pub fn of(device: &Device) -> Self {
        Self {
            name: device.name.clone(),
            p50_ns: device.plain.quantile(0.5),
            p99_ns: device.plain.quantile(0.99),
            cpu_ns: device.plain.cpu,
            grown_p50_ns: device.growing.quantile(0.5),
            grown_cpu_ns: device.growing.cpu,
            source: device.source.clone(),
        }
    }
}

/// How crashes were chosen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CrashChoice {
    /// One after each event: a call returned, a sync ended.
    EveryEvent,
    /// So many at random instants.
    Random(u64),
}

/// A policy that could not be simulated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Its name.
    pub name: String,
    /// Why.
    pub why: String,
}

/// One policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PolicyReport {
    /// Its name.
    pub name: String,
    /// Its parameters and their values, as a policy's text writes them: `n`, `64 syncs`.
    pub params: Vec<(String, String)>,
    /// What a power loss takes at worst, as `durac check` proves it.
    pub proved: Option<object::Loss>,
    /// Simulated time, seconds.
    pub seconds: f64,
    /// Sync calls of the application.
    pub calls: u64,
    /// Sync calls a second.
    pub calls_per_second: f64,
    /// Commands a second; none if they cannot be told apart.
    pub commands_per_second: Option<f64>,
    /// How long sync calls took.
    pub latency: Latency,
    /// Syncs that reached the device.
    pub syncs: u64,
    /// Time that the application stood still in calls: waits, and syncs of its own.
    pub blocked_ns: u64,
    /// What crashes would have cost.
    pub loss: LossReport,
    /// What happened around the worst crash, in the order of the beginnings.
    pub timeline: Vec<TimelineEvent>,
    /// What the reader has to know about this policy, whole sentences.
    pub notes: Vec<String>,
}

/// How long sync calls took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Median.
    pub p50_ns: u64,
    /// One call in a hundred takes longer.
    pub p99_ns: u64,
    /// One call in a thousand takes longer.
    pub p999_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// Upper ends of ranges of durations, rising, and how many calls fall into each; ranges without
    /// calls are left out. Two neighbouring ends differ by an eighth.
    pub histogram: Vec<(u64, u64)>,
}

/// What a crash takes: acknowledged and not durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Loss {
    /// Sync calls.
    pub syncs: f64,
    /// Bytes of acknowledged sync calls.
    pub bytes: f64,
    /// Age of the oldest, nanoseconds.
    pub age_ns: f64,
    /// Commands of clients that were told of success; 0 if they cannot be told apart.
    pub commands: f64,
    /// Those of them whose client has had its reply; 0 if there are no clients.
    #[serde(default)]
    pub seen: f64,
}

/// What crashes would have cost. Each member of a [`Loss`] is taken by itself: the worst count of
/// bytes may belong to another instant than the worst count of syncs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LossReport {
    /// Crashes tried.
    pub crashes: u64,
    /// The worst.
    pub worst: Loss,
    /// One crash in a hundred loses more.
    pub p99: Loss,
    /// The mean.
    pub mean: Loss,
    /// How many crashes lost so many sync calls: upper ends of ranges, rising, with counts.
    pub histogram: Vec<(u64, u64)>,
    /// The first instant with the most sync calls lost; none if nothing is ever lost.
    pub worst_instant: Option<Instant>,
}

/// An instant of the simulation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Instant {
    /// Virtual time since the beginning.
    pub t_ns: u64,
    /// Number of the simulated event, from 1.
    pub event: u64,
    /// What was under way: `call 812 has returned; a sync of calls up to 748 is under way`.
    pub text: String,
}

/// A row of the timeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// What the application does: writes and sync calls.
    #[default]
    Application,
    /// What durac does: waits.
    Engine,
    /// What the device does: syncs.
    Disk,
}

/// Something on the timeline. Times are virtual, as [`Instant::t_ns`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TimelineEvent {
    /// Its beginning.
    pub start_ns: u64,
    /// Its end; the same as the beginning for an instant.
    pub end_ns: u64,
    /// Its row.
    pub lane: Lane,
    /// In a few words: `write 120 bytes`, `call 812 deferred`, `waits for call 748`, `sync`.
    pub text: String,
    /// The sync call that it is, or the highest that it covers or waits for; 0 if none.
    pub call: u64,
}
