/* Subscribe: what is delivered, from where, to whom, in which order. */
#include "contract.h"

#include <poll.h>
#include <stdio.h>

static void publish_numbered(struct contract *c, const char *subject, int count)
{
    char payload[16];

    for (int i = 1; i <= count; i++) {
        (void)snprintf(payload, sizeof(payload), "%d", i);
        contract_publish(c, subject, payload);
    }
}

/* ---- order and matching ---------------------------------------------------------------------- */

static void subscription_delivers_in_stream_order_one_at_a_time(void **state)
{
    struct contract *c = *state;
    struct contract_log *log = contract_log_new(NULL);

    contract_stream(c, "ORDERS", "orders.>");
    publish_numbered(c, "orders.a", 100);
    contract_subscribe(c, log, "orders.>", NULL);
    publish_numbered(c, "orders.b", 100);
    contract_wait_events(log, 200);
    contract_wait_settled(log);
    event_bus_unsubscribe(log->subscription);
    assert_int_equal(log->count, 200);
    assert_false(log->overlapped);
    for (size_t i = 0; i < 200; i++) {
        assert_int_equal(log->events[i].sequence, i + 1);
        assert_int_equal(log->events[i].deliveries, 1);
        assert_string_equal(log->events[i].stream, "ORDERS");
    }
    contract_log_free(log);
}

static void subscription_delivers_only_what_its_pattern_matches(void **state)
{
    struct contract *c = *state;

    contract_stream(c, "ORDERS", "orders.>");
    contract_publish(c, "orders.eu.created", "1");
    contract_publish(c, "orders.eu", "2");
    contract_publish(c, "orders.us.created", "3");
    contract_publish(c, "orders.eu.created.twice", "4");
    contract_publish(c, "orders.eu.paid", "5");
    contract_publish(c, "orders.end", "6");

    struct event_bus_subscription *one = contract_poll(c, "orders.*.created", NULL);
    contract_expect(one, 1, 1);
    contract_expect(one, 3, 1);
    struct event_bus_subscription *rest = contract_poll(c, "orders.eu.>", NULL);
    contract_expect(rest, 1, 1);
    contract_expect(rest, 4, 1);
    contract_expect(rest, 5, 1);
    struct event_bus_subscription *exact = contract_poll(c, "orders.eu", NULL);
    contract_expect(exact, 2, 1);
    assert_int_equal(contract_publish(c, "orders.eu", "7"), 7);
    contract_expect(exact, 7, 1);
    contract_expect_none(one, 100 * WB_MS);
    contract_expect_none(rest, 10 * WB_MS);
    event_bus_unsubscribe(one);
    event_bus_unsubscribe(rest);
    event_bus_unsubscribe(exact);
}

static struct event_bus_subscription *poll_patterns(struct contract *c, const char *const *patterns,
                                                    size_t count, bool wait_for_stream)
{
    const struct event_bus_subscription_options options = {.patterns = patterns,
                                                           .pattern_count = count,
                                                           .start = EVENT_BUS_START_ALL,
                                                           .wait_for_stream = wait_for_stream};
    struct event_bus_subscription *s = NULL;
    struct wb_why why = {{0}};

    if (event_bus_subscribe(c->bus, &options, &s, &why) != WB_OK)
        fail_msg("%s", why.text);
    return s;
}

static void message_that_several_patterns_match_arrives_once(void **state)
{
    struct contract *c = *state;
    static const char *const patterns[] = {"orders.>", "orders.*", "orders.a", "orders.a"};

    contract_stream(c, "ORDERS", "orders.>");
    publish_numbered(c, "orders.a", 3);
    struct event_bus_subscription *s = poll_patterns(c, patterns, 4, false);
    contract_publish(c, "orders.a", "4");
    for (uint64_t i = 1; i <= 4; i++)
        contract_expect(s, i, 1);
    contract_expect_none(s, 100 * WB_MS);
    event_bus_unsubscribe(s);
}

