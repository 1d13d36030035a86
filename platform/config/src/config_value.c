#include "config_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* A quantity and its unit, from large to small, to show a bound as a person would write it. */
struct unit {
    const char *name;
    int64_t size;
};

static const struct unit duration_units[] = {
    {"h", 3600 * WB_SEC}, {"m", 60 * WB_SEC}, {"s", WB_SEC},
    {"ms", WB_MS},        {"us", WB_US},      {"ns", 1},
};
static const struct unit size_units[] = {
    {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}};

/* The last unit of each list is 1, so that one always fits. */
static void add_quantity(struct wb_buf *out, const struct unit *unit, int64_t value)
{
    while (value % unit->size != 0 || (value == 0 && unit->size != 1))
        unit++;
    wb_buf_printf(out, "%" PRId64 "%s", value / unit->size, unit->name);
}

static void add_bound(struct wb_buf *out, const struct config_key *key, int64_t bound)
{
    if (key->type == CONFIG_DURATION)
        add_quantity(out, duration_units, bound);
    else if (key->type == CONFIG_SIZE)
        add_quantity(out, size_units, bound);
    else
        wb_buf_printf(out, "%" PRId64, bound);
}

static void add_bounds(struct wb_buf *out, const struct config_key *key)
{
    if (key->min == 0 && key->max == 0)
        return;
    wb_buf_str(out, key->type == CONFIG_INT ? " from " : ", from ");
    add_bound(out, key, key->min);
    wb_buf_str(out, " to ");
    add_bound(out, key, key->max);
}

static void add_choices(struct wb_buf *out, const struct config_key *key)
{
    wb_buf_str(out, "one of ");
    for (const char *c = key->choices; *c != '\0'; c++) {
        if (*c == '|')
            wb_buf_str(out, ", ");
        else
            wb_buf_add(out, c, 1);
    }
}

static void add_expected(struct wb_buf *out, const struct config_key *key)
{
    switch (key->type) {
    case CONFIG_STRING:
        wb_buf_str(out, "UTF-8 text");
        break;
    case CONFIG_INT:
        wb_buf_str(out, "an integer");
        break;
    case CONFIG_BOOL:
        wb_buf_str(out, "true or false");
        break;
    case CONFIG_DURATION:
        wb_buf_str(out, "a duration with its unit (ms, s, m, h), such as \"1m30s\"");
        break;
    case CONFIG_SIZE:
        wb_buf_str(out, "a size, such as \"64KiB\" or \"2MB\"");
        break;
    case CONFIG_CHOICE:
        add_choices(out, key);
        break;
    }
    add_bounds(out, key);
}

/* The part of a value that fits a message; a secret is never shown. */
static void add_shown(struct wb_buf *out, const struct config_key *key, struct wb_str value)
{
    bool cut = value.len > 40;

    if (key->secret) {
        wb_buf_str(out, "***");
        return;
    }
    wb_buf_str(out, "\"");
    wb_buf_printable(out, wb_str_n(value.ptr, cut ? 40 : value.len));
    wb_buf_str(out, cut ? "...\"" : "\"");
}

static bool choice_allowed(const struct config_key *key, struct wb_str value,
                           struct config_guess *guess)
{
    const char *choice = key->choices;

    for (;;) {
        size_t len = strcspn(choice, "|");
        struct wb_str candidate = wb_str_n(choice, len);
        if (wb_str_eq(candidate, value))
            return true;
        config_guess_try(guess, candidate);
        if (choice[len] == '\0')
            return false;
        choice += len + 1;
    }
}

static bool in_bounds(const struct config_key *key, int64_t value)
{
    return (key->min == 0 && key->max == 0) || (value >= key->min && value <= key->max);
}

static bool value_suits(const struct config_key *key, struct wb_str value,
                        struct config_guess *guess)
{
    int64_t number = 0;
    uint64_t size = 0;

