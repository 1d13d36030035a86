/*
 * Moves the write-ahead log into the database file, so that no commit has to.
 *
 * Ten times a second, and more often while the log is large, it asks PRAGMA data_version (which
 * takes microseconds) whether somebody committed. A
 * PASSIVE checkpoint disturbs nobody; where readers and writers leave a gap, a TRUNCATE follows and
 * the log starts anew. Under steady load there is no gap: past 32 MiB one is made, by holding the
 * write queue for a moment. A reader that never ends cannot be helped; past 64 MiB it is reported.
 */
#include "db_internal.h"

#include <assert.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define MIB INT64_C(1048576)

static const int64_t LOOK_NS = 100 * WB_MS;
static const int64_t LOOK_SOON_NS = 20 * WB_MS; /* while the log is large and growing */
static const int64_t QUIET_NS = WB_SEC;
static const int64_t PASSIVE_BYTES = 4 * MIB;
static const int64_t FORCE_BYTES = 32 * MIB;
static const int64_t WARN_BYTES = 64 * MIB;
static const int64_t GAP_NS = 50 * WB_MS; /* longest wait for readers while writers wait */
static const int64_t QUEUE_NS = WB_SEC;   /* longest wait for the write queue */
static const int64_t FORCE_PAUSE_MIN_NS = 100 * WB_MS; /* after a gap that could not be made */
static const int64_t FORCE_PAUSE_MAX_NS = 5 * WB_SEC;
static const int64_t WARN_AGAIN_NS = 60 * WB_SEC;

struct db_checkpointer {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    bool stopping; /* guarded by mutex */

    /* constant after start */
    char *wal_path;
    struct observe_series *wal_bytes;
    struct observe_series *checkpoints;

    /* owned by the thread (by start before it runs) */
    struct db *db;
    struct sqlite3_stmt *data_version;
    int64_t version; /* what data_version said last; 0 at first, so that the first look finds a
                        change */
    int64_t active_mono_ns; /* when somebody last committed */
    bool dirty;             /* the log may hold what is not in the file */
    int64_t force_after_mono_ns;
    int64_t force_pause_ns;
    int64_t warn_after_mono_ns;
};

static int64_t wal_size(const struct db_checkpointer *self)
{
    struct stat st;

    return stat(self->wal_path, &st) == 0 ? (int64_t)st.st_size : 0;
}

static void notice_commits(struct db_checkpointer *self, int64_t now)
{
    int64_t version = self->version;

    if (sqlite3_step(self->data_version) == SQLITE_ROW)
        version = sqlite3_column_int64(self->data_version, 0);
    sqlite3_reset(self->data_version);
    if (version == self->version)
        return;
    self->version = version;
    self->active_mono_ns = now;
    self->dirty = true;
}

/* Returns whether the whole log is in the file. */
static bool checkpoint(struct db_checkpointer *self, int mode)
{
    int in_log = 0, done = 0;
    int code = sqlite3_wal_checkpoint_v2(db_handle(self->db), "main", mode, &in_log, &done);

    if (code == SQLITE_OK) {
        observe_add(self->checkpoints, 1);
        return in_log == done;
    }
    if ((code & 0xff) != SQLITE_BUSY && (code & 0xff) != SQLITE_LOCKED) {
        struct wb_why why;
        db_error(db_handle(self->db), code, "checkpoint", &why);
        wb_log(WB_LOG_WARN, "db", "%s", why.text);
    }
    return false;
}

/* Empty the log if the write queue is free this moment and no reader needs the log. */
static bool truncate_in_gap(struct db_checkpointer *self)
{
    if (db_lock_try(&self->db->queue, NULL) != WB_OK)
        return false;
    self->db->busy_timeout_ns = 0;
    bool done = checkpoint(self, SQLITE_CHECKPOINT_TRUNCATE);
    db_lock_release(&self->db->queue);
    return done;
}

/*
 * Make a gap: writers stand in the queue while the rest of the log is copied (most of it was,
 * beside them, at earlier looks) and the readers of the moment finish. A reader that does not costs
 * the writers GAP_NS, so the next try comes later.
 */
static bool truncate_by_force(struct db_checkpointer *self)
{
    struct db *db = self->db;
    int64_t now = wb_mono_ns(wb_clock_system());
    bool done = false;

    if (db_lock_wait(&db->queue, &db->rng, now + QUEUE_NS, NULL) == WB_OK) {
        db->busy_timeout_ns = GAP_NS;
        done = checkpoint(self, SQLITE_CHECKPOINT_TRUNCATE);
        db_lock_release(&db->queue);
    }
    self->force_pause_ns = done ? FORCE_PAUSE_MIN_NS : 2 * self->force_pause_ns;
    if (self->force_pause_ns > FORCE_PAUSE_MAX_NS)
        self->force_pause_ns = FORCE_PAUSE_MAX_NS;
    self->force_after_mono_ns = done ? 0 : now + self->force_pause_ns;
    return done;
}

