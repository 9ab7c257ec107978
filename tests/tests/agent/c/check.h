// What the programs of these tests share.
#include <dlfcn.h>
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

// Calls a function of the library behind the agent.
static inline long shim(const char *name, long argument) {
    long (*function)(long) = (long (*)(long))dlsym(RTLD_DEFAULT, name);
    CHECK(function);
    return function(argument);
}

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
