/* What a message may hold. */
#include <stdio.h>

#include <waybill/message.h>

#include "test_support.h"

#define HEADER(n, v)                                                                               \
    {                                                                                              \
        .name = {(n), sizeof(n) - 1}, .value = {(v), sizeof(v) - 1 }                               \
    }

static wb_err check_one(struct message_header header, struct wb_why *why)
{
    const struct message msg = {.subject = wb_str("a"), .headers = &header, .header_count = 1};

    return message_check(&msg, MESSAGE_PAYLOAD_MAX, why);
}

static void message_without_anything_but_a_subject_is_valid(void **state)
{
    const struct message msg = {.subject = wb_str("a")};

    (void)state;
    assert_ok(message_check(&msg, 0, NULL));
    assert_int_equal(message_header_bytes(&msg), 0);
}

static void header_of_printable_ascii_with_text_is_valid(void **state)
{
    static const struct message_header good[] = {
        HEADER("a", "b"),
        HEADER("ce-type", "x"),
        HEADER("!#$%&'*+-.^_`|~(){}[]\"\\", "1"),
        HEADER("Natsy", "x"),
        HEADER("nats", "x"),
        HEADER("X", "two words, 100 %: 'é'"),
        HEADER("X", "tab\tinside"),
        HEADER("X", "\x01\x7f"),
    };

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_ok(check_one(good[i], NULL));
}

static void header_name_beyond_printable_ascii_is_refused(void **state)
{
    static const struct message_header bad[] = {
        HEADER("", "x"),     HEADER("a:b", "x"),  HEADER(":", "x"),     HEADER("a b", "x"),
        HEADER(" a", "x"),   HEADER("a\tb", "x"), HEADER("a\r\n", "x"), HEADER("a\0b", "x"),
        HEADER("\x7f", "x"), HEADER("é", "x"),    HEADER("\xff", "x"),
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_err(check_one(bad[i], NULL), WB_INVALID);
    assert_err(check_one((struct message_header){.value = wb_str("x")}, NULL), WB_INVALID);
}

static void header_of_the_bus_is_refused_in_any_case(void **state)
{
    static const struct message_header bad[] = {
        HEADER("Nats-Msg-Id", "x"), HEADER("nats-expected-stream", "x"), HEADER("NATS-", "x")};
    struct wb_why why;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_err(check_one(bad[i], &why), WB_INVALID);
    assert_non_null(strstr(why.text, "'NATS-'"));
}

static void header_value_that_would_not_survive_the_wire_is_refused(void **state)
{
    static const struct message_header bad[] = {
        HEADER("X", ""),         HEADER("X", " a"),   HEADER("X", "a "),   HEADER("X", "\ta"),
        HEADER("X", "a\v"),      HEADER("X", "a\rb"), HEADER("X", "a\nb"), HEADER("X", "a\r\nY: b"),
        HEADER("X", "a\0b"),     HEADER("X", "\0"),   HEADER("X", " "),    HEADER("X", "\xff"),
        HEADER("X", "\xc0\x80"), HEADER("X", "a\f"),
    };
    struct wb_why why;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_err(check_one(bad[i], &why), WB_INVALID);
        assert_non_null(strstr(why.text, "header 'X': "));
    }
    assert_err(check_one((struct message_header){.name = wb_str("X")}, NULL), WB_INVALID);
}

static void header_names_that_differ_only_in_case_are_refused(void **state)
{
    struct message_header headers[] = {HEADER("Trace", "1"), HEADER("X", "2"),
                                       HEADER("Trace", "3")};
    const struct message msg = {.headers = headers, .header_count = 3};
    struct wb_why why;

    (void)state;
    assert_ok(message_check(&msg, 1000, NULL)); /* several values of one name */
    headers[2].name = wb_str("TRACE");
    assert_err(message_check(&msg, 1000, &why), WB_INVALID);
    assert_non_null(strstr(why.text, "'Trace' and 'TRACE'"));
}

static void header_is_looked_up_without_case_and_the_first_value_wins(void **state)
{
    const struct message_header headers[] = {HEADER("Trace", "1"), HEADER("Trace", "2")};
    const struct message msg = {.headers = headers, .header_count = 2};

    (void)state;
    assert_true(wb_str_eq(message_header(&msg, "tRACE"), wb_str("1")));
    assert_null(message_header(&msg, "trac").ptr);
    assert_int_equal(message_header(&msg, "traces").len, 0);
}

