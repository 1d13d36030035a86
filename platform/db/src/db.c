#include "db_log.h"

#include <assert.h>
#include <errno.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { BUSY_TIMEOUT_MS = 5000 };

/* Kept after the log restarts: what a checkpointer forces it back to, see db_checkpointer.c. */
#define JOURNAL_SIZE_LIMIT "33554432"

static int64_t now_ns(void)
{
    return wb_mono_ns(wb_clock_system());
}

/* SQLite's own handler sleeps ever longer, so that whoever waits longest gets the lock last. */
static int busy_wait(void *ctx, int count)
{
    struct db *db = ctx;
    int64_t now = now_ns();

    if (count == 0)
        db->give_up_mono_ns =
            db->begin_by_mono_ns > 0 ? db->begin_by_mono_ns : now + db->busy_timeout_ns;
    if (now >= db->give_up_mono_ns)
        return 0;
    db_lock_pause(&db->rng, (unsigned)count);
    return 1;
}

/* ---- open and close -------------------------------------------------------------------------- */

/*
 * SQLite would create the file with the rights of the umask. mknod(2) makes a regular file without
 * opening it: closing a descriptor of a database drops the POSIX locks that SQLite holds on it.
 */
static wb_err file_make(const char *path, const struct db_options *options, struct wb_why *why)
{
    struct stat st;

    if (stat(path, &st) == 0)
        return S_ISREG(st.st_mode) ? WB_OK
                                   : wb_fail(why, WB_INVALID,
                                             "cannot open the database %s: it is no regular file; "
                                             "give the path of a file",
                                             path);
    if (errno != ENOENT || options->must_exist || options->read_only)
        return db_errno(errno, "open the database", path, why);
    if (mknod(path, S_IFREG | 0600, 0) != 0 && errno != EEXIST)
        return db_errno(errno, "create the database", path, why);
    return WB_OK;
}

static wb_err handle_open(struct db *db, struct wb_why *why)
{
    int access = db->read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE;
    int code = sqlite3_open_v2(db->path, &db->handle,
                               access | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);

    if (code != SQLITE_OK)
        return db_error(db->handle, code, "open the database", why);
    /* Without the right to write SQLite opens the file for reading, and says so only here. */
    if (!db->read_only && sqlite3_db_readonly(db->handle, "main") == 1)
        return wb_fail(why, WB_READ_ONLY,
                       "cannot open the database %s for writing: the file or its file system is "
                       "read only; make it writable, or open it read only",
                       db->path);
    return WB_OK;
}

static wb_err handle_configure(struct db *db, db_sync sync, struct wb_why *why)
{
    static const int switches[][2] = {
        {SQLITE_DBCONFIG_ENABLE_FKEY, 1},
        {SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0},
        {SQLITE_DBCONFIG_DEFENSIVE, 1},
    };

    for (size_t i = 0; i < sizeof(switches) / sizeof(switches[0]); i++)
        sqlite3_db_config(db->handle, switches[i][0], switches[i][1], NULL);
    sqlite3_busy_handler(db->handle, busy_wait, db);
    sqlite3_wal_autocheckpoint(db->handle, 0);
    return db_exec(db,
                   sync == DB_SYNC_FULL ? "PRAGMA cell_size_check=ON; PRAGMA synchronous=FULL"
                                        : "PRAGMA cell_size_check=ON; PRAGMA synchronous=NORMAL",
                   why);
}

static wb_err journal_mode(struct db *db, const char *pragma, bool *ret_wal, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = NULL;
    wb_err err = db_prepare(db, pragma, &stmt, why);

    if (err != WB_OK)
        return err;
    int code = sqlite3_step(stmt);
    if (code == SQLITE_ROW)
        *ret_wal = strcmp((const char *)sqlite3_column_text(stmt, 0), "wal") == 0;
    else
        err = db_error(db->handle, code, "read the journal mode", why);
    sqlite3_finalize(stmt);
    return err;
}

