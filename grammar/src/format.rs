//! The formatter: tree to text in the canonical layout.
//!
//! Four spaces, one statement a line, parentheses only where precedence needs them. What a reader
//! chose is kept: a hook or block on one line stays there when it fits, blank lines between groups
//! stay (at most one), comments stay before, behind or inside what they were written at.
//! [`format_checked`] parses its own output and refuses to return a text with another meaning.

mod expr;
mod line;
mod same;
mod test;

use crate::ast::{Block, File, HookDef, Ident, Item, On, Stmt, TargetDef};
use crate::diag::Diagnostic;
use crate::parser::parse;
use crate::span::{FileId, Sources, Span, Spanned};
use expr::{expression, operand};
use line::Lines;
use std::fmt::Write as _;

/// The longest line that is not broken up.
const WIDTH: usize = 100;

/// Why a file is not formatted.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// It has errors: what cannot be read is not rewritten.
    #[error("the file has errors")]
    Parse(Vec<Diagnostic>),
    /// The formatted text does not mean the same: a bug in the formatter.
    #[error("formatting would change what the file means")]
    Changed,
}

/// Parses a file, formats it, and checks that the result parses to the same tree and comments.
///
/// # Errors
///
/// If the file has errors, or if the check fails.
pub fn format_checked(sources: &Sources, file: FileId) -> Result<String, FormatError> {
    let parsed = parse(sources, file);
    if !parsed.diagnostics.is_empty() {
        return Err(FormatError::Parse(parsed.diagnostics));
    }
    let text = format(sources, file, &parsed.file);
    let mut again = Sources::new();
    let id = again.add(sources.name(file), text.as_str());
    let reparsed = parse(&again, id);
    let comments = |f: &File| f.comments.0.iter().map(|c| c.text.clone()).collect::<Vec<_>>();
    if reparsed.diagnostics.is_empty()
        && same::same(&parsed.file, &reparsed.file)
        && comments(&parsed.file) == comments(&reparsed.file)
    {
        Ok(text)
    } else {
        Err(FormatError::Changed)
    }
}

/// Formats a tree that `file` was parsed to.
///
/// The text of `file` tells which blocks stood on one line and where blank lines were; for a tree
/// that was made otherwise it may be empty.
#[must_use]
pub fn format(sources: &Sources, file: FileId, ast: &File) -> String {
    let mut formatter =
        Formatter { sources, lines: Lines::new(sources.text(file), &ast.comments.0) };
    for item in &ast.items {
        formatter.item(item);
    }
    formatter.lines.finish()
}

struct Formatter<'a> {
    sources: &'a Sources,
    lines: Lines<'a>,
}

