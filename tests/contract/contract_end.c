/* Ending: unsubscribe, drain, close, destroy; and what health and listeners say. */
#include "contract.h"

#include <stdatomic.h>

/* A handler that stops at its gate, to be let through by the test. */
struct gate {
    pthread_mutex_t mutex; /* guards the rest */
    pthread_cond_t moved;
    bool reached;
    bool open;
    bool passed;
    bool ended; /* what was waited for has returned */
};

static struct gate gate_new(void)
{
    return (struct gate){.mutex = PTHREAD_MUTEX_INITIALIZER, .moved = PTHREAD_COND_INITIALIZER};
}

static void gate_set(struct gate *gate, bool *what)
{
    pthread_mutex_lock(&gate->mutex);
    *what = true;
    pthread_cond_broadcast(&gate->moved);
    pthread_mutex_unlock(&gate->mutex);
}

static void gate_wait(struct gate *gate, const bool *what)
{
    pthread_mutex_lock(&gate->mutex);
    while (!*what)
        pthread_cond_wait(&gate->moved, &gate->mutex);
    pthread_mutex_unlock(&gate->mutex);
}

static bool gate_is(struct gate *gate, const bool *what)
{
    pthread_mutex_lock(&gate->mutex);
    bool is = *what;
    pthread_mutex_unlock(&gate->mutex);
    return is;
}

static void stop_at_gate(struct contract_log *log, struct event_bus_delivery *delivery, size_t n)
{
    struct gate *gate = log->ctx;

    if (n == 0) {
        gate_set(gate, &gate->reached);
        gate_wait(gate, &gate->open);
        (void)event_bus_ack(delivery);
        gate_set(gate, &gate->passed);
    } else {
        (void)event_bus_ack(delivery);
    }
}

static void publish_some(struct contract *c, int count)
{
    for (int i = 0; i < count; i++)
        contract_publish(c, "orders.a", "x");
}

/* ---- unsubscribe ----------------------------------------------------------------------------- */

struct ending {
    struct contract_log *log;
    struct gate *gate;
    struct event_bus *bus;
};

static void *unsubscribe(void *ctx)
{
    struct ending *ending = ctx;

    event_bus_unsubscribe(ending->log->subscription);
    /* The handler was at work when this began: it must be over now. */
    bool passed = gate_is(ending->gate, &ending->gate->passed);
    gate_set(ending->gate, &ending->gate->ended);
    return passed ? ctx : NULL;
}

static void unsubscribe_waits_for_the_handler_at_work(void **state)
{
    struct contract *c = *state;
    struct gate gate = gate_new();
    struct contract_log *log = contract_log_new(stop_at_gate);
    struct ending ending = {.log = log, .gate = &gate};
    pthread_t thread;
    void *passed;

    log->ctx = &gate;
    contract_stream(c, "ORDERS", "orders.>");
    publish_some(c, 10);
    contract_subscribe(c, log, "orders.>", NULL);
    gate_wait(&gate, &gate.reached);
    assert_int_equal(pthread_create(&thread, NULL, unsubscribe, &ending), 0);
    assert_false(gate_is(&gate, &gate.ended));
    gate_set(&gate, &gate.open);
    pthread_join(thread, &passed);
    assert_ptr_equal(passed, &ending);
    size_t count = contract_events(log);
    publish_some(c, 5);
    assert_int_equal(contract_events(log), count);
    contract_log_free(log);
}

static void unsubscribe_itself(struct contract_log *log, struct event_bus_delivery *delivery,
                               size_t n)
{
    (void)n;
    if (delivery->sequence == 3) {
        event_bus_unsubscribe(log->subscription);
        (void)event_bus_ack(delivery);
        pthread_mutex_lock(&log->mutex);
        log->given_up = 1; /* serves as "done" here */
        pthread_cond_broadcast(&log->grown);
        pthread_mutex_unlock(&log->mutex);
    } else {
        (void)event_bus_ack(delivery);
    }
}

static void unsubscribe_inside_the_handler_is_the_last_it_sees(void **state)
{
    struct contract *c = *state;
    struct contract_log *log = contract_log_new(unsubscribe_itself);

    contract_stream(c, "ORDERS", "orders.>");
    publish_some(c, 10);
    /* A durable, because a new holder proves that the first has let go and what it settled. */
    const struct event_bus_subscription_options options = {
        .start = EVENT_BUS_START_ALL, .durable = "worker", .ack_wait_ns = 500 * WB_MS};
    struct event_bus_subscription *next = NULL;
    const char *pattern = "orders.>";
    struct event_bus_subscription_options again = options;
    again.patterns = &pattern;
    again.pattern_count = 1;

    contract_subscribe(c, log, "orders.>", &options);
    contract_wait_given_up(log, 1);
    wb_err err = WB_CONFLICT;
    for (int64_t until = wb_mono_ns(wb_clock_system()) + CONTRACT_PATIENCE_NS;
         err == WB_CONFLICT && wb_mono_ns(wb_clock_system()) < until;)
        err = event_bus_subscribe(c->bus, &again, &next, NULL);
    assert_ok(err);
    struct event_bus_delivery *got = contract_next(next);
    assert_int_equal(got->sequence, 4);
    event_bus_release(got);
    event_bus_unsubscribe(next);
    assert_int_equal(contract_events(log), 3);
    contract_log_free(log);
    assert_ok(event_bus_delete_durable(c->bus, "worker", NULL));
}

