/* Out of memory: each allocation of the inbox fails once, and nothing is left behind. */
#include "test_nomem.h"
#include "test_support.h"

#include <stdio.h>

#include <waybill/db.h>
#include <waybill/inbox.h>

static char dir[256];
static struct db *db;

static int setup(void **state)
{
    char path[300];

    (void)state;
    test_dir_make(dir);
    snprintf(path, sizeof(path), "%s/test.db", dir);
    assert_ok(db_open(path, NULL, &db, NULL));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    test_nomem_after(-1);
    db_close(db);
    test_dir_remove(dir);
    return 0;
}

static wb_err park_one(void)
{
    const struct message_header header = {wb_str("name"), wb_str("value")};
    const struct message msg = {
        .subject = wb_str("a.b"), .headers = &header, .header_count = 1, .msg_id = wb_str("id")};
    const struct inbox_origin origin = {.stream = wb_str("A"), .sequence = 1};
    struct inbox *inbox = NULL;
    wb_err err = inbox_attach(db_handle(db), "c", &inbox, NULL);

    if (err == WB_OK)
        err = db_begin(db, NULL);
    if (err == WB_OK)
        err = inbox_park(inbox, &msg, &origin, "x", NULL);
    if (err == WB_OK)
        err = db_commit(db, NULL);
    db_rollback(db);
    inbox_detach(inbox);
    return err;
}

static void inbox_out_of_memory_leaves_nothing_behind(void **state)
{
    wb_err err = WB_NOMEM;
    int failures = 0;

    (void)state;
    for (; err == WB_NOMEM && failures < 100; failures++) {
        test_nomem_after(failures);
        err = park_one();
        test_nomem_after(-1);
    }
    assert_int_equal(err, WB_OK);
    assert_true(failures > 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(inbox_out_of_memory_leaves_nothing_behind, setup, teardown),
    };
    return cmocka_run_group_tests_name("inbox_nomem", tests, NULL, NULL);
}
