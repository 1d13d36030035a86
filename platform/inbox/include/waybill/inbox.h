/*
 * waybill/inbox.h - makes handling exactly-once: what was handled is remembered in the transaction
 * that holds its effects.
 *
 * An event is known by the outbox that wrote it and its row (headers waybill-source, waybill-row),
 * never by its place in a stream, which is used again after a loss. Events from elsewhere go by
 * their msg_id, and are remembered until the stream is seven days further or 100 000 younger ones
 * have come; without one, by stream, sequence and time of storing. Positions say how far a stream
 * was read.
 *
 * A struct inbox belongs to one sqlite3 connection and one thread at a time.
 */
#ifndef WAYBILL_INBOX_H
#define WAYBILL_INBOX_H

#include <waybill/base.h>
#include <waybill/message.h>

#ifdef __cplusplus
extern "C" {
#endif

struct sqlite3;
struct inbox;

/** Attach to a connection for one consumer name; creates or migrates the tables when needed. */
wb_err inbox_attach(struct sqlite3 *handle, const char *consumer, struct inbox **ret_inbox,
                    struct wb_why *why);
void inbox_detach(struct inbox *inbox);

/* Where a delivered message came from. */
struct inbox_origin {
    struct wb_str stream;
    uint64_t sequence;
    int64_t stored_wall_ns;
    int64_t stream_created_wall_ns;
};

/**
 * Inside the open transaction: has this consumer handled the event? If not, remember it.
 * @return WB_OK: first time, go on. WB_EXISTS: handled before. WB_MISUSE: no transaction. Else an
 *         error of the database.
 */
wb_err inbox_claim(struct inbox *inbox, const struct message *msg,
                   const struct inbox_origin *origin, struct wb_why *why);

/** Inside the open transaction: everything of the stream up to origin->sequence is dealt with. */
wb_err inbox_advance(struct inbox *inbox, const struct inbox_origin *origin, struct wb_why *why);

/** The last sequence dealt with; 0 when the stream is unknown or was made anew since. */
wb_err inbox_position(struct inbox *inbox, const char *stream, int64_t stream_created_wall_ns,
                      uint64_t *ret_sequence, struct wb_why *why);

/* ---- failures -------------------------------------------------------------------------------- */

/**
 * Count a failure of an event, in a transaction of its own, or in the open one; *ret_failures has
 * the sum. A claim that commits ends the count.
 */
wb_err inbox_fail(struct inbox *inbox, const struct message *msg, const struct inbox_origin *origin,
                  const char *reason, uint32_t *ret_failures, struct wb_why *why);

/**
 * Inside the open transaction: keep the whole event as a dead letter with its reason. From then on
 * it counts as handled. WB_FULL when the table has 100 000 rows; WB_MISUSE: no transaction.
 */
wb_err inbox_park(struct inbox *inbox, const struct message *msg, const struct inbox_origin *origin,
                  const char *reason, struct wb_why *why);

/** Dead letters kept for this consumer. */
wb_err inbox_parked(struct inbox *inbox, uint64_t *ret_count, struct wb_why *why);

#ifdef __cplusplus
}
#endif
#endif /* WAYBILL_INBOX_H */
