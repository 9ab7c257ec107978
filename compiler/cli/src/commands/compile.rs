//! `durac compile`: a policy to a verified object, or to any representation on the way.

use crate::Outcome;
use crate::args::{Compile, Emit, Global};
use crate::input::{self, Input};
use crate::output;
use anyhow::{Context, Result};
use durac_bpf::{Object, disasm, elf};
use durac_compiler::{Analysis, hir, print};
use durac_grammar::{Code, Diagnostic, Span};
use std::path::{Path, PathBuf};

/// Compiles one file.
pub fn run(args: &Compile, global: &Global) -> Result<Outcome> {
    if matches!(args.emit, Emit::Tokens | Emit::Ast) {
        return front_end(args, global);
    }
    let Some((input, analysis)) = input::analyse(&args.file, global) else {
        return Ok(Outcome::Wrong);
    };
    let Some(policy) = policy(&input, &analysis, &args.set, global)? else {
        return Ok(Outcome::Wrong);
    };
    let to = args.output.as_deref();
    match args.emit {
        Emit::Hir => text(to, &print::hir(&policy))?,
        Emit::Mir => {
            let mut program = durac_compiler::lower(&policy);
            durac_compiler::optimise(&mut program);
            text(to, &program.to_string())?;
        }
        Emit::Asm | Emit::Obj | Emit::Tokens | Emit::Ast => {
            let Some(object) = object(&input, &policy, global) else {
                return Ok(Outcome::Wrong);
            };
            if args.emit == Emit::Asm {
                text(to, &disasm::print_object(&object))?;
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

/// The policy of an analysed file with its parameters set; `None`, reported, if it has none.
pub fn policy(
    input: &Input,
    analysis: &Analysis,
    sets: &[String],
    global: &Global,
) -> Result<Option<hir::Policy>> {
    let Some(mut policy) = analysis.policy.clone() else {
        let found = Diagnostic::new(
            Code::TargetFileAsPolicy,
            "the file defines targets and no policy",
            Span::new(input.file, 0, 0),
            "nothing to compile",
        )
        .help("a policy has at least one hook: `on fdatasync: …`");
        input::report(&[found], &input.sources, global);
        return Ok(None);
    };
    for assignment in sets {
        durac_compiler::set::set(&mut policy, assignment)
            .map_err(|why| output::exit(1, format!("--set: {why}")))?;
    }
    Ok(Some(policy))
}

/// A policy that was named with its parameters, analysed.
pub struct Named {
    /// Its text.
    pub input: Input,
    /// The policy, its parameters set.
    pub policy: hir::Policy,
    /// The file, or the name of a ready policy.
    pub file: PathBuf,
    /// The parameters that were set: `n=16`.
    pub sets: Vec<String>,
}

/// What `FILE` or `FILE:name=value,name=value` names; `None`, reported, if it is wrong.
pub fn named(named: &str, global: &Global) -> Result<Option<Named>> {
    let (file, sets) = match named.split_once(':') {
        Some((file, sets)) if !Path::new(named).exists() => (file, sets),
        _ => (named, ""),
    };
    let file = PathBuf::from(file);
    let sets: Vec<String> = sets.split(',').filter(|s| !s.is_empty()).map(str::to_owned).collect();
    let Some((input, analysis)) = input::analyse(&file, global) else {
        return Ok(None);
    };
    let policy = policy(&input, &analysis, &sets, global)?;
    Ok(policy.map(|policy| Named { input, policy, file, sets }))
}

/// Compiles and verifies; `None`, reported, if either refuses.
pub fn object(input: &Input, policy: &hir::Policy, global: &Global) -> Option<Object> {
    let loss = durac_compiler::bounds::loss(policy);
    let object = match durac_compiler::compile(policy, &loss, &input.sources, input.file) {
        Ok(object) => object,
        Err(diagnostics) => {
            input::report(&diagnostics, &input.sources, global);
            return None;
        }
    };
    match durac_verify::verify(&object) {
        Ok(_) => Some(object),
        Err(rejections) => {
            let found: Vec<_> = rejections.iter().map(|r| rejection(r, policy, input)).collect();
            input::report(&found, &input.sources, global);
            None
        }
    }
}

fn rejection(
    rejection: &durac_verify::Rejection,
    policy: &hir::Policy,
    input: &Input,
) -> Diagnostic {
    let hook = policy.hooks.iter().find(|h| h.hook == rejection.hook);
    let start = Span::new(input.file, 0, 0);
    let line = rejection.line.map(|l| l.line).unwrap_or(0);
    let span = hook.map_or(start, |h| h.span);
    let at = if line == 0 { String::new() } else { format!(" at line {line}") };
    Diagnostic::new(
        Code::VerifierRejects,
        format!("the verifier rejects the program of `{}`{at}", rejection.hook),
        span,
        rejection.reason.clone(),
    )
    .note(format!("instruction {}", rejection.slot))
    .help("this is a mistake of durac: please report it with the policy's text")
}
