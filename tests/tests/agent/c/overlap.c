// Threads that write and sync one log at the same time. Counts how many sync calls were told success while
// no sync that began after them has ended: what a power loss would take.
//
//   overlap THREADS CALLS fsync|fdatasync [during]
//
// A sync takes 0.2 ms more than it does. With `during`, a second thread writes while a sync is under way,
// once in 20 calls, and the first syncs once more after that call. Prints the most calls that were at risk
// at once, makes the file "done", and waits for the file "go".
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int log_fd, during;
static int (*sync_log)(int);
static long calls;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *acknowledged; // of each call, by its number
static long entered, durable, most;

static int armed, wrote_during; // a write is to come during the next sync; it came
static sem_t write_now, written;

static void fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerrorname_np(errno));
    _exit(1);
}

// The shim calls these around each sync that the kernel is asked for.
long real_sync_begins(void) {
    pthread_mutex_lock(&lock);
    long covers = entered;
    pthread_mutex_unlock(&lock);
    if (__atomic_exchange_n(&armed, 0, __ATOMIC_SEQ_CST)) {
        sem_post(&write_now);
        // If the write waits for this sync, it cannot have ended.
        struct timespec end;
        clock_gettime(CLOCK_REALTIME, &end);
        end.tv_sec += 1;
        sem_timedwait(&written, &end);
        wrote_during = 1;
    }
    usleep(200);
    return covers;
}

void real_sync_ends(long covers, int result) {
    pthread_mutex_lock(&lock);
    if (result == 0 && covers > durable) durable = covers;
    pthread_mutex_unlock(&lock);
}

static void append(void) {
    if (write(log_fd, "record\n", 7) != 7) fail("write");
}

static void sync_once(void) {
    pthread_mutex_lock(&lock);
    long call = ++entered;
    pthread_mutex_unlock(&lock);
    if (sync_log(log_fd)) fail("sync");
    pthread_mutex_lock(&lock);
    acknowledged[call] = 1;
    long at_risk = 0;
    for (long i = durable + 1; i <= entered; i++) at_risk += acknowledged[i];
    if (at_risk > most) most = at_risk;
    pthread_mutex_unlock(&lock);
}

static void *work(void *argument) {
    (void)argument;
    for (long i = 0; i < calls; i++) {
        if (during && i % 20 == 0) armed = 1;
        append();
        sync_once();
        if (__atomic_exchange_n(&wrote_during, 0, __ATOMIC_SEQ_CST)) sync_once();
    }
    return NULL;
}

static void *write_during(void *argument) {
    (void)argument;
    for (;;) {
        while (sem_wait(&write_now)) {}
        append();
        sem_post(&written);
    }
    return NULL;
}

int main(int argc, char **a) {
    if (argc < 4) return 2;
    long threads = atol(a[1]);
    calls = atol(a[2]);
    sync_log = strcmp(a[3], "fsync") ? fdatasync : fsync;
    during = argc > 4;
    acknowledged = calloc(2 * threads * calls + 2, 1);
    log_fd = open("x.incr.aof", O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (log_fd < 0 || threads > 64) return 2;
    pthread_t all[64], writer;
    sem_init(&write_now, 0, 0);
    sem_init(&written, 0, 0);
    if (during && pthread_create(&writer, NULL, write_during, NULL)) return 3;
    for (long i = 0; i < threads; i++)
        if (pthread_create(&all[i], NULL, work, NULL)) return 3;
    for (long i = 0; i < threads; i++) pthread_join(all[i], NULL);
    printf("%ld\n", most);
    fflush(stdout);
    close(creat("done", 0644));
    while (access("go", F_OK)) usleep(1000);
    return 0;
}
