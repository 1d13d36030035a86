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
    X(POSITION_GET, "SELECT sequence, mark FROM inbox_position"                                    \
                    " WHERE consumer = ?1 AND stream = ?2 AND created = ?3")                       \
    X(POSITION_PUT, "INSERT INTO inbox_position(consumer, stream, created, sequence, mark)"        \
                    " VALUES(?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE"                            \
                    " SET created = excluded.created, sequence = excluded.sequence,"               \
                    " mark = excluded.mark, starts = 0")                                           \
    X(ANCHORS, "SELECT sequence, mark FROM inbox_anchor"                                           \
               " WHERE consumer = ?1 AND stream = ?2 AND created = ?3 ORDER BY sequence DESC")     \
    X(ANCHOR_PUT, "INSERT OR REPLACE INTO inbox_anchor(consumer, stream, created, sequence, mark)" \
                  " VALUES(?1, ?2, ?3, ?4, ?5)")                                                   \
    X(ANCHOR_DROP, "DELETE FROM inbox_anchor"                                                      \
                   " WHERE consumer = ?1 AND stream = ?2 AND created = ?3 AND sequence = ?4")      \
    X(ANCHOR_DROP_OTHERS, "DELETE FROM inbox_anchor"                                               \
                          " WHERE consumer = ?1 AND stream = ?2 AND created <> ?3")                \
    X(START_COUNT, "INSERT INTO inbox_start(consumer, starts) VALUES(?1, 1) ON CONFLICT DO UPDATE" \
                   " SET starts = starts + 1, suspect = '',"                                       \
                   " accused = CASE suspect WHEN '' THEN accused ELSE suspect END,"                \
                   " crashes = CASE suspect WHEN '' THEN crashes WHEN accused THEN crashes + 1"    \
                   " ELSE 1 END RETURNING starts, accused, crashes")                               \
    X(START_STREAMS, "UPDATE inbox_position SET starts = starts + 1 WHERE consumer = ?1"           \
                     " RETURNING stream, starts")                                                  \
    X(START_CLEAR, "UPDATE inbox_start SET starts = 0 WHERE consumer = ?1")                        \
    X(START_CLEAR_STREAMS, "UPDATE inbox_position SET starts = 0"                                  \
                           " WHERE consumer = ?1 AND starts <> 0")                                 \
    X(SUSPECT_PUT, "UPDATE inbox_start SET suspect = ?2 WHERE consumer = ?1")                      \
    X(SUSPECT_CLEAR, "UPDATE inbox_start SET suspect = '',"                                        \
                     " crashes = CASE accused WHEN suspect THEN 0 ELSE crashes END,"               \
                     " accused = CASE accused WHEN suspect THEN '' ELSE accused END"               \
                     " WHERE consumer = ?1")                                                       \
    X(SAVEPOINT, "SAVEPOINT inbox_event")                                                          \
    X(RELEASE, "RELEASE inbox_event")                                                              \
    X(ROLLBACK_TO, "ROLLBACK TO inbox_event")                                                      \
    X(FOREIGN_DROP, "DELETE FROM inbox_foreign WHERE consumer = ?1 AND event = ?2")                \
    X(FAILURE_ANY, "SELECT 1 FROM inbox_failure WHERE consumer = ?1 LIMIT 1")                      \
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
    X(LETTER_TOTAL, "SELECT letters, bytes FROM dead_letter_total")                                \
    X(PARKED, "SELECT count(*) FROM dead_letter WHERE consumer = ?1")                              \
    X(KEY_PARKED,                                                                                  \
      "SELECT min(id) FROM dead_letter WHERE consumer = ?1 AND key = ?2 AND key <> ''")            \
    X(RETRY_NEXT, "SELECT id, subject, headers, msg_id, stream, sequence, stored_at, failures,"    \
                  " payload FROM dead_letter AS d INDEXED BY dead_letter_retry"                    \
                  " WHERE consumer = ?1 AND state = 'retry' AND ifnull(next_at, 0) <= ?2"          \
                  " AND (?3 = 0 OR key = '' OR NOT EXISTS(SELECT 1 FROM dead_letter AS o"          \
                  " WHERE o.consumer = ?1 AND o.key = d.key AND o.key <> '' AND o.id < d.id))"     \
                  " ORDER BY id LIMIT 1")                                                          \
    X(RETRY_DUE, "SELECT min(ifnull(next_at, 0)) FROM dead_letter INDEXED BY dead_letter_retry"    \
                 " WHERE consumer = ?1 AND state = 'retry' AND ifnull(next_at, 0) > ?2")           \
    X(RETRY_DONE, "DELETE FROM dead_letter WHERE consumer = ?1 AND id = ?2 AND state = 'retry'")   \
    X(RETRY_FAILED, "UPDATE dead_letter SET state = 'parked', next_at = NULL,"                     \
                    " failures = failures + 1, reason = ?3, fingerprint = ?4, parked_at = ?5"      \
                    " WHERE consumer = ?1 AND id = ?2 AND state = 'retry'")                        \
    X(FOREIGN_HAS, "SELECT 1 FROM inbox_foreign WHERE consumer = ?1 AND event = ?2")               \
    X(FAILURE_SHOW, "SELECT failures, reason FROM inbox_failure"                                   \
                    " WHERE consumer = ?1 AND event = ?2")                                         \
    X(LETTER_OF_ROW, "SELECT id, state, reason, failures FROM dead_letter"                         \
                     " WHERE consumer = ?1 AND source = ?2 AND row_id = ?3 LIMIT 1")               \
    X(LETTER_OF_ID, "SELECT id, state, reason, failures FROM dead_letter"                          \
                    " WHERE consumer = ?1 AND source = '' AND msg_id = ?2 LIMIT 1")                \
    X(START_SHOW, "SELECT suspect = ?2, CASE accused WHEN ?2 THEN crashes ELSE 0 END"              \
                  " FROM inbox_start WHERE consumer = ?1")                                         \
    X(CONSUMER_HAS, "SELECT EXISTS(SELECT 1 FROM inbox_position WHERE consumer = ?1)"              \
                    " OR EXISTS(SELECT 1 FROM inbox_page WHERE consumer = ?1)"                     \
                    " OR EXISTS(SELECT 1 FROM inbox_foreign WHERE consumer = ?1)"                  \
                    " OR EXISTS(SELECT 1 FROM inbox_start WHERE consumer = ?1)"                    \
                    " OR EXISTS(SELECT 1 FROM dead_letter WHERE consumer = ?1)")                   \
    X(DATA_VERSION, "PRAGMA data_version")

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

