/* Matching: the cases of tests/data/subject_cases.json, by delivery. */
#include "contract.h"

#include <stdio.h>

#include <jansson.h>
#include <waybill/subject.h>

#define TEXTS_MAX 256

struct texts {
    const char *items[TEXTS_MAX];
    size_t count;
};

static size_t texts_at(const struct texts *texts, const char *text)
{
    size_t i = 0;

    while (i < texts->count && strcmp(texts->items[i], text) != 0)
        i++;
    return i;
}

static void texts_add(struct texts *texts, const char *text)
{
    if (texts_at(texts, text) == texts->count) {
        assert_true(texts->count < TEXTS_MAX);
        texts->items[texts->count++] = text;
    }
}

/* A case that our stricter rules let happen: the subject can be published, the pattern read. */
static bool can_happen(const char *pattern, const char *subject)
{
    return subject_check(wb_str(subject), NULL) == WB_OK &&
           subject_pattern_check(wb_str(pattern), NULL) == WB_OK;
}

static json_t *load_cases(void)
{
    json_error_t error;
    json_t *root = json_load_file(TEST_DATA_DIR "/subject_cases.json", JSON_ALLOW_NUL, &error);

    if (root == NULL)
        fail_msg("%s", error.text);
    return root;
}

/* NULL for what no C string can hold; those are refused anyway. */
static const char *text_of(const json_t *one, const char *key)
{
    const json_t *value = json_object_get(one, key);
    const char *text = json_string_value(value);

    return text != NULL && strlen(text) == json_string_length(value) ? text : NULL;
}

static void collect(json_t *cases, struct texts *subjects, struct texts *patterns)
{
    size_t i;
    json_t *one;

    json_array_foreach(cases, i, one)
    {
        const char *pattern = text_of(one, "pattern");
        const char *subject = text_of(one, "subject");
        if (pattern != NULL && subject != NULL && can_happen(pattern, subject)) {
            texts_add(subjects, subject);
            texts_add(patterns, pattern);
        }
    }
}

/* One stream for all subjects: for each first token, itself and all below it. */
static void declare_for(struct contract *c, const struct texts *subjects)
{
    static char room[2 * TEXTS_MAX][264];
    struct texts filters = {{NULL}, 0};
    size_t used = 0;

    for (size_t i = 0; i < subjects->count; i++) {
        int token = (int)strcspn(subjects->items[i], ".");
        (void)snprintf(room[used], sizeof(room[used]), "%.*s", token, subjects->items[i]);
        if (texts_at(&filters, room[used]) < filters.count)
            continue;
        texts_add(&filters, room[used++]);
        (void)snprintf(room[used], sizeof(room[used]), "%.*s.>", token, subjects->items[i]);
        texts_add(&filters, room[used++]);
    }
    texts_add(&filters, "zz.end");
    contract_stream_with(c, &(struct event_bus_stream_options){.name = "CASES",
                                                               .subjects = filters.items,
                                                               .subject_count = filters.count});
}

/* Which subjects a pattern delivers, in order; the end of the stream is told by a last message
 * that every subscription reads. */
static void deliver(struct contract *c, const char *pattern, const struct texts *subjects,
                    bool *ret_delivered)
{
    const char *patterns[] = {pattern, "zz.end"};
    const struct event_bus_subscription_options options = {
        .patterns = patterns, .pattern_count = 2, .start = EVENT_BUS_START_ALL};
    struct event_bus_subscription *s = NULL;
    bool end = false;

    assert_ok(event_bus_subscribe(c->bus, &options, &s, NULL));
    while (!end) {
        struct event_bus_delivery *got = contract_next(s);
        end = got->sequence > subjects->count;
        if (!end)
            ret_delivered[got->sequence - 1] = true;
        assert_ok(event_bus_ack(got));
        event_bus_release(got);
    }
    event_bus_unsubscribe(s);
}

static size_t check(json_t *cases, const char *pattern, const struct texts *subjects,
                    const bool *delivered)
{
    size_t checked = 0;
    size_t i;
    json_t *one;

    json_array_foreach(cases, i, one)
    {
        const char *subject = text_of(one, "subject");
        const char *its = text_of(one, "pattern");
        bool expected = json_is_true(json_object_get(one, "match"));
        if (subject == NULL || its == NULL || strcmp(its, pattern) != 0 ||
            !can_happen(pattern, subject))
            continue;
        if (delivered[texts_at(subjects, subject)] != expected)
            fail_msg("%s: '%s' %s '%s'", json_string_value(json_object_get(one, "id")), pattern,
                     expected ? "did not deliver" : "delivered", subject);
        checked++;
    }
    return checked;
}

static void patterns_deliver_what_the_cases_say(void **state)
{
    struct contract *c = *state;
    json_t *root = load_cases();
    json_t *cases = json_object_get(root, "match");
    struct texts subjects = {{NULL}, 0};
    struct texts patterns = {{NULL}, 0};
    size_t checked = 0;

    collect(cases, &subjects, &patterns);
    declare_for(c, &subjects);
    for (size_t i = 0; i < subjects.count; i++)
        assert_int_equal(contract_publish(c, subjects.items[i], "x"), i + 1);
    contract_publish(c, "zz.end", "x");
    for (size_t i = 0; i < patterns.count; i++) {
        bool delivered[TEXTS_MAX] = {false};
        deliver(c, patterns.items[i], &subjects, delivered);
        checked += check(cases, patterns.items[i], &subjects, delivered);
    }
    assert_true(checked >= 69); /* of 114: the others are refused, not delivered */
    json_decref(root);
}

static const struct contract_case cases[] = {
    CONTRACT_CASE(patterns_deliver_what_the_cases_say),
};

const struct contract_cases contract_subject_cases = {cases, sizeof(cases) / sizeof(cases[0])};
