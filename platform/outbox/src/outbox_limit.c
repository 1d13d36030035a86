/* Back-pressure: how much may wait to be published. */
#include <inttypes.h>
#include <sqlite3.h>

#include "outbox_private.h"

#include <waybill/db.h>

#define LOOK_EVERY_NS (5 * WB_MS)
#define WARN_EVERY_NS (10 * WB_SEC)

enum { LOOK_EVERY_EVENTS = 256, SIZES_AT_ONCE = 2000 };

/* The row at the cursor that is least far, the newest row, and when the first between was written.
 * Three steps down the tree, however long the table is. */
static const char ends_sql[] =
    "SELECT f, (SELECT ifnull(max(id), 0) FROM main.outbox),"
    " ifnull((SELECT created FROM main.outbox WHERE id > f ORDER BY id LIMIT 1), 0)"
    " FROM (SELECT ifnull(min(last_id), 0) AS f FROM main.outbox_cursor)";
/* The length of a payload is known without reading it. */
static const char sizes_sql[] =
    "SELECT ifnull(sum(bytes), 0), ifnull(max(id), ?1), count(*) FROM"
    " (SELECT id, length(headers) + length(payload) AS bytes FROM main.outbox"
    "  WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3)";

/* ---- looking --------------------------------------------------------------------------------- */

static wb_err ends_read(struct outbox *self, struct outbox_backlog *backlog, struct wb_why *why)
{
    wb_err err = outbox_statement(self, ends_sql, &self->ends, why);

    if (err != WB_OK)
        return err;
    int rc = sqlite3_step(self->ends);
    if (rc == SQLITE_ROW) {
        backlog->floor_id = sqlite3_column_int64(self->ends, 0);
        backlog->top_id = sqlite3_column_int64(self->ends, 1);
        backlog->oldest_ms = sqlite3_column_int64(self->ends, 2);
    } else {
        err = db_error(self->handle, rc, "look how much of the outbox waits", why);
    }
    (void)sqlite3_reset(self->ends);
    return err;
}

/* The bytes of the rows in (from, to]: of so many as are looked at at once; *ret_at is the last. */
static wb_err sizes_read(struct outbox *self, int64_t from, int64_t to, uint64_t *ret_bytes,
                         int64_t *ret_at, struct wb_why *why)
{
    wb_err err = outbox_statement(self, sizes_sql, &self->sizes, why);

    if (err != WB_OK)
        return err;
    (void)sqlite3_bind_int64(self->sizes, 1, from);
    (void)sqlite3_bind_int64(self->sizes, 2, to);
    (void)sqlite3_bind_int64(self->sizes, 3, SIZES_AT_ONCE);
    int rc = sqlite3_step(self->sizes);
    if (rc == SQLITE_ROW) {
        *ret_bytes = (uint64_t)sqlite3_column_int64(self->sizes, 0);
        *ret_at = sqlite3_column_int64(self->sizes, 2) < SIZES_AT_ONCE
                      ? to
                      : sqlite3_column_int64(self->sizes, 1);
    } else {
        err = db_error(self->handle, rc, "look how many bytes of the outbox wait", why);
    }
    (void)sqlite3_reset(self->sizes);
    return err;
}

/* Each row is counted once when it comes and once when it is published. */
static wb_err bytes_follow(struct outbox *self, struct outbox_backlog *backlog, struct wb_why *why)
{
    uint64_t bytes = 0;
    int64_t at = 0;
    wb_err err = WB_OK;

    /* Nothing of the window is left, or the database has gone back in time. */
    if (backlog->floor_id >= backlog->counted_to_id || backlog->top_id < backlog->counted_to_id ||
        backlog->floor_id < backlog->counted_from_id) {
        backlog->counted_from_id = backlog->counted_to_id = backlog->floor_id;
        backlog->counted_bytes = 0;
    }
    if (backlog->floor_id > backlog->counted_from_id) {
        err = sizes_read(self, backlog->counted_from_id, backlog->floor_id, &bytes, &at, why);
        if (err != WB_OK)
            return err;
        backlog->counted_from_id = at;
        backlog->counted_bytes -= bytes < backlog->counted_bytes ? bytes : backlog->counted_bytes;
    }
    if (backlog->top_id > backlog->counted_to_id) {
        err = sizes_read(self, backlog->counted_to_id, backlog->top_id, &bytes, &at, why);
        if (err != WB_OK)
            return err;
        backlog->counted_to_id = at;
        backlog->counted_bytes += bytes;
    }
    return err;
}

