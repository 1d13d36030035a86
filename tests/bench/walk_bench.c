/*
 * walk_bench.c - what the way of one event costs, part by part, with a raw nats.c program doing the
 * same (same options, same payloads) in the same run.
 *
 * Rounds alternate between the contestants, so that a noisy machine is unfair to all alike; the
 * table gives medians with the range. Loss, doubles and order are checked as the figures are taken.
 */
#include "bench.h"

#include <sqlite3.h>

#include <waybill/db.h>
#include <waybill/event_bus_memory.h>
#include <waybill/event_bus_nats.h>
#include <waybill/event_consumer.h>
#include <waybill/outbox.h>
#include <waybill/outbox_publisher.h>

#define MESSAGES  20000
#define PAYLOAD   256
#define LATENCIES 500

/* ---- counting what arrives ------------------------------------------------------------------- */

static void published(void *ctx, wb_err err, const struct event_bus_ack_info *ack,
                      const struct wb_why *why)
{
    struct tally *tally = ctx;

    (void)why;
    if (err != WB_OK || ack->sequence <= atomic_load(&tally->last))
        atomic_fetch_add(&tally->errors, 1);
    atomic_store(&tally->last, ack->sequence);
    atomic_fetch_add(&tally->count, 1);
}

static void delivered(void *ctx, struct event_bus_delivery *delivery)
{
    struct tally *tally = ctx;

    if (delivery->sequence <= atomic_load(&tally->last))
        atomic_fetch_add(&tally->errors, 1);
    atomic_store(&tally->last, delivery->sequence);
    (void)event_bus_ack(delivery);
    atomic_fetch_add(&tally->count, 1);
}

/* ---- our bus --------------------------------------------------------------------------------- */

static uint64_t stream_last(struct event_bus *bus, const char *stream)
{
    struct event_bus_stream_info info;
    struct wb_why why = {""};

    must_ok(event_bus_stream_info(bus, stream, &info, &why), "stream info", &why);
    return info.last_seq;
}

/* Pipelined, with ids, chained: what the outbox publisher does, without the outbox. */
static void bench_publish(struct event_bus *bus, struct rate *rate)
{
    static char payload[PAYLOAD];
    uint64_t last = stream_last(bus, "PUB");
    struct tally tally = {0};
    struct wb_why why = {""};
    int64_t start = now();

    for (size_t i = 0; i < MESSAGES; i++) {
        uint8_t id[WB_ID_SIZE];
        char id_text[WB_ID_TEXT];
        wb_id_new(wb_clock_system(), id);
        wb_hex_encode(id, sizeof(id), id_text);
        const struct message msg = {.subject = wb_str("pub.a"),
                                    .payload = {payload, sizeof(payload)},
                                    .msg_id = wb_str(id_text)};
        const struct event_bus_publish_options options = {.expect_last_seq = true,
                                                          .last_seq = last + i};
        must_ok(event_bus_publish_async(bus, &msg, &options, published, &tally, &why), "publish",
                &why);
        while (i + 1 - atomic_load(&tally.count) >= WINDOW)
            usleep(20);
    }
    wait_count(&tally, MESSAGES, "publish: acks");
    add_rate(rate, MESSAGES, now() - start);
}

static void bench_deliver(struct event_bus *bus, struct rate *rate)
{
    static const char *const patterns[] = {"pub.>"};
    struct tally tally = {0};
    struct event_bus_subscription *subscription;
    struct wb_why why = {""};
    uint64_t last = stream_last(bus, "PUB");
    const struct event_bus_subscription_options options = {.patterns = patterns,
                                                           .pattern_count = 1,
                                                           .start = EVENT_BUS_START_SEQUENCE,
                                                           .start_sequence = last - MESSAGES + 1,
                                                           .handler = delivered,
                                                           .ctx = &tally};
    int64_t start = now();

    must_ok(event_bus_subscribe(bus, &options, &subscription, &why), "subscribe", &why);
    wait_count(&tally, MESSAGES, "deliver");
    add_rate(rate, MESSAGES, now() - start);
    event_bus_unsubscribe(subscription);
}

