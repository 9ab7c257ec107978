//! Programs that never sync, and open their log in odd ways, or where the supervisor has little room.

use crate::common::{LATENCY, Supervised, poll};
use crate::writes::is_synced;
use anyhow::{Context, Result, ensure};
use durac_tests::heavy;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A line is durable some time after it was written, though nobody asks for it.
const AT_LEAST: &str = "policy at_least\ntarget posix.log\non write: defer\nflush within 1s\n";

/// The programs of `odd_opens.c`.
fn odd() -> Result<PathBuf> {
    durac_tests::cc("odd_opens.c", "odd_opens", &["-O1", "-pthread"])
}

/// The log's folder is `$1`, a folder of the test's own `$2`, and the program `$0`.
fn opened_oddly(script: &str) -> Result<()> {
    let (program, folder) = (odd()?, TempDir::new()?);
    let script = format!("log=\"$1\" disk=\"${{1%/*}}\" own=\"$2\"\n{script}");
    let (program, own) = (program.to_str(), folder.path().to_str());
    let words = ["sh", "-c", &script, program.context("a path")?, "@a.log", own.context("a path")?];
    is_synced(&words, 20)
}

#[test]
fn a_link_to_where_no_file_is_yet() -> Result<()> {
    let links = "ln -s \"$log\" \"$own/real\" && ln -s real \"$own/current\"";
    opened_oddly(&format!("{links}\nexec \"$0\" link \"$own/current\""))
}

#[test]
fn a_root_of_its_own() -> Result<()> {
    for how in ["absolute", "relative", "folder", "up"] {
        opened_oddly(&format!("exec \"$0\" root \"$own\" \"$disk\" {how}"))?;
    }
    Ok(())
}

/// The name leads to another log from the process' root.
#[test]
fn a_root_for_one_call() -> Result<()> {
    let links = "ln \"$disk/file\" \"$disk$own/a.log\" && ln \"$disk/file\" \"$log\"";
    let files = "touch \"$own/a.log\" \"$disk/file\" && mkdir -p \"$disk$own\"";
    opened_oddly(&format!("{files} && {links}\nexec \"$0\" within \"$disk\" \"$own/a.log\""))
}

/// A program that makes a log, and opens it again when it is told to.
const AGAIN: &str = "import os, sys, time
log, go = sys.argv[1:]
made = os.open(log, os.O_CREAT | os.O_WRONLY)
while not os.path.exists(go): time.sleep(0.01)
fd = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
for line in range(20): os.write(fd, b'0 %d\\n' % line), os.write(1, b'0 %d\\n' % line)
time.sleep(3600)
";

/// A process outside of the command gives the name to another file when the supervisor has looked it up.
pub fn a_log_that_is_replaced_while_it_is_opened() -> Result<()> {
    is_found_behind(|disk| {
        std::fs::write(disk.join("new"), "")?;
        std::fs::rename(disk.join("new"), disk.join("a.log"))
    })
}

/// The file keeps the last part of its path, and the call makes another.
pub fn a_log_that_is_moved_while_it_is_opened() -> Result<()> {
    is_found_behind(|disk| {
        std::fs::create_dir(disk.join("old"))?;
        std::fs::rename(disk.join("a.log"), disk.join("old").join("a.log"))
    })
}

fn is_found_behind(change: fn(&Path) -> std::io::Result<()>) -> Result<()> {
    let _turn = heavy()?;
    let mut run = Supervised::start(AT_LEAST, LATENCY, &["python3", "-c", AGAIN, "@a.log", "@go"])?;
    let (supervisor, _) = run.supervisor()?;
    let logs = || crate::common::seen(supervisor).map_or(0, |seen| seen.logs.len());
    poll("the first log", || (logs() == 1).then_some(()))?;
    std::fs::write(run.disk.join("go"), "")?;
    poll("the open", || run.stderr().contains("waits for another file").then_some(()))?;
    change(&run.disk.join(""))?;
    run.until(20)?;
    ensure!(run.acknowledged.len() == 20, "{:?}: {}", run.acknowledged, run.stderr());
    poll("a sync of the second log", || {
        let logs = crate::common::seen(supervisor).ok()?.logs;
        let numbers = &logs.get(1)?.numbers;
        (numbers.durable > 0 && numbers.pending() == 0).then_some(())
    })?;
    crate::common::loses_nothing(run)
}

#[test]
fn a_log_that_is_renamed_when_it_is_made() -> Result<()> {
    opened_oddly("exec \"$0\" renamed \"$disk/new.log\" \"$log\"")
}

#[test]
fn a_thread_with_open_files_of_its_own() -> Result<()> {
    opened_oddly("exec \"$0\" table \"$disk\"")
}

