//! Objects that the agent does not run. The application then runs without hooks.

use crate::common::{self, Place, count, objects};
use durac_abi::Object;
use durac_abi::insn::{Insn, Reg, Size};
use durac_abi::{Helper, Hook};
use std::os::unix::fs::PermissionsExt;

const RUN: &str = "open a wct x.log write a 1 sync a write a 1 sync a";

/// The application runs as without us, and one line says why.
fn refused(place: &Place, reason: &str) {
    let done = place.run(RUN);
    assert_eq!(done.code, 0);
    assert_eq!(count(&done.calls, "-fdatasync x.log main 0"), 2, "{done:?}");
    assert_eq!(done.err.lines().count(), 1, "{done:?}");
    assert!(done.err.starts_with("durac: "), "{done:?}");
    assert!(done.err.contains(reason), "{reason}: {done:?}");
    assert!(done.err.ends_with("; the application runs without a policy\n"), "{done:?}");
}

fn program(change: impl FnOnce(&mut durac_bpf::asm::Asm)) -> Object {
    objects::object("tampered", change)
}

#[test]
fn the_verifier_has_the_last_word() {
    let tampered = [
        // Out of bounds.
        program(|asm| {
            asm.extend([Insn::ldx(Size::Dw, Reg::R0, Reg::R1, 4096), Insn::exit()]);
        }),
        // Writes to the context.
        program(|asm| {
            asm.extend([
                Insn::st(Size::Dw, Reg::R1, 0, 1),
                Insn::mov_imm(Reg::R0, 0),
                Insn::exit(),
            ]);
        }),
        // Never ends.
        program(|asm| asm.extend([Insn::mov_imm(Reg::R0, 0), Insn::ja(-2), Insn::exit()])),
        // Calls something else.
        program(|asm| {
            asm.extend([Insn { imm: 6, ..Insn::call(Helper::Request) }, Insn::exit()]);
        }),
        // Returns what it never set.
        program(|asm| asm.push(Insn::exit())),
        // Reads memory at a number.
        program(|asm| {
            asm.extend([
                Insn::mov_imm(Reg::R2, 4096),
                Insn::ldx(Size::Dw, Reg::R0, Reg::R2, 0),
                Insn::exit(),
            ]);
        }),
    ];
    for object in tampered {
        let place = Place::new(&object);
        refused(&place, "the verifier rejects the policy: tampered.dur: fdatasync, instruction ");
        assert!(place.run(RUN).err.contains("(line 1, column 1): "));
    }
}

#[test]
fn any_flipped_byte_is_harmless() {
    let good = objects::bytes(&objects::window_param(8));
    let step = good.len() / 150;
    for at in (0..good.len()).step_by(step.max(1)) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x41;
        let done = Place::with_bytes(&bytes).run(RUN);
        assert_eq!(done.code, 0, "byte {at}: {done:?}");
        assert_eq!(count(&done.out, "sync a = "), 2, "byte {at}: {done:?}");
        assert!(count(&done.calls, "-fdatasync x.log") > 0, "byte {at}: {done:?}");
    }
}

#[test]
fn files_that_are_no_objects() {
    refused(&Place::with_bytes(b""), "policy.o");
    refused(&Place::with_bytes(b"policy x\non fdatasync: defer\n"), "policy.o");
    refused(&Place::with_bytes(&vec![0x7f; 5 << 20]), "larger than the limit");
    let good = objects::bytes(&objects::defer());
    refused(&Place::with_bytes(&good[..good.len() / 2]), "policy.o");
    let place = Place::new(&objects::defer()).env("DURAC_OBJECT", "/nonexistent/x.o");
    refused(&place, "/nonexistent/x.o: No such file");
    refused(&Place::new(&objects::defer()).env("DURAC_OBJECT", "/tmp"), "not a regular file");
    refused(&Place::new(&objects::defer()).env("DURAC_OBJECT", "/dev/zero"), "not a regular file");
}

#[test]
fn objects_that_others_could_have_changed() {
    for mode in [0o620, 0o602, 0o666] {
        let place = Place::new(&objects::defer());
        let path = place.path("policy.o");
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        refused(&place, "others may write to it");
    }
    let place = Place::new(&objects::defer());
    let link = place.path("link");
    std::os::unix::fs::symlink(place.path("policy.o"), &link).unwrap();
    refused(&place.env("DURAC_OBJECT", &link), "link: Too many levels of symbolic links");
    // Only root can give a file away.
    let place = Place::new(&objects::defer());
    if std::os::unix::fs::chown(place.path("policy.o"), Some(12345), None).is_ok() {
        refused(&place, "owned by user 12345");
    }
}

