//! Units: what a number counts. Mixing them is an error.

use durac_abi::object::ParamUnit;
use durac_grammar::ast::{Suffix, UnitWord};
use std::fmt;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Sync calls.
    Syncs,
    /// Write calls.
    Writes,
    /// Records of the log.
    Updates,
    /// A plain number.
    Count,
    /// Bytes.
    Bytes,
    /// Nanoseconds.
    Duration,
    /// 0 or 1.
    Bool,
    /// An integer literal that takes the unit of what it meets; never that of a declaration.
    Plain,
    /// What could not be checked; agrees with everything, so one mistake gives one diagnostic.
    Unknown,
}

impl Unit {
    /// The types that a declaration can name.
    pub const NAMED: [Unit; 7] = [
        Unit::Syncs,
        Unit::Writes,
        Unit::Updates,
        Unit::Count,
        Unit::Bytes,
        Unit::Duration,
        Unit::Bool,
    ];

    /// The type that is written `name`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Unit> {
        Unit::NAMED.into_iter().find(|u| u.text() == name)
    }

    /// As written in a declaration.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Unit::Syncs => "syncs",
            Unit::Writes => "writes",
            Unit::Updates => "updates",
            Unit::Count => "count",
            Unit::Bytes => "bytes",
            Unit::Duration => "duration",
            Unit::Bool => "bool",
            Unit::Plain => "number",
            Unit::Unknown => "unknown",
        }
    }

    /// The unit that the note of an object gives a parameter; none for what no declaration has.
    #[must_use]
    pub fn noted(self) -> Option<ParamUnit> {
        ParamUnit::parse(self.text())
    }

    /// The unit of a literal with this suffix.
    #[must_use]
    pub fn of_suffix(suffix: Suffix) -> Unit {
        if suffix.is_time() { Unit::Duration } else { Unit::Bytes }
    }

    /// The unit a unit word gives.
    #[must_use]
    pub fn of_word(word: UnitWord) -> Unit {
        match word {
            UnitWord::Syncs => Unit::Syncs,
            UnitWord::Writes => Unit::Writes,
            UnitWord::Updates => Unit::Updates,
            UnitWord::Bytes => Unit::Bytes,
            UnitWord::Calls => Unit::Count,
        }
    }

    /// Whether an integer literal without a unit may stand for it.
    #[must_use]
    pub fn takes_plain(self) -> bool {
        matches!(self, Unit::Syncs | Unit::Writes | Unit::Updates | Unit::Count | Unit::Plain)
    }

    /// Whether it can be added and ordered.
    #[must_use]
    pub fn is_number(self) -> bool {
        self != Unit::Bool
    }

    /// An example of a literal of the unit, for help texts.
    #[must_use]
    pub fn example(self, value: u64) -> String {
        match self {
            Unit::Duration => format!("{value}ms"),
            Unit::Bytes => format!("{value}KiB"),
            Unit::Syncs => format!("{value} syncs"),
            Unit::Writes => format!("{value} writes"),
            Unit::Updates => format!("{value} updates"),
            _ => value.to_string(),
        }
    }
}

impl From<ParamUnit> for Unit {
    fn from(unit: ParamUnit) -> Self {
        match unit {
            ParamUnit::Syncs => Unit::Syncs,
            ParamUnit::Writes => Unit::Writes,
            ParamUnit::Updates => Unit::Updates,
            ParamUnit::Count => Unit::Count,
            ParamUnit::Bytes => Unit::Bytes,
            ParamUnit::Duration => Unit::Duration,
            ParamUnit::Bool => Unit::Bool,
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// A value of a unit as a person writes it: `50ms`, `4MiB`, `64`, `true`.
#[must_use]
pub fn show(value: u64, unit: Unit) -> String {
    let scaled = |suffixes: &[Suffix]| {
        suffixes
            .iter()
            .find(|s| value != 0 && value.is_multiple_of(s.scale()))
            .map_or_else(|| value.to_string(), |s| format!("{}{}", value / s.scale(), s.text()))
    };
    match unit {
        Unit::Duration => scaled(&[Suffix::S, Suffix::Ms, Suffix::Us, Suffix::Ns]),
        Unit::Bytes => scaled(&[Suffix::GiB, Suffix::MiB, Suffix::KiB, Suffix::B]),
        Unit::Bool => (value != 0).to_string(),
        _ => value.to_string(),
    }
}
