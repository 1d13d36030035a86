/* Manual mode and the test hooks of the in-memory bus: a virtual clock, no threads. */
#include "test_support.h"

#include <stdio.h>

#include <waybill/event_bus_memory.h>

#define START_WALL_NS (INT64_C(1700000000) * WB_SEC)

static struct event_bus *make(uint64_t seed)
{
    const struct event_bus_memory_options options = {
        .manual = true, .seed = seed, .start_wall_ns = START_WALL_NS};
    struct event_bus *bus = NULL;

    assert_ok(event_bus_memory_create(&options, &bus));
    return bus;
}

static void declare(struct event_bus *bus, const char *name, const char *subject)
{
    const struct event_bus_stream_options options = {
        .name = name, .subjects = &subject, .subject_count = 1, .duplicate_window_ns = 60 * WB_SEC};

    assert_ok(event_bus_declare_stream(bus, &options, EVENT_BUS_CREATE, NULL));
}

static wb_err publish_id(struct event_bus *bus, const char *subject, const char *id,
                         struct event_bus_ack_info *ret_ack)
{
    const struct message msg = {.subject = wb_str(subject), .msg_id = wb_str(id)};

    return event_bus_publish(bus, &msg, NULL, ret_ack, NULL);
}

static void publish(struct event_bus *bus, const char *subject)
{
    assert_ok(publish_id(bus, subject, NULL, NULL));
}

/* ---- a history ------------------------------------------------------------------------------- */

/* Everything that handlers saw, in order, as text. */
struct history {
    struct wb_buf text;
    struct event_bus *bus;
    struct wb_rng rng; /* what handlers do depends on it: it is seeded as the bus is */
};

struct reader {
    struct history *history;
    char name;
    struct event_bus_subscription *subscription;
};

/* Acks, naks, forgets, and publishes more, by chance. */
static void note(void *ctx, struct event_bus_delivery *delivery)
{
    struct reader *reader = ctx;
    struct history *h = reader->history;
    int64_t now = wb_mono_ns(event_bus_memory_clock(h->bus));

    wb_buf_printf(&h->text, "%c %llu %u %lld;", reader->name,
                  (unsigned long long)delivery->sequence, delivery->deliveries, (long long)now);
    switch (wb_rng_below(&h->rng, 8)) {
    case 0:
        assert_ok(event_bus_nak(delivery));
        break;
    case 1:
        assert_ok(event_bus_nak_delay(delivery, (int64_t)wb_rng_below(&h->rng, WB_SEC)));
        break;
    case 2: /* comes again after ack_wait */
        break;
    case 3:
        if (delivery->sequence < 60)
            publish(h->bus, "work.more");
        assert_ok(event_bus_ack(delivery));
        break;
    default:
        assert_ok(event_bus_ack(delivery));
    }
}

static void subscribe(struct event_bus *bus, struct reader *reader, const char *pattern)
{
    const struct event_bus_subscription_options options = {.patterns = &pattern,
                                                           .pattern_count = 1,
                                                           .start = EVENT_BUS_START_ALL,
                                                           .ack_wait_ns = 5 * WB_SEC,
                                                           .handler = note,
                                                           .ctx = reader};

    assert_ok(event_bus_subscribe(bus, &options, &reader->subscription, NULL));
}

/* Three readers, twenty messages and what follows from them; the hash of the history. */
static uint64_t live_once(uint64_t seed, size_t *ret_events)
{
    struct history h = {.bus = make(seed)};
    struct reader readers[] = {{&h, 'a', NULL}, {&h, 'b', NULL}, {&h, 'c', NULL}};

    wb_rng_seed(&h.rng, seed);
    declare(h.bus, "WORK", "work.>");
    subscribe(h.bus, &readers[0], "work.>");
    subscribe(h.bus, &readers[1], "work.*");
    subscribe(h.bus, &readers[2], "*.more");
    for (int i = 0; i < 20; i++)
        publish(h.bus, i % 3 == 0 ? "work.more" : "work.some");
    event_bus_memory_run_until_idle(h.bus);
    event_bus_memory_advance(h.bus, 3600 * WB_SEC);

    uint64_t hash = wb_hash(h.text.ptr, h.text.len);
    *ret_events = 0;
    for (size_t i = 0; i < h.text.len; i++)
        *ret_events += h.text.ptr[i] == ';';
    event_bus_destroy(h.bus);
    wb_buf_free(&h.text);
    return hash;
}

