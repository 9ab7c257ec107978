#include "durac.h"

struct state {
    u64 slow;
};
ARRAY_MAP(state, struct state, 1024);

SEC("durac/fdatasync") long adaptive(struct durac_context *ctx)
{
    u32 key = ctx->log;
    struct state *s = bpf_map_lookup_elem(&state, &key);

    if (!s)
        return PASS;
    durac_request();
    s->slow = ctx->sync_latency > 5000000;
    if (s->slow || ctx->child_active)
        durac_await(1024);
    else
        durac_await(16);
    return DEFER;
}
