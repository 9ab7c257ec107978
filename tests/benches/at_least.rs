//! What `at_least` costs a program that never syncs: lines a second, with and without it, on the disk of the build folder; under
//! the agent, and under the supervisor in a static program. And what the syncs alone cost, without durac: another process
//! calls `fdatasync` on the file as often as `at_least` does.
//!
//! `cargo bench -p durac-tests --bench at_least`; `ROUNDS` and `SECONDS` say how many pairs of runs each row is of, and
//! how long a run takes. The three runs of a round follow one another, in turns the other way round; the ratios are to the run of
//! the same round alone, and their medians.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark that fails says so")]

use durac_tests::{bin_dir, cc, durac, run, show};
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

fn number(name: &str, default: u32) -> u32 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Run {
    Alone,
    AtLeast,
    /// Another process, this one, syncs the file.
    Synced,
}

/// How often `at_least` looks, and syncs what it finds: a second less the margin, `look_every` of durac-engine.
const EVERY: Duration = Duration::from_millis(800);

fn lines(program: &Path, engine: &str, way: &str, kind: Run, seconds: u32) -> f64 {
    // A file of its own: no run pays for what the one before has left to write.
    let folder = tempfile::tempdir_in(bin_dir().unwrap()).unwrap();
    let log = folder.path().join("a.log");
    let mut command = match kind {
        Run::Alone | Run::Synced => Command::new(program),
        Run::AtLeast => {
            let mut command = durac(["run", "--log", "quiet"]).unwrap();
            command.args(["--engine", engine, "at_least", "--"]);
            command.arg(program);
            command
        }
    };
    let file = File::create(&log).unwrap();
    let (end, ended) = channel::<()>();
    let syncer = (kind == Run::Synced).then(|| {
        std::thread::spawn(move || {
            while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                file.sync_data().unwrap();
            }
        })
    });
    command.arg(way).arg(log).arg(seconds.to_string());
    let ended = run(command).unwrap();
    drop(end);
    if let Some(syncer) = syncer {
        syncer.join().unwrap();
    }
    assert!(ended.status.success(), "{}", show(&ended));
    drop(folder);
    Command::new("sync").status().unwrap();
    ended.stdout.trim().parse().unwrap()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap()
}

fn main() {
    let (rounds, seconds) = (number("ROUNDS", 5), number("SECONDS", 4));
    let program = cc("lines.c", "lines", &["-O1"]).unwrap();
    let unreached = cc("lines.c", "lines-static", &["-O1", "-static"]).unwrap();
    println!(
        "{:<34} {:>12} {:>9} {:>9}  of each round",
        "lines a second", "alone", "at_least", "synced"
    );
    let ways = [
        ("work", "write, 20 us of work each"),
        ("threads", "write, has threads"),
        ("write", "write"),
        ("stream", "fwrite"),
    ];
    let engines = [("thread", &program), ("supervisor", &unreached)];
    let rows = engines.into_iter().flat_map(|engine| ways.map(|way| (engine, way)));
    for ((engine, program), (way, name)) in rows {
        let (mut alone, mut ratios) = (Vec::new(), [Vec::new(), Vec::new()]);
        for round in 0..rounds {
            let mut kinds = [Run::Alone, Run::AtLeast, Run::Synced];
            if round % 2 == 1 {
                kinds.reverse();
            }
            let got = kinds.map(|kind| (kind, lines(program, engine, way, kind, seconds)));
            let of = |kind| got.iter().find(|got| got.0 == kind).unwrap().1;
            alone.push(of(Run::Alone));
            for (ratios, kind) in ratios.iter_mut().zip([Run::AtLeast, Run::Synced]) {
                ratios.push(of(kind) / of(Run::Alone));
            }
        }
        let each = ratios.clone().map(|ratios| {
            let each: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
            each.join(" ")
        });
        let [at_least, synced] = ratios.map(median);
        println!(
            "{:<34} {:>12.0} {at_least:>9.3} {synced:>9.3}  {}",
            if engine == "thread" { name.to_owned() } else { format!("{name}, static") },
            median(alone),
            each.join(" | ")
        );
    }
}
