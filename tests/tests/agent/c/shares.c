// Processes and threads that share descriptors or memory, and replies.
//
//   vfork WAY    a child of vfork opens files by WAY before it becomes another program, or syncs, or opens files that have the
//                agent's numbers (`numbers`)
//   order WAY    writes x.log and "A" to a client, while syncs are held, and has a child write "B" to it by WAY
//   reply WAY    writes x.log and "A" and "B" to a client, while syncs are held: by messages (`packets`), or in a thread that
//                was cancelled (`cancelled`)
//   once WAY     writes x.log and "A" to a client, and tells all that comes
//   close WAY    closes a log, which the agent does not see written, while syncs are held, and writes "A" to a client meanwhile
//   table WAY    a thread or a child gets a descriptor table of its own, or shares this one, and closes what it has
//   own          copies a descriptor over each of those that the process did not open
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

// The agent's own numbers are higher, and this one is the shim's.
enum { AGENTS = 700, SHIMS = 900 };

#define IS(text) (!strcmp(way, text))

extern char **environ;
static const char *way;
static int x, server_fd, client_fd;

static void say(const char *text) {
    CHECK(write(1, text, strlen(text)) >= 0);
}

static int open_log(const char *name) {
    int fd = open(name, O_RDWR | O_CREAT | O_APPEND, 0644);
    CHECK(fd >= 0);
    return fd;
}

static void put(void) {
    CHECK(write(x, "x\n", 2) == 2);
}

static void put_and_sync(void) {
    put();
    CHECK(fdatasync(x) == 0);
}

// ---- vfork ----

