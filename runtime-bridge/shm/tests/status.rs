//! The status page, as a file and as memory.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test that fails says so"
)]

use durac_shm::status::{Amounts, Answer, Command, Head, LogNumbers, ParamStatus, Status, create};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const HEAD: Head<'static> = Head {
    pid: 1,
    since: 7,
    policy: "window",
    target: "redis.aof",
    object: 0x0011_2233_4455_6677,
    loss: "at most n syncs",
    bound: Amounts { syncs: Some(64), updates: None, bytes: None, within: Some(50) },
    is_off: false,
};

fn param(name: &str, value: u64) -> ParamStatus {
    let (name, unit) = (name.into(), "syncs".into());
    ParamStatus { name, unit, value, default: 64, min: 1, max: 99 }
}

#[test]
fn a_reader_sees_what_the_agent_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("status");
    let made = create(Some(&path), 100).unwrap().page;
    assert!(Status::open(&path).is_err(), "no head yet");
    let param = param("n", 64);
    made.publish_file(2, &format!("/{}/ä/appendonly.aof", "x".repeat(200)), (7, 8));
    made.publish_log(2, LogNumbers { acknowledged: 9, durable: 5, ..LogNumbers::default() });
    made.publish_head(&HEAD, std::slice::from_ref(&param));

    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let status = Status::open(&path).unwrap();
    let seen = status.snapshot();
    assert_eq!((seen.pid, seen.since), (1, 7));
    assert_eq!((seen.policy.as_str(), seen.target.as_str()), ("window", "redis.aof"));
    assert_eq!(seen.object, HEAD.object);
    assert_eq!(seen.params, [param]);
    assert_eq!((seen.bound.text.as_str(), seen.bound.amounts), (HEAD.loss, HEAD.bound));
    assert!(!seen.is_off && seen.changes == 0);
    assert_eq!(seen.logs.len(), 1);
    assert!(seen.logs[0].path.ends_with("x/ä/appendonly.aof"), "{}", seen.logs[0].path);
    assert_eq!(seen.logs[0].numbers.pending(), 4);

    assert!(status.set_param("n", 5).is_err(), "mapped for reading");
    let writable = Status::open_writable(&path).unwrap();
    assert_eq!(writable.set_param("n", 1000).unwrap(), 99);
    assert_eq!(made.param(0), Some(99));
    assert!(writable.set_param("m", 1).is_err());
}

#[test]
fn a_file_of_a_running_process_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("status");
    create(Some(&path), 100).unwrap().page.publish_head(&HEAD, &[]);
    let error = create(Some(&path), 100).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
}

#[test]
fn what_was_left_behind_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("status");
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let dead = child.id();
    child.wait().unwrap();
    let me = std::process::id();
    let file = std::fs::File::open("/dev/null").unwrap();
    let other = std::os::fd::AsRawFd::as_raw_fd(&file);
    // Its process is gone, its descriptor is closed, its number is another file's.
    for target in [
        format!("/proc/{dead}/fd/7"),
        format!("/proc/{me}/fd/999"),
        format!("/proc/{me}/fd/{other}"),
    ] {
        std::os::unix::fs::symlink(target, &path).unwrap();
        assert!(Status::open(&path).is_err());
        let made = create(Some(&path), 100).unwrap();
        assert!(made.fd.unwrap() >= 100);
        made.page.publish_head(&HEAD, &[]);
        assert_eq!(Status::open(&path).unwrap().snapshot().pid, 1);
        std::fs::remove_file(&path).unwrap();
    }
}

/// A page that somebody cuts off would end its process.
#[test]
fn nobody_changes_its_size() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("status");
    let made = create(Some(&path), 100).unwrap();
    made.page.publish_head(&HEAD, &[]);
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    assert!(file.set_len(0).is_err() && file.set_len(1 << 30).is_err());
    assert!(std::fs::OpenOptions::new().write(true).truncate(true).open(&path).is_err());
    std::fs::remove_file(&path).unwrap();
    made.page.publish_log(0, LogNumbers { acknowledged: 9, ..LogNumbers::default() });
    assert_eq!(made.page.log(0).unwrap().acknowledged, 9);
}

