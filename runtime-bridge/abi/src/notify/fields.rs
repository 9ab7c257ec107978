//! The fields of kernel structures that the programs read.
//!
//! Their offsets differ from kernel to kernel. The object has local definitions of the structures, with
//! these members only, and CO-RE relocations that name them; the kernel fills in its own offsets when a
//! program is loaded (`Documentation/bpf/btf.rst`, `Documentation/bpf/llvm_reloc.rst`).

use Field::*;

/// A field of a kernel structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// `struct file.f_inode`
    FileInode,
    /// `struct inode.i_ino`
    InodeNumber,
    /// `struct inode.i_sb`
    InodeSuper,
    /// `struct super_block.s_dev`
    SuperDevice,
    /// `struct task_struct.flags`
    TaskFlags,
    /// `struct task_struct.files`
    TaskFiles,
    /// `struct files_struct.fdt`
    FilesTable,
    /// `struct fdtable.max_fds`
    TableSize,
    /// `struct fdtable.fd`
    TableFiles,
    /// `struct pt_regs.di`: the first argument of a system call on x86-64.
    RegsFirst,
    /// `struct pt_regs.orig_ax`: the number of a system call on x86-64.
    RegsSyscall,
}

/// The local structures: name, and members in the order of their offsets, 8 bytes each.
pub const STRUCTS: [(&str, &[Field]); 7] = [
    ("file", &[FileInode]),
    ("inode", &[InodeNumber, InodeSuper]),
    ("super_block", &[SuperDevice]),
    ("task_struct", &[TaskFlags, TaskFiles]),
    ("files_struct", &[FilesTable]),
    ("fdtable", &[TableSize, TableFiles]),
    ("pt_regs", &[RegsFirst, RegsSyscall]),
];

impl Field {
    /// Name of the member.
    #[must_use]
    pub fn member(self) -> &'static str {
        match self {
            FileInode => "f_inode",
            InodeNumber => "i_ino",
            InodeSuper => "i_sb",
            SuperDevice => "s_dev",
            TaskFlags => "flags",
            TaskFiles => "files",
            FilesTable => "fdt",
            TableSize => "max_fds",
            TableFiles => "fd",
            RegsFirst => "di",
            RegsSyscall => "orig_ax",
        }
    }

    /// Size of an integer member, bytes; none if the member is a pointer.
    #[must_use]
    pub fn integer(self) -> Option<u32> {
        match self {
            InodeNumber | RegsFirst | RegsSyscall => Some(8),
            SuperDevice | TaskFlags | TableSize => Some(4),
            FileInode | InodeSuper | TaskFiles | FilesTable | TableFiles => None,
        }
    }

    /// Index of its structure in [`STRUCTS`], and of the member there.
    #[must_use]
    pub fn place(self) -> (usize, usize) {
        let places = STRUCTS.iter().enumerate();
        let mut found = places.filter_map(|(index, (_, members))| {
            Some((index, members.iter().position(|member| *member == self)?))
        });
        found.next().unwrap_or_default()
    }

    /// Offset in the local structure, bytes: what the instruction holds before the relocation.
    #[must_use]
    pub fn local_offset(self) -> i16 {
        8 * self.place().1 as i16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_a_place() {
        for (index, (_, members)) in STRUCTS.iter().enumerate() {
            for (member, field) in members.iter().enumerate() {
                assert_eq!(field.place(), (index, member), "{field:?}");
            }
        }
    }
}
