//! The library's own memory. The application's allocator may be what a signal handler has interrupted, or
//! have no more memory: the agent must be able to work all the same.
//!
//! Small blocks come from chunks that are never given back, by classes of powers of two; large ones are
//! mappings of their own.

use durac_agent::sys;
use std::alloc::{GlobalAlloc, Layout};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};

/// The smallest class, and its power of two.
const SMALLEST: u32 = 4;
/// Above this size (64 KiB) a block is a mapping of its own.
const LARGEST: u32 = 16;
const CLASSES: usize = (LARGEST - SMALLEST + 1) as usize;
/// Memory is taken from the system in chunks of this size: what is left of one when the system has no more
/// is what the agent works on with.
const CHUNK: usize = 4 << 20;
const PAGE: usize = 4096;

/// How often the lock is tried: a forked child may find it held by a thread that it does not have.
const TRIES: u32 = 10_000;

/// The allocator.
pub struct Own {
    locked: AtomicBool,
    state: std::cell::UnsafeCell<State>,
}

struct State {
    /// The free blocks of each class; each holds the address of the next.
    free: [*mut u8; CLASSES],
    /// What is left of the chunk.
    next: *mut u8,
    left: usize,
}

// SAFETY: the state is used with the lock held only.
unsafe impl Sync for Own {}

#[global_allocator]
static OWN: Own = Own::new();

impl Own {
    const fn new() -> Self {
        let state = State { free: [null_mut(); CLASSES], next: null_mut(), left: 0 };
        Self { locked: AtomicBool::new(false), state: std::cell::UnsafeCell::new(state) }
    }

    /// Runs `body` with the lock; none if it could not be had.
    fn with<T>(&self, body: impl FnOnce(&mut State) -> T) -> Option<T> {
        let mut tries = 0;
        while self.locked.swap(true, Ordering::Acquire) {
            tries += 1;
            if tries > TRIES {
                return None;
            }
            if tries > 100 {
                // SAFETY: no preconditions.
                unsafe { sys::call(libc::SYS_sched_yield, []) };
            }
            std::hint::spin_loop();
        }
        // SAFETY: the lock is held.
        let result = body(unsafe { &mut *self.state.get() });
        self.locked.store(false, Ordering::Release);
        Some(result)
    }
}

/// A mapping; null if the system refuses.
fn map(size: usize) -> *mut u8 {
    // SAFETY: a new mapping; the kernel chooses the address.
    let address = unsafe {
        sys::call(
            libc::SYS_mmap,
            [
                0,
                size,
                (libc::PROT_READ | libc::PROT_WRITE) as usize,
                (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE) as usize,
                usize::MAX,
                0,
            ],
        )
    };
    match sys::decode(address) {
        Ok(address) => std::ptr::with_exposed_provenance_mut(address as usize),
        Err(_) => null_mut(),
    }
}

/// The class of a block, and its size; none for a large one.
fn class(layout: Layout) -> Option<(usize, usize)> {
    let size = layout.size().max(layout.align()).max(1 << SMALLEST).checked_next_power_of_two()?;
    (size <= 1 << LARGEST).then(|| ((size.trailing_zeros() - SMALLEST) as usize, size))
}

impl State {
    fn take(&mut self, class: usize, size: usize) -> *mut u8 {
        let Some(first) = self.free.get_mut(class) else { return null_mut() };
        if !first.is_null() {
            let block = *first;
            // SAFETY: a free block holds the address of the next one, and is aligned for it.
            *first = unsafe { block.cast::<*mut u8>().read() };
            return block;
        }
        // The classes are powers of two, so a block that is aligned to its size is never across chunks.
        let skip = self.next.addr().next_multiple_of(size) - self.next.addr();
        if self.left < skip + size {
            let chunk = map(CHUNK);
            if chunk.is_null() {
                return null_mut();
            }
            (self.next, self.left) = (chunk, CHUNK);
            return self.take(class, size);
        }
        // SAFETY: so much is left of the chunk.
        let block = unsafe { self.next.add(skip) };
        // SAFETY: as above.
        self.next = unsafe { block.add(size) };
        self.left -= skip + size;
        block
    }

    fn put(&mut self, class: usize, block: *mut u8) {
        if let Some(first) = self.free.get_mut(class) {
            // SAFETY: the block is free, large enough for an address, and aligned for it.
            unsafe { block.cast::<*mut u8>().write(*first) };
            *first = block;
        }
    }
}

// SAFETY: blocks are as large and aligned as requested (a chunk is aligned to a page, and larger alignments
// are large blocks' only up to a page), and belong to one owner at a time.
unsafe impl GlobalAlloc for Own {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match class(layout) {
            // Without the lock, the block is a mapping of its own, which joins its class when it is free.
            Some((class, size)) => self
                .with(|state| state.take(class, size))
                .unwrap_or_else(|| map(size.next_multiple_of(PAGE))),
            None if layout.align() > PAGE => null_mut(),
            None => map(layout.size().next_multiple_of(PAGE)),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match class(layout) {
            // Without the lock it is lost.
            Some((class, _)) => drop(self.with(|state| state.put(class, block))),
            None => {
                let size = layout.size().next_multiple_of(PAGE);
                // SAFETY: a large block is a mapping of that size.
                unsafe { sys::call(libc::SYS_munmap, [block.expose_provenance(), size]) };
            }
        }
    }
}
