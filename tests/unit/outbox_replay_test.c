/* Replay: which rows are sent again, as what, and how fast. */
#include "outbox_retention_fixture.h"

#include <waybill/outbox_replay.h>

static struct outbox_replay *replay;

static int setup(void **state)
{
    replay = NULL;
    return fixture_setup(state);
}

static int teardown(void **state)
{
    outbox_replay_close(replay);
    return fixture_teardown(state);
}

static void open_replay(const struct outbox_replay_options *options)
{
    struct outbox_replay_options own = *options;
    struct wb_why why = {""};

    own.path = path;
    own.clock = &now.clock;
    if (outbox_replay_open(&own, &replay, &why) != WB_OK)
        fail_msg("%s", why.text);
}

/* Returns how many rows were written. */
static uint64_t send_all(void)
{
    struct outbox_replay_progress progress = {0};
    struct wb_why why = {""};

    while (!progress.done) {
        if (outbox_replay_step(replay, &progress, &why) != WB_OK)
            fail_msg("%s", why.text);
        wb_clock_virtual_advance(&now, progress.wait_ns);
    }
    return progress.rows;
}

static void add_mixed_rows(void)
{
    sql("INSERT INTO outbox(subject, key, headers, payload, created) VALUES"
        " ('a.one', 'k1', 'x-a: 1', 'p1', %lld), ('a.two', 'k2', '', 'p2', %lld),"
        " ('b.one', 'k1', '', 'p3', %lld), ('b.two', '', '', 'p4', %lld)",
        (long long)(START / WB_MS), (long long)(START / WB_MS + 1000),
        (long long)(START / WB_MS + 2000), (long long)(START / WB_MS + 3000));
}

static void outbox_replay_writes_new_rows_that_name_the_old(void **state)
{
    struct outbox_replay_options options = {.log_target = wb_str("--id 1-2"),
                                            .log_reason = wb_str("asked for")};

    (void)state;
    add_mixed_rows();
    verify_up_to("S", 4);
    options.selection.last_id = 2;
    open_replay(&options);
    assert_int_equal(send_all(), 2);
    assert_int_equal(number("SELECT count(*) FROM outbox"), 6);
    assert_int_equal(number("SELECT count(*) FROM outbox o JOIN outbox n ON n.id = o.id + 4"
                            " AND n.subject = o.subject AND n.key = o.key"
                            " AND CAST(n.payload AS TEXT) = CAST(o.payload AS TEXT)"
                            " AND n.msg_id <> o.msg_id"),
                     2);
    assert_int_equal(number("SELECT count(*) FROM outbox n WHERE n.id = 5 AND n.headers ="
                            " 'x-a: 1' || char(10) || 'waybill-replay-of: ' ||"
                            " (SELECT lower(hex(source)) FROM outbox_source) || '/1'"),
                     1);
    assert_int_equal(number("SELECT count(*) FROM operator_log WHERE command = 'outbox replay'"
                            " AND target = '--id 1-2' AND reason = 'asked for'"),
                     1);
    outbox_replay_close(replay);
    replay = NULL;
    assert_int_equal(number("SELECT count(*) FROM outbox_hold"), 0);

    /* A replay of a replay names the row it repeats, once. */
    verify_up_to("S", 6);
    options.selection.first_id = 5;
    options.selection.last_id = 5;
    open_replay(&options);
    assert_int_equal(send_all(), 1);
    assert_int_equal(number("SELECT count(*) FROM outbox WHERE id = 7 AND headers LIKE '%/5'"
                            " AND headers NOT LIKE '%/1%'"),
                     1);
}

static void outbox_replay_takes_published_rows_only(void **state)
{
    const struct outbox_replay_options options = {.rate = 1000000};

    (void)state;
    add_rows("a.b", 9, HOUR, 3);
    verify_up_to("S", 7);
    sql("INSERT INTO outbox_exception(id, state) VALUES(1, 'parked'), (2, 'cancelled'),"
        " (3, 'lost')");
    open_replay(&options);
    assert_int_equal(send_all(), 4);
    assert_int_equal(number("SELECT min(CAST(substr(headers, instr(headers, '/') + 1) AS INTEGER))"
                            " FROM outbox WHERE id > 9"),
                     4);
    assert_int_equal(number("SELECT max(id) FROM outbox"), 13); /* it did not meet its own */
}

