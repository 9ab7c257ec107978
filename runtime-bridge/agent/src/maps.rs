//! The maps of a policy: arrays of 64-bit numbers that machine code reads and writes in place.

use durac_shm::status::StatusPage;
use std::mem::MaybeUninit;
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

    /// From now on parameters stay what they are.
    pub fn freeze(&self) {
        // SAFETY: only `follow` stores it, from a reference that lives for ever.
        if let Some(page) = unsafe { self.page.swap(null_mut(), Ordering::AcqRel).as_ref() } {
            for (index, word) in self.entry(0).iter().enumerate() {
                if let Some(value) = page.param(index) {
                    word.store(value, Ordering::Relaxed);
                }
            }
        }
    }

    /// The parameters, as long as no page has them.
    pub fn values(&self) -> Vec<u64> {
        self.entry(0).iter().map(|word| word.load(Ordering::Relaxed)).collect()
    }

    /// Gives entry `key` its first values again.
    pub fn reset(&self, key: usize) {
        for (word, value) in self.entry(key).iter().zip(&self.init) {
            word.store(*value, Ordering::Relaxed);
        }
    }

    /// The address of entry `key`.
    pub fn lookup(&self, key: u32) -> *mut u8 {
        let entry = self.entry(key as usize);
        if entry.is_empty() {
            return null_mut();
        }
        entry.as_ptr().cast_mut().cast()
    }

    fn entry(&self, key: usize) -> &'static [AtomicU64] {
        let start = key.saturating_mul(self.fields);
        self.words.get(start..start.saturating_add(self.fields)).unwrap_or(&[])
    }

    /// Copies the parameters as they are now, clamped: the program relies on their ranges, and
    /// anyone with the file open can write any number to the page. A call sees these values to its end.
    #[inline]
    pub fn snapshot(&self, into: &mut [MaybeUninit<u64>]) {
        // SAFETY: only `follow` stores it, from a reference that lives for ever.
        let page = unsafe { self.page.load(Ordering::Acquire).as_ref() };
        let places = into.iter_mut().zip(&self.ranges);
        match page {
            Some(page) => places.zip(page.param_values()).for_each(clamp),
            None => {
                places
                    .zip(self.words.iter().map(|word| word.load(Ordering::Relaxed)))
                    .for_each(clamp);
            }
        }
    }
}

#[inline]
fn clamp(((place, &(min, max)), value): ((&mut MaybeUninit<u64>, &(u64, u64)), u64)) {
    place.write(value.clamp(min, max));
}
