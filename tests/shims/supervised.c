/* Programs for the tests of the supervisor. Acknowledged lines go to standard output, one write each.

   append LOG PROCESSES LINES   each process appends lines to LOG, syncs after each, and acknowledges it
   other LOG LINES OTHER        appends and syncs LINES lines, then syncs OTHER; prints "done" and waits
   idle LOG LINES                as append with one process, then waits
   page LOG LINES PAGE [NAME]    as append with one process, then writes PAGE, which is given the other NAME before; prints
                                 "done" and waits
   durable LOG LINES PAGE FLAG   the same, but the write of PAGE is durable by itself: it is opened with O_DSYNC if FLAG is
                                 `open`, else written with RWF_DSYNC, and it is LOG if it has the same name
   again LOG                     writes and syncs LOG, then its beginning again; prints "9 9" and waits
   time LOG CALLS [PROCESSES]   appends and syncs so often; prints the medians of write and fdatasync, nanoseconds; of one of
                                so many processes that do the same
   compat LOG LINES             as append with one process, by 32-bit system calls (int 0x80)
   ring                         prints what io_uring_setup, io_uring_enter and io_uring_register say */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Not in every C library. */
#ifndef RWF_DSYNC
#define RWF_DSYNC 2
#endif

static void acknowledge(const char *line, int length) {
    if (write(1, line, length) != length)
        _exit(3);
}

static int append(const char *log, int process, int lines, int compat) {
    int fd = open(log, O_WRONLY | O_APPEND | O_CREAT, 0644);
    if (fd < 0)
        return 1;
    for (int i = 0; i < lines; i++) {
        char line[64];
        int length = sprintf(line, "%d %d\n", process, i);
        if (write(fd, line, length) != length)
            return 1;
        long result;
        if (compat)
            __asm__ volatile("int $0x80" : "=a"(result) : "a"(148), "b"(fd) : "memory", "r8", "r9", "r10", "r11");
        else
            result = fdatasync(fd) ? -errno : 0;
        if (result) {
            fprintf(stderr, "process %d: fdatasync: %s\n", process, strerror(-result));
            return 2;
        }
        acknowledge(line, length);
    }
    return 0;
}

static long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000L + time.tv_nsec;
}

static int compare(const void *a, const void *b) {
    long first = *(const long *)a, second = *(const long *)b;
    return (first > second) - (first < second);
}

static long median(long *times, int count) {
    qsort(times, count, sizeof *times, compare);
    return times[count / 2];
}

static int time_calls(const char *log, int calls, int quiet) {
    int fd = open(log, O_WRONLY | O_APPEND | O_CREAT, 0644);
    long *writes = calloc(calls, sizeof *writes), *syncs = calloc(calls, sizeof *syncs);
    if (fd < 0 || calls < 1 || !writes || !syncs)
        return 1;
    for (int i = 0; i < calls; i++) {
        long begun = now();
        if (write(fd, "x\n", 2) != 2)
            return 1;
        long written = now();
        if (fdatasync(fd))
            return 1;
        syncs[i] = now() - written;
        writes[i] = written - begun;
    }
    if (!quiet)
        printf("%ld %ld\n", median(writes, calls), median(syncs, calls));
    close(fd);
    free(writes);
    free(syncs);
    return 0;
}

int main(int count, char **words) {
    const char *mode = words[1];
    if (!strcmp(mode, "append")) {
        int processes = atoi(words[3]), bad = 0, status;
        for (int p = 0; p < processes; p++)
            if (fork() == 0)
                _exit(append(words[2], p, atoi(words[4]), 0));
        while (wait(&status) > 0)
            bad |= WIFEXITED(status) ? WEXITSTATUS(status) : 4;
        return bad;
    }
    if (!strcmp(mode, "idle")) {
        if (append(words[2], 0, atoi(words[3]), 0))
            return 1;
        pause();
    }
    if (!strcmp(mode, "page")) {
        int fd = open(words[4], O_RDWR | O_CREAT, 0644);
        if (count > 5 && link(words[4], words[5]))
            return 1;
        if (append(words[2], 0, atoi(words[3]), 0) || write(fd, "x", 1) != 1)
            return 1;
        acknowledge("done\n", 5);
        pause();
    }
    if (!strcmp(mode, "durable")) {
        int opened = !strcmp(words[5], "open");
        int fd = open(words[4], O_WRONLY | O_CREAT | O_APPEND | (opened ? O_DSYNC : 0), 0644);
        struct iovec part = {"x", 1};
        if (append(words[2], 0, atoi(words[3]), 0) || syscall(SYS_pwritev2, fd, &part, 1, -1L, 0, opened ? 0 : RWF_DSYNC) != 1)
            return 1;
        acknowledge("done\n", 5);
        pause();
    }
    if (!strcmp(mode, "again")) {
        int fd = open(words[2], O_RDWR | O_CREAT, 0644);
        for (int i = 0; i < 4; i++)
            if (write(fd, "0 0\n", 4) != 4 || fdatasync(fd))
                return 1;
        if (pwrite(fd, "9 9\n", 4, 0) != 4 || fdatasync(fd))
            return 1;
        acknowledge("9 9\n", 4);
        pause();
    }
    if (!strcmp(mode, "time")) {
        int others = count > 4 ? atoi(words[4]) - 1 : 0, status;
        pid_t pids[64];
        for (int p = 0; p < others && p < 64; p++)
            if ((pids[p] = fork()) == 0)
                for (;;)
                    time_calls(words[2], 1000, 1);
        status = time_calls(words[2], atoi(words[3]), 0);
        for (int p = 0; p < others && p < 64; p++)
            kill(pids[p], SIGKILL);
        return status;
    }
    if (!strcmp(mode, "compat"))
        return append(words[2], 0, atoi(words[3]), 1);
    if (!strcmp(mode, "other")) {
        int failed = append(words[2], 0, atoi(words[3]), 0);
        int fd = open(words[4], O_WRONLY | O_CREAT, 0644);
        if (failed || fd < 0 || write(fd, "x", 1) != 1 || fsync(fd))
            return 1;
        acknowledge("done\n", 5);
        pause();
    }
    if (!strcmp(mode, "ring")) {
        for (int number = 425; number < 428; number++) {
            long result = syscall(number, number == 425 ? 4 : -1, 0, 0, 0, 0, 0);
            printf("%s\n", result < 0 ? strerror(errno) : "made");
        }
    }
    return 0;
}