/* ---- the outbox ------------------------------------------------------------------------------ */

struct store {
    struct db *db;
    struct outbox *outbox;
    char path[300];
};

static void store_open(struct store *store, const char *dir, const char *name, db_sync sync)
{
    const struct db_options options = {.sync = sync};
    struct wb_why why = {""};

    (void)snprintf(store->path, sizeof(store->path), "%s/%s.db", dir, name);
    must_ok(db_open(store->path, &options, &store->db, &why), "open", &why);
    must_ok(outbox_attach(db_handle(store->db), &store->outbox, &why), "attach", &why);
    must_ok(
        db_exec(store->db, "CREATE TABLE IF NOT EXISTS bare(id INTEGER PRIMARY KEY, b BLOB)", &why),
        "table", &why);
}

static void store_close(struct store *store)
{
    outbox_detach(store->outbox);
    db_close(store->db);
}

static void enqueue(struct store *store, size_t count, size_t per_transaction)
{
    static char payload[PAYLOAD];
    const struct outbox_event event = {
        .subject = wb_str("drain.a"), .payload = {payload, sizeof(payload)}, .key = wb_str("k")};
    struct wb_why why = {""};

    for (size_t i = 0; i < count; i += per_transaction) {
        must_ok(db_begin(store->db, &why), "begin", &why);
        for (size_t j = 0; j < per_transaction; j++)
            must_ok(outbox_enqueue(store->outbox, &event, NULL, &why), "enqueue", &why);
        must_ok(db_commit(store->db, &why), "commit", &why);
        outbox_wake(store->outbox);
    }
}

static void bench_enqueue(struct store *store, size_t count, size_t per_transaction,
                          struct rate *rate)
{
    int64_t start = now();

    enqueue(store, count, per_transaction);
    add_rate(rate, count, now() - start);
    struct wb_why why = {""};
    must_ok(db_exec(store->db, "PRAGMA wal_checkpoint(TRUNCATE)", &why), "checkpoint", &why);
}

/* The floor: one INSERT of the same bytes in a transaction of its own. */
static void bench_bare_insert(struct store *store, size_t count, struct rate *rate)
{
    struct sqlite3_stmt *insert;
    struct wb_why why = {""};
    static char payload[PAYLOAD + 60]; /* what a row of the outbox holds besides its payload */

    must_ok(db_prepare(store->db, "INSERT INTO bare(b) VALUES(?)", &insert, &why), "prepare", &why);
    int64_t start = now();
    for (size_t i = 0; i < count; i++) {
        must_ok(db_begin(store->db, &why), "begin", &why);
        sqlite3_bind_blob(insert, 1, payload, sizeof(payload), SQLITE_STATIC);
        must(sqlite3_step(insert) == SQLITE_DONE, "insert", NULL);
        sqlite3_reset(insert);
        must_ok(db_commit(store->db, &why), "commit", &why);
    }
    add_rate(rate, count, now() - start);
    sqlite3_finalize(insert);
    must_ok(db_exec(store->db, "PRAGMA wal_checkpoint(TRUNCATE)", &why), "checkpoint", &why);
}

static void declare(struct event_bus *bus, const char *name, const char *subject)
{
    const struct event_bus_stream_options options = {
        .name = name, .subjects = &subject, .subject_count = 1};
    struct wb_why why = {""};

    must_ok(event_bus_declare_stream(bus, &options, EVENT_BUS_CREATE, &why), "declare", &why);
}

static void bench_drain(struct event_bus *bus, const char *dir, size_t round, struct rate *rate)
{
    static const char *const stream = "DRAIN";
    struct outbox_publisher *publisher;
    struct wb_why why = {""};
    struct store store;
    char name[64];

    /* A database that is new to a stream reads first what that holds: there is nothing. */
    must_ok(event_bus_delete_stream(bus, stream, &why), "delete", &why);
    declare(bus, stream, "drain.>");
    (void)snprintf(name, sizeof(name), "drain-%s-%zu", event_bus_kind(bus), round);
    store_open(&store, dir, name, DB_SYNC_NORMAL);
    enqueue(&store, MESSAGES, 500);
    const struct outbox_publisher_options options = {
        .path = store.path, .bus = bus, .streams = &stream, .stream_count = 1};
    int64_t start = now();
    must_ok(outbox_publisher_start(&options, &publisher, &why), "publisher", &why);
    must_ok(outbox_publisher_flush(publisher, DEADLINE_NS, &why), "flush", &why);
    add_rate(rate, MESSAGES, now() - start);
    must(stream_last(bus, stream) == MESSAGES, "drain: every row stored once", NULL);
    outbox_publisher_stop(publisher);
    store_close(&store);
}

