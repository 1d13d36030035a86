/*
 * Moves the write-ahead log into the database file, so that no commit has to.
 *
 * Ten times a second, and more often while the log is large, it asks PRAGMA data_version (which
 * takes microseconds) whether somebody committed. A PASSIVE checkpoint disturbs nobody; where
 * readers and writers leave a gap, a TRUNCATE follows and the log starts anew. Under steady load
 * there is no gap: past 16 MiB one is made, by going first in the write queue and holding it for a
 * moment. A reader that never ends cannot be helped; past 64 MiB it is named.
 */
#include "db_log.h"

#include <assert.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const int64_t LOOK_NS = 100 * WB_MS;
static const int64_t LOOK_SOON_NS = 20 * WB_MS; /* while the log is large and growing */
static const int64_t QUIET_NS = WB_SEC;
static const int64_t PASSIVE_BYTES = 4 * DB_MIB;
static const int64_t GAP_NS = 50 * WB_MS; /* longest wait for readers while writers wait */
static const int64_t QUEUE_NS = WB_SEC;   /* longest wait for the write queue */
static const int64_t FORCE_PAUSE_MIN_NS = 100 * WB_MS; /* after a gap that could not be made */
static const int64_t FORCE_PAUSE_MAX_NS = 5 * WB_SEC;
static const int64_t READER_AGAIN_NS = WB_SEC; /* between two looks for who it is */
static const int64_t WARN_AGAIN_NS = 60 * WB_SEC;

struct db_checkpointer {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    bool stopping;                        /* guarded by mutex */
    struct db_checkpointer_health health; /* guarded by mutex */

    /* constant after start */
    struct observe_series *wal_bytes;
    struct observe_series *checkpoints;
    struct observe_series *oldest_reader;

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
    int stuck_at;          /* how many frames a checkpoint could copy when it got no further */
    int64_t stuck_mono_ns; /* since when that has been so; 0: the last one copied all */
    struct db_log_reader reader;
    bool reader_found;
    int64_t reader_after_mono_ns; /* when to look again who it is */
};

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
static bool checkpoint(struct db_checkpointer *self, int mode, int64_t wait_ns)
{
    struct db_log_progress progress;
    bool done = db_log_checkpoint(self->db, mode, wait_ns, &progress);

    if (done) {
        self->stuck_mono_ns = 0;
    } else if (self->stuck_mono_ns == 0 || progress.in_file != self->stuck_at) {
        /* Only a reader's snapshot ends two checkpoints at the same frame. */
        self->stuck_at = progress.in_file;
        self->stuck_mono_ns = wb_mono_ns(wb_clock_system());
    }
    observe_add(self->checkpoints, 1);
    return done;
}

/* Empty the log if the write queue is free this moment and no reader needs the log. */
static bool truncate_in_gap(struct db_checkpointer *self)
{
    if (db_lock_try(&self->db->queue, NULL) != WB_OK)
        return false;
    bool done = checkpoint(self, SQLITE_CHECKPOINT_TRUNCATE, 0);
    db_lock_release(&self->db->queue);
    return done;
}

/*
 * Make a gap: writers stand in the queue while the rest of the log is copied (most of it was,
 * beside them, a moment ago) and the readers of the moment finish. A reader that does not costs the
 * writers GAP_NS, so the next try comes later.
 */
static bool truncate_by_force(struct db_checkpointer *self)
{
    struct db *db = self->db;
    int64_t now = wb_mono_ns(wb_clock_system());
    bool done = false;

    (void)checkpoint(self, SQLITE_CHECKPOINT_PASSIVE, 0);
    if (db_lock_wait_first(&db->queue, &db->rng, now + QUEUE_NS, NULL) == WB_OK) {
        done = checkpoint(self, SQLITE_CHECKPOINT_TRUNCATE, GAP_NS);
        db_lock_release(&db->queue);
    }
    self->force_pause_ns = done ? FORCE_PAUSE_MIN_NS : 2 * self->force_pause_ns;
    if (self->force_pause_ns > FORCE_PAUSE_MAX_NS)
        self->force_pause_ns = FORCE_PAUSE_MAX_NS;
    self->force_after_mono_ns = done ? 0 : now + self->force_pause_ns;
    return done;
}

/* Who keeps the log, once it has done so for a while, or the log is too large. */
static void find_reader(struct db_checkpointer *self, const struct db_checkpointer_health *health,
                        int64_t now)
{
    bool wanted = health->reader_age_ns >= READER_AGAIN_NS ||
                  (health->reader_age_ns > 0 && health->wal_bytes > DB_LOG_WARN_BYTES);

    if (wanted && now < self->reader_after_mono_ns && self->reader_found)
        return;
    self->reader_found = wanted && db_log_oldest_reader(self->db, &self->reader);
    if (!self->reader_found)
        self->reader = (struct db_log_reader){0};
    self->reader_after_mono_ns = now + READER_AGAIN_NS;
}

