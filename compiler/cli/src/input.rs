//! Reading what the user names: a file, a ready policy, or standard input.

use crate::args::{Format, Global};
use crate::named::Named;
use crate::output;
use crate::progress::Progress;
use anyhow::Result;
use durac_abi::Runtime;
use durac_core::hir;
use durac_driver::{Compiled, Options, Proved};
use durac_grammar::render::{printable, render};
use durac_grammar::{Code, Diagnostic, FileId, Severity, Sources, Span};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Larger files are refused: no policy is near it, and diagnostics would be unreadable.
const MAX_BYTES: u64 = 1 << 20;

/// A text that was read.
#[derive(Clone, Debug)]
pub struct Input {
    /// The sources with the text as their first file.
    pub sources: Sources,
    /// The text.
    pub file: FileId,
    /// The policy's name if it gives none.
    pub stem: String,
}

/// What `path` names, if it is an existing file or a ready policy that can be read as a text. Reports nothing, and leaves
/// standard input to [`read`].
pub fn read_quietly(path: &Path) -> Option<Input> {
    let name = path.to_string_lossy();
    if let Some(ready) = durac_stdlib::policy(&name).filter(|_| !path.is_file()) {
        return Some(input(ready.file, ready.text.to_owned(), ready.name));
    }
    if !path.is_file() {
        return None;
    }
    let text = String::from_utf8(open(path).and_then(limited).ok()?).ok()?;
    Some(input(&name, text, &path.file_stem()?.to_string_lossy()))
}

/// Reads what `path` names: `-`, an existing file, or a ready policy. `None`, reported, if it cannot
/// be read as a text.
pub fn read(path: &Path, global: &Global) -> Option<Input> {
    let name = path.to_string_lossy().into_owned();
    if let Some(ready) = durac_stdlib::policy(&name).filter(|_| !path.is_file()) {
        return Some(input(ready.file, ready.text.to_owned(), ready.name));
    }
    // Its messages begin with it: a line of its own would be another message.
    let shown = if name == "-" { "<stdin>".to_owned() } else { printable(&name) };
    let shown = shown.as_str();
    let stem = match path.file_stem() {
        Some(stem) if name != "-" => stem.to_string_lossy().into_owned(),
        _ => "stdin".to_owned(),
    };
    let bytes = if name == "-" { limited(std::io::stdin()) } else { open(path).and_then(limited) };
    let (code, message, help) = match bytes.map(String::from_utf8) {
        Ok(Ok(text)) if text.len() as u64 <= MAX_BYTES => return Some(input(shown, text, &stem)),
        Ok(Err(error)) if error.as_bytes().starts_with(b"\x7fELF") => {
            let message = format!("`{shown}` is an ELF file, not the text of a policy");
            // What was read from a pipe can be named no second time.
            let shown = if path.is_file() { output::quoted(&name) } else { "FILE".to_owned() };
            let help =
                format!("`durac show {shown}` shows the text and bounds of a compiled policy");
            (Code::NotUtf8, message, Some(help))
        }
        Ok(Err(error)) if error.as_bytes().len() as u64 <= MAX_BYTES => {
            let at = error.utf8_error().valid_up_to();
            let message = format!("`{shown}` is not UTF-8 text: invalid byte at offset {at}");
            (Code::NotUtf8, message, None)
        }
        Ok(_) => (Code::TooLarge, format!("`{shown}` is larger than 1 MiB"), None),
        Err(error) => {
            let message = format!("cannot read `{shown}`: {}", output::reason(&error));
            let missing = error.kind() == std::io::ErrorKind::NotFound;
            (Code::Unreadable, message, missing.then(|| known_policies(&name)))
        }
    };
    let mut sources = Sources::new();
    let file = sources.add(shown, "");
    let mut found = Diagnostic::new(code, message, Span::new(file, 0, 0), "cannot be used");
    found.help = help;
    report(&[found], &sources, global);
    None
}

fn known_policies(name: &str) -> String {
    let policies = durac_stdlib::POLICIES.iter().map(|p| p.name);
    match durac_grammar::suggest::nearest(name, policies) {
        Some(near) => format!("did you mean the ready policy `{near}`?"),
        None => match target_of(name) {
            Some(target) => format!(
                "no ready policy has this name; a policy of your own can have `target {target}` (`durac list targets --show {target}`)"
            ),
            None => "`durac list` shows the ready policies".to_owned(),
        },
    }
}

