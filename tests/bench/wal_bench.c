/*
 * wal_bench.c - writers that never rest, and what becomes of the write-ahead log meanwhile.
 *
 *   wal_bench [--minutes N] [--seconds N] [--writers N] [--payload BYTES] [--full]
 *
 * Prints the largest size the log ever had, how long a commit takes, and how long somebody who
 * writes now and then (a publisher that marks what it sent) waits among the writers.
 */
#include "test_support.h"

#include "histogram.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <waybill/db.h>

#define WRITERS_MAX 64
#define ROWS        20000 /* kept by each writer, so that an hour does not fill the disk */
#define MIB         1048576.0

/* ---- writers --------------------------------------------------------------------------------- */

struct writer {
    pthread_t thread;
    struct db *db;
    int64_t first_id; /* of the rows that are its own */
    struct histogram wait, commit, whole;
};

static const char *path;
static int payload = 1000;
static atomic_bool ended;

static void *write_without_rest(void *arg)
{
    struct writer *self = arg;
    struct sqlite3_stmt *stmt = NULL;
    struct wb_why why = {""};

    must_ok(db_prepare(self->db, "INSERT OR REPLACE INTO t(id, x) VALUES(?1, zeroblob(?2))", &stmt,
                       &why),
            "prepare", &why);
    (void)sqlite3_bind_int(stmt, 2, payload);
    for (int64_t n = 0; !atomic_load(&ended); n++) {
        int64_t start = now();
        must_ok(db_begin(self->db, &why), "begin", &why);
        int64_t begun = now();
        (void)sqlite3_bind_int64(stmt, 1, self->first_id + n % ROWS);
        int code = sqlite3_step(stmt);
        (void)sqlite3_reset(stmt);
        if (code != SQLITE_DONE)
            must_ok(WB_IO, "insert", &why);
        int64_t written = now();
        must_ok(db_commit(self->db, &why), "commit", &why);
        int64_t end = now();
        add(&self->wait, begun - start);
        add(&self->commit, end - written);
        add(&self->whole, end - start);
    }
    return NULL;
}

/* A narrow row every few milliseconds, as a publisher moves its cursor. */
static void *mark_now_and_then(void *arg)
{
    struct writer *self = arg;
    struct wb_why why = {""};

    while (!atomic_load(&ended)) {
        int64_t start = now();
        must_ok(db_begin(self->db, &why), "begin", &why);
        must_ok(db_exec(self->db, "UPDATE mark SET x = x + 1", &why), "mark", &why);
        must_ok(db_commit(self->db, &why), "commit", &why);
        add(&self->whole, now() - start);
        usleep(10000);
    }
    return NULL;
}

static int64_t wal_size(void)
{
    char wal[320];
    struct stat st;

    (void)snprintf(wal, sizeof(wal), "%s-wal", path);
    return stat(wal, &st) == 0 ? (int64_t)st.st_size : 0;
}

/* ---- the run --------------------------------------------------------------------------------- */

static void start(struct writer *self, int index, db_sync sync, void *(*run)(void *))
{
    const struct db_options options = {.sync = sync, .busy_timeout_ns = 60 * WB_SEC};
    struct wb_why why = {""};

    self->first_id = (int64_t)index * ROWS;
    must_ok(db_open(path, &options, &self->db, &why), "open", &why);
    if (pthread_create(&self->thread, NULL, run, self) != 0)
        exit(1);
}

static int64_t watch(int64_t run_ns, int64_t *ret_over)
{
    int64_t until = now() + run_ns, largest = 0, next = now() + 60 * WB_SEC;

    while (now() < until) {
        int64_t size = wal_size();
        largest = size > largest ? size : largest;
        *ret_over += size > INT64_C(64) * 1048576;
        if (now() >= next) {
            (void)printf("... largest log so far %.1f MiB\n", (double)largest / MIB);
            (void)fflush(stdout);
            next += 60 * WB_SEC;
        }
        usleep(500);
    }
    return largest;
}

static void measure(int writer_count, int64_t run_ns, db_sync sync)
{
    static struct writer writers[WRITERS_MAX], marker;
    static struct histogram wait, commit, whole;
    struct db_checkpointer *checkpointer = NULL;
    struct wb_why why = {""};
    int64_t over = 0;

    must_ok(db_checkpointer_start(path, NULL, &checkpointer, &why), "checkpointer", &why);
    for (int i = 0; i < writer_count; i++)
        start(&writers[i], i, sync, write_without_rest);
    start(&marker, writer_count, DB_SYNC_NORMAL, mark_now_and_then);
    int64_t largest = watch(run_ns, &over);
    atomic_store(&ended, true);
    for (int i = 0; i < writer_count; i++) {
        pthread_join(writers[i].thread, NULL);
        db_close(writers[i].db);
        merge(&wait, &writers[i].wait);
        merge(&commit, &writers[i].commit);
        merge(&whole, &writers[i].whole);
    }
    pthread_join(marker.thread, NULL);
    db_close(marker.db);
    db_checkpointer_stop(checkpointer);
    (void)printf("writers %d, payload %d B, synchronous=%s, %.0f s: %.0f transactions/s\n",
                 writer_count, payload, sync == DB_SYNC_FULL ? "FULL" : "NORMAL",
                 (double)run_ns / 1e9, (double)whole.total * 1e9 / (double)run_ns);
    (void)printf("largest log            %.1f MiB; over 64 MiB in %lld looks\n",
                 (double)largest / MIB, (long long)over);
    print("wait for the queue", &wait);
    print("commit", &commit);
    print("whole transaction", &whole);
    print("mark, one every 10 ms", &marker.whole);
}

static int64_t number(int argc, char **argv, const char *name, int64_t fallback)
{
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return strtoll(argv[i + 1], NULL, 10);
    return fallback;
}

int main(int argc, char **argv)
{
    char dir[256], file[300];
    struct db *db = NULL;
    struct wb_why why = {""};
    int64_t writers = number(argc, argv, "--writers", 8);
    int64_t run_ns = number(argc, argv, "--minutes", 0) * 60 * WB_SEC +
                     number(argc, argv, "--seconds", 0) * WB_SEC;
    bool full = argc > 1 && strcmp(argv[argc - 1], "--full") == 0;

    payload = (int)number(argc, argv, "--payload", payload);
    writers = writers < 1 ? 1 : writers > WRITERS_MAX ? WRITERS_MAX : writers;
    test_dir_make(dir);
    (void)snprintf(file, sizeof(file), "%s/wal.db", dir);
    path = file;
    must_ok(db_open(path, NULL, &db, &why), "open", &why);
    must_ok(db_exec(db,
                    "CREATE TABLE t(id INTEGER PRIMARY KEY, x BLOB); CREATE TABLE mark(x);"
                    "INSERT INTO mark VALUES(0)",
                    &why),
            "create", &why);
    measure((int)writers, run_ns > 0 ? run_ns : 60 * WB_SEC, full ? DB_SYNC_FULL : DB_SYNC_NORMAL);
    db_close(db);
    test_dir_remove(dir);
    return 0;
}
