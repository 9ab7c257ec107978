// A program that does what its arguments say, one after the other, and prints what each call
// returned. Every call starts with errno 77; a line ends in "!" if a call that succeeded changed it.
//
//   open N FLAGS PATH   FLAGS of r w + c t a s x; N is a name of one letter for the descriptor
//   write N BYTES | writev N BYTES | pwrite N BYTES | sync N | fsync N | ftruncate N LENGTH
//   range N (sync_file_range) | close N | fclose N | dup N M | dup2 N M | fcntl N M | rawclose N
//   closerange N (from it to 800) | rename A B | unlink A | truncate A LENGTH | mkdirsync PATH
//   seekto N OFFSET | allocate N LENGTH | rawput N TEXT (a system call of its own) | print N TEXT (dprintf)
//   overput N TEXT      a write beyond RLIMIT_FSIZE, whose handler writes the text by a system call of its own
//   put N TEXT | big N BYTES COUNT   writes the text, or so many bytes so often and prints how many in all
//   bad N KIND          a write of memory that cannot be read: see bad()
//   stat PATH | fstat N | seek N | pread N | cat PATH (fopen) | mmap N | lock N   what is seen of a file
//   plock N             a POSIX lock of the whole file | plocked PATH   whether another process sees one
//   number WAY N PATH   looks at the file of N and of the path by the number of a system call: see number()
//   rawstat PATH        its size by a system call of its own: what another process sees
//   setfl N FLAGS       fcntl with F_SETFL
//   hold | release      the shim holds up every sync, or lets go
//   stick NAME | unstick  syncs of files whose name starts so hang, but in the first thread
//   syncs COUNT | begun COUNT   waits until the shim has seen so many syncs end, or begin
//   fails N             writes until a write fails, and prints what that one returned
//   file PATH           waits until the file exists | pause MILLISECONDS
//   loop N COUNT        COUNT times write and sync
//   loopfor N PATH      the same until the file exists; prints nothing of each
//   fork ... end        a child does them and exits with _exit; the parent waits
//   barefork ... end    the same of _Fork
//   keepfork ... end    the parent does not wait; wait
//   daemon              goes on in a child; the parent ends
//   userns | numberns   a user namespace of its own, by name or by number | filter   no thread may open or look at a file any more
//   vsync N             a child that shares memory syncs it, and exits with the error
//   vfork N             a child that shares memory closes the descriptor, and exits
//   spawn ... end       a thread does them | join | cancel
//   failexec WAY        a call that cannot become another program: an exec function, or by its number
//   holdtable | attable | freetable   the agent's open of the table of all processes waits; waits until it does; lets it go
//   threads             threads can be started again
//   exit CODE | _exit CODE | exec ARG... (the rest) | kill SIGNAL | nofile COUNT | limit BYTES (of a file) | echo TEXT
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static int fds[128];
static char bytes[1 << 16];
static pthread_t thread;
static pid_t child;

static void say(const char *what, const char *who, long result) {
    int e = errno;
    char line[300];
    int n = snprintf(line, sizeof line, "%s %s = %ld%s%s%s\n", what, who, result,
                     result < 0 ? " " : "", result < 0 ? strerrorname_np(e) : "",
                     result >= 0 && e != 77 ? " !" : "");
    // Not through stdio: a thread may be cancelled, a child must not print the parent's lines.
    syscall(SYS_write, 1, line, n);
}

// Past the C library.
static long unseen(long number, long a, long b) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b) : "rcx", "r11", "memory");
    if (result >= 0) return result;
    errno = -result;
    return -1;
}

