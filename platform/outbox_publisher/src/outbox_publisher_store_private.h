/* outbox_publisher_store_private.h - what the files of the store share. */
#ifndef OUTBOX_PUBLISHER_STORE_PRIVATE_H
#define OUTBOX_PUBLISHER_STORE_PRIVATE_H

#include <sqlite3.h>

#include "outbox_publisher_store.h"

#define EXCEPTIONS                                                                                 \
    "SELECT e.id, e.state, e.attempts, e.next_at, e.resent, ifnull(o.stream, ''),"                 \
    " ifnull(o.key, ''), coalesce(x.subject, o.subject, ''), e.crashes FROM outbox_exception e"    \
    " LEFT JOIN outbox o ON o.id = e.id LEFT JOIN outbox_edit x ON x.id = e.id "

/*
 * The statements of a lane, prepared once. A row that a person has mended is sent as outbox_edit
 * has it; such a row always has an exception, so only those that go by exceptions look there.
 */
#define STATEMENTS(X)                                                                              \
    X(cursor_make, "INSERT INTO outbox_cursor(stream) VALUES(?1) ON CONFLICT DO NOTHING")          \
    X(cursor_take, "UPDATE outbox_cursor SET holder = holder + 1, starts = min(starts + 1, ?2)"    \
                   " WHERE stream = ?1")                                                           \
    X(cursor_read,                                                                                 \
      "SELECT last_id, last_seq, last_msg_id, stream_created, holder, repairing,"                  \
      " starts, ifnull(suspect_id, 0), fenced_seq FROM outbox_cursor WHERE stream = ?1")           \
    X(suspect_set, "UPDATE outbox_cursor SET suspect_id = nullif(?3, 0)"                           \
                   " WHERE stream = ?1 AND holder = ?2")                                           \
    X(suspect_count, "INSERT INTO outbox_exception(id, state, crashes, next_at, error)"            \
                     " SELECT id, 'retry', 1, ?2, ?3 FROM outbox WHERE id = ?1"                    \
                     " ON CONFLICT(id) DO UPDATE SET crashes = crashes + 1,"                       \
                     " state = CASE WHEN crashes + 1 < ?4 THEN 'retry' ELSE 'parked' END,"         \
                     " next_at = CASE WHEN crashes + 1 < ?4 THEN ?2 + (500 << crashes) END,"       \
                     " error = excluded.error"                                                     \
                     " WHERE state NOT IN ('parked', 'expired', 'cancelled')")                     \
    X(cursor_write,                                                                                \
      "UPDATE outbox_cursor SET last_id = ?3, last_seq = ?4, last_msg_id = ?5,"                    \
      " stream_created = ?6, repairing = ?7, starts = ?8, suspect_id = nullif(?9, 0)"              \
      " WHERE stream = ?1 AND holder = ?2")                                                        \
    X(exception_write, "INSERT INTO outbox_exception(id, state, attempts, next_at, error, resent)" \
                       " VALUES(?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT(id) DO UPDATE SET"             \
                       " state = excluded.state, attempts = excluded.attempts,"                    \
                       " next_at = excluded.next_at, error = excluded.error,"                      \
                       " resent = excluded.resent"                                                 \
                       " WHERE state <> 'cancelled'")                                              \
    X(exception_delete, "DELETE FROM outbox_exception WHERE id = ?1")                              \
    X(is_late, "SELECT 1 FROM outbox_late WHERE row_id = ?1")                                      \
    X(late_write, "INSERT OR REPLACE INTO outbox_late(row_id, stream, sequence)"                   \
                  " VALUES(?1, ?2, ?3)")                                                           \
    X(late_trim, "DELETE FROM outbox_late WHERE row_id < (SELECT min(id) FROM outbox)")            \
    X(holder, "SELECT last_id FROM outbox_cursor WHERE stream = ?1 AND holder = ?2")               \
    X(claim, "UPDATE outbox_exception SET state = 'lost', next_at = NULL, attempts = ?2"           \
             " WHERE id = ?1 AND (state IN ('waiting', 'retry', 'blocked')"                        \
             " OR ?3 AND state = 'lost')")                                                         \
    X(claim_new, "INSERT INTO outbox_exception(id, state, attempts) VALUES(?1, 'lost', ?2)"        \
                 " ON CONFLICT DO NOTHING")                                                        \
    X(waiting, "SELECT next_at, id FROM outbox_exception WHERE state = 'waiting'"                  \
               " AND (next_at, id) > (?1, ?2) ORDER BY next_at, id LIMIT ?3")                      \
    X(revision, "SELECT exceptions FROM outbox_revision")                                          \
    X(exceptions, EXCEPTIONS "WHERE e.state IN ('retry', 'blocked', 'parked') ORDER BY e.id")      \
    X(lost, EXCEPTIONS "WHERE e.state = 'lost' AND e.id > ?1 ORDER BY e.id")                       \
    X(sources, "SELECT from_id, source FROM outbox_source ORDER BY from_id")                       \
    X(rows, "SELECT " OUTBOX_ROW_COLUMNS ", e.id IS NOT NULL FROM outbox o"                        \
            " LEFT JOIN outbox_exception e ON e.id = o.id WHERE o.id > ?1 ORDER BY o.id LIMIT ?2") \
    X(row, "SELECT " OUTBOX_ROW_COLUMNS ", 0 FROM (SELECT r.id, r.stream, r.key,"                  \
           " ifnull(x.subject, r.subject) AS subject, ifnull(x.headers, r.headers) AS headers,"    \
           " r.msg_id, r.due_at, r.expires_at, r.created, r.traceparent,"                          \
           " ifnull(x.payload, r.payload) AS payload"                                              \
           " FROM outbox r LEFT JOIN outbox_edit x ON x.id = r.id WHERE r.id = ?1) o")             \
    X(heads, "SELECT o.id, o.stream, o.key, o.subject, '', o.msg_id, o.due_at, o.expires_at,"      \
             " o.created, '', '', e.id IS NOT NULL FROM outbox o LEFT JOIN outbox_exception e"     \
             " ON e.id = o.id WHERE o.id > ?1 AND o.id <= ?2 ORDER BY o.id")                       \
    X(msg_id, "SELECT msg_id FROM outbox WHERE id = ?1")                                           \
    X(measure, "SELECT ifnull((SELECT max(id) FROM outbox), 0),"                                   \
               " ifnull((SELECT created FROM outbox WHERE id > ?1 ORDER BY id LIMIT 1), 0)")

struct outbox_publisher_store {
    struct db *db;
    int64_t seen_revision; /* of the exceptions, by others' changes; 0: not asked yet */
#define X(name, sql) struct sqlite3_stmt *name;
    STATEMENTS(X)
#undef X
};

#endif /* OUTBOX_PUBLISHER_STORE_PRIVATE_H */
