/* The bus loses what it had acknowledged: every row that is kept comes back, once and in order. */
#include "outbox_publisher_repair_fixture.h"

/* ---- what a broker can lose ------------------------------------------------------------------ */

static void stream_rolled_back_by_one_gets_its_last_row_again(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 5, NULL);
    fixture_start(f);
    fixture_run(f);
    event_bus_memory_restart(f->bus, "A", 4);
    look(f);
    assert_stream_holds(f, "A", "1 2 3 4 5");
    assert_incidents(f, "rolled-back 1 0");
    assert_int_equal(fixture_int(f, "SELECT first_seq FROM outbox_incident"), 5);
    assert_int_equal(fixture_int(f, "SELECT last_seq FROM outbox_incident"), 5);
    assert_int_equal(fixture_health(f).repairs, 1);
    assert_late(f, 5, false); /* in its place */
    assert_at_rest(f);
}

static void lost_end_comes_back_before_what_is_new(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 5, NULL);
    fixture_start(f);
    fixture_run(f);
    event_bus_memory_restart(f->bus, "A", 3);
    rows(f, 6, 7, NULL); /* sending it is what meets the loss */
    fixture_run(f);
    assert_stream_holds(f, "A", "1 2 3 4 5 6 7");
    assert_incidents(f, "rolled-back 2 0");
    assert_at_rest(f);
}

static void stream_rolled_back_by_many_gets_them_all(void **state)
{
    struct fixture *f = *state;
    struct event_bus_stream_info info;

    many_rows(f, 30000);
    fixture_start(f);
    fixture_run(f);
    event_bus_memory_restart(f->bus, "A", 7);
    look(f);
    assert_ok(event_bus_stream_info(f->bus, "A", &info, NULL));
    assert_int_equal(info.last_seq, 30000);
    assert_int_equal(
        fixture_int(f, "SELECT sum(last_id = 30000 AND last_seq = 30000) FROM outbox_cursor"), 1);
    assert_incidents(f, "rolled-back 29993 0");
    assert_at_rest(f);
}

static void wiped_stream_gets_every_row_that_is_kept(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 4, "abab");
    fixture_start(f);
    fixture_run(f);
    event_bus_memory_restart(f->bus, "A", 0);
    look(f);
    assert_stream_holds(f, "A", "1 2 3 4");
    assert_incidents(f, "rolled-back 4 0");
    assert_at_rest(f);
}

static void stream_made_anew_under_a_running_publisher_gets_every_row(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 4, NULL);
    fixture_start(f);
    fixture_run(f);
    redeclare(f);
    look(f);
    assert_stream_holds(f, "A", "1 2 3 4");
    assert_incidents(f, "made-anew 4 0");
    assert_at_rest(f);
}

/* Half of it is there again: somebody has copied a part of the old stream into the new one. */
static void rows_a_stream_made_anew_has_already_are_not_sent_twice(void **state)
{
    struct fixture *f = *state;
    struct event_bus_delivery *kept[2];

    rows(f, 1, 4, NULL);
    fixture_start(f);
    fixture_run(f);
    for (uint64_t i = 0; i < 2; i++)
        assert_ok(event_bus_get(f->bus, "A", 2 * i + 1, &kept[i], NULL));
    redeclare(f);
    for (int i = 0; i < 2; i++) {
        assert_ok(event_bus_publish(f->bus, &kept[i]->message, NULL, NULL, NULL));
        event_bus_release(kept[i]);
    }
    look(f);
    assert_stream_holds(f, "A", "1 3 2 4");
    assert_late(f, 3, true);
    assert_late(f, 4, false);
    assert_at_rest(f);
}

static void stream_others_have_grown_over_the_loss_gets_it_behind_them(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 3, NULL);
    fixture_start(f);
    fixture_run(f);
    event_bus_memory_restart(f->bus, "A", 2);
    foreign(f, "F", "x");
    foreign(f, "G", NULL);
    look(f);
    assert_stream_holds(f, "A", "1 2 F G 3");
    assert_incidents(f, "overwritten 1 0");
    assert_at_rest(f);
}

