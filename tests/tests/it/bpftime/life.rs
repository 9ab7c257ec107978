//! From the start of a loader to its end, and what it says meanwhile, with a target in which the programs really run.

use super::place::{DEFERS, NO, Place, Target, with_kernel};
use anyhow::{Context, Result, ensure};
use durac_tests::server::until;
use durac_tests::{durac, run, run_durac, show};
use durac_workload::child;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;

/// `durac load … -- COMMAND`.
#[test]
fn one_command_starts_the_target_when_it_is_loaded() -> Result<()> {
    let place = Place::new()?;
    let object = place.compile(NO)?;
    let start = || -> Result<Target> {
        let mut command = place.load(&object, &["--"])?;
        command.arg(&place.target).arg(place.path("x.log"));
        let errors = fs::File::create(place.path("errors"))?;
        Target::of(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors).spawn()?)
    };
    let mut target = start()?;
    ensure!(target.does("owww")? == "run run done done", "not under its policy");
    let said = || fs::read_to_string(place.path("errors"));
    let expected = format!("durac: in force in process {}\n", target.pid);
    until("the line", || Ok(said()?.ends_with(&expected)))
        .with_context(|| said().unwrap_or_default())?;
    // It is a child, and knows nothing of how it was started.
    let environment = fs::read_to_string(format!("/proc/{}/environ", target.pid))?;
    let variables: Vec<&str> = environment.split('\0').filter(|v| v.contains("LOAD")).collect();
    ensure!(variables == [format!("LD_PRELOAD={}", place.agent.display())], "{variables:?}");
    // Its exit code is the command's.
    ensure!(target.quits()? == Some(7));
    ensure!(!place.memory().exists(), "the memory is left");

    // So is a signal's end, and the signal is passed on.
    let mut target = start()?;
    ensure!(target.does("oww")? == "run run done");
    let own = target.started();
    // SAFETY: a signal to a child that was not waited for.
    ensure!(unsafe { libc::kill(own as i32, libc::SIGTERM) } == 0);
    ensure!(target.wait()? == Some(128 + libc::SIGTERM));

    // What cannot be started.
    let mut command = place.load(&object, &["--", "/nowhere/redis-server"])?;
    command.stdin(Stdio::null());
    let ended = run(command)?;
    ensure!(ended.status.code() == Some(127), "{}", show(&ended));
    ensure!(!place.memory().exists(), "the memory is left");
    Ok(())
}

#[test]
fn it_says_when_the_target_may_start() -> Result<()> {
    let place = Place::new()?;
    let object = place.compile(NO)?;
    let socket = UnixDatagram::bind(place.path("notify"))?;
    let mut command = place.load(&object, &[])?;
    command.env("NOTIFY_SOCKET", place.path("notify"));
    let loader = place.loader(command)?;
    let mut told = [0; 256];
    let receive = |told: &mut [u8]| -> Result<String> {
        let size = socket.recv(told)?;
        Ok(String::from_utf8_lossy(told.get(..size).unwrap_or_default()).into_owned())
    };
    ensure!(receive(&mut told)? == "READY=1");
    ensure!(fs::read_to_string(place.path("ready"))? == format!("{}\n", loader.pid()));
    let mut target = place.started()?;
    ensure!(target.does("oww")? == "run run done");
    ensure!(receive(&mut told)? == format!("STATUS=in force in process {}", target.pid));
    let said = loader.end(libc::SIGINT)?;
    ensure!(
        said.contains("\nready: start the target now, and keep this process running"),
        "{said}"
    );
    ensure!(said.contains(&format!("BPFTIME_GLOBAL_SHM_NAME={} ", place.session)), "{said}");
    ensure!(!place.path("ready").exists());
    Ok(())
}

/// `appendfsync no` stayed in force for ever.
#[test]
fn the_end_takes_the_policy_out_of_force() -> Result<()> {
    let place = Place::new()?;
    let loader = place.loaded(NO)?;
    let mut target = place.started()?;
    ensure!(target.does("oww")? == "run run done");
    loader.end(libc::SIGTERM)?;
    ensure!(target.does("www")? == "run run run");
    ensure!(!place.memory().exists());
    let mut later = place.started()?;
    ensure!(later.does("owww")? == "run run run run");
    Ok(())
}

