// Descriptors that are reached in unusual ways, and writes in unusual ways.
//
//   order WAY    syncs x.log, writes once to another file whose writes are durable at once, and is killed. Prints how many real
//                syncs there were before that write, and after it. `late:WAY`: the log is open before the other file
//   reply WAY LOG  writes x.log by LOG and then a reply by WAY, without a sync call, while syncs are held. Prints whether the
//                client got it meanwhile, and what came when they are let go
//   close WAY    syncs x.log, closes descriptors by number, and syncs it again
#define _GNU_SOURCE
#include <aio.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
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

#define IS(text) (!strcmp(way, text))
#define CHECK(what)                                                                                                    \
    do {                                                                                                               \
        if (!(what)) {                                                                                                 \
            fprintf(stderr, "%s: %s\n", #what, strerror(errno));                                                       \
            _exit(3);                                                                                                  \
        }                                                                                                              \
    } while (0)

static long shim(const char *name, long argument) {
    long (*function)(long) = (long (*)(long))dlsym(RTLD_DEFAULT, name);
    CHECK(function);
    return function(argument);
}

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
    if (IS("number:pwritev2") || IS("number:symlink") || IS("number:rmdir") || IS("number:range") || IS("number:ftruncate"))
        return open("other", O_WRONLY | O_CREAT, 0644);
    int fd = open("other", flags, 0644);
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
    FILE *stream = IS("stream") || IS("inherited:stream") ? fdopen(fd, "w") : stdout;
    if (!late) log = open_log();
    CHECK(write(log, "x\n", 2) == 2 && fdatasync(log) == 0);
    long before = shim("shim_syncs", 0);
    if (IS("dprintf")) CHECK(dprintf(fd, "%s", "y\n") == 2);
    else if (IS("number:pwritev2")) {
        struct iovec piece = {"y\n", 2};
        CHECK(syscall(SYS_pwritev2, fd, &piece, 1, 0, 0, RWF_DSYNC) == 2);
    } else if (IS("number:symlink")) CHECK(syscall(SYS_symlink, "other", "link") == 0);
    else if (IS("number:rmdir")) CHECK(syscall(SYS_rmdir, "folder") < 0);
    else if (IS("number:range")) CHECK(syscall(SYS_sync_file_range, fd, 0, 0, SYNC_FILE_RANGE_WAIT_AFTER) == 0);
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
    int log = stream ? fileno(stream) : open_log();
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
    else CHECK(write(fd, "reply\n", 6) == 6);
    pthread_join(thread, NULL);
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
    else close_by_number(words[2]);
    return 0;
}
