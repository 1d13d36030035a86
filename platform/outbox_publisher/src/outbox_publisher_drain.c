/* DRAIN: read a batch, sync the log, send it, mark what is acknowledged. */
#include <string.h>

#include "outbox_publisher_private.h"

#define MARK_AFTER_NS  (50 * WB_MS) /* the longest an ack waits for its mark */
#define IDLE_AFTER_NS  (5 * WB_MS)  /* nothing new for so long: mark, it disturbs nobody */
#define CHECK_EVERY_NS (5 * WB_SEC)
#define TICK_NS        WB_SEC
#define ANSWERS_IN_NS  (10 * WB_MS) /* a full window is looked at so often, however few came */

enum { LOOKS_MAX = 3 };     /* without an ack between, before it is called an outage */
enum { SYNC_ROWS = 10000 }; /* that leave after one sync of the log */

static bool set_aside_visit(void *ctx, const struct outbox_row *row)
{
    struct outbox_publisher_lane *lane = ctx;

    if (row->state == OUTBOX_PENDING &&
        outbox_publisher_exceptions_find(&lane->exceptions, row->id) == NULL &&
        outbox_publisher_route_of(lane, row->stream, row->subject) != OUTBOX_PUBLISHER_OTHER)
        return false;
    lane->read_id = row->id;
    return true;
}

/* Rows behind the cursor that left the straight path in an earlier life hold up nothing: those that
 * are due must go before the first row that has not. If it fails, reading passes them later. */
static void pass_set_aside(struct outbox_publisher_lane *lane)
{
    if (lane->exceptions.count > 0)
        (void)outbox_publisher_store_heads(lane->store, lane->read_id, INT64_MAX, set_aside_visit,
                                           lane, NULL);
}

void outbox_publisher_drain_reset(struct outbox_publisher_lane *lane)
{
    lane->batch.count = lane->batch.next = lane->batch.used = 0;
    lane->verdict = OUTBOX_PUBLISHER_GOES_ON;
    lane->read_id = lane->cursor.last_id;
    outbox_publisher_unsynced(lane);
    lane->chain_seq = lane->cursor.last_seq;
    lane->acked_seq = lane->cursor.last_seq;
    lane->failed_id = 0;
    lane->probe = true;
    lane->unmarked = lane->unmarked_bytes = 0;
    lane->unmarked_mono_ns = 0;
    lane->dry = lane->aside_full = false;
    outbox_publisher_flight_why(lane->flight, NULL); /* of what failed, nobody will ask any more */
    outbox_publisher_exceptions_land(&lane->exceptions);
    pass_set_aside(lane);
    outbox_publisher_audit_reset(lane);
}

static bool batch_empty(const struct outbox_publisher_lane *lane)
{
    return lane->batch.next == lane->batch.count;
}

static bool schedule_due(const struct outbox_publisher_lane *lane)
{
    const struct outbox_publisher_due *first = outbox_publisher_schedule_first(&lane->schedule);

    return first != NULL && first->due_ms <= outbox_publisher_wall_ms(lane) &&
           first->id <= outbox_publisher_done_id(lane);
}

bool outbox_publisher_exceptions_wait(const struct outbox_publisher_lane *lane)
{
    const struct outbox_publisher_exceptions *exceptions = &lane->exceptions;

    if (schedule_due(lane) || lane->exceptions_stale)
        return true;
    if (exceptions->count == 0)
        return false;
    return exceptions->due_stale || lane->exception_due_ms <= outbox_publisher_wall_ms(lane) ||
           (exceptions->beyond_id != 0 && exceptions->beyond_id <= outbox_publisher_done_id(lane));
}

bool outbox_publisher_idle(const struct outbox_publisher_lane *lane)
{
    return batch_empty(lane) && lane->dry && !outbox_publisher_exceptions_wait(lane) &&
           outbox_publisher_flight_count(lane->flight) == 0;
}