static void headers_beyond_a_hundred_are_too_big(void **state)
{
    struct message_header headers[MESSAGE_HEADERS_MAX + 1];
    struct message msg = {.headers = headers, .header_count = MESSAGE_HEADERS_MAX};

    (void)state;
    for (size_t i = 0; i <= MESSAGE_HEADERS_MAX; i++)
        headers[i] = (struct message_header)HEADER("X", "v");
    assert_ok(message_check(&msg, MESSAGE_PAYLOAD_MAX, NULL));
    msg.header_count++;
    assert_err(message_check(&msg, MESSAGE_PAYLOAD_MAX, NULL), WB_TOO_BIG);
}

static void msg_id_has_at_most_64_printable_bytes(void **state)
{
    char id[65];
    struct message msg = {.msg_id = {id, 64}};

    (void)state;
    memset(id, '~', sizeof(id));
    assert_ok(message_check(&msg, 1000, NULL));
    msg.msg_id.len = 65;
    assert_err(message_check(&msg, 1000, NULL), WB_INVALID);
    static const char *const bad[] = {"a b", "a\r\nb", "é", "a\x7f", " "};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        msg.msg_id = wb_str(bad[i]);
        assert_err(message_check(&msg, 1000, NULL), WB_INVALID);
    }
    msg.msg_id = wb_str_n("a\0b", 3);
    assert_err(message_check(&msg, 1000, NULL), WB_INVALID);
}

static void header_bytes_are_those_of_the_wire(void **state)
{
    const struct message_header headers[] = {HEADER("Foo", "bar"), HEADER("Foo", "b")};
    struct message msg = {.headers = headers, .header_count = 2};

    (void)state;
    assert_int_equal(message_header_bytes(&msg), strlen("NATS/1.0\r\nFoo: bar\r\nFoo: b\r\n\r\n"));
    msg.msg_id = wb_str("0123");
    assert_int_equal(message_header_bytes(&msg),
                     strlen("NATS/1.0\r\nFoo: bar\r\nFoo: b\r\nNats-Msg-Id: 0123\r\n\r\n"));
    msg.header_count = 0;
    assert_int_equal(message_header_bytes(&msg), strlen("NATS/1.0\r\nNats-Msg-Id: 0123\r\n\r\n"));
}

static void message_as_large_as_the_limit_is_the_largest(void **state)
{
    static char bytes[MESSAGE_PAYLOAD_MAX + 1];
    const struct message_header header = HEADER("Foo", "bar"); /* 22 bytes on the wire */
    struct message msg = {.payload = {bytes, 100}, .headers = &header, .header_count = 1};
    struct wb_why why;

    (void)state;
    assert_ok(message_check(&msg, 122, NULL));
    assert_err(message_check(&msg, 121, &why), WB_TOO_BIG);
    assert_non_null(strstr(why.text, "payload of 100 and headers of 22 bytes"));
    assert_err(message_check(&msg, 21, NULL), WB_TOO_BIG);
    msg = (struct message){.payload = {bytes, MESSAGE_PAYLOAD_MAX}};
    assert_ok(message_check(&msg, MESSAGE_PAYLOAD_MAX, NULL));
    msg.payload.len++;
    assert_err(message_check(&msg, MESSAGE_PAYLOAD_MAX, NULL), WB_TOO_BIG);
}

static void headers_of_64_kib_are_too_big(void **state)
{
    static char value[MESSAGE_HEADER_BYTES_MAX];
    const size_t frame = strlen("NATS/1.0\r\nX: \r\n\r\n");
    struct message_header header = {wb_str("X"), {value, MESSAGE_HEADER_BYTES_MAX - frame}};

    (void)state;
    memset(value, 'v', sizeof(value));
    assert_ok(check_one(header, NULL));
    header.value.len++;
    assert_err(check_one(header, NULL), WB_TOO_BIG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(message_without_anything_but_a_subject_is_valid),
        cmocka_unit_test(header_of_printable_ascii_with_text_is_valid),
        cmocka_unit_test(header_name_beyond_printable_ascii_is_refused),
        cmocka_unit_test(header_of_the_bus_is_refused_in_any_case),
        cmocka_unit_test(header_value_that_would_not_survive_the_wire_is_refused),
        cmocka_unit_test(header_names_that_differ_only_in_case_are_refused),
        cmocka_unit_test(header_is_looked_up_without_case_and_the_first_value_wins),
        cmocka_unit_test(headers_beyond_a_hundred_are_too_big),
        cmocka_unit_test(msg_id_has_at_most_64_printable_bytes),
        cmocka_unit_test(header_bytes_are_those_of_the_wire),
        cmocka_unit_test(message_as_large_as_the_limit_is_the_largest),
        cmocka_unit_test(headers_of_64_kib_are_too_big),
    };
    return cmocka_run_group_tests_name("message_check", tests, NULL, NULL);
}
