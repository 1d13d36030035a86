/* pattern.c - patterns against subjects and against each other, token by token. */
#include <waybill/subject.h>

#include "subject_token.h"

static bool is_wildcard(struct wb_str token)
{
    return subject_token_is(token, '*') || subject_token_is(token, '>');
}

bool subject_has_wildcard(struct wb_str pattern)
{
    struct wb_str token;

    while (subject_token_next(&pattern, &token))
        if (is_wildcard(token))
            return true;
    return false;
}

bool subject_includes(struct wb_str a, struct wb_str b)
{
    struct wb_str x;
    struct wb_str y;

    while (subject_token_next(&a, &x)) {
        if (!subject_token_next(&b, &y))
            return false;
        if (subject_token_is(x, '>'))
            return true;
        if (subject_token_is(y, '>'))
            return false;
        if (!subject_token_is(x, '*') && !wb_str_eq(x, y))
            return false;
    }
    return b.ptr == NULL;
}

bool subject_matches(struct wb_str pattern, struct wb_str subject)
{
    struct wb_str rest = pattern;
    struct wb_str first;

    if (!subject_token_next(&rest, &first) || (is_wildcard(first) && subject_is_reserved(subject)))
        return false;
    return subject_includes(pattern, subject); /* a subject is the pattern of itself alone */
}

/*
 * Append one token to out, with a dot before all but the first. out may be NULL: nothing is kept.
 */
static bool put_token(struct wb_str token, char *out, size_t *len)
{
    size_t dot = *len == 0 ? 0 : 1;

    if (out != NULL) {
        if (*len + dot + token.len > SUBJECT_MAX)
            return false;
        if (dot == 1)
            out[*len] = '.';
        memcpy(out + *len + dot, token.ptr, token.len);
        out[*len + dot + token.len] = '\0';
    }
    *len += dot + token.len;
    return true;
}

/*
 * What both match is one pattern: of two tokens the more special one; where one pattern ends in
 * '>', all that is left of the other.
 */
static bool intersect(struct wb_str a, struct wb_str b, char *out)
{
    struct wb_str x = {NULL, 0};
    struct wb_str y = {NULL, 0};
    size_t len = 0;

    for (;;) {
        bool more_a = subject_token_next(&a, &x);
        bool more_b = subject_token_next(&b, &y);
        if (!more_a || !more_b)
            return more_a == more_b;
        bool a_is_open = subject_token_is(x, '>');
        bool b_is_open = subject_token_is(y, '>');
        if (!a_is_open && !b_is_open && !is_wildcard(x) && !is_wildcard(y) && !wb_str_eq(x, y))
            return false;
        bool take_y = a_is_open || (!b_is_open && subject_token_is(x, '*'));
        if (!put_token(take_y ? y : x, out, &len))
            return false;
        if (a_is_open || b_is_open) {
            struct wb_str rest = a_is_open ? b : a;
            return rest.ptr == NULL || put_token(rest, out, &len);
        }
    }
}

bool subject_overlap(struct wb_str a, struct wb_str b)
{
    return intersect(a, b, NULL);
}

bool subject_intersect(struct wb_str a, struct wb_str b, char out[SUBJECT_MAX + 1])
{
    char common[SUBJECT_MAX + 1] = "";

    if (!intersect(a, b, common))
        return false;
    memcpy(out, common, sizeof(common));
    return true;
}
