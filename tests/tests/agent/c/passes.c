// Calls to a connection whose bytes cannot be held: behind what is held, or never.
//
//   lost WAY     a sync of x.log fails; then "LOST" is written to a client by WAY, which tells what comes
//   order WAY    more "A" than the socket takes are held of a client that does not read yet, and "B" are written by WAY
//   full WAY     the same of a client that never reads before the end; the descriptor does not block
#define _GNU_SOURCE
#include <aio.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "check.h"

enum { HELD = 900000, BEHIND = 50000 };

#define IS(text) (!strcmp(way, text))

static const char *way;
static int x, server_fd, client_fd;
static atomic_int reads;
static char a[HELD], b[BEHIND + 1], got[HELD + BEHIND + 1];

static ssize_t puts_by_way(const char *bytes, size_t size) {
    if (IS("dprintf")) return dprintf(server_fd, "%.*s", (int)size, bytes);
    if (IS("number")) return syscall(SYS_write, server_fd, bytes, size);
    if (IS("number:sendto")) return syscall(SYS_sendto, server_fd, bytes, size, 0, 0, 0);
    if (IS("aio")) {
        static struct aiocb block;
        const struct aiocb *all[] = {&block};
        block = (struct aiocb){.aio_fildes = server_fd, .aio_buf = (char *)bytes, .aio_nbytes = size};
        if (aio_write(&block)) return -1;
        CHECK(aio_suspend(all, 1, NULL) == 0);
        errno = aio_error(&block);
        return aio_return(&block);
    }
    return write(server_fd, bytes, size);
}

static void puts_all(const char *bytes, size_t size) {
    for (size_t done = 0; done < size;) {
        ssize_t n = puts_by_way(bytes + done, size - done);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            usleep(1000);
            continue;
        }
        CHECK(n > 0);
        done += n;
    }
}

static void *client(void *unused) {
    while (!reads) usleep(100);
    // Long enough for a call that does not wait to overtake.
    poll(NULL, 0, 100);
    for (ssize_t n, at = 0; (n = read(client_fd, got + at, sizeof got - 1 - at)) > 0;) at += n;
    return unused;
}

// More than the socket takes, and nobody reads.
static void hold(void) {
    memset(a, 'A', sizeof a);
    memset(b, 'B', BEHIND);
    x = open("x.log", O_RDWR | O_CREAT | O_APPEND, 0644);
    shim("shim_hold", 1);
    CHECK(write(x, "x\n", 2) == 2);
    for (size_t done = 0; done < sizeof a;) {
        ssize_t n = write(server_fd, a + done, sizeof a - done);
        CHECK(n > 0);
        done += n;
    }
    shim("shim_hold", 0);
    CHECK(fdatasync(x) == 0);
}

int main(int count, char **words) {
    CHECK(count == 3);
    way = words[2];
    signal(SIGPIPE, SIG_IGN);
    server_fd = connected(SOCK_STREAM, &client_fd);
    if (!strcmp(words[1], "lost")) {
        x = open("x.log", O_RDWR | O_CREAT | O_APPEND, 0644);
        CHECK(write(x, "x\n", 2) == 2);
        while (fdatasync(x) == 0) usleep(1000);
        ssize_t n = puts_by_way("LOST", 4);
        CHECK(n < 0 && errno == EPIPE);
        CHECK(read(client_fd, got, 4) == 0);
        puts("cut");
    } else if (!strcmp(words[1], "order")) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, client, NULL) == 0);
        hold();
        reads = 1;
        puts_all(b, BEHIND);
        CHECK(shutdown(server_fd, SHUT_WR) == 0);
        pthread_join(thread, NULL);
        CHECK(strlen(got) == HELD + BEHIND);
        puts(strspn(got, "A") == HELD ? "in order" : "out of order");
    } else {
        hold();
        CHECK(fcntl(server_fd, F_SETFL, O_NONBLOCK) == 0);
        ssize_t n = puts_by_way(b, 1);
        int error = errno;
        CHECK(n < 0);
        if (error == EAGAIN) {
            puts("later");
        } else {
            for (ssize_t n, at = 0; (n = read(client_fd, got + at, sizeof got - 1 - at)) > 0;) at += n;
            puts(strchr(got, 'B') ? "out of order" : "cut");
        }
    }
    fflush(stdout);
    _exit(0);
}
