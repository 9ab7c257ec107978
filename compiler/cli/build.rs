//! Gathers the pages of `docs/errors` so that `durac explain` works without the repository.

use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let docs = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../docs/errors");
    println!("cargo::rerun-if-changed={}", docs.display());
    let mut pages = Vec::new();
    for entry in fs::read_dir(&docs)? {
        let path = entry?.path();
        let Some(code) = path.file_stem().and_then(|s| s.to_str()).map(str::to_owned) else {
            continue;
        };
        if path.extension().is_some_and(|e| e == "md") {
            println!("cargo::rerun-if-changed={}", path.display());
            pages.push((code, fs::read_to_string(&path)?));
        }
    }
    pages.sort();
    let mut table = String::from("&[\n");
    for (code, text) in pages {
        writeln!(table, "    ({code:?}, {text:?}),")?;
    }
    table.push_str("]\n");
    fs::write(Path::new(&env::var("OUT_DIR")?).join("pages.rs"), table)?;
    Ok(())
}
