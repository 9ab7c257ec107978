/* The memory that the stand-ins for BPFtime's server and agent share, and how they treat it. They behave as
 * BPFtime's do at commit ec26daec, as far as a loader or a program can tell:
 *
 * - A handler is kept at the number of its descriptor; a map shared with the kernel at the kernel's number of it,
 *   which nothing compares with the size of the vector.
 * - The first call of a new server that it intercepts clears every handler, whoever made it.
 * - close() clears a handler; the end of a process clears nothing, and the memory stays.
 * - A place that is taken gives -EEXIST as the result, without errno.
 * - Of a shared array the address, and of a shared hash the descriptor, of the first process that looked it up
 *   is kept for all. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { UNUSED, MAP, PROGRAM, PROBE, LINK };
enum { DEFAULT_SLOTS = 6144, MIN_SLOTS = 128, MOST_SLOTS = 1 << 20, INSNS = 512, WORDS = 64 };

struct map {
    char name[16];
    uint32_t type, value_size;
    /* The kernel's number; 0 if the map is here. */
    uint32_t kernel_id;
    int fd;
    uint64_t address;
    uint64_t value[WORDS];
};

struct program {
    char name[16];
    uint32_t count;
    struct bpf_insn insns[INSNS];
};

struct probe {
    uint32_t type;
    uint64_t offset;
    char path[512];
};

struct link {
    int program, probe;
};

struct handler {
    int kind;
    union {
        struct map map;
        struct program program;
        struct probe probe;
        struct link link;
    };
};

struct session {
    uint64_t ready;
    uint64_t slots;
    char log[256];
    struct handler handlers[];
};

static inline const char *session_path(void) {
    static char path[300];
    const char *name = getenv("BPFTIME_GLOBAL_SHM_NAME");
    snprintf(path, sizeof path, "/dev/shm/%s", name ? name : "bpftime_maps_shm");
    return path;
}

/* System calls that no library sees. */
static inline long raw(long number, long a, long b, long c, long d, long e, long f) {
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

static inline long raw_bpf(int command, union bpf_attr *attr, size_t size) {
    return raw(SYS_bpf, command, (long)attr, (long)size, 0, 0, 0);
}

/* The whole session, or none. */
static inline struct session *session_map(int fd) {
    struct stat about;
    if (raw(SYS_fstat, fd, (long)&about, 0, 0, 0, 0) < 0 || about.st_size == 0)
        return NULL;
    long at = raw(SYS_mmap, 0, about.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return at < 0 && at > -4096 ? NULL : (struct session *)at;
}
