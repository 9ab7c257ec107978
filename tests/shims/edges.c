// A server for crash tests that treats its log as applications at the agent's edges do. It speaks as much of the
// Redis protocol as the test needs; each turn of its loop is one write and one sync of the log, then replies.
//
//   edges KINDS DIR PORT
//
// Each turn is of one of the kinds, by chance:
//
//   p  plain                               d  dup2 of a second open over the log first
//   f  a forked child writes to it, too    s  signals interrupt the write and the sync
//   j  a handler jumps out of the sync     b  a handler writes and syncs the log itself
//   r  the log is closed and opened again  o  the write goes through a stream
//   t  the log is closed, and its number comes back for another file, unseen by any library: turns go there
//      until the log is opened again
//
// A record is acknowledged when its sync has returned with success. An error that stays ends the server.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define CLIENTS 128
#define TABLE (1 << 18)

struct bytes {
    char *at;
    size_t len, room;
};

struct client {
    int fd;
    struct bytes in, out;
};

static struct client clients[CLIENTS];
static struct bytes turn;
static char *keys[TABLE], *values[TABLE];
static char path[4096], directory[4000];
static int log_fd = -1, segment, in_segment, fails;
static const char *kinds;
static const char note[] = "*1\r\n$4\r\nPING\r\n";

static void die(const char *what) {
    fprintf(stderr, "edges: %s: %s\n", what, strerror(errno));
    _exit(1);
}

static void add(struct bytes *bytes, const char *from, size_t n) {
    if (bytes->len + n > bytes->room) {
        bytes->room = (bytes->len + n) * 2;
        bytes->at = realloc(bytes->at, bytes->room);
        if (!bytes->at) die("memory");
    }
    memcpy(bytes->at + bytes->len, from, n);
    bytes->len += n;
}

static void add_text(struct bytes *bytes, const char *text) { add(bytes, text, strlen(text)); }

static void add_bulk(struct bytes *bytes, const char *text) {
    char head[32];
    snprintf(head, sizeof head, "$%zu\r\n", strlen(text));
    add_text(bytes, head);
    add_text(bytes, text);
    add_text(bytes, "\r\n");
}

/* A system call that no library sees. */
static long past(long number, long a, long b, long c, long d) {
    register long fourth __asm__("r10") = d;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth)
                     : "rcx", "r11", "memory");
    return result;
}

static unsigned chance(void) {
    static unsigned long state;
    if (!state) state = 88172645463325252ul ^ (unsigned long)getpid() << 20;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state >> 11;
}

// ---- the data ----

static unsigned place(const char *key) {
    unsigned at = 5381;
    for (const char *c = key; *c; c++) at = at * 33 + (unsigned char)*c;
    while (keys[at %= TABLE] && strcmp(keys[at], key)) at++;
    return at;
}

/* One command: its words, at most so many, each a string of its own. Returns its length; 0 if it is not whole. */
static size_t command(const char *at, size_t len, char **words, int most, int *count) {
    const char *begin = at, *end = at + len;
    *count = 0;
    if (len < 4 || *at != '*') return 0;
    int wanted = atoi(at + 1);
    if (wanted < 1 || wanted > most || !(at = memchr(at, '\n', len))) return 0;
    at++;
    for (; *count < wanted; (*count)++) {
        const char *line = memchr(at, '\n', end - at);
        if (at >= end || *at != '$' || !line) goto part;
        size_t n = atoi(at + 1);
        if ((size_t)(end - line) < n + 3) goto part;
        words[*count] = strndup(line + 1, n);
        at = line + 1 + n + 2;
    }
    return at - begin;
part:
    while (*count) free(words[--*count]);
    return 0;
}

