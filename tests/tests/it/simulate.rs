//! `durac simulate` on real recordings: that what it says fits the trace, not what it says.

use anyhow::{Context, Result, ensure};
use durac_simulate::report::Report;
use durac_tests::server::{Server, Under, until};
use durac_tests::{POLICIES, append_log, durac, heavy, run, run_durac, show};
use durac_workload::resp::Client;
use durac_workload::{Load, Stop, redis_benchmark};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// Simulates with these arguments, and reads the report.
fn report(trace: &Path, args: &[&str]) -> Result<Report> {
    let mut command = durac(["simulate", "--json", "-"])?;
    command.arg(trace).args(args);
    let ended = run(command)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    serde_json::from_str(&ended.stdout).with_context(|| show(&ended))
}

/// A turn with a command of each of `clients`, however busy the machine is: they send while the server is
/// stopped, so it finds all of them when it goes on.
fn full_turn(server: &Server, clients: usize) -> Result<()> {
    let connect = || -> Result<Client> {
        let mut client = server.redis.client()?;
        client.command(&["PING"])?;
        Ok(client)
    };
    let mut clients = (0..clients).map(|_| connect()).collect::<Result<Vec<_>>>()?;
    server.redis.kill(libc::SIGSTOP)?;
    let stat = format!("/proc/{}/stat", server.redis.pid());
    until("a stopped server", || Ok(fs::read_to_string(&stat)?.contains(") T ")))?;
    for client in &mut clients {
        // As long as the commands of redis-benchmark.
        client.queue(&["SET", "key:000000000000", "abc"]);
        client.flush()?;
    }
    server.redis.kill(libc::SIGCONT)?;
    for client in &mut clients {
        client.receive()?;
    }
    Ok(())
}

#[test]
fn a_recorded_redis() -> Result<()> {
    let _turn = heavy()?;
    let dir = TempDir::new()?;
    let trace = dir.path().join("trace.json");
    let mut server = Under::policy("always").trace(&trace).start()?;
    redis_benchmark(&server.redis, Load { clients: 5, pipeline: 1 }, 1500, 1_000_000)?;
    // On a busy machine the five of the benchmark may never meet in one turn.
    full_turn(&server, 5)?;
    server.redis.stop(Stop::Shutdown)?;

    let all = report(&trace, &[])?;
    // What was recorded, if it is not known again.
    let begins =
        || fs::read_to_string(&trace).map(|text| text.chars().take(4000).collect::<String>());
    ensure!(all.application.kind == "event loop", "{:?} {:?}", all.application, begins());
    ensure!(all.application.clients == 5, "{:?}", all.application);
    ensure!(all.trace.policy == "always" && all.trace.file == "trace.json", "{:?}", all.trace);
    let names: Vec<&str> = all.policies.iter().map(|p| p.name.as_str()).collect();
    let of_clients = ["gathered", "external_synchrony", "clean_reads"];
    let rest: Vec<&str> = names.into_iter().filter(|name| !of_clients.contains(name)).collect();
    ensure!(rest == POLICIES, "{rest:?}");
    let left_out: Vec<&str> = all.left_out.iter().map(|p| p.name.as_str()).collect();
    ensure!(left_out == ["at_least"], "{left_out:?}");
    let [gathered, held, everysec] = ["gathered", "external_synchrony", "everysec"]
        .map(|name| all.policies.iter().find(|p| p.name == name));
    ensure!(gathered.is_some_and(|p| p.loss.worst.syncs == 0.0), "{gathered:?}");
    // The application was told too early, and no client.
    let worst = held.map(|p| p.loss.worst);
    ensure!(worst.is_some_and(|worst| worst.commands > 0.0 && worst.seen == 0.0), "{held:?}");
    ensure!(everysec.is_some_and(|p| p.loss.worst.seen > 0.0), "{everysec:?}");
    let bounds = [
        ("always", 0.0),
        ("delayed_fsync", 1.0),
        ("fast_notify", 1.0),
        ("window", 64.0),
        ("adaptive", 1024.0),
        ("batch", 47.0),
        ("batch_process", 48.0),
    ];
    for (name, bound) in bounds {
        let policy = all.policies.iter().find(|p| p.name == name);
        ensure!(policy.is_some_and(|p| p.loss.worst.syncs <= bound), "{policy:?}");
    }
    for policy in &all.policies {
        ensure!(policy.proved.is_some() && policy.commands_per_second > Some(0.0), "{policy:?}");
        ensure!(policy.loss.crashes == policy.calls + policy.syncs, "{policy:?}");
    }

    let two = report(&trace, &["-p", "window:n=16", "-p", "always", "--crash", "100"])?;
    let [window, always] = two.policies.as_slice() else { anyhow::bail!("{:?}", two.policies) };
    ensure!(window.name == "window n=16", "{}", window.name);
    ensure!(window.params == [("n".to_owned(), "16".to_owned())], "{:?}", window.params);
    ensure!(window.loss.crashes == 100 && window.loss.worst.syncs <= 16.0, "{:?}", window.loss);
    ensure!(always.loss.worst.syncs == 0.0, "{:?}", always.loss);
    ensure!(two == report(&trace, &["-p", "window:n=16", "-p", "always", "--crash", "100"])?);

    // Devices of known speed: the one that was recorded may be slower than any.
    ensure!(all.device.name == "as recorded", "{:?}", all.device);
    let on = |device| report(&trace, &["-p", "always", "--device", device]);
    let (disk, nvme) = (on("disk")?, on("nvme-plp")?);
    ensure!(disk.device.name == "disk", "{:?}", disk.device);
    let speed = |r: &Report| r.policies.iter().map(|p| p.calls_per_second).next();
    ensure!(speed(&disk) > Some(0.0) && speed(&disk) < speed(&nvme), "{disk:?} {nvme:?}");

    let mut command = durac(["simulate", "-p", "delayed_fsync"])?;
    command.arg(&trace);
    let ended = run(command)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    for part in ["event loop with 5 clients", "delayed_fsync (proved: at most 1 sync)"] {
        ensure!(ended.stdout.contains(part), "{part}: {}", show(&ended));
    }
    Ok(())
}

