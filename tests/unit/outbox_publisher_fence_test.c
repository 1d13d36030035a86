/* A publisher that does not move is put out; what it does afterwards changes nothing. */
#include <sys/stat.h>
#include <unistd.h>

#include "outbox_publisher_fault_bus.h"
#include "outbox_publisher_fixture.h"

static struct outbox_publisher_health health_of(struct outbox_publisher *publisher)
{
    struct outbox_publisher_health health;

    outbox_publisher_health(publisher, &health);
    return health;
}

static void standby_takes_over_from_one_that_was_fenced(void **state)
{
    struct fixture *f = *state;
    struct outbox_publisher *stopped;

    fixture_insert(f, "a.x", "", "1");
    fixture_start(f);
    fixture_run(f);
    stopped = f->publisher;
    fixture_start(f);
    fixture_run(f);
    assert_int_equal(fixture_health(f).state, OUTBOX_PUBLISHER_STANDBY);
    fixture_insert(f, "a.x", "", "2");
    fixture_pass(f, 50 * WB_MS);
    assert_stream_holds(f, "A", "1"); /* the stopped one does nothing, and nobody else may */

    assert_ok(outbox_publisher_fence(f->path, "A", NULL));
    fixture_pass(f, 50 * WB_MS);
    assert_stream_holds(f, "A", "1 2");
    assert_int_equal(fixture_health(f).state, OUTBOX_PUBLISHER_DRAIN);
    assert_int_equal(fixture_int(f, "SELECT holder FROM outbox_cursor"), 3);

    fixture_insert(f, "a.x", "", "3");
    while (health_of(stopped).state != OUTBOX_PUBLISHER_FENCED)
        assert_true(outbox_publisher_step(stopped));
    assert_non_null(strstr(health_of(stopped).problem, "taken over"));
    while (outbox_publisher_step(stopped))
        continue;
    assert_int_equal(health_of(stopped).state, OUTBOX_PUBLISHER_STANDBY);
    assert_stream_holds(f, "A", "1 2");
    fixture_run(f);
    assert_stream_holds(f, "A", "1 2 3");
    outbox_publisher_stop(stopped);
}

/* It was stopped in the midst of a batch: without a look at the clock it would send the rest. */
static void publisher_that_was_away_looks_before_it_sends_on(void **state)
{
    struct fixture *f = *state;

    f->options.window = 1;
    for (int i = 0; i < 3; i++)
        fixture_insert(f, "a.x", "", "p");
    fixture_start(f);
    fixture_step_to_first_ack(f);
    assert_stream_holds(f, "A", "p");
    assert_ok(outbox_publisher_fence(f->path, "A", NULL));
    event_bus_memory_advance(f->bus, 20 * WB_MS);
    for (int i = 0; i < 10 && fixture_health(f).state == OUTBOX_PUBLISHER_DRAIN; i++)
        (void)outbox_publisher_step(f->publisher);
    assert_int_equal(fixture_health(f).state, OUTBOX_PUBLISHER_FENCED);
    assert_stream_holds(f, "A", "p");
    assert_int_equal(fixture_int(f, "SELECT last_id FROM outbox_cursor"), 1);
}

static void publisher_that_was_away_and_is_still_the_holder_goes_on(void **state)
{
    struct fixture *f = *state;

    f->options.window = 1;
    for (int i = 0; i < 3; i++)
        fixture_insert(f, "a.x", "", "p");
    fixture_start(f);
    fixture_step_to_first_ack(f);
    event_bus_memory_advance(f->bus, 3600 * WB_SEC);
    fixture_run(f);
    assert_stream_holds(f, "A", "p p p");
    assert_int_equal(fixture_health(f).settles, 0);
}

/*
 * A burst of the one put out arrives while its successor is on its way through the very sequences
 * it expects: one of the burst finds its own, and must be refused all the same.
 */
static void burst_of_a_fenced_publisher_finds_no_place(void **state)
{
    struct fixture *f = *state;
    struct fault_bus *wire = fault_bus_create(f->bus, 1);
    struct outbox_publisher *fenced;

    f->options.bus = &wire->base;
    f->options.observe = NULL;
    for (int i = 1; i <= 6; i++)
        fixture_insert(f, "a.x", "", (const char[]){(char)('0' + i), '\0'});
    fixture_start(f);
    while (wire->first == NULL)
        assert_true(outbox_publisher_step(f->publisher));
    assert_true(fault_bus_pump(wire)); /* row 1 */
    (void)outbox_publisher_step(f->publisher);
    assert_stream_holds(f, "A", "1");
    assert_non_null(wire->first->next); /* rows 2 to 6 are in its buffer */
    fenced = f->publisher;

    assert_ok(outbox_publisher_fence(f->path, "A", NULL));
    f->options.bus = f->bus;
    f->options.window = 1;
    fixture_start(f);
    for (int i = 0; fixture_health(f).published < 2; i++)
        assert_true(i < 100 && (outbox_publisher_step(f->publisher) || i < 100));
    assert_stream_holds(f, "A", "1 2 3");
    while (fault_bus_pump(wire))
        continue;
    assert_stream_holds(f, "A", "1 2 3");
    fixture_run(f);
    assert_stream_holds(f, "A", "1 2 3 4 5 6");
    assert_int_equal(fixture_health(f).settles, 1); /* row 1, when it took over */
    assert_exceptions(f, "");
    outbox_publisher_abandon(fenced);
    event_bus_destroy(&wire->base);
}

static void fence_refuses_what_was_never_published_to(void **state)
{
    struct fixture *f = *state;
    struct wb_why why;

    assert_err(outbox_publisher_fence(f->path, "A", &why), WB_NOT_FOUND);
    assert_non_null(strstr(why.text, "outbox status"));
    assert_err(outbox_publisher_fence("/nonexistent/m.db", "A", &why), WB_NOT_FOUND);
    fixture_start(f);
    fixture_run(f);
    assert_err(outbox_publisher_fence(f->path, "Z", &why), WB_NOT_FOUND);
    assert_int_equal(fixture_int(f, "SELECT holder FROM outbox_cursor"), 1);
}

/* Nobody stands by: the next one that starts finds a new file and a cursor it may take. */
static void fence_works_without_a_role_file(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    char role[330];

    fixture_start(f);
    fixture_run(f);
    (void)snprintf(role, sizeof(role), "%s-A-publisher", f->path);
    assert_int_equal(stat(role, &st), 0);
    assert_ok(outbox_publisher_fence(f->path, "A", NULL));
    assert_int_equal(stat(role, &st), -1);
    assert_ok(outbox_publisher_fence(f->path, "A", NULL));
    assert_int_equal(fixture_int(f, "SELECT holder FROM outbox_cursor"), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        T(standby_takes_over_from_one_that_was_fenced),
        T(publisher_that_was_away_looks_before_it_sends_on),
        T(publisher_that_was_away_and_is_still_the_holder_goes_on),
        T(burst_of_a_fenced_publisher_finds_no_place),
        T(fence_refuses_what_was_never_published_to),
        T(fence_works_without_a_role_file),
    };
    return cmocka_run_group_tests_name("outbox_publisher_fence", tests, NULL, NULL);
}
