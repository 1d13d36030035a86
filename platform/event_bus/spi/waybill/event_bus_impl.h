/*
 * waybill/event_bus_impl.h - for those who write buses, not for those who use them.
 *
 * Embed struct event_bus first in your own struct, fill in every operation, call event_bus_init()
 * in your create and event_bus_fini() at the end of your destroy operation, and prove it with the
 * suite in tests/contract/. The dispatcher (event_bus.c) has checked all arguments before an
 * operation runs: subjects, names, sizes, limits, NULLs.
 *
 * Deliveries. The implementation makes a struct event_bus_delivery_impl (embed it first in its
 * own), and gives it to the dispatcher with event_bus_offer(), in stream order for each stream,
 * naks and expiries first. The dispatcher queues it, calls the handler (never two at once for one
 * subscription) or hands it to next(), counts failures, and calls ops->settle at most once with
 * ack, nak or term. It never offers back: redelivery is the implementation's work. A redelivery
 * whose earlier copy still waits in the queue is dropped in event_bus_offer(), so a destroy
 * function must be fit to run there.
 *
 * Closing. The dispatcher stops every source, then calls ops->close. A call that had already begun
 * on another thread may still reach any operation afterwards: answer WB_CLOSED.
 */
#ifndef WAYBILL_EVENT_BUS_IMPL_H
#define WAYBILL_EVENT_BUS_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include <waybill/event_bus.h>
#include <waybill/observe.h>

struct event_bus_delivery_impl {
    struct event_bus_delivery view;              /* first; filled in by the implementation */
    struct event_bus_subscription *subscription; /* set by event_bus_offer(); NULL for get() */
    struct event_bus_delivery_impl *next;        /* the dispatcher's queue */
    int64_t offered_mono_ns;                     /* when it was offered, or put in progress */
    void (*destroy)(struct event_bus_delivery_impl *self); /* frees it, when the count is 0 */
    atomic_uint references;                                /* event_bus_delivery_init() sets 1 */
    atomic_uint verdict; /* enum event_bus_verdict once settled, else 0 */
    bool tracked;        /* the dispatcher's: it counts its failures */
    bool handed;         /* the dispatcher's: it was handed out */
};

typedef enum event_bus_verdict {
    EVENT_BUS_ACK = 1,
    EVENT_BUS_NAK,
    EVENT_BUS_TERM,
    EVENT_BUS_IN_PROGRESS
} event_bus_verdict;

struct event_bus_ops {
    const char *kind;

    /* See event_bus_publish_async(). options are complete (no zero defaults). done may be called
     * before this returns; its ack is never NULL. */
    wb_err (*publish_async)(struct event_bus *self, const struct message *msg,
                            const struct event_bus_publish_options *options,
                            event_bus_published done, void *ctx, struct wb_why *why);
    wb_err (*declare_stream)(struct event_bus *self, const struct event_bus_stream_options *options,
                             event_bus_provision mode, struct wb_why *why);
    wb_err (*stream_info)(struct event_bus *self, const char *stream,
                          struct event_bus_stream_info *ret_info, struct wb_why *why);
    wb_err (*stream_for)(struct event_bus *self, struct wb_str subject,
                         char ret_stream[EVENT_BUS_NAME_MAX + 1], struct wb_why *why);
    wb_err (*delete_stream)(struct event_bus *self, const char *stream, struct wb_why *why);
    wb_err (*get)(struct event_bus *self, const char *stream, uint64_t sequence,
                  struct event_bus_delivery_impl **ret_delivery, struct wb_why *why);
    /* See event_bus_scan(). 1 <= from <= to, which lay within the stream a moment ago. A delivery
     * visited has no payload and 0 deliveries; *ret_next is right at each return. */
    wb_err (*scan)(struct event_bus *self, const char *stream, uint64_t from, uint64_t to,
                   event_bus_scan_visit visit, void *ctx, uint64_t *ret_next, struct wb_why *why);

    /*
     * Start delivering into subscription; its options are in event_bus_subscription_options_of()
     * and stay valid until stop. *ret_source is handed to the operations below. Offers may begin
     * before this returns.
     */
    wb_err (*start)(struct event_bus *self, struct event_bus_subscription *subscription,
                    void **ret_source, struct wb_why *why);
    /* No event_bus_offer() for the source begins after it returns, and none is running. With
     * keep_settling (perhaps more than once) ops->settle still works; stop without it comes last,
     * exactly once, and frees the source. What is then unsettled of a durable goes to its next
     * holder. Deliveries outlive their source and even the bus: destroy must need neither. */
    void (*stop)(struct event_bus *self, void *source, bool keep_settling);
    /* The queue of a subscription has fallen to half of what event_bus_offer() refused at. Called
     * on any thread, without locks; may offer. */
    void (*resume)(struct event_bus *self, void *source);
    size_t (*streams)(struct event_bus *self, void *source); /* streams read from now */

    /* delay_ns counts for NAK only. Must not block on the network. */
    wb_err (*settle)(struct event_bus *self, void *source, struct event_bus_delivery_impl *delivery,
                     event_bus_verdict verdict, int64_t delay_ns);
    wb_err (*delete_durable)(struct event_bus *self, const char *durable, struct wb_why *why);
    /* All fields; max_payload 0 while unknown. Works after close, too. */
    void (*health)(struct event_bus *self, struct event_bus_health *ret_health);

    /* Stop all threads of the implementation; complete what is in flight. Called once. */
    void (*close)(struct event_bus *self);
    /* After close. Calls event_bus_fini(), frees self. */
    void (*destroy)(struct event_bus *self);
};

struct event_bus_settings {
    const struct wb_clock *clock; /* NULL: the system's */
    struct observe *observe;      /* NULL: none */
    uint32_t workers;             /* dispatcher threads; 0 means manual mode */
};

struct event_bus_dispatcher; /* private to event_bus */

struct event_bus {
    const struct event_bus_ops *ops;         /* constant after init */
    struct event_bus_settings settings;      /* constant after init; clock is set */
    struct event_bus_dispatcher *dispatcher; /* constant after init */
};

/** Set up the common part; starts settings->workers threads. WB_NOMEM. */
wb_err event_bus_init(struct event_bus *bus, const struct event_bus_ops *ops,
                      const struct event_bus_settings *settings);
/** Free the common part: the last line of ops->destroy before free. */
void event_bus_fini(struct event_bus *bus);

/** Tell the listeners, count reconnects and ask health anew for max_payload, whenever `connected`
 * has changed, the first connection included; not under locks that a listener might need. */
void event_bus_notify(struct event_bus *bus, bool connected);

const struct event_bus_subscription_options *
event_bus_subscription_options_of(const struct event_bus_subscription *subscription);

/** References 1, no verdict. view and destroy are the implementation's to fill in. */
void event_bus_delivery_init(struct event_bus_delivery_impl *delivery);

/**
 * Give a delivery (and one reference) to the dispatcher. Never blocks. false: the queue is full,
 * the delivery stays the implementation's, and ops->resume will be called.
 */
bool event_bus_offer(struct event_bus_subscription *subscription,
                     struct event_bus_delivery_impl *delivery);

/* ---- manual mode: no workers ----------------------------------------------------------------- */

/**
 * Handle one queued delivery on this thread, of a subscription chosen by rng among those that have
 * one. false: there is none.
 */
bool event_bus_dispatch_one(struct event_bus *bus, struct wb_rng *rng);

#endif /* WAYBILL_EVENT_BUS_IMPL_H */
