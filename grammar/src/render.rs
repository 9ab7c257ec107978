//! Draws diagnostics: for people, for editors, for programs.
//!
//! The only place that turns a [`Diagnostic`] into text; the command line, the readers of traces and
//! the fuzz targets share it. It reads no file and writes to no stream.

mod human;
mod json;
mod short;

use crate::code::Code;
use crate::diag::Diagnostic;
use crate::span::{Sources, Span};
use std::ops::Range;

/// How diagnostics are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// With the text, labels, help and notes.
    Human,
    /// `file:line:column: error[E0101]: message`, a line each.
    Short,
    /// An array of objects.
    Json,
}

/// Renders `diagnostics`, sorted by place.
#[must_use]
pub fn render(
    diagnostics: &[Diagnostic],
    sources: &Sources,
    format: Format,
    color: bool,
) -> String {
    let mut sorted: Vec<&Diagnostic> = diagnostics.iter().collect();
    sorted.sort_by_key(|d| (d.primary.span.file, d.primary.span.start, d.code));
    match format {
        Format::Human => human::human(&sorted, sources, color),
        Format::Short => short::one_line(&sorted, sources),
        Format::Json => json::array(&sorted, sources),
    }
}

/// A finding in a file that was read as a stream and is not in [`Sources`], such as a trace.
#[derive(Clone, Copy, Debug)]
pub struct Streamed<'a> {
    /// The code.
    pub code: Code,
    /// What is wrong.
    pub message: &'a str,
    /// The file, as shown.
    pub file: &'a str,
    /// The line, from 1.
    pub line: u64,
    /// The character in the line, from 1.
    pub column: u64,
    /// The byte in the file, from 0.
    pub byte: u64,
}

/// Renders one finding without its text: on one line for people, too.
#[must_use]
pub fn render_streamed(found: &Streamed<'_>, format: Format) -> String {
    match format {
        Format::Json => json::streamed(found),
        Format::Human | Format::Short => {
            let Streamed { code, message, file, line, column, .. } = found;
            let severity = code.severity();
            clean(&format!("{file}:{line}:{column}: {severity}[{code}]: {message}")) + "\n"
        }
    }
}

/// Replaces control characters by `?`, so that no input can move the cursor or change colours. Line
/// ends and tabs stay, and every byte keeps its place.
#[must_use]
pub fn clean(text: &str) -> String {
    let control = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    text.chars()
        .flat_map(|c| {
            let (shown, times) = if control(c) { ('?', c.len_utf8()) } else { (c, 1) };
            std::iter::repeat_n(shown, times)
        })
        .collect()
}

