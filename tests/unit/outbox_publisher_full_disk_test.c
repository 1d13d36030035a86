/* The publisher on a full disk: it does not run ahead of what it can mark, and goes on by itself.
 */
#include "outbox_publisher_fixture.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

enum { ROWS = 200, WINDOW = 20 };

static char ballast[300];

static int setup(void **state)
{
    (void)fixture_setup(state);
    struct fixture *f = *state;
    db_close(f->db);
    test_mount_tmpfs(f->dir, "size=4m");
    (void)snprintf(ballast, sizeof(ballast), "%s/ballast", f->dir);
    assert_ok(db_open(f->path, &(struct db_options){.sync = DB_SYNC_NORMAL}, &f->db, NULL));
    assert_ok(outbox_schema_prepare(db_handle(f->db), NULL));
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    outbox_publisher_stop(f->publisher);
    f->publisher = NULL;
    db_close(f->db);
    f->db = NULL;
    (void)umount(f->dir);
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

static uint64_t stored(struct fixture *f)
{
    struct event_bus_stream_info info;

    assert_ok(event_bus_stream_info(f->bus, "A", &info, NULL));
    return info.last_seq;
}

static void outbox_publisher_that_cannot_mark_stops_within_a_window(void **state)
{
    struct fixture *f = *state;
    struct wb_buf expected = {0};

    f->options.window = WINDOW;
    fixture_start(f);
    fixture_pass(f, 100 * WB_MS);
    for (int i = 0; i < ROWS; i++) {
        char payload[16];
        (void)snprintf(payload, sizeof(payload), "%d", i);
        fixture_insert(f, "a.x", "", payload);
        wb_buf_printf(&expected, i > 0 ? " %d" : "%d", i);
    }
    disk_fill();
    fixture_pass(f, 5 * WB_SEC);
    print_message("sent on a full disk: %" PRIu64 "; %s\n", stored(f), fixture_health(f).problem);
    assert_true(stored(f) <= WINDOW);
    assert_int_equal(fixture_int(f, "SELECT last_id FROM outbox_cursor"), 0);
    assert_non_null(strstr(fixture_health(f).problem, "full"));

    assert_int_equal(unlink(ballast), 0);
    fixture_pass(f, 10 * WB_SEC);
    assert_int_equal(fixture_int(f, "SELECT last_id FROM outbox_cursor"), ROWS);
    assert_stream_holds(f, "A", expected.ptr);
    assert_string_equal(fixture_health(f).problem, "");
    wb_buf_free(&expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(outbox_publisher_that_cannot_mark_stops_within_a_window,
                                        setup, teardown),
    };
    test_mount_allow();
    return cmocka_run_group_tests_name("outbox_publisher_full_disk", tests, NULL, NULL);
}
