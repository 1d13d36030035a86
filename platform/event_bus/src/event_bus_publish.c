#include "event_bus_private.h"

#include <assert.h>
#include <stdlib.h>

#include <waybill/subject.h>

#define TIMEOUT_DEFAULT_NS (5 * WB_SEC)
#define RETRY_MIN_NS       (10 * WB_MS)
#define RETRY_MAX_NS       (250 * WB_MS)

/* ---- one publish on its way ------------------------------------------------------------------ */

/* Stands between the implementation's completion and the user's, to measure. */
struct in_flight {
    struct event_bus *bus;
    int64_t started_ns;
    event_bus_published done;
    void *ctx;
};

static struct observe_series *result_series(struct event_bus *bus, wb_err err, bool duplicate)
{
    size_t at = duplicate ? EVENT_BUS_ERR_COUNT : (size_t)err;
    struct observe_series *series = atomic_load(&bus->dispatcher->published[at]);

    if (series == NULL) {
        const char *label = duplicate ? "duplicate" : err == WB_OK ? "ok" : wb_err_name(err);
        series = observe_series(bus->settings.observe, OBSERVE_BUS_PUBLISHED, label);
        atomic_store(&bus->dispatcher->published[at], series);
    }
    return series;
}

static void answered(const struct in_flight *one, wb_err err, const struct event_bus_ack_info *ack)
{
    struct event_bus_dispatcher *d = one->bus->dispatcher;

    observe_add(d->in_flight, -1);
    observe_time(d->publish_seconds, wb_mono_ns(one->bus->settings.clock) - one->started_ns);
    observe_add(result_series(one->bus, err, err == WB_OK && ack->duplicate), 1);
}

static void sent(struct in_flight *one)
{
    one->started_ns = wb_mono_ns(one->bus->settings.clock);
    observe_add(one->bus->dispatcher->in_flight, 1);
}

/* The operation refused, so no completion will come. */
static void not_sent(const struct in_flight *one, wb_err err)
{
    observe_add(one->bus->dispatcher->in_flight, -1);
    observe_add(result_series(one->bus, err, false), 1);
}

/* ---- checks ---------------------------------------------------------------------------------- */

static size_t max_payload(struct event_bus *bus)
{
    size_t max = atomic_load(&bus->dispatcher->max_payload);

    if (max == 0) {
        struct event_bus_health health = {0};
        bus->ops->health(bus, &health);
        max = health.max_payload;
        atomic_store(&bus->dispatcher->max_payload, max);
    }
    return max > 0 ? max : MESSAGE_PAYLOAD_MAX; /* never connected yet: assume the default */
}

/* Else it would be another id, or several headers, on the way to a server. */
static wb_err check_expected_id(const char *id, struct wb_why *why)
{
    for (; *id != '\0'; id++)
        if (*id <= ' ' || *id > '~')
            return wb_fail(why, WB_INVALID,
                           "publish: last_msg_id has byte 0x%02x: no msg_id has that",
                           (unsigned char)*id);
    return WB_OK;
}

static wb_err check(struct event_bus *bus, const struct message *msg,
                    const struct event_bus_publish_options *options,
                    struct event_bus_publish_options *ret_complete, struct wb_why *why)
{
    assert(msg != NULL);
    *ret_complete = options != NULL ? *options : (struct event_bus_publish_options){0};
    if (ret_complete->timeout_ns == 0)
        ret_complete->timeout_ns = TIMEOUT_DEFAULT_NS;
    if (atomic_load(&bus->dispatcher->closed))
        return wb_fail(why, WB_CLOSED, "publish: the bus is closed");
    if (ret_complete->timeout_ns < 0)
        return wb_fail(why, WB_INVALID, "publish: the time-out is negative");

    wb_err err = subject_check(msg->subject, why);
    if (err == WB_OK)
        err = check_expected_id(ret_complete->last_msg_id, why);
    return err == WB_OK ? message_check(msg, max_payload(bus), why) : err;
}

/* ---- asynchronous ---------------------------------------------------------------------------- */

static void async_done(void *ctx, wb_err err, const struct event_bus_ack_info *ack,
                       const struct wb_why *why)
{
    struct in_flight *one = ctx;

    answered(one, err, ack);
    one->done(one->ctx, err, ack, why);
    free(one);
}

wb_err event_bus_publish_async(struct event_bus *bus, const struct message *msg,
                               const struct event_bus_publish_options *options,
                               event_bus_published done, void *ctx, struct wb_why *why)
{
    struct event_bus_publish_options complete;
    wb_err err = check(bus, msg, options, &complete, why);

    assert(done != NULL);
    if (err != WB_OK)
        return err;

    struct in_flight *one = malloc(sizeof(*one));
    if (one == NULL)
        return wb_fail(why, WB_NOMEM, "publish: out of memory");
    *one = (struct in_flight){.bus = bus, .done = done, .ctx = ctx};
    sent(one);
    err = bus->ops->publish_async(bus, msg, &complete, async_done, one, why);
    if (err != WB_OK) {
        not_sent(one, err);
        free(one);
    }
    return err;
}

