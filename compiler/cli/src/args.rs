//! The command line: what every command takes, and what several share. The arguments of one command
//! are in its module.

use crate::commands::advise::Advise;
use crate::commands::bench::Bench;
use crate::commands::check::Check;
use crate::commands::compare::Compare;
use crate::commands::compile::Compile;
use crate::commands::crashtest::Crashtest;
use crate::commands::doctor::Doctor;
use crate::commands::enable::{Disable, Enable};
use crate::commands::explain::Explain;
use crate::commands::fmt::Fmt;
use crate::commands::install::Install;
use crate::commands::list::List;
use crate::commands::load::Load;
use crate::commands::lsp::Lsp;
use crate::commands::merge::Merge;
use crate::commands::metrics::Metrics;
use crate::commands::record::Record;
use crate::commands::reload::{Off, On, Reload};
use crate::commands::run::Run;
use crate::commands::set::Set;
use crate::commands::show::Show;
use crate::commands::simulate::Simulate;
use crate::commands::supervise::Supervise;
use crate::commands::test::Test;
use crate::commands::top::Top;
use crate::commands::upgrade::Upgrade;
use crate::commands::watch::Watch;
use crate::document::Document;
use crate::named::Settings;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Compiles durability policies, proves what a crash can lose, and runs databases under them.
///
/// A policy says what happens when a database calls write, fsync or fdatasync on its log.
#[derive(Debug, Parser)]
#[command(name = "durac", version, max_term_width = 100)]
pub struct Args {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, ClapArgs)]
pub struct Global {
    /// Format of what is printed; `json` is one document on standard output, diagnostics included
    #[arg(long, global = true, value_enum, default_value_t = Format::Human)]
    pub format: Format,
    /// When to colour diagnostics
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub color: Color,
    /// How long a proof may take: `--budget` of the commands that have it.
    #[arg(skip)]
    pub budget: Option<Duration>,
    /// What `--format json` prints at the end.
    #[arg(skip)]
    pub document: Document,
}

impl Global {
    /// Whether a document is printed.
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }
}

/// How long a proof may take.
#[derive(Clone, Copy, Debug, ClapArgs)]
pub struct Budget {
    /// End the proof after this time: what is not proved by then is refused
    #[arg(long, value_name = "TIME", value_parser = time)]
    budget: Option<Duration>,
}

/// A time that is more than nothing.
pub fn time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("the time must be more than 0".to_owned()),
        Ok(time) => Ok(time),
        Err(why) => Err(format!("{why}: write a time such as `20ms` or `2s`")),
    }
}

impl Budget {
    /// The options of every command, with this.
    pub fn of(&self, global: &Global) -> Global {
        Global { budget: self.budget, ..global.clone() }
    }
}

/// The format of diagnostics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// With the source text, labels and help.
    Human,
    /// One line each, for editors.
    Short,
    /// One JSON document on standard output.
    Json,
}

impl From<Format> for durac_grammar::render::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Human => Self::Human,
            Format::Short => Self::Short,
            Format::Json => Self::Json,
        }
    }
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

impl Command {
    /// Whether `--format json` has it print a document: not where standard output is a protocol of its own, or nobody
    /// starts it by hand.
    pub fn has_document(&self) -> bool {
        !matches!(self, Self::Lsp(_) | Self::Watch(_) | Self::Supervise(_))
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check policies: names, units, what the target allows, and how much a crash can lose
    Check(Check),
    /// Compare two policies: which one is at least as durable as the other
    Compare(Compare),
    /// Compile a policy to a verified BPF object
    Compile(Compile),
    /// Run a command under a policy
    Run(Run),
    /// Load an object into BPFtime, and start its target under it
    Load(Load),
    /// Run a command and record its system calls on its logs as a trace
    Record(Record),
    /// Estimate from a trace how fast an application is under each policy, and what a crash loses
    Simulate(Simulate),
    /// Find the fastest policy for a recorded application whose proved loss stays within limits
    Advise(Advise),
    /// Run the tests of policies: `test "…" { … }`
    Test(Test),
    /// Format policy files
    Fmt(Fmt),
    /// Serve an editor: findings, bounds and names of policies while they are written
    Lsp(Lsp),
    /// Explain a diagnostic code
    Explain(Explain),
    /// List ready policies, targets, readings or diagnostic codes
    List(List),
    /// Benchmark policies on a real database
    Bench(Bench),
    /// Show running processes under policies: unsynced data, rates, wait times
    Top(Top),
    /// Print or serve counters of running policies in Prometheus' text format
    Metrics(Metrics),
    /// Change parameters of a running policy
    Set(Set),
    /// Put another policy into running processes, without a restart
    Reload(Reload),
    /// Have this durac take over from running supervisors, without a restart of their commands
    Upgrade(Upgrade),
    /// Switch the policy of running processes off: every call runs as the application makes it
    Off(Off),
    /// Switch the policy of running processes on again
    On(On),
    /// Show the policy of a running process or of an object: text, bounds, certificate, parameters
    Show(Show),
    /// Find out what keeps a policy from having an effect, and what to do about it
    Doctor(Doctor),
    /// Install durac with its agent, manual pages and completions
    Install(Install),
    /// Run the database of a systemd unit under a policy, from its next start on
    Enable(Enable),
    /// Run the database of a systemd unit without a policy, from its next start on
    Disable(Disable),
    /// Crash a real database repeatedly and compare what it lost with the proved bound
    Crashtest(Crashtest),
    /// Join the JSON reports of shards of `crashtest` or `simulate` into one
    Merge(Merge),
    /// What `run` leaves behind: tells of calls that a command makes past the agent
    #[command(hide = true, name = "watch-command")]
    Watch(Watch),
    /// What `run` starts beside a command under the supervisor
    #[command(hide = true, name = "supervise-command")]
    Supervise(Supervise),
}

/// What a policy is compiled for.
#[derive(Debug, ClapArgs)]
pub struct Deployment {
    /// The runtime that will run the policy
    #[arg(long, value_enum, default_value_t = Runtime::Agent)]
    pub runtime: Runtime,
    /// Compile for this target instead of the one that the policy names
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
}

impl Deployment {
    /// As the compiler takes it.
    pub fn get(&self) -> crate::input::Deployment<'_> {
        let runtime = match self.runtime {
            Runtime::Agent => durac_abi::Runtime::Agent,
            Runtime::Bpftime => durac_abi::Runtime::Bpftime,
            Runtime::Supervisor => durac_abi::Runtime::Supervisor,
        };
        crate::input::Deployment { runtime, target: self.target.as_deref() }
    }
}

