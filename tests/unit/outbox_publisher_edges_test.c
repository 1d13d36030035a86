/*
 * The machine's edges: each has a test that takes it, and the last test fails when one was never
 * taken. What repairs and restores do has tests of its own.
 */
#include <unistd.h>

#include "outbox_publisher_fault_bus.h"
#include "outbox_publisher_fixture.h"

#define S(name) OUTBOX_PUBLISHER_##name

static const struct edge {
    outbox_publisher_state from, to;
} edges[] = {{S(STANDBY), S(CHECK)}, {S(CHECK), S(SETTLE)},  {S(CHECK), S(DRAIN)},
             {S(CHECK), S(OUTAGE)},  {S(CHECK), S(FENCED)},  {S(SETTLE), S(DRAIN)},
             {S(SETTLE), S(OUTAGE)}, {S(SETTLE), S(FENCED)}, {S(DRAIN), S(CHECK)},
             {S(DRAIN), S(OUTAGE)},  {S(DRAIN), S(FENCED)},  {S(DRAIN), S(STOPPING)},
             {S(OUTAGE), S(CHECK)},  {S(FENCED), S(STANDBY)}};

enum { EDGES = sizeof(edges) / sizeof(edges[0]), STATES = 16 };

static bool taken[STATES][STATES];

struct world {
    struct fixture *f;
    struct fault_bus *bus;
    outbox_publisher_state state; /* as last seen */
};

static void start(struct world *w)
{
    fixture_start(w->f);
    w->state = S(STANDBY);
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    void *fixture;

    assert_non_null(w);
    (void)fixture_setup(&fixture);
    w->f = fixture;
    w->bus = fault_bus_create(w->f->bus, 1);
    w->f->options.bus = &w->bus->base;
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    void *fixture = w->f;

    outbox_publisher_stop(w->f->publisher);
    w->f->publisher = NULL;
    event_bus_destroy(&w->bus->base);
    free(w);
    return fixture_teardown(&fixture);
}

static bool step(struct world *w)
{
    bool did = outbox_publisher_step(w->f->publisher);
    outbox_publisher_state now = fixture_health(w->f).state;

    taken[w->state][now] = true;
    w->state = now;
    return did;
}

/* Until it is in the state; time passes while it waits. */
static void step_to(struct world *w, outbox_publisher_state state)
{
    for (int i = 0; w->state != state; i++) {
        assert_true(i < 2000);
        if (!step(w))
            fault_bus_advance(w->bus, 10 * WB_MS);
    }
}

static void step_to_rest(struct world *w)
{
    for (int i = 0; step(w) || fault_bus_pump(w->bus); i++)
        assert_true(i < 2000);
}

/* In DRAIN, with the first of these rows on its way. */
static void send_rows(struct world *w, int count)
{
    for (int i = 0; i < count; i++)
        fixture_insert(w->f, "a.x", "k", "p");
    start(w);
    step_to(w, S(DRAIN));
    while (w->bus->first == NULL)
        assert_true(step(w));
}

/* It is stored or not; whatever happened, the sender hears this. */
static void answer(struct world *w, bool store, wb_err err, struct event_bus_ack_info ack)
{
    struct transit *one = transit_take(w->bus);

    if (store)
        assert_ok(event_bus_publish(w->f->bus, one->message, &one->options, NULL, NULL));
    transit_answer(one, err, &ack);
    transit_free(one);
}

static void assert_all_stored_once(struct world *w, int count)
{
    struct event_bus_stream_info info;

    step_to_rest(w);
    for (int i = 0; i < 400 && w->state != S(DRAIN); i++) {
        fault_bus_advance(w->bus, 10 * WB_MS);
        step_to_rest(w);
    }
    assert_ok(event_bus_stream_info(w->f->bus, "A", &info, NULL));
    assert_int_equal(info.last_seq, count);
    assert_int_equal(fixture_int(w->f, "SELECT last_id FROM outbox_cursor"), count);
    assert_int_equal(fixture_int(w->f, "SELECT last_seq FROM outbox_cursor"), count);
    assert_exceptions(w->f, "");
}

/* ---- standby, check, settle ------------------------------------------------------------------ */

static void standby_goes_to_check_when_the_role_is_free(void **state)
{
    struct world *w = *state;

    start(w);
    assert_true(step(w));
    assert_int_equal(w->state, S(CHECK));
}

