/* One program for the table of `matrix.rs`: a kind, and the two entries of its table that are combined.
 * It prints what it sees. Run without the agent, that is the right answer. */

#define _GNU_SOURCE
#include <aio.h>
#include <dirent.h>
#include <dlfcn.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <mqueue.h>
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <stddef.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <threads.h>
#include <unistd.h>

#define IS(text) (!strcmp(name, text))

static const char *LOG = "x.log";

static void unknown(const char *name)
{
    fprintf(stderr, "unknown: %s\n", name);
    _exit(99);
}

static long raw(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

/* What is in a file, read by raw calls: no hook sees it. */
static void show(const char *what, const char *path)
{
    char data[4096];
    long fd = raw(SYS_open, (long)path, O_RDONLY, 0);
    long n = raw(SYS_read, fd, (long)data, sizeof data);
    raw(SYS_close, fd, 0, 0);
    printf("%s: %ld ", what, n);
    for (long i = 0; i < n; i++) putchar(data[i] == '\n' ? '|' : data[i]);
    putchar('\n');
}

static int open_log(int flags)
{
    int fd = open(LOG, O_CREAT | O_APPEND | flags, 0644);
    if (fd < 0) _exit(98);
    return fd;
}

/* ---- a number is closed in one way, and comes back in another ---- */

static void close_by(const char *name, int fd)
{
    if (IS("close")) close(fd);
    else if (IS("fclose")) fclose(fdopen(fd, "a"));
    else if (IS("range")) close_range(fd, fd, 0);
    else if (IS("syscall")) syscall(SYS_close, fd);
    else if (IS("raw")) raw(SYS_close, fd, 0, 0);
    else if (IS("dup2")) { int other = open("/dev/null", O_WRONLY); dup2(other, fd); close(other); raw(SYS_close, fd, 0, 0); }
    else if (IS("closedir")) { int other = open(".", O_RDONLY | O_DIRECTORY); dup3(other, fd, O_CLOEXEC); close(other); closedir(fdopendir(fd)); }
    else if (IS("closefrom")) closefrom(fd);
    else if (IS("raw_range")) raw(SYS_close_range, fd, fd, 0);
    else if (IS("raw_dup2")) { int other = open("/dev/null", O_WRONLY); raw(SYS_dup2, other, fd, 0); raw(SYS_close, other, 0, 0); raw(SYS_close, fd, 0, 0); }
    else if (IS("freopen")) { FILE *s = fdopen(fd, "a"); raw(SYS_close, fileno(freopen("/dev/null", "a", s)), 0, 0); }
    else if (IS("sharing_child")) {
        /* A process with the same table of descriptors. */
        long child = raw(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0);
        if (!child) { raw(SYS_close, fd, 0, 0); raw(SYS_exit_group, 0, 0, 0); }
        waitpid(child, NULL, 0);
    }
    else if (IS("spawned_close")) {
        /* Closes nothing here: the application does. */
        posix_spawn_file_actions_t actions;
        pid_t child;
        char *none[] = {"true", NULL};
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_addclose(&actions, fd);
        posix_spawnp(&child, "true", &actions, NULL, none, environ);
        waitpid(child, NULL, 0);
        close(fd);
    }
    else unknown(name);
}

static int peer = -1;

static int open_by(const char *name)
{
    int pair[2];
    if (IS("open")) return open("other", O_RDWR | O_CREAT, 0644);
    if (IS("creat")) return creat("other", 0644);
    if (IS("mkstemp")) { char path[] = "otherXXXXXX"; int fd = mkstemp(path); rename(path, "other"); return fd; }
    if (IS("fopen")) return fileno(fopen("other", "w"));
    if (IS("raw")) return raw(SYS_open, (long)"other", O_RDWR | O_CREAT, 0644);
    if (IS("syscall")) return syscall(SYS_openat, AT_FDCWD, "other", O_RDWR | O_CREAT, 0644);
    if (IS("dup")) { int high = fcntl(open("other", O_RDWR | O_CREAT, 0644), F_DUPFD, 200); return dup(high); }
    if (IS("raw_dup")) { int first = open("other", O_RDWR | O_CREAT, 0644); int high = fcntl(first, F_DUPFD, 200); raw(SYS_close, first, 0, 0); return raw(SYS_dup, high, 0, 0); }
    if (IS("tmpfile")) return fileno(tmpfile());
    if (IS("memfd")) return memfd_create("m", 0);
    if (IS("eventfd")) return eventfd(0, EFD_NONBLOCK);
    if (IS("timerfd")) return timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    if (IS("opendir")) return dirfd(opendir("."));
    if (IS("socketpair")) { socketpair(AF_UNIX, SOCK_STREAM, 0, pair); peer = pair[1]; return pair[0]; }
    if (IS("pipe")) { pipe(pair); peer = pair[0]; return pair[1]; }
    if (IS("openat2")) { uint64_t how[3] = {O_RDWR | O_CREAT, 0644, 0}; return syscall(SYS_openat2, AT_FDCWD, "other", how, sizeof how); }
    if (IS("pidfd_getfd")) { int first = open("other", O_RDWR | O_CREAT, 0644), high = fcntl(first, F_DUPFD, 200), self = fcntl(pidfd_open(getpid(), 0), F_DUPFD, 201); raw(SYS_close, first, 0, 0); for (int i = 3; i < 100; i++) raw(SYS_close, i, 0, 0); return pidfd_getfd(self, high, 0); }
    if (IS("signalfd")) { sigset_t none; sigemptyset(&none); return signalfd(-1, &none, SFD_NONBLOCK); }
    if (IS("inotify")) return inotify_init1(IN_NONBLOCK);
    if (IS("epoll")) return epoll_create1(0);
    if (IS("shm_open")) { int fd = shm_open("/durac-matrix", O_RDWR | O_CREAT, 0600); shm_unlink("/durac-matrix"); return fd; }
    if (IS("popen")) return fileno(popen("cat >/dev/null", "w"));
    if (IS("openpt")) return posix_openpt(O_RDWR | O_NOCTTY);
    if (IS("tmp_flag")) return open(".", O_TMPFILE | O_RDWR, 0600);
    if (IS("dupfd")) { int high = fcntl(open("other", O_RDWR | O_CREAT, 0644), F_DUPFD, 200); return fcntl(high, F_DUPFD_CLOEXEC, 3); }
    if (IS("accept")) {
        struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "socket.out"};
        int server = fcntl(socket(AF_UNIX, SOCK_STREAM, 0), F_DUPFD, 205), client = fcntl(socket(AF_UNIX, SOCK_STREAM, 0), F_DUPFD, 206);
        bind(server, (struct sockaddr *)&name, sizeof name); listen(server, 1); connect(client, (struct sockaddr *)&name, sizeof name);
        for (int i = 3; i < 100; i++) raw(SYS_close, i, 0, 0);
        peer = client;
        return accept(server, NULL, NULL);
    }
    if (IS("recvmsg")) {
        socketpair(AF_UNIX, SOCK_DGRAM, 0, pair);
        int a = fcntl(pair[0], F_DUPFD, 210), b = fcntl(pair[1], F_DUPFD, 210);
        int file = fcntl(open("other", O_RDWR | O_CREAT, 0644), F_DUPFD, 220);
        for (int i = 3; i < 200; i++) raw(SYS_close, i, 0, 0);
        char byte = 'x', control[CMSG_SPACE(sizeof(int))] = {0};
        struct iovec io = {&byte, 1};
        struct msghdr message = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        struct cmsghdr *part = CMSG_FIRSTHDR(&message);
        part->cmsg_level = SOL_SOCKET; part->cmsg_type = SCM_RIGHTS; part->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(part), &file, sizeof file);
        sendmsg(a, &message, 0);
        message.msg_controllen = sizeof control;
        recvmsg(b, &message, 0);
        int fd;
        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
        return fd;
    }
    unknown(name);
    return -1;
}

