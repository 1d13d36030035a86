/* test_db.h - one number out of a database, for tests that look into one. */
#ifndef TEST_DB_H
#define TEST_DB_H

#include <sqlite3.h>

#include "test_support.h"

#include <waybill/db.h>

/* The first column of the first row, which there must be. */
static inline int64_t test_query(struct db *db, const char *sql)
{
    struct sqlite3_stmt *stmt = NULL;

    assert_ok(db_prepare(db, sql, &stmt, NULL));
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    int64_t value = sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    return value;
}

/* The same by a connection of its own. */
static inline int64_t test_query_file(const char *path, const char *sql)
{
    struct db *db = NULL;

    assert_ok(db_open(path, NULL, &db, NULL));
    int64_t value = test_query(db, sql);
    db_close(db);
    return value;
}

#endif /* TEST_DB_H */
