/* What others do to our streams and consumers behind our back, and that the bus mends it. */
#include "event_bus_nats_fixture.h"

#include <jansson.h>
#include <nats/nats.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- behind our back ------------------------------------------------------------------------- */

/* One request by a connection of the test's own; the answer, to be decref'd. */
static json_t *ask(const struct test_nats *server, const char *subject, const char *body)
{
    natsConnection *nc = NULL;
    natsMsg *msg = NULL;

    assert_int_equal(natsConnection_ConnectTo(&nc, server->url), NATS_OK);
    assert_int_equal(natsConnection_RequestString(&msg, nc, subject, body, 5000), NATS_OK);
    json_t *answer = json_loadb(natsMsg_GetData(msg), (size_t)natsMsg_GetDataLength(msg), 0, NULL);
    natsMsg_Destroy(msg);
    natsConnection_Destroy(nc);
    assert_non_null(answer);
    if (json_object_get(answer, "error") != NULL)
        fail_msg(
            "%s: %s", subject,
            json_string_value(json_object_get(json_object_get(answer, "error"), "description")));
    return answer;
}

static void do_ask(const struct test_nats *server, const char *subject, const char *body)
{
    json_decref(ask(server, subject, body));
}

static void expect_and_ack(struct event_bus_subscription *s, int number)
{
    struct event_bus_delivery *got = NULL;

    assert_ok(event_bus_next(s, PATIENCE_NS, &got));
    assert_int_equal(number_of(got), number);
    (void)event_bus_ack(got);
    event_bus_release(got);
}

/* ---- consumers ------------------------------------------------------------------------------- */

static void deleted_durable_is_made_again_where_it_stood(void **state)
{
    struct world *w = *state;
    struct event_bus_delivery *kept = NULL;

    make_stream(w->bus, "ORDERS", "orders.>");
    struct event_bus_subscription *s = subscribe(
        w->bus, "orders.>",
        (struct event_bus_subscription_options){.start = EVENT_BUS_START_ALL, .durable = "worker"});
    for (int i = 1; i <= 3; i++)
        assert_ok(publish_number(w->bus, "orders.a", i));
    expect_and_ack(s, 1);
    assert_ok(event_bus_next(s, PATIENCE_NS, &kept)); /* 2 is in doubt */
    expect_and_ack(s, 3);
    do_ask(&w->server, "$JS.API.CONSUMER.DELETE.ORDERS.worker", "");
    assert_ok(publish_number(w->bus, "orders.a", 4));
    expect_and_ack(s, 2);
    expect_and_ack(s, 3); /* it was settled at a consumer that is gone: the inbox knows it */
    expect_and_ack(s, 4);
    event_bus_release(kept);
    event_bus_unsubscribe(s);
}

static void deleted_consumer_of_an_ordered_log_leaves_no_gap(void **state)
{
    struct world *w = *state;

    make_stream(w->bus, "ORDERS", "orders.>");
    struct event_bus_subscription *s = subscribe(
        w->bus, "orders.>",
        (struct event_bus_subscription_options){.start = EVENT_BUS_START_NEW, .ack_none = true});
    assert_ok(publish_number(w->bus, "orders.a", 1));
    expect_and_ack(s, 1);
    json_t *answer = ask(&w->server, "$JS.API.CONSUMER.NAMES.ORDERS", "");
    json_t *names = json_object_get(answer, "consumers");
    assert_int_equal(json_array_size(names), 1);
    char subject[160];
    (void)snprintf(subject, sizeof(subject), "$JS.API.CONSUMER.DELETE.ORDERS.%s",
                   json_string_value(json_array_get(names, 0)));
    json_decref(answer);
    do_ask(&w->server, subject, "");
    for (int i = 2; i <= 4; i++)
        assert_ok(publish_number(w->bus, "orders.a", i));
    for (int i = 2; i <= 4; i++)
        expect_and_ack(s, i);
    event_bus_unsubscribe(s);
}

