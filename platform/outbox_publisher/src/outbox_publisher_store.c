#include "outbox_publisher_store_private.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static wb_err statements_prepare(struct outbox_publisher_store *self, struct wb_why *why)
{
    wb_err err = WB_OK;

#define X(name, sql)                                                                               \
    if (err == WB_OK)                                                                              \
        err = db_prepare(self->db, sql, &self->name, why);
    STATEMENTS(X)
#undef X
    return err;
}

wb_err outbox_publisher_store_open(const char *path, struct outbox_publisher_store **ret_store,
                                   struct wb_why *why)
{
    struct outbox_publisher_store *self = calloc(1, sizeof(*self));

    if (self == NULL)
        return wb_fail(why, WB_NOMEM, "publisher of %s: out of memory", path);
    /* A mark that vanishes in a power cut is found again by settling: NORMAL is enough. */
    wb_err err = db_open(path, &(struct db_options){.sync = DB_SYNC_NORMAL}, &self->db, why);
    if (err == WB_OK)
        err = outbox_schema_prepare(db_handle(self->db), why);
    if (err == WB_OK) /* so that the revision of the exceptions counts what others change */
        (void)sqlite3_db_config(db_handle(self->db), SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
    if (err == WB_OK)
        err = statements_prepare(self, why);
    if (err != WB_OK) {
        outbox_publisher_store_close(self);
        return err;
    }
    *ret_store = self;
    return WB_OK;
}

void outbox_publisher_store_close(struct outbox_publisher_store *store)
{
    if (store == NULL)
        return;
#define X(name, sql) (void)sqlite3_finalize(store->name);
    STATEMENTS(X)
#undef X
    db_close(store->db);
    free(store);
}

struct db *outbox_publisher_store_db(struct outbox_publisher_store *store)
{
    return store->db;
}

wb_err outbox_publisher_still_holder(struct db *db, const char *stream, int64_t holder,
                                     struct wb_why *why)
{
    if (sqlite3_changes(db_handle(db)) > 0)
        return WB_OK;
    return wb_fail(why, WB_CONFLICT,
                   "another publisher has taken over stream %s of %s (we were holder %lld)", stream,
                   db_path(db), (long long)holder);
}

wb_err outbox_publisher_store_is_late(struct outbox_publisher_store *store, int64_t id,
                                      bool *ret_late, struct wb_why *why)
{
    (void)sqlite3_bind_int64(store->is_late, 1, id);
    int rc = sqlite3_step(store->is_late);
    *ret_late = rc == SQLITE_ROW;
    return db_statement_end(store->is_late, rc, "look for a row that was stored late", why);
}

/* ---- cursor ---------------------------------------------------------------------------------- */

static wb_err cursor_read(struct outbox_publisher_store *self, const char *stream,
                          struct outbox_publisher_cursor *ret_cursor, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = self->cursor_read;
    wb_err err = WB_OK;

    db_bind_text(stmt, 1, wb_str(stream));
    int rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW) {
        size_t len = (size_t)sqlite3_column_bytes(stmt, 2);
        *ret_cursor =
            (struct outbox_publisher_cursor){.last_id = sqlite3_column_int64(stmt, 0),
                                             .last_seq = (uint64_t)sqlite3_column_int64(stmt, 1),
                                             .last_msg_id_len = len <= MESSAGE_ID_MAX ? len : 0,
                                             .stream_created = sqlite3_column_int64(stmt, 3),
                                             .holder = sqlite3_column_int64(stmt, 4),
                                             .repairing = sqlite3_column_int64(stmt, 5),
                                             .starts = sqlite3_column_int64(stmt, 6),
                                             .suspect_id = sqlite3_column_int64(stmt, 7),
                                             .fenced_seq = (uint64_t)sqlite3_column_int64(stmt, 8)};
        if (ret_cursor->last_msg_id_len > 0)
            memcpy(ret_cursor->last_msg_id, sqlite3_column_blob(stmt, 2), len);
    } else if (rc == SQLITE_DONE) {
        err = wb_fail(why, WB_CONFLICT,
                      "the cursor of stream %s is gone from outbox_cursor in %s; another program "
                      "has deleted it",
                      stream, db_path(self->db));
    } else {
        err = db_error(db_handle(self->db), rc, "read the cursor of the outbox", why);
    }
    (void)sqlite3_reset(stmt);
    (void)sqlite3_clear_bindings(stmt);
    return err;
}

