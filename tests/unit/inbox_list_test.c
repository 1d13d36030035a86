/* Looking into an inbox: who has handled what; and forgetting one event. */
#include "inbox_fixture.h"

#include <inttypes.h>

#define SOURCE "0123456789abcdef"

static int setup(void **state)
{
    (void)state;
    fixture_attach("worker");
    return 0;
}

struct any {
    char row[24];
    struct message_header headers[2];
    struct message message;
    struct inbox_origin origin;
};

/* Event of an outbox by its row; or a foreign one by its id. */
static struct any *event(int64_t row, const char *id)
{
    static struct any any;

    snprintf(any.row, sizeof(any.row), "%" PRId64, row);
    any.headers[0] = (struct message_header){wb_str(MESSAGE_HEADER_SOURCE), wb_str(SOURCE)};
    any.headers[1] = (struct message_header){wb_str(MESSAGE_HEADER_ROW), wb_str(any.row)};
    any.message = (struct message){.subject = wb_str("a.b"),
                                   .headers = any.headers,
                                   .header_count = row > 0 ? 2 : 0,
                                   .msg_id = wb_str(id)};
    any.origin = (struct inbox_origin){.stream = wb_str("A"),
                                       .sequence = 5,
                                       .stored_wall_ns = WB_SEC,
                                       .stream_created_wall_ns = 7};
    return &any;
}

static wb_err claim(int64_t row, const char *id)
{
    struct any *any = event(row, id);

    assert_ok(db_begin(db, NULL));
    wb_err err = inbox_claim(inbox, &any->message, &any->origin, NULL);
    assert_ok(db_commit(db, NULL));
    return err;
}

static void claim_rows(int64_t from, int64_t to)
{
    assert_ok(db_begin(db, NULL));
    for (int64_t row = from; row <= to; row++) {
        struct any *any = event(row, "any");
        assert_ok(inbox_claim(inbox, &any->message, &any->origin, NULL));
    }
    assert_ok(db_commit(db, NULL));
}

static wb_err forget(const char *name)
{
    struct wb_why why = {""};

    assert_ok(db_begin(db, NULL));
    wb_err err = inbox_forget(db_handle(db), "worker", wb_str(name), &why);
    assert_true(err == WB_OK || why.text[0] != '\0');
    if (err == WB_OK)
        assert_ok(db_commit(db, NULL));
    db_rollback(db);
    return err;
}

static struct inbox_event_status look(const char *name)
{
    struct inbox_event_status status;

    assert_ok(inbox_handled(db_handle(db), "worker", wb_str(name), &status, NULL));
    return status;
}

/* ---- one event ------------------------------------------------------------------------------- */

static void inbox_handled_tells_what_is_known_of_an_event(void **state)
{
    uint32_t failures = 0;

    (void)state;
    assert_ok(claim(42, "any"));
    assert_ok(claim(0, "foreign-1"));
    assert_true(look(SOURCE "/42").handled);
    assert_true(look(SOURCE "/42").ours);
    assert_false(look(SOURCE "/43").handled);
    assert_false(look("fedcba9876543210/42").handled);
    assert_true(look("foreign-1").handled);
    assert_false(look("foreign-1").ours);
    assert_false(look("foreign-2").handled);
    struct any *any = event(43, "any");
    assert_ok(inbox_fail(inbox, &any->message, &any->origin, "no luck", &failures, NULL));
    assert_int_equal(look(SOURCE "/43").failures, 1);
    assert_string_equal(look(SOURCE "/43").reason, "no luck");
    assert_ok(db_begin(db, NULL));
    assert_ok(inbox_park(inbox, &any->message, &any->origin, "hopeless", NULL));
    any = event(0, "foreign-2");
    assert_ok(inbox_park(inbox, &any->message, &any->origin, "bad", NULL));
    assert_ok(db_commit(db, NULL));
    assert_int_equal(look(SOURCE "/43").letter, 1);
    assert_string_equal(look(SOURCE "/43").reason, "hopeless");
    assert_int_equal(look("foreign-2").letter, 2);
    assert_false(look("foreign-2").letter_retry);
    assert_ok(db_exec(db, "UPDATE dead_letter SET state = 'retry'", NULL));
    assert_true(look("foreign-2").letter_retry);
}

