/* outbox_retention_fixture.h - an outbox with rows of every kind, a clock that is moved by hand. */
#ifndef OUTBOX_RETENTION_FIXTURE_H
#define OUTBOX_RETENTION_FIXTURE_H

#include "test_db.h"

#include <sqlite3.h>
#include <stdio.h>
#include <unistd.h>

#include <waybill/db.h>
#include <waybill/outbox_retention.h>

#define HOUR  (3600 * WB_SEC)
#define START (1700000000 * WB_SEC) /* wall time at the start of each test */

static char dir[256], path[300], archive_path[320];
static struct db *db;
static struct wb_clock_virtual now;

static inline int fixture_setup(void **state)
{
    struct outbox *outbox;

    (void)state;
    test_dir_make(dir);
    (void)snprintf(path, sizeof(path), "%s/o.db", dir);
    (void)snprintf(archive_path, sizeof(archive_path), "%s-archive", path);
    wb_clock_virtual_init(&now, 1000 * WB_SEC, START);
    assert_ok(db_open(path, &(struct db_options){.sync = DB_SYNC_NORMAL}, &db, NULL));
    assert_ok(outbox_attach(db_handle(db), &outbox, NULL));
    outbox_detach(outbox);
    return 0;
}

static inline int fixture_teardown(void **state)
{
    (void)state;
    db_close(db);
    test_dir_remove(dir);
    return 0;
}

static inline WB_PRINTF(1, 2) void sql(const char *format, ...)
{
    char text[1024];
    struct wb_why why = {""};
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (db_exec(db, text, &why) != WB_OK)
        fail_msg("%s", why.text);
}

static inline int64_t number(const char *query)
{
    return test_query(db, query);
}

static inline int64_t number_in_archive(const char *query)
{
    struct db *archive = NULL;

    assert_ok(db_open(archive_path, &(struct db_options){.must_exist = true}, &archive, NULL));
    int64_t value = test_query(archive, query);
    db_close(archive);
    return value;
}

/* count rows of a subject, each older than the one behind it; the youngest is age old. */
static inline void add_rows(const char *subject, int count, int64_t age_ns, int payload)
{
    sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)"
        " INSERT INTO outbox(subject, created, payload) SELECT '%s', %lld - %d + i, zeroblob(%d)"
        " FROM n",
        count, subject, (long long)((START - age_ns) / WB_MS), count, payload);
}

static inline void verify_up_to(const char *stream, int64_t id)
{
    sql("INSERT INTO outbox_cursor(stream, last_id, verified_id) VALUES('%s', %lld, %lld)"
        " ON CONFLICT(stream) DO UPDATE SET last_id = excluded.last_id,"
        " verified_id = excluded.verified_id",
        stream, (long long)id, (long long)id);
}

static inline struct outbox_retention *open_retention(const struct outbox_class *classes,
                                                      size_t count)
{
    const struct outbox_retention_options options = {
        .path = path, .classes = classes, .class_count = count, .clock = &now.clock};
    struct outbox_retention *retention = NULL;
    struct wb_why why = {""};

    if (outbox_retention_open(&options, &retention, &why) != WB_OK)
        fail_msg("%s", why.text);
    return retention;
}

/* Step until there is nothing more to do; returns how many rows went. */
static inline uint64_t run_out(struct outbox_retention *retention)
{
    struct outbox_retention_result result = {.more = true};
    struct wb_why why = {""};
    uint64_t rows = 0;

    for (int i = 0; i < 100000 && result.more; i++) {
        if (outbox_retention_step(retention, &result, &why) != WB_OK)
            fail_msg("%s", why.text);
        assert_true(result.rows <= OUTBOX_RETENTION_ROWS);
        rows += result.rows;
    }
    assert_false(result.more);
    return rows;
}

#endif /* OUTBOX_RETENTION_FIXTURE_H */
