//! Texts of the greatest size, in a thread with little stack: neither takes stack or time for each character.

use durac_grammar::{MAX_SOURCE_BYTES, Sources, lex, parse};

/// What a thread of any runtime has at least.
const STACK: usize = 256 * 1024;

/// A text of exactly the greatest size, with as many of these characters as fit.
fn filled(before: &str, with: &str, after: &str) -> String {
    let room = MAX_SOURCE_BYTES - before.len() - after.len();
    let mut text = format!("{before}{}", with.repeat(room / with.len()));
    text.push_str(&" ".repeat(MAX_SOURCE_BYTES - after.len() - text.len()));
    text + after
}

/// Its tokens, and the codes of its diagnostics.
fn read(text: String) -> (usize, Vec<&'static str>) {
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(|| {
        let mut sources = Sources::new();
        let file = sources.add("long.dur", text);
        let codes = parse(&sources, file).diagnostics;
        (lex(&sources, file).len(), codes.iter().map(|d| d.code.text()).collect())
    });
    thread.expect("a thread").join().expect("no panic")
}

#[test]
fn characters_outside_ascii_take_no_stack() {
    for with in ["é", "中", "😀", "é a", "*é"] {
        for (before, after, tokens, codes) in [
            ("//", "", 1, &[][..]),
            ("///", "\n", 1, &[]),
            ("#", "", 0, &["E0101"]),
            ("/*", "*/", 0, &["E0101"]),
            ("policy \"", "\"", 2, &["E0105"]),
            ("policy \"", "", 2, &["E0104", "E0105"]),
        ] {
            let found = read(filled(before, with, after));
            assert_eq!(found, (tokens, codes.to_vec()), "{before}{with}{after}");
        }
    }
}

#[test]
fn openings_without_an_end_are_read_once() {
    let found = read(filled("", "/*é ", ""));
    assert_eq!(found.1.len(), durac_grammar::MOST_DIAGNOSTICS + 1);
}
