//! `use kernel notify`, from the policy's text to the running application. These tests need root.

use anyhow::{Context, Result, bail, ensure};
use durac_tests::{cc, durac, run, show};
use durac_workload::child::{self, Ended};
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Refuses the call after five syncs, whoever made them.
const FIVE: &str =
    "use kernel notify\non fdatasync { if notify.count >= 5 { fail EROFS }\n pass }\n";
const LOG: &str = "appendonly.aof.1.incr.aof";
const SAYS: &str = "durac: kernel notify: ";
const NOT_LOADED: &str = "durac: kernel notify is not loaded: ";

fn app() -> Result<PathBuf> {
    cc("syncs.c", "syncs", &[])
}

/// A folder with the policy `five.dur`, on ext4 where the tests are built.
fn folder() -> Result<TempDir> {
    let dir = TempDir::with_prefix_in("notify-", durac_tests::bin_dir()?)?;
    fs::write(dir.path().join("five.dur"), FIVE)?;
    Ok(dir)
}

/// Runs the application under a policy in `dir`, with words before it.
fn under(policy: &str, dir: &Path, before: &[&str], letters: &str) -> Result<Ended> {
    let mut command = durac(["run", policy, "--"])?;
    command.args(before).arg(app()?).args([LOG, letters]).current_dir(dir);
    run(command)
}

/// Whether the programs run; else what the tests need.
fn is_loaded(ended: &Ended) -> Result<()> {
    ensure!(ended.status.success(), "{}", show(ended));
    ensure!(
        ended.stderr.contains(SAYS) && !ended.stderr.contains("completions"),
        "the kernel's programs do not run (this test needs root and a kernel with BTF): {}",
        show(ended)
    );
    Ok(())
}

#[test]
fn notify_count_counts_syncs_past_the_hooks() -> Result<()> {
    let dir = folder()?;
    let ended = under("five.dur", dir.path(), &[], "wrwrwrwrswrs")?;
    is_loaded(&ended)?;
    // Four, and the call's own makes five.
    ensure!(ended.stdout == "ok\nEROFS\n", "{}", show(&ended));
    Ok(())
}

/// The same as root without any capability: nothing is loaded, `durac run` says so, and the policy
/// runs on the engine's own completions.
#[test]
fn without_privileges_the_engine_answers() -> Result<()> {
    let dir = folder()?;
    let mut command = child::command(&[], &child::which("setpriv")?);
    command.args(["--bounding-set=-all", "--inh-caps=-all"]).arg(durac_tests::tool()?);
    command.args(["run", "five.dur", "--"]).arg(app()?).args([LOG, "wrwrwrwrwrswrs"]);
    let ended = run({
        command.current_dir(dir.path());
        command
    })?;
    ensure!(ended.status.success() && ended.stdout == "ok\nok\n", "{}", show(&ended));
    let lines: Vec<&str> = ended.stderr.lines().filter(|l| l.starts_with(NOT_LOADED)).collect();
    ensure!(lines.len() == 1, "{}", show(&ended));
    ensure!(ended.stderr.contains("using the engine's own completions"), "{}", show(&ended));
    ensure!(ended.stderr.contains("not permitted"), "{}", show(&ended));
    Ok(())
}

/// A system call filter kills processes for what durac alone calls: not the application.
#[test]
fn a_filter_does_not_kill_the_application() -> Result<()> {
    let filter = cc("filter.c", "filter", &[])?;
    let run_under = |calls: &str| -> Result<Ended> {
        let dir = folder()?;
        let mut command = child::command(&[], &filter);
        command.arg(calls).arg(durac_tests::tool()?).args(["run", "five.dur", "--"]);
        command.arg(app()?).args([LOG, "wrwrwrwrswrs"]).current_dir(dir.path());
        run(command)
    };
    durac_tests::agent()?;
    let without = "durac: kernel notify is not loaded: a system call filter kills processes that call bpf; \
                   using the engine's own completions\n";
    for (calls, loads) in [
        ("prctl,pidfd_open,setsid,close_range,rt_sigpending,kcmp", true),
        ("bpf", false),
        ("bpf,prctl,pidfd_open,setsid,close_range,rt_sigpending,kcmp", false),
    ] {
        let ended = run_under(calls)?;
        ensure!(ended.status.success(), "{calls}: {}", show(&ended));
        ensure!(ended.stdout == if loads { "ok\nEROFS\n" } else { "ok\nok\n" }, "{}", show(&ended));
        ensure!(ended.stderr.contains(without) != loads, "{}", show(&ended));
        ensure!(ended.stderr.contains("is in force"), "{calls}: {}", show(&ended));
    }
    Ok(())
}

/// Root loads the programs, and the application is somebody else: the descriptor is open already.
#[test]
fn an_application_that_drops_its_privileges_reads_the_map() -> Result<()> {
    // Where everybody may look: the build folder may be inside a home.
    let dir = TempDir::with_prefix("durac-notify-")?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777))?;
    fs::write(dir.path().join("five.dur"), FIVE)?;
    let program = dir.path().join("syncs");
    durac_tests::copy_program(&app()?, &program)?;
    let tool = dir.path().join("durac");
    durac_tests::copy_program(&durac_tests::tool()?, &tool)?;
    durac_tests::copy_program(&durac_tests::agent()?, dir.path().join("libdurac_preload.so"))?;
    let mut command = child::command(&[], &tool);
    command.args(["run", "five.dur", "--", "setpriv", "--reuid=65534", "--regid=65534"]);
    command.arg("--clear-groups").arg(&program).args([LOG, "wrwrwrwrswrs"]).current_dir(dir.path());
    let ended = run(command)?;
    is_loaded(&ended)?;
    ensure!(!ended.stderr.contains("without a policy"), "{}", show(&ended));
    ensure!(ended.stdout == "ok\nEROFS\n", "{}", show(&ended));
    Ok(())
}

