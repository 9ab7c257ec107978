//! Diagnostics for editors: one line each, as codespan writes them.

use super::{clean, range};
use crate::diag::{Diagnostic, Severity};
use crate::span::{FileId, Sources};
use codespan_reporting::diagnostic as short;
use codespan_reporting::files::SimpleFiles;
use codespan_reporting::term;
use std::collections::HashMap;

pub(super) fn one_line(diags: &[&Diagnostic], sources: &Sources) -> String {
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
        let message = d.message.replace('\n', " ");
        let without_place = format!("{}[{}]: {message}\n", d.severity(), d.code);
        let Some(&file) = ids.get(&d.primary.span.file) else {
            out.push_str(&without_place);
            continue;
        };
        let label = short::Label::primary(file, range(d.primary.span, sources));
        let diagnostic = short::Diagnostic::new(severity)
            .with_code(d.code)
            .with_message(message)
            .with_label(label);
        // It can only fail for a file that is not there.
        if term::emit_to_string(&mut out, &config, &files, &diagnostic).is_err() {
            out.push_str(&without_place);
        }
    }
    clean(&out)
}
