//! What can be typed at a place.

use crate::document::Document;
use crate::hover;
use crate::words;
use durac_abi::Hook;
use durac_core::names;
use durac_core::unit::Unit;
use durac_grammar::ast::Item;
use lsp_types::{CompletionItem, CompletionItemKind};

/// What fits at a byte; the editor filters by what is typed already.
pub fn complete(document: &Document, byte: usize) -> Vec<CompletionItem> {
    let start = document.word(byte).map_or(byte as u32, |word| word.span.start);
    match document.before(start) {
        "on" => hooks(document),
        "target" => (durac_stdlib::TARGETS.iter())
            .map(|t| item(t.name, CompletionItemKind::MODULE, durac_stdlib::summary(t.text)))
            .collect(),
        "fail" | "fails" => (names::ERRNOS.iter())
            .map(|(name, _)| item(name, CompletionItemKind::CONSTANT, String::new()))
            .collect(),
        "await" => (words::WAITS.iter())
            .map(|wait| {
                let word = wait.split(' ').next().unwrap_or(wait);
                let meaning = words::meaning(word).unwrap_or("wait until fewer are not durable");
                CompletionItem {
                    insert_text: Some((*wait).to_owned()),
                    ..item(word, CompletionItemKind::KEYWORD, meaning.to_owned())
                }
            })
            .collect(),
        ":" if declares(document, start) => (Unit::NAMED.iter())
            .map(|unit| item(unit.text(), CompletionItemKind::UNIT, String::new()))
            .collect(),
        "use" => vec![item("kernel notify", CompletionItemKind::KEYWORD, String::new())],
        _ => match hook_around(document, start) {
            Some(hook) => statements(document, hook).into_iter().chain(values(document)).collect(),
            None => items(),
        },
    }
}

fn item(label: &str, kind: CompletionItemKind, detail: String) -> CompletionItem {
    CompletionItem {
        label: label.to_owned(),
        kind: Some(kind),
        detail: (!detail.is_empty()).then_some(detail),
        ..CompletionItem::default()
    }
}

fn items() -> Vec<CompletionItem> {
    let keyword = |(word, text): &(&str, &str)| CompletionItem {
        insert_text: Some((*text).to_owned()),
        ..item(word, CompletionItemKind::KEYWORD, words::meaning(word).unwrap_or("").to_owned())
    };
    words::ITEMS.iter().map(keyword).collect()
}

fn hooks(document: &Document) -> Vec<CompletionItem> {
    let Some(target) = hover::target(document) else { return Vec::new() };
    let names = target.hook_names();
    names.iter().map(|hook| item(hook, CompletionItemKind::FUNCTION, String::new())).collect()
}

/// The hook whose body a byte is in, or stands right behind.
fn hook_around(document: &Document, byte: u32) -> Option<Hook> {
    let before = |item: &&durac_grammar::Spanned<Item>| item.span.start < byte;
    let last = document.analysis.tree.items.iter().rev().find(before)?;
    let Item::On(on) = &last.node else { return None };
    // Behind the closing brace, or on a line that begins without indent, another item begins.
    let text = document.text();
    let line = text.get(..byte as usize)?.rsplit('\n').next().unwrap_or("");
    let ended = byte >= last.span.end && (on.braces || line.trim().is_empty());
    (!ended).then(|| Hook::parse(&on.hook.node)).flatten()
}

/// Whether the colon before a byte is that of a declaration.
fn declares(document: &Document, byte: u32) -> bool {
    let text = document.text();
    let line = text.get(..byte as usize).and_then(|t| t.rsplit('\n').next()).unwrap_or("");
    ["param", "state"].iter().any(|word| line.trim_start().starts_with(word))
}

fn statements(document: &Document, hook: Hook) -> Vec<CompletionItem> {
    let may = hover::target(document).and_then(|target| Some(target.hook(hook)?.may.clone()));
    let actions = may.unwrap_or_default().into_iter().map(|action| action.text());
    let others =
        words::STATEMENTS.iter().copied().filter(|word| !["await", "commit"].contains(word));
    actions
        .chain(others)
        .map(|word| {
            let detail = words::meaning(word).unwrap_or("").to_owned();
            item(word, CompletionItemKind::KEYWORD, detail)
        })
        .collect()
}

fn values(document: &Document) -> Vec<CompletionItem> {
    let readings = names::READINGS.iter().map(|(name, reading, unit)| {
        let detail = format!("{unit}: {}", names::meaning(*reading));
        item(name, CompletionItemKind::FIELD, detail)
    });
    let declared = document.declared().map(|d| {
        let text = document.sources.slice(d.item).trim().to_owned();
        item(&d.name.node, CompletionItemKind::VARIABLE, text)
    });
    readings.chain(declared).collect()
}
