/*
 * waybill/event_bus_factory.h - the bus that the configuration names.
 *
 * The one place that knows which implementations exist.
 */
#ifndef WAYBILL_EVENT_BUS_FACTORY_H
#define WAYBILL_EVENT_BUS_FACTORY_H

#include <waybill/config.h>
#include <waybill/event_bus.h>
#include <waybill/observe.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The keys `bus`, [nats] and [stream.*]; add them to the program's table. */
extern const struct config_key event_bus_factory_keys[];
extern const size_t event_bus_factory_key_count;

/**
 * Make the bus of `bus = ...` with its settings.
 * @param wait_connected  fail when the server cannot be reached now; false: go on trying.
 * @return as event_bus_nats_create(); WB_UNSUPPORTED for a bus this build lacks.
 */
wb_err event_bus_factory_create(const struct config *config, struct observe *observe,
                                bool wait_connected, struct event_bus **ret_bus,
                                struct wb_why *why);

/** Declare every [stream.NAME] of the configuration. */
wb_err event_bus_factory_declare(const struct config *config, struct event_bus *bus,
                                 event_bus_provision mode, struct wb_why *why);

#ifdef __cplusplus
}
#endif
#endif /* WAYBILL_EVENT_BUS_FACTORY_H */
