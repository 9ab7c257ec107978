//! What the first command of README builds: nothing that only crash tests need.

use super::root;
use std::process::Command;

/// The words of the quick start's `cargo build` that say what is built.
fn words() -> Vec<String> {
    let script = std::fs::read_to_string(root().join("examples/quickstart.sh")).unwrap();
    let line = script.lines().find(|line| line.starts_with("cargo build --release ")).unwrap();
    let words = line.split(' ').skip(3).take_while(|word| !word.starts_with('<'));
    words.map(str::to_owned).collect()
}

/// The packages that are built for these words.
fn packages(words: &[String]) -> Vec<String> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let tree = ["tree", "--offline", "-e", "normal,build", "--prefix", "none", "-f", "{p}"];
    let output = cargo.args(tree).args(words).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn the_quick_start_builds_no_fuse() {
    let words = words();
    let built = packages(&words);
    assert!(built.iter().any(|name| name == "prevail"), "{built:?}");
    for needless in ["fuser", "nix", "toml_edit", "lsp-types", "criterion"] {
        assert!(!built.iter().any(|name| name == needless), "{needless}");
    }
    let all: Vec<_> = words.into_iter().filter(|word| word != "--no-default-features").collect();
    assert!(packages(&all).iter().any(|name| name == "fuser"), "the whole program crashes disks");
}
