/* A full disk: what is refused, what goes on, and that all is well again once there is space. */
#include "outbox_retention_fixture.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>

static char ballast[300], reserve[320];

static int setup(void **state)
{
    (void)fixture_setup(state);
    db_close(db);
    test_mount_tmpfs(dir, "size=10m");
    (void)snprintf(ballast, sizeof(ballast), "%s/ballast", dir);
    (void)snprintf(reserve, sizeof(reserve), "%s-reserve", path);
    struct outbox *outbox;
    assert_ok(db_open(path, &(struct db_options){.sync = DB_SYNC_NORMAL}, &db, NULL));
    assert_ok(outbox_attach(db_handle(db), &outbox, NULL));
    outbox_detach(outbox);
    return 0;
}

static int teardown(void **state)
{
    db_close(db);
    db = NULL;
    (void)umount(dir);
    return fixture_teardown(state);
}

static void disk_fill(void)
{
    static const char block[4096] = "full";
    int fd = open(ballast, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    while (write(fd, block, sizeof(block)) > 0)
        ;
    close(fd);
}

static wb_err enqueue(struct outbox *outbox, struct wb_why *why)
{
    static char payload[2000];
    const struct outbox_event event = {.subject = wb_str("a.b"),
                                       .payload = {payload, sizeof(payload)}};
    wb_err err = db_begin(db, why);

    if (err == WB_OK)
        err = outbox_enqueue(outbox, &event, NULL, why);
    if (err == WB_OK)
        err = db_commit(db, why);
    db_rollback(db);
    return err;
}

static void outbox_enqueue_on_a_full_disk_fails_and_works_again_without_a_restart(void **state)
{
    struct outbox *outbox = NULL;
    struct wb_why why = {""};
    wb_err err = WB_OK;
    int64_t taken = 0;

    (void)state;
    assert_ok(outbox_attach(db_handle(db), &outbox, NULL));
    assert_ok(enqueue(outbox, NULL));
    disk_fill();
    for (taken = 1; taken < 100 && (err = enqueue(outbox, &why)) == WB_OK; taken++)
        ;
    assert_err(err, WB_DISK_FULL);
    assert_non_null(strstr(why.text, "free space"));
    assert_int_equal(number("SELECT count(*) FROM outbox"), taken);
    assert_err(enqueue(outbox, &why), WB_DISK_FULL);
    assert_int_equal(unlink(ballast), 0);
    assert_ok(enqueue(outbox, &why));
    assert_int_equal(number("SELECT count(*) FROM outbox"), taken + 1);
    assert_int_equal(number("SELECT count(*) FROM pragma_integrity_check"
                            " WHERE integrity_check <> 'ok'"),
                     0);
    outbox_detach(outbox);
}

static void outbox_retention_lets_rows_go_on_a_full_disk_so_that_work_goes_on(void **state)
{
    struct outbox_retention_result result = {.more = true};
    struct outbox *outbox = NULL;
    struct wb_why why = {""};
    int refusals = 0;

    (void)state;
    assert_ok(outbox_attach(db_handle(db), &outbox, NULL));
    add_rows("a.b", 1000, 48 * HOUR, 1500);
    verify_up_to("S", 1000);
    assert_ok(db_exec(db, "PRAGMA wal_checkpoint(TRUNCATE)", NULL));
    struct outbox_retention *retention = open_retention(NULL, 0);
    assert_int_equal(access(reserve, F_OK), 0);
    disk_fill();
    while (enqueue(outbox, &why) == WB_OK)
        ;
    assert_err(enqueue(outbox, &why), WB_DISK_FULL);
    for (int i = 0; i < 100 && result.more; i++) {
        wb_err err = outbox_retention_step(retention, &result, &why);
        refusals += err == WB_DISK_FULL;
        if (err != WB_OK && err != WB_DISK_FULL)
            fail_msg("%s", why.text);
    }
    assert_false(result.more);
    assert_int_equal(refusals, 1);
    assert_true(number("SELECT count(*) FROM outbox WHERE id <= 1000") <= 1);
    /* It does not take the space again that the others need now. */
    assert_int_equal(access(reserve, F_OK), -1);
    for (int i = 0; i < 300; i++) {
        assert_ok(enqueue(outbox, &why));
        if (i % 50 == 0) /* as a checkpointer does */
            assert_ok(db_exec(db, "PRAGMA wal_checkpoint(TRUNCATE)", NULL));
    }
    assert_int_equal(unlink(ballast), 0);
    (void)run_out(retention);
    assert_int_equal(access(reserve, F_OK), 0);
    outbox_retention_close(retention);
    outbox_detach(outbox);
}

static void outbox_retention_without_space_for_the_archive_lets_nothing_go(void **state)
{
    static const char *const patterns[] = {">"};
    const struct outbox_class class = {
        .name = "all", .patterns = patterns, .pattern_count = 1, .archive = true};
    struct outbox_retention_result result = {.more = true};
    struct wb_why why = {""};

    (void)state;
    add_rows("a.b", 1000, 48 * HOUR, 1500);
    verify_up_to("S", 1000);
    struct outbox_retention *retention = open_retention(&class, 1);
    disk_fill();
    int refusals = 0;
    for (int i = 0; i < 10; i++) {
        refusals += outbox_retention_step(retention, &result, &why) == WB_DISK_FULL;
        assert_int_equal(result.rows, 0);
    }
    assert_true(refusals >= 5); /* the others looked for rows of no class */
    assert_int_equal(number("SELECT count(*) FROM outbox"), 1000);
    assert_int_equal(unlink(ballast), 0);
    assert_int_equal(run_out(retention), 999);
    outbox_retention_close(retention);
    assert_int_equal(number_in_archive("SELECT count(*) FROM outbox_archive"), 999);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(outbox_enqueue_on_a_full_disk_fails_and_works_again_without_a_restart),
        T(outbox_retention_lets_rows_go_on_a_full_disk_so_that_work_goes_on),
        T(outbox_retention_without_space_for_the_archive_lets_nothing_go),
#undef T
    };
    test_mount_allow();
    return cmocka_run_group_tests_name("outbox_retention_full_disk", tests, NULL, NULL);
}
