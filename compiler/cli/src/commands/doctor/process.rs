//! A running process: is the agent in it, is it called, and do syncs reach a disk?

use super::{Findings, file_system, redis};
use crate::commands::top;
use crate::processes::{Supervisor, is_filtered, supervisor_of};
use durac_grammar::render::printable;
use durac_shm::status::{Snapshot, Status};
use durac_workload::columns::counted;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Looks at the process `pid`.
pub(super) fn look(pid: u32, findings: &mut Findings) {
    let proc = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}"));
    let Ok(name) = proc("comm") else {
        let about = format!("process {pid}");
        findings.wrong(&about, "does not run", "`durac top` lists the processes under a policy");
        return;
    };
    // It is started by way of `/proc/self/exe`.
    let name = match Status::of_process(pid, false) {
        Ok(status) if status.snapshot().is_supervisor => "supervisor".to_owned(),
        _ => name,
    };
    let about = format!("process {pid} ({})", printable(name.trim_end()));
    let maps = match proc("maps") {
        Ok(maps) => maps,
        Err(why) => {
            let user = rustix::process::geteuid().as_raw();
            let owner = fs::metadata(format!("/proc/{pid}")).map_or(user, |kind| kind.uid());
            if user != 0 && owner != user {
                let advice = "run durac as that user, or as root";
                findings.wrong(&about, "belongs to another user", advice);
            } else {
                let why = crate::output::reason(&why);
                findings.wrong(
                    &about,
                    format!("its memory map cannot be read: {why}"),
                    "run durac where the process may be looked at (ptrace(2)): with its capabilities or CAP_SYS_PTRACE, and \
                     in its user namespace",
                );
            }
            return;
        }
    };
    let agent = maps
        .lines()
        .find_map(|line| line.find('/').map(|at| &line[at..]).filter(|path| is_agent(path)));
    match agent {
        Some(path) => findings.ok(&about, format!("the agent is mapped: `{path}`")),
        // Tests link it into a program.
        None if Status::of_process(pid, false).is_ok() => {}
        None => without_agent(pid, &about, findings),
    }
    match Status::of_process(pid, false) {
        Ok(status) => {
            let seen = status.snapshot();
            let policy = printable(&seen.policy);
            findings.ok(&about, format!("policy {policy} on {}", printable(&seen.target)));
            if seen.is_off {
                findings.wrong(
                    &about,
                    "the policy is switched off",
                    match seen.stays_off {
                        true => "the supervisor's log says why; it is on again when the command is started again",
                        false => "`durac on` switches it on again",
                    },
                );
            }
            if seen.is_go {
                findings.wrong(
                    &about,
                    "the program is written in Go, whose own system calls the agent does not see",
                    "run it without a policy",
                );
            }
            if seen.unplaced > 0 {
                let found = match seen.unplaced {
                    1 => "a log was opened while too many were open: it runs without the policy"
                        .to_owned(),
                    more => format!(
                        "{more} times a log was opened while too many were open: it runs without the policy"
                    ),
                };
                findings.note(
                    &about,
                    found,
                    format!(
                        "at most {} logs can be open at once under a policy",
                        durac_abi::MAX_LOGS
                    ),
                );
            }
            if seen.beyond > 0 {
                let shown = seen.logs.iter().filter(|log| log.numbers.descriptors > 0).count();
                let all = seen.beyond.saturating_add(shown as u64);
                findings.note(
                    &about,
                    format!("{shown} of {all} logs shown"),
                    "the others run under the policy, too; the status page has no room for them",
                );
            }
            if seen.beyond == 0 || seen.logs.iter().any(|log| log.numbers.descriptors > 0) {
                logs(pid, &about, &seen, findings);
            }
        }
        Err(_) if agent.is_none() => {}
        Err(why) => {
            let why = top::unreadable(pid, &why);
            findings.failed(
                &about,
                &why,
                "see that it has opened its log, and that this user may look at it",
            );
        }
    }
    restrictions(&about, &proc("status").unwrap_or_default(), findings);
    let network = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
    match listens(&proc("cmdline").unwrap_or_default()) {
        None => {}
        Some(Listens::Nowhere(why)) => redis::unread(&about, why, findings),
        Some(Listens::Port(port)) if network(&pid.to_string()) == network("self") => {
            redis::running(&about, port, findings);
        }
        Some(Listens::Port(port)) => {
            let why = format!("its port {port} is in another network namespace");
            redis::unread(&about, &why, findings);
        }
    }
}

