//! `durac fmt`: one layout for every policy.

use crate::Outcome;
use crate::args::Global;
use crate::{input, output};
use anyhow::Result;
use clap::Args as ClapArgs;
use std::path::{Path, PathBuf};

/// Arguments of `durac fmt`.
#[derive(Debug, ClapArgs)]
pub struct Fmt {
    /// Policy files to rewrite in place; `-` formats standard input to standard output
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Change nothing; exit with 1 if a file is not formatted
    #[arg(long)]
    check: bool,
}

/// Formats every file; one that does not parse is left alone.
pub fn run(args: &Fmt, global: &Global) -> Result<Outcome> {
    let mut outcome = Outcome::Fine;
    let mut files = Vec::new();
    for path in &args.files {
        let mut text = None;
        let ok = one(path, args.check, global, &mut text)?;
        files.push(
            serde_json::json!({ "file": path.display().to_string(), "ok": ok, "text": text }),
        );
        if !ok {
            outcome = Outcome::Wrong;
        }
    }
    global.document.put(&serde_json::json!({ "check": args.check, "files": files }))?;
    Ok(outcome)
}

/// Formats one file; `shown` becomes standard input's text, if it belongs into the document.
fn one(path: &Path, check: bool, global: &Global, shown: &mut Option<String>) -> Result<bool> {
    let is_stdin = path == Path::new("-");
    if !is_stdin && !path.is_file() && durac_stdlib::policy(&path.to_string_lossy()).is_some() {
        let shown = path.display();
        return Err(output::exit(1, format!("`{shown}` is a ready policy, not a file")));
    }
    // To read a pipe would wait for whoever writes to it.
    let is_other = |kind: std::fs::Metadata| !kind.is_file() && !kind.is_dir();
    if !is_stdin && !check && std::fs::metadata(path).is_ok_and(is_other) {
        let shown = path.display();
        let help = "`-` formats standard input to standard output";
        return Err(output::exit(1, format!("`{shown}` is not a regular file; {help}")));
    }
    let Some(input) = input::read(path, global) else {
        return Ok(false);
    };
    let parsed = durac_grammar::parse(&input.sources, input.file);
    let errors = parsed.has_errors();
    input::report(&parsed.diagnostics, &input.sources, global);
    if errors {
        return Ok(false);
    }
    let text = input.sources.text(input.file);
    let formatted = durac_grammar::format_checked(&input.sources, input.file)?;
    if check {
        if text != formatted && !global.is_json() {
            output::print(&format!("{}: not formatted\n", path.display()))?;
        }
        return Ok(text == formatted);
    }
    if is_stdin && global.is_json() {
        *shown = Some(formatted);
    } else if is_stdin {
        output::stdout(formatted.as_bytes())?;
    } else if text != formatted {
        output::rewrite(path, formatted.as_bytes())?;
    }
    Ok(true)
}