static void opens_in_child(void) {
    pid_t child = vfork();
    if (!child) {
        if (IS("known")) open("x.log", O_WRONLY | O_APPEND);
        else if (IS("durable")) open("other", O_WRONLY | O_CREAT | O_DSYNC, 0644);
        else if (IS("stream")) fopen("child.log", "a");
        else if (IS("number")) syscall(SYS_open, "child.log", O_WRONLY | O_CREAT, 0644);
        else dup2(open("child.log", O_WRONLY | O_CREAT, 0644), 1);
        execl("/bin/true", "true", NULL);
        _exit(1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void syncs_in_child(void) {
    x = open_log("x.log");
    put_and_sync();
    while (!shim("shim_syncs", 0)) usleep(1000);
    pid_t child = vfork();
    if (!child) {
        // The agent's descriptors, too.
        if (close_range(x + 1, AGENTS - 1, 0) || close_range(SHIMS + 1, ~0u, 0)) _exit(1);
        for (int i = 0; i < 3; i++)
            if (write(x, "x\n", 2) != 2 || fdatasync(x) || fsync(x)) _exit(2);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    for (int i = 0; i < 4; i++) put_and_sync();
    CHECK(close(x) == 0);
    say("fine\n");
}

static void numbers_in_child(void) {
    x = open_log("x.log");
    for (int i = 0; i < 8; i++) put_and_sync();
    int own = AGENTS, status;
    while (own < 6000 && (own == SHIMS || fcntl(own, F_GETFD) < 0)) own++;
    CHECK(own < 6000);
    pid_t child = vfork();
    if (!child) {
        if (close_range(own, own, 0) || dup2(2, own) != own) _exit(1);
        if (close(own)) _exit(2);
        if (dup2(2, own) != own || syscall(SYS_close, own)) _exit(3);
        _exit(fcntl(own, F_GETFD) < 0 ? 0 : 4);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    // It is the agent's yet.
    CHECK(close(own) < 0 && errno == EBADF);
    for (int i = 0; i < 8; i++) put_and_sync();
    CHECK(close(x) == 0);
    say("fine\n");
}

static void vforks(void) {
    if (IS("numbers")) {
        numbers_in_child();
        return;
    }
    if (IS("syncs")) {
        syncs_in_child();
        return;
    }
    if (IS("known") || IS("durable")) {
        x = open_log("x.log");
        put_and_sync();
        opens_in_child();
        long before = shim("shim_syncs", 0);
        if (IS("known")) CHECK(close(x) == 0);
        else {
            // The number that the child has opened, and given by a call that has no hook.
            int next = eventfd(0, 0);
            unsigned long one = 1;
            CHECK(write(next, &one, 8) == 8);
        }
        say(shim("shim_syncs", 0) > before ? "synced\n" : "not synced\n");
        kill(getpid(), SIGKILL);
    }
    opens_in_child();
    x = open_log("x.log");
    for (int i = 0; i < 8; i++) put_and_sync();
    say("fine\n");
}

// ---- clients ----

// Tells what comes to the client until nothing comes for this long: for each read, with a line end.
static void tell(int milliseconds, size_t most) {
    struct pollfd one = {client_fd, POLLIN, 0};
    char bytes[64] = {0};
    for (ssize_t n; most > 0 && poll(&one, 1, milliseconds) > 0 && (n = read(client_fd, bytes, 60)) > 0;) {
        bytes[n] = '\n', bytes[n + 1] = 0, most -= n;
        say(bytes);
    }
}

static void *client(void *unused) {
    struct pollfd one = {client_fd, POLLIN, 0};
    say(poll(&one, 1, 200) == 0 ? "silent\n" : "early\n");
    shim("shim_hold", 0);
    tell(10000, 2);
    return unused;
}

static pthread_t started(void *(*function)(void *)) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, function, NULL) == 0);
    return thread;
}

static int writes_b(void *unused) {
    (void)unused;
    _exit(write(server_fd, "B", 1) != 1);
}

static pid_t child_that_writes(void) {
    static char stack[1 << 16] __attribute__((aligned(16)));
    char *words[] = {"printf", "B", NULL};
    pid_t child = -1;
    if (IS("fork") && !(child = fork())) writes_b(NULL);
    if (IS("_Fork") && !(child = _Fork())) writes_b(NULL);
    if (IS("number:fork") && !(child = syscall(SYS_fork))) writes_b(NULL);
    if (IS("number:clone") && !(child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0))) writes_b(NULL);
    if (IS("clone")) child = clone(writes_b, stack + sizeof stack, SIGCHLD, NULL);
    if (IS("clone:memory")) child = clone(writes_b, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
    if (IS("vfork") && !(child = vfork())) {
        dup2(server_fd, 1);
        execv("/usr/bin/printf", words);
        _exit(1);
    }
    if (IS("spawn")) {
        posix_spawn_file_actions_t actions;
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, server_fd, 1);
        CHECK(posix_spawn(&child, "/usr/bin/printf", &actions, NULL, words, environ) == 0);
    }
    return child;
}

static void orders(void) {
    server_fd = connected(SOCK_STREAM, &client_fd);
    x = open_log("x.log");
    put();
    shim("shim_hold", 1);
    pthread_t thread = started(client);
    CHECK(write(server_fd, "A", 1) == 1);
    int status;
    pid_t child = child_that_writes();
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
    pthread_join(thread, NULL);
}

static void puts_by_number(void *unused) {
    (void)unused;
    syscall(SYS_write, x, "x\n", 2);
}

static void *is_cancelled(void *unused) {
    struct iovec piece = {"y\n", 2};
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    pthread_cleanup_push(puts_by_number, NULL);
    pthread_cancel(pthread_self());
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
    writev(x, &piece, 1);
    pthread_cleanup_pop(0);
    say("not cancelled\n");
    return unused;
}

static void replies(void) {
    server_fd = connected(IS("packets") ? SOCK_SEQPACKET : SOCK_STREAM, &client_fd);
    x = open_log("x.log");
    // When the client has it, all that was written is durable.
    put();
    char byte;
    CHECK(write(server_fd, "0", 1) == 1 && read(client_fd, &byte, 1) == 1);
    if (IS("cancelled")) pthread_join(started(is_cancelled), NULL);
    else put();
    shim("shim_hold", 1);
    pthread_t thread = started(client);
    CHECK(write(server_fd, "A", 1) == 1 && write(server_fd, "B", 1) == 1);
    pthread_join(thread, NULL);
}

// ---- closing ----

static FILE *stream;
static int blind;

static void *closes(void *unused) {
    if (stream) CHECK(fclose(stream) == 0);
    else CHECK(close(blind) == 0);
    return unused;
}

static void closing(void) {
    server_fd = connected(SOCK_STREAM, &client_fd);
    for (int round = 0; round < 20; round++) {
        stream = NULL;
        if (IS("stream")) CHECK((stream = fopen("x.log", "a")) && fputs("x\n", stream) >= 0);
        else {
            blind = x = open_log("x.log");
            put();
            if (IS("map")) CHECK(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, x, 0) != MAP_FAILED);
            else CHECK((blind = dup2(x, 200)) == 200 && close(x) == 0);
        }
        long before = shim("shim_begun", 0);
        shim("shim_hold", 1);
        pthread_t thread = started(closes);
        while (shim("shim_begun", 0) == before) usleep(100);
        CHECK(write(server_fd, "A", 1) == 1);
        shim("shim_hold", 0);
        char byte = 0;
        CHECK(read(client_fd, &byte, 1) == 1 && byte == 'A');
        pthread_join(thread, NULL);
    }
    say("fine\n");
}