int64_t outbox_publisher_done_id(const struct outbox_publisher_lane *lane)
{
    int64_t open = lane->failed_id;

    if (open == 0)
        open = outbox_publisher_flight_oldest(lane->flight);
    for (size_t i = lane->batch.next; open == 0 && i < lane->batch.count; i++)
        if (!lane->batch.items[i].exception)
            open = lane->batch.items[i].row.id;
    return open != 0 ? open - 1 : lane->read_id;
}

/* ---- marking --------------------------------------------------------------------------------- */

static bool mark_wanted(const struct outbox_publisher_lane *lane)
{
    return lane->unmarked_mono_ns != 0;
}

wb_err outbox_publisher_mark(struct outbox_publisher_lane *lane, struct wb_why *why)
{
    struct outbox_publisher_cursor cursor = lane->cursor;

    cursor.last_id = outbox_publisher_done_id(lane);
    if (lane->unmarked > 0) {
        cursor.last_seq = lane->acked_seq;
        memcpy(cursor.last_msg_id, lane->acked_msg_id, WB_ID_SIZE);
        cursor.last_msg_id_len = WB_ID_SIZE;
    }
    outbox_publisher_suspect_mark(lane, &cursor);
    WB_CRASH_POINT("outbox_publisher.before_mark");
    wb_err err =
        outbox_publisher_store_write(lane->store, lane->stream, &cursor, &lane->exceptions, why);
    if (err != WB_OK)
        return err;
    WB_CRASH_POINT("outbox_publisher.marked");
    lane->cursor = cursor;
    lane->batch_limit = outbox_publisher_batch_limit(cursor.starts);
    lane->hurry = false;
    lane->unmarked = lane->unmarked_bytes = 0;
    lane->unmarked_mono_ns = 0;
    return WB_OK;
}

/* When the next mark is due; INT64_MAX: nothing to mark. */
static int64_t mark_due_ns(const struct outbox_publisher_lane *lane)
{
    const struct outbox_publisher *publisher = lane->publisher;
    size_t many = (publisher->window + 1) / 2;

    if (!mark_wanted(lane))
        return INT64_MAX;
    if ((lane->hurry || lane->cursor.suspect_id != 0) &&
        outbox_publisher_flight_count(lane->flight) == 0)
        return 0;
    if (outbox_publisher_schedule_wants(&lane->schedule)) /* it is filled from what is written */
        return 0;
    many = many < OUTBOX_PUBLISHER_MARK_COUNT ? many : OUTBOX_PUBLISHER_MARK_COUNT;
    if (lane->unmarked >= many || 2 * lane->unmarked_bytes >= publisher->window_bytes)
        return 0;
    int64_t due = lane->unmarked_mono_ns + MARK_AFTER_NS;
    if (outbox_publisher_idle(lane)) {
        int64_t idle = publisher->manual ? 0 : lane->news_mono_ns + IDLE_AFTER_NS;
        due = idle < due ? idle : due;
    }
    return due;
}

static bool mark_if_due(struct outbox_publisher_lane *lane)
{
    struct wb_why why;

    if (mark_due_ns(lane) > outbox_publisher_now_ns(lane))
        return false;
    lane->probe = lane->probe || outbox_publisher_idle(lane);
    switch (outbox_publisher_mark(lane, &why)) {
    case WB_OK:
        break;
    case WB_CONFLICT:
        outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_FENCED, why.text);
        break;
    case WB_UNKNOWN: /* the cursor tells whether it happened */
        outbox_publisher_judge(lane, OUTBOX_PUBLISHER_LOOKS, why.text);
        break;
    default:
        outbox_publisher_lane_ours(lane, why.text);
        break;
    }
    return true;
}

/* ---- reading --------------------------------------------------------------------------------- */

void outbox_publisher_unsynced(struct outbox_publisher_lane *lane)
{
    lane->synced = false;
    lane->synced_id = 0;
}

/* Rows get their numbers in the order in which they are committed: a sync holds for all up to the
 * newest that was seen before it. What was said of a row later, a claim say, is newer than that. */
static bool batch_synced(const struct outbox_publisher_lane *lane)
{
    if (lane->cursor.suspect_id != 0)
        return false;
    for (size_t i = 0; i < lane->batch.count; i++) {
        const struct outbox_publisher_item *item = &lane->batch.items[i];
        if (item->exception || item->unclaimed || item->row.id > lane->synced_id)
            return false;
    }
    return true;
}

