/* Retention: which rows go, by age, rows, bytes and class, and which never do. */
#include "outbox_retention_fixture.h"

static const char *const audit_patterns[] = {"audit.>"};
static const char *const noise_patterns[] = {"noise.*", "debug.>"};

static void outbox_retention_lets_confirmed_rows_go_after_a_day(void **state)
{
    (void)state;
    add_rows("a.b", 10, 25 * HOUR, 10);
    add_rows("a.b", 10, 23 * HOUR, 10);
    add_rows("a.b", 1, 0, 10);
    verify_up_to("S", 21);
    struct outbox_retention *retention = open_retention(NULL, 0);
    assert_int_equal(run_out(retention), 10);
    assert_int_equal(number("SELECT min(id) FROM outbox"), 11);
    assert_int_equal(number("SELECT rows FROM outbox_purged"), 10);
    wb_clock_virtual_advance(&now, 2 * HOUR);
    assert_int_equal(run_out(retention), 10);
    assert_int_equal(number("SELECT count(*) FROM outbox"), 1);
    outbox_retention_close(retention);
}

static void outbox_retention_keeps_what_was_not_read_back(void **state)
{
    (void)state;
    add_rows("a.b", 10, 100 * HOUR, 10);
    sql("INSERT INTO outbox_cursor(stream, last_id, verified_id) VALUES('S', 10, 4), ('T', 10, 7)");
    sql("INSERT INTO outbox(stream, subject, created) VALUES('T', 'x', 1), ('S', 'x', 1),"
        " ('U', 'x', 1), ('T', 'y', 1)");
    struct outbox_retention *retention = open_retention(NULL, 0);
    assert_int_equal(run_out(retention), 4); /* of no stream: what all have read back */
    assert_int_equal(number("SELECT count(*) FROM outbox"), 10);
    verify_up_to("T", 14);
    assert_int_equal(run_out(retention), 1); /* T's own; S and U have not come so far */
    verify_up_to("S", 14);
    wb_clock_virtual_advance(&now, HOUR);
    assert_int_equal(run_out(retention), 0);
    assert_int_equal(run_out(retention), 7); /* rows passed by are looked at again, once an hour */
    assert_int_equal(number("SELECT count(*) FROM outbox WHERE stream = 'U'"), 1);
    outbox_retention_close(retention);
}

static void outbox_retention_keeps_rows_stored_late_until_they_are_read_back(void **state)
{
    (void)state;
    add_rows("a.b", 5, 100 * HOUR, 10);
    verify_up_to("S", 5);
    sql("INSERT INTO outbox_late(row_id, stream, sequence) VALUES(2, 'S', 6)");
    sql("UPDATE outbox_cursor SET verified_seq = 5");
    struct outbox_retention *retention = open_retention(NULL, 0);
    assert_int_equal(run_out(retention), 3);
    assert_int_equal(number("SELECT min(id) FROM outbox"), 2);
    sql("UPDATE outbox_cursor SET verified_seq = 6");
    wb_clock_virtual_advance(&now, 2 * HOUR);
    assert_int_equal(run_out(retention), 0);
    assert_int_equal(run_out(retention), 1);
    outbox_retention_close(retention);
}

static void outbox_retention_never_takes_the_newest_row(void **state)
{
    (void)state;
    add_rows("a.b", 5, 100 * HOUR, 10);
    verify_up_to("S", 5);
    struct outbox_retention *retention = open_retention(NULL, 0);
    assert_int_equal(run_out(retention), 4);
    assert_int_equal(number("SELECT id FROM outbox"), 5);
    outbox_retention_close(retention);
}

static void outbox_retention_keeps_rows_off_the_straight_path_but_for_those_that_ended(void **state)
{
    (void)state;
    add_rows("a.b", 8, 100 * HOUR, 10);
    verify_up_to("S", 8);
    sql("INSERT INTO outbox_exception(id, state) VALUES(1, 'lost'), (2, 'waiting'), (3, 'retry'),"
        " (4, 'blocked'), (5, 'parked'), (6, 'expired'), (7, 'cancelled')");
    sql("INSERT INTO outbox_edit(id, subject, headers, edited_at, payload)"
        " VALUES(5, 'x', '', 0, ''), (6, 'x', '', 0, '')");
    sql("INSERT INTO outbox_idempotency(caller, key, row_id) VALUES('c', '5', 5), ('c', '7', 7)");
    sql("INSERT INTO outbox_late(row_id, stream, sequence) VALUES(6, 'S', 9), (8, 'S', 10)");
    sql("UPDATE outbox_cursor SET verified_seq = 9");
    struct outbox_retention *retention = open_retention(NULL, 0);
    assert_int_equal(run_out(retention), 2);
    assert_int_equal(number("SELECT count(*) FROM outbox WHERE id IN (6, 7)"), 0);
    assert_int_equal(number("SELECT count(*) FROM outbox_exception"), 5);
    assert_int_equal(number("SELECT id FROM outbox_edit"), 5);
    assert_int_equal(number("SELECT row_id FROM outbox_idempotency"), 5);
    assert_int_equal(number("SELECT row_id FROM outbox_late"), 8);
    outbox_retention_close(retention);
}

