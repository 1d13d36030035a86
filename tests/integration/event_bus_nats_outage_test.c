/* The bus while its server is killed, stopped for a while, and late. */
#include "event_bus_nats_fixture.h"

#include <dirent.h>

#define MESSAGES 3000

/* ---- traffic --------------------------------------------------------------------------------- */

struct traffic {
    struct event_bus *bus;
    atomic_int published;
    atomic_int failed; /* the last error */
};

static void *publish_all(void *arg)
{
    struct traffic *t = arg;

    for (int i = 1; i <= MESSAGES; i++) {
        wb_err err = publish_number(t->bus, "orders.a", i);
        if (err != WB_OK)
            atomic_store(&t->failed, err);
        atomic_store(&t->published, i);
    }
    return NULL;
}

/* What a subscription saw. Its handler runs on one thread at a time. */
struct seen {
    atomic_int count;    /* different numbers */
    atomic_int inverted; /* first deliveries behind a higher one; what was sent into a dead
                          * connection comes as a redelivery, later */
    atomic_int repeated;
    int highest;
    bool numbers[MESSAGES + 1];
};

static void see(void *ctx, struct event_bus_delivery *delivery)
{
    struct seen *seen = ctx;
    int number = number_of(delivery);

    if (number < 1 || number > MESSAGES)
        return;
    if (seen->numbers[number]) {
        atomic_fetch_add(&seen->repeated, 1);
    } else {
        seen->numbers[number] = true;
        if (number < seen->highest && delivery->deliveries == 1)
            atomic_fetch_add(&seen->inverted, 1);
        seen->highest = number > seen->highest ? number : seen->highest;
        atomic_fetch_add(&seen->count, 1);
    }
    (void)event_bus_ack(delivery);
}

static bool saw_all(void *seen)
{
    return atomic_load(&((struct seen *)seen)->count) == MESSAGES;
}

struct threshold {
    struct traffic *traffic;
    int at;
};

static bool has_published(void *arg)
{
    const struct threshold *threshold = arg;

    return atomic_load(&threshold->traffic->published) >= threshold->at;
}

static void kill_and_restart(struct world *w)
{
    test_nats_kill(&w->server);
    test_nats_restart(&w->server);
}

static void pause_until_noticed(struct world *w)
{
    test_nats_pause(&w->server);
    int64_t since = mono_ns();
    assert_true(test_wait(is_disconnected, w->bus, 10000));
    int64_t took = mono_ns() - since;
    test_nats_resume(&w->server);
    assert_true(took <= 4 * WB_SEC);
}

/* Publisher, a durable and an ordered log keep at it while the server has its troubles. */
static void survive(struct world *w, void (*trouble)(struct world *w))
{
    struct traffic traffic = {.bus = w->bus};
    static struct seen durable;
    static struct seen ordered;
    struct event_bus_stream_info info;
    pthread_t publisher;

    memset(&durable, 0, sizeof(durable));
    memset(&ordered, 0, sizeof(ordered));
    make_stream(w->bus, "ORDERS", "orders.>");
    struct event_bus_subscription *a =
        subscribe(w->bus, "orders.>",
                  (struct event_bus_subscription_options){.start = EVENT_BUS_START_ALL,
                                                          .durable = "worker",
                                                          .ack_wait_ns = 2 * WB_SEC,
                                                          .handler = see,
                                                          .ctx = &durable});
    struct event_bus_subscription *b = subscribe(
        w->bus, "orders.>",
        (struct event_bus_subscription_options){
            .start = EVENT_BUS_START_ALL, .ack_none = true, .handler = see, .ctx = &ordered});
    assert_int_equal(pthread_create(&publisher, NULL, publish_all, &traffic), 0);
    for (int round = 1; round <= 3; round++) {
        struct threshold threshold = {&traffic, round * MESSAGES / 4};
        assert_true(test_wait(has_published, &threshold, PATIENCE_MS));
        trouble(w);
    }
    pthread_join(publisher, NULL);
    assert_string_equal(wb_err_name((wb_err)traffic.failed), "OK");
    assert_true(test_wait(saw_all, &durable, PATIENCE_MS));
    assert_true(test_wait(saw_all, &ordered, PATIENCE_MS));
    assert_int_equal(ordered.inverted, 0);
    assert_int_equal(ordered.repeated, 0);
    assert_int_equal(durable.inverted, 0);
    assert_ok(event_bus_stream_info(w->bus, "ORDERS", &info, NULL));
    assert_int_equal(info.messages, MESSAGES);
    event_bus_unsubscribe(a);
    event_bus_unsubscribe(b);
}

static void killed_server_mid_traffic_loses_doubles_and_reorders_nothing(void **state)
{
    survive(*state, kill_and_restart);
}

static void paused_server_mid_traffic_is_noticed_and_loses_nothing(void **state)
{
    survive(*state, pause_until_noticed);
}