static void inbox_handled_of_what_is_not_there_is_refused(void **state)
{
    struct inbox_event_status status = {.crashes = 77};

    (void)state;
    assert_ok(claim(42, "any"));
    assert_err(inbox_handled(db_handle(db), "nobody", wb_str(SOURCE "/1"), &status, NULL),
               WB_NOT_FOUND);
    assert_err(inbox_handled(db_handle(db), "no token", wb_str(SOURCE "/1"), &status, NULL),
               WB_INVALID);
    assert_err(inbox_handled(db_handle(db), "worker", wb_str(""), &status, NULL), WB_INVALID);
    assert_int_equal(status.crashes, 77);
}

static void inbox_of_a_database_without_one_is_not_found(void **state)
{
    struct inbox_event_status status;
    struct db *other = NULL;
    char where[320];

    (void)state;
    snprintf(where, sizeof(where), "%s/other.db", dir);
    assert_ok(db_open(where, NULL, &other, NULL));
    assert_err(inbox_handled(db_handle(other), "worker", wb_str("x"), &status, NULL), WB_NOT_FOUND);
    assert_ok(db_exec(other,
                      "CREATE TABLE waybill_schema(component TEXT PRIMARY KEY, version INTEGER);"
                      "INSERT INTO waybill_schema VALUES('inbox', 1)",
                      NULL));
    assert_err(inbox_handled(db_handle(other), "worker", wb_str("x"), &status, NULL),
               WB_UNSUPPORTED);
    assert_ok(db_exec(other, "UPDATE waybill_schema SET version = 99", NULL));
    assert_err(inbox_handled(db_handle(other), "worker", wb_str("x"), &status, NULL),
               WB_UNSUPPORTED);
    db_close(other);
}

/* ---- forgetting ------------------------------------------------------------------------------ */

static void inbox_forget_has_an_event_handled_once_more(void **state)
{
    (void)state;
    assert_ok(claim(42, "any"));
    assert_ok(claim(43, "any"));
    assert_ok(claim(0, "foreign"));
    assert_ok(forget(SOURCE "/42"));
    assert_false(look(SOURCE "/42").handled);
    assert_true(look(SOURCE "/43").handled);
    assert_err(forget(SOURCE "/42"), WB_NOT_FOUND);
    assert_ok(forget("foreign"));
    assert_err(forget("foreign"), WB_NOT_FOUND);
    assert_ok(claim(42, "any"));
    assert_err(claim(42, "any"), WB_EXISTS);
    assert_err(claim(43, "any"), WB_EXISTS);
    assert_ok(claim(0, "foreign"));
}

static void inbox_forget_cuts_a_run_of_full_pages_where_it_must(void **state)
{
    static const int64_t rows[] = {1, 2048, 5000, 8192, 8193};
    struct sqlite3_stmt *stmt = NULL;
    char name[40];

    (void)state;
    claim_rows(1, INT64_C(10240));
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        snprintf(name, sizeof(name), SOURCE "/%" PRId64, rows[i]);
        assert_ok(forget(name));
        for (int64_t row = 1; row <= INT64_C(10240); row++) {
            char other[40];
            snprintf(other, sizeof(other), SOURCE "/%" PRId64, row);
            if (row % 997 == 0 || row == rows[i] || row == rows[i] - 1 || row == rows[i] + 1)
                assert_int_equal(look(other).handled, row != rows[i]);
        }
        assert_ok(claim(rows[i], "any"));
    }
    /* All is one run again. */
    assert_ok(db_prepare(db, "SELECT count(*), max(full) FROM inbox_page", &stmt, NULL));
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    assert_int_equal(sqlite3_column_int(stmt, 0), 1);
    assert_int_equal(sqlite3_column_int(stmt, 1), 5);
    sqlite3_finalize(stmt);
}

static void inbox_forget_of_a_dead_letter_is_a_conflict(void **state)
{
    struct any *any = event(42, "any");

    (void)state;
    assert_ok(db_begin(db, NULL));
    assert_ok(inbox_park(inbox, &any->message, &any->origin, "x", NULL));
    assert_ok(db_commit(db, NULL));
    assert_err(forget(SOURCE "/42"), WB_CONFLICT);
    assert_true(look(SOURCE "/42").handled);
}

static void inbox_forget_outside_a_transaction_is_misuse(void **state)
{
    (void)state;
    assert_ok(claim(42, "any"));
    assert_err(inbox_forget(db_handle(db), "worker", wb_str(SOURCE "/42"), NULL), WB_MISUSE);
    assert_true(look(SOURCE "/42").handled);
}

/* ---- all of it ------------------------------------------------------------------------------- */

static struct wb_buf seen;

