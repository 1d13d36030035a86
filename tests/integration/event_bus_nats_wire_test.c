/* The socket of one connection, between nats.c and a real server, in good weather and bad. */
#include "event_bus_nats_identity.h"
#include "test_proxy.h"

#include <pthread.h>
#include <stdatomic.h>
#include <limits.h>
#include <stdio.h>

#include "wire.h"

enum {
    PATIENCE_MS = 20000,
    LARGE = 64 * 1024,
    SENDERS = 2,
    MANY = 20000,
    MANY_LARGE = 512,
    SOME = 500
};

static int64_t mono_ns(void)
{
    return wb_mono_ns(wb_clock_system());
}

/* ---- a wire to a server through a proxy, and somebody who listens there ---------------------- */

struct world {
    struct identity identity; /* for TLS */
    struct test_nats server;
    struct test_proxy *proxy;
    struct nats_wire far_wire; /* nats.c alone uses TLS on two threads at once */
    natsConnection *far;       /* beside the proxy */
    natsSubscription *heard;
    atomic_bool deaf;     /* nothing more arrives there */
    atomic_int count;     /* messages that arrived there */
    atomic_int misplaced; /* of these behind a higher one of their sender */
    int last[SENDERS];

    struct nats_wire wire;
    natsConnection *nc;
    atomic_int closed;
};

struct numbered {
    int sender, number;
};

static void hear(natsConnection *nc, natsSubscription *sub, natsMsg *msg, void *ctx)
{
    struct world *w = ctx;
    struct numbered n;

    (void)nc;
    (void)sub;
    memcpy(&n, natsMsg_GetData(msg), sizeof(n));
    if (n.number != w->last[n.sender] + 1)
        atomic_fetch_add(&w->misplaced, 1);
    w->last[n.sender] = n.number;
    atomic_fetch_add(&w->count, 1);
    natsMsg_Destroy(msg);
}

static void on_heard_all(void *ctx)
{
    struct world *w = ctx;

    atomic_store(&w->deaf, true);
}

static bool is_deaf(void *ctx)
{
    struct world *w = ctx;

    return atomic_load(&w->deaf);
}

static void on_closed(natsConnection *nc, void *ctx)
{
    struct world *w = ctx;

    (void)nc;
    atomic_fetch_add(&w->closed, 1);
}

static natsOptions *make_options(const struct world *w, uint16_t port, struct nats_wire *wire,
                                 int64_t ping_ns)
{
    natsOptions *options;
    char url[64];

    (void)snprintf(url, sizeof(url), "nats://127.0.0.1:%u", port);
    assert_ok(event_bus_nats_wire_init(wire, ping_ns));
    assert_int_equal(natsOptions_Create(&options), NATS_OK);
    assert_int_equal(natsOptions_SetURL(options, url), NATS_OK);
    assert_int_equal(event_bus_nats_wire_set_options(wire, options), NATS_OK);
    if (w->identity.cert[0] != '\0') {
        assert_int_equal(natsOptions_SetSecure(options, true), NATS_OK);
        assert_int_equal(natsOptions_LoadCATrustedCertificates(options, w->identity.cert), NATS_OK);
        assert_int_equal(natsOptions_SetWriteDeadline(options, 2000), NATS_OK);
    }
    return options;
}

static void listen_far(struct world *w)
{
    natsOptions *options = make_options(w, w->server.port, &w->far_wire, 10 * WB_SEC);

    assert_int_equal(natsConnection_Connect(&w->far, options), NATS_OK);
    natsOptions_Destroy(options);
    assert_int_equal(natsConnection_Subscribe(&w->heard, w->far, "numbers", hear, w), NATS_OK);
    assert_int_equal(natsSubscription_SetPendingLimits(w->heard, -1, -1), NATS_OK);
    assert_int_equal(natsSubscription_SetOnCompleteCB(w->heard, on_heard_all, w), NATS_OK);
    assert_int_equal(natsConnection_FlushTimeout(w->far, 5000), NATS_OK);
}

