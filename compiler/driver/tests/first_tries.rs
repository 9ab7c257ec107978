//! What people type first, and the message each gets: a file of `first_tries` each, with its snapshot. Some come from the
//! habits of bpftrace, Cedar, SQL or YAML.
//!
//! Bless with `INSTA_UPDATE=always cargo test -p durac-driver --test first_tries`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use durac_driver::{Options, compile};
use durac_grammar::render::{Format, render};
use durac_grammar::{Diagnostic, FileId, Severity, Sources};
use std::fmt::Write as _;

/// The text, its findings, and where it is right what it loses.
fn tried(name: &str, text: &str) -> (Vec<Diagnostic>, Sources, FileId, Option<String>) {
    let mut sources = Sources::new();
    let file = sources.add(name, text);
    let compiled = compile(&mut sources, file, &Options::new(name.trim_end_matches(".dur")));
    let loss = compiled.proved.as_ref().and_then(|p| p.power_loss()).map(|l| l.text.clone());
    (compiled.analysis.diagnostics, sources, file, loss)
}

fn drawn(diagnostics: &[Diagnostic], sources: &Sources) -> String {
    let text = render(diagnostics, sources, Format::Human, false);
    let kept = text.lines().filter(|line| !matches!(line.trim(), "" | "│" | "┆"));
    kept.fold(String::new(), |out, line| out + line.trim_end() + "\n")
}

#[test]
fn first_tries() {
    let mut count = 0;
    insta::glob!("first_tries/*.dur", |path| {
        count += 1;
        let text = std::fs::read_to_string(path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy();
        let (diagnostics, sources, _, loss) = tried(&name, &text);
        let mut shown = drawn(&diagnostics, &sources);
        if let Some(loss) = loss {
            writeln!(shown, "loses on power loss: {loss}").unwrap();
        }
        insta::assert_snapshot!(format!("{text}---\n{shown}"));
    });
    assert!(count >= 100, "{count} first tries");
}

/// A mistake gets one error; those that get more are listed with how many mistakes they hold.
#[test]
fn a_mistake_gets_one_error() {
    const MORE: &[(&str, usize)] = &[
        ("files_of_a_shell", 12),
        ("from_go", 3),
        ("from_shell", 2),
        ("from_yaml", 5),
        ("guarantee_in_megabytes", 2),
        ("if_end", 4),
    ];
    let mut wrong = String::new();
    for entry in
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/first_tries")).unwrap()
    {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let (diagnostics, sources, ..) = tried(&name, &text);
        let errors = diagnostics.iter().filter(|d| d.severity() == Severity::Error).count();
        let allowed = MORE.iter().find(|(n, _)| *n == name).map_or(1, |(_, count)| *count);
        let helped =
            diagnostics.iter().all(|d| d.severity() != Severity::Error || d.help.is_some());
        if errors > allowed || !helped {
            writeln!(wrong, "{name}: {errors}, help: {helped}\n{}", drawn(&diagnostics, &sources))
                .unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// A safe fix removes its error and brings no new one.
#[test]
fn safe_fixes_mend() {
    let mut mended = 0;
    let mut wrong = String::new();
    for entry in
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/first_tries")).unwrap()
    {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let (before, _, file, _) = tried(&name, &text);
        let fixes = durac_grammar::fix::safe(&before, file);
        if fixes.is_empty() {
            continue;
        }
        mended += 1;
        let after_text = durac_grammar::fix::apply(&text, &fixes);
        let (after, sources, ..) = tried(&name, &after_text);
        // What the text means, once it can be read, is another matter.
        let errors = |all: &[Diagnostic]| all.iter().filter(|d| d.code.text() < "E0407").count();
        let unfixed = before
            .iter()
            .filter(|d| d.code.text() < "E0407")
            .filter(|d| !d.fix.as_ref().is_some_and(|f| f.safe))
            .count();
        if errors(&after) > unfixed {
            writeln!(wrong, "{name}:\n{after_text}\n{}", drawn(&after, &sources)).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(mended >= 25, "{mended}");
}