static void outbox_replay_sends_what_was_sent(void **state)
{
    const struct outbox_replay_options options = {.rate = 1000000};

    (void)state;
    add_mixed_rows();
    sql("INSERT INTO outbox_edit(id, subject, headers, edited_at, payload)"
        " VALUES(2, 'a.mended', 'x-b: 2', 0, 'mended')");
    verify_up_to("S", 4);
    open_replay(&options);
    assert_int_equal(send_all(), 4);
    assert_int_equal(number("SELECT count(*) FROM outbox WHERE id = 6 AND subject = 'a.mended'"
                            " AND CAST(payload AS TEXT) = 'mended' AND headers LIKE 'x-b: 2%'"),
                     1);
}

struct selection_case {
    struct outbox_replay_selection want;
    const char *filter; /* NULL: none */
    const char *ids;    /* of the rows that are meant */
};

static void check_case(size_t index, const struct selection_case *one)
{
    struct outbox_replay_options options = {.selection = one->want, .rate = 1000000};
    struct filter *filter = NULL;
    char query[300];
    int64_t before = number("SELECT max(id) FROM outbox");

    if (one->filter != NULL)
        assert_ok(filter_parse(wb_str(one->filter), outbox_replay_fields, outbox_replay_field_count,
                               &filter, NULL));
    options.selection.filter = filter;
    open_replay(&options);
    (void)send_all();
    (void)snprintf(query, sizeof(query),
                   "SELECT ifnull(group_concat(substr(headers, instr(headers, '/') + 1)), '')"
                   " = '%s' FROM (SELECT headers FROM outbox WHERE id > %lld ORDER BY id)",
                   one->ids, (long long)before);
    if (number(query) != 1)
        fail_msg("case %zu", index);
    outbox_replay_close(replay);
    replay = NULL;
    filter_destroy(filter);
}

static void outbox_replay_takes_rows_that_all_conditions_mean(void **state)
{
    const struct selection_case cases[] = {
        {{.first_id = 2, .last_id = 3}, NULL, "2,3"},
        {{.since_wall_ns = START + 1000 * WB_MS}, NULL, "2,3,4"},
        {{.until_wall_ns = START + 1000 * WB_MS}, NULL, "1"},
        {{.key = {"k1", 2}}, NULL, "1,3"},
        {{.pattern = {"*.one", 5}}, NULL, "1,3"},
        {{.pattern = {"*.one", 5}, .since_wall_ns = START + 1}, NULL, "3"},
        {{.first_id = 1}, "subject = b.> and payload ~ p4", "4"},
        {{.first_id = 1}, "headers ~ 'X-A: 1' or id in (3)", "1,3"},
        {{.first_id = 1}, "size > 2", ""},
        {{.first_id = 1}, "key != k1", "2,4"},
    };

    (void)state;
    add_mixed_rows();
    verify_up_to("S", 4);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        check_case(i, &cases[i]);
}

static void outbox_replay_merges_the_archive_with_the_table(void **state)
{
    static const char *const patterns[] = {"noise.>"};
    const struct outbox_class class = {
        .name = "noise", .patterns = patterns, .pattern_count = 1, .archive = true};
    struct outbox_replay_options options = {
        .rate = 1000000, .archive_path = archive_path, .plan_only = true};
    struct outbox_replay_plan plan;

    (void)state;
    for (int i = 0; i < 5; i++) {
        add_rows("kept.x", 1, HOUR, 3);
        add_rows("noise.x", 1, 48 * HOUR, 4);
    }
    add_rows("kept.x", 1, HOUR, 3);
    verify_up_to("S", 11);
    struct outbox_retention *retention = open_retention(&class, 1);
    assert_int_equal(run_out(retention), 5);
    outbox_retention_close(retention);
    /* As after a crash between copy and deletion: this one is in both. */
    sql("ATTACH '%s' AS old", archive_path);
    sql("INSERT INTO outbox(id, stream, key, subject, headers, msg_id, created, payload)"
        " SELECT id, stream, key, subject, headers, msg_id, created, payload"
        " FROM old.outbox_archive WHERE id = 4");
    sql("DETACH old");

    open_replay(&options);
    assert_ok(outbox_replay_plan(replay, 2 * HOUR, &plan, NULL));
    assert_int_equal(plan.rows, 11);
    assert_int_equal(plan.archived, 4);
    assert_int_equal(plan.bytes, 6 * 3 + 5 * 4);
    assert_int_equal(plan.first_id, 1);
    assert_int_equal(plan.last_id, 11);
    assert_int_equal(plan.in_window, 6);
    assert_int_equal(plan.took_ns, 11000);
    outbox_replay_close(replay);
    replay = NULL;

    options.plan_only = false;
    open_replay(&options);
    assert_int_equal(send_all(), 11);
    /* In the order of the old ones. */
    assert_int_equal(number("SELECT count(*) FROM outbox WHERE id > 11 AND"
                            " CAST(substr(headers, instr(headers, '/') + 1) AS INTEGER) = id - 11"),
                     11);
}

