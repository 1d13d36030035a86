#include "event_bus_private.h"

#include <assert.h>
#include <stdlib.h>

#include <waybill/subject.h>

static _Thread_local struct event_bus_frame *innermost;

void event_bus_frame_push(struct event_bus_frame *frame, const void *whose)
{
    *frame = (struct event_bus_frame){.whose = whose, .outer = innermost};
    innermost = frame;
}

void event_bus_frame_pop(void)
{
    innermost = innermost->outer;
}

bool event_bus_frame_in(const void *whose)
{
    for (const struct event_bus_frame *frame = innermost; frame != NULL; frame = frame->outer)
        if (frame->whose == whose)
            return true;
    return false;
}

int64_t event_bus_deadline(const struct wb_clock *clock, int64_t timeout_ns)
{
    int64_t now = wb_mono_ns(clock);

    return timeout_ns > INT64_MAX - now ? INT64_MAX : now + timeout_ns;
}

/* ---- making and ending ----------------------------------------------------------------------- */

static void series_init(struct event_bus_dispatcher *d, struct observe *observe)
{
    d->publish_seconds = observe_series(observe, OBSERVE_BUS_PUBLISH_SECONDS, NULL);
    d->in_flight = observe_series(observe, OBSERVE_BUS_IN_FLIGHT, NULL);
    d->late_acks = observe_series(observe, OBSERVE_BUS_LATE_ACKS, NULL);
    d->connected = observe_series(observe, OBSERVE_BUS_CONNECTED, NULL);
    d->reconnects = observe_series(observe, OBSERVE_BUS_RECONNECTS, NULL);
    d->settled[EVENT_BUS_ACK] = observe_series(observe, OBSERVE_BUS_SETTLED, "ack");
    d->settled[EVENT_BUS_NAK] = observe_series(observe, OBSERVE_BUS_SETTLED, "nak");
    d->settled[EVENT_BUS_TERM] = observe_series(observe, OBSERVE_BUS_SETTLED, "term");
    d->settled[EVENT_BUS_IN_PROGRESS] = observe_series(observe, OBSERVE_BUS_SETTLED, "in_progress");
}

static wb_err locks_init(struct event_bus_dispatcher *d)
{
    if (pthread_mutex_init(&d->mutex, NULL) != 0)
        return WB_NOMEM;
    if (pthread_mutex_init(&d->listeners_mutex, NULL) != 0)
        goto destroy_mutex;
    if (pthread_cond_init(&d->work, NULL) != 0)
        goto destroy_listeners_mutex;
    if (pthread_cond_init(&d->listeners_idle, NULL) != 0)
        goto destroy_work;
    if (wb_cond_init(&d->ending) != 0)
        goto destroy_listeners_idle;
    return WB_OK;

destroy_listeners_idle:
    pthread_cond_destroy(&d->listeners_idle);
destroy_work:
    pthread_cond_destroy(&d->work);
destroy_listeners_mutex:
    pthread_mutex_destroy(&d->listeners_mutex);
destroy_mutex:
    pthread_mutex_destroy(&d->mutex);
    return WB_NOMEM;
}

wb_err event_bus_init(struct event_bus *bus, const struct event_bus_ops *ops,
                      const struct event_bus_settings *settings)
{
    struct event_bus_dispatcher *d = calloc(1, sizeof(*d));

    if (d == NULL)
        return WB_NOMEM;
    if (locks_init(d) != WB_OK) {
        free(d);
        return WB_NOMEM;
    }
    bus->ops = ops;
    bus->settings = *settings;
    if (bus->settings.clock == NULL)
        bus->settings.clock = wb_clock_system();
    bus->dispatcher = d;
    series_init(d, settings->observe);

    wb_err err = event_bus_workers_start(bus);
    if (err != WB_OK)
        event_bus_fini(bus);
    return err;
}

void event_bus_fini(struct event_bus *bus)
{
    struct event_bus_dispatcher *d = bus->dispatcher;

    event_bus_workers_stop(bus);
    pthread_cond_destroy(&d->ending);
    pthread_cond_destroy(&d->listeners_idle);
    pthread_cond_destroy(&d->work);
    pthread_mutex_destroy(&d->listeners_mutex);
    pthread_mutex_destroy(&d->mutex);
    free(d);
    bus->dispatcher = NULL;
}

/* A subscription that has not finished ending, with a reference; NULL when all have. */
static struct event_bus_subscription *next_to_end(struct event_bus_dispatcher *d)
{
    struct event_bus_subscription *s;

    pthread_mutex_lock(&d->mutex);
    for (s = d->subscriptions; s != NULL; s = s->list_next) {
        pthread_mutex_lock(&s->mutex);
        bool finished = s->finished;
        pthread_mutex_unlock(&s->mutex);
        if (!finished)
            break;
    }
    if (s != NULL)
        atomic_fetch_add(&s->references, 1);
    pthread_mutex_unlock(&d->mutex);
    return s;
}

static void silence_listeners(struct event_bus_dispatcher *d)
{
    pthread_mutex_lock(&d->listeners_mutex);
    for (size_t i = 0; i < EVENT_BUS_LISTENERS_MAX; i++)
        d->listeners[i].listener = NULL;
    while (d->notifying > 0)
        pthread_cond_wait(&d->listeners_idle, &d->listeners_mutex);
    pthread_mutex_unlock(&d->listeners_mutex);
}

