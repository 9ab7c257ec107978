//! What was done to some files, and when: enough of it to tell how a crash came to what it left.

use std::collections::VecDeque;
use std::time::Instant;

/// So many operations are kept, the last ones.
const KEPT: usize = 1024;
/// So many bytes of a write, the first ones.
const BYTES: usize = 4096;

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// When.
    pub at: Instant,
    /// The file's path then; empty for the cut.
    pub path: String,
    /// What.
    pub what: What,
}

/// What an operation was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A write that was made.
    Wrote {
        /// Its number, as in [`crate::image::Unsynced`].
        number: u64,
        /// How many bytes.
        len: usize,
        /// The first of them.
        bytes: Vec<u8>,
    },
    /// A write that failed.
    Refused {
        /// How.
        errno: i32,
    },
    /// A sync began.
    Began {
        /// Its number.
        sync: u64,
    },
    /// A sync ended.
    Ended {
        /// Its number.
        sync: u64,
        /// How it failed, if it did.
        errno: Option<i32>,
    },
    /// The power went.
    Cut,
}

impl What {
    pub(crate) fn wrote(number: u64, data: &[u8]) -> Self {
        let bytes = data.get(..BYTES).unwrap_or(data).to_vec();
        Self::Wrote { number, len: data.len(), bytes }
    }
}

/// The last operations on the files that are asked for.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// Paths that contain it; none if nobody asks.
    path: Option<String>,
    last: VecDeque<Noted>,
}

impl Notes {
    pub(crate) fn of(path: &str) -> Self {
        Self { path: Some(path.to_owned()), last: VecDeque::new() }
    }

    /// Notes what was done to the file at `path`, or to all of them if that is empty.
    pub(crate) fn add(&mut self, path: &str, what: impl FnOnce() -> What) {
        let Some(wanted) = &self.path else { return };
        if !path.is_empty() && !path.contains(wanted) {
            return;
        }
        if self.last.len() >= KEPT {
            self.last.pop_front();
        }
        self.last.push_back(Noted { at: Instant::now(), path: path.to_owned(), what: what() });
    }

    pub(crate) fn all(&self) -> Vec<Noted> {
        self.last.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_what_is_asked_for() {
        let mut notes = Notes::default();
        notes.add("/log", || What::Cut);
        assert!(notes.all().is_empty());
        notes = Notes::of("log");
        for number in 0..KEPT as u64 + 2 {
            notes.add("/other", || What::Cut);
            notes.add("/log", || What::wrote(number, &[7; 5000]));
        }
        notes.add("", || What::Cut);
        let all = notes.all();
        assert_eq!(all.len(), KEPT);
        let first = What::Wrote { number: 3, len: 5000, bytes: vec![7; BYTES] };
        assert_eq!((&all[0].what, &all[KEPT - 1].what), (&first, &What::Cut));
    }
}
