//! Lines for the administrator: on stderr, or where `DURAC_LOG` says. Never on stdout: that is the application's
//! product.
//!
//! A file is opened for each line, and so is the socket of syslog or the journal: a daemon may close every
//! descriptor it does not know, and a rotated file is another one. Whatever cannot be reached, the line comes on
//! stderr.

use crate::environment::{self, Logging, Sink};
use crate::errno;
use crate::real;
use crate::signals;
use crate::sys;
use durac_abi::ENV_LOG;
use std::ffi::CStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Standard error when the process started, by device and inode.
static STDERR: OnceLock<Option<(u64, u64)>> = OnceLock::new();
/// What the environment says.
static LOGGING: OnceLock<Logging> = OnceLock::new();

/// How grave a line is, as syslog(3) counts.
#[derive(Clone, Copy)]
enum Priority {
    Error = 3,
    Notice = 5,
}

/// Takes what the environment says of lines.
pub fn begin() {
    let asked = std::env::var_os(ENV_LOG).unwrap_or_default();
    match environment::logging(&asked) {
        Ok(logging) => drop(LOGGING.set(logging)),
        Err(word) => {
            let _ = LOGGING.set(Logging::default());
            error(&format!(
                "{ENV_LOG}: unknown value `{word}`; it is `quiet`, `stderr`, `syslog`, `journal` or the path of a file"
            ));
        }
    }
}

/// Prints a line if the environment does not ask for silence.
pub fn info(text: &str) {
    if !LOGGING.get().is_some_and(|logging| logging.quiet) {
        put(text, Priority::Notice);
    }
}

/// Prints a line whatever the environment says.
pub fn error(text: &str) {
    put(text, Priority::Error);
}

fn put(text: &str, priority: Priority) {
    let text = printable(text);
    let kept = errno::Kept::now();
    let sink = LOGGING.get().map(|logging| &logging.sink);
    let done = match sink {
        None | Some(Sink::Stderr) => false,
        Some(Sink::File(path)) => append(path, &text),
        Some(Sink::Syslog) => {
            // Facility 3: daemons.
            let line =
                format!("<{}>durac[{}]: {text}", 3 << 3 | priority as u8, std::process::id());
            send(c"/dev/log", &line)
        }
        Some(Sink::Journal) => {
            let line =
                format!("MESSAGE={text}\nPRIORITY={}\nSYSLOG_IDENTIFIER=durac\n", priority as u8);
            send(c"/run/systemd/journal/socket", &line)
        }
    };
    if !done {
        let line = format!("durac: {text}\n");
        // One call, so that lines of several processes do not mix; there is nobody to tell if it fails.
        write_to(libc::STDERR_FILENO as usize, &line);
    }
    drop(kept);
}

/// Appends a line to a file, with the time.
fn append(path: &CStr, text: &str) -> bool {
    let flags =
        libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT | libc::O_CLOEXEC | libc::O_NONBLOCK;
    let arguments =
        [libc::AT_FDCWD as usize, path.as_ptr().expose_provenance(), flags as usize, 0o640];
    // SAFETY: the path is a C string.
    let opened = sys::decode(unsafe { sys::call(libc::SYS_openat, arguments) });
    let Ok(fd) = opened else { return false };
    // SAFETY: null asks for the result alone.
    let now = unsafe { libc::time(std::ptr::null_mut()) };
    let line = format!("{} durac[{}]: {text}\n", utc(now), std::process::id());
    let written = write_to(fd as usize, &line);
    // SAFETY: the descriptor is ours.
    unsafe { sys::call(libc::SYS_close, [fd as usize]) };
    written
}

/// Sends a datagram to a socket of the system.
fn send(path: &CStr, text: &str) -> bool {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointer is passed.
    let made = unsafe { sys::call(libc::SYS_socket, [libc::AF_UNIX as usize, kind as usize, 0]) };
    let Ok(fd) = sys::decode(made) else { return false };
    let mut address = libc::sockaddr_un { sun_family: libc::AF_UNIX as u16, sun_path: [0; 108] };
    for (place, byte) in address.sun_path.iter_mut().zip(path.to_bytes()) {
        *place = *byte as libc::c_char;
    }
    let arguments =
        [fd as usize, (&raw const address).expose_provenance(), size_of::<libc::sockaddr_un>()];
    // SAFETY: the address is one of that size.
    let connected = sys::decode(unsafe { sys::call(libc::SYS_connect, arguments) }).is_ok();
    let sent = connected && write_to(fd as usize, text);
    // SAFETY: the descriptor is ours.
    unsafe { sys::call(libc::SYS_close, [fd as usize]) };
    sent
}

/// Writes a line. No signal comes of it: a program that never writes to a broken pipe must not end by one.
fn write_to(fd: usize, text: &str) -> bool {
    let arguments = [fd, text.as_ptr().expose_provenance(), text.len()];
    // SAFETY: the pointer and length are the text's.
    let write = || sys::decode(unsafe { sys::call(libc::SYS_write, arguments) });
    signals::unraised(write) == Ok(text.len() as isize)
}

/// `2026-11-30T01:02:03Z`.
fn utc(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days of the era of 400 years that begins on a 1st of March (Howard Hinnant, "chrono-Compatible Low-Level Date
    // Algorithms").
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * month + 2) / 5 + 1, (month + 2) % 12 + 1);
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// One line without control characters: it quotes names that others gave.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Whether lines go to standard error.
fn is_stderr() -> bool {
    LOGGING.get().is_none_or(|logging| matches!(logging.sink, Sink::Stderr))
}

/// Remembers which file standard error is.
pub fn remember_stderr() {
    STDERR.get_or_init(stderr);
}

/// Prints once, with the first log, that the policy is in force; a forked child does not repeat it. A
/// server may have closed its standard error since it started, and a file of its data, even the log, may
/// have that number now: then there is no line.
pub fn in_force(text: &str) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Ordering::Relaxed) {
        later(text);
    }
}

/// Prints a line of a process that may have closed its standard error since it started.
pub fn later(text: &str) {
    if !is_stderr() || STDERR.get().is_some_and(|old| *old == stderr()) {
        aside(text);
    }
}

/// Prints a line when the process starts: its standard error is what it was started with.
pub fn in_start(text: &str) {
    if !is_stderr() || STDERR.get().is_some_and(Option::is_some) {
        aside(text);
    }
}

/// Device and inode of standard error.
fn stderr() -> Option<(u64, u64)> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `stat` has room for what is written.
    if unsafe { real::FSTAT.get()(libc::STDERR_FILENO, stat.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: fstat succeeded and filled it.
    let stat = unsafe { stat.assume_init() };
    Some((stat.st_dev, stat.st_ino))
}

/// Prints a line as [`info`] does, unless whoever reads stderr has not kept up: a full pipe would hold
/// up the thread.
pub fn aside(text: &str) {
    if !is_stderr() {
        return info(text);
    }
    let mut stderr = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
    // SAFETY: `stderr` is one entry.
    let ready = unsafe { libc::poll(&raw mut stderr, 1, 0) };
    if ready == 1 && stderr.revents & libc::POLLOUT != 0 {
        info(text);
    }
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn times_are_read_by_people() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(utc(4_107_542_399), "2100-02-28T23:59:59Z");
        assert_eq!(utc(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(utc(-1), "1969-12-31T23:59:59Z");
    }
}
