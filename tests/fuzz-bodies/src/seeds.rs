//! Good input to begin from: the checked-in corpus, and what is made of the ready policies, so that
//! no binary need be checked in.

use crate::{Target, shared};
use durac_abi::Object;
use durac_core::CompileOptions;
use durac_core::hir::Policy;
use durac_grammar::{FileId, Sources};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A ready policy, analysed.
fn analysed(name: &str, text: &str) -> Option<(Sources, FileId, Policy)> {
    let mut sources = Sources::new();
    let file = sources.add(format!("{name}.dur"), text);
    let policy = durac_core::analyse(&mut sources, file, &CompileOptions::new(name)).policy?;
    Some((sources, file, policy))
}

/// A policy with parameters.
pub fn policy() -> Option<&'static Policy> {
    static POLICY: OnceLock<Option<Policy>> = OnceLock::new();
    let ready = || Some(analysed("batch_process", durac_stdlib::policy("batch_process")?.text)?.2);
    POLICY.get_or_init(ready).as_ref()
}

/// The objects of the ready policies that the agent can run.
pub fn objects() -> &'static [Object] {
    static OBJECTS: OnceLock<Vec<Object>> = OnceLock::new();
    OBJECTS.get_or_init(|| {
        let compiled = |ready: &durac_stdlib::Text| {
            let (sources, file, policy) = analysed(ready.name, ready.text)?;
            durac_core::compile(&policy, &sources, file, &CompileOptions::default()).ok()
        };
        durac_stdlib::POLICIES.iter().filter_map(compiled).collect()
    })
}

/// The folder of the corpora and regressions.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// The files of a folder, by name; none if there is no such folder.
///
/// # Errors
/// If one cannot be read.
pub fn files(folder: &Path) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut paths = entries.map(|e| Ok(e?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    paths.into_iter().map(|path| Ok((path.clone(), fs::read(path)?))).collect()
}

/// Everything that a target begins from.
///
/// # Errors
/// If a file of the corpus cannot be read.
pub fn of(target: Target) -> io::Result<Vec<Vec<u8>>> {
    let files = files(&folder().join("corpus").join(target.corpus))?;
    let mut seeds: Vec<Vec<u8>> = files.into_iter().map(|(_, bytes)| bytes).collect();
    match target.corpus {
        "text" => {
            let texts = durac_stdlib::POLICIES.iter().chain(durac_stdlib::TARGETS);
            seeds.extend(texts.map(|ready| ready.text.as_bytes().to_vec()));
        }
        "elf" => seeds.extend(objects().iter().filter_map(|object| durac_bpf::write(object).ok())),
        "code" => {
            for (index, object) in (0u8..).zip(objects()) {
                let program = object.programs.last();
                let code = program.iter().flat_map(|p| &p.insns).flat_map(|i| i.to_bytes());
                seeds.push([index].into_iter().chain(code).collect());
            }
        }
        "note" => {
            let notes = objects().iter().filter_map(|object| serde_json::to_vec(&object.meta).ok());
            seeds.extend(notes);
        }
        "ring" => seeds.extend(shared::rings()?),
        "page" => seeds.extend(shared::pages()?),
        "environment" => seeds.extend(shared::WORDS.iter().map(|word| word.as_bytes().to_vec())),
        _ => {}
    }
    Ok(seeds)
}