static void stale(const char *closer, const char *opener)
{
    int log = open_log(O_WRONLY);
    write(log, "log\n", 4);
    printf("sync %d\n", fdatasync(log));
    write(log, "end\n", 4);
    close_by(closer, log);
    int fd = open_by(opener);
    long n = write(fd, "12345678", 8);
    printf("write %ld %s\n", n, n < 0 ? strerror(errno) : "");
    int result = fsync(fd);
    printf("fsync %d %s\n", result, result < 0 ? strerror(errno) : "");
    result = fdatasync(fd);
    printf("fdatasync %d %s\n", result, result < 0 ? strerror(errno) : "");
    struct stat st;
    if (!fstat(fd, &st) && S_ISREG(st.st_mode)) printf("size %ld\n", (long)st.st_size);
    if (peer >= 0) { char data[16]; printf("peer %ld\n", (long)read(peer, data, sizeof data)); }
    usleep(30000);
    show("log", LOG);
    if (!access("other", F_OK)) show("other", "other");
}

/* ---- bytes that are put in one way are seen in another ---- */

static int second = -1;
static FILE *stream;

/* What a writer needs is opened before. */
static void prepare_writer(const char *name, int log)
{
    if (IS("second")) second = open(LOG, O_WRONLY | O_APPEND);
    else if (IS("dsync")) second = open(LOG, O_WRONLY | O_APPEND | O_DSYNC);
    else if (IS("fopen")) stream = fopen(LOG, "a");
    else if (IS("fdopen")) stream = fdopen(log, "a");
    else if (IS("dup")) second = dup(log);
    else if (IS("link")) { link(LOG, "link.out"); second = open("link.out", O_WRONLY | O_APPEND); }
    else if (IS("proc")) { char path[64]; sprintf(path, "/proc/self/fd/%d", log); second = open(path, O_WRONLY | O_APPEND); }
    else if (IS("getfd")) { int self = pidfd_open(getpid(), 0); second = pidfd_getfd(self, log, 0); close(self); }
    else if (IS("mapped_write")) { second = open(LOG, O_RDWR); }
    else if (IS("number_dup")) second = syscall(SYS_dup, log);
    else if (IS("number_dupfd")) second = syscall(SYS_fcntl, log, F_DUPFD, 50);
    else if (IS("number_getfd")) { int self = pidfd_open(getpid(), 0); second = syscall(SYS_pidfd_getfd, self, log, 0); close(self); }
    else if (IS("raw_open")) second = syscall(SYS_openat, AT_FDCWD, LOG, O_WRONLY | O_APPEND);
}