static void patterns_over_several_streams_deliver_each_in_order(void **state)
{
    struct contract *c = *state;
    struct contract_log *log = contract_log_new(NULL);
    uint64_t orders = 0;
    uint64_t auth = 0;

    contract_stream(c, "ORDERS", "orders.>");
    contract_stream(c, "AUTH", "auth.>");
    publish_numbered(c, "orders.x.created", 20);
    publish_numbered(c, "auth.x.created", 20);
    contract_subscribe(c, log, "*.x.created", NULL);
    publish_numbered(c, "orders.x.created", 20);
    publish_numbered(c, "auth.x.created", 20);
    contract_publish(c, "auth.y", "not this one");
    contract_wait_events(log, 80);

    struct event_bus_subscription_info info;
    event_bus_subscription_info(log->subscription, &info);
    assert_int_equal(info.streams, 2);
    assert_int_equal(info.delivered, 80);
    event_bus_unsubscribe(log->subscription);
    assert_int_equal(log->count, 80);
    for (size_t i = 0; i < 80; i++) {
        uint64_t *last = strcmp(log->events[i].stream, "AUTH") == 0 ? &auth : &orders;
        assert_int_equal(log->events[i].sequence, ++*last);
    }
    contract_log_free(log);
}

static void stream_declared_later_is_read_too(void **state)
{
    struct contract *c = *state;
    static const char *const patterns[] = {"orders.>", "auth.>"};

    struct event_bus_subscription *s = poll_patterns(c, patterns, 2, true);
    contract_expect_none(s, WB_MS);
    contract_stream(c, "ORDERS", "orders.>");
    contract_publish(c, "orders.a", "1");
    contract_expect(s, 1, 1);
    contract_stream(c, "AUTH", "auth.>");
    contract_publish(c, "auth.a", "1");
    contract_publish(c, "auth.a", "2");
    contract_expect(s, 1, 1);
    contract_expect(s, 2, 1);
    event_bus_unsubscribe(s);
}

static void subscription_without_stream_is_refused_unless_it_waits(void **state)
{
    struct contract *c = *state;
    const char *pattern = "orders.>";
    const struct event_bus_subscription_options options = {.patterns = &pattern,
                                                           .pattern_count = 1};
    struct event_bus_subscription *s = NULL;
    struct wb_why why = {{0}};

    contract_stream(c, "AUTH", "auth.>");
    assert_err(event_bus_subscribe(c->bus, &options, &s, &why), WB_NO_STREAM);
    assert_null(s);
    assert_true(why.text[0] != '\0');
}

static void subscriptions_each_get_everything(void **state)
{
    struct contract *c = *state;
    struct contract_log *a = contract_log_new(NULL);
    struct contract_log *b = contract_log_new(NULL);

    contract_stream(c, "ORDERS", "orders.>");
    contract_subscribe(c, a, "orders.>", NULL);
    contract_subscribe(c, b, "orders.>", NULL);
    publish_numbered(c, "orders.a", 50);
    contract_wait_events(a, 50);
    contract_wait_events(b, 50);
    event_bus_unsubscribe(a->subscription);
    event_bus_unsubscribe(b->subscription);
    assert_int_equal(a->count, 50);
    assert_int_equal(b->count, 50);
    contract_log_free(a);
    contract_log_free(b);
}

/* ---- where it starts ------------------------------------------------------------------------- */

static void start_new_delivers_only_what_comes_after(void **state)
{
    struct contract *c = *state;
    const struct event_bus_subscription_options options = {.start = EVENT_BUS_START_NEW};

    contract_stream(c, "ORDERS", "orders.>");
    publish_numbered(c, "orders.a", 3);
    struct event_bus_subscription *s = contract_poll(c, "orders.>", &options);
    contract_publish(c, "orders.a", "4");
    contract_expect(s, 4, 1);
    event_bus_unsubscribe(s);
}

static void start_at_a_sequence_delivers_from_there(void **state)
{
    struct contract *c = *state;
    const struct event_bus_subscription_options options = {.start = EVENT_BUS_START_SEQUENCE,
                                                           .start_sequence = 3};

    contract_stream(c, "ORDERS", "orders.>");
    publish_numbered(c, "orders.a", 4);
    struct event_bus_subscription *s = contract_poll(c, "orders.>", &options);
    contract_expect(s, 3, 1);
    contract_expect(s, 4, 1);
    event_bus_unsubscribe(s);
}

static void start_at_a_time_delivers_what_was_stored_since(void **state)
{
    struct contract *c = *state;
    struct event_bus_subscription_options options = {.start = EVENT_BUS_START_TIME};
    struct event_bus_delivery *third;

    contract_stream(c, "ORDERS", "orders.>");
    publish_numbered(c, "orders.a", 5);
    assert_ok(event_bus_get(c->bus, "ORDERS", 3, &third, NULL));
    options.start_wall_ns = third->stored_wall_ns;
    event_bus_release(third);
    struct event_bus_subscription *s = contract_poll(c, "orders.>", &options);
    contract_expect(s, 3, 1);
    contract_expect(s, 4, 1);
    contract_expect(s, 5, 1);
    event_bus_unsubscribe(s);
}

