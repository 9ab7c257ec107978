//! Deaths of the supervisor and of its keeper, under load; a disk that fails; what is refused.

use crate::common::{
    LATENCY, LAZY, SLOWEST, Supervised, append, idle_behind, keeper_of, kill, loses_nothing,
    pending, poll, program, window,
};
use anyhow::{Context, Result, ensure};
use durac_tests::{copy_program, heavy};

fn four_processes(lines: &str) -> Result<Supervised> {
    append(&window(32), LATENCY, lines)
}

/// Of one process, which then waits and syncs nothing itself.
fn twenty_lines() -> Result<Supervised> {
    Ok(idle_behind(LATENCY)?.0)
}

#[test]
pub fn the_command_outlives_a_supervisor_that_is_killed() -> Result<()> {
    let _turn = heavy()?;
    let mut run = four_processes("400")?;
    run.until(100)?;
    let (supervisor, _) = run.supervisor()?;
    kill(supervisor);
    let status = run.end()?;
    ensure!(status.success(), "{status}: {}", run.stderr());
    ensure!(run.stderr().contains("the supervisor is gone"), "{}", run.stderr());
    ensure!(run.acknowledged.len() == 1600);
    loses_nothing(run)
}

#[test]
pub fn what_was_deferred_is_synced_when_the_supervisor_dies() -> Result<()> {
    let _turn = heavy()?;
    let run = twenty_lines()?;
    kill(run.supervisor()?.0);
    poll("the keeper's line", || run.stderr().contains("the supervisor is gone").then_some(()))?;
    loses_nothing(run)
}

#[test]
fn what_was_deferred_is_synced_when_the_command_is_killed() -> Result<()> {
    let _turn = heavy()?;
    let mut run = twenty_lines()?;
    let (supervisor, _) = run.supervisor()?;
    run.child.kill()?;
    run.child.wait()?;
    let program = format!("/proc/{supervisor}/exe");
    poll("the supervisor's end", || std::fs::read_link(&program).is_err().then_some(()))?;
    loses_nothing(run)
}

#[test]
fn a_keeper_that_is_killed_is_replaced() -> Result<()> {
    let _turn = heavy()?;
    let mut run = four_processes("400")?;
    run.until(50)?;
    let (supervisor, keeper) = run.supervisor()?;
    kill(keeper);
    poll("another keeper", || keeper_of(supervisor).filter(|pid| *pid != keeper))?;
    kill(supervisor);
    let status = run.end()?;
    ensure!(status.success(), "{status}: {}", run.stderr());
    Ok(())
}

#[test]
fn a_supervisor_that_is_told_to_stop_defers_no_more() -> Result<()> {
    let _turn = heavy()?;
    let mut run = four_processes("100000")?;
    run.until(50)?;
    let (supervisor, _) = run.supervisor()?;
    // SAFETY: no pointers.
    unsafe { libc::kill(supervisor, libc::SIGTERM) };
    poll("the policy's end", || run.stderr().contains("the policy is off").then_some(()))?;
    let already = run.acknowledged.len();
    // More than the pipe holds: some were called for after it.
    run.until(already + 1000)?;
    loses_nothing(run)
}

/// Nobody calls any more, who would have it synced.
#[test]
pub fn a_supervisor_that_is_told_to_stop_leaves_nothing_behind() -> Result<()> {
    let _turn = heavy()?;
    let (run, supervisor) = idle_behind(SLOWEST)?;
    // SAFETY: no pointers.
    unsafe { libc::kill(supervisor, libc::SIGTERM) };
    poll("the policy's end", || run.stderr().contains("the policy is off").then_some(()))?;
    loses_nothing(run)
}

#[test]
fn a_failed_sync_is_returned_to_every_process() -> Result<()> {
    is_returned_to_every_process("100000")
}

/// Each process appends so many lines, unless it is told of the error.
pub fn is_returned_to_every_process(lines: &str) -> Result<()> {
    let _turn = heavy()?;
    let mut run = four_processes(lines)?;
    run.until(50)?;
    run.fail_sync_of("a.log");
    let status = run.end()?;
    ensure!(status.code() == Some(2), "{status}");
    let told = run.stderr().matches("fdatasync: Input/output error").count();
    ensure!(told == 4, "{told} of 4 processes were told: {}", run.stderr());
    Ok(())
}

/// The process is told again, whenever it calls.
#[test]
pub fn a_failed_sync_stays_an_error() -> Result<()> {
    let _turn = heavy()?;
    let script = "import os, sys\n\
        fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | os.O_APPEND)\n\
        left, said = 10, b'fine\\n'\n\
        while left:\n \
        os.write(fd, b'x\\n')\n \
        try: os.fdatasync(fd); now = b'fine\\n'\n \
        except OSError: now = said = b'failed\\n'\n \
        os.write(1, now)\n \
        left -= said == b'failed\\n'\n";
    let words = ["python3", "-c", script, "@a.log"];
    let mut run = Supervised::start(&window(8), LATENCY, &words)?;
    run.until(50)?;
    run.fail_sync_of("a.log");
    run.until_it_says("failed\n")?;
    let first = run.acknowledged.len();
    ensure!(run.end()?.success(), "{}", run.stderr());
    let fine = run.acknowledged.iter().skip(first).filter(|line| *line == "fine\n").count();
    ensure!(fine == 0, "{fine} calls were fine after one that failed");
    Ok(())
}