/* ---- publishes in flight --------------------------------------------------------------------- */

#define IN_FLIGHT 200

struct completions {
    atomic_int count[IN_FLIGHT];
    atomic_int unknown;
    atomic_int total;
};

struct completion {
    struct completions *all;
    int index;
};

static void completed(void *ctx, wb_err err, const struct event_bus_ack_info *ack,
                      const struct wb_why *why)
{
    const struct completion *one = ctx;

    (void)ack;
    (void)why;
    atomic_fetch_add(&one->all->count[one->index], 1);
    atomic_fetch_add(&one->all->unknown, err == WB_UNKNOWN);
    atomic_fetch_add(&one->all->total, 1);
}

static bool all_completed(void *all)
{
    return atomic_load(&((struct completions *)all)->total) >= IN_FLIGHT;
}

static void publishes_in_flight_at_a_kill_complete_once_as_unknown(void **state)
{
    struct world *w = *state;
    static struct completions all;
    static struct completion each[IN_FLIGHT];
    const struct event_bus_publish_options options = {.timeout_ns = PATIENCE_NS};
    const struct message msg = {.subject = wb_str("orders.a")};

    make_stream(w->bus, "ORDERS", "orders.>");
    test_nats_pause(&w->server); /* so that none is answered */
    for (int i = 0; i < IN_FLIGHT; i++) {
        each[i] = (struct completion){&all, i};
        assert_ok(event_bus_publish_async(w->bus, &msg, &options, completed, &each[i], NULL));
    }
    test_nats_kill(&w->server);
    assert_true(test_wait(all_completed, &all, PATIENCE_MS));
    test_nats_restart(&w->server);
    assert_true(test_wait(is_connected, w->bus, PATIENCE_MS));
    assert_ok(publish_number(w->bus, "orders.a", 1)); /* time for a second completion to show */
    for (int i = 0; i < IN_FLIGHT; i++)
        assert_int_equal(all.count[i], 1);
    assert_int_equal(all.unknown, IN_FLIGHT);
}

static void publish_to_a_paused_server_ends_at_its_deadline(void **state)
{
    struct world *w = *state;
    const struct event_bus_publish_options options = {.timeout_ns = 300 * WB_MS};
    const struct message msg = {.subject = wb_str("orders.a")};
    struct wb_why why = {""};

    make_stream(w->bus, "ORDERS", "orders.>");
    test_nats_pause(&w->server);
    int64_t begin = mono_ns();
    wb_err err = event_bus_publish(w->bus, &msg, &options, NULL, &why);
    int64_t took = mono_ns() - begin;
    test_nats_resume(&w->server);
    assert_err(err, WB_TIMEOUT);
    assert_true(took >= 290 * WB_MS && took < 2 * WB_SEC);
    assert_non_null(strstr(why.text, "orders.a"));
}

static bool publishes_again(void *bus)
{
    const struct event_bus_publish_options options = {.timeout_ns = 5 * WB_SEC};
    const struct message msg = {.subject = wb_str("orders.a")};

    return event_bus_publish(bus, &msg, &options, NULL, NULL) == WB_OK;
}

/* Their deadlines free the window, but not nats.c's buffer, in which they wait for the server. */
static void what_a_paused_server_does_not_take_is_bounded(void **state)
{
    struct world *w = *state;
    static char payload[100000];
    const struct event_bus_nats_options options = {
        .url = w->server.url, .ping_interval_ns = 20 * WB_SEC, .publish_window_bytes = 1000000};
    const struct event_bus_publish_options at_once = {.timeout_ns = WB_MS};
    const struct message msg = {.subject = wb_str("orders.a"), .payload = {payload, 100000}};
    struct event_bus *bus = NULL;
    struct wb_why why = {""};
    wb_err err = WB_OK;
    int count = 0;

    make_stream(w->bus, "ORDERS", "orders.>");
    assert_ok(event_bus_nats_create(&options, true, &bus, NULL));
    test_nats_pause(&w->server);
    /* What the system's own buffers take, and a hundred times the window. */
    while (err != WB_FULL && count++ < 1000)
        err = event_bus_publish(bus, &msg, &at_once, NULL, &why);
    test_nats_resume(&w->server);
    assert_err(err, WB_FULL);
    assert_non_null(strstr(why.text, "bytes wait for"));
    assert_true(test_wait(is_connected, w->bus, PATIENCE_MS));
    assert_true(test_wait(publishes_again, bus, PATIENCE_MS));
    event_bus_destroy(bus);
}

/* ---- acks ------------------------------------------------------------------------------------ */

