// What the programs of these tests share.
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CHECK(what)                                                                                                    \
    do {                                                                                                               \
        if (!(what)) {                                                                                                 \
            fprintf(stderr, "%s: %s\n", #what, strerror(errno));                                                       \
            _exit(3);                                                                                                  \
        }                                                                                                              \
    } while (0)

// A connection of this kind, and its client, which this process is as well.
static inline int connected(int kind, int *client) {
    struct sockaddr_un name = {AF_UNIX, "sock"};
    int listener = socket(AF_UNIX, kind, 0);
    *client = socket(AF_UNIX, kind | SOCK_CLOEXEC, 0);
    CHECK(bind(listener, (void *)&name, sizeof name) == 0 && listen(listener, 5) == 0);
    CHECK(connect(*client, (void *)&name, sizeof name) == 0);
    int server = accept(listener, 0, 0);
    CHECK(server >= 0);
    return server;
}
