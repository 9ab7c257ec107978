//! `durac compile --runtime bpftime` and `durac load`: what BPFtime's system-call server is asked
//! for, in which order, and what is refused before it is asked.

mod life;
mod place;

use anyhow::{Context, Result, ensure};
use durac_abi::elf;
use durac_abi::{Object, session};
use durac_tests::{cc, durac, run, run_durac, show};
use durac_workload::child;
use place::{DEFERS, Place, with_kernel};
use std::fs;
use std::path::Path;

/// A policy with everything that is loaded: parameters, state, two programs.
const POLICY: &str = "\
policy sometimes
target test

target test {
    files \"*.log\"
    hook write(log: file, data: borrowed bytes, len: bytes) -> bytes {
        entry symbol \"test_write\"
        may pass, fail
    }
    hook fdatasync(log: file, failed: status) -> status {
        entry symbol \"test_fdatasync\"
        may pass, skip, fail
    }
}

param most: bytes = 4MiB in 1KiB..=1GiB
param strict: bool = false
state last: bool = true
on write { if call.len > most { fail EFBIG } }
on fdatasync {
    if strict { pass }
    every 4 calls { last = !last; pass }
    skip
}
";

fn object(path: &Path) -> Result<Object> {
    Ok(elf::read(&fs::read(path)?)?)
}

/// What was called, without the number that each loader makes up.
fn calls(place: &Place) -> Result<String> {
    let mut out = String::new();
    let mut session = None;
    for line in place.record()?.lines() {
        let mut words: Vec<&str> = line.split(' ').collect();
        if words.starts_with(&["map_create", "session"]) {
            session = words.last().copied().map(str::to_owned);
        }
        if words.first() == Some(&"map_update") && words.get(1).copied() == session.as_deref() {
            ensure!(
                words.get(6).is_some_and(|id| id.parse::<u64>().is_ok_and(|id| id > 1 << 32)),
                "{line}"
            );
            words.iter_mut().skip(6).take(1).for_each(|id| *id = "ID");
        }
        out.push_str(&words.join(" "));
        out.push('\n');
    }
    Ok(out)
}

#[test]
fn the_calls_are_those_that_bpftime_understands() -> Result<()> {
    let place = Place::new()?;
    let compiled = place.compile(POLICY)?;
    let mut command = place.load(&compiled, &["--set", "most=1MiB"])?;
    // A place that is taken is no error: the next number has another.
    command.env("EEXIST", "7");
    let loader = place.loader(command)?;
    let before = calls(&place)?;
    let said = loader.end(libc::SIGTERM)?;
    let ended = calls(&place)?;
    // What a target attaches is closed at the end, where BPFtime sees it, and nothing before.
    let closed = ended.strip_prefix(&before).context(ended.clone())?;
    let expected: String = (4..=9).rev().map(|number| format!("close {number}\n")).collect();
    ensure!(closed == expected, "{closed}");

    let offsets = offsets(&place.target)?;
    let offset = |symbol: &str| -> Result<u64> {
        let found = offsets.iter().find(|(name, _)| name == symbol);
        Ok(found.with_context(|| symbol.to_owned())?.1)
    };
    let (write, sync) = (offset("test_write")?, offset("test_fdatasync")?);
    let object = object(&compiled)?;
    let program = |index: usize| -> Result<(usize, String)> {
        let program = object.programs.get(index).context("no program")?;
        let maps = program.relocs.iter().map(|r| format!(" {}:{}", r.slot, r.map + 1));
        Ok((program.insns.len(), maps.collect()))
    };
    let ((slots_0, maps_0), (slots_1, maps_1)) = (program(0)?, program(1)?);
    let probe = |offset: u64| {
        format!(
            "perf_event_open type 1008 size 112 config 0 path bpftime_target offset {offset:#x} \
             pid -1 cpu 0 group -1 flags 8"
        )
    };
    let (probe_0, probe_1) = (probe(write), probe(sync));
    let zeros = " 0".repeat(session::WORDS - 1);
    let load_0 =
        format!("prog_load durac_write type 2 licence Dual MIT/GPL slots {slots_0} maps{maps_0}");
    let expected = format!(
        "map_create params type 2 key 4 value 16 entries 1 flags 0x400 = 1\n\
         map_update 1 key 0 flags 0: 1048576 0 = ok\n\
         map_create state type 2 key 4 value 16 entries 1 flags 0x400 = 2\n\
         map_update 2 key 0 flags 0: 1 0 = ok\n\
         mmap 2\n\
         map_create session type 2 key 4 value {} entries 1 flags 0x400 = 3\n\
         map_update 3 key 0 flags 0: ID{zeros} = ok\n\
         mmap 3\n\
         {load_0} = taken\n\
         {load_0} = 4\n\
         prog_load durac_fdatasync type 2 licence Dual MIT/GPL slots {slots_1} maps{maps_1} = 5\n\
         {probe_0} = 6\n\
         link_create program 4 probe 6 attach_type 41 flags 0 = 7\n\
         {probe_1} = 8\n\
         link_create program 5 probe 8 attach_type 41 flags 0 = 9\n",
        8 * session::WORDS
    );
    ensure!(before == expected, "made:\n{before}expected:\n{expected}");
    let line = format!("    fdatasync: at test_fdatasync, {sync:#x} of the file");
    ensure!(said.contains(&line), "{said}");
    Ok(())
}

