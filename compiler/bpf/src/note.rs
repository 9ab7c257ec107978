//! The note section as bytes. What it may say is [`Meta`]; the reader is [`durac_abi::note`].

use durac_abi::note::{NAME, TYPE};
use durac_abi::object::Meta;

/// The section's bytes.
///
/// # Errors
/// Those of `serde_json`; it has none for this type.
pub(crate) fn encode(meta: &Meta) -> Result<Vec<u8>, serde_json::Error> {
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