static void put_by(const char *name, int log, const char *text)
{
    int n = strlen(text);
    if (IS("write")) write(log, text, n);
    else if (IS("writev")) { struct iovec v[2] = {{(void *)text, 1}, {(void *)(text + 1), n - 1}}; writev(log, v, 2); }
    else if (IS("dprintf")) dprintf(log, "%s", text);
    else if (IS("syscall")) syscall(SYS_write, log, text, n);
    else if (IS("fopen") || IS("fdopen")) { fputs(text, stream); fflush(stream); }
    else if (IS("second") || IS("dsync") || IS("dup") || IS("link") || IS("proc") || IS("raw_open")) write(second, text, n);
    else if (IS("child")) { pid_t child = fork(); if (!child) { write(log, text, n); _exit(0); } waitpid(child, NULL, 0); }
    else if (IS("spawn")) { char command[64]; sprintf(command, "printf '%s' >&%d", text, log); if (system(command)) puts("failed"); }
    else if (IS("sendfile")) { int from = open("from.out", O_RDWR | O_CREAT | O_TRUNC, 0644); write(from, text, n); off_t at = 0; int out = fcntl(log, F_GETFL); fcntl(log, F_SETFL, out & ~O_APPEND); lseek(log, 0, SEEK_END); sendfile(log, from, &at, n); fcntl(log, F_SETFL, out); close(from); }
    else if (IS("aio")) { struct aiocb block = {.aio_fildes = log, .aio_buf = (void *)text, .aio_nbytes = n}; aio_write(&block); while (aio_error(&block) == EINPROGRESS) usleep(500); aio_return(&block); }
    else if (IS("pwrite")) { struct stat st; fstat(log, &st); pwrite(log, text, n, st.st_size); }
    else if (IS("getfd") || IS("number_dup") || IS("number_dupfd") || IS("number_getfd")) write(second, text, n);
    else if (IS("append_flag")) { struct iovec v = {(void *)text, n}; pwritev2(log, &v, 1, -1, RWF_APPEND); }
    else if (IS("raw_writev")) { struct iovec v = {(void *)text, n}; raw(SYS_writev, log, (long)&v, 1); }
    else if (IS("vdprintf")) { char form[64]; sprintf(form, "%%.%ds", n); dprintf(log, form, text); }
    else if (IS("spliced")) { int ends[2], out = fcntl(log, F_GETFL); pipe(ends); write(ends[1], text, n); fcntl(log, F_SETFL, out & ~O_APPEND); lseek(log, 0, SEEK_END); splice(ends[0], NULL, log, NULL, n, 0); fcntl(log, F_SETFL, out); close(ends[0]); close(ends[1]); }
    else if (IS("range_copy")) { int from = open("from.out", O_RDWR | O_CREAT | O_TRUNC, 0644), out = fcntl(log, F_GETFL); write(from, text, n); loff_t at = 0; fcntl(log, F_SETFL, out & ~O_APPEND); lseek(log, 0, SEEK_END); copy_file_range(from, &at, log, NULL, n, 0); fcntl(log, F_SETFL, out); close(from); }
    else if (IS("listio")) { struct aiocb block = {.aio_fildes = log, .aio_buf = (void *)text, .aio_nbytes = n, .aio_lio_opcode = LIO_WRITE}, *blocks[] = {&block}; lio_listio(LIO_WAIT, blocks, 1, NULL); aio_return(&block); }
    else if (IS("posix_spawn")) {
        posix_spawn_file_actions_t actions;
        pid_t child;
        char *words[] = {"printf", "%s", (char *)text, NULL};
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, log, 1);
        posix_spawnp(&child, "printf", &actions, NULL, words, environ);
        waitpid(child, NULL, 0);
    }
    else if (IS("vfork")) { pid_t child = vfork(); if (!child) { char *words[] = {"sh", "-c", "printf '%s' \"$0\" >>x.log", (char *)text, NULL}; execvp("sh", words); _exit(1); } waitpid(child, NULL, 0); }
    else if (IS("popen")) { char command[32]; sprintf(command, "cat >&%d", log); FILE *pipe = popen(command, "w"); fputs(text, pipe); pclose(pipe); }
    else if (IS("cloned")) { long child = raw(SYS_clone, SIGCHLD, 0, 0); if (!child) { raw(SYS_write, log, (long)text, n); raw(SYS_exit_group, 0, 0, 0); } waitpid(child, NULL, 0); }
    else if (IS("stdout")) { fflush(stdout); int kept = fcntl(1, F_DUPFD, 100); dup2(log, 1); fputs(text, stdout); fflush(stdout); dup2(kept, 1); close(kept); }
    else if (IS("extended")) { struct stat st; fstat(log, &st); if (ftruncate(log, st.st_size + n)) puts("failed"); struct iovec v = {(void *)text, n}; int out = fcntl(log, F_GETFL); fcntl(log, F_SETFL, out & ~O_APPEND); pwritev(log, &v, 1, st.st_size); fcntl(log, F_SETFL, out); }
    else if (IS("mapped_write")) { struct stat st; fstat(second, &st); if (ftruncate(second, st.st_size + n)) puts("failed"); char *map = mmap(NULL, st.st_size + n, PROT_READ | PROT_WRITE, MAP_SHARED, second, 0); memcpy(map + st.st_size, text, n); munmap(map, st.st_size + n); }
    else if (IS("passed")) {
        int pair[2];
        socketpair(AF_UNIX, SOCK_DGRAM, 0, pair);
        char byte = 'x', control[CMSG_SPACE(sizeof(int))] = {0};
        struct iovec io = {&byte, 1};
        struct msghdr message = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        struct cmsghdr *part = CMSG_FIRSTHDR(&message);
        part->cmsg_level = SOL_SOCKET; part->cmsg_type = SCM_RIGHTS; part->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(part), &log, sizeof log);
        sendmsg(pair[0], &message, 0);
        message.msg_controllen = sizeof control;
        recvmsg(pair[1], &message, 0);
        int fd;
        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
        raw(SYS_write, fd, (long)text, n);
        close(fd);
    }
    else unknown(name);
}