static wb_err look(struct outbox *self, struct wb_why *why)
{
    struct outbox_backlog backlog = self->backlog;
    wb_err err = ends_read(self, &backlog, why);

    if (err == WB_OK)
        err = bytes_follow(self, &backlog, why);
    if (err != WB_OK)
        return err;
    backlog.known = true;
    backlog.looked_mono_ns = wb_mono_ns(wb_clock_system());
    backlog.since = 0;
    backlog.since_bytes = 0;
    self->backlog = backlog;
    return WB_OK;
}

/* ---- judging --------------------------------------------------------------------------------- */

static uint64_t pending_rows(const struct outbox_backlog *backlog)
{
    int64_t rows = backlog->top_id - backlog->floor_id;

    return (uint64_t)(rows > 0 ? rows : 0) + backlog->since;
}

/* What has not been counted yet is taken to be like what has. */
static uint64_t pending_bytes(const struct outbox_backlog *backlog)
{
    uint64_t bytes = backlog->counted_bytes;
    int64_t counted = backlog->counted_to_id - backlog->counted_from_id;
    int64_t rows = backlog->top_id - backlog->floor_id;

    if (counted > 0 && rows > 0 && rows != counted)
        bytes = (uint64_t)((double)bytes / (double)counted * (double)rows);
    return bytes + backlog->since_bytes;
}

static int64_t pending_age_ns(const struct outbox_backlog *backlog)
{
    int64_t age_ms = wb_wall_ns(wb_clock_system()) / WB_MS - backlog->oldest_ms;

    return backlog->oldest_ms > 0 && age_ms > 0 ? age_ms * WB_MS : 0;
}

static uint64_t event_bytes(const struct outbox_event *event)
{
    return event->payload.len;
}

static bool exceeded(const struct outbox_backlog *backlog, const struct outbox_class *class,
                     const struct outbox_event *event)
{
    return (class->max_pending_rows > 0 && pending_rows(backlog) >= class->max_pending_rows) ||
           (class->max_pending_bytes > 0 &&
            pending_bytes(backlog) + event_bytes(event) > class->max_pending_bytes) ||
           (class->max_pending_age_ns > 0 && pending_age_ns(backlog) > class->max_pending_age_ns);
}

static wb_err refuse(struct outbox *self, const struct outbox_class *class, struct wb_why *why)
{
    const struct outbox_backlog *backlog = &self->backlog;
    int64_t now = wb_mono_ns(wb_clock_system());
    struct wb_why text;

    (void)wb_fail(
        &text, WB_FULL,
        "the outbox is behind: %" PRIu64 " rows with %" PRIu64 " bytes are not published "
        "yet, the oldest is %" PRId64 " ms old; class %s allows %" PRIu64 " rows, %" PRIu64
        " bytes, %" PRId64 " ms (0: any); try again later, and see to the publisher",
        pending_rows(backlog), pending_bytes(backlog), pending_age_ns(backlog) / WB_MS, class->name,
        class->max_pending_rows, class->max_pending_bytes, class->max_pending_age_ns / WB_MS);
    if (!class->warn)
        return wb_fail(why, WB_FULL, "%s", text.text);
    if (self->warned_mono_ns == 0 || now >= self->warned_mono_ns + WARN_EVERY_NS) {
        self->warned_mono_ns = now;
        wb_log(WB_LOG_WARN, "outbox", "db=%s %s", sqlite3_db_filename(self->handle, "main"),
               text.text);
    }
    return WB_OK;
}

wb_err outbox_limit_check(struct outbox *self, const struct outbox_event *event, struct wb_why *why)
{
    const struct outbox_class *class =
        outbox_class_of(self->classes, self->class_count, event->subject);
    struct outbox_backlog *backlog = &self->backlog;

    if (class == NULL || (class->max_pending_rows == 0 && class->max_pending_bytes == 0 &&
                          class->max_pending_age_ns == 0))
        return WB_OK;
    bool fresh = backlog->known && backlog->since < LOOK_EVERY_EVENTS &&
                 wb_mono_ns(wb_clock_system()) < backlog->looked_mono_ns + LOOK_EVERY_NS;
    if (fresh && !exceeded(backlog, class, event))
        return WB_OK;
    /* Nobody is refused for what was true a moment ago. */
    wb_err err = look(self, why);
    if (err != WB_OK)
        return err;
    return exceeded(backlog, class, event) ? refuse(self, class, why) : WB_OK;
}

void outbox_limit_written(struct outbox *self, const struct outbox_event *event)
{
    self->backlog.since++;
    self->backlog.since_bytes += event_bytes(event);
}

void outbox_use_classes(struct outbox *outbox, const struct outbox_class *classes, size_t count)
{
    outbox->classes = classes;
    outbox->class_count = count;
    outbox->backlog.known = false;
}
