/* What status, list and show say about rows, cursors and exceptions. */
#include <sqlite3.h>
#include <stdio.h>

#include "test_support.h"
#include "waybill/outbox_impl.h"

#include <waybill/db.h>

struct fixture {
    char dir[256];
    struct db *db;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    char path[300];

    assert_non_null(f);
    test_dir_make(f->dir);
    (void)snprintf(path, sizeof(path), "%s/m.db", f->dir);
    assert_ok(db_open(path, &(struct db_options){.sync = DB_SYNC_NORMAL}, &f->db, NULL));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    db_close(f->db);
    test_dir_remove(f->dir);
    free(f);
    return 0;
}

/* Nine rows: two published, one of each exception, two pending. */
static void fill(struct fixture *f)
{
    assert_ok(outbox_schema_prepare(db_handle(f->db), NULL));
    assert_ok(db_exec(
        f->db,
        "INSERT INTO outbox(subject, payload, created) VALUES('a.one', '1', 1000), ('a.two', '2', "
        "2000),"
        " ('a.three', '3', 3000), ('a.four', '4', 4000), ('a.five', '5', 5000), ('a.six', '6', "
        "6000),"
        " ('a.seven', '7', 7000), ('b.eight', '8', 8000), ('bad subject', '9', 9000);"
        "INSERT INTO outbox_cursor(stream, last_id, last_seq, holder) VALUES('A', 7, 11, 2);"
        "INSERT INTO outbox_exception(id, state, attempts, next_at, error) VALUES(3, 'retry', 2, "
        "12345, 'refused'),"
        " (4, 'waiting', 0, 99, ''), (5, 'parked', 10, NULL, 'no'), (6, 'expired', 0, NULL, ''),"
        " (7, 'lost', 0, 0, '');",
        NULL));
}

static bool add_line(void *ctx, const struct outbox_row *row)
{
    wb_buf_printf(ctx, "%lld %s %u %lld %.*s\n", (long long)row->id, outbox_state_name(row->state),
                  row->attempts, (long long)row->next_wall_ns, (int)row->error.len, row->error.ptr);
    return true;
}

static bool stop_at_once(void *ctx, const struct outbox_row *row)
{
    (void)add_line(ctx, row);
    return false;
}

static void assert_listed(struct fixture *f, const struct outbox_filter *filter, const char *lines)
{
    struct wb_buf out = {0};

    wb_buf_str(&out, "");
    assert_ok(outbox_list(db_handle(f->db), filter, add_line, &out, NULL));
    assert_string_equal(out.ptr != NULL ? out.ptr : "", lines);
    wb_buf_free(&out);
}

static void status_without_an_outbox_says_not_found(void **state)
{
    struct fixture *f = *state;
    struct outbox_status status;

    assert_err(outbox_status(db_handle(f->db), &status, NULL), WB_NOT_FOUND);
}

static void status_counts_rows_by_what_became_of_them(void **state)
{
    struct fixture *f = *state;
    struct outbox_status status;

    fill(f);
    assert_ok(outbox_status(db_handle(f->db), &status, NULL));
    assert_int_equal(status.rows, 9);
    assert_int_equal(status.pending, 3); /* 8 and 9, and 7: the stream does not hold it */
    assert_true(status.pending_exact);
    assert_int_equal(status.retry, 1);
    assert_int_equal(status.waiting, 1);
    assert_int_equal(status.parked, 1);
    assert_int_equal(status.expired, 1);
    assert_int_equal(status.cancelled, 0);
    assert_true(status.counts_exact);
    assert_int_equal(status.last_id, 9);
    assert_int_equal(status.oldest_wall_ns, 7 * WB_SEC);
    assert_int_equal(strlen(status.source), 16);
    assert_int_equal(status.stream_count, 1);
    assert_string_equal(status.streams[0].stream, "A");
    assert_int_equal(status.streams[0].last_id, 7);
    assert_int_equal(status.streams[0].last_seq, 11);
    assert_int_equal(status.streams[0].holder, 2);
}

