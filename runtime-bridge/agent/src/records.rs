//! Counts the updates of a log as they are written: feeds the bytes of each write to the engine's counter
//! ([`durac_engine::records`]), in the order in which they come into the file.
//!
//! A write feeds its bytes when it has succeeded, before it returns to the application, from the memory that the
//! kernel has just read. Only a write that nobody else writes beside may: which bytes come first is
//! known of no other. So a write enters before the policy decides about it, and leaves when it has ended;
//! one that finds another inside ends the count. Nobody waits.

use crate::fault_injection::{Fault, injects};
use crate::keys::Keys;
use crate::stage::{Pieces, StageOff};
use crate::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use crate::written::Written;
use durac_abi::{READING_MOST, Records};
use durac_engine::Rules;
use durac_engine::keys::{KeyHash, Named};
use durac_engine::records::Counter;
use durac_shm::status::{Counting, Uncounted};
use std::cell::UnsafeCell;

/// What counts the updates of a log.
pub struct Count {
    /// Of the write that is inside alone.
    counter: UnsafeCell<Counter>,
    /// The same.
    named: UnsafeCell<Named>,
    /// The keys that the log names, if somebody wants to know.
    keys: Keys,
    /// Somebody does.
    names: AtomicBool,
    /// Writes that have entered and not left. One that a signal's handler leaves by a jump stays inside.
    inside: AtomicU32,
    /// Whether the log's updates are counted.
    counts: AtomicU32,
}

// SAFETY: the counter, and what finds names, is used by the one write that entered when none was inside, until it leaves, and by
// `begin`, which enters as a write does.
unsafe impl Sync for Count {}

/// A write that has entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// Nothing is counted.
    Not,
    /// No other is inside.
    Alone,
    /// Another is.
    Beside,
}

impl Count {
    /// Nothing is counted.
    pub fn new() -> Self {
        Self {
            counter: UnsafeCell::new(Counter::new(Records::None)),
            named: UnsafeCell::new(Named::NEW),
            keys: Keys::new(),
            names: AtomicBool::new(false),
            inside: AtomicU32::new(0),
            counts: AtomicU32::new(0),
        }
    }

    /// The place serves another file.
    pub fn begin(&self, rules: Rules, written: &Written) {
        let records = rules.records;
        self.counts.store(0, Ordering::Relaxed);
        self.names.store(false, Ordering::Relaxed);
        if records == Records::None {
            return;
        }
        if self.inside.fetch_add(1, Ordering::AcqRel) == 0 {
            // SAFETY: none was inside, so nobody else has a reference.
            unsafe { *self.counter.get() = Counter::new(records) };
            if rules.keeps_keys && records == Records::Resp {
                // SAFETY: the same.
                unsafe { *self.named.get() = Named::NEW };
                self.keys.begin();
                self.names.store(true, Ordering::Release);
            }
        } else {
            // A write of the last file is late.
            written.lose(Uncounted::Overlap);
        }
        self.inside.fetch_sub(1, Ordering::AcqRel);
        self.counts.store(1, Ordering::Release);
    }

    /// A write enters.
    #[inline]
    pub fn enter(&self) -> Entered {
        if self.counts.load(Ordering::Acquire) == 0 {
            return Entered::Not;
        }
        match self.inside.fetch_add(1, Ordering::AcqRel) {
            0 => Entered::Alone,
            _ => Entered::Beside,
        }
    }

    /// A write has ended that has entered so. It has written `bytes` of these pieces; none if it does not
    /// write at the end of what was written before.
    pub fn leave(&self, entered: Entered, bytes: u64, pieces: Option<Pieces>, written: &Written) {
        match (entered, pieces) {
            (Entered::Not, _) => return,
            (Entered::Beside, _) => written.lose(Uncounted::Overlap),
            // The application knows what it could not write.
            (Entered::Alone, _) if bytes == 0 => self.keys.written(written.total(), false),
            (Entered::Alone, None) => written.lose(Uncounted::Place),
            (Entered::Alone, Some(pieces)) => {
                // SAFETY: this write is alone inside.
                let counter = unsafe { &mut *self.counter.get() };
                // SAFETY: the kernel has just read these bytes there, or the agent has copied them.
                unsafe { self.feed(counter, pieces, bytes, written) };
                if counter.is_lost() {
                    written.lose(Uncounted::Format);
                } else {
                    let part = if injects(Fault::Undercount) { 2 } else { 1 };
                    written.count_updates(counter.updates() / part, counter.settled() / part);
                }
            }
        }
        self.inside.fetch_sub(1, Ordering::AcqRel);
    }

