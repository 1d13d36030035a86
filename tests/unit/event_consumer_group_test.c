/* Many events in one transaction: what fails is taken back alone, and nothing is doubled by it. */
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

static void consumer_handles_what_waits_in_one_transaction(void **state)
{
    (void)state;
    publish_from_to(1, 150);
    fixture_start();
    assert_int_equal(fixture_run(), 3);
    assert_int_equal(fixture_health().handled, 150);
    assert_int_equal(atomic_load(&fixture.committed), 3);
    assert_int_equal(fixture_query("SELECT count(DISTINCT event) FROM effect"), 150);
    assert_int_equal(fixture_query("SELECT sequence FROM inbox_position"), 150);
}

static void consumer_knows_a_group_after_a_restart(void **state)
{
    (void)state;
    publish_from_to(1, 10);
    fixture_start();
    fixture_run();
    fixture_stop();
    assert_int_equal(fixture_query("DELETE FROM inbox_position RETURNING 1"), 1);
    fixture_start();
    publish_from_to(11, 12);
    fixture_run();
    assert_string_equal(fixture_effects(), "1 2 3 4 5 6 7 8 9 10 11 12");
    assert_int_equal(fixture_health().duplicates, 10);
}

static void consumer_commits_what_came_before_a_failure_and_holds_back_the_rest(void **state)
{
    (void)state;
    fixture.only = "4";
    fixture.fails = 2;
    fixture.reason = "no luck";
    publish_from_to(1, 7);
    fixture_start();
    fixture_run();
    assert_string_equal(fixture_effects(), "1 2 3");
    assert_int_equal(fixture_query("SELECT sequence FROM inbox_position"), 3);
    assert_int_equal(fixture_query("SELECT failures FROM inbox_failure"), 1);
    assert_string_equal(fixture_health().problem, "no luck");
    fixture_run_long();
    assert_string_equal(fixture_effects(), "1 2 3 4 5 6 7");
    assert_int_equal(fixture_health().handled, 7);
    assert_int_equal(fixture_health().failed, 2);
    assert_int_equal(fixture_query("SELECT count(*) FROM inbox_failure"), 0);
}

static void consumer_parks_one_of_a_group_and_the_others_flow(void **state)
{
    (void)state;
    fixture.only = "4";
    fixture.fails = 100;
    publish_from_to(1, 7);
    fixture_start();
    fixture_run_long();
    assert_string_equal(fixture_effects(), "1 2 3 5 6 7");
    assert_int_equal(fixture_health().parked, 1);
    assert_int_equal(atomic_load(&fixture.fails), 97);
    assert_int_equal(fixture_query("SELECT count(*) FROM dead_letter WHERE row_id = 4"), 1);
}

static void consumer_takes_back_a_foreign_event_that_fails_in_a_group(void **state)
{
    (void)state;
    fixture.only = "f3";
    fixture.fails = 1;
    for (int i = 1; i <= 5; i++) {
        char text[8];
        snprintf(text, sizeof(text), "f%d", i);
        const struct message msg = {.subject = wb_str("auth.user.created"),
                                    .payload = {text, strlen(text)},
                                    .msg_id = wb_str(text)};
        assert_ok(event_bus_publish(fixture.bus, &msg, NULL, NULL, NULL));
    }
    fixture_start();
    fixture_run();
    assert_string_equal(fixture_effects(), "f1 f2");
    assert_int_equal(fixture_query("SELECT count(*) FROM inbox_foreign"), 2);
    fixture_run_long();
    assert_string_equal(fixture_effects(), "f1 f2 f3 f4 f5");
    assert_int_equal(fixture_query("SELECT count(*) FROM inbox_foreign"), 5);
}

static void consumer_takes_back_an_event_that_fills_or_begins_a_page(void **state)
{
    static const char *const rows[] = {"2048", "2049"};

    (void)state;
    publish_from_to(1, 2100);
    for (size_t i = 0; i < 2; i++) {
        fixture.only = rows[i];
        fixture.fails = 1;
        fixture_start();
        fixture_run_long();
        assert_int_equal(atomic_load(&fixture.fails), 0);
        assert_int_equal(fixture_query("SELECT count(*) FROM effect"), 2100);
        assert_int_equal(fixture_query("SELECT count(DISTINCT event) FROM effect"), 2100);
        assert_int_equal(fixture_query("SELECT count(*) FROM inbox_page WHERE full = 1"), 1);
        fixture_stop();
        fixture_query("DELETE FROM inbox_page RETURNING 1");
        fixture_query("DELETE FROM inbox_position RETURNING 1");
        fixture_query("DELETE FROM effect RETURNING 1");
    }
}

