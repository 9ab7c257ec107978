/* Stands where BPFtime's agent does: preloaded into the target, it looks for the session once, at its start, and
 * puts the programs that it finds then before their functions. What fails stands in its log only.
 *
 * The functions of the targets here do nothing and return LONG_MIN, so that is what a call returns that a program
 * leaves alone. Built with NO_IOURING, it lacks the extension, and drops programs that call its helpers. */

#include "session.h"
#include <limits.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>

enum { HOOKS = 8, PATCH = 12 };

#ifdef NO_IOURING
enum { HAS_IOURING = 0 };
#else
enum { HAS_IOURING = 1 };
#endif

static struct session *session;

static struct hook {
    struct program program;
    uint8_t *function;
    uint8_t before[PATCH];
    /* For the hook, not for the thread. */
    int overridden;
    uint64_t value;
} hooks[HOOKS];
static int hooked;

/* As in the table of helpers of an agent with the extension. */
#ifndef NO_IOURING
__attribute__((used)) static const char extension[] = "io_uring_submit_fsync";
#endif

static struct {
    int fd;
    struct io_uring_params about;
    uint8_t *submits, *completes;
    struct io_uring_sqe *entries;
    unsigned put;
} ring = {.fd = -1};

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...) {
    char line[512];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    int fd = open(session && session->log[0] ? session->log : "/dev/null", O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    /* An exception that nobody catches. */
    if (fd < 0)
        abort();
    if (write(fd, line, (size_t)length) < 0)
        abort();
    close(fd);
}

/* --- the helpers --- */

static struct map *map_at(uint64_t id) {
    struct handler *h = id < session->slots ? &session->handlers[id] : NULL;
    return h && h->kind == MAP ? &h->map : NULL;
}

static int by_id(uint32_t id) {
    union bpf_attr attr = {.map_id = id};
    return (int)raw_bpf(BPF_MAP_GET_FD_BY_ID, &attr, sizeof attr);
}

static uint64_t look_up(uint64_t id, uint64_t key) {
    struct map *map = map_at(id);
    if (!map)
        return 0;
    if (!map->kernel_id)
        return *(uint32_t *)key == 0 ? (uint64_t)map->value : 0;
    if (map->fd < 0 && (map->fd = by_id(map->kernel_id)) < 0)
        return 0;
    if (map->type == BPF_MAP_TYPE_ARRAY) {
        if (!map->address) {
            long at = raw(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, map->fd, 0);
            map->address = at < 0 && at > -4096 ? 0 : (uint64_t)at;
        }
        return *(uint32_t *)key == 0 ? map->address : 0;
    }
    union bpf_attr attr = {0};
    attr.map_fd = (uint32_t)map->fd;
    attr.key = key;
    attr.value = (uintptr_t)map->value;
    return raw_bpf(BPF_MAP_LOOKUP_ELEM, &attr, sizeof attr) < 0 ? 0 : (uint64_t)map->value;
}

static uint64_t update(uint64_t id, uint64_t key, uint64_t value, uint64_t flags) {
    struct map *map = map_at(id);
    if (!map || !map->kernel_id)
        return UINT64_MAX;
    if (map->fd < 0 && (map->fd = by_id(map->kernel_id)) < 0)
        return UINT64_MAX;
    union bpf_attr attr = {0};
    attr.map_fd = (uint32_t)map->fd;
    attr.key = key;
    attr.value = value;
    attr.flags = flags;
    return (uint64_t)raw_bpf(BPF_MAP_UPDATE_ELEM, &attr, sizeof attr);
}

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t process(void) {
    static int known;
    static __thread int thread;
    if (!known)
        known = (int)raw(SYS_getpid, 0, 0, 0, 0, 0, 0);
    if (!thread)
        thread = (int)raw(SYS_gettid, 0, 0, 0, 0, 0, 0);
    return (uint64_t)known << 32 | (uint32_t)thread;
}

static uint64_t ring_init(void) {
    ring.about = (struct io_uring_params){.flags = IORING_SETUP_SINGLE_ISSUER};
    long fd = raw(SYS_io_uring_setup, 1024, (long)&ring.about, 0, 0, 0, 0);
    if (fd < 0)
        return (uint64_t)fd;
    const struct io_uring_params *p = &ring.about;
    size_t submits = p->sq_off.array + p->sq_entries * 4, completes = p->cq_off.cqes + p->cq_entries * 16;
    size_t entries = p->sq_entries * sizeof *ring.entries;
    ring.fd = (int)fd;
    ring.submits = mmap(NULL, submits, PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd, IORING_OFF_SQ_RING);
    ring.completes = mmap(NULL, completes, PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd, IORING_OFF_CQ_RING);
    ring.entries = mmap(NULL, entries, PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd, IORING_OFF_SQES);
    return 0;
}

static uint64_t ring_sync(uint64_t fd) {
    if (ring.fd < 0)
        return (uint64_t)-EINVAL;
    const struct io_sqring_offsets *at = &ring.about.sq_off;
    unsigned *tail = (unsigned *)(ring.submits + at->tail), *array = (unsigned *)(ring.submits + at->array);
    unsigned place = *tail & *(unsigned *)(ring.submits + at->ring_mask);
    ring.entries[place] = (struct io_uring_sqe){.opcode = IORING_OP_FSYNC, .fd = (int)fd, .fsync_flags = IORING_FSYNC_DATASYNC};
    array[place] = place;
    __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
    ring.put++;
    return 0;
}

static uint64_t ring_submit(void) {
    unsigned put = ring.put;
    ring.put = 0;
    return (uint64_t)raw(SYS_io_uring_enter, ring.fd, put, 0, 0, 0, 0);
}

static uint64_t ring_wait(void) {
    const struct io_cqring_offsets *at = &ring.about.cq_off;
    unsigned *head = (unsigned *)(ring.completes + at->head), *tail = (unsigned *)(ring.completes + at->tail);
    while (*head == __atomic_load_n(tail, __ATOMIC_ACQUIRE)) {
        long got = raw(SYS_io_uring_enter, ring.fd, 0, 1, IORING_ENTER_GETEVENTS, 0, 0);
        if (got < 0)
            return (uint64_t)got;
    }
    /* Its result is thrown away. */
    __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
    return 0;
}

static int has_helper(int number) {
    int extension = number >= 1006 && number <= 1010;
    return extension ? HAS_IOURING : number == 1 || number == 2 || number == 5 || number == 14 || number == 58;
}

static uint64_t help(struct hook *hook, int number, const uint64_t *r) {
    switch (number) {
    case 1: return look_up(r[1], r[2]);
    case 2: return update(r[1], r[2], r[3], r[4]);
    case 5: return now();
    case 14: return process();
    case 58: hook->overridden = 1; hook->value = r[2]; return 0;
    case 1006: return ring_init();
    case 1008: return ring_sync(r[1]);
    case 1009: return ring_wait();
    case 1010: return ring_submit();
    default: abort();
    }
}

/* --- the machine --- */

static uint64_t alu(int code, uint64_t a, uint64_t b, int wide) {
    uint64_t bits = wide ? 63 : 31;
    switch (code) {
    case BPF_ADD: return a + b;
    case BPF_SUB: return a - b;
    case BPF_MUL: return a * b;
    case BPF_DIV: return b ? a / b : 0;
    case BPF_OR: return a | b;
    case BPF_AND: return a & b;
    case BPF_LSH: return a << (b & bits);
    case BPF_RSH: return a >> (b & bits);
    case BPF_NEG: return -a;
    case BPF_MOD: return b ? a % b : a;
    case BPF_XOR: return a ^ b;
    case BPF_MOV: return b;
    case BPF_ARSH: return wide ? (uint64_t)((int64_t)a >> (b & 63)) : (uint64_t)((int32_t)a >> (b & 31));
    default: abort();
    }
}

static int holds(int code, uint64_t a, uint64_t b) {
    switch (code) {
    case BPF_JA: return 1;
    case BPF_JEQ: return a == b;
    case BPF_JNE: return a != b;
    case BPF_JGT: return a > b;
    case BPF_JGE: return a >= b;
    case BPF_JLT: return a < b;
    case BPF_JLE: return a <= b;
    case BPF_JSET: return (a & b) != 0;
    case BPF_JSGT: return (int64_t)a > (int64_t)b;
    case BPF_JSGE: return (int64_t)a >= (int64_t)b;
    case BPF_JSLT: return (int64_t)a < (int64_t)b;
    case BPF_JSLE: return (int64_t)a <= (int64_t)b;
    default: abort();
    }
}

static void execute(struct hook *hook, void *registers) {
    uint8_t stack[512];
    uint64_t r[11] = {0};
    r[1] = (uint64_t)registers;
    r[10] = (uint64_t)(stack + sizeof stack);
    const struct bpf_insn *insns = hook->program.insns;
    for (unsigned at = 0; at < hook->program.count; at++) {
        const struct bpf_insn *i = &insns[at];
        int class = BPF_CLASS(i->code), code = BPF_OP(i->code);
        uint64_t operand = BPF_SRC(i->code) == BPF_X ? r[i->src_reg] : (uint64_t)(int64_t)i->imm;
        if (class == BPF_ALU64) {
            r[i->dst_reg] = alu(code, r[i->dst_reg], operand, 1);
        } else if (class == BPF_ALU) {
            r[i->dst_reg] = (uint32_t)alu(code, (uint32_t)r[i->dst_reg], (uint32_t)operand, 0);
        } else if (class == BPF_LD) {
            /* A map is known by the number of its handler. */
            r[i->dst_reg] = i->src_reg ? (uint32_t)i->imm : (uint32_t)i->imm | (uint64_t)(uint32_t)insns[at + 1].imm << 32;
            at++;
        } else if (class == BPF_LDX || class == BPF_STX) {
            uint8_t *place = (uint8_t *)r[class == BPF_LDX ? i->src_reg : i->dst_reg] + i->off;
            size_t size = BPF_SIZE(i->code) == BPF_DW ? 8 : BPF_SIZE(i->code) == BPF_W ? 4 : BPF_SIZE(i->code) == BPF_H ? 2 : 1;
            if (BPF_MODE(i->code) != BPF_MEM)
                abort();
            if (class == BPF_LDX)
                r[i->dst_reg] = 0, memcpy(&r[i->dst_reg], place, size);
            else
                memcpy(place, &r[i->src_reg], size);
        } else if (i->code == (BPF_JMP | BPF_EXIT)) {
            return;
        } else if (i->code == (BPF_JMP | BPF_CALL)) {
            r[0] = help(hook, i->imm, r);
        } else if (class == BPF_JMP) {
            if (holds(code, r[i->dst_reg], operand))
                at += (unsigned)i->off;
        } else {
            abort();
        }
    }
}

/* --- the hooks --- */

static long called(int index, long a, long b, long c, long d, long e) {
    struct hook *hook = &hooks[index];
    uint64_t registers[21] = {0};
    registers[14] = (uint64_t)a;
    registers[13] = (uint64_t)b;
    registers[12] = (uint64_t)c;
    registers[11] = (uint64_t)d;
    registers[9] = (uint64_t)e;
    hook->overridden = 0;
    execute(hook, registers);
    return hook->overridden ? (long)hook->value : LONG_MIN;
}

#define STUB(n) \
    static long stub_##n(long a, long b, long c, long d, long e) { return called(n, a, b, c, d, e); }
STUB(0) STUB(1) STUB(2) STUB(3) STUB(4) STUB(5) STUB(6) STUB(7)
static long (*const stubs[HOOKS])(long, long, long, long, long) = {stub_0, stub_1, stub_2, stub_3,
                                                                    stub_4, stub_5, stub_6, stub_7};

static void patch(uint8_t *at, const uint8_t *bytes) {
    uint8_t *page = (uint8_t *)((uintptr_t)at & ~4095ul);
    if (mprotect(page, 8192, PROT_READ | PROT_WRITE | PROT_EXEC))
        abort();
    memcpy(at, bytes, PATCH);
    mprotect(page, 8192, PROT_READ | PROT_EXEC);
}

static void detach(int signal) {
    (void)signal;
    for (int i = 0; i < hooked; i++)
        patch(hooks[i].function, hooks[i].before);
}

static uint8_t *base_of(const char *path) {
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[1024];
    uint8_t *base = NULL;
    while (maps && !base && fgets(line, sizeof line, maps)) {
        char *at = strchr(line, '/');
        line[strcspn(line, "\n")] = 0;
        if (at && strcmp(at, path) == 0)
            base = (uint8_t *)strtoul(line, NULL, 16);
    }
    if (maps)
        fclose(maps);
    return base;
}

__attribute__((constructor)) static void start(void) {
    signal(SIGUSR1, detach);
    /* Three seconds, as BPFtime waits for a loader that starts at the same time. */
    for (int tries = 0; tries < 60; tries++) {
        int fd = open(session_path(), O_RDWR | O_CLOEXEC);
        if (fd >= 0)
            session = session_map(fd);
        if (fd >= 0)
            close(fd);
        if (session)
            break;
        if (getenv("NO_WAIT"))
            break;
        struct timespec pause = {0, 50000000};
        nanosleep(&pause, NULL);
    }
    if (!session)
        return;
    say("shared memory opened\n");
    for (uint64_t at = 0; at < session->slots && hooked < HOOKS; at++) {
        struct handler *handler = &session->handlers[at];
        if (handler->kind != LINK)
            continue;
        const struct program *program = &session->handlers[handler->link.program].program;
        const struct probe *probe = &session->handlers[handler->link.probe].probe;
        int missing = 0;
        for (unsigned i = 0; i < program->count; i++)
            if (program->insns[i].code == (BPF_JMP | BPF_CALL) && !has_helper(program->insns[i].imm))
                missing = program->insns[i].imm;
        if (missing) {
            say("Failed to load program helpers for prog handler %d: no helper %d\n", handler->link.program, missing);
            continue;
        }
        uint8_t *base = base_of(probe->path);
        if (!base)
            continue;
        struct hook *hook = &hooks[hooked];
        hook->program = *program;
        hook->function = base + probe->offset;
        memcpy(hook->before, hook->function, PATCH);
        uint8_t jump[PATCH] = {0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0};
        memcpy(jump + 2, &stubs[hooked], 8);
        patch(hook->function, jump);
        hooked++;
    }
}
