//! Puts the parser's errors in words: what was found, what was expected, and the usual slip.

use crate::code::Code;
use crate::diag::Diagnostic;
use crate::lexer::shorten;
use crate::span::{FileId, Sources, Span, Spanned};
use crate::suggest::nearest;
use crate::token::Token;
use crate::tree::{ITEMS, STATEMENTS};
use lalrpop_util::ParseError;

/// The diagnostic for a grammar error; none when the lexer has already said it.
pub(crate) fn explain(
    sources: &Sources,
    file: FileId,
    tokens: &[Spanned<Token>],
    error: ParseError<u32, Token, ()>,
) -> Option<Diagnostic> {
    let (found, expected) = match error {
        ParseError::UnrecognizedToken { token: (l, token, r), expected } => {
            (Some((token, Span::new(file, l, r))), expected)
        }
        ParseError::UnrecognizedEof { expected, .. } => (None, expected),
        ParseError::ExtraToken { token: (l, token, r) } => {
            (Some((token, Span::new(file, l, r))), Vec::new())
        }
        ParseError::InvalidToken { .. } | ParseError::User { .. } => return None,
    };
    match &found {
        Some((Token::Error(_), _)) => return None,
        // A brace that the repair put in: it has been reported.
        Some((Token::RBrace, span)) if span.start == span.end => return None,
        _ => {}
    }
    let at = found.as_ref().map_or(u32::MAX, |(_, span)| span.start);
    let index = tokens.partition_point(|t| t.span.start < at);
    let before: Vec<&Token> = tokens.iter().take(index).rev().take(6).map(|t| &t.node).collect();
    let expected = Expected::new(&expected);
    let wanted = expected.words(&before);
    let (message, span) = match &found {
        // What is missing belongs to the line before.
        Some((_, span)) if !expected.beginning() && begins_line(sources, tokens, index) => {
            let end = tokens.get(index - 1).map_or(*span, |t| t.span.after());
            (format!("{wanted}, found the end of the line"), end)
        }
        Some((token, span)) => (format!("{wanted}, found {}", describe(token)), *span),
        None => {
            let end = tokens.last().map_or(Span::new(file, 0, 0), |t| t.span);
            (format!("{wanted}, found the end of the file"), end.after())
        }
    };
    let label = match &found {
        Some((_, token)) if token.start >= span.end && token.start > span.start => {
            "something is missing here"
        }
        Some(_) => "not expected here",
        None => "the file ends here",
    };
    let mut diagnostic = Diagnostic::new(Code::Unexpected, message, span, label);
    diagnostic.help = help(found.as_ref(), &before, &expected);
    Some(diagnostic)
}

/// Whether a token is the first of its line, and not of the file.
fn begins_line(sources: &Sources, tokens: &[Spanned<Token>], index: usize) -> bool {
    let before = index.checked_sub(1).and_then(|i| tokens.get(i));
    match (before, tokens.get(index)) {
        (Some(a), Some(b)) => {
            sources.slice(Span { start: a.span.end, end: b.span.start, ..a.span }).contains('\n')
        }
        _ => false,
    }
}

fn describe(token: &Token) -> String {
    match token {
        Token::Str(text) => format!("the string `\"{}\"`", shorten(text)),
        other => format!("`{}`", shorten(&other.to_string())),
    }
}

/// What the parser could have gone on with.
struct Expected<'a>(&'a [String]);

impl<'a> Expected<'a> {
    fn new(terminals: &'a [String]) -> Self {
        Self(terminals)
    }

    /// Whether a terminal, named as in the grammar, is among them.
    fn has(&self, terminal: &str) -> bool {
        self.0.iter().any(|t| t.trim_matches('"') == terminal)
    }

    fn statement(&self) -> bool {
        self.has("defer") && !self.action()
    }

    /// A word of a target's `may`.
    fn action(&self) -> bool {
        self.has("pass") && self.has("flush") && !self.has("if") && !self.has("policy")
    }

    /// Whether something new may begin, so that what was found is simply wrong there.
    fn beginning(&self) -> bool {
        self.item() || self.statement() || self.has("hook") || self.has("entry")
    }

    fn item(&self) -> bool {
        self.has("policy") && self.has("flush")
    }

    fn operand(&self) -> bool {
        self.has("NUMBER") && self.has("(")
    }

    fn operator(&self) -> bool {
        self.has("+")
    }

