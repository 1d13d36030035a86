/* Manual mode, and what tests of those above may do to the bus. */
#include "memory.h"

#include <assert.h>

/* ---- manual mode ----------------------------------------------------------------------------- */

size_t event_bus_memory_run_until_idle(struct event_bus *base)
{
    struct memory_bus *bus = memory_bus_of(base);
    size_t steps = 0;

    assert(bus->manual);
    do {
        pthread_mutex_lock(&bus->mutex);
        event_bus_memory_tick(bus);
        pthread_mutex_unlock(&bus->mutex);
    } while (event_bus_dispatch_one(base, &bus->rng) && ++steps > 0);
    return steps;
}

void event_bus_memory_advance(struct event_bus *base, int64_t ns)
{
    struct memory_bus *bus = memory_bus_of(base);
    int64_t end = memory_now(bus) + ns;

    event_bus_memory_run_until_idle(base);
    for (;;) {
        pthread_mutex_lock(&bus->mutex);
        const struct memory_due *due = event_bus_memory_heap_first(&bus->timers);
        int64_t at = due != NULL && due->at_ns < end ? due->at_ns : end;
        pthread_mutex_unlock(&bus->mutex);
        if (at > memory_now(bus)) /* a handler may have moved the clock itself */
            wb_clock_virtual_advance(&bus->virtual_clock, at - memory_now(bus));
        event_bus_memory_run_until_idle(base);
        if (at >= end)
            return;
    }
}

const struct wb_clock *event_bus_memory_clock(struct event_bus *base)
{
    return &memory_bus_of(base)->virtual_clock.clock;
}

/* ---- faults ---------------------------------------------------------------------------------- */

static void clamp_consumers(struct memory_bus *bus, const struct memory_stream *stream)
{
    uint64_t last = stream->log.last_seq;

    for (struct memory_group *group = bus->groups; group != NULL; group = group->next)
        for (struct memory_consumer *c = group->consumers; c != NULL; c = c->next) {
            if (c->stream != stream)
                continue;
            event_bus_memory_pending_truncate(&c->pending, last);
            if (c->next_seq > last + 1) {
                c->next_seq = last + 1;
                c->positioned = group->start != EVENT_BUS_START_POSITION;
            }
            event_bus_memory_run_later(bus, c);
        }
}

static void set_connected(struct event_bus *base, bool connected)
{
    struct memory_bus *bus = memory_bus_of(base);

    pthread_mutex_lock(&bus->mutex);
    bool changed = bus->down == connected;
    if (changed) {
        bus->down = !connected;
        bus->connections += connected;
        bus->since_mono_ns = memory_now(bus);
    }
    for (struct memory_group *group = bus->groups; connected && group != NULL; group = group->next)
        for (struct memory_consumer *c = group->consumers; c != NULL; c = c->next) {
            c->deferred = false;
            event_bus_memory_run_later(bus, c);
        }
    if (connected)
        event_bus_memory_ask_positions(bus);
    event_bus_memory_run(bus);
    pthread_mutex_unlock(&bus->mutex);
    if (changed)
        event_bus_notify(base, connected);
}

void event_bus_memory_restart(struct event_bus *base, const char *stream, uint64_t keep_last)
{
    struct memory_bus *bus = memory_bus_of(base);

    set_connected(base, false);
    pthread_mutex_lock(&bus->mutex);
    for (struct memory_stream *s = bus->streams; s != NULL; s = s->next)
        if (stream == NULL || wb_str_eq(wb_str(s->name), wb_str(stream))) {
            event_bus_memory_stream_truncate(bus, s, keep_last);
            clamp_consumers(bus, s);
        }
    pthread_mutex_unlock(&bus->mutex);
    set_connected(base, true);
}

bool event_bus_memory_delete(struct event_bus *base, const char *stream, uint64_t sequence)
{
    struct memory_bus *bus = memory_bus_of(base);

    pthread_mutex_lock(&bus->mutex);
    struct memory_stream *s = event_bus_memory_stream_named(bus, stream);
    bool held = s != NULL && event_bus_memory_stream_remove(s, sequence);
    pthread_mutex_unlock(&bus->mutex);
    return held;
}

void event_bus_memory_set_down(struct event_bus *base, bool down)
{
    set_connected(base, !down);
}
