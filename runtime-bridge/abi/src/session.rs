//! What each of BPFtime's programs looks at before anything else: whether the loader that loaded it still vouches
//! for it, and which thread its state belongs to.
//!
//! BPFtime's shared memory outlives loaders and targets, and a new loader can put other maps where a running
//! program looks for its own. So a program does what its policy says only if
//!
//! - the number in the map is the one that its loader has put into the map and into its code, a new one each time;
//! - the time until which the loader vouches, which it renews as long as it lives, is not over;
//! - the calling thread is the first that called the function.
//!
//! Otherwise the call runs as the application made it. The map is an array with one entry; the loader writes the
//! first two words, the programs the others.

use crate::Hook;
use crate::insn::Insn;
use crate::object::{Map, Program};

/// Name of the map.
pub const SESSION_MAP: &str = "session";

/// The number in an object that was not loaded yet (`"durac_id"`): the loader replaces it wherever it is.
pub const ID: u64 = 0x6475_7261_635f_6964;

/// Index of the word with the loader's number.
pub const WORD_ID: usize = 0;
/// Index of the word with the time until which the loader vouches, nanoseconds of the monotonic clock.
pub const WORD_UNTIL: usize = 1;
/// Index of the word with the last other process that called.
pub const WORD_OTHER: usize = 2;
/// Words in front of those of the hooks.
const SHARED: usize = 3;
/// Words of a hook.
const OF_HOOK: usize = 3;
/// Words in the map.
pub const WORDS: usize = SHARED + OF_HOOK * Hook::COUNT;

/// A word that each hook has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfHook {
    /// Process and thread that called first, as `bpf_get_current_pid_tgid` numbers them; 0 before.
    Owner = 0,
    /// Another thread of that process, which called later: the policy ends with it.
    Thread = 1,
    /// Calls for which the policy ran.
    Calls = 2,
}

/// Index of a hook's word.
#[must_use]
pub const fn word(hook: Hook, of: OfHook) -> usize {
    SHARED + OF_HOOK * hook as usize + of as usize
}

/// Offset of a word in the map's value.
#[must_use]
pub const fn offset(word: usize) -> i16 {
    8 * word as i16
}

/// The map.
#[must_use]
pub fn map() -> Map {
    let mut fields: Vec<String> = ["id", "until", "other"].map(str::to_owned).to_vec();
    for hook in Hook::PROGRAMS {
        fields.extend(["owner", "thread", "calls"].map(|word| format!("{word}_{hook}")));
    }
    Map { name: SESSION_MAP.to_owned(), max_entries: 1, fields }
}

/// Puts a loader's number where the compiler has left [`ID`]; gives how often.
pub fn set_id(program: &mut Program, id: u64) -> usize {
    let mut found = 0;
    let mut slot = 0;
    while let Some([low, high]) = program.insns.get_mut(slot..slot + 2) {
        if !low.is_lddw() {
            slot += 1;
            continue;
        }
        if low.src == 0 && wide(*low, *high) == ID {
            (low.imm, high.imm) = (id as u32 as i32, (id >> 32) as u32 as i32);
            found += 1;
        }
        slot += 2;
    }
    found
}

fn wide(low: Insn, high: Insn) -> u64 {
    u64::from(low.imm as u32) | u64::from(high.imm as u32) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_has_the_words() {
        let map = map();
        assert_eq!(map.fields.len(), WORDS);
        let name = |word: usize| map.fields.get(word).map(String::as_str);
        assert_eq!(name(WORD_UNTIL), Some("until"));
        for hook in Hook::PROGRAMS {
            assert_eq!(name(word(hook, OfHook::Calls)), Some(format!("calls_{hook}").as_str()));
        }
    }
}
