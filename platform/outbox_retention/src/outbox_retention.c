/* One step after the other: which class is next, what may go, when to come again. */
#include "waybill/outbox_retention.h"

#include <assert.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#include "retention.h"

static const int64_t IDLE_MIN_NS = WB_SEC; /* between two looks when nothing is due */
static const int64_t IDLE_MAX_NS = 10 * WB_SEC;
static const int64_t AGAIN_NS = 3600 * WB_SEC; /* until rows that had to stay are looked at again */
static const int64_t LATE_NS = 600 * WB_SEC;   /* rows this much over their age: hurry, */
static const int64_t VERY_LATE_NS = 7200 * WB_SEC; /* and even more */
static const int64_t STEP_MIN_NS = 100 * WB_US;    /* what a step costs others at least */

enum { VACUUM_PAGES = 64 };

/* Is the row o confirmed? ?3 is what all cursors have read back, for rows that name no stream. One
 * that was stored late is only when its sequence was read back as well. */
#define CONFIRMED                                                                                  \
    "(o.id <= CASE o.stream WHEN '' THEN ?3 ELSE ifnull((SELECT c.verified_id"                     \
    " FROM main.outbox_cursor c WHERE c.stream = o.stream), 0) END"                                \
    " AND NOT EXISTS (SELECT 1 FROM main.outbox_late l JOIN main.outbox_cursor c"                  \
    " ON c.stream = l.stream WHERE l.row_id = o.id AND l.sequence > c.verified_seq))"
/* Lengths come from the row's head: the payload itself is not read. */
#define BYTES "length(o.payload) + length(o.headers) + length(o.subject) + length(o.key)"

static const char limits_sql[] = "SELECT ifnull((SELECT max(id) FROM main.outbox), 0),"
                                 " ifnull((SELECT max(verified_id) FROM main.outbox_cursor), 0),"
                                 " ifnull((SELECT min(verified_id) FROM main.outbox_cursor), 0),"
                                 " (SELECT min(from_id) FROM main.outbox_hold WHERE until > ?1),"
                                 " (SELECT rows FROM main.outbox_purged)";
static const char walk_sql[] =
    "SELECT o.id, o.msg_id, o.subject, o.created, " BYTES ", e.state, " CONFIRMED
    " FROM main.outbox o LEFT JOIN main.outbox_exception e ON e.id = o.id"
    " WHERE o.id > ?1 AND o.id <= ?2 ORDER BY o.id";
static const char count_sql[] =
    "SELECT o.id, o.subject, " BYTES " FROM main.outbox o WHERE o.id > ?1 ORDER BY o.id";
static const char delete_sql[] =
    "DELETE FROM main.outbox AS o WHERE o.id = ?1 AND o.msg_id = ?2 AND " CONFIRMED
    " AND NOT EXISTS (SELECT 1 FROM main.outbox_exception e WHERE e.id = ?1"
    " AND e.state NOT IN ('expired', 'cancelled'))";
static const char *const delete_more_sql[] = {
    "DELETE FROM main.outbox_exception WHERE id = ?1",
    "DELETE FROM main.outbox_edit WHERE id = ?1",
    "DELETE FROM main.outbox_idempotency WHERE row_id = ?1",
    "DELETE FROM main.outbox_late WHERE row_id = ?1",
};
static const char purged_add_sql[] =
    "UPDATE main.outbox_purged SET rows = rows + ?1, bytes = bytes + ?2, last_at = ?3";

/* ---- open and close -------------------------------------------------------------------------- */

static wb_err int_pragma(struct db *db, const char *pragma, int *ret_value, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = NULL;
    wb_err err = db_prepare(db, pragma, &stmt, why);

    if (err == WB_OK && sqlite3_step(stmt) == SQLITE_ROW)
        *ret_value = sqlite3_column_int(stmt, 0);
    (void)sqlite3_finalize(stmt);
    return err;
}

