//! The names the language knows: readings, errors, failures; and "did you mean".

use crate::unit::Unit;
use durac_bpf::abi::Reading;

/// The readings, by the name they are written by.
pub const READINGS: &[(&str, Reading, Unit)] = &[
    ("pending", Reading::Pending, Unit::Syncs),
    ("pending.bytes", Reading::PendingBytes, Unit::Bytes),
    ("pending.age", Reading::PendingAge, Unit::Duration),
    ("staged", Reading::Staged, Unit::Syncs),
    ("sync.latency", Reading::SyncLatency, Unit::Duration),
    ("notify.done", Reading::NotifyDone, Unit::Bool),
    ("notify.count", Reading::NotifyCount, Unit::Count),
    ("child.active", Reading::ChildActive, Unit::Bool),
    ("now", Reading::Now, Unit::Duration),
    ("call.len", Reading::CallLen, Unit::Bytes),
];

/// Errors a policy may fail a call with: those the man pages of write(2) and fsync(2) list for a
/// regular file. The numbers are those of Linux (`include/uapi/asm-generic/errno-base.h`).
pub const ERRNOS: &[(&str, i32)] = &[
    ("EINTR", 4),
    ("EIO", 5),
    ("EAGAIN", 11),
    ("EFBIG", 27),
    ("ENOSPC", 28),
    ("EROFS", 30),
    ("EDQUOT", 122),
];

/// The reading that is written `name`.
#[must_use]
pub fn reading(name: &str) -> Option<(Reading, Unit)> {
    READINGS.iter().find(|(n, ..)| *n == name).map(|&(_, r, u)| (r, u))
}

/// The name a reading is written by; empty for one that is no word of the language.
#[must_use]
pub fn reading_name(reading: Reading) -> &'static str {
    READINGS.iter().find(|(_, r, _)| *r == reading).map_or("", |(n, ..)| n)
}

/// The candidate nearest to `name`, if one is near enough to be what was meant.
#[must_use]
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (name.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|c| (strsim::damerau_levenshtein(&name.to_lowercase(), &c.to_lowercase()), c))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, c)| c)
}

/// Help for an unknown name: the nearest candidate, else the list of all.
#[must_use]
pub fn suggest(name: &str, candidates: &[&str]) -> String {
    match nearest(name, candidates.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known are {}", list(candidates)),
    }
}

/// "`a`, `b` and `c`".
#[must_use]
pub fn list(names: &[&str]) -> String {
    match names {
        [] => "none".to_owned(),
        [one] => format!("`{one}`"),
        [rest @ .., last] => {
            let rest: Vec<_> = rest.iter().map(|n| format!("`{n}`")).collect();
            format!("{} and `{last}`", rest.join(", "))
        }
    }
}
