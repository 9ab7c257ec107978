//! Work that is shared among machines: `--shard`, and `durac merge`.

use anyhow::{Context, Result, ensure};
use durac_tests::{append_log, durac, heavy, run, run_durac, show, tool};
use durac_workload::child::{self, Ended};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn json(path: &Path) -> Result<Value> {
    let text = std::fs::read(path).with_context(|| path.display().to_string())?;
    Ok(serde_json::from_slice(&text)?)
}

/// Runs the command for each of three shards, the last first. Returns their reports.
fn shards(dir: &Path, args: &[&str]) -> Result<Vec<PathBuf>> {
    let one = |part: u32| {
        let path = dir.join(format!("part-{part}.json"));
        let mut command = durac(args)?;
        command.args(["--shard", &format!("{part}/3"), "--json"]).arg(&path);
        let ended = run(command)?;
        ensure!(ended.status.success(), "{}", show(&ended));
        Ok(path)
    };
    (1..=3).rev().map(one).collect()
}

/// Three shards of a simulation are the simulation.
#[test]
fn a_simulation() -> Result<()> {
    let _turn = heavy()?;
    let dir = TempDir::new()?;
    let trace = dir.path().join("trace.json");
    let mut command = durac(["record", "-o"])?;
    command.arg(&trace).arg("--").arg(append_log()?).arg(dir.path()).args(["--records", "300"]);
    let ended = run(command)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    let trace = trace.to_str().context("path")?;
    let whole = dir.path().join("whole.json");
    let args =
        ["simulate", trace, "-p", "always", "-p", "delayed_fsync", "-p", "window", "-p", "no"];
    let mut command = durac(args)?;
    command.arg("--json").arg(&whole);
    let ended = run(command)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    let parts = shards(dir.path(), &args)?;
    let merged = dir.path().join("merged.json");
    let mut command = durac(["merge"])?;
    command.args(&parts).arg("-o").arg(&merged);
    let joined = run(command)?;
    ensure!(joined.status.success(), "{}", show(&joined));
    ensure!(json(&whole)? == json(&merged)?);
    ensure!(joined.stdout == ended.stdout, "{}\n{}", joined.stdout, ended.stdout);

    // What does not belong together is refused, and what is missing is named.
    let [third, second, first] = parts.as_slice() else { anyhow::bail!("{parts:?}") };
    for (files, says) in [
        (vec![first, third], "shard 2/3 is missing"),
        (vec![first, first, second, third], "shard 1/3 is there twice"),
        (vec![&whole], "is not of a shard"),
    ] {
        let mut command = durac(["merge"])?;
        command.args(files);
        let ended = run(command)?;
        ensure!(ended.status.code() == Some(1) && ended.stderr.contains(says), "{}", show(&ended));
    }
    let other = dir.path().join("other.json");
    let mut command = durac(args)?;
    command.args(["--seed", "2", "--shard", "2/3", "--json"]).arg(&other);
    ensure!(run(command)?.status.success());
    let mut command = durac(["merge"])?;
    command.args([first, &other, third]);
    let ended = run(command)?;
    ensure!(ended.status.code() == Some(1), "{}", show(&ended));
    ensure!(ended.stderr.contains("different traces, devices or settings"), "{}", show(&ended));
    Ok(())
}

/// Three shards of a crash test make every crash once.
#[test]
fn a_crash_test() -> Result<()> {
    let _turn = heavy()?;
    let dir = TempDir::new()?;
    let args = ["crashtest", "always", "window:n=4", "--app", "builtin", "--trials", "5"];
    let parts = shards(dir.path(), &args)?;
    let merged = dir.path().join("merged.json");
    let mut command = durac(["merge"])?;
    command.args(&parts).arg("-o").arg(&merged);
    let ended = run(command)?;
    ensure!(ended.status.success() && ended.stdout.contains("repeat it with"), "{}", show(&ended));
    let merged = json(&merged)?;
    for policy in merged["policies"].as_array().context("policies")? {
        let numbers: Vec<u64> = policy["trials"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|t| t["number"].as_u64())
            .collect();
        ensure!(numbers == [0, 1, 2, 3, 4], "{policy}");
        let worst = policy["worst"]["number"].as_u64().context("a worst")?;
        let lost = |number: u64| policy["trials"][number as usize]["lost_syncs"].as_u64();
        ensure!(numbers.iter().all(|&number| lost(number) <= lost(worst)), "{policy}");
    }
    // A violation in one part is one of the whole.
    let last = parts.first().context("a part")?;
    let mut broken = json(last)?;
    broken["policies"][1]["trials"][0]["violation"] = "too much".into();
    std::fs::write(last, broken.to_string())?;
    let mut command = durac(["merge"])?;
    command.args(&parts);
    let ended = run(command)?;
    ensure!(ended.status.code() == Some(1), "{}", show(&ended));
    ensure!(ended.stdout.contains("exceeds the proved bound: too much"), "{}", show(&ended));
    let ended = run_durac(["crashtest", "always", "--shard", "5/4"])?;
    ensure!(ended.status.code() == Some(1) && ended.stderr.contains("2/4"), "{}", show(&ended));
    Ok(())
}

