//! The functions this library stands in front of: the next ones in the order of symbol search.
//!
//! The next one, not libc's: a library preloaded after this one still sees every call, the
//! background syncs included.

use libc::{
    c_char, c_int, c_uint, c_void, id_t, idtype_t, iovec, loff_t, mode_t, off_t, pid_t, rusage,
    siginfo_t, size_t, sockaddr, socklen_t, ssize_t,
};
use std::ffi::CStr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A function found by name when it is first needed, at the latest by [`find_all`].
pub struct Next<F> {
    address: AtomicPtr<c_void>,
    name: &'static CStr,
    /// Stands in until [`find_all`] ran. An allocator that initialises itself calls `open` while
    /// it holds its locks, and the dynamic linker's search is no place to be then.
    early: Option<F>,
}

impl<F: Copy> Next<F> {
    const fn new(name: &'static CStr, early: Option<F>) -> Self {
        Self { address: AtomicPtr::new(std::ptr::null_mut()), name, early }
    }

    /// The function.
    #[inline(always)]
    pub fn get(&self) -> F {
        let address = self.address.load(Ordering::Relaxed);
        if address.is_null() {
            return self.missing();
        }
        // SAFETY: `F` is a pointer to a function with the C signature of the symbol `name`, as
        // declared below, and `address` is that symbol's.
        unsafe { std::mem::transmute_copy(&address) }
    }

    #[cold]
    fn missing(&self) -> F {
        match self.early {
            Some(early) => early,
            None => {
                self.find();
                self.get()
            }
        }
    }

    fn find(&self) {
        // SAFETY: `name` is a C string.
        let mut address = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        if address.is_null() {
            // Older C libraries lack some of these functions.
            address = absent as *const () as *mut c_void;
        }
        self.address.store(address, Ordering::Relaxed);
    }
}

/// Stands in for a function the C library does not have. It takes any arguments: the caller
/// passes them in registers and cleans up itself.
extern "C-unwind" fn absent() -> ssize_t {
    crate::errno::set(libc::ENOSYS);
    -1
}

