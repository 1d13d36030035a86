/*
 * CHECK compares the stream with the cursor; SETTLE reads back what the stream holds beyond it.
 *
 * An acknowledged message may be lost by a broker, a sent one may be stored without an answer. Both
 * are found here, by looking, before anything else is sent.
 */
#include <stdlib.h>
#include <string.h>

#include "outbox_publisher_private.h"

enum { SETTLE_SLICE = 1024 }; /* messages read back between two marks */

/* ---- identity -------------------------------------------------------------------------------- */

/* Ours is compared by its first 32 digits: sent again under another id it stays the same event. */
static size_t identity_of(struct wb_str msg_id, uint8_t out[MESSAGE_ID_MAX])
{
    if (msg_id.len >= WB_ID_TEXT - 1 &&
        wb_hex_decode(wb_str_n(msg_id.ptr, WB_ID_TEXT - 1), out, WB_ID_SIZE))
        return WB_ID_SIZE;
    size_t len = msg_id.len <= MESSAGE_ID_MAX ? msg_id.len : MESSAGE_ID_MAX;
    if (len > 0)
        memcpy(out, msg_id.ptr, len);
    return len;
}

static bool source_known(const struct outbox_publisher_lane *lane, struct wb_str source)
{
    for (size_t i = 0; i < lane->sources.count; i++)
        if (wb_str_eq(source, wb_str(lane->sources.list[i].text)))
            return true;
    return false;
}

/* Does the message say it is of this outbox? Then of which row? */
static bool own_row(const struct outbox_publisher_lane *lane, const struct message *msg,
                    int64_t *ret_id)
{
    struct wb_str source = message_header(msg, MESSAGE_HEADER_SOURCE);
    uint64_t id;

    if (source.len == 0 || !source_known(lane, source) ||
        !wb_str_to_u64(message_header(msg, MESSAGE_HEADER_ROW), &id) || id > INT64_MAX)
        return false;
    *ret_id = (int64_t)id;
    return true;
}

struct same_row {
    const struct message *msg;
    bool same;
};

static bool same_row_visit(void *ctx, const struct outbox_row *row)
{
    struct same_row *look = ctx;
    uint8_t identity[MESSAGE_ID_MAX];

    look->same = identity_of(look->msg->msg_id, identity) == WB_ID_SIZE &&
                 memcmp(identity, row->msg_id, WB_ID_SIZE) == 0;
    return false;
}

/* Is the message really the row of that number? */
static wb_err same_row(struct outbox_publisher_lane *lane, const struct message *msg, int64_t id,
                       bool *ret_same, struct wb_why *why)
{
    struct same_row look = {.msg = msg};
    wb_err err = outbox_publisher_store_heads(lane->store, id - 1, id, same_row_visit, &look, why);

    if (err == WB_OK)
        *ret_same = look.same && wb_str_eq(message_header(msg, MESSAGE_HEADER_SOURCE),
                                           wb_str(outbox_publisher_source_of(&lane->sources, id)));
    return err;
}

/* ---- writing what was found ------------------------------------------------------------------ */

/* Write the cursor; false: the lane has gone to another state. */
static bool cursor_set(struct outbox_publisher_lane *lane,
                       const struct outbox_publisher_cursor *cursor)
{
    struct wb_why why;
    wb_err err =
        outbox_publisher_store_write(lane->store, lane->stream, cursor, &lane->exceptions, &why);

    if (err == WB_CONFLICT)
        outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_FENCED, why.text);
    else if (err != WB_OK)
        outbox_publisher_lane_ours(lane, why.text);
    else
        lane->cursor = *cursor;
    return err == WB_OK;
}

struct stored {
    struct outbox_publisher_lane *lane;
    int64_t ids[SETTLE_SLICE];
    size_t count;
    size_t lost;
    wb_err err;
};

static int compare_ids(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;

    return (left > right) - (left < right);
}

/*
 * The cursor will pass this row: if it is neither stored nor an exception, it must be sent. If it
 * is stored, older ones of its key that yield to it must not.
 */
