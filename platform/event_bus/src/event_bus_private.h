/*
 * event_bus_private.h - what the files of the dispatcher share.
 *
 * Lock order: the implementation's own locks, then dispatcher.mutex, then subscription.mutex. No
 * operation of an implementation and no callback runs under ours.
 */
#ifndef EVENT_BUS_PRIVATE_H
#define EVENT_BUS_PRIVATE_H

#include <waybill/event_bus_impl.h>

#define EVENT_BUS_LISTENERS_MAX 64
#define EVENT_BUS_ERR_COUNT     (WB_INTERNAL + 1)

/* ---- what became of each message, event_bus_failures.c --------------------------------------- */

/* Unsettled messages of one subscription: where each is, and how often its handling failed. Keyed
 * by stream and sequence, because that is what an ack settles, whichever copy it is given on. */
enum event_bus_place {
    EVENT_BUS_QUEUED, /* a copy waits in the queue */
    EVENT_BUS_HANDED, /* handed out, not settled */
    EVENT_BUS_NAKED   /* to come again */
};

struct event_bus_failure {
    uint64_t stream; /* hash of the name; with sequence the key */
    uint64_t sequence;
    const struct event_bus_delivery_impl *copy; /* QUEUED: the one that counts */
    int64_t keep_until_ns; /* after this it has been settled elsewhere, or its stream is gone */
    uint32_t failures;
    uint8_t place;
    bool used;
};

/* Guarded by the subscription's mutex. Zeroed is empty. */
struct event_bus_failures {
    struct event_bus_failure *slots; /* open addressing, capacity is a power of two */
    size_t capacity;
    size_t count;
    size_t handed;    /* entries in place HANDED */
    int64_t swept_ns; /* when stale entries were last looked for at the bound */
};

/** The entry of a delivery, or NULL. Valid until the next add or remove. */
struct event_bus_failure *event_bus_failures_find(struct event_bus_failures *table,
                                                  const struct event_bus_delivery *delivery);
/** As find, but made when absent. NULL when the table is full or memory is out. */
struct event_bus_failure *event_bus_failures_add(struct event_bus_failures *table,
                                                 const struct event_bus_delivery *delivery,
                                                 int64_t now_ns);
void event_bus_failures_place(struct event_bus_failures *table, struct event_bus_failure *entry,
                              enum event_bus_place place);
void event_bus_failures_remove(struct event_bus_failures *table, struct event_bus_failure *entry);

/* ---- a subscription -------------------------------------------------------------------------- */

struct event_bus_subscription {
    struct event_bus *bus;                         /* constant; not used once ended */
    struct event_bus_subscription_options options; /* constant, with defaults; owns what it names */
    char *patterns_text;                           /* constant: owns the pattern strings */
    size_t queue_max;                              /* constant: offers beyond are refused */
    struct observe_series *delivered_series;       /* constant */
    struct observe_series *redelivered_series;     /* constant */
    struct observe_series *given_up_series;        /* constant */
    atomic_size_t references; /* the owner, the run queue, and every delivery that lives */

    struct event_bus_subscription *list_next; /* guarded by dispatcher.mutex */
    struct event_bus_subscription *list_prev;
    struct event_bus_subscription *run_next;

    pthread_mutex_t mutex;  /* guards all below */
    pthread_cond_t changed; /* for those who wait for the end or for idleness */
    pthread_cond_t arrived; /* for pollers */
    void *source;           /* the implementation's; constant once started */
    struct event_bus_delivery_impl *first;
    struct event_bus_delivery_impl *last;
    size_t queued;
    size_t queued_bytes;
    struct event_bus_failures failures;
    size_t inside; /* threads in a callback, a settle or a poll */
    size_t live;   /* handed out, unsettled, and somebody can still settle them */
    uint64_t delivered;
    uint64_t redelivered;
    uint64_t given_up;
    int fd;          /* eventfd of pollers, -1 until asked for */
    bool started;    /* source is set: handlers may run */
    bool scheduled;  /* in the run queue or having its turn */
    bool refused;    /* an offer was refused: resume is owed */
    bool ended;      /* no callback starts any more */
    bool finishing;  /* somebody carries out the end */
    bool finished;   /* the source is stopped for good */
    bool self_ended; /* unsubscribed by its own callback: the last to leave frees it */
};

