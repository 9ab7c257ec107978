//! The object file in the eyes of other tools.

use anyhow::{Result, ensure};
use durac_tests::{POLICIES, durac, run, run_durac, show};
use durac_workload::child;
use std::fs;
use tempfile::TempDir;

#[test]
fn check_compile_and_list_know_every_policy() -> Result<()> {
    let list = run_durac(["list"])?;
    ensure!(list.status.success(), "{}", show(&list));
    for policy in POLICIES {
        ensure!(list.stdout.contains(policy), "{}", show(&list));
        let check = run_durac(["check", policy])?;
        ensure!(check.status.success(), "{}", show(&check));
        // Only `no` never syncs, and is warned about.
        ensure!(check.stderr.contains("W0104") == (policy == "no"), "{}", show(&check));
        ensure!(check.stderr.is_empty() != (policy == "no"), "{}", show(&check));
    }
    Ok(())
}

#[test]
fn compiling_twice_gives_the_same_bytes() -> Result<()> {
    let dir = TempDir::new()?;
    for policy in POLICIES {
        let compile = |name: &str| -> Result<Vec<u8>> {
            let path = dir.path().join(name);
            let mut command = durac(["compile", policy, "-o"])?;
            command.arg(&path);
            let ended = run(command)?;
            ensure!(ended.status.success(), "{policy}: {}", show(&ended));
            Ok(fs::read(path)?)
        };
        ensure!(compile("a.o")? == compile("b.o")?, "{policy}");
    }
    ensure!(fs::read_dir(dir.path())?.count() == 2, "something was left behind");
    Ok(())
}

#[test]
fn readelf_and_objdump_accept_it() -> Result<()> {
    let dir = TempDir::new()?;
    for policy in POLICIES {
        let path = dir.path().join("p.o");
        let mut compile = durac(["compile", policy, "-o"])?;
        compile.arg(&path);
        let ended = run(compile)?;
        ensure!(ended.status.success(), "{policy}: {}", show(&ended));
        let mut readelf = child::command(&[], &child::which("readelf")?);
        readelf.arg("-aW").arg(&path);
        let ended = run(readelf)?;
        ensure!(ended.status.success() && ended.stderr.is_empty(), "{policy}: {}", show(&ended));
        let mut objdump = child::command(&[], &child::which("llvm-objdump")?);
        objdump.arg("-d").arg(&path);
        let ended = run(objdump)?;
        ensure!(ended.status.success() && ended.stderr.is_empty(), "{policy}: {}", show(&ended));
        ensure!(ended.stdout.contains("exit"), "{policy}: {}", show(&ended));
    }
    Ok(())
}
