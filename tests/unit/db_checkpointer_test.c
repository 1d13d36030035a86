/* The checkpoint thread: the log is moved into the file, under load and when all is quiet. */
#include "test_support.h"

#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <waybill/db.h>

#define MIB INT64_C(1048576)

static char dir[256];
static char path[300];
static char wal[320];
static struct db *db;
static struct observe *observe;
static struct db_checkpointer *checkpointer;

static int setup(void **state)
{
    const struct db_options normal = {.sync = DB_SYNC_NORMAL};

    (void)state;
    test_dir_make(dir);
    snprintf(path, sizeof(path), "%s/test.db", dir);
    snprintf(wal, sizeof(wal), "%s-wal", path);
    checkpointer = NULL;
    assert_ok(observe_create(&observe));
    assert_ok(db_open(path, &normal, &db, NULL));
    assert_ok(db_exec(db, "CREATE TABLE t(x)", NULL));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    db_checkpointer_stop(checkpointer);
    db_close(db);
    observe_destroy(observe);
    test_dir_remove(dir);
    return 0;
}

static int64_t wal_bytes(void)
{
    struct stat st;

    return stat(wal, &st) == 0 ? (int64_t)st.st_size : 0;
}

static bool wal_is_empty(void *ctx)
{
    (void)ctx;
    return wal_bytes() == 0;
}

static wb_err write_mib(struct db *on, int mib)
{
    wb_err err = WB_OK;

    for (int i = 0; i < mib * 4 && err == WB_OK; i++) {
        err = db_begin(on, NULL);
        if (err == WB_OK)
            err = db_exec(on, "INSERT INTO t VALUES(zeroblob(262144))", NULL);
        if (err == WB_OK)
            err = db_commit(on, NULL);
        db_rollback(on);
    }
    return err;
}

static void db_checkpointer_empties_the_log_after_a_second_of_quiet(void **state)
{
    (void)state;
    assert_ok(db_checkpointer_start(path, observe, &checkpointer, NULL));
    assert_ok(db_exec(db, "INSERT INTO t VALUES(1)", NULL));
    assert_true(wal_bytes() > 0);
    assert_true(test_wait(wal_is_empty, NULL, 10000));
    assert_true(observe_value(observe_series(observe, OBSERVE_DB_CHECKPOINTS, "test.db")) > 0);
}

static void db_checkpointer_takes_over_what_an_earlier_process_left(void **state)
{
    (void)state;
    assert_ok(db_exec(db, "INSERT INTO t VALUES(1)", NULL));
    assert_ok(db_checkpointer_start(path, observe, &checkpointer, NULL));
    assert_true(test_wait(wal_is_empty, NULL, 10000));
}

static bool gauge_is_up(void *series)
{
    return observe_value(series) > 4 * MIB;
}

static void db_checkpointer_waits_for_a_reader_and_then_empties_the_log(void **state)
{
    struct db *reader = NULL;
    struct sqlite3_stmt *stmt = NULL;

    (void)state;
    assert_ok(db_exec(db, "INSERT INTO t VALUES(1)", NULL));
    assert_ok(db_open(path, NULL, &reader, NULL));
    assert_ok(db_prepare(reader, "SELECT x FROM t", &stmt, NULL));
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW); /* the reader's snapshot stays open */
    assert_ok(db_checkpointer_start(path, observe, &checkpointer, NULL));
    assert_ok(write_mib(db, 6));
    assert_true(
        test_wait(gauge_is_up, observe_series(observe, OBSERVE_DB_WAL_BYTES, "test.db"), 10000));
    /* The reader must see what it saw, and nobody may wait for it. */
    int64_t start = wb_mono_ns(wb_clock_system());
    assert_ok(write_mib(db, 1));
    assert_true(wb_mono_ns(wb_clock_system()) - start < 3 * WB_SEC);
    assert_int_equal(sqlite3_step(stmt), SQLITE_DONE);
    assert_true(wal_bytes() > 0);
    sqlite3_finalize(stmt);
    assert_true(test_wait(wal_is_empty, NULL, 10000));
    db_close(reader);
}

enum { WRITERS = 4, SHRINKS = 6, LIMIT_MIB = 64 };

static atomic_bool writers_end;

static void *write_without_rest(void *ctx)
{
    wb_err err = WB_OK;

    while (err == WB_OK && !atomic_load(&writers_end)) {
        err = db_begin(ctx, NULL);
        if (err == WB_OK)
            err = db_exec(ctx, "INSERT INTO t VALUES(zeroblob(3000))", NULL);
        if (err == WB_OK)
            err = db_commit(ctx, NULL);
        db_rollback(ctx);
    }
    return (void *)(intptr_t)err;
}

struct watch {
    int64_t before, largest;
    int shrinks;
};

static bool has_shrunk_often(void *ctx)
{
    struct watch *watch = ctx;
    int64_t now = wal_bytes();

    watch->shrinks += now < watch->before;
    watch->largest = now > watch->largest ? now : watch->largest;
    watch->before = now;
    return watch->shrinks >= SHRINKS;
}

/* Returns the largest size the log had while it shrank SHRINKS times. */
static int64_t largest_log_under_load(void)
{
    const struct db_options options = {.sync = DB_SYNC_NORMAL, .busy_timeout_ns = 60 * WB_SEC};
    struct watch watch = {0};
    pthread_t threads[WRITERS];
    struct db *own[WRITERS];
    intptr_t failed = WB_OK;

    atomic_store(&writers_end, false);
    for (int i = 0; i < WRITERS; i++) {
        own[i] = NULL;
        assert_ok(db_open(path, &options, &own[i], NULL));
        assert_int_equal(pthread_create(&threads[i], NULL, write_without_rest, own[i]), 0);
    }
    bool shrunk = test_wait(has_shrunk_often, &watch, 60000);
    atomic_store(&writers_end, true);
    for (int i = 0; i < WRITERS; i++) {
        void *err;
        pthread_join(threads[i], &err);
        failed |= (intptr_t)err;
        db_close(own[i]);
    }
    print_message("largest log: %lld MiB\n", (long long)(watch.largest / MIB));
    assert_int_equal(failed, WB_OK);
    assert_true(shrunk);
    return watch.largest;
}

