/* One language for all who choose among things: what it means, and what it refuses. */
#include <stdio.h>

#include <waybill/filter.h>

#include "test_support.h"

enum { KEY, SUBJECT, FAILURES, AGE, AT, ID, REASON };

static const struct filter_field fields[] = {
    [KEY] = {"key", FILTER_TEXT},
    [SUBJECT] = {"subject", FILTER_SUBJECT},
    [FAILURES] = {"failures", FILTER_NUMBER},
    [AGE] = {"age", FILTER_AGE},
    [AT] = {"at", FILTER_TIME},
    [ID] = {"id", FILTER_ID},
    [REASON] = {"reason", FILTER_TEXT},
};

#define FIELD_COUNT (sizeof(fields) / sizeof(fields[0]))

struct thing {
    const char *key, *subject, *reason; /* a reason of NULL: it has none */
    int64_t failures, age_ns, at_ns, id;
    int asked;
};

static bool thing_get(void *ctx, size_t field, struct filter_value *ret_value)
{
    struct thing *thing = ctx;

    thing->asked++;
    switch (field) {
    case KEY:
        ret_value->text = wb_str(thing->key);
        return true;
    case SUBJECT:
        ret_value->text = wb_str(thing->subject);
        return true;
    case REASON:
        ret_value->text = wb_str(thing->reason);
        return thing->reason != NULL;
    case FAILURES:
        ret_value->number = thing->failures;
        return true;
    case AGE:
        ret_value->number = thing->age_ns;
        return true;
    case AT:
        ret_value->number = thing->at_ns;
        return true;
    default:
        ret_value->number = thing->id;
        return true;
    }
}

static struct thing example(void)
{
    struct thing thing = {.key = "k 7",
                          .subject = "orders.eu.created",
                          .reason = "Connection Timeout after 5 s",
                          .failures = 5,
                          .age_ns = 3600 * WB_SEC,
                          .id = 7};

    assert_true(wb_time_parse(wb_str("2026-01-31T10:00:00Z"), &thing.at_ns));
    return thing;
}

static bool matches(const char *text, struct thing *thing)
{
    struct filter *filter = NULL;
    struct wb_why why = {""};
    wb_err err = filter_parse(wb_str(text), fields, FIELD_COUNT, &filter, &why);

    if (err != WB_OK)
        fail_msg("%s: %s", text, why.text);
    bool truth = filter_matches(filter, thing_get, thing);
    filter_destroy(filter);
    return truth;
}

static void assert_matches(const char *const *texts, size_t count, bool expected)
{
    struct thing thing = example();

    for (size_t i = 0; i < count; i++)
        if (matches(texts[i], &thing) != expected)
            fail_msg("%s: expected %s", texts[i], expected ? "true" : "false");
}

static void filter_that_means_the_thing_matches(void **state)
{
    static const char *const texts[] = {
        "key = \"k 7\"",
        "key='k 7'",
        "key = \"k\\ 7\"",
        "key in (a, 'k 7', b)",
        "key ~ K",
        "key ~ ''",
        "key != k",
        "reason ~ TIMEOUT",
        "reason ~ \"timeout after 5\"",
        "subject = orders.>",
        "subject=orders.*.created",
        "subject = >",
        "subject in (auth.>, orders.eu.*)",
        "subject ~ .EU.",
        "subject != auth.>",
        "failures = 5",
        "failures>=5",
        "failures < 6",
        "failures > -1",
        "failures in (1,5)",
        "age > 59m",
        "age <= 1h",
        "age = 60m",
        "at = 2026-01-31T10:00:00Z",
        "at >= 2026-01-31",
        "at < 2026-02-01",
        "at > 2026-01-31T10:00:00+02:00",
        "id = 7",
        "id = 5..9",
        "id = ..7",
        "id = 7..",
        "id in (1..3, 7..7)",
        "id != 8..",
        "id > 6",
    };

    (void)state;
    assert_matches(texts, sizeof(texts) / sizeof(texts[0]), true);
}

