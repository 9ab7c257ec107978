//! `durac doctor`: what keeps a policy from having an effect here, and what to do about it.
//!
//! Looks and changes nothing. Each check gives one line; one that found something to mend also says how.

mod machine;
mod process;
mod redis;

use crate::args::Global;
use crate::cache::Cache;
use crate::named::{Named, Settings};
use crate::{Outcome, input, output, processes};
use anyhow::Result;
use clap::Args as ClapArgs;
use durac_abi::Runtime;
use durac_driver::report::report;
use durac_grammar::render::printable;
use serde::Serialize;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Find out what keeps a policy from having an effect
///
/// Looks at this machine, and at what is named: a running process, the configuration file of a Redis, or a policy.
/// Each line says what was found, and what to do about it. Exits with 1 if something must be mended.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  durac doctor\n  durac doctor 4711\n  durac doctor :6379\n  durac doctor /etc/redis/redis.conf\n  durac \
                  doctor window"
)]
pub struct Doctor {
    /// A process, by number or by directory and port, the path of a redis.conf, a policy file or the name of a ready policy; several can be given
    /// [default: this machine and every process under a policy]
    #[arg(value_name = "WHAT", value_parser = crate::args::word())]
    what: Vec<String>,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// As it should be.
    Ok,
    /// Worth knowing; a policy has its effect all the same.
    Note,
    /// A policy has no effect, or less than it says.
    Wrong,
}

/// What one check found.
#[derive(Debug, Serialize)]
struct Finding {
    /// What was looked at.
    about: String,
    state: State,
    found: String,
    /// What to do.
    #[serde(rename = "do")]
    advice: Option<String>,
}

/// The widest first column.
const WIDEST: usize = 60;

/// What all checks found.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, about: &str, state: State, found: impl Into<String>, advice: Option<String>) {
        let found = printable(&found.into());
        self.0.push(Finding { about: about.to_owned(), state, found, advice });
    }

    fn ok(&mut self, about: &str, found: impl Into<String>) {
        self.add(about, State::Ok, found, None);
    }

    fn note(&mut self, about: &str, found: impl Into<String>, advice: impl Into<String>) {
        self.add(about, State::Note, found, Some(advice.into()));
    }

    fn wrong(&mut self, about: &str, found: impl Into<String>, advice: impl Into<String>) {
        self.add(about, State::Wrong, found, Some(advice.into()));
    }

    /// An error of another part of durac, which says what to do itself.
    fn failed(&mut self, about: &str, why: &anyhow::Error, advice: &str) {
        self.wrong(about, format!("{why:#}"), advice);
    }
}

/// Makes the checks and prints what they found.
pub fn run(args: &Doctor, global: &Global) -> Result<Outcome> {
    let mut findings = Findings::default();
    if args.what.is_empty() {
        machine::look(&mut findings);
        let running = durac_shm::status::running();
        if running.is_empty() {
            findings.note(
                "processes",
                "none runs under a policy that this user can see",
                "start one with `durac run window -- redis-server …`, or `durac enable` a systemd unit",
            );
        }
        running.iter().for_each(|running| process::look(running.pid, &mut findings));
        for (unit, pid) in super::enable::running() {
            if running.iter().all(|running| running.pid != pid) {
                findings.wrong(
                    &format!("unit {unit}"),
                    format!("has a policy by `durac enable`, and its process {pid} shows none"),
                    format!("see `durac doctor {pid}`, and its journal: `journalctl -u {unit}`"),
                );
            }
        }
    }
    for what in &args.what {
        match what.parse::<u32>() {
            Ok(pid) => process::look(pid, &mut findings),
            Err(_) if processes::is_place(what) => {
                for pid in processes::named(std::slice::from_ref(what))? {
                    process::look(pid, &mut findings);
                }
            }
            // A pipe may never end.
            Err(_) if std::fs::metadata(what).is_ok_and(|kind| !kind.is_file()) => {
                findings.wrong(what, "is not a file", "name a policy, a redis.conf or a process");
            }
            Err(_) if redis::is_config(Path::new(what)) => {
                redis::look(Path::new(what), &mut findings);
            }
            Err(_) => policy(what, &mut findings, global),
        }
    }
    let ok = findings.0.iter().all(|finding| finding.state != State::Wrong);
    if global.is_json() {
        global.document.put_field("findings", &findings.0)?;
    } else {
        output::print(&table(&findings.0))?;
    }
    Ok(if ok { Outcome::Fine } else { Outcome::Wrong })
}