    fn words(&self, before: &[&Token]) -> String {
        let mut words: Vec<String> = Vec::new();
        let mut add = |word: &str| words.push(word.to_owned());
        if self.operand() {
            add("an expression");
        } else if self.action() {
            add("an action such as `pass` or `await`");
        } else if self.has("NAME") && !self.statement() {
            if self.has("syncs") && self.has("bytes") && !self.operator() {
                add("a type");
            } else {
                add(what_name(before));
            }
        }
        if self.has("STRING") {
            add("a string");
        }
        for symbol in ["..=", ":", "->", "(", ")", "within", "until", "on"] {
            let part_of_larger = match symbol {
                "(" => self.operand(),
                "on" => self.item(),
                "->" => self.has("{"),
                _ => false,
            };
            if self.has(symbol) && !part_of_larger {
                add(&format!("`{symbol}`"));
            }
        }
        // After an expression `=` is only understood in order to explain it.
        if self.has("=") && !(self.operator() || self.statement()) {
            if self.has("<=") {
                add("a comparison");
            } else {
                add("`=`");
            }
        }
        if self.has("{") {
            add("`{`");
        }
        if self.has(",") && !self.item() {
            add("`,`");
        }
        for word in ["files", "except", "engine", "hook", "entry", "may"] {
            if self.has(word) {
                add(&format!("`{word}`"));
            }
        }
        if self.statement() {
            add("a statement");
        }
        if self.item() {
            add("an item such as `on` or `param`");
        }
        if self.has("}") && !self.statement() {
            add("`}`");
        }
        if words.is_empty() {
            if self.operator() {
                words.push("an operator".to_owned());
            } else {
                words.extend(self.0.iter().take(4).map(|t| format!("`{}`", t.trim_matches('"'))));
            }
        }
        match words.split_last() {
            None => "expected the end of the file".to_owned(),
            Some((last, [])) => format!("expected {last}"),
            Some((last, first)) => format!("expected {} or {last}", first.join(", ")),
        }
    }
}

fn what_name(before: &[&Token]) -> &'static str {
    match before.first() {
        Some(Token::On) => "the name of a hook",
        Some(Token::OnFailure) => "`power_loss` or `process_crash`",
        Some(Token::Guarantee) => "`loss`",
        Some(Token::Fail) => "an error such as `EIO`",
        Some(Token::Until) => "`durable`",
        Some(Token::Policy) => "a name for the policy",
        Some(Token::Entry) => "`libc` or `symbol`",
        _ => "a name",
    }
}

/// A whole policy, for those who have not seen one.
const SHORTEST: &str = "the shortest policy is `on fdatasync: await previous; defer`, and `durac list --show window` prints \
     a longer one";

/// What to do about a word of another language where an item belongs.
fn foreign(word: &str) -> String {
    let what = match word.to_ascii_lowercase().as_str() {
        "always" | "everysec" | "no" | "window" | "batch" | "adaptive" => {
            return format!(
                "to run a ready policy, name it on the command line: `durac run {word} -- redis-server …`"
            );
        }
        "appendfsync" | "appendonly" | "save" | "dir" => {
            "this is a setting of Redis, which belongs in redis.conf"
        }
        "tracepoint" | "kprobe" | "kretprobe" | "uprobe" | "uretprobe" | "usdt" | "begin"
        | "profile" => "probes are written as hooks of the target: `on write`, `on fdatasync`",
        "set" | "create" | "alter" | "select" | "update" | "insert" | "grant" => {
            "a policy is not SQL"
        }
        "permit" | "forbid" | "allow" | "deny" => "verdicts belong to a hook: `on fdatasync: pass`",
        "package" | "import" | "include" | "module" | "default" | "version" => {
            "a file is one policy and includes nothing"
        }
        _ => return SHORTEST.to_owned(),
    };
    format!("{what}; {SHORTEST}")
}