static int reader = -1;
static FILE *reading;
static char *mapping;

static void prepare_reader(const char *name)
{
    if (IS("fread")) reading = fopen(LOG, "r");
    else if (IS("stat") || IS("system") || IS("child")) return;
    else if (IS("link")) { link(LOG, "read.out"); reader = open("read.out", O_RDONLY); }
    else if (IS("raw")) reader = syscall(SYS_openat, AT_FDCWD, LOG, O_RDONLY);
    else reader = open(LOG, O_RDONLY);
    if (IS("mmap")) mapping = mmap(NULL, 4096, PROT_READ, MAP_SHARED, reader, 0);
}

static void see_by(const char *name)
{
    char data[256] = {0};
    struct stat st;
    int n;
    if (IS("pread")) { n = pread(reader, data, 255, 0); printf("%d %s\n", n, data); }
    else if (IS("read") || IS("link")) { n = read(reader, data, 255); printf("%d %s\n", n, data); }
    else if (IS("raw")) { n = raw(SYS_read, reader, (long)data, 255); printf("%d %s\n", n, data); }
    else if (IS("syscall")) { n = syscall(SYS_read, reader, data, 255); printf("%d %s\n", n, data); }
    else if (IS("fread")) { n = fread(data, 1, 255, reading); printf("%d %s\n", n, data); }
    else if (IS("lseek")) printf("%ld\n", (long)lseek(reader, 0, SEEK_END));
    else if (IS("fstat")) { fstat(reader, &st); printf("%ld\n", (long)st.st_size); }
    else if (IS("stat")) { stat(LOG, &st); printf("%ld\n", (long)st.st_size); }
    else if (IS("ioctl")) { ioctl(reader, FIONREAD, &n); printf("%d\n", n); }
    else if (IS("mmap")) printf("%.20s\n", mapping);
    else if (IS("copy")) { int to = open("copy.out", O_RDWR | O_CREAT | O_TRUNC, 0644); n = copy_file_range(reader, NULL, to, NULL, 4096, 0); printf("%d\n", n); close(to); }
    else if (IS("sendfile")) { int to = open("copy.out", O_RDWR | O_CREAT | O_TRUNC, 0644); n = sendfile(to, reader, NULL, 4096); printf("%d\n", n); close(to); }
    else if (IS("readv")) { struct iovec v = {data, 255}; n = readv(reader, &v, 1); printf("%d %s\n", n, data); }
    else if (IS("preadv2")) { struct iovec v = {data, 255}; n = preadv2(reader, &v, 1, 0, 0); printf("%d %s\n", n, data); }
    else if (IS("getline")) { FILE *file = fdopen(reader, "r"); char *line = NULL; size_t room = 0; n = 0; while (getline(&line, &room, file) > 0) n++; printf("%d %s\n", n, line); }
    else if (IS("statx")) { struct statx x; statx(reader, "", AT_EMPTY_PATH, STATX_SIZE, &x); printf("%ld\n", (long)x.stx_size); }
    else if (IS("fstatat")) { fstatat(AT_FDCWD, LOG, &st, 0); printf("%ld\n", (long)st.st_size); }
    else if (IS("hole")) printf("%ld\n", (long)lseek(reader, 0, SEEK_HOLE));
    else if (IS("aio_read")) { struct aiocb block = {.aio_fildes = reader, .aio_buf = data, .aio_nbytes = 255}; aio_read(&block); while (aio_error(&block) == EINPROGRESS) usleep(500); n = aio_return(&block); printf("%d %s\n", n, data); }
    else if (IS("splice")) { int ends[2]; pipe(ends); n = splice(reader, NULL, ends[1], NULL, 255, 0); read(ends[0], data, 255); printf("%d %s\n", n, data); }
    else if (IS("private_map")) { char *map = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, reader, 0); printf("%.20s\n", map); }
    else if (IS("raw_map")) { char *map = (char *)syscall(SYS_mmap, NULL, 4096, PROT_READ, MAP_SHARED, reader, 0); printf("%.20s\n", map); }
    else if (IS("popen")) { FILE *file = popen("wc -c <x.log", "r"); if (!fgets(data, 255, file)) puts("failed"); pclose(file); printf("%s", data); }
    else if (IS("vfork")) { fflush(stdout); pid_t child = vfork(); if (!child) { execlp("cat", "cat", LOG, (char *)NULL); _exit(1); } waitpid(child, NULL, 0); }
    else if (IS("spawnp")) { pid_t child; char *words[] = {"cat", (char *)LOG, NULL}; fflush(stdout); posix_spawnp(&child, "cat", NULL, NULL, words, environ); waitpid(child, NULL, 0); }
    else if (IS("getfd")) { int self = pidfd_open(getpid(), 0), fd = pidfd_getfd(self, reader, 0); n = pread(fd, data, 255, 0); printf("%d %s\n", n, data); }
    else if (IS("handle")) { struct { struct file_handle head; char room[128]; } h = {.head.handle_bytes = 128}; int mount; n = name_to_handle_at(AT_FDCWD, LOG, &h.head, &mount, 0); int here = open(".", O_RDONLY), fd = open_by_handle_at(here, &h.head, O_RDONLY); n = read(fd, data, 255); printf("%d %s\n", n, data); }
    else if (IS("system")) { fflush(stdout); if (system("cat x.log")) puts("failed"); }
    else if (IS("child")) { pid_t child = fork(); if (!child) { int fd = open(LOG, O_RDONLY); n = read(fd, data, 255); printf("%d %s\n", n, data); fflush(stdout); _exit(0); } waitpid(child, NULL, 0); }
    else unknown(name);
}

