/*
 * outbox_publisher_store.h - the database as a lane needs it: its cursor, exceptions, rows.
 *
 * Its connection fires no triggers: see outbox_revision in the tables.
 */
#ifndef OUTBOX_PUBLISHER_STORE_H
#define OUTBOX_PUBLISHER_STORE_H

#include "outbox_publisher_exceptions.h"
#include "waybill/outbox_impl.h"

#include <waybill/db.h>

struct outbox_publisher_store;

enum { OUTBOX_PUBLISHER_STARTS_MAX = 10, OUTBOX_PUBLISHER_CRASHES_MAX = 5 };

/* The row of outbox_cursor. */
struct outbox_publisher_cursor {
    int64_t last_id;
    uint64_t last_seq;
    uint8_t last_msg_id[MESSAGE_ID_MAX]; /* see outbox_publisher_identity() */
    size_t last_msg_id_len;
    int64_t stream_created;
    int64_t holder;
    int64_t repairing;   /* a repair was begun, of the stream created then; 0: none */
    int64_t starts;      /* in vain, up to OUTBOX_PUBLISHER_STARTS_MAX; see _suspect.c */
    uint64_t fenced_seq; /* below it one that was put out may still send; never written */
    int64_t suspect_id;  /* the row that is being sent by itself; 0: none */
};

/* The table outbox_source: by rising from_id. */
struct outbox_publisher_sources {
    struct outbox_publisher_source {
        int64_t from_id;
        char text[OUTBOX_SOURCE_TEXT];
    } * list; /* owned */
    size_t count;
};

/** Opens the database and makes the tables if absent. */
wb_err outbox_publisher_store_open(const char *path, struct outbox_publisher_store **ret_store,
                                   struct wb_why *why);
void outbox_publisher_store_close(struct outbox_publisher_store *store);
/** Its connection. */
struct db *outbox_publisher_store_db(struct outbox_publisher_store *store);

/** After an update of a cursor that must have met its row. WB_CONFLICT: it has another holder. */
wb_err outbox_publisher_still_holder(struct db *db, const char *stream, int64_t holder,
                                     struct wb_why *why);

/** Was the row stored behind younger ones? */
wb_err outbox_publisher_store_is_late(struct outbox_publisher_store *store, int64_t id,
                                      bool *ret_late, struct wb_why *why);

/**
 * Become the newest holder of a stream's cursor, which is made if absent. If a predecessor ended
 * while it sent a row by itself, that is counted against the row: it is tried again at once, the
 * next time a second later, doubling, and parked at the OUTBOX_PUBLISHER_CRASHES_MAXth time.
 *
 * @param ret_suspect  that row; 0: none.
 */
wb_err outbox_publisher_store_take(struct outbox_publisher_store *store, const char *stream,
                                   int64_t now_ms, struct outbox_publisher_cursor *ret_cursor,
                                   int64_t *ret_suspect, struct wb_why *why);

/** The row that will be sent by itself now. WB_CONFLICT: somebody else is the holder now. */
wb_err outbox_publisher_store_suspect(struct outbox_publisher_store *store, const char *stream,
                                      int64_t holder, int64_t id, struct wb_why *why);

/** Read the cursor again. */
wb_err outbox_publisher_store_cursor(struct outbox_publisher_store *store, const char *stream,
                                     struct outbox_publisher_cursor *ret_cursor,
                                     struct wb_why *why);

/**
 * Write cursor and dirty exceptions in one transaction. WB_CONFLICT: somebody else is the holder
 * now, nothing was written. Marks the exceptions as written.
 */
wb_err outbox_publisher_store_write(struct outbox_publisher_store *store, const char *stream,
                                    const struct outbox_publisher_cursor *cursor,
                                    struct outbox_publisher_exceptions *exceptions,
                                    struct wb_why *why);

wb_err outbox_publisher_store_sources(struct outbox_publisher_store *store,
                                      struct outbox_publisher_sources *sources, struct wb_why *why);

