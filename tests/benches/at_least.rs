//! What `at_least` costs a program that never syncs: lines a second, with and without it, on the disk of the build folder; under
//! the agent, and under the supervisor in a static program.
//!
//! `cargo bench -p durac-tests --bench at_least`; `ROUNDS` and `SECONDS` say how many pairs of runs each row is of, and
//! how long a run takes. Each pair runs one after the other, in turns the other way round; the ratio is the median of the
//! pairs'.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark that fails says so")]

use durac_tests::{bin_dir, cc, durac, run, show};
use std::path::Path;
use std::process::Command;

fn number(name: &str, default: u32) -> u32 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn lines(program: &Path, engine: &str, way: &str, with: bool, seconds: u32) -> f64 {
    // A file of its own: no run pays for what the one before has left to write.
    let folder = tempfile::tempdir_in(bin_dir().unwrap()).unwrap();
    let mut command = match with {
        false => Command::new(program),
        true => {
            let mut command = durac(["run", "--log", "quiet"]).unwrap();
            command.args(["--engine", engine, "at_least", "--"]);
            command.arg(program);
            command
        }
    };
    command.arg(way).arg(folder.path().join("a.log")).arg(seconds.to_string());
    let ended = run(command).unwrap();
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
    let [alone, with, ratio] = ["alone", "at_least", "ratio"];
    println!("{:<34} {alone:>12} {with:>12} {ratio:>7}  of each pair", "lines a second");
    let ways = [
        ("work", "write, 20 us of work each"),
        ("threads", "write, has threads"),
        ("write", "write"),
        ("stream", "fwrite"),
    ];
    let engines = [("thread", &program), ("supervisor", &unreached)];
    let rows = engines.into_iter().flat_map(|engine| ways.map(|way| (engine, way)));
    for ((engine, program), (way, name)) in rows {
        let (mut alone, mut with, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..rounds {
            let run = |with| lines(program, engine, way, with, seconds);
            let (one, other) = if round % 2 == 0 {
                let one = run(false);
                (one, run(true))
            } else {
                let other = run(true);
                (run(false), other)
            };
            alone.push(one);
            with.push(other);
            ratios.push(other / one);
        }
        let each: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
        println!(
            "{:<34} {:>12.0} {:>12.0} {:>7.3}  {}",
            if engine == "thread" { name.to_owned() } else { format!("{name}, static") },
            median(alone),
            median(with),
            median(ratios),
            each.join(" ")
        );
    }
}
