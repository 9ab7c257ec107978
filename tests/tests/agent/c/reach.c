// Descriptors that are reached in unusual ways, and writes in unusual ways.
//
//   order WAY    syncs x.log, writes once to another file whose writes are durable at once, and is killed. Prints how many real
//                syncs there were before that write, and after it. `late:WAY`: the log is open before the other file
//   reply WAY LOG  writes x.log by LOG and then a reply by WAY, without a sync call, while syncs are held. Prints whether the
//                client got it meanwhile, and what came when they are let go
//   failed WAY   syncs x.log, and the agent's background sync of it fails. Prints what the call WAY says then. `forked:WAY`: in
//                a child; `born:WAY`: in one that was there before; `sibling:WAY`: another child has opened the log anew before;
//                `closed:WAY`: in a child made when the log was closed, which opens the file
//   taken WAY    syncs x.log, and the call WAY gets the error of its file. Prints what it says, and two syncs then
//   close WAY    syncs x.log, closes descriptors by number, and syncs it again
#define _GNU_SOURCE
#include <aio.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/openat2.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#define IS(text) (!strcmp(way, text))

// Another file than standard output, which some ways replace.
static int out;

static void say(const char *text) {
    CHECK(write(out, text, strlen(text)) >= 0);
}

static int copy_by_pidfd(int fd, int by_number) {
    int self = pidfd_open(getpid(), 0);
    int copy = by_number ? (int)syscall(SYS_pidfd_getfd, self, fd, 0) : pidfd_getfd(self, fd, 0);
    close(self);
    return copy;
}

// Submits one block, and waits for its result.
static long submit(int operation, int fd, int flags) {
    static char text[] = "reply\n";
    aio_context_t context = 0;
    struct iocb block = {.aio_lio_opcode = operation, .aio_fildes = fd, .aio_rw_flags = flags}, *list[] = {&block};
    if (operation == IOCB_CMD_PWRITE) block.aio_buf = (uintptr_t)text, block.aio_nbytes = 6;
    struct io_event event;
    CHECK(syscall(SYS_io_setup, 1, &context) == 0);
    if (syscall(SYS_io_submit, context, 1, list) != 1) return -1;
    CHECK(syscall(SYS_io_getevents, context, 1, 1, &event, NULL) == 1);
    return event.res;
}

// Sends a descriptor by a system call made by number, and receives it.
static int passed(int fd, int many) {
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
    char control[CMSG_SPACE(sizeof fd)] = {0}, byte = 'x';
    struct iovec one = {&byte, 1};
    struct mmsghdr message = {
        .msg_hdr = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control}};
    struct cmsghdr *part = CMSG_FIRSTHDR(&message.msg_hdr);
    part->cmsg_level = SOL_SOCKET, part->cmsg_type = SCM_RIGHTS, part->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(part), &fd, sizeof fd);
    if (many) CHECK(syscall(SYS_sendmmsg, pair[0], &message, 1, 0) == 1);
    else CHECK(syscall(SYS_sendmsg, pair[0], &message.msg_hdr, 0) == 1);
    message.msg_hdr.msg_controllen = sizeof control;
    CHECK(recvmsg(pair[1], &message.msg_hdr, 0) == 1);
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message.msg_hdr)), sizeof fd);
    return fd;
}

