/* Views, UTF-8, distances, the growing buffer and its escapes. */
#include "test_support.h"

static void str_eq_compares_length_and_bytes(void **state)
{
    (void)state;
    assert_true(wb_str_eq(wb_str("abc"), wb_str_n("abcd", 3)));
    assert_false(wb_str_eq(wb_str("abc"), wb_str("abd")));
    assert_true(wb_str_eq(wb_str(NULL), wb_str("")));
    assert_true(wb_str_case_eq(wb_str("Content-Type"), wb_str("content-TYPE")));
    assert_false(wb_str_case_eq(wb_str("a"), wb_str("ab")));
    assert_false(wb_str_case_eq(wb_str("["), wb_str("{"))); /* 0x20 apart, but no letters */
}

static void str_to_u64_accepts_decimal_numbers_only(void **state)
{
    static const char *const bad[] = {"",   "-1", "+1", " 1", "1 ", "0x1", "18446744073709551616",
                                      "1e3"};
    uint64_t value = 7;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(wb_str_to_u64(wb_str(bad[i]), &value));
    assert_int_equal(value, 7);
    assert_true(wb_str_to_u64(wb_str("18446744073709551615"), &value));
    assert_true(value == UINT64_MAX);
    assert_true(wb_str_to_u64(wb_str("007"), &value));
    assert_int_equal(value, 7);
}

static void utf8_overlong_surrogate_and_cut_forms_are_invalid(void **state)
{
    static const char *const good[] = {"",
                                       "a",
                                       "\xc3\xa9",
                                       "\xe2\x82\xac",
                                       "\xf0\x9f\x98\x80",
                                       "\xed\x9f\xbf",
                                       "\xee\x80\x80",
                                       "\xf4\x8f\xbf\xbf"};
    static const char *const bad[] = {"\x80",
                                      "\xc0\x80",
                                      "\xc1\xbf",
                                      "\xc3",
                                      "\xe0\x80\x80",
                                      "\xed\xa0\x80",
                                      "\xf0\x80\x80\x80",
                                      "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "\xff",
                                      "a\xe2\x82",
                                      "\xc3\x28"};
    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_true(wb_utf8_valid(wb_str(good[i])));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (wb_utf8_valid(wb_str(bad[i])))
            fail_msg("bad UTF-8 number %zu is taken as valid", i);
}

static void distance_counts_edits_without_case(void **state)
{
    (void)state;
    assert_int_equal(wb_str_distance(wb_str("kitten"), wb_str("sitting")), 3);
    assert_int_equal(wb_str_distance(wb_str("URL"), wb_str("url")), 0);
    assert_int_equal(wb_str_distance(wb_str(""), wb_str("abc")), 3);
    char longer[80];
    memset(longer, 'a', sizeof(longer));
    assert_int_equal(wb_str_distance(wb_str_n(longer, sizeof(longer)), wb_str("a")), 99);
}

static void constant_time_equal_finds_any_difference(void **state)
{
    unsigned char a[32] = {0};
    unsigned char b[32] = {0};

    (void)state;
    assert_true(wb_equal_constant_time(a, b, sizeof(a)));
    for (size_t i = 0; i < sizeof(a); i++) {
        b[i] = 0x80;
        assert_false(wb_equal_constant_time(a, b, sizeof(a)));
        b[i] = 0;
    }
    assert_true(wb_equal_constant_time(a, b, 0));
}

static void buf_appends_grow_and_stay_terminated(void **state)
{
    struct wb_buf buf = {0};

    (void)state;
    for (int i = 0; i < 1000; i++)
        wb_buf_printf(&buf, "%d,", i);
    wb_buf_add(&buf, "\0z", 2);
    assert_false(buf.failed);
    assert_int_equal(buf.len, 10 * 2 + 90 * 3 + 900 * 4 + 2);
    assert_int_equal(buf.ptr[buf.len], '\0');
    assert_memory_equal(buf.ptr + buf.len - 6, "999,\0z", 6);
    wb_buf_clear(&buf);
    assert_int_equal(buf.len, 0);
    assert_string_equal(buf.ptr, "");
    wb_buf_free(&buf);
    assert_null(buf.ptr);
}

static void buf_json_str_escapes_and_mends(void **state)
{
    struct wb_buf buf = {0};

    (void)state;
    wb_buf_json_str(&buf, wb_str_n("a\"b\\c\n\x01\x7f\xc3\xa9\xff\0", 12));
    assert_string_equal(buf.ptr, "\"a\\\"b\\\\c\\n\\u0001\\u007f\xc3\xa9\xef\xbf\xbd\\u0000\"");
    wb_buf_free(&buf);
}

static void buf_printable_leaves_nothing_a_terminal_obeys(void **state)
{
    struct wb_buf buf = {0};

    (void)state;
    /* ESC, CR, the C1 control CSI, a right-to-left override, broken UTF-8; and a plain e-acute. */
    wb_buf_printable(&buf, wb_str("\x1b[2J\r\xc2\x9b\xe2\x80\xae\xff\xc3\xa9."));
    assert_string_equal(buf.ptr, "\\x1b[2J\\x0d\\xc2\\x9b\\xe2\\x80\\xae\\xff\xc3\xa9.");
    wb_buf_free(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(str_eq_compares_length_and_bytes),
        cmocka_unit_test(str_to_u64_accepts_decimal_numbers_only),
        cmocka_unit_test(utf8_overlong_surrogate_and_cut_forms_are_invalid),
        cmocka_unit_test(distance_counts_edits_without_case),
        cmocka_unit_test(constant_time_equal_finds_any_difference),
        cmocka_unit_test(buf_appends_grow_and_stay_terminated),
        cmocka_unit_test(buf_json_str_escapes_and_mends),
        cmocka_unit_test(buf_printable_leaves_nothing_a_terminal_obeys),
    };
    return cmocka_run_group_tests_name("base_str", tests, NULL, NULL);
}