static wb_err statements_prepare(struct outbox_retention *self, struct wb_why *why)
{
    struct {
        const char *sql;
        struct sqlite3_stmt **stmt;
    } all[] = {
        {limits_sql, &self->limits},
        {walk_sql, &self->walk},
        {count_sql, &self->count},
        {"PRAGMA data_version", &self->data_version},
        {delete_sql, &self->delete_row},
        {purged_add_sql, &self->purged_add},
        {delete_more_sql[0], &self->delete_more[0]},
        {delete_more_sql[1], &self->delete_more[1]},
        {delete_more_sql[2], &self->delete_more[2]},
        {delete_more_sql[3], &self->delete_more[3]},
    };
    wb_err err = WB_OK;

    for (size_t i = 0; err == WB_OK && i < sizeof(all) / sizeof(all[0]); i++)
        err = db_prepare(self->db, all[i].sql, all[i].stmt, why);
    return err;
}

static void lanes_setup(struct outbox_retention *self, const struct outbox_retention_options *from)
{
    for (size_t i = 0; i <= self->class_count; i++) {
        struct retention_lane *lane = &self->lanes[i];
        lane->class = i < self->class_count ? &self->classes[i] : NULL;
        lane->total.name = lane->class != NULL ? lane->class->name : "";
        lane->keep_ns = lane->class != NULL && lane->class->keep_age_ns > 0
                            ? lane->class->keep_age_ns
                            : OUTBOX_RETENTION_KEEP_NS;
        if (self->by_age_only)
            lane->keep_ns = from->older_than_ns;
        else if (lane->class != NULL && (lane->class->keep_rows > 0 || lane->class->keep_bytes > 0))
            self->counts = true;
    }
}

static char *path_with(const char *path, const char *suffix)
{
    struct wb_buf joined = {0};

    wb_buf_printf(&joined, "%s%s", path, suffix);
    char *copy = joined.failed ? NULL : wb_str_dup(wb_str(joined.ptr));
    wb_buf_free(&joined);
    return copy;
}

static wb_err setup(struct outbox_retention *self, const struct outbox_retention_options *options,
                    struct wb_why *why)
{
    /* What went and comes back in a power cut goes again. */
    const struct db_options how = {
        .sync = DB_SYNC_NORMAL, .must_exist = true, .read_only = options->dry_run};
    int auto_vacuum = 0;

    self->lanes = calloc(self->class_count + 1, sizeof(*self->lanes));
    self->reserve_path = path_with(options->path, "-reserve");
    self->archive_path = options->archive_path != NULL ? path_with(options->archive_path, "")
                                                       : path_with(options->path, "-archive");
    if (self->lanes == NULL || self->reserve_path == NULL || self->archive_path == NULL)
        return wb_fail(why, WB_NOMEM, "retention of %s: out of memory", options->path);
    wb_err err = db_open(options->path, &how, &self->db, why);
    if (err == WB_OK)
        err = outbox_schema_require(db_handle(self->db), why);
    if (err == WB_OK && !options->dry_run)
        err = outbox_schema_prepare(db_handle(self->db), why);
    if (err == WB_OK)
        err = statements_prepare(self, why);
    if (err == WB_OK)
        err = int_pragma(self->db, "PRAGMA auto_vacuum", &auto_vacuum, why);
    if (err != WB_OK)
        return err;
    self->vacuums = auto_vacuum == 2 && !options->dry_run;
    lanes_setup(self, options);
    if (!options->dry_run)
        (void)outbox_retention_reserve_make(self->reserve_path);
    return WB_OK;
}

wb_err outbox_retention_open(const struct outbox_retention_options *options,
                             struct outbox_retention **ret_retention, struct wb_why *why)
{
    assert(options != NULL);
    assert(options->path != NULL);
    assert(ret_retention != NULL);

    struct outbox_retention *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return wb_fail(why, WB_NOMEM, "retention of %s: out of memory", options->path);
    self->clock = options->clock != NULL ? options->clock : wb_clock_system();
    self->classes = options->classes;
    self->class_count = options->class_count;
    self->dry_run = options->dry_run;
    self->by_age_only = options->older_than_ns > 0;
    self->purged_known = -1;
    self->purged_rows = observe_series(options->observe, OBSERVE_OUTBOX_PURGED, options->name);
    self->archived_rows = observe_series(options->observe, OBSERVE_OUTBOX_ARCHIVED, options->name);
    self->again_after_mono_ns = wb_mono_ns(self->clock) + AGAIN_NS;
    wb_err err = setup(self, options, why);
    if (err != WB_OK) {
        outbox_retention_close(self);
        return err;
    }
    *ret_retention = self;
    return WB_OK;
}

