/* Calls that come after what a log has deferred.

   ordered LOG OTHER CALL...    before each CALL appends three lines to LOG and syncs each; makes CALL, on OTHER and files whose names
                                begin with it; prints its name and what it returned; stops until it is continued (SIGCONT).
                                `32:CALL` is made by a 32-bit system call (int 0x80), `process:CALL` by another process, which is then
                                killed, and `exit` is the end of another process
   dup LOG OTHER                appends to LOG by a descriptor and syncs it, then the same by the same descriptor to OTHER, which
                                dup2 has put there; prints "9 9", the line of OTHER, and waits
   reused LOG OTHER             syncs LOG in a process that somebody kills meanwhile, and whose number another has then, with OTHER
                                open by the descriptor that was synced; renames a file; prints "done" and waits */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define AT ((long)AT_FDCWD)
#define CHECK(what)                                                                                                            \
    do {                                                                                                                       \
        if (!(what)) {                                                                                                         \
            fprintf(stderr, "%s: %s\n", #what, strerror(errno));                                                               \
            _exit(3);                                                                                                          \
        }                                                                                                                      \
    } while (0)

/* A string at an address that 32-bit calls can have. */
static char *low(const char *path, const char *end) {
    char *text = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    CHECK(text != MAP_FAILED);
    sprintf(text, "%s%s", path, end);
    return text;
}

static long call32(int number, const long *a) {
    long result;
    __asm__ volatile("lea -128(%%rsp), %%rsp\n push %%rbp\n mov %7, %%rbp\n int $0x80\n pop %%rbp\n lea 128(%%rsp), %%rsp"
                     : "=a"(result)
                     : "a"((long)number), "b"(a[0]), "c"(a[1]), "d"(a[2]), "S"(a[3]), "D"(a[4]), "r"(a[5])
                     : "memory", "cc", "r8", "r9", "r10", "r11");
    return (int)result;
}

static long call64(int number, const long *a) {
    long result = syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    return result < 0 ? -errno : result;
}

struct call {
    const char *name;
    /* Of x86-64 and of 32-bit programs; 0 is none. */
    int numbers[2];
    /* Of both; those of 32-bit programs are `narrow`, if they differ. */
    long arguments[6], narrow[6];
};

static void append(int log) {
    for (int i = 0; i < 3; i++)
        CHECK(write(log, "x\n", 2) == 2 && fdatasync(log) == 0);
}

static void ordered(int log, const char *path, char **names) {
    char *a = low(path, ".a"), *b = low(path, ".b"), *folder = low(path, ".d"), *structure = low("", "");
    int fd = open(path, O_RDWR | O_CREAT | O_APPEND, 0644);
    CHECK(fd >= 0 && ftruncate(fd, 4096) == 0);
    char *map = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_32BIT, fd, 0);
    CHECK(map != MAP_FAILED);
    uint64_t *vector = (uint64_t *)structure, *how = (uint64_t *)(structure + 64);
    uint32_t *narrow = (uint32_t *)(structure + 32);
    vector[0] = (uint64_t)b, vector[1] = 1;
    narrow[0] = (uint32_t)(uintptr_t)b, narrow[1] = 1;
    how[0] = O_WRONLY | O_TRUNC, how[1] = how[2] = 0;
    const long A = (long)a, B = (long)b, D = (long)folder, V = (long)vector, N = (long)narrow;
    const struct call calls[] = {
        {"fsync", {SYS_fsync, 118}, {fd}, {0}},
        {"fdatasync", {SYS_fdatasync, 148}, {fd}, {0}},
        /* Nothing was written since the call before it. */
        {"again", {SYS_fdatasync, 148}, {log}, {0}},
        {"sync", {SYS_sync, 36}, {0}, {0}},
        {"syncfs", {SYS_syncfs, 344}, {fd}, {0}},
        {"sync_file_range", {SYS_sync_file_range, 314}, {fd, 0, 0, 4}, {fd, 0, 0, 0, 0, 4}},
        {"msync", {SYS_msync, 144}, {(long)map, 4096, MS_SYNC}, {0}},
        {"pwritev2", {SYS_pwritev2, 379}, {fd, V, 1, 0, 0, 2}, {fd, N, 1, 0, 0, 2}},
        {"io_submit", {SYS_io_submit, 248}, {0}, {0}},
        {"rename", {SYS_rename, 38}, {A, B}, {0}},
        {"renameat", {SYS_renameat, 302}, {AT, A, AT, B}, {0}},
        {"renameat2", {SYS_renameat2, 353}, {AT, A, AT, B, 0}, {0}},
        {"unlink", {SYS_unlink, 10}, {A}, {0}},
        {"unlinkat", {SYS_unlinkat, 301}, {AT, A, 0}, {0}},
        {"rmdir", {SYS_rmdir, 40}, {D}, {0}},
        {"link", {SYS_link, 9}, {A, B}, {0}},
        {"linkat", {SYS_linkat, 303}, {AT, A, AT, B, 0}, {0}},
        {"symlink", {SYS_symlink, 83}, {A, B}, {0}},
        {"symlinkat", {SYS_symlinkat, 304}, {A, AT, B}, {0}},
        {"mkdir", {SYS_mkdir, 39}, {B, 0755}, {0}},
        {"mkdirat", {SYS_mkdirat, 296}, {AT, B, 0755}, {0}},
        {"mknod", {SYS_mknod, 14}, {B, S_IFREG | 0644, 0}, {0}},
        {"mknodat", {SYS_mknodat, 297}, {AT, B, S_IFREG | 0644, 0}, {0}},
        {"truncate", {SYS_truncate, 92}, {A, 0}, {0}},
        {"truncate64", {0, 193}, {A, 0, 0}, {0}},
        {"ftruncate", {SYS_ftruncate, 93}, {fd, 4096}, {0}},
        {"ftruncate64", {0, 194}, {fd, 4096, 0}, {0}},
        {"fallocate", {SYS_fallocate, 324}, {fd, 3, 0, 4096}, {fd, 3, 0, 0, 4096, 0}},
        {"fallocate-grow", {SYS_fallocate, 324}, {fd, 0, 0, 8192}, {fd, 0, 0, 0, 8192, 0}},
        {"creat", {SYS_creat, 8}, {B, 0644}, {0}},
        {"open", {SYS_open, 5}, {A, O_WRONLY | O_TRUNC}, {0}},
        {"open-new", {SYS_open, 5}, {B, O_WRONLY | O_CREAT, 0644}, {0}},
        {"openat", {SYS_openat, 295}, {AT, A, O_WRONLY | O_TRUNC}, {0}},
        {"openat2", {SYS_openat2, 437}, {AT, A, (long)how, 24}, {0}},
        {"open_by_handle_at", {SYS_open_by_handle_at, 342}, {AT, 0, O_WRONLY | O_TRUNC}, {0}},
        /* Ordered where writes are seen. */
        {"ficlone", {SYS_ioctl, 54}, {fd, 0x40049409, log}, {0}},
        {"ficlonerange", {SYS_ioctl, 54}, {fd, 0x4020940d, 0}, {0}},
        {"fideduperange", {SYS_ioctl, 54}, {fd, 0xc0189436, 0}, {0}},
        {"move_ext", {SYS_ioctl, 54}, {fd, 0xc028660f, 0}, {0}},
        {"exchange_range", {SYS_ioctl, 54}, {fd, 0x40285881, 0}, {0}},
        {"unresvsp", {SYS_ioctl, 54}, {fd, 0x40305829, 0}, {fd, 0x402c5829, 0}},
        {"unresvsp64", {SYS_ioctl, 54}, {fd, 0x4030582b, 0}, {fd, 0x402c582b, 0}},
        {"zero_range", {SYS_ioctl, 54}, {fd, 0x40305839, 0}, {fd, 0x402c5839, 0}},
        {"madv_remove", {SYS_madvise, 219}, {(long)map, 4096, 9}, {0}},
        {"process_madvise", {440, 440}, {-1, 0, 0, 9, 0}, {0}},
        /* Those that change nothing else. */
        {"fionread", {SYS_ioctl, 54}, {fd, 0x541b, N}, {0}},
        {"madv_cold", {SYS_madvise, 219}, {(long)map, 4096, 20}, {0}},
        {"write", {SYS_write, 4}, {fd, B, 1}, {0}},
        {"open-read", {SYS_open, 5}, {A, O_RDONLY}, {0}},
        {"open-write", {SYS_open, 5}, {A, O_WRONLY}, {0}},
        {"fallocate-keep", {SYS_fallocate, 324}, {fd, 1, 0, 4096}, {fd, 1, 0, 0, 4096, 0}},
        {"sync_file_range-begin", {SYS_sync_file_range, 314}, {fd, 0, 0, 2}, {fd, 0, 0, 0, 0, 2}},
        {"msync-async", {SYS_msync, 144}, {(long)map, 4096, MS_ASYNC}, {0}},
    };
    for (; *names; names++) {
        const char *name = *names;
        int is32 = !strncmp(name, "32:", 3), elsewhere = !strncmp(name, "process:", 8), ends = !strcmp(name, "exit");
        name += is32 ? 3 : elsewhere ? 8 : 0;
        const struct call *call = calls, *end = calls + sizeof calls / sizeof *calls;
        while (call < end && strcmp(call->name, name))
            call++;
        CHECK(ends || (call < end && call->numbers[is32]));
        /* What the calls want to be there, or not to be. */
        unlink(b), rmdir(b), rmdir(folder);
        int made = open(a, O_WRONLY | O_CREAT, 0644);
        CHECK(made >= 0 && close(made) == 0 && mkdir(folder, 0755) == 0);
        append(log);
        long result = 0;
        pid_t child = ends || elsewhere ? fork() : 0;
        if (!child) {
            if (ends)
                _exit(0);
            const long *arguments = is32 && call->narrow[0] ? call->narrow : call->arguments;
            result = is32 ? call32(call->numbers[1], arguments) : call64(call->numbers[0], arguments);
            if (elsewhere)
                kill(getpid(), SIGKILL);
        }
        if (child)
            CHECK(waitpid(child, 0, 0) == child);
        char line[128];
        int length = sprintf(line, "%s: %s\n", *names, result < 0 ? strerror(-result) : "fine");
        CHECK(write(1, line, length) == length);
        raise(SIGSTOP);
    }
}

