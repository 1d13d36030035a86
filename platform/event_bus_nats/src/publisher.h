/*
 * publisher.h - pipelined publishing: a window of unanswered messages, each with a deadline.
 *
 * Each message asks for its answer at <inbox>.<phase>.<slot>.<serial>; the serial makes a late
 * answer harmless. Completions are handed out one at a time, without locks. Streams answer in the
 * order they store, so completions of messages that may share a stream (the first token of the
 * subject, hashed) wait for each other, but never beyond a message's own deadline.
 */
#ifndef EVENT_BUS_NATS_PUBLISHER_H
#define EVENT_BUS_NATS_PUBLISHER_H

#include <waybill/event_bus.h>
#include <waybill/subject.h>

#include "link.h"
#include "trash.h"

#define NATS_LANES 64

struct nats_bus;

enum nats_slot_state {
    NATS_SLOT_FREE,
    NATS_SLOT_RESERVED, /* being sent */
    NATS_SLOT_SENT,
    NATS_SLOT_LOOKUP,   /* nobody took it: is there a stream? */
    NATS_SLOT_READBACK, /* a duplicate with an expectation: what is the last sequence? */
    NATS_SLOT_DONE      /* waits for older ones of its lane, or to be handed out */
};

struct nats_slot {
    struct nats_slot *prev; /* in its lane, or next in the free list or the finished queue */
    struct nats_slot *next;
    uint64_t serial; /* of the message that uses it now */
    enum nats_slot_state state;
    unsigned lane;
    event_bus_published done;
    void *ctx;
    int64_t deadline_ns;
    size_t bytes;
    bool expect_last_seq;
    uint64_t last_seq;
    wb_err err;
    struct event_bus_ack_info ack;
    char *why; /* owned; NULL: none */
    char subject[SUBJECT_MAX + 1];
};

struct nats_lane {
    struct nats_slot *first; /* in publish order */
    struct nats_slot *last;
};

struct nats_publisher {
    struct nats_bus *bus; /* constant, as the next ones */
    struct nats_slot *slots;
    struct nats_trash trash; /* has a lock of its own */
    uint32_t window;
    size_t window_bytes;
    bool joined; /* see headers.h */

    pthread_mutex_t mutex; /* guards all below */
    pthread_cond_t room;   /* a slot was freed */
    pthread_cond_t idle;   /* nothing is being handed out */
    struct nats_slot *free;
    struct nats_lane lanes[NATS_LANES];
    struct nats_slot *finished_first; /* to be handed out, in this order */
    struct nats_slot *finished_last;
    uint32_t free_count;
    uint64_t serial;
    size_t bytes;
    size_t waiting;   /* threads that wait for room */
    int64_t due_ns;   /* no deadline is earlier */
    bool handing_out; /* a thread does */
    pthread_t hander;
    bool closed;
};

wb_err event_bus_nats_publisher_init(struct nats_publisher *publisher, struct nats_bus *bus,
                                     uint32_t window, size_t window_bytes);
void event_bus_nats_publisher_free(struct nats_publisher *publisher);
/** Refuse what comes from now on. */
void event_bus_nats_publisher_close(struct nats_publisher *publisher);
/** After the link has stopped: complete what is in flight and wait for the last completion. */
void event_bus_nats_publisher_drain(struct nats_publisher *publisher);

/** The publish_async operation. */
wb_err event_bus_nats_publish(struct event_bus *self, const struct message *msg,
                              const struct event_bus_publish_options *options,
                              event_bus_published done, void *ctx, struct wb_why *why);

/* Events of the link. */
void event_bus_nats_publisher_answer(struct nats_publisher *publisher, natsMsg *msg);
void event_bus_nats_publisher_lost(struct nats_publisher *publisher);
void event_bus_nats_publisher_denied(struct nats_publisher *publisher, const char *subject);
int64_t event_bus_nats_publisher_tick(struct nats_publisher *publisher, int64_t now_ns);

/* ---- between publisher.c and publisher_answer.c ---------------------------------------------- */

/** Note the outcome of a slot that is on its way; the mutex is held, advance must follow. */
void event_bus_nats_slot_mark(struct nats_slot *slot, wb_err err, const char *format, ...)
    WB_PRINTF(3, 4);
/** Queue what heads the slot's lane and is done; the mutex is held. */
void event_bus_nats_slot_advance(struct nats_publisher *publisher, struct nats_slot *slot);
/** Hand out what is finished, unless another thread does; the mutex is held, and released around
 * completions. */
void event_bus_nats_publisher_hand_out(struct nats_publisher *publisher);
/** Reply subject of a slot: phase is 'p' publish, 'n' stream names, 'i' stream info. */
void event_bus_nats_slot_reply(const struct nats_publisher *publisher, const struct nats_slot *slot,
                               char phase, char *out, size_t size);

#endif /* EVENT_BUS_NATS_PUBLISHER_H */
