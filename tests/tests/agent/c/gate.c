/* A witness of held replies, preloaded around the agent. It trusts neither the agent nor its counts.
 *
 * Built twice. The outer one (-DOUTER) stands before the agent: for every byte that the application
 * writes to a connection it accepted, it notes how much the application had written to each log by
 * then. The inner one stands after it: it sees what is really synced and what is really sent, and
 * checks that no byte is sent before a successful sync that began after all those writes. What is sent too early
 * to a replica or a cluster node it says in the file "ahead".
 *
 * While the file "hold" is there, syncs of logs do not begin; while "slow" is there, they take 3 ms and more; while
 * "fail" is there, they fail. At
 * a violation the process says so in the file "violation". Every second, and at exit, "gate" says how
 * many replies were checked, and how many of them had been waiting. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define LOGS 16
#define FDS 65536

/* A reply: bytes of a stream, and what they need. */
struct reply {
    uint64_t end;
    uint64_t need[LOGS];
    int waited;
};

struct stream {
    uint64_t written, sent;
    struct reply *replies;
    size_t first, count, room;
    int replica; /* the server has answered PSYNC there, or sent a message of the cluster bus */
};

/* One for both libraries: the outer one has it. */
struct gate {
    pthread_mutex_t lock;
    uint64_t inode[LOGS];
    uint64_t written[LOGS]; /* in the file */
    uint64_t durable[LOGS]; /* of these, what a successful sync covers */
    uint64_t failed[LOGS];
    struct stream *of[FDS];
    uint64_t checked, waited, held;
};

/* A system call that nobody sees: `syscall` is interposed, too. */
static long unseen(long number, long a, long b, long c, long d)
{
    register long r10 __asm__("r10") = d;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
                     : "rcx", "r11", "memory");
    return result;
}

static void say(const char *name, const char *text)
{
    /* Not by functions that are interposed: the lock may be held. */
    int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC;
    long fd = unseen(SYS_openat, AT_FDCWD, (long)name, flags, 0600);
    if (fd >= 0) {
        unseen(SYS_write, fd, (long)text, strlen(text), 0);
        unseen(SYS_close, fd, 0, 0, 0);
    }
}

#ifdef OUTER

struct gate gate_state = { .lock = PTHREAD_MUTEX_INITIALIZER };
static struct gate *gate = &gate_state;

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
static __typeof__(&write) next_write;
static __typeof__(&writev) next_writev;
static __typeof__(&send) next_send;
static __typeof__(&sendto) next_sendto;
static __typeof__(&sendmsg) next_sendmsg;
static __typeof__(&accept) next_accept;
static __typeof__(&accept4) next_accept4;
static char here[4096];

/* A child must not find the lock held by a thread that it does not have. */
static void before_fork(void) { pthread_mutex_lock(&gate->lock); }
static void after_fork(void) { pthread_mutex_unlock(&gate->lock); }

__attribute__((constructor)) static void start(void)
{
    pthread_atfork(before_fork, after_fork, after_fork);
    next_write = NEXT(write);
    next_writev = NEXT(writev);
    next_send = NEXT(send);
    next_sendto = NEXT(sendto);
    next_sendmsg = NEXT(sendmsg);
    next_accept = NEXT(accept);
    next_accept4 = NEXT(accept4);
    if (!getcwd(here, sizeof here))
        abort();
}

static struct stream *stream_of(int fd)
{
    return fd >= 0 && fd < FDS ? __atomic_load_n(&gate->of[fd], __ATOMIC_ACQUIRE) : NULL;
}

/* A reply of so many bytes begins. */
static struct reply *begins(struct stream *stream, size_t bytes)
{
    if (stream->first + stream->count == stream->room) {
        memmove(stream->replies, stream->replies + stream->first, stream->count * sizeof(struct reply));
        stream->first = 0;
        if (stream->count * 2 >= stream->room) {
            stream->room = stream->room ? stream->room * 2 : 8;
            stream->replies = realloc(stream->replies, stream->room * sizeof(struct reply));
        }
    }
    struct reply *reply = &stream->replies[stream->first + stream->count++];
    reply->end = stream->written + bytes;
    reply->waited = 0;
    memcpy(reply->need, gate->written, sizeof reply->need);
    for (int i = 0; i < LOGS; i++)
        reply->waited |= gate->written[i] > gate->durable[i];
    return reply;
}

