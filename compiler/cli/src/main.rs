//! The `durac` command: files and terminals around the compiler.
//!
//! Exit codes: 0 fine, 1 the input is wrong or a guarantee fails, 2 the tool failed. Product on
//! standard output, diagnostics on standard error.

mod args;
mod commands;
mod input;
mod launch;
mod notify;
mod output;
mod render;
mod traces;

use args::{Args, Command};
use clap::Parser;
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
    let args = match Args::try_parse() {
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
        Command::Fmt(command) => commands::fmt::run(command, &args.global),
        Command::Explain(command) => commands::explain::run(command),
        Command::List(command) => commands::list::run(command, &args.global),
        Command::Top(command) => commands::top::run(command, &args.global),
        Command::Set(command) => commands::set::run(command),
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
