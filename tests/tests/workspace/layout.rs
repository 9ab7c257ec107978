//! The floor plan of docs/architecture.md: which crate may use which.

use super::{files, list, metadata, root, text};
use serde_json::Value;
use std::path::{Component, Path, PathBuf};

/// A crate, by its folder.
struct Crate {
    folder: &'static str,
    /// Crates of the workspace that it may use, in its build script, too.
    uses: &'static [&'static str],
    /// Those that only its tests and benches may use besides.
    tests: &'static [&'static str],
}

/// Stands for every crate.
const ANY: &[&str] = &["*"];

const fn row(
    folder: &'static str,
    uses: &'static [&'static str],
    tests: &'static [&'static str],
) -> Crate {
    Crate { folder, uses, tests }
}

/// Change docs/architecture.md with it.
#[rustfmt::skip]
const CRATES: &[Crate] = &[
    row("grammar", &[], &["support"]),
    row("stdlib", &[], &[]),

    row("runtime-bridge/abi", &[], &[]),
    row("runtime-bridge/engine", &["abi"], &["support"]),
    row("runtime-bridge/trace", &[], &["support"]),
    row("runtime-bridge/shm", &["abi", "engine", "trace"], &["support"]),
    row("runtime-bridge/verify", &["abi"], &[]),
    row("runtime-bridge/jit", &["abi"], &[]),
    row("runtime-bridge/kernel", &["abi"], &[]),
    row("runtime-bridge/agent", &["abi", "engine", "jit", "shm", "trace", "verify"], &[]),
    row("runtime-bridge/preload", &["agent"], &[]),
    row("runtime-bridge/supervisor", &["abi", "engine", "jit", "shm", "trace", "verify"], &[]),
    row("runtime-bridge/bpftime", &["abi", "kernel", "verify"], &[]),
    row("runtime-bridge/disk", &[], &[]),
    row("runtime-bridge/disk-sync", &["disk"], &[]),
    row("runtime-bridge/workload", &["disk", "shm"], &[]),

    row("compiler/bpf", &["abi"], &["verify"]),
    row("compiler/certify", &["abi"], &[]),
    row("compiler/core", &["abi", "bpf", "grammar", "stdlib"], &["support", "verify"]),
    row("compiler/prove", &["abi", "core", "engine", "grammar", "jit"], &[]),
    row("compiler/simulate", &["abi", "core", "engine", "jit", "prove", "trace"],
        &["driver", "grammar", "stdlib", "workload"]),
    row("compiler/driver", &["abi", "bpf", "certify", "core", "engine", "grammar", "prove", "stdlib", "verify"],
        &["jit", "naive", "simulate", "support", "trace"]),
    row("compiler/lsp", &["abi", "core", "driver", "grammar", "stdlib"], &[]),
    row("compiler/cli", ANY, ANY),

    row("tests", ANY, ANY),
    row("tests/fuzz-bodies", ANY, ANY),
    row("tests/naive", &["abi", "engine", "prove"], &[]),
    row("tests/support", &["trace"], &[]),
    row("tests/faulty/agent", &["abi", "engine", "jit", "shm", "trace", "verify"], &[]),
    row("tests/faulty/preload", &["faulty-agent"], &[]),
    row("tests/faulty/prove", &["abi", "core", "engine", "grammar", "jit"], &[]),
    row("tests/faulty/supervisor", &["abi", "engine", "jit", "shm", "trace", "verify"], &[]),
];

/// Crates that may use nothing from outside the workspace but these. The engine is pure: no clock, no
/// system calls, no allocator of its own.
const OUTSIDE: &[(&str, &[&str])] =
    &[("runtime-bridge/engine", &[]), ("stdlib", &[]), ("tests/support", &[])];

/// Crates whose source is another's: the agent, its library, the prover and the supervisor, built once more with faults.
const BUILT_AGAIN: &[&str] = &[
    "tests/faulty/agent",
    "tests/faulty/preload",
    "tests/faulty/prove",
    "tests/faulty/supervisor",
];

