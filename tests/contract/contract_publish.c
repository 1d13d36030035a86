/* Publish: acknowledgements, identity, expectations, what is refused. */
#include "contract.h"

#include <stdatomic.h>
#include <stdio.h>

/* ---- subjects and messages that are refused -------------------------------------------------- */

static void ignore_completion(void *ctx, wb_err err, const struct event_bus_ack_info *ack,
                              const struct wb_why *why)
{
    (void)err;
    (void)ack;
    (void)why;
    atomic_fetch_add((atomic_int *)ctx, 1);
}

/* Refused on every path, and nothing reaches the stream or the wire. */
static void refuse(struct contract *c, const struct message *msg, wb_err expected)
{
    struct wb_why why = {{0}};
    atomic_int completions = 0;

    assert_err(event_bus_publish(c->bus, msg, NULL, NULL, &why), expected);
    assert_true(why.text[0] != '\0');
    assert_err(event_bus_publish_async(c->bus, msg, NULL, ignore_completion, &completions, NULL),
               expected);
    assert_int_equal(atomic_load(&completions), 0);
}

static void publish_to_an_invalid_subject_is_refused(void **state)
{
    struct contract *c = *state;
    static const char *const subjects[] = {"",           ".",
                                           "a.",         ".a",
                                           "a..b",       "a.*",
                                           "a.>",        "*",
                                           ">",          "a.x*y",
                                           "a.b>",       "a b",
                                           "a.b\r\nPUB", "a.\tb",
                                           "a.\x7f",     "a.\xff",
                                           "a.\xc0\x80", "$JS.API.INFO",
                                           "$foo",       "_INBOX.a.b",
                                           "_R_.a",      "a.\xed\xa0\x80"};
    char longest[257];

    contract_stream(c, "ALL", "a.>");
    for (size_t i = 0; i < sizeof(subjects) / sizeof(subjects[0]); i++)
        refuse(c, &(struct message){.subject = wb_str(subjects[i])}, WB_INVALID);
    refuse(c, &(struct message){.subject = {"a.\0b", 4}}, WB_INVALID);
    memset(longest, 'x', sizeof(longest));
    memcpy(longest, "a.", 2);
    refuse(c, &(struct message){.subject = {longest, 256}}, WB_INVALID);
    longest[255] = '\0';
    assert_int_equal(contract_publish(c, longest, "the longest"), 1);
}

static void refuse_header(struct contract *c, struct wb_str name, struct wb_str value)
{
    const struct message_header headers[] = {{name, value}};

    refuse(c, &(struct message){.subject = wb_str("a.b"), .headers = headers, .header_count = 1},
           WB_INVALID);
}

static void publish_with_invalid_headers_is_refused(void **state)
{
    struct contract *c = *state;
    const struct message_header twins[] = {{wb_str("Key"), wb_str("1")},
                                           {wb_str("key"), wb_str("2")}};

    contract_stream(c, "ALL", "a.>");
    refuse_header(c, wb_str(""), wb_str("v"));
    refuse_header(c, wb_str("a:b"), wb_str("v"));
    refuse_header(c, wb_str("a b"), wb_str("v"));
    refuse_header(c, wb_str("a\r\n"), wb_str("v"));
    refuse_header(c, wb_str("k\xc3\xa9"), wb_str("v"));
    refuse_header(c, wb_str("Nats-Msg-Id"), wb_str("v"));
    refuse_header(c, wb_str("nats-expected-stream"), wb_str("v"));
    refuse_header(c, wb_str("k"), wb_str(""));
    refuse_header(c, wb_str("k"), wb_str(" v"));
    refuse_header(c, wb_str("k"), wb_str("v\t"));
    refuse_header(c, wb_str("k"), wb_str("a\r\nb"));
    refuse_header(c, wb_str("k"), wb_str("a\nb"));
    refuse_header(c, wb_str("k"), wb_str_n("a\0b", 3));
    refuse(c, &(struct message){.subject = wb_str("a.b"), .headers = twins, .header_count = 2},
           WB_INVALID);
}

