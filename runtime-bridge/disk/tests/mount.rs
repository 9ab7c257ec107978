//! The file system, mounted: what programs see, what a cut leaves, what fails. These tests need root
//! and `/dev/fuse`, as CI has them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use durac_disk::plan::{Effect, Fault};
use durac_disk::{Cut, Image, Mounted, Op, Plan, Power, SYNC, private_mounts};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// In a namespace of the test's thread: a mount goes away with it, however the process ends.
fn mounted(plan: Plan) -> Mounted {
    private_mounts().expect("a mount namespace: these tests need root");
    Mounted::new(Image::new(), plan).expect("FUSE: these tests need root and /dev/fuse")
}

fn read(path: PathBuf) -> String {
    let mut text = String::new();
    File::open(path).unwrap().read_to_string(&mut text).unwrap();
    text
}

fn appended(disk: &Mounted) -> File {
    OpenOptions::new().create(true).append(true).open(disk.join("log")).unwrap()
}

#[test]
fn programs_see_a_file_system() {
    let disk = mounted(Plan::default());
    fs::create_dir(disk.join("d")).unwrap();
    fs::write(disk.join("d/a"), "one").unwrap();
    let mut log = appended(&disk);
    log.write_all(b"x").unwrap();
    log.write_all(b"y").unwrap();
    fs::rename(disk.join("d/a"), disk.join("b")).unwrap();
    assert_eq!((read(disk.join("b")), read(disk.join("log"))), ("one".into(), "xy".into()));
    assert_eq!(fs::metadata(disk.join("log")).unwrap().len(), 2);
    log.set_len(1).unwrap();
    assert_eq!(read(disk.join("log")), "x");
    fs::remove_dir(disk.join("d")).unwrap();
    fs::remove_file(disk.join("b")).unwrap();
    assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 1);
    let path = disk.path().to_owned();
    drop(log);
    drop(disk);
    assert!(!path.exists(), "the folder is gone");
}

/// A namespace that is made while a disk is mounted has a copy of that mount. The disk's owner does not
/// wait for it.
#[test]
fn another_namespace_keeps_no_disk() {
    use std::sync::mpsc::channel;
    let (unmounted, is_unmounted) = channel();
    let (done, is_done) = channel::<()>();
    let owner = std::thread::spawn(move || {
        let disk = mounted(Plan::default());
        let (private, is_private) = channel();
        let other = std::thread::spawn(move || {
            private_mounts().unwrap();
            private.send(()).unwrap();
            // Until the owner has ended, or given up.
            let _ = is_done.recv();
        });
        is_private.recv().unwrap();
        drop(disk);
        unmounted.send(()).unwrap();
        other
    });
    let ended = is_unmounted.recv_timeout(Duration::from_secs(300));
    drop(done);
    assert_eq!(ended, Ok(()), "the disk is still mounted elsewhere");
    owner.join().unwrap().join().unwrap();
}