static void status_of_many_rows_is_bounded_and_says_so(void **state)
{
    struct fixture *f = *state;
    struct outbox_status status;

    fill(f);
    assert_ok(db_exec(f->db,
                      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i <"
                      " 5000) INSERT INTO outbox(subject, created) SELECT 'a.b', 9000 FROM n;"
                      "INSERT INTO outbox_exception(id, state, next_at) SELECT id, 'waiting', 1"
                      " FROM outbox WHERE id > 2009 AND id <= 3509;"
                      "INSERT INTO outbox_exception(id, state) SELECT id, 'cancelled'"
                      " FROM outbox WHERE id > 3509 AND id <= 3511",
                      NULL));
    assert_ok(outbox_status(db_handle(f->db), &status, NULL));
    assert_int_equal(status.rows, 5009);
    assert_int_equal(status.pending, 5002); /* beyond row 7, those that wait included */
    assert_false(status.pending_exact);
    assert_int_equal(status.waiting, OUTBOX_STATUS_COUNT);
    assert_int_equal(status.cancelled, 2);
    assert_false(status.counts_exact);
    assert_int_equal(status.oldest_wall_ns, 7 * WB_SEC);
}

static void status_of_a_row_follows_the_cursor_of_the_stream_it_names(void **state)
{
    struct fixture *f = *state;

    fill(f);
    assert_ok(
        db_exec(f->db,
                "INSERT INTO outbox(id, subject, stream) VALUES(20, 'x', 'A'), (21, 'x', 'B'),"
                " (22, 'x', '');"
                "UPDATE outbox_cursor SET last_id = 22;"
                "INSERT INTO outbox_cursor(stream, last_id) VALUES('B', 20)",
                NULL));
    assert_listed(f, &(struct outbox_filter){.after_id = 10},
                  "20 published 0 0 \n21 pending 0 0 \n22 pending 0 0 \n");
}

static void list_shows_state_attempts_time_and_error(void **state)
{
    struct fixture *f = *state;

    fill(f);
    assert_listed(f, &(struct outbox_filter){.limit = 100},
                  "1 published 0 0 \n2 published 0 0 \n3 retry 2 12345000000 refused\n"
                  "4 waiting 0 99000000 \n5 parked 10 0 no\n6 expired 0 0 \n7 pending 0 0 \n"
                  "8 pending 0 0 \n9 pending 0 0 \n");
}

static void list_filters_by_state_subject_number_and_count(void **state)
{
    struct fixture *f = *state;

    fill(f);
    assert_listed(f, &(struct outbox_filter){.by_state = true, .state = OUTBOX_PENDING},
                  "7 pending 0 0 \n8 pending 0 0 \n9 pending 0 0 \n");
    assert_listed(f, &(struct outbox_filter){.by_state = true, .state = OUTBOX_PARKED},
                  "5 parked 10 0 no\n");
    assert_listed(f, &(struct outbox_filter){.by_state = true, .state = OUTBOX_PUBLISHED},
                  "1 published 0 0 \n2 published 0 0 \n");
    assert_listed(f, &(struct outbox_filter){.pattern = wb_str("b.>")}, "8 pending 0 0 \n");
    assert_listed(f, &(struct outbox_filter){.after_id = 7, .limit = 1}, "8 pending 0 0 \n");
    assert_err(outbox_list(db_handle(f->db), &(struct outbox_filter){.pattern = wb_str("a..")},
                           add_line, NULL, NULL),
               WB_INVALID);
}

static void list_stops_when_the_visitor_has_enough(void **state)
{
    struct fixture *f = *state;
    struct wb_buf out = {0};

    fill(f);
    assert_ok(outbox_list(db_handle(f->db), &(struct outbox_filter){0}, stop_at_once, &out, NULL));
    assert_string_equal(out.ptr, "1 published 0 0 \n");
    wb_buf_free(&out);
}