static int set_up(void **state, bool tls)
{
    struct world *w = calloc(1, sizeof(*w));

    assert_non_null(w);
    if (tls)
        make_identity(&w->identity);
    test_nats_start(&w->server, &(struct test_nats_options){.no_jetstream = true,
                                                            .conf = tls ? w->identity.conf : NULL});
    test_proxy_start(w->server.port, &w->proxy);
    listen_far(w);
    *state = w;
    return 0;
}

static int setup(void **state)
{
    return set_up(state, false);
}

static int setup_tls(void **state)
{
    return set_up(state, true);
}

static int teardown(void **state)
{
    struct world *w = *state;

    /* nats.c corrupts its heap when a subscription is destroyed under traffic. */
    event_bus_nats_wire_close(&w->far_wire);
    assert_true(test_wait(is_deaf, w, PATIENCE_MS));
    natsSubscription_Destroy(w->heard);
    natsConnection_Destroy(w->far);
    event_bus_nats_wire_fini(&w->far_wire);
    test_proxy_stop(w->proxy);
    test_nats_stop(&w->server);
    if (w->identity.dir[0] != '\0')
        test_dir_remove(w->identity.dir);
    free(w);
    return 0;
}

static natsOptions *near_options(struct world *w, int64_t ping_ns)
{
    return make_options(w, test_proxy_port(w->proxy), &w->wire, ping_ns);
}

static void wire_up(struct world *w, int64_t ping_ns)
{
    natsOptions *options = near_options(w, ping_ns);

    assert_int_equal(natsOptions_SetClosedCB(options, on_closed, w), NATS_OK);
    atomic_store(&w->closed, 0);
    assert_int_equal(natsConnection_Connect(&w->nc, options), NATS_OK);
    natsOptions_Destroy(options);
}

static bool is_closed(void *ctx)
{
    struct world *w = ctx;

    return atomic_load(&w->closed) > 0;
}

static void wire_down(struct world *w)
{
    event_bus_nats_wire_close(&w->wire);
    assert_true(test_wait(is_closed, w, PATIENCE_MS));
    assert_int_equal(w->closed, 1);
    natsConnection_Destroy(w->nc);
    event_bus_nats_wire_fini(&w->wire);
}

static natsStatus send_one(struct world *w, int sender, int number, size_t size)
{
    static const char zeros[LARGE];
    char data[LARGE];
    const struct numbered n = {sender, number};

    memcpy(data, zeros, size);
    memcpy(data, &n, sizeof(n));
    event_bus_nats_wire_sending(&w->wire);
    natsStatus s = natsConnection_Publish(w->nc, "numbers", data, (int)size);
    event_bus_nats_wire_sent(&w->wire);
    return s;
}

static enum nats_wire_mode mode_now(struct world *w)
{
    pthread_mutex_lock(&w->wire.mutex);
    enum nats_wire_mode mode = w->wire.mode;
    pthread_mutex_unlock(&w->wire.mutex);
    return mode;
}

static bool is_direct(void *ctx)
{
    return mode_now(ctx) == NATS_WIRE_DIRECT;
}

struct expected {
    struct world *w;
    int count;
};

static bool have_come(void *ctx)
{
    const struct expected *expected = ctx;

    return atomic_load(&expected->w->count) == expected->count;
}

static void assert_all_come(struct world *w, int count)
{
    struct expected expected = {w, count};

    assert_true(test_wait(have_come, &expected, PATIENCE_MS));
    assert_int_equal(w->misplaced, 0);
}

/* ---- good weather ---------------------------------------------------------------------------- */

static void one_message_is_written_by_its_sender(void **state)
{
    struct world *w = *state;

    wire_up(w, 10 * WB_SEC);
    for (int i = 1; i <= 200; i++) {
        assert_int_equal(send_one(w, 0, i, 100), NATS_OK);
        /* Nothing was read or written by the other thread: it was not asked to. */
        assert_int_equal(natsConnection_Buffered(w->nc), 0);
        struct expected expected = {w, i};
        assert_true(test_wait(have_come, &expected, PATIENCE_MS));
    }
    assert_int_equal(w->misplaced, 0);
    wire_down(w);
}

struct sender {
    struct world *w;
    int index, count;
    size_t size;
    int most_buffered;
    natsStatus status;
};

