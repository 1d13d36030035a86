/* fault_work.c - what writer, publisher and consumer do, in whatever process they live. */
#include "fault.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <waybill/db.h>
#include <waybill/event_consumer.h>
#include <waybill/outbox.h>
#include <waybill/outbox_publisher.h>

void fault_paths_make(struct fault_paths *paths, const char *dir)
{
    (void)snprintf(paths->dir, sizeof(paths->dir), "%s", dir);
    (void)snprintf(paths->producer, sizeof(paths->producer), "%s/producer.db", dir);
    (void)snprintf(paths->consumer, sizeof(paths->consumer), "%s/consumer.db", dir);
    (void)snprintf(paths->history, sizeof(paths->history), "%s/history", dir);
}

void fault_die(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)fprintf(stderr, "fault: ");
    (void)vfprintf(stderr, format, args);
    (void)fprintf(stderr, "\n");
    va_end(args);
    exit(1);
}

/* ---- the writer ------------------------------------------------------------------------------ */

struct fault_writer {
    struct db *db;
    struct outbox *outbox;
    struct sqlite3_stmt *last_n;
    struct sqlite3_stmt *insert;
    int history;
    struct wb_rng rng;
    char name[40]; /* of this life: no two transactions share a name */
    uint64_t count;
};

struct fault_writer *fault_writer_open(const struct fault_paths *paths, uint64_t seed)
{
    const struct db_options options = {.sync = DB_SYNC_NORMAL};
    struct fault_writer *self = calloc(1, sizeof(*self));
    struct wb_why why = {""};
    uint8_t id[WB_ID_SIZE];

    fault_must(self != NULL, "writer: no memory");
    fault_must(db_open(paths->producer, &options, &self->db, &why) == WB_OK, "%s", why.text);
    fault_must(db_exec(self->db,
                       "CREATE TABLE IF NOT EXISTS work(tx TEXT, key INTEGER, n INTEGER,"
                       " PRIMARY KEY(key, n))",
                       &why) == WB_OK,
               "%s", why.text);
    fault_must(outbox_attach(db_handle(self->db), &self->outbox, &why) == WB_OK, "%s", why.text);
    fault_must(db_prepare(self->db, "SELECT coalesce(max(n), 0) FROM work WHERE key = ?",
                          &self->last_n, &why) == WB_OK &&
                   db_prepare(self->db, "INSERT INTO work VALUES(?, ?, ?)", &self->insert, &why) ==
                       WB_OK,
               "%s", why.text);
    self->history = open(paths->history, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    fault_must(self->history >= 0, "open %s", paths->history);
    wb_rng_seed(&self->rng, seed);
    wb_random_fill(id, sizeof(id));
    wb_hex_encode(id, sizeof(id), self->name);
    return self;
}

void fault_writer_close(struct fault_writer *writer)
{
    sqlite3_finalize(writer->last_n);
    sqlite3_finalize(writer->insert);
    outbox_detach(writer->outbox);
    db_close(writer->db);
    close(writer->history);
    free(writer);
}

/* One line, one write: a kill leaves it whole or absent. */
static void tell(const struct fault_writer *self, const char *phase, const char *tx)
{
    char line[100];
    int len = snprintf(line, sizeof(line), "%s %s\n", phase, tx);

    fault_must(write(self->history, line, (size_t)len) == len, "write the history");
}

static wb_err write_one(struct fault_writer *self, const char *tx, struct wb_why *why)
{
    int key = (int)wb_rng_below(&self->rng, FAULT_KEYS);
    char subject[32];
    char payload[200];

    sqlite3_reset(self->last_n);
    sqlite3_bind_int(self->last_n, 1, key);
    fault_must(sqlite3_step(self->last_n) == SQLITE_ROW, "read the last number");
    int n = sqlite3_column_int(self->last_n, 0) + 1;
    sqlite3_reset(self->last_n);
    sqlite3_reset(self->insert);
    sqlite3_bind_text(self->insert, 1, tx, -1, SQLITE_TRANSIENT);
    sqlite3_bind_int(self->insert, 2, key);
    sqlite3_bind_int(self->insert, 3, n);
    int code = sqlite3_step(self->insert);
    sqlite3_reset(self->insert);
    if (code != SQLITE_DONE)
        return db_error(db_handle(self->db), code, "insert work", why);
    (void)snprintf(subject, sizeof(subject), "fault.k%d", key);
    int len = snprintf(payload, sizeof(payload), "%s %d %d %0*d", tx, key, n,
                       (int)wb_rng_below(&self->rng, 100) + 1, 0);
    const struct outbox_event event = {
        .subject = wb_str(subject), .payload = {payload, (size_t)len}, .key = wb_str(subject)};
    return outbox_enqueue(self->outbox, &event, NULL, why);
}

void fault_writer_transact(struct fault_writer *writer)
{
    char tx[80];
    struct wb_why why = {""};
    uint64_t events = 1 + wb_rng_below(&writer->rng, 3);
    bool undo = wb_rng_below(&writer->rng, 10) == 0;

    (void)snprintf(tx, sizeof(tx), "%s-%llu", writer->name, (unsigned long long)writer->count++);
    tell(writer, "invoke", tx);
    wb_err err = db_begin(writer->db, &why);
    for (uint64_t i = 0; err == WB_OK && i < events; i++)
        err = write_one(writer, tx, &why);
    if (err == WB_OK && !undo)
        err = db_commit(writer->db, &why);
    else
        db_rollback(writer->db);
    fault_must(err == WB_OK || err == WB_BUSY || err == WB_UNKNOWN, "writer: %s", why.text);
    if (err != WB_UNKNOWN)
        tell(writer, err == WB_OK && !undo ? "ok" : "fail", tx);
    outbox_wake(writer->outbox);
}

/* ---- publisher and consumer ------------------------------------------------------------------ */

void fault_declare(struct event_bus *bus)
{
    static const char *const subjects[] = {"fault.>"};
    const struct event_bus_stream_options options = {
        .name = FAULT_STREAM, .subjects = subjects, .subject_count = 1};
    struct wb_why why = {""};

    fault_must(event_bus_declare_stream(bus, &options, EVENT_BUS_CREATE, &why) == WB_OK, "%s",
               why.text);
}

struct outbox_publisher *fault_publisher_start(const struct fault_paths *paths,
                                               struct event_bus *bus, const struct wb_clock *clock)
{
    static const char *const streams[] = {FAULT_STREAM};
    const struct outbox_publisher_options options = {.path = paths->producer,
                                                     .bus = bus,
                                                     .streams = streams,
                                                     .stream_count = 1,
                                                     .clock = clock,
                                                     .manual = clock != NULL};
    struct outbox_publisher *publisher;
    struct wb_why why = {""};

