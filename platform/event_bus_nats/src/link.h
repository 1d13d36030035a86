/*
 * link.h - one connection to the server that comes back by itself.
 *
 * nats.c's own reconnect lets new messages overtake lost ones and gives up for good after refused
 * credentials, so it is switched off: a link makes a new connection, with backoff and jitter, for
 * as long as it lives. On each connection it holds one subscription, <inbox>.>, through which all
 * answers come; taps are further ones. nats.c corrupts its heap when a subscription is destroyed
 * under traffic, so each is destroyed only when nothing calls back any more.
 *
 * Threads   One of its own, which connects and runs up, down and tick; message runs on the thread
 *           of the subscription, trouble on nats.c's thread for callbacks.
 */
#ifndef EVENT_BUS_NATS_LINK_H
#define EVENT_BUS_NATS_LINK_H

#include <pthread.h>

#include <nats/nats.h>

#include <waybill/base.h>

#include "wire.h"

struct nats_link_events {
    void (*up)(void *ctx); /* connected; calls that send work already */
    /* The connection is lost; called again when the last call that used it has returned. */
    void (*down)(void *ctx);
    /* Regular work while connected; returns when it wants to run again at the latest. */
    int64_t (*tick)(void *ctx, int64_t now_ns);
    /* owns msg; owner is that of the tap it came by, NULL for <inbox>.> */
    void (*message)(void *ctx, void *owner, natsMsg *msg);
    void (*trouble)(void *ctx, const char *text); /* the server told an error outside of any call */
};

struct nats_link {
    const struct nats_link_events *events; /* constant after start, as the next ones */
    void *ctx;
    natsOptions *options; /* owned */
    char inbox[48];       /* "_INBOX.<random>" */
    int64_t flush_timeout_ms;
    struct nats_wire wire;

    pthread_t thread;
    pthread_mutex_t mutex; /* guards all below */
    pthread_cond_t changed;
    natsConnection *nc; /* NULL while not usable */
    unsigned users;     /* calls that use nc now */
    bool running;       /* thread is to be joined */
    bool stopping;
    bool lost;         /* nc is closed or broken */
    bool closed;       /* the closed callback of the present connection came */
    bool delivered;    /* the subscription's thread has ended */
    bool woken;        /* run tick soon */
    uint64_t attempts; /* to connect, so far */
    uint64_t epoch;    /* connections so far */
    wb_err refusal;    /* why not connected: WB_DENIED, WB_INVALID, WB_UNREACHABLE; WB_OK: it is */
    char problem[200]; /* the same in words; "" */
};

/** Take options over and start the thread. WB_NOMEM, WB_IO. */
wb_err event_bus_nats_link_start(struct nats_link *link, const struct nats_link_events *events,
                                 void *ctx, natsOptions *options, int64_t ping_ns);
/** Close the connection and end the thread. No event runs after it returns; may be called twice. */
void event_bus_nats_link_stop(struct nats_link *link);
/** After stop. */
void event_bus_nats_link_free(struct nats_link *link);

/** The connection for a short use, or NULL; give it back with release. */
natsConnection *event_bus_nats_link_acquire(struct nats_link *link);
/** status: what the use resulted in; a failed write makes the link connect anew. */
void event_bus_nats_link_release(struct nats_link *link, natsStatus status);
/** The same around a call that sends and does not wait; what it sends is written by then, or soon
 * with others. */
natsConnection *event_bus_nats_link_acquire_to_send(struct nats_link *link);
void event_bus_nats_link_release_sent(struct nats_link *link, natsStatus status);

/** Send a message without waiting; reply may be NULL. WB_UNREACHABLE, WB_UNKNOWN, WB_TOO_BIG. */
wb_err event_bus_nats_link_send(struct nats_link *link, const char *subject, const char *reply,
                                struct wb_bytes data);

/*
 * A subscription of its own, so that the server sees when nobody listens any more. Used by one
 * thread at a time.
 */
struct nats_tap {
    struct nats_link *link; /* constant, as the next three */
    void *owner;
    void (*message)(void *owner, natsMsg *msg); /* owns msg; NULL: the link's */
    char inbox[80];
    natsSubscription *sub; /* NULL: not open */
    uint64_t epoch;        /* the connection it was opened on */
    bool done;             /* its thread has ended; guarded by the link's mutex */
};

/** Open it on the present connection, unless it is. WB_UNREACHABLE, WB_NOMEM. */
wb_err event_bus_nats_tap_open(struct nats_tap *tap);
/** Is the connection it was opened on still there? */
bool event_bus_nats_tap_is_open(const struct nats_tap *tap);
/** Have the server send no more, let what was sent arrive, and wait for the last call back. */
void event_bus_nats_tap_close(struct nats_tap *tap);

/** Run tick soon. */
void event_bus_nats_link_wake(struct nats_link *link);
bool event_bus_nats_link_is_up(struct nats_link *link);
/** Wait until it is up, has been refused, or mono_ns; with any_outcome a failed attempt will do. */
wb_err event_bus_nats_link_wait(struct nats_link *link, int64_t mono_ns, bool any_outcome);
/** Why it is not up. "" when it is. */
void event_bus_nats_link_problem(struct nats_link *link, char *out, size_t size);

/** What a status of a send means to a caller. */
wb_err event_bus_nats_link_err(natsStatus status);

#endif /* EVENT_BUS_NATS_LINK_H */
