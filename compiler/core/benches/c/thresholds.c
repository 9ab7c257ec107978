#include "durac.h"

struct params {
    u64 slow, few, many;
};
ARRAY_MAP(params, struct params, 1);

SEC("durac/fdatasync") long thresholds(struct durac_context *ctx)
{
    u32 key = 0;
    struct params *p;

    durac_request();
    p = bpf_map_lookup_elem(&params, &key);
    if (!p)
        return PASS;
    durac_await(ctx->sync_latency > p->slow ? p->many : p->few);
    return DEFER;
}