static ssize_t replies(int fd, size_t bytes, ssize_t (*call)(void *), void *argument)
{
    struct stream *stream = stream_of(fd);
    if (!stream)
        return call(argument);
    pthread_mutex_lock(&gate->lock);
    begins(stream, bytes);
    pthread_mutex_unlock(&gate->lock);
    ssize_t done = call(argument);
    int saved = errno;
    pthread_mutex_lock(&gate->lock);
    if (stream_of(fd) == stream) {
        struct reply *last = stream->count ? &stream->replies[stream->first + stream->count - 1] : NULL;
        uint64_t end = stream->written + (done > 0 ? (size_t)done : 0);
        /* It may have been sent and forgotten already. */
        if (last && last->end == stream->written + bytes) {
            if (done > 0)
                last->end = end;
            else
                stream->count--;
        }
        stream->written = end;
    }
    pthread_mutex_unlock(&gate->lock);
    errno = saved;
    return done;
}

struct arguments {
    int fd, count, flags;
    const void *data;
    size_t length;
    const struct sockaddr *to;
    socklen_t to_length;
};

static ssize_t call_write(void *p) { struct arguments *a = p; return next_write(a->fd, a->data, a->length); }
static ssize_t call_writev(void *p) { struct arguments *a = p; return next_writev(a->fd, a->data, a->count); }
static ssize_t call_send(void *p) { struct arguments *a = p; return next_send(a->fd, a->data, a->length, a->flags); }
static ssize_t call_sendto(void *p)
{
    struct arguments *a = p;
    return next_sendto(a->fd, a->data, a->length, a->flags, a->to, a->to_length);
}
static ssize_t call_sendmsg(void *p) { struct arguments *a = p; return next_sendmsg(a->fd, a->data, a->flags); }

ssize_t write(int fd, const void *data, size_t length)
{
    if (!next_write)
        next_write = NEXT(write);
    struct arguments a = { .fd = fd, .data = data, .length = length };
    struct stream *stream = stream_of(fd);
    if (!stream)
        return next_write(fd, data, length);
    if (length >= 11 && (!memcmp(data, "+FULLRESYNC", 11) || !memcmp(data, "+CONTINUE", 9) || !memcmp(data, "RCmb", 4)))
        stream->replica = 1;
    return replies(fd, length, call_write, &a);
}

static size_t sum(const struct iovec *pieces, size_t count)
{
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += pieces[i].iov_len;
    return bytes;
}

ssize_t writev(int fd, const struct iovec *pieces, int count)
{
    struct arguments a = { .fd = fd, .data = pieces, .count = count };
    if (stream_of(fd))
        return replies(fd, sum(pieces, count), call_writev, &a);
    return next_writev(fd, pieces, count);
}

ssize_t send(int fd, const void *data, size_t length, int flags)
{
    struct arguments a = { .fd = fd, .data = data, .length = length, .flags = flags };
    return replies(fd, length, call_send, &a);
}

ssize_t sendto(int fd, const void *data, size_t length, int flags, const struct sockaddr *to, socklen_t n)
{
    struct arguments a = { .fd = fd, .data = data, .length = length, .flags = flags, .to = to, .to_length = n };
    return replies(fd, length, call_sendto, &a);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    struct arguments a = { .fd = fd, .data = message, .flags = flags };
    return replies(fd, sum(message->msg_iov, message->msg_iovlen), call_sendmsg, &a);
}

static int accepted(int fd)
{
    if (fd >= 0 && fd < FDS) {
        pthread_mutex_lock(&gate->lock);
        gate->of[fd] = calloc(1, sizeof(struct stream));
        pthread_mutex_unlock(&gate->lock);
    }
    return fd;
}

