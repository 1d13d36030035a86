/* Headers as a server takes them: handed to nats.c as one, and each by itself. */
#include "test_support.h"

#include <stdio.h>

#include "headers.h"

enum { LONG = 5000 }; /* more than stands on a stack */

struct wire {
    struct test_nats server;
    natsConnection *connection;
    natsSubscription *subscription;
};

static int setup(void **state)
{
    struct wire *w = calloc(1, sizeof(*w));

    assert_non_null(w);
    test_nats_start(&w->server, NULL);
    assert_int_equal(natsConnection_ConnectTo(&w->connection, w->server.url), NATS_OK);
    assert_int_equal(natsConnection_SubscribeSync(&w->subscription, w->connection, "there"),
                     NATS_OK);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct wire *w = *state;

    natsSubscription_Destroy(w->subscription);
    natsConnection_Destroy(w->connection);
    test_nats_stop(&w->server);
    free(w);
    nats_Close();
    return 0;
}

/* What arrives of what is sent. */
static natsMsg *send(struct wire *w, const struct message *msg,
                     const struct event_bus_publish_options *options, bool joined)
{
    natsMsg *out = NULL, *in = NULL;

    assert_int_equal(natsMsg_Create(&out, "there", NULL, "payload", 7), NATS_OK);
    assert_int_equal(event_bus_nats_headers_add(out, msg, options, joined), NATS_OK);
    assert_int_equal(natsConnection_PublishMsg(w->connection, out), NATS_OK);
    natsMsg_Destroy(out);
    assert_int_equal(natsSubscription_NextMsg(&in, w->subscription, 5000), NATS_OK);
    assert_int_equal(natsMsg_GetDataLength(in), 7);
    return in;
}

static void assert_header(natsMsg *msg, const char *name, const char *expected)
{
    const char *value = NULL;

    assert_int_equal(natsMsgHeader_Get(msg, name, &value), NATS_OK);
    assert_string_equal(value, expected);
}

static int header_count(natsMsg *msg)
{
    const char **names = NULL;
    int count = 0;

    if (natsMsgHeader_Keys(msg, &names, &count) != NATS_OK)
        return 0;
    free((void *)names);
    return count;
}

static void every_header_arrives(void **state)
{
    static char longest[LONG + 1];
    memset(longest, 'x', LONG);
    const struct message_header headers[] = {{wb_str("one"), wb_str("1")},
                                             {wb_str("Two"), wb_str("a b: c")},
                                             {wb_str("three"), wb_str(longest)},
                                             {wb_str("four"), wb_str("\xc3\xa4")}};
    const struct event_bus_publish_options options = {
        .expect_last_seq = true, .last_seq = UINT64_MAX, .last_msg_id = "before"};
    const struct message msg = {.msg_id = wb_str("id-1"), .headers = headers, .header_count = 4};

    for (int joined = 0; joined < 2; joined++) {
        natsMsg *in = send(*state, &msg, &options, joined != 0);
        assert_int_equal(header_count(in), 7);
        assert_header(in, "Nats-Msg-Id", "id-1");
        assert_header(in, "Nats-Expected-Last-Msg-Id", "before");
        assert_header(in, "Nats-Expected-Last-Sequence", "18446744073709551615");
        assert_header(in, "one", "1");
        assert_header(in, "Two", "a b: c");
        assert_header(in, "three", longest);
        assert_header(in, "four", "\xc3\xa4");
        natsMsg_Destroy(in);
    }
}

static void one_header_or_none_is_fine(void **state)
{
    const struct message_header header = {wb_str("one"), wb_str("1")};
    const struct event_bus_publish_options none = {.timeout_ns = 0};
    const struct event_bus_publish_options expected = {.expect_last_seq = true};

    for (int joined = 0; joined < 2; joined++) {
        natsMsg *in = send(*state, &(struct message){.header_count = 0}, &none, joined != 0);
        assert_int_equal(header_count(in), 0);
        natsMsg_Destroy(in);
        in = send(*state, &(struct message){.header_count = 0}, &expected, joined != 0);
        assert_int_equal(header_count(in), 1);
        assert_header(in, "Nats-Expected-Last-Sequence", "0");
        natsMsg_Destroy(in);
        in = send(*state, &(struct message){.headers = &header, .header_count = 1}, &none,
                  joined != 0);
        assert_int_equal(header_count(in), 1);
        assert_header(in, "one", "1");
        natsMsg_Destroy(in);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_header_arrives),
        cmocka_unit_test(one_header_or_none_is_fine),
    };
    return cmocka_run_group_tests_name("event_bus_nats_headers", tests, setup, teardown);
}
