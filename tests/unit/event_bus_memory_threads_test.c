/*
 * Many threads on one in-memory bus: nothing is lost, nothing overlaps, nothing runs after its end.
 */
#include "test_support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include <waybill/event_bus_memory.h>

#define PUBLISHERS 3
#define EACH       400
#define ALL        ((size_t)PUBLISHERS * EACH)

static struct event_bus *make(uint32_t workers)
{
    const struct event_bus_memory_options options = {.workers = workers};
    const char *subject = "work.>";
    const struct event_bus_stream_options stream = {
        .name = "WORK", .subjects = &subject, .subject_count = 1};
    struct event_bus *bus = NULL;

    assert_ok(event_bus_memory_create(&options, &bus));
    assert_ok(event_bus_declare_stream(bus, &stream, EVENT_BUS_CREATE, NULL));
    return bus;
}

struct publisher {
    struct event_bus *bus;
    pthread_t thread;
    int failed;
};

static void *publish(void *ctx)
{
    struct publisher *self = ctx;
    const struct message msg = {.subject = wb_str("work.a")};

    for (int i = 0; i < EACH; i++)
        self->failed += event_bus_publish(self->bus, &msg, NULL, NULL, NULL) != WB_OK;
    return NULL;
}

static void start_publishers(struct event_bus *bus, struct publisher *publishers)
{
    for (size_t i = 0; i < PUBLISHERS; i++) {
        publishers[i] = (struct publisher){.bus = bus};
        assert_int_equal(pthread_create(&publishers[i].thread, NULL, publish, &publishers[i]), 0);
    }
}

static void join_publishers(struct publisher *publishers)
{
    for (size_t i = 0; i < PUBLISHERS; i++) {
        pthread_join(publishers[i].thread, NULL);
        assert_int_equal(publishers[i].failed, 0);
    }
}

/* ---- shared by members that fail and come and go --------------------------------------------- */

struct tally {
    atomic_uint acked[ALL + 1];
    atomic_size_t done;
};

/* Every fifth first delivery is naked, every seventh is forgotten. */
static void handle(void *ctx, struct event_bus_delivery *delivery)
{
    struct tally *tally = ctx;

    if (delivery->deliveries == 1 && delivery->sequence % 5 == 0) {
        (void)event_bus_nak_delay(delivery, WB_MS);
    } else if (delivery->deliveries > 1 || delivery->sequence % 7 != 0) {
        if (event_bus_ack(delivery) == WB_OK &&
            atomic_fetch_add(&tally->acked[delivery->sequence], 1) == 0)
            atomic_fetch_add(&tally->done, 1);
    }
}

static struct event_bus_subscription *join(struct event_bus *bus, struct tally *tally)
{
    const char *pattern = "work.>";
    const struct event_bus_subscription_options options = {.patterns = &pattern,
                                                           .pattern_count = 1,
                                                           .durable = "worker",
                                                           .queue_group = "team",
                                                           .start = EVENT_BUS_START_ALL,
                                                           .ack_wait_ns = 100 * WB_MS,
                                                           .max_ack_pending = 50,
                                                           .handler = handle,
                                                           .ctx = tally};
    struct event_bus_subscription *s = NULL;

    assert_ok(event_bus_subscribe(bus, &options, &s, NULL));
    return s;
}

static bool is_done(void *ctx)
{
    return atomic_load(&((struct tally *)ctx)->done) == ALL;
}

static void members_that_come_and_go_settle_every_message(void **state)
{
    struct event_bus *bus = make(4);
    struct publisher publishers[PUBLISHERS];
    struct tally *tally = calloc(1, sizeof(*tally));
    struct event_bus_subscription *members[3];
    size_t leaver = 0;

    (void)state;
    assert_non_null(tally);
    for (size_t i = 0; i < 3; i++)
        members[i] = join(bus, tally);
    start_publishers(bus, publishers);
    for (int i = 0; i < 60; i++, leaver = (leaver + 1) % 3) {
        event_bus_unsubscribe(members[leaver]);
        members[leaver] = join(bus, tally);
    }
    join_publishers(publishers);
    assert_true(test_wait(is_done, tally, 20000));
    event_bus_destroy(bus);
    free(tally);
}

