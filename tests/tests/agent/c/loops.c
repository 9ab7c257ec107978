/* A server and its client in one process, whose replies are held: what its calls return that wait for the client, for
 * events or for the end of a connection. Its argument says what is tried. It prints what came of it; a result that is wrong ends it. */

#define _GNU_SOURCE
#include "check.h"
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

static int listener, logfile, loop, client, server;
static struct sockaddr_in name = { .sin_family = AF_INET };
static char bytes[200000];

/* A connection of the server. */
static void connects(void)
{
    client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(connect(client, (void *)&name, sizeof name) == 0);
    server = accept(listener, 0, 0);
    CHECK(server >= 0);
}

static int adds(int to, int fd, uint32_t kind)
{
    struct epoll_event event = { .events = kind, .data.fd = fd };
    return epoll_ctl(to, EPOLL_CTL_ADD, fd, &event);
}

/* Something that a reply waits for. */
static void logs(void)
{
    CHECK(write(logfile, "record\n", 7) == 7 && fdatasync(logfile) == 0);
}

static void replies(const char *text)
{
    logs();
    CHECK(write(server, text, strlen(text)) == (ssize_t)strlen(text));
}

/* What has come to the client is this. */
static int has(const char *text, int flags)
{
    char got[100] = "";
    return recv(client, got, strlen(text), flags) == (ssize_t)strlen(text) && !strcmp(got, text);
}

