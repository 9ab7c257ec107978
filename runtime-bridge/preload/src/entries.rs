//! The interposed functions, by family. Each calls the agent's function of the same name with the
//! arguments that it got.
//!
//! They unwind as C functions do: a thread that is cancelled in the real function leaves through them.

use durac_agent::hooks;
use libc::{
    c_char, c_int, c_uint, c_ulong, c_void, epoll_event, id_t, idtype_t, iovec, loff_t, mode_t,
    msghdr, off_t, pid_t, rlimit, rusage, siginfo_t, sigset_t, size_t, sockaddr, socklen_t,
    ssize_t, timespec,
};
use std::arch::naked_asm;

macro_rules! entries {
    ($($name:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)?;)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As the C library's function.
            #[unsafe(no_mangle)]
            pub unsafe extern "C-unwind" fn $name($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: the caller's arguments, which it vouches for.
                unsafe { hooks::$name($($arg),*) }
            }
        )*
    };
}

// Calls that write.
entries! {
    write(fd: c_int, data: *const c_void, n: size_t) -> ssize_t;
    pwrite(fd: c_int, data: *const c_void, n: size_t, at: off_t) -> ssize_t;
    pwrite64(fd: c_int, data: *const c_void, n: size_t, at: off_t) -> ssize_t;
    writev(fd: c_int, v: *const iovec, n: c_int) -> ssize_t;
    pwritev(fd: c_int, v: *const iovec, n: c_int, at: off_t) -> ssize_t;
    pwritev64(fd: c_int, v: *const iovec, n: c_int, at: off_t) -> ssize_t;
    pwritev2(fd: c_int, v: *const iovec, n: c_int, at: off_t, flags: c_int) -> ssize_t;
    pwritev64v2(fd: c_int, v: *const iovec, n: c_int, at: off_t, flags: c_int) -> ssize_t;
    sendfile(to: c_int, from: c_int, at: *mut off_t, n: size_t) -> ssize_t;
    sendfile64(to: c_int, from: c_int, at: *mut off_t, n: size_t) -> ssize_t;
    splice(
        from: c_int, at_from: *mut loff_t, to: c_int, at_to: *mut loff_t, n: size_t, flags: c_uint
    ) -> ssize_t;
    copy_file_range(
        from: c_int, at_from: *mut loff_t, to: c_int, at_to: *mut loff_t, n: size_t, flags: c_uint
    ) -> ssize_t;
    ftruncate(fd: c_int, length: off_t) -> c_int;
    ftruncate64(fd: c_int, length: off_t) -> c_int;
    truncate(path: *const c_char, length: off_t) -> c_int;
    truncate64(path: *const c_char, length: off_t) -> c_int;
}

// Calls that sync.
entries! {
    fsync(fd: c_int) -> c_int;
    fdatasync(fd: c_int) -> c_int;
    sync_file_range(fd: c_int, at: loff_t, n: loff_t, flags: c_uint) -> c_int;
    msync(address: *mut c_void, n: size_t, flags: c_int) -> c_int;
    syncfs(fd: c_int) -> c_int;
    sync();
}

