//! `durac reload` of a running supervisor: under load, with its bound; what cannot come, and leaves the old policy in force.

use crate::common::{
    self, Failing, LATENCY, SLOW, SLOWEST, Supervised, append, idle_behind, kill, loses_nothing,
    object, poll, unsynced, window,
};
use anyhow::{Context, Result, ensure};
use durac_shm::status::{Snapshot, Status};
use durac_tests::{heavy, run_durac, show};
use durac_workload::child::Ended;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A policy with a name of its own.
fn named(name: &str, n: u32) -> String {
    window(n).replacen("policy w", &format!("policy {name}"), 1)
}

const PASSES: &str = "policy passes\ntarget posix.log\non fdatasync: pass\n";

fn at_least(within: &str) -> String {
    format!("policy at_least\ntarget posix.log\non write: defer\nflush within {within}\n")
}

fn pid(run: &Supervised) -> Result<String> {
    Ok(run.supervisor()?.0.to_string())
}

/// Puts the policy of a text into the command's supervisor.
fn reload(pid: &str, text: &str) -> Result<Ended> {
    let folder = TempDir::new()?;
    let object = object(text, folder.path())?;
    run_durac(["reload", object.to_str().context("a path")?, pid])
}

fn reloads(pid: &str, text: &str) -> Result<Ended> {
    let ended = reload(pid, text)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    Ok(ended)
}

fn seen(pid: &str) -> Result<Snapshot> {
    Ok(Status::of_process(pid.parse()?, false)?.snapshot())
}

/// A server in a child, which has the log, listens, and tells its port.
const SERVER: &str = "import os, socket, sys, time
if os.fork() == 0:
    server = socket.create_server(('127.0.0.1', 0))
    fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.write(fd, b'x\\n'), os.fdatasync(fd)
    os.write(1, b'%d\\n' % server.getsockname()[1])
    time.sleep(3600)
time.sleep(3600)
";

