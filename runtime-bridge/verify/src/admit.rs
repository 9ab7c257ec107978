//! From the bytes of a file to an object that a runtime may run: every check before its code is
//! compiled, in one place, without a side effect.

use crate::{Rejection, verify};
use durac_abi::Object;
use durac_abi::elf::{self, ReadError};
use durac_abi::object::{Map, Meta};
use durac_abi::session::{self, SESSION_MAP};
use durac_abi::{MAX_LOGS, PARAMS_MAP, Runtime, STATE_MAP};

/// Why an object is not admitted.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is made for something else.
    #[error("the object is for the runtime `{}`, not `{}`", theirs.text(), ours.text())]
    Runtime {
        /// What it is made for.
        theirs: Runtime,
        /// What was to run it.
        ours: Runtime,
    },
    /// A parameter that no value fits.
    #[error("parameter `{name}`: its minimum is above its maximum")]
    Range {
        /// Its name.
        name: String,
    },
    /// A map that the note says nothing of.
    #[error("unexpected map `{name}`, or a map of the wrong size")]
    Map {
        /// Its name.
        name: String,
    },
    /// What the verifier found.
    #[error("the verifier rejects the policy: {}", in_words(source_name, rejections))]
    Verifier {
        /// Name of the source file.
        source_name: String,
        /// At least one.
        rejections: Vec<Rejection>,
    },
}

fn in_words(name: &str, rejections: &[Rejection]) -> String {
    let lines: Vec<String> = rejections.iter().map(|r| format!("{name}: {r}")).collect();
    lines.join("; ")
}

/// Reads and verifies an object of any origin, and checks that its maps are those its note speaks of.
/// Never panics, and takes a time that the size of the bytes bounds.
///
/// # Errors
/// Why it is refused.
pub fn admit(bytes: &[u8], ours: Runtime) -> Result<Object, Refused> {
    let object = elf::read(bytes)?;
    let theirs = object.meta.runtime;
    if theirs != ours {
        return Err(Refused::Runtime { theirs, ours });
    }
    if let Err(rejections) = verify(&object) {
        return Err(Refused::Verifier { source_name: object.source.name, rejections });
    }
    if let Some(bad) = object.meta.params.iter().find(|p| p.min > p.max) {
        return Err(Refused::Range { name: bad.name.clone() });
    }
    if let Some(map) = object.maps.iter().find(|map| !fits(map, &object.meta)) {
        return Err(Refused::Map { name: map.name.clone() });
    }
    Ok(object)
}

/// Whether a map is as large as the note says.
fn fits(map: &Map, meta: &Meta) -> bool {
    match map.name.as_str() {
        PARAMS_MAP => map.max_entries == 1 && map.fields.len() == meta.params.len(),
        STATE_MAP => map.max_entries <= MAX_LOGS && map.fields.len() == meta.state.len(),
        SESSION_MAP => {
            map.max_entries == 1
                && map.fields.len() == session::WORDS
                && meta.runtime.backend().has_session()
        }
        _ => false,
    }
}
