//! What changes the text: layout, names, corrections.

use crate::document::Document;
use crate::uses::uses;
use durac_core::names;
use durac_grammar::{Diagnostic, Fix, Sources, Span, Token};

/// The text in the one layout; none if it is so already, or has errors.
pub fn format(document: &Document) -> Option<String> {
    let formatted = durac_grammar::format_checked(&document.sources, document.file).ok()?;
    (formatted != document.text()).then_some(formatted)
}

/// The places of the parameter or state variable at a byte; the first is the one asked for.
pub fn renamed(document: &Document, byte: usize) -> Option<(Span, Vec<Span>)> {
    let word = document.word(byte)?;
    document.declared().find(|d| d.name.node == word.text)?;
    let all = uses(&document.analysis.tree, word.text);
    all.contains(&word.span).then_some((word.span, all))
}

/// Why a name cannot be the new one of a parameter or state variable.
pub fn bad_name(document: &Document, name: &str) -> Option<String> {
    let mut sources = Sources::new();
    let file = sources.add("", name);
    let tokens = durac_grammar::lex(&sources, file);
    let is_name = matches!(tokens.as_slice(), [t] if t.node == Token::Ident(name.to_owned()));
    if !is_name {
        return Some(format!("`{name}` is not a name"));
    }
    if names::READINGS.iter().any(|(reading, ..)| reading.split('.').next() == Some(name)) {
        return Some(format!("`{name}` is a reading"));
    }
    let declared = document.declared().any(|d| d.name.node == name);
    declared.then(|| format!("`{name}` is declared already"))
}

/// The change that mends a finding: its fix, or what its help says to write at its place.
pub fn correction(finding: &Diagnostic) -> Option<Fix> {
    if let Some(fix) = &finding.fix {
        return Some(fix.clone());
    }
    let help = finding.help.as_deref()?;
    let name = help.strip_prefix("did you mean `")?.strip_suffix("`?")?;
    let span = finding.primary.span;
    (!name.contains('`')).then(|| Fix { span, text: name.to_owned(), safe: false })
}
