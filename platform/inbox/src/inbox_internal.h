/* inbox_internal.h - what the files of inbox share. */
#ifndef INBOX_INTERNAL_H
#define INBOX_INTERNAL_H

#include <sqlite3.h>

#include <waybill/inbox.h>

/* The statements of an inbox, prepared once. ?1 is always the consumer. */
#define INBOX_STATEMENTS(X)                                                                        \
    X(PAGE_GET, "SELECT page, full, bits FROM inbox_page WHERE consumer = ?1 AND source = ?2"      \
                " AND page <= ?3 ORDER BY page DESC LIMIT 1")                                      \
    X(PAGE_PUT, "INSERT INTO inbox_page(consumer, source, page, full, bits)"                       \
                " VALUES(?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE"                                \
                " SET full = excluded.full, bits = excluded.bits")                                 \
    X(PAGE_DROP, "DELETE FROM inbox_page WHERE consumer = ?1 AND source = ?2 AND page = ?3")       \
    X(FOREIGN_ADD, "INSERT INTO inbox_foreign(consumer, event, number, stored_at)"                 \
                   " VALUES(?1, ?2, 1 + coalesce((SELECT number FROM inbox_foreign"                \
                   " WHERE consumer = ?1 ORDER BY number DESC LIMIT 1), 0), ?3)"                   \
                   " ON CONFLICT DO NOTHING RETURNING number")                                     \
    X(FOREIGN_PRUNE, "DELETE FROM inbox_foreign INDEXED BY inbox_foreign_number"                   \
                     " WHERE consumer = ?1 AND number IN"                                          \
                     " (SELECT number FROM inbox_foreign WHERE consumer = ?1"                      \
                     " ORDER BY number LIMIT 8) AND (number <= ?2 OR stored_at < ?3)")             \
    X(POSITION_GET, "SELECT sequence FROM inbox_position"                                          \
                    " WHERE consumer = ?1 AND stream = ?2 AND created = ?3")                       \
    X(POSITION_PUT, "INSERT INTO inbox_position(consumer, stream, created, sequence)"              \
                    " VALUES(?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE"                                \
                    " SET created = excluded.created, sequence = excluded.sequence")               \
    X(FAILURE_ADD, "INSERT INTO inbox_failure(consumer, event, failures, reason)"                  \
                   " VALUES(?1, ?2, 1, ?3) ON CONFLICT DO UPDATE"                                  \
                   " SET failures = failures + 1, reason = excluded.reason RETURNING failures")    \
    X(FAILURE_GET, "SELECT failures FROM inbox_failure WHERE consumer = ?1 AND event = ?2")        \
    X(FAILURE_DROP, "DELETE FROM inbox_failure WHERE consumer = ?1 AND event = ?2")                \
    X(FAILURE_PRUNE, "DELETE FROM inbox_failure WHERE consumer = ?1 AND event ="                   \
                     " (SELECT min(event) FROM inbox_failure WHERE consumer = ?1 AND event <> ?2)" \
                     " AND (SELECT count(*) FROM inbox_failure WHERE consumer = ?1) > ?3")         \
    X(PARK, "INSERT INTO dead_letter(consumer, subject, headers, msg_id, stream, sequence,"        \
            " stored_at, reason, failures, parked_at, payload, key, source, row_id, fingerprint)"  \
            " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)")           \
    X(PARKED_ALL, "SELECT count(*) FROM dead_letter")                                              \
    X(PARKED, "SELECT count(*) FROM dead_letter WHERE consumer = ?1")

enum inbox_statement {
#define X(name, sql) INBOX_##name,
    INBOX_STATEMENTS(X)
#undef X
        INBOX_STATEMENT_COUNT
};

enum { INBOX_SOURCE_SIZE = 8 };

/* By what an event is known. */
struct inbox_identity {
    bool ours; /* written by an outbox: source and row are set */
    uint8_t source[INBOX_SOURCE_SIZE];
    int64_t row;        /* from 1 */
    struct wb_str text; /* the same for both kinds, unique; lives in the inbox until the next one */
};

struct inbox {
    struct sqlite3 *handle; /* borrowed */
    char *consumer;
    struct sqlite3_stmt *statements[INBOX_STATEMENT_COUNT];
    struct wb_buf text; /* of the identity at hand */
};

/** Create or migrate the tables. */
wb_err inbox_schema_prepare(struct sqlite3 *handle, struct wb_why *why);

/** Find out by what an event is known. WB_NOMEM. */
wb_err inbox_identify(struct inbox *inbox, const struct message *msg,
                      const struct inbox_origin *origin, struct inbox_identity *ret_identity,
                      struct wb_why *why);

/** Remember an event; WB_EXISTS if it was known. */
wb_err inbox_remember(struct inbox *inbox, const struct inbox_identity *identity,
                      const struct inbox_origin *origin, struct wb_why *why);

/** As inbox_remember(), for an event of an outbox: one bit in a page. */
wb_err inbox_page_set(struct inbox *inbox, const struct inbox_identity *identity,
                      struct wb_why *why);

/** A statement, reset, with its consumer bound. */
struct sqlite3_stmt *inbox_use(struct inbox *inbox, enum inbox_statement which);

/** Step a statement that returns no rows, and reset it. */
wb_err inbox_run(struct inbox *inbox, struct sqlite3_stmt *stmt, const char *attempted,
                 struct wb_why *why);

/** Step to the first row: SQLITE_ROW and SQLITE_DONE are fine, the rest is an error, and reset. */
wb_err inbox_first(struct inbox *inbox, struct sqlite3_stmt *stmt, bool *ret_row,
                   const char *attempted, struct wb_why *why);

/** Bind a view; an empty one as '', never as NULL. */
void inbox_bind_text(struct sqlite3_stmt *stmt, int at, struct wb_str text);

/** WB_MISUSE unless a transaction is open. */
wb_err inbox_require_transaction(struct inbox *inbox, const char *attempted, struct wb_why *why);

#endif /* INBOX_INTERNAL_H */
