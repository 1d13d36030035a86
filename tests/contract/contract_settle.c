/* Settling: ack, nak, term, in_progress, ack_wait, and giving up. */
#include "contract.h"

#include <stdatomic.h>

static int64_t now(void)
{
    return wb_mono_ns(wb_clock_system());
}

static void publish_some(struct contract *c, int count)
{
    contract_stream(c, "ORDERS", "orders.>");
    for (int i = 0; i < count; i++)
        contract_publish(c, "orders.a", "x");
}

static struct event_bus_subscription *poll_with(struct contract *c, int64_t ack_wait_ns,
                                                uint32_t max_ack_pending)
{
    const struct event_bus_subscription_options options = {.start = EVENT_BUS_START_ALL,
                                                           .ack_wait_ns = ack_wait_ns,
                                                           .max_ack_pending = max_ack_pending};

    return contract_poll(c, "orders.>", &options);
}

/* The next delivery, expected to be this one. */
static struct event_bus_delivery *take(struct event_bus_subscription *s, uint64_t sequence,
                                       uint32_t deliveries)
{
    struct event_bus_delivery *got = contract_next(s);

    assert_int_equal(got->sequence, sequence);
    assert_int_equal(got->deliveries, deliveries);
    return got;
}

static void nak_and_release(struct event_bus_delivery *delivery)
{
    assert_ok(event_bus_nak(delivery));
    event_bus_release(delivery);
}

/* ---- verdicts -------------------------------------------------------------------------------- */

static void acked_message_does_not_come_again(void **state)
{
    struct contract *c = *state;

    publish_some(c, 1);
    struct event_bus_subscription *s = poll_with(c, 100 * WB_MS, 0);
    contract_expect(s, 1, 1);
    contract_expect_none(s, 300 * WB_MS);
    event_bus_unsubscribe(s);
}

static void naked_message_comes_again_at_once(void **state)
{
    struct contract *c = *state;

    publish_some(c, 1);
    struct event_bus_subscription *s = poll_with(c, 0, 0);
    nak_and_release(take(s, 1, 1));
    nak_and_release(take(s, 1, 2));
    contract_expect(s, 1, 3);
    contract_expect_none(s, 50 * WB_MS);
    event_bus_unsubscribe(s);
}

static void naked_messages_come_again_in_nak_order_before_new_ones(void **state)
{
    struct contract *c = *state;
    struct event_bus_delivery *got[4];

    publish_some(c, 6);
    struct event_bus_subscription *s = poll_with(c, 0, 4);
    for (uint64_t i = 0; i < 4; i++)
        got[i] = take(s, i + 1, 1);
    nak_and_release(got[3]);
    nak_and_release(got[1]);
    nak_and_release(got[0]);
    nak_and_release(got[2]);
    contract_expect(s, 4, 2);
    contract_expect(s, 2, 2);
    contract_expect(s, 1, 2);
    contract_expect(s, 3, 2);
    contract_expect(s, 5, 1);
    contract_expect(s, 6, 1);
    event_bus_unsubscribe(s);
}

static void nak_with_delay_comes_again_not_before(void **state)
{
    struct contract *c = *state;

    publish_some(c, 2);
    struct event_bus_subscription *s = poll_with(c, 0, 0);
    struct event_bus_delivery *first = take(s, 1, 1);
    int64_t naked = now();
    assert_ok(event_bus_nak_delay(first, 300 * WB_MS));
    event_bus_release(first);
    contract_expect(s, 2, 1);
    contract_expect(s, 1, 2);
    assert_true(now() - naked >= 290 * WB_MS);
    event_bus_unsubscribe(s);
}

static void terminated_message_never_comes_again(void **state)
{
    struct contract *c = *state;

    publish_some(c, 2);
    struct event_bus_subscription *s = poll_with(c, 100 * WB_MS, 0);
    struct event_bus_delivery *first = take(s, 1, 1);
    assert_ok(event_bus_term(first));
    event_bus_release(first);
    contract_expect(s, 2, 1);
    contract_expect_none(s, 300 * WB_MS);
    event_bus_unsubscribe(s);
}