static void warn_if_huge(struct db_checkpointer *self, int64_t size, int64_t now)
{
    if (size <= WARN_BYTES || now < self->warn_after_mono_ns)
        return;
    self->warn_after_mono_ns = now + WARN_AGAIN_NS;
    wb_log(WB_LOG_WARN, "db",
           "the write-ahead log %s has grown to %lld MiB: a reader has been open for long, or the "
           "disk is slow; find the transaction that stays open and end it",
           self->wal_path, (long long)(size / MIB));
}

/* What a look leads to; see the top of the file. Returns when to look again. */
static int64_t look(struct db_checkpointer *self)
{
    int64_t now = wb_mono_ns(wb_clock_system());
    int64_t size = wal_size(self);

    notice_commits(self, now);
    bool quiet = now - self->active_mono_ns >= QUIET_NS;
    if (self->dirty && size > FORCE_BYTES && now >= self->force_after_mono_ns) {
        self->dirty = !truncate_by_force(self);
    } else if (self->dirty && (size > PASSIVE_BYTES || quiet)) {
        if (checkpoint(self, SQLITE_CHECKPOINT_PASSIVE))
            self->dirty = !truncate_in_gap(self);
        /* A reader stands in the way: it gets another second. */
        if (self->dirty && quiet)
            self->active_mono_ns = now;
    }
    size = wal_size(self);
    observe_set(self->wal_bytes, size);
    warn_if_huge(self, size, now);
    return !quiet && size > PASSIVE_BYTES ? LOOK_SOON_NS : LOOK_NS;
}

static void *checkpointer_run(void *ctx)
{
    struct db_checkpointer *self = ctx;

    pthread_mutex_lock(&self->mutex);
    while (!self->stopping) {
        pthread_mutex_unlock(&self->mutex);
        int64_t until = look(self) + wb_mono_ns(wb_clock_system());
        struct timespec wake_at = {.tv_sec = until / WB_SEC, .tv_nsec = until % WB_SEC};
        pthread_mutex_lock(&self->mutex);
        if (!self->stopping)
            pthread_cond_timedwait(&self->wake, &self->mutex, &wake_at);
    }
    pthread_mutex_unlock(&self->mutex);
    return NULL;
}

static void wake_init(pthread_cond_t *wake)
{
    pthread_condattr_t monotonic;

    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

static void checkpointer_free(struct db_checkpointer *self)
{
    sqlite3_finalize(self->data_version);
    db_close(self->db);
    pthread_cond_destroy(&self->wake);
    pthread_mutex_destroy(&self->mutex);
    free(self->wal_path);
    free(self);
}

/* The label of the metrics: the file's name without its directory. */
static const char *file_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash != NULL ? slash + 1 : path;
}

static wb_err checkpointer_setup(struct db_checkpointer *self, const char *path,
                                 struct observe *observe, struct wb_why *why)
{
    const struct db_options options = {.sync = DB_SYNC_NORMAL};

    self->wal_path = db_path_with(path, "-wal");
    if (self->wal_path == NULL)
        return wb_fail(why, WB_NOMEM, "out of memory starting the checkpoints of %s", path);
    self->wal_bytes = observe_series(observe, OBSERVE_DB_WAL_BYTES, file_name(path));
    self->checkpoints = observe_series(observe, OBSERVE_DB_CHECKPOINTS, file_name(path));
    self->force_pause_ns = FORCE_PAUSE_MIN_NS;
    self->active_mono_ns = wb_mono_ns(wb_clock_system());
    wb_err err = db_open(path, &options, &self->db, why);
    if (err == WB_OK)
        err = db_prepare(self->db, "PRAGMA data_version", &self->data_version, why);
    if (err == WB_OK && pthread_create(&self->thread, NULL, checkpointer_run, self) != 0)
        err = wb_fail(why, WB_NOMEM, "cannot start the checkpoint thread of %s; free memory", path);
    return err;
}

wb_err db_checkpointer_start(const char *path, struct observe *observe,
                             struct db_checkpointer **ret_checkpointer, struct wb_why *why)
{
    assert(path != NULL);
    assert(ret_checkpointer != NULL);

    struct db_checkpointer *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return wb_fail(why, WB_NOMEM, "out of memory starting the checkpoints of %s", path);
    pthread_mutex_init(&self->mutex, NULL);
    wake_init(&self->wake);
    wb_err err = checkpointer_setup(self, path, observe, why);
    if (err != WB_OK) {
        checkpointer_free(self);
        return err;
    }
    *ret_checkpointer = self;
    return WB_OK;
}

void db_checkpointer_stop(struct db_checkpointer *self)
{
    if (self == NULL)
        return;
    pthread_mutex_lock(&self->mutex);
    self->stopping = true;
    pthread_cond_signal(&self->wake);
    pthread_mutex_unlock(&self->mutex);
    pthread_join(self->thread, NULL);
    checkpointer_free(self);
}
