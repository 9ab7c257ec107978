//! The command line.

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

/// Compile, prove and run durability policies.
#[derive(Debug, Parser)]
#[command(name = "durac", version, about, max_term_width = 100)]
pub struct Args {
    /// Options that every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Clone, Debug, ClapArgs)]
pub struct Global {
    /// Form of diagnostics
    #[arg(long, global = true, value_enum, default_value_t = Format::Human)]
    pub format: Format,
    /// Colour in diagnostics
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub color: Color,
}

/// The form of diagnostics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Drawn for a person.
    Human,
    /// One line each, for editors.
    Short,
    /// An array of objects.
    Json,
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check policies: names, units, what the target allows, and the bounds of what can be lost
    Check(Check),
    /// Say whether one policy is at least as durable as another
    Compare(Compare),
    /// Compile a policy to a verified BPF object
    Compile(Compile),
    /// Run a command under a policy
    Run(Run),
    /// Load an object into BPFtime; run this under its system-call server
    Load(Load),
    /// Record what a command does with its logs, as a trace
    Record(Record),
    /// Say what policies would have cost an application that was recorded, and what a crash loses
    Simulate(Simulate),
    /// Format policies
    Fmt(Fmt),
    /// Explain a diagnostic code
    Explain(Explain),
    /// List the policies, targets, readings and codes that come with durac
    List(List),
    /// Compare policies on a real database
    Bench(Bench),
    /// Show what runs under policies: what is at risk, how fast, how long calls wait
    Top(Top),
    /// Set parameters of a policy while it runs
    Set(Set),
    /// Cut the power of a real Redis again and again, and compare what is lost with what was proved
    Crashtest(Crashtest),
}

/// Arguments of `durac check`.
#[derive(Debug, ClapArgs)]
pub struct Check {
    /// Policy files, names of ready policies, or `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Say nothing when all is fine
    #[arg(short, long)]
    pub quiet: bool,
    /// Where they are to run
    #[command(flatten)]
    pub place: Place,
}

/// Where a policy is to run.
#[derive(Debug, ClapArgs)]
pub struct Place {
    /// What runs the object
    #[arg(long, value_enum, default_value_t = Runtime::Agent)]
    pub runtime: Runtime,
    /// The target, instead of the one that the policy names
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
}

impl Place {
    /// As the stages take it.
    pub fn get(&self) -> crate::input::Place<'_> {
        let runtime = match self.runtime {
            Runtime::Agent => durac_bpf::abi::Runtime::Agent,
            Runtime::Bpftime => durac_bpf::abi::Runtime::Bpftime,
        };
        crate::input::Place { runtime, target: self.target.as_deref() }
    }
}

/// What runs an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Runtime {
    /// Our agent, in an unmodified application.
    Agent,
    /// BPFtime, in an application with functions to be attached to.
    Bpftime,
}

/// Arguments of `durac load`.
#[derive(Debug, ClapArgs)]
pub struct Load {
    /// An object made by `durac compile --runtime bpftime`
    #[arg(value_name = "OBJECT")]
    pub object: PathBuf,
    /// The program whose functions it hooks
    #[arg(long, value_name = "PATH")]
    pub target: PathBuf,
    /// Start a parameter at another value
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
}

/// Arguments of `durac compare`.
#[derive(Debug, ClapArgs)]
pub struct Compare {
    /// A policy: a file or the name of a ready one, with `:name=value` to set parameters. Without
    /// policies, all ready ones are put in order
    #[arg(value_name = "A")]
    pub first: Option<String>,
    /// The policy that is to be at least as durable
    #[arg(value_name = "B")]
    pub second: Option<String>,
}

/// Arguments of `durac compile`.
#[derive(Debug, ClapArgs)]
pub struct Compile {
    /// A policy file, the name of a ready policy, or `-` for standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Where to write; `-` is standard output. Default: the file's name with `.o`, beside you
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,
    /// What to write
    #[arg(long, value_enum, default_value_t = Emit::Obj)]
    pub emit: Emit,
    /// Where it is to run
    #[command(flatten)]
    pub place: Place,
    /// Start a parameter at another value
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
}

