/* Results: every one has a name, a text and a class, and why survives being its own argument. */
#include "test_support.h"

static void err_every_result_has_name_text_and_class(void **state)
{
    (void)state;
    for (int err = WB_OK; err <= WB_INTERNAL; err++) {
        assert_true(strlen(wb_err_name((wb_err)err)) > 0);
        assert_true(strlen(wb_err_text((wb_err)err)) > 0);
        assert_true((wb_err_class((wb_err)err) == WB_CLASS_OK) == (err == WB_OK));
    }
    assert_string_equal(wb_err_name(WB_NO_STREAM), "NO_STREAM");
    assert_string_equal(wb_err_name((wb_err)9999), "UNLISTED");
}

static void fail_returns_its_code_and_fills_why(void **state)
{
    struct wb_why why;

    (void)state;
    assert_int_equal(wb_fail(&why, WB_FULL, "took %d of %s", 3, "four"), WB_FULL);
    assert_string_equal(why.text, "took 3 of four");
    assert_int_equal(wb_fail(&why, WB_BUSY, "outer: %s", why.text), WB_BUSY);
    assert_string_equal(why.text, "outer: took 3 of four");
    assert_int_equal(wb_fail(NULL, WB_BUSY, "unheard"), WB_BUSY);
}

static void fail_too_long_a_text_is_cut(void **state)
{
    char text[2000];
    struct wb_why why;

    (void)state;
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    assert_int_equal(wb_fail(&why, WB_IO, "%s", text), WB_IO);
    assert_int_equal(strlen(why.text), sizeof(why.text) - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(err_every_result_has_name_text_and_class),
        cmocka_unit_test(fail_returns_its_code_and_fills_why),
        cmocka_unit_test(fail_too_long_a_text_is_cut),
    };
    return cmocka_run_group_tests_name("base_error", tests, NULL, NULL);
}
