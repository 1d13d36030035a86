#include "outbox_publisher_verified.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <waybill/db.h>

#define STATEMENTS(X)                                                                              \
    X(read, "SELECT verified_id, verified_seq, verified_msg_id, verified_at FROM outbox_cursor"    \
            " WHERE stream = ?1")                                                                  \
    X(rows, "SELECT o.id, o.stream, o.key, o.subject, '', o.msg_id, NULL, NULL, 0, '', x'',"       \
            " EXISTS(SELECT 1 FROM outbox_exception e WHERE e.id = o.id)"                          \
            " FROM outbox o WHERE o.id > ?1 AND o.id <= ?2 ORDER BY o.id LIMIT ?3")                \
    X(msg_id, "SELECT msg_id FROM outbox WHERE id = ?1")                                           \
    X(write, "UPDATE outbox_cursor SET verified_id = ?3, verified_seq = ?4, verified_msg_id = ?5," \
             " verified_at = ?6 WHERE stream = ?1 AND holder = ?2")                                \
    X(found, "UPDATE outbox_late SET sequence = ?3 WHERE row_id = ?1 AND stream = ?2"              \
             " AND sequence <> ?3")                                                                \
    X(missed, "INSERT INTO outbox_late(row_id, stream, sequence) VALUES(?1, ?2, ?3)"               \
              " ON CONFLICT DO UPDATE SET sequence = excluded.sequence, stream = excluded.stream"  \
              " WHERE outbox_late.sequence <= ?4")                                                 \
    X(overdue, "SELECT l.row_id FROM outbox_late l JOIN outbox o ON o.id = l.row_id"               \
               " WHERE l.stream = ?1 AND l.sequence > ?2 AND l.sequence <= ?3"                     \
               " AND l.sequence >= ?4 AND l.row_id <= ?5 AND NOT EXISTS"                           \
               " (SELECT 1 FROM outbox_exception e WHERE e.id = l.row_id) ORDER BY l.row_id")      \
    X(lost, "INSERT INTO outbox_exception(id, state, attempts, next_at, error, resent)"            \
            " VALUES(?1, 'lost', 0, 0, 'the stream lost it', 1) ON CONFLICT DO NOTHING")

struct outbox_publisher_verifier {
    struct db *db; /* the store's */
#define X(name, sql) struct sqlite3_stmt *name;
    STATEMENTS(X)
#undef X
    int64_t holes[OUTBOX_PUBLISHER_HOLES_MAX];
    size_t hole_count;
};

wb_err outbox_publisher_verifier_open(struct outbox_publisher_store *store,
                                      struct outbox_publisher_verifier **ret_verifier,
                                      struct wb_why *why)
{
    struct outbox_publisher_verifier *self = calloc(1, sizeof(*self));
    wb_err err = WB_OK;

    if (self == NULL)
        return wb_fail(why, WB_NOMEM, "audit of a stream: out of memory");
    self->db = outbox_publisher_store_db(store);
#define X(name, sql)                                                                               \
    if (err == WB_OK)                                                                              \
        err = db_prepare(self->db, sql, &self->name, why);
    STATEMENTS(X)
#undef X
    if (err != WB_OK) {
        outbox_publisher_verifier_close(self);
        return err;
    }
    *ret_verifier = self;
    return WB_OK;
}

void outbox_publisher_verifier_close(struct outbox_publisher_verifier *verifier)
{
    if (verifier == NULL)
        return;
#define X(name, sql) (void)sqlite3_finalize(verifier->name);
    STATEMENTS(X)
#undef X
    free(verifier);
}

/* ---- running statements ---------------------------------------------------------------------- */

static wb_err run(struct sqlite3_stmt *stmt, struct wb_why *why)
{
    return db_statement_run(stmt, "note how far a stream was read back", why);
}

/* ---- reading --------------------------------------------------------------------------------- */

wb_err outbox_publisher_verified_read(struct outbox_publisher_verifier *verifier,
                                      const char *stream,
                                      struct outbox_publisher_verified *ret_verified,
                                      struct wb_why *why)
{
    struct sqlite3_stmt *stmt = verifier->read;