static void manual_bus_with_the_same_seed_has_the_same_history(void **state)
{
    size_t events;
    size_t again;
    size_t differing = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        uint64_t hash = live_once(seed, &events);
        assert_true(events > 40);
        assert_true(live_once(seed, &again) == hash);
        assert_int_equal(again, events);
        differing += live_once(seed + 100, &again) != hash;
    }
    assert_int_equal(differing, 20);
}

/* The order of choices alone, with handlers that do nothing by chance. */
static void note_only(void *ctx, struct event_bus_delivery *delivery)
{
    struct reader *reader = ctx;

    wb_buf_add(&reader->history->text, &reader->name, 1);
    assert_ok(event_bus_ack(delivery));
}

static void order_of_choices(uint64_t seed, char out[41])
{
    struct history h = {.bus = make(seed)};
    struct reader readers[] = {{&h, 'a', NULL}, {&h, 'b', NULL}};
    const char *pattern = "work.>";
    struct event_bus_subscription_options options = {.patterns = &pattern,
                                                     .pattern_count = 1,
                                                     .start = EVENT_BUS_START_ALL,
                                                     .handler = note_only};

    declare(h.bus, "WORK", "work.>");
    for (int i = 0; i < 2; i++) {
        options.ctx = &readers[i];
        assert_ok(event_bus_subscribe(h.bus, &options, &readers[i].subscription, NULL));
    }
    for (int i = 0; i < 20; i++)
        publish(h.bus, "work.a");
    assert_int_equal(event_bus_memory_run_until_idle(h.bus), 40);
    assert_int_equal(event_bus_memory_run_until_idle(h.bus), 0);
    assert_int_equal(h.text.len, 40);
    memcpy(out, h.text.ptr, 41);
    event_bus_destroy(h.bus);
    wb_buf_free(&h.text);
}

static void manual_bus_chooses_among_subscriptions_by_its_seed(void **state)
{
    char one[41];
    char same[41];
    char other[41];

    (void)state;
    order_of_choices(7, one);
    order_of_choices(7, same);
    order_of_choices(8, other);
    assert_string_equal(one, same);
    assert_string_not_equal(one, other);
}

/* ---- time ------------------------------------------------------------------------------------ */

static struct event_bus_subscription *poll_all(struct event_bus *bus, const char *pattern,
                                               const char *durable)
{
    const struct event_bus_subscription_options options = {.patterns = &pattern,
                                                           .pattern_count = 1,
                                                           .durable = durable,
                                                           .start = EVENT_BUS_START_ALL,
                                                           .ack_wait_ns = 10 * WB_SEC};
    struct event_bus_subscription *s = NULL;

    assert_ok(event_bus_subscribe(bus, &options, &s, NULL));
    return s;
}

static void expect(struct event_bus_subscription *s, uint64_t sequence, uint32_t deliveries)
{
    struct event_bus_delivery *got = NULL;

    assert_ok(event_bus_next(s, 0, &got));
    assert_int_equal(got->sequence, sequence);
    assert_int_equal(got->deliveries, deliveries);
    assert_ok(event_bus_ack(got));
    event_bus_release(got);
}

static void expect_none(struct event_bus_subscription *s)
{
    struct event_bus_delivery *got = NULL;

    assert_err(event_bus_next(s, 3600 * WB_SEC, &got), WB_TIMEOUT);
}

static void manual_bus_moves_time_only_when_told(void **state)
{
    struct event_bus *bus = make(1);
    const struct wb_clock *clock = event_bus_memory_clock(bus);
    struct event_bus_delivery *got = NULL;

    (void)state;
    assert_true(wb_wall_ns(clock) == START_WALL_NS);
    declare(bus, "WORK", "work.>");
    struct event_bus_subscription *s = poll_all(bus, "work.>", NULL);
    expect_none(s); /* at once, although it was to wait an hour */
    publish(bus, "work.a");
    assert_ok(event_bus_next(s, 0, &got));
    assert_true(got->stored_wall_ns == START_WALL_NS);
    event_bus_release(got);

    event_bus_memory_advance(bus, 10 * WB_SEC - 1);
    expect_none(s);
    event_bus_memory_advance(bus, 1);
    assert_true(wb_wall_ns(clock) == START_WALL_NS + 10 * WB_SEC);
    expect(s, 1, 2);
    event_bus_destroy(bus);
}

