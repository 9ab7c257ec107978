//! Why writes of a log are not staged though its policy stages.

use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// Why writes of a log are not staged.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum StageOff {
            $($(#[$doc])* $name,)*
        }

        impl StageOff {
            const ALL: &[Self] = &[$(Self::$name),*];

            fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

reasons! {
    /// The file is open a second time.
    OtherOpen = "the file is open a second time";
    /// A process that was forked has the file open.
    Forked = "another process has the file open";
    /// A descriptor was sent to another process.
    PassedOn = "a descriptor was sent to another process";
    /// The file is mapped.
    Mapped = "the file is mapped";
    /// Asynchronous I/O was submitted for it.
    Aio = "asynchronous I/O is used on it";
    /// A stream may write to it.
    Stream = "a stream may write to it";
    /// It is written with `O_DIRECT`.
    Direct = "it is written with O_DIRECT";
    /// The open file is locked: the agent cannot keep a copy of the descriptor.
    Lock = "the file is locked";
    /// There is no memory for staged bytes.
    Memory = "not enough memory";
    /// `/proc` does not say who has the file open.
    Unproved = "/proc does not show who has the file open";
    /// Another process has the log open for writing.
    OtherProcess = "another process writes the log";
    /// The policy came when the log was open already.
    Late = "the log was open before the policy came";
}

impl StageOff {
    /// Its number on the status page, above 0.
    #[must_use]
    pub fn code(self) -> u64 {
        self as u64 + 1
    }

    /// The reason of this number.
    #[must_use]
    pub fn of_code(code: u64) -> Option<Self> {
        let index = usize::try_from(code.checked_sub(1)?).ok()?;
        Self::ALL.get(index).copied()
    }
}

impl fmt::Display for StageOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::StageOff;

    #[test]
    fn codes_are_read_back() {
        for &reason in StageOff::ALL {
            assert_eq!(StageOff::of_code(reason.code()), Some(reason));
        }
        assert_eq!(StageOff::of_code(0), None);
        assert_eq!(StageOff::of_code(1000), None);
    }
}
