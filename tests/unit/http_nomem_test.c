/* The parser when each allocation fails in turn: refused with 503, for good, and nothing leaks. */
#include "test_support.h"

#include "http_parser.h"
#include "test_nomem.h"

static void parser_out_of_memory_refuses_and_stays_refused(void **state)
{
    static const char request[] = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello";
    http_step step = HTTP_REFUSED;
    int allowed = 0;

    (void)state;
    for (; step == HTTP_REFUSED; allowed++) {
        struct http_parser parser;
        size_t used, at = 0;
        http_parser_init(&parser, 512, 5);
        test_nomem_after(allowed);
        do {
            step = http_parser_feed(&parser, request + at, sizeof(request) - 1 - at, &used);
            at += used;
        } while (step == HTTP_HEAD || step == HTTP_MORE);
        test_nomem_after(-1);
        if (step == HTTP_REFUSED) {
            assert_int_equal(parser.status, 503);
            assert_int_equal(http_parser_feed(&parser, "G", 1, &used), HTTP_REFUSED);
            assert_int_equal(used, 0);
        }
        http_parser_reset(&parser);
    }
    assert_int_equal(step, HTTP_DONE);
    assert_int_equal(allowed, 4); /* the head, the table of headers, the body; then none failed */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parser_out_of_memory_refuses_and_stays_refused),
    };
    return cmocka_run_group_tests_name("http_nomem", tests, NULL, NULL);
}
