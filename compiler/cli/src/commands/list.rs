//! `durac list`: what comes with durac.

use crate::Outcome;
use crate::args::{Global, List, ListWhat};
use crate::output;
use anyhow::Result;
use durac_compiler::names;
use durac_grammar::{Code, Sources};
use std::fmt::Write;

/// Prints the list, or one text.
pub fn run(args: &List, _global: &Global) -> Result<Outcome> {
    if let Some(name) = &args.show {
        let Some(text) = durac_stdlib::policy(name).or_else(|| durac_stdlib::target(name)) else {
            let known: Vec<_> = (durac_stdlib::POLICIES.iter())
                .chain(durac_stdlib::TARGETS)
                .map(|t| t.name)
                .collect();
            let hint = names::suggest(name, &known);
            return Err(output::exit(1, format!("nothing is called `{name}`: {hint}")));
        };
        output::stdout(text.text.as_bytes())?;
        return Ok(Outcome::Fine);
    }
    let mut out = String::new();
    match args.what {
        ListWhat::Policies => policies(&mut out),
        ListWhat::Targets => targets(&mut out),
        ListWhat::Readings => {
            for (name, _, unit) in names::READINGS {
                let _ = writeln!(out, "{name:<16} {unit}");
            }
        }
        ListWhat::Codes => {
            for code in Code::ALL {
                let _ = writeln!(out, "{code}  {}", code.summary());
            }
        }
    }
    output::stdout(out.as_bytes())?;
    Ok(Outcome::Fine)
}

fn policies(out: &mut String) {
    for ready in durac_stdlib::POLICIES {
        let mut sources = Sources::new();
        let file = sources.add(ready.file, ready.text);
        let checked = durac_sim::check::check(&mut sources, file, ready.name);
        let loss = match &checked.proved {
            Some(proved) => proved.power_loss().map_or("", |loss| &loss.text),
            None => "no runtime can run it yet",
        };
        let _ = writeln!(out, "{:<20} loses on power loss: {loss}", ready.name);
        let _ = writeln!(out, "{:<20} {}", "", durac_stdlib::summary(ready.text));
    }
}

fn targets(out: &mut String) {
    for target in durac_stdlib::TARGETS {
        let mut sources = Sources::new();
        let Some(found) = durac_compiler::target::find(target.name, &[], &mut sources) else {
            continue;
        };
        let _ = writeln!(out, "{}  files {}", target.name, found.hir.files.join(" "));
        for hook in &found.hooks {
            let may: Vec<_> = hook.may.iter().map(|a| a.text()).collect();
            let _ = writeln!(out, "    {:<10} may {}", hook.hook, may.join(", "));
        }
    }
}