fn is_agent(path: &str) -> bool {
    path.contains("durac_preload.so") || path.contains("durac_faulty_preload.so")
}

fn without_agent(pid: u32, about: &str, findings: &mut Findings) {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let preloads = environment.split(|byte| *byte == 0).any(|entry| {
        entry.starts_with(b"LD_PRELOAD=") && is_agent(&String::from_utf8_lossy(entry))
    });
    let supervisor = supervisor_of(pid).filter(|_| !preloads);
    match supervisor {
        None => {}
        Some(Supervisor::OneOf(several)) if several.len() > 1 => {
            findings.note(
                about,
                "no agent is in it, and which of the supervisors it has, if one, is not known",
                "`durac top` lists them with what they serve: look at the one of this command",
            );
            return;
        }
        Some(supervisor) => {
            let (knows, condition) = match supervisor {
                Supervisor::Certain(_) => ("supervises it", ""),
                Supervisor::OneOf(_) => ("runs", "if it supervises this process, "),
            };
            let supervisor = supervisor.text();
            findings.note(
                about,
                format!("no agent is in it, and a supervisor {knows} as process {supervisor}"),
                format!(
                    "{condition}look at it: `durac doctor {supervisor}`, `durac top {supervisor}`"
                ),
            );
            return;
        }
    }
    let (found, advice) = if preloads {
        (
            "the agent is named in LD_PRELOAD and is not in the process: the dynamic linker left it out",
            "see that the process may read and map the library (NoExecPaths, noexec mounts), and that the program is \
             64-bit, dynamic and has no file capabilities",
        )
    } else {
        (
            "the agent is not in the process: no policy acts on it",
            "start it with `durac run POLICY -- …`, or `durac enable UNIT POLICY`",
        )
    };
    findings.wrong(about, found, advice);
}

/// What makes an application of this target write a log, and sync it.
fn settings(target: &str) -> (&'static str, &'static str) {
    match target.split('.').next() {
        Some("redis" | "valkey") => ("`appendonly yes`", "`appendfsync always`"),
        _ => ("the program's options", "the program's option for syncs"),
    }
}

/// Whether the policy can be about writes alone: then it promises a time, and no number of syncs.
fn may_need_no_sync(seen: &Snapshot) -> bool {
    let bound = &seen.bound.amounts;
    bound.syncs.is_none() && bound.within.is_some()
}

fn logs(pid: u32, about: &str, seen: &Snapshot, findings: &mut Findings) {
    let open: Vec<_> = seen.logs.iter().filter(|log| log.numbers.descriptors > 0).collect();
    let (writes, syncs) = settings(&seen.target);
    let files = "that the target's `files` cover it: `durac list targets`";
    match open.is_empty() {
        // It learns of a log by a sync call on it, or by its open or a write, if the policy is about writes.
        true if seen.is_supervisor => findings.wrong(
            about,
            "no log has come to the supervisor yet",
            format!("see that the program syncs its log ({syncs}), and {files}"),
        ),
        true => findings.wrong(
            about,
            "has no log open",
            format!("see that it writes one ({writes}), and {files}"),
        ),
        false => {}
    }
    for log in open {
        let path = printable(&log.path);
        let numbers = &log.numbers;
        // As the process sees it.
        let inside = Path::new(&log.path).strip_prefix("/").unwrap_or(Path::new(&log.path));
        let inside = Path::new("/proc").join(pid.to_string()).join("root").join(inside);
        if numbers.error != 0 {
            findings.wrong(
                about,
                format!("`{path}`: a sync failed (errno {}), and the log has stopped", numbers.error),
                "look at the disk; the log works again once the file is replaced (restart, BGREWRITEAOF)",
            );
        } else if numbers.calls == 0 && numbers.written == 0 && !is_written(seen.since, &inside) {
            findings.note(
                about,
                format!("`{path}`: nothing has been written yet"),
                "run this again after the application has written to it",
            );
        } else if numbers.calls == 0 && may_need_no_sync(seen) {
            findings.note(
                about,
                format!("`{path}` is written, and no sync call on it has reached the policy"),
                "a program that never syncs needs a policy about writes, such as `at_least`",
            );
        } else if numbers.calls == 0 {
            findings.wrong(
                about,
                format!("`{path}` is written, and no sync call on it has reached the policy"),
                format!("see that the application syncs each write ({syncs})"),
            );
        } else {
            findings.ok(
                about,
                format!(
                    "`{path}`: {}, {}",
                    counted(numbers.calls, "sync call"),
                    counted(numbers.syncs, "sync")
                ),
            );
        }
        if numbers.late > 0 || numbers.broken_assumptions > 0 {
            findings.note(
                about,
                format!(
                    "`{path}`: {} missed, {} longer than assumed",
                    counted(numbers.late, "deadline"),
                    counted(numbers.broken_assumptions, "sync")
                ),
                "the disk is slower than `assume sync` says: raise it, with `flush within`, and check again",
            );
        }
        if inside.exists() {
            file_system(about, Path::new(&log.path), &inside, findings);
        } else if !is_whole(&log.path) {
            findings.note(
                about,
                format!("`{path}`: its name cannot be shown as it is, and its file system was not looked at"),
                "see that it is on a disk of this machine",
            );
        } else {
            findings.note(
                about,
                format!("`{path}` is not found there any more, or this user may not look"),
                "run as its user or root, and see that it is on a disk of this machine",
            );
        }
    }
}

