//! What the grammar's actions call to build the tree, and the checks that need two neighbours.

use crate::ast::{
    BinOp, Block, Entry, Expr, HookDef, HookParam, Ident, Item, On, Path, Stmt, TargetDef, Test,
    UnitWord,
};
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::span::{FileId, Span, Spanned};
use crate::suggest::nearest;
use crate::token::Token;
use std::collections::BTreeMap;

/// The words that begin a statement, for "did you mean".
pub(crate) const STATEMENTS: [&str; 12] = [
    "await", "defer", "skip", "pass", "stage", "commit", "fail", "hold", "gather", "if", "unless",
    "every",
];

/// The words that begin an item of a file.
pub(crate) const ITEMS: [&str; 9] =
    ["on", "policy", "target", "guarantee", "assume", "param", "state", "flush", "use"];

/// The label of a name where a statement belongs; it marks what follows from that error.
pub(crate) const BARE: &str = "expected a statement";

/// The label of a declaration without its type; it follows from another error of the line.
pub(crate) const NO_TYPE: &str = "expected `:` and a type";

/// How many operators may follow one another without parentheses. The tree leans to the left, so
/// this bounds its depth, and with it the stack of everything that walks it.
const LONGEST_CHAIN: u32 = 200;

/// A broken place as lalrpop reports it.
pub(crate) type Recovery = lalrpop_util::ErrorRecovery<u32, Token, ()>;

/// A statement, or a word where a statement should be.
#[derive(Debug)]
pub(crate) enum Raw {
    /// A statement.
    Stmt(Stmt),
    /// A name alone.
    Bare(Path),
}

/// An expression under construction.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// The expression.
    pub node: Spanned<Expr>,
    /// The height of its tree.
    depth: u32,
}

/// A part of a target's definition.
#[derive(Debug)]
pub(crate) enum TargetPart {
    /// `files "a"`
    Files(Vec<Spanned<String>>),
    /// `except "b"`
    Except(Vec<Spanned<String>>),
    /// `engine io_uring`
    Engine(Ident),
    /// `callers one`
    Callers(Ident),
    /// `records resp`
    Records(Ident),
    /// `layout ring`
    Layout(Ident),
    /// `protects "*.db"`
    Protects(Vec<Spanned<String>>),
    /// `hold replicas`
    Hold(Ident),
    /// `hook …`
    Hook(Spanned<HookDef>),
    /// What could not be parsed.
    Error,
}

/// A part of a hook's definition.
#[derive(Debug)]
pub(crate) enum HookPart {
    /// `entry libc "write"`
    Entries(Vec<Entry>),
    /// `may pass`
    May(Vec<Ident>),
    /// What could not be parsed.
    Error,
}

/// A target from its parts.
pub(crate) fn target(name: Path, parts: Vec<TargetPart>) -> TargetDef {
    let mut def = TargetDef {
        name,
        files: Vec::new(),
        except: Vec::new(),
        engines: Vec::new(),
        callers: Vec::new(),
        records: Vec::new(),
        layouts: Vec::new(),
        protects: Vec::new(),
        holds: Vec::new(),
        hooks: Vec::new(),
    };
    for part in parts {
        match part {
            TargetPart::Files(globs) => def.files.extend(globs),
            TargetPart::Except(globs) => def.except.extend(globs),
            TargetPart::Engine(name) => def.engines.push(name),
            TargetPart::Callers(name) => def.callers.push(name),
            TargetPart::Records(name) => def.records.push(name),
            TargetPart::Layout(name) => def.layouts.push(name),
            TargetPart::Protects(globs) => def.protects.extend(globs),
            TargetPart::Hold(name) => def.holds.push(name),
            TargetPart::Hook(hook) => def.hooks.push(hook),
            TargetPart::Error => {}
        }
    }
    def
}

