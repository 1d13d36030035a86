#include "event_bus_private.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A queue holds twice what may be unsettled in one stream, so that redeliveries and a second stream
 * find room, and no less than this. */
#define QUEUE_MIN 1024

/* ---- making ---------------------------------------------------------------------------------- */

/* One block for all pattern strings, one for the pointers to them. */
static bool copy_patterns(struct event_bus_subscription *s,
                          const struct event_bus_subscription_options *options)
{
    size_t size = 0;

    assert(options->pattern_count > 0);
    for (size_t i = 0; i < options->pattern_count; i++)
        size += strlen(options->patterns[i]) + 1;
    const char **patterns = calloc(options->pattern_count, sizeof(*patterns));
    char *text = malloc(size);
    s->options.patterns = patterns;
    s->patterns_text = text;
    if (patterns == NULL || text == NULL)
        return false;
    for (size_t i = 0; i < options->pattern_count; i++) {
        size_t len = strlen(options->patterns[i]) + 1;
        memcpy(text, options->patterns[i], len);
        patterns[i] = text;
        text += len;
    }
    return true;
}

static bool copy_name(const char **name)
{
    if (*name == NULL)
        return true;
    *name = wb_str_dup(wb_str(*name));
    return *name != NULL;
}

static bool copy_backoff(struct event_bus_subscription *s,
                         const struct event_bus_subscription_options *options)
{
    if (options->backoff_count == 0)
        return true;

    int64_t *backoff = calloc(options->backoff_count, sizeof(*backoff));
    if (backoff == NULL)
        return false;
    memcpy(backoff, options->backoff_ns, options->backoff_count * sizeof(*backoff));
    s->options.backoff_ns = backoff;
    return true;
}

static void free_options(struct event_bus_subscription *s)
{
    /* The copies are ours, although the options name them as constant. */
    union {
        const void *constant;
        void *ours;
    } copies[] = {{s->options.patterns},
                  {s->options.durable},
                  {s->options.queue_group},
                  {s->options.backoff_ns}};

    for (size_t i = 0; i < sizeof(copies) / sizeof(copies[0]); i++)
        free(copies[i].ours);
    free(s->patterns_text);
}

static bool locks_init(struct event_bus_subscription *s)
{
    if (pthread_mutex_init(&s->mutex, NULL) != 0)
        return false;
    if (wb_cond_init(&s->changed) != 0)
        goto destroy_mutex;
    if (wb_cond_init(&s->arrived) != 0)
        goto destroy_changed;
    return true;

destroy_changed:
    pthread_cond_destroy(&s->changed);
destroy_mutex:
    pthread_mutex_destroy(&s->mutex);
    return false;
}

/* The name of a durable is a label of low cardinality; patterns of visitors are not. */
static void series_init(struct event_bus_subscription *s)
{
    const char *label = s->options.durable != NULL ? s->options.durable : "ephemeral";
    struct observe *observe = s->bus->settings.observe;

    s->delivered_series = observe_series(observe, OBSERVE_BUS_DELIVERED, label);
    s->redelivered_series = observe_series(observe, OBSERVE_BUS_REDELIVERED, label);
    s->given_up_series = observe_series(observe, OBSERVE_BUS_GIVEN_UP, label);
}

static size_t queue_max(const struct event_bus_subscription_options *options)
{
    size_t max = 2 * (size_t)options->max_ack_pending;

    return max > QUEUE_MIN ? max : QUEUE_MIN;
}

static struct event_bus_subscription *
subscription_create(struct event_bus *bus, const struct event_bus_subscription_options *options)
{
    struct event_bus_subscription *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return NULL;
    s->bus = bus;
    s->options = *options;
    s->options.backoff_ns = NULL;
    s->queue_max = queue_max(options);
    s->fd = -1;
    atomic_init(&s->references, 1);
    /* Every copy is tried, so that free_options() finds copies only. */
    bool copied = copy_name(&s->options.durable);
    copied &= copy_name(&s->options.queue_group);
    copied &= copy_patterns(s, options);
    copied &= copy_backoff(s, options);
    if (!copied || !locks_init(s)) {
        free_options(s);
        free(s);
        return NULL;
    }
    series_init(s);
    return s;
}