static void *send_many(void *arg)
{
    struct sender *sender = arg;

    for (int i = 1; i <= sender->count && sender->status == NATS_OK; i++) {
        sender->status = send_one(sender->w, sender->index, i, sender->size);
        int buffered = natsConnection_Buffered(sender->w->nc);
        if (buffered > sender->most_buffered)
            sender->most_buffered = buffered;
    }
    return NULL;
}

static void a_stream_is_written_together(void **state)
{
    struct world *w = *state;
    struct sender sender = {.w = w, .count = MANY, .size = 100};

    wire_up(w, 10 * WB_SEC);
    (void)send_many(&sender);
    assert_int_equal(sender.status, NATS_OK);
    assert_true(sender.most_buffered > 16 * 100);
    assert_all_come(w, MANY);
    assert_true(test_wait(is_direct, w, PATIENCE_MS));
    wire_down(w);
}

static void streams_of_several_keep_their_order(void **state)
{
    struct world *w = *state;
    struct sender senders[SENDERS];
    pthread_t threads[SENDERS];

    wire_up(w, 10 * WB_SEC);
    for (int i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){.w = w, .index = i, .count = MANY, .size = 100};
        assert_int_equal(pthread_create(&threads[i], NULL, send_many, &senders[i]), 0);
    }
    for (int i = 0; i < SENDERS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(senders[i].status, NATS_OK);
    }
    assert_all_come(w, SENDERS * MANY);
    wire_down(w);
}

static void spin_until(int64_t until_ns)
{
    while (mono_ns() < until_ns)
        continue;
}

/* One more message at about the time at which the reader finds that the stream has ended. */
static void the_last_of_a_stream_is_not_left_behind(void **state)
{
    struct world *w = *state;
    int sent = 0;

    wire_up(w, 10 * WB_SEC);
    for (int round = 0; round < 1500; round++) {
        for (int i = 0; i < 20; i++)
            assert_int_equal(send_one(w, 0, ++sent, 100), NATS_OK);
        pthread_mutex_lock(&w->wire.mutex);
        int64_t batch_ns = w->wire.batch_ns;
        pthread_mutex_unlock(&w->wire.mutex);
        /* Its first millisecond has messages, the one behind that has none. */
        spin_until(batch_ns + 2 * WB_MS + round % 300 * WB_US);
        assert_int_equal(send_one(w, 0, ++sent, 100), NATS_OK);
        struct expected expected = {w, sent};
        assert_true(test_wait(have_come, &expected, 2000));
    }
    assert_int_equal(w->misplaced, 0);
    wire_down(w);
}

static void who_finds_the_socket_taken_leaves_the_message_to_the_reader(void **state)
{
    struct world *w = *state;

    wire_up(w, 10 * WB_SEC);
    for (int i = 1; i <= 20; i++) {
        pthread_mutex_lock(&w->wire.turn);
        natsStatus s = send_one(w, 0, i, 100);
        pthread_mutex_unlock(&w->wire.turn);
        assert_int_equal(s, NATS_OK);
        assert_all_come(w, i);
    }
    wire_down(w);
}

struct flusher {
    struct world *w;
    atomic_bool end;
    natsStatus status;
    int rounds;
};

static void *flush_on(void *arg)
{
    struct flusher *flusher = arg;

    while (!atomic_load(&flusher->end) && flusher->status == NATS_OK) {
        flusher->status = natsConnection_FlushTimeout(flusher->w->nc, 2000);
        flusher->rounds++;
    }
    return NULL;
}

/* A sender has others rely on it while it sends; it must be done with that when it looks away. */
static void what_others_send_beside_a_stream_is_not_left_behind(void **state)
{
    struct world *w = *state;
    struct flusher flusher = {.w = w};
    pthread_t thread;

    wire_up(w, 10 * WB_SEC);
    assert_int_equal(pthread_create(&thread, NULL, flush_on, &flusher), 0);
    for (int round = 0; round < SOME; round++) {
        for (int i = 0; i < 20; i++)
            assert_int_equal(send_one(w, 0, 20 * round + i + 1, 100), NATS_OK);
        spin_until(mono_ns() + round % 30 * (WB_MS / 10));
    }
    (void)test_wait(is_closed, w, 10);
    atomic_store(&flusher.end, true);
    pthread_join(thread, NULL);
    assert_int_equal(flusher.status, NATS_OK);
    assert_true(flusher.rounds > SOME / 10);
    assert_all_come(w, 20 * SOME);
    wire_down(w);
}

