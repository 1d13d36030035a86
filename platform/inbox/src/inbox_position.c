/* How far a stream was read, and how to tell whether it still is the stream that was read. */
#include "inbox_internal.h"

#include <assert.h>
#include <inttypes.h>

#include <waybill/db.h>

/* Between two anchors, where they are densest. Going back so far costs next to nothing. */
static const uint64_t ANCHOR_STEP = 512;

enum { ANCHORS_MAX = INBOX_POINTS_MAX - 1 };

/* ---- marks ----------------------------------------------------------------------------------- */

/*
 * The event and the time of its storing: when a stream that lost its end was filled again, the same
 * event may stand at the same place, but what lies before it may differ. 0 is for "not known".
 */
static wb_err mark_of(struct inbox *inbox, const struct message *msg,
                      const struct inbox_origin *origin, uint64_t *ret_mark, struct wb_why *why)
{
    struct inbox_identity identity = {0};
    wb_err err = inbox_identify(inbox, msg, origin, &identity, why);

    if (err != WB_OK)
        return err;
    wb_buf_printf(&inbox->text, " %" PRIu64 " %" PRId64, origin->sequence, origin->stored_wall_ns);
    if (inbox->text.failed)
        return wb_fail(why, WB_NOMEM, "out of memory noting a position of %s", inbox->consumer);
    uint64_t mark = wb_hash(inbox->text.ptr, inbox->text.len);
    *ret_mark = mark != 0 ? mark : 1;
    return WB_OK;
}

wb_err inbox_point_holds(struct inbox *inbox, const struct inbox_point *point,
                         const struct message *msg, const struct inbox_origin *origin,
                         bool *ret_holds, struct wb_why *why)
{
    uint64_t mark = 0;

    assert(inbox != NULL);
    assert(point != NULL);
    assert(ret_holds != NULL);
    wb_err err = mark_of(inbox, msg, origin, &mark, why);
    if (err == WB_OK)
        *ret_holds = point->mark == 0 || point->mark == mark;
    return err;
}

/* ---- anchors --------------------------------------------------------------------------------- */

static void bind_place(struct sqlite3_stmt *stmt, struct wb_str stream, int64_t created)
{
    db_bind_text(stmt, 2, stream);
    sqlite3_bind_int64(stmt, 3, created);
}

/* The highest come first. */
static wb_err anchors_read(struct inbox *inbox, struct wb_str stream, int64_t created,
                           struct inbox_point *ret_points, size_t max, size_t *ret_count,
                           struct wb_why *why)
{
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_ANCHORS);
    size_t count = 0;
    bool row = true;

    bind_place(stmt, stream, created);
    while (row && count < max) {
        wb_err err = inbox_first(inbox, stmt, &row, "read earlier positions", why);
        if (err != WB_OK)
            return err;
        if (row)
            ret_points[count++] =
                (struct inbox_point){.sequence = (uint64_t)sqlite3_column_int64(stmt, 0),
                                     .mark = (uint64_t)sqlite3_column_int64(stmt, 1)};
    }
    sqlite3_reset(stmt);
    *ret_count = count;
    return WB_OK;
}

static uint64_t distance(uint64_t a, uint64_t b)
{
    return a > b ? a - b : b - a;
}

/*
 * Which one to do without: never the ends; of the rest the one whose absence leaves the smallest
 * gap in proportion to how far back it lies. So the gaps grow with the distance.
 */
static size_t least_missed(const struct inbox_point *points, size_t count, uint64_t newest)
{
    size_t least = 1;
    double least_gap = 0;

    for (size_t i = 1; i + 1 < count; i++) {
        double gap = (double)(points[i - 1].sequence - points[i + 1].sequence) /
                     ((double)distance(newest, points[i + 1].sequence) + 1);
        if (i == 1 || gap < least_gap) {
            least = i;
            least_gap = gap;
        }
    }
    return least;
}

static wb_err anchors_thin(struct inbox *inbox, const struct inbox_origin *origin,
                           struct wb_why *why)
{
    struct inbox_point points[ANCHORS_MAX + 1];
    size_t count = 0;
    struct sqlite3_stmt *others = inbox_use(inbox, INBOX_ANCHOR_DROP_OTHERS);

    bind_place(others, origin->stream, origin->stream_created_wall_ns);
    wb_err err = inbox_run(inbox, others, "forget positions in an earlier stream", why);
    if (err == WB_OK)
        err = anchors_read(inbox, origin->stream, origin->stream_created_wall_ns, points,
                           ANCHORS_MAX + 1, &count, why);
    if (err != WB_OK || count <= ANCHORS_MAX)
        return err;
    struct sqlite3_stmt *drop = inbox_use(inbox, INBOX_ANCHOR_DROP);
    bind_place(drop, origin->stream, origin->stream_created_wall_ns);
    sqlite3_bind_int64(drop, 4,
                       (int64_t)points[least_missed(points, count, origin->sequence)].sequence);
    return inbox_run(inbox, drop, "forget an earlier position", why);
}

