//! Text to tokens.
//!
//! The lexer never fails: what begins no token becomes [`Token::Error`] with a diagnostic beside
//! it, and what is nearly a token (a number with a wrong suffix, a string without its end) becomes
//! that token, so that the parser does not complain a second time.

use crate::ast::{Comment, LARGEST, Suffix};
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::span::{FileId, Sources, Span, Spanned};
use crate::suggest::nearest;
use crate::token::{Number, Token};
use logos::Logos;

/// What is wrong with a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LexError {
    /// No token begins so.
    #[default]
    Character,
    /// The digits do not fit 63 bits.
    NumberTooLarge,
    /// `# comment`, `/* comment */`
    Comment,
    /// `1.5`
    Fraction,
    /// The suffix is unknown; the digits are kept.
    Suffix(u64),
    /// The closing quote is missing; the content is kept.
    Unterminated(String),
}

/// A file's tokens with what is wrong with them.
#[derive(Debug, Default)]
pub(crate) struct Lexed {
    /// Tokens without comments.
    pub tokens: Vec<Spanned<Token>>,
    /// The comments.
    pub comments: Vec<Comment>,
    /// In source order.
    pub diagnostics: Vec<Diagnostic>,
}

/// The tokens of a file, comments included, as `--emit tokens` shows them.
#[must_use]
pub fn lex(sources: &Sources, file: FileId) -> Vec<Spanned<Token>> {
    let lexed = tokens(sources, file);
    let comments = lexed.comments.into_iter().map(|c| Spanned::new(Token::Comment(c.text), c.span));
    let mut all: Vec<_> = lexed.tokens.into_iter().chain(comments).collect();
    all.sort_by_key(|t| t.span.start);
    all
}

/// The callback for numbers.
pub(crate) fn number(text: &str) -> Result<Number, LexError> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (digits, rest) = text.split_at(digits_end);
    if rest.starts_with('.') {
        return Err(LexError::Fraction);
    }
    let digits: String = digits.chars().filter(|c| *c != '_').collect();
    let value = digits.parse().ok().filter(|value| *value <= LARGEST);
    let value = value.ok_or(LexError::NumberTooLarge)?;
    if rest.is_empty() {
        return Ok(Number { value, unit: None });
    }
    match Suffix::ALL.into_iter().find(|s| s.text() == rest) {
        Some(unit) => Ok(Number { value, unit: Some(unit) }),
        None => Err(LexError::Suffix(value)),
    }
}

/// What the callbacks have seen of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// No `*/` is left: without this, each `/*` of a long text would be followed to its end.
    no_end: bool,
}

/// The rest of the line, which becomes part of the token.
fn to_line_end(lex: &mut logos::Lexer<'_, Token>) {
    let rest = lex.remainder();
    lex.bump(rest.find('\n').unwrap_or(rest.len()));
}

/// The callback for `//`.
pub(crate) fn comment(lex: &mut logos::Lexer<'_, Token>) -> String {
    to_line_end(lex);
    lex.slice().trim_end().to_owned()
}

/// The callback for `#`.
pub(crate) fn hash(lex: &mut logos::Lexer<'_, Token>) -> Result<String, LexError> {
    to_line_end(lex);
    Err(LexError::Comment)
}

/// The callback for `/*`: without its end it is only these two characters.
pub(crate) fn block(lex: &mut logos::Lexer<'_, Token>) -> Result<String, LexError> {
    if !lex.extras.no_end {
        match lex.remainder().find("*/") {
            Some(at) => lex.bump(at + 2),
            None => lex.extras.no_end = true,
        }
    }
    Err(LexError::Comment)
}

/// The callback for strings: up to the closing quote, which may be missing.
pub(crate) fn string(lex: &mut logos::Lexer<'_, Token>) -> Result<String, LexError> {
    let rest = lex.remainder();
    let length = rest.find(['"', '\n']).unwrap_or(rest.len());
    let (content, after) = rest.split_at_checked(length).unwrap_or_default();
    let (content, closed) = (content.to_owned(), after.starts_with('"'));
    lex.bump(length + usize::from(closed));
    if closed { Ok(content) } else { Err(LexError::Unterminated(content.trim_end().to_owned())) }
}

