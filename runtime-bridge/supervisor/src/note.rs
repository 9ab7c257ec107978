//! Lines for the administrator, on stderr.

use durac_abi::ENV_LOG;
use std::io::Write;

/// Prints a line if the environment does not ask for silence.
pub fn info(text: &str) {
    if std::env::var_os(ENV_LOG).is_none_or(|value| !durac_abi::is_quiet(&value)) {
        error(text);
    }
}

/// Prints a line whatever the environment says. A full pipe does not hold up the thread: there is no line
/// then.
pub fn error(text: &str) {
    let mut stderr = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
    // SAFETY: `stderr` is one entry.
    let ready = unsafe { libc::poll(&raw mut stderr, 1, 0) };
    if ready != 1 || stderr.revents & libc::POLLOUT == 0 {
        return;
    }
    let printable: String =
        text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    // Nobody is there to tell if it fails.
    let _ = std::io::stderr().write_all(format!("durac: {printable}\n").as_bytes());
}
