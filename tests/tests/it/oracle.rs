//! Random policies, judged by an explorer that shares no code with durac (`tests/oracle`, in Python), and by
//! the real agent on a disk that delays syncs. `docs/testing.md` has the commands for longer runs.

use anyhow::{Result, ensure};
use durac_tests::{agent, append_log, bin_dir, faulty_agent, heavy, run, show, tool};
use durac_workload::child::{self, Ended};
use std::ffi::OsString;
use std::path::Path;

/// Runs a script of `tests/oracle`.
fn script(name: &str, args: &[OsString]) -> Result<Ended> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("oracle").join(name);
    let mut command = child::command(&[], &child::which("python3")?);
    command.arg("-B").arg(path).args(args).args(["--jobs", "2"]).env_remove("LD_PRELOAD");
    run(command)
}

/// No guarantee is accepted that a run of the explorer breaks. First it finds losses that an earlier
/// version missed.
#[test]
fn no_false_accepts() -> Result<()> {
    let _turn = heavy()?;
    for first in ["0", "50"] {
        let mut args: Vec<OsString> = vec!["--durac".into(), tool()?.into()];
        args.extend(["--first", first, "--count", "50"].map(OsString::from));
        args.extend(["--states", "800", "--seconds", "0.25"].map(OsString::from));
        args.extend((first == "0").then(|| OsString::from("--known")));
        let ended = script("compare.py", &args)?;
        ensure!(ended.status.success(), "{}", show(&ended));
        ensure!(ended.stdout.contains(": 0 false accepts"), "{}", show(&ended));
    }
    Ok(())
}

/// Policies with a bound, run with the real agent.
fn real(count: &str, more: &[&str]) -> Result<Ended> {
    let libraries = durac_tests::witness::libraries()?;
    agent()?;
    append_log()?;
    let mut args: Vec<OsString> = vec!["--built".into(), bin_dir()?.into()];
    args.extend(["--libraries".into(), libraries.into(), "--count".into(), count.into()]);
    args.extend(["--seconds", "0.2"].iter().chain(more).map(OsString::from));
    script("real.py", &args)
}

/// At no moment is more at risk than was proved.
#[test]
fn the_agent_keeps_random_bounds() -> Result<()> {
    let _turn = heavy()?;
    for first in ["0", "2000"] {
        let ended = real("50", &["--first", first])?;
        ensure!(ended.status.success(), "{}", show(&ended));
        ensure!(ended.stdout.contains(": 0 broke their bounds"), "{}", show(&ended));
        ensure!(ended.stdout.contains("'reached': "), "no bound was reached: {}", ended.stdout);
    }
    Ok(())
}

/// An agent that believes a sync before it was made breaks one of them.
#[test]
fn a_faulty_agent_breaks_them() -> Result<()> {
    let _turn = heavy()?;
    faulty_agent()?;
    let ended = real("60", &["--fault", "early"])?;
    ensure!(ended.status.code() == Some(1), "{}", show(&ended));
    ensure!(ended.stdout.contains(" at risk, "), "{}", show(&ended));
    Ok(())
}
