/* The write queue: nobody waits for long among writers that never rest, sleepers stop nobody. */
#include "test_support.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <waybill/db.h>

#include "db_lock.h"

enum { WRITERS = 8, MARKS = 60 };

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

static int64_t now(void)
{
    return wb_mono_ns(wb_clock_system());
}

static atomic_bool writers_end;

static wb_err write_once(struct db *db)
{
    wb_err err = db_begin(db, NULL);

    if (err == WB_OK)
        err = db_exec(db, "UPDATE t SET x = x + 1", NULL);
    if (err == WB_OK)
        err = db_commit(db, NULL);
    db_rollback(db);
    return err;
}

static void *write_without_rest(void *ctx)
{
    wb_err err = WB_OK;

    while (err == WB_OK && !atomic_load(&writers_end))
        err = write_once(ctx);
    return (void *)(intptr_t)err;
}

static void db_begin_comes_to_its_turn_among_writers_that_never_rest(void **state)
{
    const struct db_options options = {.sync = DB_SYNC_NORMAL, .busy_timeout_ns = 60 * WB_SEC};
    pthread_t threads[WRITERS];
    struct db *own[WRITERS], *marker = NULL;
    int64_t longest = 0;
    intptr_t failed = WB_OK;

    (void)state;
    assert_ok(db_open(path, &options, &marker, NULL));
    assert_ok(db_exec(marker, "CREATE TABLE t(x); INSERT INTO t VALUES(0)", NULL));
    atomic_store(&writers_end, false);
    for (int i = 0; i < WRITERS; i++) {
        own[i] = NULL;
        assert_ok(db_open(path, &options, &own[i], NULL));
        assert_int_equal(pthread_create(&threads[i], NULL, write_without_rest, own[i]), 0);
    }
    for (int i = 0; i < MARKS; i++) {
        int64_t start = now();
        assert_ok(write_once(marker));
        longest = now() - start > longest ? now() - start : longest;
        usleep(2000); /* the others shall be in the middle of their work */
    }
    atomic_store(&writers_end, true);
    for (int i = 0; i < WRITERS; i++) {
        void *err;
        pthread_join(threads[i], &err);
        failed |= (intptr_t)err;
        db_close(own[i]);
    }
    print_message("longest of %d waits: %lld us\n", MARKS, (long long)(longest / WB_US));
    assert_int_equal(failed, WB_OK);
    assert_true(longest < 2 * WB_SEC); /* far more than it takes: the machine may be busy */
    db_close(marker);
}

/* ---- the lock itself ------------------------------------------------------------------------- */

static void lock_open(struct db_lock *lock)
{
    *lock = (struct db_lock){.fd = -1};
    assert_ok(db_lock_open(lock, path, NULL));
}

static void wait_until_marked(const struct db_lock *lock, int rank)
{
    struct flock mark = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = rank};
    int64_t until = now() + 20 * WB_SEC;

    do {
        mark = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = rank};
        assert_int_equal(fcntl(lock->fd, F_OFD_GETLK, &mark), 0);
    } while (mark.l_type == F_UNLCK && now() < until);
    assert_true(mark.l_type != F_UNLCK);
}

/* Another process waits for the lock until it is ended, or has it. */
static pid_t start_waiter(void)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        struct db_lock lock = {.fd = -1};
        struct wb_rng rng;
        wb_rng_seed(&rng, 1);
        if (db_lock_open(&lock, path, NULL) != WB_OK)
            _exit(1);
        _exit(db_lock_wait(&lock, &rng, now() + 60 * WB_SEC, NULL) == WB_OK ? 0 : 1);
    }
    return pid;
}

static void db_lock_wait_stands_back_for_those_who_have_waited_longer(void **state)
{
    struct db_lock holder, late;
    struct wb_rng rng;
    int status = 1;

    (void)state;
    wb_rng_seed(&rng, 2);
    lock_open(&holder);
    lock_open(&late);
    assert_ok(db_lock_try(&holder, NULL));
    pid_t pid = start_waiter();
    wait_until_marked(&holder, 3);
    /* It sleeps the moment the lock becomes free: a latecomer must leave it to the waiter. */
    kill(pid, SIGSTOP);
    waitpid(pid, NULL, WUNTRACED);
    db_lock_release(&holder);
    assert_err(db_lock_wait(&late, &rng, now() + 2 * WB_MS, NULL), WB_BUSY);
    kill(pid, SIGCONT);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_ok(db_lock_wait(&late, &rng, now() + 10 * WB_SEC, NULL));
    db_lock_close(&holder);
    db_lock_close(&late);
}

static void db_lock_wait_is_not_stopped_by_a_waiter_that_sleeps(void **state)
{
    struct db_lock holder, other;
    struct wb_rng rng;

    (void)state;
    wb_rng_seed(&rng, 3);
    lock_open(&holder);
    lock_open(&other);
    assert_ok(db_lock_try(&holder, NULL));
    pid_t pid = start_waiter();
    wait_until_marked(&holder, 3);
    kill(pid, SIGSTOP);
    waitpid(pid, NULL, WUNTRACED);
    db_lock_release(&holder);
    int64_t start = now();
    for (int i = 0; i < 1000; i++) {
        assert_ok(db_lock_wait(&other, &rng, now() + 10 * WB_SEC, NULL));
        db_lock_release(&other);
    }
    /* It stood back once, then saw that nobody came; 8 s otherwise. */
    assert_true(now() - start < 4 * WB_SEC);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    db_lock_close(&holder);
    db_lock_close(&other);
}

static void db_lock_wait_that_gave_up_leaves_no_mark(void **state)
{
    struct db_lock holder, other;
    struct flock mark = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 1};
    struct wb_rng rng;

    (void)state;
    wb_rng_seed(&rng, 4);
    lock_open(&holder);
    lock_open(&other);
    assert_ok(db_lock_try(&holder, NULL));
    assert_err(db_lock_wait(&other, &rng, now() + 20 * WB_MS, NULL), WB_BUSY);
    assert_int_equal(fcntl(holder.fd, F_OFD_GETLK, &mark), 0);
    assert_int_equal(mark.l_type, F_UNLCK);
    db_lock_close(&holder);
    db_lock_close(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(db_begin_comes_to_its_turn_among_writers_that_never_rest),
        T(db_lock_wait_stands_back_for_those_who_have_waited_longer),
        T(db_lock_wait_is_not_stopped_by_a_waiter_that_sleeps),
        T(db_lock_wait_that_gave_up_leaves_no_mark),
#undef T
    };
    return cmocka_run_group_tests_name("db_queue", tests, NULL, NULL);
}
