/* Fingerprints: reasons of one kind are alike, others are not. */
#include "test_support.h"

#include <stdlib.h>
#include <string.h>

#include <waybill/base.h>

static bool alike(const char *a, const char *b)
{
    char one[WB_FINGERPRINT_TEXT], other[WB_FINGERPRINT_TEXT];

    wb_fingerprint(wb_str(a), one);
    wb_fingerprint(wb_str(b), other);
    assert_int_equal(strlen(one), WB_FINGERPRINT_TEXT - 1);
    return strcmp(one, other) == 0;
}

static void fingerprint_passes_over_numbers_ids_and_quoted_text(void **state)
{
    static const char *const pairs[][2] = {
        {"account 17 is closed", "account 4711 is closed"},
        {"no row f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
         "no row deadbeef-dead-beef-dead-beefdeadbeef"},
        {"id 0f3a9c7 unknown", "id 1 unknown"},
        {"id deadbeefdeadbeef unknown", "id 00000000deadbeef unknown"},
        {"at 0x7fff, errno 5", "at 0xdead, errno 13"},
        {"name 'Ada' is taken", "name 'Bob O'Neill' is taken"},
        {"field \"a b\" is missing", "field 'c' is missing"},
        {"took 1.5s", "took 23.75s"},
        {"user17: denied", "user4: denied"},
        {"'open", "'open"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
        if (!alike(pairs[i][0], pairs[i][1]))
            fail_msg("'%s' and '%s' are not alike", pairs[i][0], pairs[i][1]);
}

static void fingerprint_tells_kinds_apart(void **state)
{
    static const char *const pairs[][2] = {
        {"account 17 is closed", "account 17 is open"},
        {"bad", "face"}, /* words, though of hex digits */
        {"it's bad, isn't it", "it's good, isn't it"},
        {"'a' is 'b", "'a' is 'c"}, /* the second quote is never closed */
        {"", "x"},
        {"gr\xc3\xb6\xc3\x9f"
         "er",
         "gr\xc3\xbc\xc3\x9f"
         "er"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
        if (alike(pairs[i][0], pairs[i][1]))
            fail_msg("'%s' and '%s' are alike", pairs[i][0], pairs[i][1]);
}

static void fingerprint_reads_a_bounded_part_of_any_text(void **state)
{
    char *text = malloc(10001);
    char *other = malloc(10001);

    (void)state;
    assert_non_null(text);
    assert_non_null(other);
    memset(text, '\'', 10000);
    memset(other, '\'', 10000);
    text[10000] = other[10000] = '\0';
    other[5000] = 'x';
    assert_true(alike(text, other));
    memset(text, 'x', 10000);
    memset(other, 'x', 10000);
    other[4000] = 'y';
    assert_false(alike(text, other));
    free(text);
    free(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fingerprint_passes_over_numbers_ids_and_quoted_text),
        cmocka_unit_test(fingerprint_tells_kinds_apart),
        cmocka_unit_test(fingerprint_reads_a_bounded_part_of_any_text),
    };
    return cmocka_run_group_tests_name("base_fingerprint", tests, NULL, NULL);
}
