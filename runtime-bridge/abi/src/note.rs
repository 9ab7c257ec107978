//! The note section: what the object says about itself, as JSON.
//!
//! An ELF note (`man 5 elf`, "Notes"): three words (size of the name, size of the description,
//! type), the name `durac` and the description, each padded to 4 bytes. Here are the bytes; what a
//! note may say is [`crate::object::Meta`].

use crate::ABI;
use crate::object::Meta;
use serde::Deserialize;

/// Name of the section.
pub const SECTION: &str = ".note.durac";
/// Name in the note, with its zero.
pub const NAME: &[u8; 6] = b"durac\0";
/// Type of the note; ours to choose, since the name is ours.
pub const TYPE: u32 = 1;

/// Why a note could not be read.
#[derive(Debug, thiserror::Error)]
pub enum NoteError {
    /// It is not a durac note.
    #[error("this is not a durac policy object: the section {SECTION} holds no durac note")]
    Malformed,
    /// The contract between program and agent is another one.
    #[error("the object has ABI {found}; this version of durac runs ABI {ABI}")]
    Abi {
        /// What the object was made for.
        found: u32,
    },
    /// The JSON is not what [`Meta`] says.
    #[error("the note is damaged: {0}")]
    Json(#[from] serde_json::Error),
}

/// What the section says.
///
/// # Errors
/// When it is not a durac note, or of another ABI, or its JSON is not [`Meta`].
pub fn decode(bytes: &[u8]) -> Result<Meta, NoteError> {
    /// The one member that every version has, whatever else it says.
    #[derive(Deserialize)]
    struct AnyVersion {
        abi: u32,
    }
    let json = description(bytes).ok_or(NoteError::Malformed)?;
    let found = serde_json::from_slice::<AnyVersion>(json)?.abi;
    if found != ABI {
        return Err(NoteError::Abi { found });
    }
    Ok(serde_json::from_slice(json)?)
}

/// The description of the only note in the section.
fn description(bytes: &[u8]) -> Option<&[u8]> {
    let (name_size, rest) = word(bytes)?;
    let (size, rest) = word(rest)?;
    let (kind, rest) = word(rest)?;
    let padded_name = rest.get(..NAME.len().next_multiple_of(4))?;
    if (name_size as usize, kind) != (NAME.len(), TYPE) || !padded_name.starts_with(NAME) {
        return None;
    }
    let rest = rest.get(padded_name.len()..)?;
    let size = size as usize;
    if rest.len() != size.checked_next_multiple_of(4)? {
        return None;
    }
    rest.get(..size)
}

fn word(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (word, rest) = bytes.split_first_chunk()?;
    Some((u32::from_le_bytes(*word), rest))
}