void outbox_retention_close(struct outbox_retention *retention)
{
    if (retention == NULL)
        return;
    outbox_retention_archive_close(retention->archive);
    db_close(retention->db); /* with its statements */
    free(retention->archive_path);
    free(retention->reserve_path);
    free(retention->lanes);
    free(retention);
}

bool outbox_retention_total(const struct outbox_retention *retention, size_t index,
                            struct outbox_retention_total *ret_total)
{
    if (index > retention->class_count)
        return false;
    *ret_total = retention->lanes[index].total;
    return true;
}

/* ---- a step ---------------------------------------------------------------------------------- */

wb_err outbox_retention_limits_read(struct outbox_retention *self,
                                    struct retention_limits *ret_limits, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = self->limits;
    struct retention_limits limits = {0};
    wb_err err = WB_OK;

    (void)sqlite3_bind_int64(stmt, 1, wb_wall_ns(self->clock) / WB_MS);
    int rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW) {
        int64_t newest = sqlite3_column_int64(stmt, 0);
        limits.last_id = sqlite3_column_int64(stmt, 1);
        if (limits.last_id >= newest)
            limits.last_id = newest - 1;
        limits.floor_id = sqlite3_column_int64(stmt, 2);
        if (sqlite3_column_type(stmt, 3) != SQLITE_NULL &&
            sqlite3_column_int64(stmt, 3) <= limits.last_id)
            limits.last_id = sqlite3_column_int64(stmt, 3) - 1;
        limits.purged = sqlite3_column_int64(stmt, 4);
        *ret_limits = limits;
    } else {
        err = db_error(db_handle(self->db), rc, "read how far the outbox was verified", why);
    }
    (void)sqlite3_reset(stmt);
    return err;
}

/* Has anybody else committed since the last step? */
static bool others_write(struct outbox_retention *self)
{
    int64_t version = self->version;

    if (sqlite3_step(self->data_version) == SQLITE_ROW)
        version = sqlite3_column_int64(self->data_version, 0);
    (void)sqlite3_reset(self->data_version);
    bool changed = version != self->version;
    self->version = version;
    return changed;
}

/*
 * What a step took others wait for at worst, so steps make up one part in a hundred of the time
 * while others write; more when rows are late, half of it when they are very late or nobody writes.
 */
static int64_t pause_after(const struct outbox_retention *self, int64_t took_ns, bool busy)
{
    int64_t parts = !busy || self->overdue_ns > VERY_LATE_NS ? 1
                    : self->overdue_ns > LATE_NS             ? 9
                                                             : 99;

    return parts * (took_ns > STEP_MIN_NS ? took_ns : STEP_MIN_NS);
}

static struct retention_lane *lane_next(struct outbox_retention *self)
{
    for (size_t n = 0; n <= self->class_count; n++) {
        struct retention_lane *lane = &self->lanes[self->next_lane];
        self->next_lane = self->next_lane == self->class_count ? 0 : self->next_lane + 1;
        if (!lane->done)
            return lane;
    }
    return NULL;
}

/* All lanes have come to their end: when is the first row due, and start from there. */
static int64_t rest(struct outbox_retention *self)
{
    int64_t now_ms = wb_wall_ns(self->clock) / WB_MS;
    int64_t now = wb_mono_ns(self->clock);
    int64_t next_ns = IDLE_MAX_NS;
    bool again = now >= self->again_after_mono_ns;

    for (size_t i = 0; i <= self->class_count; i++) {
        struct retention_lane *lane = &self->lanes[i];
        int64_t wait_ns = (lane->due_ms - now_ms) * WB_MS;
        if (lane->due_ms > 0 && wait_ns < next_ns)
            next_ns = wait_ns;
        lane->done = false;
        if (again && lane->skipped)
            lane->at = 0;
        lane->skipped = lane->skipped && !again;
    }
    if (again)
        self->again_after_mono_ns = now + AGAIN_NS;
    if (self->vacuums) {
        char sql[48];
        (void)sqlite3_snprintf(sizeof(sql), sql, "PRAGMA incremental_vacuum(%d)", VACUUM_PAGES);
        (void)db_exec(self->db, sql, NULL); /* the next rest tries again */
    }
    if (!self->dry_run && outbox_retention_reserve_make(self->reserve_path))
        self->disk_full = false;
    return self->counts || next_ns < IDLE_MIN_NS ? IDLE_MIN_NS : next_ns;
}

