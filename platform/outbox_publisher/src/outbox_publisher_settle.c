/*
 * SETTLE reads back what the stream holds beyond the cursor: sent by a predecessor, or by us
 * without an answer. Each message is looked up by its ids, since retries and repaired rows move.
 */
#include <stdlib.h>
#include <string.h>

#include "outbox_publisher_private.h"

enum { SETTLE_SLICE = 1024 }; /* messages read back between two marks */

/* ---- writing what was found ------------------------------------------------------------------ */

bool outbox_publisher_cursor_set(struct outbox_publisher_lane *lane,
                                 const struct outbox_publisher_cursor *cursor)
{
    struct wb_why why;
    wb_err err = WB_OK;

    if (lane->plan == NULL)
        err = outbox_publisher_store_write(lane->store, lane->stream, cursor, &lane->exceptions,
                                           &why);
    if (err == WB_CONFLICT)
        outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_FENCED, why.text);
    else if (err != WB_OK)
        outbox_publisher_lane_ours(lane, why.text);
    else
        lane->cursor = *cursor;
    return err == WB_OK;
}

/* A row the cursor will pass, of which only the bus can say whose it is. */
struct doubtful {
    int64_t id;
    uint64_t key_hash;
    outbox_policy policy;
    char *stream, *subject; /* owned, in one block */
};

struct stored_row {
    int64_t id;
    uint64_t sequence;
};

struct stored {
    struct outbox_publisher_lane *lane;
    struct stored_row rows[SETTLE_SLICE];
    size_t count;
    struct doubtful *doubtful; /* owned */
    size_t doubtful_count, doubtful_capacity;
    size_t lost;
    wb_err err;
    /* of a slice */
    uint64_t last_seen;
    struct outbox_publisher_cursor *cursor;
    bool orphan;
    struct wb_why why;
};

static void stored_free(struct stored *stored)
{
    for (size_t i = 0; i < stored->doubtful_count; i++)
        free(stored->doubtful[i].stream);
    free(stored->doubtful);
}

static int compare_ids(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;

    return (left > right) - (left < right);
}

/* Where a row was found; 0: nowhere. */
static uint64_t sequence_of(const struct stored *stored, int64_t id)
{
    const struct stored_row *row =
        bsearch(&id, stored->rows, stored->count, sizeof(stored->rows[0]), compare_ids);

    return row != NULL ? row->sequence : 0;
}

static wb_err doubtful_add(struct stored *stored, const struct outbox_row *row)
{
    size_t need = row->stream.len + row->subject.len + 2;

    if (stored->doubtful_count == stored->doubtful_capacity) {
        size_t capacity = stored->doubtful_capacity > 0 ? 2 * stored->doubtful_capacity : 16;
        struct doubtful *list = realloc(stored->doubtful, capacity * sizeof(*list));
        if (list == NULL)
            return WB_NOMEM;
        stored->doubtful = list;
        stored->doubtful_capacity = capacity;
    }
    char *text = calloc(1, need);
    if (text == NULL)
        return WB_NOMEM;
    struct doubtful *one = &stored->doubtful[stored->doubtful_count++];
    *one = (struct doubtful){.id = row->id,
                             .key_hash = outbox_publisher_key_hash(row->key),
                             .policy = outbox_publisher_policy_of(stored->lane, row->subject),
                             .stream = text,
                             .subject = text + row->stream.len + 1};
    memcpy(one->stream, row->stream.ptr, row->stream.len);
    memcpy(one->subject, row->subject.ptr, row->subject.len);
    return WB_OK;
}

static wb_err passed_over(struct stored *stored, int64_t id, uint64_t key_hash,
                          outbox_policy policy)
{
    struct outbox_publisher_lane *lane = stored->lane;
    wb_err err =
        outbox_publisher_exceptions_put(&lane->exceptions, id, key_hash, OUTBOX_EXCEPTION_LOST, 0,
                                        "passed over: the stream does not hold it");

    if (err == WB_OK) {
        outbox_publisher_exceptions_policy(&lane->exceptions, id, policy);
        outbox_publisher_exceptions_find(&lane->exceptions, id)->resent = true;
    }
    stored->lost++;
    return err;
}

/*
 * The cursor will pass this row: if it is neither stored nor an exception, it must be sent. If it
 * is stored, older ones of its key that yield to it must not.
 */
