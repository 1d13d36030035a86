/*
 * waybill/event_bus_memory.h - the bus inside the process, for development, tests and one process.
 *
 * It has streams, consumers, acks, redelivery, limits and duplicate windows like JetStream. It
 * differs in one thing: it forgets when the process ends.
 *
 * Threads   Starts `workers` dispatcher threads and one timer thread; none in manual mode.
 */
#ifndef WAYBILL_EVENT_BUS_MEMORY_H
#define WAYBILL_EVENT_BUS_MEMORY_H

#include <waybill/event_bus.h>
#include <waybill/observe.h>

#ifdef __cplusplus
extern "C" {
#endif

struct event_bus_memory_options {
    struct observe *observe; /* NULL: none */
    uint32_t workers;        /* 0: 2 */
    size_t max_payload;      /* 0: MESSAGE_PAYLOAD_MAX */
    bool manual;             /* no threads, a virtual clock, seeded choices */
    uint64_t seed;           /* manual mode */
    int64_t start_wall_ns;   /* manual mode: where the clock starts */
};

/** WB_NOMEM. options may be NULL. */
wb_err event_bus_memory_create(const struct event_bus_memory_options *options,
                               struct event_bus **ret_bus);

/** Manual mode: handle everything due now; returns the number of steps. Handlers run on this
 * thread. In manual mode event_bus_next() with nothing queued answers WB_TIMEOUT at once, and
 * blocking publishes complete at once. */
size_t event_bus_memory_run_until_idle(struct event_bus *bus);

/** Manual mode: move the clock, handling what falls due on the way in order of time. */
void event_bus_memory_advance(struct event_bus *bus, int64_t ns);

/** Manual mode: the virtual clock, for others that take a clock. */
const struct wb_clock *event_bus_memory_clock(struct event_bus *bus);

/**
 * For tests of those above: what a server restart or loss does. keep_last: sequences above it are
 * forgotten (UINT64_MAX: none); duplicate ids stay known only for messages still stored.
 */
void event_bus_memory_restart(struct event_bus *bus, const char *stream, uint64_t keep_last);

/**
 * For tests: delete one message, as an operator or a damaged store would; its sequence stays empty.
 * false: the stream does not hold it.
 */
bool event_bus_memory_delete(struct event_bus *bus, const char *stream, uint64_t sequence);

/** For tests: while down, publishes answer WB_UNREACHABLE and nothing is delivered. */
void event_bus_memory_set_down(struct event_bus *bus, bool down);

#ifdef __cplusplus
}
#endif
#endif /* WAYBILL_EVENT_BUS_MEMORY_H */
