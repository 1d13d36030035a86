/*
 * event_consumer_fixture.h - a consumer on the in-memory bus in manual mode: no thread, a virtual
 * clock, a real database file. Its handler writes a row for each event, and fails where told to.
 */
#ifndef EVENT_CONSUMER_FIXTURE_H
#define EVENT_CONSUMER_FIXTURE_H

#include "test_db.h"

#include <inttypes.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>

#include <waybill/db.h>
#include <waybill/event_bus_memory.h>
#include <waybill/event_consumer.h>

static const char *const fixture_patterns[] = {"auth.>"};
static const char *const fixture_subjects[] = {"auth.>"};

static struct fixture {
    char dir[256];
    char path[300];
    struct event_bus *bus;
    struct observe *observe;
    struct event_consumer *consumer;
    struct event_consumer_options options;
    /* What the handler does. */
    atomic_int fails;   /* so many more times it fails */
    wb_err error;       /* with this; WB_OK: WB_INVALID */
    const char *reason; /* and says so; NULL: nothing */
    const char *sql;    /* run after its row was written; NULL: nothing */
    const char *only;   /* it does so at this event alone; NULL: at each */
    /* What it saw. */
    atomic_int runs;
    atomic_int opened, closed, committed;
} fixture;

static wb_err fixture_open(void *ctx, struct db *db, void **ret_scope, struct wb_why *why)
{
    (void)ctx;
    wb_err err = db_exec(db,
                         "CREATE TABLE IF NOT EXISTS effect(n INTEGER PRIMARY KEY AUTOINCREMENT,"
                         " event TEXT NOT NULL)",
                         why);
    if (err != WB_OK)
        return err;
    atomic_fetch_add(&fixture.opened, 1);
    *ret_scope = &fixture;
    return WB_OK;
}

static void fixture_close(void *ctx, void *scope)
{
    (void)ctx;
    assert_ptr_equal(scope, &fixture);
    atomic_fetch_add(&fixture.closed, 1);
}

static void fixture_committed(void *ctx, void *scope)
{
    (void)ctx;
    (void)scope;
    atomic_fetch_add(&fixture.committed, 1);
}

static wb_err fixture_effect(struct db *db, const struct message *msg, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = NULL;
    wb_err err = db_prepare(db, "INSERT INTO effect(event) VALUES(?1)", &stmt, why);

    if (err != WB_OK)
        return err;
    sqlite3_bind_text(stmt, 1, msg->payload.ptr, (int)msg->payload.len, SQLITE_STATIC);
    err = db_error(db_handle(db), sqlite3_step(stmt), "write the effect", why);
    sqlite3_finalize(stmt);
    return err;
}

static wb_err fixture_handle(void *ctx, const struct event_consumer_event *event,
                             struct wb_why *why)
{
    (void)ctx;
    assert_ptr_equal(event->scope, &fixture);
    atomic_fetch_add(&fixture.runs, 1);
    wb_err err = fixture_effect(event->db, &event->delivery->message, why);
    if (fixture.only != NULL &&
        !wb_str_eq(wb_str(fixture.only), wb_str_n(event->delivery->message.payload.ptr,
                                                  event->delivery->message.payload.len)))
        return err;
    if (err == WB_OK && fixture.sql != NULL)
        err = db_exec(event->db, fixture.sql, why);
    if (err != WB_OK || atomic_load(&fixture.fails) == 0)
        return err;
    atomic_fetch_sub(&fixture.fails, 1);
    err = fixture.error != WB_OK ? fixture.error : WB_INVALID;
    return fixture.reason != NULL ? wb_fail(why, err, "%s", fixture.reason) : err;
}

static inline void fixture_declare(const char *stream, const char *const *subjects)
{
    const struct event_bus_stream_options options = {
        .name = stream, .subjects = subjects, .subject_count = 1};

    assert_ok(event_bus_declare_stream(fixture.bus, &options, EVENT_BUS_CREATE, NULL));
}

