/* The dispatcher's queues: bounds, copies of one message, failures, ending. */
#include "event_bus_fake.h"

static struct event_bus_subscription *subscribe(struct fake_bus *fake,
                                                struct event_bus_subscription_options options)
{
    const char *pattern = "a.>";
    struct event_bus_subscription *s = NULL;

    options.patterns = &pattern;
    options.pattern_count = 1;
    assert_ok(event_bus_subscribe(&fake->base, &options, &s, NULL));
    return s;
}

static struct event_bus_delivery *next(struct event_bus_subscription *s, uint64_t sequence)
{
    struct event_bus_delivery *got = NULL;

    assert_ok(event_bus_next(s, 0, &got));
    assert_int_equal(got->sequence, sequence);
    return got;
}

static void none(struct event_bus_subscription *s)
{
    struct event_bus_delivery *got = NULL;

    assert_err(event_bus_next(s, 0, &got), WB_TIMEOUT);
}

static void ack(struct event_bus_delivery *delivery)
{
    assert_ok(event_bus_ack(delivery));
    event_bus_release(delivery);
}

static void queue_that_is_full_refuses_and_asks_for_more_at_half(void **state)
{
    struct fake_bus fake;
    uint64_t offered = 0;

    (void)state;
    fake_init(&fake, 0, NULL, NULL);
    struct event_bus_subscription *s =
        subscribe(&fake, (struct event_bus_subscription_options){.max_ack_pending = 1000});
    while (fake_offer(&fake, offered + 1, 1))
        offered++;
    assert_int_equal(offered, 2000);
    for (uint64_t i = 1; i < 1000; i++)
        ack(next(s, i));
    assert_int_equal(fake.resumes, 0);
    ack(next(s, 1000));
    assert_int_equal(fake.resumes, 1);
    assert_true(fake_offer(&fake, 2001, 1));
    ack(next(s, 1001));
    assert_int_equal(fake.resumes, 1); /* once for each time it was full */
    event_bus_destroy(&fake.base);
    assert_int_equal(fake.destroyed, 2001);
}

static void redelivery_while_its_first_copy_waits_is_dropped(void **state)
{
    struct fake_bus fake;

    (void)state;
    fake_init(&fake, 0, NULL, NULL);
    struct event_bus_subscription *s = subscribe(&fake, (struct event_bus_subscription_options){0});
    assert_true(fake_offer(&fake, 1, 1));
    assert_true(fake_offer(&fake, 2, 1));
    assert_true(fake_offer(&fake, 1, 2));
    assert_int_equal(fake.destroyed, 1);
    struct event_bus_delivery *first = next(s, 1);
    assert_int_equal(first->deliveries, 1);
    ack(first);
    ack(next(s, 2));
    none(s);
    event_bus_destroy(&fake.base);
}

static void copy_of_what_was_settled_meanwhile_is_not_handed_out(void **state)
{
    struct fake_bus fake;

    (void)state;
    fake_init(&fake, 0, NULL, NULL);
    struct event_bus_subscription *s = subscribe(&fake, (struct event_bus_subscription_options){0});
    assert_true(fake_offer(&fake, 1, 1));
    struct event_bus_delivery *first = next(s, 1);
    assert_true(fake_offer(&fake, 1, 2)); /* ack_wait has passed */
    ack(first);                           /* late, but it counts */
    none(s);
    event_bus_destroy(&fake.base);
}

static void sequence_that_starts_anew_is_a_new_message(void **state)
{
    struct fake_bus fake;

    (void)state;
    fake_init(&fake, 0, NULL, NULL);
    struct event_bus_subscription *s =
        subscribe(&fake, (struct event_bus_subscription_options){.max_deliver = 1});
    assert_true(fake_offer(&fake, 1, 1));
    struct event_bus_delivery *old = next(s, 1);
    assert_true(fake_offer(&fake, 1, 1)); /* the stream was made anew */
    ack(next(s, 1));
    event_bus_release(old);
    assert_true(fake_offer(&fake, 2, 1));
    assert_true(fake_offer(&fake, 2, 1));
    ack(next(s, 2));
    none(s);
    event_bus_destroy(&fake.base);
}

static void given_up(void *ctx, struct event_bus_delivery *delivery)
{
    *(uint64_t *)ctx = delivery->sequence;
}

