/* Rows that wait for their time: when they go out, when they do not, and by which clock. */
#include "outbox_publisher_fixture.h"

#include <waybill/outbox.h>

#define START_MS (INT64_C(1700000000) * 1000)

/* Rows with a due time, in milliseconds after the start, and the number as payload. */
static void insert_due(struct fixture *f, int64_t after_ms)
{
    char text[160];

    (void)snprintf(text, sizeof(text),
                   "INSERT INTO outbox(subject, payload, due_at) SELECT 'a.x',"
                   " ifnull(max(id), 0) + 1, %lld FROM outbox",
                   (long long)(START_MS + after_ms));
    fixture_sql(f, text);
}

static uint64_t stream_count(struct fixture *f)
{
    struct event_bus_stream_info info;

    assert_ok(event_bus_stream_info(f->bus, "A", &info, NULL));
    return info.last_seq;
}

static void pass_ms(struct fixture *f, int64_t ms)
{
    event_bus_memory_advance(f->bus, ms * WB_MS);
    fixture_run(f);
}

static void rows_go_out_by_due_time_not_by_number(void **state)
{
    struct fixture *f = *state;

    insert_due(f, 300);
    insert_due(f, 100);
    insert_due(f, 200);
    insert_due(f, -5000); /* due already */
    fixture_insert(f, "a.x", "", "now");
    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "A", "4 now");
    assert_exceptions(f, "1 waiting 2 waiting 3 waiting");
    fixture_pass(f, 1000 * WB_MS);
    assert_stream_holds(f, "A", "4 now 2 3 1");
    assert_exceptions(f, "");
}

enum { MANY = 30000, SPAN_MS = 20000, STEP_MS = 10 };

/* More than memory holds, in an order of their own. */
static void insert_many(struct fixture *f)
{
    char text[400];

    (void)snprintf(text, sizeof(text),
                   "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)"
                   " INSERT INTO outbox(subject, payload, due_at)"
                   " SELECT 'a.x', i, %lld + 100 + (i * 7919) %% %d FROM n",
                   MANY, (long long)START_MS, SPAN_MS);
    fixture_sql(f, text);
}

static void assert_due_are_out(struct fixture *f, struct sqlite3_stmt *due, int64_t now_ms)
{
    (void)sqlite3_bind_int64(due, 1, now_ms);
    assert_int_equal(sqlite3_step(due), SQLITE_ROW);
    int64_t count = sqlite3_column_int64(due, 0);
    (void)sqlite3_reset(due);
    if ((int64_t)stream_count(f) != count)
        fail_msg("after %lld ms %llu rows are out, %lld are due", (long long)(now_ms - START_MS),
                 (unsigned long long)stream_count(f), (long long)count);
}

static void each_of_many_goes_out_within_a_step_of_its_time(void **state)
{
    struct fixture *f = *state;
    struct sqlite3_stmt *due;

    insert_many(f);
    fixture_sql(f, "CREATE INDEX test_due ON outbox(due_at)");
    assert_ok(db_prepare(f->db, "SELECT count(*) FROM outbox WHERE due_at <= ?1", &due, NULL));
    fixture_start(f);
    fixture_run(f);
    for (int64_t ms = 0; ms < SPAN_MS + 200; ms += STEP_MS) {
        if (ms == SPAN_MS / 2) { /* also by another publisher, from what the table says */
            fixture_crash(f);
            fixture_start(f);
            fixture_run(f);
        }
        pass_ms(f, STEP_MS);
        assert_due_are_out(f, due, wb_wall_ns(f->options.clock) / WB_MS);
        size_t held = f->publisher->lanes[0]->schedule.count;
        assert_in_range(held, 0, 2 * OUTBOX_PUBLISHER_SCHEDULE_MAX);
    }
    assert_int_equal(stream_count(f), MANY);
    assert_int_equal(fixture_int(f, "SELECT count(*) FROM outbox_exception"), 0);
    (void)sqlite3_finalize(due);
}

static void rows_written_while_the_farther_ones_are_in_the_table_only_are_found(void **state)
{
    struct fixture *f = *state;

    insert_many(f);
    fixture_start(f);
    fixture_run(f);
    assert_false(f->publisher->lanes[0]->schedule.whole);
    insert_due(f, 50);
    insert_due(f, SPAN_MS + 500);
    fixture_run(f);
    pass_ms(f, 60);
    assert_int_equal(stream_count(f), 1);
    for (int i = 0; i < 101; i++)
        pass_ms(f, SPAN_MS / 100);
    assert_int_equal(stream_count(f), MANY + 1);
    pass_ms(f, 1000);
    assert_int_equal(stream_count(f), MANY + 2);
}

