/* fault_work.c - what writer, publisher and consumer do, in whatever process they live. */
#include "fault.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
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
    const char *history = getenv("FAULT_HISTORY"); /* where the disk is not the one that fails */
    if (history != NULL)
        (void)snprintf(paths->history, sizeof(paths->history), "%s", history);
    else
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

int64_t fault_now_ns(void)
{
    return wb_mono_ns(wb_clock_system());
}

void fault_rest(int64_t ns)
{
    struct timespec time = {ns / WB_SEC, ns % WB_SEC};
    (void)nanosleep(&time, NULL);
}

/* ---- the writer ------------------------------------------------------------------------------ */

struct fault_writer {
    struct fault_writer_options options;
    struct db *db;
    struct outbox *outbox;
    struct sqlite3_stmt *last_n;
    struct sqlite3_stmt *insert;
    struct sqlite3_stmt *insert_poison;
    int history;
    struct wb_rng rng;
    char name[40]; /* of this life: no two transactions share a name */
    uint64_t count;
};

static wb_err writer_setup(struct fault_writer *self, const struct fault_paths *paths,
                           struct wb_why *why)
{
    const struct db_options options = {.sync = self->options.sync};
    wb_err err = db_open(paths->producer, &options, &self->db, why);

    if (err == WB_OK)
        err = db_exec(self->db,
                      "CREATE TABLE IF NOT EXISTS work(tx TEXT, key INTEGER, n INTEGER,"
                      " PRIMARY KEY(key, n))",
                      why);
    if (err == WB_OK)
        err = outbox_attach(db_handle(self->db), &self->outbox, why);
    if (err == WB_OK)
        err = db_prepare(self->db, "SELECT coalesce(max(n), 0) FROM work WHERE key = ?",
                         &self->last_n, why);
    if (err == WB_OK)
        err = db_prepare(self->db, "INSERT INTO work VALUES(?, ?, ?)", &self->insert, why);
    if (err == WB_OK)
        err = db_prepare(self->db,
                         "INSERT INTO outbox(subject, headers, payload)"
                         " VALUES('fault.poison', 'no header', ?1 || ' ' || ?2 || ' ' || ?3)",
                         &self->insert_poison, why);
    return err;
}

wb_err fault_writer_try(const struct fault_paths *paths, const struct fault_writer_options *options,
                        struct fault_writer **ret_writer, struct wb_why *why)
{
    struct fault_writer *self = calloc(1, sizeof(*self));
    uint8_t id[WB_ID_SIZE];

    if (self == NULL)
        return wb_fail(why, WB_NOMEM, "writer: no memory");
    self->options = *options;
    self->history = open(paths->history, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    fault_must(self->history >= 0, "open %s", paths->history);
    wb_rng_seed(&self->rng, options->seed);
    wb_random_fill(id, sizeof(id));
    wb_hex_encode(id, sizeof(id), self->name);
    wb_err err = writer_setup(self, paths, why);
    if (err != WB_OK) {
        fault_writer_close(self);
        return err;
    }
    *ret_writer = self;
    return WB_OK;
}

struct fault_writer *fault_writer_open(const struct fault_paths *paths, uint64_t seed)
{
    const struct fault_writer_options options = {.sync = DB_SYNC_NORMAL, .seed = seed};
    struct fault_writer *writer = NULL;
    struct wb_why why = {""};

