//! Changes of a text that mend its findings: `durac check --fix`, and the quick fixes of editors.

use crate::diag::{Diagnostic, Fix};
use crate::span::FileId;

/// The safe fixes of findings in `file`, in order, each once and none overlapping another.
#[must_use]
pub fn safe(diagnostics: &[Diagnostic], file: FileId) -> Vec<Fix> {
    let mut fixes: Vec<Fix> = diagnostics
        .iter()
        .filter_map(|d| d.fix.clone())
        .filter(|fix| fix.safe && fix.span.file == file)
        .collect();
    fixes.sort_by_key(|fix| (fix.span.start, fix.span.end));
    fixes.dedup();
    let mut end = None;
    fixes.retain(|fix| {
        let free = end.is_none_or(|end| fix.span.start >= end);
        if free {
            end = Some(fix.span.end.max(fix.span.start + 1));
        }
        free
    });
    fixes
}

/// The text with fixes made, which are those that [`safe`] gives.
#[must_use]
pub fn apply(text: &str, fixes: &[Fix]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    for fix in fixes {
        let (start, end) = (fix.span.start as usize, fix.span.end as usize);
        out.push_str(text.get(from..start).unwrap_or_default());
        out.push_str(&fix.text);
        from = end;
    }
    out.push_str(text.get(from..).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests {
    use super::{apply, safe};
    use crate::{Code, Diagnostic, FileId, Span};

    #[test]
    fn overlapping_and_unsafe_fixes_are_left_out() {
        let file = FileId(0);
        let at = |start, end| Span::new(file, start, end);
        let found = |span| Diagnostic::new(Code::Unexpected, "m", span, "l");
        let all = [
            found(at(6, 9)).fix(at(6, 9), "C"),
            found(at(0, 3)).fix(at(0, 3), "A"),
            found(at(2, 5)).fix(at(2, 5), "overlaps"),
            found(at(4, 5)).perhaps(at(4, 5), "guess"),
        ];
        assert_eq!(apply("aaa b ccc.", &safe(&all, file)), "A b C.");
    }
}
