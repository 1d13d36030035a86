/* Sending a batch: one message after the other, each chained behind the one before it. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "outbox_publisher_private.h"

/*
 * The first message after a pause goes alone, and says nothing of ids: the server may have started
 * anew meanwhile and have forgotten what the newest one was, or somebody else may have written.
 */
static bool window_open(const struct outbox_publisher_lane *lane)
{
    size_t count = outbox_publisher_flight_count(lane->flight) + lane->unmarked;
    size_t bytes = outbox_publisher_flight_bytes(lane->flight) + lane->unmarked_bytes;

    if (lane->probe && outbox_publisher_flight_count(lane->flight) > 0)
        return false;
    return count < lane->publisher->window && bytes < lane->publisher->window_bytes;
}

/* With a full window a wake-up for each answer would send one message each: it pays to wait until a
 * quarter has room, and there are enough left meanwhile to keep the server busy. */
size_t outbox_publisher_answers_wanted(const struct outbox_publisher_lane *lane)
{
    bool full = lane->batch.next < lane->batch.count && !window_open(lane);
    size_t quarter = outbox_publisher_flight_count(lane->flight) / 4;

    return full && quarter > 0 ? quarter : 1;
}

/* Since the batch was read an older row of the key may have been refused. */
static bool key_stopped(struct outbox_publisher_lane *lane,
                        const struct outbox_publisher_item *item)
{
    bool stop = false;

    wb_err err = WB_OK;

    if (item->exception)
        stop = outbox_publisher_exceptions_older(&lane->exceptions, item->row.id, item->key_hash);
    else
        err = outbox_publisher_exceptions_stop(&lane->exceptions, item->row.id, item->key_hash,
                                               &stop);
    if (err == WB_OK && stop)
        err = outbox_publisher_exceptions_put(&lane->exceptions, item->row.id, item->key_hash,
                                              OUTBOX_EXCEPTION_BLOCKED, 0,
                                              OUTBOX_PUBLISHER_BLOCKED_TEXT);
    if (stop)
        outbox_publisher_unmarked(lane);
    if (err != WB_OK)
        outbox_publisher_judge(lane, OUTBOX_PUBLISHER_WAITS, wb_err_text(err));
    return stop || err != WB_OK;
}

/* Was the row in the stream once? Then the bus may know its id. */
static bool resent(const struct outbox_publisher_lane *lane,
                   const struct outbox_publisher_item *item)
{
    return item->late || (!item->exception && item->row.id <= lane->resend_id);
}

/* For those who care that it comes behind younger events; a message that is full goes without. */
static void mark_late(struct outbox_envelope *envelope, size_t max_payload)
{
    struct message *msg = &envelope->message;

    if (msg->header_count == MESSAGE_HEADERS_MAX)
        return;
    envelope->headers[msg->header_count++] =
        (struct message_header){.name = wb_str(OUTBOX_HEADER_LATE), .value = wb_str("1")};
    if (message_check(msg, max_payload, NULL) != WB_OK)
        msg->header_count--;
}

static void id_extend(struct outbox_envelope *envelope, const char *mark, uint64_t number)
{
    size_t len = strlen(envelope->msg_id);

    (void)snprintf(envelope->msg_id + len, sizeof(envelope->msg_id) - len, "-%s%" PRIu64, mark,
                   number);
    envelope->message.msg_id = wb_str(envelope->msg_id);
}

static wb_err envelope_of(const struct outbox_publisher_lane *lane,
                          const struct outbox_publisher_item *item,
                          struct outbox_envelope *ret_envelope, struct wb_why *why)
{
    struct message_header headers[MESSAGE_HEADERS_MAX];
    size_t count = 0;

    if (item->too_big)
        return wb_fail(why, WB_TOO_BIG, "the payload has %zu bytes, the bus takes at most %zu",
                       item->row.payload.len, lane->max_payload);
    wb_err err = message_headers_parse(item->row.headers, headers, &count, why);
    if (err == WB_OK)
        err = outbox_envelope_make(&item->row,
                                   outbox_publisher_source_of(&lane->sources, item->row.id),
                                   headers, count, lane->max_payload, ret_envelope, why);
    if (err == WB_OK && item->late)
        mark_late(ret_envelope, lane->max_payload);
    if (err != WB_OK)
        return err;
    /* The bus calls the id known, yet does not have the event: its first 32 digits stay. */
    if (lane->again_row == item->row.id || (lane->again_all && resent(lane, item)))
        id_extend(ret_envelope, "", lane->again_count);
    /* See outbox_publisher_fence.c. */
    if (lane->chain_seq < lane->cursor.fenced_seq)
        id_extend(ret_envelope, "f", (uint64_t)lane->cursor.holder);
    return WB_OK;
}

