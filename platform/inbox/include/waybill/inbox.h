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

/* ---- positions ------------------------------------------------------------------------------- */

/** Inside the open transaction: everything of the stream up to this message is dealt with. */
wb_err inbox_advance(struct inbox *inbox, const struct message *msg,
                     const struct inbox_origin *origin, struct wb_why *why);

/** The last sequence dealt with; 0 when the stream is unknown or was made anew since. */
wb_err inbox_position(struct inbox *inbox, const char *stream, int64_t stream_created_wall_ns,
                      uint64_t *ret_sequence, struct wb_why *why);

/*
 * A place in a stream up to which everything was dealt with, as long as the stream holds the same
 * message there that it held then. A stream that lost its newest messages and was filled again
 * holds another one. Then an older point counts; they grow sparser with their distance.
 */
struct inbox_point {
    uint64_t sequence;
    uint64_t mark; /* of the message; 0: not known, any will do */
};

#define INBOX_POINTS_MAX 17

/**
 * The points of a stream, the highest first; none when there is no position. One that lies beyond
 * the position was reached before the stream went back.
 */
wb_err inbox_points(struct inbox *inbox, const char *stream, int64_t stream_created_wall_ns,
                    struct inbox_point ret_points[INBOX_POINTS_MAX], size_t *ret_count,
                    struct wb_why *why);

/** Is this, read from the stream at point->sequence, the message of the point? WB_NOMEM. */
wb_err inbox_point_holds(struct inbox *inbox, const struct inbox_point *point,
                         const struct message *msg, const struct inbox_origin *origin,
                         bool *ret_holds, struct wb_why *why);

/* ---- many events in one transaction ---------------------------------------------------------- */

/*
 * After inbox_batch_begin() each inbox_claim() that says WB_OK sets a savepoint and must be
 * followed, once the event is handled, by inbox_batch_keep() or inbox_batch_undo(). What is claimed
 * is written by inbox_batch_end(), before the COMMIT. After a ROLLBACK: inbox_batch_drop().
 */

/** WB_MISUSE: no transaction. */
wb_err inbox_batch_begin(struct inbox *inbox, struct wb_why *why);

/** The event is handled. WB_MISUSE: the transaction is not the one in which it was claimed. */
wb_err inbox_batch_keep(struct inbox *inbox, struct wb_why *why);

/** Take back what was done since the claim, and the claim. On failure roll back all. */
wb_err inbox_batch_undo(struct inbox *inbox, struct wb_why *why);

/** Write what was claimed. On failure roll back all. */
wb_err inbox_batch_end(struct inbox *inbox, struct wb_why *why);

/** Forget a batch that was rolled back; does nothing when none is open. */
void inbox_batch_drop(struct inbox *inbox);

/* ---- failures -------------------------------------------------------------------------------- */

/**
 * Count a failure of an event, in a transaction of its own, or in the open one; *ret_failures has
 * the sum. A claim that commits ends the count.
 */
wb_err inbox_fail(struct inbox *inbox, const struct message *msg, const struct inbox_origin *origin,
                  const char *reason, uint32_t *ret_failures, struct wb_why *why);

/**
 * Inside the open transaction: keep the whole event as a dead letter with its reason. From then on
 * it counts as handled. WB_FULL at a limit of the table: no letter goes to make room for another;
 * WB_MISUSE: no transaction.
 */
wb_err inbox_park(struct inbox *inbox, const struct message *msg, const struct inbox_origin *origin,
                  const char *reason, struct wb_why *why);

/**
 * In a batch, instead of handling the event just claimed: keep it as a dead letter without a
 * failure of its own. Follow it by inbox_batch_keep(). WB_FULL.
 */
wb_err inbox_set_aside(struct inbox *inbox, const struct message *msg,
                       const struct inbox_origin *origin, const char *reason, struct wb_why *why);

#define INBOX_LETTERS_MAX      100000
#define INBOX_LETTER_BYTES_MAX (UINT64_C(1) << 30) /* of headers and payloads */

/** Limits of the table dead_letter, over all consumers of the file; 0: those above. */
void inbox_letters_limit(struct inbox *inbox, uint64_t letters, uint64_t bytes);

/** Dead letters kept for this consumer. */
wb_err inbox_parked(struct inbox *inbox, uint64_t *ret_count, struct wb_why *why);

/** Number of the oldest dead letter of a key; 0: there is none, or the key is empty. */
wb_err inbox_key_parked(struct inbox *inbox, struct wb_str key, int64_t *ret_id,
                        struct wb_why *why);

/* ---- dead letters that are to be handled again ----------------------------------------------- */

/* A person puts a dead letter into state 'retry'; its consumer handles it, and removes it or parks
 * it again. It counts as handled all the while, so that the stream does not bring it twice. */
struct inbox_letter {
    int64_t id;
    struct message message;
    struct inbox_origin origin; /* without stream_created_wall_ns */
    uint32_t failures;          /* so far */
};

/**
 * The oldest letter to handle again whose time has come.
 * @param in_key_order  pass over those behind an older dead letter of their key.
 * @param ret_letter    NULL: there is none. Valid until the next call, or detach.
 * @return WB_INVALID: its headers cannot be read; inbox_letter_at_hand() says which one it is.
 */
wb_err inbox_letter_next(struct inbox *inbox, int64_t now_wall_ns, bool in_key_order,
                         const struct inbox_letter **ret_letter, struct wb_why *why);

/** Number of the letter that inbox_letter_next() found last; 0: none. */
int64_t inbox_letter_at_hand(const struct inbox *inbox);

