//! Draws diagnostics: for people, for editors, for programs.
//!
//! The only place that turns a [`Diagnostic`] into text. It reads no file and writes to no stream.

use ariadne::{Cache, CharSet, Color, Config, IndexType, Label, Report, ReportKind, Source};
use codespan_reporting::diagnostic as short;
use codespan_reporting::files::SimpleFiles;
use codespan_reporting::term;
use durac_grammar::{Diagnostic, FileId, Severity, Sources, Span};
use serde::Serialize;
use std::collections::HashMap;
use std::fmt;
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

/// A line longer than this, in bytes, is not drawn.
const LONGEST_LINE: usize = 1000;

/// Renders `diags`, sorted by place.
#[must_use]
pub fn render(diags: &[Diagnostic], sources: &Sources, format: Format, color: bool) -> String {
    let mut sorted: Vec<&Diagnostic> = diags.iter().collect();
    sorted.sort_by_key(|d| (d.primary.span.file, d.primary.span.start, d.code));
    match format {
        Format::Human => human(&sorted, sources, color),
        Format::Short => one_line(&sorted, sources),
        Format::Json => json(&sorted, sources),
    }
}

// For people.

fn human(diags: &[&Diagnostic], sources: &Sources, color: bool) -> String {
    let mut cache = Texts {
        sources,
        parsed: sources.ids().map(|id| (id, Source::from(clean(sources.text(id))))).collect(),
    };
    let mut out = Vec::new();
    for diagnostic in diags {
        let drawn = drawable(diagnostic, sources)
            && report(diagnostic, sources, color).write(&mut cache, &mut out).is_ok();
        if !drawn {
            out.extend_from_slice(plain(diagnostic, sources).as_bytes());
        }
        if let Some(timeline) = &diagnostic.timeline {
            for line in clean(timeline).lines() {
                out.extend_from_slice(format!("    {line}\n").as_bytes());
            }
        }
        out.push(b'\n');
    }
    let text = String::from_utf8_lossy(&out);
    // Nothing is drawn behind the text, but ariadne pads its lines.
    text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn report<'a>(
    diagnostic: &Diagnostic,
    sources: &Sources,
    color: bool,
) -> Report<'a, (FileId, Range<usize>)> {
    let (kind, mark) = match diagnostic.severity() {
        Severity::Error => (ReportKind::Error, Color::Red),
        Severity::Warning => (ReportKind::Warning, Color::Yellow),
    };
    let place = |span: Span| (span.file, range(span, sources));
    let config = Config::new()
        .with_color(color)
        .with_index_type(IndexType::Byte)
        .with_char_set(CharSet::Unicode);
    let mut report = Report::build(kind, place(diagnostic.primary.span))
        .with_config(config)
        .with_code(diagnostic.code)
        .with_message(clean(&diagnostic.message))
        .with_label(
            Label::new(place(diagnostic.primary.span))
                .with_message(clean(&diagnostic.primary.text))
                .with_color(mark),
        );
    for label in &diagnostic.secondary {
        report.add_label(
            Label::new(place(label.span)).with_message(clean(&label.text)).with_color(Color::Cyan),
        );
    }
    if let Some(help) = &diagnostic.help {
        report.add_help(clean(help));
    }
    for note in &diagnostic.notes {
        report.add_note(clean(note));
    }
    report.finish()
}

/// A text without control characters, so that no policy can move the cursor or change colours. Every
/// byte keeps its place.
fn clean(text: &str) -> String {
    let control = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    text.chars()
        .flat_map(|c| {
            let (shown, times) = if control(c) { ('?', c.len_utf8()) } else { (c, 1) };
            std::iter::repeat_n(shown, times)
        })
        .collect()
}

/// Whether the lines in question are short enough to be shown.
fn drawable(diagnostic: &Diagnostic, sources: &Sources) -> bool {
    let labels = std::iter::once(&diagnostic.primary).chain(&diagnostic.secondary);
    labels.into_iter().all(|l| {
        let text = sources.text(l.span.file);
        let Range { start, end } = range(l.span, sources);
        let before = text.get(..start).and_then(|t| t.rfind('\n')).map_or(0, |i| i + 1);
        let after = text.get(end..).and_then(|t| t.find('\n')).map_or(text.len(), |i| end + i);
        after - before <= LONGEST_LINE
    })
}

