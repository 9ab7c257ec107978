//! The maps of a policy: arrays of 64-bit numbers that machine code reads and writes in place.

use durac_engine::status::StatusPage;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// A map. Machine code holds its address as a constant and passes it to the lookup helper.
pub struct MapArea {
    /// The entries, one after the other.
    words: &'static [AtomicU64],
    /// Words of an entry.
    fields: usize,
    /// What an entry starts with.
    init: Box<[u64]>,
    /// For parameters: least and greatest value of each.
    ranges: Vec<(u64, u64)>,
    /// For parameters: where other processes change them.
    page: AtomicPtr<StatusPage>,
}

impl MapArea {
    /// A map that lives for ever, with `entries` times `init`.
    pub fn leak(init: &[u64], entries: u32, ranges: Vec<(u64, u64)>) -> &'static Self {
        let words = (0..entries).flat_map(|_| init.iter().map(|&v| AtomicU64::new(v)));
        let words: Vec<AtomicU64> = words.collect();
        Box::leak(Box::new(Self {
            words: Vec::leak(words),
            fields: init.len(),
            init: init.into(),
            ranges,
            page: AtomicPtr::new(null_mut()),
        }))
    }

    /// From now on parameters come from `page`.
    pub fn follow(&self, page: &'static StatusPage) {
        self.page.store(std::ptr::from_ref(page).cast_mut(), Ordering::Release);
    }

    /// Gives entry `key` its first values again.
    pub fn reset(&self, key: usize) {
        for (word, value) in self.entry(key).iter().zip(&self.init) {
            word.store(*value, Ordering::Relaxed);
        }
    }

    /// What the lookup helper answers for `key`.
    pub fn lookup(&self, key: u32) -> *mut u8 {
        let entry = self.entry(key as usize);
        if entry.is_empty() {
            return null_mut();
        }
        self.refresh(entry);
        entry.as_ptr().cast_mut().cast()
    }

    fn entry(&self, key: usize) -> &'static [AtomicU64] {
        let start = key.saturating_mul(self.fields);
        self.words.get(start..start.saturating_add(self.fields)).unwrap_or(&[])
    }

    /// Copies the parameters from the page, clamped: the program relies on their ranges, and
    /// anyone with the file open can write any number there.
    fn refresh(&self, entry: &[AtomicU64]) {
        // SAFETY: only `follow` stores it, from a reference that lives for ever.
        let Some(page) = (unsafe { self.page.load(Ordering::Acquire).as_ref() }) else { return };
        for (index, (word, (min, max))) in entry.iter().zip(&self.ranges).enumerate() {
            if let Some(value) = page.param(index) {
                word.store(value.clamp(*min, *max), Ordering::Relaxed);
            }
        }
    }
}