// A descriptor of the other file, or -1.
static int other(const char *way) {
    const int flags = O_WRONLY | O_CREAT | O_DSYNC;
    char name[] = "otherXXXXXX", named[] = "otherXXXXXX.x";
    if (IS("mkostemp")) return mkostemp(name, O_DSYNC);
    if (IS("mkostemp64")) return mkostemp64(name, O_SYNC);
    if (IS("mkostemps")) return mkostemps(named, 2, O_DSYNC);
    if (IS("mkostemps64")) return mkostemps64(named, 2, O_DSYNC);
    if (IS("number:open")) return syscall(SYS_open, "other", flags, 0644);
    if (IS("number:openat")) return syscall(SYS_openat, AT_FDCWD, "other", flags, 0644);
    if (IS("number:openat2")) {
        struct open_how how = {.flags = flags, .mode = 0644};
        return syscall(SYS_openat2, AT_FDCWD, "other", &how, sizeof how);
    }
    if (!strncmp(way, "inherited", 9)) return 9;
    if (IS("number:pwritev2") || IS("number:symlink") || IS("number:rmdir") || IS("number:range") || IS("number:ftruncate") ||
        IS("number:io_fdsync"))
        return open("other", O_WRONLY | O_CREAT, 0644);
    if (IS("tmpfile")) return open(".", O_TMPFILE | O_WRONLY | O_DSYNC, 0644);
    int fd = open("other", flags, 0644);
    if (IS("number:sendfile") || IS("number:cfr") || IS("number:splice") || IS("number:io_dsync") || IS("allocate") || IS("over"))
        return fd;
    if (IS("plain") || IS("dprintf") || IS("stream")) return fd;
    if (IS("dup")) return dup(fd);
    if (IS("dup2")) return dup2(fd, 60);
    if (IS("dup3")) return dup3(fd, 60, O_CLOEXEC);
    if (IS("number:dup")) return syscall(SYS_dup, fd);
    if (IS("number:dup2")) return syscall(SYS_dup2, fd, 60);
    if (IS("number:dup3")) return syscall(SYS_dup3, fd, 60, O_CLOEXEC);
    if (IS("number:fcntl")) return syscall(SYS_fcntl, fd, F_DUPFD, 60);
    if (IS("pidfd")) return copy_by_pidfd(fd, 0);
    if (IS("number:pidfd")) return copy_by_pidfd(fd, 1);
    if (IS("output")) return dup2(fd, 1);
    if (IS("forked")) {
        pid_t child = fork();
        if (child) {
            waitpid(child, 0, 0);
            _exit(0);
        }
        return fd;
    }
    if (IS("vforked")) {
        // What the child does with its numbers does not change its parent's.
        pid_t child = vfork();
        if (!child) {
            dup2(1, fd);
            close(fd);
            _exit(0);
        }
        waitpid(child, 0, 0);
        return fd;
    }
    return -1;
}

static int open_log(void) {
    int log = open("x.log", O_RDWR | O_CREAT | O_APPEND, 0644);
    CHECK(log >= 0);
    return log;
}

static void order(const char *way) {
    int late = !strncmp(way, "late:", 5), log = -1;
    way += late ? 5 : 0;
    if (late) log = open_log();
    int fd = other(way);
    CHECK(fd >= 0);
    FILE *over = IS("over") ? fopen("plain", "w") : NULL;
    FILE *stream = over ? over : IS("stream") || IS("inherited:stream") ? fdopen(fd, "w") : stdout;
    if (!late) log = open_log();
    if (over) CHECK(dup2(fd, fileno(over)) >= 0);
    int source = open("/proc/self/exe", O_RDONLY), ends[2];
    CHECK(pipe(ends) == 0 && write(ends[1], "y\n", 2) == 2);
    CHECK(write(log, "x\n", 2) == 2 && fdatasync(log) == 0);
    long before = shim("shim_syncs", 0);
    if (IS("dprintf")) CHECK(dprintf(fd, "%s", "y\n") == 2);
    else if (IS("number:pwritev2")) {
        struct iovec piece = {"y\n", 2};
        CHECK(syscall(SYS_pwritev2, fd, &piece, 1, 0, 0, RWF_DSYNC) == 2);
    } else if (IS("number:symlink")) CHECK(syscall(SYS_symlink, "other", "link") == 0);
    else if (IS("number:rmdir")) CHECK(syscall(SYS_rmdir, "folder") < 0);
    else if (IS("number:range")) CHECK(syscall(SYS_sync_file_range, fd, 0, 0, SYNC_FILE_RANGE_WAIT_AFTER) == 0);
    else if (IS("number:sendfile")) CHECK(syscall(SYS_sendfile, fd, source, 0, 100) == 100);
    else if (IS("number:cfr")) syscall(SYS_copy_file_range, source, 0, fd, 0, 100, 0);
    else if (IS("number:splice")) CHECK(syscall(SYS_splice, ends[0], 0, fd, 0, 2, 0) == 2);
    else if (IS("number:io_fdsync")) submit(IOCB_CMD_FDSYNC, fd, 0);
    else if (IS("number:io_dsync")) CHECK(submit(IOCB_CMD_PWRITE, fd, 0) == 6);
    else if (IS("allocate")) CHECK(fallocate(fd, 0, 0, 4096) == 0);
    else if (IS("number:ftruncate")) CHECK(syscall(SYS_ftruncate, fd, 0) == 0);
    else if (stream != stdout || IS("output")) CHECK(fputs("y\n", stream) >= 0 && fflush(stream) == 0);
    else CHECK(write(fd, "y\n", 2) == 2);
    char line[64];
    snprintf(line, sizeof line, "%ld %ld\n", before, shim("shim_syncs", 0));
    say(line);
    kill(getpid(), SIGKILL);
}

