/* The outbox and its archive, read as one. */
#include <sqlite3.h>

#include "replay.h"

#include <waybill/outbox_retention.h>

/* In the order of outbox_row_read(), as it was sent; then source and n. */
#define TABLE_ROW                                                                                  \
    "SELECT o.id, o.stream, o.key, ifnull(d.subject, o.subject), ifnull(d.headers, o.headers),"    \
    " o.msg_id, o.due_at, o.expires_at, o.created, o.traceparent, ifnull(d.payload, o.payload),"   \
    " (SELECT s.source FROM main.outbox_source s WHERE s.from_id <= o.id"                          \
    " ORDER BY s.from_id DESC LIMIT 1), 0"                                                         \
    " FROM main.outbox o LEFT JOIN main.outbox_edit d ON d.id = o.id"
#define ARCHIVE_ROW                                                                                \
    "SELECT o.id, o.stream, o.key, ifnull(o.edit_subject, o.subject),"                             \
    " ifnull(o.edit_headers, o.headers), o.msg_id, o.due_at, o.expires_at, o.created,"             \
    " o.traceparent, ifnull(o.edit_payload, o.payload), o.source, o.n FROM main.outbox_archive o"

/* Published: passed by the cursor, and nothing else is known of it. */
static const char table_scan[] =
    TABLE_ROW " WHERE o.id > ?1 AND ?2 >= 0 AND o.id <= ?3"
              " AND o.id <= CASE o.stream"
              " WHEN '' THEN (SELECT ifnull(min(last_id), 0) FROM main.outbox_cursor)"
              " ELSE ifnull((SELECT c.last_id FROM main.outbox_cursor c"
              " WHERE c.stream = o.stream), 0) END"
              " AND NOT EXISTS (SELECT 1 FROM main.outbox_exception e WHERE e.id = o.id)"
              " ORDER BY o.id";
static const char table_row[] = TABLE_ROW " WHERE o.id = ?1 AND ?2 >= 0";
static const char archive_scan[] =
    ARCHIVE_ROW " WHERE o.id >= ?1 AND (o.id > ?1 OR o.n > ?2) AND o.id <= ?3 AND o.state = ''"
                " ORDER BY o.id, o.n";
static const char archive_row[] = ARCHIVE_ROW " WHERE o.id = ?1 AND o.n = ?2";

void outbox_replay_row_read(struct sqlite3_stmt *stmt, struct replay_row *ret_row)
{
    const int at = OUTBOX_ROW_COLUMN_COUNT;

    outbox_row_read(stmt, &ret_row->row);
    ret_row->source[0] = '\0';
    if (sqlite3_column_bytes(stmt, at) == OUTBOX_SOURCE_SIZE)
        wb_hex_encode(sqlite3_column_blob(stmt, at), OUTBOX_SOURCE_SIZE, ret_row->source);
    ret_row->n = sqlite3_column_int64(stmt, at + 1);
}

static wb_err source_prepare(struct replay_source *source, const char *scan, const char *row,
                             const char *last_id, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = NULL;
    wb_err err = db_prepare(source->db, scan, &source->scan, why);

    if (err == WB_OK)
        err = db_prepare(source->db, row, &source->row, why);
    if (err == WB_OK)
        err = db_prepare(source->db, last_id, &stmt, why);
    if (err == WB_OK && sqlite3_step(stmt) == SQLITE_ROW)
        source->last_id = sqlite3_column_int64(stmt, 0);
    (void)sqlite3_finalize(stmt);
    return err;
}

static struct replay_source *source_add(struct outbox_replay *self, struct db *db, bool archive)
{
    const struct outbox_replay_selection *selection = &self->selection;
    struct replay_source *source = &self->sources[self->source_count++];

    *source = (struct replay_source){.db = db, .archive = archive};
    source->at_id = selection->first_id > 0 ? selection->first_id - 1 : 0;
    source->at_n = INT64_MAX;
    return source;
}

static void source_bound(const struct outbox_replay *self, struct replay_source *source)
{
    if (self->selection.last_id > 0 && self->selection.last_id < source->last_id)
        source->last_id = self->selection.last_id;
}

wb_err outbox_replay_source_table(struct outbox_replay *self, struct wb_why *why)
{
    struct replay_source *source = source_add(self, self->db, false);
    wb_err err = source_prepare(source, table_scan, table_row,
                                "SELECT ifnull(max(id), 0) FROM main.outbox", why);

    if (err == WB_OK)
        err = db_prepare(self->db, "SELECT 1 FROM main.outbox WHERE id = ?1 AND msg_id = ?2",
                         &self->still_there, why);
    source_bound(self, source);
    return err;
}

wb_err outbox_replay_source_archive(struct outbox_replay *self, const char *path,
                                    struct wb_why *why)
{
    struct db *db = NULL;
    wb_err err =
        db_open(path, &(struct db_options){.must_exist = true, .read_only = true}, &db, why);

    if (err != WB_OK)
        return err;
    struct replay_source *source = source_add(self, db, true); /* closes it at the end */
    if (!outbox_retention_archive_is(db_handle(db)))
        return wb_fail(why, WB_NOT_FOUND, "%s is no archive of an outbox", path);
    err = source_prepare(source, archive_scan, archive_row,
                         "SELECT ifnull(max(id), 0) FROM main.outbox_archive", why);
    source_bound(self, source);
    return err;
}
