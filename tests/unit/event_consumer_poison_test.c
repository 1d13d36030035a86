/*
 * An event that ends the process is found and put aside, by real processes that die; what is killed
 * from outside is not blamed on an event.
 */
#include "event_consumer_fixture.h"

#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 40 };

static const char *poison; /* aborts the process */
static unsigned slow_us;   /* each event takes so long */
static wb_err (*plain)(void *ctx, const struct event_consumer_event *event, struct wb_why *why);

static wb_err handle_or_die(void *ctx, const struct event_consumer_event *event, struct wb_why *why)
{
    const struct wb_bytes *payload = &event->delivery->message.payload;
    struct timespec pause = {.tv_nsec = (long)slow_us * 1000};

    if (poison != NULL && wb_str_eq(wb_str(poison), wb_str_n(payload->ptr, payload->len))) {
        signal(SIGABRT, SIG_DFL);
        abort();
    }
    if (slow_us > 0)
        nanosleep(&pause, NULL);
    return plain(ctx, event, why);
}

static int setup(void **state)
{
    (void)state;
    fixture_setup(true);
    plain = fixture.options.handler;
    fixture.options.handler = handle_or_die;
    fixture.options.group = 64;
    fixture.options.sync = DB_SYNC_NORMAL;
    poison = NULL;
    slow_us = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_teardown();
    return 0;
}

/* A process: a bus with the same events, and a consumer that works until nothing is left. */
static void live(bool with_other_stream)
{
    static const char *const patterns[] = {"auth.>", "other.>"};
    static const char *const others[] = {"other.>"};

    fixture_bus(true, 1000 * WB_SEC);
    fixture_declare("AUTH", fixture_subjects);
    for (int n = 1; n <= EVENTS; n++)
        fixture_publish(n);
    if (with_other_stream) {
        /* Always something new that is handled before, as in a busy service. */
        char id[WB_ID_TEXT];
        uint8_t bytes[WB_ID_SIZE];
        fixture.options.patterns = patterns;
        fixture.options.pattern_count = 2;
        fixture_declare("OTHER", others);
        wb_id_new(wb_clock_system(), bytes);
        wb_hex_encode(bytes, WB_ID_SIZE, id);
        const struct message msg = {
            .subject = wb_str("other.x"), .payload = {"o", 1}, .msg_id = wb_str(id)};
        assert_ok(event_bus_publish(fixture.bus, &msg, NULL, NULL, NULL));
    }
    fixture_start();
    fixture_run();
    fixture_stop();
    _exit(0);
}

/* Lives until one ends well; returns how many died. */
static int die_until_well(bool with_other_stream, int most)
{
    for (int deaths = 0; deaths <= most; deaths++) {
        int status = -1;
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0)
            live(with_other_stream);
        assert_int_equal(waitpid(child, &status, 0), child);
        if (WIFEXITED(status))
            return deaths;
        assert_int_equal(WTERMSIG(status), SIGABRT);
    }
    fail_msg("it dies for ever");
    return -1;
}

static void assert_all_but_the_poison(int last)
{
    char sql[160];

    snprintf(sql, sizeof(sql),
             "SELECT count(*) FROM effect WHERE event <> 'o' AND CAST(event AS INTEGER) <= %d",
             last);
    assert_int_equal(fixture_query(sql), last - 1);
    assert_int_equal(fixture_query("SELECT count(DISTINCT event) FROM effect WHERE event <> 'o'"),
                     last - 1);
    assert_int_equal(fixture_query("SELECT count(*) FROM dead_letter"), 1);
    assert_int_equal(fixture_query("SELECT count(*) FROM dead_letter WHERE row_id = 17 AND reason "
                                   "LIKE 'the process ended 5 times%'"),
                     1);
}

static void consumer_finds_the_event_that_aborts_the_process(void **state)
{
    (void)state;
    poison = "17";
    int deaths = die_until_well(false, 30);
    print_message("%d processes died\n", deaths);
    assert_true(deaths <= 14); /* until it is first, until it is alone, and five more */
    assert_all_but_the_poison(EVENTS);
    assert_int_equal(fixture_query("SELECT count(*) FROM inbox_start WHERE starts = 0"
                                   " AND suspect = ''"),
                     1);
}

static void consumer_finds_it_although_other_events_are_handled_in_each_life(void **state)
{
    (void)state;
    poison = "17";
    int deaths = die_until_well(true, 30);
    print_message("%d processes died\n", deaths);
    assert_true(deaths <=
                21); /* what else is in a group that dies keeps it from shrinking at first */
    assert_all_but_the_poison(EVENTS);
    assert_true(fixture_query("SELECT count(*) FROM effect WHERE event = 'o'") >= 5);
}

