/*
 * The conformance cases taken from nats-server: for all that this house accepts, the answers are
 * the server's; what it refuses although a server accepts it falls under one of the rules below.
 */
#include <stdio.h>

#include <jansson.h>
#include <waybill/subject.h>

#include "test_support.h"

static json_t *cases;

static int load(void **state)
{
    json_error_t error;

    (void)state;
    cases = json_load_file(TEST_DATA_DIR "/subject_cases.json", JSON_ALLOW_NUL, &error);
    return cases == NULL ? -1 : 0;
}

static int unload(void **state)
{
    (void)state;
    json_decref(cases);
    return 0;
}

static struct wb_str text_of(const json_t *one, const char *key)
{
    const json_t *value = json_object_get(one, key);

    assert_true(json_is_string(value));
    return wb_str_n(json_string_value(value), json_string_length(value));
}

static bool is_true(const json_t *one, const char *key)
{
    const json_t *value = json_object_get(one, key);

    assert_true(json_is_boolean(value));
    return json_is_true(value);
}

static const char *id_of(const json_t *one)
{
    return json_string_value(json_object_get(one, "id"));
}

static const json_t *section(const char *name, size_t expected)
{
    const json_t *list = json_object_get(cases, name);

    assert_int_equal(json_array_size(list), expected);
    return list;
}

/*
 * The rules by which this house is stricter than the servers: at most 255 bytes; no control
 * character, no NUL; the server's own first tokens; and no token that contains a wildcard without
 * being one, since servers disagree on what it means.
 */
static bool is_stricter_rule(struct wb_str text)
{
    static const char *const reserved[] = {"$", "_INBOX.", "_R_."};

    if (text.len > SUBJECT_MAX)
        return true;
    for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++)
        if (text.len >= strlen(reserved[i]) &&
            memcmp(text.ptr, reserved[i], strlen(reserved[i])) == 0)
            return true;
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        bool starts = i == 0 || text.ptr[i - 1] == '.';
        bool ends = i + 1 == text.len || text.ptr[i + 1] == '.';
        if (c <= 0x20 || c == 0x7f || ((c == '*' || c == '>') && !(starts && ends)))
            return true;
    }
    return false;
}

static bool accepted(wb_err err, const char *id)
{
    if (err != WB_OK && err != WB_INVALID)
        fail_msg("%s: %s", id, wb_err_name(err));
    return err == WB_OK;
}

static void validity_agrees_with_the_server_or_a_stricter_rule(void **state)
{
    const json_t *list = section("validity", 66);
    const json_t *one;
    size_t i;

    (void)state;
    json_array_foreach(list, i, one)
    {
        struct wb_str text = text_of(one, "subject");
        bool strict = is_stricter_rule(text);
        bool publish = is_true(one, "valid_publish") && !strict;
        bool subscribe = is_true(one, "valid_subscribe") && !strict;

        assert_int_equal(text.len, json_integer_value(json_object_get(one, "bytes")));
        if (accepted(subject_check(text, NULL), id_of(one)) != publish)
            fail_msg("%s: publish to '%s' should be %d", id_of(one), text.ptr, publish);
        if (accepted(subject_pattern_check(text, NULL), id_of(one)) != subscribe)
            fail_msg("%s: subscribe to '%s' should be %d", id_of(one), text.ptr, subscribe);
        if (subject_has_wildcard(text) != is_true(one, "has_wildcard"))
            fail_msg("%s: wildcard in '%s'", id_of(one), text.ptr);
    }
}

static void ignore(void *ctx, void *value)
{
    (void)ctx;
    (void)value;
}

static bool index_matches(struct wb_str pattern, struct wb_str subject)
{
    struct subject_index *index;

    assert_ok(subject_index_create(&index));
    assert_ok(subject_index_add(index, pattern, index));
    size_t found = subject_index_match(index, subject, ignore, NULL);
    subject_index_destroy(index);
    return found == 1;
}

