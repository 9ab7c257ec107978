//! Programs that should not run under a policy: a warning when one is started. `docs/where-not.md` has the reasons.

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

/// Why a program should not run under a policy; none if nothing is known against it.
pub fn reason(program: &Path) -> Option<&'static str> {
    let name = program.file_name()?.to_str()?;
    UNFIT.iter().find(|(names, _)| names.contains(&name)).map(|(_, why)| *why)
}

/// Warns of such a program, unless `DURAC_LOG` is `quiet`.
pub fn warn(program: &Path) {
    let quiet = std::env::var_os(durac_abi::ENV_LOG).is_some_and(|value| value == "quiet");
    if let Some(why) = reason(program).filter(|_| !quiet) {
        let shown = program.display();
        crate::output::error(&format!(
            "warning: `{shown}` should not run under a policy: {why} (docs/where-not.md)"
        ));
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
        for other in ["/usr/bin/redis-server", "sqlite3", "/", "etcdctl"] {
            assert_eq!(reason(Path::new(other)), None, "{other}");
        }
    }
}
