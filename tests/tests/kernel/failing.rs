//! A sync that fails, for real: ext4 on a loop device whose backing file finds no room.

use crate::common::{Counts, PLACES, Small, loaded};
use durac_abi::notify::Word::{Completed, Ended, Errno, Failed, Proved, Started};
use std::fs::File;
use std::io::Write;
use std::process::Command;

#[test]
fn a_failed_sync_is_counted_as_failed_and_proves_nothing() {
    for attach in PLACES {
        let (notify, small) = (loaded(attach), Small::new());
        let mut file = File::create(small.disk().join("log")).unwrap();
        let counts = Counts::of(&notify, &file);
        file.write_all(&[1; 4096]).unwrap();
        file.sync_data().unwrap();
        assert_eq!(counts.all([Completed, Failed, Proved]), [1, 0, 1], "{attach:?}");
        file.write_all(&vec![1; 24 << 20]).unwrap();
        let error = file.sync_data().expect_err("no room");
        assert_eq!(counts.all([Started, Ended, Completed, Failed]), [2, 2, 1, 1], "{attach:?}");
        assert_eq!(counts.get(Errno), error.raw_os_error().unwrap() as u64, "{attach:?}");
        assert_eq!(counts.get(Proved), 1, "{attach:?}");
        // Whatever the next one says, what failed stays counted.
        let again = u64::from(file.sync_data().is_ok());
        assert_eq!(counts.all([Completed, Failed]), [1 + again, 2 - again], "{attach:?}");
    }
}

/// A failure is the file's, whoever meets it: a forked child shares the open file, and takes the error
/// away from the parent.
#[test]
fn a_failure_that_another_process_meets_is_counted() {
    for attach in PLACES {
        let (notify, small) = (loaded(attach), Small::new());
        let mut file = File::create(small.disk().join("log")).unwrap();
        let counts = Counts::of(&notify, &file);
        file.write_all(&vec![1; 24 << 20]).unwrap();
        let path = small.disk().join("log");
        let ended = Command::new("sync").arg("--data").arg(&path).output().unwrap();
        assert!(!ended.status.success(), "{attach:?}");
        assert_eq!(counts.all([Completed, Failed]), [0, 1], "{attach:?}");
    }
}
