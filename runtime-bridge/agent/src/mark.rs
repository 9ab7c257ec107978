//! A mark by which the process that `durac run` leaves behind finds what its command has started and no
//! longer is the parent of: an empty mapping with a name, which forked children inherit, and which nothing
//! else in a process can overwrite (servers write over their arguments and their environment).

use crate::sys;
use durac_abi::{ENV_RUN, RUN_MARK};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

/// The name of memory is at most 249 bytes (memfd_create(2)).
const LONGEST: usize = 64;

/// Marks this process, if `durac run` asks for it. Without a mark nobody looks at it, and nothing else changes.
pub fn set() {
    let Some(run) = std::env::var_os(ENV_RUN) else { return };
    let run = run.as_bytes();
    let is_plain = |byte: &u8| byte.is_ascii_digit() || *byte == b'-';
    if run.is_empty() || run.len() > LONGEST || !run.iter().all(is_plain) {
        return;
    }
    let Ok(name) = CString::new([RUN_MARK.as_bytes(), run].concat()) else { return };
    let flags = libc::MFD_CLOEXEC as usize;
    // SAFETY: the name is a C string.
    let memory =
        unsafe { sys::call(libc::SYS_memfd_create, [name.as_ptr().expose_provenance(), flags]) };
    let Ok(memory) = sys::decode(memory) else { return };
    let (access, private) = (libc::PROT_NONE as usize, libc::MAP_PRIVATE as usize);
    // SAFETY: a new mapping; the kernel chooses the address, and nobody has it.
    unsafe { sys::call(libc::SYS_mmap, [0, 1, access, private, memory as usize, 0]) };
    // SAFETY: the descriptor is ours.
    unsafe { sys::call(libc::SYS_close, [memory as usize]) };
}