/// A thread that has synced a log ends; that log fails; and a process that knows no log has the number of that thread.
const SAME_NUMBER: &str = "import os, sys, threading
log, other = sys.argv[1:]
last = os.open('/proc/sys/kernel/ns_last_pid', os.O_WRONLY)
fd = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
os.close(os.open(other, os.O_CREAT | os.O_WRONLY))
def sync():
    os.write(fd, b'x\\n')
    os.fdatasync(fd)
    os.write(1, b'x\\n')
def thread(): numbers.append(threading.get_native_id()), sync()
numbers = []
first = threading.Thread(target=thread)
first.start(), first.join()
try:
    while True: sync()
except OSError: os.write(1, b'failed\\n')
for _ in range(10000):
    os.write(last, str(numbers[0] - 1).encode())
    child = os.fork()
    if child == 0:
        if os.getpid() != numbers[0]: os._exit(2)
        try: os.rename(other, other)
        except OSError: os._exit(1)
        os._exit(0)
    said = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if said != 2: break
os.write(1, [b'fine\\n', b'told\\n', b'another number\\n'][said])
";

#[test]
fn another_process_with_the_number_of_a_thread_is_told_of_no_error() -> Result<()> {
    let _turn = heavy()?;
    let words = ["python3", "-c", SAME_NUMBER, "@a.log", "@other"];
    let mut run = Supervised::start(&window(8), LATENCY, &words)?;
    run.until(50)?;
    run.fail_sync_of("a.log");
    run.until_it_says("failed\n")?;
    run.end()?;
    let said = run.acknowledged.last().map(String::as_str);
    ensure!(said == Some("fine\n"), "{said:?}: {}", run.stderr());
    Ok(())
}

/// A process that has synced a log ends, and another has its number: that one syncs the log for the first time.
const HEIR: &str = "import ctypes, os, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
now = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
def sync():
    fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.write(fd, b'x\\n'), os.fdatasync(fd)
def fork_as(number):
    wanted = ctypes.c_int(number)
    how = struct.pack('11Q', 0, 0, 0, 0, 17, 0, 0, 0, ctypes.addressof(wanted), 1, 0)
    return libc.syscall(435, how, ctypes.c_size_t(len(how)))
heir = -1
while heir < 0:
    first = os.fork()
    if first == 0: sync(), os._exit(0)
    os.waitpid(first, 0)
    # The system tells when a process began in ticks.
    ended = now()
    while now() < ended + 2 / os.sysconf('SC_CLK_TCK'): pass
    # It fails if a process of somebody else has the number by now.
    heir = fork_as(first)
    if heir < 0 and ctypes.get_errno() == 1: sys.exit('only root may choose a number')
if heir == 0: libc.prctl(1, 9), sync(), os.write(1, b'x\\n')
time.sleep(3600)
";

#[test]
fn another_process_with_the_number_of_one_that_has_ended_is_a_new_one() -> Result<()> {
    let _turn = heavy()?;
    let mut run = Supervised::start(LAZY, LATENCY, &["python3", "-c", HEIR, "@a.log"])?;
    run.until(1)?;
    let behind = pending(run.supervisor()?.0)?;
    ensure!(behind == 0, "{behind} calls are deferred: {}", run.stderr());
    loses_nothing(run)
}

#[test]
fn a_program_that_relies_on_its_syncs_is_warned_of() -> Result<()> {
    let folder = tempfile::TempDir::new()?;
    let etcd = folder.path().join("etcd");
    copy_program(program(&[])?, &etcd)?;
    let mut run = Supervised::start(&window(8), LATENCY, &[etcd.to_str().unwrap(), "ring"])?;
    run.end()?;
    ensure!(run.stderr().contains("should not run under a policy"), "{}", run.stderr());
    Ok(())
}

#[test]
fn a_ring_is_refused_and_told() -> Result<()> {
    let program = program(&[])?;
    let mut run = Supervised::start(&window(8), LATENCY, &[program.to_str().unwrap(), "ring"])?;
    ensure!(run.end()?.success());
    ensure!(run.acknowledged == ["Function not implemented\n"; 3], "{:?}", run.acknowledged);
    ensure!(run.stderr().contains("io_uring is refused"), "{}", run.stderr());
    Ok(())
}

/// The process group and the session of a process (proc_pid_stat(5)).
fn group_and_session(pid: u32) -> Result<(u32, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("a name")?;
    let mut fields = fields.split_whitespace().skip(2);
    let mut field = || fields.next().context("a field")?.parse().context("a number");
    Ok((field()?, field()?))
}

/// Whether a process ignores a signal (proc_pid_status(5)).
fn ignores(pid: i32, signal: i32) -> Result<bool> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).context("a mask")?;
    Ok(u64::from_str_radix(mask.trim(), 16)? >> (signal - 1) & 1 == 1)
}

/// Ctrl-C goes to the process group of the command, and `stty tostop` stops those in the background that print. Linux
/// divides the processors between sessions: in one of its own the supervisor may wait for a second on a busy machine.
#[test]
fn the_supervisor_is_in_the_session_of_the_command_and_not_in_its_process_group() -> Result<()> {
    let _turn = heavy()?;
    let run = twenty_lines()?;
    let (supervisor, keeper) = run.supervisor()?;
    let (group, session) = group_and_session(run.child.id())?;
    for pid in [supervisor, keeper] {
        let its = group_and_session(pid.try_into()?)?;
        ensure!(its.0 != group && its.1 == session, "{its:?} beside {:?}", (group, session));
        ensure!(ignores(pid, libc::SIGTTOU)?, "{pid} can be stopped by a terminal");
    }
    Ok(())
}
