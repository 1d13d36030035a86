#include "outbox_publisher_ledger.h"

#include <sqlite3.h>
#include <stdlib.h>

#include <waybill/db.h>

#define KEPT "o.id, o.stream, o.subject, ifnull(e.state, '')"

#define STATEMENTS(X)                                                                              \
    X(bounds, "SELECT ifnull((SELECT min(id) FROM outbox), 1) - 1,"                                \
              " ifnull((SELECT max(id) FROM outbox), 0),"                                          \
              " ifnull((SELECT max(id) FROM outbox_exception WHERE state = 'lost'), 0),"           \
              " (SELECT count(*) FROM outbox_orphan),"                                             \
              " ifnull((SELECT max(last_id) FROM outbox_cursor WHERE stream <> ?1), 0)")           \
    X(rows, "SELECT " KEPT " FROM outbox o LEFT JOIN outbox_exception e ON e.id = o.id"            \
            " WHERE o.id > ?1 AND o.id <= ?2 ORDER BY o.id LIMIT ?3")                              \
    X(aside, "SELECT " KEPT " FROM (SELECT id FROM outbox_exception WHERE id > ?1 AND id <= ?2"    \
             " UNION SELECT row_id FROM outbox_late WHERE row_id > ?1 AND row_id <= ?2"            \
             " AND stream = ?4 AND sequence >= ?5) s JOIN outbox o ON o.id = s.id"                 \
             " LEFT JOIN outbox_exception e ON e.id = o.id ORDER BY s.id LIMIT ?3")                \
    X(back, "SELECT o.id, o.stream, o.subject, '' FROM outbox o WHERE o.id <= ?1 AND NOT EXISTS"   \
            " (SELECT 1 FROM outbox_exception e WHERE e.id = o.id) ORDER BY o.id DESC")            \
    X(begin, "UPDATE outbox_cursor SET repairing = ?3 WHERE stream = ?1 AND holder = ?2")          \
    X(lost, "INSERT INTO outbox_exception(id, state, attempts, next_at, error, resent)"            \
            " VALUES(?1, 'lost', 0, 0, ?2, 1) ON CONFLICT DO NOTHING")                             \
    X(stored, "DELETE FROM outbox_exception WHERE id = ?1 AND state <> 'cancelled'")               \
    X(stored_late, "INSERT OR REPLACE INTO outbox_late(row_id, stream, sequence)"                  \
                   " VALUES(?1, ?2, ?3)")                                                          \
    X(renewed, "DELETE FROM outbox_exception WHERE id = ?1 AND state = 'lost'")                    \
    X(orphan, "INSERT INTO outbox_orphan(stream, sequence, source, row_id, msg_id, subject,"       \
              " stored_at, noticed_at) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"                     \
              " ON CONFLICT DO NOTHING")                                                           \
    X(cursor, "UPDATE outbox_cursor SET last_id = ?3, last_seq = ?4, last_msg_id = ?5,"            \
              " stream_created = ?6, repairing = 0 WHERE stream = ?1 AND holder = ?2")             \
    X(unverify, "UPDATE outbox_cursor SET verified_id = 0, verified_seq = 0,"                      \
                " verified_msg_id = x'', verified_at = 0 WHERE stream = ?1")                       \
    X(late_trim, "DELETE FROM outbox_late WHERE stream = ?1 AND (row_id > ?2 OR sequence < ?3)")   \
    X(source_drop, "DELETE FROM outbox_source WHERE from_id >= ?1")                                \
    X(source_add, "INSERT INTO outbox_source(from_id, source) VALUES(?1, randomblob(8))")

struct outbox_publisher_ledger {
    struct db *db; /* the store's */
#define X(name, sql) struct sqlite3_stmt *name;
    STATEMENTS(X)
#undef X
};

wb_err outbox_publisher_ledger_open(struct outbox_publisher_store *store,
                                    struct outbox_publisher_ledger **ret_ledger, struct wb_why *why)
{
    struct outbox_publisher_ledger *self = calloc(1, sizeof(*self));
    wb_err err = WB_OK;

    if (self == NULL)
        return wb_fail(why, WB_NOMEM, "repair: out of memory");
    self->db = outbox_publisher_store_db(store);
#define X(name, sql)                                                                               \
    if (err == WB_OK)                                                                              \
        err = db_prepare(self->db, sql, &self->name, why);
    STATEMENTS(X)
#undef X
    if (err != WB_OK) {
        outbox_publisher_ledger_close(self);
        return err;
    }
    *ret_ledger = self;
    return WB_OK;
}

void outbox_publisher_ledger_close(struct outbox_publisher_ledger *ledger)
{
    if (ledger == NULL)
        return;
#define X(name, sql) (void)sqlite3_finalize(ledger->name);
    STATEMENTS(X)
#undef X
    free(ledger);
}

/* ---- running statements ---------------------------------------------------------------------- */

static wb_err run(struct sqlite3_stmt *stmt, struct wb_why *why)
{
    return db_statement_run(stmt, "note what a stream has lost", why);
}

/* ---- comparing ------------------------------------------------------------------------------- */

