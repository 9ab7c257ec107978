//! What the editors colour is what the language has.

use durac_grammar::Token;
use durac_grammar::ast::Suffix;

const FILES: [(&str, &str); 2] = [
    ("durac.vim", include_str!("../editors/vim/syntax/durac.vim")),
    ("durac.tmLanguage.json", include_str!("../editors/vscode/syntaxes/durac.tmLanguage.json")),
];

#[test]
fn every_word_has_a_colour() {
    let suffixes = Suffix::ALL.iter().map(|suffix| suffix.text());
    let others = ["test", "error", "power_loss", "process_crash", "count", "duration", "bool"];
    for (name, text) in FILES {
        let known: Vec<_> = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
        for word in Token::WORDS.iter().copied().chain(suffixes.clone()).chain(others) {
            // The vim file has a syntax of its own for `on error`.
            let known = known.contains(&word) || known.contains(&&*format!("b{word}"));
            assert!(known || (name, word) == ("durac.vim", "error"), "{name}: {word}");
        }
    }
}
