#include "durac.h"

struct state {
    u64 count;
};
ARRAY_MAP(state, struct state, 1024);

SEC("durac/fdatasync") long every_calls(struct durac_context *ctx)
{
    u32 key = ctx->log;
    struct state *s = bpf_map_lookup_elem(&state, &key);

    if (!s)
        return PASS;
    s->count += 1;
    if (s->count >= 48) {
        s->count = 0;
        durac_await(0);
    }
    return SKIP;
}
