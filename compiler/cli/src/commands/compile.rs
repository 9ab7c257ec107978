//! `durac compile`: a policy to a verified object, or to any representation on the way.

use crate::Outcome;
use crate::args::{Budget, Deployment, Global};
use crate::input;
use crate::output;
use anyhow::{Context, Result};
use clap::{Args as ClapArgs, ValueEnum};
use durac_abi::disasm;
use durac_core::print;
use std::path::{Path, PathBuf};

/// Arguments of `durac compile`.
#[derive(Debug, ClapArgs)]
pub struct Compile {
    /// A policy file, the name of a ready policy, or `-` for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Output file, `-` for standard output [default: FILE's name with `.o` in the current folder]
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Representation to write
    #[arg(long, value_enum, default_value_t = Emit::Obj)]
    emit: Emit,
    /// Where it runs.
    #[command(flatten)]
    deployment: Deployment,
    /// How long it may take.
    #[command(flatten)]
    budget: Budget,
    /// Set a parameter of the policy; can be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
}

/// A representation of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Emit {
    /// The tokens.
    Tokens,
    /// The syntax tree.
    Ast,
    /// The checked policy.
    Hir,
    /// The optimised control-flow graph.
    Mir,
    /// The instructions, with their source lines.
    Asm,
    /// The object file.
    Obj,
}

/// Compiles one file.
pub fn run(args: &Compile, global: &Global) -> Result<Outcome> {
    let global = &args.budget.of(global);
    if matches!(args.emit, Emit::Tokens | Emit::Ast) {
        return front_end(args, global);
    }
    let to = args.output.as_deref();
    let deployment = args.deployment.get();
    match args.emit {
        Emit::Hir | Emit::Mir => {
            let Some((_, policy)) = input::policy(&args.file, &args.set, deployment, global)?
            else {
                return Ok(Outcome::Wrong);
            };
            if args.emit == Emit::Hir {
                return text(to, &print::hir(&policy)).map(|()| Outcome::Fine);
            }
            let mut program = durac_core::lower(&policy);
            durac_core::optimise(&mut program);
            text(to, &program.to_string())?;
        }
        Emit::Asm | Emit::Obj | Emit::Tokens | Emit::Ast => {
            let Some(ready) = input::ready_for(&args.file, &args.set, deployment, global)? else {
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
                let bytes = durac_bpf::write(&object).context("cannot write the object")?;
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
    let errors = parsed.has_errors();
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
