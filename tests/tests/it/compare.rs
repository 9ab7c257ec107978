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
    // What these give beside the log is not in this order.
    let beside = ["gathered", "clean_reads", "external_synchrony"];
    let (others, names): (Vec<&str>, Vec<&str>) =
        names.into_iter().partition(|name| beside.contains(name));
    ensure!(others == beside, "{}", show(&ended));
    // `updates` has no bound in syncs, and so none in what clients see.
    let mut order = POLICIES;
    if let Some(part) = order.get_mut(4..8) {
        part.rotate_left(1);
    }
    ensure!(order.get(7) == Some(&"updates") && names == order, "{}", show(&ended));
    // Each is at least as durable as all after it, but for a window and a larger one with a
    // tighter time.
    ensure!(
        ended.stdout.contains("fast_notify, window, adaptive, batch, batch_process, updates, ")
    );
    let row = |policy: &str| ended.stdout.lines().find(|line| line.starts_with(policy));
    for (policy, seen) in
        [("external_synchrony", " 0 "), ("window", " 64 "), ("everysec", " unbounded ")]
    {
        ensure!(row(policy).is_some_and(|row| row.contains(seen)), "{}", show(&ended));
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
        ("always", "gathered"),
        ("gathered", "always"),
        ("no", "external_synchrony"),
        ("external_synchrony", "always"),
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

    // Clients see nothing that is lost, though the log loses more.
    let (code, out) = compare(&["external_synchrony", "delayed_fsync"])?;
    ensure!(code == Some(1), "{out}");
    ensure!(
        out.contains("less durable than external_synchrony in power_loss, syncs seen by clients\n"),
        "{out}"
    );
    let (code, out) = compare(&["delayed_fsync", "external_synchrony"])?;
    ensure!(code == Some(1) && !out.contains("syncs seen by clients;"), "{out}");

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
