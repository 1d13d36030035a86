/* check.c - what may be published to, subscribed to, and used as a name on the server. */
#include <waybill/subject.h>

#include "subject_token.h"

#define NAME_MAX_BYTES 64
#define SHOWN_MAX      80 /* bytes of a refused text that an error shows */

/* All refusals look alike, and none lets control bytes of foreign text into a terminal or log. */
static wb_err refuse(struct wb_why *why, const char *what, struct wb_str text, size_t at,
                     const char *reason)
{
    if (why == NULL)
        return WB_INVALID;
    struct wb_buf shown = {0};
    wb_buf_printable(&shown, text.len > SHOWN_MAX ? wb_str_n(text.ptr, SHOWN_MAX) : text);
    (void)wb_fail(why, WB_INVALID, "%s '%s%s' (%zu bytes): at byte %zu: %s", what,
                  shown.ptr == NULL ? "" : shown.ptr, text.len > SHOWN_MAX ? "..." : "", text.len,
                  at, reason);
    wb_buf_free(&shown);
    return WB_INVALID;
}

/* What is wrong with one token, or NULL. *ret_at is the place within the token. */
static const char *token_fault(struct wb_str token, bool is_pattern, bool is_last, size_t *ret_at)
{
    *ret_at = 0;
    if (token.len == 0)
        return "empty token; join tokens by single dots, without one at either end";
    if (is_pattern && (subject_token_is(token, '*') || (is_last && subject_token_is(token, '>'))))
        return NULL;
    for (; *ret_at < token.len; (*ret_at)++) {
        unsigned char c = (unsigned char)token.ptr[*ret_at];
        if (c <= 0x20 || c == 0x7f)
            return "blank or control character; replace it, by '-' or '_' for example";
        if (c != '*' && c != '>')
            continue;
        return is_pattern ? "in a pattern '*' is a whole token and '>' the whole last token; write "
                            "the wildcard alone between dots, or remove it"
                          : "a subject has no '*' or '>'; name it in full";
    }
    return NULL;
}

static wb_err check(struct wb_str text, bool is_pattern, struct wb_why *why)
{
    const char *what = is_pattern ? "pattern" : "subject";

    if (text.ptr == NULL || text.len == 0)
        return wb_fail(why, WB_INVALID, "%s '' is empty; give 1 to %d bytes", what, SUBJECT_MAX);
    if (text.len > SUBJECT_MAX)
        return refuse(why, what, text, SUBJECT_MAX, "at most 255 bytes are allowed; shorten it");
    struct wb_str rest = text;
    struct wb_str token;
    while (subject_token_next(&rest, &token)) {
        size_t at;
        const char *fault = token_fault(token, is_pattern, rest.ptr == NULL, &at);
        if (fault != NULL)
            return refuse(why, what, text, (size_t)(token.ptr - text.ptr) + at, fault);
    }
    if (!wb_utf8_valid(text))
        return refuse(why, what, text, 0, "not valid UTF-8; encode it as UTF-8");
    if (subject_is_reserved(text))
        return refuse(
            why, what, text, 0,
            "first tokens '$...', '_INBOX' and '_R_' belong to the server; choose another");
    return WB_OK;
}

wb_err subject_check(struct wb_str subject, struct wb_why *why)
{
    return check(subject, false, why);
}

wb_err subject_pattern_check(struct wb_str pattern, struct wb_why *why)
{
    return check(pattern, true, why);
}

static bool is_name_char(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
}

wb_err subject_name_check(struct wb_str name, const char *what, struct wb_why *why)
{
    if (name.ptr == NULL || name.len == 0)
        return wb_fail(why, WB_INVALID, "%s '' is empty; give 1 to %d of A-Z a-z 0-9 _ -", what,
                       NAME_MAX_BYTES);
    for (size_t i = 0; i < name.len; i++)
        if (!is_name_char(name.ptr[i]))
            return refuse(why, what, name, i, "only A-Z a-z 0-9 _ - are allowed; replace the rest");
    if (name.len > NAME_MAX_BYTES)
        return refuse(why, what, name, NAME_MAX_BYTES, "at most 64 bytes are allowed; shorten it");
    return WB_OK;
}
