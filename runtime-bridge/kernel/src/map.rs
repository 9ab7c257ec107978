//! The map of slots, as memory of this process.

use durac_abi::notify::{MAGIC, MAP_BYTES, VERSION, WORDS, Word, probes};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// The map, mapped.
pub struct Slots {
    memory: NonNull<AtomicU64>,
}

// SAFETY: it is shared memory of atomic numbers, mapped for the whole process; it belongs to no thread.
unsafe impl Send for Slots {}
// SAFETY: as above.
unsafe impl Sync for Slots {}

impl Slots {
    /// Maps the map of that descriptor.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn map(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping; the kernel chooses the address, and refuses a length that a map of bpf does
        // not have.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                MAP_BYTES,
                protection,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = NonNull::new(memory.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Self { memory })
    }

    /// The words of an entry; the header is entry 0.
    fn entry(&self, index: u32) -> &[AtomicU64] {
        // SAFETY: the mapping has that many bytes, is aligned to a page, and lives as long as `self`.
        let words = unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), MAP_BYTES / 8) };
        let start = index as usize * WORDS;
        words.get(start..start + WORDS).unwrap_or(&[])
    }

    /// Writes the header, by which the agent knows the map.
    pub fn sign(&self) {
        for (word, value) in self.entry(0).iter().zip([MAGIC, VERSION]) {
            word.store(value, Ordering::Release);
        }
    }

    /// A word of a slot.
    #[must_use]
    pub fn get(&self, slot: u32, word: Word) -> u64 {
        self.entry(slot).get(word as usize).map_or(0, |w| w.load(Ordering::SeqCst))
    }

    fn set(&self, slot: u32, word: Word, value: u64) {
        if let Some(place) = self.entry(slot).get(word as usize) {
            place.store(value, Ordering::SeqCst);
        }
    }

    /// Claims a slot for a file; none if all that could hold it are taken. The map's user of this
    /// moment must be the only one.
    #[must_use]
    pub fn claim(&self, owner: u32, device: u64, inode: u64) -> Option<u32> {
        let slot = probes(device, inode).find(|slot| self.get(*slot, Word::Owner) == 0)?;
        self.set(slot, Word::Owner, owner.into());
        self.set(slot, Word::Generation, self.get(slot, Word::Generation) + 1);
        self.set(slot, Word::Device, device);
        self.set(slot, Word::Inode, inode);
        Some(slot)
    }

    /// Gives a slot back.
    pub fn free(&self, slot: u32) {
        for word in [Word::Inode, Word::Device, Word::Owner] {
            self.set(slot, word, 0);
        }
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // SAFETY: our own mapping, of that length; no reference into it outlives `self`.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), MAP_BYTES) };
    }
}
