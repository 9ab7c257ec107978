//! What `durac run` refuses to start, or runs under the supervisor, since the agent would not be loaded: the reason comes
//! before the exec, from durac.

use anyhow::{Context, Result, ensure};
use durac_tests::{agent, cc, durac, needs_root, run, run_durac, show, tool};
use durac_workload::child;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// `program` is refused with one line that names it and says `why`.
fn refused(program: &Path, why: &str) -> Result<()> {
    let ended = run({
        let mut command = durac(["run", "window", "--"])?;
        command.arg(program);
        command
    })?;
    ensure!(ended.status.code() == Some(1), "{}", show(&ended));
    ensure!(ended.stdout.is_empty() && ended.stderr.lines().count() == 1, "{}", show(&ended));
    for word in [why, &program.display().to_string()] {
        ensure!(ended.stderr.contains(word), "no {word:?}: {}", show(&ended));
    }
    Ok(())
}

/// `program` runs under the supervisor, with a line that says `why`.
fn supervised(program: &Path, why: &str) -> Result<()> {
    let ended = run({
        let mut command = durac(["run", "window", "--"])?;
        command.arg(program);
        command
    })?;
    ensure!(ended.status.success(), "{}", show(&ended));
    for word in [why, "using the supervisor", "is in force (supervisor"] {
        ensure!(ended.stderr.contains(word), "no {word:?}: {}", show(&ended));
    }
    Ok(())
}

fn runs(program: &Path) -> Result<()> {
    let ended = run({
        let mut command = durac(["run", "window", "--"])?;
        command.arg(program);
        command
    })?;
    ensure!(ended.status.success(), "{}", show(&ended));
    Ok(())
}

/// An executable file with these bytes.
fn executable(dir: &TempDir, name: &str, bytes: impl AsRef<[u8]>) -> Result<PathBuf> {
    let path = dir.path().join(name);
    fs::write(&path, bytes)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

#[test]
fn another_machine() -> Result<()> {
    let dir = TempDir::new()?;
    let native = fs::read(cc("nothing.c", "nothing", &[])?)?;
    // elf(5): the class is byte 4, the machine bytes 18 and 19.
    let changed = |name, changes: &[(usize, u8)]| {
        let mut bytes = native.clone();
        for (at, byte) in changes {
            *bytes.get_mut(*at).context("a short file")? = *byte;
        }
        executable(&dir, name, bytes)
    };
    // The x32 ABI: 32-bit pointers on x86-64.
    refused(&changed("x32", &[(4, 1)])?, "is a 32-bit program")?;
    let arm = changed("arm64", &[(18, 183), (19, 0)])?;
    refused(&arm, "is for another architecture (AArch64)")?;
    let riscv = changed("riscv", &[(18, 243), (19, 0)])?;
    refused(&riscv, "is for another architecture (RISC-V)")?;
    runs(&changed("native", &[])?)
}

/// gcc without the 32-bit C library still makes a 32-bit program that needs no library.
#[test]
fn a_real_32_bit_program() -> Result<()> {
    let dir = TempDir::new()?;
    let source = dir.path().join("end.c");
    let text = "void _start(void) { __asm__(\"int $0x80\" : : \"a\"(1), \"b\"(0)); }\n";
    fs::write(&source, text)?;
    let program = dir.path().join("end");
    let mut command = child::command(&[], &child::which("cc")?);
    command.args(["-m32", "-nostdlib", "-static", "-o"]).arg(&program).arg(&source);
    let built = run(command)?;
    if !built.status.success() {
        eprintln!("this compiler makes no 32-bit programs: {}", show(&built));
        return Ok(());
    }
    supervised(&program, "is a 32-bit program")
}

#[test]
fn another_dynamic_linker() -> Result<()> {
    let linked = |name, linker| cc("nothing.c", name, &[&format!("-Wl,--dynamic-linker={linker}")]);
    let musl = "/lib/ld-musl-x86_64.so.1";
    let of_musl = if Path::new(musl).exists() { supervised } else { refused };
    of_musl(&linked("nothing-musl", musl)?, "is linked with musl")?;
    refused(&linked("nothing-bionic", "/system/bin/linker64")?, "uses the dynamic linker")?;
    let missing = linked("nothing-missing", "/no/such/folder/ld-linux-x86-64.so.2")?;
    refused(&missing, "which does not exist")?;
    // The dynamic linker as a program names none, and still loads the agent.
    let own = Path::new("/lib64/ld-linux-x86-64.so.2");
    if own.exists() {
        let mut command = durac(["run", "window", "--"])?;
        command.arg(own).args(["/bin/sh", "-c", "exec 3>>x.incr.aof; echo it ran"]);
        let dir = TempDir::new()?;
        let ended = run({
            command.current_dir(dir.path());
            command
        })?;
        ensure!(ended.stdout == "it ran\n", "{}", show(&ended));
        ensure!(ended.stderr.contains("is in force"), "{}", show(&ended));
    }
    Ok(())
}

/// The kernel runs the interpreter of a script, and the interpreter's, if it is a script.
#[test]
fn a_script_is_what_its_interpreter_is() -> Result<()> {
    let dir = TempDir::new()?;
    let fixed = cc("nothing.c", "nothing-static", &["-static"])?;
    let line = |interpreter: &Path| format!("#! {} -x\nexit 0\n", interpreter.display());
    let direct = executable(&dir, "direct", line(&fixed))?;
    let why =
        format!("`{}`, which runs `{}`, is statically linked", fixed.display(), direct.display());
    supervised(&direct, &why)?;
    supervised(&executable(&dir, "chain", line(&direct))?, "is statically linked")?;
    let by_env = format!("#!/usr/bin/env -S A=1 {} -x\n", fixed.display());
    supervised(&executable(&dir, "by_env", by_env)?, "is statically linked")?;

    runs(&executable(&dir, "shell", "#!/bin/sh\nexit 0\n")?)?;
    runs(&executable(&dir, "env", "#!/usr/bin/env sh\nexit 0\n")?)?;
    // The kernel gives up on a chain without an end; its reason is the command's.
    let ring = dir.path().join("ring");
    let ended = run_durac([
        "run",
        "window",
        "--",
        executable(&dir, "ring", line(&ring))?.to_str().context("path")?,
    ])?;
    ensure!(ended.status.code() == Some(126), "{}", show(&ended));
    Ok(())
}

/// The capabilities of a file, as setcap(8) writes them: version 2, effective, CAP_NET_BIND_SERVICE.
#[test]
fn file_capabilities() -> Result<()> {
    if !needs_root("a file cannot be given capabilities") {
        return Ok(());
    }
    let dir = TempDir::new()?;
    let program = executable(&dir, "capable", fs::read(cc("nothing.c", "nothing", &[])?)?)?;
    runs(&program)?;
    let mut value = Vec::new();
    for word in [0x0200_0001_u32, 1 << 10, 0, 0, 0] {
        value.extend(word.to_le_bytes());
    }
    let path = CString::new(program.as_os_str().as_bytes())?;
    let (name, length) = (c"security.capability", value.len());
    // SAFETY: two strings that end with zero, and `length` bytes of the value.
    let set =
        unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), length, 0) };
    if set != 0 {
        eprintln!("the file system has no capabilities: {}", std::io::Error::last_os_error());
        return Ok(());
    }
    refused(&program, "has file capabilities")?;
    let script = executable(&dir, "script", format!("#!{}\n", program.display()))?;
    refused(&script, "has file capabilities")
}

