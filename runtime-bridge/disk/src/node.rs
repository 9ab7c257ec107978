//! Files and directories as programs see them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

/// A block of the device, bytes: what a cut takes or leaves whole.
pub const BLOCK: u64 = 4096;

/// Number of a file or directory.
pub type Ino = u64;

/// The root directory.
pub const ROOT: Ino = 1;

/// Names in a directory.
pub type Entries = BTreeMap<OsString, Ino>;

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File(Content),
    /// A directory.
    Dir(Entries),
}

/// The bytes of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// What programs read.
    pub data: Vec<u8>,
    /// Blocks that were written since the last sync began.
    pub dirty: BTreeSet<u64>,
}

/// A file or a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permissions.
    pub perm: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change, seconds and nanoseconds since 1970.
    pub changed: (u64, u32),
    /// Names it has.
    pub links: u32,
}

impl Content {
    /// Writes at a place; a gap before it reads as zeros.
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        let (from, to) = (at as usize, at as usize + bytes.len());
        if self.data.len() < to {
            self.data.resize(to, 0);
        }
        if let Some(place) = self.data.get_mut(from..to) {
            place.copy_from_slice(bytes);
        }
        if !bytes.is_empty() {
            self.dirty.extend(at / BLOCK..=(to as u64 - 1) / BLOCK);
        }
    }

    /// Cuts it off, or fills it up with zeros.
    pub fn resize(&mut self, size: u64) {
        let before = self.data.len() as u64;
        self.data.resize(size as usize, 0);
        if size > before {
            self.dirty.extend(before / BLOCK..size.div_ceil(BLOCK));
        } else {
            self.dirty.retain(|block| block * BLOCK < size);
        }
    }

    /// A block, as long as the file has it.
    pub fn block(&self, block: u64) -> Vec<u8> {
        let from = (block * BLOCK) as usize;
        let to = (from + BLOCK as usize).min(self.data.len());
        self.data.get(from..to).unwrap_or_default().to_vec()
    }
}