/// Splits a file into tokens.
pub(crate) fn tokens(sources: &Sources, file: FileId) -> Lexed {
    let text = sources.text(file);
    let mut lexed = Lexed::default();
    let mut raw: Vec<(Result<Token, LexError>, Span)> = Vec::new();
    // A byte order mark is the business of the editor that wrote it.
    let skip = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let body = text.get(skip..).unwrap_or_default();
    for (token, range) in Token::lexer(body).spanned() {
        let span = Span::new(file, (range.start + skip) as u32, (range.end + skip) as u32);
        if matches!(token, Ok(Token::Comment(_) | Token::Str(_))) {
            lexed.diagnostics.extend(zero(sources.slice(span), span));
        }
        match token {
            Ok(Token::Comment(text)) => lexed.comments.push(Comment { text, span }),
            other => raw.push((other, span)),
        }
    }
    let mut rest = raw.into_iter().peekable();
    while let Some((token, span)) = rest.next() {
        let doubled = token == Ok(Token::Minus)
            && matches!(rest.peek(), Some((Ok(Token::Minus), next)) if next.start == span.end);
        if doubled && begins_line(text, span.start) {
            let opening = Span { end: span.end + 1, ..span };
            lexed.diagnostics.push(no_comment("--", opening, false));
            let length = text.get(span.start as usize..).and_then(|rest| rest.find('\n'));
            let end = length.map_or(text.len() as u32, |length| span.start + length as u32);
            while rest.next_if(|(_, next)| next.start < end).is_some() {}
            continue;
        }
        let error = match token {
            Ok(token) if !joins(&token) || !touches(&mut rest, span, sources) => {
                lexed.tokens.push(Spanned::new(token, span));
                continue;
            }
            Ok(_) => LexError::Character,
            Err(error) => error,
        };
        // Logos stops at the first character outside ASCII: put the pieces of `größe` or `5µs`
        // together again, so that there is one message about one word.
        let mut span = span;
        if error == LexError::Character {
            let wordlike =
                |s: Span| sources.slice(s).chars().all(|c| c.is_alphanumeric() || c == '_');
            let word = wordlike(span);
            while let Some((next, next_span)) = rest.peek() {
                let joined = next_span.start == span.end
                    && match next {
                        Ok(_) => word && wordlike(*next_span),
                        Err(LexError::Character) => wordlike(*next_span) == word,
                        Err(_) => word && wordlike(*next_span),
                    };
                if !joined {
                    break;
                }
                span = span.to(*next_span);
                rest.next();
            }
        }
        if error == LexError::Comment {
            let block = sources.slice(span).starts_with("/*");
            let opening = Span {
                end: span.start + if sources.slice(span).starts_with('#') { 1 } else { 2 },
                ..span
            };
            lexed.diagnostics.push(no_comment(sources.slice(opening), opening, block));
            continue;
        }
        let (token, diagnostic) = explain(error, sources.slice(span), span);
        lexed.tokens.push(Spanned::new(token, span));
        lexed.diagnostics.push(diagnostic);
    }
    lexed
}

/// `# comment`, `-- comment`, `/* comment */`
fn no_comment(opening: &str, span: Span, block: bool) -> Diagnostic {
    let found = Diagnostic::new(
        Code::BadCharacter,
        format!("`{opening}` does not begin a comment"),
        span,
        "not part of the language",
    )
    .help("use `// …`: a comment goes to the end of the line");
    if block { found } else { found.fix(span, "//") }
}

/// Whether only spaces precede a place on its line.
fn begins_line(text: &str, at: u32) -> bool {
    let before = text.get(..at as usize).unwrap_or_default();
    before.rsplit('\n').next().is_some_and(|line| line.trim().is_empty())
}

/// NUL characters: the object holds the text as a C string, which ends at the first of them.
fn zero(text: &str, span: Span) -> Option<Diagnostic> {
    let at = span.start + text.find('\0')? as u32;
    let place = Span { start: at, end: at + 1, ..span };
    let found = "NUL characters are not allowed";
    let diagnostic =
        Diagnostic::new(Code::BadCharacter, found, place, "a NUL character, invisible");
    Some(diagnostic.help("remove it"))
}

