/*
 * waybill/subject.h - subjects, patterns, and the index that finds all matching subscriptions.
 *
 * A subject is 1 to 255 bytes of valid UTF-8: tokens joined by '.', none empty, without blanks,
 * control characters (0x00-0x20, 0x7f), '*' or '>'. A pattern may have '*' as a whole token
 * (exactly one token) and '>' as the whole last token (one or more). A leading wildcard never
 * matches a subject whose first token starts with '$', nor the reserved _INBOX and _R_.
 *
 * Threads   The functions are pure. A subject_index is not synchronised: one thread at a time.
 */
#ifndef WAYBILL_SUBJECT_H
#define WAYBILL_SUBJECT_H

#include <waybill/base.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SUBJECT_MAX 255 /* bytes; nats-server's own line limit is far above */

/** May this be published to? Not a pattern, not reserved ("$...", _INBOX, _R_). WB_INVALID. */
wb_err subject_check(struct wb_str subject, struct wb_why *why);

/** May this be subscribed to? A first token that is reserved is refused too. WB_INVALID. */
wb_err subject_pattern_check(struct wb_str pattern, struct wb_why *why);

/** 1 to 64 of [A-Za-z0-9_-]: names of streams and durables (facts: nats.c passes blanks on). */
wb_err subject_name_check(struct wb_str name, const char *what, struct wb_why *why);

/** Does a valid pattern match a valid subject? Bytes count, case too. */
bool subject_matches(struct wb_str pattern, struct wb_str subject);

/** Does the pattern contain a wildcard? */
bool subject_has_wildcard(struct wb_str pattern);

/** Is there a subject that both patterns match? */
bool subject_overlap(struct wb_str a, struct wb_str b);

/** Does a match every subject that b matches? */
bool subject_includes(struct wb_str a, struct wb_str b);

/**
 * The pattern that matches exactly what both match (it always is one pattern).
 * @param out  room for SUBJECT_MAX + 1; NUL-terminated on success.
 * @return false when they do not overlap, or the result is longer than SUBJECT_MAX.
 */
bool subject_intersect(struct wb_str a, struct wb_str b, char out[SUBJECT_MAX + 1]);

/* ---- the index ------------------------------------------------------------------------------- */

/*
 * Patterns -> values. The cost of a match depends on the depth of the subject and the number of
 * matches, not on the number of patterns stored.
 */
struct subject_index;

/** WB_NOMEM. */
wb_err subject_index_create(struct subject_index **ret_index);
void subject_index_destroy(struct subject_index *index);

/** Add a valid pattern with a value. The same pair may be added more than once. WB_NOMEM. */
wb_err subject_index_add(struct subject_index *index, struct wb_str pattern, void *value);

/** Remove one pair. WB_NOT_FOUND when it was never added. */
wb_err subject_index_remove(struct subject_index *index, struct wb_str pattern, void *value);

/** Called for each matching value, in no promised order. */
typedef void (*subject_index_visit)(void *ctx, void *value);

/** Visit the value of every pattern that matches; returns how many. Allocates nothing. */
size_t subject_index_match(const struct subject_index *index, struct wb_str subject,
                           subject_index_visit visit, void *ctx);

/** Number of pairs stored. */
size_t subject_index_size(const struct subject_index *index);

#ifdef __cplusplus
}
#endif
#endif /* WAYBILL_SUBJECT_H */
