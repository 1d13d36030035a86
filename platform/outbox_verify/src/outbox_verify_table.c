#include "outbox_verify_table.h"

#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <waybill/db.h>
#include <waybill/outbox_impl.h>
#include <waybill/subject.h>

/* A row that a person has mended is sent as the edit says. */
static const char range_sql[] =
    "SELECT o.id, o.msg_id, o.stream, ifnull(e.subject, o.subject), x.id IS NOT NULL, l.sequence"
    " FROM outbox o LEFT JOIN outbox_edit e ON e.id = o.id"
    " LEFT JOIN outbox_exception x ON x.id = o.id LEFT JOIN outbox_late l ON l.row_id = o.id"
    " WHERE o.id >= ?1 AND o.id <= ?2 ORDER BY o.id";

/* ---- beginning and end ----------------------------------------------------------------------- */

/* Prepare a statement and take the first step; *ret_row false when there is no row. */
static wb_err first_row(struct db *db, const char *sql, const char *text,
                        struct sqlite3_stmt **ret_stmt, bool *ret_row, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = NULL;
    wb_err err = db_prepare(db, sql, &stmt, why);

    if (err != WB_OK)
        return err;
    if (text != NULL)
        db_bind_text(stmt, 1, wb_str(text));
    int rc = sqlite3_step(stmt);
    if (rc != SQLITE_ROW && rc != SQLITE_DONE) {
        err = db_error(db_handle(db), rc, sql, why);
        (void)sqlite3_finalize(stmt);
        return err;
    }
    *ret_row = rc == SQLITE_ROW;
    *ret_stmt = stmt;
    return WB_OK;
}

static wb_err read_cursor(struct outbox_verify_table *table, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = NULL;
    bool found = false;
    wb_err err = first_row(table->db,
                           "SELECT last_id, last_seq, stream_created, verified_id"
                           " FROM outbox_cursor WHERE stream = ?1",
                           table->stream, &stmt, &found, why);

    if (err != WB_OK)
        return err;
    if (found)
        table->cursor =
            (struct outbox_verify_cursor){.last_id = sqlite3_column_int64(stmt, 0),
                                          .last_seq = (uint64_t)sqlite3_column_int64(stmt, 1),
                                          .stream_created = sqlite3_column_int64(stmt, 2),
                                          .verified_id = sqlite3_column_int64(stmt, 3)};
    else
        err = wb_fail(why, WB_NOT_FOUND,
                      "the outbox in %s has never published to stream %s: there is nothing to "
                      "compare",
                      db_path(table->db), table->stream);
    (void)sqlite3_finalize(stmt);
    return err;
}

static wb_err read_span(struct outbox_verify_table *table, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = NULL;
    bool found = false;
    wb_err err = first_row(table->db,
                           "SELECT ifnull((SELECT min(id) FROM outbox), 0),"
                           " ifnull((SELECT max(id) FROM outbox), 0)",
                           NULL, &stmt, &found, why);

    if (err != WB_OK)
        return err;
    table->first_id = sqlite3_column_int64(stmt, 0);
    table->newest_id = sqlite3_column_int64(stmt, 1);
    (void)sqlite3_finalize(stmt);
    return WB_OK;
}

static uint64_t source_number(const uint8_t bytes[OUTBOX_SOURCE_SIZE])
{
    uint64_t number = 0;

    for (size_t i = 0; i < OUTBOX_SOURCE_SIZE; i++)
        number = number << 8 | bytes[i];
    return number;
}

static wb_err add_source(struct outbox_verify_table *table, struct sqlite3_stmt *stmt,
                         struct wb_why *why)
{
    void *more = realloc(table->sources, (table->source_count + 1) * sizeof(*table->sources));

    if (more == NULL)
        return wb_fail(why, WB_NOMEM, "read the sources of the outbox: out of memory");
    table->sources = more;
    table->sources[table->source_count].from_id = sqlite3_column_int64(stmt, 0);
    table->sources[table->source_count++].source = source_number(sqlite3_column_blob(stmt, 1));
    return WB_OK;
}

static wb_err read_sources(struct outbox_verify_table *table, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = NULL;
    bool found = false;
    wb_err err = first_row(table->db, "SELECT from_id, source FROM outbox_source ORDER BY from_id",
                           NULL, &stmt, &found, why);

    if (err != WB_OK)
        return err;
    while (err == WB_OK && found) {
        err = add_source(table, stmt, why);
        int rc = sqlite3_step(stmt);
        found = rc == SQLITE_ROW;
        if (err == WB_OK && rc != SQLITE_ROW && rc != SQLITE_DONE)
            err = db_error(db_handle(table->db), rc, "read the sources of the outbox", why);
    }
    (void)sqlite3_finalize(stmt);
    return err;
}

