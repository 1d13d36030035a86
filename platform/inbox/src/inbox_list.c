/* What the consumers of a database have in their inboxes. */
#include "inbox_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <waybill/db.h>

enum { STREAMS_MAX = 4096 };

static wb_err prepare(struct sqlite3 *handle, const char *sql, struct wb_str consumer,
                      struct sqlite3_stmt **ret_stmt, struct wb_why *why)
{
    int code = sqlite3_prepare_v2(handle, sql, -1, ret_stmt, NULL);

    if (code != SQLITE_OK)
        return db_error(handle, code, "read the inbox", why);
    if (consumer.len > 0)
        db_bind_text(*ret_stmt, 1, consumer);
    return WB_OK;
}

/* Step; *ret_row is false at the end. */
static wb_err step(struct sqlite3 *handle, struct sqlite3_stmt *stmt, bool *ret_row,
                   struct wb_why *why)
{
    int code = sqlite3_step(stmt);

    *ret_row = code == SQLITE_ROW;
    return code == SQLITE_ROW || code == SQLITE_DONE
               ? WB_OK
               : db_error(handle, code, "read the inbox", why);
}

/* ---- counting -------------------------------------------------------------------------------- */

static uint64_t bits_set(const unsigned char *bytes, int count)
{
    uint64_t sum = 0;

    for (int i = 0; i < count; i++)
        for (unsigned byte = bytes[i]; byte != 0; byte &= byte - 1)
            sum++;
    return sum;
}

static wb_err count_pages(struct sqlite3 *handle, struct inbox_status *status, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = NULL;
    bool row = true;
    wb_err err = prepare(handle, "SELECT full, bits FROM inbox_page WHERE consumer = ?1",
                         status->consumer, &stmt, why);

    while (err == WB_OK && row) {
        err = step(handle, stmt, &row, why);
        if (err != WB_OK || !row)
            break;
        status->pages++;
        status->handled += (uint64_t)sqlite3_column_int64(stmt, 0) * INBOX_PAGE_ROWS +
                           bits_set(sqlite3_column_blob(stmt, 1), sqlite3_column_bytes(stmt, 1));
    }
    sqlite3_finalize(stmt);
    return err;
}

static wb_err count_rest(struct sqlite3 *handle, struct inbox_status *status, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = NULL;
    bool row = false;
    wb_err err =
        prepare(handle,
                "SELECT (SELECT count(*) FROM inbox_foreign WHERE consumer = ?1),"
                " (SELECT count(*) FROM inbox_failure WHERE consumer = ?1),"
                " (SELECT count(*) FROM dead_letter WHERE consumer = ?1 AND state = 'parked'),"
                " (SELECT count(*) FROM dead_letter WHERE consumer = ?1 AND state = 'retry')",
                status->consumer, &stmt, why);

    if (err == WB_OK)
        err = step(handle, stmt, &row, why);
    if (err == WB_OK && row) {
        status->foreign = (uint64_t)sqlite3_column_int64(stmt, 0);
        status->failing = (uint64_t)sqlite3_column_int64(stmt, 1);
        status->parked = (uint64_t)sqlite3_column_int64(stmt, 2);
        status->retry = (uint64_t)sqlite3_column_int64(stmt, 3);
    }
    sqlite3_finalize(stmt);
    return err;
}

/* ---- one consumer ---------------------------------------------------------------------------- */

/* The texts of streams point into names, which has room for all of them from the start. */
static wb_err read_streams(struct sqlite3 *handle, struct inbox_status *status,
                           struct inbox_stream_status *streams, struct wb_buf *names,
                           struct wb_why *why)
{
    struct sqlite3_stmt *stmt = NULL;
    bool row = true;
    size_t count = 0, at = 0;
    wb_err err =
        prepare(handle,
                "SELECT stream, sequence, created, (SELECT count(*) FROM inbox_anchor AS a"
                " WHERE a.consumer = ?1 AND a.stream = p.stream AND a.created = p.created),"
                " starts"
                " FROM inbox_position AS p WHERE consumer = ?1 ORDER BY stream",
                status->consumer, &stmt, why);

    while (err == WB_OK && row && count < STREAMS_MAX) {
        err = step(handle, stmt, &row, why);
        if (err != WB_OK || !row)
            break;
        struct wb_str name = db_column_text(stmt, 0);
        wb_buf_add(names, name.ptr, name.len);
        streams[count++] =
            (struct inbox_stream_status){.stream = {NULL, name.len},
                                         .sequence = (uint64_t)sqlite3_column_int64(stmt, 1),
                                         .stream_created_wall_ns = sqlite3_column_int64(stmt, 2),
                                         .anchors = (uint64_t)sqlite3_column_int64(stmt, 3),
                                         .starts = (uint64_t)sqlite3_column_int64(stmt, 4)};
    }
    sqlite3_finalize(stmt);
    if (err == WB_OK && names->failed)
        err = wb_fail(why, WB_NOMEM, "out of memory reading the inbox");
    for (size_t i = 0; err == WB_OK && i < count; at += streams[i++].stream.len)
        streams[i].stream.ptr = names->ptr + at;
    status->streams = streams;
    status->stream_count = count;
    return err;
}