fn help(
    found: Option<&(Token, Span)>,
    before: &[&Token],
    expected: &Expected<'_>,
) -> Option<String> {
    let last = before.first().copied();
    let Some((token, _)) = found else {
        return match last {
            Some(Token::Colon) => Some("add a statement, for example `on fdatasync: defer`".into()),
            _ => None,
        };
    };
    let wants_name = expected.has("NAME") && !expected.statement() && !expected.operand();
    if last == Some(&Token::Fail) {
        return Some("for example, `fail EIO`".into());
    }
    if wants_name && token.is_word() && !expected.has("pass") {
        return Some(format!("`{token}` is a keyword; choose another name"));
    }
    if wants_name && matches!((token, last), (Token::Str(_), _)) && !expected.has("STRING") {
        return Some("names are written without quotes".into());
    }
    if matches!(last, Some(Token::Ident(_))) && before.get(1) == Some(&&Token::On) {
        return Some("put `:` after the hook: `on fdatasync: defer`".into());
    }
    if expected.has("=") && *token == Token::In {
        return Some("add the initial value: `= 64 in 1..=4096`".into());
    }
    if *token == Token::LBrace && last == Some(&Token::Percent) {
        return Some("`%` is the rest of a division; there are no percentages".into());
    }
    if before.iter().take(3).any(|t| **t == Token::Every) && expected.has("{") {
        return Some("write `every 1s { … }`".into());
    }
    if expected.item() && !expected.statement() && *token == Token::LBrace {
        return Some(format!("a policy is not JSON; {SHORTEST}"));
    }
    if expected.has("<=") && matches!(last, Some(Token::Ident(no)) if no == "no") {
        return Some("write `guarantee loss = 0 on power_loss`".into());
    }
    if expected.has("<=") && before.get(1) == Some(&&Token::Guarantee) {
        return Some("for example, `guarantee loss <= 2 syncs on power_loss`".into());
    }
    if expected.has("<=") && before.get(1) == Some(&&Token::Assume) {
        return Some("for example, `assume sync <= 10ms`".into());
    }
    if expected.has(":") && matches!(before.get(1), Some(Token::Param | Token::State)) {
        return Some("add its type: `param n: syncs = 64`, `state slow: bool = false`".into());
    }
    match token {
        Token::Number(_) if expected.has("within") => Some(format!("write `flush within {token}`")),
        Token::Str(_) if expected.operand() => {
            Some("strings are only used for the files and entries of a target".into())
        }
        Token::Assign if matches!(last, Some(Token::EqEq | Token::NotEq)) => {
            Some("the operators are `==` and `!=`".into())
        }
        Token::Comma if expected.statement() => {
            Some("separate statements by `;` or a new line".into())
        }
        Token::Ident(name) if expected.statement() || expected.item() => {
            let words = STATEMENTS
                .into_iter()
                .filter(|_| expected.statement())
                .chain(ITEMS.into_iter().filter(|_| expected.item()));
            match nearest(name, words) {
                Some(meant) => Some(format!("did you mean `{meant}`?")),
                None if expected.item() && !expected.statement() => Some(foreign(name)),
                None => None,
            }
        }
        Token::Ident(name) if expected.has("syncs") && !expected.statement() => {
            nearest(name, ["syncs", "writes", "updates", "bytes", "calls"])
                .map(|meant| format!("did you mean `{meant}`?"))
        }
        Token::Colon if expected.has("{") && expected.statement() => {
            Some("write `if condition statement` or `if condition { … }`".into())
        }
        Token::Comma if expected.item() => Some("write each of them in a line of its own".into()),
        Token::Minus if matches!(last, Some(Token::Ident(_))) && !expected.operator() => {
            Some("a name consists of letters, digits and `_`".into())
        }
        Token::Minus if expected.operand() => Some("there are no negative numbers".into()),
        Token::Else => Some("`else` follows the `}` or the one statement of an `if`".into()),
        Token::Assign if last == Some(&Token::Less) || last == Some(&Token::Greater) => {
            Some("write `<=` or `>=` without a space".into())
        }
        Token::LParen if matches!(last, Some(Token::Ident(_))) => {
            Some("there are no function calls; statements are written without parentheses".into())
        }
        Token::Slash | Token::Star if last == Some(&Token::Slash) => {
            Some("use `// …`: a comment goes to the end of the line".into())
        }
        Token::Star if expected.operand() || expected.item() => None,
        Token::LBrace if last == Some(&Token::Colon) => {
            Some("write either `on hook: …` or `on hook { … }`".into())
        }
        Token::Semicolon if expected.item() => Some("remove the `;`".into()),
        Token::Hook
        | Token::Files
        | Token::Except
        | Token::Engine
        | Token::Callers
        | Token::Records
        | Token::Layout
        | Token::Protects
            if expected.item() =>
        {
            Some("this belongs in the definition of a target: `target name { … }`".into())
        }
        word if word.is_word() && expected.item() && !expected.statement() => {
            Some("statements belong to a hook: `on fdatasync: …`".into())
        }
        _ => None,
    }
}