#[test]
fn what_this_agent_does_not_do() {
    let mut object = objects::defer();
    object.programs.push(objects::assemble(Hook::Barrier, |asm| {
        objects::verdict(asm, durac_abi::Verdict::Pass);
    }));
    refused(&Place::new(&object), "the agent does not support `on barrier`");
    let mut object = objects::defer();
    object.meta.abi += 1;
    if let Ok(bytes) = durac_bpf::write(&object) {
        refused(&Place::with_bytes(&bytes), "ABI");
    }
}

#[test]
fn no_object_no_policy_no_word() {
    let done = Place::new(&objects::defer()).env("DURAC_OBJECT", "").env("DURAC_LOG", "").run(RUN);
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    assert_eq!(count(&done.calls, "-fdatasync x.log main 0"), 2);
}

#[test]
fn code_runs_where_memory_must_not_become_executable() {
    use std::os::unix::process::CommandExt;
    let place = Place::new(&objects::window_param(8)).env("DURAC_LOG", "");
    let mut command = place.command(common::app());
    // SAFETY: one system call between fork and exec. The protection is for ever and inherited.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(65 /* PR_SET_MDWE */, 1 /* PR_MDWE_REFUSE_EXEC_GAIN */, 0, 0, 0);
            Ok(())
        });
    }
    let output = command.args(RUN.split(' ')).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("durac: policy `window`") && said.lines().count() == 1, "{said}");
}

/// Whatever stands in the environment, the application runs, and its stderr gets lines of text.
#[test]
fn any_environment_is_harmless() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let long = "x".repeat(100_000);
    let values: [&[u8]; 8] = [
        b"\xff\xfe",
        b"\x1b[2J\nline",
        b"-1:-1,-1",
        b"0:1,2",
        b"2147483648:",
        b"1:1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1",
        b"/nonexistent/\x1b[31m/file",
        long.as_bytes(),
    ];
    let mut watched = objects::window_param(8);
    watched.kernel = durac_bpf::notify::programs_of(durac_abi::Runtime::Agent).unwrap();
    for value in values {
        for name in ["ENGINE", "STATUS", "RECORD", "LOG", "NOTIFY"] {
            let place = Place::new(&watched);
            let mut command = place.command(common::app());
            command.env("DURAC_LOG", "").env(format!("DURAC_{name}"), OsStr::from_bytes(value));
            let output = command.args(RUN.split(' ')).output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            let shown = &said[..said.len().min(300)];
            assert!(output.status.success(), "{name}: {shown}");
            let out = String::from_utf8(output.stdout).unwrap();
            assert_eq!(out.matches("sync a = 0").count(), 2, "{name}: {out} {shown}");
            assert!(said.lines().all(|line| line.starts_with("durac: ")), "{name}: {shown}");
            assert!(!said.contains('\x1b'), "{name}: {shown}");
            assert!(said.contains("durac: policy `window`"), "{name}: {shown}");
        }
    }
    let misspelt = Place::new(&objects::defer()).env("DURAC_LOG", "").env("DURAC_STATSU", "x");
    let line = "durac: unknown variable `DURAC_STATSU` in the environment: it has no effect\n";
    assert!(misspelt.run(RUN).err.ends_with(line));
    let engine = Place::new(&objects::window_param(8)).env("DURAC_ENGINE", "\u{1b}[2J").run(RUN);
    assert!(engine.err.contains("unknown engine"), "{engine:?}");
}

/// A program with rights that its caller may not have takes no policy from the caller's environment.
/// Needs root: the agent comes by `/etc/ld.so.preload`, in a name space of the test's own.
#[test]
fn a_setgid_program_ignores_its_environment() {
    if !durac_tests::needs_root("no file can be put over /etc/ld.so.preload") {
        return;
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let script = "set -e; mount -t tmpfs none mnt; mkdir mnt/upper mnt/work
        mount -t overlay -o lowerdir=/etc,upperdir=mnt/upper,workdir=mnt/work none /etc
        cp /bin/cat plain; cp /bin/cat setgid; chgrp 65534 setgid; chmod 2755 setgid
        echo \"$AGENT\" > /etc/ld.so.preload
        DURAC_OBJECT=/nonexistent/x.o ./plain /proc/self/maps > plain.out 2> plain.err
        DURAC_OBJECT=/nonexistent/x.o ./setgid /proc/self/maps > setgid.out 2> setgid.err";
    std::fs::create_dir(dir.path().join("mnt")).unwrap();
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).env("AGENT", common::agent());
    let ended = command.current_dir(dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}");
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    for maps in ["plain.out", "setgid.out"] {
        assert!(read(maps).contains("libdurac_preload.so"), "{maps}: {}", read(maps));
    }
    assert!(read("plain.err").contains("runs without a policy"), "{}", read("plain.err"));
    assert_eq!(read("setgid.err"), "");
}