static void naks_and_expiries_both_count_until_max_deliver(void **state)
{
    struct fake_bus fake;
    static const int64_t backoff[] = {WB_SEC, 2 * WB_SEC};
    uint64_t lost = 0;

    (void)state;
    fake_init(&fake, 0, NULL, NULL);
    struct event_bus_subscription *s =
        subscribe(&fake, (struct event_bus_subscription_options){.max_deliver = 4,
                                                                 .backoff_ns = backoff,
                                                                 .backoff_count = 2,
                                                                 .given_up = given_up,
                                                                 .ctx = &lost});
    assert_true(fake_offer(&fake, 7, 1));
    struct event_bus_delivery *got = next(s, 7);
    assert_ok(event_bus_nak(got)); /* the first failure */
    event_bus_release(got);
    assert_int_equal(fake.settled[0].delay_ns, WB_SEC);
    assert_true(fake_offer(&fake, 7, 2));
    event_bus_release(next(s, 7));
    assert_true(fake_offer(&fake, 7, 3)); /* not settled: the second */
    got = next(s, 7);
    assert_ok(event_bus_nak_delay(got, 5)); /* the third */
    event_bus_release(got);
    assert_int_equal(fake.settled[1].delay_ns, 5);
    assert_true(fake_offer(&fake, 7, 4));
    got = next(s, 7);
    assert_int_equal(lost, 0);
    assert_ok(event_bus_nak(got)); /* the fourth */
    event_bus_release(got);
    assert_int_equal(lost, 7);
    assert_int_equal(fake.settled_count, 3);
    assert_int_equal(fake.settled[2].verdict, EVENT_BUS_TERM);
    event_bus_destroy(&fake.base);
}

static void expiry_that_is_one_too_many_is_given_up_unhandled(void **state)
{
    struct fake_bus fake;
    uint64_t lost = 0;

    (void)state;
    fake_init(&fake, 0, NULL, NULL);
    struct event_bus_subscription *s =
        subscribe(&fake, (struct event_bus_subscription_options){
                             .max_deliver = 1, .given_up = given_up, .ctx = &lost});
    assert_true(fake_offer(&fake, 3, 1));
    event_bus_release(next(s, 3));
    assert_true(fake_offer(&fake, 3, 2));
    none(s);
    assert_int_equal(lost, 3);
    assert_int_equal(fake.settled[0].verdict, EVENT_BUS_TERM);
    event_bus_destroy(&fake.base);
}

static void verdict_that_the_bus_refuses_can_be_given_again(void **state)
{
    struct fake_bus fake;
    struct event_bus_subscription_info info;

    (void)state;
    fake_init(&fake, 0, NULL, NULL);
    struct event_bus_subscription *s =
        subscribe(&fake, (struct event_bus_subscription_options){.max_deliver = 2});
    assert_true(fake_offer(&fake, 1, 1));
    struct event_bus_delivery *got = next(s, 1);
    fake.settle_result = WB_UNREACHABLE;
    assert_err(event_bus_ack(got), WB_UNREACHABLE);
    assert_err(event_bus_nak(got), WB_UNREACHABLE);
    assert_err(event_bus_in_progress(got), WB_UNREACHABLE);
    event_bus_subscription_info(s, &info);
    assert_int_equal(info.unsettled, 1);
    fake.settle_result = WB_OK;
    assert_ok(event_bus_nak(got)); /* the refused one is no failure, so this is the first */
    event_bus_release(got);
    assert_int_equal(fake.settled[0].verdict, EVENT_BUS_NAK);
    event_bus_destroy(&fake.base);
}

static void late_acks_are_counted_by_our_clock(void **state)
{
    struct fake_bus fake;
    struct wb_clock_virtual clock;
    struct observe *observe = NULL;

    (void)state;
    wb_clock_virtual_init(&clock, WB_SEC, 0);
    assert_ok(observe_create(&observe));
    const struct observe_series *late = observe_series(observe, OBSERVE_BUS_LATE_ACKS, NULL);
    fake_init(&fake, 0, &clock.clock, observe);
    struct event_bus_subscription *s =
        subscribe(&fake, (struct event_bus_subscription_options){.ack_wait_ns = WB_SEC});
    for (uint64_t i = 1; i <= 3; i++)
        assert_true(fake_offer(&fake, i, 1));
    wb_clock_virtual_advance(&clock, WB_SEC);
    ack(next(s, 1));
    assert_int_equal(observe_value(late), 0);
    wb_clock_virtual_advance(&clock, 1);
    ack(next(s, 2));
    assert_int_equal(observe_value(late), 1);
    struct event_bus_delivery *third = next(s, 3);
    assert_ok(event_bus_in_progress(third));
    wb_clock_virtual_advance(&clock, WB_SEC);
    ack(third);
    assert_int_equal(observe_value(late), 1);
    event_bus_destroy(&fake.base);
    observe_destroy(observe);
}

