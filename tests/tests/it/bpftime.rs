//! `durac compile --runtime bpftime` and `durac load`: what BPFtime's system-call server is asked
//! for, in which order, and what is refused before it is asked.

use anyhow::{Context, Result, ensure};
use durac_bpf::{Object, elf};
use durac_tests::{cc, durac, run, run_durac, show};
use durac_workload::child;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use tempfile::TempDir;

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

struct Place {
    dir: TempDir,
    target: PathBuf,
    server: PathBuf,
}

impl Place {
    fn new() -> Result<Self> {
        let target = cc("bpftime_target.c", "bpftime_target", &["-rdynamic"])?;
        let server = cc("bpftime_server.c", "bpftime_server.so", &["-shared", "-fPIC", "-ldl"])?;
        Ok(Self { dir: TempDir::new()?, target, server })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Compiles a policy for BPFtime.
    fn compile(&self, text: &str) -> Result<PathBuf> {
        let (from, to) = (self.path("p.dur"), self.path("p.o"));
        fs::write(&from, text)?;
        let mut command = durac(["compile", "--runtime", "bpftime", "-o"])?;
        command.arg(&to).arg(&from);
        let ended = run(command)?;
        ensure!(ended.status.success(), "{}", show(&ended));
        Ok(to)
    }

    fn load(&self, object: &Path, target: &Path, more: &[&str]) -> Result<std::process::Command> {
        let mut command = durac(["load"])?;
        command.arg(object).arg("--target").arg(target).args(more);
        command.env("LD_PRELOAD", &self.server).env("RECORD", self.path("record"));
        command.env_remove("BPFTIME_RUN_WITH_KERNEL").env_remove("BPFTIME_NOT_LOAD_PATTERN");
        Ok(command)
    }

    fn record(&self) -> Result<String> {
        let path = self.path("record");
        Ok(if path.exists() { fs::read_to_string(path)? } else { String::new() })
    }
}

/// A loader that runs, and is killed if the test gives up on it.
struct Loader(Child);

impl Drop for Loader {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn object(path: &Path) -> Result<Object> {
    Ok(elf::read(&fs::read(path)?)?)
}

#[test]
fn the_calls_are_those_that_bpftime_understands() -> Result<()> {
    let place = Place::new()?;
    let compiled = place.compile(POLICY)?;
    let mut command = place.load(&compiled, &place.target, &["--set", "most=1MiB"])?;
    let mut loader = Loader(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?);
    // It says what it did, and stays.
    let stdout = loader.0.stdout.take().context("no output")?;
    let mut said = String::new();
    for line in BufReader::new(stdout).lines() {
        said.push_str(&line?);
        said.push('\n');
        if said.contains("let this run") {
            break;
        }
    }
    ensure!(loader.0.try_wait()?.is_none(), "{said}");
    let before = place.record()?;
    // SAFETY: a signal to a child that was not waited for.
    ensure!(unsafe { libc::kill(loader.0.id() as i32, libc::SIGTERM) } == 0, "cannot signal");
    ensure!(loader.0.wait()?.success(), "{said}");
    // Nothing that BPFtime made is closed before the process ends.
    ensure!(place.record()? == before, "{}", place.record()?);

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
    let expected = format!(
        "map_create params type 2 key 4 value 16 entries 1 flags 0x400 = 1\n\
         map_update 1 key 0 flags 0: 1048576 0 = ok\n\
         map_create state type 2 key 4 value 32 entries 1 flags 0x400 = 2\n\
         map_update 2 key 0 flags 0: 1 0 0 0 = ok\n\
         prog_load durac_write type 2 licence Dual MIT/GPL slots {slots_0} maps{maps_0} = 3\n\
         prog_load durac_fdatasync type 2 licence Dual MIT/GPL slots {slots_1} maps{maps_1} = 4\n\
         {probe_0} = 5\n\
         link_create program 3 probe 5 attach_type 41 flags 0 = 6\n\
         {probe_1} = 7\n\
         link_create program 4 probe 7 attach_type 41 flags 0 = 8\n"
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
    for call in 1..=10 {
        let _ = fs::remove_file(place.path("record"));
        let mut command = place.load(&compiled, &place.target, &[])?;
        command.env("REFUSE", call.to_string());
        let ended = run(command)?;
        ensure!(ended.status.code() == Some(2), "{call}: {}", show(&ended));
        ensure!(ended.stderr.contains("BPFtime refused"), "{call}: {}", show(&ended));
        ensure!(ended.stdout.is_empty(), "{call}: {}", show(&ended));
        ensure!(place.record()?.lines().count() == call, "{call}: {}", place.record()?);
    }
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
    Ok(())
}

#[test]
fn without_the_server_nothing_is_called() -> Result<()> {
    let place = Place::new()?;
    let compiled = place.compile(POLICY)?;
    let mut command = place.load(&compiled, &place.target, &[])?;
    command.env_remove("LD_PRELOAD");
    let ended = run(command)?;
    ensure!(ended.status.code() == Some(2), "{}", show(&ended));
    ensure!(ended.stderr.contains("libbpftime-syscall-server.so"), "{}", show(&ended));
    Ok(())
}

#[test]
fn what_cannot_be_hooked_is_refused_before_any_call() -> Result<()> {
    let place = Place::new()?;
    let script = place.path("script");
    fs::write(&script, "#!/bin/sh\n")?;
    let fixed = cc("bpftime_target.c", "bpftime_target_static", &["-static"])?;
    let cases = [
        ("test_short", place.target.clone(), "bytes, and the patch takes up to 16"),
        ("test_hidden", place.target.clone(), "is not exported"),
        ("test_missing", place.target.clone(), "has no function `test_missing`"),
        ("test_fdatasync", script, "is no 64-bit x86 program"),
        ("test_fdatasync", fixed, "is statically linked"),
        ("test_fdatasync", place.path("nothing"), "cannot read the target"),
    ];
    for (symbol, target, why) in cases {
        let object = place.compile(&POLICY.replace("test_fdatasync", symbol))?;
        let ended = run(place.load(&object, &target, &[])?)?;
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
    let ended = run(place.load(&agents, &place.target, &[])?)?;
    ensure!(ended.status.code() == Some(1), "{}", show(&ended));
    ensure!(ended.stderr.contains("made for agent"), "{}", show(&ended));

    let compiled = place.compile(POLICY)?;
    let mut command = durac(["run"])?;
    command.arg(&compiled).args(["--", "true"]);
    let ended = run(command)?;
    ensure!(ended.status.code() == Some(1), "{}", show(&ended));
    ensure!(ended.stderr.contains("made for bpftime"), "{}", show(&ended));
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
    ensure!(ended.stderr.contains("made for bpftime, not for agent"), "{}", show(&ended));
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

/// A policy whose syncs the kernel counts.
const DEFERS: &str = "\
policy delayed
target test
use kernel notify

target test {
    files \"*.log\"
    hook fdatasync(log: file, failed: status) -> status {
        entry symbol \"test_fdatasync\"
        entry barrier \"test_barrier\"
        may pass, defer, await
    }
}

on fdatasync: await previous; defer
";

/// With what `durac load` says has to be set.
fn with_kernel(command: &mut std::process::Command) {
    command.env("BPFTIME_RUN_WITH_KERNEL", "1").env("BPFTIME_NOT_LOAD_PATTERN", "durac_.*");
}

#[test]
fn the_kernels_program_is_loaded_with_the_others() -> Result<()> {
    let place = Place::new()?;
    let compiled = place.compile(DEFERS)?;
    // The first place is refused, as under lockdown.
    for (refuse, section) in [(0, "fentry and fexit"), (8, "tracepoints ext4_sync_file")] {
        let _ = fs::remove_file(place.path("record"));
        let mut command = place.load(&compiled, &place.target, &[])?;
        with_kernel(&mut command);
        command.env("REFUSE", refuse.to_string());
        let mut loader = Loader(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?);
        let stdout = loader.0.stdout.take().context("no output")?;
        let mut said = String::new();
        for line in BufReader::new(stdout).lines() {
            said.push_str(&line?);
            said.push('\n');
            if said.contains("let this run") {
                break;
            }
        }
        ensure!(said.contains(&format!("the kernel counts its syncs: {section}")), "{said}");
        let record = place.record()?;
        let object = object(&compiled)?;
        let kernel = |name: &str, number: usize, types: usize| {
            let program = object.kernel.iter().find(|p| p.section.starts_with(name));
            let slots = program.map_or(0, |p| p.insns.len());
            let slot = program.and_then(|p| p.relocs.first()).map_or(0, |r| r.slot);
            let attach = if name == "fexit" { 25 } else { 23 };
            format!(
                "kernel_prog_load count_syncs type 26 attach {attach} types {types} slots {slots} maps {slot}:2 = {number}\n"
            )
        };
        let program = |index: usize| -> Result<(usize, String)> {
            let program = object.programs.get(index).context("no program")?;
            let maps = program.relocs.iter().map(|r| format!(" {}:{}", r.slot, r.map + 1));
            Ok((program.insns.len(), maps.collect()))
        };
        let ((slots_0, maps_0), (slots_1, maps_1)) = (program(0)?, program(1)?);
        let begin = format!(
            "map_create state type 2 key 4 value 48 entries 1 flags 0x400 = 1\n\
             map_update 1 key 0 flags 0: 0 0 0 0 0 0 = ok\n\
             map_create syncs type 1 key 4 value 16 entries 1 flags 0 = 2\n\
             map_update 2 key 0 flags 0: 0 0 = ok\n\
             prog_load durac_fdatasync type 2 licence Dual MIT/GPL slots {slots_0} maps{maps_0} = 3\n\
             prog_load durac_barrier type 2 licence Dual MIT/GPL slots {slots_1} maps{maps_1} = 4\n\
             btf_load = 5\n"
        );
        ensure!(record.starts_with(&begin), "{record}\n{begin}");
        let rest = record.strip_prefix(&begin).unwrap_or_default();
        let counts = match refuse {
            0 => format!("{}raw_tracepoint 6 = 7\n", kernel("fexit", 6, 5)),
            _ => format!(
                "{}btf_load = 6\n{}raw_tracepoint 7 = 8\n",
                kernel("fexit", 0, 5).replace("= 0", "= refused"),
                kernel("tp_btf", 7, 6)
            ),
        };
        ensure!(rest.starts_with(&counts), "{rest}\n{counts}");
        let probes = rest.matches("type 1008").count();
        let links = rest.matches("attach_type 41").count();
        ensure!((probes, links) == (2, 2) && !rest.contains("close"), "{rest}");
    }
    Ok(())
}

#[test]
fn what_the_server_must_be_told_is_said_before_any_call() -> Result<()> {
    let place = Place::new()?;
    let compiled = place.compile(DEFERS)?;
    let cases: [(&[(&str, &str)], &str); 3] = [
        (&[], "export BPFTIME_RUN_WITH_KERNEL='1'"),
        (&[("BPFTIME_RUN_WITH_KERNEL", "1")], "export BPFTIME_NOT_LOAD_PATTERN='durac_.*'"),
        (
            &[("BPFTIME_RUN_WITH_KERNEL", "1"), ("BPFTIME_NOT_LOAD_PATTERN", "x.*")],
            "export BPFTIME_NOT_LOAD_PATTERN='durac_.*'",
        ),
    ];
    for (variables, why) in cases {
        let mut command = place.load(&compiled, &place.target, &[])?;
        command.envs(variables.iter().copied());
        let ended = run(command)?;
        ensure!(ended.status.code() == Some(2), "{why}: {}", show(&ended));
        ensure!(ended.stderr.contains(why), "{why}: {}", show(&ended));
        ensure!(place.record()?.is_empty(), "{why}: {}", place.record()?);
    }
    Ok(())
}

#[test]
fn a_call_for_the_kernel_that_fails_ends_the_loader() -> Result<()> {
    let place = Place::new()?;
    let compiled = place.compile(DEFERS)?;
    // Both attempts to load the kernel's program, and what stands around them.
    for (refuse, why) in
        [("3", "BPFtime refused"), ("4", "BPFtime refused"), ("all", "cannot count")]
    {
        let _ = fs::remove_file(place.path("record"));
        let mut command = place.load(&compiled, &place.target, &[])?;
        with_kernel(&mut command);
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
