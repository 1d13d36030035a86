#include "contract.h"

#include <stdio.h>

/* ---- setting up and clearing away ------------------------------------------------------------ */

static int case_setup(void **state)
{
    const struct contract_bus *kind = *state;
    struct contract *c = calloc(1, sizeof(*c));

    if (c == NULL)
        return -1;
    c->kind = kind;
    assert_ok(observe_create(&c->observe));
    c->bus = kind->make(kind->ctx, c->observe);
    *state = c;
    return c->bus != NULL ? 0 : -1;
}

static int case_teardown(void **state)
{
    struct contract *c = *state;

    for (size_t i = 0; i < c->stream_count; i++)
        (void)event_bus_delete_stream(c->bus, c->streams[i], NULL);
    event_bus_destroy(c->bus);
    observe_destroy(c->observe);
    free(c);
    return 0;
}

/* Says why a case is left out. */
static bool can_run(const struct contract_bus *kind, const struct contract_case *one)
{
    const char *missing = NULL;

    if (one->needs_shared && !kind->shared)
        missing = "needs a bus that several handles share";
    else if (one->needs_server && kind->lose_server == NULL)
        missing = "needs a server that may be killed";
    else if (one->needs_delete && kind->delete_message == NULL)
        missing = "needs messages that may be deleted";
    if (missing != NULL)
        (void)printf("left out on %s: %s: %s\n", kind->kind, one->name, missing);
    return missing == NULL;
}

int contract_run(const struct contract_bus *bus)
{
    const struct contract_cases *const files[] = {
        &contract_stream_cases,  &contract_scan_cases,      &contract_subject_cases,
        &contract_publish_cases, &contract_subscribe_cases, &contract_durable_cases,
        &contract_settle_cases,  &contract_end_cases,       &contract_pipeline_cases,
    };
    struct CMUnitTest tests[256];
    size_t count = 0;
    union {
        const struct contract_bus *constant;
        void *state;
    } initial = {bus};

    for (size_t f = 0; f < sizeof(files) / sizeof(files[0]); f++)
        for (size_t i = 0; i < files[f]->count; i++) {
            const struct contract_case *one = &files[f]->cases[i];
            if (!can_run(bus, one))
                continue;
            assert_true(count < sizeof(tests) / sizeof(tests[0]));
            tests[count++] =
                (struct CMUnitTest){one->name, one->run, case_setup, case_teardown, initial.state};
        }
    return _cmocka_run_group_tests(bus->kind, tests, count, NULL, NULL);
}

/* ---- streams and publishing ------------------------------------------------------------------ */

void contract_stream_with(struct contract *c, const struct event_bus_stream_options *options)
{
    struct wb_why why = {{0}};
    wb_err err = event_bus_declare_stream(c->bus, options, EVENT_BUS_CREATE, &why);

    if (err != WB_OK)
        fail_msg("declare %s: %s", options->name, why.text);
    assert_true(c->stream_count < CONTRACT_STREAMS_MAX);
    c->streams[c->stream_count++] = options->name;
}

void contract_stream(struct contract *c, const char *name, const char *subject)
{
    contract_stream_with(c, &(struct event_bus_stream_options){
                                .name = name, .subjects = &subject, .subject_count = 1});
}

wb_err contract_publish_id(struct contract *c, const char *subject, const char *payload,
                           const char *msg_id, struct event_bus_ack_info *ret_ack)
{
    struct message msg = {.subject = wb_str(subject),
                          .payload = {payload, strlen(payload)},
                          .msg_id = wb_str(msg_id)};

    return event_bus_publish(c->bus, &msg, NULL, ret_ack, NULL);
}

uint64_t contract_publish(struct contract *c, const char *subject, const char *payload)
{
    struct event_bus_ack_info ack = {{0}, 0, false};

    assert_ok(contract_publish_id(c, subject, payload, NULL, &ack));
    return ack.sequence;
}

/* ---- the log of a subscription --------------------------------------------------------------- */

struct contract_log *contract_log_new(contract_act act)
{
    struct contract_log *log = calloc(1, sizeof(*log));

    assert_non_null(log);
    log->act = act;
    pthread_mutex_init(&log->mutex, NULL);
    assert_int_equal(wb_cond_init(&log->grown), 0);
    return log;
}

void contract_log_free(struct contract_log *log)
{
    pthread_cond_destroy(&log->grown);
    pthread_mutex_destroy(&log->mutex);
    free(log);
}

static void copy_text(char *out, size_t size, const void *ptr, size_t len)
{
    size_t n = len < size - 1 ? len : size - 1;

    if (n > 0)
        memcpy(out, ptr, n);
    out[n] = '\0';
}

static size_t record(struct contract_log *log, const struct event_bus_delivery *delivery)
{
    size_t n = log->count;

    if (n == CONTRACT_LOG_MAX)
        return n; /* the count tells that there were too many */
    struct contract_event *event = &log->events[n];
    copy_text(event->stream, sizeof(event->stream), delivery->stream.ptr, delivery->stream.len);
    copy_text(event->subject, sizeof(event->subject), delivery->message.subject.ptr,
              delivery->message.subject.len);
    copy_text(event->payload, sizeof(event->payload), delivery->message.payload.ptr,
              delivery->message.payload.len);
    event->sequence = delivery->sequence;
    event->deliveries = delivery->deliveries;
    event->at_ns = wb_mono_ns(wb_clock_system());
    log->count++;
    return n;
}

