/* Messages between the command line, a service's lines of JSON, and a terminal. */
#include "test_support.h"

#include "cli_http.h"
#include "cli_message.h"
#include "service_json.h"

static void expect_same(const struct event_bus_delivery *delivery)
{
    struct wb_buf line = {0};
    struct cli_received received;
    const struct message *want = &delivery->message;

    service_delivery_json(delivery, &line);
    assert_ok(service_cli_received_parse(wb_str_n(line.ptr, line.len), &received, NULL));
    const struct message *got = &received.delivery.message;
    assert_true(wb_str_eq(got->subject, want->subject));
    assert_true(wb_str_eq(got->msg_id, want->msg_id));
    assert_true(wb_str_eq(received.delivery.stream, delivery->stream));
    assert_int_equal(received.delivery.sequence, delivery->sequence);
    assert_int_equal(received.delivery.deliveries, delivery->deliveries);
    assert_true(received.delivery.stored_wall_ns == delivery->stored_wall_ns);
    assert_int_equal(got->payload.len, want->payload.len);
    if (want->payload.len > 0)
        assert_memory_equal(got->payload.ptr, want->payload.ptr, want->payload.len);
    assert_int_equal(got->header_count, want->header_count);
    for (size_t i = 0; i < want->header_count; i++) {
        assert_true(wb_str_eq(got->headers[i].name, want->headers[i].name));
        assert_true(wb_str_eq(got->headers[i].value, want->headers[i].value));
    }
    service_cli_received_free(&received);
    wb_buf_free(&line);
}

static struct event_bus_delivery sample(const void *payload, size_t len)
{
    return (struct event_bus_delivery){
        .message = {.subject = wb_str("a.b"), .payload = {payload, len}, .msg_id = wb_str("id-1")},
        .stream = wb_str("A"),
        .sequence = 9007199254740993,
        .deliveries = 2,
        .stored_wall_ns = INT64_C(1767323045678) * WB_MS,
    };
}

static void received_line_gives_back_what_was_sent(void **state)
{
    const struct message_header headers[] = {{wb_str("x"), wb_str("1")},
                                             {wb_str("x"), wb_str("2")},
                                             {wb_str("y-z"), wb_str("\xc3\xa4 \"q\"")}};
    struct event_bus_delivery delivery = sample("{\"a\":\"\\n\"}\n", 11);

    (void)state;
    expect_same(&delivery);
    delivery.message.headers = headers;
    delivery.message.header_count = 3;
    expect_same(&delivery);
}

static void received_line_gives_back_bytes_that_are_no_text(void **state)
{
    char bytes[256];

    (void)state;
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (char)(255 - i);
    for (size_t len = 0; len <= sizeof(bytes); len++) {
        struct event_bus_delivery delivery = sample(bytes, len);
        expect_same(&delivery);
    }
}

static void received_line_that_is_no_object_is_refused(void **state)
{
    static const char *const bad[] = {"", "x", "[]", "\"a\"", "{", "{\"a\":1,\"a\":2}", "<html>"};
    struct cli_received received;
    struct wb_why why;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_err(service_cli_received_parse(wb_str(bad[i]), &received, &why), WB_INVALID);
        assert_non_null(strstr(why.text, "not the service"));
    }
}

static void received_line_with_foreign_members_only_is_empty_and_harmless(void **state)
{
    struct cli_received received;

    (void)state;
    assert_ok(service_cli_received_parse(
        wb_str("{\"subject\":7,\"headers\":{\"a\":\"b\",\"c\":[1]},\"payload_base64\":\"!!\"}"),
        &received, NULL));
    assert_int_equal(received.delivery.message.subject.len, 0);
    assert_int_equal(received.delivery.message.payload.len, 0);
    service_cli_received_free(&received);
}

static void print_escapes_what_could_steer_a_terminal(void **state)
{
    const struct message_header header = {wb_str("x"), wb_str("\033[2J")};
    const struct message msg = {
        .payload = {"a\033]0;t\007\r\n", 9}, .headers = &header, .header_count = 1};
    struct wb_buf out = {0};

    (void)state;
    service_cli_message_print(&out, &msg);
    assert_null(strchr(out.ptr, '\033'));
    assert_null(strchr(out.ptr, '\r'));
    assert_null(strchr(out.ptr, '\007'));
    assert_non_null(strstr(out.ptr, "\\x1b"));
    wb_buf_free(&out);
}

static void encode_leaves_only_unreserved_characters(void **state)
{
    struct wb_buf out = {0};

    (void)state;
    service_cli_http_encode(&out, wb_str_n("a.b-_~Z9 &=?#%/\xc3\xa4\r\n\0", 20));
    assert_string_equal(out.ptr, "a.b-_~Z9%20%26%3D%3F%23%25%2F%C3%A4%0D%0A%00");
    wb_buf_free(&out);
}

/* ---- exit codes ------------------------------------------------------------------------------ */

static void exit_code_of_every_error_is_within_the_documented_ones(void **state)
{
    (void)state;
#define X(name, class, text)                                                                       \
    assert_true(service_cli_exit_code(WB_##name) <= 8);                                            \
    assert_int_equal(service_cli_exit_code(WB_##name) == 0, WB_##name == WB_OK);                   \
    assert_int_equal(service_cli_err_of_name(#name), WB_##name);
    WB_ERR_MAP(X)
#undef X
    assert_int_equal(service_cli_exit_code(WB_NOT_FOUND), 3);
    assert_int_equal(service_cli_exit_code(WB_UNREACHABLE), 4);
    assert_int_equal(service_cli_exit_code(WB_TIMEOUT), 4);
    assert_int_equal(service_cli_exit_code(WB_DENIED), 5);
    assert_int_equal(service_cli_exit_code(WB_CONFLICT), 6);
    assert_int_equal(service_cli_exit_code(WB_INVALID), 7);
    assert_int_equal(service_cli_exit_code((wb_err)9999), 1);
}

static void err_of_an_unknown_name_is_internal(void **state)
{
    (void)state;
    assert_int_equal(service_cli_err_of_name("NO_SUCH"), WB_INTERNAL);
    assert_int_equal(service_cli_err_of_name(NULL), WB_INTERNAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(received_line_gives_back_what_was_sent),
        cmocka_unit_test(received_line_gives_back_bytes_that_are_no_text),
        cmocka_unit_test(received_line_that_is_no_object_is_refused),
        cmocka_unit_test(received_line_with_foreign_members_only_is_empty_and_harmless),
        cmocka_unit_test(print_escapes_what_could_steer_a_terminal),
        cmocka_unit_test(encode_leaves_only_unreserved_characters),
        cmocka_unit_test(exit_code_of_every_error_is_within_the_documented_ones),
        cmocka_unit_test(err_of_an_unknown_name_is_internal),
    };
    return cmocka_run_group_tests_name("service_cli_message", tests, NULL, NULL);
}
