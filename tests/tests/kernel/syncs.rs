//! What the program for BPFtime counts: whole syncs that io_uring's workers of one process made with
//! success.

use crate::common::{Small, through_the_file};
use durac_abi::Object;
use durac_abi::Runtime;
use durac_abi::elf::KernelTypes;
use durac_abi::notify::count::MAPS;
use durac_core::CompileOptions;
use durac_grammar::Sources;
use durac_kernel::count::{Attachments, attach};
use io_uring::{IoUring, opcode, types};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

const MAP_CREATE: i64 = 0;
const MAP_LOOKUP: i64 = 1;
const MAP_UPDATE: i64 = 2;

fn object() -> (Object, KernelTypes) {
    let text = "target redis.patched\nuse kernel notify\non fdatasync: await previous; defer\n";
    let mut sources = Sources::default();
    let file = sources.add("t.dur", text);
    let policy = durac_core::analyse(&mut sources, file, &CompileOptions::new("t")).policy.unwrap();
    let object = durac_core::compile(
        &policy,
        &sources,
        file,
        &CompileOptions::default().with_runtime(Runtime::Bpftime),
    )
    .unwrap();
    through_the_file(&object)
}

fn bpf(command: i64, attr: &[u64; 16]) -> i64 {
    // SAFETY: the attribute is larger than any the kernel reads, and what it points to is alive.
    unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_ptr(), size_of_val(attr)) }
}

/// The map, as the loader makes it, and the process whose syncs are counted.
struct Syncs(RawFd);

impl Syncs {
    fn new(process: u32) -> Self {
        let [map] = &MAPS;
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let mut attr = [0; 16];
        attr[0] = pair(map.kind, map.key_size());
        attr[1] = pair(map.value_size(), map.max_entries);
        let fd = bpf(MAP_CREATE, &attr);
        assert!(fd >= 0, "{} (this test needs root)", std::io::Error::last_os_error());
        let syncs = Self(fd as RawFd);
        let mut value = [u64::from(process), 0];
        assert_eq!(syncs.call(MAP_UPDATE, &mut value), 0);
        syncs
    }

    fn call(&self, command: i64, value: &mut [u64; 2]) -> i64 {
        let key = 0u32;
        let mut attr = [0; 16];
        attr[0] = self.0 as u64;
        attr[1] = (&raw const key) as u64;
        attr[2] = value.as_mut_ptr() as u64;
        bpf(command, &attr)
    }

    fn count(&self) -> u64 {
        let mut value = [0; 2];
        assert_eq!(self.call(MAP_LOOKUP, &mut value), 0);
        value[1]
    }
}

/// An `fdatasync` as BPFtime's helpers make it; its result.
fn sync(ring: &mut IoUring, fd: RawFd) -> i32 {
    let entry =
        opcode::Fsync::new(types::Fd(fd)).flags(types::FsyncFlags::DATASYNC).build().user_data(2);
    // SAFETY: the descriptor is resolved when it is submitted, now.
    unsafe { ring.submission().push(&entry) }.unwrap();
    ring.submit_and_wait(1).unwrap();
    ring.completion().next().unwrap().result()
}

fn ring() -> IoUring {
    IoUring::builder().setup_single_issuer().build(8).unwrap()
}

/// The syncs of the whole process are counted, and its tests run at the same time: held by a test that makes or
/// counts syncs through io_uring.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn only_its_own_successes_are_counted() {
    let _alone = alone();
    let own = Syncs::new(std::process::id());
    let others = Syncs::new(1);
    let (object, types) = object();
    let places = Attachments::find().unwrap();
    let mut counters = Vec::new();
    for syncs in [&own, &others] {
        counters.push(
            attach(&object, &types, &places, syncs.0).unwrap_or_else(|why| panic!("{why:?}")),
        );
    }
    let mut ring = ring();
    let mut file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for round in 1..=5 {
        file.write_all(b"record\n").unwrap();
        assert_eq!(sync(&mut ring, file.as_raw_fd()), 0);
        // The completion was seen: so is the count.
        assert_eq!(own.count(), round, "this test needs its target folder on ext4");
    }
    // The application's own syncs, whole and of one thread.
    file.write_all(b"record\n").unwrap();
    file.sync_data().unwrap();
    file.sync_all().unwrap();
    // Syncs that never reach the file system.
    assert_eq!(sync(&mut ring, -1), -libc::EBADF);
    let (_reader, writer) = std::io::pipe().unwrap();
    assert_eq!(sync(&mut ring, writer.as_raw_fd()), -libc::EINVAL);
    assert_eq!(own.count(), 5);
    // Another process is counted for nobody here.
    assert_eq!(others.count(), 0);
}

#[test]
fn a_failure_is_not_counted() {
    let _alone = alone();
    let small = Small::new();
    let syncs = Syncs::new(std::process::id());
    let (object, types) = object();
    let _counter = attach(&object, &types, &Attachments::find().unwrap(), syncs.0).unwrap();
    let mut ring = ring();
    let mut file = File::create(small.disk().join("log")).unwrap();
    file.write_all(b"record\n").unwrap();
    let mut good = 0;
    let failed = (0..64).any(|_| {
        // More than the memory behind it has room for.
        file.write_all(&vec![7; 1 << 20]).unwrap();
        let result = sync(&mut ring, file.as_raw_fd());
        good += u64::from(result == 0);
        result == -libc::EIO || result == -libc::ENOSPC
    });
    assert!(failed, "no sync has failed");
    assert_eq!(syncs.count(), good);
}