impl Formatter<'_> {
    fn item(&mut self, item: &Spanned<Item>) {
        let span = item.span;
        match &item.node {
            Item::On(on) => return self.on(on, span),
            Item::TargetDef(def) => return self.target(def, span),
            Item::Test(test) => return self.test(test, span),
            _ => {}
        }
        let text = self.plain_item(&item.node, span);
        self.lines.line(span, &text);
    }

    fn plain_item(&self, item: &Item, span: Span) -> String {
        match item {
            Item::Policy(name) => format!("policy {}", name.node),
            Item::Target(path) => format!("target {}", path.dotted()),
            Item::Guarantee(g) => {
                let relation = match g.relation.node {
                    crate::ast::BinOp::Eq => "=",
                    other => other.text(),
                };
                let audience = g.audience.as_ref();
                let audience = audience.map(|(to, who)| format!(" {} {}", to.node, who.node));
                format!(
                    "guarantee {} {relation} {}{} on {}",
                    g.subject.node,
                    operand(self.sources, &g.bound),
                    audience.unwrap_or_default(),
                    g.failure.node
                )
            }
            Item::Param(p) => {
                let default = expression(self.sources, &p.default);
                let mut text = format!("param {}: {} = {default}", p.name.node, p.ty.node);
                if let Some((low, high)) = &p.range {
                    let low = operand(self.sources, low);
                    let high = operand(self.sources, high);
                    let _ = write!(text, " in {low}..={high}");
                }
                text
            }
            Item::State(s) => {
                let init = expression(self.sources, &s.init);
                format!("state {}: {} = {init}", s.name.node, s.ty.node)
            }
            Item::Assume(a) => {
                let bound = operand(self.sources, &a.bound);
                format!("assume {} {} {bound}", a.subject.node, a.relation.node.text())
            }
            Item::OnError(mode) => format!("on error: {}", mode.node),
            Item::Flush(within) => format!("flush within {}", expression(self.sources, within)),
            Item::Use(words) => format!("use {}", names(words, " ")),
            Item::On(_) | Item::TargetDef(_) | Item::Test(_) | Item::Error => {
                self.sources.slice(span).trim().to_owned()
            }
        }
    }

    fn on(&mut self, on: &On, span: Span) {
        let head = format!("on {}", on.hook.node);
        if self.fits_one_line(span) {
            let stmts = self.inline_stmts(&on.body);
            let text = if !on.braces {
                format!("{head}: {stmts}")
            } else if stmts.is_empty() {
                format!("{head} {{}}")
            } else {
                format!("{head} {{ {stmts} }}")
            };
            if text.len() <= WIDTH {
                return self.lines.line(span, &text);
            }
        }
        self.lines.before(Span { end: on.hook.span.end, ..span });
        self.lines.begin(span, &format!("{head} "));
        let inner = if on.braces {
            on.body.span
        } else {
            // The colon is where the brace comes.
            Span { start: on.hook.span.end, end: span.end + 1, ..span }
        };
        self.braces(&on.body, inner);
        self.lines.end(span);
    }

    /// Whether something was written on one line and holds no comment.
    fn fits_one_line(&self, span: Span) -> bool {
        !self.sources.slice(span).contains('\n') && !self.lines.comment_in(span)
    }

    // Statements.

    fn stmt(&mut self, stmt: &Spanned<Stmt>) {
        let text = self.inline_stmt(stmt);
        let short = self.fits_one_line(stmt.span) && self.lines.column() + text.len() <= WIDTH;
        if short || !has_braces(&stmt.node) {
            return self.lines.line(stmt.span, &text);
        }
        self.lines.before(Span { end: first_block_start(&stmt.node), ..stmt.span });
        self.lines.begin(stmt.span, "");
        self.compound(stmt);
        self.lines.end(stmt.span);
    }

    /// A statement with blocks, spread over lines; goes on in the line that has begun.
    fn compound(&mut self, stmt: &Spanned<Stmt>) {
        match &stmt.node {
            Stmt::If { cond, then, otherwise } => {
                self.lines.push(&format!("if {} ", expression(self.sources, cond)));
                self.body(then);
                if let Some(otherwise) = otherwise {
                    self.lines.push(" else ");
                    match otherwise.stmts.as_slice() {
                        [only] if !otherwise.braces && matches!(only.node, Stmt::If { .. }) => {
                            self.compound(only);
                        }
                        _ => self.body(otherwise),
                    }
                }
            }
            Stmt::Unless { cond, then } => {
                self.lines.push(&format!("unless {} ", expression(self.sources, cond)));
                self.body(then);
            }
            Stmt::Every { period, body } => {
                self.lines.push(&format!("every {} ", expression(self.sources, period)));
                self.body(body);
            }
            _ => {
                let text = self.inline_stmt(stmt);
                self.lines.push(&text);
            }
        }
    }

    fn body(&mut self, block: &Block) {
        if block.braces {
            self.braces(block, block.span);
        } else {
            let text = self.inline_stmts(block);
            self.lines.push(&text);
        }
    }

    /// `{`, the statements on lines of their own, `}`.
    fn braces(&mut self, block: &Block, span: Span) {
        if block.stmts.is_empty() && !self.lines.comment_in(span) {
            return self.lines.push("{}");
        }
        self.lines.open(span.start);
        for stmt in &block.stmts {
            self.stmt(stmt);
        }
        self.lines.close(span);
    }

    fn inline_stmts(&self, block: &Block) -> String {
        block.stmts.iter().map(|s| self.inline_stmt(s)).collect::<Vec<_>>().join("; ")
    }

    fn inline_block(&self, block: &Block) -> String {
        match (block.braces, self.inline_stmts(block)) {
            (false, stmts) => stmts,
            (true, stmts) if stmts.is_empty() => "{}".to_owned(),
            (true, stmts) => format!("{{ {stmts} }}"),
        }
    }

    fn inline_stmt(&self, stmt: &Spanned<Stmt>) -> String {
        let expr = |e| expression(self.sources, e);
        match &stmt.node {
            Stmt::Pass => "pass".to_owned(),
            Stmt::Defer => "defer".to_owned(),
            Stmt::Skip => "skip".to_owned(),
            Stmt::Stage => "stage".to_owned(),
            Stmt::Commit => "commit".to_owned(),
            Stmt::Fail(errno) => format!("fail {}", errno.node),
            Stmt::Hold(what) => format!("hold until {}", what.node),
            Stmt::Gather(within) => format!("gather within {}", expr(within)),
            Stmt::Await(what) => format!("await {}", expr(what)),
            Stmt::Assign(place, value) => format!("{} = {}", place.dotted(), expr(value)),
            Stmt::If { cond, then, otherwise } => {
                let mut text = format!("if {} {}", expr(cond), self.inline_block(then));
                if let Some(otherwise) = otherwise {
                    let _ = write!(text, " else {}", self.inline_block(otherwise));
                }
                text
            }
            Stmt::Unless { cond, then } => {
                format!("unless {} {}", expr(cond), self.inline_block(then))
            }
            Stmt::Every { period, body } => {
                format!("every {} {}", expr(period), self.inline_block(body))
            }
            Stmt::Error => self.sources.slice(stmt.span).trim().to_owned(),
        }
    }

    // Targets.

    fn target(&mut self, def: &TargetDef, span: Span) {
        let brace = self.lines.brace_after(span);
        self.lines.before(Span { end: brace, ..span });
        self.lines.begin(span, &format!("target {} ", def.name.dotted()));
        self.lines.open(brace);
        // Everything in the order it was written, so that comments stay where they belong.
        let mut parts: Vec<(Span, Part<'_>)> = Vec::new();
        for (word, globs) in
            [("files", &def.files), ("except", &def.except), ("protects", &def.protects)]
        {
            if let (Some(first), Some(last)) = (globs.first(), globs.last()) {
                parts.push((first.span.to(last.span), Part::Globs(word, globs)));
            }
        }
        parts.extend(def.engines.iter().map(|e| (e.span, Part::Word("engine", &e.node))));
        parts.extend(def.callers.iter().map(|c| (c.span, Part::Word("callers", &c.node))));
        parts.extend(def.records.iter().map(|r| (r.span, Part::Word("records", &r.node))));
        parts.extend(def.layouts.iter().map(|l| (l.span, Part::Word("layout", &l.node))));
        parts.extend(def.holds.iter().map(|h| (h.span, Part::Word("hold", &h.node))));
        parts.extend(def.hooks.iter().map(|h| (h.span, Part::Hook(&h.node))));
        parts.sort_by_key(|(span, _)| span.start);
        for (at, part) in parts {
            match part {
                Part::Globs(word, globs) => {
                    // The span begins at the first string; what precedes it is the word.
                    let at = self.lines.with_word(at, word);
                    self.lines.line(at, &format!("{word} {}", quoted(globs.iter())));
                }
                Part::Word(word, name) => {
                    let at = self.lines.with_word(at, word);
                    self.lines.line(at, &format!("{word} {name}"));
                }
                Part::Hook(hook) => self.hook(hook, at),
            }
        }
        self.lines.close(span);
        self.lines.end(span);
    }

    fn hook(&mut self, hook: &HookDef, span: Span) {
        let params: Vec<String> = hook
            .params
            .iter()
            .map(|p| {
                let borrowed = if p.borrowed { "borrowed " } else { "" };
                format!("{}: {borrowed}{}", p.name.node, p.ty.node)
            })
            .collect();
        let mut head = format!("hook {}({})", hook.name.node, params.join(", "));
        if let Some(result) = &hook.result {
            let _ = write!(head, " -> {}", result.node);
        }
        let brace = self.lines.brace_after(span);
        self.lines.before(Span { end: brace, ..span });
        self.lines.begin(span, &format!("{head} "));
        if hook.entries.is_empty() && hook.may.is_empty() && !self.lines.comment_in(span) {
            self.lines.push("{}");
            return self.lines.end(span);
        }
        self.lines.open(brace);
        let mut parts: Vec<(Span, String)> = Vec::new();
        // Symbols written behind one `entry` share the kind, span and all.
        for group in hook.entries.chunk_by(|a, b| a.kind == b.kind && a.kind.span == b.kind.span) {
            if let (Some(first), Some(last)) = (group.first(), group.last()) {
                let span = self.lines.with_word(first.kind.span.to(last.symbol.span), "entry");
                let symbols = quoted(group.iter().map(|e| &e.symbol));
                parts.push((span, format!("entry {} {symbols}", first.kind.node)));
            }
        }
        if !hook.may.is_empty() {
            parts.push((hook.may_span, format!("may {}", names(&hook.may, ", "))));
        }
        parts.sort_by_key(|(span, _)| span.start);
        for (at, text) in parts {
            self.lines.line(at, &text);
        }
        self.lines.close(span);
        self.lines.end(span);
    }
}

