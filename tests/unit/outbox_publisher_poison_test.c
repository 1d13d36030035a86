/*
 * A row whose sending ends the process is found and parked, and the others get through; a process
 * that is killed from outside, however often, condemns no row. Real processes, which end for real.
 */
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bus_wrap.h"
#include "outbox_publisher_fixture.h"

/* ---- a bus that ends the process when it sees the poison ------------------------------------- */

static wb_err deadly_publish(struct event_bus *base, const struct message *msg,
                             const struct event_bus_publish_options *options,
                             event_bus_published done, void *ctx, struct wb_why *why)
{
    if (msg->payload.len == 6 && memcmp(msg->payload.ptr, "poison", 6) == 0)
        abort();
    return event_bus_publish_async(bus_wrap_inner(base), msg, options, done, ctx, why);
}

/* ---- a publisher in a process of its own ----------------------------------------------------- */

/* Long enough for the pauses of a row that has ended processes; virtual. */
static void live(struct event_bus *inner, struct outbox_publisher *publisher)
{
    for (int64_t ns = 0; ns < 20 * WB_SEC; ns += 50 * WB_MS) {
        while (outbox_publisher_step(publisher))
            continue;
        event_bus_memory_advance(inner, 50 * WB_MS);
    }
}

/* Its bus forgets; what got through is told by the table alone. */
static int child(const char *path, const char *life)
{
    static const struct event_bus_ops ops = {BUS_WRAP_ALL, .kind = "deadly",
                                             .publish_async = deadly_publish};
    static struct bus_wrap bus;
    struct outbox_publisher *publisher;
    int64_t start_ns = 1700000000 * WB_SEC + strtoll(life, NULL, 10) * 20 * WB_MS;

    wb_log_setup(2, WB_LOG_LOGFMT, WB_LOG_ERROR);
    (void)setrlimit(RLIMIT_CORE, &(struct rlimit){.rlim_cur = 0, .rlim_max = 0});
    if (event_bus_memory_create(
            &(struct event_bus_memory_options){.manual = true, .start_wall_ns = start_ns},
            &bus.inner) != WB_OK)
        return 1;
    fixture_declare(bus.inner, "A", "a.>");
    const struct event_bus_settings settings = {.clock = event_bus_memory_clock(bus.inner)};
    const struct outbox_publisher_options options = {.path = path,
                                                     .bus = &bus.base,
                                                     .streams = fixture_streams,
                                                     .stream_count = 1,
                                                     .clock = settings.clock,
                                                     .manual = true};
    if (event_bus_init(&bus.base, &ops, &settings) != WB_OK ||
        outbox_publisher_start(&options, &publisher, NULL) != WB_OK)
        return 2;
    live(bus.inner, publisher);
    outbox_publisher_stop(publisher);
    event_bus_destroy(&bus.base);
    event_bus_destroy(bus.inner);
    return 0;
}

static pid_t spawn(const struct fixture *f, int life)
{
    char self[] = "/proc/self/exe", word[] = "child", path[300], number[16];
    char *const argv[] = {self, word, path, number, NULL};
    pid_t pid;

    (void)snprintf(path, sizeof(path), "%s", f->path);
    (void)snprintf(number, sizeof(number), "%d", life);
    assert_int_equal(posix_spawn(&pid, self, NULL, NULL, argv, environ), 0);
    return pid;
}

