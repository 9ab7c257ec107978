/* Stands where an extension does: answers the entries of a patched Redis, and writes down what it was
 * asked, one line each, to the file in ANSWERS. Of four syncs three are answered with success. The real
 * syncs are written down too; FAIL=n lets the n-th of them fail, once, as Linux does. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void note(const char *what, long fd, long value) {
    const char *path = getenv("ANSWERS");
    FILE *file = path ? fopen(path, "a") : NULL;
    if (!file)
        return;
    char link[64], name[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%ld", fd);
    ssize_t length = readlink(link, name, sizeof name - 1);
    name[length < 0 ? 0 : length] = 0;
    const char *last = strrchr(name, '/');
    fprintf(file, "%s %s %ld\n", what, last ? last + 1 : "?", value);
    fclose(file);
}

static long sync_of_four(const char *what, long fd, long failed) {
    static int calls;
    note(what, fd, failed);
    if (failed)
        return failed;
    return ++calls % 4 ? 0 : LONG_MIN;
}

static long on_write(long fd, const void *buf, size_t len) {
    (void)buf;
    note("write", fd, len > 0);
    return len > 1 << 20 ? -EFBIG : LONG_MIN;
}

static long on_fsync(long fd, long failed) {
    return sync_of_four("fsync", fd, failed);
}

static long on_fdatasync(long fd, long failed) {
    return sync_of_four("fdatasync", fd, failed);
}

int fdatasync(int fd) {
    static int (*real)(int);
    static int calls;
    if (!real)
        real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    const char *fail = getenv("FAIL");
    char link[64], name[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, name, sizeof name - 1);
    name[length < 0 ? 0 : length] = 0;
    if (fail && strstr(name, ".incr.aof") && ++calls == atoi(fail)) {
        /* A disk takes long to give up; what is written meanwhile is still to be synced after. */
        usleep(300000);
        note("real", fd, -EIO);
        errno = EIO;
        return -1;
    }
    int result = real(fd);
    note("real", fd, result);
    return result;
}

__attribute__((constructor)) static void attach(void) {
    void **write = dlsym(RTLD_DEFAULT, "durac_on_write");
    void **fsync = dlsym(RTLD_DEFAULT, "durac_on_fsync");
    void **fdatasync = dlsym(RTLD_DEFAULT, "durac_on_fdatasync");
    if (!write || !fsync || !fdatasync)
        return;
    *write = (void *)on_write;
    *fsync = (void *)on_fsync;
    *fdatasync = (void *)on_fdatasync;
}
