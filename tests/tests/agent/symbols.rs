//! Every function of the C library is accounted for: the agent has an entry of its name, or
//! `symbols/libc.txt` says why it needs none.

use crate::common::agent;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// The functions that a library exports.
fn functions(library: &Path) -> BTreeSet<String> {
    let output = Command::new("readelf").args(["-W", "--dyn-syms"]).arg(library).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let names = text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, _, _, "FUNC" | "IFUNC", _, _, section, name, ..] = fields[..] else { return None };
        (section != "UND").then(|| name.split('@').next().unwrap_or(name).to_owned())
    });
    names.collect()
}

/// The C library that this program uses.
fn libc() -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let path = maps
        .lines()
        .find_map(|line| line.split_whitespace().nth(5).filter(|path| path.contains("/libc.so")));
    path.unwrap().to_owned()
}

/// The patterns of the table.
fn patterns() -> Vec<&'static str> {
    let text = include_str!("symbols/libc.txt");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.flat_map(|line| line.rsplit_once(": ").unwrap().1.split_whitespace()).collect()
}

fn covers(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut last = None;
    for part in parts {
        last = Some(part);
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    match last {
        None => rest.is_empty(),
        Some(part) => part.is_empty() || name.ends_with(part),
    }
}

#[test]
fn every_function_of_the_c_library_is_accounted_for() {
    let (libc, entries, patterns) =
        (functions(Path::new(&libc())), functions(&agent()), patterns());
    assert!(libc.len() > 2000 && entries.len() > 150, "{} {}", libc.len(), entries.len());
    let unknown: Vec<&String> = libc
        .iter()
        .filter(|name| !entries.contains(*name))
        .filter(|name| !patterns.iter().any(|pattern| covers(pattern, name)))
        .collect();
    assert!(unknown.is_empty(), "what do they do? {unknown:?}");
}

/// No name is both an entry and listed by its whole name.
#[test]
fn the_table_lists_no_entry() {
    let entries = functions(&agent());
    let listed: Vec<&str> =
        patterns().into_iter().filter(|pattern| entries.contains(*pattern)).collect();
    assert!(listed.is_empty(), "{listed:?} have entries");
}

#[test]
fn patterns_cover_what_they_say() {
    assert!(covers("mem*", "memcpy") && covers("mem*", "mem") && !covers("mem*", "wmem"));
    assert!(covers("*xattr", "lgetxattr") && !covers("*xattr", "xattrs"));
    assert!(covers("exit", "exit") && !covers("exit", "exit2") && !covers("exit", "_exit"));
    assert!(covers("f*put*", "fputc") && !covers("f*put*", "fwrite"));
}