static void show_finds_by_number_and_refuses_nonsense(void **state)
{
    struct fixture *f = *state;
    struct wb_buf out = {0};

    fill(f);
    assert_ok(outbox_show(db_handle(f->db), wb_str("5"), add_line, &out, NULL));
    assert_string_equal(out.ptr, "5 parked 10 0 no\n");
    assert_err(outbox_show(db_handle(f->db), wb_str("77"), add_line, &out, NULL), WB_NOT_FOUND);
    assert_err(outbox_show(db_handle(f->db), wb_str("00112233445566778899aabbccddeeff"), add_line,
                           &out, NULL),
               WB_NOT_FOUND);
    assert_err(outbox_show(db_handle(f->db), wb_str("five"), add_line, &out, NULL), WB_INVALID);
    wb_buf_free(&out);
}

/* ---- the message a row becomes --------------------------------------------------------------- */

static void envelope_carries_identity_source_row_and_key(void **state)
{
    struct outbox_envelope envelope;
    const struct message_header own[] = {{wb_str("Color"), wb_str("red")}};
    struct outbox_row row = {.id = 42,
                             .subject = wb_str("a.b"),
                             .key = wb_str("caf\xc3\xa9 100%\n"),
                             .traceparent = wb_str("00-aa-bb-01")};
    const struct message *msg = &envelope.message;

    (void)state;
    memset(row.msg_id, 0xab, sizeof(row.msg_id));
    assert_ok(outbox_envelope_make(&row, "0123456789abcdef", own, 1, 1000, &envelope, NULL));
    assert_true(wb_str_eq(msg->msg_id, wb_str("abababababababababababababababab")));
    assert_true(wb_str_eq(message_header(msg, MESSAGE_HEADER_SOURCE), wb_str("0123456789abcdef")));
    assert_true(wb_str_eq(message_header(msg, MESSAGE_HEADER_ROW), wb_str("42")));
    assert_true(
        wb_str_eq(message_header(msg, MESSAGE_HEADER_KEY), wb_str("caf%C3%A9%20100%25%0A")));
    assert_true(wb_str_eq(message_header(msg, "traceparent"), wb_str("00-aa-bb-01")));
    assert_true(wb_str_eq(message_header(msg, "color"), wb_str("red")));
    assert_int_equal(msg->header_count, 5);
}

static void envelope_keeps_the_events_own_traceparent(void **state)
{
    struct outbox_envelope envelope;
    const struct message_header own[] = {{wb_str("Traceparent"), wb_str("own")}};
    struct outbox_row row = {
        .id = 1, .subject = wb_str("a.b"), .traceparent = wb_str("of the column")};

    (void)state;
    assert_ok(outbox_envelope_make(&row, "0123456789abcdef", own, 1, 1000, &envelope, NULL));
    assert_true(wb_str_eq(message_header(&envelope.message, "traceparent"), wb_str("own")));
    assert_int_equal(envelope.message.header_count, 3);
}

static void exception_states_have_the_names_of_the_table(void **state)
{
    outbox_exception_state parsed;

    (void)state;
    for (int s = OUTBOX_EXCEPTION_LOST; s <= OUTBOX_EXCEPTION_CANCELLED; s++) {
        const char *name = outbox_exception_state_name((outbox_exception_state)s);
        assert_true(outbox_exception_state_parse(wb_str(name), &parsed));
        assert_int_equal(parsed, s);
    }
    assert_false(outbox_exception_state_parse(wb_str(""), &parsed));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(status_without_an_outbox_says_not_found),
        T(status_counts_rows_by_what_became_of_them),
        T(status_of_many_rows_is_bounded_and_says_so),
        T(status_of_a_row_follows_the_cursor_of_the_stream_it_names),
        T(list_shows_state_attempts_time_and_error),
        T(list_filters_by_state_subject_number_and_count),
        T(list_stops_when_the_visitor_has_enough),
        T(show_finds_by_number_and_refuses_nonsense),
        cmocka_unit_test(envelope_carries_identity_source_row_and_key),
        cmocka_unit_test(envelope_keeps_the_events_own_traceparent),
        cmocka_unit_test(exception_states_have_the_names_of_the_table),
    };
    return cmocka_run_group_tests_name("outbox_list", tests, NULL, NULL);
}
