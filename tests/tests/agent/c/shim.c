// Preloaded after the agent: sees what the agent really calls, writes it down in order, can hold
// it up and can make it fail.
//
//   SHIM_LOG=path        a line for the start and the end of each call
//   SHIM_FAIL=n:errno    syncs after the first n fail with that number
//   SHIM_FAIL_SPAN=n:count:errno  so many syncs after the first n fail with that number
//   SHIM_FAIL_ONCE=n     the sync after the first n fails with EIO, no other
//   SHIM_WRITES=1        a line for each write to a log
//   SHIM_FAIL_WRITE=n:errno  writes to a log after the first n fail with that number
//   SHIM_SHORT=n         a write to a log takes at most n bytes; every second one says EAGAIN or EINTR
//   SHIM_FAIL_OTHERS=errno  other calls that sync fail with that number
//   SHIM_REFUSE_WRITE=errno  writes with flags fail with that number, and write nothing
//   SHIM_QUICK=1         a sync of a file is no call, and succeeds at once
//   SHIM_NO_THREADS=1    no thread can be started
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static atomic_int held;
static _Atomic(const char *) stuck;
static atomic_long begun, ended;

long shim_hold(long hold) { held = hold; return 0; }
// Syncs of files whose name starts so hang, if a thread makes them that is not the first.
long shim_stick(long name) { stuck = (const char *)name; return 0; }
long shim_syncs(long unused) { (void)unused; return ended; }
long shim_begun(long unused) { (void)unused; return begun; }

// The open of the table of all processes waits until it may go on.
static atomic_int table_held, table_waits;
long shim_hold_table(long hold) { table_held = hold; return 0; }
long shim_at_table(long unused) { (void)unused; return table_waits; }

// The agent makes a log of what the next library opens, and would see a call by number.
static int do_open(const char *name, const char *path, int flags, int mode) {
    int (*next)(const char *, int, ...) = dlsym(RTLD_NEXT, name);
    while (table_held && !strncmp(path, "/dev/shm/durac-logs", 19)) {
        struct timespec t = {0, 100000};
        table_waits = 1;
        nanosleep(&t, NULL);
    }
    return next(path, flags, mode);
}
#define OPENS(name)                                                                                                    \
    int name(const char *path, int flags, ...) {                                                                       \
        va_list list;                                                                                                  \
        va_start(list, flags);                                                                                         \
        int mode = va_arg(list, int);                                                                                  \
        va_end(list);                                                                                                  \
        return do_open(#name, path, flags, mode);                                                                           \
    }
OPENS(open)
OPENS(open64)

static int log_fd = -1;

// A program that has functions of these names is told of every sync: when it begins, and how it ended. And of every write to
// a log, with SHIM_WRITES.
static long (*begins)(void);
static void (*ends)(long, int);
static void (*writes_begin)(void);

// At once and at a high number: the program may run out of descriptors, or close all it knows.
__attribute__((constructor)) static void start(void) {
    begins = dlsym(RTLD_DEFAULT, "real_sync_begins");
    ends = dlsym(RTLD_DEFAULT, "real_sync_ends");
    writes_begin = dlsym(RTLD_DEFAULT, "real_write_begins");
    const char *path = getenv("SHIM_LOG");
    if (!path) return;
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    log_fd = syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 900);
    syscall(SYS_close, fd);
}

static void note(const char *format, ...) {
    if (log_fd < 0) return;
    char line[600];
    va_list list;
    va_start(list, format);
    int n = vsnprintf(line, sizeof line, format, list);
    va_end(list);
    syscall(SYS_write, log_fd, line, n);
}

static const char *who(void) {
    return syscall(SYS_gettid) == getpid() ? "main" : "thread";
}

static const char *name_of(int fd, char *buffer, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, buffer, size - 1);
    buffer[n < 0 ? 0 : n] = 0;
    char *slash = strrchr(buffer, '/');
    return slash ? slash + 1 : buffer;
}

