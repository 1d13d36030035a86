/* How often the log is synced before rows leave: once for all that were there, and again for news.
 */
#include "outbox_publisher_fixture.h"

enum { BACKLOG = 3500 }; /* more than three batches */

static void insert_many(struct fixture *f, int count)
{
    char sql[200];

    (void)snprintf(sql, sizeof(sql),
                   "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT %d)"
                   " INSERT INTO outbox(subject, payload) SELECT 'a.x', i FROM n",
                   count);
    fixture_sql(f, sql);
}

static int64_t syncs(struct fixture *f)
{
    return observe_value(observe_series(f->observe, OBSERVE_OUTBOX_BARRIERS, "mine"));
}

static void start(struct fixture *f)
{
    f->options.name = "mine";
    fixture_start(f);
    fixture_run(f);
}

/* A backlog, of which the first batch was synced and sent. */
static struct outbox_publisher_lane *begin_backlog(struct fixture *f)
{
    insert_many(f, BACKLOG);
    f->options.name = "mine";
    fixture_start(f);
    fixture_step_to_first_ack(f);
    assert_int_equal(syncs(f), 1);
    return f->publisher->lanes[0];
}

static void one_sync_serves_all_rows_that_were_there(void **state)
{
    struct fixture *f = *state;

    insert_many(f, BACKLOG);
    start(f);
    assert_int_equal(fixture_health(f).published, BACKLOG);
    assert_int_equal(syncs(f), 1);
}

/* After a power cut no more than that has to be read back: the marks are in the same log. */
static void long_backlog_is_synced_again_and_again(void **state)
{
    struct fixture *f = *state;

    insert_many(f, 35000);
    start(f);
    assert_int_equal(fixture_health(f).published, 35000);
    assert_in_range(syncs(f), 3, 5);
}

static void rows_that_came_later_are_synced_before_they_leave(void **state)
{
    struct fixture *f = *state;

    insert_many(f, BACKLOG);
    start(f);
    for (int i = 0; i < 3; i++) {
        fixture_insert(f, "a.x", "", "new");
        fixture_run(f);
        assert_int_equal(fixture_health(f).published, BACKLOG + 1 + i);
        assert_int_equal(syncs(f), 2 + i);
    }
}

static void rows_that_come_during_a_backlog_are_synced_as_well(void **state)
{
    struct fixture *f = *state;

    (void)begin_backlog(f);
    fixture_insert(f, "a.x", "", "new");
    fixture_run(f);
    assert_int_equal(fixture_health(f).published, BACKLOG + 1);
    assert_int_equal(syncs(f), 2);
}

/* The claim says that it cannot be cancelled any more: that must not be forgotten. */
static void claim_of_a_waiting_row_is_synced_though_the_row_is_old(void **state)
{
    struct fixture *f = *state;

    fixture_sql(f, "INSERT INTO outbox(subject, payload, due_at)"
                   " VALUES('a.x', 'due', 1700000000500)");
    fixture_insert(f, "a.x", "", "now");
    start(f);
    assert_stream_holds(f, "A", "now");
    assert_int_equal(syncs(f), 1);
    fixture_pass(f, WB_SEC);
    assert_stream_holds(f, "A", "now due");
    assert_int_equal(syncs(f), 2);
}

/* Somebody else may have synced before; who takes over does not rely on it. */
static void successor_syncs_for_itself(void **state)
{
    struct fixture *f = *state;

    (void)begin_backlog(f);
    fixture_crash(f);
    start(f);
    assert_int_equal(fixture_int(f, "SELECT last_seq FROM outbox_cursor"), BACKLOG);
    assert_int_equal(syncs(f), 2);
}

static void end_backlog(struct fixture *f)
{
    fixture_run(f);
    assert_int_equal(fixture_health(f).published, BACKLOG);
    assert_int_equal(syncs(f), 2);
}

/* Another lane has found that the database was restored. */
static void rows_leave_under_a_new_source_once_it_is_synced(void **state)
{
    struct fixture *f = *state;

    outbox_publisher_restore_tell(begin_backlog(f));
    end_backlog(f);
}

/* A person has cancelled a row, say, and younger ones of its key are free to go. */
static void rows_follow_a_decision_once_it_is_synced(void **state)
{
    struct fixture *f = *state;

    begin_backlog(f)->exceptions_stale = true;
    end_backlog(f);
}

/* A person has deleted a row: a power cut must not bring it back behind those that follow it. */
static void rows_follow_one_that_is_gone_once_that_is_synced(void **state)
{
    struct fixture *f = *state;

    fixture_sql(f, "INSERT INTO outbox(subject, payload, due_at)"
                   " VALUES('a.x', 'due', 1700000000500)");
    (void)begin_backlog(f);
    fixture_sql(f, "DELETE FROM outbox WHERE id = 1");
    event_bus_memory_advance(f->bus, WB_SEC);
    end_backlog(f);
}

static void start_draining(struct fixture *f)
{
    fixture_start(f);
    while (fixture_health(f).state != OUTBOX_PUBLISHER_DRAIN)
        assert_true(outbox_publisher_step(f->publisher));
}

/* It is noted which row goes next, alone, since sending has ended one process after the other. */
static void suspect_leaves_once_its_note_is_synced(void **state)
{
    struct fixture *f = *state;

    insert_many(f, 3);
    f->options.name = "mine";
    for (int i = 0; i < 12; i++) {
        start_draining(f);
        fixture_crash(f);
    }
    start_draining(f);
    struct outbox_publisher_lane *lane = f->publisher != NULL ? f->publisher->lanes[0] : NULL;
    assert_non_null(lane);
    assert_int_equal(lane->batch_limit, 1);
    lane->synced_id = 3; /* as after a batch of all three */
    while (outbox_publisher_flight_count(lane->flight) == 0)
        assert_true(outbox_publisher_step(f->publisher));
    assert_int_equal(lane->cursor.suspect_id, 1);
    assert_int_equal(syncs(f), 1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        T(one_sync_serves_all_rows_that_were_there),
        T(long_backlog_is_synced_again_and_again),
        T(rows_that_came_later_are_synced_before_they_leave),
        T(rows_that_come_during_a_backlog_are_synced_as_well),
        T(claim_of_a_waiting_row_is_synced_though_the_row_is_old),
        T(successor_syncs_for_itself),
        T(rows_leave_under_a_new_source_once_it_is_synced),
        T(rows_follow_a_decision_once_it_is_synced),
        T(rows_follow_one_that_is_gone_once_that_is_synced),
        T(suspect_leaves_once_its_note_is_synced),
    };
    return cmocka_run_group_tests_name("outbox_publisher_barrier", tests, NULL, NULL);
}