static bool note(void *ctx, const struct inbox_status *status)
{
    wb_buf_printf(&seen, "%.*s handled %" PRIu64 " pages %" PRIu64 " foreign %" PRIu64,
                  (int)status->consumer.len, status->consumer.ptr, status->handled, status->pages,
                  status->foreign);
    wb_buf_printf(&seen, " failing %" PRIu64 " parked %" PRIu64 " retry %" PRIu64, status->failing,
                  status->parked, status->retry);
    wb_buf_printf(&seen, " starts %" PRIu64 " suspect %.*s accused %.*s %" PRIu64, status->starts,
                  (int)status->suspect.len, status->suspect.ptr, (int)status->accused.len,
                  status->accused.ptr, status->crashes);
    for (size_t i = 0; i < status->stream_count; i++)
        wb_buf_printf(&seen, " %.*s at %" PRIu64 " of %" PRId64 " starts %" PRIu64,
                      (int)status->streams[i].stream.len, status->streams[i].stream.ptr,
                      status->streams[i].sequence, status->streams[i].stream_created_wall_ns,
                      status->streams[i].starts);
    wb_buf_str(&seen, "\n");
    return ctx == NULL;
}

static bool any_stream(void *ctx, struct wb_str stream, uint32_t starts)
{
    (void)ctx;
    (void)starts;
    return stream.len > 0;
}

static void inbox_list_tells_all_consumers_by_name(void **state)
{
    (void)state;
    claim_rows(1, 3000);
    assert_ok(claim(0, "foreign"));
    struct any *any = event(0, "f2");
    uint32_t failures = 0, starts = 0, crashes = 0;
    assert_ok(inbox_fail(inbox, &any->message, &any->origin, "x", &failures, NULL));
    assert_ok(db_begin(db, NULL));
    assert_ok(inbox_advance(inbox, &any->message, &any->origin, NULL));
    any->origin.stream = wb_str("B");
    any->origin.sequence = 9;
    assert_ok(inbox_advance(inbox, &any->message, &any->origin, NULL));
    any = event(4000, "any");
    assert_ok(inbox_park(inbox, &any->message, &any->origin, "x", NULL));
    assert_ok(inbox_start_count(inbox, any_stream, NULL, &starts, &crashes, NULL));
    assert_ok(inbox_suspect(inbox, &any->message, &any->origin, NULL));
    assert_ok(inbox_start_count(inbox, any_stream, NULL, &starts, &crashes, NULL));
    assert_ok(inbox_suspect_letter(inbox, 7, NULL));
    assert_int_equal(starts, 2);
    assert_int_equal(crashes, 1);
    assert_ok(db_commit(db, NULL));
    assert_ok(db_exec(db,
                      "INSERT INTO inbox_position VALUES('another', 'A', 3, 4, 0, 0);"
                      "INSERT INTO inbox_start(consumer, starts) VALUES('zero', 1)",
                      NULL));
    assert_ok(inbox_list(db_handle(db), note, NULL, NULL));
    assert_string_equal(
        seen.ptr,
        "another handled 0 pages 0 foreign 0 failing 0 parked 0 retry 0 starts 0 suspect  accused "
        " 0 A at 4 of 3 starts 0\n"
        "worker handled 3001 pages 2 foreign 1 failing 1 parked 1 retry 0 starts 2 suspect dead "
        "letter 7 accused " SOURCE "/4000 1 A at 5 of 7 starts 2 B at 9 of 7 starts 2\n"
        "zero handled 0 pages 0 foreign 0 failing 0 parked 0 retry 0 starts 1 suspect  accused "
        " 0\n");
    wb_buf_free(&seen);
    assert_ok(inbox_list(db_handle(db), note, &seen, NULL));
    assert_int_equal(seen.len, strcspn(seen.ptr, "\n") + 1); /* it was stopped */
    wb_buf_free(&seen);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(inbox_handled_tells_what_is_known_of_an_event),
        T(inbox_handled_of_what_is_not_there_is_refused),
        T(inbox_of_a_database_without_one_is_not_found),
        T(inbox_forget_has_an_event_handled_once_more),
        T(inbox_forget_cuts_a_run_of_full_pages_where_it_must),
        T(inbox_forget_of_a_dead_letter_is_a_conflict),
        T(inbox_forget_outside_a_transaction_is_misuse),
        T(inbox_list_tells_all_consumers_by_name),
#undef T
    };
    return cmocka_run_group_tests_name("inbox_list", tests, NULL, NULL);
}
