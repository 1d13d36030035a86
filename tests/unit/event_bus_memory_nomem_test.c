/* Every allocation of a life of the bus is made to fail once. */
#include "test_support.h"

#include <waybill/event_bus_memory.h>

#include "test_nomem.h"

struct seen {
    size_t count;
};

static void handle(void *ctx, struct event_bus_delivery *delivery)
{
    ((struct seen *)ctx)->count++;
    (void)(delivery->deliveries == 1 ? event_bus_nak(delivery) : event_bus_ack(delivery));
}

static wb_err publish(struct event_bus *bus, const char *id)
{
    const struct message msg = {.subject = wb_str("work.a"), .msg_id = wb_str(id)};

    return event_bus_publish(bus, &msg, NULL, NULL, NULL);
}

static wb_err subscribe(struct event_bus *bus, struct seen *seen, const char *durable)
{
    static const int64_t backoff[] = {WB_SEC};
    const char *pattern = "work.>";
    const struct event_bus_subscription_options options = {
        .patterns = &pattern,
        .pattern_count = 1,
        .durable = durable,
        .queue_group = durable != NULL ? "team" : NULL,
        .start = durable != NULL ? EVENT_BUS_START_ALL : EVENT_BUS_START_LAST_PER_SUBJECT,
        .backoff_ns = backoff,
        .backoff_count = 1,
        .handler = handle,
        .ctx = seen};
    struct event_bus_subscription *s = NULL;

    return event_bus_subscribe(bus, &options, &s, NULL);
}

/* Messages that are stored are delivered, even if memory was out in between. */
static wb_err live(struct event_bus *bus, struct seen *seen)
{
    const char *subject = "work.>";
    const struct event_bus_stream_options stream = {
        .name = "WORK", .subjects = &subject, .subject_count = 1};
    struct event_bus_delivery *got = NULL;
    wb_err err = event_bus_declare_stream(bus, &stream, EVENT_BUS_CREATE, NULL);

    if (err == WB_OK)
        err = publish(bus, "id-1");
    if (err == WB_OK)
        err = subscribe(bus, seen, "worker");
    if (err == WB_OK)
        err = subscribe(bus, seen, NULL);
    if (err == WB_OK)
        err = publish(bus, "id-2");
    if (err == WB_OK)
        err = event_bus_get(bus, "WORK", 2, &got, NULL);
    if (err == WB_OK)
        event_bus_release(got);
    return err;
}

static wb_err live_once(int allocations, size_t *ret_seen)
{
    const struct event_bus_memory_options options = {.manual = true};
    struct event_bus *bus = NULL;
    struct seen seen = {0};

    test_nomem_after(allocations);
    wb_err err = event_bus_memory_create(&options, &bus);
    if (err == WB_OK)
        err = live(bus, &seen);
    if (err == WB_OK)
        event_bus_memory_run_until_idle(bus);
    test_nomem_after(-1);
    if (err ==
        WB_OK) /* with memory again, all that is stored arrives: twice, as it is naked once */
        event_bus_memory_advance(bus, 60 * WB_SEC);
    event_bus_destroy(bus);
    *ret_seen = seen.count;
    return err;
}

static void bus_out_of_memory_says_so_and_loses_nothing(void **state)
{
    size_t seen = 0;
    int failed = 0;

    (void)state;
    for (int allocations = 0; allocations < 400; allocations++) {
        wb_err err = live_once(allocations, &seen);
        assert_true(err == WB_OK || err == WB_NOMEM);
        failed += err == WB_NOMEM;
        if (err == WB_OK)
            assert_int_equal(seen, 8); /* two messages, two subscriptions, twice each */
    }
    assert_true(failed > 20);
    assert_ok(live_once(-1, &seen));
    assert_int_equal(seen, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bus_out_of_memory_says_so_and_loses_nothing),
    };

    return cmocka_run_group_tests_name("event_bus_memory_nomem", tests, NULL, NULL);
}
