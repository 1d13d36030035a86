/* What the rows say: status, lists, one row with what became of it. Reads only. */
#include <assert.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <string.h>

#include "waybill/outbox_impl.h"

#include <waybill/db.h>
#include <waybill/subject.h>

#define LIST_LIMIT 1000

/*
 * The cursor that covers a row o. Which stream covers an unnamed row only the bus knows, so such a
 * row counts as published when all cursors have passed it: never too early, and exact with one
 * stream.
 */
#define FLOOR "(SELECT ifnull(min(last_id), 0) FROM main.outbox_cursor)"
#define PASSED                                                                                     \
    "(o.id <= CASE o.stream WHEN '' THEN " FLOOR " ELSE ifnull((SELECT c.last_id"                  \
    " FROM main.outbox_cursor c WHERE c.stream = o.stream), 0) END)"

static const char *const state_names[] = {
    [OUTBOX_PENDING] = "pending",     [OUTBOX_PUBLISHED] = "published",
    [OUTBOX_RETRY] = "retry",         [OUTBOX_WAITING] = "waiting",
    [OUTBOX_PARKED] = "parked",       [OUTBOX_EXPIRED] = "expired",
    [OUTBOX_CANCELLED] = "cancelled",
};

#define STATE_COUNT (sizeof(state_names) / sizeof(state_names[0]))

const char *outbox_state_name(outbox_state state)
{
    return (size_t)state < STATE_COUNT ? state_names[state] : "unknown";
}

static outbox_state state_of(struct wb_str exception, bool passed)
{
    outbox_exception_state state;

    if (!outbox_exception_state_parse(exception, &state))
        return passed ? OUTBOX_PUBLISHED : OUTBOX_PENDING;
    switch (state) {
    case OUTBOX_EXCEPTION_RETRY:
        return OUTBOX_RETRY;
    case OUTBOX_EXCEPTION_WAITING:
        return OUTBOX_WAITING;
    case OUTBOX_EXCEPTION_PARKED:
        return OUTBOX_PARKED;
    case OUTBOX_EXCEPTION_EXPIRED:
        return OUTBOX_EXPIRED;
    case OUTBOX_EXCEPTION_CANCELLED:
        return OUTBOX_CANCELLED;
    case OUTBOX_EXCEPTION_LOST:
    case OUTBOX_EXCEPTION_BLOCKED:
        break;
    }
    return OUTBOX_PENDING;
}

static wb_err prepare(struct sqlite3 *handle, const char *sql, struct sqlite3_stmt **ret_stmt,
                      struct wb_why *why)
{
    wb_err err = outbox_schema_require(handle, why);

    if (err != WB_OK)
        return err;
    int rc = sqlite3_prepare_v2(handle, sql, -1, ret_stmt, NULL);
    return rc == SQLITE_OK ? WB_OK : db_error(handle, rc, "read the outbox", why);
}

/* ---- status ---------------------------------------------------------------------------------- */

/*
 * ?1 is the bound of the scan; columns: scanned, pending, the oldest of them. Nothing here depends
 * on how many rows the table has.
 */
static const char pending_sql[] =
    "SELECT count(*), ifnull(sum(pending), 0), min(created) FILTER (WHERE pending) FROM ("
    "SELECT o.created AS created, e.id IS NULL AND NOT " PASSED " AS pending"
    " FROM (SELECT id, stream, created FROM main.outbox WHERE id > " FLOOR
    " ORDER BY id LIMIT ?1) o LEFT JOIN main.outbox_exception e ON e.id = o.id"
    " UNION ALL SELECT o.created, 1 FROM (SELECT id FROM main.outbox_exception"
    "  WHERE state IN ('lost', 'blocked') LIMIT ?1) e JOIN main.outbox o ON o.id = e.id)";

static wb_err status_pending(struct sqlite3 *handle, struct outbox_status *status,
                             int64_t beyond_floor, struct wb_why *why)
{
    struct sqlite3_stmt *stmt;
    wb_err err = prepare(handle, pending_sql, &stmt, why);

    if (err != WB_OK)
        return err;
    (void)sqlite3_bind_int64(stmt, 1, OUTBOX_STATUS_SCAN + 1);
    int rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW) {
        uint64_t pending = (uint64_t)sqlite3_column_int64(stmt, 1);
        status->pending_exact = sqlite3_column_int64(stmt, 0) <= OUTBOX_STATUS_SCAN;
        status->pending = status->pending_exact || pending > (uint64_t)beyond_floor
                              ? pending
                              : (uint64_t)beyond_floor;
        status->oldest_wall_ns = sqlite3_column_int64(stmt, 2) * WB_MS;
    } else {
        err = db_error(handle, rc, "count the pending rows of the outbox", why);
    }
    (void)sqlite3_finalize(stmt);
    return err;
}

