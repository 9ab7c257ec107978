//! SQLite as Debian has it, in one process and in four, at power cuts: `PRAGMA integrity_check`, and the bound.
//! `DURAC_TEST_CUTS=300` makes so many cuts in each test.

use crate::common::{LATENCY, Supervised, python, window};
use anyhow::{Context, Result, ensure};
use durac_disk::{Cut, Mounted, Plan};
use durac_tests::heavy;
use std::collections::BTreeSet;
use std::process::Command;

/// The window, at SQLite's log.
fn policy(n: u32) -> String {
    let text = window(n).replace("posix.log", "sqlite.wal");
    format!("{text}on fsync: await pending < {n}; defer\n")
}

/// Commits rows until so many are acknowledged, cuts the power, and has SQLite check what is left. Returns how many
/// acknowledged rows are gone.
fn lost(n: u32, processes: &str, after: usize, cut: Cut) -> Result<usize> {
    let script = python("sqlite.py");
    let words = ["/usr/bin/python3", &script, "write", "@rows.db", processes, "100000"];
    let mut run = Supervised::start(&policy(n), LATENCY, &words)?;
    run.until(after)?;
    ensure!(run.acknowledged.len() >= after, "ended early: {}", run.stderr());
    let (acknowledged, image) = run.cut(cut, after as u64)?;
    let disk = Mounted::new(image, Plan::default())?;
    let mut reader = Command::new("/usr/bin/python3");
    let read = reader.args([&script, "read"]).arg(disk.join("rows.db")).output()?;
    let text = String::from_utf8(read.stdout)?;
    let (checked, rows) = text.split_once('\n').context("no result of the check")?;
    ensure!(checked == "ok", "{checked}: {}", String::from_utf8_lossy(&read.stderr));
    let rows: BTreeSet<&str> = rows.split_inclusive('\n').collect();
    let gone = acknowledged.iter().filter(|row| !rows.contains(row.as_str())).count();
    // What is gone is the end of what each process wrote.
    for process in 0..processes.parse::<usize>()? {
        let of: Vec<bool> = (acknowledged.iter())
            .filter(|row| row.starts_with(&format!("{process} ")))
            .map(|row| rows.contains(row.as_str()))
            .collect();
        ensure!(of.is_sorted_by(|a, b| a >= b), "process {process} lost rows from the middle");
    }
    Ok(gone)
}

/// How many cuts: `DURAC_TEST_CUTS`, or a few.
fn cuts() -> usize {
    std::env::var("DURAC_TEST_CUTS").ok().and_then(|count| count.parse().ok()).unwrap_or(4)
}

/// The most that cuts take. Behind each but the first are checkpoints, and new beginnings of the log. Whether a cut finds
/// something deferred is chance: there are more of them until one does.
fn most_lost(n: u32, processes: &str) -> Result<usize> {
    let mut most = 0;
    for round in 0..cuts() + 30 {
        if round >= cuts() && most > 0 {
            break;
        }
        let cut = [Cut::Clean, Cut::Reordered, Cut::Torn].get(round % 3).copied();
        let after = 70 + 61 * (round % 7) + round / 7;
        let lost = lost(n, processes, after, cut.unwrap_or(Cut::Clean));
        most = most.max(lost.with_context(|| format!("round {round}"))?);
    }
    Ok(most)
}

#[test]
fn one_process_loses_at_most_the_window() -> Result<()> {
    let _turn = heavy()?;
    let most = most_lost(16, "1")?;
    ensure!((1..=16).contains(&most), "{most} lost");
    Ok(())
}

#[test]
fn four_processes_lose_no_more() -> Result<()> {
    let _turn = heavy()?;
    let most = most_lost(4, "4")?;
    ensure!((1..=4).contains(&most), "{most} lost");
    Ok(())
}
