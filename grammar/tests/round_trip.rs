//! Random trees and random damage, from fixed seeds.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use durac_grammar::ast::{Block, Item, Stmt};
use durac_grammar::{Sources, Span, Spanned, format, format_checked, parse, print_ast};
use support::{Random, trees};

/// A tree prints to a text that parses to the same tree.
#[test]
fn printed_trees_parse_to_themselves() {
    for seed in 0..600 {
        let tree = trees::file(&mut Random(seed));
        let mut sources = Sources::new();
        let empty = sources.add("empty", "");
        let text = format(&sources, empty, &tree);
        let file = sources.add("printed", text.as_str());
        let parsed = parse(&sources, file);
        assert!(parsed.diagnostics.is_empty(), "seed {seed}\n{text}\n{:#?}", parsed.diagnostics);
        assert_eq!(print_ast(&tree), print_ast(&parsed.file), "seed {seed}\n{text}");
        assert_eq!(format_checked(&sources, file).unwrap(), text, "seed {seed}");
    }
}

/// Damaged texts never break the parser, every span lies in the text, and a text that is still
/// right can still be formatted.
#[test]
fn damaged_texts_are_survived() {
    let examples: Vec<String> = ["good", "format", "errors"]
        .iter()
        .flat_map(|dir| {
            let dir = format!("{}/tests/cases/{dir}", env!("CARGO_MANIFEST_DIR"));
            let mut paths: Vec<_> =
                std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
            paths.sort();
            paths
        })
        .map(|path| std::fs::read_to_string(path).unwrap())
        .filter(|text| text.len() < 1500)
        .collect();
    let mut random = Random(7);
    for round in 0..60 {
        for (index, example) in examples.iter().enumerate() {
            let mut text = example.clone();
            for _ in 0..=random.below(3) {
                damage(&mut text, &mut random, &examples);
            }
            survive(&text, &format!("round {round}, example {index}"));
        }
    }
}

fn damage(text: &mut String, random: &mut Random, examples: &[String]) {
    const PIECES: &[&str] = &[
        "{",
        "}",
        "(",
        ")",
        ";",
        ":",
        ",",
        ".",
        "=",
        "==",
        "<",
        "!",
        "&&",
        "..=",
        "->",
        "\"",
        "//",
        "\n",
        " ",
        "on ",
        "if ",
        "else ",
        "unless ",
        "every ",
        "await ",
        "defer ",
        "skip ",
        "fail ",
        "hold ",
        "policy ",
        "target ",
        "guarantee ",
        "param ",
        "state ",
        "flush ",
        "use ",
        "hook ",
        "may ",
        "files ",
        "entry ",
        "5",
        "5ms",
        "5 ms",
        "1 sync",
        "sync",
        "and ",
        "not ",
        "then ",
        "elif ",
        "defr",
        "ü",
        "≤",
        "\u{a0}",
        "\u{feff}",
        "\0",
        "\r\n",
        "/* */",
        "#",
        "99999999999999999999",
    ];
    let place = |random: &mut Random, text: &str| {
        let mut at = random.below(text.len() as u64 + 1) as usize;
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let (a, b) = (place(random, text), place(random, text));
    let (from, to) = (a.min(b), a.max(b).min(a.min(b) + 24));
    let to = (to..=text.len()).find(|i| text.is_char_boundary(*i)).unwrap();
    match random.below(4) {
        0 => text.replace_range(from..to, ""),
        1 => text.insert_str(from, PIECES[random.below(PIECES.len() as u64) as usize]),
        2 => {
            let copy = text[from..to].to_owned();
            let at = place(random, text);
            text.insert_str(at, &copy);
        }
        _ => {
            let other = &examples[random.below(examples.len() as u64) as usize];
            let line = other.lines().nth(random.below(8) as usize).unwrap_or("").to_owned();
            text.insert_str(from, &line);
        }
    }
}

fn survive(text: &str, what: &str) {
    let mut sources = Sources::new();
    let file = sources.add("damaged", text);
    let parsed = parse(&sources, file);
    let inside = |span: Span| {
        let range = span.start as usize..span.end as usize;
        assert!(text.get(range).is_some(), "{what}: {span:?} is no part of\n{text}");
    };
    let mut last = 0;
    for d in &parsed.diagnostics {
        inside(d.primary.span);
        d.secondary.iter().for_each(|l| inside(l.span));
        assert!(last <= d.primary.span.start, "{what}: out of order in\n{text}");
        last = d.primary.span.start;
    }
    parsed.file.comments.0.iter().for_each(|c| inside(c.span));
    for Spanned { node, span } in &parsed.file.items {
        inside(*span);
        if let Item::On(on) = node {
            block_inside(&on.body, &inside);
        }
    }
    if parsed.diagnostics.is_empty() {
        assert!(!has_errors(&print_ast(&parsed.file)), "{what}: a hole without a word in\n{text}");
        let once = format_checked(&sources, file);
        let once = once.unwrap_or_else(|e| panic!("{what}: {e}\n{text}"));
        let id = sources.add("again", once.as_str());
        assert_eq!(format_checked(&sources, id).unwrap(), once, "{what}:\n{text}");
    } else {
        let _ = format(&sources, file, &parsed.file);
    }
}

fn has_errors(tree: &str) -> bool {
    tree.contains("(error)")
}

fn block_inside(block: &Block, inside: &impl Fn(Span)) {
    inside(block.span);
    for stmt in &block.stmts {
        inside(stmt.span);
        match &stmt.node {
            Stmt::If { cond, then, otherwise } => {
                inside(cond.span);
                block_inside(then, inside);
                otherwise.iter().for_each(|o| block_inside(o, inside));
            }
            Stmt::Unless { then, .. } => block_inside(then, inside),
            Stmt::Every { body, .. } => block_inside(body, inside),
            Stmt::Await(e) | Stmt::Assign(_, e) => inside(e.span),
            _ => {}
        }
    }
}
