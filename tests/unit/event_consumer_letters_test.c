/* Dead letters that a person wants handled again, and order behind a dead letter of a key. */
#include "event_consumer_fixture.h"

static int setup(void **state)
{
    (void)state;
    fixture_setup(true);
    fixture.options.group = 64;
    fixture.options.max_failures = 1;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_teardown();
    return 0;
}

/* What an operator's command does, in a process of its own. */
static void command(const char *sql)
{
    struct db *db = NULL;

    assert_ok(db_open(fixture.path, NULL, &db, NULL));
    assert_ok(db_exec(db, sql, NULL));
    db_close(db);
}

/* Event n is a dead letter. */
static void park(int n, const char *key)
{
    char text[16];

    snprintf(text, sizeof(text), "%d", n);
    fixture.only = text;
    fixture.fails = 1;
    fixture.reason = "account 17 is closed";
    fixture_publish_key(n, key);
    fixture_run_long();
    assert_int_equal(atomic_load(&fixture.fails), 0);
    fixture.only = NULL;
}

static int64_t letters(const char *where)
{
    char sql[256];

    snprintf(sql, sizeof(sql), "SELECT count(*) FROM dead_letter WHERE %s", where);
    return fixture_query(sql);
}

static void consumer_handles_a_letter_again_within_a_second_and_removes_it(void **state)
{
    (void)state;
    fixture_start();
    park(1, NULL);
    assert_int_equal(letters("state = 'parked'"), 1);
    fixture_publish(2);
    fixture_run();
    assert_string_equal(fixture_effects(), "2");
    int before = atomic_load(&fixture.committed);
    command("UPDATE dead_letter SET state = 'retry'");
    event_bus_memory_advance(fixture.bus, WB_SEC);
    fixture_run();
    assert_string_equal(fixture_effects(), "2 1");
    assert_int_equal(letters("1"), 0);
    assert_int_equal(atomic_load(&fixture.committed), before + 1);
    assert_int_equal(fixture_health().handled, 2);
}

static void consumer_looks_at_letters_at_its_start(void **state)
{
    (void)state;
    fixture_start();
    park(1, NULL);
    fixture_stop();
    command("UPDATE dead_letter SET state = 'retry'");
    fixture_start();
    fixture_run();
    assert_string_equal(fixture_effects(), "1");
}

static void consumer_parks_a_letter_again_with_the_new_reason(void **state)
{
    (void)state;
    fixture_start();
    park(1, NULL);
    command("UPDATE dead_letter SET state = 'retry', next_at = 5");
    fixture.fails = 1;
    fixture.reason = "still no luck";
    event_bus_memory_advance(fixture.bus, WB_SEC);
    fixture_run();
    assert_string_equal(fixture_effects(), "");
    assert_int_equal(letters("state = 'parked' AND next_at IS NULL AND failures = 2"
                             " AND reason = 'still no luck'"),
                     1);
    assert_int_equal(fixture_health().failed, 2);
    command("UPDATE dead_letter SET state = 'retry'");
    event_bus_memory_advance(fixture.bus, WB_SEC);
    fixture_run();
    assert_string_equal(fixture_effects(), "1");
}

static void consumer_waits_for_the_time_of_a_letter(void **state)
{
    (void)state;
    fixture_start();
    park(1, NULL);
    char sql[160];
    int64_t due = wb_wall_ns(fixture.options.clock) / WB_MS + 5000;
    snprintf(sql, sizeof(sql), "UPDATE dead_letter SET state = 'retry', next_at = %" PRId64, due);
    command(sql);
    for (int i = 0; i < 4; i++) {
        event_bus_memory_advance(fixture.bus, WB_SEC);
        fixture_run();
        assert_string_equal(fixture_effects(), "");
    }
    event_bus_memory_advance(fixture.bus, 2 * WB_SEC);
    fixture_run();
    assert_string_equal(fixture_effects(), "1");
}

static void consumer_handles_letters_in_the_order_of_their_numbers(void **state)
{
    (void)state;
    fixture_start();
    for (int n = 1; n <= 5; n++)
        park(n, n % 2 == 0 ? "even" : "odd");
    command("UPDATE dead_letter SET state = 'retry' WHERE id <> 2");
    event_bus_memory_advance(fixture.bus, WB_SEC);
    fixture_run();
    assert_string_equal(fixture_effects(), "1 3 4 5");
}

static void consumer_with_trouble_tries_a_letter_again_until_it_passes(void **state)
{
    (void)state;
    fixture_start();
    park(1, NULL);
    command("UPDATE dead_letter SET state = 'retry'");
    fixture.fails = 3;
    fixture.error = WB_BUSY;
    fixture_run_long();
    assert_string_equal(fixture_effects(), "1");
    assert_int_equal(letters("1"), 0);
    assert_int_equal(fixture_health().failed, 1);
}

static void consumer_is_not_stopped_by_letters_nor_they_by_it(void **state)
{
    (void)state;
    fixture.options.group = 1;
    fixture_start();
    for (int n = 1; n <= 4; n++)
        park(n, NULL);
    command("UPDATE dead_letter SET state = 'retry'");
    for (int n = 5; n <= 8; n++)
        fixture_publish(n);
    event_bus_memory_advance(fixture.bus, WB_SEC);
    fixture_run();
    assert_string_equal(fixture_effects(), "1 5 2 6 3 7 4 8");
}