/// A hook's definition from its parts; `end` is where a `may` would stand if there is none.
pub(crate) fn hook(
    name: Ident,
    params: Vec<HookParam>,
    result: Option<Ident>,
    parts: Vec<Spanned<HookPart>>,
    end: Span,
) -> HookDef {
    let mut def =
        HookDef { name, params, result, entries: Vec::new(), may: Vec::new(), may_span: end };
    for part in parts {
        match part.node {
            HookPart::Entries(entries) => def.entries.extend(entries),
            HookPart::May(words) => {
                def.may_span =
                    if def.may.is_empty() { part.span } else { def.may_span.to(part.span) };
                def.may.extend(words);
            }
            HookPart::Error => {}
        }
    }
    def
}

/// What the grammar's actions share: where they are and what they found.
pub(crate) struct Builder<'s> {
    file: FileId,
    text: &'s str,
    /// Findings of the actions.
    pub diagnostics: Vec<Diagnostic>,
    /// Broken places, to be put in words.
    pub recovered: Vec<Recovery>,
    /// Blocks that belong to nothing, whose errors are follow-ups.
    pub skipped: Vec<Span>,
    /// The tests of the file, by where they begin.
    pub tests: BTreeMap<u32, Test>,
    /// An expression with too many operators has been reported.
    too_long: bool,
}

impl<'s> Builder<'s> {
    pub fn new(file: FileId, text: &'s str) -> Self {
        Self {
            file,
            text,
            diagnostics: Vec::new(),
            recovered: Vec::new(),
            skipped: Vec::new(),
            tests: BTreeMap::new(),
            too_long: false,
        }
    }

    fn span(&self, l: u32, r: u32) -> Span {
        // An empty production lies between two tokens, and its ends may cross.
        Span::new(self.file, l.min(r), r)
    }

    pub fn point(&self, l: u32) -> Span {
        Span::new(self.file, l, l)
    }

    pub fn spanned<T>(&self, l: u32, node: T, r: u32) -> Spanned<T> {
        Spanned::new(node, self.span(l, r))
    }

    pub fn recover(&mut self, recovery: Recovery) {
        self.recovered.push(recovery);
    }

    /// Something broken, perhaps with a block that belongs to it.
    pub fn junk(&mut self, recovery: Recovery, block: Option<Block>) {
        self.recovered.push(recovery);
        self.skipped.extend(block.map(|b| b.span));
    }

    /// The test that begins at `l`.
    pub fn test(&mut self, l: u32) -> Item {
        self.tests.remove(&l).map_or(Item::Error, Item::Test)
    }

    // Statements.

    /// The statements of a block or line; says what is wrong between them.
    fn statements(&mut self, raws: Vec<Spanned<Raw>>) -> Vec<Spanned<Stmt>> {
        let mut stmts: Vec<Spanned<Stmt>> = Vec::with_capacity(raws.len());
        for Spanned { node, span } in raws {
            // A broken statement may only look like two.
            let whole = !matches!(node, Raw::Stmt(Stmt::Error) | Raw::Bare(_));
            if let Some(last) = stmts.last()
                && whole
                && last.node != Stmt::Error
            {
                self.separator(last.span, span);
            }
            let stmt = match node {
                Raw::Stmt(stmt) => stmt,
                Raw::Bare(path) => {
                    self.bare(&path, span);
                    Stmt::Error
                }
            };
            stmts.push(Spanned::new(stmt, span));
        }
        stmts
    }

    fn separator(&mut self, before: Span, after: Span) {
        let between = self.text.get(before.end as usize..after.start as usize).unwrap_or_default();
        if between.contains(['\n', ';']) {
            return;
        }
        let rest = self.text.get(after.start as usize..after.end as usize).unwrap_or_default();
        let line = rest.split(['\n', '{', ';']).next().unwrap_or_default().trim_end();
        let place = self.span(after.start, after.start + line.len() as u32);
        self.diagnostics.push(
            Diagnostic::new(
                Code::MissingSeparator,
                "two statements on a line without `;`",
                place,
                "a second statement begins here",
            )
            .help("put `;` or a new line before it")
            .fix(self.span(before.end, before.end), ";"),
        );
    }

