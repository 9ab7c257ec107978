//! `durac list`: what comes with durac.

use crate::Outcome;
use crate::args::Global;
use crate::named::Named;
use crate::output;
use anyhow::Result;
use clap::{Args as ClapArgs, ValueEnum};
use durac_core::names;
use durac_driver::{Options, Proved};
use durac_grammar::{Code, Sources};
use durac_workload::columns::wrapped;
use serde_json::{Value, json};
use std::fmt::Write;

/// Arguments of `durac list`.
#[derive(Debug, ClapArgs)]
pub struct List {
    /// What to list
    #[arg(value_enum, default_value_t = What::Policies)]
    what: What,
    /// Print the source text of this policy or target
    #[arg(long, value_name = "NAME")]
    show: Option<Named>,
}

/// What `durac list` lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Ready policies, and what each can lose.
    Policies,
    /// Targets, and what each hook allows.
    Targets,
    /// Values that a policy can read, with their units.
    Readings,
    /// Diagnostic codes.
    Codes,
}

/// Prints the list, or one text.
pub fn run(args: &List, global: &Global) -> Result<Outcome> {
    if let Some(named) = &args.show {
        if named.has_settings() {
            let why =
                format!("a text is the same for every value: `durac show {named}` has its bounds");
            return Err(output::exit(1, why));
        }
        let name = named.to_string();
        let name = name.as_str();
        let Some(text) = durac_stdlib::policy(name).or_else(|| durac_stdlib::target(name)) else {
            let known: Vec<_> = (durac_stdlib::POLICIES.iter())
                .chain(durac_stdlib::TARGETS)
                .map(|t| t.name)
                .collect();
            let hint = names::suggest(name, &known);
            return Err(output::exit(1, format!("no policy or target is named `{name}`: {hint}")));
        };
        global.document.put(&json!({ "name": text.name, "text": text.text }))?;
        if !global.is_json() {
            output::stdout(text.text.as_bytes())?;
        }
        return Ok(Outcome::Fine);
    }
    if global.is_json() {
        global.document.put(&everything(args.what))?;
        return Ok(Outcome::Fine);
    }
    let mut out = String::new();
    match args.what {
        What::Policies => policies(&mut out),
        What::Targets => targets(&mut out),
        What::Readings => {
            for (name, reading, unit) in names::READINGS {
                entry(&mut out, name, &[&format!("{unit}: {}", names::meaning(*reading))]);
            }
        }
        What::Codes => {
            for code in Code::ALL {
                let _ = writeln!(out, "{code}  {}", code.summary());
            }
        }
    }
    output::stdout(out.as_bytes())?;
    Ok(Outcome::Fine)
}

/// The list as JSON.
fn everything(what: What) -> Value {
    let (name, all): (_, Vec<Value>) = match what {
        What::Policies => ("policies", durac_stdlib::POLICIES.iter().map(policy).collect()),
        What::Targets => ("targets", durac_stdlib::TARGETS.iter().filter_map(target).collect()),
        What::Readings => (
            "readings",
            names::READINGS
                .iter()
                .map(|(name, _, unit)| json!({ "name": name, "unit": unit.text() }))
                .collect(),
        ),
        What::Codes => (
            "codes",
            Code::ALL
                .iter()
                .map(|code| json!({ "code": code.text(), "summary": code.summary() }))
                .collect(),
        ),
    };
    json!({ name: all })
}

fn policy(ready: &durac_stdlib::Text) -> Value {
    let mut sources = Sources::new();
    let file = sources.add(ready.file, ready.text);
    let checked = durac_driver::compile(&mut sources, file, &Options::new(ready.name));
    let loss = checked.proved.as_ref().and_then(Proved::power_loss);
    json!({ "name": ready.name, "summary": durac_stdlib::summary(ready.text), "loss_on_power_loss": loss })
}

fn target(text: &durac_stdlib::Text) -> Option<Value> {
    let mut sources = Sources::new();
    let found = durac_core::target::find(text.name, &[], &mut sources)?;
    let hooks = found.hooks.iter().map(|hook| {
        let may: Vec<_> = hook.may.iter().map(|action| action.text()).collect();
        json!({ "name": hook.hook.name(), "may": may })
    });
    let hooks: Vec<Value> = hooks.collect();
    Some(
        json!({ "name": text.name, "files": found.hir.files, "except": found.hir.except, "hooks": hooks }),
    )
}

/// Where descriptions begin.
const INDENT: usize = 21;
/// The width of a line.
const WIDTH: usize = 100;

/// A name, and its description wrapped beside it.
fn entry(out: &mut String, name: &str, paragraphs: &[&str]) {
    let lines = paragraphs.iter().flat_map(|text| wrapped(text, WIDTH - INDENT));
    for (at, line) in lines.enumerate() {
        let name = if at == 0 { name } else { "" };
        let _ = writeln!(out, "{name:<0$}{line}", INDENT);
    }
}

fn policies(out: &mut String) {
    for ready in durac_stdlib::POLICIES {
        let mut sources = Sources::new();
        let file = sources.add(ready.file, ready.text);
        let checked = durac_driver::compile(&mut sources, file, &Options::new(ready.name));
        let loss = match checked.proved.as_ref().map(Proved::power_loss) {
            Some(loss) => {
                format!("loses on power loss: {}", loss.map_or("not known", |loss| &loss.text))
            }
            None => "not supported by any runtime yet".to_owned(),
        };
        entry(out, ready.name, &[&loss, &durac_stdlib::summary(ready.text)]);
    }
}

fn targets(out: &mut String) {
    for target in durac_stdlib::TARGETS {
        let mut sources = Sources::new();
        let Some(found) = durac_core::target::find(target.name, &[], &mut sources) else {
            continue;
        };
        entry(out, target.name, &[&format!("files {}", found.hir.files.join(" "))]);
        for hook in &found.hooks {
            let may: Vec<_> = hook.may.iter().map(|a| a.text()).collect();
            entry(out, &format!("    {}", hook.hook), &[&format!("may {}", may.join(", "))]);
        }
    }
}
