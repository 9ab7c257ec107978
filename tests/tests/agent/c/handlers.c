// Logs that are opened in signal handlers, and after one that has left by a jump.
//
//   open ON     a handler opens x.log: on the stack it finds, or on one of its own (`alternate`)
//   both ON     a handler opens x.log and y.log
//   stream ON   a handler jumps away, and a stream is opened on x.log
//   sync ON     a handler jumps away, and x.log is synced
//   calls ON    the same, again and again
//
// Ends when a file `go` is there.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "check.h"

static sigjmp_buf place;
static int x = -1;

static void opens(int signal) {
    (void)signal;
    x = open("x.log", O_RDWR | O_CREAT | O_APPEND, 0644);
}

static void opens_both(int signal) {
    opens(signal);
    CHECK(open("y.log", O_RDWR | O_CREAT | O_APPEND, 0644) >= 0);
}

static void jumps(int signal) {
    (void)signal;
    siglongjmp(place, 1);
}

static void install(int signal, void (*handler)(int), int flags) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    CHECK(sigaction(signal, &action, NULL) == 0);
}

int main(int count, char **words) {
    CHECK(count == 3);
    int flags = 0;
    if (!strcmp(words[2], "alternate")) {
        stack_t stack = {.ss_sp = malloc(1 << 20), .ss_size = 1 << 20};
        CHECK(sigaltstack(&stack, NULL) == 0);
        flags = SA_ONSTACK;
    }
    int both = !strcmp(words[1], "both");
    install(SIGUSR1, both ? opens_both : opens, flags);
    install(SIGUSR2, jumps, flags);
    if (both || !strcmp(words[1], "open")) {
        CHECK(raise(SIGUSR1) == 0);
        CHECK(write(x, "x\n", 2) == 2);
    } else {
        // Again and again, as a server that gives up what takes too long.
        for (volatile int i = 0; i < 40; i++)
            if (!sigsetjmp(place, 1)) raise(SIGUSR2);
        if (!strcmp(words[1], "stream")) {
            FILE *stream = fopen("x.log", "a");
            CHECK(stream && fputs("x\n", stream) >= 0 && fflush(stream) == 0);
        } else {
            opens(0);
            CHECK(write(x, "x\n", 2) == 2 && fdatasync(x) == 0);
        }
    }
    while (syscall(SYS_access, "go", F_OK)) {
        usleep(1000);
        if (!strcmp(words[1], "calls")) CHECK(write(x, "x\n", 2) == 2 && fdatasync(x) == 0);
    }
    puts("fine");
    fflush(stdout);
    _exit(0);
}
