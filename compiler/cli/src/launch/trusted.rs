//! Whether another user could have written a file: the rule of the agent for the object that `DURAC_OBJECT` names.

use crate::output;
use anyhow::Result;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

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
    // What is checked is what is read; only a link to it can be exchanged meanwhile.
    let why = distrust(&kind).or_else(|| distrust_link(path));
    if let Some(Distrust { why, advice }) = why {
        let why = format!("`{shown}` is not used: {why}; if you trust it: `{advice} {shown}`");
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
    if let Some(Distrust { why, advice }) = distrust(&kind).or_else(|| distrust_link(path))
        && kind.is_file()
    {
        let shown = path.display();
        output::error(&format!("warning: `{shown}`: {why}; if you trust it: `{advice} {shown}`"));
    }
}

/// Why another user could have written a file.
#[derive(Debug, PartialEq, Eq)]
struct Distrust {
    why: String,
    /// The command that ends it.
    advice: String,
}

fn distrust(kind: &Metadata) -> Option<Distrust> {
    let user = rustix::process::geteuid().as_raw();
    of(kind.uid(), kind.mode(), user)
}

/// A link has no mode; its owner can exchange it.
fn distrust_link(path: &Path) -> Option<Distrust> {
    let kind = fs::symlink_metadata(path).ok().filter(Metadata::is_symlink)?;
    let user = rustix::process::geteuid().as_raw();
    of(kind.uid(), 0, user).map(|found| Distrust {
        why: format!("it is a link {}", found.why),
        advice: format!("chown -h {user}"),
    })
}

/// Of a file of this owner and mode, for this user.
fn of(owner: u32, mode: u32, user: u32) -> Option<Distrust> {
    if owner != 0 && owner != user {
        let whom = if user == 0 { "root".to_owned() } else { format!("root or user {user}") };
        let why = format!("owned by user {owner}, not by {whom}");
        return Some(Distrust { why, advice: format!("chown {user}") });
    }
    (mode & 0o022 != 0).then(|| Distrust {
        why: format!("others may write to it (mode {:o})", mode & 0o7777),
        advice: "chmod go-w".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn the_rule_is_that_of_the_agent() {
        for (owner, mode, user, trusted) in [
            (0, 0o100_644, 0, true),
            (0, 0o100_644, 1000, true),
            (1000, 0o100_600, 1000, true),
            (1000, 0o100_600, 0, false),
            (1001, 0o100_644, 1000, false),
            (0, 0o100_664, 0, false),
            (1000, 0o100_602, 1000, false),
        ] {
            assert_eq!(of(owner, mode, user).is_none(), trusted, "{owner} {mode:o} {user}");
        }
    }
}
