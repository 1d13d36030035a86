/* Publish: many messages on their way at once, from inside a completion, from many threads. */
#include "contract.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- pipelined ------------------------------------------------------------------------------- */

#define PIPELINED 500

struct completions {
    size_t wanted;         /* constant: how many are awaited */
    pthread_mutex_t mutex; /* guards the rest */
    size_t count;
    uint64_t sequences[PIPELINED];
    wb_err errors[PIPELINED];
};

static void completed(void *ctx, wb_err err, const struct event_bus_ack_info *ack,
                      const struct wb_why *why)
{
    struct completions *got = ctx;

    (void)why;
    pthread_mutex_lock(&got->mutex);
    if (got->count < PIPELINED) {
        got->errors[got->count] = err;
        got->sequences[got->count] = ack->sequence;
    }
    got->count++;
    pthread_mutex_unlock(&got->mutex);
}

static struct completions *completions_new(size_t wanted)
{
    struct completions *got = calloc(1, sizeof(*got));

    assert_non_null(got);
    got->wanted = wanted;
    pthread_mutex_init(&got->mutex, NULL);
    return got;
}

static void completions_free(struct completions *got)
{
    pthread_mutex_destroy(&got->mutex);
    free(got);
}

static bool all_completed(void *ctx)
{
    struct completions *got = ctx;

    pthread_mutex_lock(&got->mutex);
    bool all = got->count >= got->wanted;
    pthread_mutex_unlock(&got->mutex);
    return all;
}

static void publish_pipelined_completes_each_once_and_in_order(void **state)
{
    struct contract *c = *state;
    struct completions *got = completions_new(PIPELINED);
    struct event_bus_stream_info info;

    contract_stream(c, "ORDERS", "orders.>");
    for (int i = 0; i < PIPELINED; i++)
        assert_ok(event_bus_publish_async(c->bus, &(struct message){.subject = wb_str("orders.a")},
                                          NULL, completed, got, NULL));
    assert_true(test_wait(all_completed, got, (int)(CONTRACT_PATIENCE_NS / WB_MS)));
    assert_ok(event_bus_stream_info(c->bus, "ORDERS", &info, NULL));
    assert_int_equal(info.last_seq, PIPELINED);
    assert_int_equal(got->count, PIPELINED);
    for (size_t i = 0; i < PIPELINED; i++) {
        assert_int_equal(got->errors[i], WB_OK);
        assert_int_equal(got->sequences[i], i + 1);
    }
    completions_free(got);
}

static void publish_pipelined_without_stream_says_so_once(void **state)
{
    struct contract *c = *state;
    struct completions *got = completions_new(1);
    const struct message msg = {.subject = wb_str("nobody.listens")};

    contract_stream(c, "ORDERS", "orders.>");
    wb_err err = event_bus_publish_async(c->bus, &msg, NULL, completed, got, NULL);
    if (err == WB_OK) { /* told by the completion, and only there */
        assert_true(test_wait(all_completed, got, (int)(CONTRACT_PATIENCE_NS / WB_MS)));
        err = got->errors[0];
        assert_int_equal(got->count, 1);
    } else {
        assert_int_equal(got->count, 0);
    }
    assert_err(err, WB_NO_STREAM);
    completions_free(got);
}

struct chain {
    struct event_bus *bus;
    atomic_int left;
    atomic_int failed;
};

static void publish_next(void *ctx, wb_err err, const struct event_bus_ack_info *ack,
                         const struct wb_why *why)
{
    struct chain *chain = ctx;
    const struct message msg = {.subject = wb_str("orders.a")};

    (void)ack;
    (void)why;
    if (err != WB_OK)
        atomic_fetch_add(&chain->failed, 1);
    if (atomic_fetch_sub(&chain->left, 1) > 1 &&
        event_bus_publish_async(chain->bus, &msg, NULL, publish_next, chain, NULL) != WB_OK)
        atomic_fetch_add(&chain->failed, 1);
}

static bool chain_is_done(void *ctx)
{
    struct chain *chain = ctx;

    return atomic_load(&chain->left) <= 0 || atomic_load(&chain->failed) > 0;
}

static void publish_inside_a_completion_works(void **state)
{
    struct contract *c = *state;
    struct chain chain = {.bus = c->bus, .left = 100};

    contract_stream(c, "ORDERS", "orders.>");
    assert_ok(event_bus_publish_async(c->bus, &(struct message){.subject = wb_str("orders.a")},
                                      NULL, publish_next, &chain, NULL));
    assert_true(test_wait(chain_is_done, &chain, (int)(CONTRACT_PATIENCE_NS / WB_MS)));
    assert_int_equal(atomic_load(&chain.failed), 0);
}

/* ---- many publishers ------------------------------------------------------------------------- */

#define PUBLISHERS 4
#define EACH       100

struct publisher {
    struct contract *c;
    pthread_t thread;
    char subject[24];
    int failed;
};

static void *publish_many(void *ctx)
{
    struct publisher *self = ctx;
    char payload[16];

    for (int i = 0; i < EACH; i++) {
        (void)snprintf(payload, sizeof(payload), "%d", i);
        self->failed += contract_publish_id(self->c, self->subject, payload, NULL, NULL) != WB_OK;
    }
    return NULL;
}

static void publishers_side_by_side_lose_nothing_and_keep_their_order(void **state)
{
    struct contract *c = *state;
    struct publisher publishers[PUBLISHERS];
    struct contract_log *log = contract_log_new(NULL);
    int next[PUBLISHERS] = {0};

    contract_stream(c, "ORDERS", "orders.>");
    contract_subscribe(c, log, "orders.>", NULL);
    for (int i = 0; i < PUBLISHERS; i++) {
        publishers[i] = (struct publisher){.c = c};
        (void)snprintf(publishers[i].subject, sizeof(publishers[i].subject), "orders.%d", i);
        assert_int_equal(pthread_create(&publishers[i].thread, NULL, publish_many, &publishers[i]),
                         0);
    }
    for (int i = 0; i < PUBLISHERS; i++) {
        pthread_join(publishers[i].thread, NULL);
        assert_int_equal(publishers[i].failed, 0);
    }
    contract_wait_events(log, (size_t)PUBLISHERS * EACH);
    event_bus_unsubscribe(log->subscription);
    assert_int_equal(log->count, PUBLISHERS * EACH);
    for (size_t i = 0; i < log->count; i++) {
        int who = log->events[i].subject[7] - '0';
        assert_int_equal(log->events[i].sequence, i + 1);
        assert_int_equal(strtol(log->events[i].payload, NULL, 10), next[who]++);
    }
    contract_log_free(log);
}

static const struct contract_case cases[] = {
    CONTRACT_CASE(publish_pipelined_completes_each_once_and_in_order),
    CONTRACT_CASE(publish_pipelined_without_stream_says_so_once),
    CONTRACT_CASE(publish_inside_a_completion_works),
    CONTRACT_CASE(publishers_side_by_side_lose_nothing_and_keep_their_order),
};

const struct contract_cases contract_pipeline_cases = {cases, sizeof(cases) / sizeof(cases[0])};