/* ---- commit to handler ----------------------------------------------------------------------- */

struct latency {
    double us[LATENCIES];
    atomic_size_t count;
};

static wb_err arrived(void *ctx, const struct event_consumer_event *event, struct wb_why *why)
{
    struct latency *latency = ctx;
    int64_t sent;

    (void)why;
    memcpy(&sent, event->delivery->message.payload.ptr, sizeof(sent));
    size_t at = atomic_load(&latency->count);
    latency->us[at % LATENCIES] = (double)(now() - sent) / 1000;
    atomic_store(&latency->count, at + 1);
    return WB_OK;
}

/* The stamp is taken right before COMMIT, so the commit's own time is counted too. */
static void commit_stamped(struct store *store)
{
    struct wb_why why = {""};
    int64_t stamp = now();
    const struct outbox_event event = {.subject = wb_str("late.a"),
                                       .payload = {&stamp, sizeof(stamp)}};

    must_ok(db_begin(store->db, &why), "begin", &why);
    must_ok(outbox_enqueue(store->outbox, &event, NULL, &why), "enqueue", &why);
    must_ok(db_commit(store->db, &why), "commit", &why);
    outbox_wake(store->outbox);
}

static void bench_latency(struct event_bus *bus, const char *dir)
{
    static const char *const stream = "LATE";
    static const char *const patterns[] = {"late.>"};
    static struct latency latency;
    struct outbox_publisher *publisher;
    struct event_consumer *consumer;
    struct wb_why why = {""};
    struct store store;
    char consumer_path[400];
    char name[64];

    latency.count = 0;
    (void)snprintf(name, sizeof(name), "late-%s", event_bus_kind(bus));
    store_open(&store, dir, name, DB_SYNC_NORMAL);
    (void)snprintf(consumer_path, sizeof(consumer_path), "%s/%s-consumer.db", dir, name);
    const struct outbox_publisher_options publishing = {
        .path = store.path, .bus = bus, .streams = &stream, .stream_count = 1};
    const struct event_consumer_options consuming = {.name = "late",
                                                     .path = consumer_path,
                                                     .bus = bus,
                                                     .patterns = patterns,
                                                     .pattern_count = 1,
                                                     .handler = arrived,
                                                     .ctx = &latency,
                                                     .sync = DB_SYNC_NORMAL};
    must_ok(outbox_publisher_start(&publishing, &publisher, &why), "publisher", &why);
    must_ok(event_consumer_start(&consuming, &consumer, &why), "consumer", &why);
    for (size_t i = 0; i < LATENCIES; i++) {
        int64_t until = now() + DEADLINE_NS;
        commit_stamped(&store);
        while (atomic_load(&latency.count) <= i && now() < until)
            usleep(20);
        must(atomic_load(&latency.count) == i + 1, "latency: each event handled once", NULL);
        usleep(1000);
    }
    event_consumer_stop(consumer);
    outbox_publisher_stop(publisher);
    store_close(&store);
    double p50 = quantile(latency.us, LATENCIES, 0.5);
    (void)printf("commit to handler, %-26s p50 %7.0f us   p99 %7.0f us\n", event_bus_kind(bus), p50,
                 quantile(latency.us, LATENCIES, 0.99));
}

/* ---- the run --------------------------------------------------------------------------------- */

