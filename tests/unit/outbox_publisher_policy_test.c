/* What becomes of the younger rows of a key when one is refused: by the class of the row. */
#include "outbox_publisher_fault_bus.h"
#include "outbox_publisher_fixture.h"

static const char *const block_subjects[] = {"a.block.>"};
static const char *const park_subjects[] = {"a.park.>"};
static const char *const latest_subjects[] = {"a.latest.>"};
static const struct outbox_class classes[] = {
    {.name = "block", .patterns = block_subjects, .pattern_count = 1, .policy = OUTBOX_BLOCK_KEY},
    {.name = "park", .patterns = park_subjects, .pattern_count = 1, .policy = OUTBOX_PARK},
    {.name = "latest",
     .patterns = latest_subjects,
     .pattern_count = 1,
     .policy = OUTBOX_LATEST_WINS},
};

static int setup(void **state)
{
    struct fixture *f;
    int failed = fixture_setup(state);

    f = *state;
    f->options.classes = classes;
    f->options.class_count = 3;
    f->options.max_attempts = 3;
    return failed;
}

/* Larger than the bus takes, yet not for good: it is tried again. */
static void insert_refused(struct fixture *f, const char *subject, const char *key)
{
    char sql[200];

    (void)snprintf(sql, sizeof(sql),
                   "INSERT INTO outbox(subject, key, payload) VALUES('%s', '%s',"
                   " zeroblob(2000000))",
                   subject, key);
    fixture_sql(f, sql);
}

static void block_key_waits_for_a_person(void **state)
{
    struct fixture *f = *state;

    insert_refused(f, "a.block.x", "k");
    fixture_insert(f, "a.block.x", "k", "2");
    fixture_insert(f, "a.block.x", "l", "3");
    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "A", "3");
    assert_exceptions(f, "1 retry 2 blocked");
    fixture_pass(f, 5 * WB_SEC);
    assert_exceptions(f, "1 parked 2 blocked");
    assert_stream_holds(f, "A", "3");
}

static void row_of_no_class_blocks_its_key(void **state)
{
    struct fixture *f = *state;

    insert_refused(f, "a.other", "k");
    fixture_insert(f, "a.latest.x", "k", "2"); /* the refused row's class decides */
    fixture_start(f);
    fixture_pass(f, 5 * WB_SEC);
    assert_exceptions(f, "1 parked 2 blocked");
}

static void park_lets_the_key_go_on_only_once_it_is_parked(void **state)
{
    struct fixture *f = *state;

    insert_refused(f, "a.park.x", "k");
    fixture_insert(f, "a.park.x", "k", "2");
    fixture_insert(f, "a.park.x", "l", "3");
    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "A", "3");
    assert_exceptions(f, "1 retry 2 blocked");
    fixture_pass(f, 5 * WB_SEC);
    assert_exceptions(f, "1 parked");
    assert_stream_holds(f, "A", "3 2");
    fixture_insert(f, "a.park.x", "k", "4");
    fixture_run(f);
    assert_stream_holds(f, "A", "3 2 4");
}

static void parked_row_that_a_person_retries_comes_late_and_is_waited_for(void **state)
{
    struct fixture *f = *state;

    fixture_insert(f, "a.park.x", "k", "1");
    fixture_insert(f, "a.park.x", "k", "2");
    fixture_sql(f, "INSERT INTO outbox_exception(id, state) VALUES(1, 'parked')");
    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "A", "2");
    fixture_sql(f, "UPDATE outbox_exception SET state = 'retry', next_at = 0 WHERE id = 1");
    fixture_pass(f, 6 * WB_SEC);
    assert_stream_holds(f, "A", "2 1");
    assert_exceptions(f, "");
}

