/*
 * Taking a row back before it is sent.
 *
 * A publisher claims what may be cancelled, right before it sends it: the row becomes `lost` in the
 * table of exceptions. Both happen in transactions that write, so one of them is first. Rows
 * without a due time are sent as they are read, without a claim: those cannot be cancelled, unless
 * they were set aside.
 */
#include <assert.h>
#include <inttypes.h>
#include <sqlite3.h>

#include "outbox_private.h"

#include <waybill/db.h>

/*
 * Columns: has it a due time, its exception, how many cursors may have passed it, and how many of
 * them have. A row that names no stream is one of several streams', nobody here knows whose.
 */
static const char look_sql[] =
    "SELECT o.due_at IS NOT NULL, ifnull(e.state, ''),"
    " (SELECT count(*) FROM main.outbox_cursor c WHERE o.stream IN ('', c.stream)),"
    " (SELECT count(*) FROM main.outbox_cursor c WHERE o.stream IN ('', c.stream)"
    "  AND c.last_id >= o.id), ifnull(o.due_at, 0)"
    " FROM main.outbox o LEFT JOIN main.outbox_exception e ON e.id = o.id WHERE o.id = ?1";
static const char new_sql[] = "INSERT INTO main.outbox_exception(id, state, error)"
                              " VALUES(?1, 'cancelled', 'cancelled before it was sent')";
static const char it_sql[] = "UPDATE main.outbox_exception SET state = 'cancelled', next_at = NULL,"
                             " error = 'cancelled before it was sent' WHERE id = ?1";

struct look {
    bool found, scheduled, excepted;
    outbox_exception_state state; /* with excepted */
    int64_t cursors, passed;
    int64_t due_ms;
};

static wb_err look_at(struct outbox *self, int64_t row_id, struct look *ret_look,
                      struct wb_why *why)
{
    wb_err err = outbox_statement(self, look_sql, &self->cancel_look, why);
    struct sqlite3_stmt *stmt = self->cancel_look;
    struct look look = {.found = false};

    if (err != WB_OK)
        return err;
    (void)sqlite3_bind_int64(stmt, 1, row_id);
    int rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW) {
        look = (struct look){.found = true,
                             .scheduled = sqlite3_column_int(stmt, 0) != 0,
                             .cursors = sqlite3_column_int64(stmt, 2),
                             .passed = sqlite3_column_int64(stmt, 3),
                             .due_ms = sqlite3_column_int64(stmt, 4)};
        look.excepted = outbox_exception_state_parse(
            wb_str((const char *)sqlite3_column_text(stmt, 1)), &look.state);
    }
    err = db_statement_end(stmt, rc, "look at the row to cancel", why);
    if (err == WB_OK)
        *ret_look = look;
    return err;
}

static wb_err write_it(struct outbox *self, struct sqlite3_stmt **stmt, const char *sql,
                       int64_t row_id, struct wb_why *why)
{
    wb_err err = outbox_statement(self, sql, stmt, why);

    if (err != WB_OK)
        return err;
    (void)sqlite3_bind_int64(*stmt, 1, row_id);
    err = db_statement_run(*stmt, "cancel a row of the outbox", why);
    self->written = self->written || err == WB_OK; /* its key may go on: the publisher looks */
    return err;
}

/* Set aside: its state says how far it is. */
static wb_err cancel_excepted(struct outbox *self, int64_t row_id, outbox_exception_state state,
                              struct wb_why *why)
{
    switch (state) {
    case OUTBOX_EXCEPTION_CANCELLED:
    case OUTBOX_EXCEPTION_EXPIRED: /* its end was reached, and may be archived, as it is */
        return WB_OK;
    case OUTBOX_EXCEPTION_LOST:
        return wb_fail(why, WB_CONFLICT, "cancel row %" PRId64 ": it is on its way already",
                       row_id);
    case OUTBOX_EXCEPTION_WAITING:
    case OUTBOX_EXCEPTION_RETRY:
    case OUTBOX_EXCEPTION_BLOCKED:
    case OUTBOX_EXCEPTION_PARKED:
        break;
    }
    return write_it(self, &self->cancel_it, it_sql, row_id, why);
}

/* No publisher has set it aside: has none seen it, or is it published? */
static wb_err cancel_plain(struct outbox *self, int64_t row_id, const struct look *look,
                           struct wb_why *why)
{
    bool ahead = look->due_ms > wb_wall_ns(wb_clock_system()) / WB_MS;

    if (!look->scheduled)
        return wb_fail(why, WB_CONFLICT,
                       "cancel row %" PRId64 ": it has no due time, so it is sent as soon as it is "
                       "read; only what was enqueued with a due time or a delay can be cancelled",
                       row_id);
    if (look->passed == 0)
        return write_it(self, &self->cancel_new, new_sql, row_id, why);
    if (look->passed < look->cursors && ahead)
        return wb_fail(why, WB_BUSY,
                       "cancel row %" PRId64 ": it names no stream, and its publisher has not come "
                       "to it yet; try again in a second",
                       row_id);
    return wb_fail(why, WB_CONFLICT, "cancel row %" PRId64 ": it is published", row_id);
}

wb_err outbox_cancel(struct outbox *outbox, int64_t row_id, struct wb_why *why)
{
    struct look look;

    assert(outbox != NULL);
    if (sqlite3_get_autocommit(outbox->handle) != 0)
        return wb_fail(why, WB_MISUSE,
                       "cancel row %" PRId64 ": no transaction is open on this connection; "
                       "BEGIN IMMEDIATE first",
                       row_id);
    wb_err err = look_at(outbox, row_id, &look, why);
    if (err != WB_OK)
        return err;
    if (!look.found)
        return wb_fail(why, WB_NOT_FOUND, "cancel row %" PRId64 ": the outbox has no such row",
                       row_id);
    return look.excepted ? cancel_excepted(outbox, row_id, look.state, why)
                         : cancel_plain(outbox, row_id, &look, why);
}