/* At most ?1 of a state, found by the index. */
#define COUNTED(state)                                                                             \
    "(SELECT count(*) FROM (SELECT 1 FROM main.outbox_exception WHERE state = '" state "'"         \
    " LIMIT ?1))"

static const char summary_sql[] =
    "SELECT (SELECT ifnull(max(id), 0) FROM main.outbox), (SELECT ifnull(min(id), 1) FROM"
    " main.outbox), " FLOOR
    ", " COUNTED("retry") ", " COUNTED("waiting") ", " COUNTED("parked") ", " COUNTED(
        "expired") ", " COUNTED("cancelled") ","
                                             " (SELECT lower(hex(source)) FROM main.outbox_source "
                                             "ORDER BY from_id DESC LIMIT 1)";

/* One more than the bound was looked for. */
static uint64_t counted(struct sqlite3_stmt *stmt, int column, bool *counts_exact)
{
    int64_t count = sqlite3_column_int64(stmt, column);

    if (count <= OUTBOX_STATUS_COUNT)
        return (uint64_t)count;
    *counts_exact = false;
    return OUTBOX_STATUS_COUNT;
}

static wb_err status_summary(struct sqlite3 *handle, struct outbox_status *status,
                             int64_t *ret_beyond_floor, struct wb_why *why)
{
    struct sqlite3_stmt *stmt;
    wb_err err = prepare(handle, summary_sql, &stmt, why);

    if (err != WB_OK)
        return err;
    (void)sqlite3_bind_int64(stmt, 1, OUTBOX_STATUS_COUNT + 1);
    int rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW) {
        status->last_id = sqlite3_column_int64(stmt, 0);
        status->rows = (uint64_t)(status->last_id - sqlite3_column_int64(stmt, 1) + 1);
        *ret_beyond_floor = status->last_id - sqlite3_column_int64(stmt, 2);
        status->counts_exact = true;
        status->retry = counted(stmt, 3, &status->counts_exact);
        status->waiting = counted(stmt, 4, &status->counts_exact);
        status->parked = counted(stmt, 5, &status->counts_exact);
        status->expired = counted(stmt, 6, &status->counts_exact);
        status->cancelled = counted(stmt, 7, &status->counts_exact);
        (void)sqlite3_snprintf(sizeof(status->source), status->source, "%s",
                               sqlite3_column_text(stmt, 8));
    } else {
        err = db_error(handle, rc, "count the rows of the outbox", why);
    }
    (void)sqlite3_finalize(stmt);
    return err;
}

static wb_err status_streams(struct sqlite3 *handle, struct outbox_status *status,
                             struct wb_why *why)
{
    struct sqlite3_stmt *stmt;
    const size_t max = sizeof(status->streams) / sizeof(status->streams[0]);
    int rc = SQLITE_ROW;
    wb_err err = prepare(handle,
                         "SELECT stream, last_id, last_seq, holder, verified_id"
                         " FROM main.outbox_cursor ORDER BY stream",
                         &stmt, why);

    if (err != WB_OK)
        return err;
    while (status->stream_count < max && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        struct outbox_stream_status *stream = &status->streams[status->stream_count++];
        (void)sqlite3_snprintf(sizeof(stream->stream), stream->stream, "%s",
                               sqlite3_column_text(stmt, 0));
        stream->last_id = sqlite3_column_int64(stmt, 1);
        stream->last_seq = (uint64_t)sqlite3_column_int64(stmt, 2);
        stream->holder = sqlite3_column_int64(stmt, 3);
        stream->verified_id = sqlite3_column_int64(stmt, 4);
    }
    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        err = db_error(handle, rc, "read the cursors of the outbox", why);
    (void)sqlite3_finalize(stmt);
    return err;
}

wb_err outbox_status(struct sqlite3 *handle, struct outbox_status *ret_status, struct wb_why *why)
{
    struct outbox_status status = {.rows = 0};
    int64_t beyond_floor = 0;
    wb_err err = status_summary(handle, &status, &beyond_floor, why);

    if (err == WB_OK)
        err = status_pending(handle, &status, beyond_floor, why);
    if (err == WB_OK)
        err = status_streams(handle, &status, why);
    if (err == WB_OK)
        *ret_status = status;
    return err;
}

/* ---- rows ------------------------------------------------------------------------------------ */

#define SELECT_ROWS(ids)                                                                           \
    "SELECT " OUTBOX_ROW_COLUMNS ", ifnull(e.state, ''), " PASSED ", ifnull(e.attempts, 0),"       \
    " ifnull(e.next_at, 0), ifnull(e.error, '') FROM (" ids ") s"                                  \
    " CROSS JOIN main.outbox o ON o.id = s.id"                                                     \
    " LEFT JOIN main.outbox_exception e ON e.id = s.id ORDER BY s.id"

