//! The tokens of the language: one enum for the lexer, the parser and `--emit tokens`.

use crate::ast::Suffix;
use crate::lexer::{self, LexError};
use logos::Logos;
use std::fmt;

/// A number as written: its digits' value and the suffix attached to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    /// The value, not scaled by the suffix.
    pub value: u64,
    /// The suffix, if one is attached.
    pub unit: Option<Suffix>,
}

macro_rules! tokens {
    (
        words { $($word:ident $word_text:tt)* }
        symbols { $($symbol:ident $symbol_text:tt)* }
    ) => {
        /// A token.
        #[derive(Logos, Clone, Debug, PartialEq, Eq)]
        #[logos(error = LexError)]
        #[logos(extras = lexer::Seen)]
        #[logos(skip r"[ \t\r\n\f]+")]
        pub enum Token {
            $(
                #[doc = concat!("`", $word_text, "`")]
                #[token($word_text)]
                $word,
            )*
            $(
                #[doc = concat!("`", $symbol_text, "`")]
                #[token($symbol_text)]
                $symbol,
            )*
            /// A name.
            #[regex(r"[A-Za-z_][A-Za-z0-9_]*", |lex| lex.slice().to_owned())]
            Ident(String),
            /// `64`, `50ms`, `4MiB`
            #[regex(
                r"[0-9][0-9_]*(\.[0-9][0-9_]*)?([A-Za-z][A-Za-z0-9_]*)?",
                |lex| lexer::number(lex.slice())
            )]
            Number(Number),
            /// `"*.aof"`, without its quotes. There are no escapes.
            #[token("\"", lexer::string)]
            Str(String),
            /// `// text` or `/// text`, without the line end. The parser never sees it.
            // Texts end where a callback finds their end: a pattern that repeats over characters outside ASCII
            // takes stack for each of them.
            #[token("//", lexer::comment)]
            #[token("#", lexer::hash)]
            #[token("/*", lexer::block)]
            Comment(String),
            /// The `on` inside a guarantee. Told apart from the `on` that begins a hook so that a
            /// broken guarantee does not swallow the hook after it, or its own end become a hook.
            OnFailure,
            /// A whole `test "…" { … }`: its steps are parsed apart (`steps`). `test` is no reserved
            /// word.
            Test,
            /// Characters that begin no token; a diagnostic says which.
            Error(String),
        }

        impl Token {
            /// Every reserved word.
            pub const WORDS: &'static [&'static str] = &[$($word_text,)*];

            /// The fixed text of a word or symbol; none for names, numbers, strings and the like.
            #[must_use]
            pub fn text(&self) -> Option<&'static str> {
                match self {
                    $(Token::$word => Some($word_text),)*
                    $(Token::$symbol => Some($symbol_text),)*
                    Token::OnFailure => Some("on"),
                    Token::Test => Some("test"),
                    _ => None,
                }
            }

            /// The reserved word written `text`.
            #[must_use]
            pub fn word(text: &str) -> Option<Token> {
                match text {
                    $($word_text => Some(Token::$word),)*
                    _ => None,
                }
            }
        }
    };
}

tokens! {
    words {
        Policy "policy"
        Target "target"
        Guarantee "guarantee"
        Assume "assume"
        Param "param"
        State "state"
        On "on"
        Flush "flush"
        Within "within"
        Use "use"
        If "if"
        Else "else"
        Unless "unless"
        Every "every"
        Await "await"
        Pass "pass"
        Defer "defer"
        Skip "skip"
        Stage "stage"
        Commit "commit"
        Fail "fail"
        Hold "hold"
        Until "until"
        Gather "gather"
        True "true"
        False "false"
        In "in"
        Hook "hook"
        Files "files"
        Except "except"
        Engine "engine"
        Callers "callers"
        Records "records"
        Layout "layout"
        Protects "protects"
        Entry "entry"
        May "may"
        Borrowed "borrowed"
        Syncs "syncs"
        Writes "writes"
        Updates "updates"
        Bytes "bytes"
        Calls "calls"
    }
    symbols {
        Colon ":"
        Semicolon ";"
        Comma ","
        Dot "."
        DotDot ".."
        DotDotEq "..="
        LParen "("
        RParen ")"
        LBrace "{"
        RBrace "}"
        Arrow "->"
        Assign "="
        OrOr "||"
        AndAnd "&&"
        EqEq "=="
        NotEq "!="
        Less "<"
        LessEq "<="
        Greater ">"
        GreaterEq ">="
        Plus "+"
        Minus "-"
        Star "*"
        Slash "/"
        Percent "%"
        Bang "!"
    }
}

impl Token {
    /// What sort of token it is, for `--emit tokens`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Token::Ident(_) => "name",
            Token::Number(_) => "number",
            Token::Str(_) => "string",
            Token::Comment(_) => "comment",
            Token::Error(_) => "error",
            _ if self.is_word() => "word",
            _ => "symbol",
        }
    }

    /// Whether it is a reserved word.
    #[must_use]
    pub fn is_word(&self) -> bool {
        self.text().is_some_and(|t| t.starts_with(|c: char| c.is_ascii_alphabetic()))
    }
}

/// As it is written.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Ident(name) => f.write_str(name),
            Token::Number(Number { value, unit }) => {
                write!(f, "{value}{}", unit.map_or("", Suffix::text))
            }
            Token::Str(text) => write!(f, "\"{text}\""),
            Token::Comment(text) | Token::Error(text) => f.write_str(text),
            _ => f.write_str(self.text().unwrap_or_default()),
        }
    }
}
