/*
 * outbox_enqueue_bench.c - what an event costs its writer: one event per transaction, NORMAL.
 *
 * Beside it, in slices of a hundred transactions that take turns, the floor: one INSERT of the same
 * bytes through db_begin() and db_commit(), on a connection of the same kind, into a file of the
 * same kind. "bare" is a table of two columns, id and one blob as long as all columns of the event
 * together; then the outbox's own table with its constraint and triggers, written by a prepared
 * INSERT of ready values. What enqueue does more: it checks subject, headers and sizes, draws an
 * identity, reads the clock, and wakes the publisher.
 *
 * outbox_enqueue_bench [DIR]; default: a new directory under TMPDIR.
 */
#include "test_support.h"

#include <sqlite3.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include <waybill/db.h>
#include <waybill/outbox.h>

enum { ROUNDS = 7, SLICES = 200, SLICE = 100, EVENTS = SLICES * SLICE, PAYLOAD = 256 };

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
    struct store store;
    double cpu, wall; /* of this round, us */
    double rate[ROUNDS], cpu_us[ROUNDS];
};

static double now_us(clockid_t clock)
{
    struct timespec now;

    (void)clock_gettime(clock, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void slice(struct figure *figure, size_t first)
{
    struct store *store = &figure->store;
    struct wb_why why = {""};
    double cpu = now_us(CLOCK_THREAD_CPUTIME_ID), wall = now_us(CLOCK_MONOTONIC);

    for (size_t i = first; i < first + SLICE; i++) {
        must(db_begin(store->db, &why), "begin", &why);
        if (figure->bind != NULL)
            insert_one(store, i, figure->bind);
        else
            enqueue_one(store);
        must(db_commit(store->db, &why), "commit", &why);
        if (figure->wake)
            outbox_wake(store->outbox);
    }
    figure->cpu += now_us(CLOCK_THREAD_CPUTIME_ID) - cpu;
    figure->wall += now_us(CLOCK_MONOTONIC) - wall;
}

static void round_run(struct figure *figures, size_t count, size_t round, const char *dir)
{
    for (size_t i = 0; i < count; i++)
        store_open(&figures[i].store, dir, figures[i].sql);
    for (size_t n = 0; n < SLICES; n++)
        for (size_t i = 0; i < count; i++)
            slice(&figures[(i + n) % count], n * SLICE);
    for (size_t i = 0; i < count; i++) {
        struct figure *figure = &figures[i];
        figure->rate[round] = EVENTS * 1e6 / figure->wall;
        figure->cpu_us[round] = figure->cpu / EVENTS;
        figure->cpu = figure->wall = 0;
        store_close(&figure->store);
    }
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void print(struct figure *figure, const struct figure *bare)
{
    double of_bare[ROUNDS], cpu_of_bare[ROUNDS];

    for (size_t i = 0; i < ROUNDS; i++) {
        of_bare[i] = 100 * figure->rate[i] / bare->rate[i];
        cpu_of_bare[i] = 100 * figure->cpu_us[i] / bare->cpu_us[i];
    }
    qsort(of_bare, ROUNDS, sizeof(double), compare);
    qsort(cpu_of_bare, ROUNDS, sizeof(double), compare);
    double rate[ROUNDS], cpu[ROUNDS];
    memcpy(rate, figure->rate, sizeof(rate));
    memcpy(cpu, figure->cpu_us, sizeof(cpu));
    qsort(rate, ROUNDS, sizeof(double), compare);
    qsort(cpu, ROUNDS, sizeof(double), compare);
    (void)printf("%-38s %8.0f /s  [%.0f .. %.0f]  %5.1f us CPU", figure->name, rate[ROUNDS / 2],
                 rate[0], rate[ROUNDS - 1], cpu[ROUNDS / 2]);
    if (figure != bare)
        (void)printf("   %5.1f %% of the rate of bare, %5.1f %% of its CPU", of_bare[ROUNDS / 2],
                     cpu_of_bare[ROUNDS / 2]);
    (void)printf("\n");
}

int main(int argc, char **argv)
{
    struct figure figures[] = {
        {.name = "bare INSERT, id and one blob",
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
        round_run(figures, count, round, dir);
    for (size_t i = 0; i < count; i++)
        print(&figures[i], &figures[0]);
    (void)printf(
        "the same db_begin() and db_commit() for all; bare writes %d bytes, as many as a row "
        "of the outbox has\n",
        (int)ROW_BYTES);
    if (argc <= 1)
        test_dir_remove(made);
    return 0;
}