static void take_patterns(struct outbox_verify_table *table, const char *subjects)
{
    const char *at = table->subjects;

    (void)snprintf(table->subjects, sizeof(table->subjects), "%s", subjects);
    while (*(at += strspn(at, " ")) != '\0' && table->pattern_count < OUTBOX_VERIFY_PATTERNS) {
        size_t len = strcspn(at, " ");
        table->patterns[table->pattern_count++] = wb_str_n(at, len);
        at += len;
    }
}

wb_err outbox_verify_table_open(struct outbox_verify_table *table, struct db *db,
                                const char *stream, const char *subjects, struct wb_why *why)
{
    *table = (struct outbox_verify_table){.db = db, .stream = stream};
    take_patterns(table, subjects);
    wb_err err = outbox_schema_require(db_handle(db), why);
    if (err == WB_OK && sqlite3_db_readonly(db_handle(db), "main") == 0)
        err = outbox_schema_prepare(db_handle(db), why); /* tables of an older program */
    if (err == WB_OK)
        err = db_prepare(db, range_sql, &table->range, why);
    if (err == WB_OK)
        err = read_cursor(table, why);
    if (err == WB_OK)
        err = read_span(table, why);
    if (err == WB_OK)
        err = read_sources(table, why);
    if (err != WB_OK)
        outbox_verify_table_close(table);
    return err;
}

void outbox_verify_table_close(struct outbox_verify_table *table)
{
    (void)sqlite3_finalize(table->range);
    free(table->sources);
    table->range = NULL;
    table->sources = NULL;
}

/* ---- sources --------------------------------------------------------------------------------- */

bool outbox_verify_source_known(const struct outbox_verify_table *table, uint64_t source)
{
    for (size_t i = table->source_count; i-- > 0;)
        if (table->sources[i].source == source)
            return true;
    return false;
}

uint64_t outbox_verify_source_of(const struct outbox_verify_table *table, int64_t id)
{
    for (size_t i = table->source_count; i-- > 0;)
        if (table->sources[i].from_id <= id)
            return table->sources[i].source;
    return 0;
}

/* ---- rows ------------------------------------------------------------------------------------ */

static bool matches_any(const struct outbox_verify_table *table, struct wb_str subject)
{
    for (size_t i = 0; i < table->pattern_count; i++)
        if (subject_matches(table->patterns[i], subject))
            return true;
    return false;
}

/* Neighbours often have one subject: the last answer is kept. */
static bool covers(struct outbox_verify_table *table, struct wb_str subject)
{
    if (wb_str_eq(subject, wb_str_n(table->subject, table->subject_len)))
        return table->covered;
    bool covered = subject_check(subject, NULL) == WB_OK && matches_any(table, subject);
    if (subject.len <= sizeof(table->subject)) {
        memcpy(table->subject, subject.ptr, subject.len);
        table->subject_len = subject.len;
        table->covered = covered;
    }
    return covered;
}

static void take_row(struct outbox_verify_table *table, int64_t id, struct outbox_verify_row *row)
{
    struct sqlite3_stmt *stmt = table->range;
    struct wb_str named = db_column_text(stmt, 2);
    bool excepted = sqlite3_column_int(stmt, 4) != 0;

    row->state = OUTBOX_VERIFY_OTHER;
    if (sqlite3_column_bytes(stmt, 1) == WB_ID_SIZE)
        memcpy(row->msg_id, sqlite3_column_blob(stmt, 1), WB_ID_SIZE);
    row->late_seq = (uint64_t)sqlite3_column_int64(stmt, 5);
    if (id <= table->cursor.last_id && !excepted &&
        (named.len == 0 || wb_str_eq(named, wb_str(table->stream))) &&
        covers(table, db_column_text(stmt, 3)))
        row->state = OUTBOX_VERIFY_DUE;
}

wb_err outbox_verify_rows(struct outbox_verify_table *table, int64_t first, size_t count,
                          struct outbox_verify_row *rows, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = table->range;
    int rc;

    memset(rows, 0, count * sizeof(*rows));
    (void)sqlite3_bind_int64(stmt, 1, first);
    (void)sqlite3_bind_int64(stmt, 2, first + (int64_t)count - 1);
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        int64_t id = sqlite3_column_int64(stmt, 0);
        take_row(table, id, &rows[id - first]);
    }
    return db_statement_end(stmt, rc, "read rows of the outbox", why);
}