/* ---- blocking -------------------------------------------------------------------------------- */

struct waiter {
    struct in_flight one;
    pthread_mutex_t mutex; /* guards the rest */
    pthread_cond_t answered;
    bool done;
    wb_err err;
    struct event_bus_ack_info ack;
    struct wb_why why;
};

static void waiter_done(void *ctx, wb_err err, const struct event_bus_ack_info *ack,
                        const struct wb_why *why)
{
    struct waiter *waiter = ctx;

    answered(&waiter->one, err, ack);
    pthread_mutex_lock(&waiter->mutex);
    waiter->err = err;
    waiter->ack = *ack;
    if (err != WB_OK && why != NULL)
        waiter->why = *why;
    waiter->done = true;
    pthread_cond_signal(&waiter->answered);
    pthread_mutex_unlock(&waiter->mutex);
}

/* Waits without a time-out of its own: the implementation promises one completion by the deadline,
 * and the waiter must not leave before it. */
static wb_err attempt(struct event_bus *bus, const struct message *msg,
                      const struct event_bus_publish_options *options,
                      struct event_bus_ack_info *ret_ack, struct wb_why *why)
{
    struct waiter waiter = {.one = {.bus = bus},
                            .mutex = PTHREAD_MUTEX_INITIALIZER,
                            .answered = PTHREAD_COND_INITIALIZER};

    sent(&waiter.one);
    wb_err err = bus->ops->publish_async(bus, msg, options, waiter_done, &waiter, why);
    if (err != WB_OK) {
        not_sent(&waiter.one, err);
        return err;
    }
    pthread_mutex_lock(&waiter.mutex);
    while (!waiter.done)
        pthread_cond_wait(&waiter.answered, &waiter.mutex);
    pthread_mutex_unlock(&waiter.mutex);
    *ret_ack = waiter.ack;
    if (waiter.err != WB_OK && why != NULL)
        *why = waiter.why;
    return waiter.err;
}

/* Sleep between two attempts; false when the bus is closed or its clock moves only by hand. */
static bool pause_before_retry(struct event_bus *bus, int64_t ns)
{
    struct event_bus_dispatcher *d = bus->dispatcher;
    int64_t until = wb_mono_ns(wb_clock_system()) + ns;
    bool waiting = bus->settings.workers > 0;

    pthread_mutex_lock(&d->mutex);
    while (waiting && !atomic_load(&d->closed))
        waiting = wb_cond_wait_until(&d->ending, &d->mutex, until);
    pthread_mutex_unlock(&d->mutex);
    return bus->settings.workers > 0 && !atomic_load(&d->closed);
}

/* Implementations answer NO_STREAM and NO_JETSTREAM only when a look-up has confirmed them. */
static bool worth_retrying(wb_err err)
{
    return wb_err_class(err) == WB_RETRY && err != WB_NO_STREAM && err != WB_NO_JETSTREAM;
}

static bool maybe_stored(wb_err err)
{
    return err == WB_TIMEOUT || err == WB_UNKNOWN;
}

static wb_err publish_until(struct event_bus *bus, const struct message *msg,
                            struct event_bus_publish_options options,
                            struct event_bus_ack_info *ret_ack, struct wb_why *why)
{
    const struct wb_clock *clock = bus->settings.clock;
    int64_t deadline = event_bus_deadline(clock, options.timeout_ns);
    bool once = msg->msg_id.len == 0 || options.expect_last_seq;
    bool maybe = false;
    struct wb_rng rng;
    wb_err err;

    wb_rng_seed(&rng, (uint64_t)deadline ^ wb_hash(msg->msg_id.ptr, msg->msg_id.len));
    for (unsigned n = 0;; n++) {
        err = attempt(bus, msg, &options, ret_ack, why);
        if (once || !worth_retrying(err))
            return err;
        maybe |= maybe_stored(err);
        int64_t pause =
            RETRY_MIN_NS + wb_backoff_ns(&rng, n, RETRY_MIN_NS, RETRY_MAX_NS - RETRY_MIN_NS);
        if (wb_mono_ns(clock) + pause >= deadline || !pause_before_retry(bus, pause))
            break;
        options.timeout_ns = deadline - wb_mono_ns(clock);
        if (options.timeout_ns <= 0)
            break;
    }
    if (maybe && !maybe_stored(err))
        return wb_fail(why, WB_UNKNOWN,
                       "publish '%.*s': an earlier attempt may have been stored, the last one said "
                       "%s; publish again under the same id",
                       (int)msg->subject.len, msg->subject.ptr, wb_err_name(err));
    return err;
}

wb_err event_bus_publish(struct event_bus *bus, const struct message *msg,
                         const struct event_bus_publish_options *options,
                         struct event_bus_ack_info *ret_ack, struct wb_why *why)
{
    struct event_bus_publish_options complete;
    struct event_bus_ack_info ack = {0};
    wb_err err = check(bus, msg, options, &complete, why);

    if (err == WB_OK)
        err = publish_until(bus, msg, complete, &ack, why);
    if (ret_ack != NULL && (err == WB_OK || err == WB_CONFLICT))
        *ret_ack = ack;
    return err;
}
