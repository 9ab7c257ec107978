/* Stands where BPFtime's system-call server does: preloaded into the loader, it serves its bpf, perf_event_open,
 * mmap and close calls from the session's memory. With RECORD it writes down each call, one line each; REFUSE=n
 * lets the n-th fail, REFUSE_ALL that and all after it, REFUSE_AS=e with the result -e and without errno, EEXIST=n as a place that is taken does. */

#include "session.h"
#include <linux/perf_event.h>

enum { MOST = 256 };

static struct session *session;
static int with_kernel;
static int made[MOST];
static int count;
static int calls;

__attribute__((format(printf, 1, 2))) static void note(const char *format, ...) {
    const char *path = getenv("RECORD");
    if (!path)
        return;
    char line[2048];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    long fd = raw(SYS_openat, AT_FDCWD, (long)path, O_WRONLY | O_APPEND | O_CREAT, 0644, 0, 0);
    raw(SYS_write, fd, (long)line, length, 0, 0, 0);
    raw(SYS_close, fd, 0, 0, 0, 0, 0);
}

static void clear(long at) {
    if (at < 0 || (uint64_t)at >= session->slots || session->handlers[at].kind == UNUSED)
        return;
    int kind = session->handlers[at].kind;
    if (kind == PROGRAM || kind == PROBE)
        for (uint64_t i = 0; i < session->slots; i++) {
            struct handler *link = &session->handlers[i];
            if (link->kind == LINK && (kind == PROGRAM ? link->link.program : link->link.probe) == at)
                memset(link, 0, sizeof *link);
        }
    memset(&session->handlers[at], 0, sizeof session->handlers[at]);
}

/* With the first call that is intercepted, and not before. */
static void start_up(void) {
    if (session)
        return;
    const char *most = getenv("BPFTIME_MAX_FD_COUNT"), *log = getenv("BPFTIME_LOG_OUTPUT");
    uint64_t slots = most ? strtoul(most, NULL, 10) : DEFAULT_SLOTS;
    slots = slots < MIN_SLOTS ? MIN_SLOTS : slots > MOST_SLOTS ? MOST_SLOTS : slots;
    long fd = raw(SYS_openat, AT_FDCWD, (long)session_path(), O_RDWR | O_CREAT | O_CLOEXEC, 0644, 0, 0);
    if (fd < 0)
        abort();
    session = session_map((int)fd);
    if (!session) {
        size_t size = sizeof *session + slots * sizeof session->handlers[0];
        if (raw(SYS_ftruncate, fd, (long)size, 0, 0, 0, 0) < 0 || !(session = session_map((int)fd)))
            abort();
        session->slots = slots;
    }
    for (uint64_t i = 0; i < session->slots; i++)
        clear((long)i);
    snprintf(session->log, sizeof session->log, "%s", log ? log : "/dev/null");
    session->ready = 1;
    with_kernel = getenv("BPFTIME_RUN_WITH_KERNEL") != NULL;
}

/* The number by which a descriptor is written down: the first that was made is 1. */
static int number(int fd) {
    for (int i = 0; i < count; i++)
        if (made[i] == fd)
            return i + 1;
    return 0;
}

static long keep(long fd) {
    if (fd < 0 || count == MOST)
        abort();
    made[count++] = (int)fd;
    note(" = %d\n", count);
    return fd;
}

static long fake_fd(void) {
    return raw(SYS_openat, AT_FDCWD, (long)"/dev/null", O_RDONLY | O_CLOEXEC, 0, 0, 0);
}

/* Puts a handler where the descriptor's number says. */
static long put(long fd, const struct handler *handler) {
    const char *taken = getenv("EEXIST");
    if ((taken && atoi(taken) == calls) || ((uint64_t)fd < session->slots && session->handlers[fd].kind != UNUSED)) {
        note(" = taken\n");
        errno = 0;
        return -EEXIST;
    }
    session->handlers[fd] = *handler;
    return keep(fd);
}

static int refused(void) {
    const char *refuse = getenv("REFUSE");
    calls++;
    if (!refuse || (getenv("REFUSE_ALL") ? calls < atoi(refuse) : calls != atoi(refuse)))
        return 0;
    note(" = refused\n");
    errno = EPERM;
    return 1;
}

/* What a call that is refused returns: with REFUSE_AS, an error of BPFtime's own, without errno. */
static long refusal(void) {
    const char *as = getenv("REFUSE_AS");
    if (!as)
        return -1;
    errno = 0;
    return -atoi(as);
}

/* Whether everything behind the first `used` bytes is zero. */
static const char *rest(const void *attr, size_t used, size_t size) {
    for (size_t i = used; i < size; i++)
        if (((const char *)attr)[i])
            return " and more";
    return "";
}

static long result(long value) {
    if (value >= 0)
        return value;
    errno = (int)-value;
    return -1;
}

static uint32_t kernel_id(int fd) {
    struct bpf_map_info info = {0};
    union bpf_attr attr = {0};
    attr.info.bpf_fd = (uint32_t)fd;
    attr.info.info_len = sizeof info;
    attr.info.info = (uintptr_t)&info;
    return raw_bpf(BPF_OBJ_GET_INFO_BY_FD, &attr, sizeof attr) < 0 ? 0 : info.id;
}

