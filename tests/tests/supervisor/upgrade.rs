//! `durac upgrade`: another program takes over from a running supervisor, and the command does not notice; programs that
//! cannot, and one that dies of it.

use crate::common::{
    LATENCY, SLOW, SLOWEST, Supervised, append, idle_behind, keeper_of, loses_nothing, object,
    poll, seen, unsynced, window,
};
use anyhow::{Context, Result, ensure};
use durac_disk::Cut;
use durac_shm::status::Status;
use durac_tests::{copy_program, heavy, run, run_durac, show, tool};
use durac_workload::child::{self, Ended};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use tempfile::TempDir;

/// Times that another program takes over in one run.
const ROUNDS: usize = 20;

/// A copy of durac.
pub fn copy(folder: &Path, name: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    copy_program(tool()?, &path)?;
    Ok(path)
}

pub fn upgrade(durac: &Path, pid: i32) -> Result<Ended> {
    let mut command = child::command(&[], durac);
    command.args(["upgrade", &pid.to_string()]).env_remove("LD_PRELOAD").env("NO_COLOR", "1");
    run(command)
}

/// `durac` takes over: it runs in the same process, with one keeper.
pub fn takes_over(durac: &Path, pid: i32) -> Result<()> {
    let before = seen(pid)?;
    let ended = upgrade(durac, pid)?;
    ensure!(ended.status.success() && ended.stdout.contains("has taken over"), "{}", show(&ended));
    let now = seen(pid)?;
    ensure!(now.pid == before.pid && now.since > before.since && now.is_supervisor, "{now:?}");
    ensure!((now.policy, now.object, now.is_off) == (before.policy, before.object, before.is_off));
    ensure!(std::fs::read_link(format!("/proc/{pid}/exe"))? == durac);
    // The new one gives itself its name, the old one ends.
    poll("the keeper", || {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        keeper_of(pid).filter(|_| children.split_whitespace().count() == 1)
    })?;
    Ok(())
}

/// Reads what is acknowledged while a thread does something, and some lines after it.
pub fn meanwhile<T: Send + 'static>(
    run: &mut Supervised,
    body: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let body = thread::spawn(body);
    while !body.is_finished() {
        let lines = run.acknowledged.len();
        run.until(lines + 1)?;
        ensure!(run.acknowledged.len() > lines, "the command has ended: {}", run.stderr());
    }
    body.join().ok().context("a panic")?
}

#[test]
fn no_call_fails_while_others_take_over() -> Result<()> {
    let _turn = heavy()?;
    let folder = TempDir::new()?;
    let durac = [copy(folder.path(), "one")?, copy(folder.path(), "two")?];
    let mut run = append(&window(4), LATENCY, "1000000")?;
    run.until(100)?;
    let (pid, _) = run.supervisor()?;
    meanwhile(&mut run, move || {
        // Descriptors of the program before, that nobody closes.
        let open =
            || Ok::<_, std::io::Error>(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count());
        takes_over(&durac[1], pid)?;
        let before = open()?;
        for durac in durac.iter().cycle().take(ROUNDS - 1) {
            takes_over(durac, pid)?;
        }
        // Calls in hand have some.
        poll("few descriptors", || open().ok().filter(|now| *now < before + ROUNDS / 2))?;
        Ok(())
    })?;
    let already = run.acknowledged.len();
    run.until(already + 1000)?;
    ensure!(run.acknowledged.len() == already + 1000, "ended early: {}", run.stderr());
    let deferred: u64 = seen(pid)?.logs.iter().map(|log| log.numbers.deferred).sum();
    ensure!(deferred > 100, "{deferred} calls of 1000 were deferred after the last one");
    let said = run.stderr();
    ensure!(said.matches("has taken over").count() == ROUNDS, "{said}");
    for wrong in ["fdatasync:", "is gone", "stays as it is", "no keeper"] {
        ensure!(!said.contains(wrong), "{said}");
    }
    let lost = run.lose_power("a.log")?.len();
    ensure!(lost <= 4, "{lost} lost under a bound of 4");
    Ok(())
}