static void manual_bus_handles_what_falls_due_in_order_of_time(void **state)
{
    struct event_bus *bus = make(1);
    struct event_bus_delivery *got = NULL;
    static const int64_t delays[] = {3 * WB_SEC, WB_SEC, 2 * WB_SEC};

    (void)state;
    declare(bus, "WORK", "work.>");
    struct event_bus_subscription *s = poll_all(bus, "work.>", NULL);
    for (size_t i = 0; i < 3; i++) {
        publish(bus, "work.a");
        assert_ok(event_bus_next(s, 0, &got));
        assert_ok(event_bus_nak_delay(got, delays[i]));
        event_bus_release(got);
    }
    event_bus_memory_advance(bus, 60 * WB_SEC);
    expect(s, 2, 2);
    expect(s, 3, 2);
    expect(s, 1, 2);
    event_bus_destroy(bus);
}

static void duplicate_window_ends_on_the_virtual_clock(void **state)
{
    struct event_bus *bus = make(1);
    struct event_bus_ack_info ack;

    (void)state;
    declare(bus, "WORK", "work.>");
    assert_ok(publish_id(bus, "work.a", "id", &ack));
    event_bus_memory_advance(bus, 60 * WB_SEC - 1);
    assert_ok(publish_id(bus, "work.a", "id", &ack));
    assert_true(ack.duplicate);
    event_bus_memory_advance(bus, 1);
    assert_ok(publish_id(bus, "work.a", "id", &ack));
    assert_false(ack.duplicate);
    assert_int_equal(ack.sequence, 2);
    event_bus_destroy(bus);
}

static void max_age_ends_on_the_virtual_clock_and_spares_pending_acks(void **state)
{
    struct event_bus *bus = make(1);
    struct event_bus_stream_info info;
    struct event_bus_delivery *got = NULL;
    uint64_t last = 0;

    (void)state;
    declare(bus, "WORK", "work.>");
    struct event_bus_subscription *s = poll_all(bus, "work.>", NULL);
    publish(bus, "work.a");
    assert_ok(event_bus_next(s, 0, &got));
    event_bus_release(got);
    event_bus_memory_advance(bus, WB_SEC * 3600 * 24 * 7); /* the default */
    assert_ok(event_bus_stream_info(bus, "WORK", &info, NULL));
    assert_int_equal(info.messages, 0);
    assert_int_equal(info.first_seq, 2);
    assert_int_equal(info.last_seq, 1);
    publish(bus, "work.a");
    while (event_bus_next(s, 0, &got) == WB_OK) { /* a copy from before it aged out, then the new */
        last = got->sequence;
        event_bus_release(got);
    }
    assert_int_equal(last, 2);
    event_bus_memory_advance(bus, 60 * WB_SEC);
    while (event_bus_next(s, 0, &got) == WB_OK) {
        assert_int_equal(got->sequence, 2); /* the one that is gone does not come again */
        event_bus_release(got);
    }
    event_bus_destroy(bus);
}

static void drain_in_manual_mode_handles_the_queue_itself(void **state)
{
    struct history h = {.bus = make(3)};
    struct reader reader = {&h, 'r', NULL};
    const char *pattern = "work.>";
    const struct event_bus_subscription_options options = {.patterns = &pattern,
                                                           .pattern_count = 1,
                                                           .start = EVENT_BUS_START_ALL,
                                                           .handler = note_only,
                                                           .ctx = &reader};
    size_t left = 99;

    (void)state;
    declare(h.bus, "WORK", "work.>");
    assert_ok(event_bus_subscribe(h.bus, &options, &reader.subscription, NULL));
    for (int i = 0; i < 5; i++)
        publish(h.bus, "work.a");
    assert_int_equal(h.text.len, 0);
    assert_ok(event_bus_drain(reader.subscription, WB_SEC, &left));
    assert_int_equal(left, 0);
    assert_int_equal(h.text.len, 5);
    event_bus_destroy(h.bus);
    wb_buf_free(&h.text);
}

/* ---- what a server may do -------------------------------------------------------------------- */

