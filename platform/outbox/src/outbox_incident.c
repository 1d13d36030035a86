/* What went wrong: noted by a publisher, for those who look afterwards. */
#include <sqlite3.h>

#include "waybill/outbox_impl.h"

#include <waybill/db.h>

#define LIST_LIMIT    1000
#define INCIDENTS_MAX "10000" /* rows of outbox_incident; the oldest go */

static uint64_t column_u64(struct sqlite3_stmt *stmt, int column)
{
    return (uint64_t)sqlite3_column_int64(stmt, column);
}

static wb_err prepare(struct sqlite3 *handle, const char *sql, struct sqlite3_stmt **ret_stmt,
                      struct wb_why *why)
{
    wb_err err = outbox_schema_require(handle, why);

    if (err != WB_OK)
        return err;
    int rc = sqlite3_prepare_v2(handle, sql, -1, ret_stmt, NULL);
    return rc == SQLITE_OK ? WB_OK : db_error(handle, rc, "read the incidents", why);
}

static int64_t limit_of(size_t limit)
{
    return (int64_t)(limit > 0 ? limit : LIST_LIMIT);
}

static wb_err end(struct sqlite3 *handle, struct sqlite3_stmt *stmt, int rc, struct wb_why *why)
{
    wb_err err = WB_OK;

    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        err = db_error(handle, rc, "read the incidents", why);
    (void)sqlite3_finalize(stmt);
    return err;
}

/* Rare enough to be prepared each time. */
wb_err outbox_incident_add(struct db *db, const struct outbox_incident *incident,
                           struct wb_why *why)
{
    struct sqlite3_stmt *stmt = NULL;
    wb_err err = db_prepare(db,
                            "INSERT INTO main.outbox_incident(at, stream, kind, first_seq,"
                            " last_seq, rows, gone, detail) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                            &stmt, why);

    if (err != WB_OK)
        return err;
    (void)sqlite3_bind_int64(stmt, 1, incident->at_wall_ns / WB_MS);
    (void)db_bind_text(stmt, 2, incident->stream);
    (void)db_bind_text(stmt, 3, incident->kind);
    (void)sqlite3_bind_int64(stmt, 4, (int64_t)incident->first_seq);
    (void)sqlite3_bind_int64(stmt, 5, (int64_t)incident->last_seq);
    (void)sqlite3_bind_int64(stmt, 6, (int64_t)incident->rows);
    (void)sqlite3_bind_int64(stmt, 7, (int64_t)incident->gone);
    (void)db_bind_text(stmt, 8, incident->detail);
    err = db_statement_run(stmt, "note an incident", why);
    (void)sqlite3_finalize(stmt);
    return err != WB_OK ? err
                        : db_exec(db,
                                  "DELETE FROM main.outbox_incident WHERE id <="
                                  " (SELECT max(id) FROM main.outbox_incident) - " INCIDENTS_MAX,
                                  why);
}

wb_err outbox_incidents(struct sqlite3 *handle, int64_t after_id, size_t limit,
                        outbox_incident_visit visit, void *ctx, struct wb_why *why)
{
    struct sqlite3_stmt *stmt;
    bool go_on = true;
    int rc = SQLITE_DONE;
    wb_err err = prepare(handle,
                         "SELECT id, at, stream, kind, first_seq, last_seq, rows, gone, detail"
                         " FROM main.outbox_incident WHERE id > ?1 ORDER BY id LIMIT ?2",
                         &stmt, why);

    if (err != WB_OK)
        return err;
    (void)sqlite3_bind_int64(stmt, 1, after_id);
    (void)sqlite3_bind_int64(stmt, 2, limit_of(limit));
    while (go_on && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        const struct outbox_incident incident = {.id = sqlite3_column_int64(stmt, 0),
                                                 .at_wall_ns =
                                                     sqlite3_column_int64(stmt, 1) * WB_MS,
                                                 .stream = db_column_text(stmt, 2),
                                                 .kind = db_column_text(stmt, 3),
                                                 .first_seq = column_u64(stmt, 4),
                                                 .last_seq = column_u64(stmt, 5),
                                                 .rows = column_u64(stmt, 6),
                                                 .gone = column_u64(stmt, 7),
                                                 .detail = db_column_text(stmt, 8)};
        go_on = visit(ctx, &incident);
    }
    return end(handle, stmt, rc, why);
}

wb_err outbox_orphans(struct sqlite3 *handle, size_t limit, outbox_orphan_visit visit, void *ctx,
                      struct wb_why *why)
{
    struct sqlite3_stmt *stmt;
    bool go_on = true;
    int rc = SQLITE_DONE;
    wb_err err = prepare(handle,
                         "SELECT stream, sequence, source, row_id, msg_id, subject, stored_at,"
                         " noticed_at FROM main.outbox_orphan ORDER BY stream, sequence LIMIT ?1",
                         &stmt, why);

    if (err != WB_OK)
        return err;
    (void)sqlite3_bind_int64(stmt, 1, limit_of(limit));
    while (go_on && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        const struct outbox_orphan orphan = {
            .stream = db_column_text(stmt, 0),
            .sequence = column_u64(stmt, 1),
            .source = db_column_text(stmt, 2),
            .row_id = sqlite3_column_int64(stmt, 3),
            .msg_id = db_column_text(stmt, 4),
            .subject = db_column_text(stmt, 5),
            .stored_wall_ns = sqlite3_column_int64(stmt, 6) * WB_MS,
            .noticed_wall_ns = sqlite3_column_int64(stmt, 7) * WB_MS};
        go_on = visit(ctx, &orphan);
    }
    return end(handle, stmt, rc, why);
}
