/*
 * CHECK compares the stream with the cursor, before anything is sent.
 *
 * An acknowledged message may be lost by a broker, a sent one may be stored without an answer. The
 * first is REPAIR's, the second SETTLE's; what both would call one of ours although the table does
 * not know it, is RESTORE's.
 */
#include <stdlib.h>
#include <string.h>

#include "outbox_publisher_private.h"

/* ---- our own tables -------------------------------------------------------------------------- */

bool outbox_publisher_exception_load(struct outbox_publisher_lane *lane,
                                     const struct outbox_row *row,
                                     const struct outbox_publisher_exception *one)
{
    struct outbox_publisher_exception classed = *one;

    if (outbox_publisher_route_of(lane, row->stream, row->subject) == OUTBOX_PUBLISHER_OTHER)
        return true;
    classed.policy = outbox_publisher_policy_of(lane, row->subject);
    classed.next_ms = outbox_publisher_suspect_due(lane, one);
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
    if (err == WB_OK)
        err = outbox_publisher_lost_load(lane, 0, why);
    lane->tables_stale = err != WB_OK;
    lane->exceptions_stale = lane->exceptions_look = false;
    return err;
}

/* ---- the stream ------------------------------------------------------------------------------ */

/* The message at the end of what we know; *ret_delivery NULL when the stream has none there. */
wb_err outbox_publisher_message_at(struct outbox_publisher_lane *lane, uint64_t sequence,
                                   struct event_bus_delivery **ret_delivery, struct wb_why *why)
{
    wb_err err = event_bus_get(lane->publisher->bus, lane->stream, sequence, ret_delivery, why);

    if (err != WB_NOT_FOUND)
        return err;
    *ret_delivery = NULL;
    return WB_OK;
}

/*
 * A stream we have never written to, as far as we know: start at its end. If its newest message
 * claims to be ours after all, read everything back instead.
 */
static bool adopt(struct outbox_publisher_lane *lane, const struct event_bus_stream_info *info)
{
    struct outbox_publisher_cursor cursor = lane->cursor;
    struct event_bus_delivery *delivery = NULL;
    struct wb_why why;

    cursor.stream_created = info->created_wall_ns;
    cursor.last_seq = info->last_seq;
    cursor.last_msg_id_len = 0;
    cursor.repairing = 0;
    if (info->last_seq > 0 &&
        outbox_publisher_message_at(lane, info->last_seq, &delivery, &why) != WB_OK) {
        outbox_publisher_lane_outage(lane, why.text);
        return false;
    }
    if (delivery != NULL && outbox_publisher_claims(lane, &delivery->message))
        cursor.last_seq = 0;
    else if (delivery != NULL)
        cursor.last_msg_id_len = outbox_publisher_identity(delivery, cursor.last_msg_id);
    event_bus_release(delivery);
    wb_log(WB_LOG_INFO, "outbox_publisher",
           "outbox=%s stream=%s is new to this outbox, going on from sequence %llu",
           lane->publisher->name, lane->stream, (unsigned long long)cursor.last_seq);
    return outbox_publisher_cursor_set(lane, &cursor);
}

/*
 * Was the stream made anew under its name? false: the lane has gone to another state.
 *
 * A bus that forgets when its process ends has forgotten by nature what a publisher finds gone at
 * its first look; nobody wants all of history sent anew then. What is made anew under a running
 * publisher is lost on every bus, and what is half repaired is repaired to the end.
 */
static bool incarnation_check(struct outbox_publisher_lane *lane,
                              const struct event_bus_stream_info *info,
                              event_bus_durability durability)
{
    const struct outbox_publisher_cursor *cursor = &lane->cursor;
    bool forgot = durability == EVENT_BUS_DURABLE_NONE && !lane->stream_seen &&
                  cursor->repairing != info->created_wall_ns;
    char then[32], now[32];
    struct wb_why why;

    if (cursor->stream_created == info->created_wall_ns)
        return true;
    bool fresh = cursor->stream_created == 0 || cursor->last_seq == 0;
    if (fresh && durability != EVENT_BUS_DURABLE_NONE && info->messages > 0) {
        /* A database from before its first event: whether the stream has any of ours, it must say
         * itself. */
        outbox_publisher_repair_begin(lane, "adopted", info, NULL);
        return false;
    }
    if (fresh || forgot)
        return adopt(lane, info);
    wb_time_format(cursor->stream_created, then);
    wb_time_format(info->created_wall_ns, now);
    (void)wb_fail(&why, WB_CONFLICT,
                  "stream %s was made anew at %s (we knew the one of %s, up to sequence %llu): the "
                  "broker has lost published events up to row %lld",
                  lane->stream, now, then, (unsigned long long)cursor->last_seq,
                  (long long)cursor->last_id);
    outbox_publisher_repair_begin(lane, "made-anew", info, why.text);
    return false;
}

/*
 * What is below the first sequence, or was in a stream that is empty and yet as long as we know it,
 * went by the stream's limits or was purged: somebody wanted it so, and nothing is compared.
 */
