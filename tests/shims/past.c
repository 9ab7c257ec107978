// An application that writes its log with calls that no library sees, or with others, until it is killed.
//
//   past KIND LOG
//
//   raw     opens, writes and syncs past the C library, again and again     once  the same, once
//   called  all of that through the C library       silent  the same, without a sync
//   ring    as called, with an io_uring of its own
//   output  writes to standard output, past the C library
//   alone   prints what a process sees of its children, and ends
//   close   closes every descriptor, and waits
//   daemon as raw, in the background, until the log is removed
//   block … blocks SIGCHLD and becomes another program
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef GO
__asm__(".pushsection .note.go.buildid, \"a\", @note\n"
        ".long 4, 4, 4\n.ascii \"Go\\0\\0abcd\"\n.popsection");
#endif

/* A system call that no library sees. */
static long past(long number, long a, long b, long c, long d) {
    register long fourth __asm__("r10") = d;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth)
                     : "rcx", "r11", "memory");
    return result;
}

static const char record[] = "record\n";

static int put(int fd, int raw, int syncs) {
    size_t n = sizeof record - 1;
    if (raw && past(SYS_write, fd, (long)record, n, 0) != (long)n) return 3;
    if (!raw && write(fd, record, n) != (ssize_t)n) return 3;
    if (!syncs) return 0;
    return (raw ? past(SYS_fdatasync, fd, 0, 0, 0) : fdatasync(fd)) ? 4 : 0;
}

int main(int count, char **words) {
    if (count < 3) return 2;
    // A shell that is killed leaves nothing behind.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const char *kind = words[1], *log = words[2];
    int is_daemon = !strcmp(kind, "daemon");
    int is_raw = is_daemon || !strcmp(kind, "raw") || !strcmp(kind, "once"), syncs = strcmp(kind, "silent");
    int flags = O_CREAT | O_WRONLY | O_APPEND;
    sigset_t set;
    sigemptyset(&set);
    if (!strcmp(kind, "block")) {
        sigaddset(&set, SIGCHLD);
        sigprocmask(SIG_BLOCK, &set, NULL);
        execvp(log, words + 2);
        return 5;
    }
    if (!strcmp(kind, "alone")) {
        int status, child = waitpid(-1, &status, 0), error = errno;
        sigpending(&set);
        printf("%d %s %d\n", child, strerrorname_np(error), sigismember(&set, SIGCHLD));
        return 0;
    }
    if (!strcmp(kind, "close")) {
        past(SYS_close_range, 0, ~0u, 0, 0);
        for (;;) pause();
    }
    if (!strcmp(kind, "output")) {
        for (;; usleep(10000)) past(SYS_write, 1, (long)record, sizeof record - 1, 0);
    }
    if (!strcmp(kind, "ring")) {
        char params[120] = {0};
        if (past(SYS_io_uring_setup, 2, (long)params, 0, 0) < 0) return 6;
    }
    if (is_daemon) {
        if (fork()) _exit(0);
        setsid();
        if (fork()) _exit(0);
        // As a server that changes its title.
        log = strdup(log);
        memset(words[0], 0, environ[0] + strlen(environ[0]) - words[0]);
    }
    int fd = is_raw ? past(SYS_openat, AT_FDCWD, (long)log, flags, 0644) : open(log, flags, 0644);
    if (fd < 0) return 7;
    for (;; usleep(10000)) {
        if (is_daemon && access(log, F_OK)) return 0;
        int failed = put(fd, is_raw, syncs);
        if (failed) return failed;
        if (!strcmp(kind, "once"))
            for (;;) pause();
    }
}
