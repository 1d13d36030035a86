#include "event_bus_private.h"

#include <assert.h>

/* ---- the life of a delivery ------------------------------------------------------------------ */

static struct event_bus_delivery_impl *impl_of(struct event_bus_delivery *delivery)
{
    return (struct event_bus_delivery_impl *)delivery;
}

void event_bus_delivery_init(struct event_bus_delivery_impl *delivery)
{
    delivery->subscription = NULL;
    delivery->next = NULL;
    delivery->offered_mono_ns = 0;
    delivery->tracked = false;
    delivery->handed = false;
    atomic_init(&delivery->references, 1);
    atomic_init(&delivery->verdict, 0);
}

struct event_bus_delivery *event_bus_retain(struct event_bus_delivery *delivery)
{
    atomic_fetch_add_explicit(&impl_of(delivery)->references, 1, memory_order_relaxed);
    return delivery;
}

/* One that was handed out cannot be settled any more: those who drain need not wait for it. */
static void no_longer_live(struct event_bus_subscription *s)
{
    pthread_mutex_lock(&s->mutex);
    if (--s->live == 0)
        pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->mutex);
}

void event_bus_release(struct event_bus_delivery *delivery)
{
    struct event_bus_delivery_impl *impl = impl_of(delivery);

    if (delivery == NULL || atomic_fetch_sub(&impl->references, 1) != 1)
        return;

    struct event_bus_subscription *s = impl->subscription;
    bool abandoned =
        s != NULL && impl->handed && !s->options.ack_none && atomic_load(&impl->verdict) == 0;
    impl->destroy(impl);
    if (abandoned)
        no_longer_live(s);
    if (s != NULL)
        event_bus_subscription_unref(s);
}

/* ---- verdicts -------------------------------------------------------------------------------- */

static void late_ack_check(struct event_bus_subscription *s,
                           const struct event_bus_delivery_impl *delivery)
{
    if (wb_mono_ns(s->bus->settings.clock) - delivery->offered_mono_ns > s->options.ack_wait_ns)
        observe_add(s->bus->dispatcher->late_acks, 1);
}

static void count_settled(struct event_bus_subscription *s, event_bus_verdict verdict)
{
    observe_add(s->bus->dispatcher->settled[verdict], 1);
}

/* The message is settled: forget its failures. */
static void forget(struct event_bus_subscription *s, struct event_bus_delivery_impl *delivery)
{
    pthread_mutex_lock(&s->mutex);
    struct event_bus_failure *entry = event_bus_failures_find(&s->failures, &delivery->view);
    if (entry != NULL)
        event_bus_failures_remove(&s->failures, entry);
    if (delivery->handed && --s->live == 0)
        pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->mutex);
}

static wb_err settle_for_good(struct event_bus_subscription *s,
                              struct event_bus_delivery_impl *delivery, event_bus_verdict verdict)
{
    wb_err err = s->bus->ops->settle(s->bus, s->source, delivery, verdict, 0);

    if (err != WB_OK) {
        atomic_store(&delivery->verdict, 0);
        return err;
    }
    if (verdict == EVENT_BUS_ACK)
        late_ack_check(s, delivery);
    count_settled(s, verdict);
    forget(s, delivery);
    return WB_OK;
}

void event_bus_give_up(struct event_bus_subscription *s, struct event_bus_delivery_impl *delivery)
{
    struct event_bus_frame frame;

    atomic_store(&delivery->verdict, EVENT_BUS_TERM);
    if (s->options.given_up != NULL) {
        event_bus_frame_push(&frame, s);
        s->options.given_up(s->options.ctx, &delivery->view);
        event_bus_frame_pop();
    }
    observe_add(s->given_up_series, 1);
    pthread_mutex_lock(&s->mutex);
    s->given_up++;
    pthread_mutex_unlock(&s->mutex);
    if (settle_for_good(s, delivery, EVENT_BUS_TERM) != WB_OK)
        wb_log(WB_LOG_WARN, "event_bus", "could not end message %llu, it will come again",
               (unsigned long long)delivery->view.sequence);
}

static int64_t backoff(const struct event_bus_subscription_options *options, uint32_t failures)
{
    size_t at = failures > 0 ? failures - 1 : 0;

    if (options->backoff_count == 0)
        return 0;
    return options->backoff_ns[at < options->backoff_count ? at : options->backoff_count - 1];
}

/* Note one more failure before the bus hears of it, because the message may come again at once.
 * Returns how many there are. */
static uint32_t count_nak(struct event_bus_subscription *s,
                          struct event_bus_delivery_impl *delivery, int64_t delay_ns)
{
    uint32_t failures = 1;

