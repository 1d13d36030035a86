/* The consumer on its own thread: it wakes, it stops at once, it finishes what it has begun. */
#include "event_consumer_fixture.h"

#include <pthread.h>
#include <unistd.h>

static int setup(void **state)
{
    (void)state;
    fixture_setup(false);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_teardown();
    return 0;
}

static bool handled_all(void *count)
{
    return fixture_health().handled == *(const uint64_t *)count;
}

static bool handles(uint64_t count)
{
    return test_wait(handled_all, &count, 20000);
}

static void consumer_thread_handles_what_was_there_and_what_comes(void **state)
{
    (void)state;
    for (int n = 1; n <= 20; n++)
        fixture_publish(n);
    fixture_start();
    assert_true(handles(20));
    for (int n = 21; n <= 40; n++)
        fixture_publish(n);
    assert_true(handles(40));
    fixture_stop();
    assert_int_equal(fixture_query("SELECT count(*) FROM effect WHERE event = n"), 40);
    assert_int_equal(atomic_load(&fixture.closed), 1);
}

static bool problem_is_told(void *part)
{
    return strstr(fixture_health().problem, part) != NULL;
}

static void consumer_thread_retries_by_itself_and_goes_on(void **state)
{
    (void)state;
    fixture.fails = 2;
    fixture.options.backoff_min_ns = WB_MS;
    fixture.options.backoff_max_ns = 5 * WB_MS;
    fixture_publish(1);
    fixture_publish(2);
    fixture_start();
    assert_true(handles(2));
    assert_string_equal(fixture_effects(), "1 2");
    assert_int_equal(fixture_health().failed, 2);
}

static void consumer_thread_stops_at_once_within_a_backoff(void **state)
{
    char reason[] = "a long wait follows";

    (void)state;
    fixture.fails = 1;
    fixture.reason = reason;
    fixture.options.backoff_min_ns = 3600 * WB_SEC;
    fixture.options.backoff_max_ns = 3600 * WB_SEC;
    fixture_publish(1);
    fixture_start();
    assert_true(test_wait(problem_is_told, reason, 20000));
    int64_t start = wb_mono_ns(wb_clock_system());
    fixture_stop();
    assert_true(wb_mono_ns(wb_clock_system()) - start < WB_SEC);
    assert_string_equal(fixture_effects(), "");
}

static void consumer_thread_stops_at_once_while_idle(void **state)
{
    (void)state;
    fixture_publish(1);
    fixture_start();
    assert_true(handles(1));
    int64_t start = wb_mono_ns(wb_clock_system());
    fixture_stop();
    assert_true(wb_mono_ns(wb_clock_system()) - start < WB_SEC / 2);
}

static int entered[2], may_go_on[2];

static wb_err wait_inside(void *ctx, const struct event_consumer_event *event, struct wb_why *why)
{
    char byte;

    if (write(entered[1], "x", 1) != 1 || read(may_go_on[0], &byte, 1) != 1)
        return WB_IO;
    return fixture_handle(ctx, event, why);
}

static void *stop_it(void *ctx)
{
    event_consumer_stop(ctx);
    return NULL;
}

static void consumer_thread_finishes_the_event_at_hand_before_it_ends(void **state)
{
    pthread_t stopper;
    char byte;

    (void)state;
    assert_int_equal(pipe(entered), 0);
    assert_int_equal(pipe(may_go_on), 0);
    fixture.options.handler = wait_inside;
    fixture_publish(1);
    fixture_publish(2);
    fixture_start();
    assert_int_equal(read(entered[0], &byte, 1), 1);
    assert_int_equal(pthread_create(&stopper, NULL, stop_it, fixture.consumer), 0);
    /* The handler has not returned, so stop cannot have. */
    assert_int_not_equal(pthread_tryjoin_np(stopper, NULL), 0);
    assert_int_equal(write(may_go_on[1], "xx", 2), 2);
    assert_int_equal(pthread_join(stopper, NULL), 0);
    fixture.consumer = NULL;
    for (int i = 0; i < 2; i++) {
        close(entered[i]);
        close(may_go_on[i]);
    }
    /* Stop may have come before or after the second began, but never in its middle. */
    const char *effects = fixture_effects();
    assert_true(strcmp(effects, "1") == 0 || strcmp(effects, "1 2") == 0);
    assert_int_equal(fixture_query("SELECT sequence FROM inbox_position"),
                     strcmp(effects, "1") == 0 ? 1 : 2);
}

static void consumer_thread_says_so_when_the_bus_is_closed_and_stops_cleanly(void **state)
{
    char closed[] = "closed";

    (void)state;
    fixture_start();
    event_bus_close(fixture.bus);
    assert_true(test_wait(problem_is_told, closed, 20000));
    fixture_stop();
}

static void consumer_threads_of_two_names_handle_the_same_events_side_by_side(void **state)
{
    struct event_consumer *second = NULL;
    struct event_consumer_options options = fixture.options;

    (void)state;
    fixture_start();
    options.name = "notify";
    assert_ok(event_consumer_start(&options, &second, NULL));
    for (int n = 1; n <= 50; n++)
        fixture_publish(n);
    assert_true(handles(50));
    struct event_consumer *first = fixture.consumer;
    fixture.consumer = second;
    assert_true(handles(50));
    fixture.consumer = first;
    event_consumer_stop(second);
    fixture_stop();
    assert_int_equal(fixture_query("SELECT count(*) FROM (SELECT event FROM effect GROUP BY event"
                                   " HAVING count(*) = 2)"),
                     50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(consumer_thread_handles_what_was_there_and_what_comes),
        T(consumer_thread_retries_by_itself_and_goes_on),
        T(consumer_thread_stops_at_once_within_a_backoff),
        T(consumer_thread_stops_at_once_while_idle),
        T(consumer_thread_finishes_the_event_at_hand_before_it_ends),
        T(consumer_thread_says_so_when_the_bus_is_closed_and_stops_cleanly),
        T(consumer_threads_of_two_names_handle_the_same_events_side_by_side),
#undef T
    };
    return cmocka_run_group_tests_name("event_consumer_thread", tests, NULL, NULL);
}