static void apply(char **words, int count, struct bytes *out, struct bytes *log) {
    if (count == 3 && !strcasecmp(words[0], "SET")) {
        unsigned at = place(words[1]);
        if (!keys[at]) keys[at] = strdup(words[1]);
        free(values[at]);
        values[at] = strdup(words[2]);
        if (!log) return;
        add_text(log, "*3\r\n");
        for (int i = 0; i < 3; i++) add_bulk(log, words[i]);
        add_text(out, "+OK\r\n");
    } else if (out && !strcasecmp(words[0], "MGET")) {
        char head[32];
        snprintf(head, sizeof head, "*%d\r\n", count - 1);
        add_text(out, head);
        for (int i = 1; i < count; i++) {
            unsigned at = place(words[i]);
            if (keys[at]) add_bulk(out, values[at]);
            else add_text(out, "$-1\r\n");
        }
    } else if (out && !strcasecmp(words[0], "INFO")) {
        char text[64];
        snprintf(text, sizeof text, "process_id:%d\r\nloading:0\r\n", getpid());
        add_bulk(out, text);
    } else if (out) {
        add_text(out, "-ERR unknown command\r\n");
    }
}

static size_t obey(struct bytes *in, struct bytes *out, struct bytes *log) {
    static char *words[10000];
    size_t done = 0, n;
    int count;
    while ((n = command(in->at + done, in->len - done, words, 10000, &count))) {
        apply(words, count, out, log);
        while (count) free(words[--count]);
        done += n;
    }
    return done;
}

/* Reads a log back, and cuts off what is not whole. */
static void load(const char *name) {
    int fd = open(name, O_RDWR | O_CREAT, 0644);
    if (fd < 0) die(name);
    struct bytes all = {0};
    char buffer[1 << 16];
    ssize_t n;
    while ((n = read(fd, buffer, sizeof buffer)) > 0) add(&all, buffer, n);
    if (ftruncate(fd, obey(&all, NULL, NULL)) || fdatasync(fd)) die("load");
    free(all.at);
    close(fd);
}

// ---- the log ----

static jmp_buf out;
static volatile sig_atomic_t jumps, writes;

static void handler(int signal) {
    (void)signal;
    int kept = errno;
    if (jumps) {
        jumps = 0;
        siglongjmp(out, 1);
    }
    if (writes) {
        writes = 0;
        if (write(log_fd, note, sizeof note - 1) < 0 || fdatasync(log_fd)) fails++;
    }
    errno = kept;
}

