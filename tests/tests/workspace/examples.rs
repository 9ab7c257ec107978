//! Examples in doc comments: they run, so a crate that has one is not left out of `cargo test --doc`. The others are,
//! because looking for examples in each costs more than running them.

use super::{files, list, metadata, root, text};
use std::path::Path;

/// Whether a doc comment of this source begins a block of code that rustdoc runs.
fn has_example(source: &str) -> bool {
    let mut inside = false;
    source.lines().any(|line| {
        let line = line.trim_start();
        let comment = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
        let Some(language) = comment.and_then(|text| text.trim_start().strip_prefix("```")) else {
            return false;
        };
        inside = !inside;
        inside && !language.starts_with("text")
    })
}

/// Folders of the crates with an example.
fn with_examples(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    files("rs", folder, folder, &mut |source, of_crate| {
        if source.starts_with(of_crate.join("src"))
            && has_example(&std::fs::read_to_string(source).unwrap())
        {
            found.push(of_crate.to_str().unwrap().to_owned());
        }
    });
    found.sort();
    found.dedup();
    found
}

#[test]
fn the_examples_of_each_crate_run() {
    let found = with_examples(root());
    assert!(!found.is_empty(), "no example was found");
    for package in list(&metadata(false), "packages") {
        let folder = Path::new(text(package, "manifest_path")).parent().unwrap().to_str().unwrap();
        for target in list(package, "targets") {
            let kinds = list(target, "kind");
            if !kinds.iter().any(|kind| kind == "lib") {
                continue;
            }
            let runs = target["doctest"].as_bool().unwrap();
            let has = found.iter().any(|with| with == folder);
            assert_eq!(
                runs, has,
                "{folder}: `doctest` in Cargo.toml, and whether there are examples"
            );
        }
    }
}

#[test]
fn an_example_is_found() {
    assert!(has_example("//! As in\n//!\n//! ```\n//! f();\n//! ```\n"));
    assert!(has_example("    /// ```should_panic\n    /// f();\n    /// ```\n"));
    assert!(!has_example("//! ```text\n//! a -> b\n//! ```\n"));
    assert!(!has_example("// ```\n// f();\n// ```\nlet s = \"```\";\n"));
}
