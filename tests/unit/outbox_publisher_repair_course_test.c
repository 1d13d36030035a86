/* The course of a repair: of many rows, through crashes, rivals and known ids, planned, asked for.
 */
#include "outbox_publisher_repair_fixture.h"

/* ---- many ------------------------------------------------------------------------------------ */

/* Every other message is gone: far more exceptions than are held in memory. */
static void many_holes_go_out_in_turns_before_anything_new(void **state)
{
    struct fixture *f = *state;
    struct event_bus_stream_info info;
    enum { ROWS = 3000 };

    f->options.window = 50;
    many_rows(f, ROWS);
    fixture_start(f);
    f->publisher->lost_max = 100;
    fixture_run(f);
    for (uint64_t seq = 2; seq <= ROWS; seq += 2)
        assert_true(event_bus_memory_delete(f->bus, "A", seq));
    fixture_insert(f, "a.x", "", "new");
    event_bus_memory_restart(f->bus, "A", ROWS - 1);
    while (fixture_health(f).state != OUTBOX_PUBLISHER_REPAIR)
        assert_true(outbox_publisher_step(f->publisher));
    while (outbox_publisher_step(f->publisher))
        assert_true(f->publisher->lanes[0]->exceptions.count <= 100 + 50);
    assert_ok(event_bus_stream_info(f->bus, "A", &info, NULL));
    assert_int_equal(info.messages, ROWS + 1);
    struct event_bus_delivery *delivery;
    assert_ok(event_bus_get(f->bus, "A", info.last_seq, &delivery, NULL));
    assert_int_equal(delivery->message.payload.len, 3); /* "new" */
    event_bus_release(delivery);
    assert_at_rest(f);
}

/* A lost row was sent, and its publisher died; memory has room for another one only. */
static void lost_row_found_stored_is_not_sent_again_whether_loaded_or_not(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 5, NULL);
    fixture_sql(f, "INSERT INTO outbox_exception(id, state) VALUES(1, 'cancelled'),"
                   " (2, 'cancelled')");
    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "A", "3 4 5");
    outbox_publisher_stop(f->publisher);
    fixture_sql(f, "UPDATE outbox_exception SET state = 'lost';"
                   "INSERT INTO outbox_exception(id, state) VALUES(5, 'lost');"
                   "UPDATE outbox_cursor SET last_seq = 2,"
                   " last_msg_id = (SELECT msg_id FROM outbox WHERE id = 4)");
    event_bus_memory_advance(f->bus, 3600 * WB_SEC); /* beyond any duplicate window */
    fixture_start(f);
    f->publisher->lost_max = 1;
    fixture_run(f);
    assert_stream_holds(f, "A", "3 4 5 1 2");
    assert_at_rest(f);
}

static void lost_rows_that_wait_for_a_parked_one_hold_back_no_other_key(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 9, "xkkkkkkmn");
    fixture_start(f);
    fixture_run(f);
    outbox_publisher_stop(f->publisher);
    for (uint64_t seq = 2; seq <= 8; seq++)
        assert_true(event_bus_memory_delete(f->bus, "A", seq));
    rows(f, 10, 10, "n");
    /* A person has parked the first: what a refusal for good would do. */
    fixture_sql(f, "INSERT INTO outbox_exception(id, state) VALUES(2, 'parked');"
                   "UPDATE outbox_cursor SET repairing = stream_created");
    fixture_start(f);
    f->publisher->lost_max = 2;
    look(f);
    assert_stream_holds(f, "A", "1 9 8 10");
    assert_exceptions(f, "2 parked 3 blocked 4 blocked 5 blocked 6 blocked 7 blocked");
    fixture_sql(f, "UPDATE outbox_exception SET state = 'retry', next_at = 0 WHERE id = 2");
    look(f);
    assert_stream_holds(f, "A", "1 9 8 10 2 3 4 5 6 7");
    assert_at_rest(f);
}

