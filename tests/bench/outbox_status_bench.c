/*
 * outbox_status_bench.c - what a look at an outbox costs, by the length of its table: 10^3 to 10^7
 * rows, all published but the last 1000, with 10 000 rows that wait for their time and 2000 parked.
 *
 * outbox_status_bench [ROWS]: up to so many; default 10 000 000 (about 1.5 GB under TMPDIR).
 */
#include "test_support.h"

#include <sqlite3.h>
#include <stdio.h>
#include <unistd.h>

#include <waybill/db.h>
#include <waybill/outbox.h>

enum { LOOKS = 200, EXCEPTIONS = 12000 };

static void must(wb_err err, const char *what, const struct wb_why *why)
{
    if (err == WB_OK)
        return;
    (void)fprintf(stderr, "bench: %s: %s %s\n", what, wb_err_name(err), why->text);
    exit(1);
}

static void sql(struct db *db, const char *text)
{
    struct wb_why why = {""};

    must(db_exec(db, text, &why), "sql", &why);
}

static void grow(struct db *db, uint64_t from, uint64_t to)
{
    char text[400];

    for (uint64_t at = from; at < to; at += 100000) {
        uint64_t end = at + 100000 < to ? at + 100000 : to;
        (void)snprintf(text, sizeof(text),
                       "WITH RECURSIVE n(i) AS (SELECT %llu UNION ALL SELECT i + 1 FROM n WHERE i <"
                       " %llu) INSERT INTO outbox(subject, key, created, payload)"
                       " SELECT 'orders.placed', 'k', 1700000000000 + i, zeroblob(64) FROM n",
                       (unsigned long long)at + 1, (unsigned long long)end);
        sql(db, text);
        sql(db, "PRAGMA wal_checkpoint(TRUNCATE)");
    }
    (void)snprintf(text, sizeof(text),
                   "INSERT OR REPLACE INTO outbox_cursor(stream, last_id) VALUES('ORDERS', %llu);"
                   "DELETE FROM outbox_exception",
                   (unsigned long long)(to > 1000 ? to - 1000 : 0));
    sql(db, text);
    (void)snprintf(text, sizeof(text),
                   "INSERT INTO outbox_exception(id, state, next_at) SELECT id, iif(id %% 6 = 0,"
                   " 'parked', 'waiting'), 1 FROM outbox WHERE id <= %d",
                   EXCEPTIONS);
    sql(db, text);
    sql(db, "PRAGMA wal_checkpoint(TRUNCATE)");
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void measure(struct db *db, uint64_t rows)
{
    static double us[LOOKS];
    struct outbox_status status;
    struct wb_why why = {""};

    for (size_t i = 0; i < LOOKS; i++) {
        int64_t start = wb_mono_ns(wb_clock_system());
        must(outbox_status(db_handle(db), &status, &why), "status", &why);
        us[i] = (double)(wb_mono_ns(wb_clock_system()) - start) / 1000;
    }
    qsort(us, LOOKS, sizeof(us[0]), compare);
    (void)printf("%10llu rows: outbox_status() p50 %6.0f us  p99 %6.0f us   (%llu rows, %llu%s "
                 "pending, %llu waiting, %llu parked)\n",
                 (unsigned long long)rows, us[LOOKS / 2], us[LOOKS * 99 / 100],
                 (unsigned long long)status.rows, (unsigned long long)status.pending,
                 status.pending_exact ? "" : " about", (unsigned long long)status.waiting,
                 (unsigned long long)status.parked);
}

int main(int argc, char **argv)
{
    uint64_t most = argc > 1 ? strtoull(argv[1], NULL, 10) : 10000000;
    struct wb_why why = {""};
    struct outbox *outbox;
    struct db *db;
    char dir[256], path[300];

    test_dir_make(dir);
    (void)snprintf(path, sizeof(path), "%s/o.db", dir);
    must(db_open(path, &(struct db_options){.sync = DB_SYNC_NORMAL}, &db, &why), "open", &why);
    must(outbox_attach(db_handle(db), &outbox, &why), "attach", &why);
    (void)printf("SQLite %s, files in %s; %d looks each\n", sqlite3_libversion(), dir, LOOKS);
    for (uint64_t rows = 1000, before = 0; rows <= most; before = rows, rows *= 10) {
        grow(db, before, rows);
        measure(db, rows);
    }
    outbox_detach(outbox);
    db_close(db);
    test_dir_remove(dir);
    return 0;
}
