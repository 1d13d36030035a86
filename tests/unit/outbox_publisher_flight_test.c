/* What is on its way, and the sleep until enough of it is answered. */
#include "test_support.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

#include "outbox_publisher_flight.h"
#include "waybill/event_bus_impl.h"

enum { CAPACITY = 16, ROUNDS = 400000, HANG_MS = 10000 };

/* ---- a bus that keeps what is published until the test answers it -----------------------------
 */

struct kept {
    event_bus_published done;
    void *ctx;
};

struct keeping_bus {
    struct event_bus base; /* first */
    struct kept kept[CAPACITY];
    atomic_size_t published; /* the lane's */
    atomic_size_t answered;  /* the answering thread's */
};

static wb_err keep(struct event_bus *base, const struct message *msg,
                   const struct event_bus_publish_options *options, event_bus_published done,
                   void *ctx, struct wb_why *why)
{
    struct keeping_bus *bus = (struct keeping_bus *)base;

    (void)msg;
    (void)options;
    (void)why;
    bus->kept[atomic_load(&bus->published) % CAPACITY] = (struct kept){done, ctx};
    atomic_fetch_add(&bus->published, 1);
    return WB_OK;
}

static void keeping_health(struct event_bus *base, struct event_bus_health *ret_health)
{
    (void)base;
    *ret_health = (struct event_bus_health){.connected = true, .max_payload = 1000};
}

static void keeping_close(struct event_bus *base)
{
    (void)base;
}

static void answer(struct keeping_bus *bus, size_t i, wb_err err)
{
    const struct event_bus_ack_info ack = {.stream = "A", .sequence = i + 1};
    const struct kept one = bus->kept[i % CAPACITY];

    one.done(one.ctx, err, &ack, NULL);
}

/* ---- the fixture ----------------------------------------------------------------------------- */

struct fixture {
    struct keeping_bus bus;
    struct outbox_publisher_flight *flight;
    int64_t sent;
    pthread_t thread; /* answers, while answering */
    bool answering;
    atomic_bool stop;
};

static int setup(void **state)
{
    static const struct event_bus_ops ops = {.kind = "keeping",
                                             .publish_async = keep,
                                             .health = keeping_health,
                                             .close = keeping_close,
                                             .destroy = event_bus_fini};
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    assert_ok(event_bus_init(&f->bus.base, &ops, &(struct event_bus_settings){.workers = 0}));
    assert_ok(outbox_publisher_flight_create(CAPACITY, "A", &f->flight, NULL));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    atomic_store(&f->stop, true);
    if (f->answering)
        pthread_join(f->thread, NULL);
    outbox_publisher_flight_release(f->flight);
    event_bus_destroy(&f->bus.base);
    free(f);
    return 0;
}

static void send(struct fixture *f)
{
    const struct message msg = {.subject = wb_str("a.x")};
    const struct outbox_publisher_sent sent = {.row_id = ++f->sent, .bytes = 10};

    assert_ok(outbox_publisher_flight_send(
        f->flight, &f->bus.base, &msg, &(struct event_bus_publish_options){.timeout_ns = WB_SEC},
        &sent, NULL));
}

static bool woken_within(struct fixture *f, int ms)
{
    struct pollfd fd = {.fd = outbox_publisher_flight_fd(f->flight), .events = POLLIN};
    bool woken = poll(&fd, 1, ms) == 1;

    outbox_publisher_flight_awake(f->flight);
    return woken;
}

/* ---- one after the other --------------------------------------------------------------------- */

static void answers_are_taken_in_the_order_of_sending(void **state)
{
    struct fixture *f = *state;
    struct outbox_publisher_sent sent;

    for (int i = 0; i < 3; i++)
        send(f);
    answer(&f->bus, 1, WB_OK);
    assert_false(outbox_publisher_flight_take(f->flight, &sent));
    answer(&f->bus, 0, WB_OK);
    for (int64_t id = 1; id <= 2; id++) {
        assert_true(outbox_publisher_flight_take(f->flight, &sent));
        assert_int_equal(sent.row_id, id);
        assert_int_equal(sent.sequence, id);
        assert_true(sent.stream_right);
    }
    assert_false(outbox_publisher_flight_take(f->flight, &sent));
    assert_int_equal(outbox_publisher_flight_count(f->flight), 1);
    assert_int_equal(outbox_publisher_flight_bytes(f->flight), 10);
    answer(&f->bus, 2, WB_OK);
}

static void sleeper_is_woken_by_the_answer_it_waits_for_not_by_those_before(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 4; i++)
        send(f);
    assert_true(outbox_publisher_flight_sleep(f->flight, 3));
    answer(&f->bus, 0, WB_OK);
    answer(&f->bus, 1, WB_OK);
    answer(&f->bus, 3, WB_OK);
    assert_false(woken_within(f, 0));
    assert_true(outbox_publisher_flight_sleep(f->flight, 3));
    answer(&f->bus, 2, WB_OK);
    assert_true(woken_within(f, 0));
    assert_false(outbox_publisher_flight_sleep(f->flight, 3));
    assert_false(outbox_publisher_flight_sleep(f->flight, 100)); /* all there are */
}

static void answer_that_overtook_the_oldest_lets_nobody_spin(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 4; i++)
        send(f);
    answer(&f->bus, 2, WB_OK);
    assert_true(outbox_publisher_flight_sleep(f->flight, 3)); /* nothing can be taken */
    answer(&f->bus, 0, WB_OK);
    assert_false(woken_within(f, 0));
    assert_true(outbox_publisher_flight_sleep(f->flight, 3));
    answer(&f->bus, 1, WB_OK);
    assert_true(woken_within(f, 0));
    assert_false(outbox_publisher_flight_sleep(f->flight, 3));
    answer(&f->bus, 3, WB_OK);
}

