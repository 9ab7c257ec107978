//! The note section: what the object says about itself, as JSON.
//!
//! An ELF note (`man 5 elf`, "Notes"): three words (size of the name, size of the description,
//! type), the name `durac` and the description, each padded to 4 bytes. Here are the bytes; what a
//! note may say is [`crate::object::Meta`].

use crate::abi::ABI;
use crate::object::Meta;
use serde::Deserialize;

/// Name of the section.
pub const SECTION: &str = ".note.durac";
/// Name in the note, with its zero.
const NAME: &[u8; 6] = b"durac\0";
/// Type of the note; ours to choose, since the name is ours.
const TYPE: u32 = 1;

/// Why a note could not be read.
#[derive(Debug, thiserror::Error)]
pub enum NoteError {
    /// It is no note of ours.
    #[error("the section {SECTION} holds no note of durac")]
    Malformed,
    /// The contract between program and agent is another one.
    #[error("the object is for ABI {found}, this agent has ABI {ABI}")]
    Abi {
        /// What the object was made for.
        found: u32,
    },
    /// The JSON is not what [`Meta`] says.
    #[error("the note cannot be read: {0}")]
    Json(#[from] serde_json::Error),
}

/// The section's bytes.
///
/// # Errors
/// Those of `serde_json`; it has none for this type.
pub fn encode(meta: &Meta) -> Result<Vec<u8>, serde_json::Error> {
    let json = serde_json::to_vec(meta)?;
    let mut bytes = Vec::with_capacity(json.len() + 24);
    bytes.extend((NAME.len() as u32).to_le_bytes());
    bytes.extend((json.len() as u32).to_le_bytes());
    bytes.extend(TYPE.to_le_bytes());
    bytes.extend(NAME);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend(json);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    Ok(bytes)
}

/// What the section says.
///
/// # Errors
/// When it is no note, or one of another ABI, or its JSON is not [`Meta`].
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
