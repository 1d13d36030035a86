/* What the tables know of one row besides the row: for those who ask what became of it. */
#include <waybill/outbox.h>

#include <assert.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include <waybill/db.h>

#define REPLAYS_LOOK "1000000" /* rows behind it that are looked at for replays of it */

static const char trail_sql[] =
    "SELECT (SELECT lower(hex(source)) FROM outbox_source WHERE from_id <= ?1"
    "  ORDER BY from_id DESC LIMIT 1),"
    " (SELECT edited_at FROM outbox_edit WHERE id = ?1),"
    " (SELECT crashes FROM outbox_exception WHERE id = ?1),"
    " (SELECT sequence FROM outbox_late WHERE row_id = ?1),"
    " (SELECT count(*) FROM outbox_cursor WHERE suspect_id = ?1)";

static const char replays_sql[] = "SELECT id FROM outbox WHERE id > ?1 AND id <= ?1 + " REPLAYS_LOOK
                                  " AND headers LIKE '%' || ?2 || '%' ORDER BY id LIMIT ?3";

static wb_err trail_read(struct sqlite3 *handle, int64_t row_id, struct outbox_trail *trail,
                         struct wb_why *why)
{
    struct sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(handle, trail_sql, -1, &stmt, NULL);

    if (rc == SQLITE_OK) {
        (void)sqlite3_bind_int64(stmt, 1, row_id);
        rc = sqlite3_step(stmt);
    }
    if (rc == SQLITE_ROW) {
        const char *source = (const char *)sqlite3_column_text(stmt, 0);
        (void)snprintf(trail->source, sizeof(trail->source), "%s", source != NULL ? source : "");
        trail->edited_wall_ns = sqlite3_column_int64(stmt, 1) * WB_MS;
        trail->crashes = (uint32_t)sqlite3_column_int64(stmt, 2);
        trail->late_seq = (uint64_t)sqlite3_column_int64(stmt, 3);
        trail->suspect = sqlite3_column_int64(stmt, 4) > 0;
        rc = SQLITE_DONE;
    }
    wb_err err = rc == SQLITE_DONE ? WB_OK : db_error(handle, rc, "read the trail of a row", why);
    (void)sqlite3_finalize(stmt);
    return err;
}

static wb_err replays_read(struct sqlite3 *handle, int64_t row_id, struct outbox_trail *trail,
                           struct wb_why *why)
{
    struct sqlite3_stmt *stmt = NULL;
    char line[100];
    int rc = sqlite3_prepare_v2(handle, replays_sql, -1, &stmt, NULL);

    (void)snprintf(line, sizeof(line), "%s: %s/%" PRId64, MESSAGE_HEADER_REPLAY_OF, trail->source,
                   row_id);
    if (rc == SQLITE_OK) {
        (void)sqlite3_bind_int64(stmt, 1, row_id);
        (void)sqlite3_bind_text(stmt, 2, line, -1, SQLITE_STATIC);
        (void)sqlite3_bind_int(stmt, 3, OUTBOX_TRAIL_REPLAYS);
        while ((rc = sqlite3_step(stmt)) == SQLITE_ROW)
            trail->replays[trail->replay_count++] = sqlite3_column_int64(stmt, 0);
    }
    wb_err err = rc == SQLITE_DONE ? WB_OK : db_error(handle, rc, "look for replays", why);
    (void)sqlite3_finalize(stmt);
    return err;
}

wb_err outbox_trail(struct sqlite3 *handle, int64_t row_id, struct outbox_trail *ret_trail,
                    struct wb_why *why)
{
    struct outbox_trail trail = {.source = ""};

    assert(handle != NULL);
    assert(ret_trail != NULL);
    wb_err err = trail_read(handle, row_id, &trail, why);
    if (err == WB_OK)
        err = replays_read(handle, row_id, &trail, why);
    if (err == WB_OK)
        *ret_trail = trail;
    return err;
}
