//! The proved loss, which a report has in words, in numbers again.

use durac_grammar::ast::Suffix;
use serde::Serialize;

/// A bound of one kind of loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// At most so much.
    At(u64),
    /// No bound.
    Unbounded,
}

/// The bounds of each kind of loss. Bytes and commands have one only if nothing is lost: a sync
/// covers any number of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Proved {
    pub syncs: Bound,
    pub bytes: Bound,
    pub commands: Bound,
    /// Age of the oldest, nanoseconds.
    pub age_ns: Bound,
}

impl Proved {
    /// Reads what [`crate::check::Proved::power_loss`] says; none if it names no bound.
    pub fn read(text: &str) -> Option<Self> {
        let all = |bound| Self { syncs: bound, bytes: bound, commands: bound, age_ns: bound };
        if text == "nothing" {
            return Some(all(Bound::At(0)));
        }
        let none = all(Bound::Unbounded);
        if let Some(rest) = text.strip_prefix("any number of syncs") {
            return Some(Self { age_ns: age(rest.strip_prefix(" of the last "))?, ..none });
        }
        let (most, rest) = text.strip_prefix("at most ")?.split_once(" sync")?;
        let rest = rest.strip_prefix('s').unwrap_or(rest);
        let (default, rest) = match rest.strip_prefix(" (") {
            Some(rest) => rest.split_once(" by default)").map(|(n, rest)| (Some(n), rest))?,
            None => (None, rest),
        };
        let syncs = default.unwrap_or(most).parse().ok()?;
        Some(Self { syncs: Bound::At(syncs), age_ns: age(rest.strip_prefix(" and "))?, ..none })
    }
}

/// `50ms`. Nothing is no bound; what is no duration is none.
fn age(text: Option<&str>) -> Option<Bound> {
    let Some(text) = text else { return Some(Bound::Unbounded) };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let suffix = Suffix::ALL.into_iter().find(|s| Some(s.text()) == text.strip_prefix(digits))?;
    digits.parse::<u64>().ok()?.checked_mul(suffix.scale()).map(Bound::At)
}

#[cfg(test)]
mod tests {
    use super::*;
    use durac_grammar::Sources;

    /// What was proved of a policy, in words and read again; none if no runtime can run it.
    fn proved(text: &str) -> Option<(String, Option<Proved>)> {
        let mut sources = Sources::new();
        let file = sources.add("test.dur", text);
        let policy = durac_compiler::analyse(&mut sources, file, "test").policy.unwrap();
        let (proved, _) = crate::check::compile(&policy, &sources, file);
        let text = proved?.power_loss().to_owned();
        let read = Proved::read(&text);
        Some((text, read))
    }

    #[test]
    fn ready_policies_read_as_they_were_proved() {
        let at = |syncs, age_ns| (syncs, age_ns);
        let (one, none) = (Bound::At(1), Bound::Unbounded);
        for (name, bounds) in [
            ("always", at(Bound::At(0), Bound::At(0))),
            ("delayed_fsync", at(one, none)),
            ("fast_notify", at(one, none)),
            ("window", at(Bound::At(64), Bound::At(50_000_000))),
            ("adaptive", at(Bound::At(1024), none)),
            ("everysec", at(none, Bound::At(1_000_000_000))),
            ("no", at(none, none)),
        ] {
            let ready = durac_stdlib::policy(name).unwrap();
            let (text, read) = proved(ready.text).unwrap();
            assert_eq!(read.map(|p| (p.syncs, p.age_ns)), Some(bounds), "{name}: {text}");
        }
    }

    #[test]
    fn every_form_of_the_text() {
        let parameter = "param n: syncs = 8 in 1..=64\n";
        let two = "param n: syncs = 8 in 1..=64\nparam m: syncs = 4 in 1..=64\n";
        let cases = [
            ("on fdatasync: await previous; defer".to_owned(), Bound::At(1)),
            (format!("{parameter}on fdatasync: await pending < 2 * n + 1; defer"), Bound::At(17)),
            (
                format!(
                    "{two}on fdatasync {{ if child.active {{ await pending < n }} \
                     else {{ await pending < m }}\n defer }}"
                ),
                Bound::At(8),
            ),
            ("on fdatasync: skip".to_owned(), Bound::Unbounded),
        ];
        for (text, syncs) in cases {
            let (words, read) = proved(&text).unwrap();
            assert_eq!(read.map(|p| p.syncs), Some(syncs), "{words}");
        }
    }

    #[test]
    fn what_is_no_bound_is_none() {
        for text in ["", "not known in this runtime", "at most", "at most many syncs"] {
            assert_eq!(Proved::read(text), None, "{text}");
        }
    }
}
