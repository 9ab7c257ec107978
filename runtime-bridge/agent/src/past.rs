//! Programs that make system calls past the C library, as far as their file says so: those written in Go.
//!
//! The policy acts on none of those calls. Nothing can be done about it from inside; it is said, once, when
//! the program starts. `durac run` looks from outside at what programs do.

use crate::note;
use crate::policy::Policy;
use libc::{c_int, c_void, dl_phdr_info, size_t};

/// The note that Go's linker puts into every program: its name, and its type (the build's identity).
const GO: (&[u8], u32) = (b"Go\0\0", 4);
const PT_LOAD: u32 = libc::PT_LOAD;
const PT_NOTE: u32 = libc::PT_NOTE;

/// Whether this program is written in Go.
pub fn is_go() -> bool {
    let mut found = false;
    // SAFETY: the function is called before this call returns, and with this pointer.
    unsafe { libc::dl_iterate_phdr(Some(main_program), (&raw mut found).cast()) };
    found
}

/// Says so, if this program calls the kernel itself.
pub fn tell(policy: &Policy) {
    if is_go() {
        note::in_start(&format!(
            "policy `{}` does not act on the system calls that this program makes itself: it is written in Go",
            policy.meta.policy
        ));
    }
}

/// Looks at the first object, which is the program, and at no other.
unsafe extern "C" fn main_program(info: *mut dl_phdr_info, _: size_t, found: *mut c_void) -> c_int {
    // SAFETY: the linker passes a description that is valid during the call, with that many headers.
    let (base, headers) = unsafe {
        let info = &*info;
        (info.dlpi_addr, std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()))
    };
    let notes = headers.iter().filter(|header| header.p_type == PT_NOTE);
    let is_loaded = |start: u64, len: u64| {
        headers.iter().any(|load| {
            let offset = start.checked_sub(load.p_vaddr);
            let end = offset.and_then(|offset| offset.checked_add(len));
            load.p_type == PT_LOAD
                && load.p_flags & libc::PF_R != 0
                && end.is_some_and(|end| end <= load.p_filesz)
        })
    };
    for note in notes.filter(|note| is_loaded(note.p_vaddr, note.p_memsz)) {
        let start = base.wrapping_add(note.p_vaddr) as *const u8;
        // SAFETY: a loaded, readable segment of the program holds these bytes, and no other thread runs in
        // the constructor of a preloaded library; later nobody writes to a program's notes.
        let bytes = unsafe { std::slice::from_raw_parts(start, note.p_memsz as usize) };
        if has_note(bytes, GO) {
            // SAFETY: it is the pointer that `is_go` has passed.
            unsafe { found.cast::<bool>().write(true) };
        }
    }
    1
}

/// Whether a note of this name and type is among these.
fn has_note(mut bytes: &[u8], (name, kind): (&[u8], u32)) -> bool {
    let word = |bytes: &[u8], at: usize| -> Option<u32> {
        Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
    };
    while let (Some(name_len), Some(len), Some(this)) =
        (word(bytes, 0), word(bytes, 4), word(bytes, 8))
    {
        let after_name = 12 + (name_len as usize).next_multiple_of(4);
        if this == kind
            && name_len as usize == name.len()
            && bytes.get(12..12 + name.len()) == Some(name)
        {
            return true;
        }
        match bytes.get(after_name + (len as usize).next_multiple_of(4)..) {
            Some(rest) => bytes = rest,
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::{GO, has_note, is_go};

    fn note(name: &[u8], kind: u32, text: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [name.len() as u32, text.len() as u32, kind] {
            bytes.extend(word.to_le_bytes());
        }
        for part in [name, text] {
            bytes.extend(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    #[test]
    fn a_note_of_go_is_found_among_others() {
        let gnu = note(b"GNU\0", 3, b"identity");
        let go = note(b"Go\0\0", 4, b"abc");
        assert!(has_note(&go, GO) && has_note(&[gnu.clone(), go.clone()].concat(), GO));
        assert!(!has_note(&gnu, GO) && !has_note(&note(b"Go\0\0", 3, b""), GO));
        for cut in 0..go.len() - 4 {
            // What is cut off is not read; the name and type alone decide.
            assert_eq!(has_note(&go[..cut], GO), cut >= 16, "{cut}");
        }
        let huge = [&u32::MAX.to_le_bytes()[..], &u32::MAX.to_le_bytes(), &[0; 4]].concat();
        assert!(!has_note(&huge, GO));
        assert!(!is_go());
    }
}
