//! Variables of a thread that are reached without a call.
//!
//! In a shared library, the standard library's `thread_local!` calls the dynamic linker
//! (`__tls_get_addr`) for each access, which is most of what a short hook does. A library that is
//! preloaded is there when the program starts, so its variables lie at a fixed distance from the thread's
//! pointer: the "initial exec" model of the ELF specification of thread-local storage.

use std::cell::Cell;

/// A variable of each thread. All its bytes are zero at first; it is never dropped.
pub struct Local<T: 'static>(fn() -> *const T);

impl<T> Local<T> {
    /// The variable at this address of the calling thread.
    ///
    /// # Safety
    /// Whatever thread calls, the function returns the address of memory of its own, valid until the thread
    /// ends, which holds a `T` whenever its first bytes, all zero, do.
    pub const unsafe fn new(at: fn() -> *const T) -> Self {
        Self(at)
    }

    /// Runs `body` on the calling thread's.
    #[inline(always)]
    pub fn with<R>(&self, body: impl for<'a> FnOnce(&'a T) -> R) -> R {
        // SAFETY: what `new` demands; a shared reference that ends with `body`.
        body(unsafe { &*(self.0)() })
    }
}

impl<T> Local<Cell<T>> {
    /// The value, which this one replaces.
    #[inline(always)]
    pub fn replace(&self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }

    /// Sets the value.
    #[inline(always)]
    pub fn set(&self, value: T) {
        self.with(|cell| cell.set(value));
    }
}

impl<T: Copy> Local<Cell<T>> {
    /// The value.
    #[inline(always)]
    pub fn get(&self) -> T {
        self.with(Cell::get)
    }
}

/// Types of which all bytes may be zero.
///
/// # Safety
/// That holds.
pub unsafe trait Zero {}

// SAFETY: `false`.
unsafe impl Zero for Cell<bool> {}
// SAFETY: 0.
unsafe impl Zero for Cell<i32> {}
// SAFETY: the number 0.
unsafe impl Zero for Cell<u32> {}
// SAFETY: the number 0.
unsafe impl Zero for Cell<u64> {}
// SAFETY: the null pointer.
unsafe impl<T> Zero for Cell<*mut T> {}

/// Declares variables of a thread ([`Local`]) of types that are [`Zero`]. The names are the crate's: each once.
macro_rules! zeroed_thread_local {
    ($(static $name:ident: $type:ty;)*) => {
        $(
            std::arch::global_asm!(
                ".pushsection .tbss, \"awT\", @nobits",
                concat!(".globl ", env!("CARGO_CRATE_NAME"), "_", stringify!($name)),
                concat!(".hidden ", env!("CARGO_CRATE_NAME"), "_", stringify!($name)),
                concat!(".type ", env!("CARGO_CRATE_NAME"), "_", stringify!($name), ", @tls_object"),
                ".p2align 4",
                concat!(env!("CARGO_CRATE_NAME"), "_", stringify!($name), ":"),
                ".zero {size}",
                ".popsection",
                size = const std::mem::size_of::<$type>(),
            );
            const $name: $crate::local::Local<$type> = {
                const fn is_zero<T: $crate::local::Zero>() {
                    assert!(std::mem::align_of::<T>() <= 16);
                }
                is_zero::<$type>();
                #[inline(always)]
                fn at() -> *const $type {
                    let at: *const $type;
                    // SAFETY: the distance from the thread's pointer, which the linker has put into the
                    // table of offsets, and the pointer itself, which is at its own address.
                    unsafe {
                        std::arch::asm!(
                            concat!(
                                "mov {at}, qword ptr [rip + ",
                                env!("CARGO_CRATE_NAME"), "_", stringify!($name), "@GOTTPOFF]"
                            ),
                            "add {at}, qword ptr fs:[0]",
                            at = out(reg) at,
                            options(pure, readonly, nostack),
                        );
                    }
                    at
                }
                // SAFETY: the memory above, one for each thread, as large and aligned as the type, all zero
                // at first, which the type allows.
                unsafe { $crate::local::Local::new(at) }
            };
        )*
    };
}
pub(crate) use zeroed_thread_local;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    super::zeroed_thread_local! {
        static FLAG: Cell<bool>;
        static PLACE: Cell<*mut u8>;
    }

    #[test]
    fn each_thread_has_its_own() {
        FLAG.set(true);
        let threads: Vec<_> = (0..8_usize)
            .map(|number| {
                std::thread::spawn(move || {
                    assert!(!FLAG.get() && PLACE.get().is_null());
                    let own = std::ptr::without_provenance_mut(number);
                    PLACE.set(own);
                    FLAG.set(true);
                    std::thread::yield_now();
                    assert_eq!(PLACE.replace(std::ptr::null_mut()), own);
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| assert!(thread.join().is_ok()));
        assert!(FLAG.get() && PLACE.get().is_null());
    }
}
