/* Rows from the table into memory: a batch is copied at once, so that no statement stays open while
 * the lane talks to the bus. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "outbox_publisher_private.h"

enum { YIELD_MS = 10 };
enum { READ_ROWS = 10000 }; /* looked at in one read, other lanes' rows included */

wb_err outbox_publisher_batch_init(struct outbox_publisher_batch *batch)
{
    *batch = (struct outbox_publisher_batch){.capacity = OUTBOX_PUBLISHER_BATCH_BYTES};
    batch->arena = malloc(batch->capacity);
    batch->items = calloc(OUTBOX_PUBLISHER_BATCH_ROWS, sizeof(*batch->items));
    if (batch->arena != NULL && batch->items != NULL)
        return WB_OK;
    outbox_publisher_batch_free(batch);
    return WB_NOMEM;
}

void outbox_publisher_batch_free(struct outbox_publisher_batch *batch)
{
    free(batch->arena);
    free(batch->items);
    *batch = (struct outbox_publisher_batch){0};
}

/* ---- copying --------------------------------------------------------------------------------- */

/* Room for a row; a single one may be larger than a batch. false: the batch is full. */
static bool reserve(struct outbox_publisher_batch *batch, size_t size, wb_err *ret_err)
{
    if (batch->count == batch->limit)
        return false;
    if (batch->used + size <= batch->capacity)
        return true;
    if (batch->count > 0)
        return false;
    char *arena = realloc(batch->arena, size);
    if (arena == NULL) {
        *ret_err = WB_NOMEM;
        return false;
    }
    batch->arena = arena;
    batch->capacity = size;
    return true;
}

static const void *copy(struct outbox_publisher_batch *batch, const void *data, size_t len)
{
    char *at = batch->arena + batch->used;

    if (len > 0)
        memcpy(at, data, len);
    batch->used += len;
    return at;
}

static void copy_str(struct outbox_publisher_batch *batch, struct wb_str *text)
{
    *text = wb_str_n(copy(batch, text->ptr, text->len), text->len);
}

static bool item_add(struct outbox_publisher_batch *batch, const struct outbox_row *row,
                     size_t max_payload, struct outbox_publisher_item **ret_item, wb_err *ret_err)
{
    bool too_big = row->payload.len > max_payload;
    size_t payload = too_big ? 0 : row->payload.len;
    size_t size = row->stream.len + row->key.len + row->subject.len + row->headers.len +
                  row->traceparent.len + payload;

    if (!reserve(batch, size, ret_err))
        return false;
    struct outbox_publisher_item *item = &batch->items[batch->count++];
    *item = (struct outbox_publisher_item){.row = *row, .too_big = too_big};
    copy_str(batch, &item->row.stream);
    copy_str(batch, &item->row.key);
    copy_str(batch, &item->row.subject);
    copy_str(batch, &item->row.headers);
    copy_str(batch, &item->row.traceparent);
    item->row.payload.ptr = copy(batch, row->payload.ptr, payload);
    *ret_item = item;
    return true;
}

/* ---- choosing -------------------------------------------------------------------------------- */

struct reading {
    struct outbox_publisher_lane *lane;
    int64_t now_ms;
    bool exception; /* the row has an exception already */
    bool late;      /* and the stream held it once */
    bool scheduled; /* it waited for its time */
    bool full;
    size_t seen;
    wb_err err;
};

static void set_aside(struct reading *reading, const struct outbox_row *row, uint64_t key_hash,
                      outbox_exception_state state, int64_t next_ms, const char *why_not)
{
    struct outbox_publisher_lane *lane = reading->lane;

    reading->err = outbox_publisher_exceptions_put(&lane->exceptions, row->id, key_hash, state,
                                                   next_ms, why_not);
    if (reading->err == WB_OK && state == OUTBOX_EXCEPTION_WAITING)
        reading->err = outbox_publisher_schedule_add(&lane->schedule, next_ms, row->id);
    outbox_publisher_unmarked(lane);
}

/* Not now, or never? true: an exception was made of it. */
static bool put_off(struct reading *reading, const struct outbox_row *row, uint64_t key_hash)
{
    int64_t due_ms = row->due_wall_ns / WB_MS, expires_ms = row->expires_wall_ns / WB_MS;
    bool stop = false;

    if (expires_ms > 0 && expires_ms <= reading->now_ms) {
        set_aside(reading, row, key_hash, OUTBOX_EXCEPTION_EXPIRED, 0, "expires_at has passed");
        return true;
    }
    if (due_ms > reading->now_ms) {
        set_aside(reading, row, key_hash, OUTBOX_EXCEPTION_WAITING, due_ms, "due_at lies ahead");
        return true;
    }
    if (reading->exception) /* those that must wait were not chosen */
        return false;
    reading->err =
        outbox_publisher_exceptions_stop(&reading->lane->exceptions, row->id, key_hash, &stop);
    if (reading->err == WB_OK && stop)
        set_aside(reading, row, key_hash, OUTBOX_EXCEPTION_BLOCKED, 0,
                  OUTBOX_PUBLISHER_BLOCKED_TEXT);
    return stop || reading->err != WB_OK;
}

