/*
 * outbox_retention_bench.c - what letting old rows go costs those who write meanwhile.
 *
 *   outbox_retention_bench [ROWS]     default: 300000 old rows of 300 B
 *
 * One writer commits one event at a time without rest; rounds with and without retention alternate,
 * so that a noisy machine is unfair to both alike.
 */
#include "test_support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "histogram.h"

#include <waybill/db.h>
#include <waybill/outbox_retention.h>

#define ROUNDS   6
#define ROUND_NS (3 * WB_SEC)
#define PAYLOAD  300

static char path[300];
static atomic_bool purging, ended;
static atomic_uint_fast64_t purged;

static void fill(struct db *db, long rows)
{
    struct wb_buf sql = {0};
    struct wb_why why = {""};

    wb_buf_printf(&sql,
                  "BEGIN; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
                  " WHERE i < %ld) INSERT INTO outbox(subject, created, payload)"
                  " SELECT 'orders.placed', 1000 + i, zeroblob(%d) FROM n;"
                  "INSERT INTO outbox_cursor(stream, last_id, verified_id) VALUES('S', %ld, %ld);"
                  "COMMIT; PRAGMA wal_checkpoint(TRUNCATE)",
                  rows, PAYLOAD, rows, rows);
    must_ok(db_exec(db, sql.ptr, &why), "fill", &why);
    wb_buf_free(&sql);
}

/* As the service's thread does it: a step, then nothing for as long as it says. */
static void *purge(void *unused)
{
    const struct outbox_retention_options options = {.path = path};
    struct outbox_retention *retention = NULL;
    struct outbox_retention_result result = {.next_ns = 0};
    struct wb_why why = {""};

    (void)unused;
    must_ok(outbox_retention_open(&options, &retention, &why), "open retention", &why);
    while (!atomic_load(&ended)) {
        result.next_ns = WB_MS;
        if (atomic_load(&purging)) {
            must_ok(outbox_retention_step(retention, &result, &why), "purge", &why);
            atomic_fetch_add(&purged, result.rows);
        }
        usleep((unsigned)((result.next_ns < 100 * WB_MS ? result.next_ns : 100 * WB_MS) / WB_US));
    }
    outbox_retention_close(retention);
    return NULL;
}

static void write_for_a_while(struct db *db, struct outbox *outbox, struct histogram *took)
{
    static const char payload[PAYLOAD];
    const struct outbox_event event = {.subject = wb_str("orders.placed"),
                                       .payload = {payload, sizeof(payload)}};
    struct wb_why why = {""};

    for (int64_t until = now() + ROUND_NS; now() < until;) {
        int64_t start = now();
        must_ok(db_begin(db, &why), "begin", &why);
        must_ok(outbox_enqueue(outbox, &event, NULL, &why), "enqueue", &why);
        must_ok(db_commit(db, &why), "commit", &why);
        add(took, now() - start);
    }
}

int main(int argc, char **argv)
{
    static struct histogram base, during;
    char dir[256];
    struct db_checkpointer *checkpointer = NULL;
    struct db *db = NULL;
    struct outbox *outbox = NULL;
    struct wb_why why = {""};
    pthread_t thread;
    uint64_t gone = 0;

    test_dir_make(dir);
    (void)snprintf(path, sizeof(path), "%s/o.db", dir);
    must_ok(db_open(path, &(struct db_options){.sync = DB_SYNC_NORMAL}, &db, &why), "open", &why);
    must_ok(outbox_attach(db_handle(db), &outbox, &why), "attach", &why);
    fill(db, argc > 1 ? strtol(argv[1], NULL, 10) : 300000);
    must_ok(db_checkpointer_start(path, NULL, &checkpointer, &why), "checkpointer", &why);
    if (pthread_create(&thread, NULL, purge, NULL) != 0)
        return 1;
    for (int i = 0; i < 2 * ROUNDS; i++) {
        atomic_store(&purging, i % 2 == 1);
        uint64_t before = atomic_load(&purged);
        write_for_a_while(db, outbox, i % 2 == 1 ? &during : &base);
        gone += atomic_load(&purged) - before;
    }
    atomic_store(&ended, true);
    pthread_join(thread, NULL);
    print("enqueue + commit", &base);
    print("  while rows go", &during);
    (void)printf("%llu rows went, %.0f/s\n", (unsigned long long)gone,
                 (double)gone * 1e9 / (double)(ROUNDS * ROUND_NS));
    outbox_detach(outbox);
    db_checkpointer_stop(checkpointer);
    db_close(db);
    test_dir_remove(dir);
    return 0;
}