static void start_with_the_last_of_each_subject_then_goes_on(void **state)
{
    struct contract *c = *state;
    const struct event_bus_subscription_options options = {.start =
                                                               EVENT_BUS_START_LAST_PER_SUBJECT};

    contract_stream(c, "ORDERS", "orders.>");
    contract_publish(c, "orders.a", "1");
    contract_publish(c, "orders.b", "2");
    contract_publish(c, "orders.a", "3");
    contract_publish(c, "orders.c", "4");
    contract_publish(c, "orders.b", "5");
    struct event_bus_subscription *s = contract_poll(c, "orders.*", &options);
    contract_publish(c, "orders.a", "6");
    contract_expect(s, 3, 1);
    contract_expect(s, 4, 1);
    contract_expect(s, 5, 1);
    contract_expect(s, 6, 1);
    event_bus_unsubscribe(s);
}

struct positions {
    pthread_mutex_t mutex; /* guards the rest */
    int asked;
    int64_t created_wall_ns;
};

/* Everything of AUTH, nothing up to 2 of ORDERS. */
static uint64_t position(void *ctx, const char *stream, int64_t stream_created_wall_ns)
{
    struct positions *positions = ctx;

    pthread_mutex_lock(&positions->mutex);
    positions->asked++;
    if (strcmp(stream, "ORDERS") == 0)
        positions->created_wall_ns = stream_created_wall_ns;
    pthread_mutex_unlock(&positions->mutex);
    return strcmp(stream, "ORDERS") == 0 ? 2 : 0;
}

static void start_at_a_position_asks_for_each_stream(void **state)
{
    struct contract *c = *state;
    struct positions positions = {.mutex = PTHREAD_MUTEX_INITIALIZER};
    const struct event_bus_subscription_options options = {
        .start = EVENT_BUS_START_POSITION, .position = position, .ctx = &positions};
    struct event_bus_stream_info info;

    contract_stream(c, "ORDERS", "orders.>");
    publish_numbered(c, "orders.a", 3);
    struct event_bus_subscription *s = contract_poll(c, "*.a", &options);
    contract_expect(s, 3, 1);
    contract_stream(c, "AUTH", "auth.>");
    contract_publish(c, "auth.a", "1");
    contract_expect(s, 1, 1);
    assert_int_equal(positions.asked, 2);
    assert_ok(event_bus_stream_info(c->bus, "ORDERS", &info, NULL));
    assert_true(positions.created_wall_ns == info.created_wall_ns);
    event_bus_unsubscribe(s);
}

/* Take up to max of what has come; each is the next in sequence and a first delivery. */
static size_t take_in_order(struct event_bus_subscription *s, size_t max, uint64_t last,
                            wb_err ack_says)
{
    struct event_bus_delivery *got[64];
    size_t count = 0;

    assert_true(max <= 64);
    assert_ok(event_bus_fetch(s, max, CONTRACT_PATIENCE_NS, got, &count));
    assert_in_range(count, 1, max);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(got[i]->sequence, last + i + 1);
        assert_int_equal(got[i]->deliveries, 1);
        assert_err(event_bus_ack(got[i]), ack_says);
        event_bus_release(got[i]);
    }
    return count;
}

/* ---- without acks ---------------------------------------------------------------------------- */

#define LONG_LOG 5000 /* more than a subscription's queue holds */

static void ack_none_reads_every_message_once_in_order_however_slowly(void **state)
{
    struct contract *c = *state;
    const struct event_bus_subscription_options options = {.start = EVENT_BUS_START_ALL,
                                                           .ack_none = true};
    uint64_t last = 0;

    contract_stream(c, "ORDERS", "orders.>");
    struct event_bus_subscription *s = contract_poll(c, "orders.>", &options);
    for (int i = 0; i < LONG_LOG; i++)
        contract_publish(c, "orders.a", "x");
    while (last < LONG_LOG)
        last += take_in_order(s, 64, last, WB_MISUSE);
    contract_expect_none(s, 50 * WB_MS);
    event_bus_unsubscribe(s);
}

