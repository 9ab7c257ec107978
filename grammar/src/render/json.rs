//! Diagnostics for programs: an array of objects.

use super::Streamed;
use crate::diag::Diagnostic;
use crate::span::{Sources, Span};
use serde::Serialize;

/// A diagnostic as JSON: a stable form, extended but not changed.
#[derive(Serialize)]
struct JsonDiagnostic<'a> {
    code: &'static str,
    severity: &'static str,
    message: &'a str,
    help: Option<&'a str>,
    /// The change that mends it.
    fix: Option<JsonFix<'a>>,
    notes: &'a [String],
    labels: Vec<JsonLabel<'a>>,
    /// What leads to it, drawn over several lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    timeline: Option<&'a str>,
}

/// A change of a text.
#[derive(Serialize)]
struct JsonFix<'a> {
    file: &'a str,
    start: JsonPosition,
    end: JsonPosition,
    text: &'a str,
    /// Whether nothing else can have been meant.
    safe: bool,
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
#[derive(Clone, Copy, Serialize)]
struct JsonPosition {
    line: u64,
    column: u64,
    byte: u64,
}

/// Every diagnostic.
pub(super) fn array(diagnostics: &[&Diagnostic], sources: &Sources) -> String {
    let position = |span: Span| {
        let at = sources.position(span);
        JsonPosition { line: at.line.into(), column: at.column.into(), byte: span.start.into() }
    };
    let all: Vec<JsonDiagnostic<'_>> = diagnostics
        .iter()
        .map(|d| JsonDiagnostic {
            code: d.code.text(),
            severity: d.severity().text(),
            message: &d.message,
            help: d.help.as_deref(),
            fix: d.fix.as_ref().map(|fix| JsonFix {
                file: sources.name(fix.span.file),
                start: position(fix.span),
                end: position(fix.span.after()),
                text: &fix.text,
                safe: fix.safe,
            }),
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
    text(&all)
}

/// One finding in a file that was read as a stream.
pub(super) fn streamed(found: &Streamed<'_>) -> String {
    let place = JsonPosition { line: found.line, column: found.column, byte: found.byte };
    text(&[JsonDiagnostic {
        code: found.code.text(),
        severity: found.code.severity().text(),
        message: found.message,
        help: None,
        fix: None,
        notes: &[],
        timeline: None,
        labels: vec![JsonLabel {
            file: found.file,
            start: place,
            end: place,
            text: "here",
            primary: true,
        }],
    }])
}

fn text(all: &[JsonDiagnostic<'_>]) -> String {
    // Strings and numbers can always be written as JSON.
    let mut out = serde_json::to_string_pretty(all).unwrap_or_else(|_| "[]".to_owned());
    out.push('\n');
    out
}