static void in_progress_prolongs_ack_wait(void **state)
{
    struct contract *c = *state;

    publish_some(c, 1);
    struct event_bus_subscription *s = poll_with(c, WB_SEC, 0);
    struct event_bus_delivery *first = take(s, 1, 1);
    int64_t begin = now();
    while (now() - begin < 2500 * WB_MS) {
        assert_ok(event_bus_in_progress(first));
        contract_expect_none(s, 100 * WB_MS);
    }
    assert_ok(event_bus_ack(first));
    event_bus_release(first);
    contract_expect_none(s, 100 * WB_MS);
    event_bus_unsubscribe(s);
}

static void second_verdict_does_nothing_and_says_so(void **state)
{
    struct contract *c = *state;

    publish_some(c, 2);
    struct event_bus_subscription *s = poll_with(c, 0, 0);
    struct event_bus_delivery *first = take(s, 1, 1);
    assert_ok(event_bus_ack(first));
    assert_err(event_bus_ack(first), WB_MISUSE);
    assert_err(event_bus_nak(first), WB_MISUSE);
    assert_err(event_bus_nak_delay(first, WB_SEC), WB_MISUSE);
    assert_err(event_bus_term(first), WB_MISUSE);
    assert_err(event_bus_in_progress(first), WB_MISUSE);
    event_bus_release(first);
    contract_expect(s, 2, 1);
    contract_expect_none(s, 100 * WB_MS);
    event_bus_unsubscribe(s);
}

/* ---- ack_wait -------------------------------------------------------------------------------- */

static void unsettled_message_comes_again_after_ack_wait(void **state)
{
    struct contract *c = *state;

    publish_some(c, 1);
    struct event_bus_subscription *s = poll_with(c, 200 * WB_MS, 0);
    event_bus_release(take(s, 1, 1));
    int64_t handed = now();
    struct event_bus_delivery *again = take(s, 1, 2);
    /* It ran from before the first was handed out, so a little less may pass here. */
    assert_true(now() - handed >= 100 * WB_MS);
    assert_ok(event_bus_ack(again));
    event_bus_release(again);
    event_bus_unsubscribe(s);
}

static void expired_messages_come_again_in_sequence_before_new_ones(void **state)
{
    struct contract *c = *state;

    publish_some(c, 3);
    struct event_bus_subscription *s = poll_with(c, 300 * WB_MS, 3);
    for (uint64_t i = 1; i <= 3; i++)
        event_bus_release(take(s, i, 1));
    contract_publish(c, "orders.a", "new");
    for (uint64_t i = 1; i <= 3; i++)
        contract_expect(s, i, 2);
    contract_expect(s, 4, 1);
    event_bus_unsubscribe(s);
}

static int64_t metric(struct contract *c, observe_metric id, const char *label)
{
    return observe_value(observe_series(c->observe, id, label));
}

static void late_ack_counts_and_is_counted(void **state)
{
    struct contract *c = *state;

    publish_some(c, 1);
    struct event_bus_subscription *s = poll_with(c, 500 * WB_MS, 0);
    struct event_bus_delivery *first = take(s, 1, 1);
    struct event_bus_delivery *again = take(s, 1, 2);
    contract_expect_none(s, 50 * WB_MS); /* the server's clock began first: late by ours as well */
    assert_int_equal(metric(c, OBSERVE_BUS_LATE_ACKS, NULL), 0);
    assert_ok(event_bus_ack(first)); /* by sequence, whichever copy */
    assert_int_equal(metric(c, OBSERVE_BUS_LATE_ACKS, NULL), 1);
    event_bus_release(first);
    event_bus_release(again);
    struct event_bus_delivery *third = NULL;
    if (event_bus_next(s, 700 * WB_MS, &third) == WB_OK)
        fail_msg("it came again although its first copy was acked");
    event_bus_unsubscribe(s);
}

/* ---- max_ack_pending ------------------------------------------------------------------------- */

static void max_ack_pending_holds_new_messages_back(void **state)
{
    struct contract *c = *state;
    struct event_bus_delivery *got[3];

    publish_some(c, 5);
    struct event_bus_subscription *s = poll_with(c, 0, 3);
    for (uint64_t i = 0; i < 3; i++)
        got[i] = take(s, i + 1, 1);
    contract_expect_none(s, 100 * WB_MS);
    nak_and_release(got[1]); /* what was delivered before still comes */
    got[1] = take(s, 2, 2);
    contract_expect_none(s, 50 * WB_MS);
    assert_ok(event_bus_ack(got[0]));
    struct event_bus_delivery *fourth = take(s, 4, 1);
    contract_expect_none(s, 50 * WB_MS);
    assert_ok(event_bus_ack(got[1]));
    contract_expect(s, 5, 1);
    event_bus_release(got[0]);
    event_bus_release(got[1]);
    event_bus_release(got[2]);
    event_bus_release(fourth);
    event_bus_unsubscribe(s);
}

