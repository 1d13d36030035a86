/* The words of a filter. */
#include "filter_internal.h"

#include <string.h>

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool is_one_of(char c, const char *set)
{
    return c != '\0' && strchr(set, c) != NULL;
}

static bool ends_word(char c, bool value)
{
    return is_blank(c) || is_one_of(c, "(),\"'") || (!value && is_one_of(c, "=!<>~"));
}

/* A backslash keeps the byte behind it. What stands between the quotes is taken as it is here. */
static void quoted(struct wb_str text, size_t *at, struct filter_token *token)
{
    const char quote = text.ptr[*at];
    size_t from = ++*at;

    while (*at < text.len && text.ptr[*at] != quote)
        *at += text.ptr[*at] == '\\' ? 2 : 1;
    if (*at >= text.len) {
        *at = text.len;
        token->text = wb_str_n(text.ptr + token->at, text.len - token->at);
        return; /* stays FILTER_STRANGE */
    }
    token->kind = FILTER_QUOTED;
    token->text = wb_str_n(text.ptr + from, *at - from);
    ++*at;
}

static bool operator_at(struct wb_str rest, struct filter_token *token)
{
    static const struct {
        const char *text;
        enum filter_operator op;
    } all[] = {/* the longer ones first */
               {"!=", FILTER_NE}, {"<=", FILTER_LE}, {">=", FILTER_GE},     {"=", FILTER_EQ},
               {"<", FILTER_LT},  {">", FILTER_GT},  {"~", FILTER_CONTAINS}};

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        size_t len = strlen(all[i].text);
        if (rest.len < len || memcmp(rest.ptr, all[i].text, len) != 0)
            continue;
        token->kind = FILTER_OPERATOR;
        token->op = all[i].op;
        token->text = wb_str_n(rest.ptr, len);
        return true;
    }
    return false;
}

static bool mark_at(char c, struct filter_token *token)
{
    switch (c) {
    case '(':
        token->kind = FILTER_OPEN;
        return true;
    case ')':
        token->kind = FILTER_CLOSE;
        return true;
    case ',':
        token->kind = FILTER_COMMA;
        return true;
    default:
        return false;
    }
}

void filter_next(struct wb_str text, bool value, size_t *at, struct filter_token *ret_token)
{
    while (*at < text.len && is_blank(text.ptr[*at]))
        ++*at;
    *ret_token = (struct filter_token){.kind = FILTER_END, .at = *at};
    if (*at == text.len)
        return;
    const char *from = text.ptr + *at;
    ret_token->kind = FILTER_STRANGE;
    ret_token->text = wb_str_n(from, 1);
    if (*from == '"' || *from == '\'') {
        quoted(text, at, ret_token);
        return;
    }
    if (mark_at(*from, ret_token) ||
        (!value && operator_at(wb_str_n(from, text.len - *at), ret_token))) {
        *at += ret_token->text.len;
        return;
    }
    while (*at < text.len && !ends_word(text.ptr[*at], value))
        ++*at;
    ret_token->text.len = (size_t)(text.ptr + *at - from);
    if (ret_token->text.len > 0) {
        ret_token->kind = FILTER_WORD;
        return;
    }
    ret_token->text.len = 1; /* '!' alone */
    ++*at;
}
