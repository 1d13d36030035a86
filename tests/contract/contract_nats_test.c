/* The suite of all buses, on a real nats-server. */
#include "contract.h"

#include <stdio.h>

#include <waybill/event_bus_nats.h>

static struct test_nats server;
static bool given; /* WAYBILL_TEST_NATS_URL names a server that is not ours to kill */

static struct event_bus *make(void *ctx, struct observe *observe)
{
    const struct event_bus_nats_options options = {
        .url = server.url, .observe = observe, .workers = 4};
    struct event_bus *bus = NULL;
    struct wb_why why = {""};

    (void)ctx;
    if (server.pid == 0 && !given) /* a case that failed left it so */
        test_nats_restart(&server);
    if (event_bus_nats_create(&options, true, &bus, &why) != WB_OK)
        fail_msg("%s", why.text);
    return bus;
}

static bool is_disconnected(void *arg)
{
    struct event_bus_health health;

    event_bus_health(arg, &health);
    return !health.connected;
}

static void lose_server(void *ctx, struct event_bus *bus)
{
    (void)ctx;
    test_nats_kill(&server);
    assert_true(test_wait(is_disconnected, bus, 10000));
}

static bool is_connected(void *arg)
{
    return !is_disconnected(arg);
}

static void return_server(void *ctx, struct event_bus *bus)
{
    (void)ctx;
    test_nats_restart(&server);
    assert_true(test_wait(is_connected, bus, 10000));
}

static void delete_message(void *ctx, struct event_bus *bus, const char *stream, uint64_t sequence)
{
    (void)ctx;
    (void)bus;
    test_nats_delete(&server, stream, sequence);
}

int main(void)
{
    const char *url = getenv("WAYBILL_TEST_NATS_URL");
    struct contract_bus nats = {.kind = "nats", .make = make, .shared = true};

    given = url != NULL;
    if (given) {
        (void)snprintf(server.url, sizeof(server.url), "%s", url);
        return contract_run(&nats);
    }
    nats.lose_server = lose_server;
    nats.return_server = return_server;
    nats.delete_message = delete_message;
    test_nats_start(&server, NULL);
    int failed = contract_run(&nats);
    test_nats_stop(&server);
    return failed;
}
