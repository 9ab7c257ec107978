// Handlers of signals: what the program and its children see of them. A program that loses something does not end.
//
//   forks      forks while other threads install handlers; each child installs one
//   vfork      a child of vfork installs handlers: its parent has its own
//   sigset     what sigset returns, and what comes of restoring that
//   ends       siginterrupt, before and after a handler is installed
//   masks      two signals come in a call with a mask of its own
//   number     the system call tells what is installed, and that is restored by name
//   flags      SA_NODEFER, SA_RESETHAND, SA_ONSTACK, masks, handlers that install handlers
//   many       another thread sends signals while the log is synced
//   exec       what another program inherits
//   shows      is that program
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

static volatile int ones, twos, two_is_blocked, one_is_blocked, on_stack, stop;
static char stack[1 << 16];

static int is_blocked(int number) {
    sigset_t now;
    CHECK(sigprocmask(SIG_BLOCK, NULL, &now) == 0);
    return sigismember(&now, number);
}

static void one(int number) {
    char here;
    (void)number;
    one_is_blocked = is_blocked(SIGUSR1), two_is_blocked = is_blocked(SIGUSR2);
    on_stack = &here >= stack && &here < stack + sizeof stack;
    ones++;
}

static void two(int number) {
    (void)number;
    twos++;
}

static void with_information(int number, siginfo_t *information, void *context) {
    (void)context;
    twos += information->si_signo == number ? 10 : 1000;
}

static void again(int number) {
    if (++ones < 4) raise(number);
}

static void installs(int number) {
    ones++;
    CHECK(signal(number, two) == installs);
}

static void install(int number, void (*handler)(int), int flags, int masked) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    if (masked) sigaddset(&action.sa_mask, masked);
    CHECK(sigaction(number, &action, NULL) == 0);
}

static void show(const char *what) {
    printf("%s: one %d two %d\n", what, ones, twos);
    ones = twos = 0;
}

static void show_action(int number) {
    struct sigaction now;
    CHECK(sigaction(number, NULL, &now) == 0);
    const char *handler = now.sa_handler == one ? "one" : now.sa_handler == two ? "two" : "another";
    if (now.sa_handler == SIG_DFL || now.sa_handler == SIG_IGN) handler = now.sa_handler == SIG_DFL ? "default" : "ignore";
    printf("%d: %s flags %x masks", number, handler, (unsigned)now.sa_flags);
    for (int other = 1; other < 65; other++)
        if (sigismember(&now.sa_mask, other)) printf(" %d", other);
    puts("");
}

static void *changes(void *unused) {
    while (!stop) install(SIGUSR2, one, 0, 0);
    return unused;
}

static void forks(void) {
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&threads[i], NULL, changes, NULL) == 0);
    for (int i = 0; i < 400; i++) {
        int status;
        pid_t child = fork();
        if (!child) {
            // One that hangs goes with its parent.
            if (prctl(PR_SET_PDEATHSIG, SIGKILL)) _exit(1);
            install(SIGUSR1, two, 0, 0);
            raise(SIGUSR1);
            _exit(twos == 1 ? 0 : 2);
        }
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    stop = 1;
    for (int i = 0; i < 2; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    puts("fine");
}

static void child_of_vfork(void) {
    int status;
    CHECK(signal(SIGUSR1, one) == SIG_DFL);
    install(SIGUSR2, two, 0, SIGUSR1);
    pid_t child = vfork();
    if (!child) {
        struct sigaction new = {.sa_sigaction = with_information, .sa_flags = SA_SIGINFO | SA_RESETHAND}, old;
        if (signal(SIGUSR1, two) != one || signal(SIGUSR1, two) != two) _exit(1);
        if (sigaction(SIGUSR2, &new, &old) || old.sa_handler != two || !sigismember(&old.sa_mask, SIGUSR1)) _exit(2);
        raise(SIGUSR1);
        raise(SIGUSR2);
        execl("/bin/true", "true", (char *)NULL);
        _exit(3);
    }
    CHECK(waitpid(child, &status, 0) == child);
    printf("child %x\n", status);
    show("child");
    show_action(SIGUSR1), show_action(SIGUSR2);
    for (int i = 0; i < 3; i++) raise(SIGUSR1), raise(SIGUSR2);
    show("parent");
}

static const char *name(void (*handler)(int)) {
    return handler == SIG_DFL    ? "default"
           : handler == SIG_IGN  ? "ignore"
           : handler == SIG_HOLD ? "hold"
           : handler == one      ? "one"
           : handler == two      ? "two"
           : handler == SIG_ERR  ? strerror(errno)
                                 : "another";
}

static void sets(void) {
    void (*steps[])(int) = {one, SIG_IGN, one, SIG_HOLD, two, SIG_DFL, two, SIG_HOLD, SIG_HOLD, SIG_IGN, one, SIG_HOLD, SIG_DFL};
    for (unsigned i = 0; i < sizeof steps / sizeof *steps; i++) {
        printf("%s after %s, ", name(steps[i]), name(sigset(SIGUSR1, steps[i])));
        show_action(SIGUSR1);
    }
    printf("%s %s %s\n", name(sigset(0, one)), name(sigset(65, SIG_HOLD)), name(sigset(SIGKILL, one)));
    sigset(SIGUSR1, one);
    for (int i = 0; i < 3; i++) {
        void (*before)(int) = sigset(SIGUSR1, SIG_IGN);
        raise(SIGUSR1);
        CHECK(sigset(SIGUSR1, before) == SIG_IGN);
        raise(SIGUSR1);
        before = sigset(SIGUSR1, SIG_HOLD);
        raise(SIGUSR1);
        CHECK(sigset(SIGUSR1, before) == SIG_HOLD);
    }
    show("sigset");
}

// Until a signal ends it: with one that has been restarted, for ever.
static void read_ends(const char *what) {
    char byte;
    int ends[2];
    struct itimerval soon = {{0, 5000}, {0, 5000}}, never = {{0, 0}, {0, 0}};
    CHECK(pipe(ends) == 0 && setitimer(ITIMER_REAL, &soon, NULL) == 0);
    CHECK(read(ends[0], &byte, 1) < 0 && errno == EINTR);
    CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0 && close(ends[0]) == 0 && close(ends[1]) == 0);
    printf("%s ends, ", what);
    show_action(SIGALRM);
}