static void describe(const struct db_checkpointer *self, int64_t size, int64_t age_ns,
                     char out[256])
{
    int len =
        snprintf(out, 256, "the write-ahead log of %s has grown to %lld MiB: ", self->db->path,
                 (long long)(size / DB_MIB));
    char *rest = out + (len < 256 ? len : 255);
    size_t room = 256 - (size_t)(rest - out);

    if (!self->reader_found)
        (void)snprintf(rest, room, "a very large transaction, or a slow disk");
    else if (self->reader.pid > 0)
        (void)snprintf(rest, room,
                       "process %d (%s) reads a state %lld ms old; end its transaction, or it",
                       self->reader.pid, self->reader.command, (long long)(age_ns / WB_MS));
    else
        (void)snprintf(rest, room,
                       "a process that cannot be seen from here reads a state %lld ms old; end it",
                       (long long)(age_ns / WB_MS));
}

static void report(struct db_checkpointer *self, int64_t now)
{
    struct db_checkpointer_health health = {.wal_bytes = db_log_size(self->db)};

    if (self->stuck_mono_ns > 0 && now > self->stuck_mono_ns)
        health.reader_age_ns = now - self->stuck_mono_ns;
    find_reader(self, &health, now);
    health.reader_pid = self->reader.pid;
    if (health.wal_bytes > DB_LOG_WARN_BYTES)
        describe(self, health.wal_bytes, health.reader_age_ns, health.problem);
    observe_set(self->wal_bytes, health.wal_bytes);
    observe_set_ns(self->oldest_reader, health.reader_age_ns);
    if (health.problem[0] != '\0' && now >= self->warn_after_mono_ns) {
        self->warn_after_mono_ns = now + WARN_AGAIN_NS;
        wb_log(WB_LOG_WARN, "db", "%s", health.problem);
    }
    pthread_mutex_lock(&self->mutex);
    self->health = health;
    pthread_mutex_unlock(&self->mutex);
}

/* What a look leads to; see the top of the file. Returns when to look again. */
static int64_t look(struct db_checkpointer *self)
{
    int64_t now = wb_mono_ns(wb_clock_system());
    int64_t size = db_log_size(self->db);

    notice_commits(self, now);
    bool quiet = now - self->active_mono_ns >= QUIET_NS;
    if (self->dirty && size > DB_LOG_FORCE_BYTES && now >= self->force_after_mono_ns) {
        self->dirty = !truncate_by_force(self);
    } else if (self->dirty && (size > PASSIVE_BYTES || quiet)) {
        if (checkpoint(self, SQLITE_CHECKPOINT_PASSIVE, 0))
            self->dirty = !truncate_in_gap(self);
        /* A reader stands in the way: it gets another second. */
        if (self->dirty && quiet)
            self->active_mono_ns = now;
    }
    report(self, wb_mono_ns(wb_clock_system()));
    return !quiet && size > PASSIVE_BYTES ? LOOK_SOON_NS : LOOK_NS;
}

static void *checkpointer_run(void *ctx)
{
    struct db_checkpointer *self = ctx;

    pthread_mutex_lock(&self->mutex);
    while (!self->stopping) {
        pthread_mutex_unlock(&self->mutex);
        int64_t until = look(self) + wb_mono_ns(wb_clock_system());
        pthread_mutex_lock(&self->mutex);
        if (!self->stopping)
            (void)wb_cond_wait_until(&self->wake, &self->mutex, until);
    }
    pthread_mutex_unlock(&self->mutex);
    return NULL;
}

static void checkpointer_free(struct db_checkpointer *self)
{
    sqlite3_finalize(self->data_version);
    db_close(self->db);
    pthread_cond_destroy(&self->wake);
    pthread_mutex_destroy(&self->mutex);
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

    self->wal_bytes = observe_series(observe, OBSERVE_DB_WAL_BYTES, file_name(path));
    self->checkpoints = observe_series(observe, OBSERVE_DB_CHECKPOINTS, file_name(path));
    self->oldest_reader = observe_series(observe, OBSERVE_DB_OLDEST_READER, file_name(path));
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
    (void)wb_cond_init(&self->wake);
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

void db_checkpointer_health(struct db_checkpointer *self, struct db_checkpointer_health *ret_health)
{
    assert(self != NULL);
    assert(ret_health != NULL);

    pthread_mutex_lock(&self->mutex);
    *ret_health = self->health;
    pthread_mutex_unlock(&self->mutex);
}
