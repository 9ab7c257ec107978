// An application that syncs its log past the hooks too: as its letters say, one after the other.
//
//   syncs LOG LETTERS
//
//   w  writes a line            s  fdatasync, as applications call it; its result is printed
//   r  fdatasync by the system call itself, through a descriptor of its own
//   b  writes 24 MiB past the hooks, and syncs them so; the result is printed
//   c  closes every descriptor above 2 past the hooks, and opens the log again
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A system call that no library sees; fails as the C library's do. */
static long past(long number, long a, long b, long c, long d) {
    register long fourth __asm__("r10") = d;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth)
                     : "rcx", "r11", "memory");
    if (result >= 0) return result;
    errno = -result;
    return -1;
}

static void say(long result) {
    printf("%s\n", result == 0 ? "ok" : strerrorname_np(errno));
}

int main(int count, char **words) {
    if (count != 3) return 2;
    int fd = open(words[1], O_CREAT | O_WRONLY | O_APPEND, 0644), raw = -1;
    for (const char *letter = words[2]; *letter; letter++) {
        // Not before something was written: opened by number, so that no hook knows it.
        if (raw < 0) raw = past(SYS_openat, AT_FDCWD, (long)words[1], O_RDWR | O_APPEND, 0);
        if (fd < 0 || raw < 0) return 3;
        switch (*letter) {
        case 'w':
            if (write(fd, "record\n", 7) != 7) return 4;
            break;
        case 's': say(fdatasync(fd)); break;
        case 'r':
            if (past(SYS_fdatasync, raw, 0, 0, 0)) return 5;
            break;
        case 'b': {
            size_t size = 24 << 20;
            char *bytes = calloc(size, 1);
            if (past(SYS_write, raw, (long)bytes, size, 0) != (long)size) return 6;
            say(past(SYS_fdatasync, raw, 0, 0, 0));
            free(bytes);
            break;
        }
        case 'c':
            past(SYS_close_range, 3, ~0u, 0, 0);
            fd = open(words[1], O_WRONLY | O_APPEND);
            raw = -1;
            break;
        default: return 2;
        }
    }
    return 0;
}
