//! The examples: what their pages say of a crash is what `durac check` says, their figures are those of
//! docs/performance.md, and each policy runs on a real Redis.

use anyhow::{Context, Result, ensure};
use durac_tests::server::Under;
use durac_tests::{POLICIES, durac, heavy, patched_redis, run, run_durac, show};
use durac_workload::Stop;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Set, figures that differ from docs/performance.md are replaced by those there.
const BLESS: &str = "DURAC_BLESS";

/// The folders that the case study has, and what else there must be.
const FOLDERS: [&str; 22] = [
    "adaptive",
    "at-least",
    "batch-process",
    "bpf-sync-kernel",
    "bpftime",
    "delayed-fsync",
    "external-synchrony",
    "fsync-fast-notify",
    "gathered",
    "goleveldb",
    "group-commit",
    "influxdb",
    "iouring-batch",
    "leveldb",
    "one-liner",
    "own-target",
    "patched-redis",
    "redis-modes",
    "rocksdb",
    "sqlite",
    "updates",
    "window",
];

/// Policies that no Redis can run: they are for other applications.
const NOT_RUN: [&str; 7] =
    ["at_least", "goleveldb", "influxdb", "ledger", "leveldb", "rocksdb", "sqlite"];

fn root() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")
}

/// A folder with its page and its policies.
struct Example {
    name: String,
    page: PathBuf,
    text: String,
    /// The policies, as paths from the workspace's root.
    policies: Vec<String>,
}

fn examples() -> Result<Vec<Example>> {
    let mut all = Vec::new();
    for folder in fs::read_dir(root()?.join("examples"))? {
        let folder = folder?.path();
        if !folder.is_dir() {
            continue;
        }
        let mut policies = Vec::new();
        for file in fs::read_dir(&folder)? {
            let path = file?.path();
            if path.extension().is_some_and(|e| e == "dur") {
                policies.push(path.strip_prefix(root()?)?.to_string_lossy().into_owned());
            }
        }
        policies.sort();
        let page = folder.join("README.md");
        let text = fs::read_to_string(&page).with_context(|| page.display().to_string())?;
        let name = folder.file_name().context("no name")?.to_string_lossy().into_owned();
        all.push(Example { name, page, text, policies });
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// Runs `durac` where the pages' paths are right.
fn at_root(words: &[&str]) -> Result<durac_workload::child::Ended> {
    let mut command = durac(words)?;
    command.current_dir(root()?);
    run(command)
}

#[test]
fn every_folder_has_a_policy_and_a_page() -> Result<()> {
    let all = examples()?;
    let names: Vec<&str> = all.iter().map(|e| e.name.as_str()).collect();
    ensure!(names == FOLDERS, "{names:?}");
    for example in &all {
        ensure!(!example.policies.is_empty(), "{}: no policy", example.name);
    }
    Ok(())
}

/// The lines that follow `$ durac check …` on a page, with the words of the command.
fn checked(text: &str) -> Vec<(Vec<&str>, Vec<&str>)> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(words) = line.strip_prefix("    $ durac ") {
            let said = lines.by_ref().take_while(|l| !l.is_empty()).map(str::trim).collect();
            found.push((words.split(' ').collect(), said));
        }
    }
    found
}

#[test]
fn the_pages_say_what_can_be_lost() -> Result<()> {
    for example in examples()? {
        let mut policies: BTreeSet<&str> = example.policies.iter().map(String::as_str).collect();
        for (words, said) in checked(&example.text) {
            let ended = at_root(&words)?;
            ensure!(ended.status.success(), "{words:?}: {}", show(&ended));
            let is: Vec<&str> = ended.stdout.lines().map(str::trim).collect();
            for line in &said {
                ensure!(is.contains(line), "{words:?}: `{line}`, but\n{}", ended.stdout);
            }
            for crash in ["loses on process_crash: ", "loses on power_loss: "] {
                ensure!(said.iter().any(|l| l.starts_with(crash)), "{words:?}: no `{crash}`");
            }
            policies.remove(words.last().context("no policy")?);
        }
        ensure!(policies.is_empty(), "{}: no word on {policies:?}", example.name);
    }
    Ok(())
}

