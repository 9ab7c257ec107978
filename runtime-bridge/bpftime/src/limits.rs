//! What BPFtime needs of this machine when it shares its maps with the kernel, looked at before its server runs.
//!
//! Must run without the server: it opens and closes maps of the kernel.

use crate::calls::id_of;
use durac_abi::btf::{MAP_MMAPABLE, MAP_TYPE_ARRAY};
use durac_kernel::attr::{self, MapCreate};
use std::ffi::OsString;
use std::io;

/// Variable with the size of BPFtime's vector of handlers.
pub const MAX_FD_COUNT: &str = "BPFTIME_MAX_FD_COUNT";
/// Its default, least and greatest value (`bpftime_config.hpp`).
const DEFAULT: u64 = 6144;
const LEAST: u64 = 128;
const MOST: u64 = 1 << 20;
/// Maps that others may make until ours are made.
const SLACK: u64 = 256;
/// Above it the vector does not fit into BPFtime's 50 MiB of shared memory.
const FITS: u64 = 100_000;
const BEYOND: u64 = FITS + 1;

/// The size of the vector.
pub(crate) fn slots(read: impl Fn(&str) -> Option<OsString>) -> u64 {
    let said = read(MAX_FD_COUNT).and_then(|value| value.to_str()?.trim().parse::<u64>().ok());
    said.map_or(DEFAULT, |slots| slots.clamp(LEAST, MOST))
}

/// What to set if the kernel's numbers of maps do not fit into the vector.
pub(crate) fn too_few(id: u32, slots: u64) -> Option<String> {
    let next = u64::from(id) + SLACK;
    if next < slots {
        return None;
    }
    // Twice as many, so that it lasts for a while.
    let enough = (2 * next).next_multiple_of(1024);
    Some(match enough {
        ..=FITS => format!("export {MAX_FD_COUNT}={enough}"),
        BEYOND..=MOST => {
            format!("export {MAX_FD_COUNT}={enough} BPFTIME_SHM_MEMORY_MB={}", enough / 1024)
        }
        _ => format!("restart the machine: {MAX_FD_COUNT} can be {MOST} at most"),
    })
}

/// The number that the kernel gave to the latest map.
pub(crate) fn latest_map() -> io::Result<u32> {
    let map = MapCreate {
        kind: MAP_TYPE_ARRAY,
        key_size: 4,
        value_size: 8,
        max_entries: 1,
        flags: MAP_MMAPABLE,
        name: attr::name("durac_trial"),
        ..MapCreate::default()
    };
    // SAFETY: the attributes hold no pointer.
    let result = unsafe { attr::bpf(attr::MAP_CREATE, map) };
    let Some(fd) = i32::try_from(result).ok().filter(|fd| *fd >= 0) else {
        return Err(attr::error(result));
    };
    let id = id_of(fd);
    // SAFETY: made above, and used by nobody else.
    unsafe { libc::close(fd) };
    id
}

/// Whether this process may load programs into the kernel, and find maps by their number as the target must.
pub(crate) fn is_privileged() -> bool {
    /// `CAP_SYS_ADMIN` (`include/uapi/linux/capability.h`).
    const ADMIN: u32 = 21;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let held = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    held.is_some_and(|held| held & 1 << ADMIN != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_named_that_is_enough() {
        assert_eq!(too_few(5887, 6144), None);
        assert_eq!(too_few(5888, 6144).as_deref(), Some("export BPFTIME_MAX_FD_COUNT=12288"));
        let large = too_few(200_000, 6144).unwrap_or_default();
        assert_eq!(large, "export BPFTIME_MAX_FD_COUNT=401408 BPFTIME_SHM_MEMORY_MB=392");
        assert!(too_few(1 << 20, 6144).is_some_and(|help| help.starts_with("restart")));
        let of = |value: &str| slots(|_| Some(value.into()));
        assert_eq!((of("12000"), of("5"), of("x"), slots(|_| None)), (12000, 128, 6144, 6144));
    }
}