static void see(const char *writer, const char *how)
{
    int log = open_log(O_WRONLY);
    prepare_writer(writer, log);
    prepare_reader(how);
    write(log, "1\n", 2);
    put_by(writer, log, "2\n");
    write(log, "3\n", 2);
    printf("sync %d\n", fdatasync(log));
    write(log, "4\n", 2);
    put_by(writer, log, "5\n");
    write(log, "6\n", 2);
    see_by(how);
    write(log, "7\n", 2);
    printf("sync %d\n", fsync(log));
    usleep(30000);
    show("log", LOG);
}

/* ---- the process ends in one way, at one moment ---- */

static int ending;

static void *sync_on(void *log)
{
    for (int i = 0; i < 20; i++) { write((int)(intptr_t)log, "t", 1); fdatasync((int)(intptr_t)log); }
    return NULL;
}

static void *wait_a_moment(void *unused) { (void)unused; usleep(20000); return NULL; }
static void leave_at_once(int signal) { (void)signal; _exit(7); }
static void leave_in_order(int signal) { (void)signal; exit(7); }

static void *exits(void *unused) { (void)unused; exit(7); }
static void *exits_at_once(void *unused) { (void)unused; _exit(7); }

static int last_log = -1;

/* What is written last of all is acknowledged, too. */
static void writes_at_last(void)
{
    if (fcntl(last_log, F_GETFD) < 0) return;
    static int count;
    if (count++ > 0) { fdatasync(last_log); return; }
    write(last_log, "last\n", 5);
    fdatasync(last_log);
}

static void writes_last(int status, void *unused) { (void)status; (void)unused; writes_at_last(); }