/* Nothing is changed in a dry run, but the accounts are kept as if. */
static void pretend(struct outbox_retention *self, struct retention_lane *lane)
{
    for (size_t i = 0; i < self->victim_count; i++) {
        lane->total.rows++;
        lane->total.bytes += self->victims[i].bytes;
        lane->total.archived += lane->class != NULL && lane->class->archive;
        if (self->counts && lane->rows > 0) {
            lane->rows--;
            lane->bytes -= self->victims[i].bytes;
        }
    }
}

static wb_err lane_step(struct outbox_retention *self, struct retention_lane *lane,
                        const struct retention_limits *limits,
                        struct outbox_retention_result *result, struct wb_why *why)
{
    const struct outbox_retention_total before = lane->total;
    int64_t at = lane->at;
    wb_err err = outbox_retention_walk(self, lane, limits, why);

    if (err == WB_OK && self->victim_count > 0 && self->dry_run)
        pretend(self, lane);
    else if (err == WB_OK && self->victim_count > 0)
        err = outbox_retention_purge(self, lane, &result->archived, why);
    if (err != WB_OK) {
        lane->at = at;
        lane->done = false;
        return err;
    }
    result->rows = lane->total.rows - before.rows;
    result->bytes = lane->total.bytes - before.bytes;
    result->archived = lane->total.archived - before.archived;
    return WB_OK;
}

wb_err outbox_retention_step(struct outbox_retention *retention,
                             struct outbox_retention_result *ret_result, struct wb_why *why)
{
    struct outbox_retention *self = retention;
    struct outbox_retention_result result = {.more = true};
    struct retention_limits limits;
    int64_t start = wb_mono_ns(self->clock);
    bool busy = others_write(self);
    wb_err err = outbox_retention_limits_read(self, &limits, why);

    if (err == WB_OK && self->counts)
        err = outbox_retention_count(self, &limits, why);
    if (err != WB_OK)
        return err;
    if (!self->counts || self->counted) {
        struct retention_lane *lane = lane_next(self);
        if (lane == NULL)
            result = (struct outbox_retention_result){.next_ns = rest(self)};
        else
            err = lane_step(self, lane, &limits, &result, why);
    }
    if (err != WB_OK)
        return err;
    if (result.more && result.rows > 0)
        result.next_ns = pause_after(self, wb_mono_ns(self->clock) - start, busy);
    *ret_result = result;
    return WB_OK;
}

/* ---- rows somebody still needs --------------------------------------------------------------- */

static wb_err hold_run(struct sqlite3 *handle, const char *sql, const char *name, int64_t from_id,
                       int64_t until_ms, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(handle, sql, -1, &stmt, NULL);

    if (rc == SQLITE_OK) {
        (void)sqlite3_bind_text(stmt, 1, name, -1, SQLITE_STATIC);
        (void)sqlite3_bind_int64(stmt, 2, from_id);
        (void)sqlite3_bind_int64(stmt, 3, until_ms);
        rc = sqlite3_step(stmt);
    }
    wb_err err = db_error(handle, rc, "hold rows of the outbox", why);
    (void)sqlite3_finalize(stmt);
    return err;
}

wb_err outbox_retention_hold(struct sqlite3 *handle, const char *name, int64_t from_id,
                             int64_t ttl_ns, struct wb_why *why)
{
    int64_t now_ms = wb_wall_ns(wb_clock_system()) / WB_MS;

    if (name[0] == '\0' || strlen(name) > 64)
        return wb_fail(why, WB_INVALID, "hold rows of the outbox: a name has 1 to 64 bytes");
    return hold_run(handle,
                    "INSERT INTO main.outbox_hold(name, from_id, until) VALUES(?1, ?2, ?3)"
                    " ON CONFLICT(name) DO UPDATE SET from_id = ?2, until = ?3",
                    name, from_id, now_ms + ttl_ns / WB_MS, why);
}

wb_err outbox_retention_release(struct sqlite3 *handle, const char *name, struct wb_why *why)
{
    return hold_run(handle, "DELETE FROM main.outbox_hold WHERE name = ?1", name, 0, 0, why);
}
