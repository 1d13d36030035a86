#include "memory.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORKERS_DEFAULT 2

/* ---- state ----------------------------------------------------------------------------------- */

wb_err event_bus_memory_usable(const struct memory_bus *bus, const char *what, struct wb_why *why)
{
    if (bus->closed)
        return wb_fail(why, WB_CLOSED, "%s: the bus is closed", what);
    if (bus->down)
        return wb_fail(
            why, WB_UNREACHABLE,
            "%s: the in-memory bus is set down; it comes back by itself when the drill ends", what);
    return WB_OK;
}

static void health(struct event_bus *base, struct event_bus_health *ret_health)
{
    struct memory_bus *bus = memory_bus_of(base);

    pthread_mutex_lock(&bus->mutex);
    *ret_health = (struct event_bus_health){.connected = !bus->down && !bus->closed,
                                            .since_mono_ns = bus->since_mono_ns,
                                            .connections = bus->connections,
                                            .durability = EVENT_BUS_DURABLE_NONE,
                                            .max_payload = bus->max_payload,
                                            .server = "memory"};
    if (bus->closed)
        (void)snprintf(ret_health->problem, sizeof(ret_health->problem), "closed");
    else if (bus->down)
        (void)snprintf(ret_health->problem, sizeof(ret_health->problem), "set down by a test");
    pthread_mutex_unlock(&bus->mutex);
}

static wb_err get(struct event_bus *base, const char *stream, uint64_t sequence,
                  struct event_bus_delivery_impl **ret_delivery, struct wb_why *why)
{
    struct memory_bus *bus = memory_bus_of(base);
    struct memory_delivery *delivery = NULL;

    pthread_mutex_lock(&bus->mutex);
    wb_err err = event_bus_memory_usable(bus, "get", why);
    struct memory_stream *s = err == WB_OK ? event_bus_memory_stream_named(bus, stream) : NULL;
    struct memory_message *stored = NULL;
    if (s != NULL) {
        event_bus_memory_stream_trim(bus, s);
        stored = event_bus_memory_log_held(&s->log, sequence);
    } else if (err == WB_OK) {
        err = wb_fail(why, WB_NO_STREAM, "get: there is no stream '%s'", stream);
    }
    if (stored != NULL) {
        delivery = event_bus_memory_delivery_new(stored, s->id, 0);
        if (delivery == NULL)
            err = wb_fail(why, WB_NOMEM, "get: out of memory");
    } else if (err == WB_OK) {
        err = wb_fail(why, WB_NOT_FOUND, "stream '%s' does not hold sequence %llu", stream,
                      (unsigned long long)sequence);
    }
    pthread_mutex_unlock(&bus->mutex);
    if (err == WB_OK)
        *ret_delivery = &delivery->impl;
    return err;
}

/* ---- time ------------------------------------------------------------------------------------ */

void event_bus_memory_arm(struct memory_bus *bus, struct memory_timer *timer, int64_t at_ns)
{
    if (timer->due.place != 0 && timer->due.at_ns <= at_ns)
        return;
    event_bus_memory_heap_set(&bus->timers, &timer->due, at_ns);
    if (event_bus_memory_heap_first(&bus->timers) == &timer->due)
        pthread_cond_signal(&bus->wake);
}

void event_bus_memory_tick(struct memory_bus *bus)
{
    struct memory_due *due;

    while ((due = event_bus_memory_heap_first(&bus->timers)) != NULL &&
           due->at_ns <= memory_now(bus)) {
        struct memory_timer *timer = (struct memory_timer *)due;
        event_bus_memory_heap_remove(&bus->timers, due);
        if (timer->kind == MEMORY_TIMER_STREAM)
            event_bus_memory_stream_trim(bus, (struct memory_stream *)timer);
        else
            event_bus_memory_consumer_due(bus, (struct memory_consumer *)timer);
    }
    event_bus_memory_run(bus);
}

static void wait_for_next(struct memory_bus *bus)
{
    const struct memory_due *due = event_bus_memory_heap_first(&bus->timers);

    if (due == NULL) {
        pthread_cond_wait(&bus->wake, &bus->mutex);
        return;
    }
    (void)wb_cond_wait_until(&bus->wake, &bus->mutex, due->at_ns);
}

static void *run_timer(void *ctx)
{
    struct memory_bus *bus = ctx;

    pthread_mutex_lock(&bus->mutex);
    while (!bus->closed) {
        event_bus_memory_tick(bus);
        if (!bus->closed)
            wait_for_next(bus);
    }
    pthread_mutex_unlock(&bus->mutex);
    return NULL;
}

/* ---- ending ---------------------------------------------------------------------------------- */

