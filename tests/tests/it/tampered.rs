//! An object that was changed after durac made it: the agent refuses it and says so, and the
//! application runs as durable as without it.

use anyhow::{Context, Result, ensure};
use durac_abi::Object;
use durac_abi::elf;
use durac_abi::insn::Insn;
use durac_abi::{ABI, Hook, PARAMS_MAP};
use durac_tests::witness::Witness;
use durac_tests::{agent, append_log, durac, heavy, run, show};
use durac_workload::child::Ended;
use durac_workload::writers::{Load, Writers};
use durac_workload::{Redis, RedisConfig, child};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const RECORDS: u64 = 50;
/// The code of a program begins behind the header of the file.
const EHDR_SIZE: u8 = 64;

/// `window`, compiled.
fn compiled(dir: &TempDir) -> Result<Vec<u8>> {
    let path = dir.path().join("window.o");
    let mut command = durac(["compile", "window", "-o"])?;
    command.arg(&path);
    let ended = run(command)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    Ok(fs::read(path)?)
}

fn store(dir: &TempDir, bytes: &[u8]) -> Result<PathBuf> {
    let path = dir.path().join("changed.o");
    fs::write(&path, bytes)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(path)
}

/// Runs the append log with the agent and an object; how it ended, and the syncs that were real.
fn append(object: &Path) -> Result<(Ended, u64)> {
    let (witness, dir) = (Witness::new()?, TempDir::new()?);
    let words = witness.words();
    let (sh, arguments) = words.split_first().context("words")?;
    let mut command = child::command(&[], Path::new(sh));
    command.args(arguments).arg(append_log()?).arg(dir.path());
    command.args(["--records", &RECORDS.to_string()]).envs([witness.env()]);
    command.env("LD_PRELOAD", agent()?).env("DURAC_OBJECT", object);
    let ended = run(command)?;
    let syncs = witness.logs()?.syncs;
    Ok((ended, syncs))
}

/// Refused with one line on stderr that holds `why`, and every call of the application ran.
fn refused(object: &Path, why: &str) -> Result<()> {
    let (ended, syncs) = append(object)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    let said = ended.stderr.lines().any(|line| line.starts_with("durac: ") && line.contains(why));
    ensure!(said, "no word of {why:?}: {}", show(&ended));
    ensure!(ended.stderr.contains("runs without a policy"), "{}", show(&ended));
    ensure!(syncs > RECORDS, "only {syncs} syncs: {}", show(&ended));
    Ok(())
}

/// Changes the program of `fdatasync` and checks that the agent refuses it.
fn change(why: &str, change: impl Fn(&mut Object) -> Result<()>) -> Result<()> {
    let dir = TempDir::new()?;
    let mut object = elf::read(&compiled(&dir)?)?;
    change(&mut object)?;
    let bytes = durac_bpf::write(&object)?;
    refused(&store(&dir, &bytes)?, why)
}

fn code(object: &mut Object) -> Result<&mut Vec<Insn>> {
    let program = object.programs.iter_mut().find(|p| p.hook == Hook::Fdatasync);
    Ok(&mut program.context("no program")?.insns)
}

const fn insn(opcode: u8, dst: u8, src: u8, offset: i16, imm: i32) -> Insn {
    Insn { opcode, dst, src, offset, imm }
}

/// `r0 = 0`
const ZERO: Insn = insn(0xb7, 0, 0, 0, 0);
/// `exit`
const EXIT: Insn = insn(0x95, 0, 0, 0, 0);

/// Replaces the whole program.
fn program(why: &str, insns: &[Insn]) -> Result<()> {
    change(why, |object| {
        *code(object)? = insns.to_vec();
        for program in &mut object.programs {
            program.relocs.clear();
            program.lines.truncate(1);
        }
        object.maps.retain(|map| map.name != PARAMS_MAP);
        object.meta.params.clear();
        Ok(())
    })
}

#[test]
fn the_object_itself_is_accepted() -> Result<()> {
    let _turn = heavy()?;
    let dir = TempDir::new()?;
    let (ended, syncs) = append(&store(&dir, &compiled(&dir)?)?)?;
    ensure!(ended.status.success() && syncs <= RECORDS, "{syncs}: {}", show(&ended));
    ensure!(!ended.stderr.contains("without a policy"), "{}", show(&ended));
    Ok(())
}

#[test]
fn a_foreign_helper() -> Result<()> {
    // 4 is bpf_get_current_pid_tgid's neighbour, bpf_probe_read; 0x7fff is nobody's.
    for helper in [4, 6, 0x7fff, -1] {
        program("verifier", &[insn(0x85, 0, 0, 0, helper), ZERO, EXIT])?;
    }
    Ok(())
}

#[test]
fn an_endless_loop() -> Result<()> {
    program("verifier", &[ZERO, insn(0x05, 0, 0, -1, 0), EXIT])?;
    program(
        "verifier",
        &[ZERO, insn(0x07, 0, 0, 0, 1), insn(0x15, 0, 0, -2, 0), insn(0x05, 0, 0, -3, 0), EXIT],
    )
}

#[test]
fn access_out_of_bounds() -> Result<()> {
    // Beyond the context, before it, through a number, and below the stack.
    program("verifier", &[insn(0x79, 0, 1, 0x100, 0), EXIT])?;
    program("verifier", &[insn(0x79, 0, 1, -8, 0), EXIT])?;
    program("verifier", &[insn(0xb7, 2, 0, 0, 64), insn(0x79, 0, 2, 0, 0), EXIT])?;
    program("verifier", &[insn(0x7a, 10, 0, -520, 1), ZERO, EXIT])
}

