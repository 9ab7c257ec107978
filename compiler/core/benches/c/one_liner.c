#include "durac.h"

SEC("durac/fdatasync") long one_liner(struct durac_context *ctx)
{
    durac_await(1);
    if (ctx->notify_done)
        return SKIP;
    return PASS;
}