/* Publish event number n of an outbox, of a key (NULL: none). Its effect is "n". */
static inline void fixture_publish_key(int n, const char *key)
{
    char row[16], msg_id[24];

    snprintf(row, sizeof(row), "%d", n);
    snprintf(msg_id, sizeof(msg_id), "id-%d", n);
    const struct message_header headers[] = {
        {wb_str(MESSAGE_HEADER_SOURCE), wb_str("0123456789abcdef")},
        {wb_str(MESSAGE_HEADER_ROW), wb_str(row)},
        {wb_str(MESSAGE_HEADER_KEY), wb_str(key)},
    };
    const struct message msg = {.subject = wb_str("auth.user.created"),
                                .payload = {row, strlen(row)},
                                .headers = headers,
                                .header_count = key != NULL ? 3 : 2,
                                .msg_id = wb_str(msg_id)};
    assert_ok(event_bus_publish(fixture.bus, &msg, NULL, NULL, NULL));
}

static inline void fixture_publish(int n)
{
    fixture_publish_key(n, NULL);
}

static inline void fixture_bus(bool manual, int64_t start_wall_ns)
{
    const struct event_bus_memory_options options = {
        .manual = manual, .seed = 1, .start_wall_ns = start_wall_ns};

    assert_ok(event_bus_memory_create(&options, &fixture.bus));
    fixture.options.bus = fixture.bus;
    fixture.options.manual = manual;
    fixture.options.clock = manual ? event_bus_memory_clock(fixture.bus) : NULL;
}

/* A directory, an empty stream AUTH, and options; the consumer is not started. */
static inline void fixture_setup(bool manual)
{
    memset(&fixture, 0, sizeof(fixture));
    test_dir_make(fixture.dir);
    snprintf(fixture.path, sizeof(fixture.path), "%s/test.db", fixture.dir);
    assert_ok(observe_create(&fixture.observe));
    fixture.options = (struct event_consumer_options){
        .name = "ar_accounts",
        .path = fixture.path,
        .patterns = fixture_patterns,
        .pattern_count = 1,
        .handler = fixture_handle,
        .open = fixture_open,
        .close = fixture_close,
        .committed = fixture_committed,
        .ctx = &fixture,
        .max_failures = 3,
        .group = 1,
        .observe = fixture.observe,
    };
    fixture_bus(manual, 1000 * WB_SEC);
    fixture_declare("AUTH", fixture_subjects);
}

static inline void fixture_start(void)
{
    struct wb_why why = {""};
    wb_err err = event_consumer_start(&fixture.options, &fixture.consumer, &why);

    if (err != WB_OK)
        fail_msg("event_consumer_start: %s: %s", wb_err_name(err), why.text);
}

static inline void fixture_stop(void)
{
    event_consumer_stop(fixture.consumer);
    fixture.consumer = NULL;
}

static inline void fixture_teardown(void)
{
    fixture_stop();
    event_bus_destroy(fixture.bus);
    observe_destroy(fixture.observe);
    test_dir_remove(fixture.dir);
}

/* Let the bus deliver and the consumer step until nothing is left to do now. */
static inline int fixture_run(void)
{
    int steps = 0;

    for (;; steps++) {
        event_bus_memory_run_until_idle(fixture.bus);
        if (!event_consumer_step(fixture.consumer))
            return steps;
    }
}

/* As fixture_run(), over all backoffs within the next minute. */
static inline void fixture_run_long(void)
{
    for (int i = 0; i < 60; i++) {
        fixture_run();
        event_bus_memory_advance(fixture.bus, WB_SEC);
    }
    fixture_run();
}

/* The effects in order, as "1 2 3". */
static inline const char *fixture_effects(void)
{
    static char text[8192];
    const struct db_options options = {.must_exist = true};
    struct db *db = NULL;
    struct sqlite3_stmt *stmt = NULL;
    size_t len = 0;

    assert_ok(db_open(fixture.path, &options, &db, NULL));
    assert_ok(db_prepare(db, "SELECT event FROM effect ORDER BY n", &stmt, NULL));
    text[0] = '\0';
    while (sqlite3_step(stmt) == SQLITE_ROW) {
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s", len > 0 ? " " : "",
                                (const char *)sqlite3_column_text(stmt, 0));
        assert_true(len < sizeof(text));
    }
    sqlite3_finalize(stmt);
    db_close(db);
    return text;
}

static inline int64_t fixture_query(const char *sql)
{
    return test_query_file(fixture.path, sql);
}

static inline struct event_consumer_health fixture_health(void)
{
    struct event_consumer_health health;

    event_consumer_health(fixture.consumer, &health);
    return health;
}

#endif /* EVENT_CONSUMER_FIXTURE_H */
