//! `use kernel notify`: loads the kernel's programs before the command starts, and passes their map on to it.

use crate::log::info as say;
use crate::{filter, output};
use durac_abi::Object;
use durac_abi::elf::KernelTypes;
use durac_kernel::{Failure, Notify};
use durac_workload::sys;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::process::Command;

/// The lowest number of an inherited descriptor: above those that an application opens first, so that
/// its own descriptors have the numbers that they have without durac.
const FROM: RawFd = 700;

/// Loads and attaches the object's kernel programs, if any, and prints where, or why not. The command
/// inherits what keeps them attached. Without them, completions come from the engine.
pub fn start(object: &Object, types: &KernelTypes, command: &mut Command) {
    if object.kernel.is_empty() {
        return;
    }
    let wanted =
        std::env::var_os(durac_abi::ENV_NOTIFY).is_none_or(|value| value != durac_abi::NOTIFY_OFF);
    // Descriptors of an outer `durac run` belong to another policy.
    command.env_remove(durac_abi::ENV_NOTIFY);
    if !wanted {
        say("kernel notify is off; using the engine's own completions");
        return;
    }
    if !filter::survives(&[libc::SYS_bpf]) {
        say("kernel notify is not loaded: a system call filter kills processes that call bpf; \
             using the engine's own completions");
        return;
    }
    let loaded = durac_kernel::load(object, types).map_err(|why| {
        let first = why.first();
        first.map_or_else(String::new, |(_, failure)| explain(failure))
    });
    let handed = loaded.and_then(|notify| {
        let value = hand_down(&notify).map_err(|error| output::reason(&error))?;
        Ok((notify, value))
    });
    match handed {
        Ok((notify, value)) => {
            command.env(durac_abi::ENV_NOTIFY, value);
            say(&describe(&notify));
        }
        Err(why) => {
            say(&format!("kernel notify is not loaded: {why}; using the engine's own completions"))
        }
    }
}

fn explain(failure: &Failure) -> String {
    match failure {
        Failure::Setup { why, .. } | Failure::Load { why, .. } | Failure::Attach { why, .. }
            if why.raw_os_error() == Some(libc::EPERM) && !sys::is_root() =>
        {
            format!("{failure} (requires root, or CAP_BPF and CAP_PERFMON)")
        }
        failure => failure.to_string(),
    }
}

/// Where the programs are attached, and why better places were refused.
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
