//! A part of long work: `--shard 2/4` on the second of four machines, and `durac merge` afterwards.
//!
//! The parts are dealt out in turn, so each has work of every kind, and what one does depends on nothing but
//! its numbers.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Part `part` of `of`, counted from 1. As text, and in reports: `2/4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Shard {
    part: u32,
    of: u32,
}

impl Shard {
    /// Whether the work with this number, from 0, is in this part.
    #[must_use]
    pub fn has(self, number: u64) -> bool {
        number % u64::from(self.of) == u64::from(self.part - 1)
    }

    /// The number of the work that is at this place in the part's own list.
    #[must_use]
    pub fn number(self, place: usize) -> u64 {
        place as u64 * u64::from(self.of) + u64::from(self.part - 1)
    }

    /// From a report.
    ///
    /// # Errors
    /// If it is no shard.
    pub fn deserialize_value(value: &serde_json::Value) -> Result<Self, String> {
        value.as_str().unwrap_or("").parse()
    }

    /// Which parts are missing, or there twice, in a sentence; `None` if `all` are the whole.
    #[must_use]
    pub fn incomplete(all: &[Self]) -> Option<String> {
        let of = all.first()?.of;
        if let Some(other) = all.iter().find(|shard| shard.of != of) {
            return Some(format!("a shard is {other}, another one of {of}"));
        }
        let times = |part| all.iter().filter(|shard| shard.part == part).count();
        if let Some(part) = (1..=of).find(|&part| times(part) > 1) {
            return Some(format!("shard {part}/{of} is there twice"));
        }
        let part = (1..=of).find(|&part| times(part) == 0)?;
        Some(format!("shard {part}/{of} is missing"))
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text
            .split_once('/')
            .and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
        match parsed {
            Some((part, of)) if part >= 1 && part <= of => Ok(Self { part, of }),
            _ => {
                Err("write part and number of parts, for example `2/4`: 1/4, 2/4, 3/4, 4/4"
                    .to_owned())
            }
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.part, self.of)
    }
}

impl TryFrom<String> for Shard {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Shard> for String {
    fn from(shard: Shard) -> Self {
        shard.to_string()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::Shard;

    fn shards(texts: &[&str]) -> Vec<Shard> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn parts_are_the_whole_and_do_not_overlap() {
        for of in 1..7 {
            let all: Vec<Shard> =
                (1..=of).map(|part| format!("{part}/{of}").parse().unwrap()).collect();
            for number in 0..50 {
                assert_eq!(all.iter().filter(|shard| shard.has(number)).count(), 1);
            }
            for shard in &all {
                let own: Vec<u64> = (0..50).filter(|&number| shard.has(number)).collect();
                let places: Vec<u64> = (0..own.len()).map(|place| shard.number(place)).collect();
                assert_eq!(own, places);
            }
            assert_eq!(Shard::incomplete(&all), None);
        }
        for wrong in ["", "1", "0/3", "4/3", "a/b", "1/0", "-1/2", "1/2/3"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        let says = |texts: &[&str]| Shard::incomplete(&shards(texts)).unwrap_or_default();
        assert_eq!(says(&["1/3", "3/3"]), "shard 2/3 is missing");
        assert_eq!(says(&["1/2", "1/2", "2/2"]), "shard 1/2 is there twice");
        assert_eq!(says(&["1/2", "2/3"]), "a shard is 2/3, another one of 2");
    }
}
