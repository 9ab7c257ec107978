//! `durac compile`: a policy to a verified object, or to any representation on the way.

use crate::Outcome;
use crate::args::{Compile, Emit, Global};
use crate::input;
use crate::output;
use anyhow::{Context, Result};
use durac_bpf::{disasm, elf};
use durac_compiler::print;
use std::path::{Path, PathBuf};

/// Compiles one file.
pub fn run(args: &Compile, global: &Global) -> Result<Outcome> {
    if matches!(args.emit, Emit::Tokens | Emit::Ast) {
        return front_end(args, global);
    }
    let to = args.output.as_deref();
    let place = args.place.get();
    match args.emit {
        Emit::Hir | Emit::Mir => {
            let Some((_, policy)) = input::policy(&args.file, &args.set, place, global)? else {
                return Ok(Outcome::Wrong);
            };
            if args.emit == Emit::Hir {
                return text(to, &print::hir(&policy)).map(|()| Outcome::Fine);
            }
            let mut program = durac_compiler::lower(&policy);
            durac_compiler::optimise(&mut program);
            text(to, &program.to_string())?;
        }
        Emit::Asm | Emit::Obj | Emit::Tokens | Emit::Ast => {
            let Some(ready) = input::ready_for(&args.file, &args.set, place, global)? else {
                return Ok(Outcome::Wrong);
            };
            let (input, object) = (ready.input, ready.proved.object);
            if args.emit == Emit::Asm {
                let mut listing = disasm::print_object(&object);
                let kernel = disasm::print_kernel(&object);
                if !kernel.is_empty() {
                    listing.push('\n');
                    listing.push_str(&kernel);
                }
                text(to, &listing)?;
            } else {
                let bytes = elf::write(&object).context("cannot write the object")?;
                match to {
                    Some(path) if path == Path::new("-") => output::stdout(&bytes)?,
                    Some(path) => output::write_atomically(path, &bytes, 0o644)?,
                    None => {
                        let path = PathBuf::from(format!("{}.o", input.stem));
                        output::write_atomically(&path, &bytes, 0o644)?;
                    }
                }
            }
        }
    }
    Ok(Outcome::Fine)
}

fn front_end(args: &Compile, global: &Global) -> Result<Outcome> {
    let Some(input) = input::read(&args.file, global) else {
        return Ok(Outcome::Wrong);
    };
    let parsed = durac_grammar::parse(&input.sources, input.file);
    let shown = match args.emit {
        Emit::Tokens => {
            let line = |token: &durac_grammar::Spanned<_>| {
                let at = input.sources.position(token.span);
                format!("{}:{} {}\n", at.line, at.column, token.node)
            };
            durac_grammar::lex(&input.sources, input.file).iter().map(line).collect()
        }
        _ => durac_grammar::print_ast(&parsed.file),
    };
    input::report(&parsed.diagnostics, &input.sources, global);
    text(args.output.as_deref(), &shown)?;
    let errors = parsed.diagnostics.iter().any(|d| d.code.text().starts_with('E'));
    Ok(if errors { Outcome::Wrong } else { Outcome::Fine })
}

fn text(to: Option<&Path>, text: &str) -> Result<()> {
    match to {
        Some(path) if path != Path::new("-") => {
            output::write_atomically(path, text.as_bytes(), 0o644)
        }
        _ => output::stdout(text.as_bytes()),
    }
}
