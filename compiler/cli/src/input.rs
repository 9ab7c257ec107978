//! Reading what the user names: a file, a ready policy, or standard input.

use crate::args::{Format, Global};
use crate::{output, render};
use anyhow::Result;
use durac_bpf::abi::Runtime;
use durac_compiler::{Naming, hir};
use durac_grammar::{Code, Diagnostic, FileId, Sources, Span};
use durac_sim::check::{Checked, Proved};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Larger files are refused: no policy is near it, and diagnostics would be unreadable.
const MAX_BYTES: u64 = 1 << 20;

/// A text that was read.
pub struct Input {
    /// The sources with the text as their first file.
    pub sources: Sources,
    /// The text.
    pub file: FileId,
    /// The policy's name if it gives none.
    pub stem: String,
}

/// Reads what `path` names: `-`, an existing file, or a ready policy. `None`, reported, if it cannot
/// be read as a text.
pub fn read(path: &Path, global: &Global) -> Option<Input> {
    let name = path.to_string_lossy().into_owned();
    if let Some(ready) = durac_stdlib::policy(&name).filter(|_| !path.is_file()) {
        return Some(input(ready.file, ready.text.to_owned(), ready.name));
    }
    let shown = if name == "-" { "<stdin>" } else { &name };
    let stem = match path.file_stem() {
        Some(stem) if name != "-" => stem.to_string_lossy().into_owned(),
        _ => "stdin".to_owned(),
    };
    let bytes = if name == "-" { limited(std::io::stdin()) } else { open(path).and_then(limited) };
    let (code, message, help) = match bytes.map(String::from_utf8) {
        Ok(Ok(text)) if text.len() as u64 <= MAX_BYTES => return Some(input(shown, text, &stem)),
        Ok(Err(error)) if error.as_bytes().len() as u64 <= MAX_BYTES => {
            let at = error.utf8_error().valid_up_to();
            let message = format!("`{shown}` is not UTF-8 text: byte {at} cannot be read");
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
    match durac_compiler::names::nearest(name, policies) {
        Some(near) => format!("did you mean the ready policy `{near}`?"),
        None => "`durac list` shows the ready policies".to_owned(),
    }
}

fn input(shown: &str, text: String, stem: &str) -> Input {
    let mut sources = Sources::new();
    let file = sources.add(shown, text);
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

/// Prints diagnostics on standard error in the form asked for.
pub fn report(diagnostics: &[Diagnostic], sources: &Sources, global: &Global) {
    if diagnostics.is_empty() && global.format != Format::Json {
        return;
    }
    let format = match global.format {
        Format::Human => render::Format::Human,
        Format::Short => render::Format::Short,
        Format::Json => render::Format::Json,
    };
    let text = render::render(diagnostics, sources, format, output::colored(global.color));
    output::stderr(&text);
}

/// A policy that is right, from its text to what was proved of it.
pub struct Ready {
    /// The text.
    pub input: Input,
    /// The policy, with the parameters that were set.
    pub policy: hir::Policy,
    /// Its object, and what was proved of it.
    pub proved: Proved,
}

/// The file and the assignments in `FILE` or `FILE:name=value,name=value`.
pub fn named(text: &str) -> (PathBuf, Vec<String>) {
    let (file, sets) = match text.split_once(':') {
        Some((file, sets)) if !Path::new(text).exists() => (file, sets),
        _ => (text, ""),
    };
    let sets = sets.split(',').filter(|s| !s.is_empty()).map(str::to_owned).collect();
    (PathBuf::from(file), sets)
}

/// Where a policy is to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place<'a> {
    /// What runs it.
    pub runtime: Runtime,
    /// The target, instead of the one that the text names.
    pub target: Option<&'a str>,
}

impl<'a> Place<'a> {
    fn naming(self, stem: &'a str) -> Naming<'a> {
        Naming { stem, target: self.target, runtime: self.runtime }
    }
}

/// Reads and checks what `path` names, and reports what was found. `None` if it is wrong.
pub fn check(path: &Path, place: Place<'_>, global: &Global) -> Option<(Input, Checked)> {
    let mut input = read(path, global)?;
    let Input { sources, file, stem } = &mut input;
    let checked = durac_sim::check::check_as(sources, *file, &place.naming(stem));
    report(&checked.analysis.diagnostics, &input.sources, global);
    (!checked.analysis.has_errors()).then_some((input, checked))
}

/// Reads and analyses what `path` names and sets its parameters. `None`, reported, if it is wrong or
/// has no policy. What it can lose is not looked at.
pub fn policy(
    path: &Path,
    sets: &[String],
    place: Place<'_>,
    global: &Global,
) -> Result<Option<(Input, hir::Policy)>> {
    let Some(mut input) = read(path, global) else { return Ok(None) };
    let Input { sources, file, stem } = &mut input;
    let analysis = durac_compiler::analyse_as(sources, *file, &place.naming(stem));
    report(&analysis.diagnostics, &input.sources, global);
    if analysis.has_errors() {
        return Ok(None);
    }
    let Some(mut policy) = analysis.policy else {
        let found = Diagnostic::new(
            Code::TargetFileAsPolicy,
            "the file defines targets and no policy",
            Span::new(input.file, 0, 0),
            "nothing to compile",
        )
        .help("a policy has at least one hook: `on fdatasync: …`");
        report(&[found], &input.sources, global);
        return Ok(None);
    };
    for assignment in sets {
        durac_compiler::set::set(&mut policy, assignment)
            .map_err(|why| output::exit(1, format!("--set: {why}")))?;
    }
    Ok(Some((input, policy)))
}

/// As [`policy`], and compiles, verifies and explores it for the agent.
pub fn ready(path: &Path, sets: &[String], global: &Global) -> Result<Option<Ready>> {
    ready_for(path, sets, Place::default(), global)
}

/// As [`policy`], and compiles, verifies and explores it for a runtime.
pub fn ready_for(
    path: &Path,
    sets: &[String],
    place: Place<'_>,
    global: &Global,
) -> Result<Option<Ready>> {
    let Some((input, policy)) = self::policy(path, sets, place, global)? else { return Ok(None) };
    let (sources, file) = (&input.sources, input.file);
    let (proved, found) = durac_sim::check::compile_for(place.runtime, &policy, sources, file);
    report(&found, &input.sources, global);
    Ok(proved.map(|proved| Ready { input, policy, proved }))
}
