//! The functions that this library interposes: the next ones in the order of symbol search.
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
    /// it holds its locks, and the dynamic linker's search could call it again.
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
    PIDFD_GETFD = c"pidfd_getfd": fn(c_int, c_int, c_uint) -> c_int;
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
    SYMLINK = c"symlink": fn(*const c_char, *const c_char) -> c_int;
    SYMLINKAT = c"symlinkat": fn(*const c_char, c_int, *const c_char) -> c_int;
    RMDIR = c"rmdir": fn(*const c_char) -> c_int;
    MSYNC = c"msync": fn(*mut c_void, size_t, c_int) -> c_int;
    AIO_FSYNC = c"aio_fsync": fn(c_int, *mut c_void) -> c_int;
    AIO_FSYNC64 = c"aio_fsync64": fn(c_int, *mut c_void) -> c_int;
    AIO_WRITE = c"aio_write": fn(*mut c_void) -> c_int;
    AIO_WRITE64 = c"aio_write64": fn(*mut c_void) -> c_int;
    AIO_READ = c"aio_read": fn(*mut c_void) -> c_int;
    AIO_READ64 = c"aio_read64": fn(*mut c_void) -> c_int;
    LIO_LISTIO = c"lio_listio": fn(c_int, *const *mut c_void, c_int, *mut c_void) -> c_int;
    LIO_LISTIO64 = c"lio_listio64": fn(c_int, *const *mut c_void, c_int, *mut c_void) -> c_int;
    SIGACTION = c"sigaction": fn(c_int, *const libc::sigaction, *mut libc::sigaction) -> c_int;
    SEND = c"send": fn(c_int, *const c_void, size_t, c_int) -> ssize_t;
    SENDTO = c"sendto": fn(c_int, *const c_void, size_t, c_int, *const sockaddr, socklen_t) -> ssize_t;
    EPOLL_CTL = c"epoll_ctl": fn(c_int, c_int, c_int, *mut libc::epoll_event) -> c_int;
    EPOLL_WAIT = c"epoll_wait": fn(c_int, *mut libc::epoll_event, c_int, c_int) -> c_int;
    EPOLL_PWAIT = c"epoll_pwait": fn(c_int, *mut libc::epoll_event, c_int, c_int, *const libc::sigset_t) -> c_int;
    EPOLL_PWAIT2 = c"epoll_pwait2": fn(c_int, *mut libc::epoll_event, c_int, *const libc::timespec, *const libc::sigset_t) -> c_int;
    CONNECT = c"connect": fn(c_int, *const sockaddr, socklen_t) -> c_int;
    SHUTDOWN = c"shutdown": fn(c_int, c_int) -> c_int;
    SENDMSG = c"sendmsg": fn(c_int, *const libc::msghdr, c_int) -> ssize_t;
    RECV = c"recv": fn(c_int, *mut c_void, size_t, c_int) -> ssize_t;
    RECVFROM = c"recvfrom": fn(c_int, *mut c_void, size_t, c_int, *mut sockaddr, *mut socklen_t) -> ssize_t;
    RECV_CHK = c"__recv_chk": fn(c_int, *mut c_void, size_t, size_t, c_int) -> ssize_t;
    RECVFROM_CHK = c"__recvfrom_chk": fn(c_int, *mut c_void, size_t, size_t, c_int, *mut sockaddr, *mut socklen_t) -> ssize_t;
    RECVMSG = c"recvmsg": fn(c_int, *mut libc::msghdr, c_int) -> ssize_t;
    RECVMMSG = c"recvmmsg": fn(c_int, *mut c_void, c_uint, c_int, *mut libc::timespec) -> c_int;
    SENDMMSG = c"sendmmsg": fn(c_int, *mut c_void, c_uint, c_int) -> c_int;
    IOCTL = c"ioctl": fn(c_int, libc::c_ulong, usize) -> c_int;
    FUTIMENS = c"futimens": fn(c_int, *const libc::timespec) -> c_int;
    SETRLIMIT = c"setrlimit": fn(c_int, *const libc::rlimit) -> c_int;
    SETRLIMIT64 = c"setrlimit64": fn(c_int, *const libc::rlimit) -> c_int;
    PRLIMIT = c"prlimit": fn(pid_t, c_int, *const libc::rlimit, *mut libc::rlimit) -> c_int;
    PRLIMIT64 = c"prlimit64": fn(pid_t, c_int, *const libc::rlimit, *mut libc::rlimit) -> c_int;
    PRCTL = c"prctl": fn(c_int, libc::c_ulong, libc::c_ulong, libc::c_ulong, libc::c_ulong) -> c_int;
    UNSHARE = c"unshare": fn(c_int) -> c_int;
    SETNS = c"setns": fn(c_int, c_int) -> c_int;
    SYSCALL = c"syscall": fn(libc::c_long, usize, usize, usize, usize, usize, usize) -> libc::c_long;
    DPRINTF = c"dprintf": fn() -> c_int;
    VDPRINTF = c"vdprintf": fn() -> c_int;
    DPRINTF_CHK = c"__dprintf_chk": fn() -> c_int;
    VDPRINTF_CHK = c"__vdprintf_chk": fn() -> c_int;
    MKSTEMP = c"mkstemp": fn(*mut c_char) -> c_int;
    MKSTEMP64 = c"mkstemp64": fn(*mut c_char) -> c_int;
    MKSTEMPS = c"mkstemps": fn(*mut c_char, c_int) -> c_int;
    MKSTEMPS64 = c"mkstemps64": fn(*mut c_char, c_int) -> c_int;
    MKOSTEMP = c"mkostemp": fn(*mut c_char, c_int) -> c_int;
    MKOSTEMP64 = c"mkostemp64": fn(*mut c_char, c_int) -> c_int;
    MKOSTEMPS = c"mkostemps": fn(*mut c_char, c_int, c_int) -> c_int;
    MKOSTEMPS64 = c"mkostemps64": fn(*mut c_char, c_int, c_int) -> c_int;
    FDOPEN = c"fdopen": fn(c_int, *const c_void) -> *mut c_void;
    FCLOSE = c"fclose": fn(*mut c_void) -> c_int;
    PTHREAD_EXIT = c"pthread_exit": fn(*mut c_void) -> ();
    THRD_EXIT = c"thrd_exit": fn(c_int) -> ();
    LINK = c"link": fn(*const c_char, *const c_char) -> c_int;
    LINKAT = c"linkat": fn(c_int, *const c_char, c_int, *const c_char, c_int) -> c_int;
    SYNCFS = c"syncfs": fn(c_int) -> c_int;
    SYNC = c"sync": fn() -> ();
    READ = c"read": fn(c_int, *mut c_void, size_t) -> ssize_t, early early::read;
    READ_CHK = c"__read_chk": fn(c_int, *mut c_void, size_t, size_t) -> ssize_t;
    PREAD = c"pread": fn(c_int, *mut c_void, size_t, off_t) -> ssize_t;
    PREAD64 = c"pread64": fn(c_int, *mut c_void, size_t, off_t) -> ssize_t;
    PREAD_CHK = c"__pread_chk": fn(c_int, *mut c_void, size_t, off_t, size_t) -> ssize_t;
    PREAD64_CHK = c"__pread64_chk": fn(c_int, *mut c_void, size_t, off_t, size_t) -> ssize_t;
    READV = c"readv": fn(c_int, *const iovec, c_int) -> ssize_t;
    PREADV = c"preadv": fn(c_int, *const iovec, c_int, off_t) -> ssize_t;
    PREADV64 = c"preadv64": fn(c_int, *const iovec, c_int, off_t) -> ssize_t;
    PREADV2 = c"preadv2": fn(c_int, *const iovec, c_int, off_t, c_int) -> ssize_t;
    PREADV64V2 = c"preadv64v2": fn(c_int, *const iovec, c_int, off_t, c_int) -> ssize_t;
    LSEEK = c"lseek": fn(c_int, off_t, c_int) -> off_t;
    LSEEK64 = c"lseek64": fn(c_int, off_t, c_int) -> off_t;
    FSTAT = c"fstat": fn(c_int, *mut libc::stat) -> c_int, early early::fstat;
    FSTAT64 = c"fstat64": fn(c_int, *mut libc::stat) -> c_int, early early::fstat;
    FXSTAT = c"__fxstat": fn(c_int, c_int, *mut libc::stat) -> c_int;
    FXSTAT64 = c"__fxstat64": fn(c_int, c_int, *mut libc::stat) -> c_int;
    FALLOCATE = c"fallocate": fn(c_int, c_int, off_t, off_t) -> c_int;
    FALLOCATE64 = c"fallocate64": fn(c_int, c_int, off_t, off_t) -> c_int;
    POSIX_FALLOCATE = c"posix_fallocate": fn(c_int, off_t, off_t) -> c_int;
    POSIX_FALLOCATE64 = c"posix_fallocate64": fn(c_int, off_t, off_t) -> c_int;
    FLOCK = c"flock": fn(c_int, c_int) -> c_int;
    LOCKF = c"lockf": fn(c_int, c_int, off_t) -> c_int;
    LOCKF64 = c"lockf64": fn(c_int, c_int, off_t) -> c_int;
    MMAP = c"mmap": fn(*mut c_void, size_t, c_int, c_int, c_int, off_t) -> *mut c_void, early early::mmap;
    MMAP64 = c"mmap64": fn(*mut c_void, size_t, c_int, c_int, c_int, off_t) -> *mut c_void, early early::mmap;
    STAT = c"stat": fn(*const c_char, *mut libc::stat) -> c_int;
    STAT64 = c"stat64": fn(*const c_char, *mut libc::stat) -> c_int;
    LSTAT = c"lstat": fn(*const c_char, *mut libc::stat) -> c_int;
    LSTAT64 = c"lstat64": fn(*const c_char, *mut libc::stat) -> c_int;
    FSTATAT = c"fstatat": fn(c_int, *const c_char, *mut libc::stat, c_int) -> c_int;
    FSTATAT64 = c"fstatat64": fn(c_int, *const c_char, *mut libc::stat, c_int) -> c_int;
    FXSTATAT = c"__fxstatat": fn(c_int, c_int, *const c_char, *mut libc::stat, c_int) -> c_int;
    FXSTATAT64 = c"__fxstatat64": fn(c_int, c_int, *const c_char, *mut libc::stat, c_int) -> c_int;
    XSTAT = c"__xstat": fn(c_int, *const c_char, *mut libc::stat) -> c_int;
    XSTAT64 = c"__xstat64": fn(c_int, *const c_char, *mut libc::stat) -> c_int;
    LXSTAT = c"__lxstat": fn(c_int, *const c_char, *mut libc::stat) -> c_int;
    LXSTAT64 = c"__lxstat64": fn(c_int, *const c_char, *mut libc::stat) -> c_int;
    STATX = c"statx": fn(c_int, *const c_char, c_int, c_uint, *mut libc::statx) -> c_int;
    FOPEN = c"fopen": fn(*const c_void, *const c_void) -> *mut c_void;
    FOPEN64 = c"fopen64": fn(*const c_void, *const c_void) -> *mut c_void;
    FREOPEN = c"freopen": fn(*const c_void, *const c_void, *const c_void) -> *mut c_void;
    FREOPEN64 = c"freopen64": fn(*const c_void, *const c_void, *const c_void) -> *mut c_void;
    VFORK = c"vfork": fn() -> pid_t;
    POSIX_SPAWN = c"posix_spawn": fn() -> c_int;
    POSIX_SPAWNP = c"posix_spawnp": fn() -> c_int;
    SYSTEM = c"system": fn() -> c_int;
    POPEN = c"popen": fn() -> c_int;
    FORK = c"fork": fn() -> pid_t;
    WAIT = c"wait": fn(*mut c_int) -> pid_t;
    WAIT3 = c"wait3": fn(*mut c_int, c_int, *mut rusage) -> pid_t;
    WAIT4 = c"wait4": fn(pid_t, *mut c_int, c_int, *mut rusage) -> pid_t;
    WAITPID = c"waitpid": fn(pid_t, *mut c_int, c_int) -> pid_t;
    WAITID = c"waitid": fn(idtype_t, id_t, *mut siginfo_t, c_int) -> c_int;
    EXIT_NOW = c"_exit": fn(c_int) -> c_int;
    EXECVE = c"execve": fn(*const c_char, *const *const c_char, *const *const c_char) -> c_int;
    EXECV = c"execv": fn(*const c_char, *const *const c_char) -> c_int;
    EXECVP = c"execvp": fn(*const c_char, *const *const c_char) -> c_int;
    EXECVPE = c"execvpe": fn(*const c_char, *const *const c_char, *const *const c_char) -> c_int;
    EXECVEAT = c"execveat": fn(c_int, *const c_char, *const *const c_char, *const *const c_char, c_int) -> c_int;
    WORDEXP = c"wordexp": fn() -> c_int;
    FCLOSEALL = c"fcloseall": fn() -> c_int;
    REBOOT = c"reboot": fn(c_int) -> c_int;
    UTIME = c"utime": fn() -> c_int;
    UTIMES = c"utimes": fn() -> c_int;
    UTIMENSAT = c"utimensat": fn() -> c_int;
    FUTIMES = c"futimes": fn() -> c_int;
    LUTIMES = c"lutimes": fn() -> c_int;
    FUTIMESAT = c"futimesat": fn() -> c_int;
    ULIMIT = c"ulimit": fn() -> c_int;
    FTW = c"ftw": fn() -> c_int;
    FTW64 = c"ftw64": fn() -> c_int;
    NFTW = c"nftw": fn() -> c_int;
    NFTW64 = c"nftw64": fn() -> c_int;
    FTS_OPEN = c"fts_open": fn() -> c_int;
    FTS_READ = c"fts_read": fn() -> c_int;
    FTS64_OPEN = c"fts64_open": fn() -> c_int;
    FTS64_READ = c"fts64_read": fn() -> c_int;
    FORK_BARE = c"_Fork": fn() -> pid_t;
    CLONE = c"clone": fn() -> c_int;
    OPEN_BY_HANDLE_AT = c"open_by_handle_at": fn(c_int, *mut c_void, c_int) -> c_int;
    DAEMON = c"daemon": fn(c_int, c_int) -> c_int;
    FEXECVE = c"fexecve": fn(c_int, *const *const c_char, *const *const c_char) -> c_int;
}

