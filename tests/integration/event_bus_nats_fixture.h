/* event_bus_nats_fixture.h - a server, a bus on it, and short words for what the tests do. */
#ifndef EVENT_BUS_NATS_FIXTURE_H
#define EVENT_BUS_NATS_FIXTURE_H

#include "test_support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include <waybill/event_bus_nats.h>

#define PATIENCE_NS (30 * WB_SEC)
#define PATIENCE_MS 30000

struct world {
    struct test_nats server;
    struct event_bus *bus;
};

static inline int64_t mono_ns(void)
{
    return wb_mono_ns(wb_clock_system());
}

static inline struct event_bus *make_bus(const struct test_nats *server)
{
    const struct event_bus_nats_options options = {.url = server->url};
    struct event_bus *bus = NULL;
    struct wb_why why = {""};

    if (event_bus_nats_create(&options, true, &bus, &why) != WB_OK)
        fail_msg("%s", why.text);
    return bus;
}

static inline void make_stream(struct event_bus *bus, const char *name, const char *subject)
{
    const struct event_bus_stream_options options = {
        .name = name, .subjects = &subject, .subject_count = 1};
    struct wb_why why = {""};

    if (event_bus_declare_stream(bus, &options, EVENT_BUS_CREATE, &why) != WB_OK)
        fail_msg("%s", why.text);
}

static inline int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));

    assert_non_null(w);
    wb_log_setup(2, WB_LOG_LOGFMT, WB_LOG_ERROR);
    test_nats_start(&w->server, NULL);
    w->bus = make_bus(&w->server);
    *state = w;
    return 0;
}

static inline int teardown(void **state)
{
    struct world *w = *state;

    event_bus_destroy(w->bus);
    test_nats_stop(&w->server);
    free(w);
    return 0;
}

/* Publish a number under its own id. */
static inline wb_err publish_number(struct event_bus *bus, const char *subject, int number)
{
    const struct event_bus_publish_options options = {.timeout_ns = PATIENCE_NS};
    char id[32];

    (void)snprintf(id, sizeof(id), "id-%d", number);
    const struct message msg = {
        .subject = wb_str(subject), .payload = {&number, sizeof(number)}, .msg_id = wb_str(id)};
    return event_bus_publish(bus, &msg, &options, NULL, NULL);
}

static inline int number_of(const struct event_bus_delivery *delivery)
{
    int number = -1;

    if (delivery->message.payload.len == sizeof(number))
        memcpy(&number, delivery->message.payload.ptr, sizeof(number));
    return number;
}

static inline struct event_bus_subscription *
subscribe(struct event_bus *bus, const char *pattern, struct event_bus_subscription_options options)
{
    struct event_bus_subscription *subscription = NULL;
    struct wb_why why = {""};

    options.patterns = &pattern;
    options.pattern_count = 1;
    if (event_bus_subscribe(bus, &options, &subscription, &why) != WB_OK)
        fail_msg("%s", why.text);
    return subscription;
}

static inline bool is_connected(void *bus)
{
    struct event_bus_health health;

    event_bus_health(bus, &health);
    return health.connected;
}

static inline bool is_disconnected(void *bus)
{
    return !is_connected(bus);
}

#endif /* EVENT_BUS_NATS_FIXTURE_H */
