//! Text in, text out: every file under `tests/cases` with its snapshot.
//!
//! `good` parses without a diagnostic, `errors` shows where each diagnostic points, `format` shows
//! the canonical layout. Bless with `INSTA_UPDATE=always cargo test -p durac-grammar`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use durac_grammar::{FormatError, Parsed, Sources, format_checked, lex, parse, print_ast};
use std::fmt::Write as _;

fn load(path: &std::path::Path) -> (Sources, Parsed) {
    let text = std::fs::read_to_string(path).unwrap();
    let mut sources = Sources::new();
    let file = sources.add(path.file_name().unwrap().to_string_lossy(), text);
    let parsed = parse(&sources, file);
    (sources, parsed)
}

/// The text with what is wrong under each line.
fn annotated(sources: &Sources, parsed: &Parsed) -> String {
    let file = sources.ids().next().unwrap();
    let mut out = String::new();
    let mut diagnostics = parsed.diagnostics.iter().peekable();
    for (number, line) in (1u32..).zip(sources.text(file).split('\n')) {
        let short: String = line.chars().take(100).collect();
        let line = if short == line { short } else { format!("{short}…") };
        writeln!(out, "{number:>3} | {line}").unwrap();
        while let Some(d) = diagnostics.next_if(|d| sources.position(d.primary.span).line == number)
        {
            let column = sources.position(d.primary.span).column as usize - 1;
            let width = sources.slice(d.primary.span).chars().count().max(1);
            writeln!(
                out,
                "    | {}{} {} {}: {}",
                " ".repeat(column.min(110)),
                "^".repeat(width.min(60)),
                d.code,
                d.message,
                d.primary.text
            )
            .unwrap();
            for label in &d.secondary {
                let at = sources.position(label.span);
                writeln!(out, "    |     {}:{}: {}", at.line, at.column, label.text).unwrap();
            }
            if let Some(text) = &d.help {
                writeln!(out, "    |     help: {text}").unwrap();
            }
            for text in &d.notes {
                writeln!(out, "    |     note: {text}").unwrap();
            }
        }
    }
    assert!(diagnostics.next().is_none(), "a diagnostic out of order or outside the text");
    out
}

/// Formats twice and checks that the second time changes nothing.
fn formatted(sources: &Sources) -> String {
    let file = sources.ids().next().unwrap();
    let once = format_checked(sources, file).unwrap();
    let mut again = Sources::new();
    let id = again.add("again", once.as_str());
    assert_eq!(format_checked(&again, id).unwrap(), once, "formatting is not stable");
    once
}

#[test]
fn good() {
    insta::glob!("cases/good/*.dur", |path| {
        let (sources, parsed) = load(path);
        assert!(parsed.diagnostics.is_empty(), "{}", annotated(&sources, &parsed));
        let text = sources.text(sources.ids().next().unwrap());
        insta::assert_snapshot!(format!(
            "{text}\n--- tree\n{}\n--- formatted\n{}",
            print_ast(&parsed.file),
            formatted(&sources)
        ));
    });
}

#[test]
fn errors() {
    insta::glob!("cases/errors/*.dur", |path| {
        let (sources, parsed) = load(path);
        assert!(!parsed.diagnostics.is_empty(), "no diagnostic");
        let refused = format_checked(&sources, sources.ids().next().unwrap());
        assert!(matches!(refused, Err(FormatError::Parse(_))), "formatted a broken file");
        insta::assert_snapshot!(format!(
            "{}\n--- tree\n{}",
            annotated(&sources, &parsed),
            print_ast(&parsed.file)
        ));
    });
}

#[test]
fn format() {
    insta::glob!("cases/format/*.dur", |path| {
        let (sources, parsed) = load(path);
        assert!(parsed.diagnostics.is_empty(), "{}", annotated(&sources, &parsed));
        let text = sources.text(sources.ids().next().unwrap());
        insta::assert_snapshot!(format!("{text}\n--- formatted\n{}", formatted(&sources)));
    });
}

#[test]
fn tokens() {
    let mut sources = Sources::new();
    let file = sources.add("t", "on x: await 50ms // why\nfiles \"a\" $ größe 1..=2");
    let shown: Vec<String> =
        lex(&sources, file).iter().map(|t| format!("{} {}", t.node.kind(), t.node)).collect();
    insta::assert_snapshot!(shown.join("\n"), @r#"
    word on
    name x
    symbol :
    word await
    number 50ms
    comment // why
    word files
    string "a"
    error $
    name größe
    number 1
    symbol ..=
    number 2
    "#);
}

#[test]
fn too_large_is_refused() {
    let mut sources = Sources::new();
    let file = sources.add("big", " ".repeat(durac_grammar::MAX_SOURCE_BYTES + 1));
    let parsed = parse(&sources, file);
    assert_eq!(parsed.diagnostics.len(), 1);
    assert_eq!(parsed.diagnostics[0].code, durac_grammar::Code::TooLarge);
}

/// An `else if` nests as deep on lines of its own as in braces: 64 levels, and formatting keeps them.
#[test]
fn else_if_nests_to_the_limit() {
    let chain = |links: usize| {
        let mut sources = Sources::new();
        let text = format!("on write: if a skip\n{}", "    else if b skip\n".repeat(links));
        let file = sources.add("chain", text);
        let parsed = parse(&sources, file);
        (sources, parsed)
    };
    let (sources, parsed) = chain(64);
    assert!(parsed.diagnostics.is_empty(), "{}", annotated(&sources, &parsed));
    assert_eq!(formatted(&sources).matches("else if").count(), 64);
    let codes: Vec<_> = chain(65).1.diagnostics.iter().map(|d| d.code).collect();
    assert_eq!(codes, [durac_grammar::Code::TooDeep]);
}

/// A person reads each snapshot in review.
#[test]
fn snapshots_are_small() {
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots")).unwrap()
    {
        let entry = entry.unwrap();
        let size = entry.metadata().unwrap().len();
        assert!(size <= 10_000, "{}: {size} bytes", entry.path().display());
    }
}

/// Texts that would be deep trees, long chains or many errors; each ends, and says little.
#[test]
fn hostile_texts_end() {
    for piece in [
        "(",
        "{",
        "!",
        "a + ",
        "a < ",
        "a = ",
        "x == ",
        "if b skip else ",
        "< ;\n",
        "$ ",
        "/*",
        "\"",
        "on ",
        "on a(",
        "policy: ",
        "policy a-",
        "flush every 1s ",
        "guarantee a <= 1 ",
        "if a: ",
        "return defer ",
        "await until ",
    ] {
        for prefix in ["", "on a: x = ", "on a {"] {
            let mut sources = Sources::new();
            let file = sources.add("h", format!("{prefix}{}", piece.repeat(1000)));
            let parsed = parse(&sources, file);
            assert!(!parsed.diagnostics.is_empty(), "{prefix}{piece}");
            assert!(parsed.diagnostics.len() <= durac_grammar::MOST_DIAGNOSTICS + 1);
            let _ = print_ast(&parsed.file);
        }
    }
}
