/*
 * bench.h - what the benches share: figures, a clock, and a raw nats.c publisher to compare with.
 *
 * Rounds alternate between the contestants, so that a noisy machine is unfair to all alike; tables
 * give medians with the range.
 */
#ifndef BENCH_H
#define BENCH_H

#include "test_support.h"

#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include <nats/nats.h>

#define ROUNDS      5
#define WINDOW      1000
#define DEADLINE_NS (60 * WB_SEC)

static inline int64_t now(void)
{
    return wb_mono_ns(wb_clock_system());
}

static inline void must(bool good, const char *what, const struct wb_why *why)
{
    if (good)
        return;
    (void)fprintf(stderr, "bench: %s: %s\n", what, why != NULL ? why->text : "failed");
    exit(1);
}

static inline void must_ok(wb_err err, const char *what, const struct wb_why *why)
{
    if (err != WB_OK && why != NULL && why->text[0] == '\0')
        (void)fprintf(stderr, "bench: %s\n", wb_err_name(err));
    must(err == WB_OK, what, why);
}

/* ---- figures --------------------------------------------------------------------------------- */

static inline int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static inline double quantile(double *values, size_t count, double q)
{
    qsort(values, count, sizeof(*values), compare);
    return values[(size_t)((double)(count - 1) * q)];
}

struct rate {
    const char *name;
    double per_second[ROUNDS];
    size_t rounds;
};

static inline void add_rate(struct rate *rate, size_t count, int64_t ns)
{
    rate->per_second[rate->rounds++] = (double)count * 1e9 / (double)ns;
}

static inline double print_rate(struct rate *rate, const struct rate *beside)
{
    double middle = quantile(rate->per_second, rate->rounds, 0.5);

    (void)printf("%-44s %10.0f /s  [%.0f .. %.0f]", rate->name, middle, rate->per_second[0],
                 rate->per_second[rate->rounds - 1]);
    if (beside != NULL)
        (void)printf("  %5.1f %% of raw", 100 * middle / beside->per_second[beside->rounds / 2]);
    (void)printf("\n");
    return middle;
}

/* ---- counting what arrives ------------------------------------------------------------------- */

struct tally {
    atomic_size_t count;
    atomic_size_t errors;
    atomic_uint_fast64_t last; /* sequences must rise */
};

static inline void wait_count(struct tally *tally, size_t wanted, const char *what)
{
    int64_t until = now() + DEADLINE_NS;

    while (atomic_load(&tally->count) < wanted && now() < until)
        usleep(50);
    must(atomic_load(&tally->count) == wanted && atomic_load(&tally->errors) == 0, what, NULL);
}

/* ---- raw nats.c: its own publisher and consumer, as plain as they can be --------------------- */

struct raw {
    natsConnection *connection;
    struct tally tally;
    char inbox[64];
    char last_id[WB_ID_TEXT];
    bool like_outbox; /* with all the headers that an outbox sends */
};

static inline void raw_check(natsStatus status, const char *what)
{
    if (status != NATS_OK)
        (void)fprintf(stderr, "bench: raw: %s\n", natsStatus_GetText(status));
    must(status == NATS_OK, what, NULL);
}

/* at_once: each message is written by itself; else nats.c makes batches of them, which is faster.
 */
static inline void raw_connect(struct raw *raw, const char *url, bool at_once)
{
    natsOptions *options;

    raw_check(natsOptions_Create(&options), "options");
    raw_check(natsOptions_SetURL(options, url), "url");
    raw_check(natsOptions_SetSendAsap(options, at_once), "send asap");
    raw_check(natsConnection_Connect(&raw->connection, options), "connect");
    natsOptions_Destroy(options);
    (void)snprintf(raw->inbox, sizeof(raw->inbox), "_INBOX.raw%d", (int)getpid());
}

static inline void raw_acked(natsConnection *connection, natsSubscription *subscription,
                             natsMsg *msg, void *ctx)
{
    struct tally *tally = ctx;

    (void)connection;
    (void)subscription;
    if (natsMsg_GetDataLength(msg) < 3 || strstr(natsMsg_GetData(msg), "\"error\"") != NULL)
        atomic_fetch_add(&tally->errors, 1);
    atomic_fetch_add(&tally->count, 1);
    natsMsg_Destroy(msg);
}

static inline void raw_publish_one(struct raw *raw, size_t i, uint64_t expected, size_t size)
{
    static char payload[65536];
    uint8_t id[WB_ID_SIZE];
    char id_text[WB_ID_TEXT];
    char expected_text[24];
    char reply[96];
    natsMsg *msg;

    wb_id_new(wb_clock_system(), id);
    wb_hex_encode(id, sizeof(id), id_text);
    (void)snprintf(expected_text, sizeof(expected_text), "%llu", (unsigned long long)expected);
    (void)snprintf(reply, sizeof(reply), "%s.%zu", raw->inbox, i);
    raw_check(natsMsg_Create(&msg, "pub.a", reply, payload, (int)size), "message");
    raw_check(natsMsgHeader_Set(msg, "Nats-Msg-Id", id_text), "header");
    raw_check(natsMsgHeader_Set(msg, "Nats-Expected-Last-Sequence", expected_text), "header");
    if (raw->like_outbox) {
        raw_check(natsMsgHeader_Set(msg, "waybill-source", "0123456789abcdef"), "header");
        raw_check(natsMsgHeader_Set(msg, "waybill-row", expected_text), "header");
        raw_check(natsMsgHeader_Set(msg, "waybill-key", "k777"), "header");
        if (i > 0)
            raw_check(natsMsgHeader_Set(msg, "Nats-Expected-Last-Msg-Id", raw->last_id), "header");
        memcpy(raw->last_id, id_text, sizeof(raw->last_id));
    }
    raw_check(natsConnection_PublishMsg(raw->connection, msg), "publish");
    natsMsg_Destroy(msg);
}

static inline void bench_raw_publish(struct raw *raw, uint64_t last, size_t count, size_t size,
                                     struct rate *rate)
{
    natsSubscription *acks;
    char wildcard[80];

    raw->tally = (struct tally){0};
    (void)snprintf(wildcard, sizeof(wildcard), "%s.*", raw->inbox);
    raw_check(natsConnection_Subscribe(&acks, raw->connection, wildcard, raw_acked, &raw->tally),
              "subscribe");
    raw_check(natsSubscription_SetPendingLimits(acks, -1, -1), "limits");
    int64_t start = now();
    for (size_t i = 0; i < count; i++) {
        raw_publish_one(raw, i, last + i, size);
        while (i + 1 - atomic_load(&raw->tally.count) >= WINDOW)
            usleep(20);
    }
    wait_count(&raw->tally, count, "raw publish: acks");
    add_rate(rate, count, now() - start);
    (void)natsSubscription_Unsubscribe(acks);
    (void)natsConnection_FlushTimeout(raw->connection, 2000);
    natsSubscription_Destroy(acks);
}

#endif /* BENCH_H */
