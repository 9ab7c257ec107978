//! The `durac` command: files and terminals around the compiler.
//!
//! Exit codes: 0 fine, 1 the input is wrong or a guarantee fails, 2 the tool failed. Product on
//! standard output, diagnostics on standard error; with `--format json`, both in one document on standard
//! output.

mod args;
mod bound;
mod cache;
mod certificate;
mod commands;
mod document;
mod examples;
mod filter;
mod inherited;
mod input;
mod launch;
mod log;
mod named;
mod notify;
mod output;
mod processes;
mod progress;
mod redis_conf;
mod shard;
mod signals;
mod traces;

use anyhow::Context;
use args::{Args, Command};
use clap::FromArgMatches;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// Bytes of stack for the command line and the deepest policy that is not refused.
const STACK: u64 = 512 << 10;

/// How a command ends when it does not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Exit 0.
    Fine,
    /// Exit 1: the input is wrong; the diagnostics have said why.
    Wrong,
    /// The exit code of a command that was run.
    Ended(u8),
}

fn main() -> ExitCode {
    inherited::begin();
    if let Some(kib) = small_stack() {
        output::error(&format!(
            "the stack is limited to {kib} KiB (`ulimit -s`): durac needs {} KiB",
            STACK >> 10
        ));
        return ExitCode::from(2);
    }
    let parsed = examples::command().try_get_matches_from(words()).and_then(|found| {
        let name = found.subcommand_name().map(str::to_owned);
        Args::from_arg_matches(&found).map(|args| (name, args))
    });
    let (name, args) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            // clap prints help and version on standard output, and exits 0 for them.
            let code = match printed(&error) {
                Ok(()) => u8::from(error.use_stderr()),
                Err(why) => {
                    output::error(&output::reasons(&why));
                    2
                }
            };
            if error.use_stderr() && asks_for_json() {
                let why = error.to_string();
                let why = why.trim().trim_start_matches("error: ");
                // What cannot be written cannot be told of, either.
                let _ = document::Document::default().print(None, code, Some(why));
            }
            return ExitCode::from(code);
        }
    };
    let result = run(&args);
    let (code, error) = match &result {
        Ok(Outcome::Fine) => (0, None),
        Ok(Outcome::Wrong) => (1, None),
        // Standard output is the command's.
        Ok(Outcome::Ended(code)) => return ExitCode::from(*code),
        Err(error) => {
            let text = output::reasons(error);
            output::error(&text);
            (error.downcast_ref::<output::Exit>().map_or(2, |exit| exit.code), Some(text))
        }
    };
    if args.global.is_json() && args.command.has_document() {
        let printed = args.global.document.print(name.as_deref(), code, error.as_deref());
        if let Err(error) = printed {
            output::error(&output::reasons(&error));
            return ExitCode::from(2);
        }
    }
    ExitCode::from(code)
}

/// The limit of the stack in KiB, if that is too small.
fn small_stack() -> Option<u64> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Stack).current?;
    (limit < STACK).then_some(limit >> 10)
}

/// Prints what clap says: an error on standard error, where a failure cannot be told, or help or the version.
fn printed(error: &clap::Error) -> anyhow::Result<()> {
    if error.use_stderr() {
        let _ = error.print();
        return Ok(());
    }
    output::check_stdout()?;
    match error.print().and_then(|()| std::io::stdout().flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

/// The command line. clap's `help` knows no options.
fn words() -> Vec<OsString> {
    let mut words: Vec<OsString> = std::env::args_os().collect();
    if let [_, help, option] = words.as_slice()
        && help == "help"
        && (option == "--help" || option == "-h")
    {
        words.remove(1);
    }
    words
}

/// Whether a command line that cannot be parsed asks for JSON.
fn asks_for_json() -> bool {
    let words: Vec<_> = std::env::args_os().take_while(|word| word != "--").collect();
    words.iter().any(|word| word == "--format=json")
        || words.windows(2).any(|pair| matches!(pair, [a, b] if a == "--format" && b == "json"))
}

fn run(args: &Args) -> anyhow::Result<Outcome> {
    match &args.command {
        Command::Check(command) => commands::check::run(command, &args.global),
        Command::Compare(command) => commands::compare::run(command, &args.global),
        Command::Compile(command) => commands::compile::run(command, &args.global),
        Command::Run(command) => commands::run::run(command, &args.global),
        Command::Load(command) => commands::load::run(command, &args.global),
        Command::Record(command) => commands::record::run(command, &args.global),
        Command::Simulate(command) => commands::simulate::run(command, &args.global),
        Command::Advise(command) => commands::advise::run(command, &args.global),
        Command::Metrics(command) => commands::metrics::run(command, &args.global),
        Command::Merge(command) => commands::merge::run(command, &args.global),
        Command::Enable(command) => commands::enable::enable(command, &args.global),
        Command::Disable(command) => commands::enable::disable(command, &args.global),
        Command::Test(command) => commands::test::run(command, &args.global),
        Command::Fmt(command) => commands::fmt::run(command, &args.global),
        Command::Explain(command) => commands::explain::run(command, &args.global),
        Command::List(command) => commands::list::run(command, &args.global),
        Command::Doctor(command) => commands::doctor::run(command, &args.global),
        Command::Lsp(command) => commands::lsp::run(command),
        Command::Show(command) => commands::show::run(command, &args.global),
        Command::Install(command) => commands::install::run(command, &args.global),
        Command::Top(command) => commands::top::run(command, &args.global),
        Command::Set(command) => commands::set::run(command, &args.global),
        Command::Reload(command) => commands::reload::reload(command, &args.global),
        Command::Upgrade(command) => commands::upgrade::run(command, &args.global),
        Command::Off(command) => commands::reload::off(command, &args.global),
        Command::On(command) => commands::reload::on(command, &args.global),
        Command::Watch(command) => commands::watch::run(command),
        Command::Supervise(command) => commands::supervise::run(command),
        Command::Crashtest(command) => commands::crashtest::run(command, &args.global),
        Command::Bench(command) => commands::bench::run(command, &args.global),
    }
}