static void deleted_message_at_the_end_comes_back(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 3, NULL);
    fixture_start(f);
    fixture_run(f);
    assert_true(event_bus_memory_delete(f->bus, "A", 3));
    look(f);
    assert_stream_holds(f, "A", "1 2 3");
    assert_incidents(f, "hole 1 0");
    assert_at_rest(f);
}

static void holes_are_filled_behind_what_is_there_and_say_so(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 9, "kkkkkkkkk");
    fixture_start(f);
    fixture_run(f);
    assert_true(event_bus_memory_delete(f->bus, "A", 2));
    assert_true(event_bus_memory_delete(f->bus, "A", 5));
    event_bus_memory_restart(f->bus, "A", 7);
    rows(f, 10, 10, "k");
    fixture_run(f);
    /* 2 and 5 come late, yet before anything younger of their key that was not there. */
    assert_stream_holds(f, "A", "1 3 4 6 7 2 5 8 9 10");
    assert_late(f, 8, true);
    assert_late(f, 9, true);
    assert_late(f, 10, false);
    assert_incidents(f, "rolled-back 4 0");
    assert_int_equal(fixture_int(f, "SELECT count(*) FROM outbox_late"), 2);
    assert_int_equal(observe_value(observe_series(f->observe, OBSERVE_OUTBOX_REPUBLISHED, "m.db")),
                     4);
    assert_int_equal(observe_value(observe_series(f->observe, OBSERVE_OUTBOX_LATE, "m.db")), 2);
    assert_int_equal(observe_value(observe_series(f->observe, OBSERVE_OUTBOX_REPAIRS, "m.db")), 1);
    assert_at_rest(f);
}

static void second_loss_during_the_repair_is_repaired_too(void **state)
{
    struct fixture *f = *state;

    /* At each step of the repair once. */
    rows(f, 1, 6, NULL);
    fixture_start(f);
    fixture_run(f);
    for (int steps = 1; steps < 12; steps++) {
        event_bus_memory_restart(f->bus, "A", 4);
        event_bus_memory_advance(f->bus, 6 * WB_SEC);
        for (int i = 0; i < steps; i++)
            (void)outbox_publisher_step(f->publisher);
        event_bus_memory_restart(f->bus, "A", 2);
        fixture_pass(f, 6 * WB_SEC);
        assert_stream_holds(f, "A", "1 2 3 4 5 6");
        assert_at_rest(f);
    }
}

/* ---- what is not lost ------------------------------------------------------------------------ */

static void what_the_streams_limits_have_removed_is_not_sent_again(void **state)
{
    struct fixture *f = *state;

    declare_short(f, 4);
    rows(f, 1, 10, NULL);
    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "A", "7 8 9 10");
    event_bus_memory_restart(f->bus, "A", 8);
    look(f);
    assert_stream_holds(f, "A", "7 8 9 10");
    assert_incidents(f, "rolled-back 2 0");
    assert_at_rest(f);
}

/* Nothing of ours is left to tell which rows the limits took: the places that were lost do. */
static void as_many_rows_come_back_as_places_were_lost(void **state)
{
    struct fixture *f = *state;

    declare_short(f, 3);
    rows(f, 1, 10, NULL);
    fixture_start(f);
    fixture_run(f);
    event_bus_memory_restart(f->bus, "A", 7);
    assert_stream_holds(f, "A", "");
    look(f);
    assert_stream_holds(f, "A", "8 9 10");
    assert_incidents(f, "rolled-back 3 0");
    assert_at_rest(f);
}

static void late_row_is_missed_although_its_neighbours_went_by_limits(void **state)
{
    struct fixture *f = *state;

    declare_short(f, 4);
    rows(f, 1, 3, NULL);
    fixture_sql(f, "INSERT INTO outbox_exception(id, state) VALUES(2, 'parked')");
    rows(f, 4, 9, NULL);
    fixture_start(f);
    fixture_run(f);
    fixture_sql(f, "UPDATE outbox_exception SET state = 'retry', next_at = 0");
    look(f);
    assert_stream_holds(f, "A", "7 8 9 2");
    event_bus_memory_restart(f->bus, "A", 7);
    look(f);
    assert_stream_holds(f, "A", "7 8 2 9"); /* what was lost is older */
    assert_incidents(f, "rolled-back 2 0");
    assert_at_rest(f);
}