static void print_machine(const char *dir)
{
    char version[64] = "nats-server ?";
    FILE *pipe = popen("nats-server --version 2>/dev/null", "re");

    if (pipe != NULL) {
        if (fgets(version, sizeof(version), pipe) != NULL)
            version[strcspn(version, "\n")] = '\0';
        (void)pclose(pipe);
    }
    (void)printf("%ld cores, %s, SQLite %s, nats.c %s, files in %s\n%d rounds of %d messages of %d "
                 "bytes, window %d\n\n",
                 sysconf(_SC_NPROCESSORS_ONLN), version, sqlite3_libversion(), nats_GetVersion(),
                 dir, ROUNDS, MESSAGES, PAYLOAD, WINDOW);
}

static void declare_all(struct event_bus *bus)
{
    declare(bus, "PUB", "pub.>");
    declare(bus, "DRAIN", "drain.>");
    declare(bus, "LATE", "late.>");
}

int main(void)
{
    struct rate raw_rate = {.name = "JetStream publish, raw nats.c, chained"};
    struct rate nats_rate = {.name = "JetStream publish, event_bus, chained"};
    struct rate nats_deliver = {.name = "JetStream deliver, explicit acks"};
    struct rate nats_drain = {.name = "JetStream outbox drain"};
    struct rate memory_rate = {.name = "memory publish, chained"};
    struct rate memory_deliver = {.name = "memory deliver, explicit acks"};
    struct rate memory_drain = {.name = "memory outbox drain"};
    struct rate bare = {.name = "bare INSERT, 1 per transaction, NORMAL"};
    struct rate single = {.name = "outbox enqueue, 1 per transaction, NORMAL"};
    struct rate full = {.name = "outbox enqueue, 1 per transaction, FULL"};
    struct rate hundred = {.name = "outbox enqueue, 100 per transaction, NORMAL"};
    struct event_bus *memory;
    struct event_bus *nats;
    struct test_nats server;
    struct wb_why why = {""};
    struct store normal_store;
    struct store full_store;
    struct raw raw = {0};
    char dir[256];

    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    test_dir_make(dir);
    test_nats_start(&server, NULL);
    print_machine(dir);
    const struct event_bus_nats_options options = {.url = server.url};
    must_ok(event_bus_nats_create(&options, true, &nats, &why), "connect", &why);
    must_ok(event_bus_memory_create(NULL, &memory), "memory bus", NULL);
    declare_all(nats);
    declare_all(memory);
    raw_connect(&raw, server.url, false);
    store_open(&normal_store, dir, "normal", DB_SYNC_NORMAL);
    store_open(&full_store, dir, "full", DB_SYNC_FULL);

    for (size_t round = 0; round < ROUNDS; round++) {
        bench_raw_publish(&raw, stream_last(nats, "PUB"), MESSAGES, PAYLOAD, &raw_rate);
        bench_drain(nats, dir, round, &nats_drain);
        bench_publish(nats, &nats_rate);
        bench_deliver(nats, &nats_deliver);
        bench_publish(memory, &memory_rate);
        bench_deliver(memory, &memory_deliver);
        bench_drain(memory, dir, round, &memory_drain);
        bench_bare_insert(&normal_store, MESSAGES, &bare);
        bench_enqueue(&normal_store, MESSAGES, 1, &single);
        bench_enqueue(&normal_store, MESSAGES, 100, &hundred);
        bench_enqueue(&full_store, MESSAGES / 10, 1, &full);
    }
    (void)print_rate(&raw_rate, NULL);
    (void)print_rate(&nats_rate, &raw_rate);
    (void)print_rate(&nats_drain, &raw_rate);
    (void)print_rate(&nats_deliver, NULL);
    (void)print_rate(&memory_rate, NULL);
    (void)print_rate(&memory_deliver, NULL);
    (void)print_rate(&memory_drain, NULL);
    (void)print_rate(&bare, NULL);
    (void)print_rate(&single, NULL);
    (void)print_rate(&hundred, NULL);
    (void)print_rate(&full, NULL);
    bench_latency(memory, dir);
    bench_latency(nats, dir);

    store_close(&normal_store);
    store_close(&full_store);
    natsConnection_Destroy(raw.connection);
    event_bus_destroy(nats);
    event_bus_destroy(memory);
    test_nats_stop(&server);
    test_dir_remove(dir);
    return 0;
}