static void publish_with_an_invalid_id_is_refused(void **state)
{
    struct contract *c = *state;
    char id[66];

    contract_stream(c, "ALL", "a.>");
    memset(id, 'i', sizeof(id));
    id[65] = '\0';
    refuse(c, &(struct message){.subject = wb_str("a.b"), .msg_id = wb_str(id)}, WB_INVALID);
    refuse(c, &(struct message){.subject = wb_str("a.b"), .msg_id = wb_str("a b")}, WB_INVALID);
    refuse(c, &(struct message){.subject = wb_str("a.b"), .msg_id = wb_str("a\r\n")}, WB_INVALID);
    const struct event_bus_publish_options two = {.expect_last_seq = true,
                                                  .last_msg_id = "a\r\nb: c"};
    assert_err(
        event_bus_publish(c->bus, &(struct message){.subject = wb_str("a.b")}, &two, NULL, NULL),
        WB_INVALID);
    id[64] = '\0';
    assert_ok(contract_publish_id(c, "a.b", "x", id, NULL));
}

static void publish_beyond_max_payload_is_refused_at_it_is_not(void **state)
{
    struct contract *c = *state;
    struct event_bus_health health;
    struct event_bus_delivery *delivery;

    contract_stream(c, "ALL", "a.>");
    event_bus_health(c->bus, &health);
    assert_true(health.max_payload > 0);
    char *payload = calloc(1, health.max_payload + 1);
    assert_non_null(payload);
    memset(payload, 'p', health.max_payload + 1);

    struct message msg = {.subject = wb_str("a.b"), .payload = {payload, health.max_payload + 1}};
    refuse(c, &msg, WB_TOO_BIG);
    msg.payload.len = health.max_payload;
    assert_ok(event_bus_publish(c->bus, &msg, NULL, NULL, NULL));
    assert_ok(event_bus_get(c->bus, "ALL", 1, &delivery, NULL));
    assert_int_equal(delivery->message.payload.len, health.max_payload);
    assert_memory_equal(delivery->message.payload.ptr, payload, health.max_payload);
    event_bus_release(delivery);
    msg.msg_id = wb_str("the headers count, too");
    refuse(c, &msg, WB_TOO_BIG);
    free(payload);
}

/* ---- what arrives is what was sent ----------------------------------------------------------- */

static const struct message_header *nth_header(const struct message *msg, const char *name,
                                               size_t n)
{
    for (size_t i = 0; i < msg->header_count; i++)
        if (wb_str_case_eq(msg->headers[i].name, wb_str(name)) && n-- == 0)
            return &msg->headers[i];
    return NULL;
}

static void message_arrives_as_it_was_sent(void **state)
{
    struct contract *c = *state;
    const struct message_header headers[] = {{wb_str("Trace"), wb_str("t-1")},
                                             {wb_str("list"), wb_str("first")},
                                             {wb_str("list"), wb_str("second: with colon")},
                                             {wb_str("umlaut"), wb_str("gr\xc3\xbc\xc3\x9f")},
                                             {wb_str("list"), wb_str("third")}};
    const struct message msg = {.subject = wb_str("a.\xc3\xa9t\xc3\xa9"),
                                .payload = {"\0\r\n\xff binary", 11},
                                .headers = headers,
                                .header_count = 5,
                                .msg_id = wb_str("event-42")};
    int64_t before = wb_wall_ns(wb_clock_system());

    contract_stream(c, "ALL", "a.>");
    assert_ok(event_bus_publish(c->bus, &msg, NULL, NULL, NULL));
    struct event_bus_subscription *s = contract_poll(c, "a.*", NULL);
    struct event_bus_delivery *got = contract_next(s);
    assert_true(wb_str_eq(got->message.subject, msg.subject));
    assert_int_equal(got->message.payload.len, 11);
    assert_memory_equal(got->message.payload.ptr, msg.payload.ptr, 11);
    assert_true(wb_str_eq(got->message.msg_id, msg.msg_id));
    assert_true(wb_str_eq(got->stream, wb_str("ALL")));
    assert_int_equal(got->sequence, 1);
    assert_int_equal(got->deliveries, 1);
    assert_true(got->stored_wall_ns > before - WB_SEC);
    assert_true(got->stored_wall_ns < wb_wall_ns(wb_clock_system()) + WB_SEC);
    assert_int_equal(got->message.header_count, 5);
    assert_true(wb_str_eq(nth_header(&got->message, "trace", 0)->name, wb_str("Trace")));
    assert_true(wb_str_eq(nth_header(&got->message, "trace", 0)->value, headers[0].value));
    assert_true(wb_str_eq(nth_header(&got->message, "list", 0)->value, headers[1].value));
    assert_true(wb_str_eq(nth_header(&got->message, "list", 1)->value, headers[2].value));
    assert_true(wb_str_eq(nth_header(&got->message, "list", 2)->value, headers[4].value));
    assert_true(wb_str_eq(nth_header(&got->message, "umlaut", 0)->value, headers[3].value));
    assert_ok(event_bus_ack(got));
    event_bus_release(got);
    event_bus_unsubscribe(s);
}