wb_err outbox_publisher_store_cursor(struct outbox_publisher_store *store, const char *stream,
                                     struct outbox_publisher_cursor *ret_cursor, struct wb_why *why)
{
    return cursor_read(store, stream, ret_cursor, why);
}

static wb_err suspect_set(struct outbox_publisher_store *self, const char *stream, int64_t holder,
                          int64_t id, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = self->suspect_set;

    db_bind_text(stmt, 1, wb_str(stream));
    (void)sqlite3_bind_int64(stmt, 2, holder);
    (void)sqlite3_bind_int64(stmt, 3, id);
    wb_err err = db_statement_run(stmt, "note the row that is sent next", why);
    return err == WB_OK ? outbox_publisher_still_holder(self->db, stream, holder, why) : err;
}

wb_err outbox_publisher_store_suspect(struct outbox_publisher_store *store, const char *stream,
                                      int64_t holder, int64_t id, struct wb_why *why)
{
    wb_err err = db_begin(store->db, why);

    if (err != WB_OK)
        return err;
    err = suspect_set(store, stream, holder, id, why);
    if (err == WB_OK)
        err = db_commit(store->db, why);
    db_rollback(store->db);
    return err;
}

static wb_err suspect_count(struct outbox_publisher_store *self, const char *stream, int64_t now_ms,
                            struct outbox_publisher_cursor *cursor, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = self->suspect_count;

    (void)sqlite3_bind_int64(stmt, 1, cursor->suspect_id);
    (void)sqlite3_bind_int64(stmt, 2, now_ms);
    db_bind_text(stmt, 3, wb_str("the process ended while it sent this row"));
    (void)sqlite3_bind_int(stmt, 4, OUTBOX_PUBLISHER_CRASHES_MAX);
    wb_err err = db_statement_run(stmt, "count the end of a process", why);
    if (err == WB_OK)
        err = suspect_set(self, stream, cursor->holder, 0, why);
    cursor->suspect_id = 0;
    return err;
}

static wb_err take_inside(struct outbox_publisher_store *self, const char *stream, int64_t now_ms,
                          struct outbox_publisher_cursor *ret_cursor, int64_t *ret_suspect,
                          struct wb_why *why)
{
    db_bind_text(self->cursor_make, 1, wb_str(stream));
    wb_err err = db_statement_run(self->cursor_make, "make the cursor of a stream", why);
    if (err != WB_OK)
        return err;
    db_bind_text(self->cursor_take, 1, wb_str(stream));
    (void)sqlite3_bind_int(self->cursor_take, 2, OUTBOX_PUBLISHER_STARTS_MAX);
    err = db_statement_run(self->cursor_take, "become the holder of a stream's cursor", why);
    if (err == WB_OK)
        err = cursor_read(self, stream, ret_cursor, why);
    if (err != WB_OK)
        return err;
    *ret_suspect = ret_cursor->suspect_id;
    return *ret_suspect != 0 ? suspect_count(self, stream, now_ms, ret_cursor, why) : WB_OK;
}

wb_err outbox_publisher_store_take(struct outbox_publisher_store *store, const char *stream,
                                   int64_t now_ms, struct outbox_publisher_cursor *ret_cursor,
                                   int64_t *ret_suspect, struct wb_why *why)
{
    struct outbox_publisher_cursor cursor = {.holder = 0};
    int64_t suspect = 0;
    wb_err err = db_begin(store->db, why);

    if (err != WB_OK)
        return err;
    err = take_inside(store, stream, now_ms, &cursor, &suspect, why);
    if (err == WB_OK)
        err = db_commit(store->db, why);
    db_rollback(store->db);
    if (err != WB_OK)
        return err;
    *ret_cursor = cursor;
    *ret_suspect = suspect;
    return WB_OK;
}