/// Nothing of the loader runs then: its programs miss its word.
#[test]
fn a_killed_loader_takes_its_policy_with_it() -> Result<()> {
    let place = Place::new()?;
    let loader = place.loaded(NO)?;
    let mut target = place.started()?;
    ensure!(target.does("oww")? == "run run done");
    loader.end(libc::SIGKILL)?;
    ensure!(place.memory().exists(), "the memory is gone: what is tested?");
    until("a call that runs", || Ok(target.does("w")? == "run"))?;
    ensure!(target.does("www")? == "run run run");
    drop(target);
    // Nor does it come into force in a later one.
    let mut later = place.started()?;
    ensure!(later.does("owww")? == "run run run run");
    // The next loader begins with new memory.
    let _next = place.loaded(NO)?;
    ensure!(later.does("ww")? == "run run");
    let mut last = place.started()?;
    ensure!(last.does("oww")? == "run run done");
    Ok(())
}

/// The target ended with EIO at its second write.
#[test]
fn the_end_does_no_harm_to_a_target_with_syncs_in_flight() -> Result<()> {
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        let place = Place::new()?;
        let object = place.compile(DEFERS)?;
        let load = || {
            let mut command = place.load(&object, &[])?;
            with_kernel(&mut command)?;
            place.loader(command)
        };
        let loader = load()?;
        let mut target = place.started()?;
        ensure!(target.does("owww")? == "run done done done", "not under its policy");
        loader.says(&format!("in force in process {}", target.pid))?;
        let pins = || pins(&place.session);
        ensure!(pins()?.len() == 1, "{:?}", pins()?);
        if signal == libc::SIGTERM {
            // It waits for a call.
            loader.signal(signal)?;
            until("a call that runs", || Ok(target.does("w")? == "run"))?;
            loader.wait()?;
            ensure!(pins()?.is_empty(), "{:?}", pins()?);
        } else {
            loader.end(signal)?;
            // First as the policy says, then as the application does; never an error.
            until("a call that runs", || match target.does("w")?.as_str() {
                "done" => Ok(false),
                "run" => Ok(true),
                other => anyhow::bail!("{other}"),
            })?;
        }
        ensure!(target.does("wbw")? == "run run run", "{signal}");
        drop(target);
        if signal == libc::SIGKILL {
            ensure!(pins()?.len() == 1, "the kernel has stopped counting");
            let _next = load()?;
            ensure!(pins()?.len() == 1, "the old one is left: {:?}", pins()?);
        }
        // What a failed test would leave.
        for pin in pins()? {
            let _ = fs::remove_file(pin);
        }
    }
    Ok(())
}

/// The target is idle: nobody takes home what is in flight.
#[test]
fn an_idle_target_keeps_the_count() -> Result<()> {
    let place = Place::new()?;
    let object = place.compile(DEFERS)?;
    let mut command = place.load(&object, &[])?;
    with_kernel(&mut command)?;
    let loader = place.loader(command)?;
    let mut target = place.started()?;
    ensure!(target.does("oww")? == "run done done");
    loader.signal(libc::SIGTERM)?;
    let said = loader.says("the target has syncs in flight and does not call")?;
    loader.wait()?;
    let pins = pins(&place.session)?;
    let [pin] = pins.as_slice() else { anyhow::bail!("{pins:?}") };
    ensure!(said.contains(&format!("remove `{}`", pin.display())), "{said}");
    ensure!(target.does("ww")? == "run run");
    fs::remove_file(pin)?;
    Ok(())
}

/// It gets no processor for a while.
#[test]
fn a_loader_that_is_stopped_comes_back() -> Result<()> {
    let place = Place::new()?;
    let loader = place.loaded(NO)?;
    let mut target = place.started()?;
    ensure!(target.does("oww")? == "run run done");
    loader.signal(libc::SIGSTOP)?;
    until("a call that runs", || Ok(target.does("w")? == "run"))?;
    ensure!(target.does("ww")? == "run run");
    loader.signal(libc::SIGCONT)?;
    until("a call that is skipped", || Ok(target.does("w")? == "done"))?;
    Ok(())
}

fn pins(session: &str) -> Result<Vec<std::path::PathBuf>> {
    let prefix = format!("durac_{session}_");
    let entries = fs::read_dir("/sys/fs/bpf")?.flatten().map(|entry| entry.path());
    let ours = |path: &std::path::PathBuf| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with(&prefix))
    };
    Ok(entries.filter(ours).collect())
}

