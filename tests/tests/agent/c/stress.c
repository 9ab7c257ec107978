// Threads that do anything to logs at once, and in the end every byte is where it belongs.
//
//   stress SEED THREADS LOGS STEPS
//
// Each thread owns the logs whose number it gets by division, so it knows what is in each; all of them
// share the agent, the folder, and one file that every thread appends lines to. A thread writes records
// "log:number;" through one to three descriptors of the same open file, syncs, copies and closes
// descriptors, opens the file anew, renames it and back. At the end every log and the shared file are
// read and compared. Says "ok", the calls made, and how many descriptors are open more than at first.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COPIES = 3, MOST = 256 };

struct log {
    int fds[COPIES];
    long records;
    int renamed;
};

static struct log logs[MOST];
static long threads, count, steps, seed;
static long calls, shared_lines[MOST];
static int shared;

static void fail(const char *what, long log) {
    fprintf(stderr, "%s of log %ld: %s\n", what, log, strerrorname_np(errno));
    _exit(1);
}

static uint64_t next(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state >> 11;
}

static void name_of(char *name, long log, int renamed) {
    sprintf(name, "%ld%s.incr.log", log, renamed ? "-moved" : "");
}

static int any_fd(struct log *log, uint64_t *state) {
    int at = next(state) % COPIES;
    for (int i = 0; i < COPIES; i++)
        if (log->fds[(at + i) % COPIES] >= 0) return log->fds[(at + i) % COPIES];
    return -1;
}

static void step(long number, uint64_t *state) {
    struct log *log = &logs[number];
    char text[64], name[64], other[64];
    int fd = any_fd(log, state), at = next(state) % COPIES, n;
    name_of(name, number, log->renamed);
    if (fd < 0) {
        log->fds[at] = open(name, O_WRONLY | O_CREAT | O_APPEND, 0644);
        if (log->fds[at] < 0) fail("open", number);
        return;
    }
    switch (next(state) % 16) {
    case 0 ... 4:
        n = sprintf(text, "%ld:%ld;", number, log->records++);
        if (write(fd, text, n) != n) fail("write", number);
        break;
    case 5: {
        n = sprintf(text, "%ld:%ld;", number, log->records++);
        struct iovec pieces[] = {{text, 1}, {text + 1, n - 1}};
        if (writev(fd, pieces, 2) != n) fail("writev", number);
        break;
    }
    case 6 ... 8:
        if (fdatasync(fd)) fail("fdatasync", number);
        break;
    case 9:
        if (fsync(fd)) fail("fsync", number);
        break;
    case 10:
        if (log->fds[at] < 0 && (log->fds[at] = dup(fd)) < 0) fail("dup", number);
        break;
    case 11:
        if (log->fds[at] >= 0 && log->fds[at] != fd && dup2(fd, log->fds[at]) < 0) fail("dup2", number);
        break;
    case 12 ... 13:
        if (log->fds[at] >= 0 && close(log->fds[at])) fail("close", number);
        log->fds[at] = -1;
        break;
    case 14:
        name_of(other, number, !log->renamed);
        if (rename(name, other)) fail("rename", number);
        log->renamed = !log->renamed;
        break;
    case 15: {
        struct stat seen;
        if (fstat(fd, &seen)) fail("fstat", number);
        break;
    }
    }
}

static void *work(void *argument) {
    long me = (long)argument, mine = count / threads;
    uint64_t state = (seed + me) * 0x9e3779b97f4a7c15u + 1;
    for (long i = 0; i < steps; i++) {
        step(me * mine + next(&state) % mine, &state);
        if (next(&state) % 8 == 0) {
            char text[64];
            int n = sprintf(text, "%ld:%ld\n", me, shared_lines[me]++);
            if (write(shared, text, n) != n) fail("write", -1);
            if (next(&state) % 4 == 0 && fdatasync(shared)) fail("fdatasync", -1);
        }
        __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static long open_fds(void) {
    DIR *dir = opendir("/proc/self/fd");
    long n = 0;
    while (readdir(dir)) n++;
    closedir(dir);
    return n;
}

static char *contents(const char *name) {
    int fd = open(name, O_RDONLY);
    struct stat seen;
    if (fd < 0 || fstat(fd, &seen)) return NULL;
    char *text = calloc(1, seen.st_size + 1);
    if (read(fd, text, seen.st_size) != seen.st_size) return NULL;
    close(fd);
    return text;
}

static void check(long number) {
    char name[64], record[64];
    name_of(name, number, logs[number].renamed);
    char *text = contents(name), *at = text;
    if (!text && logs[number].records > 0) fail("reading", number);
    for (long i = 0; i < logs[number].records; i++) {
        int n = sprintf(record, "%ld:%ld;", number, i);
        if (strncmp(at, record, n)) fail("record", number);
        at += n;
    }
    if (text && *at) fail("rest", number);
    free(text);
}

static void check_shared(void) {
    char *text = contents("shared.log");
    long seen[MOST] = {0};
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        long thread = -1, number = -1;
        if (sscanf(line, "%ld:%ld", &thread, &number) != 2 || thread < 0 || thread >= threads ||
            number != seen[thread]++)
            fail("line", -1);
    }
    for (long i = 0; i < threads; i++)
        if (seen[i] != shared_lines[i]) fail("lines", -1);
    free(text);
}

int main(int argc, char **a) {
    if (argc != 5) return 2;
    seed = atol(a[1]), threads = atol(a[2]), count = atol(a[3]), steps = atol(a[4]);
    if (count > MOST || threads > count) return 2;
    for (long i = 0; i < count; i++)
        for (int j = 0; j < COPIES; j++) logs[i].fds[j] = -1;
    // From the first log on the agent keeps one, of its status page.
    long before = open_fds() + 1;
    shared = open("shared.log", O_WRONLY | O_CREAT | O_APPEND, 0644);
    pthread_t all[MOST];
    for (long i = 0; i < threads; i++)
        if (pthread_create(&all[i], NULL, work, (void *)i)) return 3;
    for (long i = 0; i < threads; i++) pthread_join(all[i], NULL);
    for (long i = 0; i < count; i++)
        for (int j = 0; j < COPIES; j++)
            if (logs[i].fds[j] >= 0 && close(logs[i].fds[j])) fail("close", i);
    if (close(shared)) fail("close", -1);
    // A sync that is under way keeps its descriptor until it ends.
    long left;
    for (int i = 0; (left = open_fds() - before) > 0 && i < 1000; i++) usleep(10000);
    for (long i = 0; i < count; i++) check(i);
    check_shared();
    printf("ok\ncalls %ld\nleft %ld\n", calls, left);
    return 0;
}
