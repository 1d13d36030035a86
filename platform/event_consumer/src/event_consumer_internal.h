/* event_consumer_internal.h - what the files of event_consumer share. */
#ifndef EVENT_CONSUMER_INTERNAL_H
#define EVENT_CONSUMER_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include <waybill/event_consumer.h>
#include <waybill/inbox.h>

/* ---- positions ------------------------------------------------------------------------------- */

/* Which incarnations of a stream the bus has told us of. */
struct consumer_stream {
    char name[EVENT_BUS_NAME_MAX + 1];
    int64_t created_wall_ns;
    int64_t earlier_wall_ns; /* of the incarnation before; equal to created_wall_ns if none */
};

/*
 * Answers the bus, on whatever thread it asks, where to go on in a stream. Has a connection of its
 * own, since the consumer's belongs to the consumer's thread.
 */
struct consumer_positions {
    pthread_mutex_t mutex;
    struct db *db; /* guarded by mutex, as all below */
    struct inbox *inbox;
    struct consumer_stream *streams;
    size_t count;
    size_t capacity;
};

wb_err event_consumer_positions_open(struct consumer_positions *positions, const char *path,
                                     const char *consumer, struct wb_why *why);
void event_consumer_positions_close(struct consumer_positions *positions);

/** Where to go on; remembers the incarnation. */
uint64_t event_consumer_positions_ask(struct consumer_positions *positions, const char *stream,
                                      int64_t created_wall_ns);

/** The incarnation a delivered message belongs to; 0 when the bus told none. */
int64_t event_consumer_positions_created(struct consumer_positions *positions,
                                         const struct event_bus_delivery *delivery);

/* ---- the consumer ---------------------------------------------------------------------------- */

struct event_consumer {
    /* constant after start */
    struct event_consumer_options options; /* strings and patterns are copies */
    char *patterns_text;
    struct observe_series *handled_series, *duplicates_series, *failed_series, *parked_series;
    int wake; /* eventfd: readable once stop was asked for */
    pthread_t thread;

    atomic_bool stopping;

    /* owned by the consumer's thread; in manual mode by the caller's */
    struct db *db;
    struct inbox *inbox;
    void *scope;
    bool scope_open;
    struct event_bus_subscription *subscription; /* NULL: to be made still */
    struct event_bus_delivery *current;          /* the event at hand; NULL: none */
    unsigned attempts;                           /* of the event, or of the subscription */
    int64_t retry_mono_ns;                       /* not before then */
    struct wb_rng rng;
    bool ended; /* the bus is closed */

    struct consumer_positions positions;

    pthread_mutex_t mutex;
    pthread_cond_t started;
    bool start_done; /* guarded by mutex, as all below */
    wb_err start_err;
    struct wb_why start_why;
    struct event_consumer_health health;
};

typedef enum consumer_outcome {
    CONSUMER_DONE, /* handled, known before, or parked: on to the next */
    CONSUMER_AGAIN /* to be tried again after the backoff */
} consumer_outcome;

/** Try the event at hand once, with all that follows from its failure. */
consumer_outcome event_consumer_apply(struct event_consumer *consumer);

/** Note what is wrong, for health; NULL: nothing. */
void event_consumer_problem(struct event_consumer *consumer, const char *text);

/** Add one to a count of health and to its metric. */
void event_consumer_count(struct event_consumer *consumer, uint64_t *count,
                          struct observe_series *series);

#endif /* EVENT_CONSUMER_INTERNAL_H */
