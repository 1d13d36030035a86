/* The consumer step by step: once, in order, over failures, restarts and streams made anew. */
#include "event_consumer_fixture.h"

static int setup(void **state)
{
    (void)state;
    fixture_setup(true);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_teardown();
    return 0;
}

static void publish_from_to(int first, int last)
{
    for (int n = first; n <= last; n++)
        fixture_publish(n);
}

/* ---- once and in order ----------------------------------------------------------------------- */

static void consumer_handles_each_event_once_in_order(void **state)
{
    (void)state;
    publish_from_to(1, 5);
    fixture_start();
    assert_int_equal(fixture_run(), 5);
    publish_from_to(6, 8);
    assert_int_equal(fixture_run(), 3);
    assert_false(event_consumer_step(fixture.consumer));
    assert_string_equal(fixture_effects(), "1 2 3 4 5 6 7 8");
    assert_int_equal(fixture_health().handled, 8);
    assert_int_equal(atomic_load(&fixture.committed), 8);
    assert_string_equal(fixture_health().problem, "");
}

static void consumer_started_again_goes_on_where_it_was(void **state)
{
    (void)state;
    publish_from_to(1, 5);
    fixture_start();
    for (int i = 0; i < 3; i++) {
        event_bus_memory_run_until_idle(fixture.bus);
        assert_true(event_consumer_step(fixture.consumer));
    }
    fixture_stop();
    fixture_start();
    assert_int_equal(fixture_run(), 2);
    assert_string_equal(fixture_effects(), "1 2 3 4 5");
    assert_int_equal(fixture_health().duplicates, 0);
    assert_int_equal(atomic_load(&fixture.opened), 2);
    assert_int_equal(atomic_load(&fixture.closed), 1);
}

static void consumer_of_another_name_handles_all_of_them_too(void **state)
{
    (void)state;
    publish_from_to(1, 2);
    fixture_start();
    fixture_run();
    fixture_stop();
    fixture.options.name = "notify";
    fixture_start();
    fixture_run();
    assert_string_equal(fixture_effects(), "1 2 1 2");
}

static void consumer_picks_up_a_stream_that_appears_later(void **state)
{
    static const char *const all[] = {">"};
    static const char *const ar[] = {"ar.>"};
    const struct message msg = {.subject = wb_str("ar.x"), .payload = {"ar", 2}};

    (void)state;
    fixture.options.patterns = all;
    fixture_start();
    assert_int_equal(fixture_run(), 0);
    fixture_declare("AR", ar);
    assert_ok(event_bus_publish(fixture.bus, &msg, NULL, NULL, NULL));
    fixture_publish(1);
    assert_int_equal(fixture_run(), 2);
    assert_int_equal(fixture_query("SELECT count(*) FROM inbox_position"), 2);
}

static void consumer_knows_what_comes_again_in_a_stream_made_anew(void **state)
{
    (void)state;
    publish_from_to(1, 3);
    fixture_start();
    fixture_run();
    event_bus_memory_advance(fixture.bus, WB_SEC);
    assert_ok(event_bus_delete_stream(fixture.bus, "AUTH", NULL));
    fixture_declare("AUTH", fixture_subjects);
    publish_from_to(2, 5); /* the publisher sends again what the stream lost, and more */
    fixture_run();
    assert_string_equal(fixture_effects(), "1 2 3 4 5");
    assert_int_equal(fixture_health().duplicates, 2);
    fixture_stop();
    fixture_start();
    publish_from_to(6, 6);
    assert_int_equal(fixture_run(), 1);
    assert_string_equal(fixture_effects(), "1 2 3 4 5 6");
}

static void consumer_behind_in_a_stream_made_anew_skips_nothing(void **state)
{
    (void)state;
    publish_from_to(1, 3);
    fixture_start();
    event_bus_memory_run_until_idle(fixture.bus); /* they wait in the subscription's queue */
    event_bus_memory_advance(fixture.bus, WB_SEC);
    assert_ok(event_bus_delete_stream(fixture.bus, "AUTH", NULL));
    fixture_declare("AUTH", fixture_subjects);
    publish_from_to(4, 9);
    event_bus_memory_run_until_idle(fixture.bus);
    /* Of the old stream, with the new one known; then the process ends. */
    assert_true(event_consumer_step(fixture.consumer));
    fixture_stop();
    fixture_start();
    fixture_run();
    assert_string_equal(fixture_effects() + strlen(fixture_effects()) - 11, "4 5 6 7 8 9");
}