static bool row_take(struct reading *reading, const struct outbox_row *row,
                     outbox_publisher_owner owner)
{
    struct outbox_publisher_lane *lane = reading->lane;
    struct outbox_publisher_item *item;
    uint64_t key_hash = outbox_publisher_key_hash(row->key);

    if (put_off(reading, row, key_hash))
        return reading->err == WB_OK;
    if (!item_add(&lane->batch, row, lane->max_payload, &item, &reading->err)) {
        reading->full = true;
        return false;
    }
    item->key_hash = key_hash;
    item->exception = reading->exception || reading->scheduled;
    item->late = reading->late;
    /* A row with a due time may be cancelled until it is sent, one without only while aside. */
    item->unclaimed = item->exception || row->due_wall_ns > 0;
    item->doubtful = owner == OUTBOX_PUBLISHER_DOUBTFUL;
    return true;
}

/* ---- the straight path ----------------------------------------------------------------------- */

static bool straight_visit(void *ctx, const struct outbox_row *row)
{
    struct reading *reading = ctx;
    struct outbox_publisher_lane *lane = reading->lane;
    outbox_publisher_owner owner = outbox_publisher_route_of(lane, row->stream, row->subject);

    reading->seen++;
    if (owner != OUTBOX_PUBLISHER_OTHER && row->state == OUTBOX_PENDING &&
        outbox_publisher_exceptions_find(&lane->exceptions, row->id) == NULL &&
        !row_take(reading, row, owner))
        return false;
    lane->read_id = row->id;
    return true;
}

static wb_err straight_read(struct outbox_publisher_lane *lane, int64_t now_ms, struct wb_why *why)
{
    struct reading reading = {.lane = lane, .now_ms = now_ms};
    wb_err err = outbox_publisher_store_rows(lane->store, lane->read_id, READ_ROWS, straight_visit,
                                             &reading, why);

    if (err != WB_OK)
        return err;
    if (reading.err != WB_OK)
        return wb_fail(why, reading.err, "read rows of the outbox: %s", wb_err_text(reading.err));
    lane->dry = !reading.full && reading.seen < READ_ROWS;
    return WB_OK;
}

/* ---- exceptions ------------------------------------------------------------------------------ */

/* Its stream has been found meanwhile: that lane takes it from the table. */
static void hand_over(struct outbox_publisher_lane *lane, int64_t id)
{
    outbox_publisher_exceptions_find(&lane->exceptions, id)->next_ms = INT64_MAX;
    for (size_t i = 0; i < lane->publisher->lane_count; i++) {
        if (i == lane->index)
            continue;
        atomic_store(&lane->publisher->lanes[i]->reload, true);
        outbox_publisher_lane_kick(lane->publisher->lanes[i]);
    }
}

static bool exception_visit(void *ctx, const struct outbox_row *row)
{
    struct reading *reading = ctx;
    outbox_publisher_owner owner =
        outbox_publisher_route_of(reading->lane, row->stream, row->subject);

    if (owner == OUTBOX_PUBLISHER_OTHER)
        hand_over(reading->lane, row->id);
    else
        (void)row_take(reading, row, owner);
    return false;
}

/* Where the latest wins, an older row is not sent while a younger one of its key is on its way. */
static bool yields(struct outbox_publisher_lane *lane, int64_t id)
{
    const struct outbox_publisher_exception *one =
        outbox_publisher_exceptions_find(&lane->exceptions, id);

    return one->policy == OUTBOX_LATEST_WINS &&
           outbox_publisher_flight_younger(lane->flight, id, one->key_hash);
}

/* Takes those out that yield; they are looked at again in a moment. */
static size_t leave_out_yielding(struct outbox_publisher_lane *lane, int64_t now_ms, int64_t *ids,
                                 size_t count)
{
    size_t kept = 0;

    for (size_t i = 0; i < count; i++)
        if (!yields(lane, ids[i]))
            ids[kept++] = ids[i];
    if (kept < count && lane->exception_due_ms > now_ms + YIELD_MS)
        lane->exception_due_ms = now_ms + YIELD_MS;
    return kept;
}