/// The functions of a program as nm sees them; in this one a place in memory is one in the file.
fn offsets(path: &Path) -> Result<Vec<(String, u64)>> {
    let mut nm = child::command(&[], &child::which("nm")?);
    nm.args(["-D", "--defined-only"]).arg(path);
    let ended = run(nm)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    let symbol = |line: &str| {
        let mut words = line.split_whitespace();
        let address = u64::from_str_radix(words.next()?, 16).ok()?;
        Some((words.nth(1)?.to_owned(), address))
    };
    Ok(ended.stdout.lines().filter_map(symbol).collect())
}

#[test]
fn a_call_that_fails_ends_the_loader() -> Result<()> {
    let place = Place::new()?;
    let compiled = place.compile(POLICY)?;
    for call in 1..=12 {
        let _ = fs::remove_file(place.path("record"));
        let mut command = place.load(&compiled, &[])?;
        command.env("REFUSE", call.to_string());
        let ended = run(command)?;
        ensure!(ended.status.code() == Some(2), "{call}: {}", show(&ended));
        ensure!(ended.stderr.contains("BPFtime refused"), "{call}: {}", show(&ended));
        ensure!(ended.stdout.is_empty(), "{call}: {}", show(&ended));
        let record = place.record()?;
        let made = record.lines().filter(|line| !line.starts_with("mmap")).count();
        ensure!(made == call, "{call}: {record}");
        // A target finds no half of it.
        ensure!(!place.memory().exists(), "{call}: the memory is left");
    }
    // BPFtime returns an error without errno: not "Success".
    for (result, why) in [("28", "no space left on device"), ("1", "no reason given")] {
        let mut command = place.load(&compiled, &[])?;
        command.env("REFUSE", "7").env("REFUSE_AS", result);
        let ended = run(command)?;
        let said = format!("BPFtime refused the program of `write`: {why}");
        ensure!(ended.stderr.contains(&said), "{}", show(&ended));
    }
    // A place that stays taken.
    let mut command = place.load(&compiled, &[])?;
    command.env("REFUSE", "7").env("REFUSE_AS", "17").env("REFUSE_ALL", "1");
    let ended = run(command)?;
    ensure!(ended.stderr.contains("the program of `write`: file exists"), "{}", show(&ended));
    Ok(())
}

#[test]
fn the_calls_can_be_intercepted() -> Result<()> {
    let mut nm = child::command(&[], &child::which("nm")?);
    nm.args(["-D", "--undefined-only"]).arg(durac_tests::tool()?);
    let ended = run(nm)?;
    let imported =
        |line: &str| line.trim().strip_prefix("U ").is_some_and(|n| n.starts_with("syscall@"));
    ensure!(ended.stdout.lines().any(imported), "{}", show(&ended));
    // The maps are shown by `mmap`, and what is closed must be seen.
    for name in ["mmap", "close"] {
        let of = |line: &str| {
            let found = line.trim().strip_prefix("U ").and_then(|rest| rest.split('@').next());
            found.is_some_and(|found| found == name || found == format!("{name}64"))
        };
        ensure!(ended.stdout.lines().any(of), "{name}: {}", show(&ended));
    }
    Ok(())
}

