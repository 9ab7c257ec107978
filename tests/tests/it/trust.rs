//! Folders that somebody else prepared: what durac keeps between `durac run` and the agent goes only
//! where no other user can write. These tests need root, to be two users.

use anyhow::{Result, ensure};
use durac_tests::server::Under;
use durac_tests::{agent, durac, needs_root, run, run_durac, show, tool};
use durac_workload::child::{self, Ended};
use std::ffi::{CStr, CString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use tempfile::TempDir;

const NOBODY: u32 = 65534;

/// As the user nobody, with copies of durac and the agent in `dir`.
fn nobody(dir: &Path, env: &[(&str, &Path)]) -> Result<Ended> {
    let mut command = child::command(&[], &child::which("setpriv")?);
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(dir.join("durac"));
    command.args(["run", "window", "--", "true"]);
    command.env_remove("LD_PRELOAD").env_remove("XDG_RUNTIME_DIR").envs(env.iter().copied());
    run(command)
}

fn mode(path: &Path, mode: u32) -> Result<()> {
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

#[test]
fn a_folder_that_others_can_write_is_refused() -> Result<()> {
    if !needs_root("there is no other user") {
        return Ok(());
    }
    let dir = TempDir::new()?;
    mode(dir.path(), 0o755)?;
    durac_tests::copy_program(&tool()?, dir.path().join("durac"))?;
    durac_tests::copy_program(&agent()?, dir.path().join("libdurac_preload.so"))?;
    let temp = dir.path().join("temp");
    fs::create_dir(&temp)?;
    mode(&temp, 0o1777)?;
    let folder = temp.join("durac-65534");
    let env = [("TMPDIR", temp.as_path())];
    let refused = |what: &str| -> Result<()> {
        let ended = nobody(dir.path(), &env)?;
        let code = ended.status.code();
        ensure!(code == Some(2), "{what}: {}", show(&ended));
        ensure!(ended.stderr.contains("only user 65534 can write"), "{what}: {}", show(&ended));
        Ok(())
    };

    fs::create_dir(&folder)?;
    mode(&folder, 0o777)?;
    refused("another user's folder")?;
    chown(&folder, Some(NOBODY), None)?;
    refused("a folder that all can write")?;
    fs::remove_dir(&folder)?;
    let elsewhere = dir.path().join("elsewhere");
    fs::create_dir(&elsewhere)?;
    chown(&elsewhere, Some(NOBODY), None)?;
    symlink(&elsewhere, &folder)?;
    refused("a link")?;
    ensure!(fs::read_dir(&elsewhere)?.count() == 0, "something was written through the link");
    fs::remove_file(&folder)?;

    // The folder of the session belongs to somebody else: it is not used.
    let session = dir.path().join("session");
    fs::create_dir(&session)?;
    mode(&session, 0o777)?;
    let env = [("TMPDIR", temp.as_path()), ("XDG_RUNTIME_DIR", session.as_path())];
    let ended = nobody(dir.path(), &env)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    ensure!(fs::read_dir(&session)?.count() == 0, "the session's folder was used");
    let made = fs::symlink_metadata(&folder)?;
    ensure!(made.uid() == NOBODY && made.mode() & 0o777 == 0o700, "{:o}", made.mode());
    for entry in fs::read_dir(&folder)? {
        let kind = entry?.metadata()?;
        ensure!(kind.uid() == NOBODY && kind.mode() & 0o777 == 0o644, "{:o}", kind.mode());
    }
    Ok(())
}

/// An object that others could have written is refused, as the agent does; a text, which is proved again, is told of.
#[test]
fn a_policy_that_others_can_write() -> Result<()> {
    let dir = TempDir::new()?;
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let (object, text) = (path("window.o"), path("window.dur"));
    let ended = run_durac(["compile", "window", "-o", object.as_str()])?;
    ensure!(ended.status.success(), "{}", show(&ended));
    fs::write(&text, "target redis.aof\non fdatasync: pass\n")?;
    let start = |file: &str| run(durac(["run", file, "--", "true"])?);
    for file in [&object, &text] {
        mode(Path::new(file), 0o644)?;
        let ended = start(file)?;
        ensure!(ended.status.success() && !ended.stderr.contains("trust"), "{}", show(&ended));
    }
    let server = Under::policy("window").start()?;
    let pid = server.redis.pid().to_string();
    let refused = |why: &str, advice: &str| -> Result<()> {
        for words in [&["run", &object, "--", "true"][..], &["reload", &object, &pid]] {
            let ended = run_durac(words)?;
            ensure!(ended.status.code() == Some(1), "{words:?}: {}", show(&ended));
            for part in [why, advice] {
                ensure!(ended.stderr.contains(part), "{words:?}: {}", show(&ended));
            }
        }
        Ok(())
    };
    mode(Path::new(&object), 0o664)?;
    refused("others may write to it (mode 664)", "chmod go-w")?;
    mode(Path::new(&object), 0o602)?;
    refused("others may write to it (mode 602)", "chmod go-w")?;
    if !needs_root("there is no other user") {
        return Ok(());
    }
    mode(Path::new(&object), 0o644)?;
    chown(&object, Some(NOBODY), None)?;
    refused("owned by user 65534, not by root", "chown 0")?;
    let link = path("link.o");
    chown(&object, Some(0), None)?;
    symlink(&object, &link)?;
    ensure!(start(&link)?.status.success());
    std::os::unix::fs::lchown(&link, Some(NOBODY), None)?;
    let ended = start(&link)?;
    ensure!(
        ended.status.code() == Some(1) && ended.stderr.contains("it is a link owned by user 65534"),
        "{}",
        show(&ended)
    );

    // A link of root's leads to it.
    let over = path("over.o");
    symlink(&link, &over)?;
    let ended = start(&over)?;
    let told =
        ended.stderr.contains("on the way is the link `") && ended.stderr.contains("chown -h 0 ");
    ensure!(ended.status.code() == Some(1) && told, "{}", show(&ended));

    mode(Path::new(&text), 0o666)?;
    let warns = "warning: `";
    let ended = start(&text)?;
    ensure!(ended.status.success() && ended.stderr.contains(warns), "{}", show(&ended));
    ensure!(ended.stderr.contains("others may write to it (mode 666)"), "{}", show(&ended));
    let ended = run_durac(["reload", &text, &pid])?;
    ensure!(ended.status.success() && ended.stderr.contains(warns), "{}", show(&ended));
    Ok(())
}

/// Who can write to a folder on the way to an object could put another in its place.
#[test]
fn a_policy_in_a_folder_of_others() -> Result<()> {
    let dir = TempDir::new()?;
    let folder = dir.path().join("a folder");
    fs::create_dir(&folder)?;
    let (object, link) = (folder.join("window.o"), dir.path().join("link"));
    let ended = run(durac([Path::new("compile"), Path::new("window"), Path::new("-o"), &object])?)?;
    ensure!(ended.status.success(), "{}", show(&ended));
    symlink(&folder, &link)?;
    let through = link.join("window.o");
    let start = |file: &Path| -> Result<Ended> {
        let mut command = durac(["run"])?;
        command.arg(file).args(["--", "true"]);
        run(command)
    };
    let all = |why: &str, advice: &str| -> Result<()> {
        for file in [&object, &through] {
            let ended = start(file)?;
            let told = ended.stderr.contains(why) && ended.stderr.contains(advice);
            ensure!(ended.status.code() == Some(1) && told, "{why}: {}", show(&ended));
        }
        Ok(())
    };
    let fine = || -> Result<()> {
        for file in [&object, &through] {
            let ended = start(file)?;
            ensure!(ended.status.success(), "{}", show(&ended));
        }
        Ok(())
    };
    fine()?;
    mode(&folder, 0o777)?;
    all("others may write to its folder `", "chmod o-w '")?;
    // As /tmp: only the owner of a file can replace it.
    mode(&folder, 0o1777)?;
    fine()?;
    mode(&folder, 0o755)?;
    if !needs_root("there is no other user") {
        return Ok(());
    }
    chown(&folder, Some(NOBODY), None)?;
    all("` is owned by user 65534, not by root", "chown 0 '")?;
    chown(&folder, Some(0), None)?;
    fine()?;
    std::os::unix::fs::lchown(&link, Some(NOBODY), None)?;
    ensure!(start(&object)?.status.success());
    let ended = start(&through)?;
    let told = ended.stderr.contains("on the way is the link `");
    ensure!(ended.status.code() == Some(1) && told, "{}", show(&ended));
    Ok(())
}

/// Sets an extended attribute; whether the file system has them.
fn set_attribute(path: &Path, name: &CStr, value: &[u8]) -> Result<bool> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let (value, length) = (value.as_ptr().cast(), value.len());
    // SAFETY: two strings that end with zero, and `length` bytes of the value.
    let set = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value, length, 0) };
    let error = std::io::Error::last_os_error();
    ensure!(set == 0 || error.raw_os_error() == Some(libc::EOPNOTSUPP), "{error}");
    Ok(set == 0)
}