    pthread_mutex_lock(&s->mutex);
    struct event_bus_failure *entry = event_bus_failures_find(&s->failures, &delivery->view);
    if (entry != NULL && entry->place == EVENT_BUS_HANDED) {
        failures = ++entry->failures;
        if (delay_ns < 0)
            delay_ns = backoff(&s->options, failures);
        entry->keep_until_ns = event_bus_deadline(
            s->bus->settings.clock,
            delay_ns < INT64_MAX / 4 ? delay_ns + 2 * s->options.ack_wait_ns + WB_SEC : INT64_MAX);
        event_bus_failures_place(&s->failures, entry, EVENT_BUS_NAKED);
    }
    pthread_mutex_unlock(&s->mutex);
    return failures;
}

/* The bus did not take the nak: as if it had not been said. */
static void uncount_nak(struct event_bus_subscription *s, struct event_bus_delivery_impl *delivery)
{
    pthread_mutex_lock(&s->mutex);
    struct event_bus_failure *entry = event_bus_failures_find(&s->failures, &delivery->view);
    if (entry != NULL && entry->place == EVENT_BUS_NAKED) {
        entry->failures--;
        event_bus_failures_place(&s->failures, entry, EVENT_BUS_HANDED);
    }
    pthread_mutex_unlock(&s->mutex);
    atomic_store(&delivery->verdict, 0);
}

static wb_err settle_nak(struct event_bus_subscription *s, struct event_bus_delivery_impl *delivery,
                         int64_t delay_ns)
{
    uint32_t failures = count_nak(s, delivery, delay_ns);

    if (s->options.max_deliver > 0 && failures >= s->options.max_deliver) {
        event_bus_give_up(s, delivery);
        return WB_OK;
    }
    if (delay_ns < 0)
        delay_ns = backoff(&s->options, failures);
    wb_err err = s->bus->ops->settle(s->bus, s->source, delivery, EVENT_BUS_NAK, delay_ns);
    if (err != WB_OK) {
        uncount_nak(s, delivery);
        return err;
    }
    count_settled(s, EVENT_BUS_NAK);
    no_longer_live(s);
    return WB_OK;
}

static wb_err settle_in_progress(struct event_bus_subscription *s,
                                 struct event_bus_delivery_impl *delivery)
{
    wb_err err = s->bus->ops->settle(s->bus, s->source, delivery, EVENT_BUS_IN_PROGRESS, 0);

    if (err != WB_OK)
        return err;
    pthread_mutex_lock(&s->mutex);
    delivery->offered_mono_ns = wb_mono_ns(s->bus->settings.clock);
    struct event_bus_failure *entry = event_bus_failures_find(&s->failures, &delivery->view);
    if (entry != NULL)
        entry->keep_until_ns = delivery->offered_mono_ns + 2 * s->options.ack_wait_ns + WB_SEC;
    pthread_mutex_unlock(&s->mutex);
    count_settled(s, EVENT_BUS_IN_PROGRESS);
    return WB_OK;
}

static wb_err settle_inside(struct event_bus_subscription *s,
                            struct event_bus_delivery_impl *delivery, event_bus_verdict verdict,
                            int64_t delay_ns)
{
    unsigned none = 0;

    if (verdict == EVENT_BUS_IN_PROGRESS)
        return atomic_load(&delivery->verdict) == 0 ? settle_in_progress(s, delivery) : WB_MISUSE;
    if (!atomic_compare_exchange_strong(&delivery->verdict, &none, (unsigned)verdict))
        return WB_MISUSE;
    if (verdict == EVENT_BUS_NAK)
        return settle_nak(s, delivery, delay_ns);
    return settle_for_good(s, delivery, verdict);
}

/* A callback of the subscription holds off its end anyway; others have to enter. */
static wb_err settle(struct event_bus_delivery *delivery, event_bus_verdict verdict,
                     int64_t delay_ns)
{
    struct event_bus_delivery_impl *impl = impl_of(delivery);
    struct event_bus_subscription *s = impl->subscription;

    if (s == NULL || s->options.ack_none)
        return WB_MISUSE;
    if (event_bus_frame_in(s))
        return settle_inside(s, impl, verdict, delay_ns);
    if (!event_bus_enter(s))
        return WB_CLOSED;
    wb_err err = settle_inside(s, impl, verdict, delay_ns);
    event_bus_leave(s);
    return err;
}

wb_err event_bus_ack(struct event_bus_delivery *delivery)
{
    return settle(delivery, EVENT_BUS_ACK, 0);
}

wb_err event_bus_nak(struct event_bus_delivery *delivery)
{
    return settle(delivery, EVENT_BUS_NAK, -1);
}

wb_err event_bus_nak_delay(struct event_bus_delivery *delivery, int64_t delay_ns)
{
    return settle(delivery, EVENT_BUS_NAK, delay_ns > 0 ? delay_ns : 0);
}

wb_err event_bus_term(struct event_bus_delivery *delivery)
{
    return settle(delivery, EVENT_BUS_TERM, 0);
}

wb_err event_bus_in_progress(struct event_bus_delivery *delivery)
{
    return settle(delivery, EVENT_BUS_IN_PROGRESS, 0);
}
