/*
 * A row that ends the process which sends it.
 *
 * Starts are counted. From the second on the batch is halved each time, and each batch is marked
 * before the next one is read; a mark takes one start back, and so doubles the batch. The rows
 * before the bad one get through in ever smaller steps. At one row a batch, the row is noted in the
 * cursor before it is touched; a start that finds one noted counts it against the row, which goes
 * by itself from then on, and is parked in the end.
 *
 * A process that is killed from outside leaves a row noted now and then, and one that is killed
 * again and again soon after its start may do so with the same row. So a row counted twice waits
 * until a publisher has lived for a second; the moment in which it is noted is then a thousandth of
 * the time, and healthy rows get through.
 */
#include "outbox_publisher_private.h"

#define CALM_MS 1000

size_t outbox_publisher_batch_limit(int64_t starts)
{
    size_t limit = OUTBOX_PUBLISHER_BATCH_ROWS;

    for (; starts > 1 && limit > 1; starts--)
        limit /= 2;
    return limit;
}

void outbox_publisher_suspect_mark(const struct outbox_publisher_lane *lane,
                                   struct outbox_publisher_cursor *cursor)
{
    if (lane->state == OUTBOX_PUBLISHER_STOPPING) /* an orderly end */
        cursor->starts = 0;
    else if (lane->unmarked > 0)
        cursor->starts -= cursor->starts > 2 ? 1 : cursor->starts;
    if (outbox_publisher_flight_count(lane->flight) == 0)
        cursor->suspect_id = 0;
}

void outbox_publisher_suspected(struct outbox_publisher_lane *lane, int64_t id)
{
    if (id != 0)
        wb_log(WB_LOG_WARN, "outbox_publisher",
               "outbox=%s stream=%s row=%lld was being sent when a publisher ended without a word; "
               "it goes by itself from now on, and is parked at the %dth time",
               lane->publisher->name, lane->stream, (long long)id, OUTBOX_PUBLISHER_CRASHES_MAX);
}

int64_t outbox_publisher_suspect_due(const struct outbox_publisher_lane *lane,
                                     const struct outbox_publisher_exception *one)
{
    int64_t calm_ms = lane->taken_wall_ms + CALM_MS;

    return one->crashes > 1 && one->next_ms < calm_ms ? calm_ms : one->next_ms;
}

/* ---- which row comes next -------------------------------------------------------------------- */

struct next {
    struct outbox_publisher_lane *lane;
    int64_t id;
};

static bool next_visit(void *ctx, const struct outbox_row *row)
{
    struct next *next = ctx;
    struct outbox_publisher_lane *lane = next->lane;

    if (outbox_publisher_route_of(lane, row->stream, row->subject) == OUTBOX_PUBLISHER_OTHER ||
        row->state != OUTBOX_PENDING ||
        outbox_publisher_exceptions_find(&lane->exceptions, row->id) != NULL)
        return true;
    next->id = row->id;
    return false;
}

/* In the order in which a batch is read; 0: none. Looks at no payload and no headers. */
static wb_err next_id(struct outbox_publisher_lane *lane, int64_t *ret_id, struct wb_why *why)
{
    const int64_t now_ms = outbox_publisher_wall_ms(lane);
    const struct outbox_publisher_due *due = outbox_publisher_schedule_first(&lane->schedule);
    struct next next = {.lane = lane};
    int64_t next_ms = INT64_MAX;
    size_t count = 0;
    wb_err err = outbox_publisher_exceptions_reload(lane, why);

    while (err == WB_OK && lane->lost_left && lane->exceptions.lost == 0)
        err = outbox_publisher_lost_load(lane, lane->lost_from, why);
    const int64_t limit_id = outbox_publisher_limit_id(lane);
    if (err == WB_OK)
        err = outbox_publisher_exceptions_due(&lane->exceptions, now_ms, limit_id, 1, &next.id,
                                              &count, &next_ms);
    lane->exceptions.due_stale = true; /* who reads them asks again */
    if (err == WB_OK && count == 0 && due != NULL && due->due_ms <= now_ms && due->id <= limit_id)
        next.id = due->id;
    else if (err == WB_OK && count == 0)
        err = outbox_publisher_store_heads(lane->store, lane->read_id, INT64_MAX, next_visit, &next,
                                           why);
    *ret_id = next.id;
    return err;
}

static bool goes_alone(struct outbox_publisher_lane *lane, int64_t id)
{
    const struct outbox_publisher_exception *one =
        outbox_publisher_exceptions_find(&lane->exceptions, id);

    return id != 0 && (lane->batch_limit == 1 || (one != NULL && one->crashes > 0));
}

/* ---- before a batch is read ------------------------------------------------------------------ */

static bool note(struct outbox_publisher_lane *lane, int64_t id)
{
    struct wb_why why;

    switch (
        outbox_publisher_store_suspect(lane->store, lane->stream, lane->cursor.holder, id, &why)) {
    case WB_OK:
        lane->cursor.suspect_id = id;
        return true;
    case WB_CONFLICT:
        outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_FENCED, why.text);
        break;
    default:
        outbox_publisher_lane_ours(lane, why.text);
        break;
    }
    return false;
}

bool outbox_publisher_suspect(struct outbox_publisher_lane *lane)
{
    bool quiet = outbox_publisher_flight_count(lane->flight) == 0 && lane->unmarked_mono_ns == 0;
    struct wb_why why = {.text = ""};
    int64_t id = 0;

    if (lane->cursor.suspect_id != 0) { /* nothing goes beside it */
        if (quiet)
            outbox_publisher_unmarked(lane); /* it was not sent after all */
        return false;
    }
    if (lane->batch_limit < OUTBOX_PUBLISHER_BATCH_ROWS && !quiet) {
        lane->hurry = true;
        return false;
    }
    if (lane->batch_limit > 1 && !lane->exceptions.crashed)
        return true;
    if (next_id(lane, &id, &why) != WB_OK) {
        outbox_publisher_lane_ours(lane, why.text);
        return false;
    }
    if (!goes_alone(lane, id))
        return true;
    lane->hurry = !quiet; /* it waits until all before it is marked */
    return quiet && note(lane, id);
}

bool outbox_publisher_suspect_read(struct outbox_publisher_lane *lane)
{
    const struct outbox_publisher_batch *batch = &lane->batch;

    if (lane->cursor.suspect_id == 0 || batch->count == 0 ||
        batch->items[0].row.id == lane->cursor.suspect_id)
        return true;
    return note(lane, batch->items[0].row.id);
}