/* "r:SOURCE:ROW" and "m:MSG_ID" as a person gives them; "d:7" is a dead letter. */
static struct wb_str event_name(struct wb_str text, struct wb_buf *out)
{
    const char *colon = text.len > 2 ? memchr(text.ptr + 2, ':', text.len - 2) : NULL;

    if (text.len < 2)
        return wb_str("");
    if (text.ptr[0] == 'd')
        wb_buf_str(out, "dead letter ");
    wb_buf_add(out, text.ptr + 2, text.len - 2);
    if (text.ptr[0] == 'r' && colon != NULL && !out->failed)
        out->ptr[out->len - text.len + (size_t)(colon - text.ptr)] = '/';
    return wb_str_n(out->ptr, out->failed ? 0 : out->len);
}

static wb_err read_start(struct sqlite3 *handle, struct inbox_status *status,
                         struct wb_buf *suspect, struct wb_buf *accused, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = NULL;
    bool row = false;
    wb_err err = prepare(
        handle, "SELECT starts, suspect, accused, crashes FROM inbox_start WHERE consumer = ?1",
        status->consumer, &stmt, why);

    if (err == WB_OK)
        err = step(handle, stmt, &row, why);
    if (err == WB_OK && row) {
        status->starts = (uint64_t)sqlite3_column_int64(stmt, 0);
        status->suspect = event_name(db_column_text(stmt, 1), suspect);
        status->accused = event_name(db_column_text(stmt, 2), accused);
        status->crashes = (uint64_t)sqlite3_column_int64(stmt, 3);
    }
    sqlite3_finalize(stmt);
    if (err == WB_OK && (suspect->failed || accused->failed))
        err = wb_fail(why, WB_NOMEM, "out of memory reading the inbox");
    return err;
}

static wb_err visit_consumer(struct sqlite3 *handle, struct wb_str consumer,
                             struct inbox_stream_status *streams, inbox_visit visit, void *ctx,
                             bool *ret_more, struct wb_why *why)
{
    struct inbox_status status = {.consumer = consumer};
    struct wb_buf names = {0}, suspect = {0}, accused = {0};
    wb_err err = count_pages(handle, &status, why);

    if (err == WB_OK)
        err = count_rest(handle, &status, why);
    if (err == WB_OK)
        err = read_streams(handle, &status, streams, &names, why);
    if (err == WB_OK)
        err = read_start(handle, &status, &suspect, &accused, why);
    if (err == WB_OK)
        *ret_more = visit(ctx, &status);
    wb_buf_free(&names);
    wb_buf_free(&suspect);
    wb_buf_free(&accused);
    return err;
}

/* ---- all of them ----------------------------------------------------------------------------- */

/* Each name is found by one step in an index, however many rows it has. */
static const char consumers[] =
    "WITH RECURSIVE name(n) AS (SELECT '' UNION ALL SELECT min("
    " ifnull((SELECT min(consumer) FROM inbox_position WHERE consumer > n), x'00'),"
    " ifnull((SELECT min(consumer) FROM inbox_page WHERE consumer > n), x'00'),"
    " ifnull((SELECT min(consumer) FROM inbox_foreign WHERE consumer > n), x'00'),"
    " ifnull((SELECT min(consumer) FROM inbox_start WHERE consumer > n), x'00'),"
    " ifnull((SELECT min(consumer) FROM dead_letter WHERE consumer > n), x'00'))"
    " FROM name WHERE typeof(n) = 'text') SELECT n FROM name WHERE typeof(n) = 'text' AND n <> ''";

wb_err inbox_list(struct sqlite3 *handle, inbox_visit visit, void *ctx, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = NULL;
    bool more = true;

    assert(handle != NULL);
    assert(visit != NULL);
    wb_err err = inbox_schema_require(handle, why);
    if (err != WB_OK)
        return err;
    struct inbox_stream_status *streams = calloc(STREAMS_MAX, sizeof(*streams));
    if (streams == NULL)
        return wb_fail(why, WB_NOMEM, "out of memory reading the inbox");
    err = prepare(handle, consumers, wb_str(NULL), &stmt, why);
    while (err == WB_OK && more) {
        err = step(handle, stmt, &more, why);
        if (err == WB_OK && more)
            err = visit_consumer(handle, db_column_text(stmt, 0), streams, visit, ctx, &more, why);
    }
    sqlite3_finalize(stmt);
    free(streams);
    return err;
}