/* ---- giving up ------------------------------------------------------------------------------- */

static void nak_first_message(struct contract_log *log, struct event_bus_delivery *delivery,
                              size_t n)
{
    (void)log;
    (void)n;
    if (delivery->sequence == 1)
        (void)event_bus_nak(delivery);
    else
        (void)event_bus_ack(delivery);
}

static size_t count_of(struct contract_log *log, uint64_t sequence)
{
    size_t count = 0;

    for (size_t i = 0; i < log->count; i++)
        count += log->events[i].sequence == sequence;
    return count;
}

static void message_that_fails_max_deliver_times_is_given_up(void **state)
{
    struct contract *c = *state;
    struct contract_log *log = contract_log_new(nak_first_message);
    struct event_bus_subscription_info info;

    publish_some(c, 2);
    contract_subscribe(c, log, "orders.>",
                       &(struct event_bus_subscription_options){
                           .start = EVENT_BUS_START_ALL, .max_deliver = 3, .durable = "worker"});
    contract_wait_given_up(log, 1);
    contract_publish(c, "orders.a", "later");
    contract_wait_events(log, 5);
    contract_wait_settled(log);
    event_bus_subscription_info(log->subscription, &info);
    assert_int_equal(info.given_up, 1);
    assert_int_equal(info.delivered, 5);
    assert_int_equal(info.redelivered, 2);
    assert_int_equal(metric(c, OBSERVE_BUS_GIVEN_UP, "worker"), 1);
    event_bus_unsubscribe(log->subscription);
    assert_int_equal(log->given_up, 1);
    assert_int_equal(count_of(log, 1), 3);
    assert_int_equal(count_of(log, 2), 1);
    assert_int_equal(count_of(log, 3), 1);
    contract_log_free(log);
    assert_ok(event_bus_delete_durable(c->bus, "worker", NULL));
}

static void ignore_first_message(struct contract_log *log, struct event_bus_delivery *delivery,
                                 size_t n)
{
    (void)log;
    (void)n;
    if (delivery->sequence != 1)
        (void)event_bus_ack(delivery);
}

static void message_that_is_never_settled_is_given_up_too(void **state)
{
    struct contract *c = *state;
    struct contract_log *log = contract_log_new(ignore_first_message);

    publish_some(c, 2);
    contract_subscribe(c, log, "orders.>",
                       &(struct event_bus_subscription_options){.start = EVENT_BUS_START_ALL,
                                                                .max_deliver = 2,
                                                                .ack_wait_ns = 150 * WB_MS});
    contract_wait_given_up(log, 1);
    contract_wait_settled(log);
    event_bus_unsubscribe(log->subscription);
    assert_int_equal(count_of(log, 1), 2);
    assert_int_equal(count_of(log, 2), 1);
    contract_log_free(log);
}

/* A process that died is not the message's fault: only failures of this holder count. */
static void failures_of_an_earlier_holder_do_not_count(void **state)
{
    struct contract *c = *state;
    const struct event_bus_subscription_options options = {.start = EVENT_BUS_START_ALL,
                                                           .durable = "worker",
                                                           .ack_wait_ns = 200 * WB_MS,
                                                           .max_deliver = 1};

    publish_some(c, 1);
    for (int holder = 0; holder < 3; holder++) {
        struct event_bus_subscription *s = contract_poll(c, "orders.>", &options);
        event_bus_release(contract_next(s));
        event_bus_unsubscribe(s);
    }
    struct event_bus_subscription *s = contract_poll(c, "orders.>", &options);
    struct event_bus_delivery *got = contract_next(s);
    assert_true(got->deliveries > 1);
    assert_ok(event_bus_ack(got));
    event_bus_release(got);
    event_bus_unsubscribe(s);
    assert_ok(event_bus_delete_durable(c->bus, "worker", NULL));
}