// Calls that open a file. A variadic function takes its third argument in the same register.
entries! {
    open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
    open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
    openat(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
    openat64(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
    open_by_handle_at(mount: c_int, handle: *mut c_void, flags: c_int) -> c_int;
    creat(path: *const c_char, mode: mode_t) -> c_int;
    creat64(path: *const c_char, mode: mode_t) -> c_int;
    __open_2(path: *const c_char, flags: c_int) -> c_int;
    __open64_2(path: *const c_char, flags: c_int) -> c_int;
    __openat_2(dir: c_int, path: *const c_char, flags: c_int) -> c_int;
    __openat64_2(dir: c_int, path: *const c_char, flags: c_int) -> c_int;
    mkstemp(template: *mut c_char) -> c_int;
    mkstemp64(template: *mut c_char) -> c_int;
    mkstemps(template: *mut c_char, suffix: c_int) -> c_int;
    mkstemps64(template: *mut c_char, suffix: c_int) -> c_int;
    mkostemp(template: *mut c_char, flags: c_int) -> c_int;
    mkostemp64(template: *mut c_char, flags: c_int) -> c_int;
    mkostemps(template: *mut c_char, suffix: c_int, flags: c_int) -> c_int;
    mkostemps64(template: *mut c_char, suffix: c_int, flags: c_int) -> c_int;
    fdopen(fd: c_int, mode: *const c_char) -> *mut c_void;
    fclose(stream: *mut c_void) -> c_int;
    fopen(path: *const c_void, mode: *const c_void) -> *mut c_void;
    fopen64(path: *const c_void, mode: *const c_void) -> *mut c_void;
    freopen(path: *const c_void, mode: *const c_void, stream: *const c_void) -> *mut c_void;
    freopen64(path: *const c_void, mode: *const c_void, stream: *const c_void) -> *mut c_void;
}

// Calls that create, copy and close descriptors.
entries! {
    close(fd: c_int) -> c_int;
    close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int;
    closefrom(first: c_int);
    send(fd: c_int, data: *const c_void, n: size_t, flags: c_int) -> ssize_t;
    sendto(
        fd: c_int, data: *const c_void, n: size_t, flags: c_int, to: *const sockaddr, length: socklen_t
    ) -> ssize_t;
    connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int;
    shutdown(fd: c_int, how: c_int) -> c_int;
    sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t;
    sendmmsg(fd: c_int, messages: *mut c_void, n: c_uint, flags: c_int) -> c_int;
    recv(fd: c_int, data: *mut c_void, n: size_t, flags: c_int) -> ssize_t;
    recvfrom(
        fd: c_int, data: *mut c_void, n: size_t, flags: c_int,
        from: *mut sockaddr, length: *mut socklen_t
    ) -> ssize_t;
    __recv_chk(fd: c_int, data: *mut c_void, n: size_t, room: size_t, flags: c_int) -> ssize_t;
    __recvfrom_chk(
        fd: c_int, data: *mut c_void, n: size_t, room: size_t, flags: c_int,
        from: *mut sockaddr, length: *mut socklen_t
    ) -> ssize_t;
    recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t;
    recvmmsg(
        fd: c_int, messages: *mut c_void, n: c_uint, flags: c_int, timeout: *mut timespec
    ) -> c_int;
    dup(old: c_int) -> c_int;
    dup2(old: c_int, new: c_int) -> c_int;
    dup3(old: c_int, new: c_int, flags: c_int) -> c_int;
    fcntl(fd: c_int, command: c_int, argument: usize) -> c_int;
    fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int;
    pidfd_getfd(process: c_int, target: c_int, flags: c_uint) -> c_int;
    socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    accept(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int;
    accept4(fd: c_int, address: *mut sockaddr, length: *mut socklen_t, flags: c_int) -> c_int;
    pipe(fds: *mut c_int) -> c_int;
    pipe2(fds: *mut c_int, flags: c_int) -> c_int;
}

// Calls that wait for events.
entries! {
    epoll_ctl(epoll: c_int, what: c_int, fd: c_int, event: *mut epoll_event) -> c_int;
    epoll_wait(epoll: c_int, events: *mut epoll_event, most: c_int, timeout: c_int) -> c_int;
    epoll_pwait(
        epoll: c_int, events: *mut epoll_event, most: c_int, timeout: c_int, mask: *const sigset_t
    ) -> c_int;
    epoll_pwait2(
        epoll: c_int, events: *mut epoll_event, most: c_int, timeout: *const timespec,
        mask: *const sigset_t
    ) -> c_int;
}

// Calls that change names.
entries! {
    rename(from: *const c_char, to: *const c_char) -> c_int;
    renameat(dir: c_int, from: *const c_char, to_dir: c_int, to: *const c_char) -> c_int;
    renameat2(
        dir: c_int, from: *const c_char, to_dir: c_int, to: *const c_char, flags: c_uint
    ) -> c_int;
    unlink(path: *const c_char) -> c_int;
    unlinkat(dir: c_int, path: *const c_char, flags: c_int) -> c_int;
    remove(path: *const c_char) -> c_int;
    symlink(from: *const c_char, to: *const c_char) -> c_int;
    symlinkat(from: *const c_char, dir: c_int, to: *const c_char) -> c_int;
    rmdir(path: *const c_char) -> c_int;
    link(from: *const c_char, to: *const c_char) -> c_int;
    linkat(
        dir: c_int, from: *const c_char, to_dir: c_int, to: *const c_char, flags: c_int
    ) -> c_int;
}

// Calls that can see what is in a file, or how long it is.
entries! {
    read(fd: c_int, data: *mut c_void, n: size_t) -> ssize_t;
    __read_chk(fd: c_int, data: *mut c_void, n: size_t, room: size_t) -> ssize_t;
    pread(fd: c_int, data: *mut c_void, n: size_t, at: off_t) -> ssize_t;
    pread64(fd: c_int, data: *mut c_void, n: size_t, at: off_t) -> ssize_t;
    __pread_chk(fd: c_int, data: *mut c_void, n: size_t, at: off_t, room: size_t) -> ssize_t;
    __pread64_chk(fd: c_int, data: *mut c_void, n: size_t, at: off_t, room: size_t) -> ssize_t;
    readv(fd: c_int, v: *const iovec, n: c_int) -> ssize_t;
    preadv(fd: c_int, v: *const iovec, n: c_int, at: off_t) -> ssize_t;
    preadv64(fd: c_int, v: *const iovec, n: c_int, at: off_t) -> ssize_t;
    preadv2(fd: c_int, v: *const iovec, n: c_int, at: off_t, flags: c_int) -> ssize_t;
    preadv64v2(fd: c_int, v: *const iovec, n: c_int, at: off_t, flags: c_int) -> ssize_t;
    lseek(fd: c_int, to: off_t, from: c_int) -> off_t;
    lseek64(fd: c_int, to: off_t, from: c_int) -> off_t;
    fstat(fd: c_int, stat: *mut libc::stat) -> c_int;
    fstat64(fd: c_int, stat: *mut libc::stat) -> c_int;
    __fxstat(version: c_int, fd: c_int, stat: *mut libc::stat) -> c_int;
    __fxstat64(version: c_int, fd: c_int, stat: *mut libc::stat) -> c_int;
    fallocate(fd: c_int, mode: c_int, at: off_t, n: off_t) -> c_int;
    fallocate64(fd: c_int, mode: c_int, at: off_t, n: off_t) -> c_int;
    posix_fallocate(fd: c_int, at: off_t, n: off_t) -> c_int;
    posix_fallocate64(fd: c_int, at: off_t, n: off_t) -> c_int;
    ioctl(fd: c_int, request: c_ulong, argument: usize) -> c_int;
    futimens(fd: c_int, times: *const timespec) -> c_int;
    flock(fd: c_int, how: c_int) -> c_int;
    lockf(fd: c_int, how: c_int, n: off_t) -> c_int;
    lockf64(fd: c_int, how: c_int, n: off_t) -> c_int;
    mmap(
        address: *mut c_void, n: size_t, access: c_int, flags: c_int, fd: c_int, at: off_t
    ) -> *mut c_void;
    mmap64(
        address: *mut c_void, n: size_t, access: c_int, flags: c_int, fd: c_int, at: off_t
    ) -> *mut c_void;
    stat(path: *const c_char, into: *mut libc::stat) -> c_int;
    stat64(path: *const c_char, into: *mut libc::stat) -> c_int;
    lstat(path: *const c_char, into: *mut libc::stat) -> c_int;
    lstat64(path: *const c_char, into: *mut libc::stat) -> c_int;
    fstatat(dir: c_int, path: *const c_char, into: *mut libc::stat, flags: c_int) -> c_int;
    fstatat64(dir: c_int, path: *const c_char, into: *mut libc::stat, flags: c_int) -> c_int;
    __fxstatat(
        version: c_int, dir: c_int, path: *const c_char, into: *mut libc::stat, flags: c_int
    ) -> c_int;
    __fxstatat64(
        version: c_int, dir: c_int, path: *const c_char, into: *mut libc::stat, flags: c_int
    ) -> c_int;
    __xstat(version: c_int, path: *const c_char, into: *mut libc::stat) -> c_int;
    __xstat64(version: c_int, path: *const c_char, into: *mut libc::stat) -> c_int;
    __lxstat(version: c_int, path: *const c_char, into: *mut libc::stat) -> c_int;
    __lxstat64(version: c_int, path: *const c_char, into: *mut libc::stat) -> c_int;
    statx(
        dir: c_int, path: *const c_char, flags: c_int, mask: c_uint, stat: *mut libc::statx
    ) -> c_int;
}

// Calls that start, await and end processes.
entries! {
    fork() -> pid_t;
    daemon(stays: c_int, keeps: c_int) -> c_int;
    wait(status: *mut c_int) -> pid_t;
    wait3(status: *mut c_int, flags: c_int, usage: *mut rusage) -> pid_t;
    wait4(pid: pid_t, status: *mut c_int, flags: c_int, usage: *mut rusage) -> pid_t;
    waitpid(pid: pid_t, status: *mut c_int, flags: c_int) -> pid_t;
    waitid(kind: idtype_t, id: id_t, info: *mut siginfo_t, flags: c_int) -> c_int;
    pthread_exit(value: *mut c_void) -> !;
    thrd_exit(value: c_int) -> !;
    _exit(status: c_int) -> !;
    _Exit(status: c_int) -> !;
    execve(
        path: *const c_char, arguments: *const *const c_char, environment: *const *const c_char
    ) -> c_int;
    execv(path: *const c_char, arguments: *const *const c_char) -> c_int;
    execvp(name: *const c_char, arguments: *const *const c_char) -> c_int;
    execvpe(
        name: *const c_char, arguments: *const *const c_char, environment: *const *const c_char
    ) -> c_int;
    execveat(
        dir: c_int, path: *const c_char, arguments: *const *const c_char,
        environment: *const *const c_char, flags: c_int
    ) -> c_int;
    fexecve(
        fd: c_int, arguments: *const *const c_char, environment: *const *const c_char
    ) -> c_int;
    reboot(how: c_int) -> c_int;
}

// Asynchronous I/O.
entries! {
    aio_read(block: *mut c_void) -> c_int;
    aio_read64(block: *mut c_void) -> c_int;
    aio_write(block: *mut c_void) -> c_int;
    aio_write64(block: *mut c_void) -> c_int;
    aio_fsync(how: c_int, block: *mut c_void) -> c_int;
    aio_fsync64(how: c_int, block: *mut c_void) -> c_int;
    lio_listio(how: c_int, blocks: *const *mut c_void, n: c_int, event: *mut c_void) -> c_int;
    lio_listio64(how: c_int, blocks: *const *mut c_void, n: c_int, event: *mut c_void) -> c_int;
}

// Calls that install signal handlers.
entries! {
    sigaction(signal: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int;
    __sigaction(signal: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int;
    signal(signal: c_int, handler: usize) -> usize;
    bsd_signal(signal: c_int, handler: usize) -> usize;
    ssignal(signal: c_int, handler: usize) -> usize;
    sysv_signal(signal: c_int, handler: usize) -> usize;
    __sysv_signal(signal: c_int, handler: usize) -> usize;
    sigset(signal: c_int, handler: usize) -> usize;
    siginterrupt(signal: c_int, ends: c_int) -> c_int;
}

// Calls that change what the process may do or shares.
entries! {
    prctl(option: c_int, a: c_ulong, b: c_ulong, c: c_ulong, d: c_ulong) -> c_int;
    unshare(flags: c_int) -> c_int;
    setrlimit(what: c_int, limit: *const rlimit) -> c_int;
    setrlimit64(what: c_int, limit: *const rlimit) -> c_int;
    prlimit(process: pid_t, what: c_int, new: *const rlimit, old: *mut rlimit) -> c_int;
    prlimit64(process: pid_t, what: c_int, new: *const rlimit, old: *mut rlimit) -> c_int;
    setns(fd: c_int, kind: c_int) -> c_int;
}

macro_rules! aliases {
    ($($name:ident = $of:ident($($arg:ident: $ty:ty),*) -> $ret:ty;)*) => {
        $(
            #[doc = concat!("Another name of `", stringify!($of), "`.")]
            ///
            /// # Safety
            /// As the C library's function.
            #[unsafe(no_mangle)]
            pub unsafe extern "C-unwind" fn $name($($arg: $ty),*) -> $ret {
                // SAFETY: the caller's arguments, which it vouches for.
                unsafe { hooks::$of($($arg),*) }
            }
        )*
    };
}

// Old public names of the same functions.
aliases! {
    __send = send(fd: c_int, data: *const c_void, n: size_t, flags: c_int) -> ssize_t;
    __write = write(fd: c_int, data: *const c_void, n: size_t) -> ssize_t;
    __pwrite64 = pwrite64(fd: c_int, data: *const c_void, n: size_t, at: off_t) -> ssize_t;
    __read = read(fd: c_int, data: *mut c_void, n: size_t) -> ssize_t;
    __pread64 = pread64(fd: c_int, data: *mut c_void, n: size_t, at: off_t) -> ssize_t;
    __open = open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
    __open64 = open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
    __close = close(fd: c_int) -> c_int;
    __lseek = lseek(fd: c_int, to: off_t, from: c_int) -> off_t;
    llseek = lseek(fd: c_int, to: off_t, from: c_int) -> off_t;
    __fcntl = fcntl(fd: c_int, command: c_int, argument: usize) -> c_int;
    __dup2 = dup2(old: c_int, new: c_int) -> c_int;
    __fork = fork() -> pid_t;
    __libc_fork = fork() -> pid_t;
    _IO_fopen = fopen(path: *const c_void, mode: *const c_void) -> *mut c_void;
    _IO_fdopen = fdopen(fd: c_int, mode: *const c_char) -> *mut c_void;
    _IO_fclose = fclose(stream: *mut c_void) -> c_int;
    __fstat64 = fstat64(fd: c_int, stat: *mut libc::stat) -> c_int;
    __connect = connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int;
    __sendmmsg = sendmmsg(fd: c_int, messages: *mut c_void, n: c_uint, flags: c_int) -> c_int;
    __wait = wait(status: *mut c_int) -> pid_t;
    __waitpid = waitpid(pid: pid_t, status: *mut c_int, flags: c_int) -> pid_t;
}

/// Functions of any number of arguments: each calls the agent, and then jumps to the real function with
/// every argument as it came.
macro_rules! jumps {
    ($($name:ident)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As the C library's function.
            #[unsafe(no_mangle)]
            #[unsafe(naked)]
            pub unsafe extern "C-unwind" fn $name() -> c_int {
                // Seven pushes and the return address keep the stack aligned for the call.
                naked_asm!(
                    "push rdi", "push rsi", "push rdx", "push rcx", "push r8", "push r9",
                    "push rax",
                    "call {prepare}",
                    "mov r11, rax",
                    "pop rax",
                    "pop r9", "pop r8", "pop rcx", "pop rdx", "pop rsi", "pop rdi",
                    "jmp r11",
                    prepare = sym hooks::before::$name,
                )
            }
        )*
    };
}

jumps! {
    vfork posix_spawn posix_spawnp system popen
    __vfork _Fork clone __clone wordexp
    utime utimes utimensat futimes lutimes futimesat ulimit
    ftw ftw64 nftw nftw64 fts_open fts_read fts64_open fts64_read
    fcloseall
    syscall
    dprintf vdprintf __dprintf_chk __vdprintf_chk
}

/// Functions that take an array as single arguments: five of them come in registers, the others lie on the stack. The five
/// are put below those, where the return address was, and the function that takes the array is called.
macro_rules! gathers {
    ($($name:ident)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "`.")]
            ///
            /// # Safety
            /// As the C library's function.
            #[unsafe(no_mangle)]
            #[unsafe(naked)]
            pub unsafe extern "C-unwind" fn $name() -> c_int {
                // Five pushes and the return address keep the stack aligned for the call. An unwinder finds the caller.
                naked_asm!(
                    ".cfi_startproc",
                    "pop rax",
                    ".cfi_def_cfa_offset 0",
                    ".cfi_register rip, rax",
                    "push r9", "push r8", "push rcx", "push rdx", "push rsi",
                    ".cfi_def_cfa_offset 40",
                    "mov rsi, rsp",
                    "push rax",
                    ".cfi_def_cfa_offset 48",
                    ".cfi_offset rip, -48",
                    "call {gathered}",
                    "pop rcx",
                    ".cfi_def_cfa_offset 40",
                    ".cfi_register rip, rcx",
                    "add rsp, 40",
                    ".cfi_def_cfa_offset 0",
                    "push rcx",
                    ".cfi_def_cfa_offset 8",
                    ".cfi_offset rip, -8",
                    "ret",
                    ".cfi_endproc",
                    gathered = sym hooks::gathered::$name,
                )
            }
        )*
    };
}

gathers! {
    execl execlp execle
}
