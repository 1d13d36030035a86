/*
 * Retention of random outboxes, with and without crashes: nothing goes that may not, all goes that
 * may, and each archived row is in the table or in the archive, never nowhere.
 */
#include "outbox_retention_fixture.h"

#include <sys/wait.h>

#define ROWS  400
#define SEEDS 12

static const char *const kept_patterns[] = {"kept.>"};
static const char *const few_patterns[] = {"few.>"};
static const char *const small_patterns[] = {"small.>"};

static const struct outbox_class classes[] = {
    {.name = "kept",
     .patterns = kept_patterns,
     .pattern_count = 1,
     .keep_age_ns = 10 * HOUR,
     .archive = true},
    {.name = "few", .patterns = few_patterns, .pattern_count = 1, .keep_rows = 20, .archive = true},
    {.name = "small", .patterns = small_patterns, .pattern_count = 1, .keep_bytes = 2000},
};
enum { CLASSES = sizeof(classes) / sizeof(classes[0]) };

/* ---- a random outbox ------------------------------------------------------------------------- */

static void fill(struct wb_rng *rng)
{
    static const char *const streams[] = {"", "", "A", "B", "C"};
    static const char *const subjects[] = {"kept.x", "few.x", "small.x", "other.x"};
    static const char *const states[] = {"lost",   "waiting", "retry",    "blocked",
                                         "parked", "expired", "cancelled"};

    sql("BEGIN");
    for (int64_t id = 1; id <= ROWS; id++) {
        int64_t age_ms = (ROWS - id) * (48 * HOUR / WB_MS) / ROWS;
        sql("INSERT INTO outbox(id, stream, subject, created, payload)"
            " VALUES(%lld, '%s', '%s', %lld, zeroblob(%d))",
            (long long)id, streams[wb_rng_below(rng, 5)], subjects[wb_rng_below(rng, 4)],
            (long long)(START / WB_MS - age_ms), (int)wb_rng_below(rng, 200));
        if (wb_rng_below(rng, 8) == 0)
            sql("INSERT INTO outbox_exception(id, state) VALUES(%lld, '%s')", (long long)id,
                states[wb_rng_below(rng, 7)]);
        if (wb_rng_below(rng, 10) == 0)
            sql("INSERT INTO outbox_edit(id, subject, headers, edited_at, payload)"
                " VALUES(%lld, 'edited', '', 0, 'edited')",
                (long long)id);
    }
    sql("COMMIT");
    verify_up_to("A", ROWS - (int64_t)wb_rng_below(rng, 100));
    verify_up_to("B", ROWS - (int64_t)wb_rng_below(rng, 100));
    sql("CREATE TABLE before AS SELECT * FROM outbox");
    sql("CREATE TABLE exception_before AS SELECT * FROM outbox_exception");
}

/* ---- what must hold -------------------------------------------------------------------------- */

/* Rows of the table `before`, as b, that may go by all but age and limits. */
#define MAY_GO                                                                                     \
    "b.id < (SELECT max(id) FROM before) AND b.id <= CASE b.stream"                                \
    " WHEN '' THEN (SELECT min(verified_id) FROM outbox_cursor)"                                   \
    " ELSE ifnull((SELECT verified_id FROM outbox_cursor WHERE stream = b.stream), 0) END"         \
    " AND NOT EXISTS (SELECT 1 FROM exception_before e WHERE e.id = b.id"                          \
    " AND e.state NOT IN ('expired', 'cancelled'))"
#define GONE "b.id NOT IN (SELECT id FROM outbox)"

static void check_nothing_went_that_may_not(void)
{
    assert_int_equal(number("SELECT count(*) FROM before b WHERE " GONE " AND NOT (" MAY_GO ")"),
                     0);
    assert_int_equal(number("SELECT count(*) FROM outbox o LEFT JOIN before b"
                            " ON b.id = o.id AND b.msg_id = o.msg_id AND b.payload = o.payload"
                            " WHERE b.id IS NULL"),
                     0);
    /* By age alone: rows of "kept" have 10 h, those of no class 24 h. */
    char query[400];
    (void)snprintf(query, sizeof(query),
                   "SELECT count(*) FROM before b WHERE " GONE
                   " AND ((b.subject = 'kept.x' AND b.created > %lld)"
                   " OR (b.subject = 'other.x' AND b.created > %lld))",
                   (long long)((START - 10 * HOUR) / WB_MS),
                   (long long)((START - 24 * HOUR) / WB_MS));
    assert_int_equal(number(query), 0);
    assert_int_equal(number("SELECT count(*) FROM outbox_exception e WHERE e.id NOT IN"
                            " (SELECT id FROM outbox)"),
                     0);
    assert_int_equal(
        number("SELECT count(*) FROM outbox_edit d WHERE d.id NOT IN (SELECT id FROM outbox)"), 0);
}

static void check_all_went_that_may(void)
{
    char query[1200];

    (void)snprintf(query, sizeof(query),
                   "SELECT count(*) FROM before b WHERE NOT (" GONE ") AND " MAY_GO
                   " AND b.created <= CASE b.subject WHEN 'kept.x' THEN %lld ELSE %lld END",
                   (long long)((START - 10 * HOUR) / WB_MS),
                   (long long)((START - 24 * HOUR) / WB_MS));
    assert_int_equal(number(query), 0);
    if (number("SELECT count(*) FROM outbox WHERE subject = 'few.x'") > 20)
        assert_int_equal(number("SELECT count(*) FROM before b WHERE b.subject = 'few.x'"
                                " AND NOT (" GONE ") AND " MAY_GO),
                         0);
    if (number("SELECT ifnull(sum(length(payload) + length(subject)), 0) FROM outbox"
               " WHERE subject = 'small.x'") > 2000)
        assert_int_equal(number("SELECT count(*) FROM before b WHERE b.subject = 'small.x'"
                                " AND NOT (" GONE ") AND " MAY_GO),
                         0);
}

