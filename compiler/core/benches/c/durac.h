// What a C program needs to run where our objects run: see compiler/bpf/src/abi.rs.
typedef unsigned int u32;
typedef unsigned long long u64;

struct durac_context {
    u64 log, len, now, pending, pending_bytes, pending_age, staged, sync_latency;
    u64 notify_done, notify_count, child_active;
};

#define SEC(name) __attribute__((section(name), used))
#define uint_field(name, value) int (*name)[value]

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static u64 (*durac_request)(void) = (void *)0xd00;
static u64 (*durac_await)(u64 distance) = (void *)0xd01;

enum { PASS = 0, DEFER = 1, SKIP = 2 };

// An array map: BPF_MAP_TYPE_ARRAY is 2, BPF_F_MMAPABLE 0x400.
#define ARRAY_MAP(name, type_of_value, entries) \
    struct {                                    \
        uint_field(type, 2);                    \
        u32 *key;                               \
        type_of_value *value;                   \
        uint_field(max_entries, entries);       \
        uint_field(map_flags, 0x400);           \
    } name SEC(".maps")