/* Turning WAL on needs the file for oneself, so those who open a new file do it one by one. */
static wb_err wal_turn_on(struct db *db, struct wb_why *why)
{
    bool wal = false;
    int64_t deadline = now_ns() + db->busy_timeout_ns;
    wb_err err = journal_mode(db, "PRAGMA journal_mode", &wal, why);

    if (err != WB_OK || wal)
        return err;
    err = db_lock_wait(&db->queue, &db->rng, deadline, why);
    if (err == WB_BUSY)
        return wb_fail(why, WB_BUSY, "cannot turn on WAL in %s: the write queue is held; try again",
                       db->path);
    for (unsigned n = 0; err == WB_OK && !wal; n++) {
        err = journal_mode(db, "PRAGMA journal_mode=WAL", &wal, why);
        if (err == WB_BUSY && now_ns() < deadline) {
            db_lock_pause(&db->rng, n);
            err = WB_OK;
        } else if (err == WB_OK && !wal) {
            err = wb_fail(why, WB_UNSUPPORTED,
                          "cannot turn on WAL in %s: the file system has no shared memory for it; "
                          "put the file on a local disk",
                          db->path);
        }
    }
    db_lock_release(&db->queue);
    return err;
}

static wb_err prepare_to_write(struct db *db, struct wb_why *why)
{
    char *queue_path = db_path_with(db->path, "-queue");

    if (queue_path == NULL)
        return wb_fail(why, WB_NOMEM, "out of memory opening %s", db->path);
    wb_err err = db_lock_open(&db->queue, queue_path, why);
    free(queue_path);
    if (err == WB_OK)
        err = wal_turn_on(db, why);
    if (err == WB_OK)
        err = db_exec(db, "PRAGMA journal_size_limit=" JOURNAL_SIZE_LIMIT, why);
    if (err == WB_OK)
        err = db_prepare(db, "BEGIN IMMEDIATE", &db->begin, why);
    if (err == WB_OK)
        err = db_prepare(db, "COMMIT", &db->commit, why);
    if (err == WB_OK)
        err = db_prepare(db, "ROLLBACK", &db->rollback, why);
    return err;
}

/* A damaged file shall be noticed when it is opened, not at the first event. */
static wb_err schema_read(struct db *db, struct wb_why *why)
{
    return db_exec(db, "SELECT count(*) FROM sqlite_schema", why);
}

static wb_err db_setup(struct db *db, const struct db_options *options, struct wb_why *why)
{
    wb_err err = file_make(db->path, options, why);

    if (err == WB_OK)
        err = handle_open(db, why);
    if (err == WB_OK)
        err = handle_configure(db, options->sync, why);
    if (err == WB_OK && !db->read_only)
        err = prepare_to_write(db, why);
    if (err == WB_OK)
        err = schema_read(db, why);
    return err;
}

wb_err db_open(const char *path, const struct db_options *options, struct db **ret_db,
               struct wb_why *why)
{
    static const struct db_options defaults = {0};

    assert(path != NULL);
    assert(ret_db != NULL);
    if (options == NULL)
        options = &defaults;
    if (path[0] == '\0' || strcmp(path, ":memory:") == 0)
        return wb_fail(why, WB_INVALID, "cannot open the database '%s': give the path of a file",
                       path);

    struct db *db = calloc(1, sizeof(*db));
    if (db == NULL)
        return wb_fail(why, WB_NOMEM, "out of memory opening %s", path);
    uint64_t seed;
    wb_random_fill(&seed, sizeof(seed));
    wb_rng_seed(&db->rng, seed);
    db->queue.fd = -1;
    db->read_only = options->read_only;
    db->busy_timeout_ns =
        options->busy_timeout_ns > 0 ? options->busy_timeout_ns : BUSY_TIMEOUT_MS * WB_MS;
    db->path = wb_str_dup(wb_str(path));
    db->wal_path = db_path_with(path, "-wal");
    wb_err err = db->path != NULL && db->wal_path != NULL
                     ? db_setup(db, options, why)
                     : wb_fail(why, WB_NOMEM, "out of memory opening %s", path);
    if (err != WB_OK) {
        db_close(db);
        return err;
    }
    *ret_db = db;
    return WB_OK;
}

void db_close(struct db *db)
{
    if (db == NULL)
        return;
    if (db->handle != NULL) {
        db_rollback(db);
        for (struct sqlite3_stmt *stmt; (stmt = sqlite3_next_stmt(db->handle, NULL)) != NULL;)
            sqlite3_finalize(stmt);
        sqlite3_close(db->handle);
    }
    db_lock_close(&db->queue);
    free(db->path);
    free(db->wal_path);
    free(db);
}

