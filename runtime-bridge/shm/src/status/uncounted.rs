//! Why the updates of a log are not counted though its policy reads their number.

use std::fmt;

/// Why the updates of a log are not counted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uncounted {
    /// Its bytes do not follow the format that the target says.
    Format,
    /// Two writes overlapped: their order is not known.
    Overlap,
    /// It was written elsewhere than at its end, or its length was changed.
    Place,
    /// Something can write to it that the agent does not see.
    Unseen,
    /// The policy came when the log was open already.
    Late,
}

impl Uncounted {
    const ALL: [Self; 5] = [Self::Format, Self::Overlap, Self::Place, Self::Unseen, Self::Late];

    /// Its number on the status page, above that of [`Counting::Yes`].
    #[must_use]
    pub fn code(self) -> u64 {
        self as u64 + Counting::YES + 1
    }

    fn text(self) -> &'static str {
        match self {
            Self::Format => "its bytes do not follow the format of the target",
            Self::Overlap => "two writes overlapped",
            Self::Place => "it was written elsewhere than at its end, or its length was changed",
            Self::Unseen => "something can write to it that the agent does not see",
            Self::Late => "the log was open before the policy came",
        }
    }
}

impl fmt::Display for Uncounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// Whether the updates of a log are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    /// The policy does not read their number.
    No,
    /// They are.
    Yes,
    /// They were, and their number is not known any more.
    Lost(Uncounted),
}

impl Counting {
    const YES: u64 = 1;

    /// Its number on the status page.
    #[must_use]
    pub fn code(self) -> u64 {
        match self {
            Self::No => 0,
            Self::Yes => Self::YES,
            Self::Lost(why) => why.code(),
        }
    }

    /// What this number means; a number that no version knows is no count.
    #[must_use]
    pub fn of_code(code: u64) -> Self {
        match code {
            Self::YES => Self::Yes,
            _ => {
                let why = Uncounted::ALL.into_iter().find(|why| why.code() == code);
                why.map_or(Self::No, Self::Lost)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Counting, Uncounted};

    #[test]
    fn codes_are_read_back() {
        let lost = Uncounted::ALL.map(Counting::Lost);
        for counting in [Counting::No, Counting::Yes].into_iter().chain(lost) {
            assert_eq!(Counting::of_code(counting.code()), counting);
        }
        assert_eq!(Counting::of_code(1000), Counting::No);
    }
}