    fault_must(fault_writer_try(paths, &options, &writer, &why) == WB_OK, "%s", why.text);
    return writer;
}

void fault_writer_close(struct fault_writer *writer)
{
    if (writer == NULL)
        return;
    sqlite3_finalize(writer->last_n);
    sqlite3_finalize(writer->insert);
    sqlite3_finalize(writer->insert_poison);
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
    if (self->options.told != NULL)
        self->options.told(self->options.ctx, phase, tx);
}

/* Run a statement with what it takes: tx, key, n. */
static wb_err insert(struct fault_writer *self, struct sqlite3_stmt *stmt, const char *tx, int key,
                     int n, struct wb_why *why)
{
    int code = sqlite3_bind_text(stmt, 1, tx, -1, SQLITE_STATIC);

    if (code == SQLITE_OK)
        code = sqlite3_bind_int(stmt, 2, key);
    if (code == SQLITE_OK)
        code = sqlite3_bind_int(stmt, 3, n);
    if (code == SQLITE_OK)
        code = sqlite3_step(stmt);
    wb_err err =
        code == SQLITE_DONE ? WB_OK : db_error(db_handle(self->db), code, "insert work", why);
    sqlite3_reset(stmt);
    return err;
}

static wb_err next_n(struct fault_writer *self, int key, int *ret_n, struct wb_why *why)
{
    sqlite3_bind_int(self->last_n, 1, key);
    int code = sqlite3_step(self->last_n);
    wb_err err = WB_OK;

    if (code == SQLITE_ROW)
        *ret_n = sqlite3_column_int(self->last_n, 0) + 1;
    else
        err = db_error(db_handle(self->db), code, "read the last number", why);
    sqlite3_reset(self->last_n);
    return err;
}

static wb_err write_one(struct fault_writer *self, const char *tx, struct wb_why *why)
{
    int key = (int)wb_rng_below(&self->rng, FAULT_KEYS);
    int pad = (int)wb_rng_below(&self->rng, 100) + 1;
    char subject[32];
    char payload[200];
    int n = 0;
    wb_err err = next_n(self, key, &n, why);

    if (err == WB_OK)
        err = insert(self, self->insert, tx, key, n, why);
    if (err != WB_OK)
        return err;
    (void)snprintf(subject, sizeof(subject), "fault.k%d", key);
    int len = snprintf(payload, sizeof(payload), "%s %d %d %0*d", tx, key, n, pad, 0);
    const struct outbox_event event = {
        .subject = wb_str(subject), .payload = {payload, (size_t)len}, .key = wb_str(subject)};
    return outbox_enqueue(self->outbox, &event, NULL, why);
}

/* An event that no bus will take: what stands in its headers is none. */
static wb_err write_poison(struct fault_writer *self, const char *tx, struct wb_why *why)
{
    int n = 0;
    wb_err err = next_n(self, FAULT_POISON_KEY, &n, why);

    if (err == WB_OK)
        err = insert(self, self->insert, tx, FAULT_POISON_KEY, n, why);
    if (err == WB_OK)
        err = insert(self, self->insert_poison, tx, FAULT_POISON_KEY, n, why);
    return err;
}

wb_err fault_writer_transact(struct fault_writer *writer, bool poison, struct wb_why *why)
{
    char tx[80];
    uint64_t events = poison ? 1 : 1 + wb_rng_below(&writer->rng, 3);
    bool undo = wb_rng_below(&writer->rng, 10) == 0 && !poison;

    (void)snprintf(tx, sizeof(tx), "%s-%llu", writer->name, (unsigned long long)writer->count++);
    tell(writer, "invoke", tx);
    wb_err err = db_begin(writer->db, why);
    for (uint64_t i = 0; err == WB_OK && i < events; i++)
        err = poison ? write_poison(writer, tx, why) : write_one(writer, tx, why);
    if (err == WB_OK && !undo)
        err = db_commit(writer->db, why);
    else
        db_rollback(writer->db);
    if (err != WB_UNKNOWN)
        tell(writer, err == WB_OK && !undo ? "ok" : "fail", tx);
    outbox_wake(writer->outbox);
    return err;
}

/* ---- publisher and consumer ------------------------------------------------------------------ */

void fault_declare(struct event_bus *bus)
{
    fault_declare_window(bus, 0);
}

void fault_declare_window(struct event_bus *bus, int64_t duplicate_window_ns)
{
    static const char *const subjects[] = {"fault.>"};
    const struct event_bus_stream_options options = {.name = FAULT_STREAM,
                                                     .subjects = subjects,
                                                     .subject_count = 1,
                                                     .duplicate_window_ns = duplicate_window_ns};
    struct wb_why why = {""};

    fault_must(event_bus_declare_stream(bus, &options, EVENT_BUS_CREATE, &why) == WB_OK, "%s",
               why.text);
}

wb_err fault_publisher_try(const struct fault_paths *paths, struct event_bus *bus,
                           const struct wb_clock *clock, struct outbox_publisher **ret_publisher,
                           struct wb_why *why)
{
    static const char *const streams[] = {FAULT_STREAM};
    const struct outbox_publisher_options options = {.path = paths->producer,
                                                     .bus = bus,
                                                     .streams = streams,
                                                     .stream_count = 1,
                                                     .clock = clock,
                                                     .manual = clock != NULL};
    return outbox_publisher_start(&options, ret_publisher, why);
}

struct outbox_publisher *fault_publisher_start(const struct fault_paths *paths,
                                               struct event_bus *bus, const struct wb_clock *clock)
{
    struct outbox_publisher *publisher = NULL;
    struct wb_why why = {""};

    fault_must(fault_publisher_try(paths, bus, clock, &publisher, &why) == WB_OK, "%s", why.text);
    return publisher;
}

struct consumer_scope {
    struct outbox *outbox;
    struct sqlite3_stmt *insert;
};

static void consumer_close(void *ctx, void *arg)
{
    struct consumer_scope *scope = arg;

    (void)ctx;
    sqlite3_finalize(scope->insert);
    outbox_detach(scope->outbox);
    free(scope);
}

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
    if (err == WB_OK)
        *ret_scope = scope;
    else
        consumer_close(ctx, scope);
    return err;
}

static wb_err consumer_handle(void *ctx, const struct event_consumer_event *event,
                              struct wb_why *why)
{
    struct consumer_scope *scope = event->scope;
    const struct message *msg = &event->delivery->message;
    const struct outbox_event follow = {.subject = wb_str("follow.done"),
                                        .payload = {msg->msg_id.ptr, msg->msg_id.len}};

    (void)ctx;
    db_bind_text(scope->insert, 1, msg->msg_id);
    db_bind_text(scope->insert, 2, wb_str_n(msg->payload.ptr, msg->payload.len));
    int code = sqlite3_step(scope->insert);
    sqlite3_reset(scope->insert);
    if (code != SQLITE_DONE)
        return db_error(db_handle(event->db), code, "insert effect", why);
    return outbox_enqueue(scope->outbox, &follow, NULL, why);
}

wb_err fault_consumer_try(const struct fault_paths *paths, struct event_bus *bus,
                          const struct wb_clock *clock, struct event_consumer **ret_consumer,
                          struct wb_why *why)
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
    return event_consumer_start(&options, ret_consumer, why);
}

struct event_consumer *fault_consumer_start(const struct fault_paths *paths, struct event_bus *bus,
                                            const struct wb_clock *clock)
{
    struct event_consumer *consumer = NULL;
    struct wb_why why = {""};

    fault_must(fault_consumer_try(paths, bus, clock, &consumer, &why) == WB_OK, "%s", why.text);
    return consumer;
}
