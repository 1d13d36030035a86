/* Patterns against patterns: what overlap, includes and intersect say is what subjects show. */
#include <stdio.h>

#include <waybill/subject.h>

#include "test_support.h"

#define DEPTH 4

/* All subjects of up to DEPTH tokens over an alphabet of two. */
static size_t all_subjects(char out[][16])
{
    size_t count = 0;

    for (unsigned depth = 1; depth <= DEPTH; depth++) {
        for (unsigned bits = 0; bits < 1U << depth; bits++) {
            size_t len = 0;
            for (unsigned i = 0; i < depth; i++) {
                out[count][len++] = (bits >> i & 1U) != 0 ? 'b' : 'a';
                out[count][len++] = i + 1 < depth ? '.' : '\0';
            }
            count++;
        }
    }
    return count;
}

/* All patterns of up to DEPTH - 1 tokens over that alphabet, so that every '>' has room. */
static size_t all_patterns(char out[][16])
{
    static const char alphabet[] = {'a', 'b', '*', '>'};
    size_t count = 0;

    for (unsigned depth = 1; depth < DEPTH; depth++) {
        for (unsigned digits = 0; digits < 1U << (2 * depth); digits++) {
            size_t len = 0;
            for (unsigned i = 0; i < depth; i++) {
                out[count][len++] = alphabet[digits >> (2 * i) & 3U];
                out[count][len++] = i + 1 < depth ? '.' : '\0';
            }
            if (subject_pattern_check(wb_str(out[count]), NULL) == WB_OK)
                count++;
        }
    }
    return count;
}

static void pair_agrees_with_all_subjects(const char *a, const char *b, char subjects[][16],
                                          size_t count)
{
    char both[SUBJECT_MAX + 1];
    bool overlap = false;
    bool includes = true;
    bool has_both = subject_intersect(wb_str(a), wb_str(b), both);

    for (size_t i = 0; i < count; i++) {
        struct wb_str subject = wb_str(subjects[i]);
        bool in_a = subject_matches(wb_str(a), subject);
        bool in_b = subject_matches(wb_str(b), subject);
        overlap = overlap || (in_a && in_b);
        includes = includes && (in_a || !in_b);
        if ((has_both && subject_matches(wb_str(both), subject)) != (in_a && in_b))
            fail_msg("'%s' and '%s' give '%s', but '%s'", a, b, has_both ? both : "", subjects[i]);
    }
    if (subject_overlap(wb_str(a), wb_str(b)) != overlap || has_both != overlap)
        fail_msg("overlap of '%s' and '%s' is %d", a, b, overlap);
    if (subject_includes(wb_str(a), wb_str(b)) != includes)
        fail_msg("'%s' includes '%s' is %d", a, b, includes);
    if (has_both)
        assert_ok(subject_pattern_check(wb_str(both), NULL));
}

static void patterns_of_all_shapes_agree_with_their_subjects(void **state)
{
    static char subjects[64][16];
    static char patterns[128][16];
    size_t subject_count = all_subjects(subjects);
    size_t pattern_count = all_patterns(patterns);

    (void)state;
    assert_int_equal(subject_count, 2 + 4 + 8 + 16);
    assert_int_equal(pattern_count, 4 + 3 * 4 + 3 * 3 * 4);
    for (size_t i = 0; i < pattern_count; i++)
        for (size_t j = 0; j < pattern_count; j++)
            pair_agrees_with_all_subjects(patterns[i], patterns[j], subjects, subject_count);
}

static void intersect_longer_than_a_subject_leaves_output_alone(void **state)
{
    char a[SUBJECT_MAX + 1];
    char b[SUBJECT_MAX + 1];
    char both[SUBJECT_MAX + 1] = "untouched";

    (void)state;
    memset(a, 'x', sizeof(a));
    memset(b, 'y', sizeof(b));
    memcpy(a, "*.", 2);
    memcpy(b + SUBJECT_MAX - 2, ".*", 2);
    assert_ok(subject_pattern_check(wb_str_n(a, SUBJECT_MAX), NULL));
    assert_ok(subject_pattern_check(wb_str_n(b, SUBJECT_MAX), NULL));
    assert_false(subject_intersect(wb_str_n(a, SUBJECT_MAX), wb_str_n(b, SUBJECT_MAX), both));
    assert_string_equal(both, "untouched");
    assert_false(subject_intersect(wb_str("a.*"), wb_str("b.>"), both));
    assert_string_equal(both, "untouched");

    char full[SUBJECT_MAX + 1]; /* exactly SUBJECT_MAX fits */
    assert_true(subject_intersect(wb_str(">"), wb_str_n(a, SUBJECT_MAX), full));
    assert_memory_equal(full, a, SUBJECT_MAX);
    assert_int_equal(full[SUBJECT_MAX], '\0');
}

static void match_is_of_bytes_and_case_counts(void **state)
{
    (void)state;
    assert_true(subject_matches(wb_str("a.B"), wb_str("a.B")));
    assert_false(subject_matches(wb_str("a.B"), wb_str("a.b")));
    assert_false(subject_matches(wb_str("e\xcc\x81"), wb_str("\xc3\xa9"))); /* both look like é */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patterns_of_all_shapes_agree_with_their_subjects),
        cmocka_unit_test(intersect_longer_than_a_subject_leaves_output_alone),
        cmocka_unit_test(match_is_of_bytes_and_case_counts),
    };
    return cmocka_run_group_tests_name("subject_pattern", tests, NULL, NULL);
}
