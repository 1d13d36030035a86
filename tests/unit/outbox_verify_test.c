/* What a stream holds against what the table says, on a memory bus moved by hand. */
#include "test_support.h"

#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>

#include <waybill/db.h>
#include <waybill/event_bus_memory.h>
#include <waybill/outbox_impl.h>
#include <waybill/outbox_verify.h>

struct fixture {
    char dir[256];
    struct db *db;
    struct event_bus *bus;
    struct outbox_verify_options options;
    struct outbox_verify_report report;
};

static void sql(struct fixture *f, const char *text)
{
    struct wb_why why;

    if (db_exec(f->db, text, &why) != WB_OK)
        fail_msg("%s", why.text);
}

static void declare(struct fixture *f, uint64_t max_messages)
{
    static const char *const subjects[] = {"a.>"};

    assert_ok(
        event_bus_declare_stream(f->bus,
                                 &(struct event_bus_stream_options){.name = "A",
                                                                    .subjects = subjects,
                                                                    .subject_count = 1,
                                                                    .max_messages = max_messages,
                                                                    .discard_old = true},
                                 EVENT_BUS_APPLY, NULL));
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    char path[300];

    assert_non_null(f);
    test_dir_make(f->dir);
    (void)snprintf(path, sizeof(path), "%s/m.db", f->dir);
    assert_ok(db_open(path, &(struct db_options){.sync = DB_SYNC_NORMAL}, &f->db, NULL));
    assert_ok(outbox_schema_prepare(db_handle(f->db), NULL));
    assert_ok(event_bus_memory_create(
        &(struct event_bus_memory_options){.manual = true, .start_wall_ns = 1700000000 * WB_SEC},
        &f->bus));
    declare(f, 0);
    f->options.stream = "A";
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    outbox_verify_report_free(&f->report);
    event_bus_destroy(f->bus);
    db_close(f->db);
    test_dir_remove(f->dir);
    free(f);
    return 0;
}

/* n rows, and a cursor that says that all of the table are published. */
static void rows(struct fixture *f, int n, const char *subject)
{
    char text[300];

    (void)snprintf(text, sizeof(text),
                   "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)"
                   " INSERT INTO outbox(subject, key) SELECT '%s', 'k' || (i %% 3) FROM n",
                   n, subject);
    sql(f, text);
    sql(f, "INSERT OR REPLACE INTO outbox_cursor(stream, last_id)"
           " SELECT 'A', max(id) FROM outbox");
}

static void publish_row(struct fixture *f, const struct outbox_row *row, const char *source,
                        const char *suffix)
{
    struct outbox_envelope envelope;

    assert_ok(outbox_envelope_make(row, source, NULL, 0, MESSAGE_PAYLOAD_MAX, &envelope, NULL));
    (void)snprintf(envelope.msg_id + 32, sizeof(envelope.msg_id) - 32, "%s", suffix);
    envelope.message.msg_id = wb_str(envelope.msg_id);
    assert_ok(event_bus_publish(f->bus, &envelope.message, NULL, NULL, NULL));
}

/* Publish rows first to last, as a publisher does; the suffix is put behind the message ids. */
static void publish(struct fixture *f, int64_t first, int64_t last, const char *suffix)
{
    struct sqlite3_stmt *stmt;
    struct outbox_row row;
    char source[OUTBOX_SOURCE_TEXT];

    assert_ok(db_prepare(f->db,
                         "SELECT " OUTBOX_ROW_COLUMNS ", (SELECT source FROM outbox_source s WHERE"
                         " s.from_id <= o.id ORDER BY from_id DESC LIMIT 1) FROM outbox o"
                         " WHERE o.id BETWEEN ?1 AND ?2 ORDER BY o.id",
                         &stmt, NULL));
    (void)sqlite3_bind_int64(stmt, 1, first);
    (void)sqlite3_bind_int64(stmt, 2, last);
    while (sqlite3_step(stmt) == SQLITE_ROW) {
        outbox_row_read(stmt, &row);
        wb_hex_encode(sqlite3_column_blob(stmt, OUTBOX_ROW_COLUMN_COUNT), OUTBOX_SOURCE_SIZE,
                      source);
        publish_row(f, &row, source, suffix);
    }
    (void)sqlite3_finalize(stmt);
}