static struct map *find(int fd) {
    struct handler *h = (uint64_t)fd < session->slots ? &session->handlers[fd] : NULL;
    return h && h->kind == MAP ? &h->map : NULL;
}

static long map_create(union bpf_attr *a, size_t size) {
    note("map_create %s type %u key %u value %u entries %u flags %#x%s", a->map_name, a->map_type,
         a->key_size, a->value_size, a->max_entries, a->map_flags, rest(a, 44, size));
    if (refused())
        return refusal();
    struct handler handler = {.kind = MAP};
    memcpy(handler.map.name, a->map_name, sizeof handler.map.name);
    handler.map.type = a->map_type;
    handler.map.value_size = a->value_size;
    handler.map.fd = -1;
    if (!with_kernel)
        return put(fake_fd(), &handler);
    long fd = raw_bpf(BPF_MAP_CREATE, a, size);
    if (fd < 0) {
        note(" = refused by the kernel\n");
        return result(fd);
    }
    handler.map.kernel_id = kernel_id((int)fd);
    if (handler.map.kernel_id >= session->slots) {
        note(" = outside of its vector\n");
        abort();
    }
    clear(handler.map.kernel_id);
    session->handlers[handler.map.kernel_id] = handler;
    return keep(fd);
}

static long map_update(union bpf_attr *a, size_t size) {
    const uint64_t *value = (const uint64_t *)(uintptr_t)a->value;
    int at = number((int)a->map_fd);
    note("map_update %d key %u flags %llu%s:", at, *(uint32_t *)(uintptr_t)a->key, a->flags, rest(a, 32, size));
    struct map *map = with_kernel ? NULL : find((int)a->map_fd);
    uint32_t bytes = map ? map->value_size : 0;
    if (with_kernel) {
        uint32_t id = kernel_id((int)a->map_fd);
        bytes = id && id < session->slots ? session->handlers[id].map.value_size : 0;
    }
    for (uint32_t i = 0; i < bytes / 8; i++)
        note(" %llu", (unsigned long long)value[i]);
    if (refused())
        return refusal();
    note(" = ok\n");
    if (with_kernel)
        return result(raw_bpf(BPF_MAP_UPDATE_ELEM, a, size));
    if (!map)
        return -1;
    memcpy(map->value, value, map->value_size);
    return 0;
}

static long map_lookup(union bpf_attr *a, size_t size) {
    if (with_kernel)
        return result(raw_bpf(BPF_MAP_LOOKUP_ELEM, a, size));
    struct map *map = find((int)a->map_fd);
    if (!map)
        return result(-ENOENT);
    memcpy((void *)(uintptr_t)a->value, map->value, map->value_size);
    return 0;
}

/* A program for the kernel itself, which the server hands on; and one for this machine, for which the kernel
 * gets another in its place. */
static long prog_load(union bpf_attr *a, size_t size) {
    const struct bpf_insn *insns = (const struct bpf_insn *)(uintptr_t)a->insns;
    int ours = a->prog_type == BPF_PROG_TYPE_KPROBE;
    if (ours)
        note("prog_load %s type %u licence %s slots %u%s maps", a->prog_name, a->prog_type,
             (const char *)(uintptr_t)a->license, a->insn_cnt, rest(a, 64, size));
    else
        note("kernel_prog_load %s type %u attach %u types %d slots %u maps", a->prog_name, a->prog_type,
             a->expected_attach_type, number((int)a->prog_btf_fd), a->insn_cnt);
    for (unsigned i = 0; i < a->insn_cnt; i++)
        if (insns[i].code == (BPF_LD | BPF_IMM | BPF_DW) && insns[i].src_reg == BPF_PSEUDO_MAP_FD)
            note(" %u:%d", i, number(insns[i].imm));
    if (refused())
        return refusal();
    struct handler handler = {.kind = PROGRAM};
    memcpy(handler.program.name, a->prog_name, sizeof handler.program.name);
    if (a->insn_cnt > INSNS)
        abort();
    handler.program.count = a->insn_cnt;
    memcpy(handler.program.insns, insns, a->insn_cnt * sizeof *insns);
    if (!with_kernel)
        return put(fake_fd(), &handler);
    const char *pattern = getenv("BPFTIME_NOT_LOAD_PATTERN");
    int kept = pattern && strcmp(pattern, "durac_.*") == 0 && strncmp(a->prog_name, "durac_", 6) == 0;
    union bpf_attr attr = *a;
    static const struct bpf_insn nothing[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K}, {.code = BPF_JMP | BPF_EXIT}};
    if (kept) {
        attr.insns = (uintptr_t)nothing;
        attr.insn_cnt = 2;
    }
    long fd = getenv("REFUSE_KERNEL") && !ours ? -EPERM : raw_bpf(BPF_PROG_LOAD, &attr, size);
    if (fd < 0) {
        note(" = refused by the kernel\n");
        return result(fd);
    }
    for (unsigned i = 0; i < a->insn_cnt; i++)
        if (insns[i].code == (BPF_LD | BPF_IMM | BPF_DW) && insns[i].src_reg == BPF_PSEUDO_MAP_FD)
            handler.program.insns[i].imm = (int)kernel_id(insns[i].imm);
    return put(fd, &handler);
}

