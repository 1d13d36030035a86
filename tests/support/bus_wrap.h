/*
 * bus_wrap.h - a bus around another, for those who put something between a publisher and its bus:
 * what they do not do themselves is passed on.
 */
#ifndef BUS_WRAP_H
#define BUS_WRAP_H

#include "waybill/event_bus_impl.h"

/* The first member of what wraps. */
struct bus_wrap {
    struct event_bus base; /* first */
    struct event_bus *inner;
};

static inline struct event_bus *bus_wrap_inner(struct event_bus *base)
{
    return ((struct bus_wrap *)base)->inner;
}

static inline wb_err bus_wrap_declare(struct event_bus *base,
                                      const struct event_bus_stream_options *options,
                                      event_bus_provision mode, struct wb_why *why)
{
    return event_bus_declare_stream(bus_wrap_inner(base), options, mode, why);
}

static inline wb_err bus_wrap_info(struct event_bus *base, const char *stream,
                                   struct event_bus_stream_info *ret_info, struct wb_why *why)
{
    return event_bus_stream_info(bus_wrap_inner(base), stream, ret_info, why);
}

static inline wb_err bus_wrap_stream_for(struct event_bus *base, struct wb_str subject,
                                         char ret_stream[EVENT_BUS_NAME_MAX + 1],
                                         struct wb_why *why)
{
    return event_bus_stream_for(bus_wrap_inner(base), subject, ret_stream, why);
}

static inline wb_err bus_wrap_get(struct event_bus *base, const char *stream, uint64_t sequence,
                                  struct event_bus_delivery_impl **ret_delivery, struct wb_why *why)
{
    struct event_bus_delivery *delivery = NULL;
    wb_err err = event_bus_get(bus_wrap_inner(base), stream, sequence, &delivery, why);

    if (err == WB_OK)
        *ret_delivery = (struct event_bus_delivery_impl *)delivery;
    return err;
}

static inline wb_err bus_wrap_scan(struct event_bus *base, const char *stream, uint64_t from,
                                   uint64_t to, event_bus_scan_visit visit, void *ctx,
                                   uint64_t *ret_next, struct wb_why *why)
{
    return event_bus_scan(bus_wrap_inner(base), stream, from, to, visit, ctx, ret_next, why);
}

static inline void bus_wrap_health(struct event_bus *base, struct event_bus_health *ret_health)
{
    event_bus_health(bus_wrap_inner(base), ret_health);
}

/* The other bus is its owner's. */
static inline void bus_wrap_close(struct event_bus *base)
{
    (void)base;
}

static inline void bus_wrap_destroy(struct event_bus *base)
{
    event_bus_fini(base);
}

/* For a table of operations, beside those of one's own. */
#define BUS_WRAP_READ                                                                              \
    .declare_stream = bus_wrap_declare, .stream_info = bus_wrap_info,                              \
    .stream_for = bus_wrap_stream_for, .get = bus_wrap_get, .scan = bus_wrap_scan,                 \
    .close = bus_wrap_close
#define BUS_WRAP_ALL BUS_WRAP_READ, .health = bus_wrap_health, .destroy = bus_wrap_destroy

#endif /* BUS_WRAP_H */
