/* Programs that write and do not sync. What they acknowledge goes to standard output, one write each.

   lines WAY LOG PROCESSES LINES [MS]
                                   each process opens LOG, appends lines to it, one in MS milliseconds (1 if not given),
                                   acknowledges each after its write, and waits. 0 lines are any number. WAY is how the file
                                   is opened:
     make     O_CREAT, by its path
     have     without O_CREAT, from its folder by openat
     map      as `have`, and written through a mapping
     map32    the same; mapped by the oldest 32-bit system call
     each     O_CREAT, anew for each line
     given    not at all: LOG is a number
     synced   as `make`, and synced at once, before anything is written
     compat   O_CREAT, by 32-bit system calls
   once LOG                        opens LOG, appends "0 0", closes it, acknowledges it and ends
   sizes LOG SIZE...               writes so many bytes; prints what became of it
   vectors LOG SIZE...             the same with writev, in two pieces
   synced LOG PROCESSES SIZE       each process appends lines of SIZE bytes, syncs each and acknowledges it */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static int acknowledge(const char *line, int length) {
    return write(1, line, length) == length;
}

static int is(const char *word, const char *other) {
    return !strcmp(word, other);
}

static int open_compat(const char *path) {
    long result;
    /* A 32-bit call takes a 32-bit address. */
    char *low = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    strcpy(low, path);
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(5), "b"(low), "c"(O_WRONLY | O_APPEND | O_CREAT), "d"(0644)
                     : "memory", "r8", "r9", "r10", "r11");
    return result;
}

/* Its arguments are in memory. */
static char *map_compat(int fd) {
    unsigned *low = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    unsigned arguments[] = {0, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0};
    unsigned long result;
    memcpy(low, arguments, sizeof arguments);
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(90), "b"(low) : "memory", "r8", "r9", "r10", "r11");
    return (char *)(result & 0xffffffff);
}

static int open_log(const char *way, char *log) {
    if (is(way, "given"))
        return atoi(log);
    if (is(way, "compat"))
        return open_compat(log);
    if (is(way, "have") || !strncmp(way, "map", 3)) {
        char *name = strrchr(log, '/');
        *name++ = 0;
        return openat(open(log, O_PATH | O_DIRECTORY), name, !strncmp(way, "map", 3) ? O_RDWR : O_WRONLY | O_APPEND);
    }
    int fd = open(log, O_WRONLY | O_APPEND | O_CREAT, 0644);
    if (is(way, "synced"))
        fdatasync(fd);
    return fd;
}

static int lines(const char *way, char *log, int process, int count, int pause_ms) {
    int each = is(way, "each"), fd = each ? -1 : open_log(way, log);
    char *map = 0;
    if (is(way, "map"))
        map = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (is(way, "map32"))
        map = map_compat(fd);
    for (int i = 0; !count || i < count; i++) {
        char line[64];
        int length = sprintf(line, "%d %d\n", process, i);
        if (each)
            fd = open_log(way, log);
        if (fd < 0)
            return 1;
        if (map)
            map = stpcpy(map, line);
        else if (write(fd, line, length) != length)
            return 1;
        if (each)
            close(fd);
        if (!acknowledge(line, length))
            return 3;
        usleep(pause_ms * 1000);
    }
    pause();
    return 0;
}

static int synced(char *log, int process, int size) {
    int fd = open_log("make", log);
    char *line = malloc(size + 1);
    for (int i = 0;; i++) {
        sprintf(line, "%d %d %0*d\n", process, i, size, 0);
        line[size - 1] = '\n';
        if (write(fd, line, size) != size || fdatasync(fd) || !acknowledge(line, size))
            return 1;
    }
}

static int sizes(int vectors, char *log, char **words) {
    int fd = open_log("make", log);
    static char bytes[1 << 20];
    for (; *words; words++) {
        int size = atoi(*words);
        struct iovec pieces[2] = {{bytes, size / 2}, {bytes, size - size / 2}};
        long result = vectors ? writev(fd, pieces, 2) : write(fd, bytes, size);
        printf("%s\n", result == size ? "written" : strerror(errno));
    }
    return 0;
}

int main(int count, char **words) {
    const char *mode = words[1];
    if (is(mode, "sizes") || is(mode, "vectors"))
        return sizes(is(mode, "vectors"), words[2], words + 3);
    if (is(mode, "once")) {
        int fd = open_log("make", words[2]);
        return !(write(fd, "0 0\n", 4) == 4 && !close(fd) && acknowledge("0 0\n", 4));
    }
    int processes = atoi(words[is(mode, "lines") ? 4 : 3]), bad = 0, status;
    for (int p = 0; p < processes; p++)
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            _exit(is(mode, "lines") ? lines(words[2], words[3], p, atoi(words[5]), count > 6 ? atoi(words[6]) : 1) : synced(words[2], p, atoi(words[4])));
        }
    while (wait(&status) > 0)
        bad |= WIFEXITED(status) ? WEXITSTATUS(status) : 4;
    return bad;
}
