/*
 * waybill/filter.h - the one language in which an operator says which things are meant: dead
 * letters, rows of an outbox, events to replay.
 *
 *     subject = orders.> and age > 1h and (reason ~ timeout or failures >= 5) and not key = "k 7"
 *
 * A filter is comparisons joined by `not`, `and`, `or` (binding in this order) and parentheses.
 * What may stand in one depends on the type of its field:
 *
 *   type     operators                 values
 *   text     = != ~ in                 a word or a quoted text; = by bytes, ~ contains
 *   subject  = != ~ in                 a pattern for = != in: orders.*.new, orders.>
 *   number   = != < <= > >= in         whole numbers
 *   age      = != < <= > >= in         a duration: 90s, 1h30m
 *   time     = != < <= > >= in         2026-01-31, or 2026-01-31T10:00:00Z
 *   id       = != < <= > >= in         whole numbers; for = != in also ranges: 5..9, ..9, 5..
 *
 * `~` takes no account of the case of ASCII letters; `in (a, b)` is true when = is for one of them;
 * != is `not =`. Values with blanks, commas, parentheses or quotes stand in "..." or '...', where \
 * keeps what follows it. Words of the language are written in either case.
 *
 * Threads   A filter is constant: any number of threads may match by it at once. Only
 *           filter_parse() allocates.
 */
#ifndef WAYBILL_FILTER_H
#define WAYBILL_FILTER_H

#include <waybill/base.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FILTER_TEXT_MAX  4096 /* bytes of a filter */
#define FILTER_NODES_MAX 256  /* comparisons, values, and, or, not */
#define FILTER_DEPTH_MAX 32   /* parentheses and nots inside each other */

typedef enum filter_type {
    FILTER_TEXT,
    FILTER_SUBJECT,
    FILTER_NUMBER,
    FILTER_AGE,  /* nanoseconds */
    FILTER_TIME, /* Unix nanoseconds */
    FILTER_ID
} filter_type;

/* What may be asked of a thing. Constant and static; the index in the table is the field's id. */
struct filter_field {
    const char *name;
    filter_type type;
};

struct filter;

/**
 * Read a filter.
 *
 * @param fields      borrowed during the call.
 * @param ret_filter  to be ended with filter_destroy().
 * @return WB_INVALID: why names the column (from 1), what was found there and what was expected.
 *         An empty text is refused too: it would mean everything, and rarely does. WB_TOO_BIG: one
 *         of the limits above. WB_NOMEM.
 */
wb_err filter_parse(struct wb_str text, const struct filter_field *fields, size_t field_count,
                    struct filter **ret_filter, struct wb_why *why);

/** NULL does nothing. */
void filter_destroy(struct filter *filter);

/* What a thing has in one field: text for texts and subjects, number for all other types. */
struct filter_value {
    struct wb_str text;
    int64_t number;
};

/**
 * Asked for the value of a field, only when it is needed. Returns false when the thing has none:
 * then != is true, all else false.
 */
typedef bool (*filter_get)(void *ctx, size_t field, struct filter_value *ret_value);

/** Does the filter mean the thing that get(ctx) tells of? A filter of NULL means everything. */
bool filter_matches(const struct filter *filter, filter_get get, void *ctx);

/** Does the filter ask for this field at all? So that what is costly is read only when needed. */
bool filter_uses(const struct filter *filter, size_t field);

#ifdef __cplusplus
}
#endif
#endif /* WAYBILL_FILTER_H */
