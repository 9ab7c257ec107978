// Opens many logs, one after the other or at once, and says what that took.
//
//   scale turns COUNT | at-once COUNT
//
// Log N holds the line "N". Afterwards: how many were opened, the most threads at a time, how much
// memory was added between the first tenth and the end (kB), and how many calls failed.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static long failed, threads, first_memory;

static long status_of(const char *name) {
    char line[200];
    long value = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (fgets(line, sizeof line, file))
        if (!strncmp(line, name, strlen(name))) value = atol(line + strlen(name));
    fclose(file);
    return value;
}

static void look(void) {
    long now = status_of("Threads:");
    if (now > threads) threads = now;
}

static int open_one(long i) {
    char name[32];
    snprintf(name, sizeof name, "%ld.log", i);
    return open(name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
}

static void fill(int fd, long i) {
    char text[32];
    int n = snprintf(text, sizeof text, "%ld\n", i);
    failed += write(fd, text, n) != n;
    failed += fdatasync(fd) != 0;
}

int main(int count, char **a) {
    if (count != 3) return 2;
    long logs = atol(a[2]), opened = 0;
    if (!strcmp(a[1], "turns")) {
        for (; opened < logs; opened++) {
            int fd = open_one(opened);
            fill(fd, opened);
            failed += close(fd) != 0;
            if (opened % 100 == 0) look();
            if (opened == logs / 10) first_memory = status_of("VmRSS:");
        }
    } else {
        struct rlimit limit;
        getrlimit(RLIMIT_NOFILE, &limit);
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
        int *fds = malloc(logs * sizeof *fds);
        first_memory = status_of("VmRSS:");
        for (; opened < logs; opened++)
            if ((fds[opened] = open_one(opened)) < 0) break;
        for (long i = 0; i < opened; i++) {
            fill(fds[i], i);
            if (i % 100 == 0) look();
        }
        // Once more, last first.
        for (long i = opened; i-- > 0;) failed += fdatasync(fds[i]) != 0;
        look();
        for (long i = 0; i < opened; i++) failed += close(fds[i]) != 0;
        // The places are free again.
        int fd = open_one(0);
        fill(fd, 0);
        failed += close(fd) != 0;
        free(fds);
    }
    printf("opened %ld\nthreads %ld\nmemory %ld\nfailed %ld\n", opened, threads,
           status_of("VmRSS:") - first_memory, failed);
    return 0;
}