    fn bare(&mut self, path: &Path, span: Span) {
        let name = path.dotted();
        let mut diagnostic = Diagnostic::new(
            Code::Unexpected,
            format!("`{}` is not a statement", crate::lexer::shorten(&name)),
            span,
            BARE,
        );
        let behind = self.text.get(span.end as usize..).unwrap_or_default().trim_start();
        diagnostic.help = Some(match nearest(&name, STATEMENTS) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None if behind.starts_with("+=") || behind.starts_with("++") => {
                format!("write `{name} = {name} + …`")
            }
            None if behind.starts_with("-=") || behind.starts_with("--") => {
                format!("write `{name} = {name} - …`")
            }
            None if behind.starts_with(":=") => format!("write `{name} = …`"),
            None => match name.as_str() {
                "byte" | "call" | "write" => format!("write the unit as `{name}s`"),
                "return" | "ok" | "success" | "ignore" | "none" | "nothing" => {
                    "to report success without making the call, write `skip`; to make the call, write `pass`"
                        .to_owned()
                }
                "wait" | "sync" | "fsync" | "fdatasync" => {
                    "to wait for syncs, write `await previous` or `await all`".to_owned()
                }
                "let" | "var" | "set" => "write `name = value`, and declare `name` with `state`".to_owned(),
                "while" | "for" | "loop" => "there are no loops, so that every hook call ends".to_owned(),
                "delay" | "postpone" | "later" | "async" | "background" => {
                    "to report success now and sync in the background, write `defer`; `flush within 50ms` in a \
                     line of its own says by when at the latest"
                        .to_owned()
                }
                "allow" | "accept" | "permit" | "proceed" | "continue" => {
                    "to make the call as the application made it, write `pass`".to_owned()
                }
                "deny" | "forbid" | "reject" | "error" | "abort" | "throw" | "raise" | "kill" => {
                    "to fail the call, write `fail EIO`".to_owned()
                }
                "sleep" | "usleep" | "pause" | "nap" => {
                    "a call waits for syncs, not for time: `await previous`, `await all`, `await pending < 16`"
                        .to_owned()
                }
                "end" | "fi" | "done" | "endif" => {
                    "a block begins with `{` and ends with `}`".to_owned()
                }
                "switch" | "case" | "match" => "write `if … { … } else if … { … }`".to_owned(),
                "print" | "printf" | "log" | "trace" | "echo" => {
                    "a policy prints nothing; `durac top` and `durac record` show what it does".to_owned()
                }
                "drop" => "to do nothing and report success, write `skip`".to_owned(),
                "batch" | "buffer" | "queue" | "copy" => "to keep the data for later, write `stage`".to_owned(),
                _ => "statements are `await`, `defer`, `skip`, `pass`, `stage`, `commit`, `fail`, `hold`, `gather`, `if`, `unless`, `every` and `name = value`".to_owned(),
            },
        });
        self.diagnostics.push(diagnostic);
    }

    pub fn block(&mut self, l: u32, raws: Vec<Spanned<Raw>>, braces: bool, r: u32) -> Block {
        let stmts = self.statements(raws);
        Block { stmts, span: self.span(l, r), braces }
    }

    /// `on hook: …`; for `on error` the one word is a mode.
    pub fn line_hook(&mut self, hook: Ident, raws: Vec<Spanned<Raw>>) -> Item {
        if hook.node == "error"
            && let [Spanned { node, span }] = raws.as_slice()
            && let Some(mode) = mode_word(node)
        {
            return Item::OnError(Spanned::new(mode, *span));
        }
        let span = match (raws.first(), raws.last()) {
            (Some(first), Some(last)) => first.span.to(last.span),
            _ => hook.span.after(),
        };
        let stmts = self.statements(raws);
        Item::On(On { hook, braces: false, body: Block { stmts, span, braces: false } })
    }

    /// `on error: fail`
    pub fn line_fail(&mut self, hook: Ident, l: u32, r: u32) -> Item {
        let span = self.span(l, r);
        if hook.node == "error" {
            return Item::OnError(Spanned::new("fail".to_owned(), span));
        }
        self.diagnostics.push(
            Diagnostic::new(
                Code::Unexpected,
                "`fail` needs an error name",
                span,
                "expected an error name after it",
            )
            .help("for example, `fail EIO`"),
        );
        let body = Block { stmts: vec![Spanned::new(Stmt::Error, span)], span, braces: false };
        Item::On(On { hook, braces: false, body })
    }

    fn slip(&mut self, l: u32, r: u32, message: &str, label: &str, help: &str) {
        let span = self.span(l, r);
        self.diagnostics.push(Diagnostic::new(Code::Unexpected, message, span, label).help(help));
    }

    /// As [`Self::slip`], with the text that was meant.
    fn mended(&mut self, l: u32, r: u32, message: &str, label: &str, help: &str, meant: &str) {
        self.slip(l, r, message, label, help);
        let span = self.span(l, r);
        if let Some(last) = self.diagnostics.pop() {
            self.diagnostics.push(last.fix(span, meant));
        }
    }

    pub fn unless_else(&mut self, l: u32, r: u32) {
        self.slip(
            l,
            r,
            "`unless` has no `else`",
            "does not belong to an `if`",
            "write an `if` with the branches swapped",
        );
    }

    /// `param n = 64`: a type that agrees with everything, so that nothing else is reported.
    pub fn no_type(&mut self, item: &str, name: &Ident, value: &Chunk, l: u32) -> Ident {
        let end = name.span.after();
        let (ty, range) = match value.node.node {
            Expr::Bool(_) => ("bool", ""),
            Expr::Number { unit: Some(unit), .. } if unit.is_time() => ("duration", ""),
            Expr::Number { unit: Some(_), .. } => ("bytes", ""),
            _ => ("syncs", ", or `count` for a plain number"),
        };
        self.diagnostics.push(
            Diagnostic::new(Code::Unexpected, format!("`{}` has no type", name.node), end, NO_TYPE)
                .help(format!("write `{item} {}: {ty} = …`{range}", name.node))
                .perhaps(end, format!(": {ty}")),
        );
        Spanned::new(String::new(), self.point(l))
    }

    /// `param n: syncs in 1..=64`
    pub fn no_default(&mut self, range: &(Spanned<Expr>, Spanned<Expr>), l: u32) -> Spanned<Expr> {
        let place = self.point(l);
        let low = self.text.get(range.0.span.start as usize..range.0.span.end as usize);
        let low = low.unwrap_or_default();
        self.diagnostics.push(
            Diagnostic::new(
                Code::Unexpected,
                "the parameter has no initial value",
                place,
                "expected `=` and a value",
            )
            .help(format!("write the value that it has at first before the range: `= {low} in …`"))
            .perhaps(place, format!("= {low} ")),
        );
        Spanned::new(Expr::Error, place)
    }

    pub fn compares(&mut self, l: u32, r: u32) {
        self.mended(
            l,
            r,
            "the result of this comparison is not used",
            "expected `=`",
            "to assign, write one `=`",
            "=",
        );
    }

    pub fn half_open(&mut self, l: u32, r: u32) {
        self.slip(
            l,
            r,
            "there are no exclusive ranges; use `..=`",
            "expected `..=`",
            "write `low..=high`",
        );
    }

    // Expressions.

    pub fn atom(&mut self, l: u32, expr: Expr, r: u32) -> Chunk {
        Chunk { node: self.spanned(l, expr, r), depth: 1 }
    }

    pub fn parens(&mut self, l: u32, inner: Chunk, r: u32) -> Chunk {
        Chunk { node: self.spanned(l, inner.node.node, r), depth: inner.depth }
    }

    pub fn not(&mut self, l: u32, inner: Chunk, r: u32) -> Chunk {
        let depth = inner.depth + 1;
        Chunk { node: self.spanned(l, Expr::Not(Box::new(inner.node)), r), depth }
    }

    pub fn measure(&mut self, inner: Chunk, unit: Spanned<UnitWord>) -> Chunk {
        let span = inner.node.span.to(unit.span);
        let depth = inner.depth + 1;
        Chunk { node: Spanned::new(Expr::Unit(Box::new(inner.node), unit), span), depth }
    }

    pub fn binary(&mut self, l: Chunk, op: Spanned<BinOp>, r: Chunk) -> Chunk {
        let depth = l.depth.max(r.depth) + 1;
        let span = l.node.span.to(r.node.span);
        if depth > LONGEST_CHAIN && self.too_long {
            return Chunk { node: Spanned::new(Expr::Error, span), depth: 1 };
        }
        if depth > LONGEST_CHAIN {
            self.too_long = true;
            self.diagnostics.push(
                Diagnostic::new(
                    Code::TooDeep,
                    format!("the expression has more than {LONGEST_CHAIN} operators"),
                    op.span,
                    "this operator is over the limit",
                )
                .help("move parts of it to `state` variables"),
            );
            return Chunk { node: Spanned::new(Expr::Error, span), depth: 1 };
        }
        let expr = Expr::Binary(Box::new(l.node), op, Box::new(r.node));
        Chunk { node: Spanned::new(expr, span), depth }
    }

    /// `a < b < c`: keeps the first comparison, so that a long chain builds no deep tree.
    pub fn chain(&mut self, l: Chunk, op: Spanned<BinOp>, r: Chunk, first: bool) -> Chunk {
        let broken = |c: &Chunk| match &c.node.node {
            Expr::Error => true,
            Expr::Binary(a, _, b) => a.node == Expr::Error || b.node == Expr::Error,
            _ => false,
        };
        let explained = self.diagnostics.last().is_some_and(|d| d.primary.span == op.span);
        if first && !explained && !broken(&l) && !broken(&r) {
            self.diagnostics.push(
                Diagnostic::new(
                    Code::ChainedComparison,
                    "comparisons cannot be chained",
                    op.span,
                    "a second comparison in the same expression",
                )
                .help("compare twice: `a < b && b < c`"),
            );
        }
        let span = l.node.span.to(r.node.span);
        Chunk { node: Spanned::new(l.node.node, span), depth: l.depth }
    }

    /// `=` where a comparison is meant.
    pub fn assigns(&mut self, l: u32, r: u32) -> Spanned<BinOp> {
        let before = self.text.get(..l as usize).unwrap_or_default().trim_end();
        if before.ends_with(['=', '<', '>', '!']) {
            // `===`, `< =`: the parser has stumbled over it already.
            return self.spanned(l, BinOp::Eq, r);
        }
        self.mended(
            l,
            r,
            "unexpected assignment in an expression",
            "expected an operator",
            "to compare, write `==`",
            "==",
        );
        self.spanned(l, BinOp::Eq, r)
    }
}

/// The mode of `on error` that a lone word gives.
fn mode_word(raw: &Raw) -> Option<String> {
    match raw {
        Raw::Bare(path) => Some(path.dotted()),
        Raw::Stmt(Stmt::Pass) => Some("pass".to_owned()),
        Raw::Stmt(Stmt::Defer) => Some("defer".to_owned()),
        Raw::Stmt(Stmt::Skip) => Some("skip".to_owned()),
        Raw::Stmt(Stmt::Stage) => Some("stage".to_owned()),
        Raw::Stmt(Stmt::Commit) => Some("commit".to_owned()),
        Raw::Stmt(_) => None,
    }
}
