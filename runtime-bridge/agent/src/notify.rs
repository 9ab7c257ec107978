//! The map of what the kernel's programs count (`use kernel notify`), taken over from `durac run`.
//! Reading it takes no system call; [`crate::watch`] does. If it is missing or another, the engine decides
//! alone.

use crate::environment::{self, Inherited};
use crate::note;
use crate::table::{self, Entry};
use crate::watch;
use durac_abi::ENV_NOTIFY;
use durac_abi::notify::{FIRST_NAMESPACE, MAGIC, MAP_BYTES, MAPS, VERSION};
use libc::c_int;
use std::sync::atomic::{AtomicU64, Ordering};

/// Takes over the map that the environment names. Without one, nothing changes.
pub fn start() {
    let Some(named) = std::env::var_os(ENV_NOTIFY).filter(|n| !n.is_empty()) else { return };
    match environment::inherited(&named).ok_or("no numbers").and_then(take_over) {
        Ok(map) => watch::begin(map),
        Err(why) => {
            note::info(&format!("kernel notify: {why}; using the engine's own completions"));
        }
    }
}

/// Maps the map, and keeps the application from closing the descriptors.
fn take_over(Inherited { map, links }: Inherited) -> Result<&'static [AtomicU64], &'static str> {
    if !is_our_kind(map) {
        return Err("the map was closed before this program started");
    }
    let namespace = std::fs::read_link("/proc/self/ns/pid");
    if !namespace.is_ok_and(|link| link.as_os_str() == FIRST_NAMESPACE) {
        return Err("this is a container with process numbers of its own");
    }
    // SAFETY: a new mapping; the kernel chooses the address, and the map has that size.
    let memory = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            MAP_BYTES,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            map,
            0,
        )
    };
    if memory == libc::MAP_FAILED || memory.is_null() {
        return Err("the map cannot be mapped");
    }
    // SAFETY: the mapping has that size, is aligned to a page, and is never taken away. The kernel
    // and other processes change it as atomic numbers.
    let words = unsafe { std::slice::from_raw_parts(memory.cast::<AtomicU64>(), MAP_BYTES / 8) };
    let head = words.iter().take(2).map(|w| w.load(Ordering::Acquire));
    if !head.eq([MAGIC, VERSION]) {
        return Err("the map is of another version");
    }
    for fd in links.into_iter().chain([map]).filter(|&fd| is_of_bpf(fd)) {
        table::set(fd, Entry::Own);
    }
    Ok(words)
}

/// Whether a descriptor is a map of the shape that ours has: mapping a smaller one would end in
/// SIGBUS.
fn is_our_kind(fd: c_int) -> bool {
    let Some(ours) = MAPS.first() else { return false };
    let Ok(info) = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")) else { return false };
    let number = |name| environment::number(&info, name);
    is_of_bpf(fd)
        && number("map_type") == Some(ours.kind.into())
        && number("value_size") == Some(ours.value_size().into())
        && number("max_entries") == Some(ours.max_entries.into())
}

/// Whether a descriptor is something of bpf.
fn is_of_bpf(fd: c_int) -> bool {
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}"));
    link.is_ok_and(|link| link.to_string_lossy().starts_with("anon_inode:bpf"))
}