/// What a crate is called: its folder, or below `tests` the path of its folder.
fn short(folder: &str) -> String {
    match folder.strip_prefix("tests/") {
        Some(path) => path.replace('/', "-"),
        None => folder.rsplit('/').next().unwrap_or(folder).to_owned(),
    }
}

/// What is wrong with the packages, one line for each fault.
fn faults(metadata: &Value, crates: &[Crate]) -> Vec<String> {
    let root = Path::new(text(metadata, "workspace_root"));
    let mut faults = Vec::new();
    for package in list(metadata, "packages") {
        let name = text(package, "name");
        let manifest = Path::new(text(package, "manifest_path"));
        let folder = manifest.parent().and_then(|path| path.strip_prefix(root).ok());
        let folder = folder.and_then(Path::to_str).unwrap_or(name);
        let short = short(folder);
        if name != format!("durac-{short}") {
            faults.push(format!("{folder}: the package is called `{name}`, not `durac-{short}`"));
        }
        for target in list(package, "targets") {
            let source = Path::new(text(target, "src_path"));
            if !source.starts_with(root.join(folder)) && !BUILT_AGAIN.contains(&folder) {
                faults.push(format!("{folder}: {} is not its own", source.display()));
            }
        }
        let Some(row) = crates.iter().find(|row| row.folder == folder) else {
            faults.push(format!("{folder}: not in the table"));
            continue;
        };
        for dependency in list(package, "dependencies") {
            let used = text(dependency, "name");
            let outside = dependency["path"].is_null();
            // A dependency of the library and of its build script has another kind, or none.
            let dev = text(dependency, "kind") == "dev";
            if outside {
                let only = OUTSIDE.iter().find(|(folder, _)| *folder == row.folder);
                if only.is_some_and(|(_, only)| !only.contains(&used)) && !dev {
                    faults.push(format!("{folder} -> {used}: may not use this from outside"));
                }
                continue;
            }
            let used = used.strip_prefix("durac-").unwrap_or(used);
            let may = |list: &[&str]| list.contains(&used) || list.contains(&"*");
            if !(may(row.uses) || dev && may(row.tests)) {
                let kind = if dev { " (in tests)" } else { "" };
                faults.push(format!("{folder} -> {used}{kind}: not allowed"));
            }
        }
    }
    faults
}

/// The `#[path]` attributes in `source`, a file, that lead out of the crate in `folder`.
fn paths_outside(source: &Path, content: &str, folder: &Path) -> Vec<String> {
    let line_starts = content.lines().map(str::trim_start);
    let attributes = line_starts.filter_map(|line| line.strip_prefix("#[path"));
    let mut outside = Vec::new();
    for attribute in attributes {
        let Some(path) = attribute.split('"').nth(1) else { continue };
        let target = normal(&source.parent().unwrap_or(source).join(path));
        if !target.starts_with(folder) {
            outside.push(format!(
                "{}: #[path = \"{path}\"] leads into another crate",
                source.display()
            ));
        }
    }
    outside
}

/// The path without `..`.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}