static void who_answers_pings_stays_connected(void **state)
{
    struct world *w = *state;

    wire_up(w, 400 * WB_MS);
    assert_false(test_wait(is_closed, w, 2000));
    assert_int_equal(send_one(w, 0, 1, 100), NATS_OK);
    assert_all_come(w, 1);
    wire_down(w);
}

/* ---- bad weather ----------------------------------------------------------------------------- */

static void a_full_socket_holds_nobody_up(void **state)
{
    struct world *w = *state;
    struct sender sender = {.w = w, .count = MANY_LARGE, .size = LARGE};

    wire_up(w, 10 * WB_SEC);
    test_proxy_set(w->proxy, &(struct test_proxy_weather){.deaf_to_client = true});
    int64_t since = mono_ns();
    (void)send_many(&sender);
    assert_true(mono_ns() - since < 5 * WB_SEC);
    assert_int_equal(sender.status, NATS_OK);
    assert_int_equal(mode_now(w), NATS_WIRE_FULL);
    assert_true(natsConnection_Buffered(w->nc) > 0);
    test_proxy_set(w->proxy, &(struct test_proxy_weather){0});
    assert_all_come(w, MANY_LARGE);
    assert_true(test_wait(is_direct, w, PATIENCE_MS));
    wire_down(w);
}

static void take_closed_after(struct world *w, int64_t ping_ns, int pings, int64_t since)
{
    assert_true(test_wait(is_closed, w, PATIENCE_MS));
    int64_t took = mono_ns() - since;
    assert_true(took >= ping_ns);
    assert_true(took <= (pings + 1) * ping_ns + 2 * WB_SEC);
    wire_down(w);
}

static void who_does_not_answer_pings_is_dead(void **state)
{
    struct world *w = *state;

    wire_up(w, 100 * WB_MS);
    test_proxy_set(w->proxy, &(struct test_proxy_weather){.deaf_to_server = true});
    take_closed_after(w, 100 * WB_MS, 2, mono_ns());
}

static void who_talks_but_does_not_listen_is_dead(void **state)
{
    struct world *w = *state;
    natsSubscription *sub;
    int64_t since;

    wire_up(w, 100 * WB_MS);
    assert_int_equal(natsConnection_SubscribeSync(&sub, w->nc, "talk"), NATS_OK);
    assert_int_equal(natsConnection_FlushTimeout(w->nc, 5000), NATS_OK);
    since = mono_ns();
    test_proxy_set(w->proxy, &(struct test_proxy_weather){.deaf_to_client = true});
    while (!is_closed(w) && mono_ns() - since < PATIENCE_MS * WB_MS) {
        assert_int_equal(natsConnection_PublishString(w->far, "talk", "on and on"), NATS_OK);
        (void)test_wait(is_closed, w, 5);
    }
    natsSubscription_Destroy(sub);
    take_closed_after(w, 100 * WB_MS, 2, since);
}

/* Pings are answered behind all that was sent before them. */
static void who_takes_it_slowly_is_not_dead(void **state)
{
    struct world *w = *state;
    struct sender sender = {.w = w, .count = MANY_LARGE, .size = LARGE};

    wire_up(w, WB_SEC);
    test_proxy_set(w->proxy, &(struct test_proxy_weather){.rate = 8U << 20});
    (void)send_many(&sender);
    assert_int_equal(sender.status, NATS_OK);
    assert_all_come(w, MANY_LARGE);
    assert_false(is_closed(w));
    wire_down(w);
}

static void end_while_others_send(struct world *w, void (*end)(struct world *w))
{
    for (int round = 0; round < 30; round++) {
        struct sender senders[SENDERS];
        pthread_t threads[SENDERS];

        wire_up(w, 5 * WB_MS);
        for (int i = 0; i < SENDERS; i++) {
            senders[i] = (struct sender){.w = w, .index = i, .count = INT_MAX, .size = 100};
            assert_int_equal(pthread_create(&threads[i], NULL, send_many, &senders[i]), 0);
        }
        (void)test_wait(is_closed, w, round % 5);
        end(w);
        for (int i = 0; i < SENDERS; i++) {
            pthread_join(threads[i], NULL);
            assert_int_equal(senders[i].status, NATS_CONNECTION_CLOSED);
        }
        wire_down(w);
    }
}