static void purged_stream_stays_empty(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 3, NULL);
    fixture_start(f);
    fixture_run(f);
    fixture_pass(f, 7 * WB_SEC); /* a while, with checks */
    event_bus_memory_advance(f->bus, INT64_C(8) * 24 * 3600 * WB_SEC);
    look(f);
    assert_stream_holds(f, "A", "");
    assert_incidents(f, "");
    rows(f, 4, 4, NULL);
    fixture_run(f);
    assert_stream_holds(f, "A", "4");
    assert_at_rest(f);
}

static void rows_no_longer_kept_are_told_not_passed_over(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 6, NULL);
    fixture_start(f);
    fixture_run(f);
    fixture_sql(f, "DELETE FROM outbox WHERE id <= 4");
    event_bus_memory_restart(f->bus, "A", 1);
    look(f);
    assert_stream_holds(f, "A", "1 5 6");
    assert_incidents(f, "rolled-back 2 3");
    assert_at_rest(f);
}

static void purged_rows_whose_messages_are_there_are_not_told_lost(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 6, NULL);
    fixture_start(f);
    fixture_run(f);
    fixture_sql(f, "DELETE FROM outbox WHERE id <= 3");
    event_bus_memory_restart(f->bus, "A", 4);
    look(f);
    assert_stream_holds(f, "A", "1 2 3 4 5 6");
    assert_incidents(f, "rolled-back 2 0");
    assert_int_equal(fixture_int(f, "SELECT count(*) FROM outbox_orphan"), 0);
    assert_at_rest(f);
}

static void subject_no_stream_covers_any_more_is_told(void **state)
{
    struct fixture *f = *state;
    static const char *const wide[] = {"a.>", "c.>"};

    assert_ok(event_bus_declare_stream(
        f->bus,
        &(struct event_bus_stream_options){.name = "A", .subjects = wide, .subject_count = 2},
        EVENT_BUS_APPLY, NULL));
    rows(f, 1, 2, NULL);
    fixture_insert(f, "c.x", "", "3");
    fixture_start(f);
    fixture_run(f);
    redeclare(f);
    look(f);
    assert_stream_holds(f, "A", "1 2");
    assert_incidents(f, "made-anew 2 1");
}

static void forgetful_bus_made_anew_for_a_new_publisher_is_adopted(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 2, NULL);
    fixture_start(f);
    fixture_run(f);
    outbox_publisher_stop(f->publisher);
    f->publisher = NULL;
    event_bus_destroy(f->bus);
    fixture_bus_make(f, 1800000000 * WB_SEC);
    rows(f, 3, 3, NULL);
    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "A", "3");
    assert_incidents(f, "");
}

/* ---- rows aside ------------------------------------------------------------------------------ */

static void rows_set_aside_stay_so_and_the_order_of_each_key_holds(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 3, "klm");
    fixture_sql(f, "INSERT INTO outbox(subject, key, payload) VALUES('a b', 'k', 'bad')");
    rows(f, 5, 8, "klmn");
    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "A", "1 2 3 6 7 8");
    assert_exceptions(f, "4 parked 5 blocked");
    event_bus_memory_restart(f->bus, "A", 2);
    look(f);
    assert_stream_holds(f, "A", "1 2 3 6 7 8");
    assert_exceptions(f, "4 parked 5 blocked");
    fixture_sql(f, "UPDATE outbox_exception SET state = 'cancelled' WHERE id = 4");
    look(f);
    assert_stream_holds(f, "A", "1 2 3 6 7 8 5");
}

/* Row 5 is refused once and waits; the repair takes the path back to row 2. Older rows of the key
 * must not be overtaken by it when it falls due meanwhile. */
static void row_in_retry_waits_for_older_ones_that_are_sent_again(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 4, "kkkk");
    fixture_start(f);
    fixture_run(f);
    rows(f, 5, 5, "k");
    fixture_sql(f, "INSERT INTO outbox_exception(id, state, attempts, next_at)"
                   " VALUES(5, 'retry', 1, 0)");
    event_bus_memory_restart(f->bus, "A", 1);
    look(f);
    assert_stream_holds(f, "A", "1 2 3 4 5");
    assert_at_rest(f);
}