static void outbox_replay_keeps_to_its_rate_and_holds_what_it_needs(void **state)
{
    const struct outbox_replay_options options = {.rate = 100};
    struct outbox_replay_progress progress = {0};
    struct wb_why why;

    (void)state;
    add_rows("a.b", 50, 48 * HOUR, 3);
    verify_up_to("S", 50);
    open_replay(&options);
    now.wall_ns = wb_wall_ns(wb_clock_system());
    int64_t start = wb_mono_ns(&now.clock);
    assert_ok(outbox_replay_step(replay, &progress, &why));
    assert_int_equal(progress.rows, 5);
    assert_int_equal(progress.last_id, 5);
    assert_int_equal(progress.wait_ns, 50 * WB_MS);
    wb_clock_virtual_advance(&now, progress.wait_ns);
    assert_ok(outbox_replay_step(replay, &progress, &why));
    /* Retention must not take what comes next. */
    struct outbox_retention *retention = open_retention(NULL, 0);
    assert_int_equal(run_out(retention), 5);
    outbox_retention_close(retention);
    assert_int_equal(number("SELECT min(id) FROM outbox"), 6);
    wb_clock_virtual_advance(&now, progress.wait_ns);
    assert_int_equal(send_all(), 50);
    assert_true(wb_mono_ns(&now.clock) - start >= 400 * WB_MS);
}

static void outbox_replay_to_another_subject_leaves_the_stream_to_it(void **state)
{
    const struct outbox_replay_options options = {.to_subject = wb_str("copy.of.it")};

    (void)state;
    sql("INSERT INTO outbox(stream, subject, payload) VALUES('S', 'a.b', 'x')");
    verify_up_to("S", 1);
    open_replay(&options);
    assert_int_equal(send_all(), 1);
    assert_int_equal(
        number("SELECT count(*) FROM outbox WHERE subject = 'copy.of.it' AND stream = ''"), 1);
}

static void outbox_replay_of_bad_input_changes_nothing(void **state)
{
    struct outbox_replay_options options = {.path = path, .to_subject = wb_str("a..b")};
    struct wb_why why = {""};

    (void)state;
    add_mixed_rows();
    assert_err(outbox_replay_open(&options, &replay, &why), WB_INVALID);
    options.to_subject = (struct wb_str){NULL, 0};
    options.selection.pattern = wb_str("a..b");
    assert_err(outbox_replay_open(&options, &replay, &why), WB_INVALID);
    options.selection.pattern = (struct wb_str){NULL, 0};
    options.archive_path = path;
    assert_err(outbox_replay_open(&options, &replay, &why), WB_NOT_FOUND);
    options.archive_path = "/nowhere/at/all";
    assert_err(outbox_replay_open(&options, &replay, &why), WB_NOT_FOUND);
    assert_null(replay);
    assert_int_equal(number("SELECT count(*) FROM outbox"), 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(outbox_replay_writes_new_rows_that_name_the_old),
        T(outbox_replay_takes_published_rows_only),
        T(outbox_replay_sends_what_was_sent),
        T(outbox_replay_takes_rows_that_all_conditions_mean),
        T(outbox_replay_merges_the_archive_with_the_table),
        T(outbox_replay_keeps_to_its_rate_and_holds_what_it_needs),
        T(outbox_replay_to_another_subject_leaves_the_stream_to_it),
        T(outbox_replay_of_bad_input_changes_nothing),
#undef T
    };
    return cmocka_run_group_tests_name("outbox_replay", tests, NULL, NULL);
}