/// The target of the program of this name: `leveldb.log` of `leveldb`.
fn target_of(program: &str) -> Option<&'static str> {
    let is_its = |name: &&str| name.split('.').next() == Some(program);
    durac_stdlib::TARGETS.iter().map(|target| target.name).find(is_its)
}

fn input(shown: &str, text: String, stem: &str) -> Input {
    let mut sources = Sources::new();
    let file = sources.add(printable(shown), text);
    Input { sources, file, stem: stem.to_owned() }
}

/// Opens a file; a directory can be opened too, and gives a worse message when it is read.
fn open(path: &Path) -> std::io::Result<File> {
    if std::fs::metadata(path)?.is_dir() {
        return Err(std::io::Error::from(std::io::ErrorKind::IsADirectory));
    }
    File::open(path)
}

fn limited(reader: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Prints diagnostics on standard error, or adds them to the document.
pub fn report(diagnostics: &[Diagnostic], sources: &Sources, global: &Global) {
    if diagnostics.is_empty() {
        return;
    }
    if global.is_json() {
        return global.document.add(diagnostics, sources);
    }
    let color = output::colored(global.color);
    let mut text = render(diagnostics, sources, global.format.into(), color);
    if global.format == Format::Human {
        text.push_str(&counted(diagnostics).unwrap_or_default());
    }
    output::stderr(&text);
}

/// How many errors and warnings there are, and where to read more; none without an error.
fn counted(diagnostics: &[Diagnostic]) -> Option<String> {
    let of = |severity| diagnostics.iter().filter(move |d| d.severity() == severity);
    let first = of(Severity::Error).min_by_key(|d| (d.primary.span.file, d.primary.span.start))?;
    let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let mut all = plural(of(Severity::Error).count(), "error");
    match of(Severity::Warning).count() {
        0 => {}
        n => all.push_str(&format!(", {}", plural(n, "warning"))),
    }
    Some(format!("durac: {all}; `durac explain {}` says more\n", first.code))
}

/// Makes the safe fixes of a file, if there are any, and says how many. What they leave is found by the next check.
pub fn fix(path: &Path, deployment: Deployment<'_>, global: &Global) -> Result<()> {
    if !path.is_file() {
        let shown = path.display();
        return Err(output::exit(1, format!("`{shown}` is not a file: only files can be fixed")));
    }
    let Some(input) = read(path, global) else { return Ok(()) };
    let mut text = input.sources.text(input.file).to_owned();
    let mut made = 0;
    // A fix can uncover another slip.
    for _ in 0..MOST_ROUNDS {
        let mut sources = Sources::new();
        let file = sources.add(input.sources.name(input.file), text.as_str());
        let options = deployment.options(&input.stem).analysis();
        let found = durac_core::analyse(&mut sources, file, &options).diagnostics;
        let fixes = durac_grammar::fix::safe(&found, file);
        if fixes.is_empty() {
            break;
        }
        made += fixes.len();
        text = durac_grammar::fix::apply(&text, &fixes);
    }
    if made == 0 {
        return Ok(());
    }
    let shown = path.display();
    output::rewrite(path, text.as_bytes())?;
    let fixes = if made == 1 { "fix" } else { "fixes" };
    output::error(&format!("{shown}: {made} {fixes} made"));
    Ok(())
}

/// Rounds of fixes that one file gets.
const MOST_ROUNDS: usize = 8;

/// A policy that is right, from its text to what was proved of it.
pub struct Ready {
    /// The text.
    pub input: Input,
    /// The policy, with the parameters that were set.
    pub policy: hir::Policy,
    /// Its object, and what was proved of it.
    pub proved: Proved,
}

/// What a policy is compiled for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deployment<'a> {
    /// What runs it.
    pub runtime: Runtime,
    /// The target, instead of the one that the text names.
    pub target: Option<&'a str>,
}

