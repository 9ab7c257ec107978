//! The kernel's own clock function: what the C library calls, but no library that stands before it
//! (libfaketime) can change.

use crate::sync::atomic::{AtomicPtr, Ordering};
use crate::sys;
use libc::{Elf64_Ehdr, Elf64_Phdr, Elf64_Sym, c_char, c_int, c_void, timespec};
use std::ffi::CStr;
use std::ptr::null_mut;

type ClockGettime = unsafe extern "C" fn(c_int, *mut timespec) -> c_int;

static FUNCTION: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

/// An entry of the dynamic section (`elf.h`).
#[repr(C)]
struct Dyn {
    d_tag: i64,
    d_un: u64,
}

/// Entries of the dynamic section (`elf.h`).
const DT_NULL: i64 = 0;
const DT_HASH: i64 = 4;
const DT_STRTAB: i64 = 5;
const DT_SYMTAB: i64 = 6;

/// Finds the function. Until then, and without it, the system call is made.
pub fn find() {
    // SAFETY: the kernel passes the address of the image that it has mapped, or 0.
    let function = unsafe { search(libc::getauxval(libc::AT_SYSINFO_EHDR) as usize) };
    FUNCTION.store(function.unwrap_or(null_mut()), Ordering::Release);
}

/// # Safety
/// `base` is 0, or the address of an image that the kernel has mapped.
unsafe fn search(base: usize) -> Option<*mut c_void> {
    if base == 0 {
        return None;
    }
    let image = std::ptr::with_exposed_provenance::<u8>(base);
    // SAFETY: the image begins with its header, which says where its program headers are; these say where
    // its dynamic section is. The kernel has made it, and it is not changed.
    unsafe {
        let header = &*image.cast::<Elf64_Ehdr>();
        let programs = std::slice::from_raw_parts(
            image.add(header.e_phoff as usize).cast::<Elf64_Phdr>(),
            header.e_phnum.into(),
        );
        let load = programs.iter().find(|program| program.p_type == libc::PT_LOAD)?;
        let dynamic = programs.iter().find(|program| program.p_type == libc::PT_DYNAMIC)?;
        let at = |address: u64| image.add((address - load.p_vaddr) as usize);
        let (mut names, mut symbols, mut hash) = (None, None, None);
        let mut entry = at(dynamic.p_vaddr).cast::<Dyn>();
        while (*entry).d_tag != DT_NULL {
            match (*entry).d_tag {
                DT_STRTAB => names = Some(at((*entry).d_un)),
                DT_SYMTAB => symbols = Some(at((*entry).d_un).cast::<Elf64_Sym>()),
                DT_HASH => hash = Some(at((*entry).d_un).cast::<u32>()),
                _ => {}
            }
            entry = entry.add(1);
        }
        let (names, symbols) = (names?, symbols?);
        // The second word of the hash table is the number of symbols.
        let count = hash?.add(1).read();
        (0..count as usize).find_map(|index| {
            let symbol = &*symbols.add(index);
            let name = CStr::from_ptr(names.add(symbol.st_name as usize).cast::<c_char>());
            let is_it = name == c"__vdso_clock_gettime" && symbol.st_shndx != 0;
            is_it.then(|| at(symbol.st_value).cast_mut().cast())
        })
    }
}

/// What a clock shows; it exists.
pub fn clock(clock: c_int) -> timespec {
    let mut time = timespec { tv_sec: 0, tv_nsec: 0 };
    let function = FUNCTION.load(Ordering::Acquire);
    if !function.is_null() {
        // SAFETY: the kernel's function has this signature.
        let function = unsafe { std::mem::transmute::<*mut c_void, ClockGettime>(function) };
        // SAFETY: `time` has room for the result.
        if unsafe { function(clock, &mut time) } == 0 {
            return time;
        }
    }
    // SAFETY: as above.
    unsafe {
        let into = (&raw mut time).expose_provenance();
        sys::call(libc::SYS_clock_gettime, [clock as usize, into]);
    }
    time
}

#[cfg(test)]
mod tests {
    use super::{FUNCTION, clock, find};
    use std::sync::atomic::Ordering;

    #[test]
    fn the_kernels_clock_is_the_c_librarys() {
        let by_call = clock(libc::CLOCK_MONOTONIC);
        find();
        assert!(!FUNCTION.load(Ordering::Relaxed).is_null());
        let by_function = clock(libc::CLOCK_MONOTONIC);
        let mut after = by_call;
        // SAFETY: there is room for the result.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut after) };
        let ns = |time: libc::timespec| time.tv_sec * 1_000_000_000 + time.tv_nsec;
        assert!(ns(by_call) <= ns(by_function) && ns(by_function) <= ns(after));
    }
}