static void publish_foreign(struct fixture *f)
{
    const struct message msg = {.subject = wb_str("a.foreign")};

    assert_ok(event_bus_publish(f->bus, &msg, NULL, NULL, NULL));
}

static const struct outbox_verify_report *verify(struct fixture *f)
{
    struct wb_why why = {.text = ""};

    outbox_verify_report_free(&f->report);
    if (outbox_verify(f->db, f->bus, &f->options, &f->report, &why) != WB_OK)
        fail_msg("%s", why.text);
    assert_int_equal(f->report.rows, f->report.found + f->report.missing + f->report.gone);
    return &f->report;
}

static void assert_list(const struct outbox_verify_list *list, const char *expected)
{
    struct wb_buf out = {0};

    for (size_t i = 0; i < list->count; i++)
        wb_buf_printf(&out, "%s%" PRId64, i > 0 ? " " : "", list->ids[i]);
    wb_buf_str(&out, list->truncated ? " ..." : "");
    assert_string_equal(out.ptr != NULL ? out.ptr : "", expected);
    wb_buf_free(&out);
}

/* ---- what is compared ------------------------------------------------------------------------ */

static void rows_that_are_all_there_are_found(void **state)
{
    struct fixture *f = *state;

    rows(f, 1000, "a.x");
    publish(f, 1, 1000, "");
    const struct outbox_verify_report *r = verify(f);
    assert_int_equal(r->messages, 1000);
    assert_int_equal(r->rows, 1000);
    assert_int_equal(r->found, 1000);
    assert_int_equal(r->missing + r->doubled + r->gone + r->orphans + r->foreign + r->beyond, 0);
    assert_int_equal(r->out_of_order, 0);
    assert_false(r->made_anew || r->rolled_back);
    assert_int_equal(r->last_id, 1000);
    assert_int_equal(r->first_seq, 1);
    assert_int_equal(r->last_seq, 1000);
}

static void rows_deleted_from_the_stream_are_missing(void **state)
{
    struct fixture *f = *state;

    rows(f, 40000, "a.x");
    publish(f, 1, 40000, "");
    assert_true(event_bus_memory_delete(f->bus, "A", 2));
    assert_true(event_bus_memory_delete(f->bus, "A", 16384));
    assert_true(event_bus_memory_delete(f->bus, "A", 16385));
    assert_true(event_bus_memory_delete(f->bus, "A", 40000));
    assert_list(&verify(f)->missing_ids, "2 16384 16385 40000");
    assert_int_equal(f->report.missing, 4);
    assert_int_equal(f->report.found, 39996);
    f->options.list_max = 2;
    assert_list(&verify(f)->missing_ids, "2 16384 ...");
    assert_int_equal(f->report.missing, 4);
}

static void rows_never_stored_are_missing(void **state)
{
    struct fixture *f = *state;

    rows(f, 5, "a.x");
    assert_list(&verify(f)->missing_ids, "1 2 3 4 5");
}

static void rows_stored_twice_are_doubled(void **state)
{
    struct fixture *f = *state;

    rows(f, 10, "a.x");
    publish(f, 1, 10, "");
    publish(f, 3, 4, "-1"); /* another id for the bus, the same event for us */
    publish(f, 4, 4, "-2");
    const struct outbox_verify_report *r = verify(f);
    assert_list(&r->doubled_ids, "3 4");
    assert_int_equal(r->doubled, 2);
    assert_int_equal(r->missing, 0);
}

static void rows_that_are_not_said_to_be_in_the_stream_are_left_out(void **state)
{
    struct fixture *f = *state;

    rows(f, 10, "a.x");
    sql(f, "INSERT INTO outbox(subject) VALUES('b.other'), ('not a subject');"
           "INSERT INTO outbox(subject, stream) VALUES('a.named', 'B'), ('a.named', 'A');"
           "INSERT INTO outbox(subject) VALUES('a.x'), ('a.beyond');"
           "INSERT INTO outbox_edit(id, subject, headers, edited_at, payload)"
           " VALUES(2, 'b.mended', '', 1, x'');"
           "INSERT INTO outbox_exception(id, state) VALUES(3, 'parked'), (4, 'lost');"
           "UPDATE outbox_cursor SET last_id = 15");
    publish(f, 5, 10, "");
    publish(f, 16, 16, "");
    const struct outbox_verify_report *r = verify(f);
    assert_list(&r->missing_ids, "1 14 15");
    assert_int_equal(r->rows, 9);
    assert_int_equal(r->beyond, 1);
}