static void each_stream_sends_its_own(void **state)
{
    struct fixture *f = *state;

    fixture_declare(f->bus, "B", "b.>");
    f->options.stream_count = 2;
    fixture_sql(f, "INSERT INTO outbox(subject, payload, due_at) VALUES"
                   "('a.x', '1', 1700000001000), ('b.x', '2', 1700000001000),"
                   "('b.x', '3', 1700000002000), ('a.x', '4', 1700000002000)");
    fixture_start(f);
    fixture_run(f);
    fixture_crash(f);
    fixture_start(f);
    fixture_run(f);
    fixture_pass(f, 3 * WB_SEC);
    assert_stream_holds(f, "A", "1 4");
    assert_stream_holds(f, "B", "2 3");
    assert_exceptions(f, "");
}

static void waiting_row_that_expires_first_is_never_sent(void **state)
{
    struct fixture *f = *state;

    fixture_sql(f, "INSERT INTO outbox(subject, payload, due_at, expires_at) VALUES"
                   "('a.x', '1', 1700000001000, 1700000000500),"
                   "('a.x', '2', 1700000001000, 1700000005000),"
                   "('a.x', '3', NULL, 1699999999999)");
    fixture_start(f);
    fixture_pass(f, 2 * WB_SEC);
    assert_stream_holds(f, "A", "2");
    assert_exceptions(f, "1 expired 3 expired");
}

static void due_row_of_a_blocked_key_waits_for_the_older_one(void **state)
{
    struct fixture *f = *state;

    fixture_sql(f, "INSERT INTO outbox(subject, key, payload) VALUES('not a subject', 'k', '1')");
    fixture_sql(f, "INSERT INTO outbox(subject, key, payload, due_at)"
                   " VALUES('a.x', 'k', '2', 1700000000100), ('a.x', 'l', '3', 1700000000100)");
    fixture_start(f);
    fixture_pass(f, WB_SEC);
    assert_stream_holds(f, "A", "3");
    assert_exceptions(f, "1 parked 2 blocked");
    fixture_sql(f, "UPDATE outbox_exception SET state = 'cancelled' WHERE id = 1");
    fixture_pass(f, 3 * WB_SEC);
    assert_stream_holds(f, "A", "3 2");
}

static void purged_row_leaves_the_schedule(void **state)
{
    struct fixture *f = *state;

    insert_due(f, 500);
    insert_due(f, 600);
    fixture_start(f);
    fixture_run(f);
    fixture_sql(f, "DELETE FROM outbox WHERE id = 1");
    wb_log_setup(2, WB_LOG_LOGFMT, WB_LOG_ERROR);
    fixture_pass(f, WB_SEC);
    assert_stream_holds(f, "A", "2");
    assert_exceptions(f, "");
}

/* ---- clocks ---------------------------------------------------------------------------------- */

/* A wall clock that somebody sets. */
struct set_clock {
    struct wb_clock clock; /* first */
    const struct wb_clock *inner;
    int64_t set_ns;
};

static int64_t set_mono_ns(const struct wb_clock *clock)
{
    return wb_mono_ns(((const struct set_clock *)clock)->inner);
}

static int64_t set_wall_ns(const struct wb_clock *clock)
{
    const struct set_clock *self = (const struct set_clock *)clock;

    return wb_wall_ns(self->inner) + self->set_ns;
}

static void set_clock_use(struct fixture *f, struct set_clock *clock)
{
    *clock = (struct set_clock){.clock = {.mono_ns = set_mono_ns, .wall_ns = set_wall_ns},
                                .inner = f->options.clock};
    f->options.clock = &clock->clock;
}

static void steps_of_the_clock_send_nothing_early_or_late(void **state)
{
    struct fixture *f = *state;
    static struct set_clock clock; /* outlives the publisher */

    set_clock_use(f, &clock);
    insert_due(f, 60000);
    insert_due(f, 120000);
    fixture_start(f);
    fixture_run(f);
    clock.set_ns = 3600 * WB_SEC;
    fixture_pass(f, 59 * WB_SEC);
    assert_stream_holds(f, "A", "");
    fixture_pass(f, WB_SEC);
    assert_stream_holds(f, "A", "1");
    clock.set_ns = -3600 * WB_SEC;
    fixture_pass(f, 59 * WB_SEC);
    assert_stream_holds(f, "A", "1");
    fixture_pass(f, WB_SEC);
    assert_stream_holds(f, "A", "1 2");
}

static void small_corrections_of_the_clock_are_followed(void **state)
{
    struct fixture *f = *state;
    static struct set_clock clock; /* outlives the publisher */

    set_clock_use(f, &clock);
    insert_due(f, 60000);
    fixture_start(f);
    fixture_run(f);
    for (int i = 1; i <= 20; i++) { /* ten seconds, by halves */
        clock.set_ns = i * (500 * WB_MS);
        fixture_pass(f, 2 * WB_SEC);
    }
    fixture_pass(f, 9 * WB_SEC);
    assert_stream_holds(f, "A", "");
    fixture_pass(f, 2 * WB_SEC);
    assert_stream_holds(f, "A", "1");
}

