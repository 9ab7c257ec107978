//! A trial of what was attached: one sync of a file of ours has to be counted. A function that the
//! kernel's compiler has inlined can be attached to, and is never called.

use crate::map::Slots;
use durac_abi::notify::{Attach, Word, kernel_device};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::MetadataExt;

/// `EXT4_SUPER_MAGIC` (`include/uapi/linux/magic.h`).
const EXT4: i64 = 0xef53;

/// Whether a sync is counted; none if there is no file to try it with.
pub fn counts(slots: &Slots, attach: Attach) -> io::Result<Option<bool>> {
    let file = match attach {
        Attach::Ext4 => ext4_file()?,
        Attach::Function | Attach::Syscalls => Some(memory_file()?),
    };
    let Some(mut file) = file else { return Ok(None) };
    let meta = file.metadata()?;
    let device = kernel_device(libc::major(meta.dev()), libc::minor(meta.dev()));
    let Some(slot) = slots.claim(std::process::id(), device, meta.ino()) else { return Ok(None) };
    let before = [Word::Completed, Word::Proved].map(|word| slots.get(slot, word));
    let synced = file.write_all(b"durac").and_then(|()| file.sync_data());
    let after = [Word::Completed, Word::Proved].map(|word| slots.get(slot, word));
    slots.free(slot);
    synced?;
    let grown = before.iter().zip(after).all(|(before, after)| after == before + 1);
    Ok(Some(grown))
}

/// A file in memory: its sync does nothing, and passes where every sync passes.
fn memory_file() -> io::Result<File> {
    // SAFETY: the name is a C string.
    let fd = unsafe { libc::memfd_create(c"durac".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor, ours alone.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// A file without a name on ext4, if a folder for temporary files is there.
fn ext4_file() -> io::Result<Option<File>> {
    let here = std::env::current_dir().ok();
    let folders = [Some(std::env::temp_dir()), Some("/var/tmp".into()), here];
    for folder in folders.into_iter().flatten() {
        let Ok(file) = tempfile::tempfile_in(folder) else { continue };
        let mut kind = std::mem::MaybeUninit::<libc::statfs>::uninit();
        // SAFETY: the descriptor is open, and `kind` has room for the answer.
        if unsafe { libc::fstatfs(file.as_raw_fd(), kind.as_mut_ptr()) } != 0 {
            continue;
        }
        // SAFETY: fstatfs succeeded and filled it.
        if unsafe { kind.assume_init() }.f_type == EXT4 {
            return Ok(Some(file));
        }
    }
    Ok(None)
}