static void end_by(const char *name)
{
    pthread_t thread;
    char *none[] = {"true", NULL};
    if (IS("return")) { ending = 1; return; }
    if (IS("exit")) exit(7);
    if (IS("_exit")) _exit(7);
    if (IS("_Exit")) _Exit(7);
    if (IS("quick_exit")) quick_exit(7);
    if (IS("pthread_exit")) pthread_exit(NULL);
    if (IS("thrd_exit")) thrd_exit(0);
    if (IS("thread_stays")) { pthread_create(&thread, NULL, wait_a_moment, NULL); pthread_exit(NULL); }
    if (IS("exec")) execv("/bin/true", none);
    if (IS("execlp")) execlp("true", "true", (char *)NULL);
    if (IS("exec_fails")) { execv("/none", none); _exit(7); }
    if (IS("syscall")) syscall(SYS_exit_group, 7);
    if (IS("handler")) { signal(SIGTERM, leave_at_once); raise(SIGTERM); }
    if (IS("handler_exit")) { signal(SIGTERM, leave_in_order); kill(getpid(), SIGTERM); }
    if (IS("err")) err(7, "ends");
    if (IS("fexecve")) fexecve(open("/bin/true", O_RDONLY), none, environ);
    if (IS("execveat")) syscall(SYS_execveat, AT_FDCWD, "/bin/true", none, environ, 0);
    if (IS("exit_in_thread")) { pthread_create(&thread, NULL, exits, NULL); for (;;) pause(); }
    if (IS("at_once_in_thread")) { pthread_create(&thread, NULL, exits_at_once, NULL); for (;;) pause(); }
    if (IS("number_exit")) syscall(SYS_exit, 7);
    if (IS("cancelled")) { pthread_cancel(pthread_self()); pthread_testcancel(); }
    if (IS("on_exit")) { on_exit(writes_last, NULL); exit(7); }
    if (IS("at_quick_exit")) { at_quick_exit(writes_at_last); quick_exit(7); }
    if (IS("daemon")) { if (daemon(1, 1)) _exit(9); writes_at_last(); exit(7); }
    if (IS("vforked")) { pid_t child = vfork(); if (!child) { execv("/bin/true", none); _exit(1); } waitpid(child, NULL, 0); writes_at_last(); _exit(7); }
    if (IS("forked_end")) { pid_t child = fork(); if (!child) exit(3); waitpid(child, NULL, 0); writes_at_last(); _exit(7); }
    if (IS("alarm_exit")) { writes_at_last(); signal(SIGALRM, leave_in_order); struct itimerval soon = {{0, 0}, {0, 3000}}; setitimer(ITIMER_REAL, &soon, NULL); for (;;) writes_at_last(); }
    if (IS("at_exit")) { atexit((void (*)(void))leave_at_once); exit(3); }
    unknown(name);
}

static void end(const char *how, const char *name)
{
    pthread_t thread;
    int log = open_log(O_WRONLY);
    last_log = log;
    for (int i = 0; i < 5; i++) { write(log, "record\n", 7); if (fdatasync(log)) puts("failed"); }
    if (IS("synced")) ;
    else if (IS("has_child")) { pid_t child = fork(); if (!child) { usleep(10000); _exit(0); } write(log, "tail\n", 5); fdatasync(log); }
    else if (IS("truncated")) { if (ftruncate(log, 7)) puts("failed"); write(log, "tail\n", 5); fdatasync(log); }
    else if (IS("locked")) { flock(log, LOCK_EX); write(log, "tail\n", 5); fdatasync(log); }
    else if (IS("limited")) { struct rlimit limit = {1 << 20, 1 << 20}; setrlimit(RLIMIT_FSIZE, &limit); write(log, "tail\n", 5); fdatasync(log); }
    else if (IS("no_memory")) { struct rlimit limit = {1 << 20, 1 << 20}; setrlimit(RLIMIT_AS, &limit); write(log, "tail\n", 5); fdatasync(log); }
    else if (IS("no_threads")) { struct rlimit limit = {0, 0}; setrlimit(RLIMIT_NPROC, &limit); write(log, "tail\n", 5); fdatasync(log); }
    else if (IS("no_numbers")) { struct rlimit limit = {log + 1, log + 1}; setrlimit(RLIMIT_NOFILE, &limit); write(log, "tail\n", 5); fdatasync(log); }
    else if (IS("unlinked")) { link(LOG, "y.log"); unlink(LOG); write(log, "tail\n", 5); fdatasync(log); }
    else if (IS("moved_root")) { chdir("/"); write(log, "tail\n", 5); fdatasync(log); }
    else if (IS("written")) write(log, "tail\n", 5);
    else if (IS("closed")) close(log);
    else if (IS("copied")) { int copy = dup(log); close(log); write(copy, "tail\n", 5); fdatasync(copy); }
    else if (IS("idle")) usleep(60000);
    else if (IS("thread")) { pthread_create(&thread, NULL, sync_on, (void *)(intptr_t)log); pthread_join(thread, NULL); }
    else if (IS("renamed")) { rename(LOG, "y.log"); write(log, "tail\n", 5); fdatasync(log); }
    else unknown(name);
    fflush(stdout);
    end_by(how);
}

/* ---- a signal arrives in a call ---- */

static int log_of_handler;
static volatile long arrived;
static sigjmp_buf back;
static const char *does;

static void handler(int signal)
{
    (void)signal;
    const char *name = does;
    arrived++;
    if (IS("nothing")) return;
    if (IS("write")) write(log_of_handler, "h", 1);
    else if (IS("fsync")) fsync(log_of_handler);
    else if (IS("both")) { write(log_of_handler, "h", 1); fdatasync(log_of_handler); }
    else if (IS("open")) close(open("other", O_WRONLY | O_CREAT, 0644));
    else if (IS("jump")) siglongjmp(back, 1);
    else unknown(name);
}

static long written;

