//! The terminal of `durac top`: its size, its clearing, and the key that ends it.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr, tcgetwinsize,
    tcsetattr,
};
use std::io::{stdin, stdout};
use std::time::Duration;

/// Back to the first line, the rest of the screen empty.
pub const CLEAR: &str = "\x1b[H\x1b[J";
/// Of a terminal that does not say its size.
const SIZE: (usize, usize) = (80, 24);

/// Whether standard output is a terminal on which lines can be written over.
pub fn is_screen() -> bool {
    isatty(stdout()) && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Columns and lines.
pub fn size() -> (usize, usize) {
    match tcgetwinsize(stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => SIZE,
    }
}

/// While it lives, keys are read one by one and not shown.
pub struct Keys(Option<Termios>);

impl Keys {
    /// Of standard input, if it is a terminal.
    pub fn begin() -> Self {
        let Ok(before) = tcgetattr(stdin()) else { return Self(None) };
        let mut single = before.clone();
        single.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        single.special_codes[SpecialCodeIndex::VMIN] = 0;
        single.special_codes[SpecialCodeIndex::VTIME] = 0;
        let set = tcsetattr(stdin(), OptionalActions::Now, &single);
        Self(set.is_ok().then_some(before))
    }

    /// Waits so long, or until a key is pressed. Whether it was one that ends it.
    pub fn ended_within(&self, time: Duration) -> bool {
        if self.0.is_none() {
            std::thread::sleep(time);
            return false;
        }
        let stdin = stdin();
        let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
        let nanoseconds = i64::from(time.subsec_nanos());
        let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: nanoseconds };
        if !matches!(poll(&mut fds, Some(&time)), Ok(1..)) {
            return false;
        }
        let mut key = [0];
        matches!(rustix::io::read(stdin, &mut key), Ok(1)) && matches!(key, [b'q' | b'Q' | 4])
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // A terminal that is gone needs nothing.
            let _ = tcsetattr(stdin(), OptionalActions::Now, before);
        }
    }
}