static int do_sync(int fd, const char *what, long number) {
    char buffer[500];
    const char *name = name_of(fd, buffer, sizeof buffer);
    long nth = atomic_fetch_add(&begun, 1);
    note("+%s %s\n", what, name);
    long covers = begins ? begins() : 0;
    int threads = syscall(SYS_gettid) != getpid();
    for (const char *start;
         held || (threads && (start = stuck) && !strncmp(name, start, strlen(start)));) {
        struct timespec t = {0, 100000};
        nanosleep(&t, NULL);
    }
    const char *fail = getenv("SHIM_FAIL"), *once = getenv("SHIM_FAIL_ONCE");
    int result, number_of_error = 0;
    if (fail && nth >= atol(fail)) number_of_error = atoi(strchr(fail, ':') + 1);
    long first, count;
    int number_of_span;
    const char *span = getenv("SHIM_FAIL_SPAN");
    if (span && sscanf(span, "%ld:%ld:%d", &first, &count, &number_of_span) == 3 && nth >= first && nth < first + count)
        number_of_error = number_of_span;
    if (once && nth == atol(once)) number_of_error = EIO;
    if (number_of_error) {
        errno = number_of_error;
        result = -1;
    } else if (getenv("SHIM_QUICK")) {
        result = 0;
    } else {
        result = syscall(number, fd);
    }
    int e = errno;
    if (ends) ends(covers, result);
    note("-%s %s %s %d\n", what, name, who(), result);
    ended++;
    errno = e;
    return result;
}

int fdatasync(int fd) { return do_sync(fd, "fdatasync", SYS_fdatasync); }
int fsync(int fd) { return do_sync(fd, "fsync", SYS_fsync); }

// Of a write that is refused nothing is written.
static int refuses(void) {
    const char *refuse = getenv("SHIM_REFUSE_WRITE");
    if (refuse) errno = atoi(refuse);
    return refuse != NULL;
}

static long do_other(long result) {
    const char *fail = getenv("SHIM_FAIL_OTHERS");
    if (!fail) return result;
    errno = atoi(fail);
    return -1;
}

int sync_file_range(int fd, off_t at, off_t n, unsigned flags) {
    return do_other(syscall(SYS_sync_file_range, fd, at, n, flags));
}
int syncfs(int fd) { return do_other(syscall(SYS_syncfs, fd)); }
int msync(void *address, size_t n, int flags) { return do_other(syscall(SYS_msync, address, n, flags)); }
ssize_t pwritev2(int fd, const struct iovec *v, int n, off_t at, int flags) {
    if (flags && refuses()) return -1;
    return do_other(syscall(SYS_pwritev2, fd, v, n, at, 0, flags));
}

ssize_t write(int fd, const void *data, size_t n) {
    const char *fail = getenv("SHIM_FAIL_WRITE"), *few = getenv("SHIM_SHORT");
    if (!fail && !few && !getenv("SHIM_WRITES")) return syscall(SYS_write, fd, data, n);
    char buffer[500];
    const char *name = name_of(fd, buffer, sizeof buffer), *dot = strrchr(name, '.');
    if (!dot || strcmp(dot, ".log")) return syscall(SYS_write, fd, data, n);
    if (writes_begin) writes_begin();
    static atomic_long writes;
    long nth = atomic_fetch_add(&writes, 1);
    if (fail && nth >= atol(fail)) {
        errno = atoi(strchr(fail, ':') + 1);
        note("write %s %s -1\n", name, who());
        return -1;
    }
    if (few && nth % 2) {
        errno = nth % 4 == 1 ? EAGAIN : EINTR;
        return -1;
    }
    if (few && n > (size_t)atol(few)) n = atol(few);
    ssize_t result = syscall(SYS_write, fd, data, n);
    int e = errno;
    note("write %s %s %zd\n", name, who(), result);
    errno = e;
    return result;
}

int rename(const char *from, const char *to) {
    note("rename %s %s\n", from, to);
    return syscall(SYS_rename, from, to);
}

int unlink(const char *path) {
    note("unlink %s\n", path);
    return syscall(SYS_unlink, path);
}

int close(int fd) {
    char buffer[500];
    const char *name = name_of(fd, buffer, sizeof buffer);
    const char *dot = strrchr(name, '.');
    if (dot && !strcmp(dot, ".log")) note("close %s\n", name);
    return syscall(SYS_close, fd);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg) {
    if (getenv("SHIM_NO_THREADS")) return EAGAIN;
    int (*next)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) =
        dlsym(RTLD_NEXT, "pthread_create");
    return next(thread, attr, start, arg);
}