static void message_without_anything_but_a_subject_arrives(void **state)
{
    struct contract *c = *state;

    contract_stream(c, "ALL", "a.>");
    assert_ok(
        event_bus_publish(c->bus, &(struct message){.subject = wb_str("a.b")}, NULL, NULL, NULL));
    struct event_bus_subscription *s = contract_poll(c, "a.b", NULL);
    struct event_bus_delivery *got = contract_next(s);
    assert_int_equal(got->message.payload.len, 0);
    assert_int_equal(got->message.header_count, 0);
    assert_int_equal(got->message.msg_id.len, 0);
    assert_ok(event_bus_ack(got));
    event_bus_release(got);
    event_bus_unsubscribe(s);
}

/* ---- acknowledgements ------------------------------------------------------------------------ */

static void publish_returns_stream_and_rising_sequence(void **state)
{
    struct contract *c = *state;
    struct event_bus_ack_info ack;

    contract_stream(c, "ORDERS", "orders.>");
    contract_stream(c, "AUTH", "auth.>");
    for (uint64_t i = 1; i <= 3; i++) {
        assert_ok(contract_publish_id(c, "orders.a", "x", NULL, &ack));
        assert_string_equal(ack.stream, "ORDERS");
        assert_int_equal(ack.sequence, i);
        assert_false(ack.duplicate);
    }
    assert_ok(contract_publish_id(c, "auth.a", "x", NULL, &ack));
    assert_string_equal(ack.stream, "AUTH");
    assert_int_equal(ack.sequence, 1);
}

static void publish_without_stream_says_so_soon(void **state)
{
    struct contract *c = *state;
    struct wb_why why = {{0}};
    const struct message msg = {.subject = wb_str("nobody.listens"), .msg_id = wb_str("id")};
    int64_t begin = wb_mono_ns(wb_clock_system());
    const struct event_bus_publish_options patient = {.timeout_ns = CONTRACT_PATIENCE_NS};

    contract_stream(c, "ORDERS", "orders.>");
    assert_err(event_bus_publish(c->bus, &msg, &patient, NULL, &why), WB_NO_STREAM);
    assert_non_null(strstr(why.text, "nobody.listens"));
    assert_true(wb_mono_ns(wb_clock_system()) - begin < CONTRACT_PATIENCE_NS / 2);
}

static void publish_of_a_known_id_is_stored_once(void **state)
{
    struct contract *c = *state;
    struct event_bus_ack_info ack;
    struct event_bus_stream_info info;

    contract_stream(c, "ORDERS", "orders.>");
    contract_stream(c, "AUTH", "auth.>");
    assert_ok(contract_publish_id(c, "orders.a", "x", "id-1", &ack));
    assert_ok(contract_publish_id(c, "orders.a", "x", "id-2", &ack));
    assert_int_equal(ack.sequence, 2);
    assert_ok(contract_publish_id(c, "orders.a", "x", "id-1", &ack));
    assert_true(ack.duplicate);
    assert_int_equal(ack.sequence, 1);
    assert_ok(contract_publish_id(c, "orders.other", "another payload", "id-1", &ack));
    assert_true(ack.duplicate);
    assert_int_equal(ack.sequence, 1);
    assert_ok(contract_publish_id(c, "orders.a", "x", "ID-1", &ack));
    assert_false(ack.duplicate);
    assert_ok(contract_publish_id(c, "auth.a", "x", "id-1", &ack));
    assert_false(ack.duplicate);
    assert_ok(event_bus_stream_info(c->bus, "ORDERS", &info, NULL));
    assert_int_equal(info.messages, 3);
}

