//! `durac record` of commands that the agent does not reach: what stands in a trace is what happened.

use crate::common::{keeper_of, kill, object, poll, program, window};
use anyhow::{Context, Result, ensure};
use durac_shm::status::{LogNumbers, Status};
use durac_tests::trace::{Trace, check_direct_syncs, check_schema, sums};
use durac_tests::{durac, heavy, run, show};
use durac_trace::{Event, Op, Source, Verdict};
use durac_workload::sys;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// Every sync call runs as the command makes it.
const PASS: &str = "policy p\ntarget posix.log\non fdatasync: pass\n";
/// The first call waits for certain: nothing has covered its write.
const WAITS: &str = "policy p\ntarget posix.log\non fdatasync: await all; defer\n";
/// The log's own numbers are not known: writes are asked about without a recording, too.
const BYTES: &str = "policy p\ntarget posix.log\n\
                     on fdatasync: if pending.bytes > 100 bytes { pass }; defer\nflush within 1s\n";

/// A command that is recorded, and stays until it is stopped.
struct Recorded {
    child: Child,
    dir: TempDir,
}

impl Recorded {
    /// Records a shell script, in which `$P` is the program and `$D` a folder.
    fn start(policy: &str, script: &str) -> Result<Self> {
        Self::of(policy, &["--engine", "supervisor"], &["sh", "-c", script])
    }