#[test]
fn a_command_that_ends_after_it_has_everything_on_the_disk() -> Result<()> {
    let _turn = heavy()?;
    let folder = TempDir::new()?;
    let durac = copy(folder.path(), "durac")?;
    let mut run = append(&window(32), LATENCY, "1500")?;
    run.until(100)?;
    let (pid, _) = run.supervisor()?;
    meanwhile(&mut run, move || takes_over(&durac, pid))?;
    let status = run.end()?;
    ensure!(status.success() && run.acknowledged.len() == 6000, "{status}: {}", run.stderr());
    let program = format!("/proc/{pid}/exe");
    poll("the supervisor's end", || std::fs::read_link(&program).is_err().then_some(()))?;
    ensure!(!run.stderr().contains("is gone"), "{}", run.stderr());
    loses_nothing(run)
}

/// What was deferred is durable when another takes over. No call follows.
#[test]
pub fn nothing_is_behind_when_another_takes_over() -> Result<()> {
    let _turn = heavy()?;
    let folder = TempDir::new()?;
    let durac = copy(folder.path(), "durac")?;
    let (run, pid) = idle_behind(SLOWEST)?;
    takes_over(&durac, pid)?;
    loses_nothing(run)
}

#[test]
fn a_cut_while_another_takes_over_keeps_the_bound() -> Result<()> {
    let _turn = heavy()?;
    let folder = TempDir::new()?;
    let mut most = 0;
    for lines in [1, 5, 15, 40, 80, 150] {
        let durac = copy(folder.path(), &format!("durac-{lines}"))?;
        let mut run = append(&window(8), SLOW, "1000000")?;
        run.until(100)?;
        let (pid, _) = run.supervisor()?;
        let change = thread::spawn(move || upgrade(&durac, pid));
        let already = run.acknowledged.len();
        run.until(already + lines)?;
        let lost = run.lose_power("a.log")?.len();
        ensure!(lost <= 8, "{lost} lost under a bound of 8");
        most = most.max(lost);
        // The syncs before it fail then, or it has taken over.
        let _ = change.join();
    }
    ensure!(most > 0, "nothing was deferred");
    Ok(())
}

/// A program that is none, or does something else.
pub fn script(folder: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755))?;
    Ok(path)
}

/// Has the supervisor try a program that is not durac: the tool names its own, so it is asked by its page.
pub fn ask_for(program: &Path, pid: i32) -> Result<Option<String>> {
    use durac_shm::status::{Answer, Command};
    use std::os::unix::ffi::OsStrExt;
    // A process that another test starts has the lock of the one before for a moment.
    let control = poll("the page's lock", || {
        Status::of_process(pid.try_into().ok()?, true).ok()?.control().ok()
    })?;
    let within = std::time::Duration::from_secs(60);
    let since = seen(pid)?.since;
    let is_over = || seen(pid).map_or(true, |now| now.since != since);
    let bytes = program.as_os_str().as_bytes();
    match control.ask_until(Command::Upgrade, bytes, within, is_over)? {
        Some(Answer::Refused(why)) => Ok(Some(why)),
        _ => Ok(None),
    }
}

