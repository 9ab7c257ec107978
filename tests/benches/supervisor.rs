//! What a deferred sync call costs under the supervisor, beside the agent and no policy: medians of `write` and
//! `fdatasync` on a log in memory, where a sync itself costs nothing.
//!
//! `cargo bench -p durac-tests --bench supervisor`; `CALLS` is how many calls each row is the median of. Each row is
//! measured with one process, and in one of four processes that write and sync the same log. Of the supervisor's rows the
//! second is of a target that has the writes seen, too, and the third of a policy that runs for each write.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark that fails says so")]

use durac_tests::{cc, durac, run, show};
use std::path::Path;
use std::process::Command;

const POLICY: &str = "on fdatasync: await pending < 4096; defer\n";
const WRITES: &str = "on write: pass\n";

fn target(more: &str, hooks: &str) -> String {
    format!(
        "target bench.log {{ files \"*.log\"\n {more}\n callers many\n hook fdatasync(log: file) -> status {{\n \
         entry libc \"fdatasync\"\n may pass, defer, await\n }}\n \
         hook write(log: file, data: borrowed bytes, len: bytes) -> bytes {{ entry libc \"write\"\n may pass\n }} }}\n\
         policy bench\ntarget bench.log\n{hooks}"
    )
}

fn main() {
    let calls = std::env::var("CALLS").unwrap_or_else(|_| "20000".to_owned());
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let program = cc("supervised.c", "supervised", &["-O1"]).unwrap();
    let policy = |name: &str, more: &str, hooks: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, target(more, hooks)).unwrap();
        path
    };
    let plain = policy("plain.dur", "", POLICY);
    let seen = policy("seen.dur", "layout ring", POLICY);
    let asked = policy("asked.dur", "", &format!("{WRITES}{POLICY}"));
    println!("{:<34} {:>12} {:>12}", "median, ns", "write", "fdatasync");
    let rows: [(&str, Option<(&str, &Path)>); 5] = [
        ("no policy", None),
        ("agent", Some(("thread", &plain))),
        ("supervisor", Some(("supervisor", &plain))),
        ("supervisor, writes seen", Some(("supervisor", &seen))),
        ("supervisor, on write: pass", Some(("supervisor", &asked))),
    ];
    let both = ["1", "4"].into_iter().flat_map(|processes| rows.map(|row| (processes, row)));
    for (processes, (name, policy)) in both {
        let log = folder.path().join("bench.log");
        let _ = std::fs::remove_file(&log);
        let mut command = match policy {
            None => Command::new(&program),
            Some((engine, policy)) => {
                let mut command = durac(["run", "--log", "quiet", "--engine", engine]).unwrap();
                command.arg(policy).arg("--").arg(&program);
                command
            }
        };
        command.arg("time").arg(&log).arg(&calls).arg(processes);
        let ended = run(command).unwrap();
        assert!(ended.status.success(), "{}", show(&ended));
        let (write, sync) = ended.stdout.trim().split_once(' ').unwrap();
        let name = format!("{processes}: {name}");
        println!("{name:<34} {write:>12} {sync:>12}");
    }
}
