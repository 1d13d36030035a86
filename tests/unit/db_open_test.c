/* Opening a database: new files, their rights, and everything that may stand in the way. */
#include "test_db.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

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
    test_dir_remove(dir);
    return 0;
}

static void file_write(const char *name, const void *data, size_t len)
{
    FILE *file = fopen(name, "w");

    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

static unsigned mode_of(const char *suffix)
{
    char name[320];
    struct stat st;

    snprintf(name, sizeof(name), "%s%s", path, suffix);
    assert_int_equal(stat(name, &st), 0);
    return st.st_mode & 0777;
}

static void db_open_new_file_and_companions_have_mode_0600_whatever_the_umask(void **state)
{
    struct db *db = NULL;
    mode_t before = umask(0);

    (void)state;
    assert_ok(db_open(path, NULL, &db, NULL));
    assert_ok(db_exec(db, "CREATE TABLE t(x)", NULL));
    umask(before);
    assert_int_equal(mode_of(""), 0600);
    assert_int_equal(mode_of("-wal"), 0600);
    assert_int_equal(mode_of("-shm"), 0600);
    assert_int_equal(mode_of("-queue"), 0600);
    assert_string_equal(db_path(db), path);
    db_close(db);
}

static void db_open_configures_the_connection(void **state)
{
    const struct db_options normal = {.sync = DB_SYNC_NORMAL};
    struct db *db = NULL, *other = NULL;
    int on = -1;

    (void)state;
    assert_ok(db_open(path, NULL, &db, NULL));
    assert_ok(db_open(path, &normal, &other, NULL));
    assert_int_equal(test_query(db, "SELECT journal_mode = 'wal' FROM pragma_journal_mode"), 1);
    assert_int_equal(test_query(db, "PRAGMA synchronous"), 2);
    assert_int_equal(test_query(other, "PRAGMA synchronous"), 1);
    assert_int_equal(test_query(db, "PRAGMA wal_autocheckpoint"), 0);
    assert_int_equal(test_query(db, "PRAGMA foreign_keys"), 1);
    assert_int_equal(test_query(db, "PRAGMA trusted_schema"), 0);
    assert_int_equal(test_query(db, "PRAGMA journal_size_limit"), 33554432);
    sqlite3_db_config(db_handle(db), SQLITE_DBCONFIG_DEFENSIVE, -1, &on);
    assert_int_equal(on, 1);
    db_close(other);
    db_close(db);
}

static void db_open_absent_file_that_must_exist_is_not_found(void **state)
{
    const struct db_options options = {.must_exist = true};
    const struct db_options read_only = {.read_only = true};
    struct db *db = NULL;
    struct wb_why why = {""};

    (void)state;
    assert_err(db_open(path, &options, &db, &why), WB_NOT_FOUND);
    assert_non_null(strstr(why.text, path));
    assert_err(db_open(path, &read_only, &db, NULL), WB_NOT_FOUND);
    assert_null(db);
    assert_int_equal(access(path, F_OK), -1);
}

static void db_open_in_an_absent_directory_is_not_found(void **state)
{
    struct db *db = NULL;
    char deep[320];

    (void)state;
    snprintf(deep, sizeof(deep), "%s/none/test.db", dir);
    assert_err(db_open(deep, NULL, &db, NULL), WB_NOT_FOUND);
}

static void db_open_of_no_regular_file_is_invalid(void **state)
{
    struct db *db = NULL;

    (void)state;
    assert_err(db_open(dir, NULL, &db, NULL), WB_INVALID);
    assert_err(db_open("", NULL, &db, NULL), WB_INVALID);
    assert_err(db_open(":memory:", NULL, &db, NULL), WB_INVALID);
    assert_null(db);
}

static void db_open_of_a_file_that_is_no_database_is_corrupt_with_a_next_step(void **state)
{
    char text[4096];
    struct db *db = NULL;
    struct wb_why why = {""};

    (void)state;
    memset(text, 'x', sizeof(text));
    file_write(path, text, sizeof(text));
    assert_err(db_open(path, NULL, &db, &why), WB_CORRUPT);
    assert_null(db);
    assert_non_null(strstr(why.text, path));
    assert_non_null(strstr(why.text, "backup"));
}

static void db_open_with_a_damaged_schema_page_is_corrupt(void **state)
{
    struct db *db = NULL;
    struct wb_why why = {""};

    (void)state;
    assert_ok(db_open(path, NULL, &db, NULL));
    assert_ok(db_exec(db, "CREATE TABLE t(x)", NULL));
    db_close(db);
    db = NULL;
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    char noise[3000];
    memset(noise, 0xa5, sizeof(noise));
    assert_int_equal(pwrite(fd, noise, sizeof(noise), 100), sizeof(noise));
    close(fd);
    assert_err(db_open(path, NULL, &db, &why), WB_CORRUPT);
    assert_null(db);
}

static void db_statement_on_a_damaged_page_is_corrupt(void **state)
{
    struct db *db = NULL;
    struct wb_why why = {""};
    char noise[4096];

    (void)state;
    assert_ok(db_open(path, NULL, &db, NULL));
    assert_ok(db_exec(db, "CREATE TABLE t(x); INSERT INTO t VALUES('kept')", NULL));
    db_close(db);
    int fd = open(path, O_RDWR);
    memset(noise, 0xa5, sizeof(noise));
    assert_int_equal(pwrite(fd, noise, sizeof(noise), 4096), sizeof(noise));
    close(fd);
    assert_ok(db_open(path, NULL, &db, NULL));
    assert_err(db_exec(db, "SELECT * FROM t", &why), WB_CORRUPT);
    assert_non_null(strstr(why.text, "integrity_check"));
    db_close(db);
}

static void db_open_refuses_a_lock_file_that_is_a_symbolic_link(void **state)
{
    struct db *db = NULL;
    char queue[320], target[320];

    (void)state;
    snprintf(queue, sizeof(queue), "%s-queue", path);
    snprintf(target, sizeof(target), "%s/target", dir);
    assert_int_equal(symlink(target, queue), 0);
    assert_err(db_open(path, NULL, &db, NULL), WB_INVALID);
    assert_int_equal(access(target, F_OK), -1);
}

/* Permissions do not bind root, who runs these tests in containers; mounts do. */
static void db_open_on_a_read_only_file_system_is_read_only(void **state)
{
    const struct db_options read_only = {.read_only = true};
    struct db *db = NULL;
    struct wb_why why = {""};

    (void)state;
    test_mount_tmpfs(dir, "size=2m");
    wb_err made = db_open(path, NULL, &db, NULL);
    wb_err filled = made == WB_OK ? db_exec(db, "CREATE TABLE t(x)", NULL) : made;
    db_close(db);
    db = NULL;
    int remounted = mount("tmpfs", dir, "tmpfs", MS_REMOUNT | MS_RDONLY, NULL);
    wb_err existing = db_open(path, NULL, &db, &why);
    char absent_path[320];
    snprintf(absent_path, sizeof(absent_path), "%s/absent.db", dir);
    wb_err absent = db_open(absent_path, NULL, &db, NULL);
    /* Without the right to make -shm SQLite cannot even read a database in WAL mode. */
    wb_err reading = db_open(path, &read_only, &db, NULL);
    db_close(db);
    umount(dir);

    assert_int_equal(made, WB_OK);
    assert_int_equal(filled, WB_OK);
    assert_int_equal(remounted, 0);
    assert_int_equal(existing, WB_READ_ONLY);
    assert_non_null(strstr(why.text, "writable"));
    assert_int_equal(absent, WB_READ_ONLY);
    assert_true(reading != WB_OK);
}

static void db_read_only_connection_reads_and_refuses_to_write(void **state)
{
    const struct db_options read_only = {.read_only = true};
    struct db *db = NULL, *reader = NULL;

    (void)state;
    assert_ok(db_open(path, NULL, &db, NULL));
    assert_ok(db_exec(db, "CREATE TABLE t(x); INSERT INTO t VALUES(7)", NULL));
    assert_ok(db_open(path, &read_only, &reader, NULL));
    assert_int_equal(test_query(reader, "SELECT x FROM t"), 7);
    assert_err(db_begin(reader, NULL), WB_READ_ONLY);
    assert_err(db_exec(reader, "DELETE FROM t", NULL), WB_READ_ONLY);
    db_close(reader);
    db_close(db);
}

/* Insert rows until the disk is full; the number of rows committed. */
static int fill(struct db *db, wb_err *ret_err, struct wb_why *why)
{
    int rows = 0;

    for (; rows < 1000; rows++) {
        *ret_err = db_begin(db, why);
        if (*ret_err == WB_OK)
            *ret_err = db_exec(db, "INSERT INTO t VALUES(randomblob(20000))", why);
        wb_err commit = *ret_err == WB_OK ? db_commit(db, why) : WB_OK;
        if (*ret_err == WB_OK)
            *ret_err = commit;
        db_rollback(db);
        if (*ret_err != WB_OK)
            break;
    }
    return rows;
}

static void db_full_disk_is_told_and_work_goes_on_once_space_is_free(void **state)
{
    struct db *db = NULL;
    struct wb_why why = {""};
    wb_err full = WB_OK, after = WB_IO;
    char ballast[320], zeros[200000] = {0};

    (void)state;
    test_mount_tmpfs(dir, "size=1m");
    snprintf(ballast, sizeof(ballast), "%s/ballast", dir);
    file_write(ballast, zeros, sizeof(zeros));
    wb_err opened = db_open(path, NULL, &db, NULL);
    wb_err made = opened == WB_OK ? db_exec(db, "CREATE TABLE t(x)", NULL) : opened;
    int rows = made == WB_OK ? fill(db, &full, &why) : 0;
    unlink(ballast);
    if (made == WB_OK)
        after = db_exec(db, "INSERT INTO t VALUES(randomblob(20000))", NULL);
    int64_t kept = made == WB_OK ? test_query(db, "SELECT count(*) FROM t") : 0;
    db_close(db);
    umount(dir);

    assert_int_equal(made, WB_OK);
    assert_true(rows > 0);
    assert_int_equal(full, WB_DISK_FULL);
    assert_non_null(strstr(why.text, "free space"));
    assert_int_equal(after, WB_OK);
    assert_int_equal(kept, rows + 1);
}

static void db_open_on_a_full_disk_is_told_and_leaves_nothing_open(void **state)
{
    struct db *db = NULL;
    char ballast[320], zeros[4096] = {0};

    (void)state;
    test_mount_tmpfs(dir, "size=64k");
    snprintf(ballast, sizeof(ballast), "%s/ballast", dir);
    FILE *file = fopen(ballast, "w");
    if (file != NULL) {
        setvbuf(file, NULL, _IONBF, 0);
        while (fwrite(zeros, sizeof(zeros), 1, file) == 1)
            ;
        fclose(file);
    }
    wb_err full = db_open(path, NULL, &db, NULL);
    bool busy = umount(dir) != 0;
    if (busy)
        umount2(dir, MNT_DETACH);

    assert_non_null(file);
    assert_int_equal(full, WB_DISK_FULL);
    assert_null(db);
    assert_false(busy);
}

static void db_error_names_the_class_for_each_kind_of_code(void **state)
{
    static const struct {
        int code;
        wb_err err;
    } cases[] = {
        {SQLITE_OK, WB_OK},
        {SQLITE_ROW, WB_OK},
        {SQLITE_DONE, WB_OK},
        {SQLITE_BUSY_SNAPSHOT, WB_BUSY},
        {SQLITE_LOCKED, WB_BUSY},
        {SQLITE_FULL, WB_DISK_FULL},
        {SQLITE_READONLY_DIRECTORY, WB_READ_ONLY},
        {SQLITE_NOTADB, WB_CORRUPT},
        {SQLITE_CORRUPT_VTAB, WB_CORRUPT},
        {SQLITE_IOERR_FSYNC, WB_IO},
        {SQLITE_IOERR_NOMEM, WB_NOMEM},
        {SQLITE_NOMEM, WB_NOMEM},
        {SQLITE_PERM, WB_DENIED},
        {SQLITE_AUTH, WB_DENIED},
        {SQLITE_TOOBIG, WB_TOO_BIG},
        {SQLITE_CONSTRAINT_UNIQUE, WB_INVALID},
        {SQLITE_ERROR, WB_INVALID},
        {SQLITE_MISUSE, WB_MISUSE},
        {SQLITE_INTERNAL, WB_INTERNAL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct wb_why why = {""};
        assert_int_equal(db_error(NULL, cases[i].code, "look", &why), cases[i].err);
        assert_int_equal(cases[i].err == WB_OK, why.text[0] == '\0');
        assert_int_equal(db_error(NULL, cases[i].code, "look", NULL), cases[i].err);
    }
}

static void db_error_of_a_handle_has_its_text_and_file(void **state)
{
    struct db *db = NULL;
    struct wb_why why = {""};

    (void)state;
    assert_ok(db_open(path, NULL, &db, NULL));
    assert_err(db_exec(db, "SELECT 1 FROM nowhere", &why), WB_INVALID);
    assert_non_null(strstr(why.text, "no such table: nowhere"));
    assert_non_null(strstr(why.text, path));
    struct sqlite3_stmt *stmt = NULL;
    assert_err(db_prepare(db, "SELEC", &stmt, &why), WB_INVALID);
    assert_null(stmt);
    db_close(db);
}

static void db_close_of_null_is_a_no_op_and_open_statements_do_not_hold_it(void **state)
{
    struct db *db = NULL;
    struct sqlite3_stmt *stmt = NULL;

    (void)state;
    db_close(NULL);
    assert_ok(db_open(path, NULL, &db, NULL));
    assert_ok(db_prepare(db, "SELECT 1", &stmt, NULL));
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    db_close(db);
    char wal[320];
    snprintf(wal, sizeof(wal), "%s-wal", path);
    assert_int_equal(access(wal, F_OK), -1);
}

int main(void)
{
    test_mount_allow();
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(db_open_new_file_and_companions_have_mode_0600_whatever_the_umask),
        T(db_open_configures_the_connection),
        T(db_open_absent_file_that_must_exist_is_not_found),
        T(db_open_in_an_absent_directory_is_not_found),
        T(db_open_of_no_regular_file_is_invalid),
        T(db_open_of_a_file_that_is_no_database_is_corrupt_with_a_next_step),
        T(db_open_with_a_damaged_schema_page_is_corrupt),
        T(db_statement_on_a_damaged_page_is_corrupt),
        T(db_open_refuses_a_lock_file_that_is_a_symbolic_link),
        T(db_open_on_a_read_only_file_system_is_read_only),
        T(db_read_only_connection_reads_and_refuses_to_write),
        T(db_full_disk_is_told_and_work_goes_on_once_space_is_free),
        T(db_open_on_a_full_disk_is_told_and_leaves_nothing_open),
        T(db_error_names_the_class_for_each_kind_of_code),
        T(db_error_of_a_handle_has_its_text_and_file),
        T(db_close_of_null_is_a_no_op_and_open_statements_do_not_hold_it),
#undef T
    };
    return cmocka_run_group_tests_name("db_open", tests, NULL, NULL);
}