static void ends(void) {
    struct sigaction now;
    CHECK(siginterrupt(SIGALRM, 1) == 0 && signal(SIGALRM, one) == SIG_DFL);
    read_ends("before");
    CHECK(siginterrupt(SIGALRM, 0) == 0);
    show_action(SIGALRM);
    CHECK(signal(SIGALRM, one) == one);
    show_action(SIGALRM);
    CHECK(siginterrupt(SIGALRM, 1) == 0);
    read_ends("after");
    CHECK(sigaction(SIGALRM, NULL, &now) == 0 && sigaction(SIGALRM, &now, NULL) == 0);
    read_ends("restored");
    printf("%d %d\n", siginterrupt(0, 1), siginterrupt(65, 0));
}

static void comes_in(const char *what, int (*call)(const sigset_t *)) {
    sigset_t both, none, waiting;
    sigemptyset(&none), sigemptyset(&both);
    sigaddset(&both, SIGUSR1), sigaddset(&both, SIGUSR2);
    for (int masked = 0; masked < 2; masked++) {
        CHECK(sigprocmask(SIG_BLOCK, &both, NULL) == 0);
        install(SIGUSR1, one, 0, masked ? SIGUSR2 : 0);
        raise(SIGUSR1), raise(SIGUSR2);
        int result = call(&none);
        CHECK(sigpending(&waiting) == 0);
        printf("%d %d, blocked %d %d, waiting %d %d, ", result, errno, one_is_blocked, two_is_blocked,
               sigismember(&waiting, SIGUSR1), sigismember(&waiting, SIGUSR2));
        show(what);
        CHECK(is_blocked(SIGUSR1) && is_blocked(SIGUSR2) && sigprocmask(SIG_UNBLOCK, &both, NULL) == 0);
        show("then");
    }
}

static int by_ppoll(const sigset_t *mask) { return ppoll(NULL, 0, NULL, mask); }
static int by_pselect(const sigset_t *mask) { return pselect(0, NULL, NULL, NULL, NULL, mask); }
static int by_epoll(const sigset_t *mask) {
    struct epoll_event event;
    return epoll_pwait(epoll_create1(0), &event, 1, -1, mask);
}

static void masks(void) {
    install(SIGUSR2, two, 0, 0);
    comes_in("sigsuspend", sigsuspend);
    comes_in("ppoll", by_ppoll);
    comes_in("pselect", by_pselect);
    comes_in("epoll_pwait", by_epoll);
}

// The kernel's own structure (arch/x86/include/uapi/asm/signal.h).
struct kernel_action {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)(void);
    unsigned long mask;
};

static void number(void) {
    struct kernel_action told;
    CHECK(signal(SIGUSR1, one) == SIG_DFL);
    CHECK(syscall(SYS_rt_sigaction, SIGUSR1, NULL, &told, 8) == 0);
    CHECK(signal(SIGUSR1, SIG_IGN) == one && signal(SIGUSR1, told.handler) == SIG_IGN);
    raise(SIGUSR1);
    show("restored");
    CHECK(signal(SIGUSR1, told.handler) == one);
    raise(SIGUSR1);
    show("again");
}