/* It has ended processes, and it is not its turn. */
static bool goes_by_itself(struct outbox_publisher_lane *lane, int64_t id)
{
    return lane->cursor.suspect_id != id &&
           outbox_publisher_exceptions_find(&lane->exceptions, id)->crashes > 0;
}

static void row_gone(struct outbox_publisher_lane *lane, int64_t id)
{
    wb_log(WB_LOG_WARN, "outbox_publisher",
           "outbox=%s stream=%s row=%lld is gone from the table; its exception goes too",
           lane->publisher->name, lane->stream, (long long)id);
    outbox_publisher_exceptions_done(&lane->exceptions, id, 0);
    outbox_publisher_unmarked(lane);
    outbox_publisher_unsynced(lane); /* those that it held up follow */
}

/* Rows beyond wait for the straight path to come that far, or for lost ones not loaded yet. */
int64_t outbox_publisher_limit_id(const struct outbox_publisher_lane *lane)
{
    int64_t done_id = outbox_publisher_done_id(lane);

    return lane->lost_left && lane->lost_from < done_id ? lane->lost_from : done_id;
}

static wb_err exceptions_read(struct outbox_publisher_lane *lane, int64_t now_ms,
                              struct wb_why *why)
{
    struct reading reading = {.lane = lane, .now_ms = now_ms, .exception = true};
    int64_t ids[OUTBOX_PUBLISHER_BATCH_ROWS];
    size_t count = 0, dirty = lane->exceptions.dirty;
    wb_err err =
        outbox_publisher_exceptions_due(&lane->exceptions, now_ms, outbox_publisher_limit_id(lane),
                                        lane->batch.limit, ids, &count, &lane->exception_due_ms);

    if (lane->exceptions.dirty > dirty)
        outbox_publisher_unmarked(lane);
    if (err == WB_OK)
        count = leave_out_yielding(lane, now_ms, ids, count);
    for (size_t i = 0; err == WB_OK && i < count && !reading.full; i++) {
        bool found = false;
        if (goes_by_itself(lane, ids[i])) {
            reading.full = true;
            break;
        }
        reading.late = outbox_publisher_exceptions_find(&lane->exceptions, ids[i])->resent;
        err =
            outbox_publisher_store_row(lane->store, ids[i], exception_visit, &reading, &found, why);
        if (err == WB_OK)
            err = reading.err;
        if (err == WB_OK && !found)
            row_gone(lane, ids[i]);
    }
    if (reading.full)
        lane->exception_due_ms = 0;
    return err;
}

/* ---- rows that waited for their time --------------------------------------------------------- */

static void waiting_visit(void *ctx, int64_t next_ms, int64_t id)
{
    struct reading *reading = ctx;
    struct outbox_publisher_schedule *schedule = &reading->lane->schedule;

    reading->seen++;
    outbox_publisher_schedule_extend(
        schedule, (struct outbox_publisher_due){.due_ms = next_ms, .id = id}, false);
    if (reading->err == WB_OK)
        reading->err = outbox_publisher_schedule_add(schedule, next_ms, id);
}

/* Those behind the horizon; what is not written yet must not be passed over. */
static wb_err schedule_fill(struct outbox_publisher_lane *lane, struct wb_why *why)
{
    struct outbox_publisher_schedule *schedule = &lane->schedule;
    struct reading reading = {.lane = lane};

    if (!outbox_publisher_schedule_wants(schedule) || lane->exceptions.dirty > 0)
        return WB_OK;
    wb_err err = outbox_publisher_store_waiting(
        lane->store, schedule->known ? schedule->horizon.due_ms : INT64_MIN,
        schedule->known ? schedule->horizon.id : 0, OUTBOX_PUBLISHER_SCHEDULE_MAX, waiting_visit,
        &reading, why);
    if (err == WB_OK && reading.err != WB_OK)
        err = wb_fail(why, reading.err, "read the waiting rows: %s", wb_err_text(reading.err));
    if (err == WB_OK && reading.seen < OUTBOX_PUBLISHER_SCHEDULE_MAX)
        outbox_publisher_schedule_extend(schedule, schedule->horizon, true);
    return err;
}

static bool due_visit(void *ctx, const struct outbox_row *row)
{
    struct reading *reading = ctx;
    outbox_publisher_owner owner =
        outbox_publisher_route_of(reading->lane, row->stream, row->subject);

    if (owner != OUTBOX_PUBLISHER_OTHER) /* else: that lane has it in its schedule, too */
        (void)row_take(reading, row, owner);
    return false;
}

/*
 * Is it still only waiting? A person, or a refusal, may have made something else of it; and who
 * changes due times by hand may have put it into the schedule twice.
 */