// Looks at a log in a way that has a system call of its own, made by its number.
static long number(const char *way, int fd, const char *path) {
    struct stat s = {.st_size = -2};
    struct iovec piece = {bytes, sizeof bytes};
    int ends[2], other = open("seen.out", O_RDWR | O_CREAT | O_TRUNC, 0644);
    loff_t from = 0;
    if (!strcmp(way, "preadv2")) return syscall(SYS_preadv2, fd, &piece, 1, 0, 0, 0);
    if (!strcmp(way, "stat")) return syscall(SYS_stat, path, &s) ? -1 : s.st_size;
    if (!strcmp(way, "lstat")) return syscall(SYS_lstat, path, &s) ? -1 : s.st_size;
    if (!strcmp(way, "sendfile")) return syscall(SYS_sendfile, other, fd, &from, 100);
    if (!strcmp(way, "cfr")) return syscall(SYS_copy_file_range, fd, &from, other, 0, 100, 0);
    if (!strcmp(way, "splice")) return pipe(ends) ? -1 : syscall(SYS_splice, fd, &from, ends[1], 0, 100, 0);
    if (!strcmp(way, "utimensat")) {
        struct timespec times[2] = {{1, 0}, {1, 0}};
        return syscall(SYS_utimensat, fd, NULL, times, 0);
    }
    struct rlimit limit = {1 << 20, RLIM_INFINITY};
    if (!strcmp(way, "setrlimit")) return syscall(SYS_setrlimit, RLIMIT_FSIZE, &limit);
    if (!strcmp(way, "prlimit")) return syscall(SYS_prlimit64, 0, RLIMIT_FSIZE, &limit, NULL);
    if (!strcmp(way, "sendmsg") || !strcmp(way, "sendmmsg")) {
        char control[CMSG_SPACE(sizeof fd)] = {0}, byte = 'x';
        struct iovec one = {&byte, 1};
        struct mmsghdr message = {.msg_hdr = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control}};
        struct cmsghdr *part = CMSG_FIRSTHDR(&message.msg_hdr);
        part->cmsg_level = SOL_SOCKET, part->cmsg_type = SCM_RIGHTS, part->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(part), &fd, sizeof fd);
        if (socketpair(AF_UNIX, SOCK_DGRAM, 0, ends)) return -1;
        if (!strcmp(way, "sendmsg")) return syscall(SYS_sendmsg, ends[0], &message.msg_hdr, 0);
        return syscall(SYS_sendmmsg, ends[0], &message, 1, 0);
    }
    return -3;
}

static int flags_of(const char *text) {
    int flags = 0;
    for (; *text; text++)
        switch (*text) {
        case 'r': flags |= O_RDONLY; break;
        case 'w': flags |= O_WRONLY; break;
        case '+': flags |= O_RDWR; break;
        case 'c': flags |= O_CREAT; break;
        case 't': flags |= O_TRUNC; break;
        case 'a': flags |= O_APPEND; break;
        case 's': flags |= O_DSYNC; break;
        case 'd': flags |= O_DIRECT; break;
        case 'x': flags |= O_CLOEXEC; break;
        }
    return flags;
}

// A filter of system calls for all threads, which kills the process for those that open or look at files.
static void filter(void) {
#define DEADLY(number)                                                                                                 \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        DEADLY(SYS_openat), DEADLY(SYS_fcntl), DEADLY(SYS_fstat), DEADLY(SYS_newfstatat), DEADLY(SYS_memfd_create),
        DEADLY(SYS_readlink), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program)) _exit(95);
}

static long shim(const char *name, long argument) {
    long (*function)(long) = (long (*)(long))dlsym(RTLD_DEFAULT, name);
    if (!function) {
        fprintf(stderr, "no shim\n");
        _exit(99);
    }
    return function(argument);
}

static void pause_briefly(void) {
    struct timespec t = {0, 200000};
    nanosleep(&t, NULL);
}