static void rows_beyond_the_bitmap_are_compared_range_by_range(void **state)
{
    struct fixture *f = *state;
    struct event_bus_stream_info info;

    many_rows(f, 1000);
    fixture_start(f);
    f->publisher->survey_ids = 130;
    fixture_run(f);
    assert_true(event_bus_memory_delete(f->bus, "A", 5));
    assert_true(event_bus_memory_delete(f->bus, "A", 131));
    assert_true(event_bus_memory_delete(f->bus, "A", 700));
    event_bus_memory_restart(f->bus, "A", 950);
    look(f);
    assert_ok(event_bus_stream_info(f->bus, "A", &info, NULL));
    assert_int_equal(info.messages, 1000);
    assert_int_equal(info.last_seq, 1003);
    assert_incidents(f, "rolled-back 53 0");
    assert_at_rest(f);
}

/* ---- known ids ------------------------------------------------------------------------------- */

/* Within the duplicate window the bus calls the ids of deleted messages known. */
static void known_ids_of_lost_rows_cost_one_look_not_one_each(void **state)
{
    struct fixture *f = *state;
    struct event_bus_stream_info info;

    rows(f, 1, 40, NULL);
    fixture_start(f);
    fixture_run(f);
    for (uint64_t seq = 11; seq <= 30; seq++)
        assert_true(event_bus_memory_delete(f->bus, "A", seq));
    assert_true(event_bus_memory_delete(f->bus, "A", 40)); /* so that it is noticed */
    look(f);
    assert_ok(event_bus_stream_info(f->bus, "A", &info, NULL));
    assert_int_equal(info.last_seq, 40 + 21);
    assert_int_equal(info.messages, 40);
    assert_int_equal(fixture_health(f).settles, 0); /* the stream was as expected each time */
    assert_int_equal(f->publisher->lanes[0]->again_count, 1);
    assert_at_rest(f);
    /* Under their longer ids they are the same events: a further repair finds them. */
    event_bus_memory_restart(f->bus, "A", 60);
    look(f);
    assert_ok(event_bus_stream_info(f->bus, "A", &info, NULL));
    assert_int_equal(info.last_seq, 61);
    assert_int_equal(info.messages, 40);
    assert_incidents(f, "hole 21 0 rolled-back 1 0");
    assert_at_rest(f);
}

/* ---- crashes --------------------------------------------------------------------------------- */

/* A step writes at most one transaction: a crash between any two of them is one at any write. */
static bool repair_and_crash(struct fixture *f, int steps)
{
    bool reached = true;

    for (int i = 0; i < steps && reached; i++)
        reached = outbox_publisher_step(f->publisher);
    fixture_crash(f);
    fixture_start(f);
    fixture_pass(f, 300 * WB_MS);
    return reached;
}

static void crash_anywhere_in_a_repair_doubles_and_loses_nothing(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 8, "abcabcab");
    fixture_start(f);
    fixture_run(f);
    outbox_publisher_stop(f->publisher);
    f->publisher = NULL;
    int steps = 1;
    for (bool more = true; more; steps++) {
        struct event_bus_stream_info info;
        int64_t ids = 0;
        assert_ok(event_bus_stream_info(f->bus, "A", &info, NULL));
        (void)event_bus_memory_delete(f->bus, "A", info.last_seq - 5);
        event_bus_memory_restart(f->bus, "A", info.last_seq - 2);
        fixture_start(f);
        more = repair_and_crash(f, steps);
        look(f);
        assert_ok(event_bus_stream_info(f->bus, "A", &info, NULL));
        assert_int_equal(info.messages, 8);
        for (uint64_t seq = info.first_seq; seq <= info.last_seq; seq++) {
            struct event_bus_delivery *delivery;
            uint64_t id = 0;
            if (event_bus_get(f->bus, "A", seq, &delivery, NULL) != WB_OK)
                continue;
            assert_true(wb_str_to_u64(message_header(&delivery->message, "waybill-row"), &id));
            event_bus_release(delivery);
            ids |= INT64_C(1) << id;
        }
        assert_int_equal(ids, 0x1fe); /* each once */
        assert_at_rest(f);
        outbox_publisher_stop(f->publisher);
        f->publisher = NULL;
    }
    assert_true(steps > 8); /* there was something to crash in */
}

