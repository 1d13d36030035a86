/* Exactly once, whatever happens: death at each named point, a full disk, a sync that fails. */
#include "event_consumer_fixture.h"

#include <errno.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EVENTS = 8 };

/* These stand before libc's, for SQLite too. */
static atomic_int syncs_to_fail;

static int sync_or_fail(int fd, long number)
{
    if (atomic_load(&syncs_to_fail) > 0) {
        atomic_fetch_sub(&syncs_to_fail, 1);
        errno = EIO;
        return -1;
    }
    return (int)syscall(number, fd);
}

int fdatasync(int fd)
{
    return sync_or_fail(fd, SYS_fdatasync);
}

int fsync(int fd)
{
    return sync_or_fail(fd, SYS_fsync);
}

static int setup(void **state)
{
    (void)state;
    atomic_store(&syncs_to_fail, 0);
    fixture_setup(true);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    atomic_store(&syncs_to_fail, 0);
    fixture_teardown();
    return 0;
}

/* ---- death ----------------------------------------------------------------------------------- */

#ifdef WAYBILL_CRASHPOINTS /* a build for release has none, and cannot die on demand */

/* A process: a new bus with the same events, and a consumer that works until nothing is left. */
static void live(const char *crash, int64_t stream_created)
{
    setenv("WAYBILL_CRASH", crash, 1);
    fixture_bus(true, stream_created);
    fixture_declare("AUTH", fixture_subjects);
    for (int n = 1; n <= EVENTS; n++)
        fixture_publish(n);
    fixture_start();
    fixture_run_long();
    fixture_stop();
    _exit(0);
}

/* Returns whether the process died at its point. */
static bool live_and_perhaps_die(const char *crash, int64_t stream_created)
{
    int status = -1;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0)
        live(crash, stream_created);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_true(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 137);
    return WEXITSTATUS(status) == 137;
}

/* Die at the k-th passage, life after life; in some that is the same event for ever. */
static int die_at(const char *point, int k, bool same_stream, int most)
{
    char crash[64];
    int deaths = 0;

    snprintf(crash, sizeof(crash), "%s:%d", point, k);
    while (deaths < most &&
           live_and_perhaps_die(crash, (same_stream ? 1000 : 1000 + deaths) * WB_SEC))
        deaths++;
    return deaths;
}

/* most: fewer than make an event that is alone the one to blame. */
static void die_everywhere(bool same_stream, uint32_t group, int most)
{
    static const char *const points[] = {"event_consumer.claimed", "event_consumer.handled",
                                         "event_consumer.committed"};
    int deaths = 0;

    for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
        for (int k = 1; k <= EVENTS; k++) {
            fixture_teardown();
            fixture_setup(true);
            fixture.options.group = group;
            fixture.options.sync = DB_SYNC_NORMAL;
            deaths += die_at(points[i], k, same_stream, most);
            assert_false(live_and_perhaps_die("none", (same_stream ? 1000 : 5000) * WB_SEC));
            assert_string_equal(fixture_effects(), "1 2 3 4 5 6 7 8");
            assert_int_equal(fixture_query("SELECT count(*) FROM inbox_failure"), 0);
            assert_int_equal(fixture_query("SELECT count(*) FROM dead_letter"), 0);
        }
    }
    print_message("%d deaths\n", deaths);
    assert_true(deaths >= 2 * EVENTS);
}

static void consumer_that_dies_anywhere_handles_each_event_once(void **state)
{
    (void)state;
    die_everywhere(true, 1, 9);
    die_everywhere(true, 64, 9);
}

static void consumer_that_dies_and_finds_its_stream_made_anew_handles_each_event_once(void **state)
{
    (void)state;
    die_everywhere(false, 64, 9);
}

#endif

/* ---- the disk -------------------------------------------------------------------------------- */

static void consumer_with_a_commit_of_unknown_outcome_handles_the_event_once(void **state)
{
    (void)state;
    fixture_start();
    fixture_run();
    for (int n = 1; n <= 3; n++)
        fixture_publish(n);
    atomic_store(&syncs_to_fail, 1);
    fixture_run();
    assert_int_equal(atomic_load(&syncs_to_fail), 0);
    assert_non_null(strstr(fixture_health().problem, "unknown"));
    fixture_run_long();
    assert_string_equal(fixture_effects(), "1 2 3");
    assert_int_equal(fixture_health().failed, 0);
    assert_string_equal(fixture_health().problem, "");
}

static void ballast_write(const char *path)
{
    static const char zeros[65536];
    FILE *file = fopen(path, "w");

    if (file == NULL)
        return;
    setvbuf(file, NULL, _IONBF, 0);
    while (fwrite(zeros, sizeof(zeros), 1, file) == 1)
        ;
    for (size_t i = 0; i < sizeof(zeros) / 4096 && fwrite(zeros, 4096, 1, file) == 1; i++)
        ;
    fclose(file);
}

static void consumer_on_a_full_disk_waits_and_goes_on_once_space_is_free(void **state)
{
    char ballast[320];

    (void)state;
    test_mount_tmpfs(fixture.dir, "size=4m");
    snprintf(ballast, sizeof(ballast), "%s/ballast", fixture.dir);
    wb_err err = event_consumer_start(&fixture.options, &fixture.consumer, NULL);
    struct event_consumer_health full = {0}, after = {0};
    char effects[64] = "";
    if (err == WB_OK) {
        fixture_publish(1);
        fixture_run();
        ballast_write(ballast);
        fixture_publish(2);
        fixture_publish(3);
        fixture_run_long();
        full = fixture_health();
        unlink(ballast);
        fixture_run_long();
        after = fixture_health();
        snprintf(effects, sizeof(effects), "%s", fixture_effects());
    }
    fixture_stop();
    umount2(fixture.dir, MNT_DETACH);

    assert_int_equal(err, WB_OK);
    assert_int_equal(full.handled, 1);
    assert_int_equal(full.failed, 0);
    assert_int_equal(full.parked, 0);
    assert_non_null(strstr(full.problem, "free space"));
    assert_int_equal(after.handled, 3);
    assert_string_equal(after.problem, "");
    assert_string_equal(effects, "1 2 3");
}

int main(void)
{
    test_mount_allow();
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#ifdef WAYBILL_CRASHPOINTS
        T(consumer_that_dies_anywhere_handles_each_event_once),
        T(consumer_that_dies_and_finds_its_stream_made_anew_handles_each_event_once),
#endif
        T(consumer_with_a_commit_of_unknown_outcome_handles_the_event_once),
        T(consumer_on_a_full_disk_waits_and_goes_on_once_space_is_free),
#undef T
    };
    return cmocka_run_group_tests_name("event_consumer_crash", tests, NULL, NULL);
}
