//! What must hold for the workspace as a whole, whatever its crates do: which crate may use which,
//! what may come in from outside, whose doc examples run, and how large a snapshot may be.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod examples;
mod first_build;
mod layout;
mod licences;
mod paths;
mod snapshots;

use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// The root of the workspace.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// What `cargo metadata` says of the workspace; with `all`, of what it depends on, too.
fn metadata(all: bool) -> Value {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["metadata", "--format-version", "1", "--locked", "--offline"]).current_dir(root());
    if all {
        // Without a platform it lists packages for other systems, which nobody has downloaded.
        cargo.args(["--filter-platform", "x86_64-unknown-linux-gnu"]);
    } else {
        cargo.arg("--no-deps");
    }
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The elements of an array in `value`; none if there is no such array.
fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

/// The text in `value`; empty if there is none.
fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// Calls `visit` with each file of this extension below `folder`, and the folder of its crate.
fn files(extension: &str, folder: &Path, of_crate: &Path, visit: &mut dyn FnMut(&Path, &Path)) {
    let of_crate = if folder.join("Cargo.toml").exists() { folder } else { of_crate };
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let name = entry.file_name();
        let skipped = name == "target" || name.to_string_lossy().starts_with('.');
        if skipped || entry.file_type().unwrap().is_symlink() {
            continue;
        }
        if path.is_dir() {
            files(extension, &path, of_crate, visit);
        } else if path.extension().is_some_and(|found| found == extension) {
            visit(&path, of_crate);
        }
    }
}
