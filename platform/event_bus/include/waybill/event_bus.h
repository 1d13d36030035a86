/*
 * waybill/event_bus.h - publish, subscribe and settle, whatever carries the events.
 *
 * A handle comes from an implementation's *_create() (event_bus_factory picks one by configuration)
 * and ends with event_bus_destroy(). Streams store the messages of their subjects in order; a
 * subscription is a set of consumers, one for each stream its patterns reach, merged.
 *
 * What all buses must do alike - validation, limits, dispatch to handlers, counting of failures,
 * metrics - is done here, once, for all of them.
 *
 * Threads   Any thread may call anything, handlers and completions included, unless a line says
 *           otherwise. The bus starts `workers` dispatcher threads; implementations say in their
 *           headers which threads they start. In manual mode (event_bus_memory.h) there are none.
 * Errors    wb_err, with struct wb_why saying what, where, what was expected and what to do next.
 */
#ifndef WAYBILL_EVENT_BUS_H
#define WAYBILL_EVENT_BUS_H

#include <waybill/base.h>
#include <waybill/message.h>

#ifdef __cplusplus
extern "C" {
#endif

struct event_bus;
struct event_bus_subscription;

#define EVENT_BUS_NAME_MAX 64 /* bytes in the name of a stream, durable or queue group */

/* ---- the bus --------------------------------------------------------------------------------- */

/* How much an acknowledged publish survives. */
typedef enum event_bus_durability {
    EVENT_BUS_DURABLE_NONE,    /* the bus forgets when its process ends */
    EVENT_BUS_DURABLE_PROCESS, /* survives a kill of the server, not a power cut */
    EVENT_BUS_DURABLE_POWER,   /* synced before it was acknowledged */
    EVENT_BUS_DURABLE_UNKNOWN
} event_bus_durability;

struct event_bus_health {
    bool connected;
    int64_t since_mono_ns; /* when `connected` last changed */
    uint64_t connections;  /* times connected so far */
    event_bus_durability durability;
    size_t max_payload; /* bytes, headers and payload together */
    char server[128];   /* "nats-server 2.9.10 at 127.0.0.1:4222", "memory" */
    char problem[256];  /* why not connected, or the last asynchronous error; "" */
};

/** The state of the bus as last known, true within 4 s; asks no server. */
void event_bus_health(struct event_bus *bus, struct event_bus_health *ret_health);

/** "memory", "nats". Static. */
const char *event_bus_kind(const struct event_bus *bus);

/**
 * Called on a thread of the bus, without its locks, when `connected` has changed. Must be short.
 */
typedef void (*event_bus_listener)(void *ctx, bool connected);

/** At most 64 listeners. WB_FULL. */
wb_err event_bus_listen(struct event_bus *bus, event_bus_listener listener, void *ctx);

/** After it returns the listener does not run any more. */
void event_bus_unlisten(struct event_bus *bus, event_bus_listener listener, void *ctx);

/**
 * End all work: no handler, completion or listener runs after it returns. What is in flight
 * completes with WB_UNKNOWN or WB_CLOSED; later calls answer WB_CLOSED. Not from a handler.
 */
void event_bus_close(struct event_bus *bus);

/**
 * Close, then free. Subscriptions must have been unsubscribed or are freed with it. NULL is fine.
 */
void event_bus_destroy(struct event_bus *bus);

/* ---- streams --------------------------------------------------------------------------------- */

struct event_bus_stream_options {
    const char *name;            /* [A-Za-z0-9_-]{1,64} */
    const char *const *subjects; /* patterns */
    size_t subject_count;
    int64_t max_age_ns;          /* 0: 7 days */
    int64_t duplicate_window_ns; /* 0: 10 min, clipped to max_age; at least 100 ms */
    uint64_t max_bytes;          /* 0: 1 GiB */
    uint64_t max_messages;       /* 0: no limit of its own */
    uint32_t max_message_size;   /* 0: the server's */
    bool discard_old;            /* full: drop the oldest; default: refuse new (WB_FULL) */
    uint32_t replicas;           /* 0: 1 */
};

typedef enum event_bus_provision {
    EVENT_BUS_VERIFY, /* change nothing: WB_NO_STREAM when absent, WB_CONFLICT on drift */
    EVENT_BUS_CREATE, /* create when absent; drift is WB_CONFLICT with a diff in why */
    EVENT_BUS_APPLY   /* create when absent, update what may be updated; keeps foreign settings */
} event_bus_provision;

/** Declare a stream. Idempotent. WB_CONFLICT also when its subjects overlap another stream's. */
wb_err event_bus_declare_stream(struct event_bus *bus,
                                const struct event_bus_stream_options *options,
                                event_bus_provision mode, struct wb_why *why);

struct event_bus_stream_info {
    char name[EVENT_BUS_NAME_MAX + 1];
    int64_t created_wall_ns; /* changes when a stream is made anew under the same name */
    uint64_t first_seq;      /* 0 or last_seq + 1 when empty, as the server has it */
    uint64_t last_seq;
    uint64_t messages;
    uint64_t bytes;
    int64_t duplicate_window_ns; /* how long a message id is remembered */
    char subjects[1024];         /* patterns, separated by blanks */
};

/** WB_NO_STREAM when there is none of that name. */
wb_err event_bus_stream_info(struct event_bus *bus, const char *stream,
                             struct event_bus_stream_info *ret_info, struct wb_why *why);

/** Name of the stream that covers a subject. WB_NO_STREAM. */
wb_err event_bus_stream_for(struct event_bus *bus, struct wb_str subject,
                            char ret_stream[EVENT_BUS_NAME_MAX + 1], struct wb_why *why);

/** Remove a stream with its messages and consumers. WB_NO_STREAM. */
wb_err event_bus_delete_stream(struct event_bus *bus, const char *stream, struct wb_why *why);

/* ---- publish --------------------------------------------------------------------------------- */

struct event_bus_publish_options {
    int64_t timeout_ns;   /* 0: 5 s */
    bool expect_last_seq; /* store only if the stream's last sequence is last_seq */
    uint64_t last_seq;    /* 0: the stream must never have held a message */
    /*
     * And only if its newest message has this msg_id: with expect_last_seq a message then stands
     * right behind the one its sender had sent before it, or nowhere. "": any. A server may have
     * forgotten the newest id after a restart; that is WB_CONFLICT, too.
     */
    char last_msg_id[MESSAGE_ID_MAX + 1];
};

struct event_bus_ack_info {
    char stream[EVENT_BUS_NAME_MAX + 1];
    uint64_t sequence; /* where it is stored; with WB_CONFLICT the actual last one, 0 if untold */
    bool duplicate;    /* the msg_id was known within the duplicate window: nothing was stored */
};

/**
 * Publish and wait for the acknowledgement. options and ret_ack may be NULL.
 *
 * A message with a msg_id is tried again, under the same id, until the deadline where the error is
 * of class WB_RETRY; without one, or with expect_last_seq, it is sent once.
 *
 * @return WB_INVALID, WB_TOO_BIG, WB_NO_STREAM, WB_NO_JETSTREAM, WB_CONFLICT, WB_FULL (window of
 *         unanswered messages or stream full until the deadline), WB_TIMEOUT and WB_UNKNOWN (it may
 *         be stored), WB_UNREACHABLE (it was not sent), WB_DENIED, WB_CLOSED.
 */
wb_err event_bus_publish(struct event_bus *bus, const struct message *msg,
                         const struct event_bus_publish_options *options,
                         struct event_bus_ack_info *ret_ack, struct wb_why *why);

/**
 * The one completion of an asynchronous publish, on a thread of the bus, without its locks, in
 * publish order for each stream. ack is valid for WB_OK, and for WB_CONFLICT with the actual last
 * sequence; otherwise zeroed. May publish; must not block.
 */
typedef void (*event_bus_published)(void *ctx, wb_err err, const struct event_bus_ack_info *ack,
                                    const struct wb_why *why);

/**
 * Pipelined publish: returns when the message is on its way; the bus has copied it. done is called
 * exactly once if and only if this returns WB_OK. When the window of unanswered messages is full it
 * waits until the deadline and says WB_FULL. Nothing is retried.
 */
wb_err event_bus_publish_async(struct event_bus *bus, const struct message *msg,
                               const struct event_bus_publish_options *options,
                               event_bus_published done, void *ctx, struct wb_why *why);

/* ---- read back ------------------------------------------------------------------------------- */

/* A delivered or read message. Everything it points to lives as long as it does. */
struct event_bus_delivery {
    struct message message;
    struct wb_str stream;
    uint64_t sequence;
    uint32_t deliveries;    /* 1 at first; 0 for messages read by event_bus_get() */
    int64_t stored_wall_ns; /* when the stream took it */
};

/**
 * Read one stored message. WB_NOT_FOUND (never stored, deleted, or gone by limits), WB_NO_STREAM.
 * Release it with event_bus_release().
 */
wb_err event_bus_get(struct event_bus *bus, const char *stream, uint64_t sequence,
                     struct event_bus_delivery **ret_delivery, struct wb_why *why);

/** Return false to stop. The delivery is a view, valid during the call; its payload is empty. */
typedef bool (*event_bus_scan_visit)(void *ctx, const struct event_bus_delivery *delivery);

/**
 * Read what a stream holds from one sequence to another, both included, in order and without
 * payloads: to compare, not to handle. Ends at the last message the stream had when it was called.
 * What is absent is passed over. Visits on the calling thread, without locks.
 *
 * @param ret_next  where to go on: behind the last message visited when the visitor stopped it,
 *                  else behind the range, or behind the stream's last message if that comes first.
 *                  Also set on failure, so that a caller goes on and need not begin anew.
 * @return WB_OK also when stopped, or when nothing lies in the range; WB_NO_STREAM, WB_TIMEOUT,
 *         WB_UNREACHABLE, WB_DENIED, WB_NOMEM, WB_CLOSED.
 */
wb_err event_bus_scan(struct event_bus *bus, const char *stream, uint64_t from, uint64_t to,
                      event_bus_scan_visit visit, void *ctx, uint64_t *ret_next,
                      struct wb_why *why);

/* ---- subscribe ------------------------------------------------------------------------------- */

typedef enum event_bus_start {
    EVENT_BUS_START_NEW, /* what is stored after the subscription was made */
    EVENT_BUS_START_ALL,
    EVENT_BUS_START_SEQUENCE,         /* from start_sequence, in each stream */
    EVENT_BUS_START_TIME,             /* stored at or after start_wall_ns */
    EVENT_BUS_START_LAST_PER_SUBJECT, /* the newest of each subject, then what follows */
    EVENT_BUS_START_POSITION          /* behind what position() says, asked for each stream */
} event_bus_start;

#define EVENT_BUS_POSITION_LATER UINT64_MAX

/**
 * Called for each message. The delivery is a view, valid until the handler returns; to keep it take
 * event_bus_retain(). Settle it with event_bus_ack() and its like, here or later from any thread;
 * what is not settled comes again after ack_wait. May publish, settle, and unsubscribe itself.
 */
typedef void (*event_bus_handler)(void *ctx, struct event_bus_delivery *delivery);

struct event_bus_subscription_options {
    const char *const *patterns; /* a message that several match arrives once */
    size_t pattern_count;        /* 1 to 64 */
    const char *durable;         /* NULL: ephemeral, gone with the subscription */
    const char *queue_group;     /* members share a durable; needs durable */
    event_bus_start start;       /* a durable that exists goes on where it was instead */
    uint64_t start_sequence;
    int64_t start_wall_ns;
    /*
     * Read as an ordered log: no acks and no redelivery; every message once, in stream order, also
     * over reconnects and lost consumers. A slow reader lags in the stream. Not with durable.
     */
    bool ack_none;
    /*
     * EVENT_BUS_START_POSITION: the last sequence handled of a stream, 0 for none. stream_created
     * tells a stream made anew from the one the position belongs to. Called before its messages,
     * and again when the stream has lost, or may have lost, what was received from it. May read
     * from the bus. EVENT_BUS_POSITION_LATER when it cannot tell now: then it is asked again.
     */
    uint64_t (*position)(void *ctx, const char *stream, int64_t stream_created_wall_ns);
    int64_t ack_wait_ns;       /* 0: 30 s; at least 10 ms */
    uint32_t max_deliver;      /* failures of the handler until given up; 0: never */
    const int64_t *backoff_ns; /* delay after the n-th nak without a delay of its own; the last */
    size_t backoff_count;      /* one repeats; 0 to 16 */
    uint32_t max_ack_pending;  /* per stream; 0: 1000; at most 65536 */
    bool wait_for_stream;      /* fine if no stream matches yet; otherwise WB_NO_STREAM */
    event_bus_handler handler; /* NULL: the owner polls */
    void (*given_up)(void *ctx, struct event_bus_delivery *delivery); /* may be NULL */
    void *ctx;
};

/**
 * @return WB_INVALID, WB_NO_STREAM, WB_CONFLICT (the durable is bound already without a queue
 *         group, or exists with other patterns), WB_TIMEOUT, WB_UNREACHABLE, WB_DENIED, WB_CLOSED.
 */
wb_err event_bus_subscribe(struct event_bus *bus,
                           const struct event_bus_subscription_options *options,
                           struct event_bus_subscription **ret_subscription, struct wb_why *why);

/** Poll: the next message, waiting up to timeout_ns. WB_TIMEOUT, WB_CLOSED. Release it. */
wb_err event_bus_next(struct event_bus_subscription *subscription, int64_t timeout_ns,
                      struct event_bus_delivery **ret_delivery);

/** Poll many: waits for the first, then takes what is there. WB_TIMEOUT with *ret_count 0. */
wb_err event_bus_fetch(struct event_bus_subscription *subscription, size_t max, int64_t timeout_ns,
                       struct event_bus_delivery **ret_deliveries, size_t *ret_count);

/**
 * A descriptor that is readable while messages wait, for an event loop. Do not read or close it.
 */
int event_bus_fd(struct event_bus_subscription *subscription);

/** Keep a delivery beyond its handler; each retain needs a release. */
struct event_bus_delivery *event_bus_retain(struct event_bus_delivery *delivery);
void event_bus_release(struct event_bus_delivery *delivery);

/*
 * Settle. The first of ack, nak and term counts; later ones do nothing and say WB_MISUSE. WB_OK
 * says that the request was handed over, not that the server has it: only an inbox makes handling
 * exactly-once. After the subscription has ended they say WB_CLOSED.
 */
wb_err event_bus_ack(struct event_bus_delivery *delivery);
wb_err event_bus_nak(struct event_bus_delivery *delivery); /* again after backoff, or at once */
wb_err event_bus_nak_delay(struct event_bus_delivery *delivery, int64_t delay_ns);
wb_err event_bus_term(struct event_bus_delivery *delivery);        /* never again */
wb_err event_bus_in_progress(struct event_bus_delivery *delivery); /* ack_wait starts anew */

struct event_bus_subscription_info {
    size_t streams;     /* streams it reads from now */
    uint64_t delivered; /* handed out so far */
    uint64_t redelivered;
    uint64_t given_up;
    size_t queued;    /* received, not yet handed out */
    size_t unsettled; /* handed out, not yet settled */
};

/** The counts of this moment. From any thread, until the subscription is ended. */
void event_bus_subscription_info(struct event_bus_subscription *subscription,
                                 struct event_bus_subscription_info *ret_info);

/**
 * End a subscription and free it. After it returns no handler of it runs; called inside its own
 * handler it marks and returns, and no further handler starts. A durable keeps its position; what
 * was received but not settled is delivered again to the next holder.
 */
void event_bus_unsubscribe(struct event_bus_subscription *subscription);

/**
 * Take no more, handle and settle what was received, within the deadline; then unsubscribe. Not
 * from its own handler (WB_MISUSE). *ret_left (may be NULL) counts what was left unsettled.
 */
wb_err event_bus_drain(struct event_bus_subscription *subscription, int64_t timeout_ns,
                       size_t *ret_left);

/** Remove a durable from all streams. WB_NOT_FOUND, WB_CONFLICT while it is bound in this bus. */
wb_err event_bus_delete_durable(struct event_bus *bus, const char *durable, struct wb_why *why);

#ifdef __cplusplus
}
#endif
#endif /* WAYBILL_EVENT_BUS_H */