static void handle(void *ctx, struct event_bus_delivery *delivery)
{
    struct contract_log *log = ctx;

    pthread_mutex_lock(&log->mutex);
    size_t n = record(log, delivery);
    if (log->running++ > 0)
        log->overlapped = true;
    pthread_mutex_unlock(&log->mutex);

    if (log->act != NULL)
        log->act(log, delivery, n);
    else
        (void)event_bus_ack(delivery);

    pthread_mutex_lock(&log->mutex);
    log->running--;
    log->handled++;
    pthread_cond_broadcast(&log->grown);
    pthread_mutex_unlock(&log->mutex);
}

static void give_up(void *ctx, struct event_bus_delivery *delivery)
{
    struct contract_log *log = ctx;

    (void)delivery;
    pthread_mutex_lock(&log->mutex);
    log->given_up++;
    pthread_cond_broadcast(&log->grown);
    pthread_mutex_unlock(&log->mutex);
}

void contract_subscribe(struct contract *c, struct contract_log *log, const char *pattern,
                        const struct event_bus_subscription_options *options)
{
    struct event_bus_subscription_options o = {.start = EVENT_BUS_START_ALL};
    struct wb_why why = {{0}};

    if (options != NULL)
        o = *options;
    o.patterns = &pattern;
    o.pattern_count = 1;
    o.handler = handle;
    o.given_up = give_up;
    o.ctx = log;
    wb_err err = event_bus_subscribe(c->bus, &o, &log->subscription, &why);
    if (err != WB_OK)
        fail_msg("subscribe to %s: %s: %s", pattern, wb_err_name(err), why.text);
}

struct event_bus_subscription *contract_poll(struct contract *c, const char *pattern,
                                             const struct event_bus_subscription_options *options)
{
    struct event_bus_subscription_options o = {.start = EVENT_BUS_START_ALL};
    struct event_bus_subscription *subscription = NULL;
    struct wb_why why = {{0}};

    if (options != NULL)
        o = *options;
    o.patterns = &pattern;
    o.pattern_count = 1;
    wb_err err = event_bus_subscribe(c->bus, &o, &subscription, &why);
    if (err != WB_OK)
        fail_msg("subscribe to %s: %s: %s", pattern, wb_err_name(err), why.text);
    return subscription;
}

struct event_bus_delivery *contract_next(struct event_bus_subscription *subscription)
{
    struct event_bus_delivery *delivery = NULL;

    assert_ok(event_bus_next(subscription, CONTRACT_PATIENCE_NS, &delivery));
    return delivery;
}

void contract_expect(struct event_bus_subscription *subscription, uint64_t sequence,
                     uint32_t deliveries)
{
    struct event_bus_delivery *delivery = contract_next(subscription);

    assert_int_equal(delivery->sequence, sequence);
    assert_int_equal(delivery->deliveries, deliveries);
    assert_ok(event_bus_ack(delivery));
    event_bus_release(delivery);
}

void contract_expect_none(struct event_bus_subscription *subscription, int64_t for_ns)
{
    struct event_bus_delivery *delivery = NULL;
    wb_err err = event_bus_next(subscription, for_ns, &delivery);

    if (err == WB_OK)
        fail_msg("sequence %llu came, although nothing was due",
                 (unsigned long long)delivery->sequence);
    assert_err(err, WB_TIMEOUT);
}

/* Waits for a counter of the log; its last value. */
static size_t wait_counter(struct contract_log *log, const size_t *counter, size_t wanted)
{
    int64_t until = wb_mono_ns(wb_clock_system()) + CONTRACT_PATIENCE_NS;
    bool waiting = true;

    pthread_mutex_lock(&log->mutex);
    while (waiting && *counter < wanted)
        waiting = wb_cond_wait_until(&log->grown, &log->mutex, until);
    size_t got = *counter;
    pthread_mutex_unlock(&log->mutex);
    return got;
}

void contract_wait_events(struct contract_log *log, size_t count)
{
    size_t got = wait_counter(log, &log->handled, count);

    if (got < count)
        fail_msg("%zu of %zu deliveries came", got, count);
}

void contract_wait_given_up(struct contract_log *log, size_t count)
{
    size_t got = wait_counter(log, &log->given_up, count);

    if (got < count)
        fail_msg("%zu of %zu messages were given up", got, count);
}

size_t contract_events(struct contract_log *log)
{
    pthread_mutex_lock(&log->mutex);
    size_t count = log->count;
    pthread_mutex_unlock(&log->mutex);
    return count;
}

static bool is_settled(void *ctx)
{
    struct contract_log *log = ctx;
    struct event_bus_subscription_info info;

    event_bus_subscription_info(log->subscription, &info);
    return info.queued == 0 && info.unsettled == 0;
}

void contract_wait_settled(struct contract_log *log)
{
    assert_true(test_wait(is_settled, log, (int)(CONTRACT_PATIENCE_NS / WB_MS)));
}

void contract_assert_sequences(struct contract_log *log, const uint64_t *expected, size_t count)
{
    char got[512] = "";
    size_t len = 0;
    bool equal;

    pthread_mutex_lock(&log->mutex);
    equal = log->count == count;
    for (size_t i = 0; i < log->count; i++) {
        equal = equal && log->events[i].sequence == expected[i];
        if (len < sizeof(got) - 24)
            len += (size_t)snprintf(got + len, sizeof(got) - len, " %llu",
                                    (unsigned long long)log->events[i].sequence);
    }
    pthread_mutex_unlock(&log->mutex);
    if (!equal)
        fail_msg("got%s; expected %zu events", got, count);
}
