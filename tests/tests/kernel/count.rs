//! What the programs count: every sync of the watched file that succeeds, and nothing else.

use crate::common::{Counts, PLACES, loaded};
use durac_abi::notify::Word::{Completed, Ended, Failed, Proved, Started};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::thread;

/// A folder on ext4: `target` is where the tests build.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut kind = std::mem::MaybeUninit::<libc::statfs>::uninit();
    let probe = File::open(dir.path()).unwrap();
    // SAFETY: an open descriptor, and room for the answer.
    let kind = unsafe {
        assert_eq!(libc::fstatfs(probe.as_raw_fd(), kind.as_mut_ptr()), 0);
        kind.assume_init()
    };
    assert_eq!(kind.f_type, 0xef53, "this test needs its target folder on ext4");
    dir
}

fn log(dir: &Path, name: &str) -> File {
    OpenOptions::new().create(true).append(true).open(dir.join(name)).unwrap()
}

#[test]
fn every_success_is_counted_under_load_and_no_other_file() {
    const THREADS: u64 = 4;
    const EACH: u64 = 60;
    for attach in PLACES {
        let (notify, dir) = (loaded(attach), folder());
        let watched = log(dir.path(), "watched");
        let counts = Counts::of(&notify, &watched);
        thread::scope(|scope| {
            for number in 0..THREADS {
                let (path, mut own) = (dir.path(), watched.try_clone().unwrap());
                scope.spawn(move || {
                    // Half of them through a descriptor of their own.
                    let mut file = log(path, "watched");
                    for round in 0..EACH {
                        let file = if number % 2 == 0 { &mut own } else { &mut file };
                        file.write_all(b"record\n").unwrap();
                        if round % 3 == 0 {
                            file.sync_all().unwrap()
                        } else {
                            file.sync_data().unwrap()
                        }
                    }
                });
                scope.spawn(move || {
                    let mut other = log(path, &format!("other{number}"));
                    for _ in 0..EACH {
                        other.write_all(b"record\n").unwrap();
                        other.sync_data().unwrap();
                    }
                });
            }
        });
        let all = THREADS * EACH;
        assert_eq!(
            counts.all([Started, Ended, Completed, Failed]),
            [all, all, all, 0],
            "{attach:?}"
        );
        // Nothing is out, so all of them are proved.
        assert_eq!(counts.get(Proved), all, "{attach:?}");
    }
}

#[test]
fn a_sync_that_began_before_proves_nothing_of_what_comes_after() {
    for attach in PLACES {
        let (notify, dir) = (loaded(attach), folder());
        let mut file = log(dir.path(), "watched");
        let counts = Counts::of(&notify, &file);
        for _ in 0..20 {
            file.write_all(b"record\n").unwrap();
            // What user space remembers after a write.
            let mark = counts.get(Started);
            assert!(counts.get(Proved) <= mark, "{attach:?}");
            file.sync_data().unwrap();
            assert!(counts.get(Proved) > mark, "{attach:?}");
        }
    }
}

#[test]
fn another_process_is_not_counted() {
    for attach in PLACES {
        let (notify, dir) = (loaded(attach), folder());
        let mut file = log(dir.path(), "watched");
        let counts = Counts::of(&notify, &file);
        file.write_all(b"record\n").unwrap();
        let path = dir.path().join("watched");
        let ended = Command::new("sync").arg("--data").arg(&path).status().unwrap();
        assert!(ended.success());
        assert_eq!(counts.all([Completed, Proved, Failed]), [0, 0, 0], "{attach:?}");
        // It is known to have been out all the same: an error that it met would be missed by others.
        assert_eq!(counts.all([Started, Ended]), [1, 1], "{attach:?}");
        file.sync_data().unwrap();
        assert_eq!(counts.all([Completed, Proved]), [1, 2], "{attach:?}");
    }
}

#[test]
fn a_sync_of_a_part_is_not_counted() {
    for attach in PLACES {
        let (notify, dir) = (loaded(attach), folder());
        let file = log(dir.path(), "watched");
        let counts = Counts::of(&notify, &file);
        let path = dir.path().join("watched");
        let mut options = OpenOptions::new();
        let mut direct = options.append(true).custom_flags(libc::O_DSYNC).open(&path).unwrap();
        direct.write_all(&[1; 8192]).unwrap();
        assert_eq!(counts.all([Completed, Proved, Failed]), [0, 0, 0], "{attach:?}");
        file.sync_data().unwrap();
        assert_eq!(counts.get(Completed), 1, "{attach:?}");
    }
}

#[test]
fn a_slot_that_is_free_again_counts_nothing() {
    for attach in PLACES {
        let (notify, dir) = (loaded(attach), folder());
        let file = log(dir.path(), "watched");
        let counts = Counts::of(&notify, &file);
        file.sync_data().unwrap();
        notify.slots().free(counts.slot);
        file.sync_data().unwrap();
        assert_eq!(counts.get(Completed), 1, "{attach:?}");
        // Claimed once more, it counts from where it was.
        let again = Counts::of(&notify, &file);
        file.sync_data().unwrap();
        assert_eq!((again.slot, again.get(Completed)), (counts.slot, 1), "{attach:?}");
    }
}

#[test]
fn several_files_have_counts_of_their_own() {
    for attach in PLACES {
        let (notify, dir) = (loaded(attach), folder());
        let files: Vec<File> = (0..40).map(|n| log(dir.path(), &format!("log{n}"))).collect();
        let counts: Vec<Counts<'_>> = files.iter().map(|f| Counts::of(&notify, f)).collect();
        for (times, file) in files.iter().enumerate() {
            for _ in 0..times % 5 {
                file.sync_data().unwrap();
            }
        }
        for (times, counts) in counts.iter().enumerate() {
            assert_eq!(counts.get(Completed), times as u64 % 5, "{attach:?}");
        }
    }
}