static wb_err cursor_write(struct outbox_publisher_store *self, const char *stream,
                           const struct outbox_publisher_cursor *cursor, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = self->cursor_write;

    db_bind_text(stmt, 1, wb_str(stream));
    (void)sqlite3_bind_int64(stmt, 2, cursor->holder);
    (void)sqlite3_bind_int64(stmt, 3, cursor->last_id);
    (void)sqlite3_bind_int64(stmt, 4, (int64_t)cursor->last_seq);
    (void)sqlite3_bind_blob(stmt, 5, cursor->last_msg_id, (int)cursor->last_msg_id_len,
                            SQLITE_STATIC);
    (void)sqlite3_bind_int64(stmt, 6, cursor->stream_created);
    (void)sqlite3_bind_int64(stmt, 7, cursor->repairing);
    (void)sqlite3_bind_int64(stmt, 8, cursor->starts);
    (void)sqlite3_bind_int64(stmt, 9, cursor->suspect_id);
    wb_err err = db_statement_run(stmt, "move the cursor of the outbox", why);
    return err == WB_OK ? outbox_publisher_still_holder(self->db, stream, cursor->holder, why)
                        : err;
}

/* It is stored behind younger ones; or its row is gone. */
static wb_err exception_end(struct outbox_publisher_store *self, const char *stream,
                            const struct outbox_publisher_exception *one, struct wb_why *why)
{
    (void)sqlite3_bind_int64(self->exception_delete, 1, one->id);
    wb_err err = db_statement_run(self->exception_delete, "delete an exception of the outbox", why);
    if (err != WB_OK || one->sequence == 0)
        return err;
    (void)sqlite3_bind_int64(self->late_write, 1, one->id);
    db_bind_text(self->late_write, 2, wb_str(stream));
    (void)sqlite3_bind_int64(self->late_write, 3, (int64_t)one->sequence);
    err = db_statement_run(self->late_write, "note a row that was stored late", why);
    return err == WB_OK
               ? db_statement_run(self->late_trim, "forget rows that were stored late", why)
               : err;
}

static wb_err exception_write(struct outbox_publisher_store *self, const char *stream,
                              const struct outbox_publisher_exception *one, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = self->exception_write;
    bool timed = one->state == OUTBOX_EXCEPTION_LOST || one->state == OUTBOX_EXCEPTION_WAITING ||
                 one->state == OUTBOX_EXCEPTION_RETRY;

    if (one->gone)
        return exception_end(self, stream, one, why);
    (void)sqlite3_bind_int64(stmt, 1, one->id);
    db_bind_text(stmt, 2, wb_str(outbox_exception_state_name(one->state)));
    (void)sqlite3_bind_int64(stmt, 3, one->attempts);
    if (timed)
        (void)sqlite3_bind_int64(stmt, 4, one->next_ms);
    db_bind_text(stmt, 5, wb_str(one->error != NULL ? one->error : ""));
    (void)sqlite3_bind_int(stmt, 6, one->resent);
    return db_statement_run(stmt, "write an exception of the outbox", why);
}

static wb_err write_inside(struct outbox_publisher_store *self, const char *stream,
                           const struct outbox_publisher_cursor *cursor,
                           const struct outbox_publisher_exceptions *exceptions, struct wb_why *why)
{
    size_t left = exceptions->dirty;
    wb_err err = cursor_write(self, stream, cursor, why);

    for (size_t i = exceptions->count; err == WB_OK && left > 0 && i-- > 0;) {
        if (!exceptions->list[i].dirty)
            continue;
        left--;
        err = exception_write(self, stream, &exceptions->list[i], why);
    }
    return err;
}

