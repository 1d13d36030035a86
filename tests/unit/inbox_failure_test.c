/* Failures are counted over restarts, and what is given up is kept whole. */
#include "inbox_fixture.h"

static int setup(void **state)
{
    (void)state;
    fixture_attach("notify");
    return 0;
}

static const struct inbox_origin origin = {.stream = {"AUTH", 4},
                                           .sequence = 7,
                                           .stored_wall_ns = 1234567890 * INT64_C(1000000),
                                           .stream_created_wall_ns = 1};

static const struct message_header headers[] = {
    {{MESSAGE_HEADER_SOURCE, 14}, {"0123456789abcdef", 16}},
    {{MESSAGE_HEADER_ROW, 11}, {"5", 1}},
    {{MESSAGE_HEADER_KEY, 11}, {"user 17", 7}},
    {{"note", 4}, {"it's; DROP TABLE t --", 21}},
};

static const struct message ours = {.subject = {"auth.user.created", 17},
                                    .payload = {"a\0b", 3},
                                    .headers = headers,
                                    .header_count = 4,
                                    .msg_id = {"id-5", 4}};

static const struct message foreign = {.subject = {"auth.user.created", 17}, .msg_id = {"f", 1}};

static uint32_t fail_once(const struct message *msg)
{
    uint32_t failures = 0;

    assert_ok(inbox_fail(inbox, msg, &origin, "no luck", &failures, NULL));
    return failures;
}

static void inbox_fail_counts_each_event_and_remembers_over_a_restart(void **state)
{
    (void)state;
    assert_int_equal(fail_once(&ours), 1);
    assert_int_equal(fail_once(&foreign), 1);
    assert_int_equal(fail_once(&ours), 2);
    inbox_detach(inbox);
    db_close(db);
    assert_ok(db_open(path, NULL, &db, NULL));
    assert_ok(inbox_attach(db_handle(db), "notify", &inbox, NULL));
    assert_int_equal(fail_once(&ours), 3);
    assert_int_equal(sqlite3_get_autocommit(db_handle(db)), 1);
}

static void inbox_fail_joins_an_open_transaction(void **state)
{
    (void)state;
    assert_ok(db_begin(db, NULL));
    assert_int_equal(fail_once(&ours), 1);
    db_rollback(db);
    assert_int_equal(fail_once(&ours), 1);
}

static void inbox_claim_that_commits_ends_the_failures_of_its_event_only(void **state)
{
    (void)state;
    fail_once(&ours);
    fail_once(&foreign);
    assert_ok(db_begin(db, NULL));
    assert_ok(inbox_claim(inbox, &ours, &origin, NULL));
    db_rollback(db);
    assert_int_equal(fail_once(&ours), 2);
    assert_ok(db_begin(db, NULL));
    assert_ok(inbox_claim(inbox, &ours, &origin, NULL));
    assert_ok(db_commit(db, NULL));
    assert_int_equal(query("SELECT count(*) FROM inbox_failure"), 1);
    assert_int_equal(fail_once(&foreign), 2);
}

static void inbox_failures_are_bounded_without_losing_the_event_at_hand(void **state)
{
    (void)state;
    /* The event at hand sorts first, so that it would be the first to go. */
    struct message first = foreign;
    first.msg_id = wb_str("0");
    fail_once(&first);
    for (int i = 0; i < 1100; i++) {
        char msg_id[16];
        struct message msg = foreign;
        snprintf(msg_id, sizeof(msg_id), "x%d", i);
        msg.msg_id = wb_str(msg_id);
        if (i == 1000)
            assert_int_equal(fail_once(&first), 2);
        fail_once(&msg);
        if (i >= 1000)
            assert_true(query("SELECT count(*) FROM inbox_failure") <= 1001);
    }
}

static void inbox_park_keeps_the_whole_event_and_counts_it_as_handled(void **state)
{
    uint64_t parked = 99;

    (void)state;
    fail_once(&ours);
    fail_once(&ours);
    assert_ok(db_begin(db, NULL));
    assert_ok(inbox_park(inbox, &ours, &origin, "it's hopeless", NULL));
    assert_ok(db_commit(db, NULL));
    assert_ok(inbox_parked(inbox, &parked, NULL));
    assert_int_equal(parked, 1);
    assert_int_equal(
        query("SELECT count(*) FROM dead_letter WHERE consumer = 'notify'"
              " AND subject = 'auth.user.created' AND payload = x'610062'"
              " AND headers LIKE '%note: it''s; DROP TABLE t --%' AND msg_id = 'id-5'"
              " AND stream = 'AUTH' AND sequence = 7 AND stored_at = 1234567890"
              " AND reason = 'it''s hopeless' AND failures = 2 AND parked_at > 1700000000000"
              " AND state = 'parked' AND next_at IS NULL AND source = '0123456789abcdef'"
              " AND row_id = 5 AND key = 'user 17' AND length(fingerprint) = 16"),
        1);
    assert_int_equal(query("SELECT count(*) FROM inbox_failure"), 0);
    assert_ok(db_begin(db, NULL));
    assert_err(inbox_claim(inbox, &ours, &origin, NULL), WB_EXISTS);
    db_rollback(db);
}