static const char all_sql[] = SELECT_ROWS("SELECT id FROM main.outbox WHERE id > ?1");
static const char exceptions_sql[] =
    SELECT_ROWS("SELECT id FROM main.outbox_exception WHERE id > ?1");
/* Most rows are published: looking for the others must not walk over them. */
static const char pending_rows_sql[] =
    SELECT_ROWS("SELECT id FROM main.outbox WHERE id > max(?1, " FLOOR ")"
                " UNION SELECT id FROM main.outbox_exception WHERE id > ?1"
                " AND state IN ('lost', 'blocked')");
static const char by_id_sql[] = SELECT_ROWS("SELECT id FROM main.outbox WHERE id = ?1");
static const char by_msg_id_sql[] = SELECT_ROWS("SELECT id FROM main.outbox WHERE msg_id = ?1");

static void row_read(struct sqlite3_stmt *stmt, struct outbox_row *ret_row)
{
    const int at = OUTBOX_ROW_COLUMN_COUNT;

    outbox_row_read(stmt, ret_row);
    ret_row->state = state_of(wb_str((const char *)sqlite3_column_text(stmt, at)),
                              sqlite3_column_int(stmt, at + 1) != 0);
    ret_row->attempts = (uint32_t)sqlite3_column_int64(stmt, at + 2);
    ret_row->next_wall_ns = sqlite3_column_int64(stmt, at + 3) * WB_MS;
    ret_row->error = wb_str((const char *)sqlite3_column_text(stmt, at + 4));
}

static bool filter_takes(const struct outbox_filter *filter, const struct outbox_row *row)
{
    if (filter->by_state && row->state != filter->state)
        return false;
    if (filter->pattern.len == 0)
        return true;
    /* A row written by hand may have a subject that no pattern is defined for. */
    return subject_check(row->subject, NULL) == WB_OK &&
           subject_matches(filter->pattern, row->subject);
}

static const char *filter_sql(const struct outbox_filter *filter)
{
    if (!filter->by_state || filter->state == OUTBOX_PUBLISHED)
        return all_sql;
    return filter->state == OUTBOX_PENDING ? pending_rows_sql : exceptions_sql;
}

wb_err outbox_list(struct sqlite3 *handle, const struct outbox_filter *filter, outbox_visit visit,
                   void *ctx, struct wb_why *why)
{
    struct sqlite3_stmt *stmt;
    size_t left = filter->limit > 0 ? filter->limit : LIST_LIMIT;
    int rc = SQLITE_ROW;
    wb_err err = WB_OK;

    if (filter->pattern.len > 0)
        err = subject_pattern_check(filter->pattern, why);
    if (err == WB_OK)
        err = prepare(handle, filter_sql(filter), &stmt, why);
    if (err != WB_OK)
        return err;
    (void)sqlite3_bind_int64(stmt, 1, filter->after_id);
    while (left > 0 && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        struct outbox_row row;
        row_read(stmt, &row);
        if (!filter_takes(filter, &row))
            continue;
        left--;
        if (!visit(ctx, &row))
            break;
    }
    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        err = db_error(handle, rc, "list the rows of the outbox", why);
    (void)sqlite3_finalize(stmt);
    return err;
}

wb_err outbox_show(struct sqlite3 *handle, struct wb_str id, outbox_visit visit, void *ctx,
                   struct wb_why *why)
{
    struct sqlite3_stmt *stmt;
    uint8_t msg_id[WB_ID_SIZE];
    uint64_t number = 0;
    bool by_msg_id = wb_hex_decode(id, msg_id, sizeof(msg_id));

    if (!by_msg_id && (!wb_str_to_u64(id, &number) || number > INT64_MAX))
        return wb_fail(why, WB_INVALID,
                       "show outbox row '%.*s': expected its number, or the 32 hex digits of its "
                       "msg_id",
                       (int)id.len, id.ptr);
    wb_err err = prepare(handle, by_msg_id ? by_msg_id_sql : by_id_sql, &stmt, why);
    if (err != WB_OK)
        return err;
    if (by_msg_id)
        (void)sqlite3_bind_blob(stmt, 1, msg_id, sizeof(msg_id), SQLITE_STATIC);
    else
        (void)sqlite3_bind_int64(stmt, 1, (int64_t)number);
    int rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW) {
        struct outbox_row row;
        row_read(stmt, &row);
        (void)visit(ctx, &row);
    } else if (rc == SQLITE_DONE) {
        err = wb_fail(why, WB_NOT_FOUND, "the outbox has no row '%.*s'; 'outbox ls' lists them",
                      (int)id.len, id.ptr);
    } else {
        err = db_error(handle, rc, "read a row of the outbox", why);
    }
    (void)sqlite3_finalize(stmt);
    return err;
}