static int silent(void)
{
    return recv(client, bytes, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

/* ---- a signal while the event loop syncs ---- */

static volatile sig_atomic_t armed, handled;
static int bell;

static void handle(int signal)
{
    (void)signal;
    handled++;
}

long real_sync_begins(void)
{
    if (armed) {
        armed = 0;
        if (gettid() == getpid())
            kill(getpid(), SIGTERM);
        else
            eventfd_write(bell, 1);
    }
    return 0;
}

static int waits(int how, struct epoll_event *events)
{
    struct timespec limit = { 2, 0 };
    switch (how) {
    case 0:
        return epoll_wait(loop, events, 8, 2000);
    case 1:
        return epoll_pwait(loop, events, 8, 2000, NULL);
    default:
        return epoll_pwait2(loop, events, 8, &limit, NULL);
    }
}

static void signals(void)
{
    struct sigaction action = { .sa_handler = handle };
    struct epoll_event events[8];
    int ended = 0;
    connects();
    bell = eventfd(0, EFD_NONBLOCK);
    CHECK(adds(loop, server, EPOLLIN) == 0 && adds(loop, bell, EPOLLIN) == 0);
    for (int round = 0; round < 5000 && ended < 20; round++) {
        eventfd_t rung;
        action.sa_flags = round % 2 ? SA_RESTART : 0;
        sigaction(SIGTERM, &action, NULL);
        CHECK(write(client, "q", 1) == 1 && epoll_wait(loop, events, 8, -1) >= 1);
        eventfd_read(bell, &rung);
        CHECK(read(server, bytes, 1) == 1);
        replies("r");
        /* Somebody has synced already. */
        if (!silent())
            continue;
        handled = 0;
        armed = 1;
        int found = waits(round % 3, events);
        int failed = errno;
        armed = 0;
        if (handled) {
            errno = failed;
            CHECK(found == -1 && failed == EINTR);
            ended++;
        }
        CHECK(has("r", 0));
    }
    printf("ended %d\n", ended);
}

/* ---- ends of connections that are registered ---- */

/* The server has closed the connection, and its event loop hears nothing of it. */
static void is_quiet(void)
{
    struct epoll_event events[8];
    CHECK(write(client, "more", 4) == 4);
    CHECK(epoll_wait(loop, events, 8, 0) == 0);
}

/* What was held is sent later. */
static void closes(const char *how)
{
    connects();
    CHECK(adds(loop, server, EPOLLIN | EPOLLRDHUP) == 0);
    shim("shim_hold", 1);
    replies("bye");
    CHECK(silent());
    if (!strcmp(how, "close"))
        CHECK(close(server) == 0);
    if (!strcmp(how, "range"))
        CHECK(close_range(server, server, 0) == 0);
    if (!strcmp(how, "over")) {
        int other = eventfd(0, 0);
        CHECK(dup2(other, server) == server);
    }
    if (!strcmp(how, "removed"))
        CHECK(epoll_ctl(loop, EPOLL_CTL_DEL, server, NULL) == 0 && close(server) == 0);
    if (!strcmp(how, "again")) {
        CHECK(epoll_ctl(loop, EPOLL_CTL_DEL, server, NULL) == 0);
        CHECK(epoll_ctl(loop, EPOLL_CTL_DEL, server, NULL) == -1);
        CHECK(adds(loop, server, EPOLLIN) == 0 && close(server) == 0);
    }
    CHECK(silent());
    is_quiet();
    shim("shim_hold", 0);
    CHECK(has("bye", 0));
    printf("later\n");
}

/* The agent cannot take the connection out: close waits. */
static void closes_late(const char *how)
{
    connects();
    if (!strcmp(how, "two"))
        CHECK(adds(loop, server, EPOLLIN) == 0 && adds(epoll_create1(0), server, EPOLLIN) == 0);
    if (!strcmp(how, "number")) {
        struct epoll_event event = { .events = EPOLLIN };
        CHECK(syscall(SYS_epoll_ctl, loop, EPOLL_CTL_ADD, server, &event) == 0);
    }
    if (!strcmp(how, "copied")) {
        int copy = dup(server);
        CHECK(adds(loop, server, EPOLLIN) == 0 && close(server) == 0);
        server = copy;
    }
    if (!strcmp(how, "renumbered")) {
        int other = epoll_create1(0);
        CHECK(adds(other, server, EPOLLIN) == 0);
        loop = dup(other);
        close(other);
    }
    replies("bye");
    CHECK(close(server) == 0);
    CHECK(has("bye", MSG_DONTWAIT));
    is_quiet();
    printf("at once\n");
}

/* The same, and the client does not read before: it gets everything all the same. */
static void closes_slow(void)
{
    static char block[1 << 16];
    long sent = 0, got = 0;
    ssize_t n;
    connects();
    CHECK(adds(loop, server, EPOLLIN) == 0 && adds(epoll_create1(0), server, EPOLLIN) == 0);
    CHECK(fcntl(server, F_SETFL, O_NONBLOCK) == 0);
    replies("r");
    while (sent < 8 << 20 && (n = write(server, block, sizeof block)) > 0)
        sent += n;
    CHECK(close(server) == 0);
    while ((n = read(client, block, sizeof block)) > 0)
        got += n;
    CHECK(n == 0);
    printf("%s\n", got == sent + 1 ? "everything" : "cut");
}

/* ---- one that is to be read and written among others ---- */

static void shares(void)
{
    struct epoll_event events[8];
    int clients[3], servers[3];
    for (int n = 0; n < 3; n++) {
        connects();
        clients[n] = client;
        servers[n] = server;
        CHECK(adds(loop, server, EPOLLIN | EPOLLOUT) == 0);
        CHECK(write(client, "q", 1) == 1);
    }
    /* All but the last always have more. */
    for (int turn = 0; turn < 100000; turn++) {
        int found = epoll_wait(loop, events, 8, -1);
        for (int i = 0; i < found; i++) {
            if (!(events[i].events & EPOLLIN))
                continue;
            if (events[i].data.fd == servers[2]) {
                printf("read\n");
                return;
            }
            CHECK(read(events[i].data.fd, bytes, 1) == 1);
            CHECK(write(clients[events[i].data.fd == servers[1]], "q", 1) == 1);
        }
    }
    printf("never\n");
}

/* ---- a client that does not read ---- */

static void drain(int signal)
{
    (void)signal;
    handled++;
    while (recv(client, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
        ;
}

static void fills(const char *how)
{
    struct timeval limit = { 0, 50000 };
    struct itimerval every = { { 0, 20000 }, { 0, 20000 } };
    int restarts = !strcmp(how, "restarts");
    struct sigaction action = { .sa_handler = restarts ? drain : handle, .sa_flags = restarts ? SA_RESTART : 0 };
    connects();
    if (!strcmp(how, "limited")) {
        CHECK(setsockopt(server, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) == 0);
    } else {
        sigaction(SIGALRM, &action, NULL);
        setitimer(ITIMER_REAL, &every, NULL);
    }
    ssize_t sent = 0;
    for (int n = 0; n < 1000 && sent >= 0 && !(restarts && handled > 20); n++) {
        logs();
        sent = write(server, bytes, sizeof bytes);
    }
    printf("%s\n", sent >= 0 ? "sent" : strerrorname_np(errno));
}

/* ---- a stream of the C library ---- */

static void streams(void)
{
    connects();
    replies("abc");
    FILE *stream = fdopen(server, "w");
    fputs("def", stream);
    fflush(stream);
    CHECK(has("abcdef", 0));
    replies("ghi");
    fputs("jkl", stream);
    fflush(stream);
    CHECK(has("ghijkl", 0));
    printf("in order\n");
}

/* ---- a client that is gone ---- */

static void breaks(void)
{
    struct linger at_once = { 1, 0 };
    signal(SIGPIPE, handle);
    connects();
    CHECK(setsockopt(client, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) == 0 && close(client) == 0);
    ssize_t sent = 0;
    for (int n = 0; n < 1000000 && sent >= 0; n++) {
        logs();
        sent = write(server, "reply", 5);
    }
    printf("%s %d\n", strerrorname_np(errno), handled);
    sent = send(server, "reply", 5, MSG_NOSIGNAL);
    printf("%s %d\n", strerrorname_np(errno), handled);
    sent = write(server, "reply", 5);
    printf("%s %d\n", strerrorname_np(errno), handled);
}

/* ---- a wait that does not sleep ---- */

static void looks(void)
{
    struct epoll_event events[8];
    struct timespec none = { 0, 0 };
    connects();
    bell = eventfd(0, EFD_NONBLOCK);
    signal(SIGTERM, handle);
    CHECK(adds(loop, server, EPOLLIN) == 0);
    for (int round = 0; round < 100; round++) {
        replies("abc");
        armed = 1;
        CHECK(epoll_pwait2(loop, events, 8, &none, NULL) == 0);
        armed = 0;
        CHECK(!handled && has("abc", 0));
    }
    printf("looked\n");
}

/* ---- a connection that is ended by connect ---- */

static void disconnects(int by_number)
{
    struct sockaddr to = { .sa_family = AF_UNSPEC };
    connects();
    replies("abc");
    if (by_number)
        CHECK(syscall(SYS_connect, server, &to, sizeof to) == 0);
    else
        CHECK(connect(server, &to, sizeof to) == 0);
    CHECK(has("abc", MSG_DONTWAIT));
    printf("sent\n");
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "", *how = argc > 2 ? argv[2] : "";
    socklen_t length = sizeof name;
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(listener, (void *)&name, sizeof name) == 0 && listen(listener, 5) == 0);
    CHECK(getsockname(listener, (void *)&name, &length) == 0);
    loop = epoll_create1(0);
    logfile = open("loops.log", O_CREAT | O_WRONLY | O_APPEND, 0600);
    if (!strcmp(what, "signals"))
        signals();
    if (!strcmp(what, "closes"))
        closes(how);
    if (!strcmp(what, "closes-slow"))
        closes_slow();
    if (!strcmp(what, "closes-late"))
        closes_late(how);
    if (!strcmp(what, "shares"))
        shares();
    if (!strcmp(what, "fills"))
        fills(how);
    if (!strcmp(what, "streams"))
        streams();
    if (!strcmp(what, "breaks"))
        breaks();
    if (!strcmp(what, "looks"))
        looks();
    if (!strcmp(what, "disconnects"))
        disconnects(!strcmp(how, "number"));
    fflush(stdout);
    _exit(0);
}
