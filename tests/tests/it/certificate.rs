//! The certificate as a user meets it: shown, held against another solver, and refused when it was changed.

use anyhow::{Context, Result, ensure};
use durac_abi::certificate::Certificate;
use durac_abi::{Object, elf};
use durac_certify::{Flaw, rules, smt};
use durac_tests::{POLICIES, durac, run, run_durac, show};
use durac_workload::child;
use durac_workload::child::Ended;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Policies that can lose any number of syncs.
const UNBOUNDED: [&str; 4] = ["updates", "external_synchrony", "everysec", "no"];

/// The answers of z3 to a script.
fn answers(dir: &TempDir, script: &str) -> Result<Vec<String>> {
    let path = dir.path().join("conditions.smt2");
    fs::write(&path, script)?;
    let mut command = child::command(&[], &child::which("z3")?);
    command.arg(&path);
    let ended = run(command)?;
    ensure!(ended.status.success(), "{script}{}", show(&ended));
    let answers: Vec<String> = ended.stdout.lines().map(str::to_owned).collect();
    let known = answers.iter().all(|answer| answer == "sat" || answer == "unsat");
    ensure!(known && answers.len() == script.matches("(check-sat)").count(), "{}", show(&ended));
    Ok(answers)
}

fn compiled(dir: &TempDir, policy: &str, more: &[&str]) -> Result<Object> {
    let path = dir.path().join(format!("{policy}.o"));
    let mut command = durac(["compile", policy, "-o"])?;
    command.arg(&path).args(more);
    let ended = run(command)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    Ok(elf::read(&fs::read(path)?)?)
}

fn certificate(object: &mut Object) -> Result<&mut Certificate> {
    object.meta.certificate.as_mut().context("no certificate")
}

#[test]
fn another_solver_agrees() -> Result<()> {
    let dir = TempDir::new()?;
    for policy in POLICIES {
        let ended = run_durac(["check", policy, "--smt2"])?;
        if UNBOUNDED.contains(&policy) {
            ensure!(ended.status.code() == Some(1), "{}", show(&ended));
            ensure!(ended.stderr.contains("has no certificate"), "{}", show(&ended));
            continue;
        }
        ensure!(ended.status.success(), "{}", show(&ended));
        let answers = answers(&dir, &ended.stdout)?;
        ensure!(
            answers.len() >= 5 && answers.iter().all(|a| a == "unsat"),
            "{policy}: {answers:?}"
        );
    }
    Ok(())
}

#[test]
fn another_solver_finds_what_does_not_hold() -> Result<()> {
    let dir = TempDir::new()?;
    for policy in POLICIES.iter().filter(|policy| !UNBOUNDED.contains(policy)) {
        let object = compiled(&dir, policy, &[])?;
        let changes: [fn(&mut Certificate); 4] = [
            // A smaller bound, a weaker and a stronger invariant, and both smaller.
            |all| all.bound.iter_mut().for_each(|form| form.constant -= 1),
            |all| all.cells.iter_mut().flatten().for_each(|form| form.constant += 1),
            |all| all.cells.iter_mut().flatten().for_each(|form| form.constant -= 1),
            |all| {
                let cells = all.cells.iter_mut().flatten();
                all.bound.iter_mut().chain(cells).for_each(|form| form.constant -= 1);
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut object = object.clone();
            change(certificate(&mut object)?);
            let changed = certificate(&mut object)?.clone();
            let conditions = rules::conditions(&object, &changed, Flaw::None)?;
            let answers = answers(&dir, &smt::script(policy, &conditions))?;
            ensure!(answers.iter().any(|a| a == "sat"), "{policy}, change {number}: {answers:?}");
            // Condition by condition the checker and the solver say the same.
            for (condition, answer) in conditions.all.iter().zip(answers) {
                let shown = conditions.symbols.clone().implies(&condition.given, &condition.cells);
                ensure!(
                    shown == Ok(answer == "unsat"),
                    "{policy}, change {number}: {}",
                    condition.name
                );
            }
        }
    }
    Ok(())
}

#[test]
fn check_shows_it() -> Result<()> {
    let ended = run_durac(["check", "window", "--certificate"])?;
    ensure!(ended.status.success(), "{}", show(&ended));
    for line in ["certificate: on power_loss, at most n in syncs", "invariant: lost <= n"] {
        ensure!(ended.stdout.contains(line), "{}", show(&ended));
    }
    let ended = run_durac(["check", "everysec", "--certificate"])?;
    ensure!(ended.stdout.contains("certificate: none"), "{}", show(&ended));
    let ended = run_durac(["check", "batch", "--certificate", "--format", "json"])?;
    let document: serde_json::Value = serde_json::from_str(&ended.stdout)?;
    let shown = &document["files"][0]["certificate"];
    ensure!(shown["bound"] == "size - 1" && shown["syncs"] == 47, "{}", show(&ended));
    ensure!(shown["invariant"][0] == "lost + 1 <= size", "{}", show(&ended));
    Ok(())
}

fn store(dir: &TempDir, object: &Object) -> Result<PathBuf> {
    let path = dir.path().join("changed.o");
    fs::write(&path, durac_bpf::write(object)?)?;
    Ok(path)
}

fn run_under(object: &Path) -> Result<Ended> {
    let mut command = durac(["run"])?;
    command.arg(object).args(["--", "true"]);
    run(command)
}

fn refused(ended: &Ended, why: &str) -> Result<()> {
    ensure!(ended.status.code() == Some(1), "{}", show(ended));
    ensure!(
        ended.stderr.contains("is rejected: ") && ended.stderr.contains(why),
        "{}",
        show(ended)
    );
    Ok(())
}

#[test]
fn run_refuses_one_that_was_changed() -> Result<()> {
    let dir = TempDir::new()?;
    let object = compiled(&dir, "window", &[])?;
    let ended = run_under(&store(&dir, &object)?)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    type Change = (fn(&mut Object), &'static str);
    let changes: [Change; 4] = [
        (
            |object| object.meta.loss.iter_mut().for_each(|l| l.syncs = Some(63)),
            "the note states 63 syncs",
        ),
        (|object| object.meta.params[0].default = 32, "bounds the loss by 32 syncs"),
        // `await pending < n` waits for nothing, and the call is still acknowledged.
        (
            |object| object.programs[0].insns[10].imm = 0xd00,
            "a condition of the certificate does not hold",
        ),
        (
            |object| {
                if let Some(all) = &mut object.meta.certificate {
                    all.cells[0][0].constant += 1;
                }
            },
            "the invariant implies the bound",
        ),
    ];
    for (change, why) in changes {
        let mut object = object.clone();
        change(&mut object);
        refused(&run_under(&store(&dir, &object)?)?, why)?;
    }
    // Without it the object is as good as the proof that was made when it was compiled.
    let mut without = object;
    without.meta.certificate = None;
    let ended = run_under(&store(&dir, &without)?)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    Ok(())
}

#[test]
fn load_refuses_one_that_cannot_be() -> Result<()> {
    let dir = TempDir::new()?;
    let certificate = compiled(&dir, "delayed_fsync", &[])?.meta.certificate;
    let more = ["--runtime", "bpftime", "--target", "redis.patched"];
    let mut object = compiled(&dir, "always", &more)?;
    ensure!(object.meta.certificate.is_none(), "{:?}", object.meta.certificate);
    object.meta.certificate = certificate;
    let mut command = durac(["load"])?;
    command.arg(store(&dir, &object)?).args(["--target", "/bin/true"]);
    refused(&run(command)?, "it is not for the agent")
}