void event_bus_subscription_unref(struct event_bus_subscription *s)
{
    if (atomic_fetch_sub(&s->references, 1) != 1)
        return;
    assert(s->first == NULL);
    if (s->fd >= 0)
        close(s->fd);
    free(s->failures.slots);
    pthread_cond_destroy(&s->arrived);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->mutex);
    free_options(s);
    free(s);
}

const struct event_bus_subscription_options *
event_bus_subscription_options_of(const struct event_bus_subscription *s)
{
    return &s->options;
}

/* false: the bus was closed meanwhile. */
static bool attach(struct event_bus_subscription *s)
{
    struct event_bus_dispatcher *d = s->bus->dispatcher;

    pthread_mutex_lock(&d->mutex);
    bool open = !atomic_load(&d->closed);
    if (open) {
        s->list_next = d->subscriptions;
        if (d->subscriptions != NULL)
            d->subscriptions->list_prev = s;
        d->subscriptions = s;
    }
    pthread_mutex_unlock(&d->mutex);
    return open;
}

void event_bus_subscription_detach(struct event_bus_subscription *s)
{
    struct event_bus_dispatcher *d = s->bus->dispatcher;

    pthread_mutex_lock(&d->mutex);
    if (s->list_next != NULL)
        s->list_next->list_prev = s->list_prev;
    if (s->list_prev != NULL)
        s->list_prev->list_next = s->list_next;
    else
        d->subscriptions = s->list_next;
    pthread_mutex_unlock(&d->mutex);
    event_bus_subscription_unref(s);
}

/* Offers may have come before; their handlers could not run without the source. */
static void started(struct event_bus_subscription *s, void *source)
{
    pthread_mutex_lock(&s->mutex);
    s->source = source;
    s->started = true;
    bool turn = s->options.handler != NULL && s->first != NULL;
    if (turn) {
        s->scheduled = true;
        atomic_fetch_add(&s->references, 1);
    }
    pthread_mutex_unlock(&s->mutex);
    if (turn)
        event_bus_schedule(s);
}

static void drop_queue(struct event_bus_subscription *s)
{
    struct event_bus_delivery_impl *delivery;

    pthread_mutex_lock(&s->mutex);
    s->ended = true;
    while ((delivery = event_bus_queue_pop(s)) != NULL) {
        pthread_mutex_unlock(&s->mutex);
        event_bus_release(&delivery->view);
        pthread_mutex_lock(&s->mutex);
    }
    pthread_mutex_unlock(&s->mutex);
}

wb_err event_bus_subscribe(struct event_bus *bus,
                           const struct event_bus_subscription_options *options,
                           struct event_bus_subscription **ret_subscription, struct wb_why *why)
{
    struct event_bus_subscription_options complete = *options;
    void *source = NULL;

    if (atomic_load(&bus->dispatcher->closed))
        return wb_fail(why, WB_CLOSED, "subscribe: the bus is closed");
    wb_err err = event_bus_check_subscription(&complete, why);
    if (err != WB_OK)
        return err;
    struct event_bus_subscription *s = subscription_create(bus, &complete);
    if (s == NULL)
        return wb_fail(why, WB_NOMEM, "subscribe: out of memory");
    err = bus->ops->start(bus, s, &source, why);
    if (err != WB_OK) {
        drop_queue(s);
        event_bus_subscription_unref(s);
        return err;
    }
    *ret_subscription = s; /* a handler may want it before this function has returned */
    if (!attach(s)) {
        s->source = source;
        event_bus_subscription_end(s);
        event_bus_subscription_unref(s);
        return wb_fail(why, WB_CLOSED, "subscribe: the bus was closed meanwhile");
    }
    started(s, source);
    return WB_OK;
}

/* ---- ending ---------------------------------------------------------------------------------- */

bool event_bus_enter(struct event_bus_subscription *s)
{
    pthread_mutex_lock(&s->mutex);
    bool open = !s->ended;
    s->inside += open;
    pthread_mutex_unlock(&s->mutex);
    return open;
}

/* What waits for a durable and was never handed out goes back at once, not after ack_wait. */
static void hand_back(struct event_bus_subscription *s)
{
    struct event_bus_delivery_impl *delivery;

    for (;;) {
        pthread_mutex_lock(&s->mutex);
        delivery = event_bus_queue_pop(s);
        pthread_mutex_unlock(&s->mutex);
        if (delivery == NULL)
            return;
        if (s->options.durable != NULL)
            (void)s->bus->ops->settle(s->bus, s->source, delivery, EVENT_BUS_NAK, 0);
        event_bus_release(&delivery->view);
    }
}