/* The stream that was compared goes away while the repair is open, and the right one comes back. */
static void notes_of_an_interrupted_repair_are_not_acted_upon(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 6, NULL);
    fixture_start(f);
    fixture_run(f);
    outbox_publisher_stop(f->publisher);
    f->publisher = NULL;
    /* As if a repair had found row 3 missing in another copy of the stream, and crashed. */
    fixture_sql(f, "INSERT INTO outbox_exception(id, state, next_at, resent)"
                   " VALUES(3, 'lost', 0, 1);"
                   "UPDATE outbox_cursor SET repairing = stream_created");
    event_bus_memory_advance(f->bus, 3600 * WB_SEC); /* beyond any duplicate window */
    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "A", "1 2 3 4 5 6");
    assert_incidents(f, "resumed 0 0");
    assert_at_rest(f);
}

static void overtaken_publisher_does_not_conclude_a_repair(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 6, NULL);
    fixture_start(f);
    fixture_run(f);
    event_bus_memory_restart(f->bus, "A", 2);
    event_bus_memory_advance(f->bus, 6 * WB_SEC);
    while (fixture_health(f).state != OUTBOX_PUBLISHER_REPAIR)
        (void)outbox_publisher_step(f->publisher);
    fixture_sql(f, "UPDATE outbox_cursor SET holder = holder + 5");
    while (fixture_health(f).state == OUTBOX_PUBLISHER_REPAIR)
        assert_true(outbox_publisher_step(f->publisher));
    assert_int_equal(fixture_health(f).state, OUTBOX_PUBLISHER_FENCED);
    assert_int_equal(fixture_int(f, "SELECT last_seq FROM outbox_cursor"), 6);
    assert_incidents(f, "");
    fixture_pass(f, 300 * WB_MS); /* nobody else wants the role */
    assert_stream_holds(f, "A", "1 2 3 4 5 6");
}

/* ---- what needs a person --------------------------------------------------------------------- */

static void stream_that_is_changed_faster_than_repaired_halts(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 6, NULL);
    fixture_start(f);
    fixture_run(f);
    event_bus_memory_advance(f->bus, 6 * WB_SEC);
    for (int i = 0; i < 200 && fixture_health(f).state != OUTBOX_PUBLISHER_HALTED; i++) {
        /* Whenever a repair has ended, its end is taken away. */
        if (fixture_health(f).state == OUTBOX_PUBLISHER_CHECK)
            event_bus_memory_restart(f->bus, "A", 5 - fixture_health(f).repairs);
        (void)outbox_publisher_step(f->publisher);
    }
    assert_int_equal(fixture_health(f).state, OUTBOX_PUBLISHER_HALTED);
    assert_non_null(strstr(fixture_health(f).problem, "who else changes stream A"));
    fixture_pass(f, 11 * WB_SEC); /* they have stopped */
    assert_stream_holds(f, "A", "1 2 3 4 5 6");
    assert_at_rest(f);
}

static void incidents_are_bounded_and_the_oldest_go(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 2, NULL);
    fixture_sql(f, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
                   " WHERE i < 10000) INSERT INTO outbox_incident(id, at, stream, kind, first_seq,"
                   " last_seq, rows, detail) SELECT i, 0, 'A', 'x', 0, 0, 0, '' FROM n");
    fixture_start(f);
    fixture_run(f);
    event_bus_memory_restart(f->bus, "A", 1);
    look(f);
    assert_int_equal(fixture_int(f, "SELECT count(*) FROM outbox_incident"), 10000);
    assert_int_equal(fixture_int(f, "SELECT min(id) FROM outbox_incident"), 2);
}

/* ---- plans ----------------------------------------------------------------------------------- */

static bool plan_visit(void *ctx, int64_t row_id, bool late)
{
    wb_buf_printf(ctx, " %" PRId64 "%s", row_id, late ? "l" : "");
    return true;
}