/// Whether a token could be the beginning of a word that goes on outside ASCII.
fn joins(token: &Token) -> bool {
    matches!(token, Token::Ident(_) | Token::Number(_)) || token.is_word()
}

/// Whether a letter outside ASCII follows without a space.
fn touches(
    rest: &mut std::iter::Peekable<impl Iterator<Item = (Result<Token, LexError>, Span)>>,
    span: Span,
    sources: &Sources,
) -> bool {
    rest.peek().is_some_and(|(next, at)| {
        at.start == span.end
            && matches!(next, Err(LexError::Character))
            && sources.slice(*at).chars().all(char::is_alphanumeric)
    })
}

/// The diagnostic for a bad token, and the token that replaces it.
fn explain(error: LexError, text: &str, span: Span) -> (Token, Diagnostic) {
    match error {
        LexError::NumberTooLarge => (
            Token::Error(text.to_owned()),
            Diagnostic::new(
                Code::BadNumber,
                format!("the number `{}` does not fit in 63 bits", shorten(text)),
                span,
                "too large",
            )
            .help(format!("the largest number is {LARGEST}")),
        ),
        LexError::Fraction => (
            Token::Error(text.to_owned()),
            Diagnostic::new(
                Code::BadNumber,
                format!("`{}` is not a whole number", shorten(text)),
                span,
                "has a fraction",
            )
            .help(fraction_help(text)),
        ),
        LexError::Suffix(value) => {
            let suffix = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '_');
            bad_suffix(value, suffix, text, span)
        }
        LexError::Unterminated(content) => (
            Token::Str(content),
            Diagnostic::new(
                Code::UnterminatedString,
                "this string has no closing quote",
                span,
                "begins here and is still open at the end of the line",
            )
            .help("end it with `\"` on the same line"),
        ),
        LexError::Character | LexError::Comment => character(text, span),
    }
}

/// A number with an unknown suffix. If it is clear which is meant, the number goes on with that.
fn bad_suffix(value: u64, suffix: &str, text: &str, span: Span) -> (Token, Diagnostic) {
    let known = || Suffix::ALL.into_iter().map(Suffix::text);
    let diagnostic = Diagnostic::new(
        Code::BadSuffix,
        format!("`{}` is not a unit suffix", shorten(suffix)),
        span,
        "unknown suffix",
    );
    let broken = Token::Error(text.to_owned());
    let lower = suffix.to_ascii_lowercase();
    if matches!(lower.as_bytes().first(), Some(b'x' | b'b')) && text.starts_with('0') {
        return (broken, diagnostic.help("numbers are written in decimal digits"));
    }
    if let Some(word) = unit_word(&lower) {
        let help = format!("put a space before the unit: `{value} {word}`");
        return (broken, diagnostic.help(help).fix(span, format!("{value} {word}")));
    }
    if suffix == "m" {
        return (broken, diagnostic.help("minutes are `min`, mebibytes are `MiB`"));
    }
    let meant = suffix_meant(&lower)
        .or_else(|| known().find(|s| s.eq_ignore_ascii_case(suffix)))
        .or_else(|| nearest(suffix, known()));
    let list = known().map(|s| format!("`{s}`")).collect::<Vec<_>>().join(", ");
    let diagnostic = diagnostic.note(format!("the suffixes are {list}"));
    match meant {
        Some(meant) => {
            let unit = Suffix::ALL.into_iter().find(|s| s.text() == meant);
            let help = format!("did you mean `{meant}`?");
            let found = diagnostic.help(help).perhaps(span, format!("{value}{meant}"));
            (Token::Number(Number { value, unit }), found)
        }
        None => (broken, diagnostic),
    }
}

/// The suffix that another spelling of a unit means.
pub(crate) fn suffix_meant(lower: &str) -> Option<&'static str> {
    Some(match lower {
        "k" | "kb" | "kib" => "KiB",
        "mb" | "mib" => "MiB",
        "g" | "gb" | "gib" => "GiB",
        "sec" | "secs" | "second" | "seconds" => "s",
        "msec" | "msecs" | "millis" | "milliseconds" => "ms",
        "usec" | "usecs" | "micros" | "microseconds" | "µs" | "μs" => "us",
        "nsec" | "nsecs" | "nanos" | "nanoseconds" => "ns",
        "mins" | "minute" | "minutes" => "min",
        _ => return None,
    })
}

