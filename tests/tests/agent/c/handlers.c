// Logs that are opened in signal handlers, and after one that has left by a jump.
//
//   open ON     a handler opens x.log: on the stack it finds, or on one of its own (`alternate`)
//   both ON     a handler opens x.log and y.log
//   stream ON   a handler jumps away, and a stream is opened on x.log
//   sync ON     a handler jumps away, and x.log is synced
//   calls ON    the same, again and again
//   leave WAY   a handler jumps out of a call that makes durable first what is acknowledged (execv, execl, number), or out of
//               `fork`, before there is a child (fork) or perhaps after (atfork); then x.log is written and synced again
//
// The others end when a file `go` is there.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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

// The main thread is inside the agent then, or about to fork.
static pthread_t thread;
static volatile int leaves;

static void interrupts(void) {
    if (leaves) {
        leaves = 0;
        pthread_kill(thread, SIGUSR2);
    }
}

long real_sync_begins(void) {
    interrupts();
    return 0;
}

void real_write_begins(void) { interrupts(); }

static void leave(const char *way) {
    char *none[] = {NULL};
    thread = pthread_self();
    opens(0);
    CHECK(write(x, "x\n", 2) == 2 && fdatasync(x) == 0);
    if (!strcmp(way, "atfork")) CHECK(pthread_atfork(interrupts, NULL, NULL) == 0);
    leaves = strcmp(way, "atfork") != 0;
    if (!sigsetjmp(place, 1)) {
        if (!strcmp(way, "execv")) execv("/nonexistent", none);
        else if (!strcmp(way, "execl")) execl("/nonexistent", "none", NULL);
        else if (!strcmp(way, "number")) syscall(SYS_execve, "/nonexistent", none, none);
        else {
            if (!strcmp(way, "atfork")) {
                // What is staged is written, and comes first.
                struct stat is;
                CHECK(stat("x.log", &is) == 0);
                leaves = 1;
            }
            if (!fork()) _exit(0);
        }
        puts("not left");
    }
    CHECK(!leaves);
    for (int i = 0; i < 3; i++) CHECK(write(x, "x\n", 2) == 2 && fdatasync(x) == 0);
    printf("%ld syncs\n", shim("shim_begun", 0));
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
    if (!strcmp(words[1], "leave")) {
        leave(words[2]);
        fflush(stdout);
        _exit(0);
    }
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
