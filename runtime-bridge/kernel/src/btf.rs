//! Looks up a type of the running kernel by name.
//!
//! The file is the kernel's own (`/sys/kernel/btf/vmlinux`), but it is read as any other: nothing is
//! taken at its word.

use std::io;

/// Where the kernel shows its types.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
/// Size of the header, and of the words that every type has.
const HEADER: usize = 24;
const COMMON: usize = 12;

/// What a type is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BtfKind {
    /// `BTF_KIND_TYPEDEF`: of a tracepoint's prototype, named `btf_trace_` and the tracepoint.
    Typedef = 8,
    /// `BTF_KIND_FUNC`
    Function = 12,
}

/// The types of the running kernel.
pub struct Kernel(Vec<u8>);

impl Kernel {
    /// Reads them.
    ///
    /// # Errors
    /// The file is not there, or cannot be read.
    pub fn read() -> io::Result<Self> {
        std::fs::read(VMLINUX).map(Self)
    }

    /// The number of a type.
    #[must_use]
    pub fn find(&self, kind: BtfKind, name: &str) -> Option<u32> {
        let bytes = &self.0;
        if bytes.first_chunk() != Some(&[0x9f, 0xeb]) {
            return None;
        }
        let header = word(bytes, 4)? as usize;
        let part = |at: usize| {
            let start = header.checked_add(word(bytes, at)? as usize)?;
            bytes.get(start..start.checked_add(word(bytes, at + 4)? as usize)?)
        };
        if header < HEADER {
            return None;
        }
        let (mut types, strings) = (part(8)?, part(16)?);
        for id in 1.. {
            let info = word(types, 4)?;
            if info >> 24 & 0x1f == kind as u32 && starts(strings, word(types, 0)?, name) {
                return Some(id);
            }
            types = types.get(COMMON + rest(info)?..)?;
        }
        None
    }
}

/// Bytes after the common words (`Documentation/bpf/btf.rst`, "Type Encoding").
fn rest(info: u32) -> Option<usize> {
    let members = (info & 0xffff) as usize;
    Some(match info >> 24 & 0x1f {
        // Integer, variable, tag of a declaration.
        1 | 14 | 17 => 4,
        // Pointer, forward, typedef, qualifiers, function, float, tag of a type.
        2 | 7..=12 | 16 | 18 => 0,
        // Array.
        3 => 12,
        // Structure, union, section, 64-bit enumeration.
        4 | 5 | 15 | 19 => 12 * members,
        // Enumeration, prototype.
        6 | 13 => 8 * members,
        _ => return None,
    })
}

/// Whether the text at `offset` is `name`.
fn starts(strings: &[u8], offset: u32, name: &str) -> bool {
    let text = strings.get(offset as usize..).and_then(|s| s.get(..=name.len()));
    text.and_then(|text| text.split_last())
        .is_some_and(|(end, text)| *end == 0 && text == name.as_bytes())
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_le_bytes(*word))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail")]
mod tests {
    use super::*;

    #[test]
    fn known_names_are_found() {
        let kernel = Kernel::read().expect("needs a kernel with /sys/kernel/btf/vmlinux");
        assert!(kernel.find(BtfKind::Function, "vfs_fsync_range").is_some());
        assert!(kernel.find(BtfKind::Typedef, "vfs_fsync_range").is_none());
        assert!(kernel.find(BtfKind::Function, "vfs_fsync_rang").is_none());
        assert!(kernel.find(BtfKind::Typedef, "btf_trace_sys_enter").is_some());
    }

    #[test]
    fn damaged_types_are_survived() {
        let whole = Kernel::read().expect("needs a kernel with /sys/kernel/btf/vmlinux").0;
        for length in [0, 1, 4, 23, 24, 100, 4096, whole.len() / 2] {
            let cut = Kernel(whole.get(..length).unwrap().to_vec());
            assert_eq!(cut.find(BtfKind::Function, "no_such_function"), None);
        }
        let mut changed = whole.get(..4096).unwrap().to_vec();
        for at in 0..64 {
            changed.get_mut(at..at + 1).unwrap().fill(0xff);
            assert_eq!(Kernel(changed.clone()).find(BtfKind::Function, "no_such_function"), None);
        }
    }
}