/** When the next letter falls due that is not due now; 0: none will. */
wb_err inbox_letter_due(struct inbox *inbox, int64_t now_wall_ns, int64_t *ret_due_wall_ns,
                        struct wb_why *why);

/** Inside the transaction that handled it: remove it. WB_NOT_FOUND: it is not to be handled. */
wb_err inbox_letter_done(struct inbox *inbox, int64_t id, struct wb_why *why);

/** Count a failure and park it again. WB_NOT_FOUND. */
wb_err inbox_letter_failed(struct inbox *inbox, int64_t id, const char *reason, struct wb_why *why);

/** A number that is another one once some other connection has changed the database. */
wb_err inbox_changed(struct inbox *inbox, int64_t *ret_version, struct wb_why *why);

/* ---- events that end the process ------------------------------------------------------------- */

/*
 * An event whose handling kills the process would do so at each start. So starts are counted for
 * each stream until its position moves; when they are many, the event at hand is noted before it
 * is handled. What is found noted at a start is accused, and counted; only for the same one, time
 * after time, it rises.
 */

/* The count of a stream that has a position; stream is valid during the call. */
typedef bool (*inbox_start_visit)(void *ctx, struct wb_str stream, uint32_t starts);

/**
 * Count a start, inside the open transaction.
 * @param visit        called for each stream; false: out of memory.
 * @param ret_starts   since anything was committed, this one included: for streams without
 * position.
 * @param ret_crashes  how often the accused ended a process, one after another; 0: nothing is.
 */
wb_err inbox_start_count(struct inbox *inbox, inbox_start_visit visit, void *ctx,
                         uint32_t *ret_starts, uint32_t *ret_crashes, struct wb_why *why);

/** Something was handled: streams without a position begin anew. Joins an open transaction. */
wb_err inbox_start_clear(struct inbox *inbox, struct wb_why *why);

/** A clean end: no stream is to blame for the next start. Joins an open transaction. */
wb_err inbox_start_end(struct inbox *inbox, struct wb_why *why);

/** Note the event, or the dead letter, that is about to be handled. */
wb_err inbox_suspect(struct inbox *inbox, const struct message *msg,
                     const struct inbox_origin *origin, struct wb_why *why);
wb_err inbox_suspect_letter(struct inbox *inbox, int64_t id, struct wb_why *why);

/** It is over, and the process lives. Joins an open transaction. */
wb_err inbox_suspect_clear(struct inbox *inbox, struct wb_why *why);

/** Is it the one that inbox_start_count() found accused? */
bool inbox_is_accused(struct inbox *inbox, const struct message *msg,
                      const struct inbox_origin *origin);
bool inbox_is_accused_letter(struct inbox *inbox, int64_t id);

/* ---- looking into an inbox, and making it forget --------------------------------------------- */

struct inbox_stream_status {
    struct wb_str stream;
    uint64_t sequence;
    int64_t stream_created_wall_ns;
    uint64_t anchors; /* older positions kept to go back to */
    uint64_t starts;  /* of the consumer since the position was written; 0 or 1 in good times */
};

/* What one consumer has in a database. Views are valid during the call that hands them out. */
struct inbox_status {
    struct wb_str consumer;
    uint64_t handled;       /* events of outboxes it has handled */
    uint64_t pages;         /* rows of the table that say so */
    uint64_t foreign;       /* events from elsewhere that are remembered */
    uint64_t failing;       /* events whose handler failed, and that are tried again */
    uint64_t parked, retry; /* dead letters by state */
    uint64_t starts;        /* since anything was committed; 0 or 1 in good times */
    uint64_t crashes;       /* processes that the accused has ended, one after another */
    struct wb_str suspect;  /* the event noted before it is handled, as for inbox_handled(); or
                             * "dead letter 7"; empty: none */
    struct wb_str accused;
    const struct inbox_stream_status *streams;
    size_t stream_count; /* at most 4096 are told */
};

/** Return false to stop. */
typedef bool (*inbox_visit)(void *ctx, const struct inbox_status *status);

/** All consumers of a database, by name. WB_NOT_FOUND: it has no inbox; WB_UNSUPPORTED. */
wb_err inbox_list(struct sqlite3 *handle, inbox_visit visit, void *ctx, struct wb_why *why);

struct inbox_event_status {
    bool ours;    /* an event of an outbox: named by source and row */
    bool handled; /* or given up: see letter */
    uint32_t failures;
    int64_t letter;    /* number of its dead letter; 0: none */
    bool letter_retry; /* it is to be handled again */
    bool suspect;      /* noted before it is handled */
    uint32_t crashes;  /* accused of so many ends of the process; 0: not accused */
    char reason[512];  /* of the last failure, or of the dead letter; "" */
};

/**
 * What a consumer knows of an event.
 * @param event  "0123456789abcdef/42": waybill-source and waybill-row; or a msg_id.
 * @return WB_NOT_FOUND: the database has no inbox, or not of this consumer; WB_INVALID.
 */
wb_err inbox_handled(struct sqlite3 *handle, const char *consumer, struct wb_str event,
                     struct inbox_event_status *ret_status, struct wb_why *why);

/**
 * Inside the open transaction: forget that an event was handled, and its failures, so that it is
 * handled once more when the stream brings it again. Positions stay.
 * @return WB_NOT_FOUND: it was not handled, as far as is known; WB_CONFLICT: it is a dead letter,
 *         which is to be handled again or removed itself; WB_MISUSE: no transaction.
 */
wb_err inbox_forget(struct sqlite3 *handle, const char *consumer, struct wb_str event,
                    struct wb_why *why);

#ifdef __cplusplus
}
#endif
#endif /* WAYBILL_INBOX_H */
