//! Every message obeys the rules of `docs/messages.md`, as far as a machine can tell.
//!
//! Messages are the string literals of the sources that build diagnostics and errors, the summaries of
//! the codes with their pages, and the diagnostics in snapshots.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use durac_grammar::Code;
use std::fs;
use std::path::{Path, PathBuf};

/// The most characters of a line.
const LONGEST: usize = 100;

/// Phrases that make a reader stop.
const BANNED: &[&str] = &[
    "none of ours",
    "none of its",
    " is no ",
    " are no ",
    "stands in the",
    "stands here",
    "cannot stand",
    "is nowhere",
    "so many of",
    ", and no more",
    "for ever",
    "mistake of durac",
    "nothing is called",
    "begins no ",
    "closes nothing",
    "the kernel's business",
    "a word of the language",
    "is written `",
    "1 syncs",
    "a syncs",
];

/// Words that may begin a message with a capital: names, and abbreviations.
const NAMES: &[&str] =
    &["BPF", "Redis", "Linux", "JSON", "UTF", "CAP_", "ELF", "SET", "GET", "NUL"];

/// What is wrong with a message; nothing if it is fine.
fn faults(message: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let first = message.lines().next().unwrap_or_default();
    if first.starts_with(|c: char| c.is_uppercase())
        && !NAMES.iter().any(|name| first.starts_with(name))
    {
        faults.push("begins with a capital".to_owned());
    }
    let end = message.trim_end();
    if end.ends_with('.') && !end.ends_with("..") {
        faults.push("ends with a period".to_owned());
    }
    faults.extend(banned(message).map(|phrase| format!("says `{phrase}`")));
    faults
}

/// The banned phrases in a text, as whole words.
fn banned(text: &str) -> impl Iterator<Item = &'static str> {
    // `there is no target` is plain; `x is no target` is not.
    let plain = ["there is no ", "there are no ", " no longer"];
    let text = plain.iter().fold(text.to_lowercase(), |text, plain| text.replace(plain, ""));
    let says = move |phrase: &str| {
        text.match_indices(phrase).any(|(at, _)| {
            let after = text[at + phrase.len()..].chars().next();
            phrase.ends_with([' ', '`']) || !after.is_some_and(char::is_alphanumeric)
        })
    };
    BANNED.iter().copied().filter(move |phrase| says(phrase))
}

/// As [`faults`], for a message as it is printed: its first line also has a length.
fn printed_faults(message: &str) -> Vec<String> {
    let mut faults = faults(message);
    let length = message.lines().next().unwrap_or_default().chars().count();
    if length > LONGEST {
        faults.push(format!("has {length} characters in its first line"));
    }
    faults
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files under `folder` with this extension.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The string literals of a Rust source up to its unit tests, with their lines; comments are skipped,
/// and lines that a literal joins by `\` are joined.
fn literals(source: &str) -> Vec<(usize, String)> {
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    let mut found = Vec::new();
    let mut line = 1;
    let mut rest = source.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\n' => line += 1,
            '/' if rest.peek() == Some(&'/') => while rest.next_if(|&c| c != '\n').is_some() {},
            // A character, or a lifetime.
            '\'' => match rest.next() {
                Some('\\') => {
                    rest.next();
                    while rest.next_if(|&c| c != '\'').is_some() {}
                    rest.next();
                }
                Some(_) => drop(rest.next_if_eq(&'\'')),
                None => {}
            },
            '"' => {
                let (begins, mut text) = (line, String::new());
                while let Some(c) = rest.next() {
                    match c {
                        '"' => break,
                        '\\' => match rest.next() {
                            Some('\n') => {
                                line += 1;
                                while let Some(c) = rest.next_if(|c| c.is_whitespace()) {
                                    line += usize::from(c == '\n');
                                }
                            }
                            Some('n') => text.push('\n'),
                            Some(other) => text.push(other),
                            None => {}
                        },
                        '\n' => {
                            line += 1;
                            text.push('\n');
                        }
                        other => text.push(other),
                    }
                }
                found.push((begins, text));
            }
            _ => {}
        }
    }
    found
}

/// Whether a literal is a sentence for a person, and not a name, a piece of code or of a page.
fn is_message(text: &str) -> bool {
    let words = text.split_whitespace().count();
    words >= 3 && text.chars().any(char::is_lowercase) && !text.contains('<')
}

/// Where messages are made.
const SOURCES: &[&str] = &[
    "grammar/src",
    "compiler/core/src",
    "compiler/driver/src",
    "compiler/cli/src",
    "runtime-bridge/trace/src",
];

#[test]
fn messages_of_the_sources() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for path in SOURCES.iter().flat_map(|folder| files(&root().join(folder), "rs")) {
        for (line, text) in literals(&fs::read_to_string(&path).unwrap()) {
            if is_message(&text) {
                count += 1;
                let faults = faults(&text).into_iter();
                wrong.extend(faults.map(|f| format!("{}:{line}: {f}: {text}", path.display())));
            }
        }
    }
    wrong.retain(|found| !EXCEPTIONS.iter().any(|exception| found.contains(exception)));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 400, "only {count} messages were found");
}

