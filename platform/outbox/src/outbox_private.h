/*
 * outbox_private.h - the write side's parts.
 *
 * outbox.c              attach, enqueue, wake
 * outbox_idempotency.c  a caller's own name for an event
 * outbox_limit.c        back-pressure
 * outbox_cancel.c       taking a row back
 */
#ifndef OUTBOX_PRIVATE_H
#define OUTBOX_PRIVATE_H

#include "waybill/outbox_impl.h"

/*
 * What is not published yet, as it was a moment ago. Rows are counted by their numbers; their bytes
 * by a window over the table that follows both ends, a bounded piece at a time.
 */
struct outbox_backlog {
    bool known;
    int64_t looked_mono_ns;
    unsigned since; /* events enqueued here since then */
    uint64_t since_bytes;

    int64_t floor_id, top_id;               /* pending are the rows in (floor, top] */
    int64_t oldest_ms;                      /* when the oldest of them was written; 0: none */
    int64_t counted_from_id, counted_to_id; /* the rows in (from, to] make up counted_bytes */
    uint64_t counted_bytes;
};

/* Everything is owned by whoever uses the connection. */
struct outbox {
    struct sqlite3 *handle; /* borrowed */
    struct sqlite3_stmt *insert;
    struct sqlite3_stmt *find, *remember;                      /* NULL until needed */
    struct sqlite3_stmt *ends, *sizes;                         /* NULL until needed */
    struct sqlite3_stmt *cancel_look, *cancel_new, *cancel_it; /* NULL until needed */
    struct wb_id_source *ids;
    struct wb_buf headers; /* kept between calls, so that the usual event allocates nothing */
    struct outbox_envelope envelope;
    struct outbox_wake_page *page; /* NULL: none; then the publisher notices by itself */
    int socket;                    /* -1: none */
    bool written;                  /* since the last wake */

    const struct outbox_class *classes; /* borrowed */
    size_t class_count;
    struct outbox_backlog backlog;
    int64_t warned_mono_ns; /* of a class that only warns; 0: never */
};

/** Prepare a statement at its first use; it is finalized by outbox_detach(). */
wb_err outbox_statement(struct outbox *self, const char *sql, struct sqlite3_stmt **stmt,
                        struct wb_why *why);

/** Both or neither, each of at most OUTBOX_IDEMPOTENCY_MAX bytes. WB_INVALID. */
wb_err outbox_idempotency_check(const struct outbox_event *event, struct wb_why *why);
/** The row that has the caller's name already: *ret_found, and then its receipt. */
wb_err outbox_idempotency_find(struct outbox *self, const struct outbox_event *event,
                               bool *ret_found, struct outbox_receipt *ret_receipt,
                               struct wb_why *why);
wb_err outbox_idempotency_remember(struct outbox *self, const struct outbox_event *event,
                                   int64_t row_id, struct wb_why *why);

/** Is there room for one more event of the class it belongs to? WB_FULL. */
wb_err outbox_limit_check(struct outbox *self, const struct outbox_event *event,
                          struct wb_why *why);
/** One more was written. */
void outbox_limit_written(struct outbox *self, const struct outbox_event *event);

#endif /* OUTBOX_PRIVATE_H */