static int client_fd;

static void *client(void *unused) {
    struct pollfd poll_one = {client_fd, POLLIN, 0};
    say(poll(&poll_one, 1, 150) == 0 ? "silent\n" : "early\n");
    shim("shim_hold", 0);
    char bytes[64];
    ssize_t n = read(client_fd, bytes, sizeof bytes);
    CHECK(n > 0 && write(out, bytes, n) == n);
    return unused;
}

static int connection(const char *way) {
    struct sockaddr_un name = {AF_UNIX, "sock"};
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    client_fd = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(bind(listener, (void *)&name, sizeof name) == 0 && listen(listener, 5) == 0);
    CHECK(connect(client_fd, (void *)&name, sizeof name) == 0);
    if (IS("number:accept")) return syscall(SYS_accept, listener, 0, 0);
    if (IS("number:accept4")) return syscall(SYS_accept4, listener, 0, 0, SOCK_CLOEXEC);
    return accept(listener, 0, 0);
}

static void *in_control(void *block) {
    while (aio_error(block) == EINPROGRESS) usleep(100);
    return block;
}

static void put(int log, FILE *stream, const char *way) {
    static char text[] = "log\n";
    struct aiocb block = {.aio_fildes = log, .aio_buf = text, .aio_nbytes = 4};
    if (IS("write")) CHECK(write(log, text, 4) == 4);
    else if (IS("number")) CHECK(syscall(SYS_write, log, text, 4) == 4);
    else if (IS("fopen") || IS("fdopen")) CHECK(fputs(text, stream) >= 0 && fflush(stream) == 0);
    else if (IS("dprintf")) CHECK(dprintf(log, "%s", text) == 4);
    else if (IS("aio")) CHECK(aio_write(&block) == 0 && in_control(&block) && aio_return(&block) == 4);
    else if (IS("output")) CHECK(printf("%s", text) == 4 && fflush(stdout) == 0);
    else if (IS("pidfd")) CHECK(write(copy_by_pidfd(log, 0), text, 4) == 4);
    else if (IS("number:sendmsg")) CHECK(write(passed(log, 0), text, 4) == 4);
    else if (IS("number:io_submit")) CHECK(submit(IOCB_CMD_PWRITE, log, 0) == 6);
    else if (IS("number:truncate")) CHECK(syscall(SYS_truncate, "x.log", 1) == 0);
    else if (IS("mkstemps") || IS("mkostemps")) CHECK(write(log, text, 4) == 4);
    else if (IS("map")) {
        CHECK(ftruncate(log, 4096) == 0 && fdatasync(log) == 0);
        char *map = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, log, 0);
        CHECK(map != MAP_FAILED);
        memcpy(map, text, 4);
    } else if (IS("allocate")) CHECK(fallocate(log, 0, 0, 4096) == 0);
    else if (IS("zero")) {
        struct range {
            short type, whence;
            int64_t start, length;
            int unused[6];
        } range = {0, SEEK_SET, 0, 4096, {0}};
        // FS_IOC_ZERO_RANGE (include/linux/falloc.h)
        CHECK(syscall(SYS_ioctl, log, _IOW('X', 57, struct range), &range) == 0);
    } else CHECK(0);
}