/* A dead letter handled again is alone from the first, so it is found at once. */
static void consumer_parks_a_letter_again_that_aborts_the_process(void **state)
{
    (void)state;
    fixture.only = "17";
    fixture.fails = 100;
    assert_int_equal(die_until_well(false, 0), 0);
    fixture.only = NULL;
    for (int n = 1; n <= EVENTS; n++)
        fixture_publish(n);
    fixture_start();
    fixture.only = "17";
    fixture.fails = 100;
    fixture_run_long();
    fixture_stop();
    fixture.only = NULL;
    fixture.fails = 0;
    assert_int_equal(fixture_query("UPDATE dead_letter SET state = 'retry' RETURNING row_id"), 17);
    poison = "17";
    assert_int_equal(die_until_well(false, 30), 5);
    assert_all_but_the_poison(EVENTS);
    assert_int_equal(fixture_query("SELECT count(*) FROM dead_letter WHERE state = 'parked'"), 1);
}

/* Once something was committed, or after a clean end. */
static void consumer_forgets_deaths_once_all_goes_well(void **state)
{
    (void)state;
    poison = "1";
    for (int i = 0; i < 5; i++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0)
            live(false);
        assert_int_equal(waitpid(child, NULL, 0), child);
    }
    assert_int_equal(fixture_query("SELECT starts FROM inbox_start"), 5);
    poison = NULL;
    fixture_start();
    fixture_stop();
    assert_int_equal(fixture_query("SELECT starts FROM inbox_start"), 0);
    fixture_start();
    assert_int_equal(fixture_query("SELECT starts FROM inbox_start"), 1);
    fixture_publish(1);
    fixture_run();
    assert_int_equal(fixture_query("SELECT starts FROM inbox_start"), 0);
    assert_int_equal(fixture_query("SELECT starts FROM inbox_position"), 0);
}

/* Lives ended at random times, often within a handler; on a fast machine many end well before. */
static void consumer_killed_from_outside_blames_no_event(void **state)
{
    struct wb_rng rng;
    int kills = 0;

    (void)state;
    wb_rng_seed(&rng, 4711);
    slow_us = 1000;
    for (int lives = 0; kills < 40; lives++) {
        int status = -1;
        assert_true(lives < 400);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0)
            live(true);
        struct timespec pause = {.tv_nsec = (long)wb_rng_below(&rng, 30 * WB_MS)};
        nanosleep(&pause, NULL);
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, &status, 0), child);
        kills += WIFSIGNALED(status);
    }
    assert_int_equal(die_until_well(true, 0), 0);
    assert_int_equal(fixture_query("SELECT count(*) FROM dead_letter"), 0);
    assert_int_equal(fixture_query("SELECT count(*) FROM effect WHERE event <> 'o'"), EVENTS);
    assert_int_equal(fixture_query("SELECT count(DISTINCT event) FROM effect WHERE event <> 'o'"),
                     EVENTS);
}

/* An error of the handler is not a death: it ends the suspicion. */
static void consumer_counts_an_error_of_a_suspect_as_an_error(void **state)
{
    (void)state;
    poison = "17";
    for (int i = 0; i < 11; i++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0)
            live(false);
        assert_int_equal(waitpid(child, NULL, 0), child);
    }
    assert_true(fixture_query("SELECT suspect = 'r:0123456789abcdef:17' FROM inbox_start"));
    poison = NULL;
    fixture.only = "17";
    fixture.fails = 1;
    for (int n = 1; n <= EVENTS; n++)
        fixture_publish(n);
    fixture_start();
    assert_true(fixture_query("SELECT accused = 'r:0123456789abcdef:17' FROM inbox_start"));
    fixture_run();
    assert_int_equal(fixture_query("SELECT failures FROM inbox_failure"), 1);
    assert_int_equal(fixture_query("SELECT crashes FROM inbox_start"), 0);
    assert_int_equal(fixture_query("SELECT count(*) FROM inbox_start WHERE suspect = ''"
                                   " AND accused = ''"),
                     1);
    fixture_run_long();
    assert_int_equal(fixture_health().parked, 0);
    assert_int_equal(fixture_query("SELECT count(DISTINCT event) FROM effect"), EVENTS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(consumer_finds_the_event_that_aborts_the_process),
        T(consumer_finds_it_although_other_events_are_handled_in_each_life),
        T(consumer_parks_a_letter_again_that_aborts_the_process),
        T(consumer_forgets_deaths_once_all_goes_well),
        T(consumer_killed_from_outside_blames_no_event),
        T(consumer_counts_an_error_of_a_suspect_as_an_error),
#undef T
    };
    wb_log_setup(2, WB_LOG_LOGFMT, WB_LOG_ERROR);
    return cmocka_run_group_tests_name("event_consumer_poison", tests, NULL, NULL);
}