/// Whether a file has been written since the page was made, with counters at 0: most policies are not told of writes.
fn is_written(since: u64, file: &Path) -> bool {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let now = Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0));
    let age = now.saturating_sub(Duration::from_nanos(since));
    let since = SystemTime::now().checked_sub(age);
    let changed = fs::metadata(file).and_then(|kind| Ok((kind.modified()?, kind.len())));
    changed.is_ok_and(|(changed, len)| len > 0 && since.is_some_and(|since| changed > since))
}

/// Whether this is the path as it is: a status page has the last 128 bytes, and no bytes that are not UTF-8.
fn is_whole(path: &str) -> bool {
    path.starts_with('/') && !path.contains(|c: char| c.is_control() || c == '\u{fffd}')
}

/// Seccomp and privileges.
fn restrictions(about: &str, status: &str, findings: &mut Findings) {
    if is_filtered(status) {
        findings.note(
            about,
            "runs under a system call filter (seccomp)",
            "if a policy uses the kernel's counts or io_uring, see that bpf() or io_uring_setup() is allowed; without \
             them the agent does without",
        );
    } else {
        findings.ok(about, "no system call filter");
    }
}

/// Where a Redis listens.
#[derive(Debug, PartialEq, Eq)]
enum Listens {
    Port(u16),
    /// Nowhere that it could be asked at, and why.
    Nowhere(&'static str),
}

/// Where a Redis listens on this machine, as its title says; `None` for other programs.
fn listens(command_line: &str) -> Option<Listens> {
    let title = command_line.split('\0').next()?;
    let (program, rest) = title.split_once(' ').unwrap_or((title, ""));
    let program = program.rsplit('/').next()?;
    if !["redis-server", "valkey-server"].contains(&program) {
        return None;
    }
    let address = rest.split_whitespace().next().unwrap_or("");
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    Some(match port {
        _ if address.starts_with("unixsocket:") => Listens::Nowhere("it has no TCP port"),
        Some(0) => Listens::Nowhere("it has no TCP port"),
        Some(port) => Listens::Port(port),
        None => Listens::Nowhere("its title names no TCP port"),
    })
}

#[cfg(test)]
mod tests {
    use super::{Listens, is_whole, listens};

    #[test]
    fn names_that_cannot_be_shown() {
        assert!(is_whole("/var/lib/x.log") && is_whole("/ä b"));
        assert!(!is_whole("r/lib/x.log") && !is_whole("/a\nb") && !is_whole("/a\u{fffd}b"));
    }

    #[test]
    fn titles_of_redis() {
        assert_eq!(listens("/usr/bin/redis-server 127.0.0.1:6379\0"), Some(Listens::Port(6379)));
        assert_eq!(listens("redis-server *:7000 [cluster]\0"), Some(Listens::Port(7000)));
        let none = Some(Listens::Nowhere("it has no TCP port"));
        assert_eq!(listens("redis-server unixsocket:/run/redis.sock\0"), none);
        assert_eq!(listens("redis-server unixsocket:/run/a:6379\0"), none);
        assert_eq!(listens("redis-server *:0\0"), none);
        let none = Some(Listens::Nowhere("its title names no TCP port"));
        assert_eq!(listens("redis-server\0/etc/redis.conf\0"), none);
        assert_eq!(listens("postgres: writer 1:2\0"), None);
        assert_eq!(listens(""), None);
    }
}
