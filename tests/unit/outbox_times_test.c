/* When an event is to go out, a caller's own name for it, and taking it back: the table's side. */
#include "outbox_fixture.h"

static void sql(struct fixture *f, const char *text)
{
    struct wb_why why;

    if (db_exec(f->db, text, &why) != WB_OK)
        fail_msg("%s", why.text);
}

static const struct outbox_event plain = {.subject = {"a.b", 3}, .payload = {"p", 1}};

static wb_err enqueue(struct fixture *f, const struct outbox_event *event,
                      struct outbox_receipt *receipt)
{
    assert_ok(db_begin(f->db, NULL));
    wb_err err = outbox_enqueue(f->outbox, event, receipt, NULL);
    assert_ok(db_commit(f->db, NULL));
    return err;
}

/* ---- times ----------------------------------------------------------------------------------- */

static void event_without_times_has_none_in_the_table(void **state)
{
    struct fixture *f = *state;

    assert_ok(enqueue(f, &plain, NULL));
    assert_int_equal(query_int(f, "SELECT due_at IS NULL AND expires_at IS NULL FROM outbox"), 1);
}

static void due_time_is_rounded_up_and_expiry_down(void **state)
{
    struct fixture *f = *state;
    struct outbox_event event = plain;

    event.due_wall_ns = 5 * WB_MS + 1;
    event.expires_wall_ns = 9 * WB_MS + 999999;
    assert_ok(enqueue(f, &event, NULL));
    assert_int_equal(query_int(f, "SELECT due_at FROM outbox"), 6);
    assert_int_equal(query_int(f, "SELECT expires_at FROM outbox"), 9);
    event.due_wall_ns = 5 * WB_MS;
    assert_ok(enqueue(f, &event, NULL));
    assert_int_equal(query_int(f, "SELECT due_at FROM outbox WHERE id = 2"), 5);
}

static void delay_counts_from_now(void **state)
{
    struct fixture *f = *state;
    struct outbox_event event = plain;
    int64_t before_ms = wb_wall_ns(wb_clock_system()) / WB_MS;

    event.delay_ns = 90 * WB_SEC;
    assert_ok(enqueue(f, &event, NULL));
    int64_t due_ms = query_int(f, "SELECT due_at FROM outbox");
    assert_in_range(due_ms - before_ms, 90000, 150000);
}

static void times_that_make_no_sense_are_refused_and_nothing_is_written(void **state)
{
    struct fixture *f = *state;
    struct outbox_event event = plain;

    event.due_wall_ns = event.delay_ns = WB_SEC;
    assert_err(enqueue(f, &event, NULL), WB_INVALID);
    event = plain;
    event.due_wall_ns = 10 * WB_MS;
    event.expires_wall_ns = 10 * WB_MS;
    assert_err(enqueue(f, &event, NULL), WB_INVALID);
    event = plain;
    event.delay_ns = WB_SEC;
    event.expires_wall_ns = wb_wall_ns(wb_clock_system());
    assert_err(enqueue(f, &event, NULL), WB_INVALID);
    event = plain;
    event.delay_ns = -1;
    assert_err(enqueue(f, &event, NULL), WB_INVALID);
    event = plain;
    event.due_wall_ns = -1;
    assert_err(enqueue(f, &event, NULL), WB_INVALID);
    event = plain;
    event.expires_wall_ns = -1;
    assert_err(enqueue(f, &event, NULL), WB_INVALID);
    event = plain;
    event.delay_ns = INT64_MAX;
    assert_err(enqueue(f, &event, NULL), WB_INVALID);
    assert_int_equal(query_int(f, "SELECT count(*) FROM outbox"), 0);
}

/* ---- a caller's own name --------------------------------------------------------------------- */

static struct outbox_event named(const char *caller, const char *key)
{
    struct outbox_event event = plain;

    event.caller = wb_str(caller);
    event.idempotency_key = wb_str(key);
    return event;
}

static void second_event_of_a_name_gets_the_first_receipt_and_writes_nothing(void **state)
{
    struct fixture *f = *state;
    struct outbox_event event = named("shop", "order-7");
    struct outbox_receipt first, second;

    assert_ok(enqueue(f, &event, &first));
    assert_false(first.existed);
    event.payload = (struct wb_bytes){"another", 7};
    assert_ok(enqueue(f, &event, &second));
    assert_true(second.existed);
    assert_int_equal(second.row_id, first.row_id);
    assert_memory_equal(second.msg_id, first.msg_id, WB_ID_SIZE);
    assert_int_equal(query_int(f, "SELECT count(*) FROM outbox"), 1);

    event = named("shop", "order-8");
    assert_ok(enqueue(f, &event, &second));
    assert_false(second.existed);
    event = named("bank", "order-7"); /* another caller's */
    assert_ok(enqueue(f, &event, &second));
    assert_false(second.existed);
    assert_ok(enqueue(f, &plain, &second));
    assert_ok(enqueue(f, &plain, &second));
    assert_int_equal(query_int(f, "SELECT count(*) FROM outbox"), 5);
}