/// What has the name of a ready policy is that policy, letter for letter.
#[test]
fn ready_policies_are_the_ready_ones() -> Result<()> {
    let mut found = Vec::new();
    for path in examples()?.iter().flat_map(|e| &e.policies) {
        let stem = Path::new(path).file_stem().context("no name")?.to_string_lossy().into_owned();
        if POLICIES.contains(&stem.as_str())
            || ["at_least", "external_synchrony", "gathered"].contains(&stem.as_str())
        {
            let list = run_durac(["list", "--show", &stem])?;
            ensure!(list.stdout == fs::read_to_string(root()?.join(path))?, "{path}");
            found.push(stem);
        }
    }
    for policy in POLICIES {
        ensure!(found.iter().any(|f| f == policy), "no example of {policy}");
    }
    Ok(())
}

/// Name of the mode of a row of a bench's table; the columns stand two blanks apart.
fn mode(row: &str) -> Option<&str> {
    let (mode, rest) = row.trim_start().split_once("  ")?;
    (row.starts_with("    ") && rest.split_whitespace().count() >= 10).then_some(mode)
}

/// The rows on the pages are those of the case study in docs/performance.md.
#[test]
fn the_figures_are_the_measured_ones() -> Result<()> {
    let measured = fs::read_to_string(root()?.join("docs/performance.md"))?;
    let measured = measured.split("\n## ").find(|part| part.starts_with("The case study"));
    let measured = measured.context("docs/performance.md has no case study")?;
    for example in examples()? {
        let mut text = String::new();
        let mut rows = 0;
        for line in example.text.lines() {
            let row = mode(line);
            let same = row.and_then(|row| measured.lines().find(|l| mode(l) == Some(row)));
            ensure!(row.is_some() == same.is_some(), "{}: not measured: {line}", example.name);
            rows += usize::from(row.is_some());
            text.push_str(same.unwrap_or(line));
            text.push('\n');
        }
        if text != example.text {
            ensure!(
                std::env::var_os(BLESS).is_some(),
                "{}: other figures; set {BLESS}",
                example.name
            );
            fs::write(&example.page, &text)?;
        }
        let none = [
            "at-least",
            "external-synchrony",
            "gathered",
            "goleveldb",
            "influxdb",
            "leveldb",
            "one-liner",
            "own-target",
            "rocksdb",
            "sqlite",
            "updates",
        ]
        .contains(&&*example.name);
        ensure!(none || rows > 1, "{}: no figures", example.name);
    }
    Ok(())
}

/// Each policy is loaded, and everything acknowledged is read back after a restart.
#[test]
fn each_runs_on_redis() -> Result<()> {
    let _turn = heavy()?;
    for path in examples()?.iter().flat_map(|e| &e.policies) {
        let stem = Path::new(path).file_stem().context("no name")?;
        if NOT_RUN.iter().any(|name| stem == *name) {
            continue;
        }
        if path.starts_with("examples/bpftime/") {
            let ended = at_root(&["compile", "--runtime", "bpftime", path, "-o", "-"])?;
            ensure!(ended.status.success(), "{path}: {}", show(&ended));
            // BPFtime is not here: the same text runs under the agent.
        }
        let mut under = Under::policy(root()?.join(path));
        if fs::read_to_string(root()?.join(path))?.contains("target redis.patched") {
            under = under.program(patched_redis()?);
        }
        let mut server = under.start().with_context(|| path.clone())?;
        let acknowledged = server.write(4, 1, 100, 0).join();
        ensure!(acknowledged.errors.is_empty(), "{path}: {:?}", acknowledged.errors);
        // What a patched server's entries answer is no call of libc's; what is synced then is.
        let seen = server.witness.logs()?;
        ensure!(seen.acknowledged > 0 || seen.syncs > 0, "{path}: no call was seen");
        server.reads_back(Stop::Shutdown, &[&acknowledged]).with_context(|| path.clone())?;
    }
    Ok(())
}
