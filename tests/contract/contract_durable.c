/* Durables and queue groups: who goes on where, who shares. */
#include "contract.h"

#include <stdio.h>

static void publish_numbered(struct contract *c, const char *subject, int count)
{
    char payload[16];

    for (int i = 1; i <= count; i++) {
        (void)snprintf(payload, sizeof(payload), "%d", i);
        contract_publish(c, subject, payload);
    }
}

static const struct event_bus_subscription_options durable = {.durable = "worker",
                                                              .start = EVENT_BUS_START_ALL};

static void durable_goes_on_where_it_was(void **state)
{
    struct contract *c = *state;

    contract_stream(c, "ORDERS", "orders.>");
    publish_numbered(c, "orders.a", 2);
    struct event_bus_subscription *s = contract_poll(c, "orders.>", &durable);
    contract_expect(s, 1, 1);
    contract_expect(s, 2, 1);
    event_bus_unsubscribe(s);
    publish_numbered(c, "orders.a", 2);
    s = contract_poll(c, "orders.>", &durable);
    contract_expect(s, 3, 1);
    contract_expect(s, 4, 1);
    contract_expect_none(s, 50 * WB_MS);
    event_bus_unsubscribe(s);
    assert_ok(event_bus_delete_durable(c->bus, "worker", NULL));
}

static void durable_hands_unsettled_messages_to_its_next_holder(void **state)
{
    struct contract *c = *state;
    struct event_bus_subscription_options options = durable;
    bool seen[4] = {false};

    options.ack_wait_ns = 500 * WB_MS;
    contract_stream(c, "ORDERS", "orders.>");
    publish_numbered(c, "orders.a", 3);
    struct event_bus_subscription *s = contract_poll(c, "orders.>", &options);
    event_bus_release(contract_next(s)); /* handed out, not settled */
    event_bus_unsubscribe(s);

    s = contract_poll(c, "orders.>", &options);
    for (int n = 0; n < 3; n++) {
        struct event_bus_delivery *got = contract_next(s);
        assert_in_range(got->sequence, 1, 3);
        assert_false(seen[got->sequence]);
        seen[got->sequence] = true;
        assert_ok(event_bus_ack(got));
        event_bus_release(got);
    }
    event_bus_unsubscribe(s);
    assert_ok(event_bus_delete_durable(c->bus, "worker", NULL));
}

static wb_err subscribe_durable(struct contract *c, const char *pattern, const char *queue_group)
{
    const struct event_bus_subscription_options options = {
        .patterns = &pattern, .pattern_count = 1, .durable = "worker", .queue_group = queue_group};
    struct event_bus_subscription *s = NULL;
    wb_err err = event_bus_subscribe(c->bus, &options, &s, NULL);

    if (err == WB_OK)
        event_bus_unsubscribe(s);
    return err;
}

static void durable_that_is_bound_or_different_is_a_conflict(void **state)
{
    struct contract *c = *state;

    contract_stream(c, "ORDERS", "orders.>");
    struct event_bus_subscription *s = contract_poll(c, "orders.a", &durable);
    assert_err(subscribe_durable(c, "orders.a", NULL), WB_CONFLICT);
    assert_err(subscribe_durable(c, "orders.a", "team"), WB_CONFLICT);
    event_bus_unsubscribe(s);
    assert_err(subscribe_durable(c, "orders.b", NULL), WB_CONFLICT);
    assert_ok(subscribe_durable(c, "orders.a", NULL));
    assert_ok(event_bus_delete_durable(c->bus, "worker", NULL));
}

static void durable_that_is_deleted_starts_anew(void **state)
{
    struct contract *c = *state;

    contract_stream(c, "ORDERS", "orders.>");
    contract_publish(c, "orders.a", "1");
    assert_err(event_bus_delete_durable(c->bus, "worker", NULL), WB_NOT_FOUND);
    struct event_bus_subscription *s = contract_poll(c, "orders.>", &durable);
    contract_expect(s, 1, 1);
    assert_err(event_bus_delete_durable(c->bus, "worker", NULL), WB_CONFLICT);
    event_bus_unsubscribe(s);
    assert_ok(event_bus_delete_durable(c->bus, "worker", NULL));
    assert_err(event_bus_delete_durable(c->bus, "worker", NULL), WB_NOT_FOUND);
    s = contract_poll(c, "orders.>", &durable);
    contract_expect(s, 1, 1);
    event_bus_unsubscribe(s);
    assert_ok(event_bus_delete_durable(c->bus, "worker", NULL));
}

static bool seen_by(struct contract_log *log, uint64_t sequence)
{
    for (size_t i = 0; i < log->count; i++)
        if (log->events[i].sequence == sequence)
            return true;
    return false;
}

struct pair {
    struct contract_log *a;
    struct contract_log *b;
    size_t wanted;
};

static bool pair_is_complete(void *ctx)
{
    struct pair *pair = ctx;

    return contract_events(pair->a) + contract_events(pair->b) >= pair->wanted;
}

/* Two members on buses a and b; each message goes to one of them. */
static void share(struct contract *c, struct contract *second)
{
    struct event_bus_subscription_options options = durable;
    struct pair pair = {contract_log_new(NULL), contract_log_new(NULL), 200};

    options.queue_group = "team";
    contract_stream(c, "ORDERS", "orders.>");
    contract_subscribe(c, pair.a, "orders.>", &options);
    contract_subscribe(second, pair.b, "orders.>", &options);
    publish_numbered(c, "orders.a", 200);
    assert_true(test_wait(pair_is_complete, &pair, (int)(CONTRACT_PATIENCE_NS / WB_MS)));
    contract_wait_settled(pair.a);
    contract_wait_settled(pair.b);
    event_bus_unsubscribe(pair.a->subscription);
    event_bus_unsubscribe(pair.b->subscription);
    assert_int_equal(pair.a->count + pair.b->count, 200);
    for (uint64_t i = 1; i <= 200; i++)
        assert_true(seen_by(pair.a, i) != seen_by(pair.b, i));
    contract_log_free(pair.a);
    contract_log_free(pair.b);
    assert_ok(event_bus_delete_durable(c->bus, "worker", NULL));
}

static void queue_group_gives_each_message_to_one_member(void **state)
{
    share(*state, *state);
}

static void queue_group_over_two_processes_gives_each_message_to_one(void **state)
{
    struct contract *c = *state;
    struct contract second = {.kind = c->kind};

    second.bus = c->kind->make(c->kind->ctx, NULL);
    share(c, &second);
    event_bus_destroy(second.bus);
}

static const struct contract_case cases[] = {
    CONTRACT_CASE(durable_goes_on_where_it_was),
    CONTRACT_CASE(durable_hands_unsettled_messages_to_its_next_holder),
    CONTRACT_CASE(durable_that_is_bound_or_different_is_a_conflict),
    CONTRACT_CASE(durable_that_is_deleted_starts_anew),
    CONTRACT_CASE(queue_group_gives_each_message_to_one_member),
    {"queue_group_over_two_processes_gives_each_message_to_one",
     queue_group_over_two_processes_gives_each_message_to_one, .needs_shared = true},
};

const struct contract_cases contract_durable_cases = {cases, sizeof(cases) / sizeof(cases[0])};