#[test]
fn the_server_is_preloaded_by_the_loader_alone() -> Result<()> {
    let place = Place::new()?;
    let compiled = place.compile(POLICY)?;
    // By hand, as it was in earlier versions: its session is cleared before anything can be looked at.
    let mut command = place.load(&compiled, &[])?;
    command.env("LD_PRELOAD", place.bpftime.join("libbpftime-syscall-server.so"));
    let ended = run(command)?;
    ensure!(ended.status.code() == Some(2), "{}", show(&ended));
    ensure!(ended.stderr.contains("start `durac load` without LD_PRELOAD"), "{}", show(&ended));
    // The second run without the first, or without the server.
    let mut command = place.load(&compiled, &[])?;
    command.env("DURAC_LOAD_LOCK", "0");
    let ended = run(command)?;
    ensure!(ended.status.code() == Some(2), "{}", show(&ended));
    ensure!(ended.stderr.contains("BPFtime's server is not preloaded"), "{}", show(&ended));
    let mut command = place.load(&compiled, &[])?;
    command.env("DURAC_LOAD_LOCK", "0");
    command.env("LD_PRELOAD", place.bpftime.join("libbpftime-syscall-server.so"));
    let ended = run(command)?;
    ensure!(
        ended.stderr.contains("DURAC_LOAD_LOCK is not the lock of the session"),
        "{}",
        show(&ended)
    );
    // Nowhere.
    let mut command = durac(["load"])?;
    command.arg(&compiled).arg("--target").arg(&place.target).env("HOME", place.path("home"));
    let ended = run(command)?;
    ensure!(
        ended.stderr.contains("cannot find `libbpftime-syscall-server.so` in"),
        "{}",
        show(&ended)
    );
    ensure!(place.record()?.is_empty(), "{}", place.record()?);
    Ok(())
}

#[test]
fn what_cannot_be_hooked_is_refused_before_any_call() -> Result<()> {
    let place = Place::new()?;
    let script = place.path("script");
    fs::write(&script, "#!/bin/sh\n")?;
    let fixed = cc("bpftime/target.c", "bpftime_target_static", &["-static", "-pthread"])?;
    // As Debian's redis-server is one.
    let named = place.path("redis-server");
    std::os::unix::fs::symlink(&place.target, &named)?;
    let cases = [
        ("test_short", place.target.clone(), "bytes, and the patch takes up to 16"),
        ("test_hidden", place.target.clone(), "is not exported"),
        ("test_missing", place.target.clone(), "has no function `test_missing`"),
        (
            "durac_aof_fdatasync",
            named,
            "/redis-server` has no function `durac_aof_fdatasync`: it is not the \
                                        server with durac's patch, which `runtime-bridge/redis/build.sh` builds",
        ),
        ("test_fdatasync", script, "is not a 64-bit x86 program"),
        ("test_fdatasync", fixed, "is statically linked"),
        ("test_fdatasync", place.path("nothing"), "cannot read the target"),
    ];
    for (symbol, target, why) in cases {
        let object = place.compile(&POLICY.replace("test_fdatasync", symbol))?;
        let ended = run(place.load_for(&object, &target, &[])?)?;
        ensure!(ended.status.code() == Some(1), "{why}: {}", show(&ended));
        ensure!(ended.stderr.contains(why), "{why}: {}", show(&ended));
        ensure!(place.record()?.is_empty(), "{why}: {}", place.record()?);
    }
    Ok(())
}

#[test]
fn each_runtime_refuses_the_others_objects() -> Result<()> {
    let place = Place::new()?;
    let agents = place.path("agent.o");
    let mut command = durac(["compile", "always", "-o"])?;
    command.arg(&agents);
    ensure!(run(command)?.status.success(), "cannot compile");
    let ended = run(place.load(&agents, &[])?)?;
    ensure!(ended.status.code() == Some(1), "{}", show(&ended));
    ensure!(
        ended.stderr.contains("the object is for the runtime `agent`, not `bpftime`"),
        "{}",
        show(&ended)
    );

    let compiled = place.compile(POLICY)?;
    let mut command = durac(["run"])?;
    command.arg(&compiled).args(["--", "true"]);
    let ended = run(command)?;
    ensure!(ended.status.code() == Some(1), "{}", show(&ended));
    ensure!(
        ended.stderr.contains("the object is for the runtime `bpftime`, not `agent`"),
        "{}",
        show(&ended)
    );
    Ok(())
}

#[test]
fn the_agent_runs_the_application_without_it() -> Result<()> {
    let place = Place::new()?;
    let compiled = place.compile(POLICY)?;
    let mut command = child::command(&[], &child::which("true")?);
    command.env("LD_PRELOAD", durac_tests::agent()?).env("DURAC_OBJECT", &compiled);
    let ended = run(command)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    ensure!(
        ended.stderr.contains("the object is for the runtime `bpftime`, not `agent`"),
        "{}",
        show(&ended)
    );
    Ok(())
}