int accept(int fd, struct sockaddr *address, socklen_t *length) { return accepted(next_accept(fd, address, length)); }
int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
    return accepted(next_accept4(fd, address, length, flags));
}

__attribute__((destructor)) static void end(void)
{
    char text[200];
    if (chdir(here) != 0)
        return;
    snprintf(text, sizeof text, "%lu %lu\n", gate->checked, gate->waited);
    say("gate", text);
}

#else

static int is_log(int fd)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return strstr(path, ".incr") != NULL;
}

static int place(struct gate *gate, int fd)
{
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || !is_log(fd))
        return -1;
    for (int i = 0; i < LOGS; i++)
        if (gate->inode[i] == st.st_ino || gate->inode[i] == 0) {
            gate->inode[i] = st.st_ino;
            return i;
        }
    return -1;
}

static struct gate *gate;
static __typeof__(&write) real_write;
static __typeof__(&writev) real_writev;
static __typeof__(&send) real_send;
static __typeof__(&sendto) real_sendto;
static __typeof__(&sendmsg) real_sendmsg;
static __typeof__(&close) real_close;
static int (*real_fcntl)(int, int, size_t);
static __typeof__(&fdatasync) real_fdatasync;
static __typeof__(&fsync) real_fsync;
static char here[4096];

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static void find(void)
{
    if (real_write)
        return;
    gate = dlsym(RTLD_DEFAULT, "gate_state");
    real_writev = NEXT(writev);
    real_send = NEXT(send);
    real_sendto = NEXT(sendto);
    real_sendmsg = NEXT(sendmsg);
    real_close = NEXT(close);
    real_fcntl = dlsym(RTLD_NEXT, "fcntl");
    real_fdatasync = NEXT(fdatasync);
    real_fsync = NEXT(fsync);
    if (!getcwd(here, sizeof here))
        abort();
    real_write = NEXT(write);
}

__attribute__((constructor)) static void start(void) { find(); }

static struct stream *stream_of(int fd) { return gate && fd >= 0 && fd < FDS ? gate->of[fd] : NULL; }

static void path_of(char *path, const char *name) { snprintf(path, 4200, "%s/%s", here, name); }

static int is_there(const char *name)
{
    char path[4200];
    int saved = errno;
    path_of(path, name);
    int there = access(path, F_OK) == 0;
    errno = saved;
    return there;
}

/* So many bytes of a stream are about to be sent, at most. */
static void check(struct stream *stream, size_t bytes)
{
    uint64_t end = stream->sent + bytes;
    for (size_t i = 0; i < stream->count; i++) {
        struct reply *reply = &stream->replies[stream->first + i];
        uint64_t begin = i ? reply[-1].end : stream->sent;
        if (begin >= end)
            break;
        for (int log = 0; log < LOGS; log++)
            if (reply->need[log] > gate->durable[log]) {
                char text[300], path[4200];
                snprintf(text, sizeof text, "sent with %lu of %lu bytes of log %d durable, failed %lu\n",
                         gate->durable[log], reply->need[log], log, gate->failed[log]);
                path_of(path, stream->replica ? "ahead" : "violation");
                say(path, text);
            }
    }
}

static void sent(struct stream *stream, ssize_t bytes)
{
    if (bytes <= 0)
        return;
    stream->sent += bytes;
    while (stream->count && stream->replies[stream->first].end <= stream->sent) {
        gate->checked++;
        gate->waited += stream->replies[stream->first].waited;
        stream->first++;
        stream->count--;
    }
    if (gate->checked % 4096 == 1) {
        char text[200], path[4200];
        snprintf(text, sizeof text, "%lu %lu\n", gate->checked, gate->waited);
        path_of(path, "gate");
        say(path, text);
    }
}

