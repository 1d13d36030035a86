/* outbox_publisher_fixture.h - a database, a memory bus moved by hand, and a publisher between. */
#ifndef OUTBOX_PUBLISHER_FIXTURE_H
#define OUTBOX_PUBLISHER_FIXTURE_H

#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>

#include "outbox_publisher_private.h"
#include "test_db.h"

#include <waybill/db.h>
#include <waybill/event_bus_memory.h>
#include <waybill/outbox_publisher.h>

struct fixture {
    char dir[256];
    char path[300];
    struct db *db;
    struct event_bus *bus;
    struct outbox_publisher *publisher;
    struct outbox_publisher_options options;
    struct observe *observe;
};

static const char *const fixture_streams[] = {"A", "B"};

static inline void fixture_declare(struct event_bus *bus, const char *name, const char *pattern)
{
    const struct event_bus_stream_options options = {
        .name = name, .subjects = &pattern, .subject_count = 1};

    assert_ok(event_bus_declare_stream(bus, &options, EVENT_BUS_CREATE, NULL));
}

static inline void fixture_bus_make(struct fixture *f, int64_t start_wall_ns)
{
    assert_ok(event_bus_memory_create(
        &(struct event_bus_memory_options){
            .manual = true, .seed = 7, .start_wall_ns = start_wall_ns},
        &f->bus));
    fixture_declare(f->bus, "A", "a.>");
    f->options.bus = f->bus;
    f->options.clock = event_bus_memory_clock(f->bus);
}

static inline void fixture_start(struct fixture *f)
{
    struct wb_why why = {.text = ""};

    if (outbox_publisher_start(&f->options, &f->publisher, &why) != WB_OK)
        fail_msg("%s", why.text);
}

static inline int fixture_setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    wb_log_setup(2, WB_LOG_LOGFMT, WB_LOG_ERROR);
    test_dir_make(f->dir);
    (void)snprintf(f->path, sizeof(f->path), "%s/m.db", f->dir);
    assert_ok(db_open(f->path, &(struct db_options){.sync = DB_SYNC_NORMAL}, &f->db, NULL));
    assert_ok(outbox_schema_prepare(db_handle(f->db), NULL));
    assert_ok(observe_create(&f->observe));
    f->options = (struct outbox_publisher_options){.path = f->path,
                                                   .streams = fixture_streams,
                                                   .stream_count = 1,
                                                   .manual = true,
                                                   .seed = 1,
                                                   .observe = f->observe};
    fixture_bus_make(f, 1700000000 * WB_SEC);
    *state = f;
    return 0;
}

static inline int fixture_teardown(void **state)
{
    struct fixture *f = *state;

    outbox_publisher_stop(f->publisher);
    event_bus_destroy(f->bus);
    db_close(f->db);
    observe_destroy(f->observe);
    test_dir_remove(f->dir);
    free(f);
    return 0;
}

static inline void fixture_sql(struct fixture *f, const char *sql)
{
    struct wb_why why;

    if (db_exec(f->db, sql, &why) != WB_OK)
        fail_msg("%s", why.text);
}

/* Rows without an identity of their own: the table's defaults. */
static inline void fixture_insert(struct fixture *f, const char *subject, const char *key,
                                  const char *payload)
{
    struct sqlite3_stmt *stmt;

    assert_ok(db_prepare(f->db, "INSERT INTO outbox(subject, key, payload) VALUES(?1, ?2, ?3)",
                         &stmt, NULL));
    (void)sqlite3_bind_text(stmt, 1, subject, -1, SQLITE_STATIC);
    (void)sqlite3_bind_text(stmt, 2, key, -1, SQLITE_STATIC);
    (void)sqlite3_bind_text(stmt, 3, payload, -1, SQLITE_STATIC);
    assert_int_equal(sqlite3_step(stmt), SQLITE_DONE);
    (void)sqlite3_finalize(stmt);
}

static inline int64_t fixture_int(struct fixture *f, const char *sql)
{
    return test_query(f->db, sql);
}

/* Everything that can happen at this moment of the virtual clock. */
static inline void fixture_run(struct fixture *f)
{
    int steps = 0;

    while (outbox_publisher_step(f->publisher))
        assert_true(++steps < 100000); /* a machine that never rests is a bug */
}

/* Let virtual time pass in steps small enough for every timer. */
static inline void fixture_pass(struct fixture *f, int64_t ns)
{
    for (int64_t done = 0; done < ns; done += 10 * WB_MS) {
        event_bus_memory_advance(f->bus, 10 * WB_MS);
        fixture_run(f);
    }
}

static inline struct outbox_publisher_health fixture_health(struct fixture *f)
{
    struct outbox_publisher_health health;

    outbox_publisher_health(f->publisher, &health);
    return health;
}

/* The first row is acknowledged, the others are sent, none is marked. */
static inline void fixture_step_to_first_ack(struct fixture *f)
{
    while (fixture_health(f).published == 0)
        assert_true(outbox_publisher_step(f->publisher));
}

static inline void fixture_crash(struct fixture *f)
{
    outbox_publisher_abandon(f->publisher);
    f->publisher = NULL;
}

/* The payloads of a stream in order, joined by blanks. */
static inline void assert_stream_holds(struct fixture *f, const char *stream, const char *expected)
{
    struct event_bus_stream_info info;
    struct wb_buf out = {0};

    assert_ok(event_bus_stream_info(f->bus, stream, &info, NULL));
    for (uint64_t seq = 1; seq <= info.last_seq; seq++) {
        struct event_bus_delivery *delivery;
        wb_err err = event_bus_get(f->bus, stream, seq, &delivery, NULL);
        if (err == WB_NOT_FOUND)
            continue;
        assert_ok(err);
        wb_buf_str(&out, out.len > 0 ? " " : "");
        wb_buf_add(&out, delivery->message.payload.ptr, delivery->message.payload.len);
        event_bus_release(delivery);
    }
    assert_string_equal(out.ptr != NULL ? out.ptr : "", expected);
    wb_buf_free(&out);
}

/* The first column of every row, joined by blanks. */
static inline void assert_column(struct fixture *f, const char *sql, const char *expected)
{
    struct sqlite3_stmt *stmt;
    struct wb_buf out = {0};

    assert_ok(db_prepare(f->db, sql, &stmt, NULL));
    while (sqlite3_step(stmt) == SQLITE_ROW)
        wb_buf_printf(&out, "%s%s", out.len > 0 ? " " : "", sqlite3_column_text(stmt, 0));
    (void)sqlite3_finalize(stmt);
    assert_string_equal(out.ptr != NULL ? out.ptr : "", expected);
    wb_buf_free(&out);
}

/* "id state" of every exception. */
static inline void assert_exceptions(struct fixture *f, const char *expected)
{
    assert_column(f, "SELECT id || ' ' || state FROM outbox_exception ORDER BY id", expected);
}

#endif /* OUTBOX_PUBLISHER_FIXTURE_H */