static void durable_of_other_patterns_is_refused_and_left_alone(void **state)
{
    struct world *w = *state;
    const char *pattern = "orders.b";
    const struct event_bus_subscription_options options = {
        .patterns = &pattern, .pattern_count = 1, .durable = "worker"};
    struct event_bus_subscription *other = NULL;
    struct wb_why why = {""};

    make_stream(w->bus, "ORDERS", "orders.>");
    struct event_bus_subscription *s = subscribe(
        w->bus, "orders.a",
        (struct event_bus_subscription_options){.start = EVENT_BUS_START_ALL, .durable = "worker"});
    assert_ok(publish_number(w->bus, "orders.a", 1));
    expect_and_ack(s, 1);
    event_bus_unsubscribe(s);
    assert_err(event_bus_subscribe(w->bus, &options, &other, &why), WB_CONFLICT);
    assert_non_null(strstr(why.text, "orders.a"));
    assert_non_null(strstr(why.text, "orders.b"));
    assert_ok(publish_number(w->bus, "orders.a", 2));
    s = subscribe(w->bus, "orders.a",
                  (struct event_bus_subscription_options){.start = EVENT_BUS_START_ALL,
                                                          .durable = "worker",
                                                          .ack_wait_ns = 5 * WB_SEC});
    expect_and_ack(s, 2);
    json_t *answer = ask(&w->server, "$JS.API.CONSUMER.INFO.ORDERS.worker", "");
    json_t *config = json_object_get(answer, "config");
    assert_int_equal(json_integer_value(json_object_get(config, "ack_wait")), 5 * WB_SEC);
    assert_int_equal(json_integer_value(json_object_get(config, "max_deliver")), -1);
    assert_string_equal(json_string_value(json_object_get(config, "filter_subject")), "orders.a");
    json_decref(answer);
    event_bus_unsubscribe(s);
}

static void ended_ephemerals_leave_no_consumer_behind(void **state)
{
    struct world *w = *state;

    make_stream(w->bus, "ORDERS", "orders.>");
    for (int i = 0; i < 3; i++)
        event_bus_unsubscribe(subscribe(
            w->bus, "orders.>", (struct event_bus_subscription_options){.ack_none = i == 0}));
    /* Their removal is not waited for; this request comes behind it on the same connection. */
    assert_err(event_bus_delete_durable(w->bus, "nobody", NULL), WB_NOT_FOUND);
    json_t *answer = ask(&w->server, "$JS.API.CONSUMER.NAMES.ORDERS", "");
    assert_int_equal(json_array_size(json_object_get(answer, "consumers")), 0);
    json_decref(answer);
}

/* ---- streams --------------------------------------------------------------------------------- */

static void stream_made_anew_is_read_from_its_beginning(void **state)
{
    struct world *w = *state;

    make_stream(w->bus, "ORDERS", "orders.>");
    struct event_bus_subscription *ordered = subscribe(
        w->bus, "orders.>",
        (struct event_bus_subscription_options){.start = EVENT_BUS_START_ALL, .ack_none = true});
    struct event_bus_subscription *durable = subscribe(
        w->bus, "orders.>",
        (struct event_bus_subscription_options){.start = EVENT_BUS_START_NEW, .durable = "worker"});
    for (int i = 1; i <= 3; i++)
        assert_ok(publish_number(w->bus, "orders.a", i));
    for (int i = 1; i <= 3; i++) {
        expect_and_ack(ordered, i);
        expect_and_ack(durable, i);
    }
    do_ask(&w->server, "$JS.API.STREAM.DELETE.ORDERS", "");
    make_stream(w->bus, "ORDERS", "orders.>");
    for (int i = 11; i <= 12; i++)
        assert_ok(publish_number(w->bus, "orders.a", i));
    for (int i = 11; i <= 12; i++) {
        expect_and_ack(ordered, i);
        expect_and_ack(durable, i);
    }
    event_bus_unsubscribe(ordered);
    event_bus_unsubscribe(durable);
}

