/* A program that never syncs: appends lines of 100 bytes to a log, as fast as it can, for so many seconds, and prints how
   many a second.

   write LOG SECONDS     a call for each line
   stream LOG SECONDS    by a stream of the C library
   threads LOG SECONDS   a call for each line, in a program that has another thread
   work LOG SECONDS      a call for each line, and some work between two (20 microseconds) */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void *idle(void *nothing) {
    for (;;)
        pause();
    return nothing;
}

int main(int count, char **words) {
    char line[100];
    if (count != 4)
        return 2;
    memset(line, 'x', sizeof line);
    line[sizeof line - 1] = '\n';
    int streams = !strcmp(words[1], "stream"), works = !strcmp(words[1], "work");
    FILE *stream = streams ? fopen(words[2], "a") : NULL;
    int fd = streams ? -1 : open(words[2], O_WRONLY | O_APPEND | O_CREAT, 0644);
    if (streams ? !stream : fd < 0)
        return 1;
    pthread_t thread;
    if (!strcmp(words[1], "threads") && pthread_create(&thread, NULL, idle, NULL))
        return 1;
    double begin = now(), end = begin + atof(words[3]), time = begin;
    long lines = 0;
    for (; time < end; time = now())
        for (int i = 0; i < 100; i++, lines++) {
            size_t wrote = streams ? fwrite(line, 1, sizeof line, stream) : (size_t)write(fd, line, sizeof line);
            if (wrote != sizeof line)
                return 1;
            for (double until = now() + 20e-6; works && now() < until;)
                ;
        }
    printf("%.0f\n", lines / (time - begin));
    return 0;
}