static bool nothing_to_compare(const struct outbox_publisher_cursor *cursor,
                               const struct event_bus_stream_info *info)
{
    return cursor->last_seq == 0 || cursor->last_msg_id_len == 0 || info->messages == 0 ||
           cursor->last_seq < info->first_seq;
}

/* The message at last_seq is not the one we know. */
static void tail_differs(struct outbox_publisher_lane *lane,
                         const struct event_bus_delivery *delivery)
{
    const struct outbox_publisher_cursor *cursor = &lane->cursor;
    struct event_bus_stream_info info;
    struct wb_why why;

    /* The limits may have removed it since the stream was asked. */
    if (event_bus_stream_info(lane->publisher->bus, lane->stream, &info, &why) != WB_OK) {
        outbox_publisher_lane_outage(lane, why.text);
        return;
    }
    if (nothing_to_compare(cursor, &info))
        return; /* still in CHECK: the next step looks again */
    (void)wb_fail(&why, WB_CONFLICT,
                  "sequence %llu of stream %s %s%.*s, but row %lld was published there: the "
                  "broker has lost data",
                  (unsigned long long)cursor->last_seq, lane->stream,
                  delivery != NULL ? "holds another message, " : "is missing",
                  delivery != NULL ? (int)delivery->message.msg_id.len : 0,
                  delivery != NULL ? delivery->message.msg_id.ptr : "", (long long)cursor->last_id);
    outbox_publisher_repair_begin(lane, delivery != NULL ? "overwritten" : "hole", &info, why.text);
}

/* Does the stream still end, or continue, where the cursor says? false: the lane looks again, or
 * has gone to another state. */
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
        outbox_publisher_repair_begin(lane, "rolled-back", info, why.text);
        return false;
    }
    if (nothing_to_compare(cursor, info))
        return true;
    if (outbox_publisher_message_at(lane, cursor->last_seq, &delivery, &why) != WB_OK) {
        outbox_publisher_lane_outage(lane, why.text);
        return false;
    }
    bool same = delivery != NULL &&
                outbox_publisher_identity(delivery, identity) == cursor->last_msg_id_len &&
                memcmp(identity, cursor->last_msg_id, cursor->last_msg_id_len) == 0;
    if (!same)
        tail_differs(lane, delivery);
    event_bus_release(delivery);
    return same;
}

/* Is the stream the one the cursor tells of, and complete as far as can be seen? false: the lane
 * has gone to another state. */
static bool stream_check(struct outbox_publisher_lane *lane,
                         const struct event_bus_stream_info *info, event_bus_durability durability)
{
    if (!incarnation_check(lane, info, durability) || !tail_check(lane, info))
        return false;
    if (lane->cursor.repairing != 0) {
        outbox_publisher_repair_begin(lane, "resumed", info,
                                      "a repair was begun and has not ended: it is done again");
        return false;
    }
    if (atomic_exchange(&lane->repair_wanted, false)) {
        outbox_publisher_repair_begin(lane, "hole", info, "it is compared whole, as was asked for");
        return false;
    }
    lane->stream_seen = true;
    return lane->duplicate_row == 0 || outbox_publisher_duplicate_resolve(lane);
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

void outbox_publisher_drain_begin(struct outbox_publisher_lane *lane)
{
    lane->repairs_in_a_row = 0;
    outbox_publisher_looked(lane);
    outbox_publisher_drain_reset(lane);
    outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_DRAIN, NULL);
}

/* Asks the bus; false: it did not answer, or it is too early to ask. */
static bool ask(struct outbox_publisher_lane *lane, struct event_bus_stream_info *info,
                struct event_bus_health *health)
{
    struct wb_why why = {.text = ""};
    wb_err err = event_bus_stream_info(lane->publisher->bus, lane->stream, info, &why);

    if (err != WB_OK) {
        if (err != WB_TIMEOUT && err != WB_UNREACHABLE) /* there is nothing to look at */
            outbox_publisher_looked(lane);
        lane->grace_mono_ns = 0; /* counts from when the bus is back */
        outbox_publisher_lane_outage(lane, why.text);
        return false;
    }
    event_bus_health(lane->publisher->bus, health);
    return !grace(lane, health->durability);
}

bool outbox_publisher_check(struct outbox_publisher_lane *lane)
{
    struct event_bus_stream_info info;
    struct event_bus_health health;
    struct wb_why why = {.text = ""};
    char before[sizeof(lane->route.text)];

    memcpy(before, lane->route.text, sizeof(before));
    atomic_store(&lane->bus_changed, false);
    if (!ask(lane, &info, &health))
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
    /* Who only plans moves nothing: since the stream was asked, the cursor may have gone on. */
    if (lane->plan != NULL && !ask(lane, &info, &health))
        return true;
    if (!stream_check(lane, &info, health.durability))
        return true;
    lane->stream_last = info.last_seq;
    if (info.last_seq > lane->cursor.last_seq)
        outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_SETTLE, NULL);
    else
        outbox_publisher_drain_begin(lane);
    return true;
}