#[test]
fn a_program_that_cannot_take_over_leaves_the_old_one_at_work() -> Result<()> {
    let _turn = heavy()?;
    let folder = TempDir::new()?;
    let folder = folder.path();
    let durac = tool()?.display().to_string();
    let mut run = append(&window(8), LATENCY, "1000000")?;
    run.until(100)?;
    let (pid, keeper) = run.supervisor()?;
    let before = seen(pid)?;
    let others = script(folder, "others", "exit 0")?;
    std::fs::set_permissions(&others, PermissionsExt::from_mode(0o777))?;
    let open = folder.join("open");
    std::fs::create_dir(&open)?;
    copy(&open, "durac")?;
    std::fs::set_permissions(&open, PermissionsExt::from_mode(0o777))?;
    let rights = copy(folder, "rights")?;
    std::fs::set_permissions(&rights, PermissionsExt::from_mode(0o4755))?;
    let text = folder.join("text");
    std::fs::write(&text, "no program\n")?;
    std::fs::set_permissions(&text, PermissionsExt::from_mode(0o755))?;
    let cases = [
        (folder.join("missing"), "No such file or directory"),
        (folder.to_owned(), "not a regular file"),
        (others, "others may write to it (mode 777)"),
        (open.join("durac"), "others may write to `"),
        (PathBuf::from("/bin/true"), "not a durac with supervisor support"),
        (script(folder, "cat", "cat")?, "not a durac with supervisor support"),
        // An older version does not know what is asked; a newer one may have another format.
        (
            script(
                folder,
                "older",
                "echo \"error: unexpected argument '--try' found\" >&2; exit 1",
            )?,
            "unexpected argument '--try' found",
        ),
        (
            script(
                folder,
                "newer",
                &format!("perl -0pe 's/^(.{{8}})\\x04/$1\\x63/s' | {durac} \"$@\""),
            )?,
            "hands over in format 99, and this durac knows format 4",
        ),
        (
            script(
                folder,
                "filter",
                &format!("perl -0777pe 's/^(.{{64}})./$1\x63/s' | {durac} \"$@\""),
            )?,
            "its system call filter differs",
        ),
        (
            script(folder, "object", &format!("head -c 300 | {durac} \"$@\""))?,
            "this is not what a supervisor hands over",
        ),
        // It cannot be run any more after it has been tried: the process has let go of everything by then.
        (
            script(
                folder,
                "stays",
                &format!("chmod -x {}/stays; exec {durac} \"$@\"", folder.display()),
            )?,
            "cannot run",
        ),
        (
            script(
                folder,
                "written",
                &format!("echo >> {}/written; exec {durac} \"$@\"", folder.display()),
            )?,
            "was written to while it was tried",
        ),
        (text, "Exec format error"),
        (rights, "it is setuid or setgid (mode 4755)"),
    ];
    let count = cases.len();
    meanwhile(&mut run, move || {
        for (program, why) in &cases {
            let said = ask_for(program, pid)?.context("it took over")?;
            ensure!(said.contains(why), "{}: {said}", program.display());
        }
        Ok(())
    })?;
    let now = seen(pid)?;
    ensure!(now.since == before.since && keeper_of(pid) == Some(keeper), "{now:?}");
    // What it holds is not inherited by others, and it can still be exchanged.
    let program = copy(folder, "durac")?;
    meanwhile(&mut run, move || takes_over(&program, pid))?;
    let said = run.stderr();
    ensure!(said.matches("the supervisor stays as it is").count() == count, "{said}");
    ensure!(!said.contains("fdatasync:"), "{said}");
    let lost = run.lose_power("a.log")?.len();
    ensure!(lost <= 8, "{lost} lost under a bound of 8");
    Ok(())
}

#[test]
pub fn a_program_that_dies_of_it_leaves_the_command_to_the_keeper() -> Result<()> {
    let _turn = heavy()?;
    let folder = TempDir::new()?;
    let durac = tool()?.display().to_string();
    let text = format!("case \"$*\" in *--try*) exec {durac} \"$@\";; esac\nexit 1");
    let dies = script(folder.path(), "dies", &text)?;
    let mut run = append(&window(8), LATENCY, "1500")?;
    run.until(100)?;
    let (pid, _) = run.supervisor()?;
    meanwhile(&mut run, move || {
        ensure!(ask_for(&dies, pid)?.is_none());
        Ok(())
    })?;
    let status = run.end()?;
    ensure!(status.success() && run.acknowledged.len() == 6000, "{status}: {}", run.stderr());
    ensure!(run.stderr().contains("the supervisor is gone"), "{}", run.stderr());
    loses_nothing(run)
}