static void settling_after_the_end_says_closed(void **state)
{
    struct contract *c = *state;

    contract_stream(c, "ORDERS", "orders.>");
    publish_some(c, 1);
    struct event_bus_subscription *s = contract_poll(c, "orders.>", NULL);
    struct event_bus_delivery *got = contract_next(s);
    event_bus_unsubscribe(s);
    assert_err(event_bus_ack(got), WB_CLOSED);
    assert_int_equal(got->sequence, 1); /* it can still be read */
    assert_true(wb_str_eq(got->message.subject, wb_str("orders.a")));
    event_bus_release(got);
    event_bus_unsubscribe(NULL);
}

/* ---- drain ----------------------------------------------------------------------------------- */

static void drain_handles_what_was_received(void **state)
{
    struct contract *c = *state;
    struct gate gate = gate_new();
    struct contract_log *log = contract_log_new(stop_at_gate);
    size_t left = 99;

    log->ctx = &gate;
    gate.open = true;
    contract_stream(c, "ORDERS", "orders.>");
    publish_some(c, 50);
    contract_subscribe(c, log, "orders.>", NULL);
    gate_wait(&gate, &gate.reached);
    assert_ok(event_bus_drain(log->subscription, CONTRACT_PATIENCE_NS, &left));
    assert_int_equal(left, 0);
    /* What it had received is a beginning of the stream, each once. */
    assert_in_range(log->count, 1, 50);
    for (size_t i = 0; i < log->count; i++)
        assert_int_equal(log->events[i].sequence, i + 1);
    contract_log_free(log);
}

static void do_nothing(struct contract_log *log, struct event_bus_delivery *delivery, size_t n)
{
    struct event_bus_delivery **kept = log->ctx;

    if (n == 0)
        *kept = event_bus_retain(delivery);
    else
        (void)event_bus_ack(delivery);
}

static void drain_counts_what_is_left_at_its_deadline(void **state)
{
    struct contract *c = *state;
    struct event_bus_delivery *kept = NULL;
    struct contract_log *log = contract_log_new(do_nothing);
    size_t left = 99;

    log->ctx = &kept;
    contract_stream(c, "ORDERS", "orders.>");
    publish_some(c, 3);
    contract_subscribe(c, log, "orders.>", NULL);
    contract_wait_events(log, 3);
    int64_t begin = wb_mono_ns(wb_clock_system());
    assert_err(event_bus_drain(log->subscription, 100 * WB_MS, &left), WB_TIMEOUT);
    assert_true(wb_mono_ns(wb_clock_system()) - begin >= 100 * WB_MS);
    assert_int_equal(left, 1);
    assert_err(event_bus_ack(kept), WB_CLOSED);
    event_bus_release(kept);
    contract_log_free(log);
}

static void drain_itself(struct contract_log *log, struct event_bus_delivery *delivery, size_t n)
{
    wb_err *got = log->ctx;

    (void)n;
    *got = event_bus_drain(log->subscription, WB_SEC, NULL);
    (void)event_bus_ack(delivery);
}

static void drain_inside_the_handler_is_misuse(void **state)
{
    struct contract *c = *state;
    wb_err got = WB_OK;
    struct contract_log *log = contract_log_new(drain_itself);

    log->ctx = &got;
    contract_stream(c, "ORDERS", "orders.>");
    contract_subscribe(c, log, "orders.>", NULL);
    publish_some(c, 1);
    contract_wait_events(log, 1);
    event_bus_unsubscribe(log->subscription);
    assert_err(got, WB_MISUSE);
    contract_log_free(log);
}

/* ---- close ----------------------------------------------------------------------------------- */

static void *close_bus(void *ctx)
{
    struct ending *ending = ctx;

    event_bus_close(ending->bus);
    bool passed = gate_is(ending->gate, &ending->gate->passed);
    gate_set(ending->gate, &ending->gate->ended);
    return passed ? ctx : NULL;
}