/// An agent that the dynamic linker would leave out: the command does not run without it.
#[test]
fn an_agent_that_is_not_loaded() -> Result<()> {
    let dir = TempDir::new()?;
    let library = fs::read(agent()?)?;
    let with = |agent: &Path, why: &str| -> Result<()> {
        let mut command = durac(["run", "window", "--agent"])?;
        command.arg(agent).args(["--", "echo", "it ran"]);
        let ended = run(command)?;
        ensure!(ended.status.code() == Some(2), "{}", show(&ended));
        ensure!(ended.stdout.is_empty() && ended.stderr.contains(why), "{}", show(&ended));
        Ok(())
    };
    with(&executable(&dir, "text.so", "no library")?, "not a shared library")?;
    let pipe = dir.path().join("pipe.so");
    let made = run({
        let mut command = child::command(&[], &child::which("mkfifo")?);
        command.arg(&pipe);
        command
    })?;
    ensure!(made.status.success(), "{}", show(&made));
    with(&pipe, "not a regular file")?;
    let mut small = library.clone();
    *small.get_mut(4).context("a short file")? = 1;
    with(&executable(&dir, "small.so", small)?, "32-bit")?;
    let mut other = library.clone();
    *other.get_mut(18).context("a short file")? = 183;
    with(&executable(&dir, "other.so", other)?, "another architecture (AArch64)")?;
    // Its header is good, and nothing is behind it: the reason is the linker's.
    let cut = library.get(..4096).context("a short file")?;
    with(&executable(&dir, "cut.so", cut)?, "cannot preload")
}

#[test]
fn an_agent_on_a_file_system_without_execution() -> Result<()> {
    if !needs_root("nothing can be mounted") {
        return Ok(());
    }
    let dir = TempDir::new()?;
    let script = "mount -t tmpfs -o noexec,size=256m none \"$1\" && cp \"$2\" \"$1/agent.so\" && \
                  exec \"$3\" run window --agent \"$1/agent.so\" -- echo it ran";
    let mut command = child::command(&[], &child::which("unshare")?);
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(dir.path()).arg(agent()?).arg(tool()?);
    let ended = run(command)?;
    if ended.stderr.contains("unshare") || ended.stderr.contains("mount:") {
        eprintln!("nothing can be mounted here: {}", show(&ended));
        return Ok(());
    }
    ensure!(ended.status.code() == Some(2) && ended.stdout.is_empty(), "{}", show(&ended));
    ensure!(ended.stderr.contains("mounted noexec"), "{}", show(&ended));
    Ok(())
}