static void db_checkpointer_bounds_the_log_under_writers_that_never_rest(void **state)
{
    (void)state;
    assert_ok(db_checkpointer_start(path, observe, &checkpointer, NULL));
    assert_true(largest_log_under_load() <= LIMIT_MIB * MIB);
    assert_true(test_wait(wal_is_empty, NULL, 10000));
}

static void db_commit_bounds_the_log_where_no_checkpointer_runs(void **state)
{
    (void)state;
    assert_true(largest_log_under_load() <= LIMIT_MIB * MIB);
}

/* ---- a reader that never ends ---------------------------------------------------------------- */

/* In a process of its own: opens a snapshot, says so, and keeps it. */
static void read_for_ever(int say)
{
    struct db *own = NULL;
    struct sqlite3_stmt *stmt = NULL;

    if (db_open(path, NULL, &own, NULL) == WB_OK &&
        db_prepare(own, "SELECT x FROM t", &stmt, NULL) == WB_OK &&
        sqlite3_step(stmt) == SQLITE_ROW && write(say, "r", 1) == 1)
        pause();
    _exit(1);
}

static pid_t start_reader(void)
{
    int ends[2];
    char said;

    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        read_for_ever(ends[1]);
    close(ends[1]);
    assert_int_equal(read(ends[0], &said, 1), 1);
    close(ends[0]);
    return pid;
}

static bool is_alarmed(void *ctx)
{
    struct db_checkpointer_health *health = ctx;

    db_checkpointer_health(checkpointer, health);
    return health->problem[0] != '\0' && health->reader_age_ns >= WB_SEC;
}

static bool is_well(void *ctx)
{
    struct db_checkpointer_health *health = ctx;

    db_checkpointer_health(checkpointer, health);
    return health->problem[0] == '\0' && health->reader_age_ns == 0 && health->reader_pid == 0;
}

static void db_checkpointer_names_the_reader_that_never_ends(void **state)
{
    struct db_checkpointer_health health;
    struct observe_series *age = observe_series(observe, OBSERVE_DB_OLDEST_READER, "test.db");
    char pid_text[24];

    (void)state;
    assert_ok(db_exec(db, "INSERT INTO t VALUES(1)", NULL));
    pid_t pid = start_reader();
    assert_ok(db_checkpointer_start(path, observe, &checkpointer, NULL));
    assert_ok(write_mib(db, LIMIT_MIB + 6));
    bool alarmed = test_wait(is_alarmed, &health, 20000);
    print_message("%s\n", health.problem);
    snprintf(pid_text, sizeof(pid_text), "process %d ", (int)pid);
    int64_t age_seen = observe_value(age);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);

    assert_true(alarmed);
    assert_int_equal(health.reader_pid, pid);
    assert_non_null(strstr(health.problem, pid_text));
    assert_true(health.wal_bytes > LIMIT_MIB * MIB);
    assert_true(health.reader_age_ns >= WB_SEC);
    assert_true(age_seen >= WB_SEC);
    assert_true(test_wait(wal_is_empty, NULL, 20000));
    assert_true(test_wait(is_well, &health, 10000));
}

static void db_checkpointer_of_no_database_is_corrupt(void **state)
{
    char name[300];
    struct db_checkpointer *none = NULL;

    (void)state;
    snprintf(name, sizeof(name), "%s/text", dir);
    FILE *file = fopen(name, "w");
    assert_non_null(file);
    for (int i = 0; i < 1000; i++)
        fputs("no database ", file);
    fclose(file);
    assert_err(db_checkpointer_start(name, observe, &none, NULL), WB_CORRUPT);
    assert_null(none);
    db_checkpointer_stop(NULL);
}

static void db_checkpointer_idle_costs_almost_no_processor_time(void **state)
{
    struct rusage before, after;

    (void)state;
    assert_ok(db_checkpointer_start(path, observe, &checkpointer, NULL));
    assert_true(test_wait(wal_is_empty, NULL, 10000));
    getrusage(RUSAGE_SELF, &before);
    usleep(1000000); /* idle time itself is what is measured */
    getrusage(RUSAGE_SELF, &after);
    int64_t used_us = (after.ru_utime.tv_sec - before.ru_utime.tv_sec + after.ru_stime.tv_sec -
                       before.ru_stime.tv_sec) *
                          1000000 +
                      after.ru_utime.tv_usec - before.ru_utime.tv_usec + after.ru_stime.tv_usec -
                      before.ru_stime.tv_usec;
    print_message("idle for 1 s: %lld us of processor time\n", (long long)used_us);
    assert_true(used_us < 20000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(db_checkpointer_empties_the_log_after_a_second_of_quiet),
        T(db_checkpointer_takes_over_what_an_earlier_process_left),
        T(db_checkpointer_waits_for_a_reader_and_then_empties_the_log),
        T(db_checkpointer_bounds_the_log_under_writers_that_never_rest),
        T(db_commit_bounds_the_log_where_no_checkpointer_runs),
        T(db_checkpointer_names_the_reader_that_never_ends),
        T(db_checkpointer_of_no_database_is_corrupt),
        T(db_checkpointer_idle_costs_almost_no_processor_time),
#undef T
    };
    return cmocka_run_group_tests_name("db_checkpointer", tests, NULL, NULL);
}
