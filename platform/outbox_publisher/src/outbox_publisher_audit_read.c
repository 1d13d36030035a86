/* A slice of the stream for the audit: which rows does it hold, and which may it be asked for? */
#include <stdlib.h>
#include <string.h>

#include "outbox_publisher_private.h"

struct reading {
    struct outbox_publisher_lane *lane;
    int64_t old_wall_ns; /* what was stored later is left for another time */
    uint64_t first_seen; /* 0: nothing */
    uint64_t young_seq;  /* of the message that was too young; 0: none was */
    int64_t young_wall_ns;
};

static void witness(struct outbox_publisher_lane *lane, const struct event_bus_delivery *delivery)
{
    struct outbox_publisher_audit *audit = &lane->audit;
    const struct message *msg = &delivery->message;
    struct wb_str source = message_header(msg, MESSAGE_HEADER_SOURCE);
    struct outbox_publisher_witness *one = &audit->witnesses[audit->witness_count];
    uint64_t id;

    /* The first 32 digits of its id count: sent again it may carry more. */
    if (source.len != OUTBOX_SOURCE_TEXT - 1 ||
        !wb_str_to_u64(message_header(msg, MESSAGE_HEADER_ROW), &id) || id == 0 || id > INT64_MAX ||
        msg->msg_id.len < WB_ID_TEXT - 1 ||
        !wb_hex_decode(wb_str_n(msg->msg_id.ptr, WB_ID_TEXT - 1), one->msg_id, WB_ID_SIZE))
        return;
    one->id = (int64_t)id;
    one->sequence = delivery->sequence;
    memcpy(one->source, source.ptr, source.len);
    one->source[source.len] = '\0';
    audit->witness_count++;
}

static bool read_visit(void *ctx, const struct event_bus_delivery *delivery)
{
    struct reading *reading = ctx;
    struct outbox_publisher_audit *audit = &reading->lane->audit;
    struct wb_str msg_id = delivery->message.msg_id;

    if (delivery->stored_wall_ns > reading->old_wall_ns) {
        reading->young_seq = delivery->sequence;
        reading->young_wall_ns = delivery->stored_wall_ns;
        return false;
    }
    if (reading->first_seen == 0)
        reading->first_seen = delivery->sequence;
    witness(reading->lane, delivery);
    audit->reached.seq = delivery->sequence;
    audit->reached.at_ms = delivery->stored_wall_ns / WB_MS;
    audit->reached.msg_id_len = WB_ID_SIZE;
    if (msg_id.len >= WB_ID_TEXT - 1 &&
        wb_hex_decode(wb_str_n(msg_id.ptr, WB_ID_TEXT - 1), audit->reached.msg_id, WB_ID_SIZE))
        return true;
    audit->reached.msg_id_len = msg_id.len <= MESSAGE_ID_MAX ? msg_id.len : 0;
    if (audit->reached.msg_id_len > 0)
        memcpy(audit->reached.msg_id, msg_id.ptr, msg_id.len);
    return true;
}

/* Read up to here, whether a message is there or not. */
static void reach(struct outbox_publisher_audit *audit, uint64_t sequence)
{
    if (audit->reached.seq != sequence)
        audit->reached.msg_id_len = 0;
    audit->reached.seq = sequence;
}

static int by_id(const void *a, const void *b)
{
    const struct outbox_publisher_witness *left = a, *right = b;

    return (left->id > right->id) - (left->id < right->id);
}

/* The rows named, each once, and only those that are what the message says. */
static wb_err hear_witnesses(struct outbox_publisher_lane *lane, struct wb_why *why)
{
    struct outbox_publisher_audit *audit = &lane->audit;

    if (audit->witness_count > 0)
        qsort(audit->witnesses, audit->witness_count, sizeof(*audit->witnesses), by_id);
    audit->found_count = 0;
    for (size_t i = 0; i < audit->witness_count; i++) {
        const struct outbox_publisher_witness *one = &audit->witnesses[i];
        uint8_t msg_id[WB_ID_SIZE];
        bool known = false;
        wb_err err =
            outbox_publisher_verified_msg_id(audit->verifier, one->id, msg_id, &known, why);
        if (err != WB_OK)
            return err;
        if (!known || memcmp(msg_id, one->msg_id, WB_ID_SIZE) != 0 ||
            strcmp(one->source, outbox_publisher_source_of(&lane->sources, one->id)) != 0)
            continue;
        if (audit->found_count > 0 && audit->found[audit->found_count - 1].id == one->id)
            continue; /* stored twice */
        audit->found[audit->found_count++] =
            (struct outbox_publisher_found){.id = one->id, .sequence = one->sequence};
    }
    return WB_OK;
}

