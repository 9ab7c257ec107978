//! `durac fmt`: one layout for every policy.

use crate::Outcome;
use crate::args::{Fmt, Global};
use crate::{input, output};
use anyhow::Result;
use std::path::Path;

/// Formats every file; one that does not parse is left alone.
pub fn run(args: &Fmt, global: &Global) -> Result<Outcome> {
    let mut outcome = Outcome::Fine;
    for path in &args.files {
        if !one(path, args.check, global)? {
            outcome = Outcome::Wrong;
        }
    }
    Ok(outcome)
}

fn one(path: &Path, check: bool, global: &Global) -> Result<bool> {
    let is_stdin = path == Path::new("-");
    if !is_stdin && !path.is_file() && durac_stdlib::policy(&path.to_string_lossy()).is_some() {
        let shown = path.display();
        return Err(output::exit(1, format!("`{shown}` is a ready policy, not a file")));
    }
    let Some(input) = input::read(path, global) else {
        return Ok(false);
    };
    let parsed = durac_grammar::parse(&input.sources, input.file);
    let errors = parsed.diagnostics.iter().any(|d| d.code.text().starts_with('E'));
    input::report(&parsed.diagnostics, &input.sources, global);
    if errors {
        return Ok(false);
    }
    let text = input.sources.text(input.file);
    let formatted = durac_grammar::format_checked(&input.sources, input.file)?;
    if check {
        if text != formatted {
            output::stdout(format!("{}: not formatted\n", path.display()).as_bytes())?;
        }
        return Ok(text == formatted);
    }
    if is_stdin {
        output::stdout(formatted.as_bytes())?;
    } else if text != formatted {
        // A file keeps its permissions; a link keeps being one.
        use std::os::unix::fs::PermissionsExt;
        let real = std::fs::canonicalize(path)?;
        let mode = std::fs::metadata(&real)?.permissions().mode() & 0o7777;
        output::write_atomically(&real, formatted.as_bytes(), mode)?;
    }
    Ok(true)
}