/* With a backlog one sync serves many batches, yet not all of them: it is for the marks, too, and
 * what they tell need not be read back after a power cut. */
static int64_t seen_id(struct outbox_publisher_lane *lane)
{
    int64_t last_id = 0, created_ms = 0;

    if (lane->dry || outbox_publisher_store_measure(lane->store, lane->read_id, &last_id,
                                                    &created_ms, NULL) != WB_OK)
        return lane->read_id;
    return last_id < lane->read_id + SYNC_ROWS ? last_id : lane->read_id + SYNC_ROWS;
}

/* Nothing leaves before the log it was read from is on disk: after a power cut a number could be
 * given to another row while the stream holds the first. */
static bool batch_sync(struct outbox_publisher_lane *lane)
{
    struct wb_why why;

    if (lane->synced || batch_empty(lane))
        return true;
    int64_t last_id = seen_id(lane);
    if (db_barrier_sync(lane->barrier, &why) != WB_OK) {
        outbox_publisher_lane_ours(lane, why.text);
        return false;
    }
    WB_CRASH_POINT("outbox_publisher.synced");
    observe_add(lane->publisher->barriers, 1);
    lane->synced = true;
    lane->synced_id = last_id;
    return true;
}

static bool batch_fill(struct outbox_publisher_lane *lane)
{
    struct wb_why why = {.text = ""};
    int64_t before_id = lane->read_id;

    if (!batch_empty(lane) || (lane->dry && !outbox_publisher_exceptions_wait(lane)))
        return false;
    if (!outbox_publisher_suspect(lane))
        return false;
    wb_err err = outbox_publisher_batch_read(lane, &why);
    if (err == WB_CONFLICT) {
        outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_FENCED, why.text);
        lane->batch.count = lane->batch.next = 0;
        return true;
    }
    if (err != WB_OK) {
        outbox_publisher_lane_ours(lane, why.text[0] != '\0' ? why.text : wb_err_text(err));
        lane->batch.count = lane->batch.next = 0;
        lane->read_id = before_id;
        return false;
    }
    if (!outbox_publisher_suspect_read(lane)) {
        outbox_publisher_schedule_reset(&lane->schedule);
        lane->batch.count = lane->batch.next = 0;
        lane->read_id = before_id;
        return false;
    }
    lane->synced = batch_synced(lane);
    if (lane->batch.count > 0)
        WB_CRASH_POINT("outbox_publisher.read");
    return lane->batch.count > 0 || lane->read_id != before_id;
}

/* ---- the state ------------------------------------------------------------------------------- */

/* Sending has ended; once all is answered, go where the verdict says. */
static bool conclude(struct outbox_publisher_lane *lane)
{
    struct wb_why why;

    if (outbox_publisher_flight_count(lane->flight) > 0)
        return false;
    /* A mark that fails here costs nothing: what it would have said is read back. */
    if ((mark_wanted(lane) || lane->cursor.suspect_id != 0) &&
        outbox_publisher_mark(lane, &why) == WB_CONFLICT) {
        outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_FENCED, why.text);
        return true;
    }
    if (lane->verdict == OUTBOX_PUBLISHER_LOOKS && ++lane->looks <= LOOKS_MAX)
        outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_CHECK, NULL);
    else
        outbox_publisher_lane_outage(lane, lane->verdict_why.text);
    return true;
}

/* Once a second: what others decided, what status pages and alerts are to see, and rows of other
 * streams to pass. */
static bool tick(struct outbox_publisher_lane *lane, int64_t now)
{
    int64_t last_id = 0, created_ms = 0, done_id = outbox_publisher_done_id(lane);

    if (now < lane->tick_mono_ns)
        return false;
    lane->tick_mono_ns = now + TICK_NS;
    outbox_publisher_wall_compare(lane);
    lane->exceptions_stale = lane->exceptions_stale || outbox_publisher_store_revised(lane->store);
    if (done_id > lane->cursor.last_id)
        outbox_publisher_unmarked(lane);
    if (outbox_publisher_store_measure(lane->store, done_id, &last_id, &created_ms, NULL) != WB_OK)
        return false;
    int64_t age_ms = created_ms > 0 ? outbox_publisher_wall_ms(lane) - created_ms : 0;
    outbox_publisher_lane_measured(lane, last_id - done_id, age_ms > 0 ? age_ms * WB_MS : 0);
    return lane->exceptions_stale;
}