static void filter_that_means_others_does_not_match(void **state)
{
    static const char *const texts[] = {
        "key = k",
        "key = 'K 7'",
        "key in (a, b)",
        "reason ~ timeouts",
        "subject = orders.*",
        "subject = ORDERS.>",
        "subject in (auth.>, orders.us.*)",
        "failures != 5",
        "failures > 5",
        "failures < 5",
        "failures in (4, 6)",
        "age > 1h",
        "age < 1h",
        "at > 2026-01-31T10:00:00Z",
        "at = 2026-01-31",
        "id = 8..9",
        "id = ..6",
        "id in (1..6, 8..)",
        "id >= 8",
    };

    (void)state;
    assert_matches(texts, sizeof(texts) / sizeof(texts[0]), false);
}

static void not_binds_before_and_and_and_before_or(void **state)
{
    static const char *const yes[] = {
        "id = 7 or id = 7 and id = 0",
        "id = 0 and id = 0 or id = 7",
        "not id = 0 and id = 7",
        "NOT id = 7 OR id = 7",
        "not (id = 0 or id = 1)",
        "not not id = 7",
        "(id = 0 or id = 7) and (id = 7 or id = 0)",
        "id = 0 or id = 1 or id = 7 or id = 2",
        "subject = orders.> and age >= 1h and (reason ~ timeout or failures > 5) and not key = k",
    };
    static const char *const no[] = {
        "(id = 7 or id = 7) and id = 0",
        "not id = 7 and id = 7",
        "not (id = 7 or id = 0)",
        "not (id = 7) or id = 0",
        "id = 7 and id = 7 and id = 0 and id = 7",
        "id = 0 and (id = 7 or id = 7)",
    };

    (void)state;
    assert_matches(yes, sizeof(yes) / sizeof(yes[0]), true);
    assert_matches(no, sizeof(no) / sizeof(no[0]), false);
}

static void field_that_a_thing_has_not_is_only_unequal(void **state)
{
    struct thing thing = example();

    (void)state;
    thing.reason = NULL;
    assert_false(matches("reason ~ ''", &thing));
    assert_false(matches("reason = ''", &thing));
    assert_true(matches("reason != x", &thing));
    assert_true(matches("not reason ~ timeout", &thing));
}

static void what_is_decided_already_is_not_asked_for(void **state)
{
    struct thing thing = example();

    (void)state;
    assert_false(matches("id = 0 and key = a and failures = 1", &thing));
    assert_int_equal(thing.asked, 1);
    assert_true(matches("id = 7 or key = a or failures = 1", &thing));
    assert_int_equal(thing.asked, 2);
}

static void subject_that_is_none_is_found_by_its_text_only(void **state)
{
    struct thing thing = example();

    (void)state;
    thing.subject = "orders..eu";
    assert_false(matches("subject = >", &thing));
    assert_true(matches("subject ~ ..eu", &thing));
}

static void no_filter_means_everything(void **state)
{
    struct thing thing = example();

    (void)state;
    assert_true(filter_matches(NULL, thing_get, &thing));
    assert_false(filter_uses(NULL, KEY));
    filter_destroy(NULL);
}

static void filter_tells_which_fields_it_uses(void **state)
{
    struct filter *filter = NULL;

    (void)state;
    assert_ok(filter_parse(wb_str("not id = 7 and key = a"), fields, FIELD_COUNT, &filter, NULL));
    assert_true(filter_uses(filter, ID));
    assert_true(filter_uses(filter, KEY));
    assert_false(filter_uses(filter, SUBJECT));
    filter_destroy(filter);
}