static void inbox_park_of_an_empty_event_without_failures_works(void **state)
{
    const struct message bare = {.subject = {"a", 1}};

    (void)state;
    assert_ok(db_begin(db, NULL));
    assert_ok(inbox_park(inbox, &bare, &origin, "", NULL));
    assert_ok(db_commit(db, NULL));
    assert_int_equal(query("SELECT count(*) FROM dead_letter WHERE length(payload) = 0"
                           " AND failures = 0 AND msg_id = '' AND headers = ''"
                           " AND source = '' AND row_id = 0 AND key = ''"),
                     1);
}

static void inbox_park_that_is_rolled_back_keeps_nothing(void **state)
{
    uint64_t parked = 99;

    (void)state;
    assert_err(inbox_park(inbox, &ours, &origin, "x", NULL), WB_MISUSE);
    assert_ok(db_begin(db, NULL));
    assert_ok(inbox_park(inbox, &ours, &origin, "x", NULL));
    db_rollback(db);
    assert_ok(inbox_parked(inbox, &parked, NULL));
    assert_int_equal(parked, 0);
}

static void inbox_parked_counts_the_consumers_own(void **state)
{
    struct inbox *other = NULL;
    uint64_t parked = 99;

    (void)state;
    assert_ok(inbox_attach(db_handle(db), "other", &other, NULL));
    assert_ok(db_begin(db, NULL));
    assert_ok(inbox_park(inbox, &ours, &origin, "x", NULL));
    assert_ok(db_commit(db, NULL));
    assert_ok(inbox_parked(other, &parked, NULL));
    assert_int_equal(parked, 0);
    inbox_detach(other);
}

static void inbox_park_beyond_the_limit_is_full_and_parks_again_when_there_is_room(void **state)
{
    struct wb_why why = {""};

    (void)state;
    assert_ok(db_exec(db,
                      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
                      " WHERE i < 100000) INSERT INTO dead_letter(consumer, subject, headers,"
                      " msg_id, stream, sequence, stored_at, reason, failures, parked_at, payload)"
                      " SELECT 'any', 's', '', '', 'S', i, 0, '', 1, 0, x'' FROM n",
                      NULL));
    assert_ok(db_begin(db, NULL));
    assert_err(inbox_park(inbox, &ours, &origin, "x", &why), WB_FULL);
    db_rollback(db);
    assert_non_null(strstr(why.text, "dead_letter"));
    assert_ok(db_exec(db, "DELETE FROM dead_letter WHERE id = 1", NULL));
    assert_ok(db_begin(db, NULL));
    assert_ok(inbox_park(inbox, &ours, &origin, "x", NULL));
    assert_ok(db_commit(db, NULL));
}

static wb_err park_one(struct wb_why *why)
{
    assert_ok(db_begin(db, NULL));
    wb_err err = inbox_park(inbox, &ours, &origin, "x", why);
    if (err == WB_OK)
        assert_ok(db_commit(db, NULL));
    db_rollback(db);
    return err;
}

static uint64_t letter_bytes(void)
{
    struct sqlite3_stmt *stmt = NULL;

    assert_ok(db_prepare(db, "SELECT bytes FROM dead_letter_total", &stmt, NULL));
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    uint64_t bytes = (uint64_t)sqlite3_column_int64(stmt, 0);
    (void)sqlite3_finalize(stmt);
    return bytes;
}

static void inbox_park_keeps_to_a_limit_of_bytes(void **state)
{
    struct wb_why why = {""};

    (void)state;
    inbox_letters_limit(inbox, 0, 1);
    assert_ok(park_one(NULL)); /* larger than the limit alone, it has the table for itself */
    assert_err(park_one(&why), WB_FULL);
    assert_non_null(strstr(why.text, "max_bytes"));
    const uint64_t one = letter_bytes();
    assert_true(one > 0);
    inbox_letters_limit(inbox, 0, 3 * one);
    assert_ok(park_one(NULL));
    assert_ok(db_exec(db, "UPDATE dead_letter SET payload = payload || 'x' WHERE id = 1", NULL));
    assert_err(park_one(NULL), WB_FULL);
    assert_ok(db_exec(db, "DELETE FROM dead_letter WHERE id = 1", NULL));
    assert_int_equal(letter_bytes(), one);
    assert_ok(park_one(NULL));
    assert_ok(park_one(NULL));
    assert_err(park_one(NULL), WB_FULL);
}

static void inbox_park_keeps_to_a_limit_of_letters(void **state)
{
    (void)state;
    inbox_letters_limit(inbox, 2, 0);
    assert_ok(park_one(NULL));
    assert_ok(park_one(NULL));
    assert_err(park_one(NULL), WB_FULL);
    inbox_letters_limit(inbox, 3, 0);
    assert_ok(park_one(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(inbox_fail_counts_each_event_and_remembers_over_a_restart),
        T(inbox_fail_joins_an_open_transaction),
        T(inbox_claim_that_commits_ends_the_failures_of_its_event_only),
        T(inbox_failures_are_bounded_without_losing_the_event_at_hand),
        T(inbox_park_keeps_the_whole_event_and_counts_it_as_handled),
        T(inbox_park_of_an_empty_event_without_failures_works),
        T(inbox_park_that_is_rolled_back_keeps_nothing),
        T(inbox_parked_counts_the_consumers_own),
        T(inbox_park_keeps_to_a_limit_of_bytes),
        T(inbox_park_keeps_to_a_limit_of_letters),
        T(inbox_park_beyond_the_limit_is_full_and_parks_again_when_there_is_room),
#undef T
    };
    return cmocka_run_group_tests_name("inbox_failure", tests, NULL, NULL);
}