impl<'a> Deployment<'a> {
    fn options(self, stem: &'a str) -> Options<'a> {
        Options { target: self.target, runtime: self.runtime, ..Options::new(stem) }
    }
}

/// Reads and checks what is named, with its settings, and reports what was found. `None` if it is wrong.
pub fn check(
    named: &Named,
    settings: &[String],
    deployment: Deployment<'_>,
    global: &Global,
) -> Option<(Input, Compiled)> {
    let mut input = read(named.path(), global)?;
    let Input { sources, file, stem } = &mut input;
    let progress = Progress::new(&named.to_string(), global);
    let options = Options { settings, watch: Some(&progress), ..deployment.options(stem) };
    let mut compiled = durac_driver::compile(sources, *file, &options);
    if let Some(policy) =
        compiled.analysis.policy.as_ref().filter(|_| !compiled.analysis.has_errors())
    {
        // Not what they expect: only whether they can run.
        let (_, found) = durac_driver::test::check(&compiled.analysis.tree, policy, sources);
        compiled.analysis.diagnostics.extend(found);
    }
    report(&compiled.analysis.diagnostics, &input.sources, global);
    (!compiled.analysis.has_errors()).then_some((input, compiled))
}

/// Reads and analyses what `path` names and sets its parameters. `None`, reported, if it is wrong or
/// has no policy. What it can lose is not looked at.
pub fn policy(
    path: &Path,
    sets: &[String],
    deployment: Deployment<'_>,
    global: &Global,
) -> Result<Option<(Input, hir::Policy)>> {
    let Some(mut input) = read(path, global) else { return Ok(None) };
    let Input { sources, file, stem } = &mut input;
    let analysis = durac_core::analyse(sources, *file, &deployment.options(stem).analysis());
    report(&analysis.diagnostics, &input.sources, global);
    if analysis.has_errors() {
        return Ok(None);
    }
    let Some(mut policy) = analysis.policy else {
        no_policy(&input, global);
        return Ok(None);
    };
    let found = durac_driver::set(&mut policy, sets, &mut input.sources);
    report(&found, &input.sources, global);
    Ok(found.is_empty().then_some((input, policy)))
}

/// The parameters of a policy, without a word about what is wrong with it.
pub fn params(input: &Input) -> Vec<hir::Param> {
    let Input { mut sources, file, stem } = input.clone();
    let analysis = durac_core::analyse(&mut sources, file, &Options::new(&stem).analysis());
    analysis.policy.map(|policy| policy.params).unwrap_or_default()
}

fn no_policy(input: &Input, global: &Global) {
    let found = Diagnostic::new(
        Code::TargetFileAsPolicy,
        "the file defines only targets, no policy",
        Span::new(input.file, 0, 0),
        "nothing to compile",
    )
    .help("add a hook, for example `on fdatasync: …`");
    report(&[found], &input.sources, global);
}

/// Reads and compiles what `path` names, with its settings; `must_run` if an action that no runtime
/// has yet is an error. `None`, reported, if the text is wrong or has no policy.
pub fn compile(
    path: &Path,
    settings: &[String],
    deployment: Deployment<'_>,
    must_run: bool,
    global: &Global,
) -> Result<Option<(Input, hir::Policy, Compiled)>> {
    match read(path, global) {
        Some(input) => compile_read(input, settings, deployment, must_run, global),
        None => Ok(None),
    }
}

/// As [`compile`], for a text that was read.
pub fn compile_read(
    mut input: Input,
    settings: &[String],
    deployment: Deployment<'_>,
    must_run: bool,
    global: &Global,
) -> Result<Option<(Input, hir::Policy, Compiled)>> {
    let Input { sources, file, stem } = &mut input;
    let progress = Progress::new(stem, global);
    let watch = Some(&progress as &dyn durac_driver::Watch);
    let options = Options { settings, must_run, watch, ..deployment.options(stem) };
    let mut compiled = durac_driver::compile(sources, *file, &options);
    report(&compiled.analysis.diagnostics, &input.sources, global);
    if compiled.analysis.has_errors() {
        return Ok(None);
    }
    let Some(policy) = compiled.analysis.policy.take() else {
        no_policy(&input, global);
        return Ok(None);
    };
    Ok(Some((input, policy, compiled)))
}

/// As [`policy`], and compiles, verifies and explores it for the agent.
pub fn ready(path: &Path, sets: &[String], global: &Global) -> Result<Option<Ready>> {
    ready_for(path, sets, Deployment::default(), global)
}

/// As [`policy`], and compiles, verifies and explores it for a runtime.
pub fn ready_for(
    path: &Path,
    sets: &[String],
    deployment: Deployment<'_>,
    global: &Global,
) -> Result<Option<Ready>> {
    let Some((input, policy, compiled)) = compile(path, sets, deployment, true, global)? else {
        return Ok(None);
    };
    Ok(compiled.proved.map(|proved| Ready { input, policy, proved }))
}