static void run(char *const argv[])
{
    pid_t pid = 0;
    int status = -1;

    assert_int_equal(posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void copy_dir(char *from, char *to)
{
    char cp[] = "cp";
    char all[] = "-a";

    run((char *[]){cp, all, from, to, NULL});
}

/*
 * The messages of a stream go back to an older state, its consumer does not: what a power cut
 * leaves behind. Without help nats-server 2.9 skips what is published next.
 */
static void readers_ahead_of_a_rolled_back_stream_miss_nothing_new(void **state)
{
    struct world *w = *state;
    char messages[400];
    char copy[400];

    (void)snprintf(messages, sizeof(messages), "%s/store/jetstream/$G/streams/ORDERS/msgs",
                   w->server.dir);
    (void)snprintf(copy, sizeof(copy), "%s/copy", w->server.dir);
    make_stream(w->bus, "ORDERS", "orders.>");
    struct event_bus_subscription *s = subscribe(
        w->bus, "orders.>",
        (struct event_bus_subscription_options){.start = EVENT_BUS_START_ALL, .durable = "worker"});
    struct event_bus_subscription *ordered = subscribe(
        w->bus, "orders.>",
        (struct event_bus_subscription_options){.start = EVENT_BUS_START_ALL, .ack_none = true});
    for (int i = 1; i <= 10; i++)
        assert_ok(publish_number(w->bus, "orders.a", i));
    for (int i = 1; i <= 10; i++) {
        expect_and_ack(s, i);
        expect_and_ack(ordered, i);
    }
    test_nats_term(&w->server);
    copy_dir(messages, copy);
    test_nats_restart(&w->server);
    assert_true(test_wait(is_connected, w->bus, PATIENCE_MS));
    for (int i = 11; i <= 20; i++)
        assert_ok(publish_number(w->bus, "orders.a", i));
    for (int i = 11; i <= 20; i++) {
        expect_and_ack(s, i);
        expect_and_ack(ordered, i);
    }
    test_nats_term(&w->server);
    test_dir_remove(messages);
    assert_int_equal(rename(copy, messages), 0);
    test_nats_restart(&w->server);
    assert_true(test_wait(is_connected, w->bus, PATIENCE_MS));
    assert_ok(publish_number(w->bus, "orders.a", 21));
    assert_ok(publish_number(w->bus, "orders.a", 22));
    /* What was there before may come again; what is new comes in order. */
    struct event_bus_delivery *got = NULL;
    int highest = 20;
    while (highest < 22) {
        assert_ok(event_bus_next(s, PATIENCE_NS, &got));
        int number = number_of(got);
        assert_true(number <= 10 || number == highest + 1);
        highest = number > highest ? number : highest;
        assert_ok(event_bus_ack(got));
        event_bus_release(got);
    }
    expect_and_ack(ordered, 21); /* and in an ordered log, only that */
    expect_and_ack(ordered, 22);
    event_bus_unsubscribe(ordered);
    event_bus_unsubscribe(s);
}

/* ---- patterns and streams -------------------------------------------------------------------- */

static void patterns_that_meet_a_stream_several_times_deliver_each_message_once(void **state)
{
    struct world *w = *state;
    const char *subjects[] = {"orders.>", "returns.*"};
    const struct event_bus_stream_options stream = {
        .name = "SALES", .subjects = subjects, .subject_count = 2};
    const char *patterns[] = {"orders.a", "orders.*", "returns.b", "*.c.d"};
    struct event_bus_subscription_options options = {.patterns = patterns,
                                                     .pattern_count = 4,
                                                     .start = EVENT_BUS_START_ALL,
                                                     .durable = "worker"};
    struct event_bus_subscription *s = NULL;
    struct event_bus_delivery *got = NULL;

    assert_ok(event_bus_declare_stream(w->bus, &stream, EVENT_BUS_CREATE, NULL));
    assert_ok(publish_number(w->bus, "orders.a", 1));
    assert_ok(publish_number(w->bus, "returns.a", 2));
    assert_ok(publish_number(w->bus, "returns.b", 3));
    assert_ok(publish_number(w->bus, "orders.c.d", 4));
    assert_ok(publish_number(w->bus, "orders.c.e", 5));
    assert_ok(publish_number(w->bus, "orders.z", 6));
    assert_ok(event_bus_subscribe(w->bus, &options, &s, NULL));
    expect_and_ack(s, 1);
    expect_and_ack(s, 3);
    expect_and_ack(s, 4);
    expect_and_ack(s, 6);
    assert_err(event_bus_next(s, 100 * WB_MS, &got), WB_TIMEOUT);
    event_bus_unsubscribe(s);
    /* What was passed over is settled too: the consumer waits for nothing. */
    json_t *answer = ask(&w->server, "$JS.API.CONSUMER.INFO.SALES.worker", "");
    assert_int_equal(json_integer_value(json_object_get(answer, "num_ack_pending")), 0);
    assert_int_equal(json_integer_value(json_object_get(answer, "num_pending")), 0);
    json_decref(answer);
}

static void stream_made_by_others_is_found(void **state)
{
    struct world *w = *state;
    struct event_bus_subscription *s =
        subscribe(w->bus, ">",
                  (struct event_bus_subscription_options){
                      .start = EVENT_BUS_START_NEW, .durable = "worker", .wait_for_stream = true});

    do_ask(&w->server, "$JS.API.STREAM.CREATE.LATE",
           "{\"name\":\"LATE\",\"subjects\":[\"late.>\"],\"storage\":\"file\"}");
    assert_ok(publish_number(w->bus, "late.a", 1));
    expect_and_ack(s, 1);
    event_bus_unsubscribe(s);
}

static void applied_declaration_keeps_what_it_does_not_know(void **state)
{
    struct world *w = *state;
    const char *subject = "orders.>";
    const struct event_bus_stream_options options = {
        .name = "ORDERS", .subjects = &subject, .subject_count = 1, .max_age_ns = 3600 * WB_SEC};

    do_ask(&w->server, "$JS.API.STREAM.CREATE.ORDERS",
           "{\"name\":\"ORDERS\",\"subjects\":[\"orders.>\"],\"storage\":\"file\","
           "\"description\":\"ours\",\"deny_delete\":true,\"max_msgs_per_subject\":7}");
    assert_ok(event_bus_declare_stream(w->bus, &options, EVENT_BUS_APPLY, NULL));
    json_t *answer = ask(&w->server, "$JS.API.STREAM.INFO.ORDERS", "");
    json_t *config = json_object_get(answer, "config");
    assert_string_equal(json_string_value(json_object_get(config, "description")), "ours");
    assert_true(json_is_true(json_object_get(config, "deny_delete")));
    assert_int_equal(json_integer_value(json_object_get(config, "max_msgs_per_subject")), 7);
    assert_int_equal(json_integer_value(json_object_get(config, "max_age")), 3600 * WB_SEC);
    json_decref(answer);
}

static void stream_of_another_storage_cannot_be_applied(void **state)
{
    struct world *w = *state;
    const char *subject = "orders.>";
    const struct event_bus_stream_options options = {
        .name = "ORDERS", .subjects = &subject, .subject_count = 1};
    struct wb_why why = {""};

    do_ask(&w->server, "$JS.API.STREAM.CREATE.ORDERS",
           "{\"name\":\"ORDERS\",\"subjects\":[\"orders.>\"],\"storage\":\"memory\"}");
    assert_err(event_bus_declare_stream(w->bus, &options, EVENT_BUS_APPLY, &why), WB_CONFLICT);
    assert_non_null(strstr(why.text, "storage: memory, declared file"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(deleted_durable_is_made_again_where_it_stood, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(deleted_consumer_of_an_ordered_log_leaves_no_gap, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(durable_of_other_patterns_is_refused_and_left_alone, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(ended_ephemerals_leave_no_consumer_behind, setup, teardown),
        cmocka_unit_test_setup_teardown(stream_made_anew_is_read_from_its_beginning, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(readers_ahead_of_a_rolled_back_stream_miss_nothing_new,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(
            patterns_that_meet_a_stream_several_times_deliver_each_message_once, setup, teardown),
        cmocka_unit_test_setup_teardown(stream_made_by_others_is_found, setup, teardown),
        cmocka_unit_test_setup_teardown(applied_declaration_keeps_what_it_does_not_know, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(stream_of_another_storage_cannot_be_applied, setup,
                                        teardown),
    };
    return cmocka_run_group_tests_name("event_bus_nats heal", tests, NULL, NULL);
}
