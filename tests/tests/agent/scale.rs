//! Many logs: memory and threads stay bounded, places are used again, and a log that finds no room, or no
//! thread, is as durable as without the agent.

use crate::common::{Done, Place, count, objects, poll, program};
use durac_abi::MAX_LOGS;
use durac_abi::Object;
use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

const LOGS: u64 = 10_000;
/// Syncer threads of a device, and the application's own.
const THREADS: u64 = 16 + 1;
/// Growth of the process in kB, of which the application's descriptors are a part.
const MEMORY: u64 = 16 << 10;

/// In memory, since thousands of syncs take a disk minutes; with `DURAC_TESTS_LONG`, on the disk.
fn place(object: &Object) -> Place {
    let memory = Path::new("/dev/shm");
    match std::env::var_os("DURAC_TESTS_LONG").is_none() && memory.exists() {
        true => Place::new_in(memory, object),
        false => Place::new(object),
    }
}

fn number(done: &Done, name: &str) -> u64 {
    let line = done.out.iter().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().parse().unwrap()
}

fn run(place: &Place, what: &str) -> Done {
    let running = place.start_program(&program("scale"), &format!("{what} {LOGS}"));
    let done = place.finish_within(running, Duration::from_secs(300));
    let facts = (&done.out, &done.err);
    assert_eq!((done.code, number(&done, "failed")), (0, 0), "{facts:?}");
    assert!((2..=THREADS).contains(&number(&done, "threads")), "{facts:?}");
    assert!(number(&done, "memory") < MEMORY, "{facts:?}");
    let opened = number(&done, "opened");
    for log in 0..opened {
        let text = std::fs::read_to_string(place.path(&format!("{log}.log"))).unwrap();
        assert_eq!(text, format!("{log}\n"));
    }
    // The disk has seen a sync of each.
    let synced: HashSet<&str> = done
        .calls
        .iter()
        .filter_map(|l| l.strip_prefix("-fdatasync ")?.split(' ').next())
        .collect();
    assert_eq!(synced.len() as u64, opened, "{facts:?}");
    done
}

#[test]
fn ten_thousand_logs_one_after_the_other() {
    let place = place(&objects::window(4));
    let done = run(&place, "turns");
    assert_eq!((number(&done, "opened"), done.err.as_str()), (LOGS, ""));
    // All of them had the policy: no sync before the one that the close waits for or makes.
    assert!(count(&done.calls, "-fdatasync") as u64 <= LOGS + LOGS / 10);
}

/// As many as descriptors are allowed. The first have the policy, the others are synced by their calls.
#[test]
fn ten_thousand_logs_at_once() {
    let place = place(&objects::window(4));
    let done = run(&place, "at-once");
    let (opened, room) = (number(&done, "opened"), u64::from(MAX_LOGS));
    assert!(done.err.lines().count() == usize::from(opened > room), "{}", done.err);
    let mut own = HashMap::new();
    for line in &done.calls {
        if let Some(name) = line.strip_suffix(" main 0") {
            *own.entry(name).or_insert(0) += 1;
        }
    }
    for log in room..opened {
        assert_eq!(own.get(format!("-fdatasync {log}.log").as_str()), Some(&2), "{log}");
    }
}

#[test]
fn logs_that_find_no_room_are_counted() {
    let place = Place::new(&objects::window(4)).with_status();
    let more = 3;
    let open = "open a wct x.log open b wct keep.log ".to_string();
    let names: String =
        (0..u64::from(MAX_LOGS) - 2 + more).map(|log| format!("open c wct {log}.log ")).collect();
    let child = place.start(&format!("nofile 5000 {open}{names} write a 1 sync a file go close a"));
    let status = place.status();
    poll("three logs too many", || (status.snapshot().unplaced == more).then_some(()));
    assert_eq!(status.snapshot().logs.len(), durac_shm::status::MAX_LOGS);
    place.touch("go");
    let done = place.finish(child);
    assert_eq!(done.err.lines().count(), 1, "{}", done.err);
    assert!(done.err.contains("run without a policy"), "{}", done.err);
}

