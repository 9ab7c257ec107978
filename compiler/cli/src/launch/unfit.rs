//! Programs that should not run under a policy, or that a policy does not reach: a warning when one is started.
//! `docs/where-not.md` and `docs/supervisor.md` have the reasons.

use std::path::Path;

/// Names of programs, and why.
const UNFIT: &[(&[&str], &str)] = &[
    (
        &["postgres", "postmaster", "pg_ctl", "pg_ctlcluster"],
        "its pages rely on syncs of its log; `synchronous_commit = off` is consistent and as fast",
    ),
    (
        &["etcd", "consul", "nats-server", "zookeeper", "cockroach", "tikv-server"],
        "a member of a cluster must not forget what it has acknowledged to the others",
    ),
    (
        &["mariadbd", "mysqld", "mysqld_safe"],
        "its redo log and its binary log are synced in turn, and each waits for the other: nothing is gained",
    ),
    (&["slapd"], "its pages rely on the order of syncs; LMDB has no log"),
];

/// Programs that have a service start others, which are no descendants of theirs.
const CLIENTS: &[&str] = &[
    "docker",
    "docker-compose",
    "nerdctl",
    "ctr",
    "crictl",
    "kubectl",
    "systemctl",
    "systemd-run",
    "service",
    "machinectl",
    "ssh",
];

/// What is known against a program under a policy; none if nothing is.
pub fn reason(program: &Path) -> Option<String> {
    let name = program.file_name()?.to_str()?;
    let shown = program.display();
    if CLIENTS.contains(&name) {
        return Some(format!(
            "`{shown}` asks a service to start a program, which is then not under the policy: run durac where the program runs (docs/supervisor.md)"
        ));
    }
    let (_, why) = UNFIT.iter().find(|(names, _)| names.contains(&name))?;
    Some(format!("`{shown}` should not run under a policy: {why} (docs/where-not.md)"))
}

/// Warns of such a program, unless only errors are wanted.
pub fn warn(program: &Path) {
    if let Some(why) = reason(program) {
        crate::log::info(&format!("warning: {why}"));
    }
}

#[cfg(test)]
mod tests {
    use super::reason;
    use std::path::Path;

    #[test]
    fn programs_are_known_by_their_names() {
        assert!(reason(Path::new("/usr/lib/postgresql/15/bin/postgres")).is_some());
        assert!(reason(Path::new("etcd")).is_some());
        assert!(reason(Path::new("/usr/bin/docker")).is_some_and(|why| why.contains("a service")));
        for other in ["/usr/bin/redis-server", "sqlite3", "/", "etcdctl", "podman", "runc"] {
            assert_eq!(reason(Path::new(other)), None, "{other}");
        }
    }
}
