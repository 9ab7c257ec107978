//! Starting is not proving: `durac run` of a text that was proved at an earlier start explores no state, and
//! believes nothing else that it finds in the cache.

use anyhow::{Context, Result, ensure};
use durac_tests::{durac, run, run_durac, show};
use durac_workload::child::Ended;
use durac_workload::sys;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const NOBODY: u32 = 65534;
const EARLIER: &str = "checked at an earlier start";
const NOW: &str = "checked now";

/// A folder with a policy and, in `cache`, a cache.
fn folder() -> Result<(TempDir, PathBuf, PathBuf)> {
    let dir = TempDir::new()?;
    let policy = dir.path().join("p.dur");
    fs::write(
        &policy,
        "param n: syncs = 8 in 1..=64\non fdatasync: await pending < n; defer\nflush within 1s\n",
    )?;
    let cache = dir.path().join("cache");
    Ok((dir, policy, cache))
}

fn start(policy: &Path, cache: &Path, more: &[&str]) -> Result<Ended> {
    let mut command = durac([&["run", "-v"], more].concat())?;
    command.arg(policy).args(["--", "true"]).env("DURAC_CACHE", cache);
    run(command)
}

/// Starts, and expects that it was proved `when`.
fn expect(policy: &Path, cache: &Path, more: &[&str], when: &str) -> Result<String> {
    let ended = start(policy, cache, more)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    ensure!(ended.stderr.contains(when), "not {when}: {}", show(&ended));
    let states =
        ended.stderr.lines().find(|l| l.contains("states explored")).context("no count")?;
    ensure!(states.ends_with(": 0 states explored") == (when == EARLIER), "{states}");
    Ok(ended.stderr)
}

fn entries(cache: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(cache)? {
        all.push(entry?.path());
    }
    all.sort();
    Ok(all)
}

fn only_entry(cache: &Path) -> Result<PathBuf> {
    let all = entries(cache)?;
    ensure!(all.len() == 1, "{all:?}");
    all.into_iter().next().context("no entry")
}

#[test]
fn the_second_start_does_not_prove() -> Result<()> {
    let (_dir, policy, cache) = folder()?;
    expect(&policy, &cache, &[], NOW)?;
    let entry = only_entry(&cache)?;
    let kind = fs::metadata(&entry)?;
    ensure!(kind.mode() & 0o777 == 0o600, "{:o}", kind.mode());
    ensure!(fs::metadata(&cache)?.mode() & 0o777 == 0o700, "the folder is open");
    expect(&policy, &cache, &[], EARLIER)?;
    // Warnings about the text are not lost.
    fs::write(&policy, "on fdatasync: await previous; skip\n")?;
    ensure!(expect(&policy, &cache, &[], NOW)?.contains("W0104"), "no warning");
    ensure!(expect(&policy, &cache, &[], EARLIER)?.contains("W0104"), "no warning");

    // Another text, other settings, another name: other proofs.
    let before = entries(&cache)?.len();
    expect(Path::new("window"), &cache, &[], NOW)?;
    expect(Path::new("window"), &cache, &["--set", "n=9"], NOW)?;
    expect(Path::new("window"), &cache, &["--set", "n=9"], EARLIER)?;
    expect(Path::new("window"), &cache, &["--no-cache"], NOW)?;
    ensure!(entries(&cache)?.len() == before + 2, "{:?}", entries(&cache)?);

    // Compiled, it is not proved either.
    let object = policy.with_extension("o");
    let ended =
        run_durac(["compile".as_ref(), policy.as_os_str(), "-o".as_ref(), object.as_os_str()])?;
    ensure!(ended.status.success(), "{}", show(&ended));
    let ended = start(&object, &cache, &[])?;
    ensure!(ended.stderr.contains("0 states explored"), "{}", show(&ended));
    Ok(())
}

#[test]
fn a_wrong_policy_is_wrong_at_each_start() -> Result<()> {
    let (_dir, policy, cache) = folder()?;
    fs::write(
        &policy,
        "guarantee loss <= 2 syncs on power_loss\non fdatasync: await pending < 9; defer\n",
    )?;
    for _ in 0..2 {
        let ended = start(&policy, &cache, &[])?;
        ensure!(
            ended.status.code() == Some(1) && ended.stderr.contains("E0501"),
            "{}",
            show(&ended)
        );
        ensure!(entries(&cache)?.is_empty(), "a refused policy was stored");
    }
    Ok(())
}

