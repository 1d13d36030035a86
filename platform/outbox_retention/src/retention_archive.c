/*
 * The archive: a second file that rows are copied to before they go. Append-only; a row is there
 * once, whatever happened between its copy and its deletion.
 */
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#include "retention.h"

#include <waybill/subject.h>

#define LIST_LIMIT 1000

static const char schema_1[] =
    "CREATE TABLE outbox_archive("
    " n INTEGER PRIMARY KEY," /* in the order in which rows went */
    " id INTEGER NOT NULL,"
    " source BLOB NOT NULL,"
    " state TEXT NOT NULL,"          /* '' published; else as in outbox_exception */
    " archived_at INTEGER NOT NULL," /* ms */
    " stream TEXT NOT NULL,"
    " key TEXT NOT NULL,"
    " subject TEXT NOT NULL,"
    " headers TEXT NOT NULL,"
    " msg_id BLOB NOT NULL,"
    " due_at INTEGER,"
    " expires_at INTEGER,"
    " created INTEGER NOT NULL,"
    " traceparent TEXT NOT NULL,"
    /* What an operator had it sent as; NULL: as it was. */
    " edit_subject TEXT,"
    " edit_headers TEXT,"
    " edit_payload BLOB,"
    " payload BLOB NOT NULL,"
    " UNIQUE(id, msg_id));"
    "CREATE TRIGGER outbox_archive_keeps BEFORE DELETE ON outbox_archive BEGIN"
    " SELECT RAISE(ABORT, 'an archive is only added to'); END;"
    "CREATE TRIGGER outbox_archive_fixed BEFORE UPDATE ON outbox_archive BEGIN"
    " SELECT RAISE(ABORT, 'an archive is only added to'); END;";

static const struct db_migration steps[] = {{.sql = schema_1}};

#define COPIED_COLUMNS                                                                             \
    "id, source, state, archived_at, stream, key, subject, headers, msg_id, due_at, expires_at,"   \
    " created, traceparent, edit_subject, edit_headers, edit_payload, payload"
enum { COPIED_COUNT = 17 };

static const char insert_sql[] = "INSERT OR IGNORE INTO outbox_archive(" COPIED_COLUMNS
                                 ") VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13,"
                                 " ?14, ?15, ?16, ?17)";
static const char select_sql[] =
    "SELECT o.id, (SELECT s.source FROM main.outbox_source s WHERE s.from_id <= o.id"
    " ORDER BY s.from_id DESC LIMIT 1), ifnull(e.state, ''), ?2, o.stream, o.key, o.subject,"
    " o.headers, o.msg_id, o.due_at, o.expires_at, o.created, o.traceparent, d.subject, d.headers,"
    " d.payload, o.payload FROM main.outbox o"
    " LEFT JOIN main.outbox_exception e ON e.id = o.id"
    " LEFT JOIN main.outbox_edit d ON d.id = o.id WHERE o.id = ?1";

struct retention_archive {
    struct db *db;
    struct sqlite3_stmt *insert;
};

wb_err outbox_retention_archive_open(const char *path, struct retention_archive **ret_archive,
                                     struct wb_why *why)
{
    struct retention_archive *self = calloc(1, sizeof(*self));

    if (self == NULL)
        return wb_fail(why, WB_NOMEM, "open the archive %s: out of memory", path);
    /* FULL: what is copied must survive a power cut before it goes from where it was. */
    wb_err err = db_open(path, &(struct db_options){.sync = DB_SYNC_FULL}, &self->db, why);
    if (err == WB_OK)
        err = db_migrate(db_handle(self->db), "outbox_archive", steps,
                         sizeof(steps) / sizeof(steps[0]), why);
    if (err == WB_OK)
        err = db_prepare(self->db, insert_sql, &self->insert, why);
    if (err != WB_OK) {
        outbox_retention_archive_close(self);
        return err;
    }
    *ret_archive = self;
    return WB_OK;
}

void outbox_retention_archive_close(struct retention_archive *archive)
{
    if (archive == NULL)
        return;
    db_close(archive->db);
    free(archive);
}

