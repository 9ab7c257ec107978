//! The maps of a policy: arrays of 64-bit numbers that machine code reads and writes in place.

use durac_abi::object::Param;
use durac_shm::status::StatusPage;
use std::sync::atomic::{AtomicU64, Ordering};

/// A map. Machine code holds its address as a constant and passes it to the lookup helper.
pub struct MapArea {
    words: Box<[AtomicU64]>,
    /// What an entry starts with.
    init: Box<[u64]>,
    /// It holds the parameters: each call has a copy of its own.
    pub is_parameters: bool,
}

impl MapArea {
    /// A map with `entries` times `init`, which lives for ever.
    pub fn leak(init: &[u64], entries: u32, is_parameters: bool) -> &'static Self {
        let words = (0..entries).flat_map(|_| init.iter().map(|&value| AtomicU64::new(value)));
        Box::leak(Box::new(Self { words: words.collect(), init: init.into(), is_parameters }))
    }

    /// The address of entry `key`; null beyond the last.
    pub fn lookup(&self, key: u32) -> *mut u8 {
        let entry = self.entry(key as usize);
        if entry.is_empty() { std::ptr::null_mut() } else { entry.as_ptr().cast_mut().cast() }
    }

    /// Gives entry `key` its first values again.
    pub fn reset(&self, key: usize) {
        for (word, value) in self.entry(key).iter().zip(&self.init) {
            word.store(*value, Ordering::Relaxed);
        }
    }

    fn entry(&self, key: usize) -> &[AtomicU64] {
        let start = key.saturating_mul(self.init.len());
        self.words.get(start..start.saturating_add(self.init.len())).unwrap_or(&[])
    }
}

/// The parameters as they are now, clamped: a program relies on their ranges, and anyone who may open the
/// page can write any number to it.
pub fn snapshot(params: &[Param], page: &StatusPage) -> Vec<u64> {
    let value = |(index, param): (usize, &Param)| {
        page.param(index).unwrap_or(param.default).clamp(param.min, param.max)
    };
    params.iter().enumerate().map(value).collect()
}