// Memory for two pages at most: 10 bytes that can be read, and then nothing.
static char *edge(int protection) {
    // Where nobody is given memory who does not ask for this place: what is unmapped stays so.
    static char *place = (char *)(1L << 40);
    char *page = mmap(place += 1 << 20, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (page == MAP_FAILED) _exit(95);
    memset(page, 'e', 4096);
    if (protection < 0) munmap(page + 4096, 4096);
    else mprotect(page + 4096, 4096, protection);
    return page + 4086;
}

// A page of a file that has become shorter.
static char *cut(void) {
    int fd = memfd_create("cut", 0);
    if (ftruncate(fd, 4096)) _exit(95);
    char *page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    if (ftruncate(fd, 0)) _exit(95);
    return page;
}

#pragma GCC diagnostic ignored "-Wstringop-overread"
#pragma GCC diagnostic ignored "-Wstringop-overflow"
static long bad(int fd, const char *kind) {
    // The compiler sees a null pointer where it stands.
    void *volatile nothing = NULL;
    volatile int negative = -1, many = 1025;
#define KIND(name) (!strcmp(kind, name))
    if (KIND("null")) return write(fd, nothing, 5);
    if (KIND("low")) return write(fd, (void *)64, 5);
    if (KIND("kernel")) return write(fd, (void *)-4096L, 5);
    if (KIND("hole")) return write(fd, (void *)(1L << 60), 5);
    if (KIND("around")) return write(fd, edge(-1), -1UL);
    if (KIND("gone")) return write(fd, edge(-1) + 10, 5);
    if (KIND("none")) return write(fd, edge(PROT_NONE) + 10, 5);
    if (KIND("cut")) return write(fd, cut(), 5);
    if (KIND("partly")) return write(fd, edge(PROT_NONE), 20);
    struct iovec v[3] = {{"first", 5}, {edge(-1), 20}, {"third", 5}};
    if (KIND("second")) return writev(fd, v, 3);
    v[1].iov_base = NULL;
    if (KIND("nullpiece")) return writev(fd, v, 3);
    v[1].iov_len = 0;
    if (KIND("emptypiece")) return writev(fd, v, 3);
    v[1].iov_base = (void *)-4096L;
    if (KIND("emptykernel")) return writev(fd, v, 3);
    v[0].iov_len = v[1].iov_len = 1UL << 63;
    if (KIND("huge")) return writev(fd, v, 3);
    if (KIND("nullarray")) return writev(fd, nothing, 2);
    if (KIND("gonearray")) return writev(fd, (void *)(edge(-1) + 10), 2);
    if (KIND("partarray")) {
        struct iovec *half = (void *)(edge(-1) + 10 - sizeof *half);
        *half = v[2];
        return writev(fd, half, 2);
    }
    if (KIND("oddarray")) {
        char *odd = edge(-1) + 10 - 2 * sizeof *v - 1;
        memcpy(odd, v + 2, sizeof *v);
        memcpy(odd + sizeof *v, v + 2, sizeof *v);
        return writev(fd, (void *)odd, 2);
    }
    if (KIND("negative")) return writev(fd, v, negative);
    if (KIND("many")) {
        static struct iovec pieces[1025];
        for (int i = 0; i < many; i++) pieces[i] = (struct iovec){"first", 1};
        return writev(fd, pieces, many);
    }
    if (KIND("empty")) return writev(fd, v, 0);
    if (KIND("at")) return pwrite(fd, edge(-1) + 10, 5, 0);
    if (KIND("arrayat")) return pwritev(fd, nothing, 2, 0);
    _exit(95);
}

static struct { int fd; const char *text; } in_handler;

static void lift_and_put(int signal) {
    struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY};
    setrlimit(RLIMIT_FSIZE, &none);
    syscall(SYS_write, in_handler.fd, in_handler.text, strlen(in_handler.text));
    (void)signal;
}

// The handler comes while the C library's write has not returned.
static long overput(int fd, const char *text) {
    struct rlimit none = {lseek(fd, 0, SEEK_END), RLIM_INFINITY};
    in_handler.fd = fd;
    in_handler.text = text;
    signal(SIGXFSZ, lift_and_put);
    setrlimit(RLIMIT_FSIZE, &none);
    return write(fd, text, strlen(text));
}

static char **run(char **a);

static void *run_thread(void *a) {
    run(a);
    return NULL;
}

static char **skip(char **a) {
    for (int depth = 1; *a; a++) {
        if (!strcmp(*a, "fork") || !strcmp(*a, "barefork") || !strcmp(*a, "keepfork") || !strcmp(*a, "spawn")) depth++;
        if (!strcmp(*a, "end") && --depth == 0) return a + 1;
    }
    return a;
}

#define IS(name) (!strcmp(op, name))
#define FD(i) fds[(int)a[i][0]]
#define DO(width, call) { errno = 77; long result = (call); say(op, a[0], result); a += width; }

