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
    struct event_bus *bus; /* constant */
    struct db *db;         /* guarded by mutex, as all below */
    struct inbox *inbox;
    uint64_t went_back; /* how often a stream had lost what was read of it */
    struct consumer_stream *streams;
    size_t count;
    size_t capacity;
};

wb_err event_consumer_positions_open(struct consumer_positions *positions, struct event_bus *bus,
                                     const char *path, const char *consumer, struct wb_why *why);
void event_consumer_positions_close(struct consumer_positions *positions);

/**
 * Where to go on; remembers the incarnation. Asks the bus whether the stream still holds what was
 * read of it; EVENT_BUS_POSITION_LATER when it does not answer.
 */
uint64_t event_consumer_positions_ask(struct consumer_positions *positions, const char *stream,
                                      int64_t created_wall_ns);

/** The incarnation a delivered message belongs to; 0 when the bus told none. */
int64_t event_consumer_positions_created(struct consumer_positions *positions,
                                         const struct event_bus_delivery *delivery);

/* ---- dead letters ---------------------------------------------------------------------------- */

/* When to look for dead letters that are to be handled again. */
struct consumer_letters {
    bool pending;          /* there may be one now */
    int64_t next_mono_ns;  /* no look before */
    int64_t retry_mono_ns; /* pending: not before, after trouble */
    unsigned attempts;     /* in trouble */
    int64_t version;       /* of the database, at the last look */
    int64_t due_wall_ns;   /* when the next falls due; 0: none */
};

/* ---- the consumer ---------------------------------------------------------------------------- */

enum { CONSUMER_GROUP_MAX = 256 };

/* A stream, and the starts since something of it was committed. */
struct consumer_caution {
    char stream[EVENT_BUS_NAME_MAX + 1];
    uint32_t starts;
};

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
    struct event_bus_subscription *subscription;          /* NULL: to be made still */
    struct event_bus_delivery *queue[CONSUMER_GROUP_MAX]; /* fetched, still to be dealt with */
    size_t queued;
    size_t group;                      /* so many events in one transaction, now */
    bool handling;                     /* the handler runs */
    bool start_counted;                /* nothing was committed yet */
    uint32_t starts;                   /* so many without any commit, this one included */
    struct consumer_caution *cautions; /* of the streams that have a position */
    size_t caution_count;
    bool cautious;    /* some starts were in vain: look at each stream */
    bool suspected;   /* the event at hand is noted */
    uint32_t crashes; /* times that the accused event has ended a process */
    struct consumer_letters letters;
    unsigned attempts;     /* of the first event, or of the subscription */
    int64_t retry_mono_ns; /* not before then */
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
    CONSUMER_DONE, /* on to what is first in the queue now */
    CONSUMER_AGAIN /* the first is to be tried again after the backoff */
} consumer_outcome;

/** Try what is queued, once, with all that follows from a failure. */
consumer_outcome event_consumer_apply(struct event_consumer *consumer);

/** Refuse a COMMIT inside the handler. */
void event_consumer_guard(struct event_consumer *consumer);

/** Run the handler inside the open transaction; its error, or WB_MISUSE if it ended that. */
wb_err event_consumer_handle(struct event_consumer *consumer,
                             const struct event_bus_delivery *delivery, struct wb_why *why);

/** Commit, with what the inbox notes about the life of the process. */
wb_err event_consumer_commit(struct event_consumer *consumer, struct wb_why *why);

/** Where a delivery came from. */
struct inbox_origin event_consumer_origin(struct event_consumer *consumer,
                                          const struct event_bus_delivery *delivery);

/** Nobody's fault: it passes, or somebody must mend the database. */
bool event_consumer_is_trouble(wb_err err);

/** Note what is about to be handled, a dead letter or (0) the first event, and that it is over. */
wb_err event_consumer_suspect(struct event_consumer *consumer, int64_t letter, struct wb_why *why);
void event_consumer_unsuspect(struct event_consumer *consumer);

/** Count this start, and how many were in vain for each stream. */
wb_err event_consumer_start_count(struct event_consumer *consumer, struct wb_why *why);
/** A clean end. */
void event_consumer_start_end(struct event_consumer *consumer);

/** Starts in vain of a stream, this one included; 0: something of it was committed. */
uint32_t event_consumer_starts_of(const struct event_consumer *consumer, struct wb_str stream);
/** Something of the stream was committed. */
void event_consumer_starts_clear(struct event_consumer *consumer, struct wb_str stream);
/** Events in one transaction at most, after so many starts in vain: halved by each. */
size_t event_consumer_group_after(const struct event_consumer *consumer, uint32_t starts);

/** Has this event of the queue ended processes? */
bool event_consumer_is_accused(struct event_consumer *consumer, size_t at);

/** Has the accused ended enough processes? */
bool event_consumer_condemned(const struct event_consumer *consumer, struct wb_why *ret_reason);

/** Handle one dead letter again; false: none waits. */
bool event_consumer_letters_step(struct event_consumer *consumer);

/** How long until the next look for some. */
int64_t event_consumer_letters_wait_ns(const struct event_consumer *consumer);

/** The monotonic time before which nothing is tried again. */
int64_t event_consumer_backoff(struct event_consumer *consumer, unsigned attempts);

/** The first events of the queue are dealt with. */
void event_consumer_release(struct event_consumer *consumer, size_t count);

/** Note what is wrong, for health; NULL: nothing. */
void event_consumer_problem(struct event_consumer *consumer, const char *text);

/** As that, and log it, with the place of the first event. */
void event_consumer_tell(struct event_consumer *consumer, wb_log_level level, const char *text);

/** Add to a count of health and to its metric. */
void event_consumer_count(struct event_consumer *consumer, uint64_t *count, uint64_t more,
                          struct observe_series *series);

#endif /* EVENT_CONSUMER_INTERNAL_H */