/// A representation of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Emit {
    /// The tokens.
    Tokens,
    /// The syntax tree.
    Ast,
    /// The checked policy.
    Hir,
    /// The control-flow graph, optimised.
    Mir,
    /// The instructions with their source lines.
    Asm,
    /// The object file.
    Obj,
}

/// What writes staged bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// The syncer thread, with `write` and `fdatasync`.
    Thread,
    /// The syncer thread, with a write and a linked sync through an io_uring of its own.
    #[value(name = "io_uring")]
    IoUring,
}

impl Engine {
    /// Its name, as the agent takes it.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Thread => durac_bpf::abi::Engine::Thread.name(),
            Engine::IoUring => durac_bpf::abi::Engine::IoUring.name(),
        }
    }
}

/// Arguments of `durac run`.
#[derive(Debug, ClapArgs)]
pub struct Run {
    /// A policy file, an object made by `durac compile`, or the name of a ready policy
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Start a parameter at another value
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// What writes staged bytes in the background. Default: what the target says, else `thread`
    #[arg(long, value_enum)]
    pub engine: Option<Engine>,
    /// The agent library. Default: `libdurac_agent.so` beside durac, or in ../lib/durac
    #[arg(long, value_name = "PATH", env = "DURAC_AGENT")]
    pub agent: Option<PathBuf>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// Arguments of `durac record`.
#[derive(Debug, ClapArgs)]
pub struct Record {
    /// Where the trace goes
    #[arg(short, long, value_name = "PATH")]
    pub output: PathBuf,
    /// The policy to run meanwhile: a file, an object, or the name of a ready one
    #[arg(short, long, value_name = "FILE", default_value = "always")]
    pub policy: PathBuf,
    /// Start a parameter at another value
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// What writes staged bytes in the background. Default: what the target says, else `thread`
    #[arg(long, value_enum)]
    pub engine: Option<Engine>,
    /// The agent library. Default: `libdurac_agent.so` beside durac, or in ../lib/durac
    #[arg(long, value_name = "PATH", env = "DURAC_AGENT")]
    pub agent: Option<PathBuf>,
    /// Import the output of `strace -f -ttt -T`, `-` for standard input, instead of running a command
    #[arg(long, value_name = "FILE", conflicts_with_all = ["policy", "set", "engine", "command"])]
    pub from_strace: Option<PathBuf>,
    /// The target that says which files are logs, for an import
    #[arg(long, value_name = "NAME", default_value = "redis.aof", requires = "from_strace")]
    pub target: String,
    /// Events that the agent can be ahead of durac, a power of two
    #[arg(long, value_name = "N", default_value_t = durac_trace::ring::PLACES, hide = true)]
    pub ring: u64,
    /// The command and its arguments
    #[arg(last = true, required_unless_present = "from_strace", value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// Arguments of `durac simulate`.
#[derive(Debug, ClapArgs)]
pub struct Simulate {
    /// The trace, as `durac record` writes it; `-` is standard input
    #[arg(value_name = "TRACE")]
    pub trace: PathBuf,
    /// A policy file or the name of a ready policy, with `:name=value,…` to set parameters; can be
    /// given several times. Default: all ready policies
    #[arg(short, long, value_name = "FILE")]
    pub policy: Vec<String>,
    /// The device. Default: as recorded
    #[arg(long, value_enum)]
    pub device: Option<Device>,
    /// Crash at so many random instants instead of after each event
    #[arg(long, value_name = "N")]
    pub crash: Option<u64>,
    /// Where the random numbers begin
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Clients that wait for replies. Default: the most commands that one turn held
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub clients: Option<u32>,
    /// Where the page goes: one file for a browser, with everything in it
    #[arg(long, value_name = "PATH")]
    pub html: Option<PathBuf>,
    /// Where the JSON goes; `-` is standard output
    #[arg(long, value_name = "PATH")]
    pub json: Option<PathBuf>,
}

/// A kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Device {
    /// NVMe with power-loss protection: a sync of 40 µs.
    NvmePlp,
    /// NVMe without: 0.9 ms.
    Nvme,
    /// SATA SSD: 2.5 ms.
    SataSsd,
    /// Network volume of a cloud: 1.4 ms.
    CloudVolume,
    /// A disk that turns 7,200 times a minute: 16 ms.
    Disk,
}

/// Arguments of `durac fmt`.
#[derive(Debug, ClapArgs)]
pub struct Fmt {
    /// Policy files, rewritten in place; `-` formats standard input to standard output
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Change nothing; exit 1 if a file is not formatted
    #[arg(long)]
    pub check: bool,
}

/// Arguments of `durac explain`.
#[derive(Debug, ClapArgs)]
pub struct Explain {
    /// A code, for example E0301
    #[arg(value_name = "CODE")]
    pub code: String,
}

/// Arguments of `durac list`.
#[derive(Debug, ClapArgs)]
pub struct List {
    /// What to list
    #[arg(value_enum, default_value_t = ListWhat::Policies)]
    pub what: ListWhat,
    /// Print the text of one policy or target instead
    #[arg(long, value_name = "NAME")]
    pub show: Option<String>,
}

/// What `durac list` lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListWhat {
    /// Ready policies, with what each can lose.
    Policies,
    /// Targets, with their hooks.
    Targets,
    /// What a policy can read.
    Readings,
    /// Diagnostic codes.
    Codes,
}

