/* Publishers that crash, and others that take over. */
#include "outbox_publisher_fixture.h"

static void rows_sent_by_a_crashed_publisher_are_found_not_sent_again(void **state)
{
    struct fixture *f = *state;

    for (int i = 1; i <= 4; i++)
        fixture_insert(f, "a.x", "", (const char[]){(char)('0' + i), '\0'});
    fixture_start(f);
    fixture_step_to_first_ack(f);
    assert_int_equal(fixture_int(f, "SELECT last_id FROM outbox_cursor"), 0);
    fixture_crash(f);
    assert_stream_holds(f, "A", "1 2 3 4");

    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "A", "1 2 3 4");
    assert_int_equal(fixture_int(f, "SELECT last_id FROM outbox_cursor"), 4);
    assert_int_equal(fixture_health(f).settles, 1);
}

static void rows_passed_over_by_a_crashed_publisher_are_sent_first(void **state)
{
    struct fixture *f = *state;

    f->options.max_attempts = 5;
    fixture_sql(f, "INSERT INTO outbox(subject, key, payload) VALUES('a.x', 'k', '1'),"
                   " ('a.x', 'l', zeroblob(2000000)), ('a.x', 'm', '3')");
    fixture_start(f);
    fixture_step_to_first_ack(f);
    fixture_crash(f);
    assert_exceptions(f, "");

    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "A", "1 3");
    assert_exceptions(f, "2 retry"); /* passed over, sent, refused */
}

static void younger_row_does_not_overtake_lost_rows_that_fill_a_batch(void **state)
{
    struct fixture *f = *state;
    struct event_bus_delivery *delivery;

    fixture_sql(f, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 700)"
                   " INSERT INTO outbox(subject, payload) SELECT 'a.n', zeroblob(2000) FROM n;"
                   "INSERT INTO outbox_exception(id, state, next_at) SELECT id, 'lost', 0"
                   " FROM outbox;"
                   "INSERT INTO outbox_cursor(stream, last_id) VALUES('A', 700)");
    fixture_insert(f, "a.x", "", "last");
    fixture_start(f);
    fixture_run(f);
    assert_ok(event_bus_get(f->bus, "A", 701, &delivery, NULL));
    assert_int_equal(delivery->message.payload.len, 4);
    event_bus_release(delivery);
    assert_exceptions(f, "");
}

/*
 * Row 2 left the straight path in an earlier life, row 1 never got anywhere. Sent before row 1 it
 * would be forgotten: the cursor cannot pass it, and no exception would be left to tell of it.
 */
static void exception_is_sent_only_behind_the_rows_before_it(void **state)
{
    struct fixture *f = *state;

    fixture_insert(f, "a.x", "", "1");
    fixture_insert(f, "a.x", "k", "2");
    fixture_sql(f, "INSERT INTO outbox_exception(id, state) VALUES(2, 'blocked')");
    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "A", "1 2");
    assert_exceptions(f, "");
    assert_int_equal(fixture_int(f, "SELECT last_id FROM outbox_cursor"), 2);
}

static void damaged_source_keeps_it_from_sending_and_is_told(void **state)
{
    struct fixture *f = *state;

    fixture_sql(f, "PRAGMA ignore_check_constraints=ON;"
                   "INSERT INTO outbox_source(from_id, source) VALUES(5, x'01')");
    fixture_insert(f, "a.x", "", "1");
    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "A", "");
    assert_non_null(strstr(fixture_health(f).problem, "sources of the outbox"));
    fixture_sql(f, "DELETE FROM outbox_source WHERE from_id = 5");
    fixture_pass(f, 5 * WB_SEC);
    assert_stream_holds(f, "A", "1");
}

static void overtaken_publisher_writes_nothing_and_stands_by(void **state)
{
    struct fixture *f = *state;

    fixture_start(f);
    fixture_run(f);
    fixture_sql(f, "UPDATE outbox_cursor SET holder = holder + 5");
    fixture_insert(f, "a.x", "", "1");
    while (fixture_health(f).state != OUTBOX_PUBLISHER_FENCED)
        assert_true(outbox_publisher_step(f->publisher));
    assert_int_equal(fixture_int(f, "SELECT last_id FROM outbox_cursor"), 0);
    fixture_pass(f, 100 * WB_MS); /* stands by, and as nobody else wants the role, takes it again */
    assert_stream_holds(f, "A", "1");
    assert_int_equal(fixture_int(f, "SELECT last_id FROM outbox_cursor"), 1);
    assert_int_equal(fixture_int(f, "SELECT holder FROM outbox_cursor"), 7);
}

static void second_publisher_stands_by_until_the_first_is_gone(void **state)
{
    struct fixture *f = *state;
    struct outbox_publisher *first;

    fixture_start(f);
    fixture_run(f);
    first = f->publisher;
    fixture_start(f);
    fixture_run(f);
    assert_int_equal(fixture_health(f).state, OUTBOX_PUBLISHER_STANDBY);
    fixture_insert(f, "a.x", "", "1");
    fixture_run(f);
    assert_stream_holds(f, "A", "");
    outbox_publisher_abandon(first);
    fixture_pass(f, 20 * WB_MS);
    assert_stream_holds(f, "A", "1");
    assert_int_equal(fixture_health(f).state, OUTBOX_PUBLISHER_DRAIN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        T(rows_sent_by_a_crashed_publisher_are_found_not_sent_again),
        T(rows_passed_over_by_a_crashed_publisher_are_sent_first),
        T(younger_row_does_not_overtake_lost_rows_that_fill_a_batch),
        T(exception_is_sent_only_behind_the_rows_before_it),
        T(damaged_source_keeps_it_from_sending_and_is_told),
        T(overtaken_publisher_writes_nothing_and_stands_by),
        T(second_publisher_stands_by_until_the_first_is_gone),
    };
    return cmocka_run_group_tests_name("outbox_publisher_rivals", tests, NULL, NULL);
}
