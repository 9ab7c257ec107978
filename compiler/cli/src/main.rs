//! The `durac` command: files and terminals around the compiler.
//!
//! Exit codes: 0 fine, 1 the input is wrong or a guarantee fails, 2 the tool failed. Product on
//! standard output, diagnostics on standard error.

mod args;
mod bound;
mod cache;
mod certificate;
mod commands;
mod examples;
mod filter;
mod input;
mod launch;
mod notify;
mod output;
mod processes;
mod progress;
mod shard;
mod signals;
mod traces;

use args::{Args, Command};
use clap::FromArgMatches;
use std::process::ExitCode;

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
    let parsed =
        examples::command().try_get_matches().and_then(|found| Args::from_arg_matches(&found));
    let args = match parsed {
        Ok(args) => args,
        Err(error) => {
            // clap prints help and version on standard output, and exits 0 for them.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 1 } else { 0 });
        }
    };
    let result = match &args.command {
        Command::Check(command) => commands::check::run(command, &args.global),
        Command::Compare(command) => commands::compare::run(command, &args.global),
        Command::Compile(command) => commands::compile::run(command, &args.global),
        Command::Run(command) => commands::run::run(command, &args.global),
        Command::Load(command) => commands::load::run(command),
        Command::Record(command) => commands::record::run(command, &args.global),
        Command::Simulate(command) => commands::simulate::run(command, &args.global),
        Command::Advise(command) => commands::advise::run(command, &args.global),
        Command::Metrics(command) => commands::metrics::run(command),
        Command::Merge(command) => commands::merge::run(command, &args.global),
        Command::Enable(command) => commands::enable::enable(command, &args.global),
        Command::Disable(command) => commands::enable::disable(command),
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
        Command::Off(command) => commands::reload::off(command, &args.global),
        Command::On(command) => commands::reload::on(command, &args.global),
        Command::Watch(command) => commands::watch::run(command),
        Command::Supervise(command) => commands::supervise::run(command),
        Command::Crashtest(command) => commands::crashtest::run(command, &args.global),
        Command::Bench(command) => commands::bench::run(command, &args.global),
    };
    match result {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::Wrong) => ExitCode::from(1),
        Ok(Outcome::Ended(code)) => ExitCode::from(code),
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&format!("{error:#}"));
            match error.downcast_ref::<output::Exit>() {
                Some(exit) => ExitCode::from(exit.code),
                None => ExitCode::from(2),
            }
        }
    }
}