static void check_goes_to_drain_when_the_stream_is_as_the_cursor_says(void **state)
{
    struct world *w = *state;

    start(w);
    step_to(w, S(CHECK));
    assert_true(step(w));
    assert_int_equal(w->state, S(DRAIN));
}

static void check_goes_to_outage_when_the_bus_does_not_answer(void **state)
{
    struct world *w = *state;

    start(w);
    step_to(w, S(CHECK));
    fault_bus_down(w->bus, true);
    assert_true(step(w));
    assert_int_equal(w->state, S(OUTAGE));
    fault_bus_down(w->bus, false);
    assert_true(step(w)); /* at once: the listener has told */
    assert_int_equal(w->state, S(CHECK));
}

static void check_goes_to_fenced_when_somebody_else_is_the_holder(void **state)
{
    struct world *w = *state;

    start(w);
    step_to(w, S(CHECK));
    fixture_sql(w->f, "UPDATE outbox_cursor SET holder = holder + 1");
    step_to(w, S(FENCED));
    step_to(w, S(STANDBY));
}

/* In CHECK, with a message of a crashed predecessor beyond the cursor. */
static void leave_one_unmarked(struct world *w)
{
    send_rows(w, 1);
    answer(w, true, WB_OK, (struct event_bus_ack_info){.stream = "A", .sequence = 1});
    fixture_crash(w->f);
    start(w);
    step_to(w, S(SETTLE));
}

static void check_goes_to_settle_and_that_to_drain(void **state)
{
    struct world *w = *state;

    leave_one_unmarked(w);
    step_to(w, S(DRAIN));
    assert_int_equal(fixture_health(w->f).settles, 1);
    assert_all_stored_once(w, 1);
}

static void settle_goes_to_outage_when_the_bus_does_not_answer(void **state)
{
    struct world *w = *state;

    leave_one_unmarked(w);
    w->bus->down = true; /* nobody tells */
    assert_true(step(w));
    assert_int_equal(w->state, S(OUTAGE));
    w->bus->down = false;
    assert_all_stored_once(w, 1);
}

static void settle_goes_to_fenced_when_somebody_else_is_the_holder(void **state)
{
    struct world *w = *state;

    leave_one_unmarked(w);
    fixture_sql(w->f, "UPDATE outbox_cursor SET holder = holder + 1");
    step_to(w, S(FENCED));
    assert_int_equal(fixture_int(w->f, "SELECT last_id FROM outbox_cursor"), 0);
}

/* ---- drain ----------------------------------------------------------------------------------- */

/* Stored, yet the answer leaves it open: it is found, not sent again. */
static void look_after(struct world *w, wb_err err, struct event_bus_ack_info ack)
{
    send_rows(w, 1);
    answer(w, true, err, ack);
    step_to(w, S(CHECK));
    step_to(w, S(SETTLE));
    assert_all_stored_once(w, 1);
    assert_int_equal(fixture_health(w->f).published, 0);
    assert_int_equal(fixture_health(w->f).settles, 1);
}

static void drain_settles_after_a_wrong_last_sequence(void **state)
{
    look_after(*state, WB_CONFLICT, (struct event_bus_ack_info){.sequence = 1});
}

static void drain_settles_after_a_wrong_last_id(void **state)
{
    look_after(*state, WB_CONFLICT, (struct event_bus_ack_info){.sequence = 0});
}

static void drain_settles_after_a_duplicate(void **state)
{
    look_after(*state, WB_OK,
               (struct event_bus_ack_info){.stream = "A", .sequence = 1, .duplicate = true});
}

static void drain_settles_after_an_ack_of_another_stream(void **state)
{
    look_after(*state, WB_OK, (struct event_bus_ack_info){.stream = "B", .sequence = 1});
}

static void drain_settles_after_an_ack_without_its_sequence(void **state)
{
    look_after(*state, WB_OK, (struct event_bus_ack_info){.stream = "A", .sequence = 0});
}

static void drain_settles_after_the_deadline_of_an_ack(void **state)
{
    look_after(*state, WB_TIMEOUT, (struct event_bus_ack_info){.sequence = 0});
}

