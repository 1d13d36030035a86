#include "event_bus_private.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Messages of one turn: enough to make the hand-over cheap, few enough to be fair. */
#define TURN_MAX 64

/* Bytes that wait for one subscription; the number is bounded by queue_max. */
#define QUEUE_BYTES_MAX (64U << 20)

/* ---- the pool of workers --------------------------------------------------------------------- */

static struct event_bus_subscription *run_pop(struct event_bus_dispatcher *d)
{
    struct event_bus_subscription *s = d->run_first;

    d->run_first = s->run_next;
    if (d->run_first == NULL)
        d->run_last = NULL;
    d->run_count--;
    return s;
}

void event_bus_schedule(struct event_bus_subscription *s)
{
    struct event_bus_dispatcher *d = s->bus->dispatcher;

    pthread_mutex_lock(&d->mutex);
    s->run_next = NULL;
    if (d->run_last != NULL)
        d->run_last->run_next = s;
    else
        d->run_first = s;
    d->run_last = s;
    d->run_count++;
    if (d->idle > 0)
        pthread_cond_signal(&d->work);
    pthread_mutex_unlock(&d->mutex);
}

static void *work(void *ctx)
{
    struct event_bus_dispatcher *d = ctx;

    pthread_mutex_lock(&d->mutex);
    for (;;) {
        while (!d->stopping && d->run_first == NULL) {
            d->idle++;
            pthread_cond_wait(&d->work, &d->mutex);
            d->idle--;
        }
        if (d->stopping)
            break;
        struct event_bus_subscription *s = run_pop(d);
        pthread_mutex_unlock(&d->mutex);
        event_bus_turn(s, TURN_MAX);
        pthread_mutex_lock(&d->mutex);
    }
    pthread_mutex_unlock(&d->mutex);
    return NULL;
}

wb_err event_bus_workers_start(struct event_bus *bus)
{
    struct event_bus_dispatcher *d = bus->dispatcher;

    if (bus->settings.workers == 0)
        return WB_OK;
    d->threads = calloc(bus->settings.workers, sizeof(*d->threads));
    if (d->threads == NULL)
        return WB_NOMEM;
    for (; d->thread_count < bus->settings.workers; d->thread_count++)
        if (pthread_create(&d->threads[d->thread_count], NULL, work, d) != 0)
            return WB_NOMEM;
    return WB_OK;
}

void event_bus_workers_stop(struct event_bus *bus)
{
    struct event_bus_dispatcher *d = bus->dispatcher;

    pthread_mutex_lock(&d->mutex);
    d->stopping = true;
    pthread_cond_broadcast(&d->work);
    pthread_mutex_unlock(&d->mutex);
    for (; d->thread_count > 0; d->thread_count--)
        pthread_join(d->threads[d->thread_count - 1], NULL);
    free(d->threads);
    d->threads = NULL;
    while (d->run_first != NULL)
        event_bus_subscription_unref(run_pop(d));
}

bool event_bus_dispatch_one(struct event_bus *bus, struct wb_rng *rng)
{
    struct event_bus_dispatcher *d = bus->dispatcher;

    pthread_mutex_lock(&d->mutex);
    if (d->run_count == 0) {
        pthread_mutex_unlock(&d->mutex);
        return false;
    }
    /* Turn the queue until the chosen one is in front. */
    for (uint64_t skip = wb_rng_below(rng, d->run_count); skip > 0; skip--) {
        d->run_last->run_next = d->run_first;
        d->run_last = d->run_first;
        d->run_first = d->run_first->run_next;
        d->run_last->run_next = NULL;
    }
    struct event_bus_subscription *s = run_pop(d);
    pthread_mutex_unlock(&d->mutex);
    event_bus_turn(s, 1);
    return true;
}

/* ---- the queue of a subscription ------------------------------------------------------------- */

static size_t bytes_of(const struct event_bus_delivery_impl *delivery)
{
    return sizeof(*delivery) + delivery->view.message.payload.len;
}

static bool queue_is_full(const struct event_bus_subscription *s)
{
    return s->queued >= s->queue_max || s->queued_bytes >= QUEUE_BYTES_MAX;
}

/* When a refused source may be asked for more. */
static bool queue_has_room(const struct event_bus_subscription *s)
{
    return s->queued <= s->queue_max / 2 && s->queued_bytes <= QUEUE_BYTES_MAX / 2;
}

static void queue_push(struct event_bus_subscription *s, struct event_bus_delivery_impl *delivery)
{
    delivery->next = NULL;
    if (s->last != NULL)
        s->last->next = delivery;
    else
        s->first = delivery;
    s->last = delivery;
    s->queued++;
    s->queued_bytes += bytes_of(delivery);
}

