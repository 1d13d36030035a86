/* The write-ahead log: its size, and getting it into the database file. */
#include "db_log.h"

#include <sqlite3.h>
#include <sys/stat.h>

/* A writer looks at the log's size whenever it has written so many pages itself. */
enum { LOOK_PAGES = 256 };

static const int64_t HELP_GAP_NS = 10 * WB_MS;  /* longest wait of a writer for readers */
static const int64_t HELP_PAUSE_NS = WB_SEC;    /* after a reader was in the way */
static const int64_t HELP_WAIT_NS = 2 * WB_SEC; /* longest wait for a checkpoint that runs */

int64_t db_log_size(const struct db *db)
{
    struct stat st;

    return stat(db->wal_path, &st) == 0 ? (int64_t)st.st_size : 0;
}

bool db_log_checkpoint(struct db *db, int mode, int64_t wait_ns,
                       struct db_log_progress *ret_progress)
{
    struct db_log_progress progress = {-1, -1};
    int64_t busy_timeout_ns = db->busy_timeout_ns;

    db->busy_timeout_ns = wait_ns;
    int code =
        sqlite3_wal_checkpoint_v2(db->handle, "main", mode, &progress.in_log, &progress.in_file);
    db->busy_timeout_ns = busy_timeout_ns;
    if (code != SQLITE_OK && (code & 0xff) != SQLITE_BUSY && (code & 0xff) != SQLITE_LOCKED) {
        struct wb_why why;
        db_error(db->handle, code, "checkpoint", &why);
        wb_log(WB_LOG_WARN, "db", "%s", why.text);
    }
    if (ret_progress != NULL)
        *ret_progress = progress;
    return code == SQLITE_OK && progress.in_log == progress.in_file;
}

/* Pages this connection ever wrote into the log. */
static int pages_written(const struct db *db)
{
    int pages = 0, unused = 0;

    (void)sqlite3_db_status(db->handle, SQLITE_DBSTATUS_CACHE_WRITE, &pages, &unused, 0);
    return pages;
}

/*
 * Somebody else's checkpoint may be running and slower than the writers: then they have to wait for
 * it, or the log would grow for as long as it runs.
 */
static bool empty_by_writer(struct db *db, int64_t now)
{
    struct db_log_progress progress;
    int64_t deadline = now + HELP_WAIT_NS;

    for (unsigned n = 0; now < deadline; n++) {
        if (db_log_checkpoint(db, SQLITE_CHECKPOINT_TRUNCATE, HELP_GAP_NS, &progress))
            return true;
        if (progress.in_log >= 0)
            return false; /* a reader is in the way */
        db_lock_pause(&db->rng, n);
        now = wb_mono_ns(wb_clock_system());
    }
    return false;
}

void db_log_empty(struct db *db)
{
    (void)empty_by_writer(db, wb_mono_ns(wb_clock_system()));
}

void db_log_bound(struct db *db)
{
    int pages = pages_written(db);

    if (pages - db->pages_seen < LOOK_PAGES)
        return;
    db->pages_seen = pages;
    if (db_log_size(db) <= DB_LOG_HELP_BYTES)
        return;
    int64_t now = wb_mono_ns(wb_clock_system());
    if (now >= db->help_after_mono_ns && !empty_by_writer(db, now))
        db->help_after_mono_ns = wb_mono_ns(wb_clock_system()) + HELP_PAUSE_NS;
}
