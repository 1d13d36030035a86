/* The durability barrier: which descriptors it syncs, and what it does when a sync fails. */
#include "test_support.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <waybill/db.h>

static char dir[256];
static char path[300];
static char wal[320];
static struct db *db;

/* What was synced, as inode numbers. These stand before libc's. */
static ino_t synced[64];
static size_t synced_count;
static bool syncs_fail;

static int note_sync(int fd, long number)
{
    struct stat st;

    if (syncs_fail) {
        errno = EIO;
        return -1;
    }
    if (fstat(fd, &st) == 0 && synced_count < 64)
        synced[synced_count++] = st.st_ino;
    return (int)syscall(number, fd);
}

int fdatasync(int fd)
{
    return note_sync(fd, SYS_fdatasync);
}

int fsync(int fd)
{
    return note_sync(fd, SYS_fsync);
}

static ino_t inode_of(const char *name)
{
    struct stat st;

    assert_int_equal(stat(name, &st), 0);
    return st.st_ino;
}

static size_t syncs_of(ino_t inode)
{
    size_t n = 0;

    for (size_t i = 0; i < synced_count; i++)
        n += synced[i] == inode;
    return n;
}

static int setup(void **state)
{
    const struct db_options normal = {.sync = DB_SYNC_NORMAL};

    (void)state;
    test_dir_make(dir);
    snprintf(path, sizeof(path), "%s/test.db", dir);
    snprintf(wal, sizeof(wal), "%s-wal", path);
    syncs_fail = false;
    assert_ok(db_open(path, &normal, &db, NULL));
    assert_ok(db_exec(db, "CREATE TABLE t(x)", NULL));
    synced_count = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    syncs_fail = false;
    db_close(db);
    test_dir_remove(dir);
    return 0;
}

static void db_barrier_syncs_the_log_each_time_and_the_directory_once(void **state)
{
    struct db_barrier *barrier = NULL;

    (void)state;
    assert_ok(db_barrier_create(path, &barrier, NULL));
    for (int i = 0; i < 3; i++)
        assert_ok(db_barrier_sync(barrier, NULL));
    assert_int_equal(syncs_of(inode_of(wal)), 3);
    assert_int_equal(syncs_of(inode_of(dir)), 1);
    assert_int_equal(syncs_of(inode_of(path)), 0);
    db_barrier_destroy(barrier);
    db_barrier_destroy(NULL);
}

static void db_barrier_notices_a_replaced_log(void **state)
{
    struct db_barrier *barrier = NULL;

    (void)state;
    assert_ok(db_barrier_create(path, &barrier, NULL));
    assert_ok(db_barrier_sync(barrier, NULL));
    db_close(db); /* the last connection removes the log */
    db = NULL;
    assert_int_equal(access(wal, F_OK), -1);
    assert_ok(db_barrier_sync(barrier, NULL));
    assert_ok(db_open(path, NULL, &db, NULL));
    assert_ok(db_exec(db, "INSERT INTO t VALUES(1)", NULL));
    synced_count = 0;
    assert_ok(db_barrier_sync(barrier, NULL));
    assert_int_equal(syncs_of(inode_of(wal)), 1);
    assert_int_equal(syncs_of(inode_of(dir)), 1);
    db_barrier_destroy(barrier);
}

static void db_barrier_notices_a_log_that_was_renamed_over(void **state)
{
    struct db_barrier *barrier = NULL;
    char other[340];

    (void)state;
    assert_ok(db_barrier_create(path, &barrier, NULL));
    assert_ok(db_barrier_sync(barrier, NULL));
    db_close(db);
    db = NULL;
    int fd = open(wal, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    assert_ok(db_barrier_sync(barrier, NULL));
    close(fd);
    snprintf(other, sizeof(other), "%s/other", dir);
    assert_int_equal(rename(wal, other), 0); /* still one link, but under another name */
    fd = open(wal, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    close(fd);
    synced_count = 0;
    assert_ok(db_barrier_sync(barrier, NULL));
    assert_int_equal(syncs_of(inode_of(wal)), 1);
    assert_int_equal(syncs_of(inode_of(other)), 0);
    db_barrier_destroy(barrier);
}

/* The other process: exits with 0 if it finds the database locked. */
static int probe(const char *database)
{
    struct sqlite3 *handle = NULL;
    int code = sqlite3_open(database, &handle);

    if (code == SQLITE_OK)
        code = sqlite3_exec(handle, "BEGIN IMMEDIATE", NULL, NULL, NULL);
    sqlite3_close(handle);
    return code == SQLITE_BUSY ? 0 : 1;
}

static void db_barrier_does_not_drop_the_locks_of_sqlite(void **state)
{
    struct db_barrier *barrier = NULL;
    int status = -1;

    (void)state;
    assert_ok(db_begin(db, NULL));
    assert_ok(db_barrier_create(path, &barrier, NULL));
    assert_ok(db_barrier_sync(barrier, NULL));
    db_barrier_destroy(barrier);
    /* POSIX locks bind other processes only, and a mere fork would inherit SQLite's memory. */
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        execl("/proc/self/exe", "probe", path, (char *)NULL);
        _exit(2);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    db_rollback(db);
}

static void db_barrier_that_failed_stays_in_doubt_until_the_log_starts_anew(void **state)
{
    struct db_barrier *barrier = NULL;
    struct wb_why why = {""};

    (void)state;
    assert_ok(db_barrier_create(path, &barrier, NULL));
    syncs_fail = true;
    assert_err(db_barrier_sync(barrier, &why), WB_IO);
    assert_non_null(strstr(why.text, wal));
    syncs_fail = false;
    assert_err(db_barrier_sync(barrier, &why), WB_IO);
    assert_non_null(strstr(why.text, "in doubt"));
    assert_ok(db_exec(db, "PRAGMA wal_checkpoint(RESTART); INSERT INTO t VALUES(1)", NULL));
    assert_ok(db_barrier_sync(barrier, NULL));
    db_barrier_destroy(barrier);
}

static void db_barrier_of_an_absent_directory_fails_when_used(void **state)
{
    struct db_barrier *barrier = NULL;
    char deep[320];

    (void)state;
    snprintf(deep, sizeof(deep), "%s/none/test.db", dir);
    assert_ok(db_barrier_create(deep, &barrier, NULL));
    assert_err(db_barrier_sync(barrier, NULL), WB_NOT_FOUND);
    db_barrier_destroy(barrier);
}

int main(int argc, char **argv)
{
    if (argc == 2)
        return probe(argv[1]);

    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(db_barrier_syncs_the_log_each_time_and_the_directory_once),
        T(db_barrier_notices_a_replaced_log),
        T(db_barrier_notices_a_log_that_was_renamed_over),
        T(db_barrier_does_not_drop_the_locks_of_sqlite),
        T(db_barrier_that_failed_stays_in_doubt_until_the_log_starts_anew),
        T(db_barrier_of_an_absent_directory_fails_when_used),
#undef T
    };
    return cmocka_run_group_tests_name("db_barrier", tests, NULL, NULL);
}
