/* The broker loses what was read already: nothing new is skipped, nothing old is doubled. */
#include "event_consumer_fixture.h"

static int setup(void **state)
{
    (void)state;
    fixture_setup(true);
    fixture.options.group = 64;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_teardown();
    return 0;
}

static void publish_from_to(int from, int to)
{
    for (int n = from; n <= to; n++)
        fixture_publish(n);
}

static void assert_each_once(int last)
{
    assert_int_equal(fixture_query("SELECT count(*) FROM effect"), last);
    assert_int_equal(fixture_query("SELECT count(DISTINCT event) FROM effect"), last);
}

static void
consumer_reads_again_a_stream_that_grew_past_its_position_while_it_was_away(void **state)
{
    (void)state;
    publish_from_to(1, 10);
    fixture_start();
    fixture_run();
    fixture_stop();
    event_bus_memory_restart(fixture.bus, "AUTH", 4);
    event_bus_memory_advance(fixture.bus, WB_SEC);
    publish_from_to(11, 16); /* new ones stand where 5 to 10 stood */
    publish_from_to(5, 10);  /* and those come again behind them */
    fixture_start();
    fixture_run();
    assert_each_once(16);
    assert_int_equal(fixture_health().went_back, 1);
}

static void consumer_notices_the_same_event_stored_anew_at_its_position(void **state)
{
    (void)state;
    publish_from_to(1, 10);
    fixture_start();
    fixture_run();
    fixture_stop();
    event_bus_memory_restart(fixture.bus, "AUTH", 4);
    event_bus_memory_advance(fixture.bus, WB_SEC);
    publish_from_to(11, 15);
    publish_from_to(10, 10); /* at sequence 10 again, but behind others */
    fixture_start();
    fixture_run();
    assert_each_once(15);
}

static void consumer_with_an_intact_stream_reads_nothing_again(void **state)
{
    (void)state;
    publish_from_to(1, 10);
    fixture_start();
    fixture_run();
    fixture_stop();
    event_bus_memory_restart(fixture.bus, NULL, UINT64_MAX);
    fixture_start();
    publish_from_to(11, 12);
    fixture_run();
    assert_each_once(12);
    assert_int_equal(fixture_health().duplicates, 0);
    assert_int_equal(fixture_health().went_back, 0);
}

static void consumer_is_asked_again_when_the_stream_loses_its_end_under_it(void **state)
{
    (void)state;
    publish_from_to(1, 10);
    fixture_start();
    fixture_run();
    event_bus_memory_restart(fixture.bus, "AUTH", 4);
    assert_int_equal(fixture_health().went_back, 1);
    event_bus_memory_advance(fixture.bus, WB_SEC);
    publish_from_to(11, 20);
    publish_from_to(5, 10);
    fixture_run();
    assert_each_once(20);
}

/* What was fetched before the loss is handled after it, and sets the position beyond what is. */
static void consumer_with_lost_events_in_its_queue_skips_nothing_even_if_it_dies_then(void **state)
{
    (void)state;
    for (int steps = 0; steps < 4; steps++) {
        fixture.options.group = 3;
        publish_from_to(1, 10);
        fixture_start();
        event_bus_memory_run_until_idle(fixture.bus);
        assert_true(event_consumer_step(fixture.consumer)); /* 1 to 3; 4 to 10 wait */
        event_bus_memory_restart(fixture.bus, "AUTH", 2);
        event_bus_memory_advance(fixture.bus, WB_SEC);
        publish_from_to(11, 22);
        for (int i = 0; i < steps; i++)
            assert_true(event_consumer_step(fixture.consumer));
        fixture_stop();
        publish_from_to(3, 10);
        fixture_start();
        fixture_run();
        assert_each_once(22);
        fixture_teardown();
        setup(NULL);
    }
}

static void consumer_goes_back_to_the_newest_place_that_still_agrees(void **state)
{
    (void)state;
    publish_from_to(1, 5000);
    fixture_start();
    fixture_run();
    fixture_stop();
    event_bus_memory_restart(fixture.bus, "AUTH", 4000);
    event_bus_memory_advance(fixture.bus, WB_SEC);
    publish_from_to(5001, 7000);
    publish_from_to(4001, 5000);
    fixture_start();
    fixture_run();
    assert_each_once(7000);
    /* Not from the start: the densest places lie 512 apart. */
    assert_true(fixture_health().duplicates >= 1000);
    assert_true(fixture_health().duplicates < 1000 + 1024);
}