    db_bind_text(stmt, 1, wb_str(stream));
    int rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW) {
        size_t len = (size_t)sqlite3_column_bytes(stmt, 2);
        *ret_verified =
            (struct outbox_publisher_verified){.id = sqlite3_column_int64(stmt, 0),
                                               .seq = (uint64_t)sqlite3_column_int64(stmt, 1),
                                               .msg_id_len = len <= MESSAGE_ID_MAX ? len : 0,
                                               .at_ms = sqlite3_column_int64(stmt, 3)};
        if (ret_verified->msg_id_len > 0)
            memcpy(ret_verified->msg_id, sqlite3_column_blob(stmt, 2), len);
    }
    return db_statement_end(stmt, rc, "read how far a stream was read back", why);
}

wb_err outbox_publisher_verified_rows(struct outbox_publisher_verifier *verifier, int64_t after_id,
                                      int64_t last_id, size_t limit,
                                      outbox_publisher_verified_visit visit, void *ctx,
                                      struct wb_why *why)
{
    struct sqlite3_stmt *stmt = verifier->rows;
    struct outbox_row row;
    int rc = SQLITE_DONE;

    (void)sqlite3_bind_int64(stmt, 1, after_id);
    (void)sqlite3_bind_int64(stmt, 2, last_id);
    (void)sqlite3_bind_int64(stmt, 3, (int64_t)limit);
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        outbox_row_read(stmt, &row);
        if (!visit(ctx, &row, sqlite3_column_int(stmt, OUTBOX_ROW_COLUMN_COUNT) != 0))
            break;
    }
    return db_statement_end(stmt, rc, "compare the rows with the stream", why);
}

wb_err outbox_publisher_verified_msg_id(struct outbox_publisher_verifier *verifier, int64_t id,
                                        uint8_t ret_msg_id[WB_ID_SIZE], bool *ret_found,
                                        struct wb_why *why)
{
    struct sqlite3_stmt *stmt = verifier->msg_id;

    (void)sqlite3_bind_int64(stmt, 1, id);
    int rc = sqlite3_step(stmt);
    *ret_found = rc == SQLITE_ROW && sqlite3_column_bytes(stmt, 0) == WB_ID_SIZE;
    if (*ret_found)
        memcpy(ret_msg_id, sqlite3_column_blob(stmt, 0), WB_ID_SIZE);
    return db_statement_end(stmt, rc, "read the identity of a row", why);
}

/* ---- writing --------------------------------------------------------------------------------- */

static wb_err cursor_write(struct outbox_publisher_verifier *self,
                           const struct outbox_publisher_progress *p,
                           const struct outbox_publisher_verified *verified, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = self->write;

    db_bind_text(stmt, 1, wb_str(p->stream));
    (void)sqlite3_bind_int64(stmt, 2, p->holder);
    (void)sqlite3_bind_int64(stmt, 3, verified->id);
    (void)sqlite3_bind_int64(stmt, 4, (int64_t)verified->seq);
    (void)sqlite3_bind_blob(stmt, 5, verified->msg_id, (int)verified->msg_id_len, SQLITE_STATIC);
    (void)sqlite3_bind_int64(stmt, 6, verified->at_ms);
    wb_err err = run(stmt, why);
    return err == WB_OK ? outbox_publisher_still_holder(self->db, p->stream, p->holder, why) : err;
}

/* Rows that were passed before may be late ones: now it is known where they are. */
static wb_err found_write(struct outbox_publisher_verifier *self,
                          const struct outbox_publisher_progress *p, struct wb_why *why)
{
    wb_err err = WB_OK;

    for (size_t i = 0; err == WB_OK && i < p->found_count && p->found[i].id <= p->before.id; i++) {
        (void)sqlite3_bind_int64(self->found, 1, p->found[i].id);
        db_bind_text(self->found, 2, wb_str(p->stream));
        (void)sqlite3_bind_int64(self->found, 3, (int64_t)p->found[i].sequence);
        err = run(self->found, why);
    }
    return err;
}