/* Where rows that are found in their place begin; INT64_MAX: there are none here. */
static wb_err straight_find(struct outbox_publisher_lane *lane, int64_t *ret_id, struct wb_why *why)
{
    const struct outbox_publisher_audit *audit = &lane->audit;
    uint64_t sequence = UINT64_MAX;
    wb_err err = WB_OK;

    *ret_id = INT64_MAX;
    for (size_t i = 0; err == WB_OK && i < audit->found_count; i++) {
        bool late = true;
        if (audit->found[i].sequence > sequence)
            continue;
        err = outbox_publisher_store_is_late(lane->store, audit->found[i].id, &late, why);
        if (late)
            continue;
        sequence = audit->found[i].sequence;
        *ret_id = audit->found[i].id;
    }
    return err;
}

/*
 * Which rows are to be compared with the slice? Those up to the newest found in it, or all when it
 * ends where the cursor stands. After a jump none, until one tells which went by the limits.
 */
static wb_err aim(struct outbox_publisher_lane *lane, bool whole, struct wb_why *why)
{
    struct outbox_publisher_audit *audit = &lane->audit;
    int64_t straight = INT64_MAX;
    wb_err err = hear_witnesses(lane, why);

    if (err == WB_OK && audit->jumped)
        err = straight_find(lane, &straight, why);
    if (err != WB_OK)
        return err;
    audit->gone_id = audit->jumped ? straight : 0;
    audit->jumped = audit->jumped && straight == INT64_MAX && !whole;
    audit->target = audit->found_count > 0 ? audit->found[audit->found_count - 1].id : 0;
    if (whole || audit->target > lane->cursor.last_id)
        audit->target = lane->cursor.last_id;
    if (audit->jumped)
        audit->target = 0;
    return WB_OK;
}

/* Did messages go by the stream's limits that were not read back? */
static wb_err limits_look(struct outbox_publisher_lane *lane, uint64_t from, struct wb_why *why)
{
    struct outbox_publisher_audit *audit = &lane->audit;
    struct event_bus_stream_info info;
    wb_err err = event_bus_stream_info(lane->publisher->bus, lane->stream, &info, why);

    if (err != WB_OK)
        return err;
    uint64_t first = info.messages > 0 ? info.first_seq : info.last_seq + 1;
    if (first > from) {
        audit->first_seq = first;
        audit->jumped = true;
    }
    return WB_OK;
}

/* When the message that was too young will not be any more. */
static int64_t ripe_ns(const struct outbox_publisher_lane *lane, const struct reading *reading)
{
    int64_t wait = reading->young_wall_ns - reading->old_wall_ns;
    int64_t some = lane->publisher->audit_wait_ns / 10; /* many at a time, not each as it ripens */

    return outbox_publisher_now_ns(lane) + (wait < some ? some : wait);
}

wb_err outbox_publisher_audit_read(struct outbox_publisher_lane *lane, struct wb_why *why)
{
    struct outbox_publisher_audit *audit = &lane->audit;
    struct reading reading = {
        .lane = lane, .old_wall_ns = wb_wall_ns(lane->clock) - lane->publisher->audit_wait_ns};
    const uint64_t from = audit->next, end = lane->cursor.last_seq;
    uint64_t next = from;

    audit->reached = audit->verified;
    if (!audit->jumped)
        audit->first_seq = audit->witness_count = 0;
    const uint64_t room = OUTBOX_PUBLISHER_AUDIT_SLICE - audit->witness_count;
    uint64_t to = end - from < room ? end : from + room - 1;
    wb_err err = event_bus_scan(lane->publisher->bus, lane->stream, from, to, read_visit, &reading,
                                &next, why);
    if (err == WB_OK && reading.young_seq == 0 && next <= to)
        err = wb_fail(why, WB_UNKNOWN, "stream %s ends before the cursor", lane->stream);
    if (err == WB_OK && reading.first_seen != from && reading.young_seq != from)
        err = limits_look(lane, from, why);
    if (err != WB_OK)
        return err;
    to = reading.young_seq != 0 ? reading.young_seq - 1 : to;
    if (to < from) {
        audit->due_mono_ns = ripe_ns(lane, &reading);
        return WB_OK;
    }
    reach(audit, to);
    err = aim(lane, to == end, why);
    if (err != WB_OK)
        return err;
    audit->next = to + 1;
    /* After a jump nothing is noted before it is known what it means, as long as there is room. */
    audit->in_hand = !audit->jumped || audit->witness_count == OUTBOX_PUBLISHER_AUDIT_SLICE;
    return WB_OK;
}
