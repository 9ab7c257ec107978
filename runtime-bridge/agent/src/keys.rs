//! Which keys the part of a log names that is not durable.
//!
//! Each write of the log notes, for every key that its commands name, how far the log is written with it
//! ([`durac_engine::keys`] says what a command names). A key is clean while that much is durable. Keys share
//! places: one that was not named may be taken for one that was, never the other way round.

use durac_engine::keys::{Changes, KeyHash};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

/// Places. Those of some hundred keys that are not durable fill less than a hundredth of them.
const PLACES: usize = 1 << 16;

type Table = [AtomicU64; PLACES];

/// The keys that a log names.
pub struct Keys {
    /// For each place, so many bytes of the log have to be durable; none before the first log that is looked at.
    table: AtomicPtr<Table>,
    /// The same for every key.
    every: AtomicU64,
    /// The end of what is written belongs to a command, or a transaction, of which the rest is missing.
    is_cut: AtomicBool,
}

impl Keys {
    /// Of no log.
    pub const fn new() -> Self {
        Self {
            table: AtomicPtr::new(std::ptr::null_mut()),
            every: AtomicU64::new(0),
            is_cut: AtomicBool::new(false),
        }
    }

    fn table(&self) -> Option<&'static Table> {
        // SAFETY: null, or a table that is never freed.
        unsafe { self.table.load(Ordering::Acquire).as_ref() }
    }

    /// The place serves another file, of which nothing is written. No write is inside.
    pub fn begin(&self) {
        match self.table() {
            Some(table) => table.iter().for_each(|place| place.store(0, Ordering::Relaxed)),
            None => {
                // Zeroes are numbers, too; the system gives memory only for what is used.
                // SAFETY: all zeroes is a value of an array of atomic numbers.
                let table = unsafe { Box::<Table>::new_zeroed().assume_init() };
                self.table.store(Box::into_raw(table), Ordering::Release);
            }
        }
        self.every.store(0, Ordering::Relaxed);
        self.is_cut.store(false, Ordering::Release);
    }

    /// A write ends with so many bytes written. The write is inside alone.
    pub fn up_to(&self, bytes: u64) -> UpTo<'_> {
        UpTo { keys: self, bytes }
    }

    /// A write has ended, with so many bytes written; `whole` if nothing of a command is missing now.
    pub fn written(&self, bytes: u64, whole: bool) {
        if self.is_cut.load(Ordering::Relaxed) {
            // What the first part of it named was noted as too little.
            self.every.store(bytes, Ordering::Release);
        }
        self.is_cut.store(!whole, Ordering::Release);
    }

    /// Whether what is not durable does not name this key, if so many bytes are.
    pub fn is_clean(&self, key: KeyHash, durable: u64) -> bool {
        let is_durable = |bytes: &AtomicU64| bytes.load(Ordering::Acquire) <= durable;
        !self.is_cut.load(Ordering::Acquire)
            && is_durable(&self.every)
            && self.table().and_then(|table| table.get(place(key))).is_some_and(is_durable)
    }
}

fn place(key: KeyHash) -> usize {
    key as usize % PLACES
}

/// Notes what a write names.
pub struct UpTo<'a> {
    keys: &'a Keys,
    bytes: u64,
}

impl Changes for UpTo<'_> {
    fn key(&mut self, key: KeyHash) {
        if let Some(noted) = self.keys.table().and_then(|table| table.get(place(key))) {
            noted.store(self.bytes, Ordering::Release);
        }
    }

    fn every_key(&mut self) {
        self.keys.every.store(self.bytes, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::Keys;
    use durac_engine::keys::{Changes, hash};

    #[test]
    fn a_key_is_clean_once_what_names_it_is_durable() {
        let keys = Keys::new();
        let [a, b] = [hash(b"a"), hash(b"b")];
        assert!(!keys.is_clean(a, 0), "nothing is known");
        keys.begin();
        assert!(keys.is_clean(a, 0));
        keys.up_to(10).key(a);
        keys.written(10, true);
        assert!(!keys.is_clean(a, 9));
        assert!(keys.is_clean(a, 10));
        assert!(keys.is_clean(b, 0));
        keys.up_to(20).every_key();
        keys.written(20, true);
        assert!(!keys.is_clean(b, 19));
        assert!(keys.is_clean(b, 20));
        keys.begin();
        assert!(keys.is_clean(a, 0) && keys.is_clean(b, 0));
    }

    #[test]
    fn no_key_is_clean_while_a_command_is_cut() {
        let keys = Keys::new();
        keys.begin();
        let [a, b] = [hash(b"a"), hash(b"b")];
        keys.up_to(10).key(a);
        keys.written(10, false);
        assert!(!keys.is_clean(a, 10) && !keys.is_clean(b, 10));
        keys.written(20, true);
        assert!(!keys.is_clean(a, 19) && !keys.is_clean(b, 19));
        assert!(keys.is_clean(a, 20) && keys.is_clean(b, 20));
    }
}
