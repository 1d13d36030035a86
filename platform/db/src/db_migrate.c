#include <waybill/db.h>

#include <assert.h>
#include <sqlite3.h>
#include <stdio.h>

/* A statement with the component's name as its first parameter. */
static wb_err prepare_for(struct sqlite3 *handle, const char *sql, const char *component,
                          struct sqlite3_stmt **ret_stmt, struct wb_why *why)
{
    int code = sqlite3_prepare_v2(handle, sql, -1, ret_stmt, NULL);

    if (code == SQLITE_OK)
        code = sqlite3_bind_text(*ret_stmt, 1, component, -1, SQLITE_STATIC);
    return db_error(handle, code, "prepare to read the schema version", why);
}

/* First column of the first row; *ret_value stays when there is none. */
static wb_err query_int(struct sqlite3 *handle, const char *sql, const char *parameter,
                        int64_t *ret_value, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = NULL;
    wb_err err = prepare_for(handle, sql, parameter, &stmt, why);

    if (err == WB_OK) {
        int code = sqlite3_step(stmt);
        if (code == SQLITE_ROW)
            *ret_value = sqlite3_column_int64(stmt, 0);
        err = db_error(handle, code, "read the schema version", why);
    }
    sqlite3_finalize(stmt);
    return err;
}

wb_err db_schema_version(struct sqlite3 *handle, const char *component, unsigned *ret_version,
                         struct wb_why *why)
{
    int64_t tables = 0, version = 0;

    assert(handle != NULL);
    assert(component != NULL);
    assert(ret_version != NULL);
    wb_err err =
        query_int(handle, "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1",
                  "waybill_schema", &tables, why);
    if (err == WB_OK && tables > 0)
        err = query_int(handle, "SELECT version FROM waybill_schema WHERE component = ?1",
                        component, &version, why);
    if (err != WB_OK)
        return err;
    if (version < 0 || version > 1000000)
        return wb_fail(why, WB_CORRUPT,
                       "the schema version of %s is %lld; expected a small number; restore the "
                       "database from a backup",
                       component, (long long)version);
    *ret_version = (unsigned)version;
    return WB_OK;
}

static wb_err run(struct sqlite3 *handle, const char *sql, const char *component, unsigned version,
                  struct wb_why *why)
{
    int code = sqlite3_exec(handle, sql, NULL, NULL, NULL);
    char attempted[128];

    if (code == SQLITE_OK)
        return WB_OK;
    snprintf(attempted, sizeof(attempted), "bring the tables of %s to version %u", component,
             version);
    return db_error(handle, code, attempted, why);
}

static wb_err version_write(struct sqlite3 *handle, const char *component, unsigned version,
                            struct wb_why *why)
{
    struct sqlite3_stmt *stmt = NULL;
    wb_err err = prepare_for(handle,
                             "INSERT INTO waybill_schema(component, version) VALUES(?1, ?2) "
                             "ON CONFLICT(component) DO UPDATE SET version = excluded.version",
                             component, &stmt, why);

    if (err == WB_OK) {
        sqlite3_bind_int64(stmt, 2, version);
        err = db_error(handle, sqlite3_step(stmt), "write the schema version", why);
    }
    sqlite3_finalize(stmt);
    return err;
}

static wb_err refuse_newer(const char *component, unsigned version, size_t count,
                           struct wb_why *why)
{
    return wb_fail(why, WB_UNSUPPORTED,
                   "the tables of %s have version %u, this program knows versions up to %zu; run "
                   "the newer program that made them",
                   component, version, count);
}

static wb_err migrate_inside(struct sqlite3 *handle, const char *component,
                             const struct db_migration *steps, size_t count, struct wb_why *why)
{
    unsigned version = 0;
    wb_err err = run(handle,
                     "CREATE TABLE IF NOT EXISTS waybill_schema("
                     "component TEXT NOT NULL PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID",
                     component, 0, why);

    if (err == WB_OK)
        err = db_schema_version(handle, component, &version, why);
    /* Somebody may have been faster, with a newer program even. */
    if (err == WB_OK && version > count)
        err = refuse_newer(component, version, count, why);
    for (; err == WB_OK && version < count; version++)
        err = run(handle, steps[version].sql, component, version + 1, why);
    return err == WB_OK ? version_write(handle, component, (unsigned)count, why) : err;
}

wb_err db_migrate(struct sqlite3 *handle, const char *component, const struct db_migration *steps,
                  size_t count, struct wb_why *why)
{
    unsigned version = 0;
    wb_err err = db_schema_version(handle, component, &version, why);

    assert(steps != NULL || count == 0);
    if (err == WB_OK && version > count)
        return refuse_newer(component, version, count, why);
    if (err != WB_OK || version == count)
        return err;

    /* Within the caller's transaction a savepoint keeps the steps together all the same. */
    bool own = sqlite3_get_autocommit(handle) != 0;
    err = run(handle, own ? "BEGIN IMMEDIATE" : "SAVEPOINT waybill_migrate", component,
              (unsigned)count, why);
    if (err != WB_OK)
        return err;
    err = migrate_inside(handle, component, steps, count, why);
    if (err == WB_OK)
        err = run(handle, own ? "COMMIT" : "RELEASE waybill_migrate", component, (unsigned)count,
                  why);
    if (err != WB_OK && !sqlite3_get_autocommit(handle))
        sqlite3_exec(handle,
                     own ? "ROLLBACK" : "ROLLBACK TO waybill_migrate; RELEASE waybill_migrate",
                     NULL, NULL, NULL);
    return err;
}