/// Shards of one policy belong together wherever its file is, and those of another policy of its name and bounds do not.
#[test]
fn shards_of_policies_of_one_name() -> Result<()> {
    let _turn = heavy()?;
    let dir = TempDir::new()?;
    let part = |folder: &str, shard: &str, rules: &str| -> Result<PathBuf> {
        let folder = dir.path().join(folder);
        std::fs::create_dir(&folder)?;
        let (policy, json) = (folder.join("p.dur"), folder.join("part.json"));
        std::fs::write(&policy, format!("policy p\ntarget redis.aof\n{rules}\n"))?;
        let mut command = durac(["crashtest", "p.dur", "--app", "builtin", "--trials", "2"])?;
        command.args(["--shard", shard, "--json"]).arg(&json).current_dir(&folder);
        let ended = run(command)?;
        ensure!(ended.status.success(), "{}", show(&ended));
        Ok(json)
    };
    let one = part("one", "1/2", "on fdatasync: await pending < 2; defer")?;
    let same = part("same", "2/2", "on fdatasync: await pending < 2; defer")?;
    let other = part("other", "2/2", "on fdatasync: if pending >= 1 { await previous }; defer")?;
    let merge = |second: &Path| -> Result<Ended> {
        let mut command = durac(["merge"])?;
        command.arg(&one).arg(second);
        run(command)
    };
    let merged = merge(&same)?;
    ensure!(merged.status.success(), "{}", show(&merged));
    let refused = merge(&other)?;
    ensure!(refused.status.code() == Some(1), "{}", show(&refused));
    ensure!(refused.stderr.contains("different policies of the name p"), "{}", show(&refused));
    Ok(())
}

/// The files of docs/machines do that: with an index of Slurm, of Kubernetes, and of GNU parallel.
#[test]
fn under_a_scheduler() -> Result<()> {
    let _turn = heavy()?;
    let dir = TempDir::new()?;
    let machines = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/machines");
    let shard = |script: &str| -> Result<std::process::Command> {
        let mut command = child::command(&[], Path::new("/bin/bash"));
        command.arg(machines.join(script)).current_dir(dir.path()).env("DURAC", tool()?);
        command.env("CRASHTEST", machines.join("crashtest.sh"));
        command.envs([("POLICIES", "window:n=4"), ("APP", "builtin"), ("REPORTS", "reports")]);
        Ok(command)
    };
    // The array has 16 shards of 2,000 crashes. Fewer, and the same file.
    let text = std::fs::read_to_string(machines.join("crashtest.sbatch"))?;
    let small = text.replace("SHARDS=16 TRIALS=2000", "SHARDS=3 TRIALS=3");
    ensure!(small != text);
    let small_file = dir.path().join("small.sbatch");
    std::fs::write(&small_file, small)?;
    let mut slurm = shard(small_file.to_str().context("path")?)?;
    slurm.env("SLURM_ARRAY_TASK_ID", "0");
    let mut kubernetes = shard("crashtest.sh")?;
    kubernetes.envs([("SHARDS", "3"), ("TRIALS", "3"), ("JOB_COMPLETION_INDEX", "1")]);
    let mut parallel = shard("crashtest.sh")?;
    parallel.arg("2").envs([("SHARDS", "3"), ("TRIALS", "3")]);
    for command in [slurm, kubernetes, parallel] {
        let ended = run(command)?;
        ensure!(ended.status.success(), "{}", show(&ended));
    }
    let mut command = durac(["merge"])?;
    command.args((0..3).map(|index| dir.path().join(format!("reports/part-{index:04}.json"))));
    let ended = run(command)?;
    ensure!(ended.status.success() && ended.stdout.contains("window n=4"), "{}", show(&ended));
    Ok(())
}
