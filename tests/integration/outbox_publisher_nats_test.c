/* The publisher on a real nats-server: killed, paused and wiped; and killed itself. */
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "test_db.h"

#include <waybill/db.h>
#include <waybill/event_bus_nats.h>
#include <waybill/outbox.h>
#include <waybill/outbox_publisher.h>

static const char *const streams[] = {"A", "B"};
static const char *const subjects[] = {"a.>", "b.>"};

struct world {
    size_t stream_count; /* 0: one */
    char dir[256];
    char path[300];
    struct test_nats server;
    struct event_bus *bus;
    struct db *db;
    struct outbox *outbox;
    struct outbox_publisher *publisher;
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    struct wb_why why = {.text = ""};

    assert_non_null(w);
    wb_log_setup(2, WB_LOG_LOGFMT, WB_LOG_ERROR);
    test_dir_make(w->dir);
    (void)snprintf(w->path, sizeof(w->path), "%s/m.db", w->dir);
    test_nats_start(&w->server, NULL);
    if (event_bus_nats_create(&(struct event_bus_nats_options){.url = w->server.url}, true, &w->bus,
                              &why) != WB_OK)
        fail_msg("%s", why.text);
    assert_ok(event_bus_declare_stream(
        w->bus,
        &(struct event_bus_stream_options){.name = "A", .subjects = subjects, .subject_count = 1},
        EVENT_BUS_CREATE, NULL));
    assert_ok(db_open(w->path, &(struct db_options){.sync = DB_SYNC_NORMAL}, &w->db, NULL));
    assert_ok(outbox_attach(db_handle(w->db), &w->outbox, NULL));
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    outbox_publisher_stop(w->publisher);
    event_bus_destroy(w->bus);
    outbox_detach(w->outbox);
    db_close(w->db);
    test_nats_stop(&w->server);
    test_dir_remove(w->dir);
    free(w);
    return 0;
}

static void publisher_start(struct world *w)
{
    const struct outbox_publisher_options options = {.path = w->path,
                                                     .bus = w->bus,
                                                     .streams = streams,
                                                     .stream_count =
                                                         w->stream_count > 0 ? w->stream_count : 1,
                                                     .ack_timeout_ns = WB_SEC};
    struct wb_why why = {.text = ""};

    if (outbox_publisher_start(&options, &w->publisher, &why) != WB_OK)
        fail_msg("%s", why.text);
}

static void enqueue(struct world *w, int count)
{
    static const char payload[300] = "p";
    const struct outbox_event event = {.subject = wb_str("a.x"),
                                       .payload = {payload, sizeof(payload)}};

    assert_ok(db_begin(w->db, NULL));
    for (int i = 0; i < count; i++)
        assert_ok(outbox_enqueue(w->outbox, &event, NULL, NULL));
    assert_ok(db_commit(w->db, NULL));
    outbox_wake(w->outbox);
}

static void flush(struct world *w)
{
    struct wb_why why = {.text = ""};

    if (outbox_publisher_flush(w->publisher, 60 * WB_SEC, &why) != WB_OK)
        fail_msg("%s", why.text);
}

static void sleep_ms(long ms)
{
    const struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    (void)nanosleep(&time, NULL); /* how long a fault lasts */
}

/* Sequence n holds row n, for all rows. */
static void assert_stream_is_the_table(struct world *w, uint64_t rows)
{
    struct event_bus_stream_info info;

    assert_ok(event_bus_stream_info(w->bus, "A", &info, NULL));
    assert_int_equal(info.last_seq, rows);
    for (uint64_t sequence = 1; sequence <= rows; sequence++) {
        struct event_bus_delivery *delivery;
        uint64_t id = 0;
        assert_ok(event_bus_get(w->bus, "A", sequence, &delivery, NULL));
        assert_true(wb_str_to_u64(message_header(&delivery->message, "waybill-row"), &id));
        event_bus_release(delivery);
        if (id != sequence)
            fail_msg("sequence %" PRIu64 " holds row %" PRIu64, sequence, id);
    }
}

static void rows_reach_jetstream_in_order(void **state)
{
    struct world *w = *state;
    enum { ROWS = 20000 };

    for (int i = 0; i < ROWS / 100; i++)
        enqueue(w, 100);
    int64_t started_ns = wb_mono_ns(wb_clock_system());
    publisher_start(w);
    flush(w);
    int64_t took_ns = wb_mono_ns(wb_clock_system()) - started_ns;
    print_message("%d rows of 300 B drained in %lld ms\n", ROWS, (long long)(took_ns / WB_MS));
    assert_stream_is_the_table(w, ROWS);
}

