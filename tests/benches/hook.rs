//! What a hooked call costs over the C library's.
//!
//! The benchmark runs itself again under the agent. There the name `write` is the hook, and the
//! C library's own function is found in the library itself. One byte to `/dev/null` is a system
//! call that does nothing; the log is a file in memory, so that the disk does not show.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark that fails says so")]

#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/agent/common/objects.rs"]
mod objects;

use criterion::{Criterion, criterion_group};
use std::ffi::CStr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

type Write = unsafe extern "C" fn(i32, *const libc::c_void, usize) -> isize;
type Sync = unsafe extern "C" fn(i32) -> i32;

/// The C library's own function.
fn of_libc(name: &CStr) -> *mut libc::c_void {
    // SAFETY: the names are C strings, and the library is loaded.
    unsafe {
        let library = libc::dlopen(c"libc.so.6".as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD);
        libc::dlsym(library, name.as_ptr())
    }
}

fn open(path: &CStr) -> i32 {
    // SAFETY: `path` is a C string.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CREAT, 0o600) };
    assert!(fd >= 0);
    fd
}

fn hooks(criterion: &mut Criterion) {
    // SAFETY: the symbols have these signatures.
    let (write, sync): (Write, Sync) = unsafe {
        (
            std::mem::transmute::<*mut libc::c_void, Write>(of_libc(c"write")),
            std::mem::transmute::<*mut libc::c_void, Sync>(of_libc(c"fdatasync")),
        )
    };
    for (place, path) in [("null", c"/dev/null"), ("log", c"/dev/shm/durac-bench.log")] {
        let fd = open(path);
        let mut group = criterion.benchmark_group(format!("write/{place}"));
        for (name, write) in [("libc", write), ("hook", libc::write as Write)] {
            group.bench_function(name, |b| {
                b.iter(|| {
                    // SAFETY: one byte of a static. The position goes back so that the file does
                    // not fill the memory.
                    unsafe {
                        write(fd, b"x".as_ptr().cast(), 1);
                        libc::lseek(fd, 0, libc::SEEK_SET);
                    }
                });
            });
        }
        group.finish();
        // SAFETY: the descriptor is ours.
        unsafe { libc::close(fd) };
    }

    // A sync call that is deferred with room in the window, against one that does nothing.
    let fd = open(c"/dev/shm/durac-bench.log");
    let mut group = criterion.benchmark_group("write+fdatasync/log");
    for (name, write, sync) in
        [("libc", write, sync), ("hook", libc::write as Write, libc::fdatasync as Sync)]
    {
        group.bench_function(name, |b| {
            b.iter(|| {
                // SAFETY: as above.
                unsafe {
                    write(fd, b"x".as_ptr().cast(), 1);
                    libc::lseek(fd, 0, libc::SEEK_SET);
                    sync(fd)
                }
            });
        });
    }
    group.finish();
}

fn name_of(number: usize) -> String {
    format!("/dev/shm/durac-bench-{}-{number}.log", std::process::id())
}

/// The same call with more and more other logs open.
fn open_files(criterion: &mut Criterion) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` has room for the answer, and then holds it.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
    }
    let fd = open(c"/dev/shm/durac-bench.log");
    let mut group = criterion.benchmark_group("open");
    let mut fds: Vec<i32> = Vec::new();
    for count in [1, 100, 10_000] {
        while fds.len() + 1 < count {
            fds.push(open(&std::ffi::CString::new(name_of(fds.len())).unwrap()));
        }
        group.bench_function(count.to_string(), |b| {
            b.iter(|| {
                // SAFETY: as above.
                unsafe {
                    libc::write(fd, b"x".as_ptr().cast(), 1);
                    libc::lseek(fd, 0, libc::SEEK_SET);
                    libc::fdatasync(fd)
                }
            });
        });
    }
    group.finish();
    for (number, fd) in fds.into_iter().enumerate() {
        // SAFETY: the descriptor is ours.
        unsafe { libc::close(fd) };
        std::fs::remove_file(name_of(number)).unwrap();
    }
}

criterion_group!(benches, hooks, open_files);

fn main() {
    if std::env::var_os("LD_PRELOAD").is_none() {
        let exe = std::env::current_exe().unwrap();
        let agent = durac_tests::agent().unwrap();
        let object = Path::new("/dev/shm").join(format!("durac-bench-{}.o", std::process::id()));
        std::fs::write(&object, objects::bytes(&objects::window_param(4096))).unwrap();
        std::fs::set_permissions(&object, PermissionsExt::from_mode(0o600)).unwrap();
        let error = Command::new(exe)
            .args(std::env::args_os().skip(1))
            .env("LD_PRELOAD", agent)
            .env("DURAC_OBJECT", object)
            .exec();
        panic!("{error}");
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
    if let Some(object) = std::env::var_os("DURAC_OBJECT") {
        std::fs::remove_file(object).unwrap();
    }
    std::fs::remove_file("/dev/shm/durac-bench.log").unwrap();
}