    switch (key->type) {
    case CONFIG_STRING:
        return true;
    case CONFIG_INT:
        return config_int_parse(value, &number) && in_bounds(key, number);
    case CONFIG_BOOL:
        return wb_str_eq(value, wb_str("true")) || wb_str_eq(value, wb_str("false"));
    case CONFIG_DURATION:
        return wb_duration_parse(value, &number) && in_bounds(key, number);
    case CONFIG_SIZE:
        return wb_size_parse(value, &size) && size <= INT64_MAX && in_bounds(key, (int64_t)size);
    case CONFIG_CHOICE:
        return choice_allowed(key, value, guess);
    }
    return false;
}

wb_err config_value_check(const struct config_key *key, const char *name, struct wb_str value,
                          const char *where, struct wb_why *why)
{
    struct config_guess guess = {.word = value};
    struct wb_buf text = {0};

    if (!wb_utf8_valid(value))
        return wb_fail(why, WB_INVALID, "%s: %s is not valid UTF-8", where, name);
    if (value_suits(key, value, &guess))
        return WB_OK;
    wb_buf_printf(&text, "%s: %s: expected ", where, name);
    add_expected(&text, key);
    wb_buf_str(&text, ", got ");
    add_shown(&text, key, value);
    if (guess.best.ptr != NULL && !key->secret)
        wb_buf_printf(&text, "; did you mean \"%.*s\"?", (int)guess.best.len, guess.best.ptr);
    wb_err err = text.failed ? wb_fail(why, WB_NOMEM, "%s: %s: out of memory", where, name)
                             : wb_fail(why, WB_INVALID, "%s", text.ptr);
    wb_buf_free(&text);
    return err;
}

bool config_int_parse(struct wb_str text, int64_t *ret_value)
{
    bool negative = text.len > 0 && text.ptr[0] == '-';
    uint64_t magnitude;

    if (negative)
        text = wb_str_n(text.ptr + 1, text.len - 1);
    if (!wb_str_to_u64(text, &magnitude) || magnitude > (uint64_t)INT64_MAX)
        return false; /* INT64_MIN itself is not needed by any setting */
    *ret_value = negative ? -(int64_t)magnitude : (int64_t)magnitude;
    return true;
}

/* ---- names ----------------------------------------------------------------------------------- */

/* Cut the first part off a dotted name. */
static struct wb_str next_part(struct wb_str *name)
{
    const char *dot = name->len == 0 ? NULL : memchr(name->ptr, '.', name->len);
    struct wb_str part = dot == NULL ? *name : wb_str_n(name->ptr, (size_t)(dot - name->ptr));

    *name = dot == NULL ? (struct wb_str){NULL, 0} : wb_str_n(dot + 1, name->len - part.len - 1);
    return part;
}

bool config_name_matches(struct wb_str pattern, struct wb_str name)
{
    while (pattern.ptr != NULL && name.ptr != NULL) {
        struct wb_str expected = next_part(&pattern);
        struct wb_str got = next_part(&name);
        if (wb_str_eq(expected, wb_str("*")) ? !config_name_valid(got) : !wb_str_eq(expected, got))
            return false;
    }
    return pattern.ptr == NULL && name.ptr == NULL;
}

struct wb_str config_name_section(const char *name)
{
    const char *dot = strrchr(name, '.');

    return wb_str_n(name, dot == NULL ? 0 : (size_t)(dot - name));
}

struct wb_str config_name_last(const char *name)
{
    const char *dot = strrchr(name, '.');

    return wb_str(dot == NULL ? name : dot + 1);
}

void config_guess_try(struct config_guess *guess, struct wb_str candidate)
{
    unsigned distance = wb_str_distance(guess->word, candidate);
    unsigned near = guess->word.len < 3 ? 1 : 2;

    if (distance <= near && (guess->best.ptr == NULL || distance < guess->distance)) {
        guess->best = candidate;
        guess->distance = distance;
    }
}
