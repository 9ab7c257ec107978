//! What other people's tools make of our objects: binutils, LLVM, libbpf, bpftool.
//!
//! They must be installed (`tests/run.sh` sees to it); a test that does not find its tool fails.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use crate::common;
use durac_abi::Object;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The path of a program.
#[track_caller]
fn tool(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // bpftool stands in sbin, which is not on everybody's path.
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| {
            panic!(
                "`{name}` is not installed; on Debian: \
                 apt-get install binutils llvm gcc libbpf-dev libelf-dev bpftool"
            )
        })
}

/// Runs a tool and gives what it prints; it must succeed without a word on stderr.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.env("LC_ALL", "C").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    assert_eq!(stderr, "", "{command:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// An object in a file of its own, in a folder where its source is not.
fn file(object: &Object) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("policy.o");
    std::fs::write(&path, durac_bpf::write(object).unwrap()).unwrap();
    (folder, path)
}

#[test]
fn readelf_has_nothing_to_say() {
    for name in ["readelf", "llvm-readelf"] {
        for object in common::all() {
            let (_folder, path) = file(&object);
            let text = run(Command::new(tool(name)).args(["-a", "-W"]).arg(&path));
            let lower = text.to_lowercase();
            assert!(!lower.contains("warning") && !lower.contains("<unknown>"), "{text}");
            assert!(text.contains("durac/fdatasync"), "{text}");
        }
    }
}

/// The text comes from the object alone: the .dur file is nowhere.
#[test]
fn objdump_shows_the_source() {
    let (folder, path) = file(&common::every());
    let mut command = Command::new(tool("llvm-objdump"));
    let text = run(command.args(["-dS", "--no-show-raw-insn"]).arg(&path).current_dir(&folder));
    // LLVM's versions print numbers in different ways; the source lines are the same in all.
    let shown = |line: &&str| line.starts_with(';') || line.ends_with(">:");
    let shown: Vec<&str> = text.lines().filter(shown).collect();
    let expected = ["<every_fdatasync>:", ";     every 48 calls { await all }", ";     skip"];
    assert_eq!(shown.len(), expected.len(), "{text}");
    assert!(shown.iter().zip(expected).all(|(line, end)| line.ends_with(end)), "{text}");
}

#[test]
fn debug_information_is_sound() {
    for object in common::all() {
        let (_folder, path) = file(&object);
        let text = run(Command::new(tool("llvm-dwarfdump")).arg("--verify").arg(&path));
        assert!(text.contains("No errors."), "{text}");
    }
}

#[test]
fn bpftool_shows_the_types() {
    let (_folder, path) = file(&common::every());
    let mut command = Command::new(tool("bpftool"));
    insta::assert_snapshot!(run(command.args(["btf", "dump", "file"]).arg(&path)));
}

#[test]
fn libbpf_opens_it() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c/open.c");
    let folder = TempDir::new().unwrap();
    let open = folder.path().join("open");
    let mut command = Command::new(tool("cc"));
    run(command.args(["-Wall", "-Werror", "-o"]).arg(&open).arg(&source).arg("-lbpf"));
    let mut text = String::new();
    for object in common::all() {
        let (_folder, path) = file(&object);
        text.push_str(&run(Command::new(&open).arg(&path)));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn no_path_of_this_machine_is_inside() {
    let here = env!("CARGO_MANIFEST_DIR").as_bytes();
    for object in common::all() {
        let bytes = durac_bpf::write(&object).unwrap();
        assert!(!bytes.windows(here.len()).any(|window| window == here));
        assert!(!bytes.windows(5).any(|window| window == b"/root" || window == b"/home"));
    }
}