/* Signals from so many microseconds on, again and again if `often`; none for 0. */
static void signals(long first, int often) {
    struct itimerval timer = {{0, often ? first : 0}, {0, first}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

static void sync_log(void) {
    for (int tries = 0; fdatasync(log_fd); tries++)
        if (errno != EINTR || tries > 1000) die("fdatasync");
}

static void write_log(int fd, const char *at, size_t n) {
    for (int tries = 0; n;) {
        ssize_t wrote = write(fd, at, n);
        if (wrote < 0 && (errno != EINTR || ++tries > 1000)) die("write");
        if (wrote > 0) at += wrote, n -= wrote;
    }
}

/* The directory has the names of the files. */
static void sync_names(void) {
    int fd = open(directory, O_RDONLY | O_DIRECTORY);
    if (fd < 0 || fsync(fd)) die("fsync of the directory");
    close(fd);
}

static void open_log(void) {
    snprintf(path, sizeof path, "%s/appendonly.aof.1.incr.aof", directory);
    log_fd = open(path, O_WRONLY | O_APPEND | O_CREAT, 0644);
    in_segment = 0;
    if (log_fd < 0) die(path);
}

static void commit(void) {
    char kind = kinds[chance() % strlen(kinds)];
    volatile int wrote = 0;
    while (waitpid(-1, NULL, WNOHANG) > 0) {}
    switch (kind) {
    case 'd': {
        int flags = O_WRONLY | O_APPEND;
        int second = in_segment ? past(SYS_openat, AT_FDCWD, (long)path, flags, 0) : open(path, flags);
        if (second < 0 || dup2(second, log_fd) != log_fd) die("dup2");
        close(second);
        break;
    }
    case 'f': {
        pid_t pid = fork();
        if (pid < 0) die("fork");
        if (pid == 0) {
            write_log(log_fd, note, sizeof note - 1);
            _exit(0);
        }
        break;
    }
    case 'r':
        if (close(log_fd)) die("close");
        open_log();
        break;
    case 't': {
        if (in_segment) break;
        if (past(SYS_close, log_fd, 0, 0, 0)) die("close");
        snprintf(path, sizeof path, "%s/appendonly.%d.segment", directory, ++segment);
        int flags = O_WRONLY | O_APPEND | O_CREAT;
        int fd = past(SYS_openat, AT_FDCWD, (long)path, flags, 0644);
        if (fd != log_fd) die("another number came back");
        in_segment = 1;
        sync_names();
        break;
    }
    case 'o': {
        FILE *stream = fdopen(dup(log_fd), "a");
        if (!stream || fwrite(turn.at, 1, turn.len, stream) != turn.len || fclose(stream)) die("stdio");
        wrote = 1;
        break;
    }
    case 's': signals(50 + chance() % 400, 1); break;
    case 'b':
        writes = 1;
        signals(1 + chance() % 2000, 0);
        break;
    }
    if (!wrote) write_log(log_fd, turn.at, turn.len);
    if (kind == 'j' && !sigsetjmp(out, 1)) {
        jumps = 1;
        signals(1 + chance() % 3000, 0);
        sync_log();
    }
    // After a jump the call has not returned, and proves nothing.
    jumps = writes = 0;
    signals(0, 0);
    sync_log();
    if (fails) die("in a handler");
    turn.len = 0;
}

// ---- the server ----

int main(int count, char **words) {
    if (count != 4) return 2;
    kinds = words[1];
    snprintf(directory, sizeof directory, "%s", words[2]);
    signal(SIGPIPE, SIG_IGN);
    struct sigaction action = {.sa_handler = handler};
    sigaction(SIGALRM, &action, NULL);
    snprintf(path, sizeof path, "%s/appendonly.aof.1.incr.aof", directory);
    load(path);
    for (;;) {
        snprintf(path, sizeof path, "%s/appendonly.%d.segment", directory, segment + 1);
        if (access(path, F_OK)) break;
        load(path);
        segment++;
    }
    // Before every other descriptor: the lowest number comes back first.
    open_log();
    sync_names();

    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(words[3]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64)) die("listen");
    for (int i = 0; i < CLIENTS; i++) clients[i].fd = -1;
    for (;;) {
        struct pollfd fds[CLIENTS + 1] = {{listener, POLLIN, 0}};
        for (int i = 0; i < CLIENTS; i++) fds[i + 1] = (struct pollfd){clients[i].fd, POLLIN, 0};
        if (poll(fds, CLIENTS + 1, -1) < 0) continue;
        if (fds[0].revents) {
            int fd = accept(listener, NULL, NULL), i = 0;
            while (i < CLIENTS && clients[i].fd >= 0) i++;
            if (i == CLIENTS) close(fd);
            else clients[i].fd = fd;
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        }
        for (int i = 0; i < CLIENTS; i++) {
            struct client *client = &clients[i];
            if (client->fd < 0 || !fds[i + 1].revents) continue;
            char buffer[1 << 14];
            ssize_t n = read(client->fd, buffer, sizeof buffer);
            if (n <= 0) {
                if (n < 0 && errno == EINTR) continue;
                close(client->fd);
                client->fd = -1;
                client->in.len = client->out.len = 0;
                continue;
            }
            add(&client->in, buffer, n);
            size_t done = obey(&client->in, &client->out, &turn);
            memmove(client->in.at, client->in.at + done, client->in.len - done);
            client->in.len -= done;
        }
        if (turn.len) commit();
        for (int i = 0; i < CLIENTS; i++) {
            struct client *client = &clients[i];
            for (size_t sent = 0; client->fd >= 0 && sent < client->out.len;) {
                ssize_t n = write(client->fd, client->out.at + sent, client->out.len - sent);
                if (n < 0 && errno != EINTR) break;
                if (n > 0) sent += n;
            }
            client->out.len = 0;
        }
    }
}