struct sqlite3 *db_handle(struct db *db)
{
    return db->handle;
}

const char *db_path(const struct db *db)
{
    return db->path;
}

/* ---- transactions ---------------------------------------------------------------------------- */

static int step_once(struct sqlite3_stmt *stmt)
{
    int code = sqlite3_step(stmt);

    sqlite3_reset(stmt);
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

/* The place in the queue. */
static wb_err queue_enter(struct db *db, int64_t deadline, struct wb_why *why)
{
    assert(db != NULL);
    if (db->read_only)
        return wb_fail(why, WB_READ_ONLY,
                       "cannot begin a transaction in %s: the connection was opened read only; "
                       "open another one for writing",
                       db->path);
    if (db->begun || !sqlite3_get_autocommit(db->handle))
        return wb_fail(why, WB_MISUSE,
                       "cannot begin a transaction in %s: one is open; commit it or roll it back",
                       db->path);

    wb_err err = db_lock_wait(&db->queue, &db->rng, deadline, why);
    if (err == WB_BUSY)
        return wb_fail(why, WB_BUSY,
                       "cannot begin a transaction in %s: the write queue was held for %lld ms; "
                       "try again, or look for a transaction left open",
                       db->path, (long long)(db->busy_timeout_ns / WB_MS));
    return err;
}

static wb_err begin_in_queue(struct db *db, int64_t deadline, struct wb_why *why)
{
    db->begin_by_mono_ns = deadline;
    int code = step_once(db->begin);
    db->begin_by_mono_ns = 0;
    if (code != SQLITE_OK) {
        wb_err err = db_error(db->handle, code, "begin a transaction", why);
        db_lock_release(&db->queue);
        return err;
    }
    db->begun = true;
    return WB_OK;
}

wb_err db_begin(struct db *db, struct wb_why *why)
{
    int64_t deadline = now_ns() + db->busy_timeout_ns;
    wb_err err = queue_enter(db, deadline, why);

    return err == WB_OK ? begin_in_queue(db, deadline, why) : err;
}

wb_err db_begin_emptied(struct db *db, void (*before)(void *ctx), void *ctx, struct wb_why *why)
{
    int64_t deadline = now_ns() + db->busy_timeout_ns;
    wb_err err = queue_enter(db, deadline, why);

    if (err != WB_OK)
        return err;
    before(ctx);
    db_log_empty(db);
    return begin_in_queue(db, deadline, why);
}

/* After these the commit is known not to have happened; after all others it may have. */
static bool commit_surely_failed(int code)
{
    switch (code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_FULL:
    case SQLITE_CONSTRAINT:
    case SQLITE_READONLY:
    case SQLITE_ERROR:
        return true;
    default:
        return false;
    }
}

wb_err db_commit(struct db *db, struct wb_why *why)
{
    assert(db != NULL);
    if (!db->begun)
        return wb_fail(why, WB_MISUSE, "cannot commit in %s: no transaction is open", db->path);
    if (sqlite3_get_autocommit(db->handle)) {
        db_rollback(db);
        return wb_fail(why, WB_CONFLICT,
                       "cannot commit in %s: an earlier error has rolled the transaction back; "
                       "check the result of each statement, and do all of it again",
                       db->path);
    }
    int code = step_once(db->commit);
    wb_err err = WB_OK;
    if (code != SQLITE_OK) {
        err = db_error(db->handle, code, "commit", why);
        if (!commit_surely_failed(code))
            err = wb_fail(why, WB_UNKNOWN,
                          "the outcome of a commit in %s is unknown: %s (SQLite code %d); read "
                          "back what it wrote before doing it again",
                          db->path, sqlite3_errmsg(db->handle), code);
    } else {
        db_log_bound(db);
    }
    db_rollback(db);
    return err;
}

void db_rollback(struct db *db)
{
    assert(db != NULL);
    if (!db->begun)
        return;
    if (!sqlite3_get_autocommit(db->handle))
        step_once(db->rollback);
    db->begun = false;
    db_lock_release(&db->queue);
}