#[test]
fn a_store_into_the_context() -> Result<()> {
    program("verifier", &[insn(0x7a, 1, 0, 0, 1), ZERO, EXIT])
}

#[test]
fn no_end() -> Result<()> {
    program("verifier", &[ZERO])
}

#[test]
fn a_pointer_as_verdict() -> Result<()> {
    program("verifier", &[insn(0xbf, 0, 10, 0, 0), EXIT])
}

#[test]
fn another_abi() -> Result<()> {
    let dir = TempDir::new()?;
    let mut bytes = compiled(&dir)?;
    let (ours, other) = (format!("\"abi\":{ABI},"), format!("\"abi\":{},", ABI + 1));
    let at = bytes.windows(ours.len()).position(|window| window == ours.as_bytes());
    let at = at.context("the note says no ABI")?;
    bytes.splice(at..at + ours.len(), other.into_bytes());
    refused(&store(&dir, &bytes)?, "ABI")
}

#[test]
fn no_object_at_all() -> Result<()> {
    let dir = TempDir::new()?;
    refused(&dir.path().join("nothing.o"), "nothing.o")?;
    refused(dir.path(), "regular file")?;
    refused(&store(&dir, b"")?, "changed.o")?;
    refused(&store(&dir, b"#!/bin/sh\n")?, "changed.o")?;
    let compiled = compiled(&dir)?;
    refused(&store(&dir, compiled.get(..compiled.len() / 2).context("half")?)?, "changed.o")
}

/// The text is among the debug data, which no check of the instructions covers: it is shown only if it is the one.
#[test]
fn another_text() -> Result<()> {
    let dir = TempDir::new()?;
    let mut object = elf::read(&compiled(&dir)?)?;
    object.source.text = object.source.text.replace("await pending < n", "await pending < 1");
    let path = store(&dir, &durac_bpf::write(&object)?)?;
    for words in [&["show"][..], &["show", "--text"], &["--format", "json", "show"]] {
        let mut command = durac(words)?;
        command.arg(&path);
        let ended = run(command)?;
        let said = format!("{}{}", ended.stdout, ended.stderr);
        ensure!(ended.status.code() == Some(1), "{}", show(&ended));
        ensure!(said.contains("not the one that it was compiled from"), "{}", show(&ended));
        ensure!(!said.contains("await pending"), "{}", show(&ended));
    }
    Ok(())
}

#[test]
fn an_object_that_others_can_write() -> Result<()> {
    let dir = TempDir::new()?;
    let path = store(&dir, &compiled(&dir)?)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
    refused(&path, "others may write")
}

/// Any byte, changed in any way: the application is never harmed. It runs to its end, and if the
/// object was refused every call ran.
#[test]
fn flipped_bytes() -> Result<()> {
    let _turn = heavy()?;
    let dir = TempDir::new()?;
    let compiled = compiled(&dir)?;
    let section = u64::from(EHDR_SIZE);
    let code = elf::read(&compiled)?.programs.iter().map(|p| 8 * p.insns.len() as u64).sum::<u64>();
    // Every byte of the code, and others spread over the file; each with another bit.
    let spread = (0..64).map(|part| compiled.len() as u64 * part / 64 + part % 7);
    let mut refusals = 0;
    for at in (section..section + code).chain(spread) {
        let mut bytes = compiled.clone();
        if let Some(byte) = bytes.get_mut(at as usize) {
            *byte ^= 1 << (at % 8);
        }
        let (ended, syncs) = append(&store(&dir, &bytes)?)?;
        ensure!(ended.status.success(), "byte {at}: {}", show(&ended));
        let refused = ended.stderr.contains("runs without a policy");
        ensure!(!refused || syncs > RECORDS, "byte {at}: {syncs} syncs: {}", show(&ended));
        ensure!(refused || at >= section + code, "byte {at} of the code was changed unseen");
        refusals += u64::from(refused);
    }
    // Not every other byte matters: debug information says nothing of what the object does.
    ensure!(refusals > code, "only {refusals} changed objects were refused");
    Ok(())
}

/// The same on a real Redis: it says so on stderr and makes its own syncs.
#[test]
fn redis_runs_unhooked() -> Result<()> {
    let _turn = heavy()?;
    let dir = TempDir::new()?;
    let mut object = elf::read(&compiled(&dir)?)?;
    let insns = code(&mut object)?;
    insns.truncate(insns.len() - 1);
    let path = store(&dir, &durac_bpf::write(&object)?)?;
    let witness = Witness::new()?;
    let mut config = RedisConfig::new("always").prefix(witness.words());
    config.env = vec![
        witness.env(),
        ("LD_PRELOAD".into(), agent()?.into()),
        ("DURAC_OBJECT".into(), path.into()),
    ];
    let redis = Redis::start(config)?;
    let load = Load { clients: 1, pipeline: 1, requests: 200 };
    let acknowledged = Writers::start(redis.port(), load, 0).join();
    let logs = witness.logs()?;
    ensure!(acknowledged.total() == 200 && logs.syncs >= 200 && logs.max_pending == 0, "{logs:?}");
    ensure!(redis.stderr().contains("runs without a policy"), "{}", redis.stderr());
    Ok(())
}