#[test]
pub fn what_was_changed_while_it_ran_stays() -> Result<()> {
    let _turn = heavy()?;
    let folder = TempDir::new()?;
    let durac = copy(folder.path(), "durac")?;
    let mut run = append(&window(64), SLOW, "1000000")?;
    run.until(60)?;
    let (pid, _) = run.supervisor()?;
    let text = "policy two\ntarget posix.log\nparam n: syncs = 3 in 1..=64\non fdatasync: await pending < n; defer\nflush within 1s\n";
    let second = object(text, folder.path())?;
    let number = pid.to_string();
    let words = |words: &[&str]| -> Result<()> {
        let ended = run_durac(words)?;
        ensure!(ended.status.success(), "{}", show(&ended));
        Ok(())
    };
    words(&["reload", second.to_str().context("a path")?, &number])?;
    words(&["set", "n=2", "--pid", &number])?;
    takes_over(&durac, pid)?;
    let now = seen(pid)?;
    ensure!(now.policy == "two" && now.params.first().is_some_and(|n| n.value == 2), "{now:?}");
    words(&["off", &number])?;
    let mut command = child::command(&[], &durac);
    command.args(["upgrade", &number, "--format", "json"]).env_remove("LD_PRELOAD");
    let document: serde_json::Value = serde_json::from_str(&durac_tests::run(command)?.stdout)?;
    let change = document.pointer("/processes/0").context("a process")?;
    ensure!(
        change["program"] == *durac.to_string_lossy() && change["refused"].is_null(),
        "{change}"
    );
    ensure!(seen(pid)?.is_off);
    words(&["on", &number])?;
    // By a signal, the program at its own path takes over.
    let since = seen(pid)?.since;
    // SAFETY: no pointers.
    unsafe { libc::kill(pid, libc::SIGUSR2) };
    poll("the program at the same path", || {
        seen(pid).ok().filter(|now| now.since != since && !now.is_off)
    })?;
    let already = run.acknowledged.len();
    run.until(already + 1000)?;
    let lost = run.lose_power("a.log")?.len();
    ensure!(lost <= 2, "{lost} lost under a bound of 2");
    Ok(())
}

#[test]
pub fn a_policy_that_is_off_stays_off() -> Result<()> {
    let _turn = heavy()?;
    let folder = TempDir::new()?;
    let durac = copy(folder.path(), "durac")?;
    let (run, pid) = idle_behind(LATENCY)?;
    let ended = run_durac(["off", &pid.to_string()])?;
    ensure!(ended.status.success(), "{}", show(&ended));
    takes_over(&durac, pid)?;
    let line =
        "policy `lazy` for target `posix.log` is off (power loss: nothing; supervisor, process ";
    let told = || run.stderr().contains("has taken over").then(|| run.stderr());
    let told = poll("the line", told)?;
    ensure!(told.contains(&format!("has taken over: {line}")), "{told}");
    loses_nothing(run)
}

/// The program makes no call any more: the deadline of what it wrote is known from the program before only.
#[test]
fn a_deadline_outlives_the_program_that_kept_it() -> Result<()> {
    let _turn = heavy()?;
    let folder = TempDir::new()?;
    let durac = copy(folder.path(), "durac")?;
    let program = unsynced(&["-static"])?;
    let policy = "policy at_least\ntarget posix.log\non write: defer\nflush within 20s\n";
    let words = [program.to_str().context("a path")?, "lines", "make", "@a.log", "2", "20"];
    let mut run = Supervised::start(policy, LATENCY, &words)?;
    run.until(40)?;
    let (pid, _) = run.supervisor()?;
    let syncs = run.disk.syncs();
    takes_over(&durac, pid)?;
    takes_over(&tool()?, pid)?;
    ensure!(run.disk.syncs() == syncs, "it was synced before");
    poll("a sync", || (run.disk.syncs() > syncs).then_some(()))?;
    poll("its end", || {
        let logs = seen(pid).ok()?.logs;
        logs.iter().any(|log| log.numbers.durable > 0 && log.numbers.pending() == 0).then_some(())
    })?;
    loses_nothing(run)
}