static void queue_of_a_durable_is_handed_back_at_the_end(void **state)
{
    struct fake_bus fake;

    (void)state;
    fake_init(&fake, 0, NULL, NULL);
    struct event_bus_subscription *s =
        subscribe(&fake, (struct event_bus_subscription_options){.durable = "worker"});
    for (uint64_t i = 1; i <= 3; i++)
        assert_true(fake_offer(&fake, i, 1));
    ack(next(s, 1));
    event_bus_unsubscribe(s);
    assert_int_equal(fake.settled_count, 3);
    assert_int_equal(fake.settled[1].sequence, 2);
    assert_int_equal(fake.settled[1].verdict, EVENT_BUS_NAK);
    assert_int_equal(fake.settled[1].delay_ns, 0);
    assert_int_equal(fake.settled[2].sequence, 3);
    assert_int_equal(fake.stops, 1);
    assert_int_equal(fake.destroyed, 3);
    event_bus_destroy(&fake.base);
    assert_int_equal(fake.stops, 1);
}

/* ---- many at once ---------------------------------------------------------------------------- */

#define SUBSCRIPTIONS 20
#define MESSAGES      200

struct counted {
    pthread_mutex_t mutex; /* guards the rest */
    uint64_t last;
    bool running;
    bool wrong;
};

static void count(void *ctx, struct event_bus_delivery *delivery)
{
    struct counted *counted = ctx;

    pthread_mutex_lock(&counted->mutex);
    counted->wrong |= counted->running || delivery->sequence != counted->last + 1;
    counted->running = true;
    counted->last = delivery->sequence;
    pthread_mutex_unlock(&counted->mutex);
    (void)event_bus_ack(delivery);
    pthread_mutex_lock(&counted->mutex);
    counted->running = false;
    pthread_mutex_unlock(&counted->mutex);
}

static bool all_counted(void *ctx)
{
    struct counted *counted = ctx;
    bool all = true;

    for (size_t i = 0; i < SUBSCRIPTIONS; i++) {
        pthread_mutex_lock(&counted[i].mutex);
        all = all && counted[i].last == MESSAGES;
        pthread_mutex_unlock(&counted[i].mutex);
    }
    return all;
}

static void few_workers_serve_many_subscriptions_each_in_order(void **state)
{
    struct fake_bus fake;
    struct counted counted[SUBSCRIPTIONS];
    struct event_bus_subscription *subscriptions[SUBSCRIPTIONS];

    (void)state;
    fake_init(&fake, 4, NULL, NULL);
    for (size_t i = 0; i < SUBSCRIPTIONS; i++) {
        counted[i] = (struct counted){.mutex = PTHREAD_MUTEX_INITIALIZER};
        subscriptions[i] = subscribe(
            &fake, (struct event_bus_subscription_options){.handler = count, .ctx = &counted[i]});
    }
    for (uint64_t n = 1; n <= MESSAGES; n++)
        for (size_t i = 0; i < SUBSCRIPTIONS; i++) {
            fake.subscription = subscriptions[i];
            assert_true(fake_offer(&fake, n, 1));
        }
    assert_true(test_wait(all_counted, counted, 20000));
    event_bus_destroy(&fake.base);
    for (size_t i = 0; i < SUBSCRIPTIONS; i++)
        assert_false(counted[i].wrong);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queue_that_is_full_refuses_and_asks_for_more_at_half),
        cmocka_unit_test(redelivery_while_its_first_copy_waits_is_dropped),
        cmocka_unit_test(copy_of_what_was_settled_meanwhile_is_not_handed_out),
        cmocka_unit_test(sequence_that_starts_anew_is_a_new_message),
        cmocka_unit_test(naks_and_expiries_both_count_until_max_deliver),
        cmocka_unit_test(expiry_that_is_one_too_many_is_given_up_unhandled),
        cmocka_unit_test(verdict_that_the_bus_refuses_can_be_given_again),
        cmocka_unit_test(late_acks_are_counted_by_our_clock),
        cmocka_unit_test(queue_of_a_durable_is_handed_back_at_the_end),
        cmocka_unit_test(few_workers_serve_many_subscriptions_each_in_order),
    };

    return cmocka_run_group_tests_name("event_bus_dispatch", tests, NULL, NULL);
}
