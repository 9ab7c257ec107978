//! The environment variables between `durac run`, the agent and the administrator.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Environment variable with the path of the object the agent loads.
pub const ENV_OBJECT: &str = "DURAC_OBJECT";
/// Environment variable with the engine that writes what is staged, by its name; it comes before that
/// of the object.
pub const ENV_ENGINE: &str = "DURAC_ENGINE";
/// Environment variable with the path of the status file the agent makes; none if unset.
pub const ENV_STATUS: &str = "DURAC_STATUS";
/// Environment variable with the path of the ring (`durac_shm::ring`) to which the agent records
/// what happens on the logs; nothing is recorded if unset.
pub const ENV_RECORD: &str = "DURAC_RECORD";
/// Environment variable with where the agent's lines go: `stderr` (if unset), `syslog`, `journal`, or the path of a
/// file. `quiet` leaves only errors; both are written `quiet,syslog`.
pub const ENV_LOG: &str = "DURAC_LOG";
/// Environment variable with the descriptor of the map of [`crate::notify`], and after a colon those
/// that keep its programs attached, separated by commas: `700:701,702`. All are inherited. `durac run`
/// makes it; for `durac run` itself, [`NOTIFY_OFF`] in it means that no program is loaded.
pub const ENV_NOTIFY: &str = "DURAC_NOTIFY";
/// Value of [`ENV_NOTIFY`] that the administrator may set.
pub const NOTIFY_OFF: &str = "off";
/// Environment variable for `durac run`: [`WATCH_OFF`] in it means that no process looks from outside at what
/// the command does.
pub const ENV_WATCH: &str = "DURAC_WATCH";
/// Environment variable with the number of the run: digits and dashes. `durac run` makes it; the agent maps memory
/// of that name ([`RUN_MARK`]), by which the process that looks from outside finds those that outlive the command.
pub const ENV_RUN: &str = "DURAC_RUN";
/// What the name of that memory begins with; the number of the run follows.
pub const RUN_MARK: &str = "durac-run-";
/// Value of [`ENV_WATCH`] that the administrator may set.
pub const WATCH_OFF: &str = "off";
/// Environment variable with the folder of the cache of proofs.
pub const ENV_CACHE: &str = "DURAC_CACHE";
/// Environment variable with the path of the agent's library.
pub const ENV_AGENT: &str = "DURAC_AGENT";
/// All of them.
pub const ENV_ALL: [&str; 10] = [
    ENV_OBJECT, ENV_ENGINE, ENV_STATUS, ENV_RECORD, ENV_LOG, ENV_NOTIFY, ENV_WATCH, ENV_CACHE,
    ENV_AGENT, ENV_RUN,
];
/// How the names of variables for the tests of durac begin.
const OF_TESTS: [&str; 7] = [
    "DURAC_TEST",
    "DURAC_FAULT",
    "DURAC_LOAD_",
    "DURAC_SOAK_",
    "DURAC_FUZZ_",
    "DURAC_BLESS",
    "DURAC_REDIS",
];

/// Whether a value of [`ENV_LOG`] asks for errors only.
#[must_use]
pub fn is_quiet(value: &OsStr) -> bool {
    // A path is the last word, and may have commas.
    let mut words = value.as_bytes().split(|byte| *byte == b',');
    words.by_ref().take_while(|word| !word.starts_with(b"/")).any(|word| word == b"quiet")
}

/// Whether a variable has a name like durac's and is none of them: then it was misspelt.
#[must_use]
pub fn is_unknown_variable(name: &str) -> bool {
    name.starts_with("DURAC_")
        && !ENV_ALL.contains(&name)
        && !OF_TESTS.iter().any(|of_tests| name.starts_with(of_tests))
}

#[cfg(test)]
mod tests {
    use super::is_quiet;

    #[test]
    fn quiet_is_one_of_the_words() {
        for (value, quiet) in [
            ("quiet", true),
            ("quiet,syslog", true),
            ("syslog,quiet", true),
            ("quiet,/var/log/durac", true),
            ("", false),
            ("syslog", false),
            ("/var/log/durac,quiet", false),
            ("quietly", false),
        ] {
            assert_eq!(is_quiet(value.as_ref()), quiet, "{value}");
        }
    }
}