/// The unit word that a suffix is.
fn unit_word(lower: &str) -> Option<&'static str> {
    Some(match lower {
        "sync" | "syncs" => "syncs",
        "write" | "writes" => "writes",
        "update" | "updates" => "updates",
        "call" | "calls" => "calls",
        "byte" | "bytes" => "bytes",
        _ => return None,
    })
}

fn fraction_help(text: &str) -> String {
    let smaller = [("min", "s"), ("ms", "us"), ("us", "ns"), ("s", "ms")];
    smaller.iter().find(|(suffix, _)| text.ends_with(suffix)).map_or_else(
        || "write a whole number".to_owned(),
        |(suffix, smaller)| format!("write a whole number of `{smaller}` instead of `{suffix}`"),
    )
}

fn character(text: &str, span: Span) -> (Token, Diagnostic) {
    let first = text.chars().next().unwrap_or_default();
    if first.is_ascii_digit() {
        let suffix = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '_');
        let digits = text.get(..text.len() - suffix.len()).unwrap_or_default();
        let value = number(digits).map_or(0, |n| n.value);
        return bad_suffix(value, suffix, text, span);
    }
    if first.is_alphanumeric() || first == '_' {
        let diagnostic = Diagnostic::new(
            Code::NotAscii,
            format!("the name `{}` has characters outside ASCII", shorten(text)),
            span,
            "not an ASCII name",
        )
        .help("names are made of the letters `a` to `z`, digits and `_`");
        return (Token::Ident(text.to_owned()), diagnostic);
    }
    let help = match first {
        '\'' | '`' | '“' | '”' | '„' | '‘' | '’' | '«' | '»' => {
            Some("strings are written in plain double quotes: `\"…\"`")
        }
        '&' => Some("the operator is `&&`"),
        '|' => Some("the operator is `||`"),
        '[' | ']' => {
            Some("blocks are written in `{ }`, ranges as `1..=4096`, and there are no lists")
        }
        '?' => Some("there is no `a ? b : c`; write `if … { … } else { … }`"),
        '@' => Some("declare what the policy keeps: `state n: count = 0`"),
        '$' => Some("names are written without `$`"),
        '≤' => Some("write `<=`"),
        '≥' => Some("write `>=`"),
        '≠' => Some("write `!=`"),
        '\u{a0}' | '\u{200b}' | '\u{2003}' | '\u{2009}' | '\u{202f}' | '\u{3000}' => {
            Some("this is an invisible character: replace it by a plain space")
        }
        '–' | '—' | '−' => Some("write a plain `-`"),
        '×' => Some("write `*`"),
        '；' => Some("write a plain `;`"),
        '：' => Some("write a plain `:`"),
        _ => None,
    };
    let shown = if first.is_control() || first.is_whitespace() || !first.is_ascii() {
        format!("`{first}` (U+{:04X})", u32::from(first)).replace(char::is_control, "?")
    } else {
        format!("`{}`", shorten(text))
    };
    let mut diagnostic = Diagnostic::new(
        Code::BadCharacter,
        format!("unexpected character {shown}"),
        span,
        "not part of the language",
    );
    diagnostic.help = help.map(str::to_owned);
    let token = match text {
        "&" => Token::AndAnd,
        "|" => Token::OrOr,
        "≤" => Token::LessEq,
        "≥" => Token::GreaterEq,
        "≠" => Token::NotEq,
        "–" | "—" | "−" => Token::Minus,
        "×" => Token::Star,
        "；" => Token::Semicolon,
        "：" => Token::Colon,
        _ => Token::Error(text.to_owned()),
    };
    (token, diagnostic)
}

/// A text that is short enough for a message.
pub(crate) fn shorten(text: &str) -> String {
    const LONGEST: usize = 40;
    if text.chars().count() <= LONGEST {
        return text.to_owned();
    }
    let head: String = text.chars().take(LONGEST).collect();
    format!("{head}…")
}
