/*
 * outbox_enqueue_bench.c - what an event costs its writer: one event per transaction, NORMAL.
 *
 * Beside it, in rounds that alternate, the floor: one INSERT of the same bytes through db_begin()
 * and db_commit(), on a connection of the same kind, into a file of the same kind. "bare" is a
 * table of two columns, id and one blob as long as all columns of the event together; "same table"
 * is the outbox's own table with its constraint and triggers, written by a prepared INSERT of ready
 * values. What enqueue does more: it checks subject, headers and sizes, draws an identity, reads
 * the clock, and wakes the publisher.
 *
 * outbox_enqueue_bench [DIR]; default: a new directory under TMPDIR.
 */
#include "test_support.h"

#include <sqlite3.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include <waybill/db.h>
#include <waybill/outbox.h>

enum { ROUNDS = 7, EVENTS = 20000, PAYLOAD = 256 };

/* What a row holds besides its payload: key 'k', subject 'drain.a', msg_id, created, record. */
enum { ROW_BYTES = PAYLOAD + 1 + 7 + WB_ID_SIZE + 6 + 10 };

static const char same_sql[] =
    "INSERT INTO outbox(stream, key, subject, headers, msg_id, created, traceparent, payload)"
    " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";

static void must(wb_err err, const char *what, const struct wb_why *why)
{
    if (err == WB_OK)
        return;
    (void)fprintf(stderr, "bench: %s: %s %s\n", what, wb_err_name(err), why->text);
    exit(1);
}

struct store {
    struct db *db;
    struct outbox *outbox;
    struct sqlite3_stmt *insert;
};

/* A new file for each round, so that no contestant inherits the other's pages. */
static void store_open(struct store *store, const char *dir, const char *sql)
{
    static unsigned n;
    struct wb_why why = {""};
    char path[400];

    (void)snprintf(path, sizeof(path), "%s/bench-%d-%u.db", dir, (int)getpid(), n++);
    must(db_open(path, &(struct db_options){.sync = DB_SYNC_NORMAL}, &store->db, &why), "open",
         &why);
    must(outbox_attach(db_handle(store->db), &store->outbox, &why), "attach", &why);
    must(db_exec(store->db, "CREATE TABLE bare(id INTEGER PRIMARY KEY, b BLOB)", &why), "table",
         &why);
    if (sql != NULL)
        must(db_prepare(store->db, sql, &store->insert, &why), "prepare", &why);
}

static void store_close(struct store *store)
{
    char path[400], name[420];

    (void)snprintf(path, sizeof(path), "%s", db_path(store->db));
    sqlite3_finalize(store->insert);
    outbox_detach(store->outbox);
    db_close(store->db);
    static const char *const parts[] = {"", "-wal", "-shm", "-queue", "-wake"};
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        (void)snprintf(name, sizeof(name), "%s%s", path, parts[i]);
        (void)unlink(name);
    }
    *store = (struct store){0};
}

typedef void (*write_one)(struct store *store, size_t n);

static void write_bare(struct store *store, size_t n)
{
    static char row[ROW_BYTES];

    (void)n;
    sqlite3_bind_blob(store->insert, 1, row, sizeof(row), SQLITE_STATIC);
}

static void write_same(struct store *store, size_t n)
{
    static char payload[PAYLOAD];
    static uint8_t id[WB_ID_SIZE];

    memcpy(id, &n, sizeof(n));
    db_bind_text(store->insert, 1, wb_str(""));
    db_bind_text(store->insert, 2, wb_str("k"));
    db_bind_text(store->insert, 3, wb_str("drain.a"));
    db_bind_text(store->insert, 4, wb_str(""));
    sqlite3_bind_blob(store->insert, 5, id, sizeof(id), SQLITE_STATIC);
    sqlite3_bind_int64(store->insert, 6, 1700000000000);
    db_bind_text(store->insert, 7, wb_str(""));
    sqlite3_bind_blob(store->insert, 8, payload, sizeof(payload), SQLITE_STATIC);
}

