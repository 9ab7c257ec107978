//! Tests of `watch`, whose text is also compiled with an explorer's primitives.

use crate::watch::{begin, watch};
use durac_abi::notify::{SLOTS, WORDS, Word};
use durac_engine::{Log, Rules};
use std::sync::atomic::{AtomicU64, Ordering};

#[test]
fn a_slot_that_another_process_has_taken_proves_nothing() {
    let words = SLOTS as usize * WORDS;
    let map: &'static [AtomicU64] = Vec::leak((0..words).map(|_| AtomicU64::new(0)).collect());
    begin(map);
    let mut watch = watch((0x0801, 17)).unwrap();
    let slot = watch.claimed.slot() as usize;
    let word = |word: Word| &map[slot * WORDS + word as usize];
    let write = |which: &[Word], value: u64| {
        which.iter().for_each(|&which| word(which).store(value, Ordering::SeqCst));
    };
    let mut engine = Log::new(Rules::default());

    engine.wrote(100);
    watch.mark(&engine, watch.claimed.started());
    write(&[Word::Started, Word::Completed, Word::Proved], 1);
    assert!(watch.tell(&mut engine) && watch.count() == 1);

    // One that cannot see that we live, with another file.
    engine.wrote(200);
    watch.mark(&engine, watch.claimed.started());
    assert_eq!(word(Word::Owner).load(Ordering::SeqCst), u64::from(std::process::id()));
    word(Word::Generation).fetch_add(1, Ordering::SeqCst);
    let counts = [Word::Started, Word::Completed, Word::Proved, Word::Failed];
    write(&[Word::Owner, Word::Inode], 7);
    write(&counts, 7);
    assert!(!watch.tell(&mut engine) && engine.error().is_none() && watch.count() == 1);

    // Nor is its slot given away.
    drop(watch);
    assert_eq!(word(Word::Inode).load(Ordering::SeqCst), 7);
}