static uint64_t last_of(struct world *w, const char *stream)
{
    struct event_bus_stream_info info;

    assert_ok(event_bus_stream_info(w->bus, stream, &info, NULL));
    return info.last_seq;
}

/* What is urgent has a stream of its own: it overtakes what waits for another. */
static void row_does_not_wait_for_the_backlog_of_another_stream(void **state)
{
    struct world *w = *state;
    enum { ROWS = 40000 };
    const struct outbox_event urgent = {.subject = wb_str("b.urgent")};
    int64_t until = wb_mono_ns(wb_clock_system()) + 60 * WB_SEC;

    w->stream_count = 2;
    assert_ok(event_bus_declare_stream(w->bus,
                                       &(struct event_bus_stream_options){.name = "B",
                                                                          .subjects = &subjects[1],
                                                                          .subject_count = 1},
                                       EVENT_BUS_CREATE, NULL));
    publisher_start(w);
    enqueue(w, 1);
    flush(w);
    enqueue(w, ROWS);
    assert_ok(db_begin(w->db, NULL));
    assert_ok(outbox_enqueue(w->outbox, &urgent, NULL, NULL));
    assert_ok(db_commit(w->db, NULL));
    outbox_wake(w->outbox);
    while (last_of(w, "B") == 0 && wb_mono_ns(wb_clock_system()) < until)
        sleep_ms(1);
    uint64_t meanwhile = last_of(w, "A");
    assert_int_equal(last_of(w, "B"), 1);
    print_message("stored after %llu of %d rows of the other stream\n",
                  (unsigned long long)meanwhile, ROWS);
    assert_true(meanwhile < ROWS);
    flush(w);
    assert_int_equal(last_of(w, "A"), ROWS + 1);
}

/* Stopped in the midst of a drain, again and again: what is in flight is waited for, and marked. */
static void stopped_under_load_blames_and_doubles_nothing(void **state)
{
    struct world *w = *state;
    uint64_t rows = 0;
    int64_t longest_ns = 0;

    for (int i = 0; i < 15; i++) {
        for (int n = 0; n < 40; n++, rows += 50)
            enqueue(w, 50);
        publisher_start(w);
        sleep_ms(3L * i);
        int64_t began_ns = wb_mono_ns(wb_clock_system());
        outbox_publisher_stop(w->publisher);
        w->publisher = NULL;
        int64_t took_ns = wb_mono_ns(wb_clock_system()) - began_ns;
        longest_ns = took_ns > longest_ns ? took_ns : longest_ns;
    }
    print_message("the longest stop took %lld ms\n", (long long)(longest_ns / WB_MS));
    assert_true(longest_ns < 2 * WB_SEC); /* it waits a second at most; the machine may be busy */
    assert_int_equal(test_query(w->db, "SELECT count(*) FROM outbox_exception"), 0);
    publisher_start(w);
    flush(w);
    assert_stream_is_the_table(w, rows);
    assert_int_equal(test_query(w->db, "SELECT count(*) FROM outbox_exception"), 0);
}

static void killed_server_loses_and_doubles_nothing(void **state)
{
    struct world *w = *state;
    uint64_t rows = 0;

    publisher_start(w);
    for (int i = 0; i < 4; i++) {
        for (int n = 0; n < 20; n++, rows += 50)
            enqueue(w, 50);
        sleep_ms(7L * i);
        test_nats_kill(&w->server);
        enqueue(w, 10);
        rows += 10;
        test_nats_restart(&w->server);
    }
    flush(w);
    assert_stream_is_the_table(w, rows);
}

static void paused_server_loses_and_doubles_nothing(void **state)
{
    struct world *w = *state;
    uint64_t rows = 0;

    publisher_start(w);
    for (int i = 0; i < 2; i++) {
        for (int n = 0; n < 20; n++, rows += 50)
            enqueue(w, 50);
        sleep_ms(3);
        test_nats_pause(&w->server);
        enqueue(w, 10);
        rows += 10;
        sleep_ms(1500); /* longer than the deadline of an ack */
        test_nats_resume(&w->server);
    }
    flush(w);
    assert_stream_is_the_table(w, rows);
}

/* ---- the server loses what it had acknowledged ----------------------------------------------- */