static void outbox_retention_keeps_what_somebody_holds(void **state)
{
    struct wb_why why;

    (void)state;
    add_rows("a.b", 10, 100 * HOUR, 10);
    verify_up_to("S", 10);
    assert_err(outbox_retention_hold(db_handle(db), "", 1, HOUR, &why), WB_INVALID);
    /* Holds go by the clock of the system, since they are for other processes. */
    now.wall_ns = wb_wall_ns(wb_clock_system());
    assert_ok(outbox_retention_hold(db_handle(db), "replay", 8, HOUR, NULL));
    assert_ok(outbox_retention_hold(db_handle(db), "replay", 4, HOUR, NULL));
    assert_ok(outbox_retention_hold(db_handle(db), "late", 2, -HOUR, NULL));
    struct outbox_retention *retention = open_retention(NULL, 0);
    assert_int_equal(run_out(retention), 3);
    assert_ok(outbox_retention_release(db_handle(db), "replay", NULL));
    assert_int_equal(run_out(retention), 6);
    outbox_retention_close(retention);
}

static void outbox_retention_goes_by_class_of_the_subject(void **state)
{
    const struct outbox_class classes[] = {
        {.name = "audit",
         .patterns = audit_patterns,
         .pattern_count = 1,
         .keep_age_ns = 720 * HOUR},
        {.name = "noise", .patterns = noise_patterns, .pattern_count = 2, .keep_age_ns = HOUR},
    };
    struct outbox_retention_total total;

    (void)state;
    for (int i = 0; i < 3; i++) {
        add_rows("audit.x", 4, 48 * HOUR, 10);
        add_rows("noise.x", 5, 2 * HOUR, 10);
        add_rows("debug.x.y", 1, 2 * HOUR, 10);
        add_rows("other", 2, 2 * HOUR, 10);
        add_rows("not..valid", 1, 48 * HOUR, 10);
    }
    add_rows("z", 1, 0, 10);
    verify_up_to("S", 40);
    struct outbox_retention *retention = open_retention(classes, 2);
    (void)run_out(retention);
    assert_true(outbox_retention_total(retention, 0, &total));
    assert_string_equal(total.name, "audit");
    assert_int_equal(total.rows, 0);
    assert_true(outbox_retention_total(retention, 1, &total));
    assert_int_equal(total.rows, 18);
    assert_int_equal(total.bytes, 15 * (10 + 7) + 3 * (10 + 9));
    assert_true(outbox_retention_total(retention, 2, &total));
    assert_string_equal(total.name, "");
    assert_int_equal(number("SELECT count(*) FROM outbox WHERE subject = 'audit.x'"), 12);
    /* Of no class; the youngest "other" stands before older rows: those behind it wait for it. */
    assert_int_equal(number("SELECT count(*) FROM outbox WHERE subject = 'other'"), 6);
    wb_clock_virtual_advance(&now, 23 * HOUR);
    (void)run_out(retention);
    assert_int_equal(number("SELECT count(*) FROM outbox"), 12 + 1);
    assert_false(outbox_retention_total(retention, 3, &total));
    outbox_retention_close(retention);
}

static void outbox_retention_keeps_the_newest_rows_of_a_class(void **state)
{
    const struct outbox_class class = {
        .name = "noise", .patterns = noise_patterns, .pattern_count = 2, .keep_rows = 7};

    (void)state;
    add_rows("noise.x", 20, HOUR, 10);
    add_rows("other", 5, HOUR, 10);
    verify_up_to("S", 25);
    struct outbox_retention *retention = open_retention(&class, 1);
    assert_int_equal(run_out(retention), 13);
    assert_int_equal(number("SELECT min(id) FROM outbox"), 14);
    add_rows("noise.y", 3, 0, 10);
    assert_int_equal(run_out(retention), 3); /* rows not read back count, but do not go */
    verify_up_to("S", 28);
    assert_int_equal(run_out(retention), 0);
    assert_int_equal(number("SELECT count(*) FROM outbox WHERE subject LIKE 'noise.%%'"), 7);
    outbox_retention_close(retention);
}

static void outbox_retention_keeps_the_newest_bytes_of_a_class(void **state)
{
    const struct outbox_class class = {
        .name = "noise", .patterns = noise_patterns, .pattern_count = 2, .keep_bytes = 1000};

    (void)state;
    add_rows("noise.x", 20, HOUR, 93); /* 100 bytes each with the subject */
    add_rows("other", 1, HOUR, 10);
    verify_up_to("S", 21);
    struct outbox_retention *retention = open_retention(&class, 1);
    assert_int_equal(run_out(retention), 10);
    assert_int_equal(number("SELECT min(id) FROM outbox"), 11);
    outbox_retention_close(retention);
}

