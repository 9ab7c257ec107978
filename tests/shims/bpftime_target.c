/* Functions as a target of BPFtime may have them: one that can be hooked, and others that cannot. */

#include <limits.h>
#include <stdio.h>

#define ENTRY __attribute__((noipa, visibility("default")))

long (*on_fdatasync)(long, long);
long (*on_barrier)(long, long);
long (*on_write)(long, const void *, unsigned long);

ENTRY long test_fdatasync(long fd, long failed) {
    return on_fdatasync ? on_fdatasync(fd, failed) : LONG_MIN;
}

ENTRY long test_barrier(long fd, long failed) {
    return on_barrier ? on_barrier(fd, failed) : LONG_MIN;
}

ENTRY long test_write(long fd, const void *bytes, unsigned long len) {
    return on_write ? on_write(fd, bytes, len) : LONG_MIN;
}

ENTRY long test_short(void) {
    return 0;
}

__attribute__((noipa, visibility("hidden"))) long test_hidden(long fd, long failed) {
    return on_fdatasync ? on_fdatasync(fd, failed) : LONG_MIN;
}

int main(void) {
    printf("%ld\n", test_fdatasync(0, 0) + test_barrier(0, 0) + test_write(0, "", 0) + test_short() + test_hidden(0, 0));
    return 0;
}