static wb_err missed_write(struct outbox_publisher_verifier *self,
                           const struct outbox_publisher_progress *p, struct wb_why *why)
{
    wb_err err = WB_OK;

    for (size_t i = 0; err == WB_OK && i < p->missed_count; i++) {
        (void)sqlite3_bind_int64(self->missed, 1, p->missed[i]);
        db_bind_text(self->missed, 2, wb_str(p->stream));
        (void)sqlite3_bind_int64(self->missed, 3, (int64_t)p->missed_by);
        (void)sqlite3_bind_int64(self->missed, 4, (int64_t)p->before.seq);
        err = run(self->missed, why);
    }
    return err;
}

static bool is_found(const struct outbox_publisher_progress *p, int64_t id)
{
    size_t low = 0, high = p->found_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (p->found[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < p->found_count && p->found[low].id == id;
}

/* Late rows that should have come by now. */
static wb_err holes_find(struct outbox_publisher_verifier *self,
                         const struct outbox_publisher_progress *p, bool *ret_more,
                         struct wb_why *why)
{
    struct sqlite3_stmt *stmt = self->overdue;
    int rc;

    db_bind_text(stmt, 1, wb_str(p->stream));
    (void)sqlite3_bind_int64(stmt, 2, (int64_t)p->before.seq);
    (void)sqlite3_bind_int64(stmt, 3, (int64_t)p->after.seq);
    (void)sqlite3_bind_int64(stmt, 4, (int64_t)p->first_seq);
    (void)sqlite3_bind_int64(stmt, 5, p->after.id);
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        int64_t id = sqlite3_column_int64(stmt, 0);
        if (is_found(p, id))
            continue;
        if (self->hole_count == OUTBOX_PUBLISHER_HOLES_MAX) {
            *ret_more = true;
            break;
        }
        self->holes[self->hole_count++] = id;
    }
    return db_statement_end(stmt, rc, "look for late rows that did not come", why);
}

static wb_err holes_write(struct outbox_publisher_verifier *self,
                          const struct outbox_publisher_progress *p, struct wb_why *why)
{
    char detail[160];
    wb_err err = WB_OK;

    for (size_t i = 0; err == WB_OK && i < self->hole_count; i++) {
        (void)sqlite3_bind_int64(self->lost, 1, self->holes[i]);
        err = run(self->lost, why);
    }
    if (err != WB_OK || self->hole_count == 0)
        return err;
    (void)snprintf(detail, sizeof(detail),
                   "read back up to sequence %llu, the stream lacks rows %lld to %lld; they are "
                   "sent again",
                   (unsigned long long)p->after.seq, (long long)self->holes[0],
                   (long long)self->holes[self->hole_count - 1]);
    const struct outbox_incident incident = {.at_wall_ns = p->now_ms * WB_MS,
                                             .stream = wb_str(p->stream),
                                             .kind = wb_str("hole"),
                                             .first_seq = p->before.seq + 1,
                                             .last_seq = p->after.seq,
                                             .rows = self->hole_count,
                                             .detail = wb_str(detail)};
    return outbox_incident_add(self->db, &incident, why);
}

static wb_err write_inside(struct outbox_publisher_verifier *self,
                           const struct outbox_publisher_progress *p, bool *ret_more,
                           struct wb_why *why)
{
    wb_err err = found_write(self, p, why);

    if (err == WB_OK)
        err = missed_write(self, p, why);
    if (err == WB_OK && p->after.seq > p->before.seq)
        err = holes_find(self, p, ret_more, why);
    if (err == WB_OK)
        err = holes_write(self, p, why);
    /* Last, so that the holder is looked at under the write lock; nothing stays if it is another.
     */
    return err == WB_OK ? cursor_write(self, p, *ret_more ? &p->before : &p->after, why) : err;
}

wb_err outbox_publisher_verified_write(struct outbox_publisher_verifier *verifier,
                                       const struct outbox_publisher_progress *progress,
                                       void (*visit)(void *ctx, int64_t id), void *ctx,
                                       bool *ret_more, struct wb_why *why)
{
    wb_err err = db_begin(verifier->db, why);

    if (err != WB_OK)
        return err;
    *ret_more = false;
    verifier->hole_count = 0;
    err = write_inside(verifier, progress, ret_more, why);
    if (err == WB_OK)
        err = db_commit(verifier->db, why);
    db_rollback(verifier->db);
    for (size_t i = 0; err == WB_OK && i < verifier->hole_count; i++)
        visit(ctx, verifier->holes[i]);
    return err;
}