static bool passed_visit(void *ctx, const struct outbox_row *row)
{
    struct stored *stored = ctx;
    struct outbox_publisher_lane *lane = stored->lane;
    bool found =
        bsearch(&row->id, stored->ids, stored->count, sizeof(row->id), compare_ids) != NULL;

    if (found)
        outbox_publisher_supersede(lane, row->id, outbox_publisher_key_hash(row->key));
    if (found ||
        outbox_publisher_route_of(lane, row->stream, row->subject) == OUTBOX_PUBLISHER_OTHER ||
        row->state != OUTBOX_PENDING ||
        outbox_publisher_exceptions_find(&lane->exceptions, row->id) != NULL)
        return true;
    stored->lost++;
    stored->err = outbox_publisher_exceptions_put(
        &lane->exceptions, row->id, outbox_publisher_key_hash(row->key), OUTBOX_EXCEPTION_LOST, 0,
        "passed over: the stream does not hold it");
    if (stored->err == WB_OK)
        outbox_publisher_exceptions_policy(&lane->exceptions, row->id,
                                           outbox_publisher_policy_of(lane, row->subject));
    return stored->err == WB_OK;
}

/* Rows were found in the stream: move the cursor, whose last_seq and last_msg_id are given. */
static bool stored_apply(struct stored *stored, struct outbox_publisher_cursor *cursor)
{
    struct outbox_publisher_lane *lane = stored->lane;
    struct wb_why why;

    qsort(stored->ids, stored->count, sizeof(stored->ids[0]), compare_ids);
    for (size_t i = 0; i < stored->count; i++) {
        const struct outbox_publisher_exception *one =
            outbox_publisher_exceptions_find(&lane->exceptions, stored->ids[i]);
        if (one != NULL)
            outbox_publisher_supersede(lane, one->id, one->key_hash);
        outbox_publisher_exceptions_done(&lane->exceptions, stored->ids[i]);
        if (stored->ids[i] > cursor->last_id)
            cursor->last_id = stored->ids[i];
    }
    wb_err err = outbox_publisher_store_heads(lane->store, lane->cursor.last_id, cursor->last_id,
                                              passed_visit, stored, &why);
    if (err == WB_OK && stored->err != WB_OK)
        err = wb_fail(&why, stored->err, "settle: %s", wb_err_text(stored->err));
    if (err != WB_OK) {
        outbox_publisher_lane_ours(lane, why.text);
        return false;
    }
    return cursor_set(lane, cursor);
}

/* ---- SETTLE ---------------------------------------------------------------------------------- */

typedef enum found { FOUND_STORED, FOUND_FOREIGN, FOUND_STUCK } found;

static found settle_one(struct outbox_publisher_lane *lane,
                        const struct event_bus_delivery *delivery, int64_t *ret_id)
{
    const struct message *msg = &delivery->message;
    struct wb_why why;
    bool same = false;

    if (!own_row(lane, msg, ret_id)) {
        lane->foreign++;
        wb_log(WB_LOG_WARN, "outbox_publisher",
               "outbox=%s stream=%s sequence=%llu is not from this outbox; a stream should have "
               "one writer (%llu foreign messages so far)",
               lane->publisher->name, lane->stream, (unsigned long long)delivery->sequence,
               (unsigned long long)lane->foreign);
        return FOUND_FOREIGN;
    }
    if (same_row(lane, msg, *ret_id, &same, &why) != WB_OK) {
        outbox_publisher_lane_ours(lane, why.text);
        return FOUND_STUCK;
    }
    if (same)
        return FOUND_STORED;
    (void)wb_fail(&why, WB_CONFLICT,
                  "stream %s holds row %lld of this outbox at sequence %llu (msg_id %.*s), but the "
                  "table has no such row: the database has gone back in time; put the newer file "
                  "back, or remove the message",
                  lane->stream, (long long)*ret_id, (unsigned long long)delivery->sequence,
                  (int)msg->msg_id.len, msg->msg_id.ptr);
    outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_HALTED, why.text);
    return FOUND_STUCK;
}