/// An application that closes what it does not know loses the programs, and nothing else.
#[test]
fn descriptors_closed_past_the_hooks_do_no_harm() -> Result<()> {
    let dir = folder()?;
    let ended = under("five.dur", dir.path(), &[], "wrcwrwrwrwrwswrs")?;
    is_loaded(&Ended { stderr: ended.stderr.replace("completions", ""), ..ended.clone() })?;
    ensure!(ended.stdout == "ok\nok\n", "{}", show(&ended));
    ensure!(ended.stderr.contains("a sync was not counted"), "{}", show(&ended));
    Ok(())
}

/// Calls of `fdatasync` that strace sees when the application syncs its log by itself before each hooked
/// call.
fn syncs(policy: &str) -> Result<usize> {
    let dir = folder()?;
    fs::write(dir.path().join("policy.dur"), policy)?;
    let text = dir.path().join("strace.txt");
    let text = text.to_str().context("path")?;
    let words = ["strace", "-f", "-e", "trace=fdatasync", "-o", text];
    let ended = under("policy.dur", dir.path(), &words, &"wrs".repeat(ROUNDS))?;
    if policy.starts_with(USE) {
        is_loaded(&ended)?;
    }
    ensure!(ended.status.success(), "{}", show(&ended));
    ensure!(ended.stdout == "ok\n".repeat(ROUNDS), "{}", show(&ended));
    let seen = fs::read_to_string(text)?;
    Ok(seen.lines().filter(|line| line.contains("fdatasync(")).count())
}

const ROUNDS: usize = 200;
const USE: &str = "use kernel notify\n";

/// What the kernel has counted is not synced again, and nobody waits for it. Neither policy ever has a
/// sync in the background, so the counts do not depend on how fast anything is.
#[test]
fn syncs_that_the_kernel_has_counted_are_not_made_again() -> Result<()> {
    // What each syncs without the counts: every call, and every second, since the sync that a call waits
    // for covers that call, too.
    for (policy, own) in [
        ("on fdatasync { if notify.done { skip }\n pass }\n", ROUNDS),
        ("on fdatasync: await previous; skip\n", ROUNDS / 2),
    ] {
        let (with, without) = (syncs(&format!("{USE}{policy}"))?, syncs(policy)?);
        // The application's own, and what the end of the process may still drain.
        ensure!((ROUNDS..=ROUNDS + 1).contains(&with), "{policy}: {with} with the kernel's counts");
        ensure!(without >= ROUNDS + own, "{policy}: {without} without them");
    }
    Ok(())
}

/// ext4 on a loop device whose backing file finds no room for what is written.
struct Small {
    dir: TempDir,
    mounted: Vec<PathBuf>,
}

impl Small {
    fn new() -> Result<Self> {
        let mut small = Self { dir: TempDir::with_prefix("durac-small-")?, mounted: Vec::new() };
        let (memory, disk) = (small.dir.path().join("memory"), small.dir.path().join("disk"));
        let image = memory.join("image");
        fs::create_dir(&memory)?;
        fs::create_dir(&disk)?;
        small.run("mount", &["-t", "tmpfs", "-o", "size=12m", "none"], &memory)?;
        small.mounted.push(memory);
        File::create(&image)?.set_len(64 << 20)?;
        small.run("mkfs.ext4", &["-q", "-O", "^has_journal"], &image)?;
        let image = image.to_str().context("path")?;
        small.run("mount", &["-o", "loop", image], &disk)?;
        small.mounted.push(disk);
        Ok(small)
    }

    fn run(&self, name: &str, words: &[&str], last: &Path) -> Result<()> {
        let mut command = child::command(&[], Path::new(&which(name)?));
        command.args(words).arg(last);
        let ended = run(command)?;
        ensure!(ended.status.success(), "{name} (this test needs root): {}", show(&ended));
        Ok(())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        for place in self.mounted.iter().rev() {
            let unmounted = std::process::Command::new("umount").arg("--lazy").arg(place).status();
            if let Err(error) = unmounted {
                eprintln!("umount: {error}");
            }
        }
    }
}

/// Tools for root are not on everybody's path.
fn which(name: &str) -> Result<OsString> {
    match child::which(name) {
        Ok(path) => Ok(path.into()),
        Err(_) => Ok(format!("/usr/sbin/{name}").into()),
    }
}

/// A sync that the application made past the hooks has failed: no call is acknowledged any more. The
/// engine alone does not know it.
#[test]
fn a_failure_past_the_hooks_stops_the_log() -> Result<()> {
    for (begins, loaded) in [("use kernel notify\n", true), ("", false)] {
        let small = Small::new()?;
        // No background sync, so that nobody else meets the error.
        let policy = small.dir.path().join("skip.dur");
        fs::write(&policy, format!("{begins}on fdatasync: skip\n"))?;
        let policy = policy.to_str().context("path")?;
        let ended = under(policy, &small.dir.path().join("disk"), &[], "wswbs")?;
        if loaded {
            is_loaded(&ended)?;
        }
        let lines: Vec<&str> = ended.stdout.lines().collect();
        let ["ok", failed @ ("EIO" | "ENOSPC"), last] = lines.as_slice() else {
            bail!("{}", show(&ended));
        };
        ensure!(*last == if loaded { failed } else { "ok" }, "{}", show(&ended));
    }
    Ok(())
}
