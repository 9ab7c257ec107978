//! Calls that open files: where a log begins.

use super::{forget_stale, seen};
use crate::clock;
use crate::errno::Kept;
use crate::guard;
use crate::policy::{self, Policy};
use crate::real;
use crate::registry;
use crate::sole;
use crate::table::{self, Entry};
use durac_engine::Time;
use libc::{c_char, c_int, c_void, mode_t};
use std::ffi::{CStr, OsStr};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// `fd` is what an open call returned.
#[inline]
pub(super) fn opened(fd: c_int, dir: c_int, path: *const c_char, flags: c_int) -> c_int {
    forget_stale(fd);
    crate::staffing::look();
    if fd >= 0 && flags & libc::O_ACCMODE != libc::O_RDONLY && policy::get().is_some() {
        opened_for_writing(fd, dir, path, flags);
    } else {
        super::opened_again(fd);
    }
    fd
}

/// Before an open call: one that empties a file is a change of it, and what the logs have deferred comes
/// first.
#[inline]
pub(super) fn opening(flags: c_int, real: impl FnOnce() -> c_int) -> c_int {
    seen();
    if flags & libc::O_TRUNC != 0 { super::paths::drained(real) } else { real() }
}

/// A stream was opened for writing. Its writes are made without a call that has a hook, so it is a log only if the file
/// is looked at.
pub(super) fn opened_by_stream(fd: c_int, path: *const c_char) {
    let concerns = |policy: &Policy| policy.rules.defers_writes || policy.rules.holds_replies;
    if policy::get().is_some_and(concerns) {
        opened_for_writing(fd, libc::AT_FDCWD, path, libc::O_WRONLY);
        super::lose_writes(fd);
    }
}

#[cold]
fn opened_for_writing(fd: c_int, dir: c_int, path: *const c_char, flags: c_int) {
    // What a child of `vfork` opens is not its parent's.
    if !super::is_ours() {
        return;
    }
    // Each of its writes is durable when it returns. There is nothing to defer.
    let synchronous = flags & (libc::O_SYNC | libc::O_DSYNC) != 0;
    // A file of `O_TMPFILE`, which contains `O_DIRECTORY`, has no name of its own.
    let no_file = flags & (libc::O_PATH | libc::O_DIRECTORY) != 0;
    let unnamed = flags & (libc::O_PATH | libc::O_TMPFILE) == libc::O_TMPFILE;
    if synchronous && (unnamed || !no_file) {
        super::found::durable(fd);
    }
    if synchronous {
        super::opened_again(fd);
    }
    if synchronous || no_file || path.is_null() {
        return;
    }
    let kept = Kept::now();
    guard::run(|| {
        let policy = policy::get()?;
        let id = regular_file(fd)?;
        // SAFETY: the system has just read it as a path.
        let path = unsafe { CStr::from_ptr(path) };
        let path = absolute(dir, Path::new(OsStr::from_bytes(path.to_bytes())));
        registry::opened(policy, fd, id, &path, flags);
        begin(policy, fd, id, None);
        Some(())
    });
    drop(kept);
    super::found::look();
}

/// A descriptor that this process did not open becomes a log, if it is of a regular file. Called in a thread of the
/// agent: the application may close the number any time.
pub fn adopt(
    policy: &'static Policy,
    fd: c_int,
    id: registry::FileId,
    path: &Path,
    flags: c_int,
    since: Time,
) {
    if flags & (libc::O_SYNC | libc::O_DSYNC) != 0 {
        // Found with the others once there is a log.
        if table::registry().is_some() {
            table::set(fd, Entry::Durable);
        }
        return;
    }
    guard::run(|| {
        registry::inherited(policy, fd, id, path);
        // The number may have been closed meanwhile, and be another file's.
        super::proved(fd)?;
        begin(policy, fd, id, Some(since));
        Some(())
    });
    super::found::look_in_thread();
}

/// What a log that was just opened needs before its first call: a syncer thread, and the proof that its
/// file may be staged. `since`: its first writes are not older.
fn begin(policy: &'static Policy, fd: c_int, id: registry::FileId, since: Option<Time>) {
    let Some(log) = super::log_of(fd) else { return };
    let alone = if policy.defers() { crate::staffing::begin(log.slot) } else { None };
    // Each program that a shell starts inherits its log: the first of them tells.
    if since.is_none() || !log.slot.is_crowded() {
        crate::attention::opened(log.registry, policy, log.slot, alone);
    }
    if policy.rules.defers_writes {
        let since = since.unwrap_or_else(clock::now);
        log.slot.begin_to_look(&mut log.slot.lock(), since);
    }
    if policy.needs_sole()
        && let Err(why) = sole::at_open(fd, id)
    {
        log.slot.revoke(why);
    }
}

