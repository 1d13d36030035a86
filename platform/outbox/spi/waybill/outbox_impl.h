/*
 * waybill/outbox_impl.h - the tables behind the outbox, for those who publish from them.
 *
 * Users of outbox.h never see this file. What is stored, where the publisher listens, and how a row
 * becomes a message are said here once, so that writers and publishers cannot disagree.
 *
 * Units   Times in the tables are Unix milliseconds, easy to read and write by hand; outbox.h
 * speaks nanoseconds. outbox_cursor.stream_created is an identity, kept in the bus's nanoseconds.
 */
#ifndef WAYBILL_OUTBOX_IMPL_H
#define WAYBILL_OUTBOX_IMPL_H

#include <sys/socket.h>
#include <sys/un.h>

#include <waybill/outbox.h>

struct db;
struct sqlite3_stmt;

#define OUTBOX_KEY_MAX         255 /* bytes */
#define OUTBOX_TRACEPARENT_MAX 255 /* bytes; version 00 of W3C Trace Context has 55 */
#define OUTBOX_SOURCE_SIZE     8   /* 64 random bits */
#define OUTBOX_SOURCE_TEXT     17  /* their hex digits and a NUL */

/* Reserved for us in the headers of an event: whose row it is must not be a matter of opinion. Only
 * MESSAGE_HEADER_REPLAY_OF may stand in a row: outbox_replay.h writes it. */
#define OUTBOX_HEADER_PREFIX "waybill-"

/*
 * "1" on an event that comes behind younger ones of its outbox since the bus had lost it out of
 * their midst, or was found without it after a crash. It is the same event (source, row, first 32
 * digits of msg_id). One that has no room for a further header goes without.
 */
#define OUTBOX_HEADER_LATE OUTBOX_HEADER_PREFIX "late"

/** Create or migrate the tables, in the open transaction or one of its own. See db_migrate(). */
wb_err outbox_schema_prepare(struct sqlite3 *handle, struct wb_why *why);

/** WB_NOT_FOUND when the database has no outbox, WB_UNSUPPORTED when its tables are newer. */
wb_err outbox_schema_require(struct sqlite3 *handle, struct wb_why *why);

/*
 * What stands in outbox_exception.state: rows that left the straight path. A row without an entry
 * is published when the cursor of its stream has passed it, and pending otherwise.
 */
typedef enum outbox_exception_state {
    OUTBOX_EXCEPTION_LOST,    /* passed by the cursor, not in the stream: sent before all others */
    OUTBOX_EXCEPTION_WAITING, /* due_at lies ahead */
    OUTBOX_EXCEPTION_RETRY,   /* refused, again at next_at */
    OUTBOX_EXCEPTION_BLOCKED, /* an older row of its key is in retry, parked or blocked */
    OUTBOX_EXCEPTION_PARKED,  /* refused for good or too often */
    OUTBOX_EXCEPTION_EXPIRED,
    OUTBOX_EXCEPTION_CANCELLED
} outbox_exception_state;

/** "lost", "waiting", ... Static. */
const char *outbox_exception_state_name(outbox_exception_state state);
bool outbox_exception_state_parse(struct wb_str name, outbox_exception_state *ret_state);

/** Note an incident (its id is given), inside the open transaction; the oldest go. */
wb_err outbox_incident_add(struct db *db, const struct outbox_incident *incident,
                           struct wb_why *why);

/* ---- wake-ups -------------------------------------------------------------------------------- */

/*
 * A publisher that runs out of rows sleeps. Who commits a row then wakes it, in whatever process,
 * and pays nothing while it is awake: beside the database lies a page of shared memory, the file
 * path-wake (mode 0600), that tells who sleeps. Each sleeper has a slot of its own, and in it a
 * datagram socket that the kernel takes back when its owner dies.
 *
 * To sleep: outbox_wake_sleeping(), look at the table once more, wait for a datagram. To wake:
 * after COMMIT send one byte to each slot outbox_wake_take() names. The page may be missing, lost
 * or stale: then a publisher notices the row by the write-ahead log, or within a second.
 */
struct outbox_wake_page;

#define OUTBOX_WAKE_SLOTS 64

/** Made when absent, always beside path. WB_IO, WB_DISK_FULL, WB_NOMEM. */
wb_err outbox_wake_open(const char *path, struct outbox_wake_page **ret_page, struct wb_why *why);
/** NULL does nothing. */
void outbox_wake_close(struct outbox_wake_page *page);

/** From now on the next writer sends a datagram to this slot. */
void outbox_wake_sleeping(struct outbox_wake_page *page, unsigned slot);
/** Nobody needs to any more. */
void outbox_wake_awake(struct outbox_wake_page *page, unsigned slot);
/** The slots to wake, as bits; the caller is the one to do it. */
uint64_t outbox_wake_take(struct outbox_wake_page *page);

/**
 * Where the sleeper in a slot listens: an abstract datagram socket, named by the device and inode
 * of the database so that every process finds it. Who has bound it owns the slot. WB_IO when path
 * cannot be looked at.
 */
wb_err outbox_wake_address(const char *path, unsigned slot, struct sockaddr_un *ret_address,
                           socklen_t *ret_length, struct wb_why *why);

/* ---- rows ------------------------------------------------------------------------------------ */

/* The columns of outbox in the order outbox_row_read() expects them, of the table alias o. */
#define OUTBOX_ROW_COLUMNS                                                                         \
    "o.id, o.stream, o.key, o.subject, o.headers, o.msg_id, o.due_at, o.expires_at, o.created, "   \
    "o.traceparent, o.payload"
#define OUTBOX_ROW_COLUMN_COUNT 11

/** Views of the row a statement stands on; state, attempts, next_wall_ns and error are left 0. */
void outbox_row_read(struct sqlite3_stmt *stmt, struct outbox_row *ret_row);

/* A message made of a row: what the views of `message` point to, besides the row itself. */
struct outbox_envelope {
    struct message message;
    struct message_header headers[MESSAGE_HEADERS_MAX];
    char source[OUTBOX_SOURCE_TEXT];
    char row[21];
    char msg_id[MESSAGE_ID_MAX + 1];
    char key[3 * OUTBOX_KEY_MAX + 1];
};

/**
 * Address a row: headers of ours first, then those given. Checks all that does not depend on a
 * server. The envelope borrows the row and the headers' text.
 *
 * @param headers  the event's own; message_headers_parse() makes them from the column.
 * @return WB_INVALID, WB_TOO_BIG (more than max_payload).
 */
wb_err outbox_envelope_make(const struct outbox_row *row, const char source[OUTBOX_SOURCE_TEXT],
                            const struct message_header *headers, size_t header_count,
                            size_t max_payload, struct outbox_envelope *ret_envelope,
                            struct wb_why *why);

#endif /* WAYBILL_OUTBOX_IMPL_H */
