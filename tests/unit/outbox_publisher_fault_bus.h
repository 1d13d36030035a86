/*
 * outbox_publisher_fault_bus.h - a bus between publisher and memory bus that behaves like a
 * network.
 *
 * What is published lies in transit until the test pumps. Then it may be stored or lost, answered
 * or not, or arrive after its sender has given it up. Choices come from a seed.
 */
#ifndef OUTBOX_PUBLISHER_FAULT_BUS_H
#define OUTBOX_PUBLISHER_FAULT_BUS_H

#include <stdlib.h>
#include <string.h>

#include "test_support.h"
#include "waybill/event_bus_impl.h"

#include <waybill/event_bus_memory.h>

struct transit {
    struct transit *next;
    struct message *message; /* owned */
    struct event_bus_publish_options options;
    event_bus_published done; /* NULL: given up, it only arrives */
    void *ctx;
};

struct fault_bus {
    struct event_bus base; /* first */
    struct event_bus *inner;
    struct wb_rng rng;
    struct transit *first, **last; /* in order of sending */
    unsigned faults_per_thousand;
    unsigned refusals_per_thousand;             /* of what arrives: denied, and not stored */
    bool (*refuses)(const struct message *msg); /* denied each time; NULL: none */
    bool down;
};

static inline struct fault_bus *fault_bus_of(struct event_bus *base)
{
    return (struct fault_bus *)base;
}

static inline wb_err fault_unreachable(struct fault_bus *self, struct wb_why *why)
{
    return self->down ? wb_fail(why, WB_UNREACHABLE, "the fault bus is down") : WB_OK;
}

static inline wb_err fault_publish_async(struct event_bus *base, const struct message *msg,
                                         const struct event_bus_publish_options *options,
                                         event_bus_published done, void *ctx, struct wb_why *why)
{
    struct fault_bus *self = fault_bus_of(base);
    wb_err err = fault_unreachable(self, why);

    if (err != WB_OK)
        return err;
    struct transit *one = calloc(1, sizeof(*one));
    struct message *copy = message_copy(msg, 0, NULL);
    assert_non_null(one);
    assert_non_null(copy);
    *one = (struct transit){.message = copy, .options = *options, .done = done, .ctx = ctx};
    *self->last = one;
    self->last = &one->next;
    return WB_OK;
}

static inline struct transit *transit_take(struct fault_bus *self)
{
    struct transit *one = self->first;

    self->first = one->next;
    if (self->first == NULL)
        self->last = &self->first;
    one->next = NULL;
    return one;
}

static inline void transit_free(struct transit *one)
{
    free(one->message);
    free(one);
}

static inline void transit_answer(const struct transit *one, wb_err err,
                                  const struct event_bus_ack_info *ack)
{
    struct wb_why why;

    (void)wb_fail(&why, err, "fault bus: %s", wb_err_text(err));
    if (one->done != NULL)
        one->done(one->ctx, err, ack, &why);
}

/* Store it as the network would, and tell the sender if it still listens. */
static inline void transit_arrive(struct fault_bus *self, struct transit *one, bool answer)
{
    struct event_bus_ack_info ack = {.sequence = 0};
    bool refused = self->refuses != NULL && self->refuses(one->message);
    wb_err err = refused ? WB_DENIED
                         : event_bus_publish(self->inner, one->message, &one->options, &ack, NULL);

    if (answer)
        transit_answer(one, err, &ack);
    else
        transit_answer(one, WB_UNKNOWN, &(struct event_bus_ack_info){.sequence = 0});
    transit_free(one);
}

/* The oldest message in transit meets its fate. false: there is none. */
static inline bool fault_bus_pump(struct fault_bus *self)
{
    const struct event_bus_ack_info none = {.sequence = 0};

    if (self->first == NULL)
        return false;
    struct transit *one = transit_take(self);
    if (wb_rng_below(&self->rng, 1000) < self->refusals_per_thousand) {
        transit_answer(one, WB_DENIED, &none);
        transit_free(one);
        return true;
    }
    if (wb_rng_below(&self->rng, 1000) >= self->faults_per_thousand) {
        transit_arrive(self, one, true);
        return true;
    }
    switch (wb_rng_below(&self->rng, 4)) {
    case 0: /* stored, the answer is lost */
        transit_arrive(self, one, false);
        break;
    case 1: /* lost */
        transit_answer(one, WB_TIMEOUT, &none);
        transit_free(one);
        break;
    case 2: /* lost, and everybody knows */
        transit_answer(one, WB_UNREACHABLE, &none);
        transit_free(one);
        break;
    default: /* given up by its sender, and still on its way for a moment */
        transit_answer(one, WB_UNKNOWN, &none);
        one->done = NULL;
        *self->last = one;
        self->last = &one->next;
        break;
    }
    return true;
}

/* The connection breaks: what is in transit arrives or not, and nobody hears of it. */
static inline void fault_bus_down(struct fault_bus *self, bool down)
{
    if (self->down == down)
        return;
    self->down = down;
    while (down && self->first != NULL) {
        struct transit *one = transit_take(self);
        if (wb_rng_below(&self->rng, 2) == 0) {
            transit_arrive(self, one, false);
            continue;
        }
        transit_answer(one, WB_UNKNOWN, &(struct event_bus_ack_info){.sequence = 0});
        transit_free(one);
    }
    event_bus_notify(&self->base, !down);
}

