//! The repetitions of a call of the agent's own that said nothing of the data.

use crate::clock;
use crate::fault_injection::{Fault, injects};
use durac_engine::{Again, Errno, Tries};
use std::time::Duration;

/// What the system said of a sync, as it is judged.
pub fn as_judged(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(libc::EINTR) if injects(Fault::StickyInterrupt) => Err(libc::EIO),
        result => result,
    }
}

/// Whether the call that has failed is to be made again. Pauses before.
pub fn again(tries: &mut Tries, errno: Errno) -> bool {
    if errno == libc::EINTR && injects(Fault::StickyInterrupt) {
        return false;
    }
    match tries.again(errno, clock::now) {
        Again::AtOnce => true,
        Again::Later => {
            clock::pause(Duration::from_nanos(Tries::PAUSE));
            true
        }
        Again::Never => false,
    }
}