enum { INBOX_PAGE_ROWS = 2048, INBOX_PAGE_BYTES = INBOX_PAGE_ROWS / 8, INBOX_RECENT = 8 };

/* A row of inbox_page: a page of bits (full = 0), or a run of pages that are full. */
struct inbox_page {
    int64_t first;
    int64_t full;
    uint8_t bits[INBOX_PAGE_BYTES];
};

/* Many events in one transaction. */
struct inbox_batch {
    bool open;
    bool failures; /* the consumer has some: they end with what is kept */
    /* The page at hand, in memory until another is needed, or the end. */
    bool loaded, changed;
    uint8_t source[INBOX_SOURCE_SIZE];
    int64_t at;
    struct inbox_page page;
    /* The event claimed last, which may still be taken back. */
    bool claimed, ours;
    int64_t row;
};

/* Where the newest anchor of a stream stands; forgotten, it only costs one more. */
struct inbox_recent {
    uint64_t stream; /* hash of its name and incarnation; 0: unused */
    uint64_t sequence;
};

struct inbox {
    struct sqlite3 *handle; /* borrowed */
    char *consumer;
    struct sqlite3_stmt *statements[INBOX_STATEMENT_COUNT];
    uint64_t letters_max, letter_bytes_max;
    struct wb_buf text;    /* of the identity at hand */
    struct wb_buf claimed; /* of the event claimed last in a batch */
    struct wb_buf accused; /* of the event that has ended processes; "": none */
    struct inbox_batch batch;
    struct inbox_recent recent[INBOX_RECENT];
    struct inbox_letter letter; /* the one at hand */
    struct message_header letter_headers[MESSAGE_HEADERS_MAX];
    struct wb_buf letter_text; /* what the letter points to */
};

/** Create or migrate the tables. */
wb_err inbox_schema_prepare(struct sqlite3 *handle, struct wb_why *why);

/** There are tables, of our version. WB_NOT_FOUND, WB_UNSUPPORTED. */
wb_err inbox_schema_require(struct sqlite3 *handle, struct wb_why *why);

/** Find out by what an event is known. WB_NOMEM. */
wb_err inbox_identify(struct inbox *inbox, const struct message *msg,
                      const struct inbox_origin *origin, struct inbox_identity *ret_identity,
                      struct wb_why *why);

/** Remember an event; WB_EXISTS if it was known. */
wb_err inbox_remember(struct inbox *inbox, const struct inbox_identity *identity,
                      const struct inbox_origin *origin, struct wb_why *why);

/** As inbox_remember(), for an event of an outbox: one bit in a page; in a batch in memory only. */
wb_err inbox_page_set(struct inbox *inbox, const struct inbox_identity *identity,
                      struct wb_why *why);

/** Is the event known? */
wb_err inbox_page_has(struct inbox *inbox, const struct inbox_identity *identity, bool *ret_has,
                      struct wb_why *why);

/** Forget a known event; a run of full pages is cut. */
wb_err inbox_page_clear(struct inbox *inbox, const struct inbox_identity *identity,
                        struct wb_why *why);

/** Take back what was just set in a batch. */
void inbox_page_unset(struct inbox *inbox, int64_t row);

/** Write the page at hand, if it was changed. */
wb_err inbox_page_flush(struct inbox *inbox, struct wb_why *why);

/** In a batch: hold the claim just made, so that it can be taken back. */
wb_err inbox_batch_hold(struct inbox *inbox, const struct inbox_identity *identity,
                        struct wb_why *why);

/** Write a dead letter. WB_FULL. */
wb_err inbox_letter_write(struct inbox *inbox, const struct message *msg,
                          const struct inbox_identity *identity, const struct inbox_origin *origin,
                          const char *reason, int64_t failures, struct wb_why *why);

/** A statement, reset, with its consumer bound. */
struct sqlite3_stmt *inbox_use(struct inbox *inbox, enum inbox_statement which);

/** Step a statement that returns no rows, and reset it. */
wb_err inbox_run(struct inbox *inbox, struct sqlite3_stmt *stmt, const char *attempted,
                 struct wb_why *why);

/** Step to the first row: SQLITE_ROW and SQLITE_DONE are fine, the rest is an error, and reset. */
wb_err inbox_first(struct inbox *inbox, struct sqlite3_stmt *stmt, bool *ret_row,
                   const char *attempted, struct wb_why *why);

/** WB_MISUSE unless a transaction is open. */
wb_err inbox_require_transaction(struct inbox *inbox, const char *attempted, struct wb_why *why);

#endif /* INBOX_INTERNAL_H */