static void ack_given_while_the_server_is_away_counts(void **state)
{
    struct world *w = *state;
    struct event_bus_delivery *got = NULL;

    make_stream(w->bus, "ORDERS", "orders.>");
    assert_ok(publish_number(w->bus, "orders.a", 1));
    struct event_bus_subscription *s = subscribe(
        w->bus, "orders.>",
        (struct event_bus_subscription_options){
            .start = EVENT_BUS_START_ALL, .durable = "worker", .ack_wait_ns = 4 * WB_SEC});
    assert_ok(event_bus_next(s, PATIENCE_NS, &got));
    /* The server writes down what it has delivered a moment later; a clean end does it at once. */
    test_nats_term(&w->server);
    assert_true(test_wait(is_disconnected, w->bus, PATIENCE_MS));
    assert_ok(event_bus_ack(got));
    event_bus_release(got);
    test_nats_restart(&w->server);
    assert_true(test_wait(is_connected, w->bus, PATIENCE_MS));
    assert_err(event_bus_next(s, 5 * WB_SEC, &got), WB_TIMEOUT);
    assert_ok(publish_number(w->bus, "orders.a", 2));
    assert_ok(event_bus_next(s, PATIENCE_NS, &got));
    assert_int_equal(number_of(got), 2);
    event_bus_release(got);
    event_bus_unsubscribe(s);
}

/* ---- a server that comes late ---------------------------------------------------------------- */

static void bus_made_before_its_server_works_when_that_comes(void **state)
{
    struct world *w = *state;
    const struct event_bus_nats_options options = {.url = w->server.url};
    struct event_bus *bus = NULL;
    struct event_bus_delivery *got = NULL;
    struct event_bus_health health;

    test_nats_kill(&w->server);
    assert_ok(event_bus_nats_create(&options, false, &bus, NULL));
    event_bus_health(bus, &health);
    assert_false(health.connected);
    assert_true(health.problem[0] != '\0');
    struct event_bus_subscription *s =
        subscribe(bus, "orders.>",
                  (struct event_bus_subscription_options){.start = EVENT_BUS_START_ALL,
                                                          .wait_for_stream = true});
    test_nats_restart(&w->server);
    assert_true(test_wait(is_connected, bus, PATIENCE_MS));
    make_stream(bus, "ORDERS", "orders.>");
    assert_ok(publish_number(bus, "orders.a", 1));
    assert_ok(event_bus_next(s, PATIENCE_NS, &got));
    assert_int_equal(number_of(got), 1);
    event_bus_release(got);
    event_bus_destroy(bus);
}

/* ---- nothing stays behind -------------------------------------------------------------------- */

static int count_entries(const char *path)
{
    DIR *dir = opendir(path);
    int count = 0;

    assert_non_null(dir);
    while (readdir(dir) != NULL)
        count++;
    (void)closedir(dir);
    return count;
}

static void use_a_bus(struct world *w, int number, bool with_outage)
{
    struct event_bus *bus = make_bus(&w->server);
    struct event_bus_delivery *got = NULL;

    struct event_bus_subscription *s = subscribe(
        bus, "orders.>",
        (struct event_bus_subscription_options){.start = EVENT_BUS_START_NEW, .durable = "worker"});
    assert_ok(publish_number(bus, "orders.a", number));
    assert_ok(event_bus_next(s, PATIENCE_NS, &got));
    if (with_outage) {
        test_nats_kill(&w->server);
        test_nats_restart(&w->server);
    }
    (void)event_bus_ack(got);
    event_bus_release(got);
    event_bus_destroy(bus);
}

struct baseline {
    int threads;
    int fds;
};

/* nats.c ends some of its threads behind the close of their connection. */
static bool is_at_baseline(void *arg)
{
    const struct baseline *baseline = arg;

    return count_entries("/proc/self/task") <= baseline->threads &&
           count_entries("/proc/self/fd") <= baseline->fds;
}

static void threads_and_descriptors_return_to_where_they_were(void **state)
{
    struct world *w = *state;

    make_stream(w->bus, "ORDERS", "orders.>");
    use_a_bus(w, 1, true); /* nats.c starts threads of the process at first */
    assert_true(test_wait(is_connected, w->bus, PATIENCE_MS));
    struct baseline baseline = {count_entries("/proc/self/task"), count_entries("/proc/self/fd")};
    for (int i = 0; i < 50; i++)
        use_a_bus(w, i + 2, i % 10 == 0);
    assert_true(test_wait(is_connected, w->bus, PATIENCE_MS));
    assert_true(test_wait(is_at_baseline, &baseline, 5000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            killed_server_mid_traffic_loses_doubles_and_reorders_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(paused_server_mid_traffic_is_noticed_and_loses_nothing,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(publishes_in_flight_at_a_kill_complete_once_as_unknown,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(what_a_paused_server_does_not_take_is_bounded, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(publish_to_a_paused_server_ends_at_its_deadline, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(ack_given_while_the_server_is_away_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(bus_made_before_its_server_works_when_that_comes, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(threads_and_descriptors_return_to_where_they_were, setup,
                                        teardown),
    };
    return cmocka_run_group_tests_name("event_bus_nats outage", tests, NULL, NULL);
}