wb_err outbox_publisher_store_write(struct outbox_publisher_store *store, const char *stream,
                                    const struct outbox_publisher_cursor *cursor,
                                    struct outbox_publisher_exceptions *exceptions,
                                    struct wb_why *why)
{
    wb_err err = db_begin(store->db, why);

    if (err != WB_OK)
        return err;
    err = write_inside(store, stream, cursor, exceptions, why);
    if (err == WB_OK)
        err = db_commit(store->db, why);
    db_rollback(store->db);
    if (err == WB_OK)
        outbox_publisher_exceptions_written(exceptions);
    return err;
}

/* ---- sources --------------------------------------------------------------------------------- */

wb_err outbox_publisher_store_sources(struct outbox_publisher_store *store,
                                      struct outbox_publisher_sources *sources, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = store->sources;
    int rc = SQLITE_DONE;

    sources->count = 0;
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        struct outbox_publisher_source *list =
            realloc(sources->list, (sources->count + 1) * sizeof(*list));
        if (list == NULL) {
            (void)sqlite3_reset(stmt);
            return wb_fail(why, WB_NOMEM, "read the sources of the outbox: out of memory");
        }
        sources->list = list;
        const void *source = sqlite3_column_blob(stmt, 1);
        if (source == NULL || sqlite3_column_bytes(stmt, 1) != OUTBOX_SOURCE_SIZE) {
            (void)sqlite3_reset(stmt);
            return wb_fail(why, WB_CORRUPT,
                           "read the sources of the outbox: one is not of %d bytes; run PRAGMA "
                           "integrity_check",
                           OUTBOX_SOURCE_SIZE);
        }
        list[sources->count].from_id = sqlite3_column_int64(stmt, 0);
        wb_hex_encode(source, OUTBOX_SOURCE_SIZE, list[sources->count].text);
        sources->count++;
    }
    return db_statement_end(stmt, rc, "read the sources of the outbox", why);
}

const char *outbox_publisher_source_of(const struct outbox_publisher_sources *sources, int64_t id)
{
    for (size_t i = sources->count; i-- > 0;)
        if (sources->list[i].from_id <= id)
            return sources->list[i].text;
    return "";
}

/* ---- rows ------------------------------------------------------------------------------------ */

static wb_err visit_rows(struct sqlite3_stmt *stmt, outbox_publisher_visit visit, void *ctx,
                         size_t *ret_count, struct wb_why *why)
{
    int rc = SQLITE_DONE;

    *ret_count = 0;
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        struct outbox_row row;
        outbox_row_read(stmt, &row);
        if (sqlite3_column_int(stmt, OUTBOX_ROW_COLUMN_COUNT) != 0)
            row.state = OUTBOX_WAITING; /* for whatever reason */
        ++*ret_count;
        if (!visit(ctx, &row))
            break;
    }
    return db_statement_end(stmt, rc, "read rows of the outbox", why);
}

wb_err outbox_publisher_store_rows(struct outbox_publisher_store *store, int64_t after_id,
                                   size_t limit, outbox_publisher_visit visit, void *ctx,
                                   struct wb_why *why)
{
    size_t count;

    (void)sqlite3_bind_int64(store->rows, 1, after_id);
    (void)sqlite3_bind_int64(store->rows, 2, (int64_t)limit);
    return visit_rows(store->rows, visit, ctx, &count, why);
}

wb_err outbox_publisher_store_row(struct outbox_publisher_store *store, int64_t id,
                                  outbox_publisher_visit visit, void *ctx, bool *ret_found,
                                  struct wb_why *why)
{
    size_t count;

    (void)sqlite3_bind_int64(store->row, 1, id);
    wb_err err = visit_rows(store->row, visit, ctx, &count, why);
    *ret_found = count > 0;
    return err;
}