/// Whatever is in the entry's place, the policy is proved again, and the entry is right afterwards.
#[test]
fn a_tampered_entry_is_not_used() -> Result<()> {
    let (dir, policy, cache) = folder()?;
    expect(&policy, &cache, &[], NOW)?;
    let entry = only_entry(&cache)?;
    let right = fs::read(&entry)?;
    let ignored = |what: &str, why: &str| -> Result<()> {
        let said = expect(&policy, &cache, &[], NOW).context(what.to_owned())?;
        ensure!(said.contains("ignoring `") && said.contains(why), "{what}: {said}");
        ensure!(fs::read(&entry)? == right, "{what}: the entry was not replaced");
        expect(&policy, &cache, &[], EARLIER)?;
        Ok(())
    };

    let mut flipped = right.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    fs::write(&entry, &flipped)?;
    ignored("a flipped bit", "proving again")?;
    fs::write(&entry, &right[..right.len() - 9])?;
    ignored("a torn file", "proving again")?;
    fs::write(&entry, [])?;
    ignored("an empty file", "proving again")?;

    // A good object, of another policy: one that never syncs.
    let other = dir.path().join("other.o");
    let ended = run_durac(["compile".as_ref(), "no".as_ref(), "-o".as_ref(), other.as_os_str()])?;
    ensure!(ended.status.success(), "{}", show(&ended));
    fs::copy(&other, &entry)?;
    ignored("another policy's object", "not what the policy compiles to")?;

    // The same text with another value, which `durac compile` has proved.
    let ended = run_durac([
        "compile".as_ref(),
        policy.as_os_str(),
        "--set".as_ref(),
        "n=64".as_ref(),
        "-o".as_ref(),
        other.as_os_str(),
    ])?;
    ensure!(ended.status.success(), "{}", show(&ended));
    fs::copy(&other, &entry)?;
    ignored("another value", "not what the policy compiles to")?;

    fs::set_permissions(&entry, fs::Permissions::from_mode(0o666))?;
    ignored("a file that all can write", "other users can write to it")?;
    let kept = dir.path().join("kept.o");
    fs::rename(&entry, &kept)?;
    symlink(&kept, &entry)?;
    ignored("a link", "ignoring")?;
    ensure!(fs::read(&kept)? == right, "written through the link");
    if sys::is_root() {
        chown(&entry, Some(NOBODY), None)?;
        ignored("another user's file", "another user's file")?;
    }
    Ok(())
}

#[test]
fn a_folder_that_is_not_our_own_is_not_used() -> Result<()> {
    let (dir, policy, cache) = folder()?;
    fs::create_dir(&cache)?;
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o777))?;
    for _ in 0..2 {
        ensure!(expect(&policy, &cache, &[], NOW)?.contains("not using the cache"), "used");
    }
    ensure!(entries(&cache)?.is_empty(), "written to");
    let elsewhere = dir.path().join("elsewhere");
    fs::create_dir(&elsewhere)?;
    let link = dir.path().join("link");
    symlink(&elsewhere, &link)?;
    ensure!(
        expect(&policy, &link, &[], NOW)?.contains("not using the cache"),
        "a link was followed"
    );
    ensure!(entries(&elsewhere)?.is_empty(), "written to");
    // Relative to which folder?
    let relative = Path::new("cache");
    let said = expect(&policy, relative, &[], NOW)?;
    ensure!(said.contains("DURAC_CACHE must be an absolute path"), "{said}");
    let mut command = durac(["doctor"])?;
    command.env("DURAC_CACHE", relative);
    let ended = run(command)?;
    ensure!(ended.stdout.contains("DURAC_CACHE must be an absolute path"), "{}", show(&ended));
    // No place for it: no word about it.
    let nowhere = Path::new("/proc/durac/cache");
    let said = expect(&policy, nowhere, &[], NOW)?;
    ensure!(!said.contains("cache"), "{said}");
    Ok(())
}

/// Many starts at once, with an entry and without: each runs, and one entry is left.
#[test]
fn starts_at_once_leave_one_whole_entry() -> Result<()> {
    let (_dir, policy, cache) = folder()?;
    let mut starts = Vec::new();
    for _ in 0..8 {
        let mut command = durac(["run", "-v"])?;
        command.arg(&policy).args(["--", "true"]).env("DURAC_CACHE", &cache);
        starts.push(std::thread::spawn(move || run(command)));
    }
    for started in starts {
        let ended = started.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        ensure!(ended.status.success() && !ended.stderr.contains("ignoring"), "{}", show(&ended));
    }
    only_entry(&cache)?;
    expect(&policy, &cache, &[], EARLIER)?;
    Ok(())
}

#[test]
fn the_cache_has_a_limit() -> Result<()> {
    let (_dir, policy, cache) = folder()?;
    expect(&policy, &cache, &[], NOW)?;
    let entry = only_entry(&cache)?;
    let bytes = fs::read(&entry)?;
    for i in 0..80 {
        fs::write(cache.join(format!("{i:064x}.o")), &bytes)?;
    }
    fs::write(cache.join("notes.txt"), "mine")?;
    // Used lately: it stays.
    expect(&policy, &cache, &[], EARLIER)?;
    expect(Path::new("window"), &cache, &[], NOW)?;
    let all = entries(&cache)?;
    ensure!(all.len() == 65, "{} files", all.len());
    ensure!(entry.exists() && cache.join("notes.txt").exists(), "{all:?}");
    Ok(())
}

/// A proof that takes long says how to make it beforehand.
#[test]
fn a_long_proof_says_so() -> Result<()> {
    let (_dir, policy, cache) = folder()?;
    fs::write(&policy, "on fdatasync: await pending < 4000; defer\nflush within 50ms\n")?;
    let mut command = durac(["run", "-v"])?;
    command.arg(&policy).args(["--", "true"]).env("DURAC_CACHE", &cache);
    let ended = run(command)?;
    ensure!(ended.status.success() && ended.stderr.contains(NOW), "{}", show(&ended));
    // How long it takes is the machine's affair.
    let told = ended.stderr.contains("takes long; to start without: `durac compile");
    let kept = ended.stderr.contains("kept for the next start");
    ensure!(told == kept, "{}", show(&ended));
    expect(&policy, &cache, &[], EARLIER)?;
    Ok(())
}
