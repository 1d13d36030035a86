/*
 * memory.h - what the files of the in-memory bus share.
 *
 * Streams hold messages; a group is what one durable or one ephemeral subscription reads with: a
 * consumer for each stream its patterns reach, and the members (sources) that share what it
 * delivers. Everything is guarded by memory_bus.mutex unless a line says otherwise. Offers are made
 * under it, because event_bus_offer() calls nobody back; completions, listeners and position
 * functions never are.
 */
#ifndef EVENT_BUS_MEMORY_PRIVATE_H
#define EVENT_BUS_MEMORY_PRIVATE_H

#include <waybill/event_bus_impl.h>
#include <waybill/event_bus_memory.h>
#include <waybill/subject.h>

/* ---- a heap of things that fall due, memory_heap.c ------------------------------------------- */

struct memory_due {
    int64_t at_ns;
    uint64_t tie; /* order of those due at the same time */
    size_t place; /* in the heap, from 1; 0: not in it */
};

struct memory_heap {
    struct memory_due **items; /* from 1 */
    size_t count;
    size_t capacity;
};

/** Room for count items. false: out of memory. */
bool event_bus_memory_heap_reserve(struct memory_heap *heap, size_t count);
/** Put in, or move. There must be room. */
void event_bus_memory_heap_set(struct memory_heap *heap, struct memory_due *due, int64_t at_ns);
/** Take out; nothing happens when it is not in. */
void event_bus_memory_heap_remove(struct memory_heap *heap, struct memory_due *due);
/** What is due first; NULL when empty. */
struct memory_due *event_bus_memory_heap_first(const struct memory_heap *heap);
void event_bus_memory_heap_free(struct memory_heap *heap);

/* ---- stored messages, memory_log.c ----------------------------------------------------------- */

/* One block: the message, this, and the name of its stream. Shared by the stream and all its
 * deliveries, so it may outlive both stream and bus. */
struct memory_message {
    struct message *message; /* the block; constant, as all but the count */
    struct wb_str stream;
    uint64_t sequence;
    int64_t stored_wall_ns;
    int64_t stored_mono_ns;
    size_t size;  /* what it counts for in max_bytes; guarded by the bus's mutex, as the next */
    bool deleted; /* by itself: its place in the log stays, with nothing to be had there */
    atomic_uint references;
};

struct memory_message *event_bus_memory_message_new(const struct message *msg, const char *stream);
void event_bus_memory_message_unref(struct memory_message *stored);

/* Sequences without gaps, in chunks: storing one never moves the others. */
struct memory_log {
    struct memory_message ***chunks; /* a ring of chunks */
    size_t chunk_capacity;           /* power of two */
    size_t chunk_count;
    size_t chunk_first;
    size_t offset;      /* of the first message in the first chunk */
    uint64_t first_seq; /* last_seq + 1 when empty */
    uint64_t last_seq;
};

/** Takes the reference over; its sequence must be last_seq + 1. false: out of memory. */
bool event_bus_memory_log_push(struct memory_log *log, struct memory_message *stored);
/** NULL when it is not in the log. It may be deleted. */
struct memory_message *event_bus_memory_log_at(const struct memory_log *log, uint64_t sequence);
/** NULL when it is not stored, or deleted. */
struct memory_message *event_bus_memory_log_held(const struct memory_log *log, uint64_t sequence);
/** Remove the oldest, or the newest; the caller gets the reference. NULL when empty. */
struct memory_message *event_bus_memory_log_shift(struct memory_log *log);
struct memory_message *event_bus_memory_log_pop(struct memory_log *log);
void event_bus_memory_log_free(struct memory_log *log);

/* ---- known ids, memory_ids.c ----------------------------------------------------------------- */

struct memory_id {
    struct memory_id *next; /* in the bucket, or the free list */
    struct memory_id *newer;
    uint64_t sequence;
    int64_t until_ns;
    uint64_t hash;
    uint8_t len;
    char text[MESSAGE_ID_MAX];
};