#[test]
fn recorded_threads() -> Result<()> {
    let _turn = heavy()?;
    let dir = TempDir::new()?;
    let trace = dir.path().join("trace.json");
    let mut command = durac(["record", "-o"])?;
    command.arg(&trace).arg("--").arg(append_log()?).arg(dir.path());
    command.args(["--records", "900", "--threads", "3"]);
    let ended = run(command)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    let all = report(&trace, &[])?;
    ensure!(all.application.kind == "threads" && all.application.clients == 3);
    ensure!(all.left_out.iter().any(|out| out.name == "external_synchrony"), "{:?}", all.left_out);
    for (policy, bound) in all.policies.iter().zip([0.0, 3.0, 3.0, 192.0]) {
        ensure!(policy.loss.worst.syncs <= bound, "{}: {:?}", policy.name, policy.loss);
        ensure!(policy.calls >= 897 && policy.commands_per_second.is_none(), "{policy:?}");
    }
    Ok(())
}

#[test]
fn what_cannot_be_simulated() -> Result<()> {
    let dir = TempDir::new()?;
    let write = |name: &str, text: &str| -> Result<String> {
        let path = dir.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    };
    let empty = "{\"format\":\"durac-trace\",\"version\":1,\"recorded\":{\"tool\":\"\",\"policy\":\"\",\
                 \"target\":\"\",\"command\":[],\"started\":0,\"cores\":0,\"kernel\":\"\",\
                 \"source\":\"made\"},\"events\":[],\"end\":{\"events\":0,\"dropped\":0}}\n";
    let (empty, broken) = (write("empty.json", empty)?, write("broken.json", "{\"format\":1}")?);
    let text = "on fdatasync: defer\non reply { if child.active { pass }; hold until durable }\n";
    let sometimes = write("sometimes.dur", text)?;
    for (args, code, says) in [
        (vec![empty.as_str()], 1, "no sync call of a log is in it"),
        (vec![broken.as_str()], 1, "E0701"),
        (vec!["/no/such/trace"], 1, "cannot read `/no/such/trace`: no such file"),
        (vec![empty.as_str(), "-p", "nothing"], 1, "cannot read `nothing`"),
        (vec![empty.as_str(), "-p", &sometimes], 1, "this version cannot run any of the policies"),
        (vec![empty.as_str(), "--clients", "0"], 1, "0 is not in 1..=100000"),
    ] {
        let ended = run_durac([&["simulate"], args.as_slice()].concat())?;
        ensure!(ended.status.code() == Some(code), "{args:?}: {}", show(&ended));
        ensure!(ended.stderr.contains(says), "{says}: {}", show(&ended));
        ensure!(ended.stdout.is_empty(), "{args:?}: {}", show(&ended));
    }
    Ok(())
}
