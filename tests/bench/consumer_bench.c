/*
 * consumer_bench.c - how fast a consumer hands events to a trivial handler, each once: from the
 * in-memory bus, with and without groups; and how much room a million handled events take.
 *
 * Rounds alternate between the contestants, so that a noisy machine is unfair to all alike. That
 * each event was handled, once, is checked as the figures are taken.
 */
#include "test_support.h"

#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <unistd.h>

#include <waybill/db.h>
#include <waybill/event_bus_memory.h>
#include <waybill/event_consumer.h>
#include <waybill/inbox.h>

#define ROUNDS      5
#define EVENTS      100000
#define HANDLED     1000000
#define PAYLOAD     256
#define DEADLINE_NS (120 * WB_SEC)

static int64_t now(void)
{
    return wb_mono_ns(wb_clock_system());
}

static void must(bool good, const char *what)
{
    if (good)
        return;
    (void)fprintf(stderr, "bench: %s\n", what);
    exit(1);
}

static void must_ok(wb_err err, const char *what, const struct wb_why *why)
{
    if (err == WB_OK)
        return;
    (void)fprintf(stderr, "bench: %s: %s %s\n", what, wb_err_name(err), why->text);
    exit(1);
}

static int64_t query(struct db *db, const char *sql)
{
    struct sqlite3_stmt *stmt = NULL;
    struct wb_why why = {""};

    must_ok(db_prepare(db, sql, &stmt, &why), sql, &why);
    must(sqlite3_step(stmt) == SQLITE_ROW, sql);
    int64_t value = sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    return value;
}

/* ---- events ---------------------------------------------------------------------------------- */

struct event {
    char row[24], id[WB_ID_TEXT], payload[PAYLOAD];
    struct message_header headers[2];
    struct message message;
};

static const struct message *event_of(struct event *event, int64_t row)
{
    (void)snprintf(event->row, sizeof(event->row), "%" PRId64, row);
    (void)snprintf(event->id, sizeof(event->id), "%032" PRIx64, (uint64_t)row);
    memset(event->payload, 'x', sizeof(event->payload));
    event->headers[0] =
        (struct message_header){wb_str(MESSAGE_HEADER_SOURCE), wb_str("0123456789abcdef")};
    event->headers[1] = (struct message_header){wb_str(MESSAGE_HEADER_ROW), wb_str(event->row)};
    event->message = (struct message){.subject = wb_str("bench.thing.done"),
                                      .payload = {event->payload, PAYLOAD},
                                      .headers = event->headers,
                                      .header_count = 2,
                                      .msg_id = wb_str(event->id)};
    return &event->message;
}

static struct event_bus *make_bus(void)
{
    static const char *const subjects[] = {"bench.>"};
    const struct event_bus_stream_options stream = {
        .name = "BENCH", .subjects = subjects, .subject_count = 1};
    struct event_bus *bus = NULL;
    struct event event;
    struct wb_why why = {""};

    must_ok(event_bus_memory_create(NULL, &bus), "create the bus", &why);
    must_ok(event_bus_declare_stream(bus, &stream, EVENT_BUS_CREATE, &why), "declare", &why);
    for (int i = 1; i <= EVENTS; i++)
        must_ok(event_bus_publish(bus, event_of(&event, i), NULL, NULL, &why), "publish", &why);
    return bus;
}

/* ---- a consumer ------------------------------------------------------------------------------ */

static wb_err open_scope(void *ctx, struct db *db, void **ret_scope, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = NULL;

    (void)ctx;
    wb_err err =
        db_exec(db, "CREATE TABLE effect(n INTEGER PRIMARY KEY, subject TEXT NOT NULL)", why);
    if (err == WB_OK)
        err = db_prepare(db, "INSERT INTO effect(subject) VALUES(?1)", &stmt, why);
    if (err == WB_OK)
        *ret_scope = stmt;
    return err;
}

static void close_scope(void *ctx, void *scope)
{
    (void)ctx;
    sqlite3_finalize(scope);
}

/* One row into a table: what is left is the cost of exactly-once. */
static wb_err handle(void *ctx, const struct event_consumer_event *event, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = event->scope;

    (void)ctx;
    db_bind_text(stmt, 1, event->delivery->message.subject);
    wb_err err = db_error(db_handle(event->db), sqlite3_step(stmt), "write the effect", why);
    sqlite3_reset(stmt);
    return err;
}

static void wait_handled(struct event_consumer *consumer)
{
    struct event_consumer_health health;
    int64_t until = now() + DEADLINE_NS;

    do {
        usleep(200);
        event_consumer_health(consumer, &health);
    } while (health.handled < EVENTS && now() < until);
    must(health.handled == EVENTS && health.duplicates == 0 && health.failed == 0,
         "the events were not handled once each");
}