wb_err outbox_publisher_ledger_bounds(struct outbox_publisher_ledger *ledger, const char *stream,
                                      struct outbox_publisher_bounds *ret_bounds,
                                      struct wb_why *why)
{
    struct sqlite3_stmt *stmt = ledger->bounds;

    db_bind_text(stmt, 1, wb_str(stream));
    int rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW)
        *ret_bounds = (struct outbox_publisher_bounds){
            .low = sqlite3_column_int64(stmt, 0),
            .high = sqlite3_column_int64(stmt, 1),
            .lost = sqlite3_column_int64(stmt, 2),
            .orphans = (uint64_t)sqlite3_column_int64(stmt, 3),
            .other_last_id = sqlite3_column_int64(stmt, 4),
        };
    return db_statement_end(stmt, rc, "look which rows are kept", why);
}

static wb_err visit_all(struct sqlite3_stmt *stmt, outbox_publisher_kept_visit visit, void *ctx,
                        struct wb_why *why)
{
    int rc = SQLITE_DONE;

    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        struct outbox_publisher_kept row = {.id = sqlite3_column_int64(stmt, 0),
                                            .stream = db_column_text(stmt, 1),
                                            .subject = db_column_text(stmt, 2)};
        row.excepted = outbox_exception_state_parse(db_column_text(stmt, 3), &row.state);
        if (!visit(ctx, &row))
            break;
    }
    return db_statement_end(stmt, rc, "compare the rows with the stream", why);
}

static void bind_part(struct sqlite3_stmt *stmt, const struct outbox_publisher_part *part)
{
    (void)sqlite3_bind_int64(stmt, 1, part->after_id);
    (void)sqlite3_bind_int64(stmt, 2, part->last_id);
    (void)sqlite3_bind_int64(stmt, 3, (int64_t)part->limit);
}

wb_err outbox_publisher_ledger_rows(struct outbox_publisher_ledger *ledger,
                                    const struct outbox_publisher_part *part,
                                    outbox_publisher_kept_visit visit, void *ctx,
                                    struct wb_why *why)
{
    bind_part(ledger->rows, part);
    return visit_all(ledger->rows, visit, ctx, why);
}

wb_err outbox_publisher_ledger_aside(struct outbox_publisher_ledger *ledger, const char *stream,
                                     uint64_t first_seq, const struct outbox_publisher_part *part,
                                     outbox_publisher_kept_visit visit, void *ctx,
                                     struct wb_why *why)
{
    bind_part(ledger->aside, part);
    db_bind_text(ledger->aside, 4, wb_str(stream));
    (void)sqlite3_bind_int64(ledger->aside, 5, (int64_t)first_seq);
    return visit_all(ledger->aside, visit, ctx, why);
}

wb_err outbox_publisher_ledger_back(struct outbox_publisher_ledger *ledger, int64_t last_id,
                                    outbox_publisher_kept_visit visit, void *ctx,
                                    struct wb_why *why)
{
    (void)sqlite3_bind_int64(ledger->back, 1, last_id);
    return visit_all(ledger->back, visit, ctx, why);
}

/* ---- noting ---------------------------------------------------------------------------------- */

static wb_err change_one(struct outbox_publisher_ledger *self,
                         const struct outbox_publisher_note *note,
                         const struct outbox_publisher_change *change, struct wb_why *why)
{
    wb_err err = WB_OK;

    switch (change->kind) {
    case OUTBOX_PUBLISHER_CHANGE_LOST:
        (void)sqlite3_bind_int64(self->lost, 1, change->id);
        db_bind_text(self->lost, 2, wb_str(note->text));
        return run(self->lost, why);
    case OUTBOX_PUBLISHER_CHANGE_STORED:
        (void)sqlite3_bind_int64(self->stored, 1, change->id);
        err = run(self->stored, why);
        (void)sqlite3_bind_int64(self->stored_late, 1, change->id);
        db_bind_text(self->stored_late, 2, wb_str(note->stream));
        (void)sqlite3_bind_int64(self->stored_late, 3, (int64_t)note->stored_by);
        return err == WB_OK ? run(self->stored_late, why) : err;
    case OUTBOX_PUBLISHER_CHANGE_NEW:
        break;
    }
    (void)sqlite3_bind_int64(self->renewed, 1, change->id);
    return run(self->renewed, why);
}

static wb_err change_inside(struct outbox_publisher_ledger *self,
                            const struct outbox_publisher_note *note,
                            const struct outbox_publisher_change *changes, size_t count,
                            struct wb_why *why)
{
    db_bind_text(self->begin, 1, wb_str(note->stream));
    (void)sqlite3_bind_int64(self->begin, 2, note->holder);
    (void)sqlite3_bind_int64(self->begin, 3, note->repairing);
    wb_err err = run(self->begin, why);
    if (err == WB_OK)
        err = outbox_publisher_still_holder(self->db, note->stream, note->holder, why);
    for (size_t i = 0; err == WB_OK && i < count; i++)
        err = change_one(self, note, &changes[i], why);
    return err;
}

