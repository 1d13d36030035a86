/* Back-pressure: classes with limits, and a disk that is full. */
#include "outbox_fixture.h"

#include <sys/mount.h>

static wb_err enqueue(struct fixture *f, const char *subject, struct wb_why *why)
{
    const struct outbox_event event = {.subject = wb_str(subject), .payload = {"0123456789", 10}};

    assert_ok(db_begin(f->db, NULL));
    wb_err err = outbox_enqueue(f->outbox, &event, NULL, why);
    assert_ok(db_commit(f->db, NULL));
    return err;
}

static const char *const bulk[] = {"bulk.>"};
static const char *const any[] = {">"};

static void class_takes_rows_up_to_its_limit_and_others_go_on(void **state)
{
    struct fixture *f = *state;
    const struct outbox_class classes[] = {
        {.name = "bulk", .patterns = bulk, .pattern_count = 1, .max_pending_rows = 3},
        {.name = "rest", .patterns = any, .pattern_count = 1}};
    struct wb_why why = {.text = ""};

    outbox_use_classes(f->outbox, classes, 2);
    assert_ok(enqueue(f, "bulk.a", NULL));
    assert_ok(enqueue(f, "a.b", NULL));
    assert_ok(enqueue(f, "bulk.a", NULL));
    assert_err(enqueue(f, "bulk.a", &why), WB_FULL);
    assert_int_equal(wb_err_class(WB_FULL), WB_RETRY);
    assert_non_null(strstr(why.text, "3 rows with 30 bytes"));
    assert_non_null(strstr(why.text, "class bulk allows 3 rows"));
    assert_ok(enqueue(f, "a.b", NULL));
    assert_int_equal(query_int(f, "SELECT count(*) FROM outbox"), 4);

    /* The publisher comes along: at once, however fresh the last look. */
    assert_ok(db_exec(f->db, "INSERT INTO outbox_cursor(stream, last_id) VALUES('A', 3)", NULL));
    assert_ok(enqueue(f, "bulk.a", NULL));
    assert_ok(enqueue(f, "bulk.a", NULL));
    assert_err(enqueue(f, "bulk.a", NULL), WB_FULL);

    outbox_use_classes(f->outbox, NULL, 0);
    assert_ok(enqueue(f, "bulk.a", NULL));
}

static void limit_of_rows_holds_within_one_transaction_and_for_rows_of_others(void **state)
{
    struct fixture *f = *state;
    const struct outbox_class class = {
        .name = "all", .patterns = any, .pattern_count = 1, .max_pending_rows = 1000};
    const struct outbox_event event = {.subject = {"a.b", 3}, .payload = {"x", 1}};
    int taken = 0;

    outbox_use_classes(f->outbox, &class, 1);
    assert_ok(db_begin(f->db, NULL));
    while (outbox_enqueue(f->outbox, &event, NULL, NULL) == WB_OK)
        taken++;
    assert_int_equal(taken, 1000);
    db_rollback(f->db);
    assert_ok(enqueue(f, "a.b", NULL));

    /* Written by hand, seen at the next look. */
    assert_ok(db_exec(f->db,
                      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i <"
                      " 2000) INSERT INTO outbox(subject) SELECT 'a.b' FROM n",
                      NULL));
    taken = 0;
    while (enqueue(f, "a.b", NULL) == WB_OK)
        taken++;
    assert_in_range(taken, 0, 256);
}

static void limit_of_bytes_counts_what_is_not_published(void **state)
{
    struct fixture *f = *state;
    const struct outbox_class class = {
        .name = "all", .patterns = any, .pattern_count = 1, .max_pending_bytes = 100};
    struct wb_why why;

    outbox_use_classes(f->outbox, &class, 1);
    for (int i = 0; i < 10; i++)
        assert_ok(enqueue(f, "a.b", NULL));
    assert_err(enqueue(f, "a.b", &why), WB_FULL);
    assert_non_null(strstr(why.text, "100 bytes"));
    assert_ok(db_exec(f->db, "INSERT INTO outbox_cursor(stream, last_id) VALUES('A', 4)", NULL));
    for (int i = 0; i < 4; i++)
        assert_ok(enqueue(f, "a.b", NULL));
    assert_err(enqueue(f, "a.b", NULL), WB_FULL);
    assert_ok(db_exec(f->db, "UPDATE outbox_cursor SET last_id = 14", NULL));
    for (int i = 0; i < 10; i++)
        assert_ok(enqueue(f, "a.b", NULL));
    assert_err(enqueue(f, "a.b", NULL), WB_FULL);
}