static bool passed_visit(void *ctx, const struct outbox_row *row)
{
    struct stored *stored = ctx;
    struct outbox_publisher_lane *lane = stored->lane;
    outbox_publisher_owner owner = outbox_publisher_route_of(lane, row->stream, row->subject);

    if (sequence_of(stored, row->id) != 0) {
        outbox_publisher_supersede(lane, row->id, outbox_publisher_key_hash(row->key));
        if (row->state != OUTBOX_PENDING)
            stored->err = outbox_publisher_exceptions_stored(&lane->exceptions, row->id,
                                                             sequence_of(stored, row->id));
        return stored->err == WB_OK;
    }
    if (owner == OUTBOX_PUBLISHER_OTHER || row->state != OUTBOX_PENDING ||
        outbox_publisher_exceptions_find(&lane->exceptions, row->id) != NULL)
        return true;
    stored->err = owner == OUTBOX_PUBLISHER_DOUBTFUL
                      ? doubtful_add(stored, row)
                      : passed_over(stored, row->id, outbox_publisher_key_hash(row->key),
                                    outbox_publisher_policy_of(lane, row->subject));
    return stored->err == WB_OK;
}

/* Another lane that has not looked yet may own them; the bus knows. */
static wb_err doubtful_resolve(struct stored *stored, struct wb_why *why)
{
    wb_err err = WB_OK;

    for (size_t i = 0; err == WB_OK && i < stored->doubtful_count; i++) {
        const struct doubtful *one = &stored->doubtful[i];
        outbox_publisher_asked asked = OUTBOX_PUBLISHER_ASKED_STRANGER;
        err = outbox_publisher_route_ask(stored->lane, wb_str(one->stream), wb_str(one->subject),
                                         &asked, why);
        /* What nobody covers is this lane's to show: it tries again until somebody does. */
        if (err == WB_OK && asked != OUTBOX_PUBLISHER_ASKED_OTHER &&
            passed_over(stored, one->id, one->key_hash, one->policy) != WB_OK)
            err = wb_fail(why, WB_NOMEM, "settle: out of memory");
    }
    return err;
}

/* Rows were found in the stream: move the cursor, whose last_seq and last_msg_id are given. */
static bool stored_apply(struct stored *stored, struct outbox_publisher_cursor *cursor)
{
    struct outbox_publisher_lane *lane = stored->lane;
    struct wb_why why;

    qsort(stored->rows, stored->count, sizeof(stored->rows[0]), compare_ids);
    for (size_t i = 0; i < stored->count; i++) {
        const struct stored_row *row = &stored->rows[i];
        const struct outbox_publisher_exception *one =
            outbox_publisher_exceptions_find(&lane->exceptions, row->id);
        if (one != NULL)
            outbox_publisher_supersede(lane, one->id, one->key_hash);
        /* What was sent from before the cursor was an exception, and not all are in memory. */
        if (one != NULL || row->id <= lane->cursor.last_id)
            stored->err =
                outbox_publisher_exceptions_stored(&lane->exceptions, row->id, row->sequence);
        if (stored->err != WB_OK)
            break;
        if (row->id > cursor->last_id)
            cursor->last_id = row->id;
    }
    if (stored->err != WB_OK) {
        outbox_publisher_lane_ours(lane, wb_err_text(stored->err));
        return false;
    }
    wb_err err = outbox_publisher_store_heads(lane->store, lane->cursor.last_id, cursor->last_id,
                                              passed_visit, stored, &why);
    if (err == WB_OK && stored->err != WB_OK)
        err = wb_fail(&why, stored->err, "settle: %s", wb_err_text(stored->err));
    if (err != WB_OK) {
        outbox_publisher_lane_ours(lane, why.text);
        return false;
    }
    if (doubtful_resolve(stored, &why) != WB_OK) {
        lane->tables_stale = true; /* what was noted in memory is looked at again */
        outbox_publisher_lane_outage(lane, why.text);
        return false;
    }
    return outbox_publisher_cursor_set(lane, cursor);
}

/* ---- SETTLE ---------------------------------------------------------------------------------- */

static void tell_foreign(struct outbox_publisher_lane *lane, uint64_t sequence)
{
    lane->foreign++;
    wb_log(WB_LOG_WARN, "outbox_publisher",
           "outbox=%s stream=%s sequence=%llu is not from this outbox; a stream should have "
           "one writer (%llu foreign messages so far)",
           lane->publisher->name, lane->stream, (unsigned long long)sequence,
           (unsigned long long)lane->foreign);
}