static long link_create(union bpf_attr *a, size_t size) {
    int probe = (int)a->link_create.target_fd, program = (int)a->link_create.prog_fd;
    note("link_create program %d probe %d attach_type %u flags %u%s", number(program), number(probe),
         a->link_create.attach_type, a->link_create.flags, rest(a, 16, size));
    if (refused())
        return refusal();
    if (session->handlers[probe].kind != PROBE || session->handlers[program].kind != PROGRAM)
        return result(-EBADF);
    struct handler handler = {.kind = LINK, .link = {.program = program, .probe = probe}};
    return put(fake_fd(), &handler);
}

static long perf_event_open(const struct perf_event_attr *a, int pid, int cpu, int group, unsigned long flags) {
    const char *path = (const char *)(uintptr_t)a->config1;
    const char *name = strrchr(path, '/');
    note("perf_event_open type %u size %u config %llu path %s offset %#llx pid %d cpu %d group %d flags "
         "%lu",
         a->type, a->size, a->config, path[0] == '/' && name ? name + 1 : "relative", a->config2, pid,
         cpu, group, flags);
    if (refused())
        return refusal();
    struct handler handler = {.kind = PROBE, .probe = {.type = a->type, .offset = a->config2}};
    snprintf(handler.probe.path, sizeof handler.probe.path, "%s", path);
    return put(fake_fd(), &handler);
}

/* What goes to the kernel as it is. */
static long handed_on(const char *what, int command, union bpf_attr *a, size_t size, int makes) {
    note("%s", what);
    if (refused())
        return refusal();
    if (!with_kernel && makes)
        return keep(fake_fd());
    long value = raw_bpf(command, a, size);
    if (value < 0)
        note(" = refused by the kernel\n");
    else if (makes)
        return keep(value);
    else
        note(" = ok\n");
    return result(value);
}

static long bpf(int command, union bpf_attr *a, size_t size) {
    char what[256];
    errno = 0;
    switch (command) {
    case BPF_MAP_CREATE:
        return map_create(a, size);
    case BPF_MAP_UPDATE_ELEM:
        return map_update(a, size);
    case BPF_MAP_LOOKUP_ELEM:
        return map_lookup(a, size);
    case BPF_PROG_LOAD:
        return prog_load(a, size);
    case BPF_LINK_CREATE:
        return link_create(a, size);
    case BPF_BTF_LOAD:
        return handed_on("btf_load", command, a, size, 1);
    case BPF_RAW_TRACEPOINT_OPEN:
        snprintf(what, sizeof what, "raw_tracepoint %d", number((int)a->raw_tracepoint.prog_fd));
        return handed_on(what, command, a, size, 1);
    case BPF_OBJ_PIN:
        snprintf(what, sizeof what, "pin %d", number((int)a->bpf_fd));
        return handed_on(what, command, a, size, 0);
    case BPF_OBJ_GET_INFO_BY_FD:
        return result(raw_bpf(command, a, size));
    default:
        note("bpf %d\n", command);
        return result(raw_bpf(command, a, size));
    }
}

long syscall(long nr, ...) {
    va_list args;
    va_start(args, nr);
    long a = va_arg(args, long), b = va_arg(args, long), c = va_arg(args, long);
    long d = va_arg(args, long), e = va_arg(args, long), f = va_arg(args, long);
    va_end(args);
    if (nr == SYS_perf_event_open) {
        start_up();
        return perf_event_open((const struct perf_event_attr *)a, (int)b, (int)c, (int)d, (unsigned long)e);
    }
    if (nr == SYS_bpf) {
        start_up();
        return bpf((int)a, (union bpf_attr *)b, (size_t)c);
    }
    return result(raw(nr, a, b, c, d, e, f));
}

int close(int fd) {
    start_up();
    int known = number(fd);
    if (known) {
        note("close %d\n", known);
        made[known - 1] = -1;
    }
    clear(fd);
    return (int)result(raw(SYS_close, fd, 0, 0, 0, 0, 0));
}

ssize_t read(int fd, void *to, size_t size) {
    start_up();
    return result(raw(SYS_read, fd, (long)to, (long)size, 0, 0, 0));
}

void *mmap64(void *at, size_t size, int access, int flags, int fd, off64_t offset) {
    if (!getenv("BPFTIME_RUN_WITH_KERNEL"))
        start_up();
    if (session && fd >= 0 && number(fd))
        note("mmap %d\n", number(fd));
    struct map *map = session && !with_kernel && fd >= 0 ? find(fd) : NULL;
    if (map)
        return map->value;
    return (void *)result(raw(SYS_mmap, (long)at, (long)size, access, flags, fd, offset));
}

void *mmap(void *at, size_t size, int access, int flags, int fd, off_t offset) {
    return mmap64(at, size, access, flags, fd, offset);
}
