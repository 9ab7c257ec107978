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
    /// Reads what [`crate::check::loss_text`] writes; none if it names no bound. Of a bound in terms of
    /// the parameters, this is its value with those that are set.
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
    use crate::check;
    use durac_bpf::object::Loss;
    use durac_grammar::Sources;

    /// What the object of a policy says of a power loss; none if this version does not compile it.
    fn note(text: &str) -> Option<Loss> {
        let mut sources = Sources::new();
        let file = sources.add("test.dur", text);
        let checked = check::check(&mut sources, file, "test");
        assert!(!checked.analysis.has_errors(), "{:#?}", checked.analysis.diagnostics);
        let loss = checked.proved?.object.meta.loss;
        loss.into_iter().find(|loss| loss.failure == "power_loss")
    }

    /// The words read as the numbers that the object has beside them.
    fn same(note: &Loss) {
        let proved = Proved::read(&note.text).expect(&note.text);
        let bound = |number: Option<u64>| number.map_or(Bound::Unbounded, Bound::At);
        assert_eq!((proved.syncs, proved.age_ns), (bound(note.syncs), bound(note.within)));
    }

    #[test]
    fn ready_policies() {
        let notes: Vec<Loss> = durac_stdlib::POLICIES.iter().filter_map(|p| note(p.text)).collect();
        assert!(notes.len() >= 7);
        notes.iter().for_each(same);
    }

    #[test]
    fn every_form_of_the_text() {
        let n = "param n: syncs = 8 in 1..=64\n";
        let m = "param m: syncs = 4 in 1..=64\n";
        let cases = [
            ("on fdatasync: pass".to_owned(), "nothing"),
            ("on fdatasync: await previous; defer".to_owned(), "at most 1 sync"),
            ("on fdatasync: await pending < 9; defer".to_owned(), "at most 9 syncs"),
            (
                format!("{n}on fdatasync: await pending < 2 * n + 1; defer\nflush within 9ms"),
                "at most 2 * n + 1 syncs (17 by default) and 9ms",
            ),
            (
                format!(
                    "{n}{m}on fdatasync {{ if child.active {{ await pending < n }} \
                     else {{ await pending < m }}\n defer }}"
                ),
                "at most the largest of n, m syncs (8 by default)",
            ),
            ("on fdatasync: skip".to_owned(), "any number of syncs"),
            (
                "on fdatasync: skip\nflush within 1s".to_owned(),
                "any number of syncs of the last 1s",
            ),
        ];
        for (policy, text) in cases {
            let note = note(&policy).unwrap();
            assert_eq!(note.text, text, "{policy}");
            same(&note);
        }
        // Greater for other values of the parameters, and not linear in them.
        let read = Proved::read("at most 6 syncs (1 by default) and 50us").unwrap();
        assert_eq!((read.syncs, read.age_ns), (Bound::At(1), Bound::At(50_000)));
    }

    #[test]
    fn what_is_no_bound_is_none() {
        for text in ["", "not known in this runtime", "at most", "at most many syncs"] {
            assert_eq!(Proved::read(text), None, "{text}");
        }
    }
}