void event_bus_close(struct event_bus *bus)
{
    struct event_bus_dispatcher *d = bus->dispatcher;
    struct event_bus_subscription *s;

    if (atomic_exchange(&d->closed, true))
        return;
    pthread_mutex_lock(&d->mutex);
    pthread_cond_broadcast(&d->ending);
    pthread_mutex_unlock(&d->mutex);
    while ((s = next_to_end(d)) != NULL) {
        assert(!event_bus_frame_in(s)); /* closing from a handler would wait for itself */
        event_bus_subscription_end(s);
        event_bus_subscription_unref(s);
    }
    bus->ops->close(bus);
    event_bus_workers_stop(bus);
    silence_listeners(d);
    observe_set(d->connected, 0);
}

void event_bus_destroy(struct event_bus *bus)
{
    if (bus == NULL)
        return;
    event_bus_close(bus);
    while (bus->dispatcher->subscriptions != NULL)
        event_bus_subscription_detach(bus->dispatcher->subscriptions);
    bus->ops->destroy(bus);
}

void event_bus_health(struct event_bus *bus, struct event_bus_health *ret_health)
{
    *ret_health = (struct event_bus_health){.durability = EVENT_BUS_DURABLE_UNKNOWN};
    bus->ops->health(bus, ret_health);
    if (atomic_load(&bus->dispatcher->closed))
        ret_health->connected = false;
}

const char *event_bus_kind(const struct event_bus *bus)
{
    return bus->ops->kind;
}

/* ---- streams --------------------------------------------------------------------------------- */

static wb_err check_open(struct event_bus *bus, const char *what, struct wb_why *why)
{
    if (atomic_load(&bus->dispatcher->closed))
        return wb_fail(why, WB_CLOSED, "%s: the bus is closed", what);
    return WB_OK;
}

static wb_err check_stream_name(struct event_bus *bus, const char *what, const char *stream,
                                struct wb_why *why)
{
    wb_err err = check_open(bus, what, why);

    return err == WB_OK ? subject_name_check(wb_str(stream), "stream", why) : err;
}

wb_err event_bus_declare_stream(struct event_bus *bus,
                                const struct event_bus_stream_options *options,
                                event_bus_provision mode, struct wb_why *why)
{
    struct event_bus_stream_options complete = *options;
    wb_err err = check_open(bus, "declare stream", why);

    if (err == WB_OK)
        err = event_bus_check_stream(&complete, why);
    return err == WB_OK ? bus->ops->declare_stream(bus, &complete, mode, why) : err;
}

wb_err event_bus_stream_info(struct event_bus *bus, const char *stream,
                             struct event_bus_stream_info *ret_info, struct wb_why *why)
{
    wb_err err = check_stream_name(bus, "stream info", stream, why);

    return err == WB_OK ? bus->ops->stream_info(bus, stream, ret_info, why) : err;
}

wb_err event_bus_stream_for(struct event_bus *bus, struct wb_str subject,
                            char ret_stream[EVENT_BUS_NAME_MAX + 1], struct wb_why *why)
{
    wb_err err = check_open(bus, "stream for a subject", why);

    if (err == WB_OK)
        err = subject_check(subject, why);
    return err == WB_OK ? bus->ops->stream_for(bus, subject, ret_stream, why) : err;
}

wb_err event_bus_delete_stream(struct event_bus *bus, const char *stream, struct wb_why *why)
{
    wb_err err = check_stream_name(bus, "delete stream", stream, why);

    return err == WB_OK ? bus->ops->delete_stream(bus, stream, why) : err;
}

wb_err event_bus_get(struct event_bus *bus, const char *stream, uint64_t sequence,
                     struct event_bus_delivery **ret_delivery, struct wb_why *why)
{
    struct event_bus_delivery_impl *delivery;
    wb_err err = check_stream_name(bus, "get", stream, why);

    if (err != WB_OK)
        return err;
    if (sequence == 0)
        return wb_fail(why, WB_NOT_FOUND, "get from stream '%s': sequences begin with 1", stream);
    err = bus->ops->get(bus, stream, sequence, &delivery, why);
    if (err == WB_OK)
        *ret_delivery = &delivery->view;
    return err;
}

wb_err event_bus_scan(struct event_bus *bus, const char *stream, uint64_t from, uint64_t to,
                      event_bus_scan_visit visit, void *ctx, uint64_t *ret_next, struct wb_why *why)
{
    struct event_bus_stream_info info;
    wb_err err = event_bus_stream_info(bus, stream, &info, why);

    *ret_next = from > 0 ? from : 1;
    if (err != WB_OK)
        return err;
    to = to < info.last_seq ? to : info.last_seq;
    from = *ret_next > info.first_seq ? *ret_next : info.first_seq;
    if (*ret_next > to)
        return WB_OK;
    if (from <= to)
        return bus->ops->scan(bus, stream, from, to, visit, ctx, ret_next, why);
    *ret_next = to + 1; /* gone by the limits */
    return WB_OK;
}

wb_err event_bus_delete_durable(struct event_bus *bus, const char *durable, struct wb_why *why)
{
    wb_err err = check_open(bus, "delete durable", why);

    if (err == WB_OK)
        err = subject_name_check(wb_str(durable), "durable", why);
    return err == WB_OK ? bus->ops->delete_durable(bus, durable, why) : err;
}
