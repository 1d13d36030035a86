/* DRAIN: read a batch, sync the log, send it chained, mark what is acknowledged. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "outbox_publisher_private.h"

#define MARK_AFTER_NS  (50 * WB_MS) /* the longest an ack waits for its mark */
#define IDLE_AFTER_NS  (5 * WB_MS)  /* nothing new for so long: mark, it disturbs nobody */
#define CHECK_EVERY_NS (5 * WB_SEC)
#define TICK_NS        WB_SEC

enum { LOOKS_MAX = 3 }; /* without an ack between, before it is called an outage */

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
    lane->chain_seq = lane->cursor.last_seq;
    lane->acked_seq = lane->cursor.last_seq;
    lane->failed_id = 0;
    lane->probe = true;
    lane->unmarked = lane->unmarked_bytes = 0;
    lane->unmarked_mono_ns = 0;
    lane->dry = false;
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

static bool exceptions_due(const struct outbox_publisher_lane *lane)
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
    return batch_empty(lane) && lane->dry && !exceptions_due(lane) &&
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

/* ---- sending --------------------------------------------------------------------------------- */

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

static bool send_batch(struct outbox_publisher_lane *lane)
{
    bool any = false;

    while (!batch_empty(lane) && lane->verdict == OUTBOX_PUBLISHER_GOES_ON && window_open(lane) &&
           !outbox_publisher_overtaken(lane)) {
        item_handle(lane, &lane->batch.items[lane->batch.next++]);
        any = true;
    }
    if (any)
        lane->news_mono_ns = outbox_publisher_now_ns(lane);
    return any;
}

/* ---- reading --------------------------------------------------------------------------------- */

/* Nothing leaves before the log it was read from is on disk: after a power cut a number could be
 * given to another row while the stream holds the first. */
static bool batch_sync(struct outbox_publisher_lane *lane)
{
    struct wb_why why;

    if (lane->synced || batch_empty(lane))
        return true;
    if (db_barrier_sync(lane->barrier, &why) != WB_OK) {
        outbox_publisher_lane_ours(lane, why.text);
        return false;
    }
    WB_CRASH_POINT("outbox_publisher.synced");
    observe_add(lane->publisher->barriers, 1);
    lane->synced = true;
    return true;
}

static bool batch_fill(struct outbox_publisher_lane *lane)
{
    struct wb_why why = {.text = ""};
    int64_t before_id = lane->read_id;

    if (!batch_empty(lane) || (lane->dry && !exceptions_due(lane)))
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
    lane->synced = false;
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
        did = send_batch(lane) || did;
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
