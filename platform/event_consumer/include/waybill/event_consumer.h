/*
 * waybill/event_consumer.h - hands each event to a handler once, inside a transaction.
 *
 * It reads the streams as an ordered log from its own position. For the events that wait, one
 * after another in one transaction: claim it in the inbox; run the handler, which writes its rows
 * and its own outbox events; then advance the position; COMMIT. A process that dies at any point
 * goes on exactly where the last commit was. Before it reads on, also after each loss of the
 * connection, it makes sure that the stream still is the one it has read; one that lost its end is
 * read again from where it last agreed, and what comes twice is known.
 *
 * A handler that fails is rolled back to where its event began, counted in the database, and tried
 * again with backoff; younger events wait, so order holds. After max_failures the event becomes a
 * dead letter, and the policy says what becomes of younger ones. A process that dies does not count
 * as a failure, nor does what the database cannot do now: WB_BUSY, WB_DISK_FULL, WB_FULL, WB_IO,
 * WB_NOMEM, WB_READ_ONLY, WB_UNKNOWN, also from the handler, are tried again until they pass, and
 * health tells them.
 *
 * An event that kills the process is found too: with each start after which nothing of a stream
 * was committed the groups of its events get smaller; from the seventh on, an event that is alone
 * is noted before it is handled; one that was noted at five ends, one after another, becomes a dead
 * letter. A clean end forgets those starts.
 *
 * Dead letters that are put into state 'retry' in the database, by whatever process, are handled
 * again within a second or so, the oldest first; they go, or are parked again with the new reason.
 *
 * Threads   One, with a database connection of its own. In manual mode none.
 */
#ifndef WAYBILL_EVENT_CONSUMER_H
#define WAYBILL_EVENT_CONSUMER_H

#include <waybill/base.h>
#include <waybill/db.h>
#include <waybill/event_bus.h>
#include <waybill/observe.h>

#ifdef __cplusplus
extern "C" {
#endif

struct event_consumer;

/* What a handler works with: alive during the call; a transaction is open on db. */
struct event_consumer_event {
    const struct event_bus_delivery *delivery;
    struct db *db;
    void *scope; /* what options->open made for this connection */
};

/* What becomes of the younger events of a key when one has become a dead letter. */
typedef enum event_consumer_policy {
    EVENT_CONSUMER_PARK,     /* they are handled */
    EVENT_CONSUMER_BLOCK_KEY /* they become dead letters behind it: handle them again in order */
} event_consumer_policy;

/**
 * Apply one event. Must not set a commit hook on the connection, commit, roll back, or wait for
 * the network.
 * @return WB_OK to commit. Anything else rolls back and is counted; why is kept as the reason.
 */
typedef wb_err (*event_consumer_handler)(void *ctx, const struct event_consumer_event *event,
                                         struct wb_why *why);

struct event_consumer_options {
    const char *name;      /* [A-Za-z0-9_-]{1,64}; identity in the inbox: keep it for ever */
    const char *path;      /* the database */
    struct event_bus *bus; /* borrowed until stop */
    const char *const *patterns;
    size_t pattern_count;
    event_consumer_handler handler;
    /* On the consumer's thread: once for its connection, and before it is closed. May be NULL. */
    wb_err (*open)(void *ctx, struct db *db, void **ret_scope, struct wb_why *why);
    void (*close)(void *ctx, void *scope);
    void (*committed)(void *ctx, void *scope); /* after each COMMIT; to wake a publisher */
    event_consumer_policy policy;
    uint32_t group; /* events in one transaction at most; 0: 64; up to 256. 5 ms end it, too */
    void *ctx;
    db_sync sync;
    uint32_t max_failures;        /* 0: 10 */
    uint64_t max_letters;         /* dead letters in the file; 0: see inbox.h. At a limit the */
    uint64_t max_letter_bytes;    /* consumer waits until there is room: nothing is dropped */
    int64_t backoff_min_ns;       /* 0: 50 ms; doubles with full jitter */
    int64_t backoff_max_ns;       /* 0: 10 s */
    const struct wb_clock *clock; /* NULL: the system's */
    bool manual;
    struct observe *observe; /* NULL: none */
};

/** Waits for no stream: streams that appear later are picked up. */
wb_err event_consumer_start(const struct event_consumer_options *options,
                            struct event_consumer **ret_consumer, struct wb_why *why);

/** Finish the event at hand, then end. NULL does nothing. Not from the handler. */
void event_consumer_stop(struct event_consumer *consumer);

/**
 * Manual mode: handle the events that wait, up to a group, and one dead letter that is to be
 * handled again; false when none waits or a backoff is running.
 */
bool event_consumer_step(struct event_consumer *consumer);

struct event_consumer_health {
    uint64_t handled, duplicates, failed, parked; /* since start */
    uint64_t went_back; /* times that a stream had lost what was read of it */
    char problem[512];  /* the failure that is being retried; "" */
};

void event_consumer_health(struct event_consumer *consumer,
                           struct event_consumer_health *ret_health);

#ifdef __cplusplus
}
#endif
#endif /* WAYBILL_EVENT_CONSUMER_H */
