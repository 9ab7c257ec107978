//! The settings of a Redis: those in its configuration file, and those that a running one says it has.

use super::{Findings, file_system};
use crate::redis_conf::{text, value};
use durac_workload::resp::Client;
use std::path::Path;
use std::time::Duration;

/// A Redis that does not answer for so long does not work.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

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
    let text = match text(path) {
        Ok(text) => text,
        Err(why) => {
            findings.wrong(&about, format!("cannot be read: {why}"), "run as its user or root");
            return;
        }
    };
    settings(&about, |name| value(&text, name), findings);
    if value(&text, "include").is_some() {
        findings.note(&about, "includes other files, which were not read", "look at them, too");
    }
    match value(&text, "dir") {
        Some(dir) if dir.starts_with('/') => file_system(&about, Path::new(&dir), findings),
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
        Err(why) => findings.wrong(
            about,
            format!("port {port} does not answer within {} s: {why}", ANSWER_WITHIN.as_secs()),
            "see whether the process is stopped or its disk stands still",
        ),
        Ok(_) => findings.note(
            about,
            format!("port {port} does not say which settings are in force"),
            "compare yourself: `redis-cli CONFIG GET append*`",
        ),
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