wb_err outbox_publisher_store_heads(struct outbox_publisher_store *store, int64_t after_id,
                                    int64_t last_id, outbox_publisher_visit visit, void *ctx,
                                    struct wb_why *why)
{
    size_t count;

    (void)sqlite3_bind_int64(store->heads, 1, after_id);
    (void)sqlite3_bind_int64(store->heads, 2, last_id);
    return visit_rows(store->heads, visit, ctx, &count, why);
}

wb_err outbox_publisher_store_msg_id(struct outbox_publisher_store *store, int64_t id,
                                     uint8_t ret_msg_id[WB_ID_SIZE], bool *ret_found,
                                     struct wb_why *why)
{
    struct sqlite3_stmt *stmt = store->msg_id;

    (void)sqlite3_bind_int64(stmt, 1, id);
    int rc = sqlite3_step(stmt);
    *ret_found = rc == SQLITE_ROW && sqlite3_column_bytes(stmt, 0) == WB_ID_SIZE;
    if (*ret_found)
        memcpy(ret_msg_id, sqlite3_column_blob(stmt, 0), WB_ID_SIZE);
    return db_statement_end(stmt, rc, "read the identity of a row of the outbox", why);
}

/* Calls visit with each; *ret_stopped: it did not want more. */
static wb_err exceptions_visit(struct sqlite3_stmt *stmt, outbox_publisher_visit_exception visit,
                               void *ctx, bool *ret_stopped, struct wb_why *why)
{
    bool go_on = true;
    int rc = SQLITE_DONE;

    while (go_on && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        struct outbox_publisher_exception one = {
            .id = sqlite3_column_int64(stmt, 0),
            .attempts = (uint32_t)sqlite3_column_int64(stmt, 2),
            .next_ms = sqlite3_column_int64(stmt, 3),
            .resent = sqlite3_column_int(stmt, 4) != 0,
            .crashes = (uint32_t)sqlite3_column_int64(stmt, 8)};
        const struct outbox_row row = {.id = one.id,
                                       .stream = db_column_text(stmt, 5),
                                       .key = db_column_text(stmt, 6),
                                       .subject = db_column_text(stmt, 7)};
        one.key_hash = outbox_publisher_key_hash(row.key);
        if (outbox_exception_state_parse(db_column_text(stmt, 1), &one.state))
            go_on = visit(ctx, &row, &one);
    }
    *ret_stopped = !go_on;
    return db_statement_end(stmt, rc, "read the exceptions of the outbox", why);
}

wb_err outbox_publisher_store_exceptions(struct outbox_publisher_store *store,
                                         outbox_publisher_visit_exception visit, void *ctx,
                                         struct wb_why *why)
{
    bool stopped = false;
    wb_err err = exceptions_visit(store->exceptions, visit, ctx, &stopped, why);

    if (err == WB_OK && stopped)
        err = wb_fail(why, WB_NOMEM, "read the exceptions of the outbox: out of memory");
    return err;
}

wb_err outbox_publisher_store_lost(struct outbox_publisher_store *store, int64_t after_id,
                                   outbox_publisher_visit_exception visit, void *ctx,
                                   struct wb_why *why)
{
    bool stopped = false;

    (void)sqlite3_bind_int64(store->lost, 1, after_id);
    return exceptions_visit(store->lost, visit, ctx, &stopped, why);
}

wb_err outbox_publisher_store_measure(struct outbox_publisher_store *store, int64_t after_id,
                                      int64_t *ret_last_id, int64_t *ret_created_ms,
                                      struct wb_why *why)
{
    (void)sqlite3_bind_int64(store->measure, 1, after_id);
    int rc = sqlite3_step(store->measure);
    if (rc == SQLITE_ROW) {
        *ret_last_id = sqlite3_column_int64(store->measure, 0);
        *ret_created_ms = sqlite3_column_int64(store->measure, 1);
    }
    return db_statement_end(store->measure, rc, "measure the outbox", why);
}