static void insert_rows(struct fixture *f, int count)
{
    char sql[200];

    (void)snprintf(sql, sizeof(sql),
                   "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)"
                   " INSERT INTO outbox(subject, key, payload) SELECT 'a.x', 'k' || i %% 50, 'good'"
                   " FROM n",
                   count);
    fixture_sql(f, sql);
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void row_that_ends_the_process_is_parked_and_the_others_get_through(void **state)
{
    struct fixture *f = *state;
    int ends = 0;

    insert_rows(f, 1700);
    fixture_sql(f, "INSERT INTO outbox(subject, key, payload) VALUES('a.x', 'bad', 'poison')");
    insert_rows(f, 1700);
    for (int life = 0;; life++) {
        int status = 0;
        assert_int_equal(waitpid(spawn(f, life), &status, 0) > 0, 1);
        if (WIFSIGNALED(status))
            ends++;
        else
            assert_int_equal(WEXITSTATUS(status), 0);
        if (fixture_int(f, "SELECT count(*) FROM outbox_exception WHERE state = 'parked'") == 1 &&
            WIFEXITED(status))
            break;
        assert_true(life < 100);
    }
    assert_exceptions(f, "1701 parked");
    assert_int_equal(fixture_int(f, "SELECT crashes FROM outbox_exception"), 5);
    assert_int_equal(fixture_int(f, "SELECT attempts FROM outbox_exception"), 0);
    assert_int_equal(fixture_int(f, "SELECT last_id FROM outbox_cursor"), 3401);
    assert_int_equal(fixture_int(f, "SELECT starts FROM outbox_cursor"), 0);
    print_message("the process ended %d times\n", ends);
    assert_in_range(ends, 5, 30);
}

static void kills_from_outside_condemn_no_row(void **state)
{
    struct fixture *f = *state;
    struct wb_rng rng;
    int killed = 0, noted = 0;

    wb_rng_seed(&rng, 11);
    insert_rows(f, 20000);
    for (int life = 0; life < 150; life++) {
        struct timespec time = {.tv_nsec = (long)wb_rng_below(&rng, 12 * WB_MS)};
        int status = 0;
        pid_t pid = spawn(f, life);
        (void)nanosleep(&time, NULL); /* at any moment of its life */
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, &status, 0);
        killed += WIFSIGNALED(status) ? 1 : 0;
        if (fixture_int(f, "SELECT count(*) FROM outbox_cursor") == 1)
            noted += (int)fixture_int(f, "SELECT suspect_id IS NOT NULL FROM outbox_cursor");
        assert_int_equal(
            fixture_int(f, "SELECT count(*) FROM outbox_exception WHERE state = 'parked'"), 0);
        fixture_sql(f, "UPDATE outbox_cursor SET starts = 10"); /* row by row in each life */
    }
    int status = 0;
    (void)waitpid(spawn(f, 150), &status, 0);
    assert_int_equal(status, 0);
    print_message("killed %d times, %d times with a row noted\n", killed, noted);
    assert_exceptions(f, "");
    assert_int_equal(fixture_int(f, "SELECT last_id FROM outbox_cursor"), 20000);
}

/* The rule behind both, in steps that no clock disturbs. */
static void batch_is_halved_on_each_start_without_a_mark(void **state)
{
    (void)state;
    assert_int_equal(outbox_publisher_batch_limit(0), 1000);
    assert_int_equal(outbox_publisher_batch_limit(1), 1000);
    assert_int_equal(outbox_publisher_batch_limit(2), 500);
    assert_int_equal(outbox_publisher_batch_limit(OUTBOX_PUBLISHER_STARTS_MAX - 1), 3);
    assert_int_equal(outbox_publisher_batch_limit(OUTBOX_PUBLISHER_STARTS_MAX), 1);
    assert_int_equal(outbox_publisher_batch_limit(INT64_MAX), 1);
}

static void healthy_row_that_was_noted_gets_through_by_itself(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 5; i++)
        fixture_insert(f, "a.x", "", "p");
    fixture_sql(f, "INSERT INTO outbox_cursor(stream, starts, suspect_id) VALUES('A', 12, 2)");
    fixture_start(f);
    while (fixture_int(f, "SELECT count(*) FROM outbox_exception") == 0)
        assert_true(outbox_publisher_step(f->publisher));
    assert_exceptions(f, "2 retry");
    assert_int_equal(fixture_int(f, "SELECT crashes FROM outbox_exception"), 1);
    while (fixture_int(f, "SELECT ifnull(max(suspect_id), 0) FROM outbox_cursor") != 2)
        assert_true(outbox_publisher_step(f->publisher));
    assert_stream_holds(f, "A", "p"); /* row 1; nothing is sent beside row 2 */
    fixture_run(f);
    assert_stream_holds(f, "A", "p p p p p");
    assert_exceptions(f, "");
    assert_int_equal(fixture_int(f, "SELECT starts FROM outbox_cursor"),
                     7); /* batches of 1, 1, 3 */
    assert_int_equal(fixture_int(f, "SELECT suspect_id IS NULL FROM outbox_cursor"), 1);
}

static void start_that_ends_in_order_counts_for_nothing(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 3; i++) {
        fixture_start(f);
        fixture_run(f);
        assert_int_equal(fixture_int(f, "SELECT starts FROM outbox_cursor"), 1);
        outbox_publisher_stop(f->publisher);
        f->publisher = NULL;
        assert_int_equal(fixture_int(f, "SELECT starts FROM outbox_cursor"), 0);
    }
    for (int i = 1; i < 4; i++) {
        fixture_start(f);
        fixture_run(f);
        assert_int_equal(fixture_int(f, "SELECT starts FROM outbox_cursor"), i);
        fixture_crash(f);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        T(row_that_ends_the_process_is_parked_and_the_others_get_through),
        T(kills_from_outside_condemn_no_row),
        cmocka_unit_test(batch_is_halved_on_each_start_without_a_mark),
        T(healthy_row_that_was_noted_gets_through_by_itself),
        T(start_that_ends_in_order_counts_for_nothing),
    };
    if (argc == 4 && strcmp(argv[1], "child") == 0)
        return child(argv[2], argv[3]);
    return cmocka_run_group_tests_name("outbox_publisher_poison", tests, NULL, NULL);
}
