/* A library that is preloaded around the agent: a witness that trusts neither it nor its counts,
 * and a disk that fails on demand.
 *
 * Built twice. The outer one (-DOUTER) stands before the agent and sees what the application is
 * told: which sync calls were acknowledged. The inner one stands after it and sees what is really
 * asked of the kernel: which syncs ran, and how long the file was when each began. Both write to
 * one shared file (DURAC_TEST_WITNESS), a slot for each inode.
 *
 * A call is durable when a real sync of its file began after the call did, and succeeded. With DURAC_TEST_BY_BYTES=1
 * (an append-only log of one thread) it is durable, too, when such a sync covers the bytes that were written before
 * it: a sync that began between the write and the call covers the one and not the other.
 *
 * Faults (inner): DURAC_TEST_EIO_AFTER=n fails every sync of a log after the first n with EIO,
 * DURAC_TEST_EIO_ONCE=n only the one after the first n, DURAC_TEST_ENOSPC_AFTER=n every write to a
 * log after the first n.
 *
 * Time: with DURAC_TEST_SYNC_US=n (inner) a sync of a log takes up to n microseconds longer, with
 * DURAC_TEST_PAUSE_US=n (outer) the application waits up to n before a sync call, in about half of them. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define SLOTS 512

/* The layout that src/witness.rs reads. */
struct slot {
    uint64_t inode;
    uint64_t is_log;
    uint64_t entered;     /* sync calls of the application that began */
    uint64_t acknowledged; /* the last one that was told "success" */
    uint64_t refused;     /* calls, writes too, that were told "failure" */
    uint64_t durable;     /* the last one that a successful real sync covers */
    uint64_t max_pending; /* most calls acknowledged and not durable at once */
    uint64_t length;      /* of the file, as far as a successful sync covers it */
    uint64_t syncs;       /* real syncs that succeeded */
    uint64_t failed;      /* real syncs that failed */
};

static struct slot *slots;
static int (*real_fdatasync)(int);
static int (*real_fsync)(int);

/* Up to this many microseconds, 0 in half of the cases. */
static void wait_up_to(long most)
{
    static uint64_t state = 88172645463325252u;
    uint64_t x = __atomic_add_fetch(&state, 0x9e3779b97f4a7c15u, __ATOMIC_RELAXED);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    if (most > 0 && (x & 1))
        usleep((x >> 1) % most);
}

static long number(const char *name)
{
    const char *text = getenv(name);
    return text ? atol(text) : -1;
}