/* Counted before the agent counts: a sync that the agent believes to cover it does. */
static ssize_t wrote(int fd, ssize_t done)
{
    int saved = errno;
    if (gate && done > 0) {
        pthread_mutex_lock(&gate->lock);
        int log = place(gate, fd);
        if (log >= 0)
            gate->written[log] += done;
        pthread_mutex_unlock(&gate->lock);
    }
    errno = saved;
    return done;
}

#define SENDS(fd, bytes, call)                                     \
    struct stream *stream = stream_of(fd);                         \
    if (!stream)                                                   \
        return wrote(fd, call);                                    \
    pthread_mutex_lock(&gate->lock);                               \
    check(stream, bytes);                                          \
    ssize_t done = call;                                           \
    int saved = errno;                                             \
    sent(stream, done);                                            \
    pthread_mutex_unlock(&gate->lock);                             \
    errno = saved;                                                 \
    return done;

ssize_t write(int fd, const void *data, size_t length)
{
    find();
    SENDS(fd, length, real_write(fd, data, length))
}

ssize_t writev(int fd, const struct iovec *pieces, int count)
{
    find();
    size_t bytes = 0;
    for (int i = 0; i < count; i++)
        bytes += pieces[i].iov_len;
    SENDS(fd, bytes, real_writev(fd, pieces, count))
}

ssize_t send(int fd, const void *data, size_t length, int flags)
{
    SENDS(fd, length, real_send(fd, data, length, flags | MSG_DONTWAIT))
}

ssize_t sendto(int fd, const void *data, size_t length, int flags, const struct sockaddr *to, socklen_t n)
{
    SENDS(fd, length, real_sendto(fd, data, length, flags, to, n))
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    size_t bytes = 0;
    for (size_t i = 0; i < message->msg_iovlen; i++)
        bytes += message->msg_iov[i].iov_len;
    SENDS(fd, bytes, real_sendmsg(fd, message, flags))
}

int close(int fd)
{
    find();
    if (stream_of(fd)) {
        pthread_mutex_lock(&gate->lock);
        gate->of[fd] = NULL;
        pthread_mutex_unlock(&gate->lock);
    }
    return real_close(fd);
}

int fcntl(int fd, int command, ...)
{
    va_list list;
    va_start(list, command);
    size_t argument = va_arg(list, size_t);
    va_end(list);
    find();
    int result = real_fcntl(fd, command, argument);
    if ((command == F_DUPFD || command == F_DUPFD_CLOEXEC) && result >= 0 && result < FDS && stream_of(fd)) {
        pthread_mutex_lock(&gate->lock);
        gate->of[result] = gate->of[fd];
        pthread_mutex_unlock(&gate->lock);
    }
    return result;
}

static int synced(int fd, int (*sync)(int))
{
    int saved = errno;
    pthread_mutex_lock(&gate->lock);
    int log = place(gate, fd);
    pthread_mutex_unlock(&gate->lock);
    errno = saved;
    if (log < 0)
        return sync(fd);
    if (is_there("hold")) {
        __atomic_add_fetch(&gate->held, 1, __ATOMIC_SEQ_CST);
        char path[4200];
        path_of(path, "held");
        say(path, "a sync is held\n");
        while (is_there("hold"))
            usleep(500);
    }
    if (is_there("slow"))
        usleep(3000);
    pthread_mutex_lock(&gate->lock);
    uint64_t covers = gate->written[log];
    pthread_mutex_unlock(&gate->lock);
    int result;
    if (is_there("fail")) {
        errno = EIO;
        result = -1;
    } else {
        result = sync(fd);
    }
    saved = errno;
    pthread_mutex_lock(&gate->lock);
    if (result == 0) {
        if (gate->durable[log] < covers && !gate->failed[log])
            gate->durable[log] = covers;
    } else {
        gate->failed[log]++;
    }
    pthread_mutex_unlock(&gate->lock);
    errno = saved;
    return result;
}

int fdatasync(int fd) { return synced(fd, real_fdatasync); }
int fsync(int fd) { return synced(fd, real_fsync); }

#endif