static void latest_wins_cancels_the_refused_row_once_a_younger_one_is_out(void **state)
{
    struct fixture *f = *state;

    insert_refused(f, "a.latest.x", "k");
    insert_refused(f, "a.latest.x", "l");
    fixture_start(f);
    fixture_run(f);
    assert_exceptions(f, "1 retry 2 retry"); /* nothing younger yet: it is tried again */
    fixture_insert(f, "a.latest.x", "k", "3");
    fixture_run(f);
    assert_stream_holds(f, "A", "3");
    assert_exceptions(f, "1 cancelled 2 retry");
    assert_int_equal(fixture_int(f, "SELECT error LIKE 'row 3, a younger one%' FROM"
                                    " outbox_exception WHERE id = 1"),
                     1);
    fixture_pass(f, 5 * WB_SEC);
    assert_exceptions(f, "1 cancelled 2 parked");
    fixture_insert(f, "a.latest.x", "l", "4");
    fixture_run(f);
    assert_exceptions(f, "1 cancelled 2 cancelled"); /* parked ones give way, too */
    assert_stream_holds(f, "A", "3 4");
}

static void latest_wins_without_a_key_waits_for_nobody_and_gives_way_to_nobody(void **state)
{
    struct fixture *f = *state;

    insert_refused(f, "a.latest.x", "");
    fixture_insert(f, "a.latest.x", "", "2");
    fixture_start(f);
    fixture_pass(f, 5 * WB_SEC);
    assert_stream_holds(f, "A", "2");
    assert_exceptions(f, "1 parked");
}

static void latest_wins_leaves_scheduled_rows_alone(void **state)
{
    struct fixture *f = *state;
    char sql[200];

    (void)snprintf(sql, sizeof(sql),
                   "INSERT INTO outbox(subject, key, due_at, payload)"
                   " VALUES('a.latest.x', 'k', %" PRId64 ", 'late')",
                   wb_wall_ns(f->options.clock) / WB_MS + 1000);
    fixture_sql(f, sql);
    fixture_insert(f, "a.latest.x", "k", "2");
    fixture_start(f);
    fixture_run(f);
    assert_exceptions(f, "1 waiting");
    fixture_pass(f, 2 * WB_SEC);
    assert_stream_holds(f, "A", "2 late");
}

/* The younger one was stored, and the publisher died before it could cancel the older one. */
static void latest_wins_also_over_a_crash(void **state)
{
    struct fixture *f = *state;

    insert_refused(f, "a.latest.x", "k");
    fixture_insert(f, "a.latest.x", "k", "2");
    fixture_insert(f, "a.latest.x", "l", "3"); /* sent, not yet answered: nothing is marked */
    fixture_start(f);
    fixture_step_to_first_ack(f);
    fixture_crash(f);
    assert_exceptions(f, "");
    assert_stream_holds(f, "A", "2 3");
    fixture_start(f);
    fixture_run(f);
    assert_exceptions(f, "1 cancelled");
    assert_stream_holds(f, "A", "2 3");
}

static bool refuse_first(const struct message *msg)
{
    return memcmp(msg->payload.ptr, "1", 1) == 0;
}

/* Row 1 was refused; row 2 is on its way when row 1 is due again. */
static void latest_wins_tries_no_older_row_while_a_younger_one_is_on_its_way(void **state)
{
    struct fixture *f = *state;
    struct fault_bus *bus = fault_bus_create(f->bus, 1);

    f->options.bus = &bus->base;
    f->options.observe = NULL;
    f->options.max_attempts = 100;
    bus->refuses = refuse_first;
    fixture_insert(f, "a.latest.x", "k", "1");
    fixture_start(f);
    for (int i = 0; i < 20; i++) {
        (void)outbox_publisher_step(f->publisher);
        (void)fault_bus_pump(bus);
    }
    assert_exceptions(f, "1 retry");
    bus->refuses = NULL; /* it would be taken now */
    fixture_insert(f, "a.latest.x", "k", "2");
    for (int i = 0; i < 5; i++)
        (void)outbox_publisher_step(f->publisher);
    assert_non_null(bus->first); /* row 2 */
    assert_null(bus->first->next);
    fault_bus_advance(bus, 60 * WB_SEC);
    for (int i = 0; i < 5; i++)
        (void)outbox_publisher_step(f->publisher);
    assert_null(bus->first->next);
    for (int i = 0; i < 20; i++) {
        (void)fault_bus_pump(bus);
        (void)outbox_publisher_step(f->publisher);
    }
    assert_stream_holds(f, "A", "2");
    assert_exceptions(f, "1 cancelled");
    outbox_publisher_stop(f->publisher);
    f->publisher = NULL;
    event_bus_destroy(&bus->base);
}

