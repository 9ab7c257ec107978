/* A disk that lies: every sync of a file succeeds, and none is made. */

int fdatasync(int fd) {
    (void)fd;
    return 0;
}

int fsync(int fd) {
    (void)fd;
    return 0;
}