static bool check_due(struct outbox_publisher_lane *lane, int64_t now)
{
    if (!outbox_publisher_idle(lane) || mark_wanted(lane))
        return false;
    if (!atomic_exchange(&lane->reload, false) && now < lane->checked_mono_ns + CHECK_EVERY_NS)
        return false;
    outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_CHECK, NULL);
    return true;
}

bool outbox_publisher_drain(struct outbox_publisher_lane *lane)
{
    int64_t now = outbox_publisher_now_ns(lane);
    bool did = outbox_publisher_collect(lane);

    if (atomic_exchange(&lane->bus_changed, false))
        outbox_publisher_judge(lane, OUTBOX_PUBLISHER_LOOKS, "the connection has changed");
    if (lane->verdict != OUTBOX_PUBLISHER_GOES_ON)
        return conclude(lane) || did;
    if (now < lane->database_retry_mono_ns)
        return did;
    bool retried = lane->database_retry_mono_ns != 0;
    lane->database_retry_mono_ns = 0;
    if (!outbox_publisher_may_send(lane) || !outbox_publisher_sources_fresh(lane))
        return did;
    if (batch_sync(lane))
        did = outbox_publisher_send(lane) || did;
    if (lane->state != OUTBOX_PUBLISHER_DRAIN) /* overtaken */
        return true;
    if (lane->verdict == OUTBOX_PUBLISHER_GOES_ON && lane->database_retry_mono_ns == 0)
        did = batch_fill(lane) || did;
    did = tick(lane, now) || did;
    if (lane->database_retry_mono_ns == 0)
        did = mark_if_due(lane) || did;
    if (retried && lane->database_retry_mono_ns == 0 && lane->state == OUTBOX_PUBLISHER_DRAIN) {
        lane->database_failures = 0;
        outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_DRAIN, NULL); /* no problem any more */
    }
    if (lane->state == OUTBOX_PUBLISHER_DRAIN && lane->verdict == OUTBOX_PUBLISHER_GOES_ON &&
        lane->database_retry_mono_ns == 0)
        did = outbox_publisher_audit(lane) || did;
    if (lane->state == OUTBOX_PUBLISHER_DRAIN && lane->verdict == OUTBOX_PUBLISHER_GOES_ON)
        did = check_due(lane, now) || did;
    return did;
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t outbox_publisher_drain_wait_ns(const struct outbox_publisher_lane *lane)
{
    int64_t now = outbox_publisher_now_ns(lane);
    int64_t until = earlier(lane->tick_mono_ns, lane->checked_mono_ns + CHECK_EVERY_NS);

    if (lane->database_retry_mono_ns != 0)
        return lane->database_retry_mono_ns - now;
    until = earlier(until, mark_due_ns(lane));
    if (outbox_publisher_answers_wanted(lane) > 1)
        until = earlier(until, now + ANSWERS_IN_NS);
    until = earlier(until, outbox_publisher_audit_due_ns(lane));
    const struct outbox_publisher_due *first = outbox_publisher_schedule_first(&lane->schedule);
    if (first != NULL &&
        first->id <= outbox_publisher_done_id(lane) && /* else an ack comes first */
        first->due_ms - outbox_publisher_wall_ms(lane) < TICK_NS / WB_MS)
        until = earlier(until, now + (first->due_ms - outbox_publisher_wall_ms(lane)) * WB_MS);
    if (lane->exceptions.count > 0 && lane->exception_due_ms < INT64_MAX) {
        int64_t wait_ms = lane->exception_due_ms - outbox_publisher_wall_ms(lane);
        if (wait_ms < TICK_NS / WB_MS)
            until = earlier(until, now + wait_ms * WB_MS);
    }
    return until - now;
}
