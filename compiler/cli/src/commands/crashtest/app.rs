//! What `durac crashtest` crashes, and what runs the policy on it.

use super::{CrashApp, CrashAt, Crashtest};
use crate::args::RunEngine;
use crate::{launch, output};
use anyhow::{Context, Result};
use clap::ValueEnum;
use durac_abi::Runtime;
use durac_disk::Fault;
use durac_workload::child;
use durac_workload::crash::{App, DIR, Program, fault};
use std::path::Path;

/// What to crash.
pub(super) fn app(args: &Crashtest) -> Result<App> {
    let wrong = |why: String| Err(output::exit(1, why));
    let Some((program, rest)) = args.command.split_first() else {
        return match args.app {
            CrashApp::Builtin if args.at.contains(&CrashAt::Rewrite) => wrong(
                "the built-in application never rewrites its log: remove `rewrite` from `--at`"
                    .into(),
            ),
            CrashApp::Builtin => Ok(App::Builtin),
            CrashApp::Redis => match child::which("redis-server") {
                Ok(_) => Ok(App::Redis),
                Err(error) => wrong(format!("{error}: install it, or use `--app builtin`")),
            },
        };
    };
    let says = |what: &str| args.command.iter().any(|word| word.to_string_lossy().contains(what));
    if let Some(check) = &args.check {
        for (whose, has) in [("command after `--`", says(DIR)), ("check", check.contains(DIR))] {
            if !has {
                return wrong(format!(
                    "the {whose} needs `{DIR}`: durac chooses the folder of the data, for example \
                     `--check 'my-check {{dir}}' -- my-load {{dir}}`"
                ));
            }
        }
        if args.at.contains(&CrashAt::Rewrite) {
            return wrong("`--at rewrite` needs a Redis-compatible server".into());
        }
    }
    for placeholder in ["{port}", "{dir}"] {
        if args.check.is_none() && !says(placeholder) {
            return wrong(format!(
                "the command after `--` needs `{placeholder}`: durac chooses the port and the \
                 folder, for example `-- redis-server --port {{port}} --dir {{dir}} --appendonly yes \
                 --appendfsync always`; a program that is not such a server needs `--check`"
            ));
        }
    }
    let shown = program.to_string_lossy().into_owned();
    let path = match shown.contains('/') {
        true if !std::path::Path::new(program).is_file() => {
            return wrong(format!("`{shown}` is not a file"));
        }
        true => std::path::absolute(program).context("no working folder")?,
        false => match child::which(&shown) {
            Ok(path) => path,
            Err(error) => return wrong(error.to_string()),
        },
    };
    let words = [path.into()].into_iter().chain(rest.iter().cloned()).collect();
    Ok(match &args.check {
        Some(check) => {
            App::Program(Program { load: words, check: check.clone(), per_sync: args.per_sync })
        }
        None => App::Command(words),
    })
}

/// What runs the policy of a file on the application, and its name where it is not to be chosen again.
pub(super) fn engine(args: &Crashtest, app: &App, policy: &Path) -> (Runtime, Option<String>) {
    let program = match app {
        App::Program(program) => program.load.first(),
        App::Command(words) => words.first(),
        App::Redis | App::Builtin => None,
    };
    let chosen = args.engine.or_else(|| {
        let program = program.map(Path::new);
        launch::needs_supervisor(policy, program).then_some(RunEngine::Supervisor)
    });
    let runtime = match chosen {
        Some(RunEngine::Supervisor) => Runtime::Supervisor,
        _ => Runtime::Agent,
    };
    let name = chosen.and_then(|engine| engine.to_possible_value());
    (runtime, name.map(|name| name.get_name().to_owned()))
}

/// What goes wrong before the crash; in any program on every file, unless a path is named.
pub(super) fn faults(args: &Crashtest) -> Result<Vec<Fault>> {
    let read = |text: &String| -> Result<Fault> {
        let mut fault = fault(text)?;
        if args.check.is_some() && !text.contains("path=") {
            fault.path.clear();
        }
        Ok(fault)
    };
    args.fault.iter().map(read).collect()
}

/// The words that name the application, for a shell.
pub(super) fn words(args: &Crashtest) -> String {
    let mut text = String::new();
    if let Some(check) = &args.check {
        text.push_str(&format!(" --per-sync {} --check {}", args.per_sync, output::quoted(check)));
    }
    if !args.command.is_empty() {
        text.push_str(" --");
        let words = args.command.iter().map(|word| output::quoted(&word.to_string_lossy()));
        words.for_each(|word| text.push_str(&format!(" {word}")));
    }
    text
}