/* ---- polling --------------------------------------------------------------------------------- */

static bool is_readable(int fd, int timeout_ms)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};

    return poll(&one, 1, timeout_ms) == 1;
}

static void descriptor_is_readable_while_messages_wait(void **state)
{
    struct contract *c = *state;

    contract_stream(c, "ORDERS", "orders.>");
    struct event_bus_subscription *s = contract_poll(c, "orders.>", NULL);
    int fd = event_bus_fd(s);
    assert_true(fd >= 0);
    assert_int_equal(event_bus_fd(s), fd);
    assert_false(is_readable(fd, 0));
    contract_publish(c, "orders.a", "1");
    assert_true(is_readable(fd, (int)(CONTRACT_PATIENCE_NS / WB_MS)));
    contract_expect(s, 1, 1);
    assert_false(is_readable(fd, 0));
    contract_publish(c, "orders.a", "2");
    assert_true(is_readable(fd, (int)(CONTRACT_PATIENCE_NS / WB_MS)));
    contract_expect(s, 2, 1);
    event_bus_unsubscribe(s);
}

static void fetch_takes_what_is_there_up_to_its_limit(void **state)
{
    struct contract *c = *state;
    struct event_bus_delivery *got[10];
    size_t count = 99;
    size_t total = 0;

    contract_stream(c, "ORDERS", "orders.>");
    struct event_bus_subscription *s = contract_poll(c, "orders.>", NULL);
    assert_err(event_bus_fetch(s, 10, WB_MS, got, &count), WB_TIMEOUT);
    assert_int_equal(count, 0);
    publish_numbered(c, "orders.a", 12);
    while (total < 12)
        total += take_in_order(s, 5, total, WB_OK);
    event_bus_unsubscribe(s);
}

/* ---- slow ones ------------------------------------------------------------------------------- */

struct gate {
    pthread_mutex_t mutex; /* guards the rest */
    pthread_cond_t opened;
    bool open;
};

static void wait_at_gate(struct contract_log *log, struct event_bus_delivery *delivery, size_t n)
{
    struct gate *gate = log->ctx;

    (void)n;
    pthread_mutex_lock(&gate->mutex);
    while (!gate->open)
        pthread_cond_wait(&gate->opened, &gate->mutex);
    pthread_mutex_unlock(&gate->mutex);
    (void)event_bus_ack(delivery);
}

static void slow_subscription_slows_nobody_else(void **state)
{
    struct contract *c = *state;
    struct gate gate = {.mutex = PTHREAD_MUTEX_INITIALIZER, .opened = PTHREAD_COND_INITIALIZER};
    struct contract_log *slow = contract_log_new(wait_at_gate);
    struct contract_log *quick = contract_log_new(NULL);

    slow->ctx = &gate;
    contract_stream(c, "ORDERS", "orders.>");
    contract_subscribe(c, slow, "orders.>", NULL);
    contract_subscribe(c, quick, "orders.>", NULL);
    publish_numbered(c, "orders.a", 300);
    contract_wait_events(quick, 300);
    assert_true(contract_events(slow) <= 1);

    pthread_mutex_lock(&gate.mutex);
    gate.open = true;
    pthread_cond_broadcast(&gate.opened);
    pthread_mutex_unlock(&gate.mutex);
    contract_wait_events(slow, 300);
    event_bus_unsubscribe(slow->subscription);
    event_bus_unsubscribe(quick->subscription);
    for (size_t i = 0; i < 300; i++)
        assert_int_equal(slow->events[i].sequence, i + 1);
    contract_log_free(slow);
    contract_log_free(quick);
}

static void subscription_outlasts_an_outage(void **state)
{
    struct contract *c = *state;
    const struct event_bus_publish_options patient = {.timeout_ns = CONTRACT_PATIENCE_NS};
    const struct message second = {.subject = wb_str("orders.a"), .msg_id = wb_str("id-2")};

    contract_stream(c, "ORDERS", "orders.>");
    contract_publish(c, "orders.a", "1");
    struct event_bus_subscription *s = contract_poll(c, "orders.>", NULL);
    contract_expect(s, 1, 1);
    c->kind->lose_server(c->kind->ctx, c->bus);
    c->kind->return_server(c->kind->ctx, c->bus);
    assert_ok(event_bus_publish(c->bus, &second, &patient, NULL, NULL));
    struct event_bus_delivery *got = contract_next(s);
    while (got->sequence == 1) { /* its ack may have been lost: then it comes again */
        assert_ok(event_bus_ack(got));
        event_bus_release(got);
        got = contract_next(s);
    }
    assert_int_equal(got->sequence, 2);
    event_bus_release(got);
    event_bus_unsubscribe(s);
}