static void reply(const char *way, const char *how) {
    int fd = connection(way);
    CHECK(fd >= 0);
    if (IS("dup")) fd = dup(fd);
    else if (IS("dup2")) fd = dup2(fd, 60);
    else if (IS("dup3")) fd = dup3(fd, 60, 0);
    else if (IS("moved")) dup2(fd, 60), close(fd), fd = 60;
    else if (IS("number:dup")) fd = syscall(SYS_dup, fd);
    else if (IS("number:dup2")) fd = syscall(SYS_dup2, fd, 60);
    else if (IS("number:fcntl")) fd = syscall(SYS_fcntl, fd, F_DUPFD, 60);
    // Copies over it that fail.
    else if (IS("flags")) CHECK(dup3(out, fd, O_APPEND) < 0 && errno == EINVAL);
    else if (IS("number:flags")) CHECK(syscall(SYS_dup3, out, fd, O_APPEND) < 0 && errno == EINVAL);
    else if (IS("limit")) {
        struct rlimit before, less;
        CHECK(dup2(fd, 60) == 60 && getrlimit(RLIMIT_NOFILE, &before) == 0);
        fd = 60, less = before, less.rlim_cur = 60;
        CHECK(setrlimit(RLIMIT_NOFILE, &less) == 0 && dup2(out, fd) < 0 && errno == EBADF);
        CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
    }
    FILE *stream = !strcmp(how, "fopen") ? fopen("x.log", "a") : NULL;
    char name[] = "XXXXXX.log";
    int log = stream                     ? fileno(stream)
              : !strcmp(how, "mkstemps") ? mkstemps(name, 4)
              : !strcmp(how, "mkostemps") ? mkostemps(name, 4, O_APPEND)
                                         : open_log();
    if (!strcmp(how, "fdopen")) stream = fdopen(log, "a");
    if (!strcmp(how, "output")) dup2(log, 1);
    if (IS("pidfd")) fd = copy_by_pidfd(fd, 0);
    else if (IS("number:pidfd")) fd = copy_by_pidfd(fd, 1);
    // What was open and read from is covered: the first reply of all leaves at once.
    put(log, stream, how);
    shim("shim_hold", 1);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, client, NULL) == 0);
    struct aiocb block = {.aio_fildes = fd, .aio_buf = "reply\n", .aio_nbytes = 6, .aio_lio_opcode = LIO_WRITE};
    struct aiocb *list[] = {&block};
    if (IS("aio")) CHECK(aio_write(&block) == 0 && in_control(&block));
    else if (IS("lio")) CHECK(lio_listio(LIO_WAIT, list, 1, NULL) == 0);
    else if (IS("number:sendmsg") || IS("number:sendmmsg")) CHECK(write(passed(fd, IS("number:sendmmsg")), "reply\n", 6) == 6);
    else if (IS("number:io_submit")) CHECK(submit(IOCB_CMD_PWRITE, fd, 0) == 6);
    else CHECK(write(fd, "reply\n", 6) == 6);
    pthread_join(thread, NULL);
}