/// Processes that sync a file: every second one stays until the first ends. Then a log is opened.
const CALLERS: &str = "import ctypes, os, sys, time
until = lambda path: [time.sleep(0.01) for _ in iter(lambda: os.path.exists(path), True)]
until(sys.argv[1])
for count in range(100):
    read, write = os.pipe()
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(1, 9)
        fd = os.open(sys.argv[3], os.O_CREAT | os.O_WRONLY)
        os.fsync(fd)
        os.write(write, b'x')
        if count % 2: time.sleep(3600)
        os._exit(0)
    os.close(write), os.read(read, 1), os.close(read)
fd = os.open(sys.argv[2], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
for line in range(20): os.write(fd, b'0 %d\\n' % line), os.write(1, b'0 %d\\n' % line)
time.sleep(3600)
";

/// Waits until the disk has synced, and then cuts the power: nothing is lost.
fn is_synced_at_last(mut run: Supervised) -> Result<()> {
    run.until(20)?;
    ensure!(run.acknowledged.len() == 20, "{:?}: {}", run.acknowledged, run.stderr());
    let (supervisor, _) = run.supervisor()?;
    poll("a sync of the log", || {
        let logs = crate::common::seen(supervisor).ok()?.logs;
        let mut logs = logs.iter().filter(|log| log.path.ends_with("a.log"));
        logs.any(|log| log.numbers.durable > 0 && log.numbers.pending() == 0).then_some(())
    })?;
    crate::common::loses_nothing(run)
}

/// A process can have no more descriptors than this from now on.
fn limit_descriptors(process: i32, most: u64) -> Result<()> {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: the structure is there.
    let set = unsafe {
        libc::prlimit(process, libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut())
    };
    ensure!(set == 0, "{}", std::io::Error::last_os_error());
    Ok(())
}

/// Logs that are there are opened faster than the supervisor looks them up again: it needs no descriptor for each.
#[test]
fn many_opens_of_logs_take_few_descriptors() -> Result<()> {
    let _turn = heavy()?;
    let (program, folder) = (odd()?, TempDir::new()?);
    let folder = folder.path().to_str().context("a path")?;
    let words = [program.to_str().context("a path")?, "often", folder, "8"];
    let mut run = Supervised::start(AT_LEAST, LATENCY, &words)?;
    let (supervisor, _) = run.supervisor()?;
    limit_descriptors(supervisor, 256)?;
    run.until_it_says("done\n")?;
    let said = run.stderr();
    ensure!(!said.contains("Too many open files") && !said.contains("no descriptor"), "{said}");
    Ok(())
}

/// A program that writes to a log, and gives it a time of writing that is far in the future.
const FUTURE: &str = "import os, sys, time
fd = os.open(sys.argv[1] + '/a.log', os.O_CREAT | os.O_WRONLY)
os.write(fd, b'x\\n'), os.utime(fd, (4e9, 4e9)), os.write(1, b'written\\n')
time.sleep(3600)
";

#[test]
fn a_log_whose_time_lies_in_the_future_is_not_synced_for_ever() -> Result<()> {
    let _turn = heavy()?;
    let folder = TempDir::new()?;
    let policy = AT_LEAST.replace("1s", "100ms");
    let words = ["python3", "-c", FUTURE, folder.path().to_str().context("a path")?];
    let mut run = Supervised::start(&policy, LATENCY, &words)?;
    run.until_it_says("written\n")?;
    let (supervisor, _) = run.supervisor()?;
    let begun = Instant::now();
    let (mut syncs, mut since) = (0, begun);
    while syncs == 0 || since.elapsed() < Duration::from_secs(1) {
        ensure!(begun.elapsed() < Duration::from_secs(120), "still synced, {syncs} times by now");
        let logs = crate::common::seen(supervisor)?.logs;
        let now = logs.iter().map(|log| log.numbers.syncs).sum();
        if std::mem::replace(&mut syncs, now) != now {
            since = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

#[test]
fn more_callers_than_descriptors() -> Result<()> {
    let _turn = heavy()?;
    let words = ["python3", "-c", CALLERS, "@go", "@a.log", "@other"];
    let run = Supervised::start(AT_LEAST, LATENCY, &words)?;
    let (supervisor, _) = run.supervisor()?;
    limit_descriptors(supervisor, 48)?;
    std::fs::write(run.disk.join("go"), "")?;
    is_synced_at_last(run)
}

/// A program that opens so many logs that nothing is left for the last one, and removes them when it is told to.
const FULL: &str = "import os, sys, time
log, go, folder = sys.argv[1:]
flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND
names = ['%s/%d.log' % (folder, number) for number in range(40)]
until = lambda path: [time.sleep(0.01) for _ in iter(lambda: os.path.exists(path), True)]
until(go)
many = [os.open(name, flags) for name in names]
fd = os.open(log, flags)
for line in range(20): os.write(fd, b'0 %d\\n' % line), os.write(1, b'0 %d\\n' % line)
until(go + '2')
for file, name in zip(many, names): os.close(file), os.unlink(name)
time.sleep(3600)
";

/// A log is found when there are descriptors again.
#[test]
fn more_logs_than_descriptors() -> Result<()> {
    let _turn = heavy()?;
    let folder = TempDir::new()?;
    let own = folder.path().to_str().context("a path")?;
    let words = ["python3", "-c", FULL, "@a.log", "@go", own];
    let mut run = Supervised::start(AT_LEAST, LATENCY, &words)?;
    let (supervisor, _) = run.supervisor()?;
    limit_descriptors(supervisor, 48)?;
    std::fs::write(run.disk.join("go"), "")?;
    run.until(20)?;
    std::fs::write(run.disk.join("go2"), "")?;
    is_synced_at_last(run)
}

/// A group of processes that can have no more threads than it has.
struct Full(PathBuf);

impl Full {
    fn of(process: i32) -> Result<Self> {
        let mounts = std::fs::read_to_string("/proc/mounts")?;
        let group = mounts.lines().find_map(|line| {
            let place = Path::new(line.split(' ').nth(1)?);
            let group = place.join(format!("durac-test-{process}"));
            let is_one = line.contains(" cgroup") && std::fs::create_dir(&group).is_ok();
            let counts = is_one && group.join("pids.max").exists();
            if is_one && !counts {
                let _ = std::fs::remove_dir(&group);
            }
            counts.then_some(group)
        });
        let group = Self(group.context("a cgroup that counts processes")?);
        std::fs::write(group.0.join("cgroup.procs"), process.to_string())?;
        group.allow("0")?;
        Ok(group)
    }

    fn allow(&self, most: &str) -> Result<()> {
        Ok(std::fs::write(self.0.join("pids.max"), most)?)
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        // It is empty once its process has ended.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// Whether a thread of the supervisor looks after a log.
fn has_syncer(supervisor: i32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{supervisor}/task")).into_iter().flatten();
    let mut names = tasks.flatten().map(|task| std::fs::read_to_string(task.path().join("comm")));
    names.any(|name| name.is_ok_and(|name| name.trim() == "durac-sync"))
}

#[test]
fn no_thread_for_a_log() -> Result<()> {
    let _turn = heavy()?;
    let program = odd()?;
    let words = [program.to_str().context("a path")?, "late", "@go", "@a.log"];
    for stays_full in [true, false] {
        let run = Supervised::start(AT_LEAST, LATENCY, &words)?;
        let (supervisor, _) = run.supervisor()?;
        let full = Full::of(supervisor)?;
        std::fs::write(run.disk.join("go"), "")?;
        poll("the error", || run.stderr().contains("cannot start a thread").then_some(()))?;
        ensure!(!has_syncer(supervisor));
        if !stays_full {
            full.allow("max")?;
            poll("a thread", || has_syncer(supervisor).then_some(()))?;
        }
        is_synced_at_last(run)?;
    }
    Ok(())
}

/// More logs than there can be at once, each of which is closed before the next is made.
const MANY: &str = "import os, sys, time
for number in range(int(sys.argv[2])):
    fd = os.open('%s/%d.log' % (sys.argv[1], number), os.O_CREAT | os.O_WRONLY)
    os.write(fd, b'x\\n'), os.close(fd)
os.write(1, b'written\\n')
time.sleep(3600)
";

/// The files that a process has open, but for those that it only names (`O_PATH`).
fn opened(process: i32) -> Vec<PathBuf> {
    let files = std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let is_open = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/{process}/fdinfo/{name}")).ok()?;
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:"))?;
        Some(i32::from_str_radix(flags.trim(), 8).ok()? & libc::O_PATH == 0)
    };
    let opened = files.filter(|file| is_open(&file.file_name().to_string_lossy()) == Some(true));
    opened.filter_map(|file| std::fs::read_link(file.path()).ok()).collect()
}

#[test]
fn a_log_takes_the_place_of_one_that_is_closed() -> Result<()> {
    let _turn = heavy()?;
    let last = 1024..1064;
    let (folder, count) = (TempDir::new()?, last.end.to_string());
    let words = ["python3", "-c", MANY, folder.path().to_str().context("a path")?, &count];
    let mut run = Supervised::start(AT_LEAST, LATENCY, &words)?;
    run.until_it_says("written\n")?;
    let (supervisor, _) = run.supervisor()?;
    let mut taken = BTreeSet::new();
    poll("places for the last logs", || {
        taken.extend(opened(supervisor));
        let has_place = |number: u32| taken.contains(&folder.path().join(format!("{number}.log")));
        last.clone().all(has_place).then_some(())
    })
}
