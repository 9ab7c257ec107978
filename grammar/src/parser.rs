//! Runs the stages of parsing: lex, cut out the tests, repair, parse, put errors in words, sort.

use crate::Parsed;
use crate::ast::{Comments, File, Item};
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::grammar::FileParser;
use crate::lexer::{self, Lexed};
use crate::repair;
use crate::span::{FileId, Sources, Span, Spanned};
use crate::steps::{self, Cut};
use crate::tree::{self, Builder};
use crate::unexpected;
use lalrpop_util::ErrorRecovery;
use std::collections::BTreeSet;

/// The largest source that is parsed: 1 MiB. A policy is a page of text.
pub const MAX_SOURCE_BYTES: usize = 1 << 20;

/// How many diagnostics one file gets; more are of no use if the file is not a policy.
pub const MOST_DIAGNOSTICS: usize = 500;

/// Parses a file.
///
/// Never fails: the tree has holes where the text was wrong, and the diagnostics say why.
#[must_use]
pub fn parse(sources: &Sources, file: FileId) -> Parsed {
    let text = sources.text(file);
    if text.len() > MAX_SOURCE_BYTES {
        let diagnostic = Diagnostic::new(
            Code::TooLarge,
            format!("the file has {} bytes; the limit is {MAX_SOURCE_BYTES}", text.len()),
            Span::new(file, 0, 0),
            "not read any further",
        );
        return nothing(Vec::new(), vec![diagnostic]);
    }
    let Lexed { tokens, comments, mut diagnostics } = lexer::tokens(sources, file);
    if let Some(too_deep) = repair::depth(&tokens) {
        diagnostics.push(too_deep);
        return nothing(comments, finish(text, diagnostics, Vec::new()));
    }
    let Cut { tokens, tests, diagnostics: found } = steps::cut(sources, file, tokens);
    diagnostics.extend(found);
    let (tokens, repairs) = repair::repair(sources, tokens);
    diagnostics.extend(repairs);

    let mut builder = Builder::new(file, text);
    builder.tests = tests;
    let stream = tokens.iter().map(|t| Ok((t.span.start, t.node.clone(), t.span.end)));
    let items = match FileParser::new().parse(&mut builder, stream) {
        Ok(items) => items,
        Err(error) => {
            builder.recovered.push(ErrorRecovery { error, dropped_tokens: Vec::new() });
            vec![Spanned::new(Item::Error, Span::new(file, 0, text.len() as u32))]
        }
    };
    diagnostics.extend(builder.diagnostics);
    let skipped = builder.skipped;
    diagnostics.retain(|d| {
        // What is in a block that belongs to nothing is not worth a word.
        !skipped.iter().any(|s| inside(d.primary.span, *s))
    });
    let unexpected = builder
        .recovered
        .into_iter()
        .filter_map(|r| unexpected::explain(sources, file, &tokens, r.error))
        .filter(|d| !skipped.iter().any(|s| inside(d.primary.span, *s)))
        .collect();
    let diagnostics = finish(text, diagnostics, unexpected);
    Parsed { file: File { items, comments: Comments(comments) }, diagnostics }
}

fn inside(inner: Span, outer: Span) -> bool {
    outer.start < inner.start && inner.end <= outer.end
}

fn nothing(comments: Vec<crate::ast::Comment>, diagnostics: Vec<Diagnostic>) -> Parsed {
    Parsed { file: File { items: Vec::new(), comments: Comments(comments) }, diagnostics }
}

/// Drops what follows from an earlier error, and sorts.
///
/// A grammar error is a follow-up when another error precedes it in the same statement, that
/// is with no line end, `;` or brace between them. A missing separator is one when anything else is
/// wrong on its line.
fn finish(text: &str, found: Vec<Diagnostic>, unexpected: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let mut all: Vec<(Diagnostic, bool)> = found
        .into_iter()
        .map(|d| {
            let may_follow = is_bare(&d) || is_closing_bracket(&d, text);
            (d, may_follow)
        })
        .chain(unexpected.into_iter().map(|d| (d, true)))
        .collect();
    all.sort_by_key(|(d, may_follow)| (d.primary.span.start, *may_follow, d.code));

    // Where statements end at the latest, so that each question is a binary search: a file may be
    // one line of a hundred thousand errors.
    let ends: Vec<u32> = text
        .bytes()
        .zip(0..)
        .filter(|(b, _)| matches!(b, b'\n' | b';' | b'{' | b'}'))
        .map(|(_, at)| at)
        .collect();
    let mut kept: Vec<Diagnostic> = Vec::new();
    for (diagnostic, may_follow) in all {
        let start = diagnostic.primary.span.start;
        let follows = may_follow
            && kept.last().is_some_and(|before| {
                let from = before.primary.span.start;
                let next_end = ends.get(ends.partition_point(|e| *e < from));
                next_end.is_none_or(|end| *end >= start)
            });
        if !follows {
            kept.push(diagnostic);
        }
    }
    let lines: Vec<u32> = text.match_indices('\n').map(|(at, _)| at as u32).collect();
    let line = |d: &Diagnostic| lines.partition_point(|l| *l < d.primary.span.start);
    let broken: BTreeSet<usize> =
        kept.iter().filter(|d| d.code != Code::MissingSeparator).map(line).collect();
    kept.retain(|d| d.code != Code::MissingSeparator || !broken.contains(&line(d)));
    // One more, so that who shows them knows that some are left out.
    kept.truncate(MOST_DIAGNOSTICS + 1);
    kept
}

fn is_bare(diagnostic: &Diagnostic) -> bool {
    diagnostic.code == Code::Unexpected
        && [tree::BARE, tree::NO_TYPE].contains(&diagnostic.primary.text.as_str())
}

/// `]`, whose `[` has been reported.
fn is_closing_bracket(diagnostic: &Diagnostic, text: &str) -> bool {
    let Span { start, end, .. } = diagnostic.primary.span;
    diagnostic.code == Code::BadCharacter && text.get(start as usize..end as usize) == Some("]")
}