/// `text` for a single line: no control character, line ends included.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A span as a range that lies in its text and cuts no character.
fn range(span: Span, sources: &Sources) -> Range<usize> {
    let text = sources.text(span.file);
    let inside = |at: u32| {
        let mut at = (at as usize).min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let (start, end) = (inside(span.start), inside(span.end));
    start..end.max(start)
}

#[cfg(test)]
mod tests {
    use super::{Format, Streamed, render, render_streamed};
    use crate::{Code, Diagnostic, FileId, Sources, Span};

    fn example() -> (Sources, Vec<Diagnostic>) {
        let mut sources = Sources::new();
        let policy = sources.add("p.dur", "// größer\non fdatasync: stage\n");
        let target = sources.add("redis.dur", "hook fdatasync(log: file) {\n    may pass\n}\n");
        let at = |start, end| Span::new(policy, start, end);
        let refused = Diagnostic::new(
            Code::NotAllowed,
            "the target does not allow `stage` here",
            at(26, 31),
            "not allowed at `fdatasync`",
        )
        .also(Span::new(target, 32, 40), "this is what it allows")
        .help("write `pass`")
        .note("a sync carries no bytes");
        let warning = Diagnostic::new(Code::NoDeadline, "no deadline", at(12, 14), "here");
        (sources, vec![refused, warning])
    }

    #[test]
    fn human_shows_both_files() {
        let (sources, diags) = example();
        let expected = "\
[W0104] Warning: no deadline
   ╭─[ p.dur:2:1 ]
   │
 2 │ on fdatasync: stage
   │ ─┬
   │  ╰── here
───╯

[E0401] Error: the target does not allow `stage` here
   ╭─[ p.dur:2:15 ]
   │
 2 │ on fdatasync: stage
   │               ──┬──
   │                 ╰──── not allowed at `fdatasync`
   │
   ├─[ redis.dur:2:5 ]
   │
 2 │     may pass
   │     ────┬───
   │         ╰───── this is what it allows
   │
   │ Help: write `pass`
   │
   │ Note: a sync carries no bytes
───╯

";
        assert_eq!(render(&diags, &sources, Format::Human, false), expected);
        assert!(render(&diags, &sources, Format::Human, true).contains("\u{1b}["));
    }

    #[test]
    fn short_is_one_line_each() {
        let (sources, diags) = example();
        assert_eq!(
            render(&diags, &sources, Format::Short, true),
            "p.dur:2:1: warning[W0104]: no deadline\n\
             p.dur:2:15: error[E0401]: the target does not allow `stage` here\n"
        );
    }

    #[test]
    fn json_is_an_array() {
        let (sources, diags) = example();
        let value: serde_json::Value =
            serde_json::from_str(&render(&diags, &sources, Format::Json, false)).unwrap();
        assert_eq!(value[1]["code"], "E0401");
        assert_eq!(value[1]["severity"], "error");
        assert_eq!(value[1]["labels"][0]["start"]["column"], 15);
        assert_eq!(value[1]["labels"][0]["end"]["byte"], 31);
        assert_eq!(value[1]["labels"][1]["file"], "redis.dur");
        assert_eq!(render(&[], &sources, Format::Json, false), "[]\n");
    }

    #[test]
    fn a_streamed_finding_has_the_same_form() {
        let found = Streamed {
            code: Code::BadTrace,
            message: "cut\u{1b}[2J off",
            file: "t.json",
            line: 2,
            column: 9,
            byte: 70,
        };
        let line = "t.json:2:9: error[E0701]: cut?[2J off\n";
        assert_eq!(render_streamed(&found, Format::Human), line);
        assert_eq!(render_streamed(&found, Format::Short), line);
        let streamed: serde_json::Value =
            serde_json::from_str(&render_streamed(&found, Format::Json)).unwrap();
        assert_eq!(streamed[0]["labels"][0]["start"]["byte"], 70);
        let (sources, diags) = example();
        let drawn: serde_json::Value =
            serde_json::from_str(&render(&diags, &sources, Format::Json, false)).unwrap();
        let keys = |value: &serde_json::Value| {
            value.as_object().unwrap().keys().cloned().collect::<Vec<_>>()
        };
        for place in ["/0", "/0/labels/0", "/0/labels/0/start"] {
            let (a, b) = (streamed.pointer(place).unwrap(), drawn.pointer(place).unwrap());
            assert_eq!(keys(a), keys(b), "{place}");
        }
    }

    #[test]
    fn odd_places_are_survived() {
        let mut sources = Sources::new();
        let empty = sources.add("empty", "");
        let umlaut = sources.add("ü", "äöü\r\n\t x");
        let long = sources.add("long", "x".repeat(5000));
        let ends = [(0, 0), (1, 2), (0, 8), (8, 8), (3, 99), (99, 3), (5000, 5000)];
        for (start, end) in ends {
            for file in [empty, umlaut, long, FileId(9)] {
                let span = Span::new(file, start, end);
                let d = Diagnostic::new(Code::Unexpected, "m", span, "l").also(span, "again");
                let shown = |format| render(std::slice::from_ref(&d), &sources, format, false);
                assert!(shown(Format::Human).contains("E0105"), "{span:?}");
                let short = shown(Format::Short);
                assert_eq!((short.lines().count(), short.ends_with('\n')), (1, true), "{short:?}");
                assert!(short.ends_with("error[E0105]: m\n"), "{short:?}");
                let json: serde_json::Value = serde_json::from_str(&shown(Format::Json)).unwrap();
                assert_eq!(json[0]["labels"].as_array().map(Vec::len), Some(2), "{json}");
            }
        }
    }
}
