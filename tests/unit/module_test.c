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

static void request_limit_is_absent_or_a_number_in_range(void **state)
{
    static const char *const bad[] = {"limit=",   "limit=0", "limit=11", "limit=-1", "limit=1x",
                                      "limit=1&", "Limit=1", "x=1",      "limit",    "&limit=1"};
    struct wb_why why = {""};
    int64_t limit = 7;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const struct module_request asked = {.query = wb_str(bad[i])};
        assert_err(module_request_limit(&asked, 10, &limit, &why), WB_INVALID);
    }
    assert_int_equal(limit, 7);
    assert_string_equal(why.text, "expected no query, or limit=1 to 10");
    assert_ok(
        module_request_limit(&(struct module_request){.query = wb_str("")}, 10, &limit, NULL));
    assert_int_equal(limit, MODULE_LIST_DEFAULT);
    assert_ok(module_request_limit(&(struct module_request){.query = wb_str("limit=10")}, 10,
                                   &limit, NULL));
    assert_int_equal(limit, 10);
}

static void command_limit_is_absent_or_a_number_in_range(void **state)
{
    static const char *const good[] = {"--limit", "3"};
    static const char *const large[] = {"--limit", "11"};
    static const char *const other[] = {"--max", "3"};
    int64_t limit = 7;

    (void)state;
    assert_err(module_command_limit(2, large, 10, &limit, NULL), WB_MISUSE);
    assert_err(module_command_limit(2, other, 10, &limit, NULL), WB_MISUSE);
    assert_err(module_command_limit(1, good, 10, &limit, NULL), WB_MISUSE);
    assert_int_equal(limit, 7);
    assert_ok(module_command_limit(2, good, 10, &limit, NULL));
    assert_int_equal(limit, 3);
    assert_ok(module_command_limit(0, NULL, 10, &limit, NULL));
    assert_int_equal(limit, MODULE_LIST_DEFAULT);
}

static void respond_failure_tells_what_may_work_later_from_what_needs_a_person(void **state)
{
    struct module_response response = {.status = 200};

    (void)state;
    module_respond_failure(&response, WB_BUSY, &(struct wb_why){"somebody writes"});
    assert_int_equal(response.status, 503);
    assert_non_null(strstr(response.body.ptr, "somebody writes"));
    module_respond_failure(&response, WB_CORRUPT, &(struct wb_why){""});
    assert_int_equal(response.status, 500);
    assert_non_null(strstr(response.body.ptr, wb_err_text(WB_CORRUPT)));
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
        cmocka_unit_test(request_limit_is_absent_or_a_number_in_range),
        cmocka_unit_test(command_limit_is_absent_or_a_number_in_range),
        cmocka_unit_test(respond_failure_tells_what_may_work_later_from_what_needs_a_person),
    };
    return cmocka_run_group_tests_name("module", tests, NULL, NULL);
}