    fault_must(outbox_publisher_start(&options, &publisher, &why) == WB_OK, "%s", why.text);
    return publisher;
}

struct consumer_scope {
    struct outbox *outbox;
    struct sqlite3_stmt *insert;
};

static wb_err consumer_open(void *ctx, struct db *db, void **ret_scope, struct wb_why *why)
{
    struct consumer_scope *scope = calloc(1, sizeof(*scope));

    (void)ctx;
    if (scope == NULL)
        return WB_NOMEM;
    wb_err err = db_exec(db,
                         "CREATE TABLE IF NOT EXISTS effect(id INTEGER PRIMARY KEY AUTOINCREMENT,"
                         " msg_id TEXT, payload TEXT)",
                         why);
    if (err == WB_OK)
        err = outbox_attach(db_handle(db), &scope->outbox, why);
    if (err == WB_OK)
        err =
            db_prepare(db, "INSERT INTO effect(msg_id, payload) VALUES(?, ?)", &scope->insert, why);
    *ret_scope = scope;
    return err;
}

static void consumer_close(void *ctx, void *arg)
{
    struct consumer_scope *scope = arg;

    (void)ctx;
    sqlite3_finalize(scope->insert);
    outbox_detach(scope->outbox);
    free(scope);
}

static wb_err consumer_handle(void *ctx, const struct event_consumer_event *event,
                              struct wb_why *why)
{
    struct consumer_scope *scope = event->scope;
    const struct message *msg = &event->delivery->message;
    const struct outbox_event follow = {.subject = wb_str("follow.done"),
                                        .payload = {msg->msg_id.ptr, msg->msg_id.len}};

    (void)ctx;
    sqlite3_bind_text(scope->insert, 1, msg->msg_id.ptr, (int)msg->msg_id.len, SQLITE_TRANSIENT);
    sqlite3_bind_text(scope->insert, 2, msg->payload.ptr, (int)msg->payload.len, SQLITE_TRANSIENT);
    int code = sqlite3_step(scope->insert);
    sqlite3_reset(scope->insert);
    if (code != SQLITE_DONE)
        return db_error(db_handle(event->db), code, "insert effect", why);
    return outbox_enqueue(scope->outbox, &follow, NULL, why);
}

struct event_consumer *fault_consumer_start(const struct fault_paths *paths, struct event_bus *bus,
                                            const struct wb_clock *clock)
{
    static const char *const patterns[] = {"fault.>"};
    const struct event_consumer_options options = {.name = "fault",
                                                   .path = paths->consumer,
                                                   .bus = bus,
                                                   .patterns = patterns,
                                                   .pattern_count = 1,
                                                   .handler = consumer_handle,
                                                   .open = consumer_open,
                                                   .close = consumer_close,
                                                   .sync = DB_SYNC_NORMAL,
                                                   .clock = clock,
                                                   .manual = clock != NULL};
    struct event_consumer *consumer;
    struct wb_why why = {""};

    fault_must(event_consumer_start(&options, &consumer, &why) == WB_OK, "%s", why.text);
    return consumer;
}
