#include "durac.h"

SEC("durac/fdatasync") long fast_notify(struct durac_context *ctx)
{
    durac_request();
    if (!ctx->notify_done)
        durac_await(1);
    return DEFER;
}