static void insert_one(struct store *store, size_t n, write_one bind)
{
    struct wb_why why = {""};

    bind(store, n);
    if (sqlite3_step(store->insert) != SQLITE_DONE)
        must(WB_IO, "insert", &why);
    sqlite3_reset(store->insert);
    sqlite3_clear_bindings(store->insert);
}

static void enqueue_one(struct store *store)
{
    static char payload[PAYLOAD];
    const struct outbox_event event = {
        .subject = wb_str("drain.a"), .payload = {payload, sizeof(payload)}, .key = wb_str("k")};
    struct wb_why why = {""};

    must(outbox_enqueue(store->outbox, &event, NULL, &why), "enqueue", &why);
}

struct figure {
    const char *name;
    const char *sql;
    write_one bind; /* NULL: outbox_enqueue() */
    bool wake;
    double rate[ROUNDS], cpu_us[ROUNDS];
    size_t rounds;
};

static double cpu_us(void)
{
    struct rusage use;

    (void)getrusage(RUSAGE_SELF, &use);
    return (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) * 1e6 +
           (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec);
}

static void run(struct figure *figure, const char *dir)
{
    struct store store = {0};
    struct wb_why why = {""};

    store_open(&store, dir, figure->sql);
    double cpu = cpu_us();
    int64_t start = wb_mono_ns(wb_clock_system());
    for (size_t i = 0; i < EVENTS; i++) {
        must(db_begin(store.db, &why), "begin", &why);
        if (figure->bind != NULL)
            insert_one(&store, i, figure->bind);
        else
            enqueue_one(&store);
        must(db_commit(store.db, &why), "commit", &why);
        if (figure->wake)
            outbox_wake(store.outbox);
    }
    int64_t took = wb_mono_ns(wb_clock_system()) - start;
    figure->cpu_us[figure->rounds] = (cpu_us() - cpu) / EVENTS;
    figure->rate[figure->rounds++] = EVENTS * 1e9 / (double)took;
    store_close(&store);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void print(struct figure *figure, const struct figure *floor)
{
    qsort(figure->rate, figure->rounds, sizeof(double), compare);
    qsort(figure->cpu_us, figure->rounds, sizeof(double), compare);
    (void)printf("%-40s %8.0f /s  [%.0f .. %.0f]  %5.1f us CPU", figure->name,
                 figure->rate[figure->rounds / 2], figure->rate[0],
                 figure->rate[figure->rounds - 1], figure->cpu_us[figure->rounds / 2]);
    if (floor != NULL)
        (void)printf("  %5.1f %% of bare, CPU %+.1f us",
                     100 * figure->rate[figure->rounds / 2] / floor->rate[floor->rounds / 2],
                     figure->cpu_us[figure->rounds / 2] - floor->cpu_us[floor->rounds / 2]);
    (void)printf("\n");
}

int main(int argc, char **argv)
{
    struct figure figures[] = {
        {.name = "bare INSERT, two columns",
         .sql = "INSERT INTO bare(b) VALUES(?1)",
         .bind = write_bare},
        {.name = "INSERT into the outbox's table", .sql = same_sql, .bind = write_same},
        {.name = "outbox_enqueue()"},
        {.name = "outbox_enqueue(), outbox_wake()", .wake = true},
    };
    const size_t count = sizeof(figures) / sizeof(figures[0]);
    char made[256];
    const char *dir = argc > 1 ? argv[1] : made;

    if (argc <= 1)
        test_dir_make(made);
    (void)printf(
        "%ld cores, SQLite %s, files in %s; %d rounds of %d transactions with one event of "
        "%d bytes each, synchronous=NORMAL, nobody publishes\n",
        sysconf(_SC_NPROCESSORS_ONLN), sqlite3_libversion(), dir, ROUNDS, EVENTS, PAYLOAD);
    for (size_t round = 0; round < ROUNDS; round++)
        for (size_t i = 0; i < count; i++)
            run(&figures[(i + round) % count], dir);
    for (size_t i = 0; i < count; i++)
        print(&figures[i], i > 0 ? &figures[0] : NULL);
    if (argc <= 1)
        test_dir_remove(made);
    return 0;
}