/* The sender has died: what it sent arrives in a moment, or never. */
static inline void fault_bus_orphan(struct fault_bus *self)
{
    struct transit *waiting = self->first;

    self->first = NULL;
    self->last = &self->first;
    while (waiting != NULL) {
        struct transit *one = waiting;
        waiting = one->next;
        one->next = NULL;
        transit_answer(one, WB_UNKNOWN, &(struct event_bus_ack_info){.sequence = 0});
        one->done = NULL;
        if (wb_rng_below(&self->rng, 2) == 0) {
            transit_free(one);
            continue;
        }
        *self->last = one;
        self->last = &one->next;
    }
}

/* Time passes only when nothing is on its way that its sender has given up: that takes moments. */
static inline void fault_bus_advance(struct fault_bus *self, int64_t ns)
{
    struct transit *waiting = self->first;

    self->first = NULL;
    self->last = &self->first;
    while (waiting != NULL) {
        struct transit *one = waiting;
        waiting = one->next;
        one->next = NULL;
        if (one->done == NULL) {
            transit_arrive(self, one, false);
            continue;
        }
        *self->last = one;
        self->last = &one->next;
    }
    event_bus_memory_advance(self->inner, ns);
}

static inline wb_err fault_declare(struct event_bus *base,
                                   const struct event_bus_stream_options *options,
                                   event_bus_provision mode, struct wb_why *why)
{
    return event_bus_declare_stream(fault_bus_of(base)->inner, options, mode, why);
}

static inline wb_err fault_stream_info(struct event_bus *base, const char *stream,
                                       struct event_bus_stream_info *ret_info, struct wb_why *why)
{
    wb_err err = fault_unreachable(fault_bus_of(base), why);

    return err == WB_OK ? event_bus_stream_info(fault_bus_of(base)->inner, stream, ret_info, why)
                        : err;
}

static inline wb_err fault_stream_for(struct event_bus *base, struct wb_str subject,
                                      char ret_stream[EVENT_BUS_NAME_MAX + 1], struct wb_why *why)
{
    wb_err err = fault_unreachable(fault_bus_of(base), why);

    return err == WB_OK ? event_bus_stream_for(fault_bus_of(base)->inner, subject, ret_stream, why)
                        : err;
}

static inline wb_err fault_get(struct event_bus *base, const char *stream, uint64_t sequence,
                               struct event_bus_delivery_impl **ret_delivery, struct wb_why *why)
{
    struct event_bus_delivery *delivery = NULL;
    wb_err err = fault_unreachable(fault_bus_of(base), why);

    if (err == WB_OK)
        err = event_bus_get(fault_bus_of(base)->inner, stream, sequence, &delivery, why);
    if (err == WB_OK)
        *ret_delivery = (struct event_bus_delivery_impl *)delivery;
    return err;
}

static inline wb_err fault_scan(struct event_bus *base, const char *stream, uint64_t from,
                                uint64_t to, event_bus_scan_visit visit, void *ctx,
                                uint64_t *ret_next, struct wb_why *why)
{
    wb_err err = fault_unreachable(fault_bus_of(base), why);

    return err == WB_OK ? event_bus_scan(fault_bus_of(base)->inner, stream, from, to, visit, ctx,
                                         ret_next, why)
                        : err;
}

static inline void fault_health(struct event_bus *base, struct event_bus_health *ret_health)
{
    event_bus_health(fault_bus_of(base)->inner, ret_health);
    ret_health->durability = EVENT_BUS_DURABLE_PROCESS;
    ret_health->connected = !fault_bus_of(base)->down;
}

static inline void fault_close(struct event_bus *base)
{
    struct fault_bus *self = fault_bus_of(base);

    while (self->first != NULL) {
        struct transit *one = transit_take(self);
        transit_answer(one, WB_CLOSED, &(struct event_bus_ack_info){.sequence = 0});
        transit_free(one);
    }
}

static inline void fault_destroy(struct event_bus *base)
{
    event_bus_fini(base);
    free(base);
}

static inline struct fault_bus *fault_bus_create(struct event_bus *inner, uint64_t seed)
{
    static const struct event_bus_ops ops = {.kind = "fault",
                                             .publish_async = fault_publish_async,
                                             .declare_stream = fault_declare,
                                             .stream_info = fault_stream_info,
                                             .stream_for = fault_stream_for,
                                             .get = fault_get,
                                             .scan = fault_scan,
                                             .health = fault_health,
                                             .close = fault_close,
                                             .destroy = fault_destroy};
    const struct event_bus_settings settings = {.clock = event_bus_memory_clock(inner)};
    struct fault_bus *self = calloc(1, sizeof(*self));

    assert_non_null(self);
    self->inner = inner;
    self->last = &self->first;
    wb_rng_seed(&self->rng, seed);
    assert_ok(event_bus_init(&self->base, &ops, &settings));
    return self;
}

#endif /* OUTBOX_PUBLISHER_FAULT_BUS_H */
