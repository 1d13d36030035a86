/*
 * contract.h - the one suite that every event bus must pass.
 *
 * A bus joins by a main of a few lines: fill in a struct contract_bus and return contract_run() of
 * it. What a bus cannot do is a NULL hook, and the cases that need it are not in its run.
 *
 *     int main(void)
 *     {
 *         const struct contract_bus memory = {.kind = "memory", .make = make_memory, ...};
 *         return contract_run(&memory);
 *     }
 *
 * Each case starts with a new bus and no streams, declares its own with contract_stream(), and its
 * streams are deleted and its bus destroyed behind it, also when it fails. Nothing sleeps: cases
 * wait for what they expect, at most CONTRACT_PATIENCE_NS.
 */
#ifndef CONTRACT_H
#define CONTRACT_H

#include "test_support.h"

#include <pthread.h>

#include <waybill/event_bus.h>
#include <waybill/observe.h>

/* How long a case waits for what must come: long, because the machine may be busy. */
#define CONTRACT_PATIENCE_NS (20 * WB_SEC)

struct contract_bus {
    const char *kind; /* what event_bus_kind() says */
    void *ctx;        /* for the hooks */

    /* A new bus, connected, with this table of metrics. All buses made during one case see the same
     * streams where the bus has a server of its own; a bus that lives in the process is alone. */
    struct event_bus *(*make)(void *ctx, struct observe *observe);

    /* Two buses made see the same streams: a second process can be played. */
    bool shared;

    /* The server goes away at once and comes back with what it had stored. NULL: has none. */
    void (*lose_server)(void *ctx, struct event_bus *bus);
    void (*return_server)(void *ctx, struct event_bus *bus);

    /* Delete one message behind everybody's back. NULL: cannot. */
    void (*delete_message)(void *ctx, struct event_bus *bus, const char *stream, uint64_t sequence);
};

/** Run all cases; the exit status of the test program. */
int contract_run(const struct contract_bus *bus);

/* ---- for the cases --------------------------------------------------------------------------- */

#define CONTRACT_STREAMS_MAX 8

/* What one case works with; its cmocka state. */
struct contract {
    const struct contract_bus *kind;
    struct event_bus *bus;
    struct observe *observe;
    const char *streams[CONTRACT_STREAMS_MAX]; /* to be deleted behind the case */
    size_t stream_count;
};

/** Declare a stream of one subject with the defaults of the contract. */
void contract_stream(struct contract *c, const char *name, const char *subject);
/** Declare a stream with these options (name and subjects included). */
void contract_stream_with(struct contract *c, const struct event_bus_stream_options *options);

/** Publish text; the sequence it got. Fails the test on error. */
uint64_t contract_publish(struct contract *c, const char *subject, const char *payload);
/** Publish under an id. */
wb_err contract_publish_id(struct contract *c, const char *subject, const char *payload,
                           const char *msg_id, struct event_bus_ack_info *ret_ack);

/* What a subscription was given, in order. */
struct contract_event {
    char stream[EVENT_BUS_NAME_MAX + 1];
    char subject[256];
    char payload[64];
    uint64_t sequence;
    uint32_t deliveries;
    int64_t at_ns; /* monotonic */
};

#define CONTRACT_LOG_MAX 2048

struct contract_log;

/* Decides what becomes of a delivery, on the handler's thread. n counts from 0. */
typedef void (*contract_act)(struct contract_log *log, struct event_bus_delivery *delivery,
                             size_t n);

/* The context of a subscription's handler: what it did, and what it is to do. */
struct contract_log {
    struct event_bus_subscription *subscription;
    contract_act act;      /* NULL: ack */
    void *ctx;             /* for act */
    pthread_mutex_t mutex; /* guards the rest */
    pthread_cond_t grown;
    size_t count;   /* deliveries begun */
    size_t handled; /* and dealt with */
    size_t given_up;
    size_t running;  /* handlers at work now */
    bool overlapped; /* two were at work at once */
    struct contract_event events[CONTRACT_LOG_MAX];
};

/** A log on the heap, freed by contract_log_free(). */
struct contract_log *contract_log_new(contract_act act);
void contract_log_free(struct contract_log *log);

/** Subscribe to one pattern with the log as handler; other options (NULL: start ALL, ack_wait 30 s)
 * are taken from options, but for patterns, handler, given_up and ctx. */
void contract_subscribe(struct contract *c, struct contract_log *log, const char *pattern,
                        const struct event_bus_subscription_options *options);

/** Subscribe to one pattern, to be polled; other options as above. */
struct event_bus_subscription *contract_poll(struct contract *c, const char *pattern,
                                             const struct event_bus_subscription_options *options);
/** The next delivery, to be released; fails the test when none comes. */
struct event_bus_delivery *contract_next(struct event_bus_subscription *subscription);
/** The next delivery has this sequence and delivery count; it is acked and released. */
void contract_expect(struct event_bus_subscription *subscription, uint64_t sequence,
                     uint32_t deliveries);
/** Nothing comes for this long. For what must not happen: keep it short. */
void contract_expect_none(struct event_bus_subscription *subscription, int64_t for_ns);

/** Wait until count deliveries have been dealt with; fails the test when they do not come. */
void contract_wait_events(struct contract_log *log, size_t count);
void contract_wait_given_up(struct contract_log *log, size_t count);
/** How many events there are now. */
size_t contract_events(struct contract_log *log);
/** Wait until all that was handed out is settled and nothing is queued. */
void contract_wait_settled(struct contract_log *log);

/** The sequences of the log are exactly these, in this order. */
void contract_assert_sequences(struct contract_log *log, const uint64_t *expected, size_t count);
#define contract_assert_log(log, ...)                                                              \
    contract_assert_sequences(log, (const uint64_t[]){__VA_ARGS__},                                \
                              sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

/* A case, and which hooks it needs. */
struct contract_case {
    const char *name;
    void (*run)(void **state);
    bool needs_shared;
    bool needs_server;
    bool needs_delete;
};

#define CONTRACT_CASE(function)                                                                    \
    {                                                                                              \
        .name = #function, .run = (function)                                                       \
    }

struct contract_cases {
    const struct contract_case *cases;
    size_t count;
};

/* One table for each file of cases. */
extern const struct contract_cases contract_stream_cases;
extern const struct contract_cases contract_scan_cases;
extern const struct contract_cases contract_publish_cases;
extern const struct contract_cases contract_pipeline_cases;
extern const struct contract_cases contract_subscribe_cases;
extern const struct contract_cases contract_durable_cases;
extern const struct contract_cases contract_settle_cases;
extern const struct contract_cases contract_end_cases;
extern const struct contract_cases contract_subject_cases;

#endif /* CONTRACT_H */