static void consumer_reads_on_after_the_stream_lost_its_end(void **state)
{
    (void)state;
    publish_from_to(1, 6);
    fixture_start();
    fixture_run();
    fixture_stop();
    event_bus_memory_restart(fixture.bus, "AUTH", 3);
    fixture_start();
    fixture_run();
    publish_from_to(4, 7); /* the repair sends 4 to 6 again */
    fixture_run();
    assert_string_equal(fixture_effects(), "1 2 3 4 5 6 7");
}

/* ---- failures -------------------------------------------------------------------------------- */

static void consumer_retries_a_failing_event_before_younger_ones(void **state)
{
    (void)state;
    fixture.fails = 2;
    fixture.reason = "no luck";
    publish_from_to(1, 3);
    fixture_start();
    assert_int_equal(fixture_run(), 1);
    assert_string_equal(fixture_health().problem, "no luck");
    assert_string_equal(fixture_effects(), "");
    fixture_run_long();
    assert_string_equal(fixture_effects(), "1 2 3");
    assert_int_equal(fixture_health().failed, 2);
    assert_int_equal(fixture_health().parked, 0);
    assert_string_equal(fixture_health().problem, "");
    assert_int_equal(fixture_query("SELECT count(*) FROM inbox_failure"), 0);
}

static void consumer_waits_between_two_tries_no_longer_than_the_backoff(void **state)
{
    (void)state;
    fixture.fails = 1;
    fixture.options.backoff_min_ns = WB_SEC;
    fixture.options.backoff_max_ns = WB_SEC;
    publish_from_to(1, 1);
    fixture_start();
    assert_int_equal(fixture_run(), 1);
    assert_false(event_consumer_step(fixture.consumer));
    event_bus_memory_advance(fixture.bus, WB_SEC);
    assert_true(event_consumer_step(fixture.consumer));
    assert_string_equal(fixture_effects(), "1");
}

static void consumer_begins_with_a_short_wait_again_after_a_success(void **state)
{
    (void)state;
    fixture.fails = 20;
    fixture.options.max_failures = 30;
    fixture.options.backoff_min_ns = WB_MS;
    fixture.options.backoff_max_ns = 3600 * WB_SEC;
    publish_from_to(1, 1);
    fixture_start();
    for (int i = 0; i < 20; i++) {
        fixture_run();
        event_bus_memory_advance(fixture.bus, 3600 * WB_SEC);
    }
    fixture_run();
    assert_string_equal(fixture_effects(), "1");
    fixture.fails = 1;
    publish_from_to(2, 2);
    fixture_run();
    event_bus_memory_advance(fixture.bus, WB_MS);
    fixture_run();
    assert_string_equal(fixture_effects(), "1 2");
}

static void consumer_parks_an_event_after_so_many_failures_and_goes_on(void **state)
{
    (void)state;
    fixture.fails = 3;
    fixture.reason = "never";
    publish_from_to(1, 3);
    fixture_start();
    fixture_run_long();
    assert_string_equal(fixture_effects(), "2 3");
    assert_int_equal(fixture_health().parked, 1);
    assert_int_equal(fixture_health().failed, 3);
    assert_int_equal(fixture_health().handled, 2);
    assert_int_equal(fixture_query("SELECT count(*) FROM dead_letter WHERE reason = 'never'"
                                   " AND failures = 3 AND msg_id = 'id-1' AND payload = x'31'"
                                   " AND consumer = 'ar_accounts' AND sequence = 1"),
                     1);
    /* Given up means given up, also when it comes again. */
    fixture_stop();
    assert_int_equal(fixture_query("DELETE FROM inbox_position RETURNING 1"), 1);
    fixture_start();
    fixture_run_long();
    assert_string_equal(fixture_effects(), "2 3");
    assert_int_equal(fixture_health().duplicates, 3);
    assert_int_equal(fixture_query("SELECT sequence FROM inbox_position"), 3);
}

static void consumer_counts_failures_over_restarts(void **state)
{
    (void)state;
    fixture.fails = 3;
    publish_from_to(1, 2);
    for (int i = 0; i < 3; i++) {
        fixture_start();
        assert_int_equal(fixture_run(), i < 2 ? 1 : 2);
        fixture_stop();
    }
    assert_string_equal(fixture_effects(), "2");
    assert_int_equal(fixture_query("SELECT failures FROM dead_letter"), 3);
}