static void naks_wait_as_the_backoff_list_says_and_repeat_its_last(void **state)
{
    struct contract *c = *state;
    static const int64_t backoff[] = {100 * WB_MS, 250 * WB_MS};
    struct contract_log *log = contract_log_new(nak_first_message);
    static const int64_t at_least[] = {90 * WB_MS, 240 * WB_MS, 240 * WB_MS};

    publish_some(c, 1);
    contract_subscribe(c, log, "orders.>",
                       &(struct event_bus_subscription_options){.start = EVENT_BUS_START_ALL,
                                                                .max_deliver = 4,
                                                                .backoff_ns = backoff,
                                                                .backoff_count = 2});
    contract_wait_given_up(log, 1);
    event_bus_unsubscribe(log->subscription);
    assert_int_equal(log->count, 4);
    for (size_t i = 0; i < 3; i++) {
        assert_true(log->events[i + 1].at_ns - log->events[i].at_ns >= at_least[i]);
        assert_int_equal(log->events[i + 1].deliveries, i + 2);
    }
    contract_log_free(log);
}

/* ---- from elsewhere -------------------------------------------------------------------------- */

struct keeper {
    pthread_mutex_t mutex; /* guards kept */
    struct event_bus_delivery *kept[8];
    size_t count;
};

static void keep(struct contract_log *log, struct event_bus_delivery *delivery, size_t n)
{
    struct keeper *keeper = log->ctx;

    (void)n;
    pthread_mutex_lock(&keeper->mutex);
    if (keeper->count < 8)
        keeper->kept[keeper->count++] = event_bus_retain(delivery);
    pthread_mutex_unlock(&keeper->mutex);
}

static void *ack_kept(void *ctx)
{
    struct keeper *keeper = ctx;
    intptr_t failed = 0;

    for (size_t i = 0; i < keeper->count; i++) {
        failed += event_bus_ack(keeper->kept[i]) != WB_OK;
        event_bus_release(keeper->kept[i]);
    }
    return (void *)failed;
}

static void retained_delivery_is_settled_later_from_another_thread(void **state)
{
    struct contract *c = *state;
    struct keeper keeper = {.mutex = PTHREAD_MUTEX_INITIALIZER};
    struct contract_log *log = contract_log_new(keep);
    struct event_bus_subscription_info info;
    pthread_t thread;
    void *failed;

    log->ctx = &keeper;
    publish_some(c, 4);
    contract_subscribe(c, log, "orders.>", NULL);
    contract_wait_events(log, 4);
    event_bus_subscription_info(log->subscription, &info);
    assert_int_equal(info.unsettled, 4);
    assert_int_equal(pthread_create(&thread, NULL, ack_kept, &keeper), 0);
    pthread_join(thread, &failed);
    assert_null(failed);
    contract_wait_settled(log);
    assert_int_equal(metric(c, OBSERVE_BUS_SETTLED, "ack"), 4);
    event_bus_unsubscribe(log->subscription);
    contract_log_free(log);
}

static const struct contract_case cases[] = {
    CONTRACT_CASE(acked_message_does_not_come_again),
    CONTRACT_CASE(naked_message_comes_again_at_once),
    CONTRACT_CASE(naked_messages_come_again_in_nak_order_before_new_ones),
    CONTRACT_CASE(nak_with_delay_comes_again_not_before),
    CONTRACT_CASE(terminated_message_never_comes_again),
    CONTRACT_CASE(in_progress_prolongs_ack_wait),
    CONTRACT_CASE(second_verdict_does_nothing_and_says_so),
    CONTRACT_CASE(unsettled_message_comes_again_after_ack_wait),
    CONTRACT_CASE(expired_messages_come_again_in_sequence_before_new_ones),
    CONTRACT_CASE(late_ack_counts_and_is_counted),
    CONTRACT_CASE(max_ack_pending_holds_new_messages_back),
    CONTRACT_CASE(message_that_fails_max_deliver_times_is_given_up),
    CONTRACT_CASE(message_that_is_never_settled_is_given_up_too),
    CONTRACT_CASE(failures_of_an_earlier_holder_do_not_count),
    CONTRACT_CASE(naks_wait_as_the_backoff_list_says_and_repeat_its_last),
    CONTRACT_CASE(retained_delivery_is_settled_later_from_another_thread),
};

const struct contract_cases contract_settle_cases = {cases, sizeof(cases) / sizeof(cases[0])};