/* Where the newest anchor of the stream stands. */
static wb_err recent_of(struct inbox *inbox, const struct inbox_origin *origin,
                        struct inbox_recent **ret_recent, struct wb_why *why)
{
    struct inbox_point newest = {0};
    size_t count = 0;
    uint64_t hash =
        wb_hash(origin->stream.ptr, origin->stream.len) ^ (uint64_t)origin->stream_created_wall_ns;
    struct inbox_recent *recent = &inbox->recent[hash % INBOX_RECENT];

    hash = hash != 0 ? hash : 1;
    if (recent->stream != hash) {
        wb_err err = anchors_read(inbox, origin->stream, origin->stream_created_wall_ns, &newest, 1,
                                  &count, why);
        if (err != WB_OK)
            return err;
        *recent = (struct inbox_recent){.stream = hash, .sequence = newest.sequence};
    }
    *ret_recent = recent;
    return WB_OK;
}

/* Rarely, so that it costs an event nothing. */
static wb_err anchor_keep(struct inbox *inbox, const struct inbox_origin *origin, uint64_t mark,
                          struct wb_why *why)
{
    struct inbox_recent *recent = NULL;
    wb_err err = recent_of(inbox, origin, &recent, why);

    if (err != WB_OK || distance(recent->sequence, origin->sequence) < ANCHOR_STEP)
        return err;
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_ANCHOR_PUT);
    bind_place(stmt, origin->stream, origin->stream_created_wall_ns);
    sqlite3_bind_int64(stmt, 4, (int64_t)origin->sequence);
    sqlite3_bind_int64(stmt, 5, (int64_t)mark);
    err = inbox_run(inbox, stmt, "keep a position to go back to", why);
    if (err == WB_OK)
        err = anchors_thin(inbox, origin, why);
    if (err == WB_OK)
        recent->sequence = origin->sequence;
    return err;
}

/* ---- positions ------------------------------------------------------------------------------- */

wb_err inbox_advance(struct inbox *inbox, const struct message *msg,
                     const struct inbox_origin *origin, struct wb_why *why)
{
    uint64_t mark = 0;

    assert(inbox != NULL);
    assert(msg != NULL);
    assert(origin != NULL);
    wb_err err = inbox_require_transaction(inbox, "advance the position", why);
    if (err == WB_OK)
        err = mark_of(inbox, msg, origin, &mark, why);
    if (err != WB_OK)
        return err;
    /* Backwards too: a stream that lost its end is read again, and what comes twice is known. */
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_POSITION_PUT);
    bind_place(stmt, origin->stream, origin->stream_created_wall_ns);
    sqlite3_bind_int64(stmt, 4, (int64_t)origin->sequence);
    sqlite3_bind_int64(stmt, 5, (int64_t)mark);
    err = inbox_run(inbox, stmt, "advance the position", why);
    return err == WB_OK ? anchor_keep(inbox, origin, mark, why) : err;
}

static wb_err position_read(struct inbox *inbox, struct wb_str stream, int64_t created,
                            struct inbox_point *ret_point, bool *ret_found, struct wb_why *why)
{
    struct sqlite3_stmt *stmt = inbox_use(inbox, INBOX_POSITION_GET);

    bind_place(stmt, stream, created);
    wb_err err = inbox_first(inbox, stmt, ret_found, "read the position", why);
    if (err == WB_OK && *ret_found)
        *ret_point = (struct inbox_point){.sequence = (uint64_t)sqlite3_column_int64(stmt, 0),
                                          .mark = (uint64_t)sqlite3_column_int64(stmt, 1)};
    sqlite3_reset(stmt);
    return err;
}

wb_err inbox_position(struct inbox *inbox, const char *stream, int64_t stream_created_wall_ns,
                      uint64_t *ret_sequence, struct wb_why *why)
{
    struct inbox_point point = {0};
    bool found = false;

    assert(inbox != NULL);
    assert(stream != NULL);
    assert(ret_sequence != NULL);
    wb_err err = position_read(inbox, wb_str(stream), stream_created_wall_ns, &point, &found, why);
    if (err == WB_OK)
        *ret_sequence = point.sequence;
    return err;
}

wb_err inbox_points(struct inbox *inbox, const char *stream, int64_t stream_created_wall_ns,
                    struct inbox_point ret_points[INBOX_POINTS_MAX], size_t *ret_count,
                    struct wb_why *why)
{
    struct inbox_point points[INBOX_POINTS_MAX], position = {0};
    bool found = false;
    size_t count = 0;

    assert(inbox != NULL);
    assert(stream != NULL);
    assert(ret_points != NULL);
    assert(ret_count != NULL);
    wb_err err =
        position_read(inbox, wb_str(stream), stream_created_wall_ns, &position, &found, why);
    if (err == WB_OK && found)
        err = anchors_read(inbox, wb_str(stream), stream_created_wall_ns, points, ANCHORS_MAX,
                           &count, why);
    if (err != WB_OK)
        return err;
    /* The position takes its place among them: they may lie beyond it, see inbox.h. */
    size_t out = 0, next = 0;
    while (next < count && points[next].sequence > position.sequence)
        ret_points[out++] = points[next++];
    if (found)
        ret_points[out++] = position;
    while (next < count && points[next].sequence == position.sequence)
        next++;
    while (next < count)
        ret_points[out++] = points[next++];
    *ret_count = out;
    return WB_OK;
}