/// A grandchild that has 70 logs and tells its number.
const MANY: &str = "import os, sys, time
if os.fork() == 0:
    if os.fork() == 0:
        for n in range(70):
            fd = os.open(sys.argv[1] + str(n) + '.log', os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            os.write(fd, b'x\\n'), os.fdatasync(fd)
        os.write(1, b'%d\\n' % os.getpid())
        time.sleep(3600)
    os.wait()
    sys.exit()
time.sleep(3600)
";

/// The number of a supervised process, which is what `pidof` gives, stands for its supervisor; and logs without a place in the
/// page are counted.
#[test]
fn a_supervised_process_stands_for_its_supervisor() -> Result<()> {
    let mut run = Supervised::start(&window(4), Duration::ZERO, &["python3", "-c", MANY, "@"])?;
    run.until(1)?;
    let child = run.acknowledged.first().context("a number")?.trim().to_owned();
    let supervisor = run.supervisor()?.0;
    let json = |words: &[&str]| -> Result<serde_json::Value> {
        let ended = run_durac(words.iter().chain(&["--format", "json"]))?;
        ensure!(!ended.stdout.is_empty(), "{}", show(&ended));
        Ok(serde_json::from_str(&ended.stdout)?)
    };
    for words in [["off", &child], ["on", &child]] {
        let said = json(&words)?;
        ensure!(said["processes"][0]["pid"] == supervisor, "{said:#}");
        ensure!(said["processes"][0]["after"]["on"] == (words[0] == "on"), "{said:#}");
    }
    let said = json(&["show", &child])?;
    ensure!(said["process"] == supervisor, "{said:#}");

    let said = json(&["top", &child, "--once", "--interval", "20ms"])?;
    let line = &said["logs"][0];
    ensure!(line["pid"] == supervisor && line["logs_not_shown"] == 6, "{line:#}");
    ensure!(said["total"]["logs"] == 64 && said["total"]["logs_not_shown"] == 6, "{said:#}");
    let said = run_durac(["doctor", &supervisor.to_string()])?;
    ensure!(said.stdout.contains("64 of 70 logs shown"), "{}", show(&said));
    let said = run_durac(["metrics", &child])?;
    for (name, value) in [("open_logs", 70), ("logs_not_shown", 6)] {
        let line = format!("durac_{name}{{pid=\"{supervisor}\",policy=\"w\"}} {value}\n");
        ensure!(said.stdout.contains(&line), "{line}{}", show(&said));
    }
    kill(child.parse()?);
    kill(run.child.id().try_into()?);
    run.end()?;
    Ok(())
}

/// A supervisor is named by where the process serves that has its log, and no longer once that has ended.
#[test]
fn a_supervisor_is_named_by_whom_it_serves() -> Result<()> {
    let mut run =
        Supervised::start(&window(4), Duration::ZERO, &["python3", "-c", SERVER, "@a.log"])?;
    run.until(1)?;
    let place = format!(":{}", run.acknowledged.first().context("a port")?.trim());
    let (supervisor, _) = run.supervisor()?;
    let said = run_durac(["top", &place, "--once", "--format", "json"])?;
    ensure!(said.stdout.contains(&format!("\"pid\":{supervisor},")), "{}", show(&said));
    let serves = common::seen(supervisor)?.serves.0;
    kill(serves.try_into()?);
    poll("the end of the server", || {
        let said = run_durac(["top", &place, "--once"]).ok()?;
        said.stderr.contains("no process under a policy is at").then_some(())
    })?;
    kill(run.child.id().try_into()?);
    run.end()?;
    Ok(())
}

#[test]
fn the_new_bound_holds_under_load() -> Result<()> {
    let _turn = heavy()?;
    for (before, after, wanted) in [(64, 3, 0), (3, 64, 4)] {
        let mut most = 0;
        for round in 0..30 {
            let mut run = append(&named("before", before), SLOW, "100000")?;
            run.until(60)?;
            let pid = pid(&run)?;
            let ended = reloads(&pid, &named("after", after))?;
            ensure!(ended.stdout.contains("policy `before` → policy `after`"), "{}", show(&ended));
            let now = seen(&pid)?;
            ensure!((now.policy.as_str(), now.changes) == ("after", 1), "{now:?}");
            let already = run.acknowledged.len();
            run.until(already + 600)?;
            ensure!(run.acknowledged.len() == already + 600, "ended early: {}", run.stderr());
            let lost = run.lose_power("a.log")?.len();
            ensure!(lost <= after as usize, "{lost} lost under a bound of {after}");
            most = most.max(lost);
            if round >= 1 && most >= wanted {
                break;
            }
        }
        ensure!(most >= wanted, "{most} lost: nothing was deferred by the new policy");
    }
    Ok(())
}

/// When the power is cut.
#[derive(Clone, Copy, Debug)]
enum When {
    /// Once the change was asked for, and a line more was acknowledged.
    Begun,
    /// So long after that.
    Later(Duration),
    /// Once the page shows the new policy.
    Done,
}

/// Cuts the power beside a change from `before` to `after`. Returns the policy that was in force all the time, if there is
/// one: a cut takes no more than its bound, and else no more than the worse of both.
fn cut_beside_a_change(before: u32, after: u32, when: When) -> Result<Option<String>> {
    let mut run = append(&named("before", before), SLOW, "100000")?;
    run.until(60)?;
    let pid = pid(&run)?;
    let page = Status::of_process(pid.parse()?, false)?;
    let in_force = || page.snapshot().policy;
    let change = std::thread::spawn(move || reload(&pid, &named("after", after)));
    let begun = Instant::now();
    let later = match when {
        When::Later(time) => time,
        When::Begun | When::Done => Duration::ZERO,
    };
    if let When::Done = when {
        // No line is read meanwhile: the next one may be acknowledged when everything is durable.
        poll("the new policy", || (in_force() == "after").then_some(()))?;
    } else {
        loop {
            let lines = run.acknowledged.len();
            run.until(lines + 1)?;
            ensure!(run.acknowledged.len() > lines, "ended early: {}", run.stderr());
            if begun.elapsed() >= later {
                break;
            }
        }
    }
    let first = in_force();
    run.disk.cut();
    // Its syncs fail then, or it was done.
    let _ = change.join();
    let kept = Some(first).filter(|first| *first == in_force());
    let bound = match kept.as_deref() {
        Some("before") => before,
        Some("after") => after,
        _ => before.max(after),
    };
    let lost = run.lose_power("a.log")?.len();
    ensure!(lost <= bound as usize, "{lost} lost under {kept:?}, {before} and {after}, {when:?}");
    Ok(kept)
}

/// A cut in the moment in which a narrower policy has come. A sync may have just ended then: several times.
pub fn the_new_bound_holds_at_once() -> Result<()> {
    (0..15).try_for_each(|_| cut_beside_a_change(32, 2, When::Done).map(drop))
}

#[test]
fn a_cut_takes_no_more_than_the_policy_in_force() -> Result<()> {
    let _turn = heavy()?;
    let later = |ms| When::Later(Duration::from_millis(ms));
    for (before, after) in [(32, 2), (2, 32)] {
        // The change may come in the moment of the cut.
        let kept = |when, policy: &str| -> Result<bool> {
            for _ in 0..10 {
                if cut_beside_a_change(before, after, when)?.as_deref() == Some(policy) {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        ensure!(kept(When::Begun, "before")?, "the new policy came before every cut");
        ensure!(kept(When::Done, "after")?, "the new policy never came");
        for when in [later(250), later(265), later(310)] {
            cut_beside_a_change(before, after, when)?;
        }
    }
    Ok(())
}

#[test]
fn no_call_fails_while_policies_come_and_go() -> Result<()> {
    let _turn = heavy()?;
    let mut run = append(&named("first", 16), LATENCY, "1500")?;
    run.until(100)?;
    let pid = pid(&run)?;
    for round in 0..8 {
        let (name, n) = if round % 2 == 0 { ("second", 4) } else { ("first", 16) };
        reloads(&pid, &named(name, n))?;
        let already = run.acknowledged.len();
        run.until(already + 300)?;
        ensure!(seen(&pid)?.policy == name);
    }
    let status = run.end()?;
    ensure!(status.success() && run.acknowledged.len() == 6000, "{status}: {}", run.stderr());
    ensure!(run.stderr().matches("until now everything acknowledged is durable").count() == 8);
    loses_nothing(run)
}

/// What the old policy has deferred is durable when the new one comes. No call follows.
#[test]
pub fn nothing_is_behind_when_the_new_policy_comes() -> Result<()> {
    let _turn = heavy()?;
    let (run, pid) = idle_behind(SLOWEST)?;
    reloads(&pid.to_string(), PASSES)?;
    loses_nothing(run)
}

#[test]
fn the_tools_show_and_set_the_new_policy() -> Result<()> {
    let _turn = heavy()?;
    let folder = TempDir::new()?;
    let text = |name: &str| {
        format!(
            "policy {name}\ntarget posix.log\nparam n: syncs = 2 in 1..=3\nguarantee loss <= n syncs on power_loss\n\
             on fdatasync: await pending < n; defer\n"
        )
    };
    let mut run = append(&window(8), LATENCY, "100000")?;
    run.until(50)?;
    let pid = pid(&run)?;
    let paths: Vec<PathBuf> = ["one", "two"]
        .iter()
        .map(|name| {
            let path = folder.path().join(format!("{name}.dur"));
            std::fs::write(&path, text(name)).map(|()| path)
        })
        .collect::<Result<_, _>>()?;
    let durac = |words: &[&str]| -> Result<String> {
        let ended = run_durac(words)?;
        ensure!(ended.status.success(), "{words:?}: {}", show(&ended));
        Ok(ended.stdout)
    };
    let said = durac(&["reload", paths[0].to_str().context("a path")?, &pid])?;
    ensure!(said.contains("now: at most n syncs (2 by default)"), "{said}");
    durac(&["set", "n=3", "--pid", &pid])?;
    // The value is carried over.
    durac(&["reload", paths[1].to_str().context("a path")?, &pid])?;
    let now = seen(&pid)?;
    ensure!(now.policy == "two" && now.params.first().is_some_and(|n| n.value == 3), "{now:?}");
    let top = durac(&["top", &pid, "--once", "--format", "json"])?;
    ensure!(top.contains("\"two\""), "{top}");
    let metrics = durac(&["metrics"])?;
    ensure!(metrics.contains(&format!("pid=\"{pid}\",policy=\"two\"")), "{metrics}");
    // A policy that is off is on with the next one.
    durac(&["off", &pid])?;
    ensure!(seen(&pid)?.is_off);
    reloads(&pid, &named("three", 3))?;
    ensure!(!seen(&pid)?.is_off);
    let already = run.acknowledged.len();
    run.until(already + 300)?;
    let lost = run.lose_power("a.log")?.len();
    ensure!(lost <= 3, "{lost} lost under a bound of 3");
    Ok(())
}

#[test]
fn what_cannot_come_leaves_the_old_policy_in_force() -> Result<()> {
    let _turn = heavy()?;
    let mut run = append(&named("first", 8), SLOW, "100000")?;
    run.until(50)?;
    let pid = pid(&run)?;
    let bytes =
        "policy b\ntarget posix.log\non fdatasync: if pending.bytes > 300B { pass }; defer\n";
    let other = "policy o\ntarget leveldb.log\non fdatasync: defer\n";
    for (text, why) in [
        (bytes, "it needs to see writes"),
        (at_least("1s").as_str(), "it needs to see which files are opened"),
        (other, "it is for target `leveldb.log`, and the command runs under `posix.log`"),
    ] {
        let ended = reload(&pid, text)?;
        let says = format!("policy `first` stays as it is: {why}");
        ensure!(ended.status.code() == Some(1) && ended.stderr.contains(&says), "{}", show(&ended));
    }
    // What the supervisor cannot give is said at the text.
    let ended = run_durac(["reload", "batch", &pid])?;
    ensure!(ended.status.code() == Some(1) && ended.stderr.contains("E0612"), "{}", show(&ended));
    let now = seen(&pid)?;
    ensure!((now.policy.as_str(), now.changes) == ("first", 0), "{now:?}");
    // What has turned it off by itself keeps it off.
    // SAFETY: no pointers.
    unsafe { libc::kill(pid.parse()?, libc::SIGTERM) };
    poll("the policy's end", || run.stderr().contains("the policy is off").then_some(()))?;
    let ended = reload(&pid, &named("second", 8))?;
    let says = "the policy is off for the rest of this command";
    ensure!(ended.status.code() == Some(1) && ended.stderr.contains(says), "{}", show(&ended));
    drop(run.cut(durac_disk::Cut::Clean, 0)?);
    Ok(())
}

/// Each change is a line in the supervisor's log, with what a power loss could take before and after.
#[test]
fn each_change_is_in_the_log() -> Result<()> {
    let text = "policy w\ntarget posix.log\nparam n: syncs = 8 in 1..=64\nparam m: syncs = 60 in 1..=64\non fdatasync: if pending > m { pass }; await pending < n; defer\n";
    let mut run = append(text, LATENCY, "100000")?;
    run.until(20)?;
    let pid = pid(&run)?;
    let lines = |wanted: &str| run.stderr().lines().filter(|line| line.contains(wanted)).count();
    let (on, off) = ("policy `w` (power loss: ", "policy `w` off (power loss: nothing)");
    for (words, wanted) in [
        (&["set", "n=7", "--pid", &pid][..], format!("process {pid}: n = 8 → 7; power loss: ")),
        (&["off", &pid], format!(") → {off}")),
        (&["on", &pid], format!("durac: {off} → {on}")),
    ] {
        // Nothing is told of what does not change.
        for _ in 0..2 {
            let ended = run_durac(words)?;
            ensure!(ended.status.success(), "{}", show(&ended));
            if words[0] == "set" {
                break;
            }
        }
        ensure!(lines(&wanted) == 1, "{words:?}, not once {wanted}: {}", run.stderr());
    }
    ensure!(lines("durac: the policy is off: `durac off`; ") == 1, "{}", run.stderr());
    let before = lines("durac: policy `w` of process");
    let ended = run_durac(["set", "n=6", "m=50", "--pid", &pid])?;
    ensure!(ended.status.success(), "{}", show(&ended));
    ensure!(lines("durac: policy `w` of process") == before + 2, "{}", run.stderr());
    drop(run.cut(durac_disk::Cut::Clean, 0)?);
    Ok(())
}

/// A policy that stops all logs after an error would stop them at once, if there was one before.
#[test]
fn an_error_of_before_keeps_out_a_policy_that_stops() -> Result<()> {
    let _turn = heavy()?;
    let mut run = Failing::start(PASSES)?;
    let pid = pid(&run.run)?;
    let ended = reload(&pid, &format!("{PASSES}on error: stop\n"))?;
    let last = run.end()?;
    ensure!(last == "fine\n", "{last}");
    let says = "a log has failed (Input/output error";
    ensure!(ended.status.code() == Some(1) && ended.stderr.contains(says), "{}", show(&ended));
    Ok(())
}

/// Lines that nobody syncs, `pause` ms apart, under a policy with a deadline of so long.
fn unsynced_lines(within: &str, lines: &str, pause: &str) -> Result<(Supervised, String)> {
    let program = unsynced(&["-static"])?;
    let words = [program.to_str().context("a path")?, "lines", "make", "@a.log", "1", lines, pause];
    let mut run = Supervised::start(&at_least(within), LATENCY, &words)?;
    run.until(20)?;
    let pid = pid(&run)?;
    Ok((run, pid))
}

/// Writes that nobody syncs keep a deadline, and have the new one, also after a policy that does not look at them.
#[test]
fn a_deadline_for_writes_comes_back() -> Result<()> {
    let _turn = heavy()?;
    for between in [None, Some(PASSES), Some("off")] {
        has_the_new_deadline(between)?;
    }
    // The old one's deadline is no longer kept.
    let (mut run, pid) = unsynced_lines("1s", "400", "5")?;
    reloads(&pid, &at_least("1000s"))?;
    run.until(400)?;
    // A supervisor that kept it would have synced by now.
    std::thread::sleep(Duration::from_secs(3));
    ensure!(!run.lose_power("a.log")?.is_empty());
    Ok(())
}

/// Lines are durable in time that are written after a deadline came in the place of a long one.
pub fn has_the_new_deadline(between: Option<&str>) -> Result<()> {
    // More than the pipe holds: some are written afterwards.
    let lines = 1000;
    let (mut run, pid) = unsynced_lines("1000s", &lines.to_string(), "1")?;
    match between {
        Some("off") => ensure!(run_durac(["off", &pid])?.status.success()),
        Some(policy) => drop(reloads(&pid, policy)?),
        None => {}
    }
    reloads(&pid, &at_least("1s"))?;
    run.until(lines)?;
    run.until_durable();
    loses_nothing(run)
}

/// A command whose writes are asked about can have a policy that does not need them, and one that does again.
#[test]
fn policies_about_writes() -> Result<()> {
    let _turn = heavy()?;
    let bytes = |name: &str, bytes: u32| {
        format!(
            "policy {name}\ntarget posix.log\non fdatasync: if pending.bytes > {bytes}B {{ pass }}; defer\nflush within 1s\n"
        )
    };
    let program = unsynced(&["-static"])?;
    let words = [program.to_str().context("a path")?, "synced", "@a.log", "4", "50"];
    let bytes_lost = |run: Supervised| -> Result<usize> {
        Ok(run.lose_power("a.log")?.iter().map(String::len).sum())
    };
    let mut run = Supervised::start(&bytes("large", 3000), SLOW, &words)?;
    run.until(60)?;
    let pid = pid(&run)?;
    let ended = reloads(&pid, &bytes("small", 300))?;
    ensure!(!ended.stdout.contains("from the next log on"), "{}", show(&ended));
    let already = run.acknowledged.len();
    run.until(already + 200)?;
    let deferred = seen(&pid)?.logs.iter().map(|log| log.numbers.deferred).sum::<u64>();
    ensure!(deferred > 0);
    let lost = bytes_lost(run)?;
    ensure!(lost <= 300, "{lost} bytes lost under a bound of 300");

    let mut run = Supervised::start(&bytes("large", 3000), SLOW, &words)?;
    run.until(60)?;
    let pid = self::pid(&run)?;
    reloads(&pid, &named("calls", 4))?;
    let already = run.acknowledged.len();
    run.until(already + 200)?;
    let deferred = |pid: &str| -> Result<u64> {
        Ok(seen(pid)?.logs.iter().map(|log| log.numbers.deferred).sum())
    };
    let before = deferred(&pid)?;
    run.until(already + 400)?;
    ensure!(deferred(&pid)? > before, "nothing is deferred under the policy between");
    // Not counted meanwhile.
    let ended = reloads(&pid, &bytes("small", 300))?;
    ensure!(ended.stdout.contains("from the next log on"), "{}", show(&ended));
    let already = run.acknowledged.len();
    run.until(already + 200)?;
    let lost = bytes_lost(run)?;
    ensure!(lost <= 300, "{lost} bytes lost under a bound of 300");
    Ok(())
}