static wb_err insert_from(struct retention_archive *self, struct sqlite3_stmt *row,
                          uint64_t *copied, struct wb_why *why)
{
    wb_err err = WB_OK;

    for (int i = 0; i < COPIED_COUNT; i++)
        if (sqlite3_bind_value(self->insert, i + 1, sqlite3_column_value(row, i)) != SQLITE_OK)
            err = wb_fail(why, WB_NOMEM, "copy a row into the archive: out of memory");
    int rc = err == WB_OK ? sqlite3_step(self->insert) : SQLITE_DONE;
    if (rc != SQLITE_DONE)
        err = db_error(db_handle(self->db), rc, "copy a row into the archive", why);
    else if (err == WB_OK)
        *copied += (uint64_t)sqlite3_changes(db_handle(self->db));
    (void)sqlite3_reset(self->insert);
    return err;
}

static wb_err copy_inside(struct retention_archive *self, struct sqlite3_stmt *select,
                          struct sqlite3 *from, const struct retention_victim *victims,
                          size_t count, uint64_t *copied, struct wb_why *why)
{
    wb_err err = WB_OK;

    for (size_t i = 0; err == WB_OK && i < count; i++) {
        (void)sqlite3_bind_int64(select, 1, victims[i].id);
        int rc = sqlite3_step(select);
        if (rc == SQLITE_ROW)
            err = insert_from(self, select, copied, why);
        else if (rc != SQLITE_DONE) /* somebody else may have purged it */
            err = db_error(from, rc, "read a row for the archive", why);
        (void)sqlite3_reset(select);
    }
    return err;
}

wb_err outbox_retention_archive_copy(struct retention_archive *archive, struct db *from,
                                     const struct retention_victim *victims, size_t count,
                                     int64_t now_wall_ns, uint64_t *ret_copied, struct wb_why *why)
{
    struct sqlite3_stmt *select = NULL;
    uint64_t copied = 0;
    wb_err err = db_prepare(from, select_sql, &select, why);

    if (err != WB_OK)
        return err;
    (void)sqlite3_bind_int64(select, 2, now_wall_ns / WB_MS);
    err = db_begin(archive->db, why);
    if (err == WB_OK) {
        err = copy_inside(archive, select, db_handle(from), victims, count, &copied, why);
        if (err == WB_OK)
            err = db_commit(archive->db, why);
        db_rollback(archive->db);
    }
    (void)sqlite3_finalize(select);
    if (err == WB_OK)
        *ret_copied = copied;
    return err;
}

/* ---- reading --------------------------------------------------------------------------------- */

/* In the order of outbox_row_read(), as it was sent. */
#define READ_SQL(rest)                                                                             \
    "SELECT o.id, o.stream, o.key, ifnull(o.edit_subject, o.subject),"                             \
    " ifnull(o.edit_headers, o.headers), o.msg_id, o.due_at, o.expires_at, o.created,"             \
    " o.traceparent, ifnull(o.edit_payload, o.payload), o.source, o.state, o.archived_at,"         \
    " o.edit_subject IS NOT NULL FROM main.outbox_archive o " rest

bool outbox_retention_archive_is(struct sqlite3 *handle)
{
    unsigned version = 0;

    return db_schema_version(handle, "outbox_archive", &version, NULL) == WB_OK && version > 0;
}

static wb_err prepare(struct sqlite3 *handle, const char *sql, struct sqlite3_stmt **ret_stmt,
                      struct wb_why *why)
{
    unsigned version = 0;
    wb_err err = db_schema_version(handle, "outbox_archive", &version, why);

    if (err != WB_OK)
        return err;
    if (version == 0)
        return wb_fail(why, WB_NOT_FOUND, "%s is no archive of an outbox",
                       sqlite3_db_filename(handle, "main"));
    if (version > sizeof(steps) / sizeof(steps[0]))
        return wb_fail(why, WB_UNSUPPORTED, "the archive %s has version %u: use the newer program",
                       sqlite3_db_filename(handle, "main"), version);
    int rc = sqlite3_prepare_v2(handle, sql, -1, ret_stmt, NULL);
    return db_error(handle, rc, "read the archive", why);
}

