//! What keeps a policy from having an effect on a log, and on what file system the log is.

use std::fmt;

/// Why a policy has no effect on a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAsked {
    /// The application writes the log, and has never called a sync on it.
    Never,
    /// It leaves what it writes without a sync call for long.
    Rarely,
}

impl NotAsked {
    const ALL: [Self; 2] = [Self::Never, Self::Rarely];

    /// Its number on the status page, above 0.
    #[must_use]
    pub fn code(self) -> u64 {
        self as u64 + 1
    }

    /// The reason of this number.
    #[must_use]
    pub fn of_code(code: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|why| why.code() == code)
    }

    /// What to do about it, of an application of this target.
    #[must_use]
    pub fn hint(self, target: &str) -> &'static str {
        let is = |name: &str| target.starts_with(name);
        match is("redis.") || is("valkey.") {
            true => "set `appendfsync always`",
            false => "the policy acts on sync calls only",
        }
    }
}

impl fmt::Display for NotAsked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Never => "the application never calls a sync on it",
            Self::Rarely => "the application leaves writes without a sync call",
        })
    }
}

/// What to do about a process of this target that has no log open.
#[must_use]
pub fn no_log_hint(target: &str) -> &'static str {
    match target.split('.').next() {
        Some("redis" | "valkey") => ": set `appendonly yes`",
        _ => "",
    }
}

/// The file system of a log, as far as it matters for what a sync is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// One that is not known to be special.
    Usual,
    /// Memory: a power cut empties it.
    Memory,
    /// A stack of others: a sync is worth what it is worth in the upper one.
    Overlay,
    /// A program's (FUSE): a sync is worth what the program makes of it.
    Fuse,
    /// On another machine: a sync is worth what the server makes of it.
    Remote,
}

impl Storage {
    const ALL: [Self; 5] = [Self::Usual, Self::Memory, Self::Overlay, Self::Fuse, Self::Remote];

    /// By its magic number, as statfs(2) lists them.
    #[must_use]
    pub fn of_magic(magic: u64) -> Self {
        match magic {
            // tmpfs, ramfs, hugetlbfs
            0x0102_1994 | 0x8584_58f6 | 0x958_458f6 => Self::Memory,
            0x794c_7630 => Self::Overlay,
            0x6573_5546 => Self::Fuse,
            // NFS, SMB, CIFS, SMB2, Ceph, AFS, 9P
            0x6969 | 0x517b | 0xff53_4d42 | 0xfe53_4d42 | 0x00c3_6400 | 0x5346_414f
            | 0x0102_1997 => Self::Remote,
            _ => Self::Usual,
        }
    }

    /// Its number on the status page.
    #[must_use]
    pub fn code(self) -> u64 {
        self as u64
    }

    /// That of this number; one that no version knows is not special.
    #[must_use]
    pub fn of_code(code: u64) -> Self {
        Self::ALL.into_iter().find(|it| it.code() == code).unwrap_or(Self::Usual)
    }

    /// What there is to say about it.
    #[must_use]
    pub fn remark(self) -> Option<&'static str> {
        match self {
            Self::Usual => None,
            Self::Memory => Some("it is in memory (tmpfs): a power cut takes all of it"),
            Self::Overlay => {
                Some("it is on an overlay: a sync is worth what the layer below makes of it")
            }
            Self::Fuse => Some("it is on FUSE: a sync is worth what that program makes of it"),
            Self::Remote => {
                Some("it is on another machine: a sync is worth what the server makes of it")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{NotAsked, Storage};

    #[test]
    fn codes_are_read_back() {
        for why in NotAsked::ALL {
            assert_eq!(NotAsked::of_code(why.code()), Some(why));
        }
        assert_eq!((NotAsked::of_code(0), NotAsked::of_code(9)), (None, None));
        for storage in Storage::ALL {
            assert_eq!(Storage::of_code(storage.code()), storage);
        }
        assert_eq!(Storage::of_code(1000), Storage::Usual);
    }
}