/// Those beyond the places of the status page are counted while they are open.
#[test]
fn logs_without_a_place_in_the_page_are_counted() {
    let place = Place::new(&objects::window(4)).with_status();
    let shown = durac_shm::status::MAX_LOGS as u64;
    let names: String = (0..shown + 5).map(|log| format!("open c wct {log}.log ")).collect();
    let child = place.start(&format!("{names} open d wct d.log file go close d file done"));
    let status = place.status();
    poll("six more", || (status.snapshot().beyond == 6).then_some(()));
    place.touch("go");
    poll("five more", || (status.snapshot().beyond == 5).then_some(()));
    place.touch("done");
    assert_eq!(place.finish(child).code, 0);
}

/// Names of more logs than a device has syncer threads.
fn logs(start: &str) -> impl Iterator<Item = (char, String)> {
    ('a'..='t').map(move |name| (name, format!("{start}{name}.log")))
}

/// A staged write to each of them, whose deadlines fill the pool with syncs that hang.
fn hanging(calls: impl Fn(char) -> String) -> String {
    let all = logs("stuck-").map(|(n, path)| format!("open {n} wct {path} {} ", calls(n)));
    format!("stick stuck- {}", all.collect::<String>())
}

fn is_full(place: &Place) -> Option<()> {
    (count(&place.calls(), "+fdatasync stuck-") >= 16).then_some(())
}

/// Every syncer thread of the device hangs: what is written to another log is not left to them.
#[test]
fn a_stuck_disk_leaves_calls_to_themselves() {
    let place = Place::new(&objects::stage(Some(1_000_000))).env("SHIM_WRITES", "1");
    let child = place.start(&format!(
        "{} file go open z wct good.log write z 7 rawstat good.log write z 7 rawstat good.log \
         file done unstick",
        hanging(|n| format!("write {n} 1"))
    ));
    poll("a full pool", || is_full(&place));
    place.touch("go");
    let written = |bytes| (count(&place.calls(), "write good.log main") == bytes).then_some(());
    poll("two writes of its own", || written(2));
    assert_eq!(count(&place.calls(), "-fdatasync stuck-"), 0);
    place.touch("done");
    let done = place.finish(child);
    let sizes: Vec<&String> = done.out.iter().filter(|l| l.starts_with("rawstat")).collect();
    assert_eq!(sizes, ["rawstat good.log = 7", "rawstat good.log = 14"], "{done:?}");
    assert!(done.code == 0 && done.out.iter().all(|l| !l.contains("= -1")), "{done:?}");
    // At the end everything is written.
    for (_, path) in logs("stuck-") {
        assert_eq!(std::fs::read(place.path(&path)).unwrap().len(), 1);
    }
}

/// A log on another disk has threads of its own: its deadline is kept, whatever hangs.
#[test]
fn a_stuck_disk_takes_no_other_disks_deadline() {
    let place = Place::new(&objects::stage(Some(1_000_000)));
    let other = tempfile::tempdir_in("/dev/shm").unwrap();
    let device = |path: &Path| std::fs::metadata(path).unwrap().dev();
    assert_ne!(device(other.path()), device(Path::new(&place.path("."))), "/dev/shm is a disk");
    let child = place.start(&format!(
        "{} file go open z wct {}/good.log write z 1 file done unstick",
        hanging(|n| format!("write {n} 1")),
        other.path().display()
    ));
    poll("a full pool", || is_full(&place));
    place.touch("go");
    poll("its sync", || (count(&place.calls(), "-fdatasync good.log thread 0") == 1).then_some(()));
    assert_eq!(count(&place.calls(), "-fdatasync stuck-"), 0);
    place.touch("done");
    assert_eq!(place.finish(child).code, 0);
}

#[test]
fn the_agent_leaves_most_descriptors_to_the_application() {
    let place = Place::new(&objects::window(4));
    let names: String = (0..70).map(|log| format!("open c wct {log}.log ")).collect();
    let done = place.run(&format!("nofile 100 {names}"));
    assert_eq!(count(&done.out, "open"), 70);
    assert!(done.out.iter().all(|line| line.ends_with("= 0")), "{done:?}");
}
