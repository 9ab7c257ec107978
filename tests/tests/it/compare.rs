//! `durac compare`: which policy is more durable, and the run that shows it.

use anyhow::{Result, ensure};
use durac_tests::{POLICIES, run_durac, show};

/// Runs `durac compare` and answers its exit code and what it printed.
fn compare(policies: &[&str]) -> Result<(Option<i32>, String)> {
    let ended = run_durac(["compare"].iter().chain(policies))?;
    Ok((ended.status.code(), ended.stdout))
}

#[test]
fn redis_modes_and_the_others_stand_in_their_order() -> Result<()> {
    let ended = run_durac(["compare"])?;
    ensure!(ended.status.success(), "{}", show(&ended));
    let names: Vec<&str> =
        ended.stdout.lines().skip(1).filter_map(|l| l.split_whitespace().next()).collect();
    // `updates` has no bound in syncs.
    let mut order = POLICIES;
    order.swap(4, 5);
    ensure!((order[4], order[5]) == ("adaptive", "updates") && names == order, "{}", show(&ended));
    // Each is at least as durable as all after it, but for a window and a larger one with a
    // tighter time.
    ensure!(
        ended.stdout.contains("delayed_fsync, fast_notify, window, adaptive, updates, batch, ")
    );
    for policy in ["external_synchrony", "gathered"] {
        ensure!(ended.stderr.contains(&format!("`{policy}` is left out")), "{}", show(&ended));
    }
    Ok(())
}

#[test]
fn a_more_durable_policy_is_enough() -> Result<()> {
    for (a, b) in [
        ("everysec", "delayed_fsync"),
        ("no", "everysec"),
        ("delayed_fsync", "always"),
        ("window:n=16", "window:n=16"),
        ("window:n=17", "window:n=16"),
        ("fast_notify", "delayed_fsync"),
        ("batch:size=12", "batch:size=3"),
        ("batch_process:size=12", "batch:size=12"),
        ("batch:size=2", "delayed_fsync"),
    ] {
        let (code, out) = compare(&[a, b])?;
        ensure!(code == Some(0), "{a}, {b}: {out}");
        ensure!(out.contains(&format!("{b} is at least as durable as {a}\n")), "{out}");
    }
    Ok(())
}

#[test]
fn a_less_durable_one_is_shown_losing() -> Result<()> {
    let (code, out) = compare(&["window:n=2", "window:n=5"])?;
    ensure!(code == Some(1), "{out}");
    ensure!(out.contains("window:n=5 is less durable than window:n=2 in power_loss, syncs;"));
    // The shortest run: one more than the other can lose.
    ensure!(out.contains("power loss: 3 syncs acknowledged and not on the disk"), "{out}");
    ensure!(out.contains("#3 reported as done") && !out.contains("#4"), "{out}");

    // As much on a power loss, and more on a crash of the process.
    let (code, out) = compare(&["window:n=3", "batch_process:size=3"])?;
    ensure!(code == Some(1), "{out}");
    ensure!(out.contains("process_crash, syncs; process_crash, writes;"), "{out}");
    ensure!(out.contains("process crash: 1 sync acknowledged, whose writes are not"), "{out}");

    // As many syncs, but for ever.
    let (code, out) = compare(&["everysec", "no"])?;
    ensure!(code == Some(1), "{out}");
    ensure!(out.contains("less durable than everysec in power_loss, time\n"), "{out}");
    ensure!(out.contains("nothing will ever sync it"), "{out}");
    Ok(())
}

#[test]
fn what_cannot_be_compared_is_said() -> Result<()> {
    for (policies, expected) in [
        (vec!["always"], "name two policies"),
        (vec!["always", "nonesuch"], "cannot read `nonesuch`"),
        (vec!["always", "window:n=5000"], "`n` must be in 1..=4096"),
    ] {
        let ended = run_durac(["compare"].iter().chain(&policies))?;
        ensure!(ended.status.code() == Some(1), "{}", show(&ended));
        ensure!(ended.stderr.contains(expected), "{}", show(&ended));
    }
    Ok(())
}
