/* An event loop that syncs a log in each turn, with events of every kind: what epoll_wait reports under an
 * agent that gathers. It prints, for each turn, which events it got, by their data. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

static int loop, logfile, fds[64];

static void add(int n, uint32_t kind)
{
    fds[n] = eventfd(0, EFD_NONBLOCK);
    struct epoll_event event = { .events = EPOLLIN | kind, .data.u64 = n };
    if (epoll_ctl(loop, EPOLL_CTL_ADD, fds[n], &event))
        exit(2);
}

static void ring(int n)
{
    uint64_t one = 1;
    if (write(fds[n], &one, sizeof one) != sizeof one)
        exit(3);
}

/* Handles all of them, in order: reads them, and syncs. */
static int handle(struct epoll_event *events, int ready)
{
    char seen[64] = { 0 };
    for (int i = 0; i < ready; i++) {
        uint64_t count;
        int n = events[i].data.u64;
        if (seen[n]++) {
            printf("twice %d\n", n);
            exit(4);
        }
        if (read(fds[n], &count, sizeof count) < 0)
            printf("nothing in %d\n", n);
    }
    if (write(logfile, "x", 1) != 1 || fdatasync(logfile))
        exit(5);
    return ready;
}

struct late {
    int first, last, microseconds;
};

static void *rings(void *p)
{
    struct late *late = p;
    struct timespec pause = { .tv_nsec = late->microseconds * 1000L };
    nanosleep(&pause, NULL);
    for (int n = late->first; n < late->last; n++)
        ring(n);
    return NULL;
}

int main(int argc, char **argv)
{
    (void)argc;
    int most = atoi(argv[1]), edge = !strcmp(argv[2], "edge"), once = !strcmp(argv[2], "once");
    loop = epoll_create1(0);
    logfile = open("turns.log", O_CREAT | O_WRONLY | O_APPEND, 0600);
    struct epoll_event events[64];
    uint32_t kind = edge ? EPOLLET : once ? EPOLLONESHOT : 0;
    for (int n = 0; n < 6; n++)
        add(n, kind);
    int together = 0, all = 0, turns = 0;
    /* Two groups, 0..3 and 3..6: the second comes while the first is handled, the first comes back soon after. */
    for (int round = 0; round < 200; round++) {
        for (int n = 0; n < 3; n++)
            ring(n);
        struct late late = { 3, 6, 2000 };
        pthread_t thread;
        pthread_create(&thread, NULL, rings, &late);
        int got = 0;
        while (got < 6) {
            int ready = epoll_wait(loop, events, most, 5000);
            if (ready <= 0) {
                printf("lost: %d of round %d\n", 6 - got, round);
                return 1;
            }
            got += handle(events, ready);
            turns++;
            if (ready > most)
                return 6;
            together += ready == 6;
            if (once)
                for (int i = 0; i < ready; i++) {
                    struct epoll_event again = { .events = EPOLLIN | kind, .data = events[i].data };
                    epoll_ctl(loop, EPOLL_CTL_MOD, fds[events[i].data.u64], &again);
                }
        }
        all += got;
        pthread_join(thread, NULL);
    }
    printf("events %d\n", all);
    printf("turns %d, of all six %d\n", turns, together);
    return 0;
}