wb_err outbox_publisher_ledger_change(struct outbox_publisher_ledger *ledger,
                                      const struct outbox_publisher_note *note,
                                      const struct outbox_publisher_change *changes, size_t count,
                                      struct wb_why *why)
{
    wb_err err = db_begin(ledger->db, why);

    if (err != WB_OK)
        return err;
    err = change_inside(ledger, note, changes, count, why);
    if (err == WB_OK)
        err = db_commit(ledger->db, why);
    db_rollback(ledger->db);
    return err;
}

static wb_err orphan_add(struct outbox_publisher_ledger *self, const char *stream, int64_t now_ms,
                         const struct outbox_publisher_orphan *one, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = self->orphan;

    db_bind_text(stmt, 1, wb_str(stream));
    (void)sqlite3_bind_int64(stmt, 2, (int64_t)one->sequence);
    db_bind_text(stmt, 3, wb_str(one->source));
    (void)sqlite3_bind_int64(stmt, 4, one->row_id);
    db_bind_text(stmt, 5, wb_str(one->msg_id));
    db_bind_text(stmt, 6, wb_str(one->subject));
    (void)sqlite3_bind_int64(stmt, 7, one->stored_wall_ns / WB_MS);
    (void)sqlite3_bind_int64(stmt, 8, now_ms);
    return run(stmt, why);
}

wb_err outbox_publisher_ledger_orphans(struct outbox_publisher_ledger *ledger, const char *stream,
                                       int64_t now_ms, const struct outbox_publisher_orphan *list,
                                       size_t count, size_t room, size_t *ret_added,
                                       struct wb_why *why)
{
    size_t added = 0;
    wb_err err = db_begin(ledger->db, why);

    if (err != WB_OK)
        return err;
    for (size_t i = 0; err == WB_OK && i < count && added < room; i++) {
        err = orphan_add(ledger, stream, now_ms, &list[i], why);
        added += err == WB_OK && sqlite3_changes(db_handle(ledger->db)) > 0 ? 1 : 0;
    }
    if (err == WB_OK)
        err = db_commit(ledger->db, why);
    db_rollback(ledger->db);
    if (err == WB_OK)
        *ret_added = added;
    return err;
}

/* ---- concluding ------------------------------------------------------------------------------ */

static wb_err cursor_conclude(struct outbox_publisher_ledger *self, const char *stream,
                              const struct outbox_publisher_conclusion *it, struct wb_why *why)
{
    const struct outbox_publisher_cursor *cursor = &it->cursor;
    struct sqlite3_stmt *stmt = self->cursor;

    db_bind_text(stmt, 1, wb_str(stream));
    (void)sqlite3_bind_int64(stmt, 2, cursor->holder);
    (void)sqlite3_bind_int64(stmt, 3, cursor->last_id);
    (void)sqlite3_bind_int64(stmt, 4, (int64_t)cursor->last_seq);
    (void)sqlite3_bind_blob(stmt, 5, cursor->last_msg_id, (int)cursor->last_msg_id_len,
                            SQLITE_STATIC);
    (void)sqlite3_bind_int64(stmt, 6, cursor->stream_created);
    wb_err err = run(stmt, why);
    if (err == WB_OK)
        err = outbox_publisher_still_holder(self->db, stream, cursor->holder, why);
    if (err != WB_OK || !it->verify_anew)
        return err;
    db_bind_text(self->unverify, 1, wb_str(stream));
    return run(self->unverify, why);
}

static wb_err source_conclude(struct outbox_publisher_ledger *self, int64_t from_id,
                              struct wb_why *why)
{
    (void)sqlite3_bind_int64(self->source_drop, 1, from_id);
    wb_err err = run(self->source_drop, why);
    (void)sqlite3_bind_int64(self->source_add, 1, from_id);
    return err == WB_OK ? run(self->source_add, why) : err;
}

static wb_err conclude_inside(struct outbox_publisher_ledger *self, const char *stream,
                              const struct outbox_publisher_conclusion *it, struct wb_why *why)
{
    wb_err err = cursor_conclude(self, stream, it, why);

    if (err == WB_OK) {
        db_bind_text(self->late_trim, 1, wb_str(stream));
        (void)sqlite3_bind_int64(self->late_trim, 2, it->cursor.last_id);
        (void)sqlite3_bind_int64(self->late_trim, 3,
                                 it->made_anew ? INT64_MAX : (int64_t)it->stream_first);
        err = run(self->late_trim, why);
    }
    if (err == WB_OK && it->source_from_id > 0)
        err = source_conclude(self, it->source_from_id, why);
    if (err == WB_OK && it->amiss)
        err = outbox_incident_add(self->db, &it->incident, why);
    return err;
}

wb_err outbox_publisher_ledger_conclude(struct outbox_publisher_ledger *ledger, const char *stream,
                                        const struct outbox_publisher_conclusion *conclusion,
                                        struct wb_why *why)
{
    wb_err err = db_begin(ledger->db, why);

    if (err != WB_OK)
        return err;
    err = conclude_inside(ledger, stream, conclusion, why);
    if (err == WB_OK)
        err = db_commit(ledger->db, why);
    db_rollback(ledger->db);
    return err;
}
