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

static void say(long result) {
    printf("%s\n", result == 0 ? "ok" : strerrorname_np(errno));
}

int main(int count, char **words) {
    if (count != 3) return 2;
    int fd = open(words[1], O_CREAT | O_WRONLY | O_APPEND, 0644), raw = -1;
    for (const char *letter = words[2]; *letter; letter++) {
        // Not before something was written: opened by number, so that no hook knows it.
        if (raw < 0) raw = syscall(SYS_openat, AT_FDCWD, words[1], O_RDWR | O_APPEND);
        if (fd < 0 || raw < 0) return 3;
        switch (*letter) {
        case 'w':
            if (write(fd, "record\n", 7) != 7) return 4;
            break;
        case 's': say(fdatasync(fd)); break;
        case 'r':
            if (syscall(SYS_fdatasync, raw)) return 5;
            break;
        case 'b': {
            size_t size = 24 << 20;
            char *bytes = calloc(size, 1);
            if (syscall(SYS_write, raw, bytes, size) != (long)size) return 6;
            say(syscall(SYS_fdatasync, raw));
            free(bytes);
            break;
        }
        case 'c':
            syscall(SYS_close_range, 3, ~0u, 0);
            fd = open(words[1], O_WRONLY | O_APPEND);
            raw = -1;
            break;
        default: return 2;
        }
    }
    return 0;
}
