/* fault_work.c - publisher, consumer and retention, in whatever process they live. */
#include "fault.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <waybill/db.h>
#include <waybill/event_consumer.h>
#include <waybill/outbox.h>
#include <waybill/outbox_publisher.h>
#include <waybill/outbox_retention.h>

void fault_paths_make(struct fault_paths *paths, const char *dir)
{
    (void)snprintf(paths->dir, sizeof(paths->dir), "%s", dir);
    (void)snprintf(paths->producer, sizeof(paths->producer), "%s/producer.db", dir);
    (void)snprintf(paths->consumer, sizeof(paths->consumer), "%s/consumer.db", dir);
    (void)snprintf(paths->archive, sizeof(paths->archive), "%s-archive", paths->producer);
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

/* ---- stream and publisher -------------------------------------------------------------------- */

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
                                                     .audit_wait_ns = 100 * WB_MS,
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

/* ---- consumer -------------------------------------------------------------------------------- */

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

/* ---- retention ------------------------------------------------------------------------------- */

wb_err fault_retention_try(const struct fault_paths *paths, const struct wb_clock *clock,
                           struct outbox_retention **ret_retention, struct wb_why *why)
{
    static const char *const patterns[] = {"fault.>"};
    static const struct outbox_class few = {
        .name = "few", .patterns = patterns, .pattern_count = 1, .keep_rows = 4, .archive = true};
    const struct outbox_retention_options options = {.path = paths->producer,
                                                     .archive_path = paths->archive,
                                                     .classes = &few,
                                                     .class_count = 1,
                                                     .clock = clock};
    return outbox_retention_open(&options, ret_retention, why);
}

struct outbox_retention *fault_retention_start(const struct fault_paths *paths,
                                               const struct wb_clock *clock)
{
    struct outbox_retention *retention = NULL;
    struct wb_why why = {""};

    fault_must(fault_retention_try(paths, clock, &retention, &why) == WB_OK, "%s", why.text);
    return retention;
}
