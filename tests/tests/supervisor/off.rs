//! A policy that is turned off, by `durac off` or because a file is mapped: what it has acknowledged is durable then, or it is told
//! that it is not.

use crate::common::{LATENCY, SLOWEST, Supervised, idle_behind, pending};
use crate::order::SEES;
use anyhow::{Result, ensure};
use durac_tests::{heavy, run_durac, show};
use std::time::Duration;

/// What was acknowledged cannot be made durable.
#[test]
fn off_tells_of_a_log_that_has_failed() -> Result<()> {
    let _turn = heavy()?;
    let (run, pid) = idle_behind(LATENCY)?;
    run.fail_sync_of("a.log");
    let pid = pid.to_string();
    let ended = run_durac(["off", &pid])?;
    let says = "policy `lazy` off, and what was acknowledged before is not durable: a log has failed (Input/output error";
    let is_right = ended.status.code() == Some(1) && ended.stderr.contains(says);
    ensure!(is_right && !ended.stdout.contains("durable"), "{}", show(&ended));
    let said = run.stderr();
    ensure!(said.contains("the policy is off: `durac off`") && !said.contains("nothing"), "{said}");
    let ended = run_durac(["off", &pid, "--format", "json"])?;
    let json: serde_json::Value = serde_json::from_str(&ended.stdout)?;
    let process = &json["processes"][0];
    ensure!(process["failed"].is_string() && process["after"]["on"] == false, "{json:#}");
    Ok(())
}

/// A program that is behind. A child of it maps the first file, and it the second, if there is one, a little later.
const MAPS: &str = "import ctypes, mmap, os, sys, time
log, go, *others = sys.argv[1:]
files = [os.open(name, os.O_CREAT | os.O_RDWR) for name in others]
for file in files: os.ftruncate(file, 4096)
fd = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
for line in range(20): os.write(fd, b'%d\\n' % line), os.fdatasync(fd)
os.write(1, b'behind\\n')
while not os.path.exists(go): time.sleep(0.01)
def say(file):
    try: mmap.mmap(file, 4096), os.write(1, b'mapped\\n')
    except OSError as error: os.write(1, error.strerror.encode() + b'\\n')
if os.fork() == 0: ctypes.CDLL(None).prctl(1, 9), mmap.mmap(files[0], 4096), time.sleep(3600)
time.sleep(0.3), os.write(1, b'forked\\n')
if files[1:]: say(files[1])
time.sleep(3600)
";

fn maps(latency: Duration, files: &[&str]) -> Result<(Supervised, i32)> {
    let words = [&["python3", "-c", MAPS, "@a.log", "@go"], files].concat();
    let mut run = Supervised::start(SEES, latency, &words)?;
    run.until_it_says("behind\n")?;
    let (supervisor, _) = run.supervisor()?;
    let behind = pending(supervisor)?;
    ensure!(behind == 19, "{behind} of 20 calls are deferred");
    Ok((run, supervisor))
}

/// Both come after what is deferred, though the first has turned the policy off already.
#[test]
fn a_second_mapping_waits_for_what_the_first_one_drains() -> Result<()> {
    let _turn = heavy()?;
    let (mut run, supervisor) = maps(SLOWEST, &["@1.db", "@2.db"])?;
    std::fs::write(run.disk.join("go"), "")?;
    run.until_it_says("mapped\n")?;
    let behind = pending(supervisor)?;
    ensure!(behind == 0, "{behind} calls are deferred behind the mapping");
    Ok(())
}

/// So does `durac off`.
#[test]
fn off_waits_for_what_a_mapping_drains() -> Result<()> {
    let _turn = heavy()?;
    let (mut run, supervisor) = maps(SLOWEST, &["@1.db"])?;
    std::fs::write(run.disk.join("go"), "")?;
    run.until_it_says("forked\n")?;
    let ended = run_durac(["off", &supervisor.to_string()])?;
    let behind = pending(supervisor)?;
    ensure!(ended.status.success() && behind == 0, "{behind} deferred: {}", show(&ended));
    Ok(())
}

/// A protected file is not mapped before a log that cannot be synced.
#[test]
fn a_mapping_behind_a_log_that_fails_is_not_made() -> Result<()> {
    let _turn = heavy()?;
    let (mut run, _) = maps(LATENCY, &["@1.db", "@2.db"])?;
    run.fail_sync_of("a.log");
    std::fs::write(run.disk.join("go"), "")?;
    run.until_it_says("forked\n")?;
    run.until(3)?;
    let said = run.acknowledged.last().map(String::as_str);
    ensure!(said == Some("Input/output error\n"), "{said:?}: {}", run.stderr());
    Ok(())
}
