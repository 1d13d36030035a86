/* filter_internal.h - what the files of filter share. */
#ifndef FILTER_INTERNAL_H
#define FILTER_INTERNAL_H

#include "waybill/filter.h"

enum filter_operator {
    FILTER_EQ,
    FILTER_NE,
    FILTER_LT,
    FILTER_LE,
    FILTER_GT,
    FILTER_GE,
    FILTER_CONTAINS,
    FILTER_IN
};

/* A value to compare with. Numbers are a range from low to high, mostly of one number. */
struct filter_literal {
    struct wb_str text; /* in filter->text */
    int64_t low, high;
};

/*
 * A filter is a little program on one truth value, so that matching needs no stack: compare sets
 * it, negate turns it, and a jump leaves out the right side of `and` or `or` when the left side
 * has decided.
 */
enum filter_step_kind {
    FILTER_COMPARE,
    FILTER_NEGATE,
    FILTER_SKIP_IF_FALSE, /* and */
    FILTER_SKIP_IF_TRUE   /* or */
};

struct filter_step {
    enum filter_step_kind kind;
    enum filter_operator op;
    filter_type type;
    size_t field;
    size_t first, count; /* of the literals */
    size_t target;       /* of a skip: the step to go on with */
};

struct filter {
    size_t step_count;
    size_t literal_count;
    struct filter_step steps[FILTER_NODES_MAX];
    struct filter_literal literals[FILTER_NODES_MAX];
    size_t text_len;
    char text[FILTER_TEXT_MAX]; /* what the texts of the literals are views of */
};

/* ---- filter_lexer.c: text to words ----------------------------------------------------------- */

enum filter_token_kind {
    FILTER_END,
    FILTER_WORD,   /* a name, a word of the language, or a value without quotes */
    FILTER_QUOTED, /* a value in quotes; text is what stands between them */
    FILTER_OPERATOR,
    FILTER_OPEN,
    FILTER_CLOSE,
    FILTER_COMMA,
    FILTER_STRANGE /* no such thing in the language, or quotes that do not end */
};

struct filter_token {
    enum filter_token_kind kind;
    enum filter_operator op;
    struct wb_str text;
    size_t at; /* byte in the filter */
};

/*
 * The next token from byte *at on, which moves behind it. In the place of a value a word reaches to
 * the next blank, comma or parenthesis, so that `orders.>` and `2026-01-31T10:00:00Z` need no
 * quotes; elsewhere it ends at an operator.
 */
void filter_next(struct wb_str text, bool value, size_t *at, struct filter_token *ret_token);

/* ---- filter_literal.c: words to values ------------------------------------------------------- */

/* The type's name, and what its values look like, for messages. Static. */
const char *filter_type_expects(filter_type type);

/* May this operator be used on this type? */
bool filter_type_allows(filter_type type, enum filter_operator op);

/* Read a value; the text stays a view of what is given. False: it is none of that type. */
bool filter_literal_read(filter_type type, enum filter_operator op, struct wb_str text,
                         struct filter_literal *ret_literal);

#endif /* FILTER_INTERNAL_H */