static void consumer_gives_a_reason_where_the_handler_gave_none(void **state)
{
    (void)state;
    fixture.fails = 3;
    fixture.error = WB_NOT_FOUND;
    publish_from_to(1, 1);
    fixture_start();
    fixture_run_long();
    assert_int_equal(
        fixture_query("SELECT count(*) FROM dead_letter WHERE reason LIKE '%not found%'"), 1);
}

static void consumer_does_not_count_what_the_database_cannot_do_now(void **state)
{
    static const wb_err troubles[] = {WB_BUSY,  WB_DISK_FULL, WB_IO,
                                      WB_NOMEM, WB_READ_ONLY, WB_FULL};

    (void)state;
    publish_from_to(1, 1);
    fixture_start();
    for (size_t i = 0; i < sizeof(troubles) / sizeof(troubles[0]); i++) {
        fixture.error = troubles[i];
        fixture.fails = 2;
        while (atomic_load(&fixture.fails) > 0) {
            fixture_run();
            event_bus_memory_advance(fixture.bus, 10 * WB_SEC);
        }
    }
    fixture_run_long();
    assert_string_equal(fixture_effects(), "1");
    assert_int_equal(fixture_health().failed, 0);
    assert_int_equal(fixture_health().parked, 0);
}

static void consumer_counts_a_payload_the_handler_calls_corrupt(void **state)
{
    (void)state;
    fixture.fails = 3;
    fixture.error = WB_CORRUPT;
    publish_from_to(1, 1);
    fixture_start();
    fixture_run_long();
    assert_int_equal(fixture_health().parked, 1);
}

static void consumer_counts_a_commit_that_breaks_a_constraint(void **state)
{
    (void)state;
    fixture_start();
    fixture_stop();
    fixture_query("SELECT 1");
    fixture.sql = "CREATE TABLE IF NOT EXISTS parent(id INTEGER PRIMARY KEY);"
                  "CREATE TABLE IF NOT EXISTS child(id REFERENCES parent DEFERRABLE INITIALLY "
                  "DEFERRED); INSERT INTO child VALUES(7)";
    publish_from_to(1, 1);
    fixture_start();
    fixture_run_long();
    assert_string_equal(fixture_effects(), "");
    assert_int_equal(fixture_health().parked, 1);
    assert_int_equal(fixture_query("SELECT count(*) FROM dead_letter WHERE reason LIKE "
                                   "'%FOREIGN KEY%'"),
                     1);
}

static void consumer_finds_a_handler_that_ends_its_transaction(void **state)
{
    (void)state;
    fixture.sql = "ROLLBACK";
    publish_from_to(1, 1);
    fixture_start();
    fixture_run_long();
    assert_string_equal(fixture_effects(), "");
    assert_int_equal(fixture_health().parked, 1);
    assert_int_equal(fixture_query("SELECT count(*) FROM dead_letter WHERE reason LIKE "
                                   "'%must not commit or roll back%'"),
                     1);
}

static void consumer_retries_while_there_is_no_room_for_dead_letters(void **state)
{
    (void)state;
    fixture_start();
    fixture_query("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
                  " WHERE i < 100000) INSERT INTO dead_letter(consumer, subject, headers,"
                  " msg_id, stream, sequence, stored_at, reason, failures, parked_at, payload)"
                  " SELECT 'any', 's', '', '', 'S', i, 0, '', 1, 0, x'' FROM n RETURNING 1");
    fixture.fails = 1000;
    publish_from_to(1, 2);
    fixture_run_long();
    assert_true(fixture_health().failed > 3);
    assert_int_equal(fixture_health().parked, 0);
    assert_non_null(strstr(fixture_health().problem, "dead_letter"));
    fixture_query("DELETE FROM dead_letter WHERE id = 1 RETURNING 1");
    event_bus_memory_advance(fixture.bus, 10 * WB_SEC);
    event_bus_memory_run_until_idle(fixture.bus);
    assert_true(event_consumer_step(fixture.consumer));
    assert_int_equal(fixture_health().parked, 1);
}

/* ---- start, health, the end of the bus ------------------------------------------------------- */

