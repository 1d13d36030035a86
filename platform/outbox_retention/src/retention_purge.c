/*
 * Archive, then delete. What was decided without a lock is asked again inside the transaction: a
 * repair may have taken back what was verified, a person may have put a row off the straight path,
 * somebody may have begun to need it.
 */
#include <sqlite3.h>

#include "retention.h"

enum { LOOK_EVERY = 16, TIGHT_ROWS = 64 /* in one transaction where the disk is full */ };

/* A row with all that belongs to it. */
static wb_err delete_one(struct outbox_retention *self, struct retention_victim *victim,
                         const struct retention_limits *limits, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = self->delete_row;

    (void)sqlite3_bind_int64(stmt, 1, victim->id);
    (void)sqlite3_bind_blob(stmt, 2, victim->msg_id, WB_ID_SIZE, SQLITE_STATIC);
    (void)sqlite3_bind_int64(stmt, 3, limits->floor_id);
    wb_err err = db_statement_run(stmt, "delete a row of the outbox", why);
    victim->gone = err == WB_OK && sqlite3_changes(db_handle(self->db)) > 0;
    if (!victim->gone)
        return err;
    for (size_t i = 0; err == WB_OK && i < DELETE_MORE_COUNT; i++) {
        (void)sqlite3_bind_int64(self->delete_more[i], 1, victim->id);
        err = db_statement_run(self->delete_more[i], "delete what belongs to a row of the outbox",
                               why);
    }
    return err;
}

static wb_err note_purged(struct outbox_retention *self, uint64_t rows, uint64_t bytes,
                          struct wb_why *why)
{
    (void)sqlite3_bind_int64(self->purged_add, 1, (int64_t)rows);
    (void)sqlite3_bind_int64(self->purged_add, 2, (int64_t)bytes);
    (void)sqlite3_bind_int64(self->purged_add, 3, wb_wall_ns(self->clock) / WB_MS);
    return db_statement_run(self->purged_add, "note what went from the outbox", why);
}

/* Inside the transaction. *ret_tried: how many victims there was time for. */
static wb_err delete_all(struct outbox_retention *self, size_t *ret_tried,
                         struct retention_limits *ret_limits, struct wb_why *why)
{
    int64_t until = wb_mono_ns(self->clock) + RETENTION_BUDGET_NS;
    uint64_t rows = 0, bytes = 0;
    size_t n = 0;
    wb_err err = outbox_retention_limits_read(self, ret_limits, why);

    *ret_tried = 0;
    if (self->counts && self->purged_known != ret_limits->purged)
        return err; /* somebody else was faster: count again first */
    size_t most =
        self->disk_full && self->victim_count > TIGHT_ROWS ? TIGHT_ROWS : self->victim_count;
    while (err == WB_OK && n < most) {
        struct retention_victim *victim = &self->victims[n++];
        if (victim->id <= ret_limits->last_id)
            err = delete_one(self, victim, ret_limits, why);
        rows += victim->gone;
        bytes += victim->gone ? victim->bytes : 0;
        if (n % LOOK_EVERY == 0 && wb_mono_ns(self->clock) >= until)
            break;
    }
    *ret_tried = n;
    if (err == WB_OK && rows > 0)
        err = note_purged(self, rows, bytes, why);
    return err;
}

/* Writers stand in the queue now, so what is set free here is there for us. */
static void free_reserve(void *ctx)
{
    outbox_retention_reserve_free(((struct outbox_retention *)ctx)->reserve_path);
}

static wb_err transaction(struct outbox_retention *self, size_t *ret_tried,
                          struct retention_limits *limits, struct wb_why *why)
{
    wb_err err = self->disk_full ? db_begin_emptied(self->db, free_reserve, self, why)
                                 : db_begin(self->db, why);

    if (err != WB_OK)
        return err;
    err = delete_all(self, ret_tried, limits, why);
    WB_CRASH_POINT("outbox_retention.deleted");
    if (err == WB_OK)
        err = db_commit(self->db, why);
    db_rollback(self->db);
    return err;
}

static void account(struct outbox_retention *self, struct retention_lane *lane, size_t tried,
                    const struct retention_limits *limits)
{
    uint64_t rows = 0, bytes = 0;

    for (size_t i = 0; i < tried; i++) {
        rows += self->victims[i].gone;
        bytes += self->victims[i].gone ? self->victims[i].bytes : 0;
        lane->skipped = lane->skipped || !self->victims[i].gone;
    }
    lane->total.rows += rows;
    lane->total.bytes += bytes;
    lane->rows -= rows < lane->rows ? rows : lane->rows;
    lane->bytes -= bytes < lane->bytes ? bytes : lane->bytes;
    if (self->purged_known == limits->purged)
        self->purged_known += (int64_t)rows;
    if (tried < self->victim_count) {
        lane->at = self->victims[tried].id - 1;
        lane->done = false;
    }
    observe_add(self->purged_rows, (int64_t)rows);
}

wb_err outbox_retention_purge(struct outbox_retention *self, struct retention_lane *lane,
                              uint64_t *ret_archived, struct wb_why *why)
{
    struct retention_limits limits = {0};
    size_t tried = 0;
    wb_err err = WB_OK;

    *ret_archived = 0;
    if (lane->class != NULL && lane->class->archive) {
        if (self->archive == NULL)
            err = outbox_retention_archive_open(self->archive_path, &self->archive, why);
        if (err == WB_OK)
            err = outbox_retention_archive_copy(self->archive, self->db, self->victims,
                                                self->victim_count, wb_wall_ns(self->clock),
                                                ret_archived, why);
        lane->total.archived += *ret_archived;
        observe_add(self->archived_rows, (int64_t)*ret_archived);
        WB_CRASH_POINT("outbox_retention.archived");
    }
    if (err == WB_OK)
        err = transaction(self, &tried, &limits, why);
    if (err == WB_DISK_FULL)
        self->disk_full = true;
    if (err == WB_OK)
        account(self, lane, tried, &limits);
    WB_CRASH_POINT("outbox_retention.purged");
    return err;
}