static void consumer_of_a_letter_that_ends_its_transaction_parks_it_again(void **state)
{
    (void)state;
    fixture_start();
    park(1, NULL);
    fixture.sql = "COMMIT";
    command("UPDATE dead_letter SET state = 'retry'");
    fixture_run_long();
    fixture.sql = NULL;
    assert_string_equal(fixture_effects(), "");
    assert_int_equal(letters("state = 'parked' AND failures = 2"), 1);
}

static void consumer_parks_a_letter_whose_headers_were_damaged(void **state)
{
    (void)state;
    fixture_start();
    park(1, NULL);
    park(2, NULL);
    command("UPDATE dead_letter SET state = 'retry', headers = CASE id WHEN 1 THEN 'no colon' ELSE"
            " headers END");
    fixture_run_long();
    assert_string_equal(fixture_effects(), "2");
    assert_int_equal(letters("id = 1 AND state = 'parked' AND failures = 2"), 1);
}

/* ---- policy block key ------------------------------------------------------------------------ */

static void consumer_that_blocks_keys_sets_younger_events_of_a_dead_letter_aside(void **state)
{
    (void)state;
    fixture.options.policy = EVENT_CONSUMER_BLOCK_KEY;
    fixture_start();
    park(1, "a");
    fixture_publish_key(2, "b");
    fixture_publish_key(3, "a");
    fixture_publish_key(4, NULL);
    fixture_publish_key(5, "a");
    fixture_run();
    assert_string_equal(fixture_effects(), "2 4");
    assert_int_equal(letters("state = 'parked' AND key = 'a'"), 3);
    assert_int_equal(letters("failures = 0 AND reason = 'behind dead letter 1 of its key'"), 2);
    assert_int_equal(fixture_health().parked, 3);
    /* They count as handled. */
    fixture_stop();
    fixture_query("DELETE FROM inbox_position RETURNING 1");
    fixture_start();
    fixture_run();
    assert_int_equal(letters("1"), 3);
}

static void consumer_that_blocks_keys_handles_them_again_in_order(void **state)
{
    (void)state;
    fixture.options.policy = EVENT_CONSUMER_BLOCK_KEY;
    fixture_start();
    park(1, "a");
    for (int n = 2; n <= 4; n++)
        fixture_publish_key(n, "a");
    fixture_run();
    /* Those behind the first alone stay where they are. */
    command("UPDATE dead_letter SET state = 'retry' WHERE row_id > 2");
    fixture_run_long();
    assert_string_equal(fixture_effects(), "");
    /* The whole key: it stops at the first that fails. */
    fixture.only = "2";
    fixture.fails = 1;
    command("UPDATE dead_letter SET state = 'retry'");
    fixture_run_long();
    assert_string_equal(fixture_effects(), "1");
    fixture_publish_key(5, "a");
    fixture_run_long();
    command("UPDATE dead_letter SET state = 'retry'");
    fixture_run_long();
    assert_string_equal(fixture_effects(), "1 2 3 4 5");
    fixture_publish_key(6, "a");
    fixture_run();
    assert_string_equal(fixture_effects(), "1 2 3 4 5 6");
}

static void consumer_that_parks_lets_younger_events_of_a_dead_letter_go_on(void **state)
{
    (void)state;
    fixture_start();
    park(1, "a");
    fixture_publish_key(2, "a");
    fixture_run();
    assert_string_equal(fixture_effects(), "2");
}

static void consumer_that_blocks_keys_does_so_for_events_of_the_same_group(void **state)
{
    (void)state;
    fixture.options.policy = EVENT_CONSUMER_BLOCK_KEY;
    fixture.only = "2";
    fixture.fails = 1;
    for (int n = 1; n <= 6; n++)
        fixture_publish_key(n, n % 2 == 0 ? "even" : "odd");
    fixture_start();
    fixture_run_long();
    assert_string_equal(fixture_effects(), "1 3 5");
    assert_int_equal(letters("key = 'even'"), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(consumer_handles_a_letter_again_within_a_second_and_removes_it),
        T(consumer_looks_at_letters_at_its_start),
        T(consumer_parks_a_letter_again_with_the_new_reason),
        T(consumer_waits_for_the_time_of_a_letter),
        T(consumer_handles_letters_in_the_order_of_their_numbers),
        T(consumer_with_trouble_tries_a_letter_again_until_it_passes),
        T(consumer_is_not_stopped_by_letters_nor_they_by_it),
        T(consumer_of_a_letter_that_ends_its_transaction_parks_it_again),
        T(consumer_parks_a_letter_whose_headers_were_damaged),
        T(consumer_that_blocks_keys_sets_younger_events_of_a_dead_letter_aside),
        T(consumer_that_blocks_keys_handles_them_again_in_order),
        T(consumer_that_parks_lets_younger_events_of_a_dead_letter_go_on),
        T(consumer_that_blocks_keys_does_so_for_events_of_the_same_group),
#undef T
    };
    wb_log_setup(2, WB_LOG_LOGFMT, WB_LOG_ERROR);
    return cmocka_run_group_tests_name("event_consumer_letters", tests, NULL, NULL);
}
