/*
 * unsettled.h - which messages of a consumer were received and are not settled yet.
 *
 * When a consumer is lost with its server, a new one begins at the oldest of these; when a
 * subscription on a durable ends, they are handed back. Not synchronised.
 */
#ifndef EVENT_BUS_NATS_UNSETTLED_H
#define EVENT_BUS_NATS_UNSETTLED_H

#include <waybill/base.h>

struct nats_unsettled_entry {
    uint64_t seq; /* of the stream */
    uint64_t consumer_seq;
    uint64_t deliveries;
    int64_t stored_wall_ns;
    bool settled;
};

/* In ascending order of seq. Zeroed is empty. */
struct nats_unsettled {
    struct nats_unsettled_entry *entries;
    size_t first; /* entries before it are free */
    size_t count; /* from first on, settled ones in between included */
    size_t capacity;
};

/** Note a delivery; one that is known is brought up to date. false: out of memory. */
bool event_bus_nats_unsettled_add(struct nats_unsettled *set,
                                  const struct nats_unsettled_entry *entry);
void event_bus_nats_unsettled_remove(struct nats_unsettled *set, uint64_t seq);
/** The one with the lowest seq, or NULL when there is none. */
const struct nats_unsettled_entry *
event_bus_nats_unsettled_lowest(const struct nats_unsettled *set);
/** The entry at an index below count, or NULL if it is settled. */
const struct nats_unsettled_entry *event_bus_nats_unsettled_at(const struct nats_unsettled *set,
                                                               size_t index);
void event_bus_nats_unsettled_clear(struct nats_unsettled *set);

#endif /* EVENT_BUS_NATS_UNSETTLED_H */