#[test]
fn what_is_unsafe_there_does_not_compile() -> Result<()> {
    for policy in ["delayed_fsync", "window", "adaptive", "everysec", "batch"] {
        let ended = run_durac([
            "compile",
            "--runtime",
            "bpftime",
            "--target",
            "redis.patched",
            policy,
            "-o",
            "-",
        ])?;
        ensure!(ended.status.code() == Some(1), "{policy}: {}", show(&ended));
        ensure!(ended.stderr.contains("E0610"), "{policy}: {}", show(&ended));
        ensure!(ended.stdout.is_empty(), "{policy}: {}", show(&ended));
    }
    // Without functions of its own nothing can be hooked, not even by a policy that does nothing.
    let ended = run_durac(["check", "--runtime", "bpftime", "always"])?;
    ensure!(ended.status.code() == Some(1) && ended.stderr.contains("E0611"), "{}", show(&ended));
    for policy in ["always", "no", "fast_notify"] {
        let ended =
            run_durac(["check", "--runtime", "bpftime", "--target", "redis.patched", policy])?;
        ensure!(ended.status.success(), "{policy}: {}", show(&ended));
    }
    Ok(())
}

#[test]
fn the_kernels_program_is_loaded_with_the_others() -> Result<()> {
    let place = Place::new()?;
    let compiled = place.compile(DEFERS)?;
    let mut command = place.load(&compiled, &[])?;
    with_kernel(&mut command)?;
    let loader = place.loader(command)?;
    let record = calls(&place)?;
    let said = loader.end(libc::SIGTERM)?;
    ensure!(said.contains("the kernel counts its syncs: "), "{said}");
    let object = object(&compiled)?;
    let program = |index: usize| -> Result<(usize, String)> {
        let program = object.programs.get(index).context("no program")?;
        let maps = program.relocs.iter().map(|r| format!(" {}:{}", r.slot, r.map + 1));
        Ok((program.insns.len(), maps.collect()))
    };
    let ((slots_0, maps_0), (slots_1, maps_1)) = (program(0)?, program(1)?);
    let begin = format!(
        "map_create state type 2 key 4 value 48 entries 1 flags 0x400 = 1\n\
         map_update 1 key 0 flags 0: 0 0 0 0 0 0 = ok\n\
         mmap 1\n\
         map_create session type 2 key 4 value {} entries 1 flags 0x400 = 2\n\
         map_update 2 key 0 flags 0: ID{} = ok\n\
         mmap 2\n\
         map_create syncs type 1 key 4 value 16 entries 1 flags 0 = 3\n\
         map_update 3 key 0 flags 0: 0 0 = ok\n\
         prog_load durac_fdatasync type 2 licence Dual MIT/GPL slots {slots_0} maps{maps_0} = 4\n\
         prog_load durac_barrier type 2 licence Dual MIT/GPL slots {slots_1} maps{maps_1} = 5\n\
         btf_load = 6\n",
        8 * session::WORDS,
        " 0".repeat(session::WORDS - 1)
    );
    ensure!(record.starts_with(&begin), "{record}\n{begin}");
    // At the first place that the kernel allows; and it outlives the loader.
    let rest = record.strip_prefix(&begin).unwrap_or_default();
    ensure!(rest.starts_with("kernel_prog_load count_syncs type 26 attach 25 types 6"), "{rest}");
    let (counts, attaches) = rest.split_once("\nperf_event_open").context(rest.to_owned())?;
    let opened = counts.lines().rev().nth(1).context("no tracepoint")?;
    let (_, number) = opened.split_once(" = ").context(opened.to_owned())?;
    ensure!(opened.starts_with("raw_tracepoint "), "{rest}");
    ensure!(counts.ends_with(&format!("\npin {number} = ok")), "{rest}");
    let probes = attaches.matches("type 1008").count();
    let links = attaches.matches("attach_type 41").count();
    ensure!((probes, links) == (2, 2) && !rest.contains("close"), "{rest}");
    Ok(())
}

