// A load for crash tests of LevelDB, and with -DROCKSDB of RocksDB.
//
//   load write DIR WRITERS PUTS   each thread makes synced writes, one by one, and prints `WRITER NUMBER` after each
//   load time DIR WRITERS PUTS    the same, and prints only how many writes there were a second
//   load read DIR                 opens with paranoid checks, reads everything with checksums, and prints those lines
//
// In `time` the database has its usual buffers; else they are so small that a new log begins every few hundred writes.
// It exits with 1 if the database reports damage. SYNC=0 in the environment makes writes that are not synced.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#ifdef ROCKSDB
#include <rocksdb/c.h>
#define DB(name) rocksdb_##name
#else
#include <leveldb/c.h>
#define DB(name) leveldb_##name
#endif

enum { BUFFER = 64 << 10, VALUE = 300 };

static DB(t) *database;
static DB(writeoptions_t) *writing;
static int tells, times, puts_each;

static void check(const char *what, char *error) {
    if (error != NULL) {
        fprintf(stderr, "%s: %s\n", what, error);
        exit(1);
    }
}

static DB(options_t) *options(int create) {
    DB(options_t) *made = DB(options_create)();
    DB(options_set_create_if_missing)(made, create);
    DB(options_set_paranoid_checks)(made, 1);
    if (!times) {
        DB(options_set_write_buffer_size)(made, BUFFER);
    }
    return made;
}

#ifdef ROCKSDB
// Each write goes to two column families, which share the log and are flushed apart.
static rocksdb_column_family_handle_t *families[2];
static const char *const names[2] = {"default", "other"};

static void open_database(const char *path, int create) {
    char *error = NULL;
    rocksdb_options_t *chosen = options(create);
    rocksdb_options_set_create_missing_column_families(chosen, create);
    const rocksdb_options_t *both[2] = {chosen, chosen};
    database = rocksdb_open_column_families(chosen, path, 2, names, both, families, &error);
    check("open", error);
}

static void close_database(void) {
    rocksdb_column_family_handle_destroy(families[0]);
    rocksdb_column_family_handle_destroy(families[1]);
    rocksdb_close(database);
}

static void put(const char *key, const char *value) {
    char *error = NULL;
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    // The second family fills twice as fast, so that the two are flushed at different times.
    rocksdb_writebatch_put_cf(batch, families[0], key, strlen(key), value, VALUE / 2);
    rocksdb_writebatch_put_cf(batch, families[1], key, strlen(key), value, VALUE);
    rocksdb_write(database, writing, batch, &error);
    check("write", error);
    rocksdb_writebatch_destroy(batch);
}

static rocksdb_iterator_t *iterator(const rocksdb_readoptions_t *reading, int family) {
    return rocksdb_create_iterator_cf(database, reading, families[family]);
}
#else
static void open_database(const char *path, int create) {
    char *error = NULL;
    database = leveldb_open(options(create), path, &error);
    check("open", error);
}

static void close_database(void) {
    leveldb_close(database);
}

static void put(const char *key, const char *value) {
    char *error = NULL;
    leveldb_put(database, writing, key, strlen(key), value, VALUE, &error);
    check("write", error);
}

static leveldb_iterator_t *iterator(const leveldb_readoptions_t *reading, int family) {
    (void)family;
    return leveldb_create_iterator(database, reading);
}
#endif

static void *writer(void *number) {
    char value[VALUE];
    memset(value, 'v', sizeof value);
    for (int n = 0; n < puts_each; n++) {
        char line[64];
        int length = snprintf(line, sizeof line, "%ld %d\n", (long)number, n);
        line[length - 1] = '\0';
        put(line, value);
        line[length - 1] = '\n';
        // Unbuffered, and after the write has returned: this is the acknowledgement.
        if (tells && write(STDOUT_FILENO, line, length) != length) {
            exit(1);
        }
    }
    return NULL;
}

static void write_all(const char *path, int writers) {
    const char *sync = getenv("SYNC");
    open_database(path, 1);
    writing = DB(writeoptions_create)();
    DB(writeoptions_set_sync)(writing, sync == NULL || strcmp(sync, "0") != 0);
    pthread_t threads[64];
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (long number = 0; number < writers; number++) {
        pthread_create(&threads[number], NULL, writer, (void *)number);
    }
    for (int number = 0; number < writers; number++) {
        pthread_join(threads[number], NULL);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    if (times) {
        double seconds = (end.tv_sec - begin.tv_sec) + (end.tv_nsec - begin.tv_nsec) / 1e9;
        printf("%.0f\n", writers * puts_each / seconds);
    }
    close_database();
}

// Reads one family to its end, and prints its keys to `out`; how many there were.
static long read_family(int family, FILE *out) {
    DB(readoptions_t) *reading = DB(readoptions_create)();
    DB(readoptions_set_verify_checksums)(reading, 1);
    DB(iterator_t) *at = iterator(reading, family);
    long count = 0;
    for (DB(iter_seek_to_first)(at); DB(iter_valid)(at); DB(iter_next)(at), count++) {
        size_t length, size;
        const char *key = DB(iter_key)(at, &length);
        DB(iter_value)(at, &size);
        fprintf(out, "%.*s\n", (int)length, key);
    }
    char *error = NULL;
    DB(iter_get_error)(at, &error);
    check("read", error);
    DB(iter_destroy)(at);
    return count;
}

static void read_all(const char *path) {
    // What crashed before it had made a database has none.
    char current[4096];
    snprintf(current, sizeof current, "%s/CURRENT", path);
    if (access(current, F_OK) != 0) {
        return;
    }
    open_database(path, 0);
    long count = read_family(0, stdout);
#ifdef ROCKSDB
    FILE *nowhere = fopen("/dev/null", "w");
    if (nowhere == NULL || read_family(1, nowhere) != count) {
        fprintf(stderr, "the column families differ\n");
        exit(1);
    }
#else
    (void)count;
#endif
    close_database();
}

int main(int count, char **words) {
    if (count == 3 && strcmp(words[1], "read") == 0) {
        read_all(words[2]);
        return 0;
    }
    int writers = count == 5 ? atoi(words[3]) : 0;
    if (writers < 1 || writers > 64) {
        fprintf(stderr, "usage: load write|time DIR WRITERS PUTS, load read DIR\n");
        return 2;
    }
    tells = strcmp(words[1], "write") == 0;
    times = !tells;
    puts_each = atoi(words[4]);
    write_all(words[2], writers);
    return 0;
}