    fn of(policy: &str, options: &[&str], words: &[&str]) -> Result<Self> {
        let dir = TempDir::with_prefix("durac-record-")?;
        let mut command = Command::new(durac_tests::tool()?);
        command.args(["record", "-o"]).arg(dir.path().join("trace.json")).args(options);
        command.arg("-p").arg(object(policy, dir.path())?).arg("--").args(words);
        command.env("P", program(&[])?).env("D", dir.path());
        command.env("DURAC_STATUS", dir.path().join("status"));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(std::fs::File::create(dir.path().join("stderr"))?);
        Ok(Self { child: command.spawn()?, dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn stderr(&self) -> String {
        std::fs::read_to_string(self.path("stderr")).unwrap_or_default()
    }

    /// Waits until its script has made the file `done`, and returns the status page.
    fn until_done(&mut self) -> Result<Status> {
        poll("the end of the script", || {
            let ended = self.child.try_wait().is_ok_and(|status| status.is_some());
            (ended || self.path("done").exists()).then_some(())
        })?;
        Status::open(&self.path("status")).with_context(|| self.stderr())
    }

    /// Ends it, and reads its trace.
    fn end(&mut self) -> Result<Trace> {
        sys::kill(self.child.id(), libc::SIGTERM)?;
        self.child.wait()?;
        let path = self.path("trace.json");
        check_schema(&path).with_context(|| self.stderr())?;
        Trace::read(&path)
    }
}

/// What the page says of all logs is what the trace says.
fn agrees(trace: &Trace, numbers: LogNumbers) -> Result<()> {
    let calls = trace.count(|e| e.op.is_sync_call() && e.verdict != Verdict::Refused);
    ensure!(calls == numbers.calls && calls > 0, "{calls} calls, {numbers:?}");
    let syncs = trace.count(|e| e.op == Op::Sync && e.result == 0);
    ensure!(syncs == numbers.syncs, "{syncs} syncs, {numbers:?}");
    let acknowledged = trace.count(|e| matches!(e.verdict, Verdict::Defer | Verdict::Skip));
    ensure!(acknowledged == numbers.deferred, "{acknowledged} deferred, {numbers:?}");
    Ok(())
}

/// Bytes that syncs were the first to cover.
fn synced(trace: &Trace) -> u64 {
    trace.of(Op::Sync).map(|sync| sync.bytes).sum()
}

/// The trace says what the supervisor's own counters say, and what lies in the log: of four processes, with writes that
/// only the recording asks about and with a policy that asks about them itself.
#[test]
fn a_trace_is_what_happened() -> Result<()> {
    let _turn = heavy()?;
    for policy in [PASS.to_owned(), WAITS.to_owned(), window(3), BYTES.to_owned()] {
        let script = "$P append $D/a.log 4 60 && : >$D/done; exec sleep 1000";
        let mut run = Recorded::start(&policy, script)?;
        let status = run.until_done()?;
        let numbers = sums(&status);
        let trace = run.end()?;
        agrees(&trace, numbers).with_context(|| format!("{policy}\n{}", run.stderr()))?;
        ensure!(trace.end.dropped == 0, "{:?}", trace.end);
        let recorded = &trace.header.recorded;
        ensure!(recorded.source == Source::Supervisor && recorded.target == "posix.log");
        ensure!(recorded.command.first().is_some_and(|word| word == "sh"), "{recorded:?}");
        let opened: Vec<&Event> = trace.of(Op::Open).collect();
        let log = run.path("a.log");
        ensure!(opened.len() == 1 && opened.iter().all(|e| Path::new(&e.path) == log));
        ensure!(trace.written(0) == log.metadata()?.len(), "{} bytes", trace.written(0));
        ensure!(trace.of(Op::Write).count() == 240 && trace.events.iter().all(|e| e.result == 0));
        // Each process has a thread, which makes its calls in turn, and works between them.
        let mut of_thread: BTreeMap<u32, Vec<&Event>> = BTreeMap::new();
        for event in trace.events.iter().filter(|event| event.op.is_call()) {
            of_thread.entry(event.thread).or_default().push(event);
        }
        ensure!(of_thread.len() == 4, "{:?}", of_thread.keys());
        for events in of_thread.values() {
            ensure!(events.len() == 120, "{events:?}");
            for (index, event) in events.iter().enumerate() {
                ensure!((event.op == Op::Write) == index.is_multiple_of(2), "{event:?}");
                ensure!(index == 0 || event.cpu > 0, "{event:?}");
            }
        }
        let background: BTreeSet<u32> =
            trace.of(Op::Sync).filter(|e| e.background).map(|e| e.thread).collect();
        ensure!(background.iter().all(|thread| !of_thread.contains_key(thread)));
        check_direct_syncs(&trace)?;
        if policy == PASS {
            // Two syncs that overlap both count what neither has covered when it began.
            ensure!(background.is_empty() && synced(&trace) >= trace.written(0));
            ensure!(trace.of(Op::Fdatasync).all(|e| e.sync_cpu > 0));
            // The first call of a process is made whatever it has written; another process' call may have covered that.
            let later = of_thread.values().flat_map(|events| events.iter().skip(2));
            let mut calls = later.filter(|event| event.op == Op::Fdatasync);
            ensure!(calls.all(|event| event.verdict == Verdict::Pass));
        } else {
            ensure!(synced(&trace) > 0);
            ensure!(trace.of(Op::Fdatasync).all(|e| e.wait <= e.took));
            ensure!(policy != WAITS || trace.of(Op::Fdatasync).any(|e| e.wait > 0));
        }
    }
    Ok(())
}

/// What is deferred last is synced in the background, since nobody calls any more; the trace says when and by whom.
#[test]
fn a_sync_in_the_background() -> Result<()> {
    let _turn = heavy()?;
    let mut run = Recorded::start(&window(64), "exec $P idle $D/a.log 5")?;
    let numbers = poll("the end of all syncs", || {
        let numbers = sums(&Status::open(&run.path("status")).ok()?);
        (numbers.calls == 5 && numbers.durable == 5).then_some(numbers)
    })?;
    let trace = run.end()?;
    agrees(&trace, numbers)?;
    ensure!(numbers.deferred == 4, "{numbers:?}");
    let caller = trace.of(Op::Fdatasync).map(|e| e.thread).next();
    let background: Vec<&Event> = trace.of(Op::Sync).filter(|e| e.background).collect();
    ensure!(background.iter().any(|e| e.covers == 5 && e.sync_cpu > 0), "{background:?}");
    ensure!(background.iter().all(|e| Some(e.thread) != caller), "{background:?}");
    Ok(())
}

/// Records a program without being told which engine: 300 lines to a log, each synced. It is recorded by the supervisor.
fn recorded_by_the_supervisor(words: &[&str], log: &Path) -> Result<(Recorded, Trace)> {
    let mut recorded = Recorded::of(PASS, &[], words)?;
    let status = recorded.child.wait()?;
    let said = recorded.stderr();
    ensure!(status.success() && said.contains("using the supervisor"), "{status}: {said}");
    let path = recorded.path("trace.json");
    check_schema(&path)?;
    let trace = Trace::read(&path)?;
    ensure!(trace.of(Op::Write).count() == 300 && trace.count(|e| e.op.is_sync_call()) == 300);
    ensure!(trace.written(0) == log.metadata()?.len() && synced(&trace) == trace.written(0));
    Ok((recorded, trace))
}

/// Its calls have other numbers, and their arguments other sizes.
#[test]
fn a_32_bit_program_is_recorded() -> Result<()> {
    let _turn = heavy()?;
    let options =
        ["-m32", "-static", "-nostdlib", "-ffreestanding", "-fno-pic", "-fno-stack-protector"];
    let program = durac_tests::cc("narrow.c", "narrow", &options)?;
    let folder = TempDir::new()?;
    let log = folder.path().join("a.log");
    let words = [program.to_str().unwrap(), log.to_str().unwrap(), "300"];
    let (_recorded, trace) = recorded_by_the_supervisor(&words, &log)?;
    ensure!(trace.of(Op::Write).all(|write| write.bytes == 6 && write.result == 0));
    ensure!(trace.of(Op::Fsync).count() == 150 && trace.of(Op::Fdatasync).count() == 150);
    let text = std::fs::read_to_string(&log)?;
    ensure!(text.lines().enumerate().all(|(index, line)| line == format!("{index:05}")), "{text}");
    Ok(())
}

#[test]
fn programs_of_another_c_library_are_recorded() -> Result<()> {
    let _turn = heavy()?;
    let musl = ["-O1", "-specs", "/usr/lib/x86_64-linux-musl/musl-gcc.specs"];
    for (name, more) in [("supervised-musl", None), ("supervised-musl-static", Some("-static"))] {
        let options: Vec<&str> = musl.into_iter().chain(more).collect();
        let program = durac_tests::cc("supervised.c", name, &options)?;
        let folder = TempDir::new()?;
        let log = folder.path().join("a.log");
        let words = [program.to_str().unwrap(), "append", log.to_str().unwrap(), "1", "300"];
        let (_recorded, trace) = recorded_by_the_supervisor(&words, &log)?;
        ensure!(trace.of(Op::Fdatasync).count() == 300);
    }
    Ok(())
}

/// A static program is recorded by the supervisor without being asked to, and the other tools take its trace.
#[test]
fn a_static_program_is_recorded() -> Result<()> {
    let _turn = heavy()?;
    let program = program(&["-static"])?;
    let folder = TempDir::new()?;
    let log = folder.path().join("a.log");
    let words = [program.to_str().unwrap(), "append", log.to_str().unwrap(), "1", "300"];
    let (recorded, trace) = recorded_by_the_supervisor(&words, &log)?;
    ensure!(trace.of(Op::Fdatasync).count() == 300);
    let path = recorded.path("trace.json");
    let path = path.to_str().unwrap();
    let ended = run(durac(["simulate", path, "-p", "window:n=16"])?)?;
    ensure!(ended.status.success() && ended.stdout.contains("window"), "{}", show(&ended));
    ensure!(ended.stdout.contains("under the supervisor"), "{}", show(&ended));
    let ended = run(durac(["advise", path, "--at-most", "16syncs"])?)?;
    ensure!(ended.status.success() && ended.stdout.contains("policy "), "{}", show(&ended));
    // Children are not in it, so nothing can be told of a policy that looks for them.
    let ended = run(durac(["simulate", path])?)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    ensure!(
        ended.stderr.contains("adaptive is left out: it reads `child.active`"),
        "{}",
        show(&ended)
    );
    let ended = run(durac(["simulate", path, "-p", "adaptive"])?)?;
    ensure!(
        ended.status.code() == Some(1)
            && ended.stderr.contains(":1:1: error[E0702]: adaptive reads"),
        "{}",
        show(&ended)
    );
    Ok(())
}

/// A log whose file is removed is closed; its length is changed by a call that is no write; another is opened.
#[test]
fn logs_come_and_go() -> Result<()> {
    let _turn = heavy()?;
    let script = "$P append $D/a.log 1 20 && truncate -s 7 $D/a.log && $P compat $D/b.log 10 \
                  && rm $D/a.log && : >$D/done; exec sleep 1000";
    let mut run = Recorded::start(&window(3), script)?;
    let status = run.until_done()?;
    poll("the end of a log", || {
        let logs = status.page().snapshot().logs;
        logs.iter().any(|log| log.numbers.descriptors == 0).then_some(())
    })?;
    let trace = run.end()?;
    let paths: Vec<&str> = trace.of(Op::Open).map(|open| open.path.as_str()).collect();
    ensure!(paths.len() == 2 && paths[0].ends_with("a.log") && paths[1].ends_with("b.log"));
    let closed: Vec<u32> = trace.of(Op::Close).map(|close| close.log).collect();
    // On a machine that stands still for 10 s, the other one is closed, too.
    ensure!(closed.first() == Some(&0), "{closed:?}");
    let resized = trace.count(|e| e.op == Op::Write && e.bytes == 0 && e.log == 0);
    ensure!(resized == 1, "{resized}");
    ensure!(trace.of(Op::Write).filter(|e| e.log == 1).count() == 10);
    // It syncs by 32-bit system calls.
    let synced = trace.of(Op::Fdatasync).filter(|e| e.log == 1).count();
    ensure!(synced == 10, "{synced}");
    Ok(())
}

/// When the supervisor is killed, the command goes on, and the trace does not pass for a whole one.
#[test]
fn a_killed_supervisor_leaves_a_trace_that_says_so() -> Result<()> {
    let _turn = heavy()?;
    let script = "$P append $D/a.log 1 50 && : >$D/done; while test -e $D/done; do sleep 0.02; done; \
                  $P append $D/a.log 1 50 && exit 9";
    let mut run = Recorded::start(&window(3), script)?;
    let status = run.until_done()?;
    let pid = status.page().pid() as i32;
    poll("the keeper", || keeper_of(pid))?;
    kill(pid);
    std::fs::remove_file(run.path("done"))?;
    let ended = run.child.wait()?;
    ensure!(ended.code() == Some(9), "{ended}: {}", run.stderr());
    let trace = Trace::read(&run.path("trace.json"))?;
    ensure!(trace.of(Op::Write).count() == 50, "{}", trace.of(Op::Write).count());
    ensure!(trace.end.dropped > 0, "{:?}", trace.end);
    Ok(())
}
