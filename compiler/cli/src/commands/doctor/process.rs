//! A running process: is the agent in it, is it called, and do syncs reach a disk?

use super::{Findings, file_system, redis};
use crate::commands::top;
use durac_grammar::render::printable;
use durac_shm::status::{LogStatus, Status};
use durac_workload::columns::counted;
use std::fs;
use std::path::Path;

/// Looks at the process `pid`.
pub(super) fn look(pid: u32, findings: &mut Findings) {
    let proc = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}"));
    let Ok(name) = proc("comm") else {
        let about = format!("process {pid}");
        findings.wrong(&about, "does not run", "`durac top` lists the processes under a policy");
        return;
    };
    let about = format!("process {pid} ({})", printable(name.trim_end()));
    let maps = match proc("maps") {
        Ok(maps) => maps,
        Err(_) => {
            findings.wrong(&about, "belongs to another user", "run durac as that user, or as root");
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
                    "`durac on` switches it on again",
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
                    1 => "1 log has no place in the status page".to_owned(),
                    more => format!("{more} logs have no place in the status page"),
                };
                findings.note(
                    &about,
                    found,
                    "they are under the policy, and `durac top` does not show them",
                );
            }
            logs(pid, &about, &seen.logs, findings);
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
    // It acts on processes that it has put under a filter.
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let supervisor = supervisor_of(pid).filter(|_| !preloads && is_filtered(&status));
    if let Some((supervisor, is_certain)) = supervisor {
        let (knows, condition) = match is_certain {
            true => ("supervises it", ""),
            false => ("runs", "if it supervises this process, "),
        };
        findings.note(
            about,
            format!("no agent is in it, and a supervisor {knows} as process {supervisor}"),
            format!("{condition}look at it: `durac doctor {supervisor}`, `durac top {supervisor}`"),
        );
        return;
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

/// The supervisor of a process, and whether it is known to be that: it has a descriptor of the command that it was started
/// for, from which the process descends. A process whose parents have ended may be any supervisor's.
fn supervisor_of(pid: u32) -> Option<(u32, bool)> {
    let supervisors: Vec<u32> = durac_shm::status::running()
        .into_iter()
        .map(|running| running.pid)
        .filter(|pid| {
            let command = fs::read_to_string(format!("/proc/{pid}/cmdline"));
            command.is_ok_and(|command| command.contains("supervise-command"))
        })
        .collect();
    let line: Vec<u32> = std::iter::successors(Some(pid), |pid| parent(*pid)).take(64).collect();
    let certain = supervisors.iter().find(|pid| commands(**pid).iter().any(|of| line.contains(of)));
    certain.map(|pid| (*pid, true)).or_else(|| Some((*supervisors.first()?, false)))
}

fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok();
    parent.filter(|parent| *parent > 1)
}

/// The processes that this one has descriptors of (pidfd_open(2)).
fn commands(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return Vec::new() };
    let texts = entries.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok());
    texts
        .filter_map(|text| {
            text.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
        })
        .collect()
}

fn logs(pid: u32, about: &str, logs: &[LogStatus], findings: &mut Findings) {
    let open: Vec<_> = logs.iter().filter(|log| log.numbers.descriptors > 0).collect();
    if open.is_empty() {
        findings.wrong(
            about,
            "has no log open",
            "see that it writes one (`appendonly yes`), and that the target's `files` cover it: `durac list targets`",
        );
    }
    for log in open {
        let path = printable(&log.path);
        let numbers = &log.numbers;
        if numbers.error != 0 {
            findings.wrong(
                about,
                format!("`{path}`: a sync failed (errno {}), and the log has stopped", numbers.error),
                "look at the disk; the log works again once the file is replaced (restart, BGREWRITEAOF)",
            );
        } else if numbers.calls == 0 && numbers.written == 0 {
            findings.note(
                about,
                format!("`{path}`: nothing has been written yet"),
                "look again once something was",
            );
        } else if numbers.calls == 0 {
            findings.wrong(
                about,
                format!("`{path}`: no sync call has reached the policy"),
                "see that the application syncs each write (`appendfsync always`)",
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
        // As the process sees it.
        let inside = Path::new(&log.path).strip_prefix("/").unwrap_or(Path::new(&log.path));
        let inside = Path::new("/proc").join(pid.to_string()).join("root").join(inside);
        if inside.exists() {
            file_system(about, Path::new(&log.path), &inside, findings);
        } else {
            findings.note(
                about,
                format!("`{path}` is not found there any more, or this user may not look"),
                "run as its user or root, and see that it is on a disk of this machine",
            );
        }
    }
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

/// Whether a process runs under seccomp, as its `/proc/PID/status` says.
fn is_filtered(status: &str) -> bool {
    let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
    mode.is_some_and(|mode| mode.trim() != "0")
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
    use super::{Listens, listens};

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
