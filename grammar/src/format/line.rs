//! Lines with their indentation, blank lines and comments: where the formatter's output goes.

use crate::ast::Comment;
use crate::span::Span;

/// The output under construction, and the comments that are still to come.
pub(super) struct Lines<'a> {
    /// The original text: blank lines and ends of lines are read from it.
    text: &'a str,
    comments: &'a [Comment],
    out: String,
    indent: usize,
    /// The current block is empty so far, so a blank line would be its first.
    fresh: bool,
}

impl<'a> Lines<'a> {
    pub fn new(text: &'a str, comments: &'a [Comment]) -> Self {
        Self { text, comments, out: String::new(), indent: 0, fresh: true }
    }

    /// The whole output, with the comments behind the last item.
    pub fn finish(mut self) -> String {
        self.comments_before(u32::MAX);
        if !self.out.is_empty() {
            self.out.push('\n');
        }
        self.out
    }

    /// The column where the next line begins.
    pub fn column(&self) -> usize {
        self.indent * 4
    }

    /// Something that takes one line, with its comments.
    pub fn line(&mut self, span: Span, text: &str) {
        self.before(span);
        self.begin(span, text);
        self.end(span);
    }

    /// Puts the comments that begin before the end of `span` on lines of their own. Those inside
    /// something that takes one line find no better place than before it.
    pub fn before(&mut self, span: Span) {
        self.comments_before(span.end);
    }

    /// Begins the line of something at `span`.
    pub fn begin(&mut self, span: Span, text: &str) {
        self.new_line(span.start);
        self.out.push_str(text);
    }

    /// Adds to the line that has begun.
    pub fn push(&mut self, text: &str) {
        self.out.push_str(text);
    }

    /// Ends the line of something at `span`: a comment behind it stays behind it.
    pub fn end(&mut self, span: Span) {
        self.comment_behind(span.end);
    }

    /// The `{` at `at`, with a comment behind it.
    pub fn open(&mut self, at: u32) {
        self.out.push('{');
        self.indent += 1;
        self.fresh = true;
        self.comment_behind(at + 1);
    }

    /// The comments that are left in the block at `span`, and its `}`.
    pub fn close(&mut self, span: Span) {
        self.comments_before(span.end.saturating_sub(1));
        self.indent = self.indent.saturating_sub(1);
        self.fresh = true;
        self.new_line(0);
        self.out.push('}');
    }

    /// Whether a comment that is still to come begins in `span`.
    pub fn comment_in(&self, span: Span) -> bool {
        // Comments are sorted; the ones before the span may still wait for their line.
        let from = self.comments.partition_point(|c| c.span.start < span.start);
        self.comments.get(from).is_some_and(|c| c.span.start < span.end)
    }

    /// Position of the first `{` in `span` that is not in a comment.
    pub fn brace_after(&self, span: Span) -> u32 {
        let text = self.text.get(span.start as usize..span.end as usize).unwrap_or_default();
        text.match_indices('{')
            .map(|(at, _)| span.start + at as u32)
            .find(|at| !self.comments.iter().any(|c| c.span.start <= *at && *at < c.span.end))
            .unwrap_or(span.start)
    }

    /// `span` with the `word` before it.
    pub fn with_word(&self, span: Span, word: &str) -> Span {
        let before = self.text.get(..span.start as usize).unwrap_or_default();
        match before.trim_end().strip_suffix(word) {
            Some(rest) => Span { start: rest.len() as u32, ..span },
            None => span,
        }
    }

    fn new_line(&mut self, at: u32) {
        if !self.out.is_empty() {
            self.out.push('\n');
        }
        if !self.fresh && self.blank_before(at) {
            self.out.push('\n');
        }
        self.fresh = false;
        self.out.push_str(&"    ".repeat(self.indent));
    }

    fn blank_before(&self, at: u32) -> bool {
        let before = self.text.get(..at as usize).unwrap_or_default();
        let space = before.get(before.trim_end().len()..).unwrap_or_default();
        space.matches('\n').count() >= 2
    }

    fn comments_before(&mut self, end: u32) {
        while let Some((comment, rest)) = self.comments.split_first() {
            if comment.span.start >= end {
                break;
            }
            self.comments = rest;
            self.new_line(comment.span.start);
            self.out.push_str(&comment.text);
        }
    }

    /// The comment behind `end` on the same line, if any.
    fn comment_behind(&mut self, end: u32) {
        let Some((comment, rest)) = self.comments.split_first() else { return };
        let between = self.text.get(end as usize..comment.span.start as usize);
        if between.is_some_and(|t| t.chars().all(|c| matches!(c, ' ' | '\t' | '\r' | ';' | ','))) {
            self.comments = rest;
            self.out.push_str("  ");
            self.out.push_str(&comment.text);
        }
    }
}
