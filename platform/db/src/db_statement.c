/* Preparing, binding, running and reading statements. */
#include "db_internal.h"

#include <sqlite3.h>
#include <stdio.h>

wb_err db_exec(struct db *db, const char *sql, struct wb_why *why)
{
    int code = sqlite3_exec(db->handle, sql, NULL, NULL, NULL);

    if (code == SQLITE_OK)
        return WB_OK;
    char attempted[96];
    snprintf(attempted, sizeof(attempted), "run '%.80s'", sql);
    return db_error(db->handle, code, attempted, why);
}

wb_err db_prepare(struct db *db, const char *sql, struct sqlite3_stmt **ret_stmt,
                  struct wb_why *why)
{
    struct sqlite3_stmt *stmt = NULL;
    int code = sqlite3_prepare_v3(db->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, &stmt, NULL);

    if (code != SQLITE_OK) {
        char attempted[96];
        snprintf(attempted, sizeof(attempted), "prepare '%.80s'", sql);
        return db_error(db->handle, code, attempted, why);
    }
    *ret_stmt = stmt;
    return WB_OK;
}

int db_bind_text(struct sqlite3_stmt *stmt, int index, struct wb_str text)
{
    return sqlite3_bind_text64(stmt, index, text.len > 0 ? text.ptr : "", text.len, SQLITE_STATIC,
                               SQLITE_UTF8);
}

struct wb_str db_column_text(struct sqlite3_stmt *stmt, int column)
{
    const char *text = (const char *)sqlite3_column_text(stmt, column);

    return wb_str_n(text, (size_t)sqlite3_column_bytes(stmt, column));
}

wb_err db_statement_end(struct sqlite3_stmt *stmt, int code, const char *attempted,
                        struct wb_why *why)
{
    wb_err err = db_error(sqlite3_db_handle(stmt), code, attempted, why);

    (void)sqlite3_reset(stmt);
    (void)sqlite3_clear_bindings(stmt);
    return err;
}

wb_err db_statement_run(struct sqlite3_stmt *stmt, const char *attempted, struct wb_why *why)
{
    return db_statement_end(stmt, sqlite3_step(stmt), attempted, why);
}