static void plan_says_what_a_repair_does_and_changes_nothing(void **state)
{
    struct fixture *f = *state;
    struct outbox_publisher_plan plan;
    struct wb_buf told = {0};

    rows(f, 1, 8, NULL);
    fixture_start(f);
    fixture_run(f);
    assert_ok(outbox_publisher_plan(&f->options, "A", plan_visit, &told, &plan, NULL));
    assert_false(plan.needed);
    assert_int_equal(plan.cursor_seq, 8);
    fixture_sql(f, "DELETE FROM outbox WHERE id = 1");
    assert_true(event_bus_memory_delete(f->bus, "A", 3));
    event_bus_memory_restart(f->bus, "A", 6);
    int64_t before = fixture_int(f, "SELECT total_changes()");
    assert_ok(outbox_publisher_plan(&f->options, "A", plan_visit, &told, &plan, NULL));
    assert_true(plan.needed);
    assert_string_equal(plan.kind, "rolled-back");
    assert_string_equal(told.ptr, " 3l 7 8");
    assert_int_equal(plan.rows, 3);
    assert_int_equal(plan.late, 1);
    assert_int_equal(plan.gone, 0);
    assert_int_equal(plan.first_seq, 7);
    assert_int_equal(plan.last_seq, 8);
    assert_int_equal(fixture_int(f, "SELECT total_changes()"), before);
    assert_incidents(f, "");
    assert_exceptions(f, "");
    assert_int_equal(fixture_int(f, "SELECT last_seq + repairing FROM outbox_cursor"), 8);
    wb_buf_free(&told);
    look(f);
    assert_stream_holds(f, "A", "1 2 4 5 6 3 7 8");
    assert_err(outbox_publisher_plan(&f->options, "Z", NULL, NULL, &plan, NULL), WB_INVALID);
}

/* ---- asked for ------------------------------------------------------------------------------- */

static void holes_leave_no_trace_at_the_end_and_are_found_when_asked(void **state)
{
    struct fixture *f = *state;
    struct outbox_publisher_plan plan;

    rows(f, 1, 6, NULL);
    fixture_start(f);
    fixture_run(f);
    assert_true(event_bus_memory_delete(f->bus, "A", 3));
    look(f);
    assert_incidents(f, "");
    assert_ok(outbox_publisher_plan(&f->options, "A", NULL, NULL, &plan, NULL));
    assert_true(plan.needed);
    assert_int_equal(plan.rows, 1);
    outbox_publisher_stop(f->publisher);
    f->options.repair = "B";
    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "A", "1 2 4 5 6");
    outbox_publisher_stop(f->publisher);
    f->options.repair = "A";
    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "A", "1 2 4 5 6 3");
    assert_incidents(f, "hole 1 0");
    assert_at_rest(f);
    outbox_publisher_stop(f->publisher);
    f->options.repair = "*";
    fixture_start(f);
    fixture_run(f);
    assert_incidents(f, "hole 1 0"); /* and nothing the second time */
    assert_int_equal(fixture_health(f).repairs, 0);
    assert_true(fixture_health(f).scanned >= 6);
}

/* The newest message known is a stranger's without an id: it is told by when it was stored. */
static void stranger_at_the_end_does_not_hide_a_stream_that_grew_again(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 3, NULL);
    fixture_start(f);
    fixture_run(f);
    foreign(f, "F", NULL);
    rows(f, 4, 4, NULL);
    fixture_run(f);
    foreign(f, "G", NULL);
    look(f);
    assert_stream_holds(f, "A", "1 2 3 F 4 G");
    event_bus_memory_restart(f->bus, "A", 1);
    for (int i = 0; i < 6; i++)
        foreign(f, "H", NULL);
    look(f);
    assert_stream_holds(f, "A", "1 H H H H H H 2 3 4");
    assert_incidents(f, "overwritten 3 0");
    assert_at_rest(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        T(many_holes_go_out_in_turns_before_anything_new),
        T(lost_row_found_stored_is_not_sent_again_whether_loaded_or_not),
        T(lost_rows_that_wait_for_a_parked_one_hold_back_no_other_key),
        T(rows_beyond_the_bitmap_are_compared_range_by_range),
        T(known_ids_of_lost_rows_cost_one_look_not_one_each),
        T(crash_anywhere_in_a_repair_doubles_and_loses_nothing),
        T(notes_of_an_interrupted_repair_are_not_acted_upon),
        T(overtaken_publisher_does_not_conclude_a_repair),
        T(stream_that_is_changed_faster_than_repaired_halts),
        T(incidents_are_bounded_and_the_oldest_go),
        T(plan_says_what_a_repair_does_and_changes_nothing),
        T(holes_leave_no_trace_at_the_end_and_are_found_when_asked),
        T(stranger_at_the_end_does_not_hide_a_stream_that_grew_again),
    };
    return cmocka_run_group_tests_name("outbox_publisher_repair_course", tests, NULL, NULL);
}
