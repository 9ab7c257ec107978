//! The names the language knows: readings and errors; and help for those that it does not.

use crate::unit::Unit;
use durac_abi::Reading;
use durac_grammar::suggest::nearest;

/// The readings, by the name they are written by.
pub const READINGS: &[(&str, Reading, Unit)] = &[
    ("pending", Reading::Pending, Unit::Syncs),
    ("pending.bytes", Reading::PendingBytes, Unit::Bytes),
    ("pending.updates", Reading::PendingUpdates, Unit::Updates),
    ("pending.age", Reading::PendingAge, Unit::Duration),
    ("staged", Reading::Staged, Unit::Syncs),
    ("sync.latency", Reading::SyncLatency, Unit::Duration),
    ("notify.done", Reading::NotifyDone, Unit::Bool),
    ("notify.count", Reading::NotifyCount, Unit::Count),
    ("child.active", Reading::ChildActive, Unit::Bool),
    ("now", Reading::Now, Unit::Duration),
    ("call.len", Reading::CallLen, Unit::Bytes),
    ("call.updates", Reading::CallUpdates, Unit::Updates),
    ("ready", Reading::Ready, Unit::Count),
    ("reply.clean", Reading::ReplyClean, Unit::Bool),
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

/// What a reading says, as docs/language.md has it.
#[must_use]
pub fn meaning(reading: Reading) -> &'static str {
    match reading {
        Reading::Pending => {
            "calls before this one that are not durable; those that `fail` failed count too"
        }
        Reading::PendingBytes => {
            "written and not yet durable; in a sync call, those that it covers included"
        }
        Reading::PendingUpdates => "records written and not yet durable, counted in the same way",
        Reading::PendingAge => "age of the oldest acknowledged sync that is not durable",
        Reading::Staged => {
            "sync calls whose writes were staged and that are not durable; in a sync call, including this one"
        }
        Reading::SyncLatency => "how long the last completed sync took",
        Reading::NotifyDone => "a sync that began after this call's writes has succeeded",
        Reading::NotifyCount => "successful syncs of this log",
        Reading::ChildActive => {
            "a forked child of the application is running (a snapshot, a log rewrite)"
        }
        Reading::Now => "a monotonic clock",
        // Only the compiler reads it.
        Reading::Log => "the log that the call is on",
        Reading::CallLen => "bytes of this write; 0 for a sync",
        Reading::CallUpdates => "records that this write completes; 0 for a sync",
        Reading::Ready => {
            "descriptors that the event loop's wait has found ready; only in `on turn`"
        }
        Reading::ReplyClean => {
            "the reply depends on nothing that is not durable, for certain; only in `on reply`"
        }
    }
}

/// The name of a reading in the language; empty for one that has none.
#[must_use]
pub fn reading_name(reading: Reading) -> &'static str {
    READINGS.iter().find(|(_, r, _)| *r == reading).map_or("", |(n, ..)| n)
}

/// The type that is meant by one of another language, and what to write.
#[must_use]
pub fn type_meant(name: &str) -> Option<(&'static str, String)> {
    Some(match name.to_ascii_lowercase().as_str() {
        "int" | "integer" | "number" | "num" | "u32" | "u64" | "i32" | "i64" | "long"
        | "size_t" | "usize" | "counter" => (
            "count",
            "a type says what is counted: `syncs`, `bytes`, `updates`, or else `count`".to_owned(),
        ),
        "boolean" | "flag" => ("bool", "write `bool`".to_owned()),
        "time" | "ms" | "seconds" | "milliseconds" | "timeout" | "interval" => {
            ("duration", "write `duration`".to_owned())
        }
        "size" | "length" => ("bytes", "write `bytes`".to_owned()),
        "commands" | "records" | "operations" => ("updates", "write `updates`".to_owned()),
        _ => return None,
    })
}

/// Help for an unknown name: the nearest candidate, else all of them.
#[must_use]
pub fn suggest(name: &str, candidates: &[&str]) -> String {
    let last = |candidate: &&str| candidate.rsplit_once('.').is_some_and(|(_, last)| last == name);
    let near = nearest(name, candidates.iter().copied());
    match near.or_else(|| candidates.iter().copied().find(last)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("available: {}", list(candidates)),
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