static void flags(void) {
    int kinds[] = {0, SA_NODEFER, SA_RESETHAND, SA_RESETHAND | SA_NODEFER, SA_RESTART, SA_ONSTACK, SA_NODEFER | SA_ONSTACK | SA_RESTART};
    stack_t own = {.ss_sp = stack, .ss_size = sizeof stack};
    CHECK(sigaltstack(&own, NULL) == 0);
    for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++)
        for (int masked = 0; masked < 3; masked++) {
            install(SIGUSR1, one, kinds[i], masked == 0 ? 0 : masked == 1 ? SIGUSR1 : SIGUSR2);
            show_action(SIGUSR1);
            raise(SIGUSR1);
            printf("blocked %d %d stack %d, after it ", one_is_blocked, two_is_blocked, on_stack);
            show("raised");
            show_action(SIGUSR1);
            // Two at once: one to the process, one to the thread.
            fflush(stdout);
            pid_t child = fork();
            if (!child) {
                sigset_t set;
                sigemptyset(&set), sigaddset(&set, SIGUSR1);
                install(SIGUSR1, one, kinds[i], masked == 0 ? 0 : masked == 1 ? SIGUSR1 : SIGUSR2);
                CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
                CHECK(kill(getpid(), SIGUSR1) == 0 && pthread_kill(pthread_self(), SIGUSR1) == 0);
                CHECK(sigprocmask(SIG_UNBLOCK, &set, NULL) == 0);
                show("two at once");
                fflush(stdout);
                _exit(0);
            }
            int status;
            CHECK(waitpid(child, &status, 0) == child);
            printf("its end %x\n", status);
        }
    install(SIGUSR1, again, SA_NODEFER, 0);
    raise(SIGUSR1);
    show("nested");
    install(SIGUSR1, again, 0, 0);
    raise(SIGUSR1);
    show("one after another");
    install(SIGUSR1, installs, 0, 0);
    raise(SIGUSR1), raise(SIGUSR1);
    show("installed in a handler");
    sigset_t set;
    int waited;
    sigemptyset(&set), sigaddset(&set, SIGUSR1);
    CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    raise(SIGUSR1);
    CHECK(sigwait(&set, &waited) == 0 && sigprocmask(SIG_UNBLOCK, &set, NULL) == 0);
    show("waited for");
}

static pthread_t first;
static volatile long sum;

static void counts(int number, siginfo_t *information, void *context) {
    (void)number, (void)context;
    ones++, sum += information->si_value.sival_int;
}

static void *sends(void *unused) {
    for (int i = 0; i < 3000; i++) {
        union sigval value = {.sival_int = i};
        while (pthread_sigqueue(first, SIGRTMIN + i % 3, value)) CHECK(errno == EAGAIN || errno == 0);
        // One that the agent does not block.
        if (i % 10 == 0) CHECK(pthread_kill(first, SIGSEGV) == 0);
    }
    stop = 1;
    return unused;
}

static void many(int x) {
    pthread_t sender;
    first = pthread_self();
    for (int i = 0; i < 3; i++) {
        struct sigaction action = {.sa_sigaction = counts, .sa_flags = SA_SIGINFO | SA_RESTART | (i ? SA_NODEFER : 0)};
        if (i == 2) sigaddset(&action.sa_mask, SIGRTMIN);
        CHECK(sigaction(SIGRTMIN + i, &action, NULL) == 0);
    }
    install(SIGSEGV, two, SA_NODEFER | SA_RESTART, 0);
    CHECK(pthread_create(&sender, NULL, sends, NULL) == 0);
    while (!stop) CHECK(write(x, "x\n", 2) == 2 && fdatasync(x) == 0);
    CHECK(pthread_join(sender, NULL) == 0);
    for (int other = 1; other < 65; other++) CHECK(other == 32 || other == 33 || !is_blocked(other));
    printf("%d of the sum %ld, faults %d\n", ones, sum, twos > 0);
}

static void shows(void) {
    show_action(SIGUSR1), show_action(SIGUSR2), show_action(SIGHUP), show_action(SIGALRM);
    printf("blocked %d %d\n", is_blocked(SIGUSR1), is_blocked(SIGTERM));
}

static void executes(char *self) {
    sigset_t set;
    sigemptyset(&set), sigaddset(&set, SIGTERM);
    install(SIGUSR1, one, SA_RESTART, 0);
    CHECK(signal(SIGUSR2, SIG_IGN) == SIG_DFL && sigset(SIGHUP, two) == SIG_DFL && sigset(SIGHUP, SIG_IGN) == two);
    CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    fflush(stdout);
    execl(self, self, "shows", (char *)NULL);
    _exit(4);
}

int main(int count, char **words) {
    CHECK(count == 2);
    int x = open("x.log", O_RDWR | O_CREAT | O_APPEND, 0644);
    CHECK(x >= 0 && write(x, "x\n", 2) == 2 && fsync(x) == 0);
    const char *what = words[1];
    if (!strcmp(what, "forks")) forks();
    if (!strcmp(what, "vfork")) child_of_vfork();
    if (!strcmp(what, "sigset")) sets();
    if (!strcmp(what, "ends")) ends();
    if (!strcmp(what, "masks")) masks();
    if (!strcmp(what, "number")) number();
    if (!strcmp(what, "flags")) flags();
    if (!strcmp(what, "many")) many(x);
    if (!strcmp(what, "exec")) executes(words[0]);
    if (!strcmp(what, "shows")) shows();
    return 0;
}
