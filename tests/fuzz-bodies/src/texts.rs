//! A policy's text, and the small texts beside it: assignments and patterns.

use crate::text;
use durac_abi::Runtime;
use durac_core::{CompileOptions, hir};
use durac_grammar::render::{Format, render};
use durac_grammar::{Diagnostic, FileId, FormatError, Sources};
use std::path::Path;

/// Pieces of policies.
pub const WORDS: &[&str] = &[
    "on fdatasync: ",
    "on fsync { ",
    "on write: ",
    "on reply: hold until durable",
    "on turn: gather within 60us",
    "guarantee loss = 0 to clients on power_loss",
    "policy p\n",
    "target redis.aof\n",
    "param n: syncs = 4 in 1..=64\n",
    "param d: duration = 10ms in 1ms..=1s\n",
    "state s: bool = false\n",
    "state c: count = 0\n",
    "guarantee loss <= 64 syncs on power_loss\n",
    "guarantee loss = 0 on process_crash\n",
    "guarantee loss <= 10ms on power_loss\n",
    "use kernel notify\n",
    "if ",
    " else { ",
    "else if ",
    "unless ",
    "every 16 calls { ",
    "every 10ms { ",
    "await ",
    "await all",
    "pending < 64",
    "pending",
    "staged",
    "pending.age",
    "pending.bytes",
    "sync.latency",
    "child.active",
    "defer",
    "pass",
    "skip",
    "stage",
    "commit",
    "fail",
    "flush within 50ms\n",
    "target t {",
    "files \"*.aof\"",
    "except \"*.rdb\"",
    "hook fdatasync(log: file) -> status {",
    "may pass, defer, await }",
    "entry symbol \"f\"",
    "borrowed bytes",
    "&&",
    "||",
    "!",
    "(",
    ")",
    "{",
    "}",
    "[",
    "]",
    ";",
    ",",
    ":",
    "..=",
    "=",
    "==",
    "!=",
    "<",
    "<=",
    ">=",
    "+",
    "-",
    "*",
    "/",
    "%",
    "?",
    "\"",
    "#",
    "//",
    "///",
    "/*",
    "*/",
    "\n",
    "\r\n",
    "\t",
    "\u{feff}",
    "é",
    "\u{202e}",
    "\0",
    "18446744073709551615",
    "18446744073709551616",
    "0",
    "1_000",
    "0.5",
    "4MiB",
    "1h",
    "50ms",
    "64KiB",
    "µs",
    "true",
    "false",
    "n=16",
    "fn f() {",
    "return",
    "while",
    " and ",
    " or ",
    "not ",
    "'",
];

fn sources(bytes: &[u8]) -> (Sources, FileId) {
    let mut sources = Sources::new();
    let file = sources.add("fuzzed.dur", text(bytes));
    (sources, file)
}

/// Every span lies in its text and cuts no character.
fn check_spans(sources: &Sources, diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        for label in [&diagnostic.primary].into_iter().chain(&diagnostic.secondary) {
            let text = sources.text(label.span.file);
            let place = label.span.start as usize..label.span.end as usize;
            assert!(text.get(place).is_some(), "{:?} of {diagnostic:?}", label.span);
        }
    }
}

/// Lexer, parser, printer of the tree, and what the command line shows of the diagnostics.
pub fn parse(bytes: &[u8]) {
    let (sources, file) = sources(bytes);
    let tokens = durac_grammar::lex(&sources, file);
    let ends = tokens.windows(2).all(|pair| match pair {
        [one, next] => one.span.end <= next.span.start,
        _ => true,
    });
    assert!(ends, "tokens overlap");
    let parsed = durac_grammar::parse(&sources, file);
    check_spans(&sources, &parsed.diagnostics);
    assert!(!durac_grammar::print_ast(&parsed.file).is_empty() || parsed.file.items.is_empty());
    let shown = render(&parsed.diagnostics, &sources, Format::Human, false);
    assert_eq!(shown.is_empty(), parsed.diagnostics.is_empty());
    let json = render(&parsed.diagnostics, &sources, Format::Json, false);
    assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{json}");
    let short = render(&parsed.diagnostics, &sources, Format::Short, false);
    assert!(short.lines().count() >= parsed.diagnostics.len(), "{short}");
}

/// A text that is right can be formatted, to one with the same tree; that one stays as it is.
pub fn format(bytes: &[u8]) {
    let (sources, file) = sources(bytes);
    match durac_grammar::format_checked(&sources, file) {
        Ok(once) => {
            let mut again = Sources::new();
            let file = again.add("formatted.dur", once.as_str());
            let twice = durac_grammar::format_checked(&again, file);
            assert_eq!(twice.ok().as_deref(), Some(once.as_str()));
        }
        Err(FormatError::Changed) => assert!(bytes.is_empty(), "another tree after formatting"),
        Err(FormatError::Parse(_)) => {}
    }
}

/// States that the model checker looks at here.
const STATES: usize = 2000;

/// From the text to the object: what the compiler makes is accepted by the verifier, reads back as
/// it was written, and runs in the model checker.
pub fn compile(bytes: &[u8]) {
    for runtime in [Runtime::Agent, Runtime::Bpftime] {
        let (mut sources, file) = sources(bytes);
        let naming = CompileOptions { stem: "fuzzed", target: None, runtime };
        let analysis = durac_core::analyse(&mut sources, file, &naming);
        check_spans(&sources, &analysis.diagnostics);
        let _ = render(&analysis.diagnostics, &sources, Format::Human, false);
        let right = analysis.policy.as_ref().filter(|_| !analysis.has_errors());
        if let Some(policy) = right {
            whole(runtime, policy, &sources, file);
        }
    }
}

fn whole(runtime: Runtime, policy: &hir::Policy, sources: &Sources, file: FileId) {
    let later = durac_core::backend::of(runtime).not_yet(policy);
    let object = match durac_core::compile(
        policy,
        sources,
        file,
        &CompileOptions::default().with_runtime(runtime),
    ) {
        Ok(object) => object,
        Err(found) => {
            assert!(!found.is_empty(), "refused without a word");
            return check_spans(sources, &found);
        }
    };
    let verified = durac_verify::verify(&object);
    assert!(verified.is_ok(), "the compiler's own code is refused: {verified:?}");
    let written = durac_bpf::write(&object);
    assert!(written.is_ok(), "{written:?}");
    let read = written.ok().map(|bytes| durac_abi::elf::read(&bytes));
    assert!(read.is_some_and(|object| object.is_ok()), "what was written cannot be read");
    if later.is_none() {
        let options = durac_prove::proof::Options { states: STATES, ..Default::default() };
        let proof = durac_prove::proof::prove(policy, &object, &options);
        assert!(proof.is_ok(), "{proof:?}");
    }
}

/// Lines: `name=value` for a policy's parameters, `pattern path` for a target's files.
pub fn words(bytes: &[u8]) {
    let text = text(bytes);
    let Some(policy) = crate::seeds::policy() else { return };
    for line in text.lines() {
        let mut policy = policy.clone();
        if let Err(why) = durac_core::set::set(&mut policy, line) {
            assert!(!why.message.is_empty() && line.get(why.at.clone()).is_some());
        }
        assert!(policy.params.iter().all(|p| (p.min..=p.max).contains(&p.default)), "{line}");
        let (pattern, path) = line.split_once(' ').unwrap_or((line, line));
        let found = durac_abi::glob::matches(pattern, Path::new(path));
        let covered = durac_abi::glob::covers(&[pattern.to_owned()], &[], Path::new(path));
        assert_eq!(found, covered);
    }
}
