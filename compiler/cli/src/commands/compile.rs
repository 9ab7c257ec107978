//! `durac compile`: a policy to a verified object, or to any representation on the way.

use crate::Outcome;
use crate::args::{Budget, Deployment, Global};
use crate::bound;
use crate::input;
use crate::named::{Named, Settings};
use crate::output;
use anyhow::{Context, Result};
use clap::{Args as ClapArgs, ValueEnum};
use durac_abi::disasm;
use durac_core::print;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Arguments of `durac compile`.
#[derive(Debug, ClapArgs)]
pub struct Compile {
    /// A policy file, the name of a ready policy, or `-` for standard input, with `:name=value,…` to set parameters
    #[arg(value_name = "FILE")]
    file: Named,
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
    /// Its parameters.
    #[command(flatten)]
    settings: Settings,
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
    let binary = args.emit == Emit::Obj && args.output.as_deref() == Some(Path::new("-"));
    if binary && global.is_json() {
        return Err(output::exit(
            1,
            "`--format json` uses standard output: write the object to a file",
        ));
    }
    if args.emit == Emit::Obj {
        let to = args.output.as_deref().filter(|path| *path != Path::new("-"));
        to.map_or(Ok(()), output::check_writable)?;
    }
    if let Some(path) = &args.output {
        output::check_unread(path, [args.file.path()])?;
    }
    if matches!(args.emit, Emit::Tokens | Emit::Ast) {
        return front_end(args, global);
    }
    let deployment = args.deployment.get();
    let (file, settings) = (args.file.path(), args.file.settings(&args.settings));
    match args.emit {
        Emit::Hir | Emit::Mir => {
            let Some((_, policy)) = input::policy(file, &settings, deployment, global)? else {
                return Ok(Outcome::Wrong);
            };
            if args.emit == Emit::Hir {
                return text(args, &print::hir(&policy), global).map(|()| Outcome::Fine);
            }
            let mut program = durac_core::lower(&policy);
            durac_core::optimise(&mut program);
            text(args, &program.to_string(), global)?;
        }
        Emit::Asm | Emit::Obj | Emit::Tokens | Emit::Ast => {
            let Some(ready) = input::ready_for(file, &settings, deployment, global)? else {
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
                text(args, &listing, global)?;
            } else {
                let bytes = durac_bpf::write(&object).context("cannot write the object")?;
                let default = PathBuf::from(format!("{}.o", input.stem));
                let to = args.output.as_deref().unwrap_or(&default);
                output::check_unread(to, [file])?;
                if to == Path::new("-") {
                    output::stdout(&bytes)?;
                } else {
                    output::write_atomically(to, &bytes, 0o644)?;
                }
                let meta = &object.meta;
                global.document.put(&json!({
                    "output": to.display().to_string(),
                    "policy": meta.policy,
                    "target": meta.target,
                    "runtime": meta.runtime.text(),
                    "loss": bound::shown(&meta.loss),
                }))?;
            }
        }
    }
    Ok(Outcome::Fine)
}

fn front_end(args: &Compile, global: &Global) -> Result<Outcome> {
    let Some(input) = input::read(args.file.path(), global) else {
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
    text(args, &shown, global)?;
    let errors = parsed.has_errors();
    Ok(if errors { Outcome::Wrong } else { Outcome::Fine })
}

/// Writes a representation that is text.
fn text(args: &Compile, text: &str, global: &Global) -> Result<()> {
    match args.output.as_deref().filter(|path| *path != Path::new("-")) {
        Some(path) => {
            output::write_atomically(path, text.as_bytes(), 0o644)?;
            global.document.put(&json!({ "output": path.display().to_string() }))
        }
        None if global.is_json() => global.document.put(&json!({ "text": text })),
        None => output::stdout(text.as_bytes()),
    }
}
