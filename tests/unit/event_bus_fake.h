/* event_bus_fake.h - a bus that does what a test says: it answers publishes from a script, and
 * offers what the test gives it. */
#ifndef EVENT_BUS_FAKE_H
#define EVENT_BUS_FAKE_H

#include "test_support.h"

#include <stdatomic.h>

#include <waybill/event_bus_impl.h>

#define FAKE_SCRIPT_MAX 16
#define FAKE_LOG_MAX    4096

struct fake_settled {
    uint64_t sequence;
    event_bus_verdict verdict;
    int64_t delay_ns;
};

struct fake_bus {
    struct event_bus base;          /* first */
    wb_err script[FAKE_SCRIPT_MAX]; /* answers to publishes; the last one repeats */
    size_t script_count;
    bool refuse_at_once; /* answers are returned, not completed */
    wb_err settle_result;
    struct event_bus_subscription *subscription; /* the one started */
    pthread_mutex_t mutex;                       /* guards the rest */
    size_t publishes;
    int64_t published_at_ns[FAKE_LOG_MAX];
    char last_id[MESSAGE_ID_MAX + 1];
    struct fake_settled settled[FAKE_LOG_MAX];
    size_t settled_count;
    size_t resumes;
    size_t stops;     /* for good */
    size_t destroyed; /* deliveries */
};

struct fake_delivery {
    struct event_bus_delivery_impl impl; /* first */
    struct fake_bus *bus;
};

static inline wb_err fake_publish(struct event_bus *self, const struct message *msg,
                                  const struct event_bus_publish_options *options,
                                  event_bus_published done, void *ctx, struct wb_why *why)
{
    struct fake_bus *fake = (struct fake_bus *)self;
    struct event_bus_ack_info ack = {{0}, 0, false};

    (void)options;
    pthread_mutex_lock(&fake->mutex);
    size_t n = fake->publishes++;
    if (n < FAKE_LOG_MAX)
        fake->published_at_ns[n] = wb_mono_ns(wb_clock_system());
    memcpy(fake->last_id, msg->msg_id.ptr != NULL ? msg->msg_id.ptr : "", msg->msg_id.len);
    fake->last_id[msg->msg_id.len] = '\0';
    wb_err err = fake->script[n < fake->script_count ? n : fake->script_count - 1];
    pthread_mutex_unlock(&fake->mutex);
    if (err != WB_OK && fake->refuse_at_once)
        return wb_fail(why, err, "by the script");
    ack.sequence = n + 1;
    done(ctx, err, &ack, why);
    return WB_OK;
}

static inline wb_err fake_start(struct event_bus *self, struct event_bus_subscription *subscription,
                                void **ret_source, struct wb_why *why)
{
    (void)why;
    ((struct fake_bus *)self)->subscription = subscription;
    *ret_source = self;
    return WB_OK;
}

static inline void fake_stop(struct event_bus *self, void *source, bool keep_settling)
{
    struct fake_bus *fake = (struct fake_bus *)self;

    assert_ptr_equal(source, self);
    pthread_mutex_lock(&fake->mutex);
    fake->stops += !keep_settling;
    pthread_mutex_unlock(&fake->mutex);
}

static inline void fake_resume(struct event_bus *self, void *source)
{
    struct fake_bus *fake = (struct fake_bus *)self;

    (void)source;
    pthread_mutex_lock(&fake->mutex);
    fake->resumes++;
    pthread_mutex_unlock(&fake->mutex);
}

static inline size_t fake_streams(struct event_bus *self, void *source)
{
    (void)self;
    (void)source;
    return 1;
}

static inline wb_err fake_settle(struct event_bus *self, void *source,
                                 struct event_bus_delivery_impl *delivery,
                                 event_bus_verdict verdict, int64_t delay_ns)
{
    struct fake_bus *fake = (struct fake_bus *)self;

    (void)source;
    pthread_mutex_lock(&fake->mutex);
    if (fake->settle_result == WB_OK && fake->settled_count < FAKE_LOG_MAX)
        fake->settled[fake->settled_count++] =
            (struct fake_settled){delivery->view.sequence, verdict, delay_ns};
    wb_err err = fake->settle_result;
    pthread_mutex_unlock(&fake->mutex);
    return err;
}

static inline void fake_health(struct event_bus *self, struct event_bus_health *ret_health)
{
    (void)self;
    *ret_health = (struct event_bus_health){.connected = true, .max_payload = 1000};
}

static inline void fake_close(struct event_bus *self)
{
    (void)self;
}

/* The fake itself belongs to the test. */
static inline void fake_destroy(struct event_bus *self)
{
    event_bus_fini(self);
}

static inline void fake_delivery_destroy(struct event_bus_delivery_impl *impl)
{
    struct fake_delivery *delivery = (struct fake_delivery *)impl;

    pthread_mutex_lock(&delivery->bus->mutex);
    delivery->bus->destroyed++;
    pthread_mutex_unlock(&delivery->bus->mutex);
    free(delivery);
}

/* Only what these tests reach is filled in. */
static const struct event_bus_ops fake_ops = {.kind = "fake",
                                              .publish_async = fake_publish,
                                              .start = fake_start,
                                              .stop = fake_stop,
                                              .resume = fake_resume,
                                              .streams = fake_streams,
                                              .settle = fake_settle,
                                              .health = fake_health,
                                              .close = fake_close,
                                              .destroy = fake_destroy};

static inline void fake_init(struct fake_bus *fake, uint32_t workers, const struct wb_clock *clock,
                             struct observe *observe)
{
    const struct event_bus_settings settings = {
        .workers = workers, .clock = clock, .observe = observe};

    *fake = (struct fake_bus){.script_count = 1, .mutex = PTHREAD_MUTEX_INITIALIZER};
    assert_ok(event_bus_init(&fake->base, &fake_ops, &settings));
}

/* Offer sequence n of stream S; false when it was refused. */
static inline bool fake_offer(struct fake_bus *fake, uint64_t sequence, uint32_t deliveries)
{
    struct fake_delivery *delivery = calloc(1, sizeof(*delivery));

    assert_non_null(delivery);
    event_bus_delivery_init(&delivery->impl);
    delivery->bus = fake;
    delivery->impl.view = (struct event_bus_delivery){.message = {.subject = wb_str("a.b")},
                                                      .stream = wb_str("S"),
                                                      .sequence = sequence,
                                                      .deliveries = deliveries};
    delivery->impl.destroy = fake_delivery_destroy;
    if (event_bus_offer(fake->subscription, &delivery->impl))
        return true;
    free(delivery);
    return false;
}

#endif /* EVENT_BUS_FAKE_H */