static void waiting_row_goes_out_when_due_whatever_happens_before(void **state)
{
    struct fixture *f = *state;
    char sql[160];

    rows(f, 1, 2, NULL);
    (void)snprintf(sql, sizeof(sql),
                   "INSERT INTO outbox(subject, due_at, payload) VALUES('a.x', %" PRId64 ", '3')",
                   wb_wall_ns(f->options.clock) / WB_MS + 20000);
    fixture_sql(f, sql);
    rows(f, 4, 4, NULL);
    fixture_start(f);
    fixture_run(f);
    event_bus_memory_restart(f->bus, "A", 0);
    look(f);
    assert_stream_holds(f, "A", "1 2 4");
    assert_exceptions(f, "3 waiting");
    fixture_pass(f, 20 * WB_SEC);
    assert_stream_holds(f, "A", "1 2 4 3");
    assert_at_rest(f);
}

static void cancelled_and_expired_rows_do_not_come_back(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 2, NULL);
    fixture_sql(f, "INSERT INTO outbox_exception(id, state) VALUES(1, 'cancelled')");
    fixture_sql(f, "INSERT INTO outbox(subject, expires_at, payload) VALUES('a.x', 1000, '3')");
    rows(f, 4, 4, NULL);
    fixture_start(f);
    fixture_run(f);
    event_bus_memory_restart(f->bus, "A", 0);
    look(f);
    assert_stream_holds(f, "A", "2 4");
    assert_exceptions(f, "1 cancelled 3 expired");
}

static void rows_of_other_streams_are_not_touched(void **state)
{
    struct fixture *f = *state;

    fixture_declare(f->bus, "B", "b.>");
    f->options.stream_count = 2;
    rows(f, 1, 2, NULL);
    fixture_insert(f, "b.x", "", "3");
    rows(f, 4, 4, NULL);
    fixture_insert(f, "b.x", "", "5");
    fixture_start(f);
    fixture_run(f);
    event_bus_memory_restart(f->bus, "A", 1);
    look(f);
    assert_stream_holds(f, "A", "1 2 4");
    assert_stream_holds(f, "B", "3 5");
    assert_incidents(f, "rolled-back 2 0");
    event_bus_memory_restart(f->bus, "B", 0);
    look(f);
    assert_stream_holds(f, "A", "1 2 4");
    assert_stream_holds(f, "B", "3 5");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        T(stream_rolled_back_by_one_gets_its_last_row_again),
        T(lost_end_comes_back_before_what_is_new),
        T(stream_rolled_back_by_many_gets_them_all),
        T(wiped_stream_gets_every_row_that_is_kept),
        T(stream_made_anew_under_a_running_publisher_gets_every_row),
        T(rows_a_stream_made_anew_has_already_are_not_sent_twice),
        T(stream_others_have_grown_over_the_loss_gets_it_behind_them),
        T(deleted_message_at_the_end_comes_back),
        T(holes_are_filled_behind_what_is_there_and_say_so),
        T(second_loss_during_the_repair_is_repaired_too),
        T(what_the_streams_limits_have_removed_is_not_sent_again),
        T(as_many_rows_come_back_as_places_were_lost),
        T(late_row_is_missed_although_its_neighbours_went_by_limits),
        T(purged_stream_stays_empty),
        T(rows_no_longer_kept_are_told_not_passed_over),
        T(purged_rows_whose_messages_are_there_are_not_told_lost),
        T(subject_no_stream_covers_any_more_is_told),
        T(forgetful_bus_made_anew_for_a_new_publisher_is_adopted),
        T(rows_set_aside_stay_so_and_the_order_of_each_key_holds),
        T(row_in_retry_waits_for_older_ones_that_are_sent_again),
        T(waiting_row_goes_out_when_due_whatever_happens_before),
        T(cancelled_and_expired_rows_do_not_come_back),
        T(rows_of_other_streams_are_not_touched),
    };
    return cmocka_run_group_tests_name("outbox_publisher_repair", tests, NULL, NULL);
}