/* Reads one message back into the cursor; false: the lane has gone to another state. */
static bool settle_read(struct outbox_publisher_lane *lane, uint64_t sequence,
                        struct outbox_publisher_cursor *cursor, struct stored *stored)
{
    struct event_bus_delivery *delivery;
    struct wb_why why;
    int64_t id = 0;
    wb_err err = event_bus_get(lane->publisher->bus, lane->stream, sequence, &delivery, &why);

    cursor->last_seq = sequence;
    cursor->last_msg_id_len = 0; /* deleted by somebody: nothing to compare with later */
    if (err == WB_NOT_FOUND)
        return true;
    if (err != WB_OK) {
        outbox_publisher_lane_outage(lane, why.text);
        return false;
    }
    cursor->last_msg_id_len = identity_of(delivery->message.msg_id, cursor->last_msg_id);
    found result = settle_one(lane, delivery, &id);
    if (result == FOUND_STORED)
        stored->ids[stored->count++] = id;
    event_bus_release(delivery);
    return result != FOUND_STUCK;
}

bool outbox_publisher_settle(struct outbox_publisher_lane *lane)
{
    struct outbox_publisher_cursor cursor = lane->cursor;
    struct stored stored = {.lane = lane};

    for (size_t n = 0; n < SETTLE_SLICE && cursor.last_seq < lane->stream_last; n++)
        if (atomic_load(&lane->stop) || !settle_read(lane, cursor.last_seq + 1, &cursor, &stored))
            return true;
    if (!stored_apply(&stored, &cursor))
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
    outbox_publisher_drain_reset(lane);
    outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_DRAIN, NULL);
    return true;
}

/* ---- CHECK ----------------------------------------------------------------------------------- */

bool outbox_publisher_exception_load(struct outbox_publisher_lane *lane,
                                     const struct outbox_row *row,
                                     const struct outbox_publisher_exception *one)
{
    struct outbox_publisher_exception classed = *one;

    if (outbox_publisher_route_of(lane, row->stream, row->subject) == OUTBOX_PUBLISHER_OTHER)
        return true;
    classed.policy = outbox_publisher_policy_of(lane, row->subject);
    return outbox_publisher_exceptions_load(&lane->exceptions, &classed) == WB_OK;
}

static bool exception_visit(void *ctx, const struct outbox_row *row,
                            const struct outbox_publisher_exception *one)
{
    return outbox_publisher_exception_load(ctx, row, one);
}

/* Read everything of ours again, unless memory is known to say the same. */
static wb_err tables_read(struct outbox_publisher_lane *lane, bool routed_anew, struct wb_why *why)
{
    const int64_t holder = lane->cursor.holder;
    bool revised = outbox_publisher_store_revised(lane->store);

    lane->tables_stale = lane->tables_stale || revised || routed_anew || lane->exceptions_stale ||
                         lane->exceptions.dirty > 0;
    wb_err err = outbox_publisher_store_cursor(lane->store, lane->stream, &lane->cursor, why);

    if (err == WB_OK && lane->cursor.holder != holder)
        err = wb_fail(why, WB_CONFLICT,
                      "another publisher has taken over stream %s (holder %lld, we were %lld)",
                      lane->stream, (long long)lane->cursor.holder, (long long)holder);
    if (err != WB_OK || !lane->tables_stale)
        return err;
    outbox_publisher_exceptions_clear(&lane->exceptions);
    outbox_publisher_schedule_reset(&lane->schedule);
    err = outbox_publisher_store_sources(lane->store, &lane->sources, why);
    if (err == WB_OK)
        err = outbox_publisher_store_exceptions(lane->store, exception_visit, lane, why);
    lane->tables_stale = err != WB_OK;
    lane->exceptions_stale = lane->exceptions_look = false;
    return err;
}

static void halt(struct outbox_publisher_lane *lane, const struct wb_why *why)
{
    outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_HALTED, why->text);
}

/* The message at the end of what we know; *ret_delivery NULL when the stream has none there. */
static wb_err message_at(struct outbox_publisher_lane *lane, uint64_t sequence,
                         struct event_bus_delivery **ret_delivery, struct wb_why *why)
{
    wb_err err = event_bus_get(lane->publisher->bus, lane->stream, sequence, ret_delivery, why);

