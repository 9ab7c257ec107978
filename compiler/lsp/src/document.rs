//! One open text: what `durac check` finds without a proof, and where its names are.

use durac_core::Analysis;
use durac_core::hir::Policy;
use durac_driver::Options;
use durac_grammar::ast::Item;
use durac_grammar::{FileId, Sources, Span, Spanned, Token};

/// A text with its analysis.
#[derive(Debug)]
pub struct Document {
    /// Counts the changes, as the editor does.
    pub version: i32,
    /// The name of a policy that gives none.
    pub stem: String,
    /// The text, and the targets it uses.
    pub sources: Sources,
    /// The text in them.
    pub file: FileId,
    /// What was found, without the proof.
    pub analysis: Analysis,
    /// Every token, comments included.
    pub tokens: Vec<Spanned<Token>>,
}

/// What stands at a place of the text.
#[derive(Debug)]
pub struct Word<'a> {
    /// A name with its dots, or a reserved word.
    pub text: &'a str,
    /// Its place.
    pub span: Span,
    /// The text of the token before it; empty at the begin of the file.
    pub before: &'a str,
}

/// A name that the text declares.
#[derive(Debug)]
pub struct Declared<'a> {
    /// `param` or `state`.
    pub kind: &'static str,
    /// The name.
    pub name: &'a Spanned<String>,
    /// The whole item.
    pub item: Span,
}

impl Document {
    /// Analyses a text. The name is the file's, for a policy that gives none.
    #[must_use]
    pub fn new(name: &str, text: &str, version: i32) -> Self {
        let file_name = name.rsplit('/').next().unwrap_or(name);
        let stem = file_name.strip_suffix(".dur").unwrap_or(file_name).to_owned();
        let mut sources = Sources::new();
        let file = sources.add(name, text);
        let analysis = durac_core::analyse(&mut sources, file, &Options::new(&stem).analysis());
        let tokens = durac_grammar::lex(&sources, file);
        Self { version, stem, sources, file, analysis, tokens }
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        self.sources.text(self.file)
    }

    /// The policy, if nothing is wrong with it.
    #[must_use]
    pub fn policy(&self) -> Option<&Policy> {
        self.analysis.policy.as_ref()
    }

    /// The parameters and state variables, whatever else is wrong.
    pub fn declared(&self) -> impl Iterator<Item = Declared<'_>> {
        self.analysis.tree.items.iter().filter_map(|item| match &item.node {
            Item::Param(param) => {
                Some(Declared { kind: "param", name: &param.name, item: item.span })
            }
            Item::State(state) => {
                Some(Declared { kind: "state", name: &state.name, item: item.span })
            }
            _ => None,
        })
    }

    /// The target that the text names, or the one it has if it names none.
    #[must_use]
    pub fn target_name(&self) -> String {
        let named = self.analysis.tree.items.iter().find_map(|item| match &item.node {
            Item::Target(path) => Some(path.dotted()),
            _ => None,
        });
        named.unwrap_or_else(|| durac_stdlib::DEFAULT_TARGET.to_owned())
    }

    fn is_word(&self, at: usize) -> bool {
        (self.tokens.get(at)).is_some_and(|t| matches!(t.node, Token::Ident(_)) || t.node.is_word())
    }

    fn is_dot(&self, at: usize) -> bool {
        self.tokens.get(at).is_some_and(|t| t.node == Token::Dot)
    }

    /// The name, with all its dots, or the word that covers a byte or ends there.
    #[must_use]
    pub fn word(&self, byte: usize) -> Option<Word<'_>> {
        let byte = byte as u32;
        let covers = |t: &Spanned<Token>| t.span.start <= byte && byte <= t.span.end;
        let mut first = (0..self.tokens.len())
            .find(|&at| self.is_word(at) && self.tokens.get(at).is_some_and(covers))?;
        let mut last = first;
        while first >= 2 && self.is_dot(first - 1) && self.is_word(first - 2) {
            first -= 2;
        }
        while self.is_dot(last + 1) && self.is_word(last + 2) {
            last += 2;
        }
        let span = self.tokens.get(first)?.span.to(self.tokens.get(last)?.span);
        Some(Word { text: self.sources.slice(span), span, before: self.before(span.start) })
    }

    /// The text of the last token that ends at or before a byte, comments aside.
    #[must_use]
    pub fn before(&self, byte: u32) -> &str {
        let ends = |t: &&Spanned<Token>| t.span.end <= byte && !matches!(t.node, Token::Comment(_));
        self.tokens.iter().rev().find(ends).map_or("", |t| self.sources.slice(t.span))
    }
}
