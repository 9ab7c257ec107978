// Says which descriptors a forked child has besides x.log and what the program was started with.
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static char known[65536];

int main(void) {
    for (int fd = 0; fd < 65536; fd++) known[fd] = fcntl(fd, F_GETFD) >= 0;
    int log = open("x.log", O_WRONLY | O_CREAT | O_APPEND, 0644);
    CHECK(log >= 0 && write(log, "x\n", 2) == 2 && fdatasync(log) == 0);
    pid_t child = fork();
    if (!child) {
        for (int fd = 0; fd < 65536; fd++)
            if (fd != log && !known[fd] && fcntl(fd, F_GETFD) >= 0) printf("%d\n", fd);
        puts("fine");
        fflush(stdout);
        _exit(0);
    }
    CHECK(waitpid(child, NULL, 0) == child);
    _exit(0);
}