static void close_bus(struct event_bus *base)
{
    struct memory_bus *bus = memory_bus_of(base);

    pthread_mutex_lock(&bus->mutex);
    bus->closed = true;
    bus->since_mono_ns = memory_now(bus);
    pthread_cond_broadcast(&bus->wake);
    while (bus->completing)
        pthread_cond_wait(&bus->idle, &bus->mutex);
    pthread_mutex_unlock(&bus->mutex);
    if (bus->has_timer)
        pthread_join(bus->timer, NULL);
}

static void free_bus(struct memory_bus *bus)
{
    while (bus->groups != NULL)
        event_bus_memory_group_free(bus, bus->groups);
    while (bus->streams != NULL) {
        struct memory_stream *stream = bus->streams;
        bus->streams = stream->next;
        event_bus_memory_stream_free(bus, stream);
    }
    subject_index_destroy(bus->stream_index);
    event_bus_memory_heap_free(&bus->timers);
    free(bus->matches);
    pthread_cond_destroy(&bus->idle);
    pthread_cond_destroy(&bus->wake);
    pthread_mutex_destroy(&bus->mutex);
    free(bus);
}

static void destroy(struct event_bus *base)
{
    event_bus_fini(base);
    free_bus(memory_bus_of(base));
}

static const struct event_bus_ops memory_ops = {
    .kind = "memory",
    .publish_async = event_bus_memory_publish,
    .declare_stream = event_bus_memory_declare,
    .stream_info = event_bus_memory_stream_info,
    .stream_for = event_bus_memory_stream_for,
    .delete_stream = event_bus_memory_delete_stream,
    .get = get,
    .scan = event_bus_memory_scan,
    .start = event_bus_memory_start,
    .stop = event_bus_memory_stop,
    .resume = event_bus_memory_resume,
    .streams = event_bus_memory_source_streams,
    .settle = event_bus_memory_settle,
    .delete_durable = event_bus_memory_delete_durable,
    .health = health,
    .close = close_bus,
    .destroy = destroy,
};

/* ---- making ---------------------------------------------------------------------------------- */

static bool init_locks(struct memory_bus *bus)
{
    if (wb_cond_init(&bus->wake) != 0)
        return false;
    if (pthread_cond_init(&bus->idle, NULL) != 0)
        goto destroy_wake;
    if (pthread_mutex_init(&bus->mutex, NULL) != 0)
        goto destroy_idle;
    return true;

destroy_idle:
    pthread_cond_destroy(&bus->idle);
destroy_wake:
    pthread_cond_destroy(&bus->wake);
    return false;
}

static struct memory_bus *bus_new(const struct event_bus_memory_options *options)
{
    struct memory_bus *bus = calloc(1, sizeof(*bus));

    if (bus == NULL)
        return NULL;
    if (subject_index_create(&bus->stream_index) != WB_OK)
        goto free_bus;
    if (!init_locks(bus))
        goto destroy_index;
    bus->manual = options->manual;
    bus->max_payload = options->max_payload > 0 ? options->max_payload : MESSAGE_PAYLOAD_MAX;
    bus->connections = 1;
    wb_rng_seed(&bus->rng, options->seed);
    /* Monotonic time starts with a second, so that no duration reaches before its beginning. */
    wb_clock_virtual_init(&bus->virtual_clock, WB_SEC, options->start_wall_ns);
    return bus;

destroy_index:
    subject_index_destroy(bus->stream_index);
free_bus:
    free(bus);
    return NULL;
}

static uint32_t worker_count(const struct event_bus_memory_options *options)
{
    if (options->manual)
        return 0;
    return options->workers > 0 ? options->workers : WORKERS_DEFAULT;
}

wb_err event_bus_memory_create(const struct event_bus_memory_options *options,
                               struct event_bus **ret_bus)
{
    const struct event_bus_memory_options defaults = {0};
    const struct event_bus_memory_options *o = options != NULL ? options : &defaults;
    struct memory_bus *bus = bus_new(o);

    if (bus == NULL)
        return WB_NOMEM;
    struct event_bus_settings settings = {.observe = o->observe, .workers = worker_count(o)};
    if (o->manual)
        settings.clock = &bus->virtual_clock.clock;
    if (event_bus_init(&bus->base, &memory_ops, &settings) != WB_OK) {
        free_bus(bus);
        return WB_NOMEM;
    }
    bus->since_mono_ns = memory_now(bus);
    if (!o->manual) {
        if (pthread_create(&bus->timer, NULL, run_timer, bus) != 0) {
            destroy(&bus->base);
            return WB_NOMEM;
        }
        bus->has_timer = true;
    }
    event_bus_notify(&bus->base, true);
    *ret_bus = &bus->base;
    return WB_OK;
}