static void messages_without_a_row_of_theirs_are_orphans(void **state)
{
    struct fixture *f = *state;

    rows(f, 10, "a.x");
    publish(f, 1, 10, "");
    publish_foreign(f);
    sql(f, "DELETE FROM outbox WHERE id IN (2, 3, 7);" /* as a restore, or a purge, does */
           "UPDATE outbox_cursor SET verified_id = 3;"
           "INSERT INTO outbox(id, subject) VALUES(7, 'a.x')");
    const struct outbox_verify_report *r = verify(f);
    assert_list(&r->orphan_seqs, "7");
    assert_int_equal(r->orphans, 1);
    assert_int_equal(r->purged, 2);
    assert_int_equal(r->foreign, 1);
    assert_list(&r->missing_ids, "7");
}

static void source_of_a_row_counts(void **state)
{
    struct fixture *f = *state;

    rows(f, 10, "a.x");
    publish(f, 1, 10, "");
    sql(f, "INSERT INTO outbox_source VALUES(9, x'0102030405060708')");
    publish(f, 9, 9, "-1");
    const struct outbox_verify_report *r = verify(f);
    assert_list(&r->orphan_seqs, "9 10");
    assert_list(&r->missing_ids, "10");
}

static void younger_rows_of_a_key_that_stand_first_are_counted(void **state)
{
    struct fixture *f = *state;

    rows(f, 9, "a.x"); /* keys 1 2 0 1 2 0 1 2 0 */
    publish(f, 1, 3, "");
    publish(f, 5, 9, "");
    publish(f, 4, 4, ""); /* behind row 7 of its key */
    assert_int_equal(verify(f)->out_of_order, 1);
    assert_int_equal(f->report.missing, 0);
}

/* ---- limits, and streams that are not what they were ----------------------------------------- */

static void rows_removed_by_the_limits_are_gone_not_missing(void **state)
{
    struct fixture *f = *state;

    declare(f, 100);
    rows(f, 300, "a.x");
    publish(f, 1, 300, "");
    assert_true(event_bus_memory_delete(f->bus, "A", 250));
    const struct outbox_verify_report *r = verify(f);
    assert_list(&r->missing_ids, "250");
    assert_int_equal(r->gone, 200);
    assert_int_equal(r->found, 99);
    assert_int_equal(r->first_seq, 201);
}

/* Row 5 was stored late, at the head of what is left: it says nothing about those behind it. */
static void late_row_at_the_head_does_not_make_others_missing(void **state)
{
    struct fixture *f = *state;

    declare(f, 11);
    rows(f, 30, "a.x");
    publish(f, 1, 4, "");
    publish(f, 6, 20, "");
    publish(f, 5, 5, "");
    publish(f, 21, 30, "");
    sql(f, "INSERT INTO outbox_late(row_id, stream, sequence) VALUES(5, 'A', 20), (4, 'A', 19)");
    const struct outbox_verify_report *r = verify(f);
    assert_int_equal(r->missing, 0);
    assert_int_equal(r->gone, 19);
    assert_int_equal(r->found, 11);
    sql(f, "UPDATE outbox_late SET sequence = 21 WHERE row_id = 4");
    assert_list(&verify(f)->missing_ids, "4"); /* it was stored behind the first that is left */
}

static void rows_before_the_sequence_asked_for_are_not_judged(void **state)
{
    struct fixture *f = *state;

    rows(f, 100, "a.x");
    publish(f, 1, 100, "");
    assert_true(event_bus_memory_delete(f->bus, "A", 30));
    assert_true(event_bus_memory_delete(f->bus, "A", 70));
    f->options.from_seq = 50;
    const struct outbox_verify_report *r = verify(f);
    assert_list(&r->missing_ids, "70");
    assert_int_equal(r->gone, 49);
    assert_int_equal(r->messages, 50);
}

static void stream_cut_short_is_told(void **state)
{
    struct fixture *f = *state;

    rows(f, 10, "a.x");
    publish(f, 1, 10, "");
    sql(f, "UPDATE outbox_cursor SET last_seq = 10");
    event_bus_memory_restart(f->bus, "A", 7);
    const struct outbox_verify_report *r = verify(f);
    assert_true(r->rolled_back);
    assert_list(&r->missing_ids, "8 9 10");
    event_bus_memory_restart(f->bus, "A", 0);
    assert_int_equal(verify(f)->missing, 10);
}