static void filter_refused_says_where_and_what_was_expected(void **state)
{
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"", "column 1: found the end, expected a field, not or ("},
        {"   ", "column 4: found the end"},
        {"kez = 1", "column 1: found 'kez', expected a field; did you mean 'key'?"},
        {"colour = 1", "expected one of key, subject, failures, age, at, id, reason"},
        {"key", "column 4: found the end, expected one of = != ~ in"},
        {"key > a", "column 5: found '>', expected one of = != ~ in"},
        {"failures ~ 1", "column 10: found '~', expected one of = != < <= > >= in"},
        {"key =", "column 6: found the end, expected a text"},
        {"key = and id = 1", "column 7: found 'and', expected a text, in quotes"},
        {"key = \"a", "column 7: the quotes are not closed"},
        {"key = 'a\\'", "column 7: the quotes are not closed"},
        {"age > 5", "column 7: found '5', expected a duration"},
        {"failures = many", "column 12: found 'many', expected a whole number"},
        {"failures = 9223372036854775808", "expected a whole number"},
        {"at > yesterday", "expected a time"},
        {"at = 2026-02-30", "expected a time"},
        {"subject = a..b", "column 11: found 'a..b', expected a subject or pattern"},
        {"id = 9..5", "expected a number, or for =, != and in a range"},
        {"id = ..", "found '..'"},
        {"id > 5..9", "column 6: found '5..9'"},
        {"id = 1 id = 2", "column 8: found 'id', expected and, or, or the end"},
        {"id = 1 and", "column 11: found the end, expected a field, not or ("},
        {"(id = 1", "column 8: found the end, expected and, or, )"},
        {"id = 1)", "column 7: found ')'"},
        {"id in 1", "column 7: found '1', expected ( after in"},
        {"id in ()", "column 8: found ')'"},
        {"id in (1 2)", "column 10: found '2', expected , or )"},
        {"id ! 1", "column 4: found '!'"},
        {"k\x1b[2J = 1", "found 'k?[2J', expected"},
        {"= 1", "column 1: found '='"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct filter *filter = NULL;
        struct wb_why why = {""};
        assert_err(filter_parse(wb_str(cases[i].text), fields, FIELD_COUNT, &filter, &why),
                   WB_INVALID);
        assert_null(filter);
        if (strstr(why.text, cases[i].why) == NULL)
            fail_msg("%s: said '%s', expected '%s'", cases[i].text, why.text, cases[i].why);
    }
}

static wb_err parse_repeated(const char *first, size_t count, const char *last)
{
    struct wb_buf text = {0};
    struct filter *filter = NULL;

    for (size_t i = 0; i < count; i++)
        wb_buf_str(&text, first);
    wb_buf_str(&text, last);
    wb_err err = filter_parse(wb_str_n(text.ptr, text.len), fields, FIELD_COUNT, &filter, NULL);
    assert_true((err == WB_OK) == (filter != NULL));
    filter_destroy(filter);
    wb_buf_free(&text);
    return err;
}

static void filter_beyond_a_limit_is_refused(void **state)
{
    (void)state;
    assert_ok(parse_repeated("not ", 32, "id = 1"));
    assert_err(parse_repeated("not ", 33, "id = 1"), WB_TOO_BIG);
    assert_err(parse_repeated("(", 33, "id = 1"), WB_TOO_BIG);
    assert_err(parse_repeated("(", 4000, ""), WB_TOO_BIG);
    /* Each part is a comparison, a value and a join; the last one has no join. */
    assert_ok(parse_repeated("id = 1 or ", 84, "id = 1"));
    assert_err(parse_repeated("id = 1 or ", 85, "id = 1"), WB_TOO_BIG);
    assert_ok(parse_repeated(" ", FILTER_TEXT_MAX - 4, "id=1"));
    assert_err(parse_repeated(" ", FILTER_TEXT_MAX - 3, "id=1"), WB_TOO_BIG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(filter_that_means_the_thing_matches),
        cmocka_unit_test(filter_that_means_others_does_not_match),
        cmocka_unit_test(not_binds_before_and_and_and_before_or),
        cmocka_unit_test(field_that_a_thing_has_not_is_only_unequal),
        cmocka_unit_test(what_is_decided_already_is_not_asked_for),
        cmocka_unit_test(subject_that_is_none_is_found_by_its_text_only),
        cmocka_unit_test(no_filter_means_everything),
        cmocka_unit_test(filter_tells_which_fields_it_uses),
        cmocka_unit_test(filter_refused_says_where_and_what_was_expected),
        cmocka_unit_test(filter_beyond_a_limit_is_refused),
    };
    return cmocka_run_group_tests_name("filter", tests, NULL, NULL);
}
