//! Reads deny.toml, and compares the packages that the workspace is built from with it.
//!
//! `cargo deny` does this too, and more; but it takes longer to install than all tests to run, and CI has
//! to work without a network.

use super::{list, metadata, root, text};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Deny {
    graph: Graph,
    licenses: Licences,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Graph {
    targets: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Licences {
    allow: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Bans {
    multiple_versions: Level,
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    /// Packages that may use it nevertheless.
    #[serde(default)]
    wrappers: Vec<String>,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Sources {
    unknown_registry: Level,
    unknown_git: Level,
    allow_registry: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Level {
    Allow,
    Deny,
}

fn deny() -> Deny {
    toml::from_str(&std::fs::read_to_string(root().join("deny.toml")).unwrap()).unwrap()
}

/// What is wrong with the packages, one line for each fault.
fn faults(metadata: &Value, deny: &Deny) -> Vec<String> {
    let mut faults = Vec::new();
    let packages = list(metadata, "packages");
    for package in packages {
        let name = text(package, "name");
        let licence = text(package, "license");
        if !allowed(licence, &deny.licenses.allow) {
            faults.push(format!("{name}: the licence `{licence}` is not allowed"));
        }
        let source = package["source"].as_str();
        let known = |source: &str| {
            let address = source.strip_prefix("registry+");
            address.is_some_and(|at| deny.sources.allow_registry.iter().any(|known| known == at))
        };
        if let Some(source) = source.filter(|source| !known(source)) {
            faults.push(format!("{name}: comes from {source}"));
        }
    }
    let names: BTreeMap<&str, &str> =
        packages.iter().map(|package| (text(package, "id"), text(package, "name"))).collect();
    let name = |id: &str| names.get(id).copied().unwrap_or("?").to_owned();
    for node in list(&metadata["resolve"], "nodes") {
        let user = name(text(node, "id"));
        for used in list(node, "deps").iter().map(|dependency| name(text(dependency, "pkg"))) {
            let bans = deny.bans.deny.iter().filter(|ban| ban.name == used);
            faults.extend(
                bans.filter(|ban| !ban.wrappers.contains(&user))
                    .map(|ban| format!("{user} -> {used}: banned, {}", ban.reason)),
            );
        }
    }
    faults
}

/// Whether an SPDX expression can be fulfilled with the licences of the list. `/` is an old form of `OR`.
fn allowed(expression: &str, list: &[String]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let fulfilled = any(&mut words, list);
    fulfilled && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any(words: &mut Words<'_>, list: &[String]) -> bool {
    let mut fulfilled = all(words, list);
    while words.next_if_eq(&"OR").is_some() {
        fulfilled |= all(words, list);
    }
    fulfilled
}

fn all(words: &mut Words<'_>, list: &[String]) -> bool {
    let mut fulfilled = one(words, list);
    while words.next_if_eq(&"AND").is_some() {
        fulfilled &= one(words, list);
    }
    fulfilled
}

fn one(words: &mut Words<'_>, list: &[String]) -> bool {
    let Some(word) = words.next() else { return false };
    if word == "(" {
        return any(words, list) & (words.next() == Some(")"));
    }
    let mut licence = word.to_owned();
    if words.next_if_eq(&"WITH").is_some() {
        licence += " WITH ";
        licence += words.next().unwrap_or_default();
    }
    list.contains(&licence)
}

#[test]
fn what_comes_in_from_outside_is_allowed() {
    let deny = deny();
    assert_eq!(deny.graph.targets, ["x86_64-unknown-linux-gnu"], "as `metadata` asks");
    assert_eq!(deny.bans.multiple_versions, Level::Allow, "nothing here counts versions");
    assert_eq!(
        [deny.sources.unknown_registry, deny.sources.unknown_git],
        [Level::Deny, Level::Deny]
    );
    let faults = faults(&metadata(true), &deny);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn expressions_of_licences() {
    let list = ["MIT".to_owned(), "Zlib".to_owned()];
    for good in [
        "MIT",
        "GPL-3.0 OR MIT",
        "Apache-2.0/MIT",
        "(MIT OR Apache-2.0) AND Zlib",
        "GPL-2.0 OR (MIT AND Zlib)",
        "Apache-2.0 WITH LLVM-exception OR MIT",
    ] {
        assert!(allowed(good, &list), "{good}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR Zlib", "MIT)", "MIT WITH x", "MIT Zlib"]
    {
        assert!(!allowed(bad, &list), "{bad}");
    }
}

#[test]
fn each_kind_of_fault_is_found() {
    let registry = "registry+https://github.com/rust-lang/crates.io-index";
    let metadata = serde_json::json!({
        "packages": [
            { "id": "1", "name": "ours", "license": "MIT", "source": null },
            { "id": "2", "name": "regex", "license": "MIT", "source": registry },
            { "id": "3", "name": "copied", "license": "GPL-3.0", "source": registry },
            { "id": "4", "name": "forked", "license": "MIT", "source": "git+https://example.org/x" },
            { "id": "5", "name": "prevail", "license": "MIT", "source": registry },
        ],
        "resolve": { "nodes": [
            { "id": "1", "deps": [{ "pkg": "2" }, { "pkg": "3" }] },
            { "id": "5", "deps": [{ "pkg": "2" }] },
        ] },
    });
    assert_eq!(
        faults(&metadata, &deny()),
        [
            "copied: the licence `GPL-3.0` is not allowed",
            "forked: comes from git+https://example.org/x",
            "ours -> regex: banned, the preloaded library must stay small",
        ]
    );
}