static void row_read(struct sqlite3_stmt *stmt, struct outbox_retention_archive_row *ret_row)
{
    const int at = OUTBOX_ROW_COLUMN_COUNT;

    outbox_row_read(stmt, &ret_row->row);
    ret_row->source[0] = '\0';
    if (sqlite3_column_bytes(stmt, at) == OUTBOX_SOURCE_SIZE)
        wb_hex_encode(sqlite3_column_blob(stmt, at), OUTBOX_SOURCE_SIZE, ret_row->source);
    ret_row->row.state =
        sqlite3_column_bytes(stmt, at + 1) == 0 ? OUTBOX_PUBLISHED : OUTBOX_EXPIRED;
    ret_row->archived_wall_ns = sqlite3_column_int64(stmt, at + 2) * WB_MS;
    ret_row->edited = sqlite3_column_int(stmt, at + 3) != 0;
}

wb_err outbox_retention_archive_list(struct sqlite3 *handle, const struct outbox_filter *filter,
                                     outbox_retention_archive_visit visit, void *ctx,
                                     struct wb_why *why)
{
    struct sqlite3_stmt *stmt = NULL;
    size_t left = filter->limit > 0 ? filter->limit : LIST_LIMIT;
    int rc = SQLITE_ROW;
    wb_err err = prepare(handle, READ_SQL("WHERE o.id > ?1 ORDER BY o.n"), &stmt, why);

    if (err == WB_OK && filter->pattern.len > 0)
        err = subject_pattern_check(filter->pattern, why);
    if (err != WB_OK) {
        (void)sqlite3_finalize(stmt);
        return err;
    }
    (void)sqlite3_bind_int64(stmt, 1, filter->after_id);
    while (left > 0 && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        struct outbox_retention_archive_row row;
        row_read(stmt, &row);
        if (filter->pattern.len > 0 && !(subject_check(row.row.subject, NULL) == WB_OK &&
                                         subject_matches(filter->pattern, row.row.subject)))
            continue;
        left--;
        if (!visit(ctx, &row))
            break;
    }
    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        err = db_error(handle, rc, "read the archive", why);
    (void)sqlite3_finalize(stmt);
    return err;
}

wb_err outbox_retention_archive_show(struct sqlite3 *handle, struct wb_str id,
                                     outbox_retention_archive_visit visit, void *ctx,
                                     struct wb_why *why)
{
    struct sqlite3_stmt *stmt = NULL;
    uint8_t msg_id[WB_ID_SIZE];
    uint64_t number = 0;
    bool by_msg_id = wb_hex_decode(id, msg_id, sizeof(msg_id));

    if (!by_msg_id && (!wb_str_to_u64(id, &number) || number > INT64_MAX))
        return wb_fail(why, WB_INVALID,
                       "show row '%.*s' of the archive: expected its number, or the 32 hex digits "
                       "of its msg_id",
                       (int)id.len, id.ptr);
    wb_err err = prepare(handle,
                         by_msg_id ? READ_SQL("WHERE o.msg_id = ?1 LIMIT 1")
                                   : READ_SQL("WHERE o.id = ?1 ORDER BY o.n DESC LIMIT 1"),
                         &stmt, why);
    if (err != WB_OK)
        return err;
    if (by_msg_id)
        (void)sqlite3_bind_blob(stmt, 1, msg_id, sizeof(msg_id), SQLITE_STATIC);
    else
        (void)sqlite3_bind_int64(stmt, 1, (int64_t)number);
    int rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW) {
        struct outbox_retention_archive_row row;
        row_read(stmt, &row);
        (void)visit(ctx, &row);
    } else if (rc == SQLITE_DONE) {
        err = wb_fail(why, WB_NOT_FOUND, "the archive has no row '%.*s'", (int)id.len, id.ptr);
    } else {
        err = db_error(handle, rc, "read a row of the archive", why);
    }
    (void)sqlite3_finalize(stmt);
    return err;
}