#[test]
fn a_session_has_one_loader() -> Result<()> {
    let place = Place::new()?;
    let loader = place.loaded(NO)?;
    let mut target = place.started()?;
    ensure!(target.does("oww")? == "run run done");
    let object = place.path("p.o");
    let ended = run(place.load(&object, &[])?)?;
    let who = format!("in use by the loader of policy no (process {})", loader.pid());
    ensure!(ended.status.code() == Some(2) && ended.stderr.contains(&who), "{}", show(&ended));
    ensure!(target.does("ww")? == "done done", "its policy is gone");

    // Another loader takes no lock: what it does is noticed.
    let mut other = child::command(&[], &child::which("cat")?);
    other.arg("/dev/null").env("LD_PRELOAD", place.bpftime.join("libbpftime-syscall-server.so"));
    other.env("BPFTIME_GLOBAL_SHM_NAME", &place.session).env_remove("BPFTIME_RUN_WITH_KERNEL");
    run(other)?;
    loader.says("not in force: another loader has cleared the session")?;
    ensure!(target.does("ww")? == "run run", "it has another's maps");
    Ok(())
}

/// Stop the target, restart the loader, start the target.
#[test]
fn the_order_of_a_restart_is_checked() -> Result<()> {
    let place = Place::new()?;
    let loader = place.loaded(NO)?;
    let mut target = place.started()?;
    ensure!(target.does("oww")? == "run run done");
    // The target alone is restarted.
    let first = target.pid;
    drop(target);
    loader.says(&format!("not in force: process {first}, which it belonged to, has ended"))?;
    let mut target = place.started()?;
    ensure!(target.does("owww")? == "run run run run");
    loader.says(&format!("(process {} runs without it", target.pid))?;
    // The loader alone is restarted.
    loader.end(libc::SIGTERM)?;
    let loader = place.loaded(NO)?;
    loader.says(&format!("process {} was started under an earlier loader", target.pid))?;
    ensure!(target.does("ww")? == "run run");
    // Then the target.
    drop(target);
    let mut target = place.started()?;
    ensure!(target.does("oww")? == "run run done");
    loader.says(&format!("in force in process {}", target.pid))?;
    Ok(())
}

#[test]
fn why_a_target_is_not_under_its_policy_is_said() -> Result<()> {
    let log = |place: &Place| place.path("x.log");
    // Started before the loader was ready.
    let place = Place::new()?;
    let mut early = place.started()?;
    let loader = place.loaded(NO)?;
    loader.says(&format!(
        "process {} has BPFtime's agent and another session, or was started before",
        early.pid
    ))?;
    ensure!(early.does("oww")? == "run run run");
    drop(early);
    // Without the agent.
    let bare = Target::new(place.bare_target(&log(&place)))?;
    loader.says(&format!("process {} runs without BPFtime's agent", bare.pid))?;
    drop(bare);
    // As another user, who cannot write to the memory.
    let mut command = child::command(&[], &child::which("setpriv")?);
    command.args(["--reuid=65534", "--clear-groups", "--"]).arg(&place.target).arg("/dev/null");
    command
        .env("LD_PRELOAD", &place.agent)
        .env("NO_WAIT", "1")
        .env("BPFTIME_GLOBAL_SHM_NAME", &place.session);
    if fs::metadata(&place.target)?.file_type().is_file() && reachable(&place) {
        let other = Target::new(command)?;
        loader.says(&format!("process {} runs as another user", other.pid))?;
    }
    // Detached.
    let mut target = place.started()?;
    ensure!(target.does("oww")? == "run run done");
    loader.says(&format!("in force in process {}", target.pid))?;
    target.signal(libc::SIGUSR1)?;
    loader.says(&format!(
        "`test_fdatasync` is not hooked in process {} any more: SIGUSR1",
        target.pid
    ))?;
    ensure!(target.does("ww")? == "run run");
    Ok(())
}

/// Whether another user can run what this one has built.
fn reachable(place: &Place) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let open = |path: &std::path::Path| {
        fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o005 == 0o005)
    };
    place.target.ancestors().skip(1).all(open)
}