fn table(findings: &[Finding]) -> String {
    let width = findings.iter().map(|f| f.about.chars().count()).max().unwrap_or(0).min(WIDEST);
    let mut out = String::new();
    for Finding { about, state, found, advice } in findings {
        let mark = match state {
            State::Ok => "ok   ",
            State::Note => "note ",
            State::Wrong => "wrong",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{mark}  {about:<width$}  {found}");
        if let Some(advice) = advice {
            let _ = writeln!(out, "{:1$}  → {advice}", "", width + 7);
        }
    }
    out
}

/// What a policy needs here, and whether a start of it would wait for a proof.
fn policy(what: &str, findings: &mut Findings, global: &Global) {
    let named = Named::from(what);
    let (file, sets) = (named.path(), named.settings(&Settings::default()));
    let about = format!("policy {what}");
    let Some(read) = input::read(file, global) else {
        let advice = "the message on standard error (in JSON: `diagnostics`) says why";
        findings.wrong(&about, "cannot be read", advice);
        return;
    };
    let known = Cache::open().is_some_and(|cache| {
        let key = crate::cache::Key {
            text: read.sources.text(read.file),
            name: read.sources.name(read.file),
            stem: &read.stem,
            settings: &sets,
            runtime: Runtime::Agent,
        };
        cache.place(&key).is_some_and(|place| place.path().is_file())
    });
    let deployment = input::Deployment::default();
    let checked = match input::compile_read(read, &sets, deployment, true, global) {
        Ok(checked) => checked,
        Err(why) => return findings.failed(&about, &why, "correct the setting"),
    };
    let Some((_, policy, compiled)) = checked else {
        let advice = "the messages on standard error (in JSON: `diagnostics`) say what to correct";
        findings.wrong(&about, "is wrong", advice);
        return;
    };
    let Some(proved) = compiled.proved else {
        findings.wrong(&about, "no runtime can run it yet", "`durac list` shows those that run");
        return;
    };
    for line in report(&policy, &proved.proof).iter().filter(|line| line.contains("loses on")) {
        findings.ok(&about, line.trim());
    }
    if known {
        findings.ok(&about, "is in the cache: `durac run` proves nothing at its next start");
    } else {
        findings.note(
            &about,
            "is not in the cache: `durac run` proves it at its next start",
            format!(
                "to start without: `durac compile {what} -o policy.o`, then `durac run policy.o`"
            ),
        );
    }
    let meta = &proved.object.meta;
    if let Some(sync) = meta.assume_sync {
        let sync = durac_core::unit::show(sync, durac_core::unit::Unit::Duration);
        findings.note(
            &about,
            format!("assumes that a sync takes at most {sync}"),
            "compare with the column `sync µs` of `durac top`, or record the application: `durac record`",
        );
    }
    if !proved.object.kernel.is_empty() {
        machine::notify(&about, "kernel notify: ", findings);
    }
    if meta.stages() && meta.engine == Some(durac_abi::Engine::IoUring) {
        machine::io_uring(&about, "io_uring ", findings);
    }
}

/// The file system of `path`, which can be looked at as `seen`. Of what does not exist, only what is wrong with the place
/// where it would be is said.
fn file_system(about: &str, path: &Path, seen: &Path, findings: &mut Findings) {
    let mut existing: PathBuf = seen.to_owned();
    while !existing.exists() && existing.pop() {}
    let shown = path.display();
    if existing != seen {
        let found = match seen.symlink_metadata() {
            Err(why) if why.kind() == std::io::ErrorKind::PermissionDenied => {
                findings.note(
                    about,
                    format!("the file system of `{shown}` cannot be seen"),
                    "run as its user or root",
                );
                return;
            }
            _ => format!("`{shown}` does not exist"),
        };
        findings.wrong(about, found, "create it, accessible only to the application's user");
    }
    let Ok(stat) = rustix::fs::statfs(&existing) else {
        findings.note(
            about,
            format!("the file system of `{shown}` cannot be seen"),
            "run as its user or root",
        );
        return;
    };
    // Numbers of linux/magic.h.
    let magic = u64::try_from(stat.f_type).unwrap_or(0) & 0xffff_ffff;
    let (name, problem) = match magic {
        0x0102_1994 => ("tmpfs", Some("a power loss empties it")),
        0x8584_58f6 => ("ramfs", Some("a power loss empties it")),
        0x6969 => ("NFS", Some("what a sync means there is up to the server")),
        0xff53_4d42 | 0xfe53_4d42 | 0x517b => {
            ("SMB", Some("what a sync means there is up to the server"))
        }
        0x6573_5546 => ("FUSE", Some("what a sync means there is up to its program")),
        0x794c_7630 => ("overlayfs", None),
        0xef53 => ("ext2, ext3 or ext4", None),
        0x5846_5342 => ("XFS", None),
        0x9123_683e => ("btrfs", None),
        0x2fc1_2fc1 => ("ZFS", None),
        0xf2f5_2010 => ("F2FS", None),
        _ => ("an unknown file system", None),
    };
    match problem {
        Some(why) => findings.wrong(
            about,
            format!("`{shown}` is on {name}: {why}"),
            "move the data folder to a disk of this machine: no bound about power loss holds here",
        ),
        None if existing != seen => {}
        None if name.starts_with("an ") => findings.note(
            about,
            format!("`{shown}` is on {name} ({magic:#x})"),
            "see that its sync waits for the disk",
        ),
        None => findings.ok(about, format!("`{shown}` is on {name}")),
    }
}
