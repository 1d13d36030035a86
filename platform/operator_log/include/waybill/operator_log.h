/*
 * waybill/operator_log.h - who changed what by hand, and why: one table in each database file.
 *
 * What an operator does to events (retry, edit, discard, repair, fence, purge) is written here in
 * the transaction that does it, so that the log tells no more and no less than what happened. The
 * newest 100 000 entries are kept.
 *
 * Threads   The functions are used by whoever uses the connection; none keeps anything.
 * Errors    As db.h.
 */
#ifndef WAYBILL_OPERATOR_LOG_H
#define WAYBILL_OPERATOR_LOG_H

#include <waybill/base.h>
#include <waybill/filter.h>

#ifdef __cplusplus
extern "C" {
#endif

struct sqlite3;

#define OPERATOR_LOG_ROWS_MAX   100000
#define OPERATOR_LOG_WHO_MAX    200   /* bytes; what is longer is cut */
#define OPERATOR_LOG_TEXT_MAX   1024  /* bytes of command, target, reason each */
#define OPERATOR_LOG_DETAIL_MAX 65536 /* bytes */

/* One thing done by hand. Borrowed views. */
struct operator_log_entry {
    int64_t id;            /* given by the table; rises */
    int64_t at_wall_ns;    /* 0: now */
    struct wb_str who;     /* empty: operator_log_who() */
    struct wb_str command; /* "dlq retry" */
    struct wb_str target;  /* what it was done to: "p17", "12 letters where key = k7" */
    struct wb_str reason;  /* the operator's own words, where a command asks for them */
    struct wb_str detail;  /* what it was before, or other things worth knowing; any text */
};

/**
 * Write an entry inside the caller's open transaction; the first one makes the table. Texts longer
 * than their limit are cut at a whole character, and end with "...".
 * @return WB_MISUSE (no transaction is open), else as db.h.
 */
wb_err operator_log_add(struct sqlite3 *handle, const struct operator_log_entry *entry,
                        struct wb_why *why);

/**
 * Who runs this process: "alice (root 0) on host7" with WAYBILL_OPERATOR=alice, otherwise
 * "root (root 0) on host7". The variable is a claim; the account and the host are facts.
 */
void operator_log_who(char out[OPERATOR_LOG_WHO_MAX + 1]);

/* ---- reading --------------------------------------------------------------------------------- */

/* What a filter may ask of an entry: id, at, age, who, command, target, reason, detail. */
extern const struct filter_field operator_log_fields[];
extern const size_t operator_log_field_count;

struct operator_log_query {
    const struct filter *filter; /* of operator_log_fields; NULL: all */
    int64_t before_id;           /* only entries with a lower id; 0: from the newest on */
    size_t limit;                /* 0: 100 */
    int64_t now_wall_ns;         /* what ages are counted from */
};

/** Return false to stop. The entry's views are valid during the call. */
typedef bool (*operator_log_visit)(void *ctx, const struct operator_log_entry *entry);

/** Visit entries, the newest first. A file in which nothing was ever done by hand has none. */
wb_err operator_log_list(struct sqlite3 *handle, const struct operator_log_query *query,
                         operator_log_visit visit, void *ctx, struct wb_why *why);

#ifdef __cplusplus
}
#endif
#endif /* WAYBILL_OPERATOR_LOG_H */