struct event_bus_delivery_impl *event_bus_queue_pop(struct event_bus_subscription *s)
{
    struct event_bus_delivery_impl *delivery = s->first;

    if (delivery == NULL)
        return NULL;
    s->first = delivery->next;
    if (s->first == NULL)
        s->last = NULL;
    s->queued--;
    s->queued_bytes -= bytes_of(delivery);
    return delivery;
}

/*
 * Enter an offered message into the table of unsettled ones. false: an earlier copy still waits in
 * the queue, so this one is not needed. That a message comes again although we handed it out and
 * did not settle it means that ack_wait has passed, which is a failure.
 */
static bool admit(struct event_bus_subscription *s, struct event_bus_delivery_impl *delivery,
                  int64_t now)
{
    struct event_bus_failure *entry = event_bus_failures_add(&s->failures, &delivery->view, now);

    delivery->tracked = entry != NULL;
    if (entry == NULL)
        return true;
    if (delivery->view.deliveries <= 1)
        entry->failures = 0; /* a first delivery: an older entry is of a stream that is gone */
    else if (entry->place == EVENT_BUS_QUEUED && entry->copy != NULL)
        return false;
    else if (entry->place == EVENT_BUS_HANDED)
        entry->failures++;
    event_bus_failures_place(&s->failures, entry, EVENT_BUS_QUEUED);
    entry->copy = delivery;
    return true;
}

static void wake_poller(struct event_bus_subscription *s)
{
    pthread_cond_signal(&s->arrived);
    if (s->fd >= 0 && s->queued == 1)
        eventfd_write(s->fd, 1);
}

/* With the subscription's mutex held: does a turn have to be queued? Takes its reference. */
static bool wants_turn(struct event_bus_subscription *s)
{
    if (s->options.handler == NULL || !s->started || s->scheduled || s->ended || s->first == NULL)
        return false;
    s->scheduled = true;
    atomic_fetch_add(&s->references, 1);
    return true;
}

bool event_bus_offer(struct event_bus_subscription *s, struct event_bus_delivery_impl *delivery)
{
    int64_t now = wb_mono_ns(s->bus->settings.clock);

    pthread_mutex_lock(&s->mutex);
    if (s->ended || queue_is_full(s)) {
        s->refused = !s->ended;
        pthread_mutex_unlock(&s->mutex);
        return false;
    }
    delivery->subscription = s;
    delivery->offered_mono_ns = now;
    if (!s->options.ack_none && !admit(s, delivery, now)) {
        pthread_mutex_unlock(&s->mutex);
        delivery->subscription = NULL;
        event_bus_release(&delivery->view);
        return true;
    }
    atomic_fetch_add(&s->references, 1);
    queue_push(s, delivery);
    wake_poller(s);
    bool turn = wants_turn(s);
    pthread_mutex_unlock(&s->mutex);
    if (turn)
        event_bus_schedule(s);
    return true;
}

/* ---- handing out ----------------------------------------------------------------------------- */

enum handing { HAND_OUT, GIVE_UP, DROP };

/* A message that was settled through another copy while it waited is not handed out any more. */
static enum handing decide(struct event_bus_subscription *s,
                           const struct event_bus_delivery_impl *delivery)
{
    if (!delivery->tracked)
        return HAND_OUT;

    struct event_bus_failure *entry = event_bus_failures_find(&s->failures, &delivery->view);
    if (entry == NULL || entry->place != EVENT_BUS_QUEUED || entry->copy != delivery)
        return DROP;
    entry->copy = NULL;
    entry->keep_until_ns = wb_mono_ns(s->bus->settings.clock) + 2 * s->options.ack_wait_ns + WB_SEC;
    event_bus_failures_place(&s->failures, entry, EVENT_BUS_HANDED);
    return s->options.max_deliver > 0 && entry->failures >= s->options.max_deliver ? GIVE_UP
                                                                                   : HAND_OUT;
}

static void count_handed(struct event_bus_subscription *s, struct event_bus_delivery_impl *delivery)
{
    delivery->handed = true;
    s->delivered++;
    observe_add(s->delivered_series, 1);
    if (delivery->view.deliveries > 1) {
        s->redelivered++;
        observe_add(s->redelivered_series, 1);
    }
    s->live += !s->options.ack_none;
}

/*
 * The next message to hand out, for the caller to own; NULL when there is none. The mutex is held,
 * but released around what may call back. The caller is inside.
 */
static struct event_bus_delivery_impl *take(struct event_bus_subscription *s)
{
    struct event_bus_delivery_impl *delivery;

