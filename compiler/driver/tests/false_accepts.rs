//! Guarantees that the agent would break must be refused; guarantees that hold must be proved.
//!
//! Each file of `cases/` begins with comments: `// expect: kept` or the code of the error, and where it
//! helps `// runtime: bpftime`, `// loses: N` (acknowledged syncs on a power loss, whatever the
//! parameters), `// loses updates: N`, `// loses bytes: N` and `// loses with the process: N`.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reads its cases"
)]

use durac_abi::Runtime;
use durac_driver::Options;
use durac_grammar::{Severity, Sources};
use durac_prove::explore::Most;
use std::path::Path;

/// What a comment at the head of a text says.
fn says<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let mut lines = text.lines().map_while(|line| line.strip_prefix("// "));
    lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
}

fn check(name: &str, text: &str) -> Result<(), String> {
    let runtime = match says(text, "runtime") {
        Some("bpftime") => Runtime::Bpftime,
        None => Runtime::Agent,
        Some(other) => panic!("{name}: {other}"),
    };
    let mut sources = Sources::new();
    let file = sources.add(name, text);
    let options = Options::new("case").with_runtime(runtime);
    let checked = durac_driver::compile(&mut sources, file, &options);
    let errors = checked.analysis.diagnostics.iter().filter(|d| d.severity() == Severity::Error);
    let mut found: Vec<&str> = errors.map(|d| d.code.text()).collect();
    found.dedup();
    let found = if found.is_empty() { "kept".to_owned() } else { found.join(" ") };
    let expected = says(text, "expect").unwrap();
    if found != expected {
        return Err(format!("{name}: expected {expected}, found {found}"));
    }
    let loses = |key, most: fn(&durac_prove::proof::Proof) -> Most| {
        let wanted: Option<u64> = says(text, key).map(|n| n.parse().unwrap());
        match (wanted, &checked.proved) {
            (Some(wanted), Some(proved)) if most(&proved.proof) != Most::Count(wanted) => {
                Err(format!("{name}: {key}: {wanted}, found {:?}", most(&proved.proof)))
            }
            _ => Ok(()),
        }
    };
    loses("loses", |proof| proof.syncs)?;
    loses("loses updates", |proof| proof.updates)?;
    loses("loses bytes", |proof| proof.bytes)?;
    loses("loses with the process", |proof| proof.process.syncs)
}

#[test]
fn cases() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let wrong: Vec<String> = files
        .iter()
        .filter_map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy();
            check(&name, &std::fs::read_to_string(path).unwrap()).err()
        })
        .collect();
    assert!(files.len() > 25, "{} cases", files.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
