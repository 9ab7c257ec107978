/* An event loop that syncs a log in each turn, with events of every kind: what epoll_wait reports under an
 * agent that gathers. It prints how many events it got, and how many turns had all six.
 *
 * There are two groups of three: the first is ready at once, the second is of timers. With `one-group` the second is
 * ready at the latest when a turn with the first has been handled, and no turn finds a part of it. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static int loop, logfile, fds[6], one_group;

static void add(int n, uint32_t kind)
{
    fds[n] = n < 3 ? eventfd(0, EFD_NONBLOCK) : timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event event = { .events = EPOLLIN | kind, .data.u64 = n };
    if (epoll_ctl(loop, EPOLL_CTL_ADD, fds[n], &event))
        exit(2);
}

static void ring_first(void)
{
    uint64_t one = 1;
    for (int n = 0; n < 3; n++)
        if (write(fds[n], &one, sizeof one) != sizeof one)
            exit(3);
}

static void ring_second_in(long milliseconds)
{
    struct itimerspec at = { .it_value = { milliseconds / 1000, milliseconds % 1000 * 1000000 + 1 } };
    for (int n = 3; n < 6; n++)
        if (timerfd_settime(fds[n], 0, &at, NULL))
            exit(3);
}

/* Handles all of them, in order: reads them, and syncs. */
static int handle(struct epoll_event *events, int ready)
{
    char seen[6] = { 0 };
    int of_second = 0;
    for (int i = 0; i < ready; i++) {
        uint64_t count;
        int n = events[i].data.u64;
        if (seen[n]++) {
            printf("twice %d\n", n);
            exit(4);
        }
        of_second += n >= 3;
        if (read(fds[n], &count, sizeof count) < 0)
            printf("nothing in %d\n", n);
    }
    if (one_group && !of_second) {
        ring_second_in(0);
        for (int n = 3; n < 6; n++)
            if (poll(&(struct pollfd){ .fd = fds[n], .events = POLLIN }, 1, -1) != 1)
                exit(7);
    }
    if (write(logfile, "x", 1) != 1 || fdatasync(logfile))
        exit(5);
    return ready;
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 1;
    int most = atoi(argv[1]), edge = !strcmp(argv[2], "edge"), once = !strcmp(argv[2], "once");
    long milliseconds = atol(argv[3]);
    one_group = argc > 4;
    loop = epoll_create1(0);
    logfile = open("turns.log", O_CREAT | O_WRONLY | O_APPEND, 0600);
    struct epoll_event events[64];
    uint32_t kind = edge ? EPOLLET : once ? EPOLLONESHOT : 0;
    for (int n = 0; n < 6; n++)
        add(n, kind);
    int together = 0, all = 0, turns = 0;
    for (int round = 0; round < 200; round++) {
        ring_second_in(milliseconds);
        ring_first();
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
    }
    printf("events %d\n", all);
    printf("turns %d, of all six %d\n", turns, together);
    return 0;
}
