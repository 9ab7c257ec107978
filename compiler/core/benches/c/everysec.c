#include "durac.h"

SEC("durac/fdatasync") long everysec(struct durac_context *ctx)
{
    return SKIP;
}