struct memory_ids {
    struct memory_id **buckets;
    size_t bucket_count; /* power of two */
    size_t count;
    struct memory_id *oldest;
    struct memory_id *newest;
    struct memory_id *spare;
};

/** Sequence under which the id is known, 0 if it is not. */
uint64_t event_bus_memory_ids_find(struct memory_ids *ids, struct wb_str id, int64_t now_ns);
/** Forget what has expired, and make room for one more. false: out of memory. */
bool event_bus_memory_ids_reserve(struct memory_ids *ids, int64_t now_ns);
/** Remember; room must have been reserved. */
void event_bus_memory_ids_add(struct memory_ids *ids, struct wb_str id, uint64_t sequence,
                              int64_t until_ns);
/** Forget the ids of sequences outside the given range. */
void event_bus_memory_ids_keep(struct memory_ids *ids, uint64_t first_seq, uint64_t last_seq);
void event_bus_memory_ids_free(struct memory_ids *ids);

/* ---- unsettled messages of a consumer, memory_pending.c -------------------------------------- */

struct memory_pending_entry {
    struct memory_due due;             /* first; in the heap while it waits */
    struct memory_pending_entry *next; /* in the bucket, or the free list */
    struct memory_pending_entry *ready_next;
    struct memory_pending_entry *ready_prev;
    const struct memory_source *holder; /* who was given it last */
    uint64_t sequence;
    uint32_t deliveries;
    bool ready;
};

struct memory_pending {
    struct memory_pending_entry **buckets;
    size_t bucket_count; /* power of two */
    size_t count;
    struct memory_heap waiting;              /* for ack_wait or the delay of a nak */
    struct memory_pending_entry *ready_head; /* to be delivered again, in this order */
    struct memory_pending_entry *ready_tail;
    struct memory_pending_entry *spare;
};

/** Room for one more. false: out of memory. */
bool event_bus_memory_pending_reserve(struct memory_pending *pending);
struct memory_pending_entry *event_bus_memory_pending_find(const struct memory_pending *pending,
                                                           uint64_t sequence);
/** A new entry, neither waiting nor ready. Room must have been reserved. */
struct memory_pending_entry *event_bus_memory_pending_add(struct memory_pending *pending,
                                                          uint64_t sequence);
void event_bus_memory_pending_remove(struct memory_pending *pending,
                                     struct memory_pending_entry *entry);
/** Wait until at_ns; takes it out of the ready ones. */
void event_bus_memory_pending_wait(struct memory_pending *pending,
                                   struct memory_pending_entry *entry, int64_t at_ns);
/** Append to the ready ones; takes it out of the waiting ones. */
void event_bus_memory_pending_ready(struct memory_pending *pending,
                                    struct memory_pending_entry *entry);
/** Make all that is due ready, in the order of their sequences. */
void event_bus_memory_pending_expire(struct memory_pending *pending, int64_t now_ns);
/** Make all that the holder was given ready, in the order of their sequences. */
void event_bus_memory_pending_hand_back(struct memory_pending *pending,
                                        const struct memory_source *holder);
/** Forget all above last_seq. */
void event_bus_memory_pending_truncate(struct memory_pending *pending, uint64_t last_seq);
void event_bus_memory_pending_free(struct memory_pending *pending);

/* ---- streams, consumers, groups -------------------------------------------------------------- */

/* What the bus's timer finds in its heap. */
enum memory_timer_kind { MEMORY_TIMER_STREAM, MEMORY_TIMER_CONSUMER };

struct memory_timer {
    struct memory_due due; /* first */
    enum memory_timer_kind kind;
};

struct memory_stream {
    struct memory_timer timer; /* first; the oldest message's max_age */
    struct memory_stream *next;
    char name[EVENT_BUS_NAME_MAX + 1];
    struct event_bus_stream_options options; /* owns subjects */
    uint64_t id;                             /* never used twice */
    int64_t created_wall_ns;
    struct memory_log log;
    uint64_t bytes;
    uint64_t deleted; /* places in the log without a message */
    struct memory_ids ids;
    struct subject_index *consumers; /* filter -> memory_consumer */
};