/// Plain system calls for the time before [`find_all`].
mod early {
    use super::{c_char, c_int, c_void, mode_t, off_t, size_t, ssize_t};

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

    pub unsafe extern "C-unwind" fn read(fd: c_int, data: *mut c_void, n: size_t) -> ssize_t {
        // SAFETY: the caller's arguments, passed on.
        unsafe { libc::syscall(libc::SYS_read, fd, data, n) as ssize_t }
    }

    pub unsafe extern "C-unwind" fn fstat(fd: c_int, stat: *mut libc::stat) -> c_int {
        // SAFETY: the caller's arguments, passed on.
        unsafe { libc::syscall(libc::SYS_fstat, fd, stat) as c_int }
    }

    pub unsafe extern "C-unwind" fn mmap(
        address: *mut c_void,
        n: size_t,
        access: c_int,
        flags: c_int,
        fd: c_int,
        at: off_t,
    ) -> *mut c_void {
        // SAFETY: the caller's arguments, passed on.
        unsafe { libc::syscall(libc::SYS_mmap, address, n, access, flags, fd, at) as *mut c_void }
    }

    pub unsafe extern "C-unwind" fn close(fd: c_int) -> c_int {
        // SAFETY: the caller's argument, passed on.
        unsafe { libc::syscall(libc::SYS_close, fd) as c_int }
    }
}