static bool waits(struct outbox_publisher_lane *lane, int64_t id)
{
    const struct outbox_publisher_exception *one =
        outbox_publisher_exceptions_find(&lane->exceptions, id);

    for (size_t i = 0; i < lane->batch.count; i++)
        if (lane->batch.items[i].row.id == id)
            return false;
    return one == NULL || (one->state == OUTBOX_EXCEPTION_WAITING && !one->gone);
}

static wb_err schedule_read(struct outbox_publisher_lane *lane, int64_t now_ms, bool *ret_full,
                            struct wb_why *why)
{
    struct reading reading = {.lane = lane, .now_ms = now_ms, .scheduled = true};
    const int64_t last_id = outbox_publisher_limit_id(lane);
    const struct outbox_publisher_due *first;
    wb_err err = schedule_fill(lane, why);

    while (err == WB_OK && (first = outbox_publisher_schedule_first(&lane->schedule)) != NULL &&
           first->due_ms <= now_ms && first->id <= last_id) {
        int64_t id = first->id;
        bool found = true;
        if (waits(lane, id))
            err = outbox_publisher_store_row(lane->store, id, due_visit, &reading, &found, why);
        err = err == WB_OK ? reading.err : err;
        if (err != WB_OK || reading.full)
            break;
        outbox_publisher_schedule_pop(&lane->schedule);
        if (!found)
            err = outbox_publisher_exceptions_put(&lane->exceptions, id, 0,
                                                  OUTBOX_EXCEPTION_WAITING, 0, NULL);
        if (!found && err == WB_OK)
            row_gone(lane, id);
        if (outbox_publisher_schedule_first(&lane->schedule) == NULL)
            err = err == WB_OK ? schedule_fill(lane, why) : err;
    }
    *ret_full = reading.full;
    return err;
}

/* ---- all of it ------------------------------------------------------------------------------- */

/* Lost rows first; when those at hand are through, the next ones. */
static wb_err aside_read(struct outbox_publisher_lane *lane, int64_t now_ms, struct wb_why *why)
{
    wb_err err = WB_OK;

    if (lane->exceptions.count > 0)
        err = exceptions_read(lane, now_ms, why);
    while (err == WB_OK && lane->lost_left && lane->exceptions.lost == 0) {
        err = outbox_publisher_lost_load(lane, lane->lost_from, why);
        if (err == WB_OK && lane->batch.count == 0)
            err = exceptions_read(lane, now_ms, why);
    }
    return err;
}

/* Nothing is dropped to make room: at the limit new rows stay where they are, and a person is told.
 */
static bool aside_full(struct outbox_publisher_lane *lane)
{
    const size_t limit = lane->publisher->max_set_aside;
    struct wb_why why;

    if (lane->exceptions.count < limit) {
        if (lane->aside_full)
            outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_DRAIN, NULL);
        lane->aside_full = false;
        return false;
    }
    lane->dry = true; /* when one of them goes, that wakes us */
    if (lane->aside_full)
        return true;
    lane->aside_full = true;
    (void)snprintf(why.text, sizeof(why.text),
                   "%zu rows are set aside, the limit is %zu: no new row is sent; retry or discard "
                   "those that are parked (waybill dlq)",
                   lane->exceptions.count, limit);
    outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_DRAIN, why.text);
    return true;
}

static wb_err batch_read(struct outbox_publisher_lane *lane, struct wb_why *why)
{
    int64_t now_ms = outbox_publisher_wall_ms(lane);
    bool full = false;
    wb_err err = outbox_publisher_exceptions_reload(lane, why);

    if (err == WB_OK)
        err = aside_read(lane, now_ms, why);
    if (err == WB_OK)
        err = schedule_read(lane, now_ms, &full, why);
    /* What was lost goes first: a younger row must not overtake it. Once it is on its way, rows of
     * its key may follow in the chain. */
    bool losing = lane->lost_left || (lane->exceptions.lost > 0 && lane->batch.count > 0);
    if (err == WB_OK && !full && !losing &&
        (lane->exceptions.count == 0 || lane->exception_due_ms > now_ms) && !aside_full(lane))
        err = straight_read(lane, now_ms, why);
    return err == WB_OK ? outbox_publisher_batch_claim(lane, why) : err;
}

wb_err outbox_publisher_batch_read(struct outbox_publisher_lane *lane, struct wb_why *why)
{
    lane->batch.count = lane->batch.next = lane->batch.used = 0;
    lane->batch.limit = lane->cursor.suspect_id != 0 ? 1 : lane->batch_limit;
    wb_err err = batch_read(lane, why);
    if (err != WB_OK) /* what was taken from it is to be found again */
        outbox_publisher_schedule_reset(&lane->schedule);
    return err;
}