static uint64_t load(uint64_t *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
static uint64_t add(uint64_t *p) { return __atomic_add_fetch(p, 1, __ATOMIC_SEQ_CST); }
static void raise_to(uint64_t *p, uint64_t value)
{
    uint64_t old = load(p);
    while (old < value &&
           !__atomic_compare_exchange_n(p, &old, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        ;
}

static int is_log(int fd)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return strstr(path, ".incr") != NULL;
}

static struct slot *slot_of_inode(uint64_t inode, int make)
{
    if (!slots)
        return NULL;
    for (int i = 0; i < SLOTS; i++) {
        uint64_t seen = load(&slots[i].inode);
        if (seen == inode)
            return &slots[i];
        if (seen == 0) {
            if (!make)
                return NULL;
            if (__atomic_compare_exchange_n(&slots[i].inode, &seen, inode, 0, __ATOMIC_SEQ_CST,
                                            __ATOMIC_SEQ_CST) ||
                seen == inode)
                return &slots[i];
        }
    }
    return NULL;
}

/* The file's slot; NULL for what is no file. */
static struct slot *slot_of(int fd, uint64_t *size)
{
    struct stat st;
    int saved = errno;
    struct slot *slot = NULL;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
        *size = st.st_size;
        slot = slot_of_inode(st.st_ino, 1);
        if (slot && !slot->is_log && is_log(fd))
            slot->is_log = 1;
    }
    errno = saved;
    return slot;
}

static void map_slots(void)
{
    const char *path = getenv("DURAC_TEST_WITNESS");
    if (!path)
        return;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    void *page = mmap(NULL, SLOTS * sizeof *slots, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (page != MAP_FAILED)
        slots = page;
}

#ifdef OUTER

#define CALLS 65536

static ssize_t (*real_write)(int, const void *, size_t);
static long pause_us = -1;
static int by_bytes;
/* Bytes that the application was told are written; the same when each call began. */
static uint64_t told, told_before[CALLS];

__attribute__((constructor)) static void start(void)
{
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_write = dlsym(RTLD_NEXT, "write");
    pause_us = number("DURAC_TEST_PAUSE_US");
    by_bytes = number("DURAC_TEST_BY_BYTES") == 1;
    map_slots();
}

ssize_t write(int fd, const void *bytes, size_t count)
{
    uint64_t size;
    ssize_t written = real_write(fd, bytes, count);
    if (written < 0) {
        struct slot *slot = slot_of(fd, &size);
        if (slot && slot->is_log)
            add(&slot->refused);
    } else if (by_bytes) {
        struct slot *slot = slot_of(fd, &size);
        if (slot && slot->is_log)
            told += (uint64_t)written;
    }
    return written;
}

/* Calls up to this one that are acknowledged and not durable. */
static uint64_t pending(struct slot *slot, uint64_t call)
{
    uint64_t durable = load(&slot->durable), length = load(&slot->length), count = 0;
    if (!by_bytes)
        return call > durable ? call - durable : 0;
    for (uint64_t each = durable + 1; each <= call; each++)
        count += told_before[each % CALLS] > length;
    return count;
}

static int witness(int fd, int (*sync)(int))
{
    uint64_t size;
    struct slot *slot = slot_of(fd, &size);
    if (!slot || !slot->is_log)
        return sync(fd);
    wait_up_to(pause_us);
    uint64_t call = add(&slot->entered);
    if (by_bytes)
        told_before[call % CALLS] = told;
    int result = sync(fd);
    if (result == 0) {
        raise_to(&slot->acknowledged, call);
        raise_to(&slot->max_pending, pending(slot, call));
    } else {
        add(&slot->refused);
    }
    return result;
}

#else

static long eio_after = -1, eio_once = -1, enospc_after = -1, sync_us = -1;
static uint64_t log_syncs, log_writes;
static ssize_t (*real_write)(int, const void *, size_t);
static int (*real_unlink)(const char *);
static int (*real_rename)(const char *, const char *);

__attribute__((constructor)) static void start(void)
{
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_write = dlsym(RTLD_NEXT, "write");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    real_rename = dlsym(RTLD_NEXT, "rename");
    eio_after = number("DURAC_TEST_EIO_AFTER");
    eio_once = number("DURAC_TEST_EIO_ONCE");
    enospc_after = number("DURAC_TEST_ENOSPC_AFTER");
    sync_us = number("DURAC_TEST_SYNC_US");
    map_slots();
}

static int witness(int fd, int (*sync)(int))
{
    uint64_t size = 0;
    struct slot *slot = slot_of(fd, &size);
    uint64_t covers = slot ? load(&slot->entered) : 0;
    int log = slot ? (int)slot->is_log : is_log(fd);
    int result;
    long before = log ? (long)add(&log_syncs) - 1 : -1;
    if (log && ((eio_after >= 0 && before >= eio_after) || (eio_once >= 0 && before == eio_once))) {
        errno = EIO;
        result = -1;
    } else {
        if (log)
            wait_up_to(sync_us);
        result = sync(fd);
    }
    if (slot && result == 0) {
        raise_to(&slot->durable, covers);
        raise_to(&slot->length, size);
        add(&slot->syncs);
    } else if (slot) {
        add(&slot->failed);
    }
    return result;
}

ssize_t write(int fd, const void *bytes, size_t count)
{
    struct stat st;
    if (enospc_after >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && is_log(fd) &&
        (long)add(&log_writes) > enospc_after) {
        errno = ENOSPC;
        return -1;
    }
    return real_write(fd, bytes, count);
}

/* The inode of a file that goes away is soon another file's. */
static void forget(const char *path)
{
    struct stat st;
    int saved = errno;
    if (lstat(path, &st) == 0 && st.st_nlink == 1) {
        struct slot *slot = slot_of_inode(st.st_ino, 0);
        if (slot) {
            slot->length = 0;
            slot->is_log = 0;
            raise_to(&slot->durable, load(&slot->entered));
        }
    }
    errno = saved;
}

int unlink(const char *path)
{
    forget(path);
    return real_unlink(path);
}

int rename(const char *from, const char *to)
{
    forget(to);
    return real_rename(from, to);
}

#endif

int fdatasync(int fd) { return witness(fd, real_fdatasync); }
int fsync(int fd) { return witness(fd, real_fsync); }
