//! The settings of a Redis: those in its configuration file, and those that a running one says it has.

use super::{Findings, file_system};
use crate::output;
use crate::redis_conf::{read, refused, text, value};
use durac_workload::Error;
use durac_workload::resp::Client;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

/// A Redis that does not answer for so long does not work.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// What to do about settings that were not read.
const SEE: &str = "see yourself that appendonly is yes and appendfsync is always";

/// Settings under which a policy has no effect, or less: name, what it must be, default, what to do.
const SETTINGS: [(&str, &str, &str, &str); 3] = [
    (
        "appendonly",
        "yes",
        "no",
        "set `appendonly yes` (`CONFIG SET appendonly yes` while it runs): without a log there is nothing to sync",
    ),
    (
        "appendfsync",
        "always",
        "everysec",
        "set `appendfsync always` (`CONFIG SET appendfsync always` while it runs): then Redis makes a sync call before \
         it replies, and the policy says what happens at it",
    ),
    (
        "no-appendfsync-on-rewrite",
        "no",
        "no",
        "set `no-appendfsync-on-rewrite no`: else Redis makes no sync calls while it rewrites its log",
    ),
];

/// Whether a file is a configuration of Redis and not a policy: by its name, or by a setting in it.
pub(super) fn is_config(path: &Path) -> bool {
    if path.extension().is_some_and(|extension| extension == "conf") {
        return true;
    }
    path.extension().is_none_or(|extension| extension != "dur")
        && text(path)
            .is_ok_and(|text| SETTINGS.iter().any(|(name, ..)| value(&text, name).is_some()))
}

/// Looks at a configuration file.
pub(super) fn look(path: &Path, findings: &mut Findings) {
    let about = path.display().to_string();
    let conf = match read(path) {
        Ok(conf) => conf,
        Err(why) => {
            let advice = match why.kind() {
                ErrorKind::NotFound => "name a file that exists",
                ErrorKind::PermissionDenied => "run as its user or root",
                _ => "see that it is a file that can be read",
            };
            findings.wrong(&about, format!("cannot be read: {}", output::reason(&why)), advice);
            return;
        }
    };
    let wrong = refused(&conf.text);
    for (line, why) in &wrong {
        let advice = "correct the line: Redis does not start with it";
        findings.wrong(&about, format!("`{line}`: {why}"), advice);
    }
    if !wrong.is_empty() {
        return;
    }
    // What is in it can change each of them.
    if !conf.unread.is_empty() {
        let names = SETTINGS.map(|(name, ..)| name).join(", ");
        let found =
            format!("unknown: {names} and dir; it includes {}, not read", conf.unread.join(", "));
        findings.note(&about, found, SEE);
        return;
    }
    let text = conf.text;
    settings(&about, |name| value(&text, name), findings);
    match value(&text, "dir") {
        Some(dir) if dir.starts_with('/') => {
            let dir = Path::new(&dir);
            file_system(&about, dir, dir, findings);
        }
        _ => findings.note(
            &about,
            "the data folder is not given as an absolute path",
            "set `dir` to it, so that it does not depend on where Redis is started",
        ),
    }
}

/// Looks at what a running Redis says.
pub(super) fn running(about: &str, port: u16, findings: &mut Findings) {
    let asked = Client::connect_within(port, ANSWER_WITHIN).and_then(|mut client| {
        let mut found = Vec::new();
        for (name, ..) in SETTINGS {
            let reply = client.command(&["CONFIG", "GET", name])?;
            found.push((name, last_text(&reply)));
        }
        Ok(found)
    });
    match asked {
        Ok(found) if found.iter().all(|(_, value)| value.is_some()) => {
            let get =
                |name: &str| found.iter().find(|(n, _)| *n == name).and_then(|(_, v)| v.clone());
            settings(about, get, findings);
        }
        Err(why) if is_late(&why) => findings.wrong(
            about,
            format!("port {port} does not answer within {} s: {why}", ANSWER_WITHIN.as_secs()),
            "see whether the process is stopped or its disk stands still",
        ),
        Err(why) => unread(about, &format!("port {port}: {}", refusal(&why)), findings),
        Ok(_) => {
            unread(about, &format!("port {port} does not say which are in force"), findings);
        }
    }
}

/// The settings of a Redis that runs could not be read: whether they are right is unknown.
pub(super) fn unread(about: &str, why: &str, findings: &mut Findings) {
    findings.note(about, format!("its settings were not read: {why}"), SEE);
}

/// Whether nothing came in time.
fn is_late(why: &Error) -> bool {
    let Error::Io { source, .. } = why else { return false };
    matches!(source.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

/// Why a Redis that runs does not say its settings.
fn refusal(why: &Error) -> String {
    match why {
        Error::Refused(text) if text.starts_with("NOAUTH") => "it needs a password".to_owned(),
        Error::Refused(text) if text.starts_with("NOPERM") => {
            "its default user may not call CONFIG".to_owned()
        }
        Error::Refused(text) if text.to_ascii_lowercase().contains("unknown command") => {
            "it has no CONFIG".to_owned()
        }
        why => why.to_string(),
    }
}

fn last_text(reply: &durac_workload::resp::Reply) -> Option<String> {
    match reply {
        durac_workload::resp::Reply::Array(all) => match all.last()? {
            durac_workload::resp::Reply::Bulk(Some(bytes)) => {
                Some(String::from_utf8_lossy(bytes).into_owned())
            }
            _ => None,
        },
        _ => None,
    }
}

fn settings(about: &str, get: impl Fn(&str) -> Option<String>, findings: &mut Findings) {
    for (name, needed, default, advice) in SETTINGS {
        let found = get(name).unwrap_or_else(|| default.to_owned());
        if found.eq_ignore_ascii_case(needed) {
            findings.ok(about, format!("{name} {found}"));
        } else {
            findings.wrong(about, format!("{name} {found}"), advice);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{is_late, refusal};
    use durac_workload::Error;
    use std::io::{self, ErrorKind};

    #[test]
    fn a_refusal_is_no_silence() {
        let refused = |text: &str| Error::Refused(text.to_owned());
        let all = [
            ("NOAUTH Authentication required.", "it needs a password"),
            ("NOPERM this user has no permissions", "its default user may not call CONFIG"),
            ("ERR unknown command 'CONFIG', with args", "it has no CONFIG"),
            ("ERR unknown command `CONFIG`, with args", "it has no CONFIG"),
            ("ERR max number of clients reached", "the database returned an error: ERR max"),
        ];
        for (text, reason) in all {
            let why = refused(text);
            assert!(!is_late(&why) && refusal(&why).starts_with(reason), "{text}");
        }
        let failed = |kind: ErrorKind| Error::Io { what: "read".to_owned(), source: kind.into() };
        assert!(is_late(&failed(ErrorKind::WouldBlock)) && is_late(&failed(ErrorKind::TimedOut)));
        let closed = Error::Io { what: "read".to_owned(), source: io::Error::other("closed") };
        assert!(!is_late(&failed(ErrorKind::ConnectionRefused)) && !is_late(&closed));
    }
}