/// Arguments of `durac bench`.
#[derive(Debug, ClapArgs)]
pub struct Bench {
    /// Policies to compare: files or names of ready ones, each with `:name=value` to set parameters
    #[arg(value_name = "FILE", default_values_t = [
        String::from("delayed_fsync"),
        String::from("fast_notify"),
        String::from("batch:size=1"),
        String::from("batch:size=3"),
        String::from("batch:size=12"),
        String::from("batch:size=24"),
        String::from("batch:size=48"),
        String::from("window:n=4"),
        String::from("window:n=16"),
        String::from("window:n=64"),
        String::from("window:n=256"),
    ])]
    pub files: Vec<String>,
    /// What writes staged bytes in the background. Default: what the target says, else `thread`
    #[arg(long, value_enum)]
    pub engine: Option<Engine>,
    /// Clients, one measurement for each number
    #[arg(short, long, value_delimiter = ',', default_value = "5,50")]
    pub clients: Vec<u32>,
    /// Commands in one batch of a client
    #[arg(short = 'P', long, value_delimiter = ',', default_value = "1")]
    pub pipeline: Vec<u32>,
    /// Requests in one measurement
    #[arg(short = 'n', long, default_value_t = 100_000)]
    pub requests: u64,
    /// Keys are drawn from so many
    #[arg(short = 'r', long, default_value_t = 100_000_000)]
    pub keyspace: u64,
    /// Rounds; every mode runs once in each
    #[arg(long, default_value_t = 3)]
    pub rounds: u32,
    /// Measure each policy once more while it is recorded: what recording costs
    #[arg(long)]
    pub record: bool,
    /// Where the JSON goes
    #[arg(long, value_name = "PATH")]
    pub json: Option<PathBuf>,
    /// Where the CSV goes: a line for each mode and number of clients
    #[arg(long, value_name = "PATH")]
    pub csv: Option<PathBuf>,
    /// Where the page with the drawings goes
    #[arg(long, value_name = "PATH")]
    pub html: Option<PathBuf>,
    /// Commands in a hundred that read, of `--workload mix`: 50 is YCSB's workload A, 95 is B
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub reads: u8,
    /// What to drive
    #[arg(long, value_enum, default_value_t = Workload::Redis)]
    pub workload: Workload,
    /// The server to measure: Redis, Valkey or a patched one; its own benchmark is taken if it stands
    /// beside it. Default: `redis-server`
    #[arg(long, value_name = "PATH")]
    pub server: Option<PathBuf>,
    /// Folder for the database's files; its file system is what is measured
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// What `durac bench` drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// A real redis-server, and SETs by redis-benchmark.
    Redis,
    /// A real redis-server, and GETs beside SETs as YCSB mixes them.
    Mix,
    /// A process that appends to a log; needs no database.
    AppendLog,
}

