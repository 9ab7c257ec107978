//! Paths in the documentation: those from the root of the repository are there.

use crate::{files, root};
use std::path::Path;

/// Folders that a path from the root begins with.
const FOLDERS: [&str; 8] = [
    "compiler/",
    "docs/",
    "examples/",
    "grammar/",
    "runtime-bridge/",
    "stdlib/",
    "tests/",
    "tools/",
];

/// What looks like the path of a file from the root, between backquotes.
fn paths(text: &str) -> Vec<&str> {
    let quoted = text.split('`').skip(1).step_by(2);
    let is_path = |word: &&str| {
        let is_named = Path::new(word).extension().is_some();
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
        is_named && word.chars().all(plain) && FOLDERS.iter().any(|of| word.starts_with(of))
    };
    quoted.filter(is_path).collect()
}

#[test]
fn paths_from_the_root_are_there() {
    let mut gone = Vec::new();
    let mut count = 0;
    let mut look = |page: &Path, _: &Path| {
        let text = std::fs::read_to_string(page).unwrap();
        for path in paths(&text) {
            count += 1;
            if !path.contains("XXXX") && !root().join(path).exists() {
                gone.push(format!("{}: {path}", page.display()));
            }
        }
    };
    files("md", &root().join("docs"), root(), &mut look);
    for page in ["README.md", "CONTRIBUTING.md", "SECURITY.md"] {
        look(&root().join(page), root());
    }
    assert!(count > 10, "{count} paths");
    assert!(gone.is_empty(), "{}", gone.join("\n"));
}

#[test]
fn a_path_is_found() {
    let text = "`tests/a.rs` and `a.rs`, `docs/*.md`, `tests/x` `runtime-bridge/a/b.c`";
    assert_eq!(paths(text), ["tests/a.rs", "runtime-bridge/a/b.c"]);
}