/// A part of a target's definition.
enum Part<'a> {
    Globs(&'static str, &'a [Spanned<String>]),
    Word(&'static str, &'a str),
    Hook(&'a HookDef),
}

fn names(words: &[Ident], separator: &str) -> String {
    words.iter().map(|w| w.node.as_str()).collect::<Vec<_>>().join(separator)
}

fn quoted<'a>(strings: impl Iterator<Item = &'a Spanned<String>>) -> String {
    strings.map(|s| format!("\"{}\"", s.node)).collect::<Vec<_>>().join(", ")
}

/// Whether a statement has a block in braces, directly or in its `else` chain.
fn has_braces(stmt: &Stmt) -> bool {
    match stmt {
        Stmt::If { then, otherwise, .. } => {
            then.braces
                || otherwise
                    .as_ref()
                    .is_some_and(|o| o.braces || o.stmts.iter().any(|s| has_braces(&s.node)))
        }
        Stmt::Unless { then: block, .. } | Stmt::Every { body: block, .. } => block.braces,
        _ => false,
    }
}

fn first_block_start(stmt: &Stmt) -> u32 {
    match stmt {
        Stmt::If { then: block, .. }
        | Stmt::Unless { then: block, .. }
        | Stmt::Every { body: block, .. } => block.span.start,
        _ => 0,
    }
}