struct memory_consumer {
    struct memory_timer timer;  /* first; the earliest of pending.waiting */
    struct memory_group *group; /* constant, as the stream */
    struct memory_stream *stream;
    struct memory_consumer *next; /* in the group */
    struct memory_consumer *run_next;
    uint64_t id;       /* for a repeatable order */
    uint64_t next_seq; /* next to be delivered for the first time */
    uint64_t *heads;   /* before that: the newest of each subject */
    size_t head_count;
    size_t head_at;
    struct memory_pending pending;
    bool positioned; /* next_seq is known */
    bool asking;     /* its position function is running */
    bool deferred;   /* it could not tell; it is asked again when the bus comes back */
    bool caught_up;  /* nothing that matches is left before the next message to be stored */
    bool runnable;   /* in memory_bus.run_first's list */
};

struct memory_group {
    struct memory_group *next;
    char *durable; /* NULL: ephemeral */
    char *queue_group;
    char **patterns;
    size_t pattern_count;
    event_bus_start start;
    uint64_t start_sequence;
    int64_t start_wall_ns;
    int64_t ack_wait_ns;
    uint32_t max_ack_pending;
    bool ack_none;
    struct memory_source *members; /* in the order of their turns */
    struct memory_consumer *consumers;
    size_t positioning; /* threads in a position function */
};

/* A subscription of the dispatcher, member of a group. */
struct memory_source {
    struct memory_source *next;
    struct memory_group *group;
    struct event_bus_subscription *subscription;
    bool stopped;
};

struct memory_delivery {
    struct event_bus_delivery_impl impl; /* first */
    struct memory_message *stored;
    uint64_t stream_id;
};

/* ---- the bus --------------------------------------------------------------------------------- */

struct memory_completion;

struct memory_bus {
    struct event_bus base;                 /* first */
    struct wb_clock_virtual virtual_clock; /* manual mode */
    size_t max_payload;                    /* constant */
    bool manual;                           /* constant */
    pthread_t timer;                       /* constant after create */
    bool has_timer;
    struct wb_rng rng; /* of the thread that runs manual mode */

    pthread_mutex_t mutex; /* guards the rest */
    pthread_cond_t wake;   /* the timer's */
    pthread_cond_t idle;   /* a position function has returned, or completions have run */
    struct memory_stream *streams;
    struct subject_index *stream_index; /* subject pattern -> memory_stream */
    struct memory_group *groups;
    struct memory_consumer *run_first; /* consumers that may have something to deliver */
    struct memory_consumer *run_last;
    struct memory_heap timers;
    size_t timer_room; /* streams and consumers, each may be in the heap */
    struct memory_completion *completion_first;
    struct memory_completion *completion_last;
    bool completing;
    struct memory_consumer **matches; /* those that the message now stored is for */
    size_t match_count;
    size_t match_capacity;
    uint64_t next_id;
    int64_t since_mono_ns; /* when `down` last changed */
    uint64_t connections;
    bool down;
    bool closed;
};

static inline struct memory_bus *memory_bus_of(struct event_bus *base)
{
    return (struct memory_bus *)base;
}

static inline int64_t memory_now(const struct memory_bus *bus)
{
    return wb_mono_ns(bus->base.settings.clock);
}

/** WB_CLOSED or WB_UNREACHABLE when the bus cannot be used now. Locked. */
wb_err event_bus_memory_usable(const struct memory_bus *bus, const char *what, struct wb_why *why);

/** Let the timer look at a stream or consumer at at_ns at the latest. Locked. */
void event_bus_memory_arm(struct memory_bus *bus, struct memory_timer *timer, int64_t at_ns);
/** Do all that is due now. Locked, but released in between. */
void event_bus_memory_tick(struct memory_bus *bus);

/* memory_stream.c */
wb_err event_bus_memory_declare(struct event_bus *base,
                                const struct event_bus_stream_options *options,
                                event_bus_provision mode, struct wb_why *why);