/* ---- the dispatcher -------------------------------------------------------------------------- */

struct event_bus_listener_slot {
    event_bus_listener listener;
    void *ctx;
};

struct event_bus_dispatcher {
    atomic_bool closed;
    atomic_size_t max_payload; /* as health told it; 0: ask again */
    _Atomic(struct observe_series *) published[EVENT_BUS_ERR_COUNT + 1]; /* [last]: duplicate */
    struct observe_series *publish_seconds; /* constant after init, as the next ones */
    struct observe_series *in_flight;
    struct observe_series *settled[EVENT_BUS_IN_PROGRESS + 1];
    struct observe_series *late_acks;
    struct observe_series *connected;
    struct observe_series *reconnects;
    pthread_t *threads;
    size_t thread_count;

    pthread_mutex_t mutex; /* guards all below */
    pthread_cond_t work;   /* the run queue is not empty, or stopping */
    pthread_cond_t ending; /* closed; wakes those who wait between two attempts */
    struct event_bus_subscription *subscriptions; /* not yet unsubscribed */
    struct event_bus_subscription *run_first;     /* each has a reference */
    struct event_bus_subscription *run_last;
    size_t run_count;
    size_t idle; /* workers asleep */
    bool stopping;

    pthread_mutex_t listeners_mutex; /* guards all below */
    pthread_cond_t listeners_idle;
    struct event_bus_listener_slot listeners[EVENT_BUS_LISTENERS_MAX];
    size_t notifying; /* threads in event_bus_notify() */
    bool was_connected;
};

/* A callback of ours that the current thread is in; kept on its stack. */
struct event_bus_frame {
    const void *whose;
    struct event_bus_frame *outer;
};

void event_bus_frame_push(struct event_bus_frame *frame, const void *whose);
void event_bus_frame_pop(void);
/** Is the current thread in a callback of this subscription (or notification of this bus)? */
bool event_bus_frame_in(const void *whose);

/** Now plus the time-out; the end of time when that is beyond it. */
int64_t event_bus_deadline(const struct wb_clock *clock, int64_t timeout_ns);

/* ---- event_bus_dispatch.c -------------------------------------------------------------------- */

wb_err event_bus_workers_start(struct event_bus *bus);
void event_bus_workers_stop(struct event_bus *bus);
/** Queue a turn for a subscription that was marked scheduled. */
void event_bus_schedule(struct event_bus_subscription *subscription);
/** Hand out up to budget messages on this thread, then queue the next turn if there are more.
 * Takes over the reference of the run queue. */
void event_bus_turn(struct event_bus_subscription *subscription, size_t budget);
/** Hand out up to budget messages. The caller is inside, and nobody else hands out. */
void event_bus_hand_out(struct event_bus_subscription *subscription, size_t budget);
/** Take the oldest waiting delivery out of the queue. mutex is held. NULL when there is none. */
struct event_bus_delivery_impl *event_bus_queue_pop(struct event_bus_subscription *subscription);

/* ---- event_bus_subscription.c ---------------------------------------------------------------- */

/** Hold off the end of the subscription while in it. false: it has ended. */
bool event_bus_enter(struct event_bus_subscription *subscription);
void event_bus_leave(struct event_bus_subscription *subscription);
void event_bus_subscription_unref(struct event_bus_subscription *subscription);
/** Let no callback start, wait for those that run, stop the source. */
void event_bus_subscription_end(struct event_bus_subscription *subscription);
/** Take it off the bus's list and drop the owner's reference. */
void event_bus_subscription_detach(struct event_bus_subscription *subscription);

/* ---- event_bus_settle.c ---------------------------------------------------------------------- */

/** max_deliver is reached: tell the owner, then settle it for good. Inside, no locks held. */
void event_bus_give_up(struct event_bus_subscription *subscription,
                       struct event_bus_delivery_impl *delivery);

/* ---- event_bus_check.c ----------------------------------------------------------------------- */

/** Check and fill in defaults in *options. */
wb_err event_bus_check_stream(struct event_bus_stream_options *options, struct wb_why *why);
wb_err event_bus_check_subscription(struct event_bus_subscription_options *options,
                                    struct wb_why *why);

#endif /* EVENT_BUS_PRIVATE_H */
