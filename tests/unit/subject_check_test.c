/* What may be published to, subscribed to, and used as a name. */
#include <stdio.h>

#include <waybill/subject.h>

#include "test_support.h"

static void expect(bool subject_ok, bool pattern_ok, struct wb_str text)
{
    wb_err subject_err = subject_check(text, NULL);
    wb_err pattern_err = subject_pattern_check(text, NULL);

    if ((subject_err == WB_OK) != subject_ok || (pattern_err == WB_OK) != pattern_ok)
        fail_msg("'%.*s': subject %s, pattern %s", (int)text.len, text.ptr,
                 wb_err_name(subject_err), wb_err_name(pattern_err));
}

static void subject_of_plain_tokens_is_accepted(void **state)
{
    static const char *const texts[] = {"a",      "a.b",        "auth.user.created", "événements.x",
                                        "a.$b",   "_INBOXES.x", "_INBOX2",           "a._INBOX.b",
                                        "x.#.~!@"};
    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        expect(true, true, wb_str(texts[i]));
}

static void subject_with_wildcard_token_is_a_pattern_only(void **state)
{
    static const char *const texts[] = {"*", ">", "*.*", "a.*", "*.a", "a.>", "a.*.>", "*.>"};

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        expect(false, true, wb_str(texts[i]));
}

static void subject_that_is_malformed_is_refused_everywhere(void **state)
{
    static const char *const texts[] = {
        "",      ".",      "a.",    ".a",       "a..b",      ">.a",      "a.>.b",       "a*",
        "*a",    "a.b*c",  ">a",    "a>",       "**",        "a.>>",     " ",           "a b",
        "a\tb",  "a\r\nb", "a\x7f", "a\x01",    "$JS.API.x", "$",        "_INBOX.x",    "_INBOX",
        "_R_.x", "_R_",    "$JS.>", "_INBOX.*", "a\xff",     "\xc0\xaf", "\xed\xa0\x80"};

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        expect(false, false, wb_str(texts[i]));
    expect(false, false, wb_str_n("a\0b", 3));
    expect(false, false, wb_str_n(NULL, 0));
}

static void subject_of_255_bytes_is_the_longest(void **state)
{
    char text[257];

    (void)state;
    memset(text, 'x', sizeof(text));
    expect(true, true, wb_str_n(text, 255));
    expect(false, false, wb_str_n(text, 256));
}

static void refused_subject_is_told_with_place_and_remedy(void **state)
{
    struct wb_why why;

    (void)state;
    assert_err(subject_check(wb_str("a..b"), &why), WB_INVALID);
    assert_string_equal(why.text,
                        "subject 'a..b' (4 bytes): at byte 2: empty token; join tokens by "
                        "single dots, without one at either end");
    assert_err(subject_pattern_check(wb_str("a.b>.c"), &why), WB_INVALID);
    assert_non_null(strstr(why.text, "pattern 'a.b>.c'"));
    assert_non_null(strstr(why.text, "at byte 3"));
}

static void refused_subject_cannot_forge_a_log_line(void **state)
{
    struct wb_why why;

    (void)state;
    assert_err(subject_check(wb_str("a\r\nlevel=info \x1b[31m"), &why), WB_INVALID);
    assert_null(strpbrk(why.text, "\r\n\x1b"));
    assert_non_null(strstr(why.text, "\\x0d\\x0a"));
}

static void refused_long_subject_is_shown_in_part(void **state)
{
    char text[4001];
    struct wb_why why;

    (void)state;
    memset(text, 'x', sizeof(text));
    assert_err(subject_check(wb_str_n(text, sizeof(text)), &why), WB_INVALID);
    assert_non_null(strstr(why.text, "...' (4001 bytes): at byte 255: at most 255 bytes"));
}

static void name_has_1_to_64_plain_characters(void **state)
{
    char text[65];
    struct wb_why why;

    (void)state;
    memset(text, 'x', sizeof(text));
    assert_ok(subject_name_check(wb_str_n(text, 64), "stream", NULL));
    assert_ok(subject_name_check(wb_str("ORDERS_2-a9"), "stream", NULL));
    assert_err(subject_name_check(wb_str_n(text, 65), "stream", &why), WB_INVALID);
    assert_err(subject_name_check(wb_str(""), "durable", NULL), WB_INVALID);
    static const char *const bad[] = {"a.b", "a b", "a*", "a>", "a/b", "a\nb", "é", "a:b", "a$"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_err(subject_name_check(wb_str(bad[i]), "durable", &why), WB_INVALID);
    assert_non_null(strstr(why.text, "durable 'a$'"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(subject_of_plain_tokens_is_accepted),
        cmocka_unit_test(subject_with_wildcard_token_is_a_pattern_only),
        cmocka_unit_test(subject_that_is_malformed_is_refused_everywhere),
        cmocka_unit_test(subject_of_255_bytes_is_the_longest),
        cmocka_unit_test(refused_subject_is_told_with_place_and_remedy),
        cmocka_unit_test(refused_subject_cannot_forge_a_log_line),
        cmocka_unit_test(refused_long_subject_is_shown_in_part),
        cmocka_unit_test(name_has_1_to_64_plain_characters),
    };
    return cmocka_run_group_tests_name("subject_check", tests, NULL, NULL);
}
