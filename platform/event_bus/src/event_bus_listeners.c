#include "event_bus_private.h"

#include <assert.h>
#include <string.h>

wb_err event_bus_listen(struct event_bus *bus, event_bus_listener listener, void *ctx)
{
    struct event_bus_dispatcher *d = bus->dispatcher;
    wb_err err = WB_FULL;

    assert(listener != NULL);
    pthread_mutex_lock(&d->listeners_mutex);
    for (size_t i = 0; i < EVENT_BUS_LISTENERS_MAX && err != WB_OK; i++)
        if (d->listeners[i].listener == NULL) {
            d->listeners[i] = (struct event_bus_listener_slot){listener, ctx};
            err = WB_OK;
        }
    pthread_mutex_unlock(&d->listeners_mutex);
    return err;
}

static bool same(const struct event_bus_listener_slot *slot, event_bus_listener listener, void *ctx)
{
    return slot->listener == listener && slot->ctx == ctx;
}

void event_bus_unlisten(struct event_bus *bus, event_bus_listener listener, void *ctx)
{
    struct event_bus_dispatcher *d = bus->dispatcher;

    pthread_mutex_lock(&d->listeners_mutex);
    for (size_t i = 0; i < EVENT_BUS_LISTENERS_MAX; i++)
        if (same(&d->listeners[i], listener, ctx))
            d->listeners[i].listener = NULL;
    while (d->notifying > 0 && !event_bus_frame_in(d))
        pthread_cond_wait(&d->listeners_idle, &d->listeners_mutex);
    pthread_mutex_unlock(&d->listeners_mutex);
}

/* Listeners run without the lock, so each is looked up again right before its call. */
static void call_listeners(struct event_bus_dispatcher *d, bool connected)
{
    for (size_t i = 0; i < EVENT_BUS_LISTENERS_MAX; i++) {
        struct event_bus_listener_slot slot = d->listeners[i];
        if (slot.listener == NULL)
            continue;
        pthread_mutex_unlock(&d->listeners_mutex);
        slot.listener(slot.ctx, connected);
        pthread_mutex_lock(&d->listeners_mutex);
    }
}

void event_bus_notify(struct event_bus *bus, bool connected)
{
    struct event_bus_dispatcher *d = bus->dispatcher;
    struct event_bus_frame frame;

    atomic_store(&d->max_payload, 0);
    observe_set(d->connected, connected);
    pthread_mutex_lock(&d->listeners_mutex);
    if (connected && d->was_connected)
        observe_add(d->reconnects, 1);
    d->was_connected |= connected;
    d->notifying++;
    event_bus_frame_push(&frame, d);
    call_listeners(d, connected);
    event_bus_frame_pop();
    if (--d->notifying == 0)
        pthread_cond_broadcast(&d->listeners_idle);
    pthread_mutex_unlock(&d->listeners_mutex);
}
