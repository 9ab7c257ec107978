//! Positions in a text: a byte range in one of the loaded sources.
//!
//! Architecture invariant: text lives once, in [`Sources`]; every other type carries a [`Span`].

use std::fmt;

/// A loaded source text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u32);

/// A half-open byte range `start..end` in a source. 12 bytes, `Copy`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// The source the range is in.
    pub file: FileId,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}..{}", self.file.0, self.start, self.end)
    }
}

impl Span {
    /// The range `start..end` of `file`.
    #[must_use]
    pub fn new(file: FileId, start: u32, end: u32) -> Self {
        Self { file, start, end }
    }

    /// The smallest span that covers `self` and `other`, which are in one file.
    #[must_use]
    pub fn to(self, other: Span) -> Span {
        Span { file: self.file, start: self.start.min(other.start), end: self.end.max(other.end) }
    }

    /// The empty span at the end of this one.
    #[must_use]
    pub fn after(self) -> Span {
        Span { start: self.end, ..self }
    }
}

/// A tree node with its place in the text.
///
/// Two nodes are equal when their content is: spans do not count, so a formatted file can be
/// compared with its original.
#[derive(Clone, Copy, Debug)]
pub struct Spanned<T> {
    /// The content.
    pub node: T,
    /// Its place.
    pub span: Span,
}

impl<T: PartialEq> PartialEq for Spanned<T> {
    fn eq(&self, other: &Self) -> bool {
        self.node == other.node
    }
}

impl<T> Spanned<T> {
    /// `node` at `span`.
    #[must_use]
    pub fn new(node: T, span: Span) -> Self {
        Self { node, span }
    }
}

/// A one-based line and column; the column counts characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineColumn {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

#[derive(Clone, Debug)]
struct Source {
    name: String,
    text: String,
    line_starts: Vec<u32>,
}

/// Every text of one run: the policy files and the target files they refer to.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: Vec<Source>,
}

impl Sources {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a text under the name it is shown by.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<String>) -> FileId {
        let text = text.into();
        let line_starts =
            std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i as u32 + 1)).collect();
        let id = FileId(self.files.len() as u32);
        self.files.push(Source { name: name.into(), text, line_starts });
        id
    }

    fn get(&self, file: FileId) -> Option<&Source> {
        self.files.get(file.0 as usize)
    }

    /// Every file, in the order added.
    pub fn ids(&self) -> impl Iterator<Item = FileId> {
        (0..self.files.len() as u32).map(FileId)
    }

    /// The name a file is shown by; empty for an unknown id.
    #[must_use]
    pub fn name(&self, file: FileId) -> &str {
        self.get(file).map_or("", |s| &s.name)
    }

    /// The whole text of a file; empty for an unknown id.
    #[must_use]
    pub fn text(&self, file: FileId) -> &str {
        self.get(file).map_or("", |s| &s.text)
    }

    /// The text a span covers; empty when it is out of range.
    #[must_use]
    pub fn slice(&self, span: Span) -> &str {
        self.text(span.file).get(span.start as usize..span.end as usize).unwrap_or("")
    }

    /// Line and column of a span's first byte.
    #[must_use]
    pub fn position(&self, span: Span) -> LineColumn {
        let Some(source) = self.get(span.file) else { return LineColumn { line: 1, column: 1 } };
        let line = source.line_starts.partition_point(|&s| s <= span.start).max(1);
        let start = source.line_starts.get(line - 1).copied().unwrap_or(0) as usize;
        let before = source.text.get(start..span.start as usize).unwrap_or("");
        LineColumn { line: line as u32, column: before.chars().count() as u32 + 1 }
    }

    /// The text of a one-based line, without its line end.
    #[must_use]
    pub fn line(&self, file: FileId, line: u32) -> &str {
        self.text(file).lines().nth(line.saturating_sub(1) as usize).unwrap_or("")
    }
}