static double consume(uint32_t group, db_sync sync)
{
    static const char *const patterns[] = {"bench.>"};
    char dir[256], path[300];
    struct event_consumer *consumer = NULL;
    struct wb_why why = {""};
    struct db *db = NULL;

    test_dir_make(dir);
    (void)snprintf(path, sizeof(path), "%s/bench.db", dir);
    struct event_bus *bus = make_bus();
    const struct event_consumer_options options = {.name = "bench",
                                                   .path = path,
                                                   .bus = bus,
                                                   .patterns = patterns,
                                                   .pattern_count = 1,
                                                   .handler = handle,
                                                   .open = open_scope,
                                                   .close = close_scope,
                                                   .sync = sync,
                                                   .group = group};
    int64_t begin = now();
    must_ok(event_consumer_start(&options, &consumer, &why), "start", &why);
    wait_handled(consumer);
    double rate = EVENTS * 1e9 / (double)(now() - begin);
    event_consumer_stop(consumer);
    event_bus_destroy(bus);
    must_ok(db_open(path, NULL, &db, &why), "open", &why);
    must(query(db, "SELECT count(*) FROM effect") == EVENTS, "effects were lost or doubled");
    db_close(db);
    test_dir_remove(dir);
    return rate;
}

/* ---- room ------------------------------------------------------------------------------------ */

static void claim_many(struct db *db, struct inbox *inbox, int64_t step)
{
    struct inbox_origin origin = {.stream = wb_str("BENCH"), .stream_created_wall_ns = 1};
    struct wb_why why = {""};
    struct event event;

    for (int64_t row = step; row <= HANDLED; row += step) {
        bool first = row % (64 * step) == step || step > HANDLED / 64;
        bool last = row % (64 * step) == 0 || row + step > HANDLED;
        if (first) {
            must_ok(db_begin(db, &why), "begin", &why);
            must_ok(inbox_batch_begin(inbox, &why), "begin a batch", &why);
        }
        const struct message *msg = event_of(&event, row);
        origin.sequence = (uint64_t)row;
        origin.stored_wall_ns = row * WB_MS;
        must_ok(inbox_claim(inbox, msg, &origin, &why), "claim", &why);
        must_ok(inbox_batch_keep(inbox, &why), "keep", &why);
        if (!last)
            continue;
        must_ok(inbox_batch_end(inbox, &why), "end", &why);
        must_ok(inbox_advance(inbox, msg, &origin, &why), "advance", &why);
        must_ok(db_commit(db, &why), "commit", &why);
    }
}

static void print_room(const char *name, int64_t step)
{
    const struct db_options normal = {.sync = DB_SYNC_NORMAL};
    char dir[256], path[300];
    struct inbox *inbox = NULL;
    struct wb_why why = {""};
    struct db *db = NULL;

    test_dir_make(dir);
    (void)snprintf(path, sizeof(path), "%s/bench.db", dir);
    must_ok(db_open(path, &normal, &db, &why), "open", &why);
    must_ok(inbox_attach(db_handle(db), "bench", &inbox, &why), "attach", &why);
    int64_t begin = now();
    claim_many(db, inbox, step);
    double rate = (double)HANDLED / (double)step * 1e9 / (double)(now() - begin);
    int64_t bytes = query(db, "SELECT sum(pgsize) FROM dbstat WHERE name LIKE 'inbox%'");
    (void)printf("%-44s %10" PRId64 " bytes   claimed at %.0f /s\n", name, bytes, rate);
    inbox_detach(inbox);
    db_close(db);
    test_dir_remove(dir);
}

/* ---- figures --------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(void)
{
    static const struct {
        const char *name;
        uint32_t group;
        db_sync sync;
    } contestants[] = {
        {"one event in a transaction, NORMAL", 1, DB_SYNC_NORMAL},
        {"groups of up to 64, NORMAL", 64, DB_SYNC_NORMAL},
        {"groups of up to 64, FULL", 64, DB_SYNC_FULL},
    };
    enum { COUNT = sizeof(contestants) / sizeof(contestants[0]) };
    double rates[COUNT][ROUNDS];

    wb_log_setup(2, WB_LOG_LOGFMT, WB_LOG_ERROR);
    for (int round = 0; round < ROUNDS; round++)
        for (size_t i = 0; i < COUNT; i++)
            rates[i][round] = consume(contestants[i].group, contestants[i].sync);
    (void)printf("in-memory bus, inbox, one INSERT; %d events of %d bytes\n", EVENTS, PAYLOAD);
    for (size_t i = 0; i < COUNT; i++) {
        qsort(rates[i], ROUNDS, sizeof(rates[i][0]), compare);
        (void)printf("%-44s %10.0f /s  [%.0f .. %.0f]\n", contestants[i].name, rates[i][ROUNDS / 2],
                     rates[i][0], rates[i][ROUNDS - 1]);
    }
    (void)printf("tables of the inbox\n");
    print_room("1 M events handled, all", 1);
    print_room("of 1 M events each third handled", 3);
    return 0;
}
