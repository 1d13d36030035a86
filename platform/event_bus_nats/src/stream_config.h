/* stream_config.h - what we declare about a stream, in the words of the server. */
#ifndef EVENT_BUS_NATS_STREAM_CONFIG_H
#define EVENT_BUS_NATS_STREAM_CONFIG_H

#include <jansson.h>

#include <waybill/event_bus.h>

/** The configuration to create it with: limits retention, file storage. */
json_t *event_bus_nats_stream_config(const struct event_bus_stream_options *options);

/** Put what is declared into the server's own configuration; what we do not know stays. */
void event_bus_nats_stream_merge(const struct event_bus_stream_options *options, json_t *config);

/** Where the server's configuration differs from what is declared: "max_age: 1d, declared 7d". ""
 * when nowhere. */
void event_bus_nats_stream_diff(const struct event_bus_stream_options *options, json_t *config,
                                char *out, size_t size);

/** Storage and retention are as declared: the server lets the rest be changed. */
bool event_bus_nats_stream_can_change(json_t *config);

#endif /* EVENT_BUS_NATS_STREAM_CONFIG_H */
