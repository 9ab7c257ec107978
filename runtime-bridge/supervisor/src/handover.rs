//! What a supervisor hands to the one that takes over from it, as bytes in memory that has no name.
//!
//! Nothing that is acknowledged and not durable is in it: that is synced before. What remains is what only this process
//! knows: which policy runs, what the filter asks about, which files are looked at, what may not have ended. Descriptors
//! keep their numbers, since the process stays the same.

use durac_engine::Time;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// How the bytes begin.
const MAGIC: u64 = u64::from_le_bytes(*b"dursuper");
/// The format: it rises with each change.
const VERSION: u64 = 4;
/// Bytes of a hand-over, at most.
const MOST: u64 = 1 << 24;

/// Bits of [`Handover::flags`], which keep their meaning as long as the format keeps its number.
pub mod flag {
    /// The filter asks about writes.
    pub const WRITES: u64 = 1;
    /// It asks about opens.
    pub const OPENS: u64 = 1 << 1;
    /// Nothing is deferred.
    pub const OFF: u64 = 1 << 2;
    /// And never will be again.
    pub const STAYS_OFF: u64 = 1 << 3;
    /// Something happened that cannot be ordered behind the logs.
    pub const UNORDERED: u64 = 1 << 4;
    /// A log is mapped to be written.
    pub const MAPPED: u64 = 1 << 5;
    /// Writes are not looked for.
    pub const BLIND: u64 = 1 << 6;
    /// It was told that rings are refused.
    pub const TOLD_RING: u64 = 1 << 7;
    /// The open files of a process cannot be taken. (Bit 8 said, until it was not needed any more, that this or a shortage was told.)
    pub const UNSEEN: u64 = 1 << 9;
}

/// Why bytes are not taken over.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// They cannot be read.
    #[error("cannot read what the other supervisor hands over: {0}")]
    File(#[from] io::Error),
    /// They are something else, or cut off.
    #[error("this is not what a supervisor hands over")]
    Invalid,
    /// This version's filter is another one: the command would have to be started with it.
    #[error("its system call filter differs from the command's: this needs a restart")]
    Filter,
    /// Another version wrote them.
    #[error(
        "the supervisor that runs hands over in format {0}, and this durac knows format {VERSION}"
    )]
    Version(u64),
}

/// A log that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownLog {
    /// The supervisor's own open file.
    pub fd: RawFd,
    /// The path that it was first known by.
    pub path: Vec<u8>,
    /// When its file was last looked at.
    pub looked: Time,
    /// How much is written is not known.
    pub is_unsure: bool,
}

/// A write that was let through and may not have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownWrite {
    /// Its thread.
    pub thread: u32,
    /// Number of the system call.
    pub number: i32,
    /// Of the notification.
    pub id: u64,
    /// Bytes, at most.
    pub len: u64,
    /// The log, by its place in the list.
    pub log: u64,
}

/// A call that opens a file which was not found yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownOpen {
    /// Its thread.
    pub thread: u32,
    /// Its process, or 0.
    pub process: u32,
    /// Number of the system call.
    pub number: i32,
    /// When it was asked about.
    pub since: Time,
    /// The thread has called again.
    pub is_over: bool,
    /// It makes a file of this name in this folder.
    pub made: Option<(RawFd, Vec<u8>)>,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handover {
    /// The listener.
    pub listener: RawFd,
    /// The keeper's process.
    pub keeper: u32,
    /// The process that became the command, or 0.
    pub command: u32,
    /// The process that the status page names as served, and when it was.
    pub serves: (u32, Time),
    /// Number of the newest call that was received.
    pub newest: u64,
    /// Which filter the command has.
    pub filter: u64,
    /// What the filter asks about, and what has happened: the bits of [`flag`].
    pub flags: u64,
    /// The error of the first sync that failed, or 0: it stops every log under a policy that says so.
    pub failed: i32,
    /// A descriptor of the program that takes over, which it has to close.
    pub program: RawFd,
    /// The policy's object.
    pub object: Vec<u8>,
    /// Its parameters, as they are set.
    pub params: Vec<u64>,
    /// The logs.
    pub logs: Vec<KnownLog>,
    /// Their writes.
    pub writes: Vec<KnownWrite>,
    /// Files that are being opened.
    pub opens: Vec<KnownOpen>,
    /// Devices that were mounted before the command, and still are.
    pub devices: Vec<u64>,
}

