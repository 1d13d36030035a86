/* TLS: asked for, it is used; what cannot be trusted is refused. */
#include "event_bus_nats_fixture.h"

#include "event_bus_nats_identity.h"

/* ---- tests ----------------------------------------------------------------------------------- */

#define MESSAGES 5000

static void count_done(void *ctx, wb_err err, const struct event_bus_ack_info *ack,
                       const struct wb_why *why)
{
    (void)ack;
    (void)why;
    if (err == WB_OK)
        atomic_fetch_add((atomic_int *)ctx, 1);
}

static void count_handled(void *ctx, struct event_bus_delivery *delivery)
{
    atomic_fetch_add((atomic_int *)ctx, 1);
    (void)event_bus_ack(delivery);
}

static bool is_all(void *count)
{
    return atomic_load((atomic_int *)count) == MESSAGES;
}

static void everything_works_over_tls_under_load(void **state)
{
    struct identity identity;
    struct test_nats server;
    struct event_bus *bus = NULL;
    atomic_int published = 0;
    atomic_int handled = 0;
    char payload[512] = "";
    const struct message msg = {.subject = wb_str("orders.a"),
                                .payload = {payload, sizeof(payload)}};
    struct wb_why why = {""};

    (void)state;
    make_identity(&identity);
    test_nats_start(&server, &(struct test_nats_options){.conf = identity.conf});
    const struct event_bus_nats_options options = {.url = server.url, .tls_ca_file = identity.cert};
    if (event_bus_nats_create(&options, true, &bus, &why) != WB_OK)
        fail_msg("%s", why.text);
    make_stream(bus, "ORDERS", "orders.>");
    struct event_bus_subscription *s =
        subscribe(bus, "orders.>",
                  (struct event_bus_subscription_options){.start = EVENT_BUS_START_ALL,
                                                          .durable = "worker",
                                                          .handler = count_handled,
                                                          .ctx = &handled});
    for (int i = 0; i < MESSAGES; i++)
        assert_ok(event_bus_publish_async(bus, &msg, NULL, count_done, &published, NULL));
    assert_true(test_wait(is_all, &published, PATIENCE_MS));
    assert_true(test_wait(is_all, &handled, PATIENCE_MS));
    event_bus_unsubscribe(s);
    event_bus_destroy(bus);
    test_nats_stop(&server);
    test_dir_remove(identity.dir);
}

static void assert_refused(const struct event_bus_nats_options *options)
{
    struct event_bus *bus = NULL;
    struct wb_why why = {""};

    assert_err(event_bus_nats_create(options, true, &bus, &why), WB_UNREACHABLE);
    assert_non_null(strstr(why.text, "TLS"));
}

static void certificate_of_an_unknown_authority_is_refused(void **state)
{
    struct identity identity;
    struct identity other;
    struct test_nats server;

    (void)state;
    make_identity(&identity);
    make_identity(&other);
    test_nats_start(&server, &(struct test_nats_options){.conf = identity.conf});
    assert_refused(&(struct event_bus_nats_options){.url = server.url, .tls_ca_file = other.cert});
    assert_refused(&(struct event_bus_nats_options){.url = server.url}); /* it insists on TLS */
    test_nats_stop(&server);
    test_dir_remove(identity.dir);
    test_dir_remove(other.dir);
}

static void tls_that_the_server_lacks_is_not_done_without(void **state)
{
    struct world *w = *state;
    char url[80];

    assert_refused(&(struct event_bus_nats_options){.url = w->server.url, .tls = true});
    (void)snprintf(url, sizeof(url), "tls://127.0.0.1:%u", w->server.port);
    assert_refused(&(struct event_bus_nats_options){.url = url});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_works_over_tls_under_load),
        cmocka_unit_test(certificate_of_an_unknown_authority_is_refused),
        cmocka_unit_test_setup_teardown(tls_that_the_server_lacks_is_not_done_without, setup,
                                        teardown),
    };
    return cmocka_run_group_tests_name("event_bus_nats tls", tests, NULL, NULL);
}