static void close_waits_for_handlers_and_ends_everything(void **state)
{
    struct contract *c = *state;
    struct gate gate = gate_new();
    struct contract_log *log = contract_log_new(stop_at_gate);
    struct event_bus *bus = c->kind->make(c->kind->ctx, NULL);
    struct contract inner = {.kind = c->kind, .bus = bus};
    struct ending ending = {.gate = &gate, .bus = bus};
    struct event_bus_health health;
    pthread_t thread;
    void *passed;

    log->ctx = &gate;
    contract_stream(&inner, "ORDERS", "orders.>");
    publish_some(&inner, 10);
    contract_subscribe(&inner, log, "orders.>", NULL);
    struct event_bus_subscription *polled = contract_poll(&inner, "orders.>", NULL);
    struct event_bus_delivery *kept = contract_next(polled);
    gate_wait(&gate, &gate.reached);
    assert_int_equal(pthread_create(&thread, NULL, close_bus, &ending), 0);
    assert_false(gate_is(&gate, &gate.ended));
    gate_set(&gate, &gate.open);
    pthread_join(thread, &passed);
    assert_ptr_equal(passed, &ending);

    struct event_bus_delivery *none = NULL;
    struct event_bus_stream_info info;
    assert_err(event_bus_next(polled, 0, &none), WB_CLOSED);
    assert_err(event_bus_ack(kept), WB_CLOSED);
    assert_err(contract_publish_id(&inner, "orders.a", "x", NULL, NULL), WB_CLOSED);
    assert_err(event_bus_stream_info(bus, "ORDERS", &info, NULL), WB_CLOSED);
    assert_err(event_bus_delete_durable(bus, "worker", NULL), WB_CLOSED);
    event_bus_health(bus, &health);
    assert_false(health.connected);
    event_bus_close(bus);
    event_bus_unsubscribe(log->subscription);
    event_bus_destroy(bus);              /* with one subscription left */
    assert_int_equal(kept->sequence, 1); /* a kept delivery outlives even the bus */
    event_bus_release(kept);
    contract_log_free(log);
    if (c->kind->shared) /* the stream is still on the server */
        assert_ok(event_bus_delete_stream(c->bus, "ORDERS", NULL));
}

static void *wait_for_message(void *ctx)
{
    struct event_bus_delivery *got = NULL;

    return (void *)(intptr_t)event_bus_next(ctx, CONTRACT_PATIENCE_NS, &got);
}

static void close_wakes_those_who_wait_for_a_message(void **state)
{
    struct contract *c = *state;
    struct event_bus *bus = c->kind->make(c->kind->ctx, NULL);
    struct contract inner = {.kind = c->kind, .bus = bus};
    pthread_t thread;
    void *err;

    contract_stream(&inner, "ORDERS", "orders.>");
    struct event_bus_subscription *polled = contract_poll(&inner, "orders.>", NULL);
    int64_t begin = wb_mono_ns(wb_clock_system());
    assert_int_equal(pthread_create(&thread, NULL, wait_for_message, polled), 0);
    event_bus_close(bus);
    pthread_join(thread, &err);
    assert_int_equal((intptr_t)err, WB_CLOSED);
    assert_true(wb_mono_ns(wb_clock_system()) - begin < CONTRACT_PATIENCE_NS / 2);
    event_bus_unsubscribe(polled);
    event_bus_destroy(bus);
    if (c->kind->shared)
        assert_ok(event_bus_delete_stream(c->bus, "ORDERS", NULL));
}

/* ---- health, listeners, metrics -------------------------------------------------------------- */

static void health_of_a_working_bus_is_true(void **state)
{
    struct contract *c = *state;
    struct event_bus_health health;

    assert_string_equal(event_bus_kind(c->bus), c->kind->kind);
    event_bus_health(c->bus, &health);
    assert_true(health.connected);
    assert_true(health.connections >= 1);
    assert_true(health.since_mono_ns <= wb_mono_ns(wb_clock_system()));
    assert_true(health.max_payload >= 1024);
    assert_true(health.server[0] != '\0');
    assert_int_equal(observe_value(observe_series(c->observe, OBSERVE_BUS_CONNECTED, NULL)), 1);
}

struct heard {
    atomic_int up;
    atomic_int down;
};

static void hear(void *ctx, bool connected)
{
    struct heard *heard = ctx;

    atomic_fetch_add(connected ? &heard->up : &heard->down, 1);
}

static bool heard_down(void *ctx)
{
    return atomic_load(&((struct heard *)ctx)->down) > 0;
}

static bool heard_up(void *ctx)
{
    return atomic_load(&((struct heard *)ctx)->up) > 0;
}

