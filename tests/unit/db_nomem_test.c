/* Out of memory: each allocation of ours fails once, and nothing is left behind. */
#include "test_nomem.h"
#include "test_support.h"

#include <stdio.h>

#include <waybill/db.h>

static char dir[256];
static char path[300];

static int setup(void **state)
{
    (void)state;
    test_dir_make(dir);
    snprintf(path, sizeof(path), "%s/test.db", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    test_nomem_after(-1);
    test_dir_remove(dir);
    return 0;
}

static wb_err open_and_close(void)
{
    struct db *db = NULL;
    wb_err err = db_open(path, NULL, &db, NULL);

    assert_true((err == WB_OK) == (db != NULL));
    db_close(db);
    return err;
}

static wb_err barrier(void)
{
    struct db_barrier *made = NULL;
    wb_err err = db_barrier_create(path, &made, NULL);

    assert_true((err == WB_OK) == (made != NULL));
    db_barrier_destroy(made);
    return err;
}

static wb_err role(void)
{
    struct db_role *made = NULL;
    wb_err err = db_role_open(path, &made, NULL);

    assert_true((err == WB_OK) == (made != NULL));
    db_role_close(made);
    return err;
}

/* Fail the first allocation, then the second, ... until it succeeds. */
static void fail_each(wb_err (*operation)(void), int at_least)
{
    wb_err err = WB_NOMEM;
    int failures = 0;

    for (; err == WB_NOMEM && failures < 100; failures++) {
        test_nomem_after(failures);
        err = operation();
        test_nomem_after(-1);
    }
    assert_int_equal(err, WB_OK);
    assert_true(failures > at_least);
}

static void db_open_out_of_memory_leaves_nothing_behind(void **state)
{
    (void)state;
    fail_each(open_and_close, 2);
}

static void db_barrier_create_out_of_memory_leaves_nothing_behind(void **state)
{
    (void)state;
    fail_each(barrier, 2);
}

static void db_role_open_out_of_memory_leaves_nothing_behind(void **state)
{
    (void)state;
    fail_each(role, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(db_open_out_of_memory_leaves_nothing_behind),
        T(db_barrier_create_out_of_memory_leaves_nothing_behind),
        T(db_role_open_out_of_memory_leaves_nothing_behind),
#undef T
    };
    return cmocka_run_group_tests_name("db_nomem", tests, NULL, NULL);
}
