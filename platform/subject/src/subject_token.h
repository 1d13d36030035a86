/* subject_token.h - the tokens of a subject or pattern, one after the other. */
#ifndef SUBJECT_TOKEN_H
#define SUBJECT_TOKEN_H

#include <string.h>

#include <waybill/subject.h>

#define SUBJECT_TOKENS_MAX (SUBJECT_MAX / 2 + 1) /* one-byte tokens and the dots between them */

/* Cut the first token off rest; false at the end, where rest->ptr is NULL. */
static inline bool subject_token_next(struct wb_str *rest, struct wb_str *ret_token)
{
    if (rest->ptr == NULL)
        return false;
    const char *dot = rest->len == 0 ? NULL : memchr(rest->ptr, '.', rest->len);
    if (dot == NULL) {
        *ret_token = *rest;
        *rest = (struct wb_str){NULL, 0};
        return true;
    }
    *ret_token = wb_str_n(rest->ptr, (size_t)(dot - rest->ptr));
    *rest = wb_str_n(dot + 1, rest->len - ret_token->len - 1);
    return true;
}

static inline bool subject_token_is(struct wb_str token, char wildcard)
{
    return token.len == 1 && token.ptr[0] == wildcard;
}

/* Subjects of the server's own, which no leading wildcard matches: "$...", _INBOX and _R_. */
static inline bool subject_is_reserved(struct wb_str subject)
{
    struct wb_str first;

    if (!subject_token_next(&subject, &first) || first.len == 0)
        return false;
    return first.ptr[0] == '$' || wb_str_eq(first, wb_str_n("_INBOX", 6)) ||
           wb_str_eq(first, wb_str_n("_R_", 3));
}

#endif /* SUBJECT_TOKEN_H */