/** The source of a row; "" when there is none. */
const char *outbox_publisher_source_of(const struct outbox_publisher_sources *sources, int64_t id);

/** Called with a row; false stops. Its state is not OUTBOX_PENDING when the table has an exception
 * of it. */
typedef bool (*outbox_publisher_visit)(void *ctx, const struct outbox_row *row);

/** Rows beyond after_id, by rising id, at most limit; with payload. */
wb_err outbox_publisher_store_rows(struct outbox_publisher_store *store, int64_t after_id,
                                   size_t limit, outbox_publisher_visit visit, void *ctx,
                                   struct wb_why *why);

/** One row with payload; *ret_found false when there is none. */
wb_err outbox_publisher_store_row(struct outbox_publisher_store *store, int64_t id,
                                  outbox_publisher_visit visit, void *ctx, bool *ret_found,
                                  struct wb_why *why);

/** Rows in (after_id, last_id] without payload and headers. */
wb_err outbox_publisher_store_heads(struct outbox_publisher_store *store, int64_t after_id,
                                    int64_t last_id, outbox_publisher_visit visit, void *ctx,
                                    struct wb_why *why);

/** The msg_id of a row; *ret_found false when there is none. */
wb_err outbox_publisher_store_msg_id(struct outbox_publisher_store *store, int64_t id,
                                     uint8_t ret_msg_id[WB_ID_SIZE], bool *ret_found,
                                     struct wb_why *why);

/** Called with an exception and the head of its row; false stops. */
typedef bool (*outbox_publisher_visit_exception)(void *ctx, const struct outbox_row *row,
                                                 const struct outbox_publisher_exception *one);

/** Those in a state that the lane keeps in memory: retry, blocked, parked. WB_NOMEM when stopped.
 */
wb_err outbox_publisher_store_exceptions(struct outbox_publisher_store *store,
                                         outbox_publisher_visit_exception visit, void *ctx,
                                         struct wb_why *why);
/** Those of state lost, beyond after_id, by rising id: there may be very many. */
wb_err outbox_publisher_store_lost(struct outbox_publisher_store *store, int64_t after_id,
                                   outbox_publisher_visit_exception visit, void *ctx,
                                   struct wb_why *why);

/** Has anyone but a publisher changed an exception since this was last asked? True at first. */
bool outbox_publisher_store_revised(struct outbox_publisher_store *store);

/*
 * A row that is not of the straight path is claimed before it is sent: it becomes `lost` in the
 * table, in a transaction of its own. A person cancels it in one too, so whoever is first wins.
 */
struct outbox_publisher_claim {
    int64_t id;
    uint32_t attempts;
    bool known;   /* memory has it as an exception that may be `lost` already */
    bool claimed; /* out: send it */
};

/** WB_CONFLICT: somebody else is the holder. When it fails nothing is known of the claims. */
wb_err outbox_publisher_store_claim(struct outbox_publisher_store *store, const char *stream,
                                    int64_t holder, struct outbox_publisher_claim *claims,
                                    size_t count, struct wb_why *why);

typedef void (*outbox_publisher_visit_waiting)(void *ctx, int64_t next_ms, int64_t id);

/** Waiting rows of all streams, by next_at and id, behind the one given, at most limit. */
wb_err outbox_publisher_store_waiting(struct outbox_publisher_store *store, int64_t after_ms,
                                      int64_t after_id, size_t limit,
                                      outbox_publisher_visit_waiting visit, void *ctx,
                                      struct wb_why *why);

/** Highest row id, 0 for none; and when the first row behind after_id was written, 0 for none. */
wb_err outbox_publisher_store_measure(struct outbox_publisher_store *store, int64_t after_id,
                                      int64_t *ret_last_id, int64_t *ret_created_ms,
                                      struct wb_why *why);

#endif /* OUTBOX_PUBLISHER_STORE_H */