/* ---- refused --------------------------------------------------------------------------------- */

static void refuse(struct contract *c, const struct event_bus_subscription_options *options)
{
    struct event_bus_subscription *s = NULL;
    struct wb_why why = {{0}};

    assert_err(event_bus_subscribe(c->bus, options, &s, &why), WB_INVALID);
    assert_null(s);
    assert_true(why.text[0] != '\0');
}

static void subscription_with_an_invalid_pattern_is_refused(void **state)
{
    struct contract *c = *state;
    static const char *const patterns[] = {"",      ".",      "orders.", "orders..a", "orders.a*",
                                           ">.a",   "a.>.b",  "a b",     "$JS.>",     "_INBOX.>",
                                           "_R_.>", "a.\x01", "a.\xff"};

    contract_stream(c, "ORDERS", "orders.>");
    for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++)
        refuse(c, &(struct event_bus_subscription_options){.patterns = &patterns[i],
                                                           .pattern_count = 1});
    refuse(c, &(struct event_bus_subscription_options){.patterns = patterns});
}

static void subscription_with_invalid_options_is_refused(void **state)
{
    struct contract *c = *state;
    const char *pattern = "orders.>";
    static const int64_t negative[] = {-1};
    const struct event_bus_subscription_options good = {.patterns = &pattern, .pattern_count = 1};
    struct event_bus_subscription_options o = good;

    contract_stream(c, "ORDERS", "orders.>");
    o.durable = "a.b";
    refuse(c, &o);
    o.durable = "a b";
    refuse(c, &o);
    o = good;
    o.queue_group = "team"; /* without a durable to share */
    refuse(c, &o);
    o = good;
    o.durable = "worker";
    o.ack_none = true;
    refuse(c, &o);
    o = good;
    o.start = EVENT_BUS_START_SEQUENCE;
    refuse(c, &o);
    o.start = EVENT_BUS_START_POSITION;
    refuse(c, &o);
    o = good;
    o.ack_wait_ns = 9 * WB_MS;
    refuse(c, &o);
    o = good;
    o.max_ack_pending = 65537;
    refuse(c, &o);
    o = good;
    o.backoff_ns = negative;
    o.backoff_count = 1;
    refuse(c, &o);
    o.backoff_count = 17;
    refuse(c, &o);
}

static const struct contract_case cases[] = {
    CONTRACT_CASE(subscription_delivers_in_stream_order_one_at_a_time),
    CONTRACT_CASE(subscription_delivers_only_what_its_pattern_matches),
    CONTRACT_CASE(message_that_several_patterns_match_arrives_once),
    CONTRACT_CASE(patterns_over_several_streams_deliver_each_in_order),
    CONTRACT_CASE(stream_declared_later_is_read_too),
    CONTRACT_CASE(subscription_without_stream_is_refused_unless_it_waits),
    CONTRACT_CASE(subscriptions_each_get_everything),
    CONTRACT_CASE(start_new_delivers_only_what_comes_after),
    CONTRACT_CASE(start_at_a_sequence_delivers_from_there),
    CONTRACT_CASE(start_at_a_time_delivers_what_was_stored_since),
    CONTRACT_CASE(start_with_the_last_of_each_subject_then_goes_on),
    CONTRACT_CASE(start_at_a_position_asks_for_each_stream),
    CONTRACT_CASE(ack_none_reads_every_message_once_in_order_however_slowly),
    CONTRACT_CASE(descriptor_is_readable_while_messages_wait),
    CONTRACT_CASE(fetch_takes_what_is_there_up_to_its_limit),
    CONTRACT_CASE(slow_subscription_slows_nobody_else),
    {"subscription_outlasts_an_outage", subscription_outlasts_an_outage, .needs_server = true},
    CONTRACT_CASE(subscription_with_an_invalid_pattern_is_refused),
    CONTRACT_CASE(subscription_with_invalid_options_is_refused),
};

const struct contract_cases contract_subscribe_cases = {cases, sizeof(cases) / sizeof(cases[0])};
