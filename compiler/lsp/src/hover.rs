//! What a word means, and where it is defined.

use crate::document::{Document, Word};
use crate::words;
use durac_abi::Hook;
use durac_core::target::{self, CheckedTarget};
use durac_core::{names, unit};
use durac_grammar::Span;

/// The target that the text is for, with its definition's text in the document's sources.
pub fn target(document: &Document) -> Option<CheckedTarget> {
    let local = target::check_definitions(&document.analysis.tree.items, &mut Vec::new());
    let mut sources = document.sources.clone();
    target::find(&document.target_name(), &local, &mut sources)
}

/// What the word at a byte means, in Markdown, and its place.
pub fn hover(document: &Document, byte: usize) -> Option<(String, Span)> {
    let word = document.word(byte)?;
    let text = declared(document, &word)
        .or_else(|| in_its_place(document, &word))
        .or_else(|| reading(word.text))
        .or_else(|| Some(format!("`{}`: {}", word.text, words::meaning(word.text)?)))?;
    Some((text, word.span))
}

fn declared(document: &Document, word: &Word<'_>) -> Option<String> {
    let declared = document.declared().find(|d| d.name.node == word.text)?;
    let item = document.sources.slice(declared.item).trim();
    let mut text = format!("```durac\n{item}\n```\n");
    let of = |p: &&durac_core::hir::Param| p.name.node == word.text;
    match document.policy().and_then(|policy| policy.params.iter().find(of)) {
        Some(param) => {
            let value = |v| unit::show(v, param.unit);
            text.push_str(&format!(
                "{}; {} to {}, {} by default. `durac set` changes it while the policy runs.",
                param.unit,
                value(param.min),
                value(param.max),
                value(param.default)
            ));
        }
        None if declared.kind == "state" => {
            text.push_str("kept between the calls on one log, one value for each log");
        }
        None => {}
    }
    Some(text)
}

/// A hook behind `on`, a target behind `target`: words whose meaning depends on where they stand.
fn in_its_place(document: &Document, word: &Word<'_>) -> Option<String> {
    match word.before {
        "on" => {
            let hook = Hook::parse(word.text)?;
            let target = target(document)?;
            let may = target.hook(hook)?.may.iter().map(|a| format!("`{}`", a.text()));
            let functions = target.hir.entry(hook)?.functions.iter();
            let functions = functions.map(|f| format!("`{}`", f.symbol.node));
            Some(format!(
                "Hook `{hook}` of `{}`: {}.\n\nA policy may {}.",
                target.hir.name,
                functions.collect::<Vec<_>>().join(", "),
                may.collect::<Vec<_>>().join(", ")
            ))
        }
        "target" => {
            let target = target(document).filter(|target| target.hir.name == word.text)?;
            let files = target.hir.files.iter().map(|f| format!("`{f}`"));
            let hooks = target.hook_names().into_iter().map(|h| format!("`{h}`"));
            Some(format!(
                "Target `{}`: files {}; hooks {}.",
                word.text,
                files.collect::<Vec<_>>().join(", "),
                hooks.collect::<Vec<_>>().join(", ")
            ))
        }
        _ => None,
    }
}

fn reading(name: &str) -> Option<String> {
    let (reading, unit) = names::reading(name)?;
    Some(format!("`{name}` ({unit}): {}", names::meaning(reading)))
}

/// Where something is defined.
#[derive(Debug, PartialEq, Eq)]
pub enum Definition {
    /// In the text itself.
    Here(Span),
    /// In a text that comes with durac.
    Shipped {
        /// Its file name, such as `redis.dur`.
        name: String,
        /// Its text.
        text: &'static str,
        /// The name in it.
        span: Span,
    },
}

/// Where the word at a byte is defined.
pub fn definition(document: &Document, byte: usize) -> Option<Definition> {
    let word = document.word(byte)?;
    if let Some(declared) = document.declared().find(|d| d.name.node == word.text) {
        return Some(Definition::Here(declared.name.span));
    }
    let target = target(document)?;
    let span = match word.before {
        "target" if target.hir.name == word.text => target.span,
        "on" => target.hir.entry(Hook::parse(word.text)?)?.span,
        _ => return None,
    };
    if span.file == document.file {
        return Some(Definition::Here(span));
    }
    let shipped = durac_stdlib::target(&target.hir.name)?;
    let name = shipped.file.rsplit('/').next().unwrap_or(shipped.file).to_owned();
    Some(Definition::Shipped { name, text: shipped.text, span })
}