#[test]
fn bytes_that_are_written_are_counted_on() -> Result<()> {
    let _turn = heavy()?;
    let folder = TempDir::new()?;
    let durac = [copy(folder.path(), "one")?, copy(folder.path(), "two")?];
    let policy = "policy b\ntarget posix.log\non fdatasync: if pending.bytes > 300B { pass }; defer\nflush within 1s\n";
    let program = unsynced(&["-static"])?;
    let words = [program.to_str().context("a path")?, "synced", "@a.log", "4", "50"];
    for lines in [10, 100] {
        let mut run = Supervised::start(policy, SLOW, &words)?;
        run.until(60)?;
        let (pid, _) = run.supervisor()?;
        let durac = durac.clone();
        meanwhile(&mut run, move || durac.iter().try_for_each(|durac| takes_over(durac, pid)))?;
        let already = run.acknowledged.len();
        run.until(already + lines)?;
        let deferred: u64 = seen(pid)?.logs.iter().map(|log| log.numbers.deferred).sum();
        ensure!(deferred > 0, "nothing is deferred any more");
        let lost: usize = run.lose_power("a.log")?.iter().map(String::len).sum();
        ensure!(lost <= 300, "{lost} bytes lost under a bound of 300");
    }
    Ok(())
}

/// An error that a log has returned must not be forgotten.
#[test]
fn a_log_that_has_failed_keeps_the_old_program() -> Result<()> {
    let _turn = heavy()?;
    let folder = TempDir::new()?;
    let durac = copy(folder.path(), "durac")?;
    // It goes on after its syncs have failed.
    let script = "import os, sys, signal\nfd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | os.O_APPEND)\ntry:\n while True: os.write(fd, b'x\\n'), os.fdatasync(fd), os.write(1, b'x\\n')\nexcept OSError: os.write(1, b'failed\\n'), signal.pause()\n";
    let words = ["python3", "-c", script, "@a.log"];
    let mut run = Supervised::start(&window(8), LATENCY, &words)?;
    run.until(50)?;
    let (pid, _) = run.supervisor()?;
    run.fail_sync_of("a.log");
    run.until_it_says("failed\n")?;
    let ended = upgrade(&durac, pid)?;
    let says = "a log has failed (Input/output error";
    ensure!(ended.status.code() == Some(1) && ended.stderr.contains(says), "{}", show(&ended));
    drop(run.cut(Cut::Clean, 0)?);
    Ok(())
}

/// A durac that does not know the status page asks by a signal: the program at the supervisor's own path takes over.
#[test]
fn one_with_a_page_of_another_version_is_asked_by_a_signal() -> Result<()> {
    use std::os::unix::fs::FileExt;
    let _turn = heavy()?;
    let mut run = append(&window(8), LATENCY, "1000000")?;
    run.until(60)?;
    let (pid, _) = run.supervisor()?;
    let is_page = |fd: &PathBuf| {
        std::fs::read_link(fd).is_ok_and(|to| to.to_string_lossy().contains("memfd:durac-status"))
    };
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd"))?.flatten().map(|entry| entry.path());
    let page = fds.into_iter().find(is_page).context("a page")?;
    let page = std::fs::OpenOptions::new().read(true).write(true).open(page)?;
    page.write_all_at(&99_u64.to_le_bytes(), 8)?;
    ensure!(seen(pid).is_err());
    let ended = meanwhile(&mut run, move || upgrade(&tool()?, pid))?;
    ensure!(ended.status.success() && ended.stdout.contains("has taken over"), "{}", show(&ended));
    ensure!(seen(pid)?.is_supervisor && run.stderr().contains("has taken over"));
    let lost = run.lose_power("a.log")?.len();
    ensure!(lost <= 8, "{lost} lost under a bound of 8");
    Ok(())
}

#[test]
fn what_is_no_supervisor_is_refused() -> Result<()> {
    let ended = run_durac(["upgrade", "1"])?;
    ensure!(ended.status.code() == Some(1), "{}", show(&ended));
    Ok(())
}
