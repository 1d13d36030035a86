/* Headers as text: what was written is read again. */
#include <stdio.h>

#include <waybill/message.h>

#include "test_support.h"

static struct message_header parsed[MESSAGE_HEADERS_MAX];

static void expect(const char *text, size_t expected, const char *const pairs[][2])
{
    size_t count = 99;

    assert_ok(message_headers_parse(wb_str(text), parsed, &count, NULL));
    assert_int_equal(count, expected);
    for (size_t i = 0; i < expected; i++) {
        assert_true(wb_str_eq(parsed[i].name, wb_str(pairs[i][0])));
        assert_true(wb_str_eq(parsed[i].value, wb_str(pairs[i][1])));
    }
}

static void headers_written_by_hand_are_read_and_trimmed(void **state)
{
    static const char *const two[][2] = {{"A", "1"}, {"b", "two words"}};

    (void)state;
    expect("A: 1\nb: two words", 2, two);
    expect("A:1\nb:two words\n", 2, two);
    expect("  A :\t1  \r\n\n \t\r\nb:   two words\r\n\r\n", 2, two);
}

static void headers_of_one_name_keep_their_order_and_their_colons(void **state)
{
    static const char *const three[][2] = {{"A", "2"}, {"A", "1:x"}, {"A", "http://h:1/"}};

    (void)state;
    expect("A: 2\nA: 1:x\nA: http://h:1/", 3, three);
}

static void headers_of_empty_text_are_none(void **state)
{
    (void)state;
    expect("", 0, NULL);
    expect("\n\r\n  \n", 0, NULL);
    size_t count = 99;
    assert_ok(message_headers_parse((struct wb_str){NULL, 0}, parsed, &count, NULL));
    assert_int_equal(count, 0);
}

static void headers_with_a_bad_line_are_refused_by_its_number(void **state)
{
    static const char *const bad[] = {
        "no colon", "a b: c", ": x", "X:", "X:  ", "Nats-Msg-Id: x", "X: \xff"};
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char text[64];
        struct wb_why why;
        size_t count = 99;
        (void)snprintf(text, sizeof(text), "A: 1\n\n%s\nB: 2", bad[i]);
        assert_err(message_headers_parse(wb_str(text), parsed, &count, &why), WB_INVALID);
        assert_int_equal(count, 99);
        assert_non_null(strstr(why.text, "line 3: "));
    }
}

static void headers_beyond_a_hundred_lines_are_refused(void **state)
{
    struct wb_buf text = {0};
    struct wb_why why;
    size_t count = 0;

    (void)state;
    for (int i = 0; i < MESSAGE_HEADERS_MAX; i++)
        wb_buf_printf(&text, "A: %d\n", i);
    assert_ok(message_headers_parse(wb_str_n(text.ptr, text.len), parsed, &count, &why));
    assert_int_equal(count, MESSAGE_HEADERS_MAX);
    wb_buf_str(&text, "A: x");
    assert_err(message_headers_parse(wb_str_n(text.ptr, text.len), parsed, &count, &why),
               WB_INVALID);
    assert_non_null(strstr(why.text, "line 101: more than 100 headers"));
    wb_buf_free(&text);
}

static void headers_written_and_read_are_the_same(void **state)
{
    static const struct message_header headers[] = {
        {{"A", 1}, {"x: y", 4}}, {{"b-C", 3}, {"\xc3\xa9", 2}}, {{"A", 1}, {"2", 1}}};
    const struct message msg = {.headers = headers, .header_count = 3};
    struct wb_buf text = {0};
    size_t count = 0;

    (void)state;
    message_headers_format(&msg, &text);
    assert_string_equal(text.ptr, "A: x: y\nb-C: \xc3\xa9\nA: 2");
    assert_ok(message_headers_parse(wb_str_n(text.ptr, text.len), parsed, &count, NULL));
    assert_int_equal(count, 3);
    for (size_t i = 0; i < count; i++) {
        assert_true(wb_str_eq(parsed[i].name, headers[i].name));
        assert_true(wb_str_eq(parsed[i].value, headers[i].value));
    }
    wb_buf_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers_written_by_hand_are_read_and_trimmed),
        cmocka_unit_test(headers_of_one_name_keep_their_order_and_their_colons),
        cmocka_unit_test(headers_of_empty_text_are_none),
        cmocka_unit_test(headers_with_a_bad_line_are_refused_by_its_number),
        cmocka_unit_test(headers_beyond_a_hundred_lines_are_refused),
        cmocka_unit_test(headers_written_and_read_are_the_same),
    };
    return cmocka_run_group_tests_name("message_headers", tests, NULL, NULL);
}