static void failure_wakes_whoever_waits_for_more(void **state)
{
    struct fixture *f = *state;
    struct wb_why why;

    for (int i = 0; i < 4; i++)
        send(f);
    assert_true(outbox_publisher_flight_sleep(f->flight, 4));
    answer(&f->bus, 0, WB_TIMEOUT);
    assert_true(woken_within(f, 0));
    assert_false(outbox_publisher_flight_sleep(f->flight, 4)); /* it is there to be taken */
    outbox_publisher_flight_why(f->flight, &why);
    assert_string_equal(why.text, wb_err_text(WB_TIMEOUT));
    for (size_t i = 1; i < 4; i++)
        answer(&f->bus, i, WB_OK);
}

static void failure_behind_an_open_answer_is_seen_as_soon_as_that_comes(void **state)
{
    struct fixture *f = *state;
    struct outbox_publisher_sent sent;

    for (int i = 0; i < 4; i++)
        send(f);
    assert_true(outbox_publisher_flight_sleep(f->flight, 4));
    answer(&f->bus, 1, WB_TIMEOUT);
    assert_true(woken_within(f, 0));
    assert_true(outbox_publisher_flight_sleep(f->flight, 4)); /* nothing can be taken yet */
    answer(&f->bus, 2, WB_TIMEOUT);
    assert_false(woken_within(f, 0));
    assert_true(outbox_publisher_flight_sleep(f->flight, 4));
    answer(&f->bus, 0, WB_OK);
    assert_true(woken_within(f, 0));
    for (int i = 0; i < 3; i++)
        assert_true(outbox_publisher_flight_take(f->flight, &sent));
    outbox_publisher_flight_why(f->flight, NULL);
    assert_true(outbox_publisher_flight_sleep(f->flight, 4));
    answer(&f->bus, 3, WB_OK);
    assert_true(woken_within(f, 0));
}

static void kick_wakes_with_nothing_on_its_way(void **state)
{
    struct fixture *f = *state;

    assert_true(outbox_publisher_flight_sleep(f->flight, 1));
    assert_false(woken_within(f, 0));
    assert_true(outbox_publisher_flight_sleep(f->flight, 1));
    outbox_publisher_flight_kick(f->flight);
    assert_true(woken_within(f, 0));
}

static void answers_after_the_release_fall_on_the_floor(void **state)
{
    struct fixture *f = *state;

    send(f);
    send(f);
    outbox_publisher_flight_release(f->flight);
    f->flight = NULL;
    answer(&f->bus, 1, WB_OK);
    answer(&f->bus, 0, WB_UNKNOWN);
}

/* ---- at the same time ------------------------------------------------------------------------ */

/* A different moment each time, so that the two meet at every point. */
static void linger(struct fixture *f, struct wb_rng *rng, uint64_t most)
{
    for (uint64_t spins = wb_rng_below(rng, most); spins > 0; spins--)
        (void)atomic_load(&f->stop);
}

/* Answers each soon after it was sent. */
static void *answer_all(void *arg)
{
    struct fixture *f = arg;
    struct wb_rng rng;

    wb_rng_seed(&rng, 11);
    for (size_t i = 0; i < ROUNDS; i++) {
        while (atomic_load(&f->bus.published) == i)
            if (atomic_load(&f->stop))
                return NULL;
        linger(f, &rng, 64);
        answer(&f->bus, i, i % 97 == 0 ? WB_TIMEOUT : WB_OK);
        atomic_fetch_add(&f->bus.answered, 1);
    }
    return NULL;
}

static void no_wake_up_is_lost(void **state)
{
    struct fixture *f = *state;
    struct outbox_publisher_sent sent;
    struct wb_why why;
    int64_t taken = 0;
    struct wb_rng rng;

    wb_rng_seed(&rng, 7);
    f->answering = pthread_create(&f->thread, NULL, answer_all, f) == 0;
    assert_true(f->answering);
    while (taken < ROUNDS) {
        size_t window = 1 + (size_t)wb_rng_below(&rng, 3); /* few, so that they meet often */
        while (f->sent < ROUNDS && outbox_publisher_flight_count(f->flight) < window)
            send(f);
        size_t answers = 1 + (size_t)wb_rng_below(&rng, window + 1); /* up to more than there are */
        linger(f, &rng, 256);
        if (outbox_publisher_flight_sleep(f->flight, answers) && !woken_within(f, HANG_MS))
            fail_msg("asleep at %lld of %d, %zu answered", (long long)taken, ROUNDS,
                     atomic_load(&f->bus.answered));
        while (outbox_publisher_flight_take(f->flight, &sent)) {
            assert_int_equal(sent.row_id, ++taken);
            if (sent.err != WB_OK)
                outbox_publisher_flight_why(f->flight, &why);
            else
                assert_int_equal(sent.sequence, taken);
        }
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(answers_are_taken_in_the_order_of_sending),
        T(sleeper_is_woken_by_the_answer_it_waits_for_not_by_those_before),
        T(answer_that_overtook_the_oldest_lets_nobody_spin),
        T(failure_wakes_whoever_waits_for_more),
        T(failure_behind_an_open_answer_is_seen_as_soon_as_that_comes),
        T(kick_wakes_with_nothing_on_its_way),
        T(answers_after_the_release_fall_on_the_floor),
        T(no_wake_up_is_lost),
    };
    return cmocka_run_group_tests_name("outbox_publisher_flight", tests, NULL, NULL);
}