static void match_agrees_with_the_server_or_is_refused_by_rule(void **state)
{
    const json_t *list = section("match", 114);
    const json_t *one;
    size_t matched = 0;
    size_t refused = 0;
    size_t i;

    (void)state;
    json_array_foreach(list, i, one)
    {
        struct wb_str pattern = text_of(one, "pattern");
        struct wb_str subject = text_of(one, "subject");
        bool pattern_ok = is_true(one, "pattern_valid") && !is_stricter_rule(pattern);
        bool subject_ok = is_true(one, "subject_publishable") && !is_stricter_rule(subject);

        if (accepted(subject_pattern_check(pattern, NULL), id_of(one)) != pattern_ok)
            fail_msg("%s: pattern '%s' should be valid: %d", id_of(one), pattern.ptr, pattern_ok);
        if (accepted(subject_check(subject, NULL), id_of(one)) != subject_ok)
            fail_msg("%s: subject '%s' should be valid: %d", id_of(one), subject.ptr, subject_ok);
        if (!pattern_ok || !subject_ok) {
            refused++;
            continue;
        }
        bool expected = is_true(one, "match");
        if (subject_matches(pattern, subject) != expected)
            fail_msg("%s: match of '%s' and '%s'", id_of(one), pattern.ptr, subject.ptr);
        if (index_matches(pattern, subject) != expected)
            fail_msg("%s: index match of '%s' and '%s'", id_of(one), pattern.ptr, subject.ptr);
        matched++;
    }
    assert_int_equal(matched + refused, 114);
    assert_in_range(matched, 60, 114);
}

/* A core subscription to '>' receives the server's own subjects; a pattern of ours never does. */
static void match_of_leading_wildcard_leaves_server_subjects_alone(void **state)
{
    static const char *const patterns[] = {">", "*.>", "*.*", "*.API.INFO", "*.*.*", "*"};
    static const char *const subjects[] = {"$JS.API.INFO", "$SYS", "_INBOX.a", "_R_.a",
                                           "_INBOX.a.b"};

    (void)state;
    for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
        for (size_t j = 0; j < sizeof(subjects) / sizeof(subjects[0]); j++) {
            assert_false(subject_matches(wb_str(patterns[i]), wb_str(subjects[j])));
            assert_false(index_matches(wb_str(patterns[i]), wb_str(subjects[j])));
        }
    }
    assert_true(index_matches(wb_str("a.*"), wb_str("a.$x")));
    assert_true(index_matches(wb_str("*.x"), wb_str("_INBOX2.x")));
}

static void overlap_agrees_with_the_server(void **state)
{
    const json_t *list = section("overlap", 32);
    const json_t *one;
    size_t i;

    (void)state;
    json_array_foreach(list, i, one)
    {
        struct wb_str a = text_of(one, "a");
        struct wb_str b = text_of(one, "b");
        char both[SUBJECT_MAX + 1];
        bool expected = is_true(one, "overlap");

        assert_ok(subject_pattern_check(a, NULL));
        assert_ok(subject_pattern_check(b, NULL));
        if (subject_overlap(a, b) != expected || subject_overlap(b, a) != expected ||
            subject_intersect(a, b, both) != expected)
            fail_msg("%s: overlap of '%s' and '%s'", id_of(one), a.ptr, b.ptr);
        if (subject_includes(a, b) != is_true(one, "a_includes_b"))
            fail_msg("%s: '%s' includes '%s'", id_of(one), a.ptr, b.ptr);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(validity_agrees_with_the_server_or_a_stricter_rule),
        cmocka_unit_test(match_agrees_with_the_server_or_is_refused_by_rule),
        cmocka_unit_test(match_of_leading_wildcard_leaves_server_subjects_alone),
        cmocka_unit_test(overlap_agrees_with_the_server),
    };
    return cmocka_run_group_tests_name("subject_cases", tests, load, unload);
}
