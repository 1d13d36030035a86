/*
 * schedule_bench.c - how close to their due times rows are stored, while ten thousand others wait.
 *
 *   ./dev bench schedule
 *
 * The rows are due evenly over ten seconds, in a random order of their numbers. Late is from the
 * due time to when the nats-server stored the message; both run by the same clock.
 */
#include "bench.h"

#include <waybill/db.h>
#include <waybill/event_bus_nats.h>
#include <waybill/outbox.h>
#include <waybill/outbox_publisher.h>

enum { ROWS = 10000, SPAN_MS = 10000, AHEAD_MS = 2000 };

static const char *const stream = "OUT";

/* A row is due at begin_ms + the number in its payload. */
static void rows_add(struct db *db, int64_t begin_ms)
{
    char sql[400];
    struct wb_why why = {""};

    (void)snprintf(sql, sizeof(sql),
                   "INSERT INTO outbox(subject, due_at, payload)"
                   " WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n LIMIT %d)"
                   " SELECT 'pub.a', %lld + i * %d / %d, i * %d / %d FROM n ORDER BY random()",
                   ROWS, (long long)begin_ms, SPAN_MS, ROWS, SPAN_MS, ROWS);
    must_ok(db_exec(db, sql, &why), "rows", &why);
}

/* Milliseconds; negative: too early. */
static double late_ms(struct event_bus *bus, uint64_t sequence, int64_t begin_ms)
{
    struct event_bus_delivery *delivery;
    struct wb_why why = {""};
    uint64_t offset = 0;

    must_ok(event_bus_get(bus, stream, sequence, &delivery, &why), "get", &why);
    const struct message *msg = &delivery->message;
    must(wb_str_to_u64(wb_str_n(msg->payload.ptr, msg->payload.len), &offset), "payload", NULL);
    double late =
        (double)(delivery->stored_wall_ns - (begin_ms + (int64_t)offset) * WB_MS) / (double)WB_MS;
    event_bus_release(delivery);
    return late;
}

static void wait_stored(struct event_bus *bus, int64_t until_ns)
{
    struct event_bus_stream_info info = {.last_seq = 0};
    struct wb_why why = {""};

    while (info.last_seq < ROWS && now() < until_ns) {
        usleep(100000);
        must_ok(event_bus_stream_info(bus, stream, &info, &why), "stream info", &why);
    }
    must(info.last_seq == ROWS, "every row is stored once", NULL);
}

static void run(struct event_bus *bus, const char *path, struct db *db)
{
    static double late[ROWS];
    const struct outbox_publisher_options options = {
        .path = path, .bus = bus, .streams = &stream, .stream_count = 1};
    int64_t begin_ms = wb_wall_ns(wb_clock_system()) / WB_MS + AHEAD_MS;
    struct outbox_publisher *publisher;
    struct db_checkpointer *checkpointer; /* as a service has one */
    struct wb_why why = {""};

    must_ok(db_checkpointer_start(path, NULL, &checkpointer, &why), "checkpointer", &why);
    rows_add(db, begin_ms);
    must_ok(outbox_publisher_start(&options, &publisher, &why), "publisher", &why);
    wait_stored(bus, now() + (2 * SPAN_MS + AHEAD_MS) * WB_MS);
    outbox_publisher_stop(publisher);
    db_checkpointer_stop(checkpointer);
    for (uint64_t i = 0; i < ROWS; i++)
        late[i] = late_ms(bus, i + 1, begin_ms);
    (void)printf("%d rows due over %d s, late: p50 %.2f ms, p99 %.2f ms, max %.2f ms; earliest "
                 "%.2f ms\n",
                 ROWS, SPAN_MS / 1000, quantile(late, ROWS, 0.5), quantile(late, ROWS, 0.99),
                 quantile(late, ROWS, 1), quantile(late, ROWS, 0));
}

int main(void)
{
    static const char *const subject = "pub.>";
    const struct event_bus_stream_options declared = {
        .name = stream, .subjects = &subject, .subject_count = 1};
    struct test_nats server;
    struct event_bus *bus;
    struct outbox *outbox;
    struct db *db;
    struct wb_why why = {""};
    char dir[256], path[300];

    wb_log_setup(2, WB_LOG_LOGFMT, WB_LOG_WARN);
    test_dir_make(dir);
    (void)snprintf(path, sizeof(path), "%s/o.db", dir);
    test_nats_start(&server, NULL);
    must_ok(event_bus_nats_create(&(struct event_bus_nats_options){.url = server.url}, true, &bus,
                                  &why),
            "connect", &why);
    must_ok(event_bus_declare_stream(bus, &declared, EVENT_BUS_CREATE, &why), "declare", &why);
    must_ok(db_open(path, &(struct db_options){.sync = DB_SYNC_NORMAL}, &db, &why), "open", &why);
    must_ok(outbox_attach(db_handle(db), &outbox, &why), "attach", &why);
    run(bus, path, db);
    outbox_detach(outbox);
    db_close(db);
    event_bus_destroy(bus);
    test_nats_stop(&server);
    test_dir_remove(dir);
    return 0;
}