#[test]
fn what_the_server_must_be_told_is_said_before_any_call() -> Result<()> {
    let place = Place::new()?;
    let (plain, counted) = (place.compile(POLICY)?, place.path("counted.o"));
    fs::rename(&plain, place.path("plain.o"))?;
    fs::rename(place.compile(DEFERS)?, &counted)?;
    let plain = place.path("plain.o");
    let kernel = ("BPFTIME_RUN_WITH_KERNEL", "1");
    let pattern = ("BPFTIME_NOT_LOAD_PATTERN", "durac_.*");
    type Case<'a> = (&'a Path, &'a [(&'a str, &'a str)], &'a str);
    let cases: [Case<'_>; 7] = [
        (&counted, &[], "export BPFTIME_RUN_WITH_KERNEL='1'"),
        (&counted, &[kernel], "export BPFTIME_NOT_LOAD_PATTERN='durac_.*'"),
        (
            &counted,
            &[kernel, ("BPFTIME_NOT_LOAD_PATTERN", "x.*")],
            "export BPFTIME_NOT_LOAD_PATTERN='durac_.*'",
        ),
        (
            &counted,
            &[kernel, pattern, ("BPFTIME_MAX_FD_COUNT", "128")],
            "export BPFTIME_MAX_FD_COUNT=",
        ),
        (&plain, &[kernel], "`unset BPFTIME_RUN_WITH_KERNEL`"),
        (&plain, &[("BPFTIME_LOG_OUTPUT", "/proc/nowhere/log")], "cannot write BPFtime's log"),
        (&plain, &[("BPFTIME_GLOBAL_SHM_NAME", "a/b")], "invalid session name `a/b`"),
    ];
    for (object, variables, why) in cases {
        let mut command = place.load(object, &[])?;
        with_kernel(&mut command)?;
        for variable in ["RUN_WITH_KERNEL", "NOT_LOAD_PATTERN", "MAX_FD_COUNT"] {
            command.env_remove(format!("BPFTIME_{variable}"));
        }
        command.envs(variables.iter().copied());
        let ended = run(command)?;
        ensure!(ended.status.code().is_some_and(|code| code > 0), "{why}: {}", show(&ended));
        ensure!(ended.stderr.contains(why), "{why}: {}", show(&ended));
        ensure!(place.record()?.is_empty(), "{why}: {}", place.record()?);
    }
    // An agent without io_uring.
    let poor = ["-shared", "-fPIC", "-DNO_IOURING"];
    let poor = cc("bpftime/agent.c", "poor/libbpftime-agent.so", &poor)?;
    let folder = poor.parent().context("no folder")?;
    cc("bpftime/server.c", "poor/libbpftime-syscall-server.so", &["-shared", "-fPIC"])?;
    let mut command = durac(["load"])?;
    command.arg(&counted).arg("--target").arg(&place.target).arg("--bpftime").arg(folder);
    with_kernel(&mut command)?;
    let ended = run(command)?;
    ensure!(ended.stderr.contains("cmake -DBPFTIME_ENABLE_IOURING_EXT=1"), "{}", show(&ended));
    // Without the rights; durac's own file may be out of reach then.
    let mut command = child::command(&[], &child::which("setpriv")?);
    command.args(["--bounding-set=-sys_admin", "--"]).arg(durac_tests::tool()?).arg("load");
    command.arg(&counted).arg("--target").arg(&place.target);
    with_kernel(&mut command)?;
    let ended = run(command)?;
    ensure!(ended.stderr.contains("needs root (CAP_SYS_ADMIN)"), "{}", show(&ended));
    Ok(())
}

#[test]
fn a_call_for_the_kernel_that_fails_ends_the_loader() -> Result<()> {
    let place = Place::new()?;
    let compiled = place.compile(DEFERS)?;
    for (refuse, why) in
        [("3", "BPFtime refused"), ("5", "BPFtime refused"), ("all", "cannot count")]
    {
        let _ = fs::remove_file(place.path("record"));
        let mut command = place.load(&compiled, &[])?;
        with_kernel(&mut command)?;
        match refuse {
            "all" => command.env("REFUSE_KERNEL", "1"),
            call => command.env("REFUSE", call),
        };
        let ended = run(command)?;
        ensure!(ended.status.code() == Some(2), "{refuse}: {}", show(&ended));
        ensure!(
            ended.stderr.contains(why) && ended.stdout.is_empty(),
            "{refuse}: {}",
            show(&ended)
        );
        // Nothing is attached to the application.
        ensure!(!place.record()?.contains("perf_event_open"), "{refuse}: {}", place.record()?);
    }
    Ok(())
}