/* Rows of classes with an archive: in the table or the archive, in both only after a crash. */
static void check_archive(bool exactly_once)
{
    sql("ATTACH '%s' AS old", archive_path);
    assert_int_equal(number("SELECT count(*) FROM before b WHERE b.subject IN ('kept.x', 'few.x')"
                            " AND " GONE " AND NOT EXISTS (SELECT 1 FROM old.outbox_archive a"
                            " WHERE a.id = b.id AND a.msg_id = b.msg_id AND a.payload = b.payload"
                            " AND a.subject = b.subject AND a.created = b.created)"),
                     0);
    assert_int_equal(number("SELECT count(*) - count(DISTINCT id) FROM old.outbox_archive"), 0);
    assert_int_equal(
        number("SELECT count(*) FROM old.outbox_archive WHERE subject NOT IN ('kept.x', 'few.x')"),
        0);
    assert_int_equal(number("SELECT count(*) FROM old.outbox_archive"
                            " WHERE edit_subject IS NOT edit_payload"),
                     0);
    assert_true(number("SELECT count(edit_subject) FROM old.outbox_archive") > 0);
    if (exactly_once)
        assert_int_equal(number("SELECT count(*) FROM old.outbox_archive a"
                                " JOIN outbox o ON o.id = a.id"),
                         0);
    sql("DETACH old");
}

static void outbox_retention_of_random_outboxes_takes_what_it_may_and_no_more(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct wb_rng rng;
        wb_rng_seed(&rng, seed);
        fill(&rng);
        struct outbox_retention *retention = open_retention(classes, CLASSES);
        assert_true(run_out(retention) > 0);
        outbox_retention_close(retention);
        check_nothing_went_that_may_not();
        check_all_went_that_may();
        check_archive(true);
        assert_int_equal(number("SELECT rows FROM outbox_purged"),
                         number("SELECT (SELECT count(*) FROM before) - count(*) FROM outbox"));
        (void)fixture_teardown(state);
        (void)fixture_setup(state);
    }
}

#ifdef WAYBILL_CRASHPOINTS
static const char *crash_at;
static int passages_left;

static void crash_hook(const char *name)
{
    if (strcmp(name, crash_at) == 0 && --passages_left == 0)
        _exit(42);
}

/* In a process of its own, which ends at the n-th passage of a point. Returns whether it did. */
static bool crash(const char *point, int passage)
{
    int status = 0;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        crash_at = point;
        passages_left = passage;
        wb_crash_hook(crash_hook);
        (void)run_out(open_retention(classes, CLASSES));
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && (WEXITSTATUS(status) == 42 || WEXITSTATUS(status) == 0));
    return WEXITSTATUS(status) == 42;
}

static void reopen(void)
{
    assert_ok(db_open(path, &(struct db_options){.sync = DB_SYNC_NORMAL}, &db, NULL));
}

/* Between the decision and the deletion: a person parks 1, somebody holds 4 and on, a repair takes
 * back what was verified of stream A. */
static void interfere(const char *name)
{
    if (strcmp(name, "outbox_retention.archived") != 0)
        return;
    wb_crash_hook(NULL);
    sql("INSERT INTO outbox_exception(id, state) VALUES(1, 'parked')");
    sql("INSERT INTO outbox_hold(name, from_id, until) VALUES('x', 4, %lld)",
        (long long)INT64_MAX / 2);
    verify_up_to("A", 0);
}

static void outbox_retention_asks_again_before_it_deletes(void **state)
{
    (void)state;
    sql("INSERT INTO outbox(stream, subject, created) VALUES('B', 'kept.x', 1), ('A', 'kept.x', 1),"
        " ('B', 'kept.x', 1), ('B', 'kept.x', 1), ('B', 'kept.x', 1), ('B', 'kept.x', 1)");
    verify_up_to("A", 6);
    verify_up_to("B", 6);
    struct outbox_retention *retention = open_retention(classes, CLASSES);
    wb_crash_hook(interfere);
    assert_int_equal(run_out(retention), 1);
    assert_int_equal(number("SELECT count(*) FROM outbox WHERE id = 3"), 0);
    assert_int_equal(number("SELECT count(*) FROM outbox"), 5);
    outbox_retention_close(retention);
}

static void outbox_retention_that_crashes_at_any_step_loses_and_doubles_nothing(void **state)
{
    static const char *const points[] = {"outbox_retention.archived", "outbox_retention.deleted",
                                         "outbox_retention.purged"};
    int crashes = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
        for (int passage = 1; passage <= 2; passage++) {
            struct wb_rng rng;
            wb_rng_seed(&rng, 100 + i);
            fill(&rng);
            db_close(db); /* nothing of SQLite may cross a fork */
            crashes += crash(points[i], passage);
            reopen();
            check_nothing_went_that_may_not();
            check_archive(false);
            struct outbox_retention *retention = open_retention(classes, CLASSES);
            (void)run_out(retention);
            outbox_retention_close(retention);
            check_nothing_went_that_may_not();
            check_all_went_that_may();
            check_archive(true);
            (void)fixture_teardown(state);
            (void)fixture_setup(state);
        }
    }
    assert_true(crashes >= 5);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        T(outbox_retention_of_random_outboxes_takes_what_it_may_and_no_more),
#ifdef WAYBILL_CRASHPOINTS
        T(outbox_retention_asks_again_before_it_deletes),
        T(outbox_retention_that_crashes_at_any_step_loses_and_doubles_nothing),
#endif
#undef T
    };
    return cmocka_run_group_tests_name("outbox_retention_property", tests, NULL, NULL);
}