#[test]
fn threads_and_children_are_said() -> Result<()> {
    let place = Place::new()?;
    let loader = place.loaded(NO)?;
    let mut target = place.started()?;
    ensure!(target.does("oww")? == "run run done");
    // BPFtime gives a child the numbers of its parent: it cannot be told from it.
    ensure!(target.does("fw")? == "done done");
    ensure!(target.does("tww")? == "run run run");
    let said =
        loader.says(&format!("of process {} has called `fdatasync`, which another", target.pid))?;
    ensure!(
        said.contains("BPFtime keeps the result for the function, not for the thread"),
        "{said}"
    );

    // A second process of the session.
    let place = Place::new()?;
    let loader = place.loaded(NO)?;
    let (mut target, mut second) = (place.started()?, place.started()?);
    ensure!(target.does("oww")? == "run run done");
    ensure!(second.does("oww")? == "run run run");
    loader.says(&format!(
        "in force in process {}; process {} has called, too",
        target.pid, second.pid
    ))?;
    ensure!(target.does("w")? == "done");
    Ok(())
}

#[test]
fn why_syncs_are_not_deferred_is_said() -> Result<()> {
    let place = Place::new()?;
    let object = place.compile(DEFERS)?;
    let load = || {
        let mut command = place.load(&object, &[])?;
        with_kernel(&mut command)?;
        place.loader(command)
    };
    // Its log is not opened yet; then it is on tmpfs.
    let loader = load()?;
    let mut target =
        Target::new(place.target(format!("/dev/shm/{}.log", place.session).as_ref())?)?;
    loader.says(&format!("waiting: process {} is hooked, and has not called yet", target.pid))?;
    ensure!(target.does("oww")? == "run run run");
    let _ = fs::remove_file(format!("/dev/shm/{}.log", place.session));
    loader.says(&format!(
        "the kernel did not count the trial sync of process {}: its log is on",
        target.pid
    ))?;
    drop(target);
    loader.end(libc::SIGTERM)?;
    // No io_uring.
    let loader = load()?;
    let mut target = place.started()?;
    ensure!(target.does("sow")? == "ok run run");
    loader.says(&format!(
        "process {} cannot make an io_uring: its system calls are filtered",
        target.pid
    ))?;
    drop(target);
    loader.end(libc::SIGTERM)?;
    // An agent without the extension drops the programs.
    let loader = load()?;
    let poor = durac_tests::cc(
        "bpftime/agent.c",
        "poor/libbpftime-agent.so",
        &["-shared", "-fPIC", "-DNO_IOURING"],
    )?;
    let mut command = place.bare_target(&place.path("x.log"));
    command.env("LD_PRELOAD", &poor);
    let mut target = Target::new(command)?;
    ensure!(target.does("oww")? == "run run run");
    loader.says(&format!(
        "is not hooked in process {}: the reason is in BPFtime's log",
        target.pid
    ))?;
    drop(target);
    loader.end(libc::SIGTERM)?;
    // Other numbers of processes than the kernel's.
    let loader = load()?;
    let mut command = child::command(&[], &child::which("unshare")?);
    command
        .args(["--pid", "--fork", "--kill-child", "--"])
        .arg(&place.target)
        .arg(place.path("x.log"));
    command.env("LD_PRELOAD", &place.agent).env("NO_WAIT", "1");
    command.env("BPFTIME_GLOBAL_SHM_NAME", &place.session);
    let mut target = Target::new(command)?;
    ensure!(target.does("oww")? == "run run run");
    loader.says("it is in a PID namespace of its own")?;
    Ok(())
}

#[test]
fn top_shows_it() -> Result<()> {
    let place = Place::new()?;
    let loader = place.loaded(NO)?;
    let mut target = place.started()?;
    ensure!(target.does("oww")? == "run run done");
    loader.says("in force")?;
    let pid = target.pid.to_string();
    let table = run_durac(["top", "--interval", "50ms", &pid])?;
    let line = format!("{pid}: session {}: in force in process {pid}\n", place.session);
    ensure!(table.stdout.ends_with(&line), "{}", show(&table));
    let mut command = durac(["--format", "json", "top", "--interval", "50ms"])?;
    command.arg(&pid);
    let json = run(command)?;
    let lines: serde_json::Value = serde_json::from_str(&json.stdout)?;
    let session = lines.pointer("/logs/0/bpftime_session").and_then(|name| name.as_str());
    ensure!(session == Some(place.session.as_str()), "{}", show(&json));
    loader.end(libc::SIGTERM)?;
    let table = run_durac(["top", "--interval", "50ms", &pid])?;
    ensure!(table.status.code() == Some(1), "{}", show(&table));
    Ok(())
}
