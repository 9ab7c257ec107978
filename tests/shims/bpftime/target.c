/* Functions as a target of BPFtime may have them, one that can be hooked and others that cannot; and a process that
 * calls them as patched Redis does, as it reads letters from its input:
 *
 *   o  opens LOG anew: the barrier           w  writes a line, and syncs it
 *   b  a sync of its own, after the barrier  t  writes and syncs in another thread
 *   f  forks a child that writes and syncs   s  has no io_uring from now on (seccomp)
 *   q  ends with 7
 *
 * It prints what became of each: `run` if it synced by itself, `done` if the function did, or the error. As Redis
 * with `appendfsync always`, it ends with 1 at an error. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define ENTRY __attribute__((noipa, visibility("default")))

long (*on_fdatasync)(long, long);
long (*on_barrier)(long, long);
long (*on_write)(long, const void *, unsigned long);

ENTRY long test_fdatasync(long fd, long failed) {
    return on_fdatasync ? on_fdatasync(fd, failed) : LONG_MIN;
}

ENTRY long test_barrier(long fd, long failed) {
    return on_barrier ? on_barrier(fd, failed) : LONG_MIN;
}

ENTRY long test_write(long fd, const void *bytes, unsigned long len) {
    return on_write ? on_write(fd, bytes, len) : LONG_MIN;
}

ENTRY long test_short(void) {
    return 0;
}

__attribute__((noipa, visibility("hidden"))) long test_hidden(long fd, long failed) {
    return on_fdatasync ? on_fdatasync(fd, failed) : LONG_MIN;
}

static const char *log_path;
static int log_fd = -1;
static long failed;
static const char *said;

static void error(long result) {
    failed = result;
    said = strerrorname_np((int)-result);
}

static void sync_log(long (*before)(long, long)) {
    long result = before(log_fd, failed);
    said = "done";
    if (result < -4095) {
        said = "run";
        if (fdatasync(log_fd))
            error(-errno);
    } else if (result < 0) {
        error(result);
    } else if (before == test_barrier) {
        if (fdatasync(log_fd))
            error(-errno);
    }
}

static void *write_and_sync(void *nothing) {
    if (test_write(log_fd, "record\n", 7) == LONG_MIN && write(log_fd, "record\n", 7) != 7)
        error(-errno);
    sync_log(test_fdatasync);
    return nothing;
}

static void no_io_uring(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = 4, .filter = code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        exit(2);
}

int main(int count, char **words) {
    if (count < 2) {
        printf("%ld\n", test_fdatasync(0, 0) + test_barrier(0, 0) + test_write(0, "", 0) + test_short() + test_hidden(0, 0));
        return 0;
    }
    log_path = words[1];
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("ready %d\n", (int)getpid());
    for (int letter; (letter = getchar()) != EOF;) {
        pthread_t thread;
        said = "ok";
        switch (letter) {
        case 'o':
            if (log_fd >= 0)
                close(log_fd);
            log_fd = open(log_path, O_CREAT | O_WRONLY | O_APPEND, 0644);
            if (log_fd < 0)
                return 2;
            sync_log(test_barrier);
            break;
        case 'w': write_and_sync(NULL); break;
        case 'b': sync_log(test_barrier); break;
        case 't':
            if (pthread_create(&thread, NULL, write_and_sync, NULL) || pthread_join(thread, NULL))
                return 2;
            break;
        case 'f': {
            pid_t child = fork();
            if (child == 0) {
                write_and_sync(NULL);
                printf("%s\n", said);
                fflush(stdout);
                _exit(0);
            }
            waitpid(child, NULL, 0);
            continue;
        }
        case 's': no_io_uring(); break;
        case 'q': return 7;
        default: continue;
        }
        printf("%s\n", said);
        if (failed)
            return 1;
    }
    return 0;
}
