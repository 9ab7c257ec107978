//! Diagnostics for people: the text with its labels, help and notes, drawn by ariadne.

use super::{clean, range};
use crate::diag::{Diagnostic, Severity};
use crate::span::{FileId, Sources, Span};
use ariadne::{Cache, CharSet, Color, Config, IndexType, Label, Report, ReportKind, Source};
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

/// A line longer than this, in bytes, is not drawn.
const LONGEST_LINE: usize = 1000;

pub(super) fn human(diags: &[&Diagnostic], sources: &Sources, color: bool) -> String {
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
        diagnostic.severity(),
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