static void consumer_start_tells_what_is_wrong(void **state)
{
    static const char *const bad_patterns[] = {"auth.>.x"};
    struct wb_why why = {""};

    (void)state;
    fixture.options.patterns = bad_patterns;
    assert_err(event_consumer_start(&fixture.options, &fixture.consumer, &why), WB_INVALID);
    fixture.options.patterns = fixture_patterns;
    fixture.options.name = "no name";
    assert_err(event_consumer_start(&fixture.options, &fixture.consumer, &why), WB_INVALID);
    assert_non_null(strstr(why.text, "no name"));
    fixture.options.name = "ar_accounts";
    fixture.options.path = "/nowhere/at/all.db";
    assert_err(event_consumer_start(&fixture.options, &fixture.consumer, &why), WB_NOT_FOUND);
    assert_null(fixture.consumer);
    assert_int_equal(atomic_load(&fixture.opened), atomic_load(&fixture.closed));
}

static wb_err refuse(void *ctx, struct db *db, void **ret_scope, struct wb_why *why)
{
    (void)ctx;
    (void)db;
    (void)ret_scope;
    return wb_fail(why, WB_UNSUPPORTED, "not today");
}

static void consumer_start_passes_on_the_refusal_of_open(void **state)
{
    struct wb_why why = {""};

    (void)state;
    fixture.options.open = refuse;
    for (int manual = 0; manual < 2; manual++) {
        fixture.options.manual = manual == 1;
        assert_err(event_consumer_start(&fixture.options, &fixture.consumer, &why), WB_UNSUPPORTED);
        assert_string_equal(why.text, "not today");
        assert_err(event_consumer_start(&fixture.options, &fixture.consumer, NULL), WB_UNSUPPORTED);
    }
    assert_int_equal(atomic_load(&fixture.closed), 0);
}

static void consumer_counts_in_the_metrics(void **state)
{
    (void)state;
    fixture.fails = 3;
    publish_from_to(1, 3);
    fixture_start();
    fixture_run_long();
    static const struct {
        observe_metric metric;
        int64_t value;
    } expected[] = {{OBSERVE_CONSUMER_HANDLED, 2},
                    {OBSERVE_CONSUMER_SKIPPED, 0},
                    {OBSERVE_CONSUMER_FAILED, 3},
                    {OBSERVE_CONSUMER_PARKED, 1}};
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
        assert_int_equal(
            observe_value(observe_series(fixture.observe, expected[i].metric, "ar_accounts")),
            expected[i].value);
}

static void consumer_says_so_when_the_bus_is_closed(void **state)
{
    (void)state;
    fixture_start();
    fixture_run();
    event_bus_close(fixture.bus);
    assert_false(event_consumer_step(fixture.consumer));
    assert_false(event_consumer_step(fixture.consumer));
    assert_non_null(strstr(fixture_health().problem, "closed"));
}

static void consumer_goes_on_after_the_bus_was_down(void **state)
{
    (void)state;
    fixture_start();
    publish_from_to(1, 1);
    event_bus_memory_set_down(fixture.bus, true);
    fixture_run();
    event_bus_memory_set_down(fixture.bus, false);
    fixture_run();
    publish_from_to(2, 2);
    fixture_run();
    assert_string_equal(fixture_effects(), "1 2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(consumer_handles_each_event_once_in_order),
        T(consumer_started_again_goes_on_where_it_was),
        T(consumer_of_another_name_handles_all_of_them_too),
        T(consumer_picks_up_a_stream_that_appears_later),
        T(consumer_knows_what_comes_again_in_a_stream_made_anew),
        T(consumer_behind_in_a_stream_made_anew_skips_nothing),
        T(consumer_reads_on_after_the_stream_lost_its_end),
        T(consumer_retries_a_failing_event_before_younger_ones),
        T(consumer_waits_between_two_tries_no_longer_than_the_backoff),
        T(consumer_begins_with_a_short_wait_again_after_a_success),
        T(consumer_parks_an_event_after_so_many_failures_and_goes_on),
        T(consumer_counts_failures_over_restarts),
        T(consumer_gives_a_reason_where_the_handler_gave_none),
        T(consumer_does_not_count_what_the_database_cannot_do_now),
        T(consumer_counts_a_payload_the_handler_calls_corrupt),
        T(consumer_counts_a_commit_that_breaks_a_constraint),
        T(consumer_finds_a_handler_that_ends_its_transaction),
        T(consumer_retries_while_there_is_no_room_for_dead_letters),
        T(consumer_start_tells_what_is_wrong),
        T(consumer_start_passes_on_the_refusal_of_open),
        T(consumer_counts_in_the_metrics),
        T(consumer_says_so_when_the_bus_is_closed),
        T(consumer_goes_on_after_the_bus_was_down),
#undef T
    };
    return cmocka_run_group_tests_name("event_consumer_step", tests, NULL, NULL);
}
