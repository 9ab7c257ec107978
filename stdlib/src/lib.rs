//! The targets and ready policies that come with durac, written in the policy language itself.
//!
//! A leaf crate: texts only. Architecture invariant: nothing here is known to the compiler by
//! name; a user's file can say all that these files say.

/// A text that comes with durac.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text {
    /// The name it is used by: `redis.aof`, `window`.
    pub name: &'static str,
    /// The file name it is shown by in diagnostics.
    pub file: &'static str,
    /// The text.
    pub text: &'static str,
}

macro_rules! texts {
    ($($name:literal => $file:literal),* $(,)?) => {
        &[$(Text {
            name: $name,
            file: concat!("<stdlib>/", $file),
            text: include_str!(concat!("../", $file)),
        }),*]
    };
}

/// The targets, by name.
pub const TARGETS: &[Text] = texts! {
    "influxdb.wal" => "targets/influxdb.dur",
    "leveldb.log" => "targets/leveldb.dur",
    "posix.log" => "targets/posix.dur",
    "redis.aof" => "targets/redis.dur",
    "redis.patched" => "targets/redis_patched.dur",
    "rocksdb.wal" => "targets/rocksdb.dur",
    "sqlite.wal" => "targets/sqlite.dur",
    "valkey.aof" => "targets/valkey.dur",
};

/// The policies, from the safest to the fastest.
pub const POLICIES: &[Text] = texts! {
    "always" => "policies/always.dur",
    "delayed_fsync" => "policies/delayed_fsync.dur",
    "fast_notify" => "policies/fast_notify.dur",
    "window" => "policies/window.dur",
    "updates" => "policies/updates.dur",
    "adaptive" => "policies/adaptive.dur",
    "batch" => "policies/batch.dur",
    "batch_process" => "policies/batch_process.dur",
    "everysec" => "policies/everysec.dur",
    "no" => "policies/no.dur",
    "at_least" => "policies/at_least.dur",
    "gathered" => "policies/gathered.dur",
    "external_synchrony" => "policies/external_synchrony.dur",
    "clean_reads" => "policies/clean_reads.dur",
};

/// The target a policy is for when it names none.
pub const DEFAULT_TARGET: &str = "redis.aof";

/// The text of the target `name`.
#[must_use]
pub fn target(name: &str) -> Option<Text> {
    TARGETS.iter().copied().find(|t| t.name == name)
}

/// The text of the policy `name`.
#[must_use]
pub fn policy(name: &str) -> Option<Text> {
    POLICIES.iter().copied().find(|t| t.name == name)
}

/// The first doc comment of a text: its `///` lines up to the first line that is none.
#[must_use]
pub fn summary(text: &str) -> String {
    text.lines()
        .map_while(|line| line.strip_prefix("///"))
        .map(str::trim)
        .collect::<Vec<_>>()
        .join(" ")
}