/// Where a crate of the workspace has its sources.
const CRATES: &[&str] = &["grammar", "stdlib", "compiler/*", "runtime-bridge/*"];

/// What makes a reader stop is in no text of any crate, whether it is a message or becomes part of one.
#[test]
fn texts_of_all_crates() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    let folders = CRATES.iter().flat_map(|named| match named.strip_suffix("/*") {
        Some(folder) => {
            fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect()
        }
        None => vec![root().join(named)],
    });
    for folder in folders.map(|folder| folder.join("src")).filter(|folder| folder.is_dir()) {
        for path in files(&folder, "rs") {
            for (line, text) in literals(&fs::read_to_string(&path).unwrap()) {
                count += 1;
                wrong.extend(
                    banned(&text).map(|f| format!("{}:{line}: {f}: {text}", path.display())),
                );
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 2000, "only {count} texts were found");
}

/// Texts that are not messages: titles on the pages of `durac bench`, descriptions of metrics, the examples
/// below a command's help, a line of `/proc/PID/limits`.
const EXCEPTIONS: &[&str] =
    &["bench/page.rs", "bench/drawing.rs", "commands/metrics.rs", ": Examples:\n", "Max file size"];

#[test]
fn codes_and_their_pages() {
    for &code in Code::ALL {
        let summary = code.summary();
        assert_eq!(printed_faults(summary), [""; 0], "{code}: {summary}");
        let page = fs::read_to_string(root().join(format!("docs/errors/{code}.md"))).unwrap();
        let title = page.lines().next().unwrap();
        assert_eq!(title, format!("# {code}: {summary}"), "the title is the summary");
        let prose = page.split("```").step_by(2).collect::<String>();
        let said: Vec<_> = banned(&prose).collect();
        assert!(said.is_empty(), "{code}: its page says {said:?}");
    }
}

/// The diagnostics of a snapshot: `E0105 message: label`, `help: …` and `note: …`.
fn diagnostics(snapshot: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for line in snapshot.lines() {
        let code = line
            .match_indices(['E', 'W'])
            .find(|&(at, _)| line.get(at..at + 5).is_some_and(|code| Code::parse(code).is_some()));
        if let Some((at, _)) = code {
            found.push(line[at + 5..].trim_start_matches([' ', ':']));
        }
        for part in ["help: ", "note: "] {
            found.extend(line.split_once(part).map(|(_, text)| text));
        }
    }
    found
}

#[test]
fn messages_of_the_snapshots() {
    let mut count = 0;
    for folder in ["grammar/tests/snapshots", "compiler/driver/tests/snapshots"] {
        for path in files(&root().join(folder), "snap") {
            for message in diagnostics(&fs::read_to_string(&path).unwrap()) {
                count += 1;
                assert_eq!(faults(message), [""; 0], "{}: {message}", path.display());
            }
        }
    }
    assert!(count > 100, "only {count} messages were found");
}

/// The checker finds what it is there for.
#[test]
fn a_bad_message_is_found() {
    assert_eq!(printed_faults("unknown name `pendng`"), [""; 0]);
    assert_eq!(printed_faults("there is no hook for every call"), [""; 0]);
    assert_eq!(printed_faults("BPFtime cannot run `skip` safely"), [""; 0]);
    for (message, fault) in [
        ("The name is unknown", "begins with a capital"),
        ("the name is unknown.", "ends with a period"),
        ("map `x` is none of ours", "says `none of ours`"),
        ("`x` is no policy object", "says ` is no `"),
        ("a character that cannot stand in the text", "says `cannot stand`"),
        ("the call can wait for ever", "says `for ever`"),
        ("at most 64, and no more", "says `, and no more`"),
        ("keys are drawn from so many of them", "says `so many of`"),
    ] {
        let found = printed_faults(message);
        assert!(found.iter().any(|f| f == fault), "{message}: {found:?}");
    }
    let long = printed_faults(&"long ".repeat(21));
    assert_eq!(long, ["has 105 characters in its first line"]);
}

/// Literals are found where they are, and nothing else is.
#[test]
fn literals_are_read() {
    let source = r#"
// "a comment"
let a = ('"', '\'', "one two \
         three"); fn f<'a>(x: &'a str) {}
let b = format!("the `\"` {}", 1);
#[cfg(test)]
mod tests { const C: &str = "not this one"; }
"#;
    let found = literals(source);
    let expected = [(3, "one two three".to_owned()), (5, "the `\"` {}".to_owned())];
    assert_eq!(found, expected);
    let planted = "fn f() { error(\"The map is none of ours.\") }";
    let (_, text) = &literals(planted)[0];
    assert!(is_message(text) && faults(text).len() == 3);
}
