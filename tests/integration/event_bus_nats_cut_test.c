/* A connection that ends just as the bus begins to listen on it. */
#include "event_bus_nats_fixture.h"

#include "test_proxy.h"

#include <nats/nats.h>

/* The next subscription is made, and its connection ends before anything more is said of it. */
static _Atomic(struct test_proxy *) cut_next;

natsStatus __real_natsConnection_Subscribe(natsSubscription **sub, natsConnection *nc,
                                           const char *subject, natsMsgHandler cb, void *ctx);
natsStatus __wrap_natsConnection_Subscribe(natsSubscription **sub, natsConnection *nc,
                                           const char *subject, natsMsgHandler cb, void *ctx);

natsStatus __wrap_natsConnection_Subscribe(natsSubscription **sub, natsConnection *nc,
                                           const char *subject, natsMsgHandler cb, void *ctx)
{
    natsStatus s = __real_natsConnection_Subscribe(sub, nc, subject, cb, ctx);
    struct test_proxy *proxy = atomic_exchange(&cut_next, NULL);

    if (proxy != NULL && s == NATS_OK) {
        test_proxy_reset(proxy);
        while (natsSubscription_IsValid(*sub))
            nats_Sleep(1);
    }
    return s;
}

static bool is_cut(void *unused)
{
    (void)unused;
    return atomic_load(&cut_next) == NULL;
}

struct far_world {
    struct test_nats server;
    struct test_proxy *proxy;
    struct event_bus *bus;
};

static int far_setup(void **state)
{
    struct far_world *w = calloc(1, sizeof(*w));

    assert_non_null(w);
    wb_log_setup(2, WB_LOG_LOGFMT, WB_LOG_ERROR);
    test_nats_start(&w->server, NULL);
    test_proxy_start(w->server.port, &w->proxy);
    *state = w;
    return 0;
}

static int far_teardown(void **state)
{
    struct far_world *w = *state;

    event_bus_destroy(w->bus);
    test_proxy_stop(w->proxy);
    test_nats_stop(&w->server);
    free(w);
    return 0;
}

static void connect_bus(struct far_world *w, bool wait_connected)
{
    char url[64];
    const struct event_bus_nats_options options = {.url = url};

    (void)snprintf(url, sizeof(url), "nats://127.0.0.1:%u", test_proxy_port(w->proxy));
    assert_ok(event_bus_nats_create(&options, wait_connected, &w->bus, NULL));
}

/* Its loss is told a moment after who asked has failed: until then it still says connected. */
static bool is_connected_again(void *bus)
{
    struct event_bus_health health;

    event_bus_health(bus, &health);
    return health.connected && health.connections > 1;
}

static void connection_cut_at_its_beginning_is_made_anew(void **state)
{
    struct far_world *w = *state;

    atomic_store(&cut_next, w->proxy);
    connect_bus(w, false);
    assert_true(test_wait(is_cut, NULL, PATIENCE_MS));
    assert_true(test_wait(is_connected, w->bus, PATIENCE_MS));
    make_stream(w->bus, "A", "a.>");
    assert_ok(publish_number(w->bus, "a.x", 1));
}

static void count(void *ctx, struct event_bus_delivery *delivery)
{
    atomic_fetch_add((atomic_int *)ctx, number_of(delivery));
    (void)event_bus_ack(delivery);
}

static bool is_one(void *number)
{
    return atomic_load((atomic_int *)number) == 1;
}

static void durable_cut_at_its_beginning_fails_and_the_next_gets_all(void **state)
{
    static const char *const patterns[] = {"a.>"};
    struct far_world *w = *state;
    struct event_bus_subscription *subscription = NULL;
    atomic_int sum = 0;
    const struct event_bus_subscription_options options = {.patterns = patterns,
                                                           .pattern_count = 1,
                                                           .durable = "d",
                                                           .start = EVENT_BUS_START_ALL,
                                                           .handler = count,
                                                           .ctx = &sum};

    connect_bus(w, true);
    make_stream(w->bus, "A", "a.>");
    assert_ok(publish_number(w->bus, "a.x", 1));
    atomic_store(&cut_next, w->proxy);
    assert_int_equal(event_bus_subscribe(w->bus, &options, &subscription, NULL), WB_UNREACHABLE);
    assert_true(is_cut(NULL));
    assert_true(test_wait(is_connected_again, w->bus, PATIENCE_MS));
    assert_ok(event_bus_subscribe(w->bus, &options, &subscription, NULL));
    assert_true(test_wait(is_one, &sum, PATIENCE_MS));
    event_bus_unsubscribe(subscription);
}

static bool pass_by(void *ctx, const struct event_bus_delivery *delivery)
{
    (void)delivery;
    (*(int *)ctx)++;
    return true;
}

static void scan_cut_at_its_beginning_fails_and_the_next_reads_on(void **state)
{
    struct far_world *w = *state;
    uint64_t next = 0;
    int seen = 0;

    connect_bus(w, true);
    make_stream(w->bus, "A", "a.>");
    assert_ok(publish_number(w->bus, "a.x", 1));
    atomic_store(&cut_next, w->proxy);
    assert_int_equal(event_bus_scan(w->bus, "A", 1, 10, pass_by, &seen, &next, NULL),
                     WB_UNREACHABLE);
    assert_int_equal(next, 1);
    assert_true(is_cut(NULL));
    assert_true(test_wait(is_connected_again, w->bus, PATIENCE_MS));
    assert_ok(event_bus_scan(w->bus, "A", next, 10, pass_by, &seen, &next, NULL));
    assert_int_equal(seen, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, far_setup, far_teardown)
        T(connection_cut_at_its_beginning_is_made_anew),
        T(durable_cut_at_its_beginning_fails_and_the_next_gets_all),
        T(scan_cut_at_its_beginning_fails_and_the_next_reads_on),
    };

    return cmocka_run_group_tests_name("event_bus_nats_cut", tests, NULL, NULL);
}
