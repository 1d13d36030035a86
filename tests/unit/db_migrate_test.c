/* Migrations: each component's tables by version, in one transaction. */
#include "test_support.h"

#include <sqlite3.h>
#include <stdio.h>

#include <waybill/db.h>

static const struct db_migration steps[] = {
    {"CREATE TABLE thing(id INTEGER PRIMARY KEY); INSERT INTO thing VALUES(1)"},
    {"ALTER TABLE thing ADD COLUMN name TEXT DEFAULT 'unnamed'"},
    {"CREATE TABLE broken(id INTEGER PRIMARY KEY); CREATE TABL oops(id)"},
};

static char dir[256];
static char path[300];
static struct db *db;

static int setup(void **state)
{
    (void)state;
    test_dir_make(dir);
    snprintf(path, sizeof(path), "%s/test.db", dir);
    assert_ok(db_open(path, NULL, &db, NULL));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    db_close(db);
    test_dir_remove(dir);
    return 0;
}

static unsigned version_of(const char *component)
{
    unsigned version = 99;

    assert_ok(db_schema_version(db_handle(db), component, &version, NULL));
    return version;
}

static void db_migrate_brings_an_empty_database_up_step_by_step(void **state)
{
    (void)state;
    assert_int_equal(version_of("thing"), 0);
    assert_ok(db_migrate(db_handle(db), "thing", steps, 1, NULL));
    assert_int_equal(version_of("thing"), 1);
    assert_ok(db_migrate(db_handle(db), "thing", steps, 2, NULL));
    assert_int_equal(version_of("thing"), 2);
    assert_ok(db_exec(db, "SELECT name FROM thing", NULL));
    assert_int_equal(version_of("other"), 0);
}

static void db_migrate_that_is_up_to_date_does_not_write(void **state)
{
    (void)state;
    assert_ok(db_migrate(db_handle(db), "thing", steps, 2, NULL));
    int before = sqlite3_total_changes(db_handle(db));
    struct sqlite3 *foreign = NULL;
    assert_int_equal(sqlite3_open(path, &foreign), SQLITE_OK);
    assert_int_equal(sqlite3_exec(foreign, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    /* It would be busy if it wrote. */
    assert_ok(db_migrate(db_handle(db), "thing", steps, 2, NULL));
    sqlite3_close(foreign);
    assert_int_equal(sqlite3_total_changes(db_handle(db)), before);
}

static void db_migrate_of_a_newer_version_is_unsupported(void **state)
{
    struct wb_why why = {""};

    (void)state;
    assert_ok(db_migrate(db_handle(db), "thing", steps, 2, NULL));
    assert_err(db_migrate(db_handle(db), "thing", steps, 1, &why), WB_UNSUPPORTED);
    assert_non_null(strstr(why.text, "newer program"));
    /* That can be told without waiting for a writer. */
    struct sqlite3 *foreign = NULL;
    assert_int_equal(sqlite3_open(path, &foreign), SQLITE_OK);
    assert_ok(db_begin(db, NULL));
    assert_err(db_migrate(foreign, "thing", steps, 1, NULL), WB_UNSUPPORTED);
    db_rollback(db);
    sqlite3_close(foreign);
    assert_int_equal(version_of("thing"), 2);
}

static void db_migrate_with_a_failing_step_changes_nothing(void **state)
{
    struct wb_why why = {""};

    (void)state;
    assert_err(db_migrate(db_handle(db), "thing", steps, 3, &why), WB_INVALID);
    assert_non_null(strstr(why.text, "version 3"));
    assert_int_equal(version_of("thing"), 0);
    assert_err(db_exec(db, "SELECT 1 FROM thing", NULL), WB_INVALID);
    assert_int_equal(sqlite3_get_autocommit(db_handle(db)), 1);
}

static void db_migrate_joins_the_callers_transaction(void **state)
{
    (void)state;
    assert_ok(db_begin(db, NULL));
    assert_ok(db_exec(db, "CREATE TABLE mine(x)", NULL));
    assert_err(db_migrate(db_handle(db), "thing", steps, 3, NULL), WB_INVALID);
    assert_ok(db_exec(db, "SELECT 1 FROM mine", NULL)); /* the caller's work is still there */
    assert_ok(db_migrate(db_handle(db), "thing", steps, 2, NULL));
    assert_int_equal(sqlite3_get_autocommit(db_handle(db)), 0);
    db_rollback(db);
    assert_int_equal(version_of("thing"), 0);
}

static void db_migrate_while_another_writes_is_busy_on_an_impatient_handle(void **state)
{
    struct sqlite3 *impatient = NULL;

    (void)state;
    assert_int_equal(sqlite3_open(path, &impatient), SQLITE_OK);
    assert_ok(db_begin(db, NULL));
    assert_err(db_migrate(impatient, "thing", steps, 1, NULL), WB_BUSY);
    db_rollback(db);
    assert_ok(db_migrate(impatient, "thing", steps, 1, NULL));
    sqlite3_close(impatient);
}

static void db_schema_version_out_of_range_is_corrupt(void **state)
{
    unsigned version = 0;

    (void)state;
    assert_ok(db_migrate(db_handle(db), "thing", steps, 1, NULL));
    assert_ok(db_exec(db, "UPDATE waybill_schema SET version = -1", NULL));
    assert_err(db_schema_version(db_handle(db), "thing", &version, NULL), WB_CORRUPT);
    assert_err(db_migrate(db_handle(db), "thing", steps, 2, NULL), WB_CORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(db_migrate_brings_an_empty_database_up_step_by_step),
        T(db_migrate_that_is_up_to_date_does_not_write),
        T(db_migrate_of_a_newer_version_is_unsupported),
        T(db_migrate_with_a_failing_step_changes_nothing),
        T(db_migrate_joins_the_callers_transaction),
        T(db_migrate_while_another_writes_is_busy_on_an_impatient_handle),
        T(db_schema_version_out_of_range_is_corrupt),
#undef T
    };
    return cmocka_run_group_tests_name("db_migrate", tests, NULL, NULL);
}
