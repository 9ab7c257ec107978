/* Stands where BPFtime's system-call server does: answers the loader's bpf and perf_event_open calls
 * and writes down what they say, one line each, to the file in RECORD. REFUSE=n lets the n-th of them
 * fail. What is closed that was made here is written down too. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MOST = 64 };

static int made[MOST];
static int count;
static int calls;

__attribute__((format(printf, 1, 2))) static void note(const char *format, ...) {
    const char *path = getenv("RECORD");
    FILE *file = path ? fopen(path, "a") : NULL;
    if (!file)
        return;
    va_list args;
    va_start(args, format);
    vfprintf(file, format, args);
    va_end(args);
    fclose(file);
}

/* The number by which a descriptor is written down: the first that was made is 1. */
static int number(int fd) {
    for (int i = 0; i < count; i++)
        if (made[i] == fd)
            return i + 1;
    return 0;
}

static long make(void) {
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || count == MOST)
        abort();
    made[count++] = fd;
    note(" = %d\n", count);
    return fd;
}

static int refused(void) {
    const char *refuse = getenv("REFUSE");
    calls++;
    if (!refuse || atoi(refuse) != calls)
        return 0;
    note(" = refused\n");
    errno = EPERM;
    return 1;
}

static int refused_by_kernel(void) {
    if (!getenv("REFUSE_KERNEL"))
        return 0;
    note(" = refused\n");
    errno = EPERM;
    return 1;
}

/* Whether everything behind the first `used` bytes is zero. */
static const char *rest(const void *attr, size_t used, size_t size) {
    for (size_t i = used; i < size; i++)
        if (((const char *)attr)[i])
            return " and more";
    return "";
}

static long map_create(const union bpf_attr *a, size_t size) {
    note("map_create %s type %u key %u value %u entries %u flags %#x%s", a->map_name, a->map_type,
         a->key_size, a->value_size, a->max_entries, a->map_flags, rest(a, 44, size));
    return refused() ? -1 : make();
}

static long map_update(const union bpf_attr *a, size_t size, const char *values) {
    const uint64_t *value = (const uint64_t *)(uintptr_t)a->value;
    note("map_update %d key %u flags %llu%s:", number(a->map_fd), *(uint32_t *)(uintptr_t)a->key,
         a->flags, rest(a, 32, size));
    for (int i = 0; values && i < atoi(values); i++)
        note(" %llu", (unsigned long long)value[i]);
    if (refused())
        return -1;
    note(" = ok\n");
    return 0;
}

/* A program for the kernel itself, which the server hands on. */
static long kernel_prog_load(const union bpf_attr *a) {
    const struct bpf_insn *insns = (const struct bpf_insn *)(uintptr_t)a->insns;
    note("kernel_prog_load %s type %u attach %u types %d slots %u maps", a->prog_name, a->prog_type,
         a->expected_attach_type, number((int)a->prog_btf_fd), a->insn_cnt);
    for (unsigned i = 0; i < a->insn_cnt; i++)
        if (insns[i].code == (BPF_LD | BPF_IMM | BPF_DW) && insns[i].src_reg == BPF_PSEUDO_MAP_FD)
            note(" %u:%d", i, number(insns[i].imm));
    return refused() || refused_by_kernel() ? -1 : make();
}

static long btf_load(void) {
    note("btf_load");
    return refused() ? -1 : make();
}

static long raw_tracepoint(const union bpf_attr *a) {
    note("raw_tracepoint %d", number((int)a->raw_tracepoint.prog_fd));
    return refused() ? -1 : make();
}

static long prog_load(const union bpf_attr *a, size_t size) {
    const struct bpf_insn *insns = (const struct bpf_insn *)(uintptr_t)a->insns;
    note("prog_load %s type %u licence %s slots %u%s maps", a->prog_name, a->prog_type,
         (const char *)(uintptr_t)a->license, a->insn_cnt, rest(a, 64, size));
    for (unsigned i = 0; i < a->insn_cnt; i++)
        if (insns[i].code == (BPF_LD | BPF_IMM | BPF_DW) && insns[i].src_reg == BPF_PSEUDO_MAP_FD)
            note(" %u:%d", i, number(insns[i].imm));
    return refused() ? -1 : make();
}

static long link_create(const union bpf_attr *a, size_t size) {
    note("link_create program %d probe %d attach_type %u flags %u%s", number(a->link_create.prog_fd),
         number(a->link_create.target_fd), a->link_create.attach_type, a->link_create.flags,
         rest(a, 16, size));
    return refused() ? -1 : make();
}

static long perf_event_open(const struct perf_event_attr *a, int pid, int cpu, int group,
                            unsigned long flags) {
    const char *path = (const char *)(uintptr_t)a->config1;
    const char *name = strrchr(path, '/');
    note("perf_event_open type %u size %u config %llu path %s offset %#llx pid %d cpu %d group %d flags "
         "%lu",
         a->type, a->size, a->config, path[0] == '/' && name ? name + 1 : "relative", a->config2, pid,
         cpu, group, flags);
    return refused() ? -1 : make();
}

long syscall(long nr, ...) {
    static long (*real)(long, ...);
    va_list args;
    va_start(args, nr);
    long a = va_arg(args, long), b = va_arg(args, long), c = va_arg(args, long);
    long d = va_arg(args, long), e = va_arg(args, long), f = va_arg(args, long);
    va_end(args);
    if (nr == SYS_perf_event_open)
        return perf_event_open((const struct perf_event_attr *)a, (int)b, (int)c, (int)d,
                               (unsigned long)e);
    if (nr == SYS_bpf) {
        const union bpf_attr *attr = (const union bpf_attr *)b;
        static char values[16][8];
        switch (a) {
        case BPF_MAP_CREATE: {
            long fd = map_create(attr, (size_t)c);
            if (fd >= 0 && number((int)fd) < 16)
                snprintf(values[number((int)fd)], 8, "%u", attr->value_size / 8);
            return fd;
        }
        case BPF_MAP_UPDATE_ELEM:
            return map_update(attr, (size_t)c, values[number((int)attr->map_fd) & 15]);
        case BPF_PROG_LOAD:
            if (attr->prog_type != BPF_PROG_TYPE_KPROBE)
                return kernel_prog_load(attr);
            return prog_load(attr, (size_t)c);
        case BPF_BTF_LOAD:
            return btf_load();
        case BPF_RAW_TRACEPOINT_OPEN:
            return raw_tracepoint(attr);
        case BPF_LINK_CREATE:
            return link_create(attr, (size_t)c);
        default:
            note("bpf %ld\n", a);
            errno = EINVAL;
            return -1;
        }
    }
    if (!real)
        real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    return real(nr, a, b, c, d, e, f);
}

int close(int fd) {
    static int (*real)(int);
    if (!real)
        real = (int (*)(int))dlsym(RTLD_NEXT, "close");
    if (number(fd))
        note("close %d\n", number(fd));
    return real(fd);
}
