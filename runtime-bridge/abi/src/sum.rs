//! The checksum of an object: tells a file that was changed since it was made.
//!
//! It is not a signature: whoever can write the file can write a new checksum. It catches a flipped bit in
//! a number that no other check knows the meaning of: a file pattern, a deadline, a window. Debug
//! information is left out, so that it can be stripped.

use crate::object::Object;
use sha2::{Digest, Sha256};

/// Name of the section.
pub const SECTION: &str = ".durac.sum";
/// Name in the ELF note, with its zero, padded to 4 bytes.
const NAME: &[u8; 8] = b"durac\0\0\0";
/// Type of the ELF note; 1 is the one with JSON.
const TYPE: u32 = 2;
/// Bytes of a SHA-256.
const SIZE: u32 = 32;

/// The section's bytes for `object` with that JSON note.
#[must_use]
pub fn encode(object: &Object, note: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [6, SIZE, TYPE] {
        bytes.extend(u32::to_le_bytes(word));
    }
    bytes.extend(NAME);
    bytes.extend(digest(object, note));
    bytes
}

/// SHA-256 of everything that decides what the object does.
fn digest(object: &Object, note: &[u8]) -> [u8; SIZE as usize] {
    let mut hash = Sha256::new();
    // Each part is preceded by its length, so that no two objects give the same text.
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for program in &object.programs {
        part(program.hook.name().as_bytes());
        part(&program.insns.iter().flat_map(|i| i.to_bytes()).collect::<Vec<_>>());
        for reloc in &program.relocs {
            part(&reloc.slot.to_le_bytes());
            part(&reloc.map.to_le_bytes());
        }
    }
    for program in &object.kernel {
        part(program.section.as_bytes());
        part(&program.insns.iter().flat_map(|i| i.to_bytes()).collect::<Vec<_>>());
    }
    for map in &object.maps {
        part(map.name.as_bytes());
        part(&map.max_entries.to_le_bytes());
        for field in &map.fields {
            // As the types in the file spell it.
            part(crate::btf::identifier(field).as_bytes());
        }
    }
    part(note);
    hash.finalize().into()
}