/* An old copy of the stream, and then the newer original again. */
static void consumer_follows_a_stream_back_and_forth(void **state)
{
    (void)state;
    publish_from_to(1, 2000);
    fixture_start();
    fixture_run();
    for (unsigned round = 0; round < 5; round++) {
        int last = 2000 + 100 * (int)round;
        event_bus_memory_restart(fixture.bus, "AUTH", 300 * (round + 1ULL));
        event_bus_memory_advance(fixture.bus, WB_SEC);
        publish_from_to(last + 1, last + 100);
        publish_from_to(1, last);
        fixture_run();
        assert_each_once(last + 100);
    }
}

static void consumer_of_a_stream_emptied_in_place_reads_it_from_the_start(void **state)
{
    (void)state;
    publish_from_to(1, 10);
    fixture_start();
    fixture_run();
    fixture_stop();
    event_bus_memory_restart(fixture.bus, "AUTH", 0);
    event_bus_memory_advance(fixture.bus, WB_SEC);
    publish_from_to(11, 30);
    fixture_start();
    fixture_run();
    assert_each_once(30);
}

static void consumer_whose_position_expired_by_limits_reads_on(void **state)
{
    static const char *const patterns[] = {"small.>"};
    const struct event_bus_stream_options small = {.name = "SMALL",
                                                   .subjects = patterns,
                                                   .subject_count = 1,
                                                   .max_messages = 5,
                                                   .discard_old = true};

    (void)state;
    fixture.options.patterns = patterns;
    assert_ok(event_bus_declare_stream(fixture.bus, &small, EVENT_BUS_CREATE, NULL));
    for (int i = 1; i <= 20; i++) {
        char text[8];
        snprintf(text, sizeof(text), "s%d", i);
        const struct message msg = {
            .subject = wb_str("small.x"), .payload = {text, strlen(text)}, .msg_id = wb_str(text)};
        assert_ok(event_bus_publish(fixture.bus, &msg, NULL, NULL, NULL));
        if (i != 3)
            continue;
        fixture_start();
        fixture_run();
        fixture_stop();
    }
    fixture_start();
    fixture_run();
    assert_string_equal(fixture_effects(), "s1 s2 s3 s16 s17 s18 s19 s20");
    assert_int_equal(fixture_health().went_back, 0);
}

static void consumer_that_cannot_ask_the_bus_waits_until_it_is_back(void **state)
{
    (void)state;
    publish_from_to(1, 5);
    fixture_start();
    fixture_run();
    fixture_stop();
    event_bus_memory_set_down(fixture.bus, true);
    fixture_start();
    fixture_run_long();
    event_bus_memory_set_down(fixture.bus, false);
    publish_from_to(6, 7);
    fixture_run_long();
    assert_each_once(7);
    assert_int_equal(fixture_health().duplicates, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(consumer_reads_again_a_stream_that_grew_past_its_position_while_it_was_away),
        T(consumer_notices_the_same_event_stored_anew_at_its_position),
        T(consumer_with_an_intact_stream_reads_nothing_again),
        T(consumer_is_asked_again_when_the_stream_loses_its_end_under_it),
        T(consumer_with_lost_events_in_its_queue_skips_nothing_even_if_it_dies_then),
        T(consumer_goes_back_to_the_newest_place_that_still_agrees),
        T(consumer_follows_a_stream_back_and_forth),
        T(consumer_of_a_stream_emptied_in_place_reads_it_from_the_start),
        T(consumer_whose_position_expired_by_limits_reads_on),
        T(consumer_that_cannot_ask_the_bus_waits_until_it_is_back),
#undef T
    };
    wb_log_setup(2, WB_LOG_LOGFMT, WB_LOG_ERROR);
    return cmocka_run_group_tests_name("event_consumer_loss", tests, NULL, NULL);
}
