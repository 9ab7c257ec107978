#include "durac.h"

struct state {
    u64 last;
};
ARRAY_MAP(state, struct state, 1024);

SEC("durac/fdatasync") long every_time(struct durac_context *ctx)
{
    u32 key = ctx->log;
    struct state *s = bpf_map_lookup_elem(&state, &key);

    if (!s)
        return PASS;
    if (ctx->now - s->last >= 1000000000) {
        s->last = ctx->now;
        return PASS;
    }
    return SKIP;
}
