#include "durac.h"

SEC("durac/fdatasync") long delayed_fsync(struct durac_context *ctx)
{
    durac_request();
    durac_await(1);
    return DEFER;
}