static void call_by(const char *name, int log)
{
    static char large[3000];
    static void *blocks[64];
    int error;
    if (IS("write") && write(log, "w", 1) == 1) written++;
    if (IS("large") && write(log, large, sizeof large) == sizeof large) written += sizeof large;
    if (IS("sync")) { if (write(log, "w", 1) == 1) written++; error = fsync(log); if (error) printf("fsync %d\n", errno); }
    if (IS("datasync")) { error = fdatasync(log); if (error) printf("fdatasync %d\n", errno); }
    if (IS("rename")) { rename("b.out", "a.out"); }
    if (IS("malloc")) { int i = rand() & 63; free(blocks[i]); blocks[i] = malloc(1 + rand() % 20000); }
}

static void interrupt(const char *what, const char *call)
{
    does = what;
    log_of_handler = open_log(O_WRONLY);
    int log = log_of_handler;
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    struct sigaction before;
    sigaction(SIGALRM, NULL, &before);
    printf("handler %d flags %x\n", before.sa_handler == handler, before.sa_flags);
    struct itimerval timer = {{0, 500}, {0, 500}};
    /* A jump may leave a call that has written and not been counted. It needs a place to go to from the first signal on. */
    volatile long jumps = sigsetjmp(back, 1) ? 1 : 0;
    if (!jumps) setitimer(ITIMER_REAL, &timer, NULL);
    while (arrived < 100) call_by(call, log);
    timer = (struct itimerval){{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &timer, NULL);
    sigset_t set;
    sigprocmask(SIG_BLOCK, NULL, &set);
    printf("blocked %d jumped %d\n", sigismember(&set, SIGALRM), jumps > 0);
    signal(SIGALRM, SIG_DFL);
    printf("sync %d\n", fsync(log));
    printf("close %d\n", close(log));
    struct stat st;
    stat(LOG, &st);
    const char *name = does;
    long by_handler = IS("write") || IS("both") ? arrived : 0;
    long expected = written + by_handler;
    printf("size %s\n", IS("jump") || st.st_size == expected ? "right" : "wrong");
}

/* ---- what else needs the log to be durable first ---- */

static void order(const char *name)
{
    long (*syncs)(long) = dlsym(RTLD_DEFAULT, "shim_syncs");
    int other = open("other", O_RDWR | O_CREAT, 0644);
    if (ftruncate(other, 4096)) puts("failed");
    int durable = open("other", O_RDWR | O_DSYNC);
    char *pages = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, other, 0);
    struct iovec v = {"x", 1};
    int log = open_log(O_WRONLY);
    write(log, "record\n", 7);
    printf("sync %d\n", fdatasync(log));
    long before = syncs(0);
    if (IS("msync")) { pages[0] = 1; msync(pages, 4096, MS_SYNC); }
    else if (IS("msync_async")) { pages[0] = 1; msync(pages, 4096, MS_ASYNC); }
    else if (IS("dsync")) pwrite(durable, "x", 1, 0);
    else if (IS("dsync_writev")) writev(durable, &v, 1);
    else if (IS("dsync_dup")) write(dup(durable), "x", 1);
    else if (IS("rwf_dsync")) pwritev2(other, &v, 1, 0, RWF_DSYNC);
    else if (IS("plain_write")) pwritev2(other, &v, 1, 0, 0);
    else if (IS("sync_file_range")) sync_file_range(other, 0, 0, SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
    else if (IS("truncated_open")) close(open("other", O_WRONLY | O_TRUNC));
    else if (IS("fopen_w")) fclose(fopen("other", "w"));
    else if (IS("fopen_r")) fclose(fopen("other", "r"));
    else if (IS("aio_fsync")) { struct aiocb block = {.aio_fildes = other}; aio_fsync(O_DSYNC, &block); while (aio_error(&block) == EINPROGRESS) usleep(500); }
    else if (IS("symlink")) { if (symlink("other", "name")) puts("failed"); }
    else if (IS("rmdir")) rmdir("none");
    else if (IS("link")) { if (link("other", "name")) puts("failed"); }
    else if (IS("syscall_fsync")) syscall(SYS_fsync, other);
    else if (IS("new_log")) close(open("y.log", O_WRONLY | O_CREAT, 0644));
    else unknown(name);
    printf("log synced first %d\n", syncs(0) > before && before == 0);
    fflush(stdout);
    raw(SYS_exit_group, 0, 0, 0);
}

/* ---- limits, locks and rights ---- */

#define ALLOW(n) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, n, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

static void *with_own_descriptors(void *unused)
{
    (void)unused;
    if (unshare(CLONE_FILES)) puts("no unshare");
    int log = open("y.log", O_WRONLY | O_CREAT | O_APPEND, 0644);
    for (int i = 0; i < 10; i++) { write(log, "b\n", 2); if (fdatasync(log)) puts("failed"); }
    return NULL;
}

static void edge(const char *name)
{
    static char large[200000];
    pthread_t thread;
    int log = open_log(O_WRONLY);
    for (int i = 0; i < 5; i++) { write(log, "record\n", 7); if (fdatasync(log)) puts("failed"); }
    if (IS("memory")) {
        struct rlimit limit = {300 << 20, 300 << 20};
        setrlimit(RLIMIT_AS, &limit);
        for (size_t size = 64 << 20; size >= 16;) if (!malloc(size)) size /= 2;
        printf("%zd\n", write(log, large, sizeof large));
        printf("%d\n", fdatasync(log));
    } else if (IS("size")) {
        struct rlimit limit = {100, 100};
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &limit);
        for (int i = 0; i < 20; i++) { long n = write(log, "1234567890", 10); printf("%ld %s\n", n, n < 0 ? strerror(errno) : ""); }
        printf("%d\n", fdatasync(log));
    } else if (IS("threads")) {
        struct rlimit limit = {0, 0};
        setrlimit(RLIMIT_NPROC, &limit);
        for (int i = 0; i < 5; i++) { write(log, "record\n", 7); printf("%d\n", fdatasync(log)); }
    } else if (IS("descriptors")) {
        struct rlimit limit = {20, 20};
        setrlimit(RLIMIT_NOFILE, &limit);
        int n = 0;
        while (open("/dev/null", O_RDONLY) >= 0) n++;
        printf("%d %s\n", n, strerror(errno));
        write(log, "record\n", 7);
        printf("%d\n", fdatasync(log));
    } else if (IS("filter")) {
        struct sock_filter filter[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
            ALLOW(SYS_write), ALLOW(SYS_fdatasync), ALLOW(SYS_exit_group),
            ALLOW(SYS_kill), ALLOW(SYS_getpid), ALLOW(SYS_rt_sigreturn),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)};
        struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
        does = "nothing";
        signal(SIGUSR1, handler);
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        fflush(stdout);
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
        for (int i = 0; i < 20; i++) { write(log, "x\n", 2); fdatasync(log); }
        kill(getpid(), SIGUSR1);
        write(1, arrived == 1 ? "alive\n" : "silent\n", 6);
        _exit(0);
    } else if (IS("table")) {
        pthread_create(&thread, NULL, with_own_descriptors, NULL);
        pthread_join(thread, NULL);
        write(log, "end\n", 4);
        printf("%d\n", fdatasync(log));
    } else if (IS("namespace")) {
        printf("%d %s\n", unshare(CLONE_NEWUSER), strerror(errno));
        write(log, "end\n", 4);
        printf("%d\n", fdatasync(log));
    } else if (IS("flock") || IS("ofd")) {
        struct flock whole = {.l_type = F_WRLCK};
        printf("%d\n", IS("flock") ? flock(log, LOCK_EX) : fcntl(log, F_OFD_SETLK, &whole));
        write(log, "end\n", 4);
        fdatasync(log);
        int closed[2];
        char byte;
        if (pipe(closed)) _exit(95);
        pid_t child = fork();
        if (!child) { close(log); write(closed[1], "", 1); pause(); }
        /* The application closes its last descriptor where no hook sees it. */
        raw(SYS_close, log, 0, 0);
        read(closed[0], &byte, 1);
        usleep(20000);
        int again = open(LOG, O_RDWR);
        printf("%d\n", IS("flock") ? flock(again, LOCK_EX | LOCK_NB) : fcntl(again, F_OFD_SETLK, &whole));
        kill(child, SIGKILL);
    } else if (IS("posix")) {
        struct flock whole = {.l_type = F_WRLCK};
        printf("%d\n", fcntl(log, F_SETLK, &whole));
        write(log, "end\n", 4);
        fdatasync(log);
        pid_t child = fork();
        if (!child) { struct flock ask = {.l_type = F_WRLCK}; fcntl(log, F_GETLK, &ask); _exit(ask.l_type == F_WRLCK); }
        int status;
        waitpid(child, &status, 0);
        printf("locked %d\n", WEXITSTATUS(status));
    } else if (IS("lease")) {
        printf("%d %s\n", fcntl(log, F_SETLEASE, F_WRLCK), strerror(errno));
    } else if (IS("fork_storm")) {
        for (int i = 0; i < 30; i++) { pid_t child = fork(); if (!child) { write(log, "c", 1); _exit(0); } write(log, "p", 1); waitpid(child, NULL, 0); if (fdatasync(log)) puts("failed"); }
        struct stat st;
        fstat(log, &st);
        printf("%ld\n", (long)st.st_size);
        if (ftruncate(log, 0)) puts("failed");
    } else unknown(name);
}

int main(int count, char **arguments)
{
    if (count != 4) return 97;
    char *kind = arguments[1], *first = arguments[2], *other = arguments[3];
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    if (!strcmp(kind, "stale")) stale(first, other);
    else if (!strcmp(kind, "see")) see(first, other);
    else if (!strcmp(kind, "end")) end(first, other);
    else if (!strcmp(kind, "order")) order(first);
    else if (!strcmp(kind, "edge")) edge(first);
    else if (!strcmp(kind, "signal")) interrupt(first, other);
    else unknown(kind);
    fflush(stdout);
    return ending ? 7 : 0;
}