/// Arguments of `durac top`.
#[derive(Debug, ClapArgs)]
pub struct Top {
    /// Processes. Default: all that run under a policy
    #[arg(value_name = "PID")]
    pub pids: Vec<u32>,
    /// Time over which rates are taken
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    pub interval: std::time::Duration,
    /// Stop after so many tables. Default: on a terminal none, else one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
}

/// Arguments of `durac set`.
#[derive(Debug, ClapArgs)]
pub struct Set {
    /// What to set, with units as in a policy's text: `n=16`, `wait=50ms`
    #[arg(required = true, value_name = "NAME=VALUE")]
    pub assignments: Vec<String>,
    /// The process. Default: the only one that runs under a policy
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
}

/// Arguments of `durac crashtest`.
#[derive(Debug, ClapArgs)]
pub struct Crashtest {
    /// Policies to test: files or names of ready ones, each with `:name=value` to set parameters
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<String>,
    /// Crashes of each policy
    #[arg(long, default_value_t = 48)]
    pub trials: u32,
    /// Number of the first crash, to repeat one
    #[arg(long, default_value_t = 0)]
    pub first: u32,
    /// Kinds of crashes, in turn
    #[arg(long, value_enum, value_delimiter = ',', default_value = "clean,torn,kill")]
    pub crash: Vec<CrashKind>,
    /// When they come, in turn
    ///
    /// Default: random,mid-sync,after-ack and, if the application can, rewrite
    #[arg(long, value_enum, value_delimiter = ',')]
    pub at: Vec<CrashAt>,
    /// What is crashed
    #[arg(long, value_enum, default_value_t = CrashApp::Redis)]
    pub app: CrashApp,
    /// What goes wrong before, for example `sync:eio@200` or `write:enospc@50,times=1`: eio, enospc, short
    /// (writes), slow=2s, stuck (syncs), from the operation after so many on
    #[arg(long, value_name = "OP:WHAT[@N]", value_parser = fault)]
    pub fault: Vec<String>,
    /// Clients that write
    #[arg(short, long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub clients: u32,
    /// What writes staged bytes in the background. Default: what the target says, else `thread`
    #[arg(long, value_enum)]
    pub engine: Option<Engine>,
    /// How long a sync of the disk takes, microseconds
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 500)]
    pub latency: u64,
    /// Where chance begins: the same choices come again
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Where the JSON goes
    #[arg(long, value_name = "PATH")]
    pub json: Option<PathBuf>,
    /// A server of the Redis protocol to crash instead: `{port}` and `{dir}` in its words become the port
    /// and the folder of its data
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "app")]
    pub command: Vec<OsString>,
}

/// A fault that can be read; its text, so that it can be said again.
fn fault(text: &str) -> Result<String, durac_workload::Error> {
    durac_workload::crash::fault(text).map(|_| text.to_owned())
}

impl Crashtest {
    /// When the crashes come.
    pub fn moments(&self) -> Vec<CrashAt> {
        use CrashAt::{AfterAck, MidSync, Random, Rewrite};
        match (self.at.is_empty(), self.app) {
            (false, _) => self.at.clone(),
            (true, CrashApp::Builtin) => vec![Random, MidSync, AfterAck],
            (true, CrashApp::Redis) => vec![Random, MidSync, AfterAck, Rewrite],
        }
    }
}

/// What `durac crashtest` crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CrashApp {
    /// A redis-server.
    Redis,
    /// A small server of durac's own, which needs no Redis.
    Builtin,
}

/// A kind of crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CrashKind {
    /// The power goes; nothing survives that was not synced.
    Clean,
    /// The power goes; the beginning of it survives, up to a sector.
    Torn,
    /// The power goes; each block of it survives or not.
    Reordered,
    /// Only the process dies.
    Kill,
}

/// When a crash comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CrashAt {
    /// At any moment.
    Random,
    /// In the middle of a sync.
    MidSync,
    /// Right after an acknowledgement.
    AfterAck,
    /// While the log is rewritten.
    Rewrite,
}
