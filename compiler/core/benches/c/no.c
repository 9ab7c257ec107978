#include "durac.h"

SEC("durac/fdatasync") long no(struct durac_context *ctx)
{
    return SKIP;
}