/* ---- subscriptions that end while messages pour in ------------------------------------------- */

struct guest {
    atomic_bool gone; /* its unsubscribe has returned */
    atomic_int running;
    atomic_int wrong;
};

static void visit(void *ctx, struct event_bus_delivery *delivery)
{
    struct guest *guest = ctx;

    if (atomic_load(&guest->gone) || atomic_fetch_add(&guest->running, 1) > 0)
        atomic_fetch_add(&guest->wrong, 1);
    (void)event_bus_ack(delivery);
    if (atomic_load(&guest->gone))
        atomic_fetch_add(&guest->wrong, 1);
    atomic_fetch_sub(&guest->running, 1);
}

static void unsubscribed_handlers_never_run_again(void **state)
{
    struct event_bus *bus = make(4);
    struct publisher publishers[PUBLISHERS];
    struct guest guests[100] = {{0}};
    const char *pattern = "work.>";
    struct event_bus_subscription_options options = {
        .patterns = &pattern, .pattern_count = 1, .start = EVENT_BUS_START_ALL, .handler = visit};

    (void)state;
    start_publishers(bus, publishers);
    for (size_t i = 0; i < 100; i++) {
        struct event_bus_subscription *s = NULL;
        options.ctx = &guests[i];
        assert_ok(event_bus_subscribe(bus, &options, &s, NULL));
        event_bus_unsubscribe(s);
        atomic_store(&guests[i].gone, true);
    }
    join_publishers(publishers);
    event_bus_destroy(bus);
    for (size_t i = 0; i < 100; i++)
        assert_int_equal(atomic_load(&guests[i].wrong), 0);
}

/* ---- closing in the middle ------------------------------------------------------------------- */

struct closing {
    struct event_bus *bus;
    atomic_bool closed;
    atomic_int wrong;
    atomic_size_t accepted;
    atomic_size_t completed;
};

static void completed(void *ctx, wb_err err, const struct event_bus_ack_info *ack,
                      const struct wb_why *why)
{
    struct closing *closing = ctx;

    (void)err;
    (void)ack;
    (void)why;
    if (atomic_load(&closing->closed))
        atomic_fetch_add(&closing->wrong, 1);
    atomic_fetch_add(&closing->completed, 1);
}

static void *publish_until_closed(void *ctx)
{
    struct closing *closing = ctx;
    const struct message msg = {.subject = wb_str("work.a")};

    while (event_bus_publish_async(closing->bus, &msg, NULL, completed, closing, NULL) == WB_OK)
        atomic_fetch_add(&closing->accepted, 1);
    return NULL;
}

static bool has_accepted_some(void *ctx)
{
    return atomic_load(&((struct closing *)ctx)->accepted) > 100;
}

static void close_in_the_middle_completes_what_was_accepted_and_no_more(void **state)
{
    (void)state;
    for (int round = 0; round < 5; round++) {
        struct closing closing = {.bus = make(2)};
        pthread_t threads[2];

        for (size_t i = 0; i < 2; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, publish_until_closed, &closing), 0);
        assert_true(test_wait(has_accepted_some, &closing, 20000));
        event_bus_close(closing.bus);
        atomic_store(&closing.closed, true);
        for (size_t i = 0; i < 2; i++)
            pthread_join(threads[i], NULL);
        assert_int_equal(atomic_load(&closing.wrong), 0);
        assert_int_equal(atomic_load(&closing.completed), atomic_load(&closing.accepted));
        event_bus_destroy(closing.bus);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_that_come_and_go_settle_every_message),
        cmocka_unit_test(unsubscribed_handlers_never_run_again),
        cmocka_unit_test(close_in_the_middle_completes_what_was_accepted_and_no_more),
    };

    return cmocka_run_group_tests_name("event_bus_memory_threads", tests, NULL, NULL);
}
