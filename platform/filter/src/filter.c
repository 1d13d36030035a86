/* Does a filter mean a thing? */
#include "filter_internal.h"

#include <assert.h>
#include <stdlib.h>

#include <waybill/subject.h>

void filter_destroy(struct filter *filter)
{
    free(filter);
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool starts_with(const char *text, struct wb_str part)
{
    for (size_t i = 0; i < part.len; i++)
        if (lower(text[i]) != lower(part.ptr[i]))
            return false;
    return true;
}

static bool contains(struct wb_str text, struct wb_str part)
{
    if (part.len == 0)
        return true;
    for (size_t at = 0; at + part.len <= text.len; at++)
        if (starts_with(text.ptr + at, part))
            return true;
    return false;
}

static bool equals(filter_type type, const struct filter_value *value,
                   const struct filter_literal *literal)
{
    switch (type) {
    case FILTER_TEXT:
        return wb_str_eq(value->text, literal->text);
    case FILTER_SUBJECT: /* what was written by hand may be no subject; no pattern means it */
        return subject_check(value->text, NULL) == WB_OK
                   ? subject_matches(literal->text, value->text)
                   : wb_str_eq(literal->text, value->text);
    case FILTER_NUMBER:
    case FILTER_AGE:
    case FILTER_TIME:
    case FILTER_ID:
        break;
    }
    return value->number >= literal->low && value->number <= literal->high;
}

static bool equals_any(const struct filter *filter, const struct filter_step *step,
                       const struct filter_value *value)
{
    for (size_t i = 0; i < step->count; i++)
        if (equals(step->type, value, &filter->literals[step->first + i]))
            return true;
    return false;
}

static bool compare(const struct filter *filter, const struct filter_step *step, filter_get get,
                    void *ctx)
{
    const struct filter_literal *literal = &filter->literals[step->first];
    struct filter_value value = {.number = 0};

    if (!get(ctx, step->field, &value))
        return step->op == FILTER_NE;
    switch (step->op) {
    case FILTER_EQ:
    case FILTER_IN:
        return equals_any(filter, step, &value);
    case FILTER_NE:
        return !equals_any(filter, step, &value);
    case FILTER_LT:
        return value.number < literal->low;
    case FILTER_LE:
        return value.number <= literal->low;
    case FILTER_GT:
        return value.number > literal->low;
    case FILTER_GE:
        return value.number >= literal->low;
    case FILTER_CONTAINS:
        return contains(value.text, literal->text);
    }
    return false;
}

bool filter_matches(const struct filter *filter, filter_get get, void *ctx)
{
    bool truth = true;

    assert(get != NULL);
    for (size_t at = 0; filter != NULL && at < filter->step_count;) {
        const struct filter_step *step = &filter->steps[at++];
        switch (step->kind) {
        case FILTER_COMPARE:
            truth = compare(filter, step, get, ctx);
            break;
        case FILTER_NEGATE:
            truth = !truth;
            break;
        case FILTER_SKIP_IF_FALSE:
            at = truth ? at : step->target;
            break;
        case FILTER_SKIP_IF_TRUE:
            at = truth ? step->target : at;
            break;
        }
    }
    return truth;
}

bool filter_uses(const struct filter *filter, size_t field)
{
    for (size_t i = 0; filter != NULL && i < filter->step_count; i++)
        if (filter->steps[i].kind == FILTER_COMPARE && filter->steps[i].field == field)
            return true;
    return false;
}
