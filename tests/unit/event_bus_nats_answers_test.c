/* What the server says, read by small scanners: answers, reply subjects, headers, times. */
#include "test_support.h"

#include "delivery.h"
#include "nats_bus.h"
#include "puback.h"

/* ---- answers to a publish -------------------------------------------------------------------- */

static void puback_tells_stream_sequence_and_duplicate(void **state)
{
    struct nats_puback ack;

    (void)state;
    assert_true(event_bus_nats_puback_parse(wb_str("{\"stream\":\"X\", \"seq\":42}"), &ack));
    assert_true(wb_str_eq(ack.stream, wb_str("X")));
    assert_int_equal(ack.seq, 42);
    assert_false(ack.duplicate);
    assert_false(ack.error);
    assert_true(event_bus_nats_puback_parse(
        wb_str(" {\"duplicate\": true,\"domain\":\"a\\\"b\",\"seq\":1 , \"stream\":\"ORDERS\"}\n"),
        &ack));
    assert_true(wb_str_eq(ack.stream, wb_str("ORDERS")));
    assert_true(ack.duplicate);
}

static void puback_tells_the_error(void **state)
{
    struct nats_puback ack;

    (void)state;
    assert_true(event_bus_nats_puback_parse(
        wb_str("{\"error\":{\"code\":400,\"err_code\":10071,\"description\":\"wrong last sequence: "
               "3\"},\"stream\":\"X\",\"seq\":0}"),
        &ack));
    assert_true(ack.error);
    assert_int_equal(ack.code, 400);
    assert_int_equal(ack.err_code, 10071);
    assert_int_equal(event_bus_nats_puback_actual_sequence(ack.description), 3);
}

static void puback_that_is_none_is_refused(void **state)
{
    static const char *const texts[] = {
        "",
        "+OK",
        "{",
        "{}",
        "{\"stream\":\"X\"}",
        "{\"seq\":1}",
        "{\"stream\":\"X\",\"seq\":-1}",
        "{\"stream\":\"X\",\"seq\":1e3}",
        "{\"stream\":\"X\",\"seq\":99999999999999999999999}",
        "{\"stream\":\"X\",\"seq\":1",
        "{\"stream\":\"X\",\"seq\":1}}",
        "{\"stream\":\"X,\"seq\":1}",
        "{\"stream\":\"X\\",
        "{\"stream\":\"X\",\"seq\":}",
        "{\"stream\":\"X\" \"seq\":1}",
        "{\"a\":{\"b\":{\"c\":{\"d\":1}}},\"stream\":\"X\",\"seq\":1}",
        "[{\"stream\":\"X\",\"seq\":1}]",
    };
    struct nats_puback ack = {.seq = 7};

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        if (event_bus_nats_puback_parse(wb_str(texts[i]), &ack))
            fail_msg("taken for an answer: %s", texts[i]);
        assert_int_equal(ack.seq, 7);
    }
}

/* An answer cut off at any byte is no answer, and never read beyond its end. */
static void puback_cut_off_anywhere_is_refused(void **state)
{
    static const char whole[] = "{\"error\":{\"code\":503,\"description\":\"a\\\"b\"},\"seq\":0}";
    struct nats_puback ack;

    (void)state;
    for (size_t len = 0; len + 1 < sizeof(whole); len++) {
        char *text = malloc(len + 1); /* exact, for the address sanitizer */
        assert_non_null(text);
        memcpy(text, whole, len);
        bool parsed = event_bus_nats_puback_parse(wb_str_n(text, len), &ack);
        free(text);
        assert_false(parsed);
    }
    assert_true(event_bus_nats_puback_parse(wb_str(whole), &ack));
}

static void actual_sequence_is_the_number_at_the_end(void **state)
{
    (void)state;
    assert_int_equal(event_bus_nats_puback_actual_sequence(wb_str("wrong last sequence: 12")), 12);
    assert_int_equal(event_bus_nats_puback_actual_sequence(wb_str("wrong last sequence")), 0);
    assert_int_equal(event_bus_nats_puback_actual_sequence(wb_str("")), 0);
}

/* ---- reply subjects -------------------------------------------------------------------------- */

static void ack_subject_of_old_servers_is_read(void **state)
{
    struct nats_ack_subject ack;

    (void)state;
    assert_true(
        event_bus_nats_ack_subject_parse("$JS.ACK.X.worker.2.30.4.1795257053712822971.6", &ack));
    assert_true(wb_str_eq(ack.stream, wb_str("X")));
    assert_true(wb_str_eq(ack.consumer, wb_str("worker")));
    assert_int_equal(ack.deliveries, 2);
    assert_int_equal(ack.stream_seq, 30);
    assert_int_equal(ack.consumer_seq, 4);
    assert_int_equal(ack.stored_ns, 1795257053712822971);
}

static void ack_subject_with_domain_and_token_is_read(void **state)
{
    static const char *const subjects[] = {"$JS.ACK._.ACCHASH.X.worker.1.2.3.4.5",
                                           "$JS.ACK.hub.ACCHASH.X.worker.1.2.3.4.5.token"};
    struct nats_ack_subject ack;

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        assert_true(event_bus_nats_ack_subject_parse(subjects[i], &ack));
        assert_true(wb_str_eq(ack.stream, wb_str("X")));
        assert_true(wb_str_eq(ack.consumer, wb_str("worker")));
        assert_int_equal(ack.stream_seq, 2);
    }
}

