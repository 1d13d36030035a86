/* dead_letter_internal.h - what the files of dead_letter share. */
#ifndef DEAD_LETTER_INTERNAL_H
#define DEAD_LETTER_INTERNAL_H

#include "waybill/dead_letter.h"

struct sqlite3_stmt;

/** Get and set values as a filter sees them: struct dead_letter_seen is its context. */
struct dead_letter_seen {
    const struct dead_letter *letter;
    int64_t now_wall_ns;
};
bool dead_letter_get(void *ctx, size_t field, struct filter_value *ret_value);

/** Does the filter look at what is costly to read? */
bool dead_letter_needs_payload(const struct filter *filter);

/** Which kinds the file has tables for. WB_NOT_FOUND: neither; WB_UNSUPPORTED. */
wb_err dead_letter_tables(struct db *db, bool *ret_publisher, bool *ret_consumer,
                          struct wb_why *why);

/** As dead_letter_list(), without a limit and without hiding anything. */
wb_err dead_letter_walk(struct db *db, const struct dead_letter_query *query,
                        dead_letter_visit visit, void *ctx, struct wb_why *why);

/** Wake the publisher of the file, if one listens. */
void dead_letter_wake(struct db *db);

/** The values of marked fields that are "***" already: somebody edits what was hidden from him. */
wb_err dead_letter_redaction_masked(struct dead_letter_redaction *redaction,
                                    struct wb_bytes payload, bool *ret_masked, struct wb_why *why);

#endif /* DEAD_LETTER_INTERNAL_H */