    if (err != WB_NOT_FOUND)
        return err;
    *ret_delivery = NULL;
    return WB_OK;
}

/*
 * A stream we have never written to: start at its end. If its newest message claims to be ours
 * after all, read everything back instead.
 */
static bool adopt(struct outbox_publisher_lane *lane, const struct event_bus_stream_info *info)
{
    struct outbox_publisher_cursor cursor = lane->cursor;
    struct event_bus_delivery *delivery = NULL;
    struct wb_why why;
    int64_t id;

    cursor.stream_created = info->created_wall_ns;
    cursor.last_seq = info->last_seq;
    cursor.last_msg_id_len = 0;
    if (info->last_seq > 0 && message_at(lane, info->last_seq, &delivery, &why) != WB_OK) {
        outbox_publisher_lane_outage(lane, why.text);
        return false;
    }
    if (delivery != NULL && own_row(lane, &delivery->message, &id))
        cursor.last_seq = 0;
    else if (delivery != NULL)
        cursor.last_msg_id_len = identity_of(delivery->message.msg_id, cursor.last_msg_id);
    event_bus_release(delivery);
    wb_log(WB_LOG_INFO, "outbox_publisher",
           "outbox=%s stream=%s is new to this outbox, going on from sequence %llu",
           lane->publisher->name, lane->stream, (unsigned long long)cursor.last_seq);
    return cursor_set(lane, &cursor);
}

/* Was the stream made anew under its name? false: the lane has gone to another state. */
static bool incarnation_check(struct outbox_publisher_lane *lane,
                              const struct event_bus_stream_info *info,
                              event_bus_durability durability)
{
    const struct outbox_publisher_cursor *cursor = &lane->cursor;
    char then[32], now[32];
    struct wb_why why;

    if (cursor->stream_created == info->created_wall_ns)
        return true;
    /* Nothing of ours can be missing, or the bus forgets by nature. */
    if (cursor->stream_created == 0 || cursor->last_seq == 0 ||
        durability == EVENT_BUS_DURABLE_NONE)
        return adopt(lane, info);
    wb_time_format(cursor->stream_created, then);
    wb_time_format(info->created_wall_ns, now);
    (void)wb_fail(&why, WB_CONFLICT,
                  "stream %s was made anew at %s (we knew the one of %s, up to sequence %llu): the "
                  "broker has lost published events up to row %lld",
                  lane->stream, now, then, (unsigned long long)cursor->last_seq,
                  (long long)cursor->last_id);
    halt(lane, &why);
    return false;
}

/* Does the stream still end, or continue, where the cursor says? */
static bool tail_check(struct outbox_publisher_lane *lane, const struct event_bus_stream_info *info)
{
    const struct outbox_publisher_cursor *cursor = &lane->cursor;
    struct event_bus_delivery *delivery = NULL;
    uint8_t identity[MESSAGE_ID_MAX];
    struct wb_why why;

    if (info->last_seq < cursor->last_seq) {
        (void)wb_fail(&why, WB_CONFLICT,
                      "stream %s ends at sequence %llu, but rows up to %lld were published up to "
                      "sequence %llu: the broker has lost data",
                      lane->stream, (unsigned long long)info->last_seq, (long long)cursor->last_id,
                      (unsigned long long)cursor->last_seq);
        halt(lane, &why);
        return false;
    }
    if (cursor->last_seq == 0 || cursor->last_msg_id_len == 0 || info->messages == 0 ||
        cursor->last_seq < info->first_seq) /* gone by the stream's limits: nothing to compare */
        return true;
    if (message_at(lane, cursor->last_seq, &delivery, &why) != WB_OK) {
        outbox_publisher_lane_outage(lane, why.text);
        return false;
    }
    bool same = delivery != NULL &&
                identity_of(delivery->message.msg_id, identity) == cursor->last_msg_id_len &&
                memcmp(identity, cursor->last_msg_id, cursor->last_msg_id_len) == 0;
    if (!same) {
        (void)wb_fail(&why, WB_CONFLICT,
                      "sequence %llu of stream %s %s%.*s, but row %lld was published there: the "
                      "broker has lost data",
                      (unsigned long long)cursor->last_seq, lane->stream,
                      delivery != NULL ? "holds another message, " : "is missing",
                      delivery != NULL ? (int)delivery->message.msg_id.len : 0,
                      delivery != NULL ? delivery->message.msg_id.ptr : "",
                      (long long)cursor->last_id);
        halt(lane, &why);
    }
    event_bus_release(delivery);
    return same;
}

