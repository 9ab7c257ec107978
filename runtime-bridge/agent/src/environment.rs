//! What the agent's environment variables contain, and in the texts of the system about what they
//! name: read as if a stranger had written it.

use durac_abi::Engine;
use libc::c_int;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;

/// Most descriptors that keep programs attached: there are two programs at each place.
const MAX_LINKS: usize = 16;

/// The descriptors that `DURAC_NOTIFY` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inherited {
    /// The map.
    pub map: c_int,
    /// What keeps its programs attached.
    pub links: Vec<c_int>,
}

/// `700:701,702`; none for anything else.
pub fn inherited(named: &OsStr) -> Option<Inherited> {
    let (map, links) = named.to_str()?.split_once(':')?;
    let links = match links {
        "" => Vec::new(),
        links => links.split(',').take(MAX_LINKS + 1).map(descriptor).collect::<Option<_>>()?,
    };
    let map = descriptor(map)?;
    (links.len() <= MAX_LINKS).then_some(Inherited { map, links })
}

fn descriptor(text: &str) -> Option<c_int> {
    text.parse().ok().filter(|&fd| fd >= 0)
}

/// The engine of this name.
///
/// # Errors
/// The name, if there is none.
pub fn engine(name: &OsStr) -> Result<Engine, String> {
    let text = name.to_str().and_then(Engine::parse);
    text.ok_or_else(|| name.to_string_lossy().into_owned())
}

/// A number of `/proc/self/fdinfo`: a line `name: number`.
pub fn number(info: &str, name: &str) -> Option<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line?.trim().parse().ok()
}

/// Where lines go, and which.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logging {
    /// Only errors.
    pub quiet: bool,
    /// Where they go.
    pub sink: Sink,
}

/// Where lines go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sink {
    /// Standard error.
    #[default]
    Stderr,
    /// The end of a file.
    File(CString),
    /// syslog(3).
    Syslog,
    /// The journal of systemd.
    Journal,
}

/// What `DURAC_LOG` says: words with commas between them, of which a path is the last.
///
/// # Errors
/// The word that is unknown.
pub fn logging(value: &OsStr) -> Result<Logging, String> {
    let mut logging = Logging::default();
    let mut rest = value.as_bytes();
    while !rest.is_empty() {
        if rest.starts_with(b"/") {
            let path = CString::new(rest).map_err(|_| shown(rest))?;
            logging.sink = Sink::File(path);
            break;
        }
        let end = rest.iter().position(|&byte| byte == b',').unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        match word {
            b"quiet" => logging.quiet = true,
            b"all" => {}
            b"stderr" => logging.sink = Sink::Stderr,
            b"syslog" => logging.sink = Sink::Syslog,
            b"journal" => logging.sink = Sink::Journal,
            word => return Err(shown(word)),
        }
        rest = after.get(1..).unwrap_or_default();
    }
    Ok(logging)
}

/// The beginning of a value, for a message.
fn shown(word: &[u8]) -> String {
    String::from_utf8_lossy(word).chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::{Logging, Sink, logging};
    use std::ffi::{CString, OsStr};

    #[test]
    fn where_lines_go() {
        let of = |text: &str| logging(OsStr::new(text));
        let file = |path: &str| Sink::File(CString::new(path).unwrap_or_default());
        for (text, quiet, sink) in [
            ("", false, Sink::Stderr),
            ("all", false, Sink::Stderr),
            ("quiet", true, Sink::Stderr),
            ("syslog", false, Sink::Syslog),
            ("quiet,journal", true, Sink::Journal),
            ("/var/log/a,b.log", false, file("/var/log/a,b.log")),
            ("quiet,/x", true, file("/x")),
        ] {
            assert_eq!(of(text), Ok(Logging { quiet, sink }), "{text}");
        }
        assert_eq!(of("quit"), Err("quit".to_owned()));
        assert_eq!(of("syslog,x"), Err("x".to_owned()));
        assert_eq!(of(&"x".repeat(100_000)).map_err(|word| word.len()), Err(60));
    }
}