static void bytes_of_a_long_backlog_are_extrapolated(void **state)
{
    struct fixture *f = *state;
    const struct outbox_class class = {
        .name = "all", .patterns = any, .pattern_count = 1, .max_pending_bytes = 99999};
    struct wb_why why = {.text = ""};

    assert_ok(db_exec(f->db,
                      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i <"
                      " 10000) INSERT INTO outbox(subject, payload) SELECT 'a.b', zeroblob(10)"
                      " FROM n",
                      NULL));
    outbox_use_classes(f->outbox, &class, 1);
    assert_err(enqueue(f, "a.b", &why), WB_FULL);
    assert_non_null(strstr(why.text, "with 100000 bytes"));
}

static void limit_of_age_looks_at_the_oldest(void **state)
{
    struct fixture *f = *state;
    const struct outbox_class class = {
        .name = "all", .patterns = any, .pattern_count = 1, .max_pending_age_ns = 3600 * WB_SEC};

    outbox_use_classes(f->outbox, &class, 1);
    assert_ok(enqueue(f, "a.b", NULL));
    assert_ok(db_exec(f->db, "INSERT INTO outbox_cursor(stream, last_id) VALUES('A', 1)", NULL));
    assert_ok(db_exec(f->db, "INSERT INTO outbox(subject, created) VALUES('a.b', 1000)", NULL));
    outbox_use_classes(f->outbox, &class, 1); /* looks anew */
    assert_err(enqueue(f, "a.b", NULL), WB_FULL);
    assert_ok(db_exec(f->db, "UPDATE outbox_cursor SET last_id = 2", NULL));
    assert_ok(enqueue(f, "a.b", NULL));
}

static void class_that_warns_takes_everything(void **state)
{
    struct fixture *f = *state;
    const struct outbox_class class = {
        .name = "all", .patterns = any, .pattern_count = 1, .max_pending_rows = 1, .warn = true};

    outbox_use_classes(f->outbox, &class, 1);
    for (int i = 0; i < 5; i++)
        assert_ok(enqueue(f, "a.b", NULL));
    assert_int_equal(query_int(f, "SELECT count(*) FROM outbox"), 5);
}

static void full_disk_is_told_and_what_was_committed_stays(void **state)
{
    static char payload[20000];
    struct fixture f = {.path = ""};
    const struct outbox_event event = {.subject = {"a.b", 3},
                                       .payload = {payload, sizeof(payload)}};
    int64_t committed = 0;
    wb_err err = WB_OK;

    (void)state;
    test_dir_make(f.dir);
    test_mount_tmpfs(f.dir, "size=2m");
    fixture_open(&f);
    while (err == WB_OK && committed < 1000) {
        assert_ok(db_begin(f.db, NULL));
        err = outbox_enqueue(f.outbox, &event, NULL, NULL);
        if (err == WB_OK)
            err = db_commit(f.db, NULL);
        else
            db_rollback(f.db);
        committed += err == WB_OK ? 1 : 0;
    }
    assert_int_equal(err, WB_DISK_FULL);
    assert_in_range(committed, 10, 200);
    assert_int_equal(query_int(&f, "SELECT count(*) FROM outbox"), committed);
    assert_int_equal(mount("tmpfs", f.dir, "tmpfs", MS_REMOUNT, "size=8m"), 0);
    assert_ok(enqueue(&f, "a.b", NULL)); /* the same handle goes on */
    fixture_close(&f);
    assert_int_equal(umount(f.dir), 0);
    test_dir_remove(f.dir);
}

int main(void)
{
    test_mount_allow();
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(class_takes_rows_up_to_its_limit_and_others_go_on),
        T(limit_of_rows_holds_within_one_transaction_and_for_rows_of_others),
        T(limit_of_bytes_counts_what_is_not_published),
        T(bytes_of_a_long_backlog_are_extrapolated),
        T(limit_of_age_looks_at_the_oldest),
        T(class_that_warns_takes_everything),
        cmocka_unit_test(full_disk_is_told_and_what_was_committed_stays),
    };
    return cmocka_run_group_tests_name("outbox_limit", tests, NULL, NULL);
}
