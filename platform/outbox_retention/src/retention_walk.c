/* Which rows may go: a walk for each class, and an account of what each class has. */
#include <sqlite3.h>
#include <string.h>

#include "retention.h"

#include <waybill/subject.h>

enum {
    LOOK_EVERY = 32,    /* rows between two looks at the clock */
    WALK_ROWS = 20000,  /* examined in one step, at most */
    COUNT_ROWS = 20000, /* counted in one step, at most */
    EXCEPTION_COLUMN = 5
};

static struct retention_lane *lane_of(struct outbox_retention *self, struct wb_str subject)
{
    /* A row written by hand may have a subject that no pattern is defined for. */
    const struct outbox_class *class =
        subject_check(subject, NULL) == WB_OK
            ? outbox_class_of(self->classes, self->class_count, subject)
            : NULL;

    return &self->lanes[class != NULL ? (size_t)(class - self->classes) : self->class_count];
}

static struct wb_str subject_column(struct sqlite3_stmt *stmt, int column)
{
    const char *text = (const char *)sqlite3_column_text(stmt, column);

    return wb_str_n(text, (size_t)sqlite3_column_bytes(stmt, column));
}

/* Has the class more than it may, beyond what is to go already? */
static bool over_limits(const struct outbox_retention *self, const struct retention_lane *lane,
                        uint64_t victim_bytes)
{
    if (!self->counted || lane->class == NULL || self->by_age_only)
        return false;
    uint64_t rows = lane->rows - self->victim_count;
    uint64_t bytes = lane->bytes - victim_bytes;
    return (lane->class->keep_rows > 0 && rows > lane->class->keep_rows) ||
           (lane->class->keep_bytes > 0 && bytes > lane->class->keep_bytes);
}

/* Not yet read back, or off the straight path with something still to come. */
static bool must_stay(struct sqlite3_stmt *stmt)
{
    outbox_exception_state state;
    bool confirmed = sqlite3_column_int(stmt, EXCEPTION_COLUMN + 1) != 0;

    if (sqlite3_column_type(stmt, EXCEPTION_COLUMN) == SQLITE_NULL)
        return !confirmed;
    return !confirmed ||
           !outbox_exception_state_parse(subject_column(stmt, EXCEPTION_COLUMN), &state) ||
           (state != OUTBOX_EXCEPTION_EXPIRED && state != OUTBOX_EXCEPTION_CANCELLED);
}

/* Decide on the row the statement stands on. false: the walk ends before it. */
static bool decide(struct outbox_retention *self, struct retention_lane *lane,
                   struct sqlite3_stmt *stmt, int64_t now_ms, uint64_t *victim_bytes)
{
    int64_t due_ms = sqlite3_column_int64(stmt, 3) + lane->keep_ns / WB_MS;

    if (lane_of(self, subject_column(stmt, 2)) != lane)
        return true;
    if (must_stay(stmt)) {
        lane->skipped = true;
        return true;
    }
    if (due_ms > now_ms && !over_limits(self, lane, *victim_bytes)) {
        lane->due_ms = due_ms;
        return false;
    }
    struct retention_victim *victim = &self->victims[self->victim_count++];
    *victim = (struct retention_victim){.id = sqlite3_column_int64(stmt, 0),
                                        .bytes = (uint64_t)sqlite3_column_int64(stmt, 4)};
    if (sqlite3_column_bytes(stmt, 1) == WB_ID_SIZE)
        memcpy(victim->msg_id, sqlite3_column_blob(stmt, 1), WB_ID_SIZE);
    *victim_bytes += victim->bytes;
    if ((now_ms - due_ms) * WB_MS > self->overdue_ns)
        self->overdue_ns = (now_ms - due_ms) * WB_MS;
    return true;
}

wb_err outbox_retention_walk(struct outbox_retention *self, struct retention_lane *lane,
                             const struct retention_limits *limits, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = self->walk;
    int64_t now_ms = wb_wall_ns(self->clock) / WB_MS;
    int64_t until = wb_mono_ns(self->clock) + RETENTION_BUDGET_NS;
    uint64_t victim_bytes = 0;
    int rc = SQLITE_ROW;

    self->victim_count = 0;
    self->overdue_ns = 0;
    lane->due_ms = 0;
    (void)sqlite3_bind_int64(stmt, 1, lane->at);
    (void)sqlite3_bind_int64(stmt, 2, limits->last_id);
    (void)sqlite3_bind_int64(stmt, 3, limits->floor_id);
    for (int n = 1; self->victim_count < OUTBOX_RETENTION_ROWS && n <= WALK_ROWS; n++) {
        rc = sqlite3_step(stmt);
        if (rc != SQLITE_ROW || !decide(self, lane, stmt, now_ms, &victim_bytes)) {
            lane->done = true;
            break;
        }
        lane->at = sqlite3_column_int64(stmt, 0);
        if (n % LOOK_EVERY == 0 && wb_mono_ns(self->clock) >= until)
            break;
    }
    return db_statement_end(stmt, rc, "look for rows of the outbox that may go", why);
}

wb_err outbox_retention_count(struct outbox_retention *self, const struct retention_limits *limits,
                              struct wb_why *why)
{
    struct sqlite3_stmt *stmt = self->count;
    int64_t until = wb_mono_ns(self->clock) + RETENTION_BUDGET_NS;
    int rc = SQLITE_ROW;

    if (self->purged_known != limits->purged) {
        /* Somebody else has purged: what we counted may be gone. */
        self->purged_known = limits->purged;
        self->counted_id = 0;
        for (size_t i = 0; i <= self->class_count; i++)
            self->lanes[i].rows = self->lanes[i].bytes = 0;
    }
    (void)sqlite3_bind_int64(stmt, 1, self->counted_id);
    for (int n = 1; n <= COUNT_ROWS && (rc = sqlite3_step(stmt)) == SQLITE_ROW; n++) {
        struct retention_lane *lane = lane_of(self, subject_column(stmt, 1));
        lane->rows++;
        lane->bytes += (uint64_t)sqlite3_column_int64(stmt, 2);
        self->counted_id = sqlite3_column_int64(stmt, 0);
        if (n % LOOK_EVERY == 0 && wb_mono_ns(self->clock) >= until)
            break;
    }
    self->counted = rc == SQLITE_DONE;
    return db_statement_end(stmt, rc, "count the rows of the outbox", why);
}