/// Device and inode of `fd` if it is a regular file.
pub fn regular_file(fd: c_int) -> Option<registry::FileId> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `stat` has room for the result.
    if unsafe { libc::fstat(fd, stat.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: fstat succeeded and filled it.
    let stat = unsafe { stat.assume_init() };
    (stat.st_mode & libc::S_IFMT == libc::S_IFREG).then_some((stat.st_dev, stat.st_ino))
}

/// The path from the root, as far as it can be told.
fn absolute(dir: c_int, path: &Path) -> PathBuf {
    if path.is_absolute() {
        return path.to_path_buf();
    }
    let base = match dir {
        libc::AT_FDCWD => std::env::current_dir(),
        fd => std::fs::read_link(format!("/proc/self/fd/{fd}")),
    };
    base.unwrap_or_default().join(path)
}

macro_rules! opens {
    ($($name:ident / $real:ident($($arg:ident: $ty:ty),*) path $path:expr, dir $dir:expr, flags $flags:expr;)*) => {
        $(
            #[doc = concat!("Hook of `", stringify!($name), "`. A variadic function takes the same")]
            /// arguments in the same registers.
            ///
            /// # Safety
            /// As the real function.
            #[inline]
            pub unsafe fn $name($($arg: $ty),*) -> c_int {
                // SAFETY: the caller's arguments, which it vouches for.
                let fd = opening($flags, || unsafe { real::$real.get()($($arg),*) });
                opened(fd, $dir, $path, $flags)
            }
        )*
    };
}

const CREAT: c_int = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;

opens! {
    open / OPEN(path: *const c_char, flags: c_int, mode: mode_t) path path, dir libc::AT_FDCWD, flags flags;
    open64 / OPEN64(path: *const c_char, flags: c_int, mode: mode_t)
        path path, dir libc::AT_FDCWD, flags flags;
    openat / OPENAT(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t)
        path path, dir dir, flags flags;
    openat64 / OPENAT64(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t)
        path path, dir dir, flags flags;
    creat / CREAT(path: *const c_char, mode: mode_t) path path, dir libc::AT_FDCWD, flags CREAT;
    creat64 / CREAT64(path: *const c_char, mode: mode_t) path path, dir libc::AT_FDCWD, flags CREAT;
    __open_2 / OPEN_2(path: *const c_char, flags: c_int) path path, dir libc::AT_FDCWD, flags flags;
    __open64_2 / OPEN64_2(path: *const c_char, flags: c_int) path path, dir libc::AT_FDCWD, flags flags;
    __openat_2 / OPENAT_2(dir: c_int, path: *const c_char, flags: c_int) path path, dir dir, flags flags;
    __openat64_2 / OPENAT64_2(dir: c_int, path: *const c_char, flags: c_int) path path, dir dir, flags flags;
}

/// Hook of `open_by_handle_at`: it opens any file, and names none.
///
/// # Safety
/// As the real function.
#[inline]
pub unsafe fn open_by_handle_at(mount: c_int, handle: *mut c_void, flags: c_int) -> c_int {
    // SAFETY: the caller's arguments, which it vouches for.
    let fd = opening(flags, || unsafe { real::OPEN_BY_HANDLE_AT.get()(mount, handle, flags) });
    super::found::copied_unseen(fd)
}

macro_rules! temporaries {
    ($($name:ident / $real:ident($template:ident $(, $arg:ident)*) flags $flags:expr;)*) => {
        $(
            #[doc = concat!("Hook of `", stringify!($name), "`: the name is known when it returns.")]
            ///
            /// # Safety
            /// As the real function.
            #[inline]
            pub unsafe fn $name($template: *mut c_char $(, $arg: c_int)*) -> c_int {
                // SAFETY: the caller's arguments, which it vouches for.
                let fd = unsafe { real::$real.get()($template $(, $arg)*) };
                opened(fd, libc::AT_FDCWD, $template, $flags | libc::O_RDWR)
            }
        )*
    };
}

temporaries! {
    mkstemp / MKSTEMP(template) flags 0;
    mkstemp64 / MKSTEMP64(template) flags 0;
    mkostemp / MKOSTEMP(template, flags) flags flags;
    mkostemp64 / MKOSTEMP64(template, flags) flags flags;
    mkstemps / MKSTEMPS(template, suffix) flags 0;
    mkstemps64 / MKSTEMPS64(template, suffix) flags 0;
    mkostemps / MKOSTEMPS(template, suffix, flags) flags flags;
    mkostemps64 / MKOSTEMPS64(template, suffix, flags) flags flags;
}