static void copy_dir(char *from, char *to)
{
    char cp[] = "cp", all[] = "-a";
    char *const argv[] = {cp, all, from, to, NULL};
    pid_t pid = 0;
    int status = -1;

    assert_int_equal(posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void connection_changed(void *ctx, bool connected)
{
    _Atomic(int64_t) *at = ctx;

    if (connected)
        atomic_store(at, wb_mono_ns(wb_clock_system()));
}

static bool has_repaired(void *ctx)
{
    struct world *w = ctx;
    struct outbox_publisher_health health;

    outbox_publisher_health(w->publisher, &health);
    return health.repairs > 0;
}

static bool notices(void *ctx)
{
    struct world *w = ctx;
    struct outbox_publisher_health health;

    outbox_publisher_health(w->publisher, &health);
    return health.repairs > 0 || health.state == OUTBOX_PUBLISHER_REPAIR;
}

static bool has_connected(void *ctx)
{
    _Atomic(int64_t) *at = ctx;

    return atomic_load(at) != 0;
}

/* Start the server again, and see how long after the connection the loss is noticed. A publisher
 * may ask the server before this listener is told: listeners have a thread of their own. */
static void restart_and_notice(struct world *w, const char *what)
{
    _Atomic(int64_t) connected_ns = 0;

    assert_false(notices(w));
    assert_ok(event_bus_listen(w->bus, connection_changed, &connected_ns));
    test_nats_restart(&w->server);
    assert_true(test_wait(notices, w, 30000));
    int64_t noticed_ns = wb_mono_ns(wb_clock_system());
    assert_true(test_wait(has_connected, &connected_ns, 30000));
    event_bus_unlisten(w->bus, connection_changed, &connected_ns);
    int64_t took_ms = (noticed_ns - atomic_load(&connected_ns)) / WB_MS;
    print_message("%s: noticed %lld ms after the connection was back\n", what, (long long)took_ms);
    assert_true(took_ms < 1000);
}

static void rolled_back_store_gets_every_row_again(void **state)
{
    struct world *w = *state;
    char store[400], copy[400];

    (void)snprintf(store, sizeof(store), "%s/store", w->server.dir);
    (void)snprintf(copy, sizeof(copy), "%s/copy", w->server.dir);
    publisher_start(w);
    enqueue(w, 300);
    flush(w);
    test_nats_term(&w->server);
    copy_dir(store, copy);
    test_nats_restart(&w->server);
    enqueue(w, 700);
    flush(w);
    test_nats_term(&w->server);
    test_dir_remove(store);
    assert_int_equal(rename(copy, store), 0);
    restart_and_notice(w, "rolled back by 700 of 1000");
    enqueue(w, 5);
    flush(w);
    assert_stream_is_the_table(w, 1005);
}

static void wiped_store_gets_every_row_again(void **state)
{
    struct world *w = *state;
    char store[400];

    (void)snprintf(store, sizeof(store), "%s/store", w->server.dir);
    publisher_start(w);
    enqueue(w, 1000);
    flush(w);
    test_nats_term(&w->server);
    test_dir_remove(store);
    test_nats_restart(&w->server);
    enqueue(w, 5);
    /* Until somebody declares the stream there is nothing to compare. */
    struct event_bus_stream_options options = {
        .name = "A", .subjects = subjects, .subject_count = 1};
    for (int i = 0; event_bus_declare_stream(w->bus, &options, EVENT_BUS_CREATE, NULL) != WB_OK;
         i++) {
        assert_true(i < 200);
        sleep_ms(50);
    }
    flush(w);
    assert_stream_is_the_table(w, 1005);
    assert_true(has_repaired(w));
}

static void messages_behind_a_rolled_back_stream_do_not_hide_the_loss(void **state)
{
    struct world *w = *state;
    char store[400], copy[400];
    struct event_bus_stream_info info;

    (void)snprintf(store, sizeof(store), "%s/store", w->server.dir);
    (void)snprintf(copy, sizeof(copy), "%s/copy", w->server.dir);
    publisher_start(w);
    enqueue(w, 10);
    flush(w);
    test_nats_term(&w->server);
    copy_dir(store, copy);
    test_nats_restart(&w->server);
    enqueue(w, 10);
    flush(w);
    outbox_publisher_stop(w->publisher);
    w->publisher = NULL;
    test_nats_term(&w->server);
    test_dir_remove(store);
    assert_int_equal(rename(copy, store), 0);
    test_nats_restart(&w->server);
    const struct message msg = {.subject = wb_str("a.foreign"), .payload = {"F", 1}};
    for (int i = 0, tries = 0; i < 15;) {
        if (event_bus_publish(w->bus, &msg, NULL, NULL, NULL) == WB_OK)
            i++;
        else
            sleep_ms(50);
        assert_true(++tries < 200);
    }
    publisher_start(w);
    flush(w);
    assert_ok(event_bus_stream_info(w->bus, "A", &info, NULL));
    assert_int_equal(info.last_seq, 10 + 15 + 10);
    assert_true(has_repaired(w));
}

static void stream_made_anew_gets_every_row_again(void **state)
{
    struct world *w = *state;

    publisher_start(w);
    enqueue(w, 5);
    flush(w);
    assert_ok(event_bus_delete_stream(w->bus, "A", NULL));
    assert_ok(event_bus_declare_stream(
        w->bus,
        &(struct event_bus_stream_options){.name = "A", .subjects = subjects, .subject_count = 1},
        EVENT_BUS_CREATE, NULL));
    enqueue(w, 1);
    flush(w);
    assert_stream_is_the_table(w, 6);
    assert_true(has_repaired(w));
}

struct seen {
    uint64_t ids[8];
    size_t count;
};

static bool see(void *ctx, const struct event_bus_delivery *delivery)
{
    struct seen *seen = ctx;

    assert_true(seen->count < sizeof(seen->ids) / sizeof(seen->ids[0]));
    assert_true(wb_str_to_u64(message_header(&delivery->message, "waybill-row"),
                              &seen->ids[seen->count++]));
    return true;
}

static bool holes_are_mended(void *ctx)
{
    struct world *w = ctx;
    struct outbox_publisher_health health;
    struct event_bus_stream_info info;

    outbox_publisher_health(w->publisher, &health);
    return health.holes == 3 && event_bus_stream_info(w->bus, "A", &info, NULL) == WB_OK &&
           info.last_seq == 5003;
}

static void holes_in_the_stream_are_found_and_mended(void **state)
{
    struct world *w = *state;
    static const uint64_t lost[] = {17, 2500, 4000};
    const struct outbox_publisher_options options = {.path = w->path,
                                                     .bus = w->bus,
                                                     .streams = streams,
                                                     .stream_count = 1,
                                                     .audit_wait_ns = 2 * WB_SEC};
    uint64_t next;

    assert_ok(outbox_publisher_start(&options, &w->publisher, NULL));
    for (int i = 0; i < 50; i++)
        enqueue(w, 100);
    flush(w);
    for (size_t i = 0; i < 3; i++)
        test_nats_delete(&w->server, "A", lost[i]);
    assert_true(test_wait(holes_are_mended, w, 30000));
    struct seen seen = {.count = 0};
    assert_ok(event_bus_scan(w->bus, "A", 5001, UINT64_MAX, see, &seen, &next, NULL));
    assert_int_equal(seen.count, 3);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(seen.ids[i], lost[i]);
}

/* ---- a publisher in a process of its own, to be killed --------------------------------------- */

static int publisher_process(const char *path, const char *url)
{
    struct event_bus *bus;
    struct outbox_publisher *publisher;
    const struct event_bus_nats_options bus_options = {.url = url};

    wb_log_setup(2, WB_LOG_LOGFMT, WB_LOG_ERROR);
    if (event_bus_nats_create(&bus_options, true, &bus, NULL) != WB_OK)
        return 1;
    const struct outbox_publisher_options options = {
        .path = path, .bus = bus, .streams = streams, .stream_count = 1};
    if (outbox_publisher_start(&options, &publisher, NULL) != WB_OK)
        return 2;
    for (;;)
        (void)pause();
}

static pid_t publisher_spawn(struct world *w)
{
    char self[] = "/proc/self/exe", word[] = "publisher";
    char *const argv[] = {self, word, w->path, w->server.url, NULL};
    pid_t pid;

    assert_int_equal(posix_spawn(&pid, self, NULL, NULL, argv, environ), 0);
    return pid;
}

static void killed_publisher_loses_and_doubles_nothing(void **state)
{
    struct world *w = *state;
    uint64_t rows = 0;

    for (int i = 0; i < 12; i++) {
        pid_t pid = publisher_spawn(w);
        for (int n = 0; n < 10 + 5 * i; n++, rows += 50)
            enqueue(w, 50);
        sleep_ms(5 + 3L * i);
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, 0);
    }
    publisher_start(w);
    flush(w);
    assert_stream_is_the_table(w, rows);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(rows_reach_jetstream_in_order),
        T(row_does_not_wait_for_the_backlog_of_another_stream),
        T(stopped_under_load_blames_and_doubles_nothing),
        T(killed_server_loses_and_doubles_nothing),
        T(paused_server_loses_and_doubles_nothing),
        T(stream_made_anew_gets_every_row_again),
        T(rolled_back_store_gets_every_row_again),
        T(wiped_store_gets_every_row_again),
        T(messages_behind_a_rolled_back_stream_do_not_hide_the_loss),
        T(holes_in_the_stream_are_found_and_mended),
        T(killed_publisher_loses_and_doubles_nothing),
    };
    if (argc == 4 && strcmp(argv[1], "publisher") == 0)
        return publisher_process(argv[2], argv[3]);
    return cmocka_run_group_tests_name("outbox_publisher_nats", tests, NULL, NULL);
}