#[test]
fn crates_use_only_what_the_table_allows() {
    let faults = faults(&metadata(false), CRATES);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_table_names_only_crates_that_exist() {
    let gone = |row: &&Crate| !root().join(row.folder).join("Cargo.toml").exists();
    let gone: Vec<_> = CRATES.iter().filter(gone).map(|row| row.folder).collect();
    assert!(gone.is_empty(), "{gone:?}");
    for row in CRATES {
        for used in row.uses.iter().chain(row.tests).filter(|used| **used != "*") {
            let known = |row: &Crate| short(row.folder) == *used;
            assert!(CRATES.iter().any(known), "{}: {used}", row.folder);
        }
    }
}

/// The table itself keeps the direction, so that nobody allows an arrow by mistake.
#[test]
fn the_runtime_bridge_uses_nothing_above_it() {
    let below = |name: &str| {
        let is = |row: &&Crate| short(row.folder) == name;
        let folder = CRATES.iter().find(is).map_or("", |row| row.folder);
        folder.starts_with("runtime-bridge/") || folder == "tests/support"
    };
    for row in CRATES.iter().filter(|row| row.folder.starts_with("runtime-bridge/")) {
        for used in row.uses.iter().chain(row.tests) {
            assert!(below(used), "{} -> {used}", row.folder);
        }
    }
}

#[test]
fn no_module_lies_in_another_crate() {
    let mut outside = Vec::new();
    files("rs", root(), root(), &mut |source, of_crate| {
        let content = std::fs::read_to_string(source).unwrap();
        outside.extend(paths_outside(source, &content, of_crate));
    });
    assert!(outside.is_empty(), "{}", outside.join("\n"));
}

/// Metadata of one package.
fn package(folder: &str, name: &str, source: &str, dependencies: Value) -> Value {
    serde_json::json!({
        "workspace_root": "/w",
        "packages": [{
            "name": name,
            "manifest_path": format!("/w/{folder}/Cargo.toml"),
            "targets": [{ "src_path": source }],
            "dependencies": dependencies,
        }],
    })
}

#[test]
fn each_kind_of_fault_is_found() {
    let ours = |name: &str, kind: Value| serde_json::json!([{ "name": name, "path": "/w/x", "kind": kind }]);
    let theirs = |kind: Value| serde_json::json!([{ "name": "libc", "kind": kind }]);
    let engine = "runtime-bridge/engine";
    let inside = "/w/runtime-bridge/engine/src/lib.rs";
    let check = |folder, name, source, dependencies| {
        faults(&package(folder, name, source, dependencies), CRATES).join("\n")
    };
    let none = String::new();
    let of_engine = |dependencies| check(engine, "durac-engine", inside, dependencies);
    assert_eq!(of_engine(ours("durac-abi", Value::Null)), none);
    assert_eq!(
        of_engine(ours("durac-core", Value::Null)),
        "runtime-bridge/engine -> core: not allowed"
    );
    assert_eq!(
        of_engine(ours("durac-core", "build".into())),
        "runtime-bridge/engine -> core: not allowed"
    );
    assert_eq!(
        of_engine(ours("durac-core", "dev".into())),
        "runtime-bridge/engine -> core (in tests): not allowed"
    );
    assert_eq!(
        of_engine(theirs(Value::Null)),
        "runtime-bridge/engine -> libc: may not use this from outside"
    );
    assert_eq!(of_engine(theirs("dev".into())), none);
    let bpf = |kind| {
        check("compiler/bpf", "durac-bpf", "/w/compiler/bpf/src/lib.rs", ours("durac-verify", kind))
    };
    assert_eq!(bpf("dev".into()), none);
    assert_eq!(bpf(Value::Null), "compiler/bpf -> verify: not allowed");
    let nothing = || serde_json::json!([]);
    assert_eq!(
        check(engine, "durac-rules", inside, nothing()),
        "runtime-bridge/engine: the package is called `durac-rules`, not `durac-engine`"
    );
    assert_eq!(
        check("compiler/new", "durac-new", "/w/compiler/new/src/lib.rs", nothing()),
        "compiler/new: not in the table"
    );
    assert_eq!(
        check(engine, "durac-engine", "/w/runtime-bridge/agent/src/lib.rs", nothing()),
        "runtime-bridge/engine: /w/runtime-bridge/agent/src/lib.rs is not its own"
    );
}

#[test]
fn a_module_of_another_crate_is_found() {
    let of =
        |content| paths_outside(Path::new("/w/a/src/lib.rs"), content, Path::new("/w/a")).len();
    assert_eq!(of("#[path = \"../tests/common.rs\"]\nmod common;\n"), 0);
    assert_eq!(of("    #[path = \"../../b/src/lib.rs\"]\n    mod b;\n"), 1);
    assert_eq!(of("// #[path = \"../../b/src/lib.rs\"]\n"), 0);
}
