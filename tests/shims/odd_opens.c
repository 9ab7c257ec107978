/* Programs that open their log in odd ways and never sync it. Each line goes to standard output after its write.

   link LOG                 LOG is a symbolic link to where there is no file yet
   root ROOT FOLDER HOW     makes ROOT its root, in which `link` leads to FOLDER; opens `a.log` in it: HOW is
                            `absolute`, `relative`, `folder` (by a descriptor) or `up` (by ".." beyond the root)
   renamed NEW LOG          makes NEW and renames it to LOG
   table FOLDER             a thread with open files of its own, by a name that leads elsewhere for another process
   late GO LOG              makes LOG once GO is there
   within FOLDER LOG        opens LOG with FOLDER as its root for this call
   often FOLDER COUNT       so many threads open, write and close a log each, for a second; then it prints `done` */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int is(const char *word, const char *other) {
    return !strcmp(word, other);
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void make(const char *path) {
    if (mkdir(path, 0755))
        fail(path);
}

static int made(int folder, const char *name) {
    return openat(folder, name, O_WRONLY | O_APPEND | O_CREAT, 0644);
}

static int within(const char *folder, const char *name) {
    struct open_how how = {.flags = O_WRONLY | O_APPEND, .resolve = RESOLVE_IN_ROOT};
    return syscall(SYS_openat2, open(folder, O_PATH | O_DIRECTORY), name, &how, sizeof how);
}

static int in_root(const char *root, const char *folder, const char *how) {
    if (unshare(CLONE_NEWNS) || mount(0, "/", 0, MS_REC | MS_PRIVATE, 0) || chdir(root))
        fail("a mount namespace");
    make("data");
    make("inner");
    if (mount(folder, "data", 0, MS_BIND, 0) || symlink("/data", "link") || chroot("."))
        fail("a root");
    if (is(how, "relative"))
        return made(AT_FDCWD, "inner/../link/a.log");
    if (is(how, "folder"))
        return made(open("inner", O_PATH | O_DIRECTORY), "../link/a.log");
    return made(AT_FDCWD, is(how, "up") ? "../../link/a.log" : "/link/a.log");
}

static int write_lines(int fd) {
    if (fd < 0)
        fail("open");
    for (int i = 0; i < 20; i++) {
        char line[64];
        int length = sprintf(line, "0 %d\n", i);
        if (write(fd, line, length) != length || write(1, line, length) != length)
            fail("write");
        usleep(1000);
    }
    return pause();
}

static void *in_thread(void *folder) {
    if (unshare(CLONE_FILES) || chdir(folder))
        fail("a table");
    write_lines(made(AT_FDCWD, "/proc/self/cwd/a.log"));
    return 0;
}

static volatile int is_over;

static void *often(void *path) {
    close(made(AT_FDCWD, path));
    while (!is_over) {
        int fd = open(path, O_WRONLY | O_APPEND);
        if (fd < 0 || write(fd, "x", 1) != 1)
            fail("often");
        close(fd);
    }
    return 0;
}

static int for_a_second(const char *folder, int count) {
    char paths[16][4096];
    pthread_t threads[16];
    for (int i = 0; i < count; i++) {
        snprintf(paths[i], sizeof *paths, "%s/%d.log", folder, i);
        if (pthread_create(&threads[i], 0, often, paths[i]))
            return 1;
    }
    sleep(1);
    is_over = 1;
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], 0);
    return puts("done") < 0;
}

int main(int count, char **words) {
    const char *way = words[1];
    int fd = -1;
    if (count < 3)
        return 2;
    if (is(way, "link"))
        fd = made(AT_FDCWD, words[2]);
    if (is(way, "root"))
        fd = in_root(words[2], words[3], words[4]);
    if (is(way, "renamed")) {
        fd = made(AT_FDCWD, words[2]);
        if (rename(words[2], words[3]))
            fail("rename");
    }
    if (is(way, "late")) {
        while (access(words[2], F_OK))
            usleep(1000);
        fd = made(AT_FDCWD, words[3]);
    }
    if (is(way, "often"))
        return for_a_second(words[2], atoi(words[3]));
    if (is(way, "within"))
        fd = within(words[2], words[3]);
    if (is(way, "table")) {
        pthread_t thread;
        return pthread_create(&thread, 0, in_thread, words[2]) || pthread_join(thread, 0);
    }
    return write_lines(fd);
}