    /// Feeds the first `bytes` of the pieces, which were written behind what `written` counts.
    ///
    /// # Safety
    /// They can be read, as long as nobody takes the memory away: who does that breaks the application's own
    /// call, too. The write is inside alone.
    unsafe fn feed(&self, counter: &mut Counter, pieces: Pieces, bytes: u64, written: &Written) {
        let total = written.total().saturating_add(bytes);
        let whole = if self.names.load(Ordering::Acquire) && !injects(Fault::Nameless) {
            let mut changes = self.keys.up_to(total);
            // SAFETY: the write is inside alone.
            let mut telling = unsafe { &mut *self.named.get() }.telling(&mut changes);
            // SAFETY: the caller's promise.
            unsafe { pieces.each(bytes, |piece| counter.feed_and_tell(piece, &mut telling)) }
        } else {
            // SAFETY: the caller's promise.
            unsafe { pieces.each(bytes, |piece| counter.feed(piece)) }
        };
        if !whole {
            // A thread has changed the array meanwhile.
            counter.lose();
        }
        self.keys.written(total, counter.is_between());
    }

    /// Whether no command names this key of which the log has more than `durable` bytes, for certain.
    pub fn is_clean(&self, key: KeyHash, durable: u64, written: &Written) -> bool {
        self.names.load(Ordering::Acquire)
            && written.counting() == Counting::Yes
            && self.keys.is_clean(key, durable)
    }

    /// `call.updates` of a write that has entered so: the most if it is not known.
    pub fn preview(&self, entered: Entered, pieces: Option<Pieces>, bytes: u64) -> u64 {
        let (Entered::Alone, Some(pieces)) = (entered, pieces) else { return READING_MOST };
        if !pieces.are_readable() {
            return READING_MOST;
        }
        // SAFETY: this write is alone inside.
        let before = unsafe { *self.counter.get() };
        let mut counter = before;
        // SAFETY: all of it can be read.
        if !unsafe { pieces.each(bytes, |piece| counter.feed(piece)) } {
            counter.lose();
        }
        match counter.is_lost() {
            true => READING_MOST,
            false => (counter.updates() - before.updates()).min(READING_MOST),
        }
    }
}

/// What this says of the counts: nothing, that updates are not known, or that bytes are not, either.
pub fn lost_by(why: StageOff, written: &Written) {
    match why {
        // Every byte still goes through a call that has a hook, though perhaps at another position.
        StageOff::OtherOpen => written.lose(Uncounted::Place),
        StageOff::Direct | StageOff::Lock | StageOff::Memory | StageOff::Late => {}
        StageOff::Forked
        | StageOff::PassedOn
        | StageOff::Mapped
        | StageOff::Aio
        | StageOff::Stream
        | StageOff::Unproved
        | StageOff::OtherProcess => written.lose_sight(Uncounted::Unseen),
    }
}

#[cfg(test)]
mod tests {
    use super::{Count, Entered};
    use crate::stage::Pieces;
    use crate::written::Written;
    use durac_abi::{READING_MOST, Records};
    use durac_engine::keys::hash;
    use durac_engine::{Log, Rules};
    use durac_shm::status::{Counting, Uncounted};

    const COMMAND: &[u8] = b"*1\r\n$1\r\na\r\n";

    struct Place {
        count: Count,
        written: Written,
        engine: Log,
    }

    impl Place {
        fn new(records: Records) -> Self {
            let rules =
                Rules { records, keeps_amounts: true, keeps_keys: true, ..Rules::default() };
            let place =
                Self { count: Count::new(), written: Written::new(), engine: Log::new(rules) };
            place.count.begin(rules, &place.written);
            place
        }

        /// A write of these bytes, of which so many come into the file.
        fn write(&self, bytes: &[u8], done: usize) {
            let entered = self.count.enter();
            self.leave(entered, bytes, done);
        }

        fn leave(&self, entered: Entered, bytes: &[u8], done: usize) {
            let pieces = Pieces::One(bytes.as_ptr().cast(), bytes.len());
            self.count.leave(entered, done as u64, Some(pieces), &self.written);
        }

        fn updates(&mut self) -> u64 {
            self.written.tell(&mut self.engine, None);
            self.engine.read_updates()
        }
    }

