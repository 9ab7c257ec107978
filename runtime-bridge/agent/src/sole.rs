//! Whether a log's file is this process's alone, as staging needs: staged bytes are right only while
//! nobody else can see or write the file.

use crate::real;
use crate::registry::{self, FileId};
use crate::stage::StageOff;
use crate::sys;
use libc::c_int;
use std::mem::MaybeUninit;

/// Bytes read at once. On the stack, which may be a small one: a signal's handler opens files, too.
const BUFFER: usize = 512;

/// Proves that a log that is being opened has no other open file in this process, and is not mapped.
///
/// # Errors
/// What speaks against it.
pub fn at_open(fd: c_int, id: FileId) -> Result<(), StageOff> {
    if fd <= libc::STDERR_FILENO {
        return Err(StageOff::Stream);
    }
    let mut other = false;
    descriptors(|number| {
        let same_file = number != fd && sys::identity(number).is_some_and(|it| it.file == id);
        other |= same_file && sys::is_same_open_file(number, fd) != Ok(true);
    })
    .ok_or(StageOff::Unproved)?;
    if other {
        return Err(StageOff::OtherOpen);
    }
    match is_mapped(id) {
        Some(false) => Ok(()),
        Some(true) => Err(StageOff::Mapped),
        None => Err(StageOff::Unproved),
    }
}

/// A descriptor was opened: if it is of a log with staging, that ends.
pub fn opened(fd: c_int) {
    if let Some(identity) = sys::identity(fd).filter(|it| it.is_regular)
        && let Some(slot) = registry::slot_of(identity.file)
    {
        slot.revoke(StageOff::OtherOpen);
    }
}

/// Calls `body` with the number of every open descriptor; none if `/proc` cannot be read.
pub fn descriptors(mut body: impl FnMut(c_int)) -> Option<()> {
    let dir = open(c"/proc/self/fd", libc::O_DIRECTORY)?;
    let mut buffer = [0_u8; BUFFER];
    let mut complete = true;
    loop {
        // SAFETY: the kernel writes at most `len` bytes into the buffer.
        let filled = unsafe {
            sys::call(
                libc::SYS_getdents64,
                [dir as usize, buffer.as_mut_ptr().expose_provenance(), buffer.len()],
            )
        };
        let Ok(filled) = usize::try_from(filled) else {
            complete = false;
            break;
        };
        if filled == 0 {
            break;
        }
        let mut rest = buffer.get(..filled).unwrap_or_default();
        // `struct linux_dirent64`: inode and offset of 8 bytes, length of 2, type of 1, name.
        while let Some(&[low, high]) = rest.get(16..18) {
            let length = usize::from(u16::from_ne_bytes([low, high]));
            let name = rest.get(19..length).unwrap_or_default();
            let digits = name.split(|&byte| byte == 0).next().unwrap_or_default();
            if let Some(number) = std::str::from_utf8(digits).ok().and_then(|n| n.parse().ok())
                && number != dir
            {
                body(number);
            }
            if length == 0 {
                break;
            }
            rest = rest.get(length..).unwrap_or_default();
        }
    }
    // SAFETY: the descriptor is ours.
    unsafe { real::CLOSE.get()(dir) };
    complete.then_some(())
}

fn open(path: &std::ffi::CStr, flags: c_int) -> Option<c_int> {
    // SAFETY: the path is a C string.
    let fd = unsafe {
        sys::call(
            libc::SYS_openat,
            [
                libc::AT_FDCWD as usize,
                path.as_ptr().expose_provenance(),
                (libc::O_RDONLY | libc::O_CLOEXEC | flags) as usize,
            ],
        )
    };
    c_int::try_from(fd).ok().filter(|&fd| fd >= 0)
}

/// Whether the file is mapped; none if `/proc` does not say.
fn is_mapped(file: FileId) -> Option<bool> {
    let mut mapped = false;
    mappings(|line| mapped |= file_of(line) == Some(file))?;
    Some(mapped)
}

/// Calls `body` with each file whose pages are mapped between these addresses; none if `/proc` does not say.
pub fn files_mapped(address: usize, n: usize, mut body: impl FnMut(FileId)) -> Option<()> {
    let end = address.saturating_add(n);
    mappings(|line| {
        if range_of(line).is_some_and(|(first, last)| first < end && address < last)
            && let Some(file) = file_of(line)
        {
            body(file);
        }
    })
}

/// Calls `body` with the beginning of each line of `/proc/self/maps`: `address access offset major:minor inode path`.
fn mappings(mut body: impl FnMut(&str)) -> Option<()> {
    let fd = open(c"/proc/self/maps", 0)?;
    let mut line = [0_u8; 128];
    let mut length = 0;
    let mut buffer = [MaybeUninit::<u8>::uninit(); BUFFER];
    let complete = loop {
        // SAFETY: the kernel writes at most `len` bytes into the buffer.
        let filled = unsafe {
            sys::call(
                libc::SYS_read,
                [fd as usize, buffer.as_mut_ptr().expose_provenance(), buffer.len()],
            )
        };
        match usize::try_from(filled) {
            Ok(0) => break true,
            Ok(filled) => {
                for byte in buffer.iter().take(filled) {
                    // SAFETY: the kernel has written it.
                    let byte = unsafe { byte.assume_init() };
                    if byte == b'\n' {
                        // A path that is cut may end in a part of a character, and nobody reads it.
                        let line = line.get(..length).unwrap_or_default();
                        let line = line.utf8_chunks().next().map_or("", |chunk| chunk.valid());
                        body(line);
                        length = 0;
                    } else if let Some(place) = line.get_mut(length) {
                        *place = byte;
                        length += 1;
                    }
                }
            }
            Err(_) => break false,
        }
    };
    // SAFETY: the descriptor is ours.
    unsafe { real::CLOSE.get()(fd) };
    complete.then_some(())
}

/// The addresses of a line of `/proc/self/maps`.
fn range_of(line: &str) -> Option<(usize, usize)> {
    let (first, last) = line.split_ascii_whitespace().next()?.split_once('-')?;
    Some((usize::from_str_radix(first, 16).ok()?, usize::from_str_radix(last, 16).ok()?))
}

/// The file of a line of `/proc/self/maps`.
fn file_of(line: &str) -> Option<FileId> {
    let mut fields = line.split_ascii_whitespace().skip(3);
    let (on, inode) = (fields.next()?, fields.next()?.parse().ok()?);
    let (major, minor) = on.split_once(':')?;
    let hex = |text| u32::from_str_radix(text, 16).ok();
    Some((libc::makedev(hex(major)?, hex(minor)?), inode)).filter(|_| inode != 0)
}

#[cfg(test)]
mod tests {
    use super::{file_of, files_mapped, range_of};

    #[test]
    fn lines_of_the_memory_map() {
        let line = "7f00-7f01 r--s 00000000 fd:01 1234                 /var/x.log";
        assert_eq!(file_of(line), Some((libc::makedev(0xfd, 1), 1234)));
        assert_eq!(range_of(line), Some((0x7f00, 0x7f01)));
        assert_eq!(file_of("7f00-7f01 rw-p 00000000 00:00 0"), None);
        assert_eq!((file_of(""), range_of("")), (None, None));
    }

    #[test]
    fn the_files_of_an_address() {
        let mut files = Vec::new();
        let code = file_of as *const () as usize;
        assert!(files_mapped(code, 1, |file| files.push(file)).is_some());
        use std::os::unix::fs::MetadataExt;
        let program = std::fs::metadata("/proc/self/exe").unwrap();
        assert_eq!(files, [(program.dev(), program.ino())]);
    }
}