static bool stored_again(void *ctx)
{
    struct event_bus_ack_info ack;

    assert_ok(contract_publish_id(ctx, "orders.a", "x", "id-1", &ack));
    return !ack.duplicate;
}

static void publish_of_an_id_beyond_the_window_is_stored_again(void **state)
{
    struct contract *c = *state;
    const char *subject = "orders.>";
    struct event_bus_ack_info ack;

    contract_stream_with(c, &(struct event_bus_stream_options){.name = "ORDERS",
                                                               .subjects = &subject,
                                                               .subject_count = 1,
                                                               .duplicate_window_ns = WB_SEC});
    assert_ok(contract_publish_id(c, "orders.a", "x", "id-1", &ack));
    int64_t stored = wb_mono_ns(wb_clock_system());
    assert_true(test_wait(stored_again, c, (int)(CONTRACT_PATIENCE_NS / WB_MS)));
    assert_true(wb_mono_ns(wb_clock_system()) - stored > 900 * WB_MS);
}

static wb_err publish_expecting(struct contract *c, uint64_t last, const char *id,
                                struct event_bus_ack_info *ret_ack)
{
    const struct event_bus_publish_options options = {.expect_last_seq = true, .last_seq = last};
    const struct message msg = {.subject = wb_str("orders.a"), .msg_id = wb_str(id)};

    return event_bus_publish(c->bus, &msg, &options, ret_ack, NULL);
}

static void publish_with_expected_sequence_is_stored_only_if_met(void **state)
{
    struct contract *c = *state;
    struct event_bus_ack_info ack;
    struct event_bus_stream_info info;

    contract_stream(c, "ORDERS", "orders.>");
    assert_err(publish_expecting(c, 1, NULL, &ack), WB_CONFLICT);
    assert_int_equal(ack.sequence, 0);
    assert_ok(publish_expecting(c, 0, "id-1", &ack));
    assert_int_equal(ack.sequence, 1);
    assert_err(publish_expecting(c, 0, "id-2", &ack), WB_CONFLICT);
    assert_int_equal(ack.sequence, 1);
    assert_ok(publish_expecting(c, 1, "id-2", &ack));
    assert_int_equal(ack.sequence, 2);
    assert_err(publish_expecting(c, 5, "id-3", &ack), WB_CONFLICT);
    assert_int_equal(ack.sequence, 2);
    assert_ok(event_bus_stream_info(c->bus, "ORDERS", &info, NULL));
    assert_int_equal(info.last_seq, 2);
}

static wb_err publish_behind(struct contract *c, uint64_t last, const char *last_id, const char *id)
{
    const struct message msg = {.subject = wb_str("orders.a"), .msg_id = wb_str(id)};
    struct event_bus_publish_options options = {.expect_last_seq = true, .last_seq = last};

    memcpy(options.last_msg_id, last_id, strlen(last_id) + 1);
    return event_bus_publish(c->bus, &msg, &options, NULL, NULL);
}

static void publish_with_expected_id_stands_right_behind_it_or_nowhere(void **state)
{
    struct contract *c = *state;
    struct event_bus_stream_info info;

    contract_stream(c, "ORDERS", "orders.>");
    assert_ok(publish_behind(c, 0, "", "id-1"));
    assert_ok(publish_behind(c, 1, "id-1", "id-2"));
    assert_err(publish_behind(c, 2, "id-1", "id-3"), WB_CONFLICT);
    assert_err(publish_behind(c, 1, "id-2", "id-3"), WB_CONFLICT);
    assert_ok(event_bus_publish(c->bus, &(struct message){.subject = wb_str("orders.a")}, NULL,
                                NULL, NULL)); /* of somebody who has no ids */
    assert_err(publish_behind(c, 3, "id-2", "id-3"), WB_CONFLICT);
    assert_ok(publish_behind(c, 3, "", "id-3"));
    assert_ok(event_bus_stream_info(c->bus, "ORDERS", &info, NULL));
    assert_int_equal(info.last_seq, 4);
}

