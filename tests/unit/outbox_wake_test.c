/*
 * No wake-up is lost: whoever looks, says that it sleeps, looks again and waits, is woken by what
 * was committed meanwhile. A wait that runs out here is a lost one.
 */
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test_support.h"
#include "waybill/outbox_impl.h"

#include <waybill/db.h>

enum { SLEEPERS = 3, WRITERS = 2, TURNS = 5000, COMMITS = 2000, PATIENCE_MS = 5000 };

static int slot_bind(const char *path, unsigned slot)
{
    struct sockaddr_un address;
    socklen_t length;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_ok(outbox_wake_address(path, slot, &address, &length, NULL));
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, length), 0);
    return fd;
}

/* Waits for a datagram and takes all there are; false: none came. */
static bool datagram_wait(int fd)
{
    char byte;

    if (poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, PATIENCE_MS) != 1)
        return false;
    while (recv(fd, &byte, 1, 0) >= 0)
        continue;
    return true;
}

/* ---- threads --------------------------------------------------------------------------------- */

struct shared {
    char dir[256], path[300];
    struct outbox_wake_page *page;
    atomic_int rows; /* relaxed on purpose: the page alone makes what was written visible */
    int sockets[SLEEPERS];
    atomic_int seen[SLEEPERS]; /* for the pace of the writers: each waits for its row to be seen */
    atomic_int lost, datagrams;
};

struct sleeper {
    struct shared *shared;
    unsigned slot;
};

static void *sleeper_run(void *arg)
{
    struct sleeper *self = arg;
    struct shared *shared = self->shared;
    int seen = 0;

    while (seen < WRITERS * TURNS) {
        outbox_wake_sleeping(shared->page, self->slot);
        int rows = atomic_load_explicit(&shared->rows, memory_order_relaxed);
        if (rows > seen) {
            outbox_wake_awake(shared->page, self->slot);
            seen = rows;
            atomic_store_explicit(&shared->seen[self->slot], seen, memory_order_relaxed);
        } else if (!datagram_wait(shared->sockets[self->slot])) {
            atomic_fetch_add(&shared->lost, 1);
            atomic_store_explicit(&shared->seen[self->slot], INT_MAX, memory_order_relaxed);
            break;
        }
    }
    return NULL;
}

/* The next row comes just when the sleepers lie down again, give or take a few instructions. */
static void pace(const struct shared *shared, int row, struct wb_rng *rng)
{
    for (size_t i = 0; i < SLEEPERS; i++)
        while (atomic_load_explicit(&shared->seen[i], memory_order_relaxed) < row)
            (void)sched_yield();
    for (uint64_t n = wb_rng_below(rng, 300); n > 0; n--)
        (void)atomic_load_explicit(&shared->seen[0], memory_order_relaxed);
}

static void *writer_run(void *arg)
{
    struct shared *shared = arg;
    struct wb_rng rng;
    int from = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    wb_rng_seed(&rng, 1);
    for (int i = 0; i < TURNS; i++) {
        int row = atomic_fetch_add_explicit(&shared->rows, 1, memory_order_relaxed) + 1;
        uint64_t sleepers = outbox_wake_take(shared->page);
        for (unsigned slot = 0; slot < SLEEPERS; slot++) {
            struct sockaddr_un address;
            socklen_t length;
            if ((sleepers >> slot & 1) == 0 ||
                outbox_wake_address(shared->path, slot, &address, &length, NULL) != WB_OK)
                continue;
            atomic_fetch_add(&shared->datagrams, 1);
            (void)sendto(from, "", 1, 0, (const struct sockaddr *)&address, length);
        }
        pace(shared, row, &rng);
    }
    (void)close(from);
    return NULL;
}

