//! What stands in the agent's environment variables, and in the texts of the system about what they
//! name: read as if a stranger had written it.

use durac_bpf::abi::Engine;
use libc::c_int;
use std::ffi::OsStr;

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
