/*
 * verify_bench.c - how fast a stream is compared with its outbox, beside a mere scan of its
 * headers.
 *
 *     ./dev bench verify [MESSAGES [PAYLOAD BYTES]]
 *
 * A table of rows is published to a nats-server of its own, some messages are deleted, and every
 * round must find just these.
 */
#include "bench.h"

#include <time.h>

#include <waybill/db.h>
#include <waybill/event_bus_nats.h>
#include <waybill/outbox.h>
#include <waybill/outbox_publisher.h>
#include <waybill/outbox_verify.h>

#define DELETED 3

struct bench {
    struct test_nats server;
    char dir[256];
    char path[300];
    struct event_bus *bus;
    struct db *db;
    size_t count;
};

static void fill_table(struct bench *b, size_t payload)
{
    struct outbox *outbox;
    char sql[300];
    struct wb_why why = {""};

    must_ok(db_open(b->path, &(struct db_options){.sync = DB_SYNC_NORMAL}, &b->db, &why), "open",
            &why);
    must_ok(outbox_attach(db_handle(b->db), &outbox, &why), "attach", &why);
    outbox_detach(outbox);
    (void)snprintf(sql, sizeof(sql),
                   "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %zu)"
                   " INSERT INTO outbox(subject, key, payload)"
                   " SELECT 'a.x', 'k' || (i %% 1000), zeroblob(%zu) FROM n",
                   b->count, payload);
    must_ok(db_exec(b->db, sql, &why), "fill the table", &why);
}

static void publish(struct bench *b)
{
    static const char *const streams[] = {"A"}, *const subjects[] = {"a.>"};
    const struct outbox_publisher_options options = {
        .path = b->path, .bus = b->bus, .streams = streams, .stream_count = 1};
    struct outbox_publisher *publisher;
    struct wb_why why = {""};

    must_ok(event_bus_declare_stream(
                b->bus,
                &(struct event_bus_stream_options){
                    .name = "A", .subjects = subjects, .subject_count = 1, .max_bytes = 8U << 30},
                EVENT_BUS_CREATE, &why),
            "declare", &why);
    must_ok(outbox_publisher_start(&options, &publisher, &why), "publisher", &why);
    must_ok(outbox_publisher_flush(publisher, 600 * WB_SEC, &why), "publish", &why);
    outbox_publisher_stop(publisher);
    for (uint64_t i = 1; i <= DELETED; i++)
        test_nats_delete(&b->server, "A", i * b->count / (DELETED + 1));
}

/* Of this process; the server's is not in it. Does not mind what else the machine does. */
static int64_t cpu_ns(void)
{
    struct timespec time;

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (int64_t)time.tv_sec * WB_SEC + time.tv_nsec;
}

static bool count_one(void *ctx, const struct event_bus_delivery *delivery)
{
    size_t *seen = ctx;

    (void)delivery;
    ++*seen;
    return true;
}

static void scan_round(struct bench *b, struct rate *rate)
{
    struct wb_why why = {""};
    uint64_t next;
    size_t seen = 0;
    int64_t start = now();

    must_ok(event_bus_scan(b->bus, "A", 1, UINT64_MAX, count_one, &seen, &next, &why), "scan",
            &why);
    add_rate(rate, seen, now() - start);
    must(seen == b->count - DELETED, "scan: not all were seen", NULL);
}

static void verify_round(struct bench *b, struct rate *rate)
{
    const struct outbox_verify_options options = {.stream = "A"};
    struct outbox_verify_report report;
    struct wb_why why = {""};
    int64_t start = now();

    must_ok(outbox_verify(b->db, b->bus, &options, &report, &why), "verify", &why);
    add_rate(rate, report.messages, now() - start);
    must(report.missing == DELETED && report.found == b->count - DELETED && report.doubled == 0,
         "verify: it did not find just what was deleted", NULL);
    outbox_verify_report_free(&report);
}

int main(int argc, char **argv)
{
    struct bench b = {.count = argc > 1 ? strtoul(argv[1], NULL, 10) : 300000};
    size_t payload = argc > 2 ? strtoul(argv[2], NULL, 10) : 300;
    struct rate scans = {.name = "scan of headers"}, verifies = {.name = "outbox verify"};
    int64_t scan_cpu = 0, verify_cpu = 0;
    struct wb_why why = {""};

    wb_log_setup(2, WB_LOG_LOGFMT, WB_LOG_ERROR);
    test_dir_make(b.dir);
    (void)snprintf(b.path, sizeof(b.path), "%s/m.db", b.dir);
    test_nats_start(&b.server, NULL);
    must_ok(event_bus_nats_create(&(struct event_bus_nats_options){.url = b.server.url}, true,
                                  &b.bus, &why),
            "connect", &why);
    fill_table(&b, payload);
    publish(&b);
    (void)printf("%zu messages of %zu B; messages/s, median and range of %d rounds\n", b.count,
                 payload, ROUNDS);
    for (int i = 0; i < ROUNDS; i++) {
        int64_t began = cpu_ns();
        scan_round(&b, &scans);
        int64_t scanned = cpu_ns();
        verify_round(&b, &verifies);
        scan_cpu += scanned - began;
        verify_cpu += cpu_ns() - scanned;
    }
    (void)print_rate(&scans, NULL);
    (void)print_rate(&verifies, NULL);
    (void)printf("CPU of this process: %.2f us a message to scan, %.2f to verify\n",
                 (double)scan_cpu / 1e3 / ROUNDS / (double)b.count,
                 (double)verify_cpu / 1e3 / ROUNDS / (double)b.count);
    event_bus_destroy(b.bus);
    db_close(b.db);
    test_nats_stop(&b.server);
    test_dir_remove(b.dir);
    return 0;
}