static void restart_that_loses_the_end_forgets_its_ids(void **state)
{
    struct event_bus *bus = make(1);
    struct event_bus_ack_info ack;
    struct event_bus_stream_info info;

    (void)state;
    declare(bus, "WORK", "work.>");
    assert_ok(publish_id(bus, "work.a", "id-1", &ack));
    assert_ok(publish_id(bus, "work.a", "id-2", &ack));
    assert_ok(publish_id(bus, "work.a", "id-3", &ack));
    event_bus_memory_restart(bus, "WORK", 2);
    assert_ok(event_bus_stream_info(bus, "WORK", &info, NULL));
    assert_int_equal(info.last_seq, 2);
    assert_ok(publish_id(bus, "work.a", "id-2", &ack));
    assert_true(ack.duplicate);
    assert_ok(publish_id(bus, "work.a", "id-3", &ack));
    assert_false(ack.duplicate);
    assert_int_equal(ack.sequence, 3);
    event_bus_memory_restart(bus, NULL, UINT64_MAX);
    assert_ok(publish_id(bus, "work.a", "id-3", &ack));
    assert_true(ack.duplicate);
    event_bus_memory_restart(bus, "WORK", 0);
    assert_ok(event_bus_stream_info(bus, "WORK", &info, NULL));
    assert_int_equal(info.last_seq, 0);
    event_bus_destroy(bus);
}

static void restart_leaves_durables_behind_the_end_of_the_stream(void **state)
{
    struct event_bus *bus = make(1);

    (void)state;
    declare(bus, "WORK", "work.>");
    for (int i = 0; i < 5; i++)
        publish(bus, "work.a");
    struct event_bus_subscription *s = poll_all(bus, "work.>", "worker");
    for (uint64_t i = 1; i <= 4; i++)
        expect(s, i, 1);
    event_bus_memory_restart(bus, "WORK", 2);
    publish(bus, "work.b"); /* sequence 3, a new message */
    expect(s, 5, 1);        /* it was queued before */
    expect(s, 3, 1);
    expect_none(s);
    event_bus_destroy(bus);
}

static uint64_t far_ahead(void *ctx, const char *stream, int64_t stream_created_wall_ns)
{
    (void)ctx;
    (void)stream;
    (void)stream_created_wall_ns;
    return 100;
}

static void position_beyond_the_end_reads_what_is_new(void **state)
{
    struct event_bus *bus = make(1);
    const char *pattern = "work.>";
    const struct event_bus_subscription_options options = {.patterns = &pattern,
                                                           .pattern_count = 1,
                                                           .start = EVENT_BUS_START_POSITION,
                                                           .position = far_ahead};
    struct event_bus_subscription *s = NULL;

    (void)state;
    declare(bus, "WORK", "work.>");
    publish(bus, "work.a");
    assert_ok(event_bus_subscribe(bus, &options, &s, NULL));
    publish(bus, "work.a");
    expect(s, 2, 1);
    event_bus_destroy(bus);
}

static void bus_set_down_refuses_and_delivers_nothing_until_it_is_back(void **state)
{
    struct event_bus *bus = make(1);
    struct event_bus_health health;
    struct event_bus_delivery *got = NULL;

    (void)state;
    declare(bus, "WORK", "work.>");
    struct event_bus_subscription *s = poll_all(bus, "work.>", NULL);
    publish(bus, "work.a");
    publish(bus, "work.a");
    assert_ok(event_bus_next(s, 0, &got));
    event_bus_memory_set_down(bus, true);
    assert_err(publish_id(bus, "work.a", "id", NULL), WB_UNREACHABLE);
    assert_err(event_bus_ack(got), WB_UNREACHABLE);
    event_bus_health(bus, &health);
    assert_false(health.connected);
    event_bus_memory_advance(bus, 20 * WB_SEC);
    event_bus_memory_set_down(bus, false);
    assert_ok(event_bus_ack(got)); /* the refused ack was no verdict */
    event_bus_release(got);
    expect(s, 2, 1);
    event_bus_memory_advance(bus, 60 * WB_SEC);
    expect_none(s);
    event_bus_destroy(bus);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(manual_bus_with_the_same_seed_has_the_same_history),
        cmocka_unit_test(manual_bus_chooses_among_subscriptions_by_its_seed),
        cmocka_unit_test(manual_bus_moves_time_only_when_told),
        cmocka_unit_test(manual_bus_handles_what_falls_due_in_order_of_time),
        cmocka_unit_test(duplicate_window_ends_on_the_virtual_clock),
        cmocka_unit_test(max_age_ends_on_the_virtual_clock_and_spares_pending_acks),
        cmocka_unit_test(drain_in_manual_mode_handles_the_queue_itself),
        cmocka_unit_test(restart_that_loses_the_end_forgets_its_ids),
        cmocka_unit_test(restart_leaves_durables_behind_the_end_of_the_stream),
        cmocka_unit_test(position_beyond_the_end_reads_what_is_new),
        cmocka_unit_test(bus_set_down_refuses_and_delivers_nothing_until_it_is_back),
    };

    return cmocka_run_group_tests_name("event_bus_memory_manual", tests, NULL, NULL);
}