static bool settle_visit(void *ctx, const struct event_bus_delivery *delivery)
{
    struct stored *stored = ctx;
    struct outbox_publisher_lane *lane = stored->lane;
    const struct message *msg = &delivery->message;
    struct outbox_publisher_origin origin;

    if (atomic_load(&lane->stop)) {
        stored->err = WB_CLOSED;
        return false;
    }
    stored->err = outbox_publisher_origin_of(lane, msg, &origin, &stored->why);
    if (stored->err != WB_OK)
        return false;
    stored->orphan = origin.kind == OUTBOX_PUBLISHER_ORPHAN;
    if (stored->orphan)
        return false;
    if (origin.kind == OUTBOX_PUBLISHER_STORED) {
        stored->rows[stored->count].id = origin.id;
        stored->rows[stored->count++].sequence = delivery->sequence;
    } else {
        tell_foreign(lane, delivery->sequence);
    }
    stored->last_seen = delivery->sequence;
    stored->cursor->last_msg_id_len =
        outbox_publisher_identity(delivery, stored->cursor->last_msg_id);
    return stored->count < SETTLE_SLICE;
}

/* Reads a slice back into the cursor; false: the lane has gone to another state. */
static bool settle_slice(struct outbox_publisher_lane *lane, struct stored *stored)
{
    struct outbox_publisher_cursor *cursor = stored->cursor;
    uint64_t to = lane->stream_last - cursor->last_seq > SETTLE_SLICE
                      ? cursor->last_seq + SETTLE_SLICE
                      : lane->stream_last;
    uint64_t next = 0;
    wb_err err = event_bus_scan(lane->publisher->bus, lane->stream, cursor->last_seq + 1, to,
                                settle_visit, stored, &next, &stored->why);

    if (stored->err == WB_CLOSED)
        return false;
    if (stored->err != WB_OK) {
        outbox_publisher_lane_ours(lane, stored->why.text);
        return false;
    }
    if (err != WB_OK) {
        outbox_publisher_lane_outage(lane, stored->why.text);
        return false;
    }
    if (stored->orphan) {
        outbox_publisher_restore_begin(lane);
        return false;
    }
    if (next <= to) { /* the stream has become shorter while it was read */
        outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_CHECK, NULL);
        return false;
    }
    if (stored->last_seen < to) /* deleted by somebody: nothing to compare with later */
        cursor->last_msg_id_len = 0;
    cursor->last_seq = to;
    return true;
}

bool outbox_publisher_settle(struct outbox_publisher_lane *lane)
{
    struct outbox_publisher_cursor cursor = lane->cursor;
    struct stored stored = {.lane = lane, .cursor = &cursor};

    if (cursor.last_seq < lane->stream_last && !settle_slice(lane, &stored))
        return true;
    bool applied = stored_apply(&stored, &cursor);
    stored_free(&stored);
    if (!applied)
        return true;
    WB_CRASH_POINT("outbox_publisher.settled");
    wb_log(
        WB_LOG_INFO, "outbox_publisher",
        "outbox=%s stream=%s settled up to sequence %llu: %zu rows found stored, %zu passed over",
        lane->publisher->name, lane->stream, (unsigned long long)cursor.last_seq, stored.count,
        stored.lost);
    if (cursor.last_seq < lane->stream_last)
        return true;
    lane->settles++;
    observe_add(lane->publisher->settles, 1);
    outbox_publisher_drain_begin(lane);
    return true;
}

/* ---- known ids ------------------------------------------------------------------------------- */

/*
 * The bus called a row's id known. If it does hold the row, the row is stored; otherwise it goes
 * out under another id, since this one would be refused until the bus forgets it.
 */
bool outbox_publisher_duplicate_resolve(struct outbox_publisher_lane *lane)
{
    struct outbox_publisher_cursor cursor = lane->cursor;
    struct stored stored = {.lane = lane};
    struct event_bus_delivery *delivery = NULL;
    struct outbox_publisher_origin origin = {.id = 0};
    struct wb_why why;
    wb_err err = outbox_publisher_message_at(lane, lane->duplicate_seq, &delivery, &why);

    if (err == WB_OK && delivery != NULL)
        err = outbox_publisher_origin_of(lane, &delivery->message, &origin, &why);
    event_bus_release(delivery);
    if (err != WB_OK) {
        outbox_publisher_lane_outage(lane, why.text);
        return false;
    }
    bool same = origin.kind == OUTBOX_PUBLISHER_STORED && origin.id == lane->duplicate_row;
    if (!same) {
        lane->again_row = lane->duplicate_row;
        lane->again_count++;
        lane->again_all = lane->again_all || lane->duplicate_resent;
    }
    lane->duplicate_row = 0;
    if (!same || lane->duplicate_seq > cursor.last_seq) /* settling will find it */
        return true;
    stored.rows[0].id = origin.id;
    stored.rows[0].sequence = lane->duplicate_seq;
    stored.count = 1;
    bool applied = stored_apply(&stored, &cursor);
    stored_free(&stored);
    return applied;
}
