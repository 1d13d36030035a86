/* Requests and error answers as a module sees them. */
#include "test_support.h"

#include <waybill/module.h>

static const struct message_header headers[] = {
    {{"Content-Type", 12}, {"text/plain", 10}},
    {{"X-Twice", 7}, {"first", 5}},
    {{"x-twice", 7}, {"second", 6}},
    {{"X-Empty", 7}, {"", 0}},
};
static const struct module_request request = {.headers = headers, .header_count = 4};

static void request_header_is_found_without_case(void **state)
{
    (void)state;
    assert_true(wb_str_eq(module_request_header(&request, "content-type"), wb_str("text/plain")));
}

static void request_header_given_twice_yields_the_first(void **state)
{
    (void)state;
    assert_true(wb_str_eq(module_request_header(&request, "X-TWICE"), wb_str("first")));
}

static void request_header_absent_is_told_from_an_empty_one(void **state)
{
    (void)state;
    assert_null(module_request_header(&request, "X-Twic").ptr);
    assert_non_null(module_request_header(&request, "X-Empty").ptr);
    assert_int_equal(module_request_header(&request, "X-Empty").len, 0);
}

static void respond_error_replaces_what_was_written_before(void **state)
{
    struct module_response response = {.status = 200, .content_type = "text/html"};

    (void)state;
    wb_buf_str(&response.body, "<p>half a page");
    module_respond_error(&response, 409, "a \"quoted\" name", "choose another");
    assert_int_equal(response.status, 409);
    assert_string_equal(response.content_type, "application/json");
    assert_string_equal(response.body.ptr,
                        "{\"error\":\"a \\\"quoted\\\" name\",\"next\":\"choose another\"}\n");
    wb_buf_free(&response.body);
}

static void respond_error_without_next_leaves_it_out(void **state)
{
    struct module_response response = {0};

    (void)state;
    module_respond_error(&response, 500, "broken", NULL);
    assert_string_equal(response.body.ptr, "{\"error\":\"broken\"}\n");
    wb_buf_free(&response.body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_header_is_found_without_case),
        cmocka_unit_test(request_header_given_twice_yields_the_first),
        cmocka_unit_test(request_header_absent_is_told_from_an_empty_one),
        cmocka_unit_test(respond_error_replaces_what_was_written_before),
        cmocka_unit_test(respond_error_without_next_leaves_it_out),
    };
    return cmocka_run_group_tests_name("module", tests, NULL, NULL);
}