static void drain_settles_after_a_lost_connection(void **state)
{
    look_after(*state, WB_UNKNOWN, (struct event_bus_ack_info){.sequence = 0});
}

static void drain_sends_again_what_a_look_does_not_find(void **state)
{
    struct world *w = *state;

    send_rows(w, 1);
    answer(w, false, WB_CONFLICT, (struct event_bus_ack_info){.sequence = 0});
    assert_all_stored_once(w, 1);
    assert_int_equal(fixture_health(w->f).published, 1);
}

static void drain_goes_to_outage_when_nobody_takes_the_message(void **state)
{
    struct world *w = *state;

    send_rows(w, 1);
    answer(w, false, WB_UNREACHABLE, (struct event_bus_ack_info){.sequence = 0});
    step_to(w, S(OUTAGE));
    assert_all_stored_once(w, 1);
}

static void drain_goes_to_outage_when_it_cannot_send(void **state)
{
    struct world *w = *state;

    start(w);
    step_to(w, S(DRAIN));
    step_to_rest(w);
    fixture_insert(w->f, "a.x", "k", "p");
    w->bus->down = true; /* nobody tells */
    step_to(w, S(OUTAGE));
    w->bus->down = false;
    assert_all_stored_once(w, 1);
}

static void drain_goes_to_fenced_when_its_mark_is_refused(void **state)
{
    struct world *w = *state;

    send_rows(w, 1);
    fixture_sql(w->f, "UPDATE outbox_cursor SET holder = holder + 1");
    assert_true(fault_bus_pump(w->bus));
    step_to(w, S(FENCED));
    assert_int_equal(fixture_int(w->f, "SELECT last_id FROM outbox_cursor"), 0);
    step_to(w, S(STANDBY));
    assert_all_stored_once(w, 1); /* as nobody else wants the role, it takes it again */
}

/* ---- the end --------------------------------------------------------------------------------- */

static void drain_stops_with_what_is_acknowledged_marked(void **state)
{
    struct world *w = *state;
    struct observe_series *series = observe_series(w->f->observe, OBSERVE_OUTBOX_STATE, "m.db");

    send_rows(w, 1);
    assert_true(fault_bus_pump(w->bus));
    outbox_publisher_stop(w->f->publisher);
    w->f->publisher = NULL;
    assert_int_equal(observe_value(series), S(STOPPING));
    taken[w->state][S(STOPPING)] = true;
    assert_int_equal(fixture_int(w->f, "SELECT last_id FROM outbox_cursor"), 1);
    assert_exceptions(w->f, "");
}

static void every_edge_was_taken(void **state)
{
    size_t missing = 0;

    (void)state;
    for (size_t i = 0; i < EDGES; i++) {
        if (taken[edges[i].from][edges[i].to])
            continue;
        missing++;
        print_message("never taken: %s -> %s\n", outbox_publisher_state_name(edges[i].from),
                      outbox_publisher_state_name(edges[i].to));
    }
    assert_int_equal(missing, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(standby_goes_to_check_when_the_role_is_free),
        T(check_goes_to_drain_when_the_stream_is_as_the_cursor_says),
        T(check_goes_to_outage_when_the_bus_does_not_answer),
        T(check_goes_to_fenced_when_somebody_else_is_the_holder),
        T(check_goes_to_settle_and_that_to_drain),
        T(settle_goes_to_outage_when_the_bus_does_not_answer),
        T(settle_goes_to_fenced_when_somebody_else_is_the_holder),
        T(drain_settles_after_a_wrong_last_sequence),
        T(drain_settles_after_a_wrong_last_id),
        T(drain_settles_after_a_duplicate),
        T(drain_settles_after_an_ack_of_another_stream),
        T(drain_settles_after_an_ack_without_its_sequence),
        T(drain_settles_after_the_deadline_of_an_ack),
        T(drain_settles_after_a_lost_connection),
        T(drain_sends_again_what_a_look_does_not_find),
        T(drain_goes_to_outage_when_nobody_takes_the_message),
        T(drain_goes_to_outage_when_it_cannot_send),
        T(drain_goes_to_fenced_when_its_mark_is_refused),
        T(drain_stops_with_what_is_acknowledged_marked),
        cmocka_unit_test(every_edge_was_taken),
    };
    return cmocka_run_group_tests_name("outbox_publisher_edges", tests, NULL, NULL);
}