static void new_publisher_starts_with_the_clock_as_it_is(void **state)
{
    struct fixture *f = *state;
    static struct set_clock clock; /* outlives the publisher */

    set_clock_use(f, &clock);
    insert_due(f, 60000);
    fixture_start(f);
    fixture_run(f);
    clock.set_ns = 3600 * WB_SEC;
    fixture_crash(f);
    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "A", "1");
}

/* ---- cancelling ------------------------------------------------------------------------------ */

static wb_err cancel(struct fixture *f, int64_t id)
{
    struct outbox *outbox;

    assert_ok(outbox_attach(db_handle(f->db), &outbox, NULL));
    assert_ok(db_begin(f->db, NULL));
    wb_err err = outbox_cancel(outbox, id, NULL);
    assert_ok(db_commit(f->db, NULL));
    outbox_detach(outbox);
    return err;
}

static void waiting_row_that_was_cancelled_is_never_sent(void **state)
{
    struct fixture *f = *state;

    insert_due(f, 100);
    insert_due(f, 100);
    insert_due(f, 100);
    assert_ok(cancel(f, 1)); /* before any publisher has seen it */
    fixture_start(f);
    fixture_run(f);
    assert_ok(cancel(f, 2)); /* while it waits in memory */
    fixture_pass(f, WB_SEC);
    assert_stream_holds(f, "A", "3");
    assert_exceptions(f, "1 cancelled 2 cancelled");
    assert_err(cancel(f, 3), WB_CONFLICT);
    fixture_crash(f);
    fixture_start(f);
    fixture_pass(f, WB_SEC);
    assert_stream_holds(f, "A", "3");
}

/* Between any two steps: it is cancelled and never sent, or it is too late and sent. */
static void cancelling_at_any_moment_is_either_in_time_or_too_late(void **state)
{
    struct fixture *f = *state;
    int64_t in_time = 0, too_late = 0;

    for (int steps = 0; steps < 12; steps++) {
        int64_t ms = (wb_wall_ns(f->options.clock) / WB_MS) - START_MS;
        insert_due(f, ms + 20);
        int64_t id = fixture_int(f, "SELECT max(id) FROM outbox");
        fixture_start(f);
        uint64_t before = stream_count(f);
        for (int i = 0; i < steps; i++) {
            if (i == 6)
                event_bus_memory_advance(f->bus, 30 * WB_MS);
            (void)outbox_publisher_step(f->publisher);
        }
        wb_err err = cancel(f, id);
        fixture_pass(f, WB_SEC);
        in_time += err == WB_OK ? 1 : 0;
        too_late += err == WB_CONFLICT ? 1 : 0;
        assert_true(err == WB_OK || err == WB_CONFLICT);
        assert_int_equal(stream_count(f) - before, err == WB_OK ? 0 : 1);
        outbox_publisher_stop(f->publisher);
        f->publisher = NULL;
    }
    assert_true(in_time > 0 && too_late > 0);
}

/* A person decides about a refused row: the publisher hears of it while it drains. */
static void parked_row_that_is_discarded_lets_its_key_go_on_within_seconds(void **state)
{
    struct fixture *f = *state;

    fixture_sql(f, "INSERT INTO outbox(subject, key, payload) VALUES('not a subject', 'k', '1'),"
                   "('a.x', 'k', '2')");
    fixture_start(f);
    fixture_run(f);
    assert_exceptions(f, "1 parked 2 blocked");
    assert_ok(cancel(f, 1));
    fixture_pass(f, 2 * WB_SEC);
    assert_stream_holds(f, "A", "2");
    assert_exceptions(f, "1 cancelled");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        T(rows_go_out_by_due_time_not_by_number),
        T(each_of_many_goes_out_within_a_step_of_its_time),
        T(rows_written_while_the_farther_ones_are_in_the_table_only_are_found),
        T(each_stream_sends_its_own),
        T(waiting_row_that_expires_first_is_never_sent),
        T(due_row_of_a_blocked_key_waits_for_the_older_one),
        T(purged_row_leaves_the_schedule),
        T(steps_of_the_clock_send_nothing_early_or_late),
        T(small_corrections_of_the_clock_are_followed),
        T(new_publisher_starts_with_the_clock_as_it_is),
        T(waiting_row_that_was_cancelled_is_never_sent),
        T(cancelling_at_any_moment_is_either_in_time_or_too_late),
        T(parked_row_that_is_discarded_lets_its_key_go_on_within_seconds),
    };
    return cmocka_run_group_tests_name("outbox_publisher_schedule", tests, NULL, NULL);
}
