//! `use kernel notify`: loads the kernel's programs before the command starts, and hands it their map.

use crate::output;
use durac_bpf::{Object, abi};
use durac_kernel::{Failure, Notify};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::process::Command;

/// The descriptors get numbers from here on: above what an application opens first, so that the
/// numbers it gets are those it would get without us.
const FROM: RawFd = 700;

/// Loads and attaches the object's kernel programs, if it has some, and says where, or why not. The
/// command inherits what keeps them attached; without them the engine's own completions answer.
pub fn start(object: &Object, command: &mut Command) {
    if object.kernel.is_empty() {
        return;
    }
    let wanted = std::env::var_os(abi::ENV_NOTIFY).is_none_or(|value| value != abi::NOTIFY_OFF);
    // An older run's descriptors are not ours.
    command.env_remove(abi::ENV_NOTIFY);
    if !wanted {
        say("kernel notify is off; the engine's own completions answer");
        return;
    }
    let loaded = durac_kernel::load(object).map_err(|why| {
        let first = why.first();
        first.map_or_else(String::new, |(_, failure)| explain(failure))
    });
    let handed = loaded.and_then(|notify| {
        let value = hand_down(&notify).map_err(|error| output::reason(&error))?;
        Ok((notify, value))
    });
    match handed {
        Ok((notify, value)) => {
            command.env(abi::ENV_NOTIFY, value);
            say(&describe(&notify));
        }
        Err(why) => {
            say(&format!("kernel notify is not loaded: {why}; the engine's own completions answer"))
        }
    }
}

/// A line for the administrator, if the environment does not ask for silence.
fn say(text: &str) {
    if std::env::var_os(abi::ENV_LOG).is_none_or(|value| value != "quiet") {
        output::error(text);
    }
}

fn explain(failure: &Failure) -> String {
    match failure {
        Failure::Setup { why, .. } | Failure::Load { why, .. } | Failure::Attach { why, .. }
            if why.raw_os_error() == Some(libc::EPERM) && !is_root() =>
        {
            format!("{failure} (it needs root, or CAP_BPF and CAP_PERFMON)")
        }
        failure => failure.to_string(),
    }
}

fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Where the programs are, and why at no better place.
fn describe(notify: &Notify) -> String {
    let mut text = format!("kernel notify: {}", notify.attach.text());
    for (_, failure) in &notify.refused {
        text.push_str(&format!(" ({failure})"));
    }
    text
}

/// Copies the descriptors so that the command inherits them, and names them as the agent reads them.
fn hand_down(notify: &Notify) -> io::Result<String> {
    let map = inherited(notify.map())?;
    let links: io::Result<Vec<String>> =
        notify.links().map(|link| Ok(inherited(link)?.to_string())).collect();
    Ok(format!("{map}:{}", links?.join(",")))
}

/// A copy that stays open over exec, for as long as this process runs.
fn inherited(fd: BorrowedFd<'_>) -> io::Result<RawFd> {
    for from in [FROM, 3] {
        // SAFETY: any descriptor and number may be passed.
        let copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD, from) };
        if copy >= 0 {
            return Ok(copy);
        }
    }
    Err(io::Error::last_os_error())
}