    while (!s->ended && (delivery = event_bus_queue_pop(s)) != NULL) {
        bool resume = s->refused && queue_has_room(s);
        enum handing what = decide(s, delivery);
        if (resume)
            s->refused = false;
        if (what == HAND_OUT)
            count_handed(s, delivery);
        if (what == HAND_OUT && !resume)
            return delivery;

        pthread_mutex_unlock(&s->mutex);
        if (resume)
            s->bus->ops->resume(s->bus, s->source);
        if (what == GIVE_UP)
            event_bus_give_up(s, delivery);
        if (what != HAND_OUT)
            event_bus_release(&delivery->view);
        pthread_mutex_lock(&s->mutex);
        if (what == HAND_OUT)
            return delivery;
    }
    return NULL;
}

static void call_handler(struct event_bus_subscription *s, struct event_bus_delivery_impl *delivery)
{
    struct event_bus_frame frame;

    event_bus_frame_push(&frame, s);
    s->options.handler(s->options.ctx, &delivery->view);
    event_bus_frame_pop();
    event_bus_release(&delivery->view);
}

void event_bus_hand_out(struct event_bus_subscription *s, size_t budget)
{
    struct event_bus_delivery_impl *delivery;

    pthread_mutex_lock(&s->mutex);
    while (budget-- > 0 && (delivery = take(s)) != NULL) {
        pthread_mutex_unlock(&s->mutex);
        call_handler(s, delivery);
        pthread_mutex_lock(&s->mutex);
    }
    pthread_mutex_unlock(&s->mutex);
}

void event_bus_turn(struct event_bus_subscription *s, size_t budget)
{
    bool again = false;

    if (event_bus_enter(s)) {
        event_bus_hand_out(s, budget);
        pthread_mutex_lock(&s->mutex);
        s->scheduled = false;
        again = wants_turn(s);
        if (s->first == NULL)
            pthread_cond_broadcast(&s->changed);
        pthread_mutex_unlock(&s->mutex);
        event_bus_leave(s);
    }
    if (again)
        event_bus_schedule(s);
    event_bus_subscription_unref(s);
}

/* ---- polling --------------------------------------------------------------------------------- */

/* The descriptor is readable exactly while the queue holds something. */
static void quiet_fd(struct event_bus_subscription *s)
{
    eventfd_t count;

    if (s->fd >= 0 && s->first == NULL)
        (void)eventfd_read(s->fd, &count); /* fails when it is quiet already */
}

/* Take up to max; waits for the first. The mutex is held. */
static size_t poll_queue(struct event_bus_subscription *s, size_t max, int64_t until,
                         struct event_bus_delivery **ret_deliveries)
{
    struct event_bus_delivery_impl *delivery;
    size_t count = 0;
    bool waiting = s->bus->settings.workers > 0;

    for (;;) {
        while (count < max && (delivery = take(s)) != NULL)
            ret_deliveries[count++] = &delivery->view;
        quiet_fd(s);
        if (count > 0 || s->ended || !waiting)
            return count;
        waiting = wb_cond_wait_until(&s->arrived, &s->mutex, until);
    }
}

wb_err event_bus_fetch(struct event_bus_subscription *s, size_t max, int64_t timeout_ns,
                       struct event_bus_delivery **ret_deliveries, size_t *ret_count)
{
    int64_t until = event_bus_deadline(wb_clock_system(), timeout_ns);

    assert(s->options.handler == NULL);
    *ret_count = 0;
    if (!event_bus_enter(s))
        return WB_CLOSED;
    pthread_mutex_lock(&s->mutex);
    *ret_count = poll_queue(s, max, until, ret_deliveries);
    wb_err err = *ret_count > 0 ? WB_OK : s->ended ? WB_CLOSED : WB_TIMEOUT;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->mutex);
    event_bus_leave(s);
    return err;
}

wb_err event_bus_next(struct event_bus_subscription *s, int64_t timeout_ns,
                      struct event_bus_delivery **ret_delivery)
{
    struct event_bus_delivery *delivery;
    size_t count;
    wb_err err = event_bus_fetch(s, 1, timeout_ns, &delivery, &count);

    if (err == WB_OK)
        *ret_delivery = delivery;
    return err;
}

int event_bus_fd(struct event_bus_subscription *s)
{
    pthread_mutex_lock(&s->mutex);
    if (s->fd < 0)
        s->fd = eventfd(s->first != NULL, EFD_NONBLOCK | EFD_CLOEXEC);
    int fd = s->fd;
    pthread_mutex_unlock(&s->mutex);
    return fd;
}
