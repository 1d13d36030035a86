/*
 * A consumer on a nats-server that loses what was read: its store is put back to an older copy, or
 * wiped, and may have grown past the consumer's position before it is seen again. Each event is
 * handled once, those that come again included, and no new one is skipped.
 */
#include "event_bus_nats_fixture.h"
#include "test_db.h"

#include <inttypes.h>
#include <nats/nats.h>
#include <signal.h>
#include <spawn.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include <waybill/db.h>
#include <waybill/event_consumer.h>

static struct scene {
    struct test_nats server;
    char root[256]; /* the server's directory, kept over its lives */
    char store[300], copy[300], path[300];
    struct event_bus *bus; /* the consumer's */
    struct event_consumer *consumer;
} scene;

/* ---- the server's lives ---------------------------------------------------------------------- */

static void run(char *const argv[])
{
    pid_t pid = 0;
    int status = -1;

    assert_int_equal(posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void remove_dir(char *path)
{
    char rm[] = "rm", rf[] = "-rf";

    run((char *[]){rm, rf, path, NULL});
}

static void copy_dir(char *from, char *to)
{
    char cp[] = "cp", all[] = "-a";

    remove_dir(to);
    run((char *[]){cp, all, from, to, NULL});
}

/* port 0: a free one, where the consumer does not look. */
static void serve(uint16_t port)
{
    const struct test_nats_options options = {.port = port, .dir = scene.root};

    test_nats_start(&scene.server, &options);
}

/* The store as it was when it was copied; copy NULL: as new. */
static void put_back(char *copy)
{
    test_nats_kill(&scene.server);
    if (copy != NULL)
        copy_dir(copy, scene.store);
    else
        remove_dir(scene.store);
}

/* ---- events ---------------------------------------------------------------------------------- */

/* As an outbox publisher would send them. */
static void publish(struct event_bus *bus, int from, int to)
{
    char row[16], id[24];

    for (int n = from; n <= to; n++) {
        (void)snprintf(row, sizeof(row), "%d", n);
        (void)snprintf(id, sizeof(id), "id-%d", n);
        const struct message_header headers[] = {
            {wb_str(MESSAGE_HEADER_SOURCE), wb_str("0123456789abcdef")},
            {wb_str(MESSAGE_HEADER_ROW), wb_str(row)},
        };
        const struct message msg = {.subject = wb_str("orders.a"),
                                    .payload = {row, strlen(row)},
                                    .headers = headers,
                                    .header_count = 2,
                                    .msg_id = wb_str(id)};
        const struct event_bus_publish_options options = {.timeout_ns = PATIENCE_NS};
        assert_ok(event_bus_publish(bus, &msg, &options, NULL, NULL));
    }
}

/* By a connection of their own. */
static void publish_apart(int from, int to)
{
    struct event_bus *bus = make_bus(&scene.server);

    make_stream(bus, "ORDERS", "orders.>");
    publish(bus, from, to);
    event_bus_destroy(bus);
}

static wb_err make_effects(void *ctx, struct db *db, void **ret_scope, struct wb_why *why)
{
    (void)ctx;
    *ret_scope = NULL;
    return db_exec(db, "CREATE TABLE IF NOT EXISTS effect(n INTEGER PRIMARY KEY, event TEXT)", why);
}

static wb_err handle(void *ctx, const struct event_consumer_event *event, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = NULL;
    wb_err err = db_prepare(event->db, "INSERT INTO effect(event) VALUES(?1)", &stmt, why);

    (void)ctx;
    if (err != WB_OK)
        return err;
    sqlite3_bind_text(stmt, 1, event->delivery->message.payload.ptr,
                      (int)event->delivery->message.payload.len, SQLITE_STATIC);
    err = db_error(db_handle(event->db), sqlite3_step(stmt), "write the effect", why);
    sqlite3_finalize(stmt);
    return err;
}

static void consume(void)
{
    static const char *const patterns[] = {"orders.>"};
    const struct event_consumer_options options = {.name = "worker",
                                                   .path = scene.path,
                                                   .bus = scene.bus,
                                                   .patterns = patterns,
                                                   .pattern_count = 1,
                                                   .handler = handle,
                                                   .open = make_effects,
                                                   .sync = DB_SYNC_NORMAL};
    struct wb_why why = {""};

    if (event_consumer_start(&options, &scene.consumer, &why) != WB_OK)
        fail_msg("%s", why.text);
}

static void stop_consuming(void)
{
    event_consumer_stop(scene.consumer);
    scene.consumer = NULL;
}

static struct event_consumer_health health(void)
{
    struct event_consumer_health now;

    event_consumer_health(scene.consumer, &now);
    return now;
}

static bool has_noticed(void *ctx)
{
    (void)ctx;
    return health().went_back > 0;
}

static bool has_handled(void *ctx)
{
    struct event_consumer_health now = health();

    return now.handled >= *(uint64_t *)ctx;
}

static void wait_handled(uint64_t count)
{
    if (!test_wait(has_handled, &count, PATIENCE_MS))
        fail_msg("%" PRIu64 " of %" PRIu64 " handled: %s", health().handled, count,
                 health().problem);
}

static void assert_each_once(int last)
{
    assert_int_equal(test_query_file(scene.path, "SELECT count(DISTINCT event) FROM effect"), last);
    assert_int_equal(test_query_file(scene.path, "SELECT count(*) FROM effect"), last);
    assert_int_equal(test_query_file(scene.path, "SELECT max(CAST(event AS INTEGER)) FROM effect"),
                     last);
    assert_int_equal(test_query_file(scene.path, "SELECT count(*) FROM dead_letter"), 0);
}

static int scene_setup(void **state)
{
    (void)state;
    memset(&scene, 0, sizeof(scene));
    wb_log_setup(2, WB_LOG_LOGFMT, WB_LOG_ERROR);
    test_dir_make(scene.root);
    (void)snprintf(scene.store, sizeof(scene.store), "%s/store", scene.root);
    (void)snprintf(scene.copy, sizeof(scene.copy), "%s/copy", scene.root);
    (void)snprintf(scene.path, sizeof(scene.path), "%s/worker.db", scene.root);
    serve(0);
    scene.bus = make_bus(&scene.server);
    make_stream(scene.bus, "ORDERS", "orders.>");
    consume();
    return 0;
}

static int scene_teardown(void **state)
{
    (void)state;
    stop_consuming();
    event_bus_destroy(scene.bus);
    test_nats_stop(&scene.server);
    test_dir_remove(scene.root);
    return 0;
}

/* 1 to `kept` are in the copy; 1 to `last` were handled. */
static void live_on_after_a_copy(int kept, int last)
{
    uint16_t port = scene.server.port;

    publish(scene.bus, 1, kept);
    wait_handled((uint64_t)kept);
    test_nats_term(&scene.server);
    copy_dir(scene.store, scene.copy);
    serve(port);
    publish(scene.bus, kept + 1, last);
    wait_handled((uint64_t)last);
}

static void report(const char *what, int64_t since_ns, int64_t noticed_ns)
{
    print_message("%s: noticed after %.0f ms, all handled after %.0f ms\n", what,
                  (double)(noticed_ns - since_ns) / 1e6, (double)(mono_ns() - since_ns) / 1e6);
}

/* ---- losses ---------------------------------------------------------------------------------- */

static void consumer_of_a_rolled_back_stream_handles_each_event_once(void **state)
{
    uint16_t port = scene.server.port;

    (void)state;
    live_on_after_a_copy(1000, 1500);
    put_back(scene.copy);
    serve(port);
    int64_t since = mono_ns();
    assert_true(test_wait(has_noticed, NULL, PATIENCE_MS));
    int64_t noticed = mono_ns();
    publish_apart(1501, 1600); /* new ones come first this time */
    publish_apart(1001, 1500);
    publish_apart(1601, 1700);
    wait_handled(1700);
    report("rolled back", since, noticed);
    assert_true(noticed - since < 5 * WB_SEC);
    stop_consuming();
    assert_each_once(1700);
}

/* Before the consumer sees the server again: at its position stands another message. */
static void consumer_of_a_stream_that_grew_past_it_elsewhere_handles_each_event_once(void **state)
{
    uint16_t port = scene.server.port;

    (void)state;
    live_on_after_a_copy(1000, 1500);
    put_back(scene.copy);
    serve(0);
    publish_apart(1501, 2600);
    test_nats_term(&scene.server);
    serve(port);
    int64_t since = mono_ns();
    assert_true(test_wait(has_noticed, NULL, PATIENCE_MS));
    int64_t noticed = mono_ns();
    publish_apart(1001, 1500);
    wait_handled(2600);
    report("rolled back and grown", since, noticed);
    assert_true(noticed - since < 5 * WB_SEC);
    assert_true(health().duplicates < 2000); /* not from the start */
    stop_consuming();
    assert_each_once(2600);
}

static void consumer_that_was_away_while_the_stream_changed_handles_each_event_once(void **state)
{
    uint16_t port = scene.server.port;

    (void)state;
    live_on_after_a_copy(1000, 1500);
    stop_consuming();
    put_back(scene.copy);
    serve(port);
    publish_apart(1501, 2100);
    publish_apart(1001, 1500);
    consume();
    wait_handled(600);
    assert_true(health().went_back > 0);
    stop_consuming();
    assert_each_once(2100);
}

static void consumer_of_a_wiped_stream_handles_each_event_once(void **state)
{
    uint16_t port = scene.server.port;

    (void)state;
    publish(scene.bus, 1, 500);
    wait_handled(500);
    put_back(NULL);
    serve(0);
    publish_apart(501, 1200); /* past its position */
    test_nats_term(&scene.server);
    serve(port);
    int64_t since = mono_ns();
    wait_handled(1200);
    report("wiped and grown", since, mono_ns());
    publish_apart(1, 500);
    publish_apart(1201, 1210);
    wait_handled(1210);
    stop_consuming();
    assert_each_once(1210);
}

/* The server comes back with all it had: nothing is read twice. */
static void consumer_of_an_intact_stream_reads_nothing_again(void **state)
{
    uint16_t port = scene.server.port;

    (void)state;
    for (int last = 100; last <= 300; last += 100) {
        publish(scene.bus, last - 99, last);
        wait_handled((uint64_t)last);
        test_nats_kill(&scene.server);
        serve(port);
    }
    publish(scene.bus, 301, 310);
    wait_handled(310);
    assert_int_equal(health().duplicates, 0);
    assert_int_equal(health().went_back, 0);
    stop_consuming();
    consume();
    publish(scene.bus, 311, 312);
    wait_handled(2);
    assert_int_equal(health().duplicates, 0);
    stop_consuming();
    assert_each_once(312);
}

/* Back to an old copy, on, and back to the newer original: again and again. */
static void consumer_follows_a_store_back_and_forth(void **state)
{
    char newer[300];
    uint16_t port = scene.server.port;

    (void)state;
    (void)snprintf(newer, sizeof(newer), "%s/newer", scene.root);
    live_on_after_a_copy(300, 600);
    unsigned last = 600;
    for (int i = 0; i < 4; i++) {
        bool old = i % 2 == 0;
        test_nats_term(&scene.server);
        copy_dir(scene.store, old ? newer : scene.copy);
        put_back(old ? scene.copy : newer);
        serve(0);
        publish_apart((int)last + 1, (int)last + 400);
        test_nats_term(&scene.server);
        serve(port);
        publish_apart(1, (int)last);
        last += 400;
        wait_handled(last);
    }
    stop_consuming();
    assert_each_once((int)last);
}

/* ---- a subscription that stands still -------------------------------------------------------- */

/* Asks for one message of the consumer's own log at the server; what comes is lost to it. */
static natsSubscription *ask_for_one(natsConnection *nc)
{
    char answer[4096], subject[256];
    natsSubscription *sub = NULL;

    assert_true(test_nats_request(&scene.server, "$JS.API.CONSUMER.NAMES.ORDERS", "", answer,
                                  sizeof(answer)));
    const char *name = strstr(answer, "\"wb-");
    assert_non_null(name);
    (void)snprintf(subject, sizeof(subject), "$JS.API.CONSUMER.MSG.NEXT.ORDERS.%.*s",
                   (int)strcspn(name + 1, "\""), name + 1);
    assert_int_equal(natsConnection_SubscribeSync(&sub, nc, "thief"), NATS_OK);
    assert_int_equal(natsConnection_PublishRequestString(nc, subject, "thief", "1"), NATS_OK);
    assert_int_equal(natsConnection_Flush(nc), NATS_OK);
    return sub;
}

/* Heartbeats come, no number is missing, and yet there is more in the stream than arrives. */
static void consumer_whose_log_stands_still_is_opened_again(void **state)
{
    natsConnection *nc = NULL;
    int last = 0;
    bool stolen = false;

    (void)state;
    publish(scene.bus, ++last, 1);
    wait_handled(1);
    assert_int_equal(natsConnection_ConnectTo(&nc, scene.server.url), NATS_OK);
    for (int i = 0; i < 200 && !stolen; i++) {
        natsSubscription *sub = ask_for_one(nc);
        natsMsg *msg = NULL;
        last++;
        publish(scene.bus, last, last);
        stolen =
            natsSubscription_NextMsg(&msg, sub, 200) == NATS_OK && natsMsg_GetDataLength(msg) > 0;
        natsMsg_Destroy(msg);
        natsSubscription_Destroy(sub);
    }
    assert_true(stolen);
    int64_t since = mono_ns();
    wait_handled((uint64_t)last);
    report("stolen", since, mono_ns());
    natsConnection_Destroy(nc);
    stop_consuming();
    assert_each_once(last);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, scene_setup, scene_teardown)
        T(consumer_of_a_rolled_back_stream_handles_each_event_once),
        T(consumer_of_a_stream_that_grew_past_it_elsewhere_handles_each_event_once),
        T(consumer_that_was_away_while_the_stream_changed_handles_each_event_once),
        T(consumer_of_a_wiped_stream_handles_each_event_once),
        T(consumer_of_an_intact_stream_reads_nothing_again),
        T(consumer_follows_a_store_back_and_forth),
        T(consumer_whose_log_stands_still_is_opened_again),
#undef T
    };
    return cmocka_run_group_tests_name("event_consumer_nats", tests, NULL, NULL);
}