#[test]
fn other_files_are_neither_read_nor_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("status");
    for content in [vec![], vec![0; 100], vec![0; 1 << 20]] {
        std::fs::write(&path, &content).unwrap();
        assert!(Status::open(&path).is_err());
        assert!(create(Some(&path), 100).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), content);
    }
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path().join("elsewhere"), &link).unwrap();
    assert!(create(Some(&link), 100).is_err());
    assert!(!dir.path().join("elsewhere").exists());
    assert!(Status::open(dir.path()).is_err());
}

#[test]
fn numbers_are_of_one_instant() {
    let page = create(None, 100).unwrap().page;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..200_000 {
                let numbers =
                    LogNumbers { acknowledged: n + 3, durable: n, ..LogNumbers::default() };
                page.publish_log(0, numbers);
            }
            stop.store(true, Ordering::Release);
        });
        while !stop.load(Ordering::Acquire) {
            if let Some(numbers) = page.log(0) {
                assert_eq!(numbers.pending(), 3);
            }
        }
    });
}

#[test]
fn a_page_without_a_path_is_found_by_its_process() {
    let pid = std::process::id();
    let made = create(None, 100).unwrap();
    assert!(made.fd.unwrap() >= 100);
    assert!(Status::of_process(pid, false).is_err(), "no head yet");
    made.page.publish_head(&Head { pid, policy: "of_process", ..HEAD }, &[]);
    let found = Status::of_process(pid, true).unwrap();
    assert_eq!(found.snapshot().policy, "of_process");
    let running = durac_shm::status::running();
    assert!(running.iter().any(|r| r.pid == pid && r.status.snapshot().policy == "of_process"));
    assert_eq!(
        Status::of_process(u32::MAX, false).unwrap_err().kind(),
        std::io::ErrorKind::NotFound
    );
}

/// A policy that is exchanged is read whole: never its name with another's parameters.
#[test]
fn a_policy_is_exchanged_in_one_piece() {
    let page = create(None, 100).unwrap().page;
    page.publish_head(&HEAD, &[param("n", 64)]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..20_000 {
                let (policy, name) =
                    if round % 2 == 0 { ("updates", "m") } else { ("window", "n") };
                page.publish_policy(&Head { policy, ..HEAD }, &[param(name, 1), param("z", 2)]);
            }
            stop.store(true, Ordering::Release);
        });
        while !stop.load(Ordering::Acquire) {
            let seen = page.snapshot();
            let name = if seen.policy == "updates" { "m" } else { "n" };
            assert_eq!(seen.params[0].name, name);
        }
    });
    page.publish_policy(&Head { is_off: true, ..HEAD }, &[]);
    let seen = page.snapshot();
    assert!(seen.is_off && seen.params.is_empty() && seen.changes == 20_001);
}

/// One tool at a time; a page that was mapped for reading is no way to it.
#[test]
fn the_control_has_one_holder() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("status");
    let made = create(Some(&path), 100).unwrap();
    made.page.publish_head(&HEAD, &[]);
    let kind = |status: std::io::Result<Status>| {
        let control = status.and_then(Status::control);
        control.map_err(|error| error.kind())
    };
    let denied = kind(Status::open(&path)).unwrap_err();
    assert_eq!(denied, std::io::ErrorKind::PermissionDenied);
    let held = kind(Status::open_writable(&path)).unwrap();
    let busy = kind(Status::open_writable(&path)).unwrap_err();
    assert_eq!(busy, std::io::ErrorKind::WouldBlock);
    let asks = Duration::from_secs(300);
    std::thread::scope(|scope| {
        let asker = scope.spawn(move || held.ask(Command::Off, b"xyz", asks));
        let control = made.control.unwrap();
        let request = loop {
            if let Some(request) = control.take() {
                break request;
            }
            std::thread::yield_now();
        };
        assert_eq!((request.command, request.bytes.as_slice()), (Some(Command::Off), &b"xyz"[..]));
        control.answer(&request, &Answer::Refused("no".into()));
        assert_eq!(asker.join().unwrap().unwrap(), Answer::Refused("no".into()));
    });
    // A child that another test forks has the lock, too, until it is another program.
    let end = Instant::now() + asks;
    while let Err(error) = kind(Status::open_writable(&path)) {
        assert_eq!(error, std::io::ErrorKind::WouldBlock);
        assert!(Instant::now() < end, "it is still held");
        std::thread::yield_now();
    }
}