static void ack_subject_that_is_none_is_refused(void **state)
{
    static const char *const subjects[] = {"",
                                           "$JS.ACK.",
                                           "$JS.ACK.X.worker.1.2.3.4",
                                           "$JS.ACK.X.worker.1.2.3.4.5.6",
                                           "$JS.ACK.X.worker.1.a.3.4.5",
                                           "$JS.ACK.a.b.X.worker.1.2.3.4.5.t.u",
                                           "_INBOX.X.worker.1.2.3.4.5"};
    struct nats_ack_subject ack;

    (void)state;
    assert_false(event_bus_nats_ack_subject_parse(NULL, &ack));
    for (size_t i = 0; i < sizeof(subjects) / sizeof(subjects[0]); i++)
        if (event_bus_nats_ack_subject_parse(subjects[i], &ack))
            fail_msg("taken for a reply subject: %s", subjects[i]);
}

/* ---- messages that are read back ------------------------------------------------------------- */

static void base64_is_decoded(void **state)
{
    char out[16];
    size_t len = 99;

    (void)state;
    assert_true(event_bus_nats_base64_decode(wb_str(""), out, &len));
    assert_int_equal(len, 0);
    assert_true(event_bus_nats_base64_decode(wb_str("aGk="), out, &len));
    assert_int_equal(len, 2);
    assert_memory_equal(out, "hi", 2);
    assert_true(event_bus_nats_base64_decode(wb_str("/+8AAQ=="), out, &len));
    assert_int_equal(len, 4);
    assert_memory_equal(out, "\xff\xef\x00\x01", 4);
    assert_false(event_bus_nats_base64_decode(wb_str("aGk"), out, &len));
    assert_false(event_bus_nats_base64_decode(wb_str("a k="), out, &len));
    assert_false(event_bus_nats_base64_decode(wb_str("=aaa"), out, &len));
}

static void header_lines_are_taken_apart_without_those_of_the_bus(void **state)
{
    char block[] = "NATS/1.0\r\nA: 1\r\na-b:  two words \r\nNats-Msg-Id: id-7\r\nA: 2\r\n"
                   "nats-expected-stream: X\r\nno colon\r\n\r\n";
    struct message_header headers[8];
    struct wb_str id = {NULL, 0};

    (void)state;
    size_t count = event_bus_nats_headers_parse(block, strlen(block), headers, 8, &id);
    assert_int_equal(count, 3);
    assert_true(wb_str_eq(headers[0].name, wb_str("A")));
    assert_true(wb_str_eq(headers[1].name, wb_str("a-b")));
    assert_true(wb_str_eq(headers[1].value, wb_str("two words")));
    assert_true(wb_str_eq(headers[2].value, wb_str("2")));
    assert_true(wb_str_eq(id, wb_str("id-7")));
}

static void times_are_read_to_the_nanosecond(void **state)
{
    (void)state;
    assert_int_equal(event_bus_nats_time_parse("1970-01-01T00:00:01Z"), WB_SEC);
    assert_int_equal(event_bus_nats_time_parse("1970-01-01T00:00:01.000000009Z"), WB_SEC + 9);
    assert_int_equal(event_bus_nats_time_parse("1970-01-01T00:00:01.25Z"), WB_SEC + 250 * WB_MS);
    assert_int_equal(event_bus_nats_time_parse("1970-01-01T01:00:01.5+01:00"),
                     WB_SEC + 500 * WB_MS);
    assert_int_equal(event_bus_nats_time_parse("yesterday"), 0);
    assert_int_equal(event_bus_nats_time_parse(NULL), 0);
}

/* ---- what comes outside of any call ---------------------------------------------------------- */

static void violation_names_the_subject(void **state)
{
    char subject[256];

    (void)state;
    assert_true(
        event_bus_nats_denied_subject("Permissions Violation for Publish to \"a.b\"", subject));
    assert_string_equal(subject, "a.b");
    assert_true(
        event_bus_nats_denied_subject("permissions violation for publish to \"a.b", subject));
    assert_string_equal(subject, "a.b");
    assert_false(event_bus_nats_denied_subject("Permissions Violation for Subscription to \"a.b\"",
                                               subject));
    assert_false(event_bus_nats_denied_subject("Publish to \"\"", subject));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(puback_tells_stream_sequence_and_duplicate),
        cmocka_unit_test(puback_tells_the_error),
        cmocka_unit_test(puback_that_is_none_is_refused),
        cmocka_unit_test(puback_cut_off_anywhere_is_refused),
        cmocka_unit_test(actual_sequence_is_the_number_at_the_end),
        cmocka_unit_test(ack_subject_of_old_servers_is_read),
        cmocka_unit_test(ack_subject_with_domain_and_token_is_read),
        cmocka_unit_test(ack_subject_that_is_none_is_refused),
        cmocka_unit_test(base64_is_decoded),
        cmocka_unit_test(header_lines_are_taken_apart_without_those_of_the_bus),
        cmocka_unit_test(times_are_read_to_the_nanosecond),
        cmocka_unit_test(violation_names_the_subject),
    };
    return cmocka_run_group_tests_name("event_bus_nats answers", tests, NULL, NULL);
}