static void outbox_retention_counts_anew_when_somebody_else_has_purged(void **state)
{
    const struct outbox_class class = {
        .name = "noise", .patterns = noise_patterns, .pattern_count = 2, .keep_rows = 10};

    (void)state;
    add_rows("noise.x", 30, 48 * HOUR, 10);
    add_rows("noise.x", 5, HOUR, 10);
    verify_up_to("S", 0);
    struct outbox_retention *one = open_retention(&class, 1);
    assert_int_equal(run_out(one), 0); /* it has counted 35 */
    verify_up_to("S", 28);
    struct outbox_retention *other = open_retention(&class, 1);
    assert_int_equal(run_out(other), 28);
    verify_up_to("S", 35);
    /* Seven are left; as counted before it would have let most of them go. The two old ones go. */
    assert_int_equal(run_out(one), 2);
    assert_int_equal(number("SELECT count(*) FROM outbox"), 5);
    outbox_retention_close(other);
    outbox_retention_close(one);
}

static void outbox_retention_dry_run_says_the_same_and_changes_nothing(void **state)
{
    const struct outbox_class classes[] = {
        {.name = "noise",
         .patterns = noise_patterns,
         .pattern_count = 2,
         .keep_rows = 3,
         .archive = true},
    };
    struct outbox_retention_options options = {
        .path = path, .classes = classes, .class_count = 1, .clock = &now.clock, .dry_run = true};
    struct outbox_retention *dry = NULL;
    char reserve[320];

    (void)state;
    add_rows("noise.x", 20, HOUR, 10);
    add_rows("other", 30, 48 * HOUR, 10);
    add_rows("other", 1, HOUR, 10);
    verify_up_to("S", 51);
    assert_ok(outbox_retention_open(&options, &dry, NULL));
    assert_int_equal(run_out(dry), 17 + 30);
    outbox_retention_close(dry);
    assert_int_equal(number("SELECT count(*) FROM outbox"), 51);
    (void)snprintf(reserve, sizeof(reserve), "%s-reserve", path);
    assert_int_equal(access(archive_path, F_OK), -1);
    assert_int_equal(access(reserve, F_OK), -1);
    options.dry_run = false;
    options.older_than_ns = 2 * HOUR; /* age alone counts then */
    assert_ok(outbox_retention_open(&options, &dry, NULL));
    assert_int_equal(run_out(dry), 30);
    outbox_retention_close(dry);
}

static void outbox_retention_works_in_small_steps(void **state)
{
    struct outbox_retention_result result = {0};

    (void)state;
    add_rows("a.b", 1300, 48 * HOUR, 10);
    add_rows("a.b", 1, 0, 10);
    verify_up_to("S", 1301);
    struct outbox_retention *retention = open_retention(NULL, 0);
    assert_ok(outbox_retention_step(retention, &result, NULL));
    assert_int_equal(result.rows, OUTBOX_RETENTION_ROWS);
    assert_true(result.more);
    assert_true(result.next_ns > 0);
    assert_int_equal(run_out(retention), 800);
    assert_ok(outbox_retention_step(retention, &result, NULL));
    assert_int_equal(result.rows, 0);
    assert_ok(outbox_retention_step(retention, &result, NULL));
    assert_true(result.next_ns >= WB_SEC);
    outbox_retention_close(retention);
}

static void outbox_retention_of_a_file_without_an_outbox_is_not_found(void **state)
{
    struct outbox_retention_options options = {.path = path};
    struct outbox_retention *none = NULL;
    char other[300];
    struct db *plain = NULL;

    (void)state;
    (void)snprintf(other, sizeof(other), "%s/plain.db", dir);
    options.path = other;
    assert_err(outbox_retention_open(&options, &none, NULL), WB_NOT_FOUND);
    assert_ok(db_open(other, NULL, &plain, NULL));
    db_close(plain);
    assert_err(outbox_retention_open(&options, &none, NULL), WB_NOT_FOUND);
    assert_null(none);
    outbox_retention_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        T(outbox_retention_lets_confirmed_rows_go_after_a_day),
        T(outbox_retention_keeps_what_was_not_read_back),
        T(outbox_retention_keeps_rows_stored_late_until_they_are_read_back),
        T(outbox_retention_never_takes_the_newest_row),
        T(outbox_retention_keeps_rows_off_the_straight_path_but_for_those_that_ended),
        T(outbox_retention_keeps_what_somebody_holds),
        T(outbox_retention_goes_by_class_of_the_subject),
        T(outbox_retention_keeps_the_newest_rows_of_a_class),
        T(outbox_retention_keeps_the_newest_bytes_of_a_class),
        T(outbox_retention_counts_anew_when_somebody_else_has_purged),
        T(outbox_retention_dry_run_says_the_same_and_changes_nothing),
        T(outbox_retention_works_in_small_steps),
        T(outbox_retention_of_a_file_without_an_outbox_is_not_found),
#undef T
    };
    return cmocka_run_group_tests_name("outbox_retention", tests, NULL, NULL);
}