static void dup_over(int log, const char *path) {
    append(log);
    int other = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
    CHECK(other >= 0 && dup2(other, log) == log);
    CHECK(write(log, "9 9\n", 4) == 4 && fdatasync(log) == 0 && write(1, "9 9\n", 4) == 4);
    pause();
}

/* Ends with its parent. */
static void end_with(pid_t parent) {
    CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
    if (getppid() != parent)
        _exit(0);
}

static void reuse(int log, const char *path) {
    const int number = 50;
    const pid_t parent = getpid();
    int other = open(path, O_RDWR | O_CREAT | O_APPEND, 0644);
    CHECK(other >= 0 && write(other, "x\n", 2) == 2 && dup2(other, number) == number);
    pid_t victim = fork();
    CHECK(victim >= 0);
    if (!victim) {
        end_with(parent);
        CHECK(dup2(log, number) == number && write(number, "x\n", 2) == 2);
        fdatasync(number);
        _exit(0);
    }
    CHECK(waitpid(victim, 0, 0) == victim);
    struct clone_args arguments = {.exit_signal = SIGCHLD, .set_tid = (uintptr_t)&victim, .set_tid_size = 1};
    long heir;
    /* Another process may have the number for a while. */
    while ((heir = syscall(SYS_clone3, &arguments, sizeof arguments)) < 0 && errno == EEXIST)
        usleep(1000);
    CHECK(heir >= 0);
    if (!heir) {
        end_with(parent);
        for (;;)
            pause();
    }
    /* Answered after the call of the dead process. */
    rename(path, path);
    CHECK(write(1, "done\n", 5) == 5);
    pause();
}

int main(int count, char **words) {
    int is_dup = !strcmp(words[1], "dup"), is_reuse = !strcmp(words[1], "reused"), first = is_dup || is_reuse ? 2 : 1;
    CHECK(count > first + 1);
    int log = open(words[first], O_WRONLY | O_CREAT | O_APPEND, 0644);
    CHECK(log >= 0);
    if (is_dup)
        dup_over(log, words[first + 1]);
    else if (is_reuse)
        reuse(log, words[first + 1]);
    else
        ordered(log, words[first + 1], words + first + 2);
    return 0;
}
