/*
 * The grammar:
 *   any        = all { "or" all }
 *   all        = one { "and" one }
 *   one        = "not" one | "(" any ")" | comparison
 *   comparison = field operator value | field "in" "(" value { "," value } ")"
 */
#include "filter_internal.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct parser {
    struct wb_str text;
    const struct filter_field *fields;
    size_t field_count;
    size_t at;                 /* of the byte behind the token */
    struct filter_token token; /* the one to be looked at next */
    size_t depth;
    struct filter *filter;
    struct wb_why *why;
};

static wb_err any(struct parser *self);

/* ---- errors ---------------------------------------------------------------------------------- */

/* What was found, for a message: short, and harmless on a terminal. */
static void found_text(const struct filter_token *token, char out[48])
{
    const size_t max = 32;
    size_t len = token->text.len < max ? token->text.len : max;
    size_t at = 0;

    if (token->kind == FILTER_END) {
        (void)snprintf(out, 48, "the end");
        return;
    }
    out[at++] = '\'';
    for (size_t i = 0; i < len; i++) {
        char c = token->text.ptr[i];
        out[at++] = c >= 0x20 && c < 0x7f ? c : '?';
    }
    (void)snprintf(out + at, 48 - at, "%s'", token->text.len > max ? "..." : "");
}

static wb_err unexpected(const struct parser *self, const char *expected)
{
    char found[48];

    if (self->token.kind == FILTER_STRANGE && self->token.text.len > 0 &&
        (self->token.text.ptr[0] == '"' || self->token.text.ptr[0] == '\''))
        return wb_fail(self->why, WB_INVALID,
                       "filter, column %zu: the quotes are not closed; expected another %c",
                       self->token.at + 1, self->token.text.ptr[0]);
    found_text(&self->token, found);
    return wb_fail(self->why, WB_INVALID, "filter, column %zu: found %s, expected %s",
                   self->token.at + 1, found, expected);
}

/* Lists the fields, and the one that was perhaps meant first. */
static wb_err unknown_field(const struct parser *self)
{
    char expected[360] = "one of ";
    size_t at = strlen(expected);
    const char *near = NULL;
    unsigned best = 3;

    for (size_t i = 0; i < self->field_count && at < sizeof(expected); i++) {
        const char *name = self->fields[i].name;
        unsigned distance = wb_str_distance(self->token.text, wb_str(name));
        if (distance < best) {
            best = distance;
            near = name;
        }
        at +=
            (size_t)snprintf(expected + at, sizeof(expected) - at, "%s%s", i > 0 ? ", " : "", name);
    }
    if (near != NULL)
        (void)snprintf(expected, sizeof(expected), "a field; did you mean '%s'?", near);
    return unexpected(self, expected);
}

/* ---- building -------------------------------------------------------------------------------- */

static void next(struct parser *self, bool value)
{
    filter_next(self->text, value, &self->at, &self->token);
}

static bool at_word(const struct parser *self, const char *word)
{
    return self->token.kind == FILTER_WORD && wb_str_case_eq(self->token.text, wb_str(word));
}

static wb_err room(const struct parser *self)
{
    if (self->filter->step_count + self->filter->literal_count < FILTER_NODES_MAX)
        return WB_OK;
    return wb_fail(self->why, WB_TOO_BIG,
                   "filter, column %zu: more than %d comparisons, values, and, or, not; use fewer",
                   self->token.at + 1, FILTER_NODES_MAX);
}

static wb_err push_step(struct parser *self, const struct filter_step *step)
{
    wb_err err = room(self);

    if (err == WB_OK)
        self->filter->steps[self->filter->step_count++] = *step;
    return err;
}

/* Copy a token's text into the filter, without the backslashes of a quoted one. */
static struct wb_str keep(struct parser *self)
{
    struct filter *filter = self->filter;
    const struct filter_token *token = &self->token;
    const char *from = filter->text + filter->text_len;

    for (size_t i = 0; i < token->text.len; i++) {
        if (token->kind == FILTER_QUOTED && token->text.ptr[i] == '\\')
            i++;
        assert(filter->text_len < sizeof(filter->text)); /* it is never more than was given */
        filter->text[filter->text_len++] = token->text.ptr[i];
    }
    return wb_str_n(from, (size_t)(filter->text + filter->text_len - from));
}

static wb_err value(struct parser *self, const struct filter_step *step)
{
    bool keyword = at_word(self, "and") || at_word(self, "or") || at_word(self, "not");
    bool valued = self->token.kind == FILTER_QUOTED || self->token.kind == FILTER_WORD;

    if (!valued || keyword)
        return unexpected(self, filter_type_expects(step->type));
    wb_err err = room(self);
    if (err != WB_OK)
        return err;
    struct filter_literal *literal = &self->filter->literals[self->filter->literal_count];
    if (!filter_literal_read(step->type, step->op, keep(self), literal))
        return unexpected(self, filter_type_expects(step->type));
    self->filter->literal_count++;
    return WB_OK;
}