static void not_sent(struct outbox_publisher_lane *lane, const struct outbox_publisher_item *item,
                     wb_err err, const char *text)
{
    switch (outbox_publisher_classify(err)) {
    case OUTBOX_PUBLISHER_OF_ROW:
        outbox_publisher_refuse(lane, item->row.id, item->key_hash, false, text);
        break;
    case OUTBOX_PUBLISHER_OF_CHAIN: /* its bytes may be on their way for all that */
        lane->grace_ns = OUTBOX_PUBLISHER_GRACE_NS;
        lane->batch.next--;
        outbox_publisher_judge(lane, OUTBOX_PUBLISHER_LOOKS, text);
        break;
    case OUTBOX_PUBLISHER_OF_STREAM:
        lane->batch.next--; /* it stays the first to go */
        outbox_publisher_judge(lane, OUTBOX_PUBLISHER_WAITS, text);
        break;
    }
}

/*
 * Chained twice. By sequence, so that nothing is stored that is not next; and behind the first
 * message of a burst by id, so that each stands right behind the one sent before it: had somebody
 * else written in between, one further back would find the sequence it expects, and be stored
 * before those that were refused.
 */
static void item_send(struct outbox_publisher_lane *lane, const struct outbox_publisher_item *item,
                      const struct message *msg)
{
    struct event_bus_publish_options options = {.timeout_ns = lane->publisher->ack_timeout_ns,
                                                .expect_last_seq = true,
                                                .last_seq = lane->chain_seq};
    struct outbox_publisher_sent sent = {.row_id = item->row.id,
                                         .key_hash = item->key_hash,
                                         .expected = lane->chain_seq + 1,
                                         .bytes = msg->payload.len + message_header_bytes(msg),
                                         .exception = item->exception,
                                         .resent = resent(lane, item),
                                         .late = item->late};
    struct wb_why why = {.text = ""};

    memcpy(sent.msg_id, item->row.msg_id, WB_ID_SIZE);
    if (!lane->probe)
        memcpy(options.last_msg_id, lane->chain_msg_id, sizeof(options.last_msg_id));
    wb_err err = outbox_publisher_flight_send(lane->flight, lane->publisher->bus, msg, &options,
                                              &sent, &why);
    if (err != WB_OK) {
        not_sent(lane, item, err, why.text);
        return;
    }
    WB_CRASH_POINT("outbox_publisher.sent");
    lane->chain_seq++;
    assert(msg->msg_id.ptr != NULL);
    memcpy(lane->chain_msg_id, msg->msg_id.ptr, msg->msg_id.len);
    lane->chain_msg_id[msg->msg_id.len] = '\0';
    if (item->exception)
        outbox_publisher_exceptions_depart(&lane->exceptions, item->row.id);
}

static void item_handle(struct outbox_publisher_lane *lane,
                        const struct outbox_publisher_item *item)
{
    struct outbox_envelope envelope; /* large: what it holds is written where it is made */
    struct wb_why why;

    envelope.message = (struct message){.header_count = 0};
    if (key_stopped(lane, item))
        return;
    if (item->doubtful && !outbox_publisher_route_resolve(lane, item))
        return;
    wb_err err = envelope_of(lane, item, &envelope, &why);
    if (err != WB_OK)
        outbox_publisher_refuse(lane, item->row.id, item->key_hash, err == WB_INVALID, why.text);
    else
        item_send(lane, item, &envelope.message);
}

bool outbox_publisher_send(struct outbox_publisher_lane *lane)
{
    bool any = false;

    while (lane->batch.next < lane->batch.count && lane->verdict == OUTBOX_PUBLISHER_GOES_ON &&
           window_open(lane) && !outbox_publisher_overtaken(lane)) {
        item_handle(lane, &lane->batch.items[lane->batch.next++]);
        any = true;
    }
    if (any)
        lane->news_mono_ns = outbox_publisher_now_ns(lane);
    return any;
}
