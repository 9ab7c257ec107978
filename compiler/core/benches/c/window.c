#include "durac.h"

struct params {
    u64 n;
};
ARRAY_MAP(params, struct params, 1);

SEC("durac/fdatasync") long window(struct durac_context *ctx)
{
    u32 key = 0;
    struct params *p;

    durac_request();
    p = bpf_map_lookup_elem(&params, &key);
    if (!p)
        return PASS;
    durac_await(p->n);
    return DEFER;
}
