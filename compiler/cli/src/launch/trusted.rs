//! Whether another user could have written a file, or can put another in its place.
//!
//! The file is held to the rule of the agent for the object that `DURAC_OBJECT` names, except that it may be named through
//! links. Each link and folder on the way to it is held to the rule of `durac upgrade` for a program.

use crate::output;
use anyhow::Result;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

/// The bytes of an object that nobody but root and this user could have changed.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let shown = path.display();
    let failed = |why: std::io::Error| {
        output::exit(1, format!("cannot read `{shown}`: {}", output::reason(&why)))
    };
    // A pipe that came in its place must not block.
    let mut options = File::options();
    let mut file = options.read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    let kind = file.metadata().map_err(failed)?;
    // What is checked is what is read; only the way to it can be exchanged meanwhile, by somebody who is found there.
    if let Some(Distrust { why, advice }) = distrust(path, &kind) {
        let why = format!("`{shown}` is not used: {why}; if you trust it: `{advice}`");
        return Err(output::exit(1, why));
    }
    if !kind.is_file() {
        return Err(output::exit(1, format!("`{shown}` is not a regular file")));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Warns root of the text of a policy that others could have written.
pub fn warn(path: &Path) {
    if !durac_workload::sys::is_root() {
        return;
    }
    // A ready policy has no file.
    let Ok(kind) = fs::metadata(path) else { return };
    if let Some(Distrust { why, advice }) = distrust(path, &kind).filter(|_| kind.is_file()) {
        let shown = path.display();
        output::error(&format!("warning: `{shown}`: {why}; if you trust it: `{advice}`"));
    }
}

/// Why another user could have written a file.
#[derive(Debug, PartialEq, Eq)]
struct Distrust {
    why: String,
    /// The command that ends it.
    advice: String,
}

fn distrust(path: &Path, kind: &Metadata) -> Option<Distrust> {
    let user = rustix::process::geteuid().as_raw();
    of_file(kind.uid(), kind.mode(), user)
        .map(|(why, advice)| Distrust { why, advice: on(&advice, path) })
        .or_else(|| match on_the_way(path, user) {
            Err(found) => Some(found),
            // Somebody has exchanged the way since the file was opened.
            Ok(end) if (end.dev(), end.ino()) != (kind.dev(), kind.ino()) => {
                Some(unseen(path, "it leads to another file by now"))
            }
            Ok(_) => None,
        })
}

/// A file of this owner and mode, for this user: what is wrong with it, and what ends that.
fn of_file(owner: u32, mode: u32, user: u32) -> Option<(String, String)> {
    if let Some(why) = owned(owner, user) {
        return Some((why, format!("chown {user}")));
    }
    let why = || format!("others may write to it (mode {:o})", mode & 0o7777);
    (mode & 0o022 != 0).then(|| (why(), "chmod go-w".to_owned()))
}

fn owned(owner: u32, user: u32) -> Option<String> {
    let whom = if user == 0 { "root".to_owned() } else { format!("root or user {user}") };
    (owner != 0 && owner != user).then(|| format!("owned by user {owner}, not by {whom}"))
}

/// As many links as the kernel follows (path_resolution(7)).
const MOST_LINKS: u32 = 40;

/// The way to a file that cannot be looked at.
fn unseen(path: &Path, why: &str) -> Distrust {
    Distrust { why: format!("the way to it: {why}"), advice: on("namei -l", path) }
}

/// Follows a path as the kernel does, and looks at every folder and link. Returns what it leads to.
fn on_the_way(path: &Path, user: u32) -> Result<Metadata, Distrust> {
    let failed = |why: std::io::Error| unseen(path, &output::reason(&why));
    let path = &std::path::absolute(path).map_err(failed)?;
    let mut links = 0;
    let mut here = PathBuf::from("/");
    let mut rest = parts(path);
    let mut kind = fs::metadata(&here).map_err(failed)?;
    if let Some(found) = folder(&here, &kind, user) {
        return Err(found);
    }
    while let Some(part) = rest.pop() {
        if part == ".." {
            here.pop();
            continue;
        }
        let next = here.join(part);
        kind = fs::symlink_metadata(&next).map_err(failed)?;
        if kind.is_symlink() {
            links += 1;
            if links > MOST_LINKS {
                return Err(unseen(path, "too many links"));
            }
            // A link has no mode; its owner can exchange it.
            if let Some(why) = owned(kind.uid(), user) {
                let what = match next == *path {
                    true => "it is a link".to_owned(),
                    false => format!("on the way is the link `{}`", next.display()),
                };
                let advice = on(&format!("chown -h {user}"), &next);
                return Err(Distrust { why: format!("{what} {why}"), advice });
            }
            let target = fs::read_link(&next).map_err(failed)?;
            if target.is_absolute() {
                here = PathBuf::from("/");
            }
            rest.extend(parts(&target));
            continue;
        }
        if let Some(found) = folder(&next, &kind, user).filter(|_| kind.is_dir()) {
            return Err(found);
        }
        here = next;
    }
    Ok(kind)
}

/// What leads on from a folder, the first part last.
fn parts(path: &Path) -> Vec<OsString> {
    let parts = path
        .components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    parts.rev().map(|part| part.as_os_str().to_owned()).collect()
}

/// Who can put another file in the place of one in this folder.
fn folder(path: &Path, kind: &Metadata, user: u32) -> Option<Distrust> {
    if !durac_supervisor::may_others_replace(kind, user) {
        return None;
    }
    let shown = path.display();
    let (why, advice) = match owned(kind.uid(), user) {
        Some(why) => (format!("its folder `{shown}` is {why}"), format!("chown {user}")),
        None => {
            let mode = kind.mode() & 0o7777;
            (
                format!("others may write to its folder `{shown}` (mode {mode:o})"),
                "chmod o-w".to_owned(),
            )
        }
    };
    Some(Distrust { why, advice: on(&advice, path) })
}

/// A command on a path, for a shell.
fn on(command: &str, path: &Path) -> String {
    let path = output::quoted(&path.to_string_lossy());
    let end = if path.starts_with('-') { "-- " } else { "" };
    format!("{command} {end}{path}")
}

#[cfg(test)]
mod tests {
    use super::{of_file, on, parts};
    use std::path::Path;

    #[test]
    fn the_rule_for_a_file_is_that_of_the_agent() {
        for (owner, mode, user, trusted) in [
            (0, 0o100_644, 0, true),
            (0, 0o100_644, 1000, true),
            (1000, 0o100_600, 1000, true),
            (1000, 0o100_600, 0, false),
            (1001, 0o100_644, 1000, false),
            (0, 0o100_664, 0, false),
            (1000, 0o100_602, 1000, false),
        ] {
            assert_eq!(of_file(owner, mode, user).is_none(), trusted, "{owner} {mode:o} {user}");
        }
    }

    #[test]
    fn advice_can_be_pasted() {
        for (path, advice) in [
            ("/a/b.o", "chmod go-w /a/b.o"),
            ("sp ace.o", "chmod go-w 'sp ace.o'"),
            ("it's.o", r"chmod go-w 'it'\''s.o'"),
            ("-R", "chmod go-w -- -R"),
        ] {
            assert_eq!(on("chmod go-w", Path::new(path)), advice);
        }
        assert_eq!(parts(Path::new("/a/./../b")), ["b", "..", "a"]);
    }
}