// ---- tables ----

static void *unshares(void *unused) {
    if (IS("number:range")) CHECK(syscall(SYS_close_range, 3, ~0u, CLOSE_RANGE_UNSHARE) == 0);
    else CHECK(close_range(3, ~0u, CLOSE_RANGE_UNSHARE) == 0);
    return unused;
}

static int closes_all(void *unused) {
    (void)unused;
    for (int fd = AGENTS; fd < 6000; fd++)
        if (fd != SHIMS) syscall(SYS_close, fd);
    _exit(0);
}

static void tables(void) {
    static char stack[1 << 16] __attribute__((aligned(16)));
    x = open_log("x.log");
    for (int i = 0; i < 8; i++) put_and_sync();
    pid_t child = 0;
    if (IS("alone")) CHECK(close_range(x + 1, ~0u, CLOSE_RANGE_UNSHARE) == 0);
    else if (IS("clone")) child = clone(closes_all, stack + sizeof stack, CLONE_FILES | SIGCHLD, NULL);
    else if (IS("number:clone")) {
        if (!(child = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0))) closes_all(NULL);
    } else pthread_join(started(unshares), NULL);
    if (child) CHECK(waitpid(child, NULL, 0) == child);
    int y = open_log("y.log");
    for (int i = 0; i < 8; i++) {
        put_and_sync();
        CHECK(write(y, "y\n", 2) == 2 && fdatasync(y) == 0);
    }
    CHECK(close(y) == 0 && close(x) == 0);
    say("fine\n");
}

static void owns(void) {
    x = open_log("x.log");
    for (int i = 0; i < 8; i++) put_and_sync();
    int found = 0;
    for (int fd = AGENTS; fd < 6000; fd++) {
        if (fd == SHIMS || fcntl(fd, F_GETFD) < 0) continue;
        found++;
        CHECK(dup2(2, fd) == fd);
        CHECK(dup3(2, fd, O_CLOEXEC) == fd && close(fd) == 0);
        for (int i = 0; i < 8; i++) put_and_sync();
        if (found == 4) break;
    }
    CHECK(close(x) == 0);
    say(found ? "fine\n" : "none\n");
}

int main(int count, char **words) {
    CHECK(count > 1);
    const char *what = words[1];
    way = count > 2 ? words[2] : "";
    if (!strcmp(what, "vfork")) vforks();
    else if (!strcmp(what, "order")) orders();
    else if (!strcmp(what, "reply")) replies();
    else if (!strcmp(what, "close")) closing();
    else if (!strcmp(what, "table")) tables();
    else if (!strcmp(what, "own")) owns();
    else {
        server_fd = connected(SOCK_STREAM, &client_fd);
        x = open_log("x.log");
        put();
        CHECK(write(server_fd, "A", 1) == 1);
        tell(500, 60);
    }
    return 0;
}
