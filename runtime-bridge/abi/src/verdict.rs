//! What a program returns.

/// What a program returns in r0. A negative 32-bit number is `-errno`: fail the call with it.
/// The agent treats any other value as [`Verdict::Pass`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Run the call as the application made it.
    Pass,
    /// Report success and sync in the background.
    Defer,
    /// Report success and do nothing.
    Skip,
    /// Copy the bytes, report success, write later; only of a write.
    Stage,
    /// Hold the reply until everything written before is durable; only of a reply.
    Hold,
    /// Look for more ready connections for this long, nanoseconds, at most [`GATHER_MOST`]; only of a turn.
    Gather(u32),
    /// Fail the call with this errno.
    Fail(i32),
}

/// The longest time of [`Verdict::Gather`]: 10 ms.
pub const GATHER_MOST: u32 = 10_000_000;

/// [`Verdict::Gather`] of 0 ns, as returned in r0.
const GATHER: i32 = 1 << 24;
const GATHER_FIRST: i64 = GATHER as i64;
const GATHER_LAST: i64 = GATHER_FIRST + GATHER_MOST as i64;

impl Verdict {
    /// As returned in r0.
    #[must_use]
    pub fn encode(self) -> i32 {
        match self {
            Verdict::Pass => 0,
            Verdict::Defer => 1,
            Verdict::Skip => 2,
            Verdict::Stage => 3,
            Verdict::Hold => 4,
            Verdict::Gather(within) => GATHER + within.min(GATHER_MOST) as i32,
            Verdict::Fail(errno) => -errno,
        }
    }

    /// What r0 means; [`Verdict::Pass`] for anything unknown.
    #[must_use]
    pub fn decode(r0: u64) -> Verdict {
        match r0 as i64 {
            1 => Verdict::Defer,
            2 => Verdict::Skip,
            3 => Verdict::Stage,
            4 => Verdict::Hold,
            n if (GATHER_FIRST..=GATHER_LAST).contains(&n) => {
                Verdict::Gather((n - GATHER_FIRST) as u32)
            }
            n @ -4095..=-1 => Verdict::Fail(-(n as i32)),
            _ => Verdict::Pass,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{GATHER_MOST, Verdict};

    #[test]
    fn verdicts_are_decoded_as_they_were_encoded() {
        let all = [
            Verdict::Pass,
            Verdict::Defer,
            Verdict::Skip,
            Verdict::Stage,
            Verdict::Hold,
            Verdict::Gather(0),
            Verdict::Gather(60_000),
            Verdict::Gather(GATHER_MOST),
            Verdict::Fail(5),
        ];
        for verdict in all {
            assert_eq!(Verdict::decode(i64::from(verdict.encode()) as u64), verdict);
        }
        let beyond = i64::from(Verdict::Gather(GATHER_MOST).encode()) + 1;
        assert_eq!(Verdict::decode(beyond as u64), Verdict::Pass);
        assert_eq!(Verdict::decode(5), Verdict::Pass);
    }
}
