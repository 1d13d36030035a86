/* headers.h - what a message carries besides its payload, as nats.c wants it. */
#ifndef EVENT_BUS_NATS_HEADERS_H
#define EVENT_BUS_NATS_HEADERS_H

#include <nats/nats.h>

#include <waybill/event_bus.h>

/**
 * May several lines be handed to nats.c as one? It keeps each header in memory of its own, half a
 * dozen pieces, which another thread frees: that is a quarter of what sending a small message
 * costs. It writes names as they are given, in each version from 3.4.1 to 3.13.0; in another one
 * each header is handed over by itself.
 */
bool event_bus_nats_headers_joined(void);

/** The headers of msg, and those that say what is expected of the stream. */
natsStatus event_bus_nats_headers_add(natsMsg *out, const struct message *msg,
                                      const struct event_bus_publish_options *options, bool joined);

#endif /* EVENT_BUS_NATS_HEADERS_H */