/// `fsync` through the `ioctl` of this file system.
fn sync_by_ioctl(file: &File) -> std::io::Result<()> {
    // SAFETY: this command takes no argument.
    match unsafe { libc::ioctl(file.as_raw_fd(), SYNC.into()) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// The sync takes an hour, unless the power goes.
#[test]
fn a_write_completes_while_a_sync_is_out() {
    let disk = mounted(Plan { latency: Duration::from_secs(3600), ..Plan::default() });
    let mut log = appended(&disk);
    log.write_all(b"before ").unwrap();
    let other = log.try_clone().unwrap();
    let sync = std::thread::spawn(move || sync_by_ioctl(&other));
    while disk.syncs() == 0 {
        std::thread::yield_now();
    }
    log.write_all(b"during").unwrap();
    assert_eq!((disk.writes(), disk.overlapping(), disk.syncs()), (2, 1, 1));
    assert!(!sync.is_finished());
    disk.cut();
    assert_eq!(sync.join().unwrap().unwrap_err().raw_os_error(), Some(libc::EIO));
    drop(log);
    let after = disk.after_cut(Cut::Clean, 1).unwrap();
    assert_eq!(after.unsynced.len(), 2);
}

#[test]
fn the_ioctl_syncs_and_others_are_refused() {
    let disk = mounted(Plan::default());
    let mut log = appended(&disk);
    log.write_all(b"synced").unwrap();
    sync_by_ioctl(&log).unwrap();
    // SAFETY: this command takes no argument.
    assert_eq!(unsafe { libc::ioctl(log.as_raw_fd(), (SYNC + 1).into()) }, -1);
    drop(log);
    assert!(disk.after_cut(Cut::Clean, 1).unwrap().unsynced.is_empty());
}

#[test]
fn a_write_with_o_dsync_is_durable_when_it_returns() {
    let disk = mounted(Plan::default());
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    let mut log = options.clone().custom_flags(libc::O_DSYNC).open(disk.join("log")).unwrap();
    log.write_all(b"synced ").unwrap();
    assert_eq!(disk.syncs(), 1);
    options.open(disk.join("log")).unwrap().write_all(b"not synced").unwrap();
    drop(log);
    assert_eq!(disk.after_cut(Cut::Clean, 1).unwrap().unsynced.len(), 1);
}

#[test]
fn a_file_may_have_two_names() {
    let disk = mounted(Plan::default());
    fs::write(disk.join("a"), "one").unwrap();
    fs::hard_link(disk.join("a"), disk.join("b")).unwrap();
    assert!(fs::hard_link(disk.join("a"), disk.join("b")).is_err());
    assert_eq!(fs::metadata(disk.join("a")).unwrap().nlink(), 2);
    fs::remove_file(disk.join("a")).unwrap();
    assert_eq!(read(disk.join("b")), "one");
}

#[test]
fn what_was_synced_survives() {
    let disk = mounted(Plan::default());
    let mut log = appended(&disk);
    log.write_all(b"synced ").unwrap();
    log.sync_data().unwrap();
    log.write_all(b"not synced").unwrap();
    disk.cut();
    assert!(log.write_all(b"!").is_err() && log.sync_all().is_err());
    drop(log);
    let after = disk.after_cut(Cut::Clean, 1).unwrap();
    let lost: Vec<_> = after.unsynced.iter().map(|(p, w)| (p.as_str(), &w.bytes[..])).collect();
    assert_eq!(lost, [("/log", &b"not synced"[..])]);
    let disk = Mounted::new(after.image, Plan::default()).unwrap();
    assert_eq!(read(disk.join("log")), "synced ");
}

#[test]
fn a_kill_of_the_application_loses_nothing() {
    let disk = mounted(Plan::default());
    appended(&disk).write_all(b"written").unwrap();
    let disk = Mounted::new(disk.into_image().unwrap(), Plan::default()).unwrap();
    assert_eq!(read(disk.join("log")), "written");
}

#[test]
fn a_cut_in_the_middle_of_a_sync() {
    let disk = mounted(Plan { latency: Duration::from_millis(20), ..Plan::default() });
    let mut log = appended(&disk);
    log.write_all(b"a").unwrap();
    log.sync_data().unwrap();
    disk.cut_in_sync(0);
    log.write_all(b"b").unwrap();
    assert!(log.sync_data().is_err());
    assert_eq!(disk.power(), Power::Off);
    drop(log);
    let after = disk.after_cut(Cut::Clean, 1).unwrap();
    let disk = Mounted::new(after.image, Plan::default()).unwrap();
    assert_eq!(read(disk.join("log")), "a");
}

#[test]
fn a_stuck_sync_and_others_go_on() {
    let disk = mounted(Plan { latency: Duration::from_secs(3600), ..Plan::default() });
    let log = appended(&disk);
    std::thread::scope(|scope| {
        let sync = scope.spawn(|| log.sync_data().is_err());
        while disk.syncs() == 0 {
            std::thread::yield_now();
        }
        fs::write(disk.join("other"), "meanwhile").unwrap();
        assert_eq!(read(disk.join("other")), "meanwhile");
        disk.cut();
        assert!(sync.join().unwrap());
    });
}

#[test]
fn faults() {
    let fault = |op, after, times, effect| Fault { op, path: "log".into(), after, times, effect };
    let disk = mounted(Plan {
        faults: vec![
            fault(Op::Sync, 1, Some(1), Effect::Fail(libc::EIO)),
            fault(Op::Write, 2, Some(1), Effect::Short),
            fault(Op::Write, 3, None, Effect::Fail(libc::ENOSPC)),
        ],
        ..Plan::default()
    });
    let mut log = appended(&disk);
    log.write_all(b"aa").unwrap();
    log.sync_data().unwrap();
    log.write_all(b"bb").unwrap();
    assert_eq!(log.sync_data().unwrap_err().raw_os_error(), Some(libc::EIO));
    // It succeeds, and what the failed one had is lost all the same.
    log.sync_data().unwrap();
    assert_eq!(log.write(b"cccc").unwrap(), 2);
    assert_eq!(log.write(b"dd").unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    fs::write(disk.join("other"), "fine").unwrap();
    drop(log);
    let after = disk.after_cut(Cut::Clean, 1).unwrap();
    assert_eq!(after.unsynced.len(), 3, "{:?}", after.unsynced);
}

#[test]
fn a_full_disk() {
    let disk = mounted(Plan { room: Some(10), ..Plan::default() });
    let mut log = appended(&disk);
    log.write_all(b"12345678").unwrap();
    assert_eq!(log.write(b"abcd").unwrap(), 2);
    assert_eq!(log.write(b"cd").unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    assert_eq!(read(disk.join("log")), "12345678ab");
}

/// A cut kills the process that it is told to. The end of the disk does not: whoever started the process may have waited for
/// it by then, and its number be another's.
#[test]
fn only_a_cut_kills() {
    let sleeps = || {
        let mut command = std::process::Command::new("sleep");
        command.arg("600").stdin(std::process::Stdio::null()).spawn().unwrap()
    };
    let mut child = sleeps();
    let disk = mounted(Plan::default());
    disk.kills(child.id());
    drop(disk);
    assert!(child.try_wait().unwrap().is_none(), "the end of the disk has killed a process");
    let disk = mounted(Plan::default());
    disk.kills(child.id());
    disk.cut();
    assert!(!child.wait().unwrap().success());
}

/// A process that is killed leaves no mount. Run again by itself, this test is that process.
#[test]
fn a_killed_process_leaves_no_mount() {
    const HOLDS: &str = "DURAC_TEST_HOLDS";
    if let Some(out) = std::env::var_os(HOLDS) {
        let disk = mounted(Plan::default());
        fs::write(disk.join("held"), "x").unwrap();
        let out = PathBuf::from(out);
        fs::write(out.with_extension("new"), disk.path().to_str().unwrap()).unwrap();
        fs::rename(out.with_extension("new"), &out).unwrap();
        // Until it is killed, or nobody is left to do that.
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("path");
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_killed_process_leaves_no_mount"])
        .env(HOLDS, &out)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while !out.exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it had mounted anything");
        std::thread::yield_now();
    }
    let path = PathBuf::from(fs::read_to_string(&out).unwrap());
    let is_mounted = || {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts.contains(path.to_str().unwrap())
    };
    assert!(!is_mounted() && !path.join("held").exists(), "others see the mount");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!is_mounted() && fs::read_dir(&path).unwrap().next().is_none());
    fs::remove_dir(&path).unwrap();
}

/// A child that a killed server has left behind still has a file open.
#[test]
fn unmounting_waits_for_who_is_still_there() {
    let disk = mounted(Plan::default());
    let file = File::create(disk.join("held")).unwrap();
    let let_go = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The disk is probably asked to unmount meanwhile.
            std::thread::sleep(Duration::from_millis(200));
            let_go.store(true, Ordering::SeqCst);
            drop(file);
        });
        disk.into_image().unwrap();
        assert!(let_go.load(Ordering::SeqCst), "unmounted under an open file");
    });
}