static char **run(char **a) {
    while (*a) {
        const char *op = *a++;
        if (IS("end")) return a;
        if (IS("open")) {
            errno = 77;
            FD(0) = open(a[2], flags_of(a[1]), 0644);
            say(op, a[2], FD(0) < 0 ? -1 : 0);
            a += 3;
        } else if (IS("write")) DO(2, write(FD(0), bytes, atoi(a[1])))
        else if (IS("pwrite")) DO(2, pwrite(FD(0), bytes, atoi(a[1]), 0))
        else if (IS("writev")) {
            struct iovec v[2] = {{bytes, atoi(a[1]) - 1}, {bytes, 1}};
            DO(2, writev(FD(0), v, 2))
        } else if (IS("bad")) {
            errno = 77;
            say(a[1], a[0], bad(FD(0), a[1]));
            a += 2;
        } else if (IS("sync")) DO(1, fdatasync(FD(0)))
        else if (IS("fsync")) DO(1, fsync(FD(0)))
        else if (IS("range")) DO(1, sync_file_range(FD(0), 0, 0, SYNC_FILE_RANGE_WAIT_AFTER))
        else if (IS("ftruncate")) DO(2, ftruncate(FD(0), atoi(a[1])))
        else if (IS("close")) DO(1, close(FD(0)))
        else if (IS("rawclose")) DO(1, unseen(SYS_close, FD(0), 0))
        else if (IS("fclose")) DO(1, fclose(fdopen(FD(0), "w")))
        else if (IS("closerange")) DO(1, close_range(FD(0), 800, 0))
        else if (IS("dup")) { FD(1) = dup(FD(0)); a += 2; }
        else if (IS("dup2")) DO(2, dup2(FD(0), FD(1)) < 0 ? -1 : 0)
        else if (IS("fcntl")) { FD(1) = fcntl(FD(0), F_DUPFD_CLOEXEC, 50); a += 2; }
        else if (IS("rename")) DO(2, rename(a[0], a[1]))
        else if (IS("unlink")) DO(1, unlink(a[0]))
        else if (IS("truncate")) DO(2, truncate(a[0], atoi(a[1])))
        else if (IS("put")) DO(2, write(FD(0), a[1], strlen(a[1])))
        else if (IS("big")) {
            long sum = 0;
            for (int i = atoi(a[2]); i > 0; i--) sum += write(FD(0), bytes, atoi(a[1]));
            errno = 77;
            say(op, a[0], sum);
            a += 3;
        } else if (IS("stat")) { struct stat s; DO(1, stat(a[0], &s) ? -1 : s.st_size) }
        else if (IS("fstat")) { struct stat s; DO(1, fstat(FD(0), &s) ? -1 : s.st_size) }
        else if (IS("rawstat")) {
            struct stat s;
            DO(1, unseen(SYS_stat, (long)a[0], (long)&s) ? -1 : s.st_size)
        } else if (IS("seek")) DO(1, lseek(FD(0), 0, SEEK_END))
        else if (IS("seekto")) DO(2, lseek(FD(0), atoi(a[1]), SEEK_SET))
        else if (IS("allocate")) DO(2, fallocate(FD(0), 0, 0, atoi(a[1])))
        else if (IS("rawput")) DO(2, syscall(SYS_write, FD(0), a[1], strlen(a[1])))
        else if (IS("overput")) DO(2, overput(FD(0), a[1]))
        else if (IS("number")) { errno = 77; long n = number(a[0], FD(1), a[2]); errno = n < 0 ? errno : 77; say(op, a[0], n); a += 3; }
        else if (IS("print")) DO(2, dprintf(FD(0), "%s", a[1]))
        else if (IS("pread")) DO(1, pread(FD(0), bytes, sizeof bytes, 0))
        else if (IS("cat")) {
            FILE *file = fopen(a[0], "r");
            long n = fread(bytes, 1, sizeof bytes, file);
            fclose(file);
            DO(1, n)
        } else if (IS("mmap")) DO(1, mmap(NULL, 4096, PROT_READ, MAP_SHARED, FD(0), 0) == MAP_FAILED)
        else if (IS("lock")) DO(1, flock(FD(0), LOCK_EX))
        else if (IS("plock")) {
            struct flock whole = {.l_type = F_WRLCK};
            DO(1, fcntl(FD(0), F_SETLK, &whole))
        } else if (IS("plocked")) {
            // By system calls alone: another process has no such locks, and closes nothing of this one.
            pid_t other = fork();
            if (other == 0) {
                struct flock whole = {.l_type = F_WRLCK};
                int fd = syscall(SYS_openat, AT_FDCWD, a[0], O_RDWR, 0);
                syscall(SYS_fcntl, fd, F_GETLK, &whole);
                syscall(SYS_exit_group, whole.l_type != F_UNLCK);
            }
            int status;
            waitpid(other, &status, 0);
            DO(1, WEXITSTATUS(status))
        }
        else if (IS("setfl")) DO(2, fcntl(FD(0), F_SETFL, flags_of(a[1])))
        else if (IS("hold")) shim("shim_hold", 1);
        else if (IS("release")) shim("shim_hold", 0);
        else if (IS("stick")) { shim("shim_stick", (long)a[0]); a++; }
        else if (IS("unstick")) shim("shim_stick", 0);
        else if (IS("syncs")) { while (shim("shim_syncs", 0) < atoi(a[0])) pause_briefly(); a++; }
        else if (IS("begun")) { while (shim("shim_begun", 0) < atoi(a[0])) pause_briefly(); a++; }
        else if (IS("fails")) {
            while (errno = 77, write(FD(0), bytes, 1) == 1) pause_briefly();
            say("write", a[0], -1);
            a++;
        } else if (IS("pause")) usleep(1000 * atoi(*a++));
        else if (IS("file")) { while (access(a[0], F_OK)) pause_briefly(); a++; }
        else if (IS("loop")) {
            long good = 0;
            for (int i = atoi(a[1]); i > 0; i--)
                good += write(FD(0), "record\n", 7) == 7 && fdatasync(FD(0)) == 0;
            errno = 77;
            say(op, a[0], good);
            a += 2;
        } else if (IS("loopfor")) {
            while (access(a[1], F_OK))
                for (int i = 0; i < 64; i++)
                    if (write(FD(0), "record\n", 7) != 7 || fdatasync(FD(0))) _exit(98);
            a += 2;
        } else if (IS("fork") || IS("barefork") || IS("keepfork")) {
            child = IS("barefork") ? _Fork() : fork();
            if (child == 0) {
                run(a);
                _exit(0);
            }
            if (!IS("keepfork")) {
                int status;
                waitpid(child, &status, 0);
                errno = 77;
                say("child", "exit", WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status));
            }
            a = skip(a);
        } else if (IS("wait")) { int status; wait4(child, &status, 0, NULL); }
        else if (IS("vfork")) {
            int fd = FD(0);
            pid_t pid = vfork();
            if (pid == 0) {
                close(fd);
                _exit(0);
            }
            waitpid(pid, NULL, 0);
            a++;
        } else if (IS("vsync")) {
            int fd = FD(0), status = 0;
            pid_t pid = vfork();
            if (pid == 0)
                _exit(fdatasync(fd) ? errno : 0);
            waitpid(pid, &status, 0);
            errno = 77;
            say("child", "vsync", WEXITSTATUS(status));
            a++;
        } else if (IS("spawn")) {
            pthread_create(&thread, NULL, run_thread, a);
            a = skip(a);
        } else if (IS("join")) pthread_join(thread, NULL);
        else if (IS("cancel")) pthread_cancel(thread);
        else if (IS("daemon")) { if (daemon(1, 1)) _exit(96); }
        else if (IS("failexec")) {
            char *none[] = {NULL};
            errno = 77;
            long result = !strcmp(a[0], "execl")    ? execl("/nonexistent", "none", NULL)
                          : !strcmp(a[0], "execlp") ? execlp("/nonexistent", "none", NULL)
                          : !strcmp(a[0], "execle") ? execle("/nonexistent", "none", NULL, none)
                          : !strcmp(a[0], "execv")  ? execv("/nonexistent", none)
                                                    : syscall(SYS_execve, "/nonexistent", none, none);
            say(op, a[0], result);
            a++;
        }
        else if (IS("holdtable")) shim("shim_hold_table", 1);
        else if (IS("attable")) { while (!shim("shim_at_table", 0)) pause_briefly(); }
        else if (IS("freetable")) shim("shim_hold_table", 0);
        else if (IS("threads")) unsetenv("SHIM_NO_THREADS");
        else if (IS("userns")) DO(0, unshare(CLONE_NEWUSER))
        else if (IS("numberns")) DO(0, syscall(SYS_unshare, CLONE_NEWUSER))
        else if (IS("filter")) filter();
        else if (IS("exit")) exit(atoi(a[0]));
        else if (IS("_exit")) _exit(atoi(a[0]));
        else if (IS("exec")) { execlp(a[0], a[0], a[1], a[2], NULL); _exit(97); }
        else if (IS("kill")) { raise(atoi(a[0])); a++; }
        else if (IS("limit")) {
            struct rlimit limit = {atoi(a[0]), atoi(a[0])};
            signal(SIGXFSZ, SIG_IGN);
            setrlimit(RLIMIT_FSIZE, &limit);
            a++;
        } else if (IS("nofile")) {
            struct rlimit limit = {atoi(a[0]), atoi(a[0])};
            setrlimit(RLIMIT_NOFILE, &limit);
            a++;
        } else if (IS("echo")) { errno = 77; say(op, a[0], 0); a++; }
        else { fprintf(stderr, "unknown operation %s\n", op); _exit(96); }
    }
    return a;
}

int main(int count, char **a) {
    (void)count;
    run(a + 1);
    return 0;
}