wb_err event_bus_memory_stream_info(struct event_bus *base, const char *name,
                                    struct event_bus_stream_info *ret_info, struct wb_why *why);
wb_err event_bus_memory_stream_for(struct event_bus *base, struct wb_str subject,
                                   char ret_stream[EVENT_BUS_NAME_MAX + 1], struct wb_why *why);
wb_err event_bus_memory_delete_stream(struct event_bus *base, const char *name, struct wb_why *why);
struct memory_stream *event_bus_memory_stream_named(struct memory_bus *bus, const char *name);
/** Take one message out. false: the stream does not hold it. */
bool event_bus_memory_stream_remove(struct memory_stream *stream, uint64_t sequence);
/** The stream that covers a subject, or NULL. */
struct memory_stream *event_bus_memory_stream_of(struct memory_bus *bus, struct wb_str subject);
void event_bus_memory_stream_free(struct memory_bus *bus, struct memory_stream *stream);
/** Remove what is older than max_age or beyond the limits, and arm the timer for the next. */
void event_bus_memory_stream_trim(struct memory_bus *bus, struct memory_stream *stream);
/** Forget all above last_seq, and ids of messages that are not stored. */
void event_bus_memory_stream_truncate(struct memory_bus *bus, struct memory_stream *stream,
                                      uint64_t last_seq);

/* memory_scan.c */
wb_err event_bus_memory_scan(struct event_bus *base, const char *stream, uint64_t from, uint64_t to,
                             event_bus_scan_visit visit, void *ctx, uint64_t *ret_next,
                             struct wb_why *why);

/* memory_publish.c */
wb_err event_bus_memory_publish(struct event_bus *base, const struct message *msg,
                                const struct event_bus_publish_options *options,
                                event_bus_published done, void *ctx, struct wb_why *why);

/* memory_deliver.c */
struct memory_delivery *event_bus_memory_delivery_new(struct memory_message *stored,
                                                      uint64_t stream_id, uint32_t deliveries);
/** The message just stored goes to those consumers that wait for it. */
void event_bus_memory_deliver_new(struct memory_bus *bus, struct memory_stream *stream,
                                  struct memory_message *stored);
/** Mark that the consumer may have something to deliver. */
void event_bus_memory_run_later(struct memory_bus *bus, struct memory_consumer *consumer);
/** Deliver all that can be, in slices: the mutex is released between them. */
void event_bus_memory_run(struct memory_bus *bus);
/** A consumer's timer has come. */
void event_bus_memory_consumer_due(struct memory_bus *bus, struct memory_consumer *consumer);

/* memory_start.c */
/** Set next_seq and heads as the group's start says; not yet positioned where it is to be asked. */
wb_err event_bus_memory_set_start(struct memory_consumer *consumer);

/* memory_consumer.c */
wb_err event_bus_memory_start(struct event_bus *base, struct event_bus_subscription *subscription,
                              void **ret_source, struct wb_why *why);
void event_bus_memory_stop(struct event_bus *base, void *source, bool keep_settling);
void event_bus_memory_resume(struct event_bus *base, void *source);
size_t event_bus_memory_source_streams(struct event_bus *base, void *source);
wb_err event_bus_memory_settle(struct event_bus *base, void *source,
                               struct event_bus_delivery_impl *delivery, event_bus_verdict verdict,
                               int64_t delay_ns);
wb_err event_bus_memory_delete_durable(struct event_bus *base, const char *durable,
                                       struct wb_why *why);
/** Give each group whose patterns reach the stream a consumer of it. WB_NOMEM. */
wb_err event_bus_memory_attach_stream(struct memory_bus *bus, struct memory_stream *stream);
void event_bus_memory_detach_stream(struct memory_bus *bus, struct memory_stream *stream);
void event_bus_memory_group_free(struct memory_bus *bus, struct memory_group *group);
/** Ask the position functions that are still to be asked. Locked, but released around each. */
void event_bus_memory_ask_positions(struct memory_bus *bus);

#endif /* EVENT_BUS_MEMORY_PRIVATE_H */