static void threads_that_sleep_and_write_at_once_lose_no_wake_up(void **state)
{
    struct shared shared = {.rows = 0};
    struct sleeper sleepers[SLEEPERS];
    pthread_t threads[SLEEPERS + WRITERS];

    (void)state;
    test_dir_make(shared.dir);
    (void)snprintf(shared.path, sizeof(shared.path), "%s/m.db", shared.dir);
    FILE *file = fopen(shared.path, "we");
    assert_non_null(file);
    assert_int_equal(fclose(file), 0);
    assert_ok(outbox_wake_open(shared.path, &shared.page, NULL));
    for (unsigned i = 0; i < SLEEPERS; i++) {
        shared.sockets[i] = slot_bind(shared.path, i);
        sleepers[i] = (struct sleeper){.shared = &shared, .slot = i};
        assert_int_equal(pthread_create(&threads[i], NULL, sleeper_run, &sleepers[i]), 0);
    }
    for (size_t i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_create(&threads[SLEEPERS + i], NULL, writer_run, &shared), 0);
    for (size_t i = 0; i < SLEEPERS + WRITERS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    print_message("%d rows, %d datagrams\n", WRITERS * TURNS, atomic_load(&shared.datagrams));
    assert_int_equal(atomic_load(&shared.lost), 0);
    for (unsigned i = 0; i < SLEEPERS; i++)
        (void)close(shared.sockets[i]);
    outbox_wake_close(shared.page);
    test_dir_remove(shared.dir);
}

/* ---- processes ------------------------------------------------------------------------------- */

/* Real commits, each just when the one before was seen. */
static void writer_process(const char *path, const _Atomic(int64_t) *seen, uint64_t seed)
{
    const struct outbox_event event = {.subject = wb_str("a.b"), .payload = {"p", 1}};
    struct outbox_receipt receipt;
    struct outbox *outbox;
    struct wb_rng rng;
    struct db *db;

    wb_rng_seed(&rng, seed);
    if (db_open(path, &(struct db_options){.sync = DB_SYNC_NORMAL}, &db, NULL) != WB_OK ||
        outbox_attach(db_handle(db), &outbox, NULL) != WB_OK)
        _exit(1);
    for (int i = 0; i < COMMITS; i++) {
        if (db_begin(db, NULL) != WB_OK || outbox_enqueue(outbox, &event, &receipt, NULL) != WB_OK)
            _exit(2);
        for (uint64_t n = wb_rng_below(&rng, 3000); n > 0; n--)
            (void)atomic_load(seen);
        if (db_commit(db, NULL) != WB_OK)
            _exit(3);
        outbox_wake(outbox);
        while (atomic_load(seen) < receipt.row_id)
            (void)sched_yield();
    }
    outbox_detach(outbox);
    db_close(db);
    _exit(0);
}

static int64_t newest_row(struct sqlite3_stmt *stmt)
{
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    int64_t id = sqlite3_column_int64(stmt, 0);
    (void)sqlite3_reset(stmt);
    return id;
}

static void sleep_until_all_is_seen(struct db *db, struct outbox_wake_page *page, int fd,
                                    _Atomic(int64_t) *ret_seen)
{
    struct sqlite3_stmt *newest;
    int64_t seen = 0, sleeps = 0;

    assert_ok(db_prepare(db, "SELECT ifnull(max(id), 0) FROM outbox", &newest, NULL));
    while (seen < (int64_t)WRITERS * COMMITS) {
        outbox_wake_sleeping(page, 0);
        int64_t id = newest_row(newest);
        if (id > seen) {
            outbox_wake_awake(page, 0);
            seen = id;
            atomic_store(ret_seen, seen);
            continue;
        }
        sleeps++;
        if (!datagram_wait(fd)) {
            atomic_store(ret_seen, INT64_MAX);
            fail_msg("slept through row %lld", (long long)newest_row(newest));
        }
    }
    (void)sqlite3_finalize(newest);
    print_message("%d commits, slept %lld times\n", WRITERS * COMMITS, (long long)sleeps);
}

static void processes_that_commit_wake_the_one_that_sleeps(void **state)
{
    char dir[256], path[300];
    pid_t writers[WRITERS];
    struct outbox_wake_page *page;
    struct db *db;

    (void)state;
    test_dir_make(dir);
    (void)snprintf(path, sizeof(path), "%s/m.db", dir);
    assert_ok(db_open(path, &(struct db_options){.sync = DB_SYNC_NORMAL}, &db, NULL));
    assert_ok(outbox_schema_prepare(db_handle(db), NULL));
    _Atomic(int64_t) *seen =
        mmap(NULL, sizeof(*seen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(seen, MAP_FAILED);
    db_close(db); /* a connection must not be carried across a fork */
    for (size_t i = 0; i < WRITERS; i++) {
        writers[i] = fork();
        assert_true(writers[i] >= 0);
        if (writers[i] == 0)
            writer_process(path, seen, i + 1);
    }
    assert_ok(db_open(path, &(struct db_options){.sync = DB_SYNC_NORMAL}, &db, NULL));
    assert_ok(outbox_wake_open(path, &page, NULL));
    int fd = slot_bind(path, 0);
    sleep_until_all_is_seen(db, page, fd, seen);
    for (size_t i = 0; i < WRITERS; i++) {
        int status;
        assert_int_equal(waitpid(writers[i], &status, 0), writers[i]);
        assert_int_equal(status, 0);
    }
    (void)close(fd);
    (void)munmap(seen, sizeof(*seen));
    outbox_wake_close(page);
    db_close(db);
    test_dir_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(processes_that_commit_wake_the_one_that_sleeps),
        cmocka_unit_test(threads_that_sleep_and_write_at_once_lose_no_wake_up),
    };
    return cmocka_run_group_tests_name("outbox_wake", tests, NULL, NULL);
}