static void stream_made_anew_is_told(void **state)
{
    struct fixture *f = *state;

    rows(f, 3, "a.x");
    sql(f, "UPDATE outbox_cursor SET stream_created = 17");
    assert_true(verify(f)->made_anew);
    assert_int_equal(f->report.missing, 3);
}

static void what_cannot_be_compared_is_refused(void **state)
{
    struct fixture *f = *state;
    struct wb_why why = {.text = ""};

    assert_err(outbox_verify(f->db, f->bus, &f->options, &f->report, &why), WB_NOT_FOUND);
    assert_non_null(strstr(why.text, "never published to stream A"));
    f->options.stream = "NONE";
    assert_err(outbox_verify(f->db, f->bus, &f->options, &f->report, &why), WB_NO_STREAM);
    f->options.stream = "A";
    event_bus_memory_set_down(f->bus, true);
    assert_err(outbox_verify(f->db, f->bus, &f->options, &f->report, &why), WB_UNREACHABLE);
}

/* ---- size ------------------------------------------------------------------------------------ */

/* Everything at once, in one pass and in several: the same report. */
static void passes_over_parts_of_the_table_say_the_same_as_one(void **state)
{
    struct fixture *f = *state;

    rows(f, 50000, "a.x");
    publish(f, 1, 20000, "");
    publish_foreign(f);
    publish(f, 20011, 50000, "");
    publish(f, 20001, 20009, ""); /* late; 20010 never */
    publish(f, 49999, 49999, "-1");
    publish(f, 7, 7, "-1");
    sql(f, "DELETE FROM outbox WHERE id IN (1, 2, 30000);"
           "UPDATE outbox_cursor SET verified_id = 2, last_id = 49990");
    struct outbox_verify_report one = *verify(f);
    f->report = (struct outbox_verify_report){.messages = 0};
    f->options.span = 1;
    const struct outbox_verify_report *r = verify(f);
    assert_list(&one.missing_ids, "20010");
    assert_list(&one.doubled_ids, "7");
    assert_list(&r->missing_ids, "20010");
    assert_list(&r->doubled_ids, "7");
    assert_int_equal(one.messages, 50001 + 1);
    assert_int_equal(r->messages, one.messages);
    assert_int_equal(r->rows, one.rows);
    assert_int_equal(r->found, one.found);
    assert_int_equal(r->orphans, 1);
    assert_int_equal(one.orphans, 1);
    assert_int_equal(r->purged, 2);
    assert_int_equal(one.purged, 2);
    assert_int_equal(r->beyond, 11);
    assert_int_equal(one.beyond, 11);
    assert_int_equal(r->foreign, 1);
    assert_int_equal(r->out_of_order, one.out_of_order);
    outbox_verify_report_free(&one);
}

static void rows_in_any_order_are_found(void **state)
{
    struct fixture *f = *state;

    rows(f, 50000, "a.x");
    publish(f, 40001, 50000, "");
    publish(f, 1, 10000, "");
    for (int64_t id = 40000; id > 10000; id -= 1000)
        publish(f, id - 999, id, "");
    assert_int_equal(verify(f)->found, 50000);
    assert_int_equal(f->report.missing, 0);
    f->options.span = 20000;
    assert_int_equal(verify(f)->found, 50000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(rows_that_are_all_there_are_found),
        T(rows_deleted_from_the_stream_are_missing),
        T(rows_never_stored_are_missing),
        T(rows_stored_twice_are_doubled),
        T(rows_that_are_not_said_to_be_in_the_stream_are_left_out),
        T(messages_without_a_row_of_theirs_are_orphans),
        T(source_of_a_row_counts),
        T(younger_rows_of_a_key_that_stand_first_are_counted),
        T(rows_removed_by_the_limits_are_gone_not_missing),
        T(late_row_at_the_head_does_not_make_others_missing),
        T(rows_before_the_sequence_asked_for_are_not_judged),
        T(stream_cut_short_is_told),
        T(stream_made_anew_is_told),
        T(what_cannot_be_compared_is_refused),
        T(passes_over_parts_of_the_table_say_the_same_as_one),
        T(rows_in_any_order_are_found),
    };
    return cmocka_run_group_tests_name("outbox_verify", tests, NULL, NULL);
}