fn attribute(path: &Path, name: &CStr) -> Result<Option<Vec<u8>>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut value = vec![0; 1024];
    // SAFETY: two strings that end with zero, and room for as many bytes as the value has.
    let length = unsafe {
        libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len())
    };
    value.truncate(usize::try_from(length).unwrap_or(0));
    Ok((length >= 0).then_some(value))
}

/// An ACL as the kernel stores it (`linux/posix_acl_xattr.h`): of the owner, the user nobody, the group, the mask and others.
fn acl(owner: u16, nobody: u16, group: u16, mask: u16, others: u16) -> Vec<u8> {
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, right, id) in [
        (0x01_u16, owner, u32::MAX),
        (0x02, nobody, NOBODY),
        (0x04, group, u32::MAX),
        (0x10, mask, u32::MAX),
        (0x20, others, u32::MAX),
    ] {
        value.extend(tag.to_le_bytes());
        value.extend(right.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

/// A file that is rewritten keeps its ACL and its other attributes, and gets none of its folder.
#[test]
fn attributes_of_a_text_that_is_rewritten() -> Result<()> {
    const ACCESS: &CStr = c"system.posix_acl_access";
    const DEFAULT: &CStr = c"system.posix_acl_default";
    const NOTE: &CStr = c"user.note";
    let unformatted = "on fdatasync:   pass\n";
    let slip = "on fdatasync(fd): pass\n";
    let given = acl(6, 6, 0, 6, 0);
    for (words, text) in [(&["fmt"][..], unformatted), (&["check", "--fix"], slip)] {
        for (in_folder, on_file) in [
            (false, Some((ACCESS, given.as_slice()))),
            (false, Some((NOTE, b"mine".as_slice()))),
            (true, None),
            (true, Some((ACCESS, &given))),
        ] {
            let dir = TempDir::new()?;
            let file = dir.path().join("a.dur");
            fs::write(&file, text)?;
            mode(&file, 0o640)?;
            if in_folder && !set_attribute(dir.path(), DEFAULT, &acl(7, 7, 0, 7, 0))? {
                eprintln!("the file system has no ACLs");
                return Ok(());
            }
            if let Some((name, value)) = on_file
                && !set_attribute(&file, name, value)?
            {
                eprintln!("the file system has no extended attributes");
                return Ok(());
            }
            let seen = || -> Result<_> {
                Ok((
                    fs::metadata(&file)?.mode(),
                    attribute(&file, ACCESS)?,
                    attribute(&file, NOTE)?,
                ))
            };
            let before = seen()?;
            let mut command = durac(words)?;
            command.arg(&file);
            let ended = run(command)?;
            let what = format!("{words:?} {in_folder} {on_file:?}: {}", show(&ended));
            ensure!(ended.status.success() && fs::read_to_string(&file)? != text, "{what}");
            let after = seen()?;
            ensure!(before == after, "{what}: {before:?} {after:?}");
            ensure!(fs::read_dir(dir.path())?.count() == 1, "{what}: something is left");
        }
    }
    Ok(())
}

/// A file that is rewritten stays its owner's, with its mode and its other names.
#[test]
fn a_text_that_is_rewritten() -> Result<()> {
    let dir = TempDir::new()?;
    let (file, other) = (dir.path().join("a.dur"), dir.path().join("other.dur"));
    let unformatted = "on fdatasync:   pass\n";
    let slip = "on fdatasync(fd): pass\n";
    for (words, text) in [(&["fmt"][..], unformatted), (&["check", "--fix"], slip)] {
        for (linked, owner) in [(false, 0), (true, 0), (false, NOBODY), (true, NOBODY)] {
            if owner != 0 && !needs_root("there is no other user") {
                continue;
            }
            let _ = fs::remove_file(&file);
            let _ = fs::remove_file(&other);
            fs::write(&file, text)?;
            mode(&file, 0o640)?;
            if linked {
                fs::hard_link(&file, &other)?;
            }
            if owner != 0 {
                chown(&file, Some(owner), Some(owner))?;
            }
            let before = fs::metadata(&file)?;
            let mut command = durac(words)?;
            command.arg(&file);
            let ended = run(command)?;
            let what = format!("{words:?} {linked} {owner}: {}", show(&ended));
            ensure!(ended.status.success() && fs::read_to_string(&file)? != text, "{what}");
            let after = fs::metadata(&file)?;
            let of = |kind: &fs::Metadata| (kind.uid(), kind.gid(), kind.mode(), kind.nlink());
            ensure!(of(&before) == of(&after), "{what}: {before:?} {after:?}");
            ensure!(!linked || before.ino() == after.ino(), "{what}: another file");
            let left = fs::read_dir(dir.path())?.count();
            ensure!(left == if linked { 2 } else { 1 }, "{what}: {left} files");
        }
    }
    Ok(())
}