// A call that syncs the log, whose first page is mapped.
static long sync_by(const char *way, int log, void *page) {
    struct iovec piece = {"y", 1};
    struct aiocb block = {.aio_fildes = log};
    if (IS("fdatasync")) return fdatasync(log);
    if (IS("range")) return sync_file_range(log, 0, 0, SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
    if (IS("syncfs")) return syncfs(log);
    if (IS("msync")) return msync(page, 4096, MS_SYNC);
    if (IS("pwritev2")) return pwritev2(log, &piece, 1, 0, RWF_DSYNC);
    if (IS("aio")) return aio_fsync(O_DSYNC, &block);
    if (IS("number:fsync")) return syscall(SYS_fsync, log);
    if (IS("number:fdatasync")) return syscall(SYS_fdatasync, log);
    if (IS("number:range")) return syscall(SYS_sync_file_range, log, 0, 0, SYNC_FILE_RANGE_WAIT_AFTER);
    if (IS("number:syncfs")) return syscall(SYS_syncfs, log);
    if (IS("number:msync")) return syscall(SYS_msync, page, 4096, MS_SYNC);
    if (IS("number:pwritev2")) return syscall(SYS_pwritev2, log, &piece, 1, 0, 0, RWF_DSYNC);
    if (IS("number:write")) return syscall(SYS_write, log, "y", 1);
    if (IS("number:io_submit")) return submit(IOCB_CMD_FDSYNC, log, 0);
    if (IS("number:io_submit_dsync")) return submit(IOCB_CMD_PWRITE, log, RWF_DSYNC);
    CHECK(0);
    return 0;
}

static void tell(long result) {
    char line[64];
    snprintf(line, sizeof line, "%ld %d\n", result, result < 0 ? errno : 0);
    say(line);
}

static void fail(const char *way, int is_taken) {
    int log = open_log(), begins[2], born = !strncmp(way, "born:", 5), forked = strncmp(way, "number:", 7) && strchr(way, ':');
    int sibling = !strncmp(way, "sibling:", 8), closed = !strncmp(way, "closed:", 7);
    CHECK(ftruncate(log, 4096) == 0 && pipe(begins) == 0);
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, log, 0);
    CHECK(page != MAP_FAILED);
    pid_t child = born ? fork() : -1;
    char byte = 'x';
    if (child) {
        CHECK(write(log, "x\n", 2) == 2 && fdatasync(log) == 0);
        // The error is known to the agent when it has told of it.
        while (!is_taken && (!shim("shim_syncs", 0) || usleep(20000))) usleep(1000);
        if (born) CHECK(write(begins[1], &byte, 1) == 1);
        if (sibling && !fork()) {
            // It opens the log anew, with no error of its own.
            log = open("x.log", O_WRONLY | O_APPEND);
            CHECK(write(log, "y\n", 2) == 2 && fdatasync(log) == 0);
            _exit(0);
        }
        if (sibling) wait(NULL);
        if (closed) munmap(page, 4096), close(log);
        if (forked && !born) child = fork();
        if (closed && !child) log = open("x.log", O_RDONLY);
    } else CHECK(read(begins[0], &byte, 1) == 1);
    if (forked && child) waitpid(child, NULL, 0);
    else tell(sync_by(forked ? strchr(way, ':') + 1 : way, log, page));
    for (int i = 0; is_taken && i < 2; i++) tell(fdatasync(log));
    _exit(0);
}

static void close_by_number(const char *way) {
    int log = open_log();
    CHECK(write(log, "x\n", 2) == 2 && fdatasync(log) == 0);
    if (IS("range")) CHECK(syscall(SYS_close_range, log + 1, ~0u, 0) == 0);
    else {
        CHECK(syscall(SYS_close, log) == 0);
        kill(getpid(), SIGKILL);
    }
    for (int i = 0; i < 100; i++) CHECK(write(log, "x\n", 2) == 2 && fdatasync(log) == 0 && usleep(1000) == 0);
    CHECK(write(1, "fine\n", 5) == 5);
}

int main(int count, char **words) {
    CHECK(count > 2);
    out = fcntl(1, F_DUPFD_CLOEXEC, 100);
    if (!strcmp(words[1], "exec")) {
        int fd = open("other", O_WRONLY | O_CREAT | O_DSYNC, 0644);
        CHECK(dup2(fd, 9) == 9);
        execl("/proc/self/exe", words[0], "order", words[2], NULL);
    }
    if (!strcmp(words[1], "order")) order(words[2]);
    else if (!strcmp(words[1], "reply")) reply(words[2], words[3]);
    else if (!strcmp(words[1], "failed")) fail(words[2], 0);
    else if (!strcmp(words[1], "taken")) fail(words[2], 1);
    else close_by_number(words[2]);
    return 0;
}
