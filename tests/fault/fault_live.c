/* fault_live.c - see fault_live.h. */
#include "fault_live.h"

#include <stdio.h>
#include <stdlib.h>

#include <waybill/event_bus_nats.h>
#include <waybill/event_consumer.h>
#include <waybill/outbox_publisher.h>

#define PACE_NS   (4 * WB_MS) /* between two transactions */
#define SETTLE_NS (60 * WB_SEC)

int64_t fault_live_ask(struct fault_live *self, const char *sql)
{
    sqlite3_stmt *stmt = NULL;
    int64_t value = 0;

    if (sqlite3_prepare_v2(self->look, sql, -1, &stmt, NULL) == SQLITE_OK &&
        sqlite3_step(stmt) == SQLITE_ROW)
        value = sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    return value;
}

bool fault_live_published(struct fault_live *self, int64_t last_row)
{
    struct outbox_publisher_health health;

    outbox_publisher_health(self->publisher, &health);
    return health.state == OUTBOX_PUBLISHER_DRAIN &&
           fault_live_ask(self, "SELECT last_id FROM outbox_cursor") >= last_row &&
           fault_live_ask(self, "SELECT count(*) FROM outbox_exception WHERE state NOT IN"
                                " ('waiting', 'expired', 'cancelled')") == 0;
}

void fault_live_say(struct fault_live *self, const char *what)
{
    struct outbox_publisher_health health;
    struct event_consumer_health consumer;

    outbox_publisher_health(self->publisher, &health);
    event_consumer_health(self->consumer, &consumer);
    (void)printf("  BROKEN: %s: publisher %s %s; consumer %s\n", what,
                 outbox_publisher_state_name(health.state), health.problem, consumer.problem);
    (void)fflush(stdout);
}

/* ---- begin ----------------------------------------------------------------------------------- */

/* What the disk cannot do now is part of life, as it is for any module. */
static void *write_all_the_time(void *ctx)
{
    struct fault_live *self = ctx;
    const struct fault_writer_options options = {.sync = DB_SYNC_FULL, .seed = self->writer_seed};
    struct fault_writer *writer = NULL;
    struct wb_why why = {""};

    for (; !atomic_load(&self->stop); fault_rest(PACE_NS)) {
        wb_err err = WB_OK;
        if (!atomic_load(&self->writing))
            continue;
        if (writer == NULL)
            err = fault_writer_try(&self->paths, &options, &writer, &why);
        if (err == WB_OK)
            err = fault_writer_transact(writer, false, &why);
        fault_must(err == WB_OK || err == WB_BUSY || err == WB_UNKNOWN || err == WB_DISK_FULL ||
                       err == WB_IO,
                   "writer: %s", why.text);
    }
    fault_writer_close(writer);
    return NULL;
}

static void connection_changed(void *ctx, bool connected)
{
    struct fault_live *self = ctx;

    atomic_store(connected ? &self->connected_ns : &self->lost_ns, fault_now_ns());
}

void fault_live_serve(struct fault_live *self, const struct fault_live_options *options)
{
    const struct test_nats_options server = {.dir = options->server_dir,
                                             .conf = options->server_conf};

    test_nats_start(&self->server, &server);
}

void fault_live_begin(struct fault_live *self, const struct fault_live_options *options,
                      uint64_t seed)
{
    const struct event_bus_nats_options connect = {.url = options->url != NULL ? options->url
                                                                               : self->server.url};
    char dir[256];
    struct wb_why why = {""};

    if (options->dir == NULL)
        test_dir_make(dir);
    fault_paths_make(&self->paths, options->dir != NULL ? options->dir : dir);
    fault_must(event_bus_nats_create(&connect, true, &self->bus, &why) == WB_OK, "%s", why.text);
    fault_declare_window(self->bus, options->duplicate_window_ns);
    fault_must(event_bus_listen(self->bus, connection_changed, self) == WB_OK, "no listener");
    self->publisher = fault_publisher_start(&self->paths, self->bus, NULL);
    self->consumer = fault_consumer_start(&self->paths, self->bus, NULL);
    fault_must(
        db_checkpointer_start(self->paths.producer, NULL, &self->checkpointers[0], &why) == WB_OK &&
            db_checkpointer_start(self->paths.consumer, NULL, &self->checkpointers[1], &why) ==
                WB_OK,
        "%s", why.text);
    fault_must(sqlite3_open(self->paths.producer, &self->look) == SQLITE_OK &&
                   sqlite3_busy_timeout(self->look, 5000) == SQLITE_OK,
               "open %s", self->paths.producer);
    self->writer_seed = seed;
    atomic_store(&self->stop, false);
    atomic_store(&self->writing, true);
    fault_must(pthread_create(&self->writer, NULL, write_all_the_time, self) == 0, "no thread");
}

/* ---- end ------------------------------------------------------------------------------------- */

bool fault_live_end(struct fault_live *self, struct fault_report *report)
{
    struct fault_report done = {0};
    int64_t until = fault_now_ns() + SETTLE_NS;

    atomic_store(&self->stop, true);
    (void)pthread_join(self->writer, NULL);
    while (fault_behind(&self->paths) != 0 && fault_now_ns() < until)
        fault_rest(10 * WB_MS);
    bool settled = fault_behind(&self->paths) == 0;
    if (!settled)
        fault_live_say(self, "not everything was handled");
    event_consumer_stop(self->consumer);
    outbox_publisher_stop(self->publisher);
    db_checkpointer_stop(self->checkpointers[0]);
    db_checkpointer_stop(self->checkpointers[1]);
    (void)sqlite3_close(self->look);
    fault_conclude(&self->paths, self->bus, &done);
    event_bus_unlisten(self->bus, connection_changed, self);
    event_bus_destroy(self->bus);
    report->broken += done.broken;
    report->transactions += done.transactions;
    report->events += done.events;
    if (done.broken == 0 && settled) {
        test_nats_stop(&self->server);
        test_dir_remove(self->paths.dir);
    } else {
        (void)printf("the files are left in %s and %s\n", self->paths.dir, self->server.dir);
        test_nats_term(&self->server);
    }
    return settled;
}

/* ---- figures --------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

void fault_print_times(const char *what, int64_t *times, size_t count)
{
    if (count == 0)
        return;
    qsort(times, count, sizeof(*times), by_size);
    size_t middle = count / 2, rare = count * 99 / 100;
    (void)printf("; %s p50 %.0f, p99 %.0f, max %.0f ms", what, (double)times[middle] / 1e6,
                 (double)times[rare] / 1e6, (double)times[count - 1] / 1e6);
}