static void publish_of_a_known_id_with_a_wrong_expectation_is_a_conflict(void **state)
{
    struct contract *c = *state;
    struct event_bus_ack_info ack;

    contract_stream(c, "ORDERS", "orders.>");
    assert_ok(publish_expecting(c, 0, "id-1", &ack));
    assert_ok(publish_expecting(c, 1, "id-2", &ack));
    assert_err(publish_expecting(c, 0, "id-1", &ack), WB_CONFLICT);
    assert_int_equal(ack.sequence, 2);
}

/* ---- a server that goes away ----------------------------------------------------------------- */

static void publish_while_the_server_is_away_fails_within_its_time(void **state)
{
    struct contract *c = *state;
    const struct event_bus_publish_options options = {.timeout_ns = 500 * WB_MS};
    const struct message msg = {.subject = wb_str("orders.a"), .msg_id = wb_str("id-1")};

    contract_stream(c, "ORDERS", "orders.>");
    c->kind->lose_server(c->kind->ctx, c->bus);
    int64_t begin = wb_mono_ns(wb_clock_system());
    wb_err err = event_bus_publish(c->bus, &msg, &options, NULL, NULL);
    int64_t took = wb_mono_ns(wb_clock_system()) - begin;
    c->kind->return_server(c->kind->ctx, c->bus);
    assert_true(err == WB_UNREACHABLE || err == WB_UNKNOWN || err == WB_TIMEOUT);
    assert_true(took < CONTRACT_PATIENCE_NS / 2);
}

static void *bring_back(void *ctx)
{
    struct contract *c = ctx;

    c->kind->return_server(c->kind->ctx, c->bus);
    return NULL;
}

static void publish_with_an_id_outlasts_an_outage(void **state)
{
    struct contract *c = *state;
    const struct event_bus_publish_options patient = {.timeout_ns = CONTRACT_PATIENCE_NS};
    const struct message msg = {.subject = wb_str("orders.a"), .msg_id = wb_str("id-1")};
    struct event_bus_ack_info ack;
    struct event_bus_stream_info info;
    pthread_t thread;

    contract_stream(c, "ORDERS", "orders.>");
    c->kind->lose_server(c->kind->ctx, c->bus);
    assert_int_equal(pthread_create(&thread, NULL, bring_back, c), 0);
    wb_err err = event_bus_publish(c->bus, &msg, &patient, &ack, NULL);
    pthread_join(thread, NULL);
    assert_ok(err);
    assert_int_equal(ack.sequence, 1);
    assert_ok(event_bus_publish(c->bus, &msg, &patient, &ack, NULL));
    assert_true(ack.duplicate);
    assert_ok(event_bus_stream_info(c->bus, "ORDERS", &info, NULL));
    assert_int_equal(info.messages, 1);
}

static const struct contract_case cases[] = {
    CONTRACT_CASE(publish_to_an_invalid_subject_is_refused),
    CONTRACT_CASE(publish_with_invalid_headers_is_refused),
    CONTRACT_CASE(publish_with_an_invalid_id_is_refused),
    CONTRACT_CASE(publish_beyond_max_payload_is_refused_at_it_is_not),
    CONTRACT_CASE(message_arrives_as_it_was_sent),
    CONTRACT_CASE(message_without_anything_but_a_subject_arrives),
    CONTRACT_CASE(publish_returns_stream_and_rising_sequence),
    CONTRACT_CASE(publish_without_stream_says_so_soon),
    CONTRACT_CASE(publish_of_a_known_id_is_stored_once),
    CONTRACT_CASE(publish_of_an_id_beyond_the_window_is_stored_again),
    CONTRACT_CASE(publish_with_expected_sequence_is_stored_only_if_met),
    CONTRACT_CASE(publish_with_expected_id_stands_right_behind_it_or_nowhere),
    CONTRACT_CASE(publish_of_a_known_id_with_a_wrong_expectation_is_a_conflict),
    {"publish_while_the_server_is_away_fails_within_its_time",
     publish_while_the_server_is_away_fails_within_its_time, .needs_server = true},
    {"publish_with_an_id_outlasts_an_outage", publish_with_an_id_outlasts_an_outage,
     .needs_server = true},
};

const struct contract_cases contract_publish_cases = {cases, sizeof(cases) / sizeof(cases[0])};
