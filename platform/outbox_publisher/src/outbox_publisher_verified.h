/*
 * outbox_publisher_verified.h - how far a stream was read back, as the tables say it.
 *
 * A row is confirmed when it is not beyond `id`, has no exception, and no entry in outbox_late with
 * a sequence beyond `seq`: such a one was stored out of order, or was not found where it should be,
 * and is still to be read back.
 */
#ifndef OUTBOX_PUBLISHER_VERIFIED_H
#define OUTBOX_PUBLISHER_VERIFIED_H

#include "outbox_publisher_store.h"

/* Of outbox_cursor. */
struct outbox_publisher_verified {
    int64_t id;
    uint64_t seq;                   /* messages up to here were read back */
    uint8_t msg_id[MESSAGE_ID_MAX]; /* of the message there, as in the cursor */
    size_t msg_id_len;              /* 0: there is none */
    int64_t at_ms;                  /* what the stream took by then is confirmed */
};

struct outbox_publisher_verifier; /* its statements, on the connection of the store */

wb_err outbox_publisher_verifier_open(struct outbox_publisher_store *store,
                                      struct outbox_publisher_verifier **ret_verifier,
                                      struct wb_why *why);
/** Before the store. NULL does nothing. */
void outbox_publisher_verifier_close(struct outbox_publisher_verifier *verifier);

wb_err outbox_publisher_verified_read(struct outbox_publisher_verifier *verifier,
                                      const char *stream,
                                      struct outbox_publisher_verified *ret_verified,
                                      struct wb_why *why);

/** Called with the head of a row; false stops. excepted: it is not on the straight path. */
typedef bool (*outbox_publisher_verified_visit)(void *ctx, const struct outbox_row *row,
                                                bool excepted);

/** Rows in (after_id, last_id], by rising id, at most limit. */
wb_err outbox_publisher_verified_rows(struct outbox_publisher_verifier *verifier, int64_t after_id,
                                      int64_t last_id, size_t limit,
                                      outbox_publisher_verified_visit visit, void *ctx,
                                      struct wb_why *why);

/** The identity of a row; *ret_found false when there is no such row. */
wb_err outbox_publisher_verified_msg_id(struct outbox_publisher_verifier *verifier, int64_t id,
                                        uint8_t ret_msg_id[WB_ID_SIZE], bool *ret_found,
                                        struct wb_why *why);

/* A row of the table found in the stream, where it should be or not. */
struct outbox_publisher_found {
    int64_t id;
    uint64_t sequence;
};

/* What was found out. */
struct outbox_publisher_progress {
    const char *stream;
    int64_t holder;
    struct outbox_publisher_verified before, after;
    uint64_t first_seq; /* what should stand below it is gone by the stream's limits; 0: nothing */
    const struct outbox_publisher_found *found; /* between before.seq and after.seq; by rising id */
    size_t found_count;
    const int64_t *missed; /* rows between before.id and after.id that were not found, */
    size_t missed_count;
    uint64_t missed_by; /* and must stand before this sequence or at it */
    int64_t now_ms;
};

enum { OUTBOX_PUBLISHER_HOLES_MAX = 1000 }; /* in one transaction */

/**
 * Write it down in one transaction. A late row that should have stood up to after.seq and was not
 * found is a hole: it becomes an exception 'lost', and an incident tells of it.
 *
 * @param visit     called with each hole after the transaction.
 * @param ret_more  there are more holes: only they were written; call it again.
 * @return WB_CONFLICT: somebody else is the holder now, nothing was written.
 */
wb_err outbox_publisher_verified_write(struct outbox_publisher_verifier *verifier,
                                       const struct outbox_publisher_progress *progress,
                                       void (*visit)(void *ctx, int64_t id), void *ctx,
                                       bool *ret_more, struct wb_why *why);

#endif /* OUTBOX_PUBLISHER_VERIFIED_H */
