//! Lines for the administrator, on stderr. Never on stdout: that is the application's product.

use crate::real;
use durac_bpf::abi::ENV_LOG;

/// Prints a line if the environment does not ask for silence.
pub fn info(text: &str) {
    if std::env::var_os(ENV_LOG).is_none_or(|v| v != "quiet") {
        error(text);
    }
}

/// Prints a line whatever the environment says.
pub fn error(text: &str) {
    let line = format!("durac: {}\n", printable(text));
    // SAFETY: the pointer and length are the line's. One call, so that lines of several processes
    // do not mix; there is nobody to tell if it fails.
    unsafe { real::WRITE.get()(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
}

/// One line without control characters: it quotes names that others gave.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Prints a line as [`info`] does, unless whoever reads stderr has not kept up: a full pipe would hold
/// up the thread.
pub fn aside(text: &str) {
    let mut stderr = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
    // SAFETY: `stderr` is one entry.
    let ready = unsafe { libc::poll(&raw mut stderr, 1, 0) };
    if ready == 1 && stderr.revents & libc::POLLOUT != 0 {
        info(text);
    }
}