/* ---- the grammar ----------------------------------------------------------------------------- */

static wb_err value_list(struct parser *self, struct filter_step *step)
{
    next(self, true);
    if (self->token.kind != FILTER_OPEN)
        return unexpected(self, "( after in");
    do {
        next(self, true);
        wb_err err = value(self, step);
        if (err != WB_OK)
            return err;
        step->count++;
        next(self, true);
    } while (self->token.kind == FILTER_COMMA);
    return self->token.kind == FILTER_CLOSE ? WB_OK : unexpected(self, ", or )");
}

static bool field_find(const struct parser *self, struct filter_step *step)
{
    for (size_t i = 0; i < self->field_count; i++) {
        if (!wb_str_eq(self->token.text, wb_str(self->fields[i].name)))
            continue;
        step->field = i;
        step->type = self->fields[i].type;
        return true;
    }
    return false;
}

static wb_err operator_read(struct parser *self, struct filter_step *step)
{
    const bool textual = step->type == FILTER_TEXT || step->type == FILTER_SUBJECT;
    const char *expected =
        textual ? "one of = != ~ in (this field is a text)" : "one of = != < <= > >= in";

    if (at_word(self, "in"))
        step->op = FILTER_IN;
    else if (self->token.kind == FILTER_OPERATOR)
        step->op = self->token.op;
    else
        return unexpected(self, expected);
    return filter_type_allows(step->type, step->op) ? WB_OK : unexpected(self, expected);
}

static wb_err comparison(struct parser *self)
{
    struct filter_step step = {.kind = FILTER_COMPARE, .first = self->filter->literal_count};

    if (self->token.kind != FILTER_WORD)
        return unexpected(self, "a field, not or (");
    if (!field_find(self, &step))
        return unknown_field(self);
    next(self, false);
    wb_err err = operator_read(self, &step);
    if (err != WB_OK)
        return err;
    if (step.op == FILTER_IN) {
        err = value_list(self, &step);
    } else {
        next(self, true);
        err = value(self, &step);
        step.count = 1;
    }
    if (err == WB_OK)
        err = push_step(self, &step);
    next(self, false);
    return err;
}

static wb_err one(struct parser *self)
{
    const bool negated = at_word(self, "not");
    wb_err err = WB_OK;

    if (!negated && self->token.kind != FILTER_OPEN)
        return comparison(self);
    if (self->depth == FILTER_DEPTH_MAX)
        return wb_fail(self->why, WB_TOO_BIG,
                       "filter, column %zu: parentheses and nots deeper than %d; use fewer",
                       self->token.at + 1, FILTER_DEPTH_MAX);
    self->depth++;
    next(self, false);
    if (negated) {
        err = one(self);
        if (err == WB_OK)
            err = push_step(self, &(struct filter_step){.kind = FILTER_NEGATE});
    } else {
        err = any(self);
        if (err == WB_OK && self->token.kind != FILTER_CLOSE)
            err = unexpected(self, "and, or, )");
        if (err == WB_OK)
            next(self, false);
    }
    self->depth--;
    return err;
}

/* A chain of parts joined by one word: each join skips the part behind it when it may. */
static wb_err chain(struct parser *self, const char *word, enum filter_step_kind skip,
                    wb_err (*part)(struct parser *self))
{
    wb_err err = part(self);

    while (err == WB_OK && at_word(self, word)) {
        size_t join = self->filter->step_count;
        err = push_step(self, &(struct filter_step){.kind = skip});
        next(self, false);
        if (err == WB_OK)
            err = part(self);
        if (err == WB_OK)
            self->filter->steps[join].target = self->filter->step_count;
    }
    return err;
}

static wb_err all(struct parser *self)
{
    return chain(self, "and", FILTER_SKIP_IF_FALSE, one);
}

static wb_err any(struct parser *self)
{
    return chain(self, "or", FILTER_SKIP_IF_TRUE, all);
}

wb_err filter_parse(struct wb_str text, const struct filter_field *fields, size_t field_count,
                    struct filter **ret_filter, struct wb_why *why)
{
    struct parser self = {.text = text, .fields = fields, .field_count = field_count, .why = why};

    assert(ret_filter != NULL);
    if (text.len > FILTER_TEXT_MAX)
        return wb_fail(why, WB_TOO_BIG, "a filter of %zu bytes: at most %d are allowed", text.len,
                       FILTER_TEXT_MAX);
    self.filter = calloc(1, sizeof(*self.filter));
    if (self.filter == NULL)
        return wb_fail(why, WB_NOMEM, "read a filter: out of memory");
    next(&self, false);
    wb_err err = any(&self);
    if (err == WB_OK && self.token.kind != FILTER_END)
        err = unexpected(&self, "and, or, or the end");
    if (err != WB_OK) {
        filter_destroy(self.filter);
        return err;
    }
    *ret_filter = self.filter;
    return WB_OK;
}