/*
 * The bus called a row's id known. If it does hold the row, the row is stored; otherwise it goes
 * out under another id, since this one would be refused until the bus forgets it.
 */
static bool duplicate_resolve(struct outbox_publisher_lane *lane)
{
    struct outbox_publisher_cursor cursor = lane->cursor;
    struct stored stored = {.lane = lane};
    struct event_bus_delivery *delivery = NULL;
    struct wb_why why;
    bool same = false;
    int64_t id = 0;
    wb_err err = message_at(lane, lane->duplicate_seq, &delivery, &why);

    if (err == WB_OK && delivery != NULL && own_row(lane, &delivery->message, &id) &&
        id == lane->duplicate_row)
        err = same_row(lane, &delivery->message, id, &same, &why);
    event_bus_release(delivery);
    if (err != WB_OK) {
        outbox_publisher_lane_outage(lane, why.text);
        return false;
    }
    if (!same) {
        lane->again_row = lane->duplicate_row;
        lane->again_count++;
    }
    lane->duplicate_row = 0;
    if (!same || lane->duplicate_seq > cursor.last_seq) /* settling will find it */
        return true;
    stored.ids[stored.count++] = id;
    return stored_apply(&stored, &cursor);
}

/* true: the lane waits for what may still arrive. */
static bool grace(struct outbox_publisher_lane *lane, event_bus_durability durability)
{
    int64_t now = outbox_publisher_now_ns(lane);

    if (durability == EVENT_BUS_DURABLE_NONE) /* a bus within the process: nothing is on its way */
        lane->grace_ns = 0;
    if (lane->grace_ns == 0)
        return false;
    if (lane->grace_mono_ns == 0)
        lane->grace_mono_ns = now + lane->grace_ns;
    if (now >= lane->grace_mono_ns) {
        lane->grace_ns = lane->grace_mono_ns = 0;
        return false;
    }
    lane->retry_mono_ns = lane->grace_mono_ns;
    outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_OUTAGE, NULL);
    return true;
}

bool outbox_publisher_check(struct outbox_publisher_lane *lane)
{
    struct event_bus_stream_info info;
    struct event_bus_health health;
    struct wb_why why = {.text = ""};
    char before[sizeof(lane->route.text)];

    memcpy(before, lane->route.text, sizeof(before));
    atomic_store(&lane->bus_changed, false);
    if (event_bus_stream_info(lane->publisher->bus, lane->stream, &info, &why) != WB_OK) {
        lane->grace_mono_ns = 0; /* counts from when the bus is back */
        outbox_publisher_lane_outage(lane, why.text);
        return true;
    }
    event_bus_health(lane->publisher->bus, &health);
    if (grace(lane, health.durability))
        return true;
    outbox_publisher_route_set(lane, info.subjects);
    wb_err err = tables_read(lane, strcmp(before, lane->route.text) != 0, &why);
    if (err != WB_OK) {
        if (err == WB_CONFLICT)
            outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_FENCED, why.text);
        else
            outbox_publisher_lane_ours(lane, why.text);
        return true;
    }
    lane->max_payload = health.max_payload > 0 ? health.max_payload : MESSAGE_PAYLOAD_MAX;
    lane->checked_mono_ns = outbox_publisher_now_ns(lane);
    if (!incarnation_check(lane, &info, health.durability) || !tail_check(lane, &info))
        return true;
    if (lane->duplicate_row != 0 && !duplicate_resolve(lane))
        return true;
    lane->stream_last = info.last_seq;
    if (info.last_seq > lane->cursor.last_seq) {
        outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_SETTLE, NULL);
        return true;
    }
    outbox_publisher_drain_reset(lane);
    outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_DRAIN, NULL);
    return true;
}