    #[test]
    fn what_was_written_of_a_short_write_counts() {
        let mut place = Place::new(Records::Resp);
        let two = [COMMAND, COMMAND].concat();
        place.write(&two, COMMAND.len() + 3);
        assert_eq!(place.updates(), 1);
        let rest = two.get(COMMAND.len() + 3..).unwrap_or_default();
        place.write(rest, rest.len());
        assert_eq!(place.updates(), 2);
        place.write(COMMAND, 0);
        assert_eq!((place.updates(), place.written.counting()), (2, Counting::Yes));
    }

    #[test]
    fn pieces_are_counted_in_order() {
        let mut place = Place::new(Records::Resp);
        let (first, rest) = COMMAND.split_at(5);
        let piece = |bytes: &[u8]| libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        let array = [piece(first), piece(rest), piece(COMMAND)];
        let entered = place.count.enter();
        let pieces = Some(Pieces::Many(array.as_ptr(), array.len()));
        assert_eq!(place.count.preview(entered, pieces, u64::MAX), 2);
        let bytes = 2 * COMMAND.len() as u64;
        place.count.leave(entered, bytes, pieces, &place.written);
        assert_eq!(place.updates(), 2);
        // A thread has made the array shorter meanwhile.
        let entered = place.count.enter();
        place.count.leave(entered, bytes + 1, pieces, &place.written);
        assert_eq!(place.updates(), READING_MOST);
    }

    #[test]
    fn writes_that_overlap_end_the_count() {
        let mut place = Place::new(Records::Line);
        let first = place.count.enter();
        let second = place.count.enter();
        assert_eq!((first, second), (Entered::Alone, Entered::Beside));
        assert_eq!(place.count.preview(second, None, 1), READING_MOST);
        place.leave(first, b"a\n", 2);
        let third = place.count.enter();
        assert_eq!(third, Entered::Beside);
        place.leave(second, b"b\n", 2);
        place.leave(third, b"c\n", 2);
        assert_eq!(place.updates(), READING_MOST);
        assert_eq!(place.written.counting(), Counting::Lost(Uncounted::Overlap));
        // Also afterwards.
        place.write(b"d\n", 2);
        assert_eq!(place.updates(), READING_MOST);
    }

    #[test]
    fn a_key_is_clean_until_a_write_names_it() {
        let place = Place::new(Records::Resp);
        let is_clean =
            |key: &[u8], durable| place.count.is_clean(hash(key), durable, &place.written);
        let write = |bytes: &[u8]| {
            place.write(bytes, bytes.len());
            place.written.add(bytes.len() as u64);
            place.written.total()
        };
        assert!(is_clean(b"k", 0));
        let set = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n";
        let first = write(set);
        assert!(!is_clean(b"k", 0) && !is_clean(b"k", first - 1) && is_clean(b"k", first));
        assert!(is_clean(b"other", 0));
        // What is in a transaction is durable with the end of it.
        let open = write(&[&b"*1\r\n$5\r\nMULTI\r\n"[..], set].concat());
        assert!(!is_clean(b"k", open) && !is_clean(b"other", open));
        let end = write(b"*1\r\n$4\r\nEXEC\r\n");
        assert!(!is_clean(b"k", open) && is_clean(b"k", end));
        // A command that may change every key; one that fails; bytes that are none.
        let flush = write(b"*1\r\n$8\r\nFLUSHALL\r\n");
        assert!(!is_clean(b"other", end) && is_clean(b"other", flush));
        place.write(set, 0);
        assert!(!is_clean(b"other", flush), "the application has what the log has not");
        let again = write(set);
        assert!(!is_clean(b"other", flush) && is_clean(b"other", again));
        write(b"junk");
        assert!(!is_clean(b"other", u64::MAX));
    }

    #[test]
    fn another_file_begins_anew() {
        let mut place = Place::new(Records::Resp);
        place.write(b"no command", 10);
        assert_eq!(place.updates(), READING_MOST);
        place.written.begin();
        place.written.begin_amounts();
        place.count.begin(place.engine.rules(), &place.written);
        place.engine = Log::new(place.engine.rules());
        place.write(COMMAND, COMMAND.len());
        assert_eq!(place.updates(), 1);
        // A write of the last file is late: nobody knows what it counts.
        let late = place.count.enter();
        place.written.begin();
        place.written.begin_amounts();
        place.count.begin(place.engine.rules(), &place.written);
        place.leave(late, COMMAND, COMMAND.len());
        assert_eq!(place.updates(), READING_MOST);
    }

    #[test]
    fn nothing_is_counted_that_nobody_reads() {
        let place = Place::new(Records::None);
        assert_eq!(place.count.enter(), Entered::Not);
    }
}
