// Writes and syncs a log, and becomes the same program so many times; the last one says that it is ready, waits until it may
// go on, and syncs once more.
//
//   reexec LOG TIMES READY GO
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int count, char **words) {
    if (count != 5) return 2;
    int times = atoi(words[2]);
    int log = open(words[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (log < 0 || write(log, "x", 1) != 1 || fdatasync(log)) return 1;
    if (times > 0) {
        char left[16];
        snprintf(left, sizeof left, "%d", times - 1);
        words[2] = left;
        execv("/proc/self/exe", words);
        return 1;
    }
    close(open(words[3], O_WRONLY | O_CREAT, 0644));
    while (access(words[4], F_OK)) usleep(1000);
    return write(log, "x", 1) != 1 || fdatasync(log);
}
