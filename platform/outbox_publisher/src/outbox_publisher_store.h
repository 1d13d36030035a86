/* outbox_publisher_store.h - the database as a lane needs it: its cursor, exceptions, rows. */
#ifndef OUTBOX_PUBLISHER_STORE_H
#define OUTBOX_PUBLISHER_STORE_H

#include "outbox_publisher_exceptions.h"
#include "waybill/outbox_impl.h"

#include <waybill/db.h>

struct outbox_publisher_store;

/* The row of outbox_cursor. */
struct outbox_publisher_cursor {
    int64_t last_id;
    uint64_t last_seq;
    uint8_t last_msg_id[MESSAGE_ID_MAX]; /* our 16 bytes, or the text of a foreign id */
    size_t last_msg_id_len;
    int64_t stream_created;
    int64_t holder;
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

/** Become the newest holder of a stream's cursor, which is made if absent. */
wb_err outbox_publisher_store_take(struct outbox_publisher_store *store, const char *stream,
                                   struct outbox_publisher_cursor *ret_cursor, struct wb_why *why);

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

/** Called with a row; false stops. */
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

/** Called with an exception and the head of its row; false stops with WB_NOMEM. */
typedef bool (*outbox_publisher_visit_exception)(void *ctx, const struct outbox_row *row,
                                                 const struct outbox_publisher_exception *one);

wb_err outbox_publisher_store_exceptions(struct outbox_publisher_store *store,
                                         outbox_publisher_visit_exception visit, void *ctx,
                                         struct wb_why *why);

/** Has another connection committed anything since this was last asked? True at first. */
bool outbox_publisher_store_changed(struct outbox_publisher_store *store);

/** Highest row id, 0 for none; and when the first row behind after_id was written, 0 for none. */
wb_err outbox_publisher_store_measure(struct outbox_publisher_store *store, int64_t after_id,
                                      int64_t *ret_last_id, int64_t *ret_created_ms,
                                      struct wb_why *why);

#endif /* OUTBOX_PUBLISHER_STORE_H */