macro_rules! next {
    ($($(#[$doc:meta])* $id:ident = $symbol:literal: fn($($arg:ty),* $(,)?) -> $ret:ty $(, early $early:expr)?;)*) => {
        $(
            #[doc = concat!("`", stringify!($id), "`, lower case.")]
            pub static $id: Next<unsafe extern "C-unwind" fn($($arg),*) -> $ret> =
                Next::new($symbol, next!(@early $($early)?));
        )*

        /// Finds all of them.
        pub fn find_all() {
            $($id.find();)*
        }
    };
    (@early) => { None };
    (@early $early:expr) => { Some($early) };
}

next! {
    WRITE = c"write": fn(c_int, *const c_void, size_t) -> ssize_t, early early::write;
    WRITEV = c"writev": fn(c_int, *const iovec, c_int) -> ssize_t;
    PWRITE = c"pwrite": fn(c_int, *const c_void, size_t, off_t) -> ssize_t;
    PWRITE64 = c"pwrite64": fn(c_int, *const c_void, size_t, off_t) -> ssize_t;
    PWRITEV = c"pwritev": fn(c_int, *const iovec, c_int, off_t) -> ssize_t;
    PWRITEV64 = c"pwritev64": fn(c_int, *const iovec, c_int, off_t) -> ssize_t;
    PWRITEV2 = c"pwritev2": fn(c_int, *const iovec, c_int, off_t, c_int) -> ssize_t;
    PWRITEV64V2 = c"pwritev64v2": fn(c_int, *const iovec, c_int, off_t, c_int) -> ssize_t;
    SENDFILE = c"sendfile": fn(c_int, c_int, *mut off_t, size_t) -> ssize_t;
    SENDFILE64 = c"sendfile64": fn(c_int, c_int, *mut off_t, size_t) -> ssize_t;
    SPLICE = c"splice": fn(c_int, *mut loff_t, c_int, *mut loff_t, size_t, c_uint) -> ssize_t;
    COPY_FILE_RANGE = c"copy_file_range": fn(c_int, *mut loff_t, c_int, *mut loff_t, size_t, c_uint) -> ssize_t;
    FTRUNCATE = c"ftruncate": fn(c_int, off_t) -> c_int;
    FTRUNCATE64 = c"ftruncate64": fn(c_int, off_t) -> c_int;
    TRUNCATE = c"truncate": fn(*const c_char, off_t) -> c_int;
    TRUNCATE64 = c"truncate64": fn(*const c_char, off_t) -> c_int;
    FSYNC = c"fsync": fn(c_int) -> c_int;
    FDATASYNC = c"fdatasync": fn(c_int) -> c_int;
    SYNC_FILE_RANGE = c"sync_file_range": fn(c_int, loff_t, loff_t, c_uint) -> c_int;
    OPEN = c"open": fn(*const c_char, c_int, mode_t) -> c_int, early early::open;
    OPEN64 = c"open64": fn(*const c_char, c_int, mode_t) -> c_int, early early::open;
    OPENAT = c"openat": fn(c_int, *const c_char, c_int, mode_t) -> c_int, early early::openat;
    OPENAT64 = c"openat64": fn(c_int, *const c_char, c_int, mode_t) -> c_int, early early::openat;
    CREAT = c"creat": fn(*const c_char, mode_t) -> c_int;
    CREAT64 = c"creat64": fn(*const c_char, mode_t) -> c_int;
    OPEN_2 = c"__open_2": fn(*const c_char, c_int) -> c_int;
    OPEN64_2 = c"__open64_2": fn(*const c_char, c_int) -> c_int;
    OPENAT_2 = c"__openat_2": fn(c_int, *const c_char, c_int) -> c_int;
    OPENAT64_2 = c"__openat64_2": fn(c_int, *const c_char, c_int) -> c_int;
    CLOSE = c"close": fn(c_int) -> c_int, early early::close;
    CLOSE_RANGE = c"close_range": fn(c_uint, c_uint, c_int) -> c_int;
    CLOSEFROM = c"closefrom": fn(c_int) -> ();
    DUP = c"dup": fn(c_int) -> c_int;
    DUP2 = c"dup2": fn(c_int, c_int) -> c_int;
    DUP3 = c"dup3": fn(c_int, c_int, c_int) -> c_int;
    FCNTL = c"fcntl": fn(c_int, c_int, usize) -> c_int;
    FCNTL64 = c"fcntl64": fn(c_int, c_int, usize) -> c_int;
    SOCKET = c"socket": fn(c_int, c_int, c_int) -> c_int;
    ACCEPT = c"accept": fn(c_int, *mut sockaddr, *mut socklen_t) -> c_int;
    ACCEPT4 = c"accept4": fn(c_int, *mut sockaddr, *mut socklen_t, c_int) -> c_int;
    PIPE = c"pipe": fn(*mut c_int) -> c_int;
    PIPE2 = c"pipe2": fn(*mut c_int, c_int) -> c_int;
    RENAME = c"rename": fn(*const c_char, *const c_char) -> c_int;
    RENAMEAT = c"renameat": fn(c_int, *const c_char, c_int, *const c_char) -> c_int;
    RENAMEAT2 = c"renameat2": fn(c_int, *const c_char, c_int, *const c_char, c_uint) -> c_int;
    UNLINK = c"unlink": fn(*const c_char) -> c_int;
    UNLINKAT = c"unlinkat": fn(c_int, *const c_char, c_int) -> c_int;
    REMOVE = c"remove": fn(*const c_char) -> c_int;
    FORK = c"fork": fn() -> pid_t;
    WAIT = c"wait": fn(*mut c_int) -> pid_t;
    WAIT3 = c"wait3": fn(*mut c_int, c_int, *mut rusage) -> pid_t;
    WAIT4 = c"wait4": fn(pid_t, *mut c_int, c_int, *mut rusage) -> pid_t;
    WAITPID = c"waitpid": fn(pid_t, *mut c_int, c_int) -> pid_t;
    WAITID = c"waitid": fn(idtype_t, id_t, *mut siginfo_t, c_int) -> c_int;
    EXIT_NOW = c"_exit": fn(c_int) -> c_int;
    EXECVE = c"execve": fn() -> c_int;
    EXECV = c"execv": fn() -> c_int;
    EXECVP = c"execvp": fn() -> c_int;
    EXECVPE = c"execvpe": fn() -> c_int;
    EXECL = c"execl": fn() -> c_int;
    EXECLP = c"execlp": fn() -> c_int;
    EXECLE = c"execle": fn() -> c_int;
    EXECVEAT = c"execveat": fn() -> c_int;
    DAEMON = c"daemon": fn() -> c_int;
    FEXECVE = c"fexecve": fn() -> c_int;
}

/// Plain system calls for the time before [`find_all`].
mod early {
    use super::{c_char, c_int, c_void, mode_t, size_t, ssize_t};

    pub unsafe extern "C-unwind" fn write(fd: c_int, data: *const c_void, n: size_t) -> ssize_t {
        // SAFETY: the caller's arguments, passed on.
        unsafe { libc::syscall(libc::SYS_write, fd, data, n) as ssize_t }
    }

    pub unsafe extern "C-unwind" fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
        // SAFETY: the caller's arguments, passed on.
        unsafe { openat(libc::AT_FDCWD, path, flags, mode) }
    }

    pub unsafe extern "C-unwind" fn openat(
        dir: c_int,
        path: *const c_char,
        flags: c_int,
        mode: mode_t,
    ) -> c_int {
        // SAFETY: the caller's arguments, passed on.
        unsafe { libc::syscall(libc::SYS_openat, dir, path, flags, mode) as c_int }
    }

    pub unsafe extern "C-unwind" fn close(fd: c_int) -> c_int {
        // SAFETY: the caller's argument, passed on.
        unsafe { libc::syscall(libc::SYS_close, fd) as c_int }
    }
}