static void close_it(struct world *w)
{
    event_bus_nats_wire_close(&w->wire);
}

static void reset_it(struct world *w)
{
    test_proxy_reset(w->proxy);
}

static void it_is_closed_while_others_send(void **state)
{
    end_while_others_send(*state, close_it);
}

static void it_is_reset_while_others_send(void **state)
{
    end_while_others_send(*state, reset_it);
}

/* ---- over TLS -------------------------------------------------------------------------------- */

static void over_tls_streams_of_several_keep_their_order(void **state)
{
    streams_of_several_keep_their_order(state);
}

static void over_tls_it_is_closed_while_others_send(void **state)
{
    it_is_closed_while_others_send(state);
}

/* nats.c waits for the rest of a record at the socket, and nothing else is done there. */
static void over_tls_who_falls_silent_within_a_record_is_dead(void **state)
{
    struct world *w = *state;
    static const char large[15000]; /* fits into one record */
    natsSubscription *sub;

    wire_up(w, 200 * WB_MS);
    assert_int_equal(natsConnection_SubscribeSync(&sub, w->nc, "large"), NATS_OK);
    assert_int_equal(natsConnection_FlushTimeout(w->nc, 5000), NATS_OK);
    test_proxy_set(w->proxy, &(struct test_proxy_weather){.rate = 20000, .piece = 100});
    assert_int_equal(natsConnection_Publish(w->far, "large", large, sizeof(large)), NATS_OK);
    (void)test_wait(is_closed, w, 100);
    assert_false(is_closed(w));
    int64_t since = mono_ns();
    test_proxy_set(w->proxy, &(struct test_proxy_weather){.deaf_to_server = true});
    take_closed_after(w, 200 * WB_MS, 2, since);
    natsSubscription_Destroy(sub);
}

static void a_refused_connection_leaves_nothing_to_close(void **state)
{
    struct world *w = *state;
    natsConnection *nc = NULL;

    test_proxy_set(w->proxy, &(struct test_proxy_weather){.refuse = true});
    natsOptions *options = near_options(w, WB_SEC);
    assert_int_not_equal(natsConnection_Connect(&nc, options), NATS_OK);
    event_bus_nats_wire_close(&w->wire);
    natsOptions_Destroy(options);
    event_bus_nats_wire_fini(&w->wire);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(one_message_is_written_by_its_sender, setup, teardown),
        cmocka_unit_test_setup_teardown(a_stream_is_written_together, setup, teardown),
        cmocka_unit_test_setup_teardown(streams_of_several_keep_their_order, setup, teardown),
        cmocka_unit_test_setup_teardown(who_finds_the_socket_taken_leaves_the_message_to_the_reader,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(the_last_of_a_stream_is_not_left_behind, setup, teardown),
        cmocka_unit_test_setup_teardown(what_others_send_beside_a_stream_is_not_left_behind, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(who_answers_pings_stays_connected, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_socket_holds_nobody_up, setup, teardown),
        cmocka_unit_test_setup_teardown(who_does_not_answer_pings_is_dead, setup, teardown),
        cmocka_unit_test_setup_teardown(who_talks_but_does_not_listen_is_dead, setup, teardown),
        cmocka_unit_test_setup_teardown(who_takes_it_slowly_is_not_dead, setup, teardown),
        cmocka_unit_test_setup_teardown(it_is_closed_while_others_send, setup, teardown),
        cmocka_unit_test_setup_teardown(it_is_reset_while_others_send, setup, teardown),
        cmocka_unit_test_setup_teardown(a_refused_connection_leaves_nothing_to_close, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(over_tls_streams_of_several_keep_their_order, setup_tls,
                                        teardown),
        cmocka_unit_test_setup_teardown(over_tls_it_is_closed_while_others_send, setup_tls,
                                        teardown),
        cmocka_unit_test_setup_teardown(over_tls_who_falls_silent_within_a_record_is_dead,
                                        setup_tls, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