static void name_of_a_rolled_back_event_is_free(void **state)
{
    struct fixture *f = *state;
    struct outbox_event event = named("shop", "order-7");
    struct outbox_receipt receipt;

    assert_ok(db_begin(f->db, NULL));
    assert_ok(outbox_enqueue(f->outbox, &event, NULL, NULL));
    assert_ok(outbox_enqueue(f->outbox, &event, &receipt, NULL)); /* in the same transaction */
    assert_true(receipt.existed);
    db_rollback(f->db);
    assert_ok(enqueue(f, &event, &receipt));
    assert_false(receipt.existed);
}

static void name_is_free_again_when_its_row_is_gone(void **state)
{
    struct fixture *f = *state;
    struct outbox_event event = named("shop", "order-7");
    struct outbox_receipt receipt;

    assert_ok(enqueue(f, &event, NULL));
    assert_ok(enqueue(f, &plain, NULL));
    sql(f, "DELETE FROM outbox WHERE id = 1");
    assert_ok(enqueue(f, &event, &receipt));
    assert_false(receipt.existed);
    assert_int_equal(receipt.row_id, 3);
    assert_ok(enqueue(f, &event, &receipt));
    assert_true(receipt.existed);
    assert_int_equal(receipt.row_id, 3);
}

static void row_whose_name_cannot_be_remembered_is_not_written(void **state)
{
    struct fixture *f = *state;
    struct outbox_event event = named("shop", "order-7");

    sql(f, "CREATE TRIGGER broken BEFORE INSERT ON outbox_idempotency BEGIN"
           " SELECT RAISE(ABORT, 'broken'); END");
    assert_ok(db_begin(f->db, NULL));
    assert_ok(outbox_enqueue(f->outbox, &plain, NULL, NULL));
    assert_err(outbox_enqueue(f->outbox, &event, NULL, NULL), WB_INVALID);
    assert_ok(db_commit(f->db, NULL)); /* the transaction is the caller's, still */
    assert_int_equal(query_int(f, "SELECT count(*) FROM outbox"), 1);
}

static void half_a_name_or_a_long_one_is_refused(void **state)
{
    struct fixture *f = *state;
    char text[OUTBOX_IDEMPOTENCY_MAX + 2];
    struct outbox_event event = named("shop", "");

    memset(text, 'k', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    assert_err(enqueue(f, &event, NULL), WB_INVALID);
    event = named("", "order-7");
    assert_err(enqueue(f, &event, NULL), WB_INVALID);
    event = named("shop", text);
    assert_err(enqueue(f, &event, NULL), WB_INVALID);
    event = named(text, "order-7");
    assert_err(enqueue(f, &event, NULL), WB_INVALID);
    event = named(text + 1, text + 1);
    assert_ok(enqueue(f, &event, NULL));
}

/* ---- taking it back -------------------------------------------------------------------------- */

static wb_err cancel(struct fixture *f, int64_t row_id)
{
    assert_ok(db_begin(f->db, NULL));
    wb_err err = outbox_cancel(f->outbox, row_id, NULL);
    assert_ok(db_commit(f->db, NULL));
    return err;
}

static int64_t enqueue_delayed(struct fixture *f)
{
    struct outbox_event event = plain;
    struct outbox_receipt receipt;

    event.delay_ns = 60 * WB_SEC;
    assert_ok(enqueue(f, &event, &receipt));
    return receipt.row_id;
}

static bool is_cancelled(struct fixture *f, int64_t row_id)
{
    char text[128];

    (void)snprintf(text, sizeof(text),
                   "SELECT count(*) FROM outbox_exception WHERE id = %lld AND state = 'cancelled'",
                   (long long)row_id);
    return query_int(f, text) == 1;
}

static void scheduled_row_nobody_has_seen_can_be_cancelled(void **state)
{
    struct fixture *f = *state;
    int64_t id = enqueue_delayed(f);

    assert_ok(cancel(f, id));
    assert_true(is_cancelled(f, id));
    assert_ok(cancel(f, id)); /* it stays so */
    sql(f, "INSERT INTO outbox_cursor(stream, last_id) VALUES('A', 1)");
    id = enqueue_delayed(f);
    assert_ok(cancel(f, id));
}

static void what_is_not_scheduled_or_not_there_cannot_be_cancelled(void **state)
{
    struct fixture *f = *state;

    assert_ok(enqueue(f, &plain, NULL));
    assert_err(cancel(f, 1), WB_CONFLICT);
    assert_err(cancel(f, 2), WB_NOT_FOUND);
    assert_err(outbox_cancel(f->outbox, 1, NULL), WB_MISUSE);
    assert_int_equal(query_int(f, "SELECT count(*) FROM outbox_exception"), 0);
}

static void cancelling_depends_on_what_became_of_the_row(void **state)
{
    static const struct {
        const char *state;
        wb_err expected;
        const char *then;
    } cases[] = {{"waiting", WB_OK, "cancelled"}, {"retry", WB_OK, "cancelled"},
                 {"blocked", WB_OK, "cancelled"}, {"parked", WB_OK, "cancelled"},
                 {"expired", WB_OK, "expired"},   {"lost", WB_CONFLICT, "lost"}};
    struct fixture *f = *state;

    sql(f, "INSERT INTO outbox_cursor(stream, last_id) VALUES('A', 100)");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[160];
        assert_ok(enqueue(f, &plain, NULL));
        (void)snprintf(text, sizeof(text),
                       "INSERT INTO outbox_exception(id, state, attempts, next_at, error)"
                       " VALUES(%zu, '%s', 2, 5, 'why')",
                       i + 1, cases[i].state);
        sql(f, text);
        assert_err(cancel(f, (int64_t)i + 1), cases[i].expected);
        (void)snprintf(text, sizeof(text),
                       "SELECT count(*) FROM outbox_exception WHERE id = %zu AND state = '%s'",
                       i + 1, cases[i].then);
        assert_int_equal(query_int(f, text), 1);
    }
}