/// What runs an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Runtime {
    /// Durac's agent, preloaded into an unmodified application.
    Agent,
    /// BPFtime, attached to functions of the application.
    Bpftime,
    /// The supervisor, a process beside any program: `durac run --engine supervisor`.
    Supervisor,
}

/// How a command runs under a policy: shared by `run` and `record`.
#[derive(Debug, ClapArgs)]
pub struct Launch {
    /// Its parameters.
    #[command(flatten)]
    pub settings: Settings,
    /// What runs the policy, and how staged data is written [default: the agent, as the target says; the
    /// supervisor where the agent cannot be loaded]
    #[arg(long, value_enum)]
    pub engine: Option<RunEngine>,
    /// The agent library [default: `libdurac_preload.so` beside durac or in ../lib/durac]
    #[arg(long, value_name = "PATH", env = "DURAC_AGENT", hide_env_values = true, value_parser = agent_path())]
    pub agent: Option<PathBuf>,
    /// Prove the policy even if the cache says that it was proved before, and leave the cache alone
    #[arg(long)]
    pub no_cache: bool,
    /// Print where the proof comes from and how many states were explored
    #[arg(short, long)]
    pub verbose: bool,
    /// Where the agent's lines go: `stderr`, `syslog`, `journal`, or the path of a file; `quiet` leaves only errors, as in
    /// `quiet,syslog` [default: `DURAC_LOG`, else stderr]
    #[arg(long, value_name = "WHERE")]
    pub log: Option<OsString>,
    /// A library to preload behind the agent, for crash tests
    #[arg(long, value_name = "PATH", hide = true)]
    pub preload_after: Option<PathBuf>,
    /// The command and its arguments
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// What names a process, or a thing that `durac doctor` looks at.
pub fn word() -> impl TypedValueParser<Value = String> {
    OsStringValueParser::new().try_map(|word| {
        word.into_string().map_err(|_| "it is not UTF-8: name a process by its number or its port")
    })
}

/// A path that may be empty: an empty `DURAC_AGENT` is as one that is not set.
pub fn agent_path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// What writes staged data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// The agent's syncer thread, with `write` and `fdatasync`.
    Thread,
    /// The agent's syncer thread, with linked write and sync requests on its own io_uring.
    #[value(name = "io_uring")]
    IoUring,
}

impl Engine {
    /// The name that the agent takes.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Thread => durac_abi::Engine::Thread.name(),
            Engine::IoUring => durac_abi::Engine::IoUring.name(),
        }
    }
}

/// What runs a policy on a command, and with the agent what writes staged data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RunEngine {
    /// The agent, whose syncer thread writes staged data with `write` and `fdatasync`.
    Thread,
    /// The agent, whose syncer thread writes staged data through its own io_uring.
    #[value(name = "io_uring")]
    IoUring,
    /// A process beside the command, for any program and any number of processes.
    Supervisor,
}

impl RunEngine {
    /// What writes staged data; none if it is not the agent that runs the policy.
    pub fn of_agent(self) -> Option<Engine> {
        match self {
            RunEngine::Thread => Some(Engine::Thread),
            RunEngine::IoUring => Some(Engine::IoUring),
            RunEngine::Supervisor => None,
        }
    }
}
