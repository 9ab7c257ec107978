//! Our code beside clang's, in instructions.
//!
//! `cargo bench -p durac-core --bench size`. Each C text in `benches/c` does what the policy of
//! the same name does, early hand-off included. Exits 1 if a policy's code is longer than clang's.

#![allow(
    missing_docs,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a bench reads its cases and prints"
)]

use anyhow::{Context, Result, bail};
use durac_core::CompileOptions;
use durac_grammar::Sources;
use object::{Object, ObjectSection};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Slots of code for each section.
type Slots = BTreeMap<String, usize>;

fn main() -> ExitCode {
    match compare() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("size: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn compare() -> Result<bool> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/c");
    let mut texts: Vec<PathBuf> = std::fs::read_dir(&folder)
        .with_context(|| format!("cannot list {}", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "c"))
        .collect();
    texts.sort();
    if texts.is_empty() {
        bail!("no C texts in {}", folder.display());
    }
    println!("{:<16} {:<16} {:>6} {:>6}", "policy", "section", "durac", "clang");
    let mut all_short = true;
    for path in texts {
        let name = path.file_stem().and_then(|s| s.to_str()).context("a text without a name")?;
        let ours = ours(name, &folder)?;
        let theirs = clang(&path)?;
        for (section, slots) in &ours {
            let other = theirs.get(section).copied().unwrap_or(0);
            let mark = if *slots > other { "  longer" } else { "" };
            all_short &= *slots <= other;
            println!("{name:<16} {section:<16} {slots:>6} {other:>6}{mark}");
        }
    }
    Ok(all_short)
}

fn ours(name: &str, folder: &Path) -> Result<Slots> {
    let beside = folder.join(format!("{name}.dur"));
    let text = match durac_stdlib::policy(name) {
        Some(ready) => ready.text.to_owned(),
        None => std::fs::read_to_string(&beside)
            .with_context(|| format!("no policy for {name}.c: {}", beside.display()))?,
    };
    let mut sources = Sources::new();
    let file = sources.add(name, text);
    let analysis = durac_core::analyse(&mut sources, file, &CompileOptions::new(name));
    let policy = analysis.policy.with_context(|| format!("{name} is wrong"))?;
    let object = durac_core::compile(&policy, &sources, file, &CompileOptions::default())
        .map_err(|found| anyhow::anyhow!("{name}: {found:?}"))?;
    let slots = |p: &durac_abi::object::Program| {
        (p.hook.section(object.meta.runtime).to_owned(), p.insns.len())
    };
    Ok(object.programs.iter().map(slots).collect())
}

fn clang(path: &Path) -> Result<Slots> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("out.o");
    let status = Command::new("clang")
        .args(["-O2", "-target", "bpf", "-mcpu=v3", "-c"])
        .arg(path)
        .arg("-o")
        .arg(&out)
        .status()
        .context("cannot run clang: install it with `apt-get install clang`")?;
    if !status.success() {
        bail!("clang refuses {}", path.display());
    }
    let bytes = std::fs::read(&out)?;
    let file = object::File::parse(bytes.as_slice())?;
    let code = file.sections().filter_map(|section| {
        let name = section.name().ok()?;
        name.starts_with("durac/").then(|| (name.to_owned(), section.size() as usize / 8))
    });
    Ok(code.collect())
}
