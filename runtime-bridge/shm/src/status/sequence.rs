//! Reading what another process writes meanwhile.

use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

/// Readings without a pause: a writer that runs is done by then.
const SPINS: u32 = 100;
/// Between the readings after them: a writer that waits for a processor gets it.
const NAP: Duration = Duration::from_micros(100);
/// Pauses until a writer is taken for dead: three seconds or more, which is long for one that waits for a processor.
const NAPS: u32 = 30_000;

/// How long a reader still waits for writers.
pub(super) struct Patience {
    naps: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self { naps: NAPS }
    }
}

impl Patience {
    /// What `read` reads, of one instant: nothing was written meanwhile, as `sequence` says, which is odd while
    /// something is written. `Err` is half written, by a writer that has died there.
    pub fn read_whole<T>(
        &mut self,
        sequence: &AtomicU64,
        mut read: impl FnMut() -> T,
    ) -> Result<T, T> {
        let mut spins = SPINS;
        loop {
            let before = sequence.load(Ordering::Acquire);
            let value = read();
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && sequence.load(Ordering::Relaxed) == before {
                return Ok(value);
            }
            if spins > 0 {
                spins -= 1;
                std::hint::spin_loop();
            } else if self.naps > 0 {
                self.naps -= 1;
                std::thread::sleep(NAP);
            } else {
                return Err(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Patience;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    #[test]
    fn a_writer_may_stop_for_a_while() {
        let sequence = AtomicU64::new(1);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(300));
                sequence.store(2, Ordering::Release);
            });
            let read = || sequence.load(Ordering::Relaxed);
            assert_eq!(Patience::default().read_whole(&sequence, read), Ok(2));
        });
    }

    #[test]
    fn a_writer_that_has_died_is_not_waited_for() {
        let mut patience = Patience::default();
        // Nor the next one.
        for _ in 0..64 {
            assert_eq!(patience.read_whole(&AtomicU64::new(1), || 7), Err(7));
        }
        assert_eq!(patience.naps, 0);
    }
}