/* Once for each subscription; whoever comes second waits for the first. The mutex is held, nobody
 * is inside. */
static void finish(struct event_bus_subscription *s)
{
    if (s->finishing) {
        while (!s->finished)
            pthread_cond_wait(&s->changed, &s->mutex);
        return;
    }
    s->finishing = true;
    pthread_mutex_unlock(&s->mutex);
    s->bus->ops->stop(s->bus, s->source, true);
    hand_back(s);
    s->bus->ops->stop(s->bus, s->source, false);
    pthread_mutex_lock(&s->mutex);
    s->finished = true;
    pthread_cond_broadcast(&s->changed);
}

void event_bus_leave(struct event_bus_subscription *s)
{
    pthread_mutex_lock(&s->mutex);
    bool last = --s->inside == 0;
    bool free_it = last && s->self_ended;
    if (free_it)
        finish(s);
    else if (s->inside <= 1) /* 1: the one who drains */
        pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->mutex);
    if (free_it)
        event_bus_subscription_detach(s);
}

void event_bus_subscription_end(struct event_bus_subscription *s)
{
    pthread_mutex_lock(&s->mutex);
    s->ended = true;
    pthread_cond_broadcast(&s->arrived);
    while (s->inside > 0)
        pthread_cond_wait(&s->changed, &s->mutex);
    finish(s);
    pthread_mutex_unlock(&s->mutex);
}

void event_bus_unsubscribe(struct event_bus_subscription *s)
{
    if (s == NULL)
        return;
    if (event_bus_frame_in(s)) {
        pthread_mutex_lock(&s->mutex);
        s->ended = true;
        s->self_ended = true;
        pthread_mutex_unlock(&s->mutex);
        return;
    }
    event_bus_subscription_end(s);
    event_bus_subscription_detach(s);
}

/* Everything received has been handled, and everything handed out that can be settled is. Who
 * drains is inside, too. */
static bool idle(const struct event_bus_subscription *s)
{
    return s->first == NULL && s->live == 0 && s->inside == 1 && !s->scheduled;
}

static void wait_idle(struct event_bus_subscription *s, int64_t until)
{
    bool waiting = true;

    pthread_mutex_lock(&s->mutex);
    while (waiting && !s->ended && !idle(s))
        waiting = wb_cond_wait_until(&s->changed, &s->mutex, until);
    pthread_mutex_unlock(&s->mutex);
}

static void drain_inside(struct event_bus_subscription *s, int64_t until)
{
    s->bus->ops->stop(s->bus, s->source, true);
    if (s->bus->settings.workers > 0)
        wait_idle(s, until);
    else if (s->options.handler != NULL) /* without workers the caller does their work */
        event_bus_hand_out(s, SIZE_MAX);
    pthread_mutex_lock(&s->mutex);
    s->inside--; /* not event_bus_leave(): whoever drains ends it, even if its handler did */
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->mutex);
}

wb_err event_bus_drain(struct event_bus_subscription *s, int64_t timeout_ns, size_t *ret_left)
{
    int64_t until = event_bus_deadline(wb_clock_system(), timeout_ns);

    if (event_bus_frame_in(s))
        return WB_MISUSE;
    if (event_bus_enter(s))
        drain_inside(s, until);
    pthread_mutex_lock(&s->mutex);
    size_t left = s->queued + s->failures.handed;
    pthread_mutex_unlock(&s->mutex);
    event_bus_unsubscribe(s);
    if (ret_left != NULL)
        *ret_left = left;
    return left == 0 ? WB_OK : WB_TIMEOUT;
}

void event_bus_subscription_info(struct event_bus_subscription *s,
                                 struct event_bus_subscription_info *ret_info)
{
    size_t streams = 0;

    bool open = event_bus_enter(s);
    if (open)
        streams = s->bus->ops->streams(s->bus, s->source);
    pthread_mutex_lock(&s->mutex);
    *ret_info = (struct event_bus_subscription_info){.streams = streams,
                                                     .delivered = s->delivered,
                                                     .redelivered = s->redelivered,
                                                     .given_up = s->given_up,
                                                     .queued = s->queued,
                                                     .unsettled = s->failures.handed};
    pthread_mutex_unlock(&s->mutex);
    if (open)
        event_bus_leave(s);
}