static void consumer_goes_one_by_one_when_the_commit_of_a_group_fails(void **state)
{
    (void)state;
    fixture_start();
    fixture_stop();
    fixture_query("SELECT 1");
    fixture.only = "3";
    fixture.sql = "CREATE TABLE IF NOT EXISTS parent(id INTEGER PRIMARY KEY);"
                  "CREATE TABLE IF NOT EXISTS child(id REFERENCES parent DEFERRABLE INITIALLY "
                  "DEFERRED); INSERT INTO child VALUES(7)";
    publish_from_to(1, 6);
    fixture_start();
    fixture_run_long();
    assert_string_equal(fixture_effects(), "1 2 4 5 6");
    assert_int_equal(fixture_health().parked, 1);
    assert_int_equal(fixture_query("SELECT count(*) FROM dead_letter WHERE row_id = 3 AND"
                                   " reason LIKE '%FOREIGN KEY%' AND failures = 3"),
                     1);
}

static void consumer_is_not_doubled_by_a_handler_that_ends_the_transaction(void **state)
{
    static const char *const bad[] = {"COMMIT", "ROLLBACK", "COMMIT; BEGIN", "ROLLBACK; BEGIN",
                                      "RELEASE inbox_event"};

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        fixture.only = "3";
        fixture.sql = bad[i];
        publish_from_to(1, 5);
        fixture_start();
        fixture_run_long();
        assert_string_equal(fixture_effects(), "1 2 4 5");
        assert_int_equal(fixture_health().parked, 1);
        assert_int_equal(fixture_query("SELECT row_id FROM dead_letter"), 3);
        fixture_teardown();
        setup(NULL);
    }
}

static void consumer_keeps_the_position_of_each_stream_of_a_group(void **state)
{
    static const char *const patterns[] = {"auth.>", "other.>"};
    static const char *const subjects[] = {"other.>"};

    (void)state;
    fixture.options.patterns = patterns;
    fixture.options.pattern_count = 2;
    fixture_declare("OTHER", subjects);
    for (int i = 1; i <= 6; i++) {
        fixture_publish(i);
        char text[8];
        snprintf(text, sizeof(text), "o%d", i);
        const struct message msg = {
            .subject = wb_str("other.x"), .payload = {text, strlen(text)}, .msg_id = wb_str(text)};
        if (i % 2 == 0)
            assert_ok(event_bus_publish(fixture.bus, &msg, NULL, NULL, NULL));
    }
    fixture_start();
    fixture_run();
    assert_int_equal(atomic_load(&fixture.committed), 1);
    assert_int_equal(fixture_query("SELECT sequence FROM inbox_position WHERE stream = 'AUTH'"), 6);
    assert_int_equal(fixture_query("SELECT sequence FROM inbox_position WHERE stream = 'OTHER'"),
                     3);
}

static void consumer_goes_on_in_smaller_groups_after_trouble_and_grows_again(void **state)
{
    (void)state;
    /* The statement rolls everything back by itself, as SQLite does when a disk is full. */
    fixture.only = "5";
    fixture.sql = "ROLLBACK";
    fixture.fails = 0;
    publish_from_to(1, 5);
    fixture_start();
    fixture_run_long();
    assert_string_equal(fixture_effects(), "1 2 3 4");
    fixture.sql = NULL;
    int before = atomic_load(&fixture.committed);
    publish_from_to(6, 137);
    fixture_run();
    /* 64 are fetched at a time: 2 + 4 + 8 + 16 + 32 + 2, then 64, then 4. */
    assert_int_equal(atomic_load(&fixture.committed) - before, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(consumer_handles_what_waits_in_one_transaction),
        T(consumer_knows_a_group_after_a_restart),
        T(consumer_commits_what_came_before_a_failure_and_holds_back_the_rest),
        T(consumer_parks_one_of_a_group_and_the_others_flow),
        T(consumer_takes_back_a_foreign_event_that_fails_in_a_group),
        T(consumer_takes_back_an_event_that_fills_or_begins_a_page),
        T(consumer_goes_one_by_one_when_the_commit_of_a_group_fails),
        T(consumer_is_not_doubled_by_a_handler_that_ends_the_transaction),
        T(consumer_keeps_the_position_of_each_stream_of_a_group),
        T(consumer_goes_on_in_smaller_groups_after_trouble_and_grows_again),
#undef T
    };
    wb_log_setup(2, WB_LOG_LOGFMT, WB_LOG_ERROR);
    return cmocka_run_group_tests_name("event_consumer_group", tests, NULL, NULL);
}