static void listeners_and_health_follow_the_server(void **state)
{
    struct contract *c = *state;
    struct heard heard = {0};
    struct heard deaf = {0};
    struct event_bus_health health;

    assert_ok(event_bus_listen(c->bus, hear, &heard));
    assert_ok(event_bus_listen(c->bus, hear, &deaf));
    event_bus_unlisten(c->bus, hear, &deaf);
    c->kind->lose_server(c->kind->ctx, c->bus);
    assert_true(test_wait(heard_down, &heard, 4000)); /* the promise: within 4 s */
    event_bus_health(c->bus, &health);
    assert_false(health.connected);
    assert_true(health.problem[0] != '\0');
    c->kind->return_server(c->kind->ctx, c->bus);
    assert_true(test_wait(heard_up, &heard, (int)(CONTRACT_PATIENCE_NS / WB_MS)));
    event_bus_health(c->bus, &health);
    assert_true(health.connected);
    assert_true(health.connections >= 2);
    event_bus_unlisten(c->bus, hear, &heard);
    assert_int_equal(atomic_load(&deaf.up) + atomic_load(&deaf.down), 0);
    assert_true(observe_value(observe_series(c->observe, OBSERVE_BUS_RECONNECTS, NULL)) >= 1);
}

static void listeners_are_limited(void **state)
{
    struct contract *c = *state;
    struct heard heard[65];

    for (size_t i = 0; i < 64; i++)
        assert_ok(event_bus_listen(c->bus, hear, &heard[i]));
    assert_err(event_bus_listen(c->bus, hear, &heard[64]), WB_FULL);
    event_bus_unlisten(c->bus, hear, &heard[7]);
    assert_ok(event_bus_listen(c->bus, hear, &heard[64]));
    for (size_t i = 0; i < 65; i++)
        event_bus_unlisten(c->bus, hear, &heard[i]);
}

static int64_t metric(struct contract *c, observe_metric id, const char *label)
{
    return observe_value(observe_series(c->observe, id, label));
}

static void metrics_count_what_happened(void **state)
{
    struct contract *c = *state;

    contract_stream(c, "ORDERS", "orders.>");
    contract_publish(c, "orders.a", "1");
    assert_ok(contract_publish_id(c, "orders.a", "2", "id", NULL));
    assert_ok(contract_publish_id(c, "orders.a", "2", "id", NULL));
    assert_err(contract_publish_id(c, "nobody.listens", "2", NULL, NULL), WB_NO_STREAM);
    assert_int_equal(metric(c, OBSERVE_BUS_PUBLISHED, "ok"), 2);
    assert_int_equal(metric(c, OBSERVE_BUS_PUBLISHED, "duplicate"), 1);
    assert_int_equal(metric(c, OBSERVE_BUS_PUBLISHED, "NO_STREAM"), 1);
    assert_int_equal(metric(c, OBSERVE_BUS_IN_FLIGHT, NULL), 0);

    struct event_bus_subscription *s = contract_poll(c, "orders.>", NULL);
    struct event_bus_delivery *got = contract_next(s);
    assert_ok(event_bus_nak(got));
    event_bus_release(got);
    for (int i = 0; i < 2; i++) {
        got = contract_next(s);
        assert_ok(event_bus_ack(got));
        event_bus_release(got);
    }
    event_bus_unsubscribe(s);
    assert_int_equal(metric(c, OBSERVE_BUS_DELIVERED, "ephemeral"), 3);
    assert_int_equal(metric(c, OBSERVE_BUS_REDELIVERED, "ephemeral"), 1);
    assert_int_equal(metric(c, OBSERVE_BUS_SETTLED, "nak"), 1);
    assert_int_equal(metric(c, OBSERVE_BUS_SETTLED, "ack"), 2);
}

static const struct contract_case cases[] = {
    CONTRACT_CASE(unsubscribe_waits_for_the_handler_at_work),
    CONTRACT_CASE(unsubscribe_inside_the_handler_is_the_last_it_sees),
    CONTRACT_CASE(settling_after_the_end_says_closed),
    CONTRACT_CASE(drain_handles_what_was_received),
    CONTRACT_CASE(drain_counts_what_is_left_at_its_deadline),
    CONTRACT_CASE(drain_inside_the_handler_is_misuse),
    CONTRACT_CASE(close_waits_for_handlers_and_ends_everything),
    CONTRACT_CASE(close_wakes_those_who_wait_for_a_message),
    CONTRACT_CASE(health_of_a_working_bus_is_true),
    {"listeners_and_health_follow_the_server", listeners_and_health_follow_the_server,
     .needs_server = true},
    CONTRACT_CASE(listeners_are_limited),
    CONTRACT_CASE(metrics_count_what_happened),
};

const struct contract_cases contract_end_cases = {cases, sizeof(cases) / sizeof(cases[0])};