/// A diagnostic without its text.
fn plain(diagnostic: &Diagnostic, sources: &Sources) -> String {
    let at = sources.position(diagnostic.primary.span);
    let name = sources.name(diagnostic.primary.span.file);
    let mut out = format!(
        "[{}] {}: {}\n    {name}:{}:{}: {}\n",
        diagnostic.code,
        severity(diagnostic),
        diagnostic.message,
        at.line,
        at.column,
        diagnostic.primary.text
    );
    if let Some(help) = &diagnostic.help {
        out.push_str(&format!("    Help: {help}\n"));
    }
    for note in &diagnostic.notes {
        out.push_str(&format!("    Note: {note}\n"));
    }
    clean(&out)
}

fn severity(diagnostic: &Diagnostic) -> &'static str {
    match diagnostic.severity() {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
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

/// The texts, as ariadne asks for them.
struct Texts<'a> {
    sources: &'a Sources,
    parsed: HashMap<FileId, Source<String>>,
}

impl Cache<FileId> for &mut Texts<'_> {
    type Storage = String;

    fn fetch(&mut self, id: &FileId) -> Result<&Source<String>, impl fmt::Debug> {
        self.parsed.get(id).ok_or("no such source")
    }

    fn display<'b>(&self, id: &'b FileId) -> Option<impl fmt::Display + 'b> {
        Some(clean(self.sources.name(*id)))
    }
}

// For editors.

fn one_line(diags: &[&Diagnostic], sources: &Sources) -> String {
    let mut files = SimpleFiles::new();
    let ids: HashMap<FileId, usize> =
        sources.ids().map(|id| (id, files.add(sources.name(id), sources.text(id)))).collect();
    let config =
        term::Config { display_style: term::DisplayStyle::Short, ..term::Config::default() };
    let mut out = String::new();
    for d in diags {
        let severity = match d.severity() {
            Severity::Error => short::Severity::Error,
            Severity::Warning => short::Severity::Warning,
        };
        let Some(&file) = ids.get(&d.primary.span.file) else { continue };
        let label = short::Label::primary(file, range(d.primary.span, sources));
        let diagnostic = short::Diagnostic::new(severity)
            .with_code(d.code)
            .with_message(d.message.replace('\n', " "))
            .with_label(label);
        // It can only fail for a file that is not there.
        if term::emit_to_string(&mut out, &config, &files, &diagnostic).is_err() {
            out.push_str(&format!("error[{}]: {}\n", d.code, d.message));
        }
    }
    clean(&out)
}

// For programs.

/// A diagnostic as JSON: a stable form, extended but not changed.
#[derive(Serialize)]
struct JsonDiagnostic<'a> {
    code: &'static str,
    severity: &'static str,
    message: &'a str,
    help: Option<&'a str>,
    notes: &'a [String],
    labels: Vec<JsonLabel<'a>>,
    /// What leads to it, drawn over several lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    timeline: Option<&'a str>,
}

/// A place. The first label of a diagnostic is the primary one.
#[derive(Serialize)]
struct JsonLabel<'a> {
    file: &'a str,
    start: JsonPosition,
    end: JsonPosition,
    text: &'a str,
    primary: bool,
}

/// Line and column from 1, the column in characters; the byte from 0.
#[derive(Serialize)]
struct JsonPosition {
    line: u32,
    column: u32,
    byte: u32,
}

fn json(diags: &[&Diagnostic], sources: &Sources) -> String {
    let position = |span: Span| {
        let at = sources.position(span);
        JsonPosition { line: at.line, column: at.column, byte: span.start }
    };
    let all: Vec<JsonDiagnostic<'_>> = diags
        .iter()
        .map(|d| JsonDiagnostic {
            code: d.code.text(),
            severity: severity(d),
            message: &d.message,
            help: d.help.as_deref(),
            notes: &d.notes,
            timeline: d.timeline.as_deref(),
            labels: std::iter::once((&d.primary, true))
                .chain(d.secondary.iter().map(|l| (l, false)))
                .map(|(l, primary)| JsonLabel {
                    file: sources.name(l.span.file),
                    start: position(l.span),
                    end: position(l.span.after()),
                    text: &l.text,
                    primary,
                })
                .collect(),
        })
        .collect();
    let mut out = serde_json::to_string_pretty(&all).unwrap_or_else(|_| "[]".to_owned());
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::{Format, render};
    use durac_grammar::{Code, Diagnostic, FileId, Sources, Span};

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
                for format in [Format::Human, Format::Short, Format::Json] {
                    let _ = render(std::slice::from_ref(&d), &sources, format, false);
                }
            }
        }
    }
}
