/* dead_letter_fixture.h - a database file with dead letters of both kinds. */
#ifndef DEAD_LETTER_FIXTURE_H
#define DEAD_LETTER_FIXTURE_H

#include <sqlite3.h>
#include <stdio.h>

#include "test_support.h"
#include "waybill/outbox_impl.h"

#include <waybill/db.h>
#include <waybill/dead_letter.h>
#include <waybill/inbox.h>

#define FIXTURE_TEST(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)

#define NOW_S 1000 /* of the virtual clock */

struct fixture {
    char dir[256];
    struct db *db;
    struct wb_clock_virtual clock;
};

static inline int fixture_setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    char path[300];

    assert_non_null(f);
    test_dir_make(f->dir);
    (void)snprintf(path, sizeof(path), "%s/m.db", f->dir);
    assert_ok(db_open(path, &(struct db_options){.sync = DB_SYNC_NORMAL}, &f->db, NULL));
    wb_clock_virtual_init(&f->clock, 0, NOW_S * WB_SEC);
    *state = f;
    return 0;
}

static inline int fixture_teardown(void **state)
{
    struct fixture *f = *state;

    db_close(f->db);
    test_dir_remove(f->dir);
    free(f);
    return 0;
}

static inline void fixture_sql(struct fixture *f, const char *sql)
{
    struct wb_why why = {""};

    if (db_exec(f->db, sql, &why) != WB_OK)
        fail_msg("%s: %s", sql, why.text);
}

/* The first column of the first row, as text; "" for none. To be freed. */
static inline char *fixture_value(struct fixture *f, const char *sql)
{
    struct sqlite3_stmt *stmt = NULL;
    char *text = NULL;

    assert_ok(db_prepare(f->db, sql, &stmt, NULL));
    if (sqlite3_step(stmt) == SQLITE_ROW && sqlite3_column_type(stmt, 0) != SQLITE_NULL)
        text = wb_str_dup(wb_str((const char *)sqlite3_column_text(stmt, 0)));
    else
        text = wb_str_dup(wb_str(""));
    assert_non_null(text);
    (void)sqlite3_finalize(stmt);
    return text;
}

static inline void assert_value(struct fixture *f, const char *sql, const char *expected)
{
    char *got = fixture_value(f, sql);

    if (strcmp(got, expected) != 0)
        fail_msg("%s: '%s', expected '%s'", sql, got, expected);
    free(got);
}

/*
 * Rows 1 to 6: 2 and 5 are parked, 3 waits behind 2, 4 is tried again by itself, 6 is cancelled.
 */
static inline void fixture_outbox(struct fixture *f)
{
    assert_ok(outbox_schema_prepare(db_handle(f->db), NULL));
    fixture_sql(f, "INSERT INTO outbox(subject, key, headers, created, payload) VALUES"
                   " ('orders.one', 'k1', '', 100000, '1'),"
                   " ('orders.two', 'k2', 'x-a: 1', 200000, '{\"id\":2}'),"
                   " ('orders.three', 'k2', '', 300000, '3'),"
                   " ('orders.four', 'k4', '', 400000, '4'),"
                   " ('bad subject', '', '', 500000, x'00ff'),"
                   " ('orders.six', '', '', 600000, '6');"
                   "INSERT INTO outbox_exception(id, state, attempts, next_at, error) VALUES"
                   " (2, 'parked', 10, NULL, 'refused after 10 tries: code 10054'),"
                   " (3, 'blocked', 0, NULL, ''),"
                   " (4, 'retry', 2, 1, 'no'),"
                   " (5, 'parked', 1, NULL, 'refused after 3 tries: code 10060'),"
                   " (6, 'cancelled', 1, NULL, 'gone');");
}

/* Letters 1 to 4 of two consumers; 3 is about to be handled anew. */
static inline void fixture_inbox(struct fixture *f)
{
    struct inbox *inbox = NULL;

    assert_ok(inbox_attach(db_handle(f->db), "billing", &inbox, NULL));
    inbox_detach(inbox);
    fixture_sql(
        f,
        "INSERT INTO dead_letter(consumer, state, key, source, row_id, subject, headers, msg_id,"
        " stream, sequence, stored_at, reason, failures, parked_at, payload) VALUES"
        " ('billing', 'parked', 'k1', '00112233aabbccdd', 7, 'orders.one',"
        "  'waybill-source: 00112233aabbccdd' || char(10) || 'waybill-row: 7' || char(10) ||"
        "  'waybill-key: k1' || char(10) || 'x-a: 1', 'm1', 'ORDERS', 11, 650000,"
        "  'no such customer 17', 5, 700000, '{\"password\":\"x\"}'),"
        " ('billing', 'parked', 'k1', '00112233aabbccdd', 8, 'orders.two',"
        "  'waybill-source: 00112233aabbccdd' || char(10) || 'waybill-row: 8' || char(10) ||"
        "  'waybill-key: k1', 'm2', 'ORDERS', 12, 650000, 'no such customer 18', 5, 800000, '{}'),"
        " ('billing', 'retry', '', '', 0, 'orders.three', '', 'm3', 'ORDERS', 13, 650000,"
        "  'timeout', 5, 900000, '{}'),"
        " ('audit', 'parked', 'k1', '', 0, 'orders.four', '', 'm4', 'ORDERS', 14, 650000,"
        "  'timeout', 5, 950000, '{}');");
}

static inline struct dead_letter_act fixture_act(struct fixture *f, const char *command,
                                                 const char *reason)
{
    return (struct dead_letter_act){
        .command = wb_str(command), .reason = wb_str(reason), .clock = &f->clock.clock};
}

/* The filter of a query; ended with filter_destroy(). */
static inline struct filter *fixture_filter(const char *where)
{
    struct filter *filter = NULL;
    struct wb_why why = {""};

    if (filter_parse(wb_str(where), dead_letter_fields, dead_letter_field_count, &filter, &why) !=
        WB_OK)
        fail_msg("%s: %s", where, why.text);
    return filter;
}

#endif /* DEAD_LETTER_FIXTURE_H */