static void first_class_that_matches_counts(void **state)
{
    struct fixture *f = *state;
    static const char *const all[] = {">"};
    static const struct outbox_class two[] = {
        {.name = "park", .patterns = park_subjects, .pattern_count = 1, .policy = OUTBOX_PARK},
        {.name = "rest", .patterns = all, .pattern_count = 1, .policy = OUTBOX_LATEST_WINS}};

    (void)f;
    assert_ptr_equal(outbox_class_of(two, 2, wb_str("a.park.x")), &two[0]);
    assert_ptr_equal(outbox_class_of(two, 2, wb_str("a.block.x")), &two[1]);
    assert_null(outbox_class_of(two, 1, wb_str("a.block.x")));
    assert_null(outbox_class_of(NULL, 0, wb_str("a.block.x")));
}

/* Somebody else writes into the midst of a burst. */
static void foreign_message_in_a_burst_does_not_cost_the_order(void **state)
{
    struct fixture *f = *state;
    struct fault_bus *wire = fault_bus_create(f->bus, 1);

    f->options.bus = &wire->base;
    f->options.observe = NULL;
    for (int i = 1; i <= 5; i++)
        fixture_insert(f, "a.x", "k", (const char[]){(char)('0' + i), '\0'});
    fixture_start(f);
    while (wire->first == NULL)
        assert_true(outbox_publisher_step(f->publisher));
    (void)fault_bus_pump(wire);
    (void)outbox_publisher_step(f->publisher);
    (void)fault_bus_pump(wire);
    assert_stream_holds(f, "A", "1 2");
    const struct message foreign = {.subject = wb_str("a.foreign"), .payload = {"F", 1}};
    assert_ok(event_bus_publish(f->bus, &foreign, NULL, NULL, NULL));
    for (int i = 0; i < 200; i++) {
        (void)fault_bus_pump(wire);
        (void)outbox_publisher_step(f->publisher);
    }
    assert_stream_holds(f, "A", "1 2 F 3 4 5");
    outbox_publisher_stop(f->publisher);
    f->publisher = NULL;
    event_bus_destroy(&wire->base);
}

/* ---- a limit --------------------------------------------------------------------------------- */

static void new_rows_wait_while_too_many_are_set_aside(void **state)
{
    struct fixture *f = *state;
    struct wb_why why;

    f->options.max_set_aside = 3;
    for (int i = 1; i <= 3; i++)
        fixture_sql(f, "INSERT INTO outbox(subject, headers, payload)"
                       " VALUES('a.x', 'no header', 'p')");
    fixture_start(f);
    fixture_run(f);
    fixture_insert(f, "a.x", "", "good");
    fixture_pass(f, 10 * WB_SEC);
    assert_stream_holds(f, "A", "");
    assert_non_null(strstr(fixture_health(f).problem, "3 rows are set aside, the limit is 3"));
    assert_int_equal(fixture_health(f).state, OUTBOX_PUBLISHER_DRAIN);
    assert_err(outbox_publisher_flush(f->publisher, 0, &why), WB_TIMEOUT);
    assert_non_null(strstr(why.text, "the limit is 3"));
    fixture_sql(f, "UPDATE outbox_exception SET state = 'cancelled' WHERE id = 2");
    fixture_pass(f, 1100 * WB_MS);
    assert_stream_holds(f, "A", "good");
    assert_string_equal(fixture_health(f).problem, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, fixture_teardown)
        T(block_key_waits_for_a_person),
        T(row_of_no_class_blocks_its_key),
        T(park_lets_the_key_go_on_only_once_it_is_parked),
        T(parked_row_that_a_person_retries_comes_late_and_is_waited_for),
        T(latest_wins_cancels_the_refused_row_once_a_younger_one_is_out),
        T(latest_wins_without_a_key_waits_for_nobody_and_gives_way_to_nobody),
        T(latest_wins_leaves_scheduled_rows_alone),
        T(latest_wins_also_over_a_crash),
        T(latest_wins_tries_no_older_row_while_a_younger_one_is_on_its_way),
        T(foreign_message_in_a_burst_does_not_cost_the_order),
        T(first_class_that_matches_counts),
        T(new_rows_wait_while_too_many_are_set_aside),
    };
    return cmocka_run_group_tests_name("outbox_publisher_policy", tests, NULL, NULL);
}