static void published_row_cannot_be_cancelled(void **state)
{
    struct fixture *f = *state;
    struct outbox_event event = plain;

    event.due_wall_ns = WB_SEC;
    event.stream = wb_str("A");
    assert_ok(enqueue(f, &event, NULL));
    sql(f, "INSERT INTO outbox_cursor(stream, last_id) VALUES('A', 1)");
    sql(f, "INSERT INTO outbox_cursor(stream, last_id) VALUES('B', 0)");
    assert_err(cancel(f, 1), WB_CONFLICT);

    /* Of another stream than the one whose cursor has passed it. */
    event.stream = wb_str("B");
    assert_ok(enqueue(f, &event, NULL));
    sql(f, "UPDATE outbox_cursor SET last_id = 2 WHERE stream = 'A'");
    assert_ok(cancel(f, 2));
}

static void row_of_an_unknown_stream_may_have_to_wait_for_its_publisher(void **state)
{
    struct fixture *f = *state;
    int64_t id = enqueue_delayed(f);

    sql(f, "INSERT INTO outbox_cursor(stream, last_id) VALUES('A', 1)");
    sql(f, "INSERT INTO outbox_cursor(stream, last_id) VALUES('B', 0)");
    assert_err(cancel(f, id), WB_BUSY);
    sql(f, "UPDATE outbox_cursor SET last_id = 0");
    assert_ok(cancel(f, id));
}

static void cancel_rolled_back_did_not_happen(void **state)
{
    struct fixture *f = *state;
    int64_t id = enqueue_delayed(f);

    assert_ok(db_begin(f->db, NULL));
    assert_ok(outbox_cancel(f->outbox, id, NULL));
    db_rollback(f->db);
    assert_false(is_cancelled(f, id));
}

static void changes_by_hand_are_counted_for_the_publisher(void **state)
{
    struct fixture *f = *state;
    int64_t before = query_int(f, "SELECT exceptions FROM outbox_revision");

    sql(f, "INSERT INTO outbox_exception(id, state) VALUES(1, 'parked')");
    sql(f, "UPDATE outbox_exception SET state = 'retry'");
    sql(f, "DELETE FROM outbox_exception");
    assert_int_equal(query_int(f, "SELECT exceptions FROM outbox_revision"), before + 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(event_without_times_has_none_in_the_table),
        T(due_time_is_rounded_up_and_expiry_down),
        T(delay_counts_from_now),
        T(times_that_make_no_sense_are_refused_and_nothing_is_written),
        T(second_event_of_a_name_gets_the_first_receipt_and_writes_nothing),
        T(name_of_a_rolled_back_event_is_free),
        T(name_is_free_again_when_its_row_is_gone),
        T(row_whose_name_cannot_be_remembered_is_not_written),
        T(half_a_name_or_a_long_one_is_refused),
        T(scheduled_row_nobody_has_seen_can_be_cancelled),
        T(what_is_not_scheduled_or_not_there_cannot_be_cancelled),
        T(cancelling_depends_on_what_became_of_the_row),
        T(published_row_cannot_be_cancelled),
        T(row_of_an_unknown_stream_may_have_to_wait_for_its_publisher),
        T(cancel_rolled_back_did_not_happen),
        T(changes_by_hand_are_counted_for_the_publisher),
    };
    return cmocka_run_group_tests_name("outbox_times", tests, NULL, NULL);
}