impl Handover {
    /// Writes it to memory without a name, from its beginning.
    ///
    /// # Errors
    /// If [`Handover::load`] would not read all of it; and what the system said.
    pub fn store(&self) -> io::Result<File> {
        let bytes = self.bytes();
        if bytes.len() as u64 > MOST {
            return Err(io::Error::other(format!("more than {} MiB to hand over", MOST >> 20)));
        }
        // SAFETY: the name is a C string.
        let fd = unsafe { libc::memfd_create(c"durac-handover".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and ours.
        let mut file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        file.write_all(&bytes)?;
        file.rewind()?;
        Ok(file)
    }

    /// Reads it.
    pub fn load(mut file: impl Read) -> Result<Self, HandoverError> {
        let mut bytes = Vec::new();
        file.by_ref().take(MOST).read_to_end(&mut bytes)?;
        let mut from = Reader(&bytes);
        if from.word() != Some(MAGIC) {
            return Err(HandoverError::Invalid);
        }
        match from.word() {
            Some(VERSION) => {}
            Some(other) => return Err(HandoverError::Version(other)),
            None => return Err(HandoverError::Invalid),
        }
        let handed = from.handover().ok_or(HandoverError::Invalid)?;
        if from.0.is_empty() { Ok(handed) } else { Err(HandoverError::Invalid) }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut to = Writer(Vec::new());
        to.word(MAGIC);
        to.word(VERSION);
        to.fd(self.listener);
        to.word(self.keeper.into());
        to.word(self.command.into());
        to.word(self.serves.0.into());
        to.word(self.serves.1);
        to.word(self.newest);
        to.word(self.filter);
        to.word(self.flags);
        to.fd(self.failed);
        to.fd(self.program);
        to.bytes(&self.object);
        to.list(&self.params, |to, value| to.word(*value));
        to.list(&self.logs, |to, log| {
            to.fd(log.fd);
            to.bytes(&log.path);
            to.word(log.looked);
            to.word(log.is_unsure.into());
        });
        to.list(&self.writes, |to, write| {
            to.word(write.thread.into());
            to.fd(write.number);
            to.word(write.id);
            to.word(write.len);
            to.word(write.log);
        });
        to.list(&self.opens, |to, open| {
            to.word(open.thread.into());
            to.word(open.process.into());
            to.fd(open.number);
            to.word(open.since);
            to.word(open.is_over.into());
            let (folder, name) = open.made.as_ref().map_or((-1, &[][..]), |(fd, name)| (*fd, name));
            to.fd(folder);
            to.bytes(name);
        });
        to.list(&self.devices, |to, device| to.word(*device));
        to.0
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn word(&mut self, word: u64) {
        self.0.extend_from_slice(&word.to_le_bytes());
    }

    /// A number with a sign.
    fn fd(&mut self, fd: i32) {
        self.word(i64::from(fd).cast_unsigned());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn list<T>(&mut self, items: &[T], put: impl Fn(&mut Self, &T)) {
        self.word(items.len() as u64);
        for item in items {
            put(self, item);
        }
    }
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn word(&mut self) -> Option<u64> {
        let (word, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*word))
    }

    fn small(&mut self) -> Option<u32> {
        self.word()?.try_into().ok()
    }

    fn fd(&mut self) -> Option<i32> {
        self.word()?.cast_signed().try_into().ok()
    }

    fn is(&mut self) -> Option<bool> {
        match self.word()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let count = usize::try_from(self.word()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes.to_vec())
    }

    fn list<T>(&mut self, item: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.word().filter(|count| *count <= MOST)?;
        (0..count).map(|_| item(self)).collect()
    }

    fn handover(&mut self) -> Option<Handover> {
        Some(Handover {
            listener: self.fd()?,
            keeper: self.small()?,
            command: self.small()?,
            serves: (self.small()?, self.word()?),
            newest: self.word()?,
            filter: self.word()?,
            flags: self.word()?,
            failed: self.fd()?,
            program: self.fd()?,
            object: self.bytes()?,
            params: self.list(Self::word)?,
            logs: self.list(|from| {
                Some(KnownLog {
                    fd: from.fd()?,
                    path: from.bytes()?,
                    looked: from.word()?,
                    is_unsure: from.is()?,
                })
            })?,
            writes: self.list(|from| {
                Some(KnownWrite {
                    thread: from.small()?,
                    number: from.fd()?,
                    id: from.word()?,
                    len: from.word()?,
                    log: from.word()?,
                })
            })?,
            opens: self.list(|from| {
                Some(KnownOpen {
                    thread: from.small()?,
                    process: from.small()?,
                    number: from.fd()?,
                    since: from.word()?,
                    is_over: from.is()?,
                    made: match (from.fd()?, from.bytes()?) {
                        (-1, _) => None,
                        made => Some(made),
                    },
                })
            })?,
            devices: self.list(Self::word)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Handover {
        let log =
            |fd| KnownLog { fd, path: b"/a\n\xff.log".to_vec(), looked: 7, is_unsure: fd == 4 };
        let open =
            |made| KnownOpen { thread: 1, process: 0, number: 257, since: 9, is_over: true, made };
        Handover {
            listener: 5,
            keeper: 77,
            command: 78,
            serves: (79, 1 << 60),
            newest: 1 << 63,
            filter: 3,
            flags: 0x155,
            failed: 5,
            program: 7,
            object: b"object".to_vec(),
            params: vec![u64::MAX, 0],
            logs: vec![log(3), log(4)],
            writes: vec![KnownWrite { thread: 9, number: -1, id: 1 << 60, len: 2, log: 1 }],
            opens: vec![open(None), open(Some((6, b"b.log".to_vec())))],
            devices: vec![52, 1 << 40],
        }
    }

    #[test]
    fn what_is_stored_is_loaded() {
        for handed in [full(), Handover::default()] {
            let file = handed.store().unwrap();
            assert_eq!(Handover::load(file).unwrap(), handed);
        }
    }

    /// The bytes of [`full`] in format 4, 32 in a line.
    const FORMAT_4: &str = "
        6475727375706572040000000000000005000000000000004d00000000000000
        4e000000000000004f0000000000000000000000000000100000000000000080
        0300000000000000550100000000000005000000000000000700000000000000
        06000000000000006f626a6563740200000000000000ffffffffffffffff0000
        0000000000000200000000000000030000000000000008000000000000002f61
        0aff2e6c6f670700000000000000000000000000000004000000000000000800
        0000000000002f610aff2e6c6f67070000000000000001000000000000000100
        0000000000000900000000000000ffffffffffffffff00000000000000100200
        0000000000000100000000000000020000000000000001000000000000000000
        000000000000010100000000000009000000000000000100000000000000ffff
        ffffffffffff0000000000000000010000000000000000000000000000000101
        0000000000000900000000000000010000000000000006000000000000000500
        000000000000622e6c6f67020000000000000034000000000000000000000000
        010000
    ";

    /// Another version of durac reads this: where it differs, the number of the format rises.
    #[test]
    fn a_format_stays_what_it_is() {
        let shown = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let bytes: Vec<String> = full().bytes().chunks(32).map(shown).collect();
        let wanted: Vec<&str> = FORMAT_4.split_whitespace().collect();
        assert_eq!((VERSION, bytes.join("\n")), (4, wanted.join("\n")));
        use flag::{BLIND, MAPPED, OFF, OPENS, STAYS_OFF, TOLD_RING, UNORDERED, UNSEEN, WRITES};
        let flags = [WRITES, OPENS, OFF, STAYS_OFF, UNORDERED, MAPPED, BLIND, TOLD_RING, UNSEEN];
        assert_eq!(flags, [1, 2, 4, 8, 16, 32, 64, 128, 512]);
    }

    /// The other program would find that it is cut off, and the command would be left to the keeper.
    #[test]
    fn more_than_is_read_is_not_stored() {
        let of = |bytes| Handover { object: vec![0; bytes], ..Handover::default() };
        let rest = of(0).bytes().len();
        let most = of(MOST as usize - rest);
        assert_eq!(Handover::load(most.store().unwrap()).unwrap(), most);
        let error = of(MOST as usize - rest + 1).store().unwrap_err();
        assert_eq!(error.to_string(), "more than 16 MiB to hand over");
    }

    #[test]
    fn anything_else_is_refused() {
        let bytes = full().bytes();
        for end in 0..bytes.len() {
            assert!(Handover::load(&bytes[..end]).is_err(), "{end}");
        }
        let more = [&bytes[..], &[0]].concat();
        assert!(matches!(Handover::load(&more[..]), Err(HandoverError::Invalid)));
        let mut other = bytes.clone();
        other[8] += 1;
        assert!(matches!(Handover::load(&other[..]), Err(HandoverError::Version(5))));
        // A length that is not there.
        let mut long = bytes;
        long[96..104].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(matches!(Handover::load(&long[..]), Err(HandoverError::Invalid)));
    }
}
