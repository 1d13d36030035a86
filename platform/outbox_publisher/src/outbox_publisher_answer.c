/* What an answer of the bus means for a row, and for the lane. */
#include <stdio.h>
#include <string.h>

#include "outbox_publisher_private.h"

void outbox_publisher_judge(struct outbox_publisher_lane *lane, outbox_publisher_verdict verdict,
                            const char *text)
{
    if (lane->verdict != OUTBOX_PUBLISHER_GOES_ON)
        return;
    lane->verdict = verdict;
    (void)snprintf(lane->verdict_why.text, sizeof(lane->verdict_why.text), "%s", text);
}

void outbox_publisher_unmarked(struct outbox_publisher_lane *lane)
{
    if (lane->unmarked_mono_ns == 0)
        lane->unmarked_mono_ns = outbox_publisher_now_ns(lane);
}

/* ---- rows that are refused ------------------------------------------------------------------- */

#define RETRY_MIN_NS (200 * WB_MS)
#define RETRY_MAX_NS (60 * WB_SEC)

/* By chance anything up to the limit: rows refused together do not come back together. */
static int64_t retry_ms(struct outbox_publisher_lane *lane, uint32_t attempts)
{
    int64_t wait_ns = wb_backoff_ns(&lane->rng, attempts, RETRY_MIN_NS, RETRY_MAX_NS);

    return outbox_publisher_wall_ms(lane) + 1 + wait_ns / WB_MS;
}

outbox_policy outbox_publisher_policy_of(const struct outbox_publisher_lane *lane,
                                         struct wb_str subject)
{
    const struct outbox_publisher *publisher = lane->publisher;
    const struct outbox_class *found =
        outbox_class_of(publisher->classes, publisher->class_count, subject);

    return found != NULL ? found->policy : OUTBOX_BLOCK_KEY;
}

struct policy_look {
    const struct outbox_publisher_lane *lane;
    outbox_policy policy;
};

static bool policy_visit(void *ctx, const struct outbox_row *row)
{
    struct policy_look *look = ctx;

    look->policy = outbox_publisher_policy_of(look->lane, row->subject);
    return false;
}

/* Refusals are few, so that the subject is looked up rather than carried along. In doubt the order
 * is kept. */
static outbox_policy policy_of_row(struct outbox_publisher_lane *lane, int64_t id)
{
    struct policy_look look = {.lane = lane, .policy = OUTBOX_BLOCK_KEY};

    if (lane->publisher->class_count > 0)
        (void)outbox_publisher_store_heads(lane->store, id - 1, id, policy_visit, &look, NULL);
    return look.policy;
}

void outbox_publisher_refuse(struct outbox_publisher_lane *lane, int64_t id, uint64_t key_hash,
                             bool for_good, const char *error)
{
    struct outbox_publisher_exception *one =
        outbox_publisher_exceptions_find(&lane->exceptions, id);
    uint32_t attempts = one != NULL ? one->attempts + 1 : 1;
    bool park = for_good || attempts >= lane->publisher->max_attempts;

    if (outbox_publisher_exceptions_put(&lane->exceptions, id, key_hash,
                                        park ? OUTBOX_EXCEPTION_PARKED : OUTBOX_EXCEPTION_RETRY,
                                        park ? 0 : retry_ms(lane, attempts), error) != WB_OK) {
        outbox_publisher_judge(lane, OUTBOX_PUBLISHER_WAITS, "out of memory");
        return;
    }
    outbox_publisher_exceptions_find(&lane->exceptions, id)->attempts = attempts;
    outbox_publisher_exceptions_policy(&lane->exceptions, id, policy_of_row(lane, id));
    outbox_publisher_unmarked(lane);
    if (!park)
        return;
    observe_add(lane->publisher->parked, 1);
    wb_log(WB_LOG_WARN, "outbox_publisher", "outbox=%s stream=%s row=%lld parked attempts=%u: %s",
           lane->publisher->name, lane->stream, (long long)id, attempts, error);
}

void outbox_publisher_supersede(struct outbox_publisher_lane *lane, int64_t id, uint64_t key_hash)
{
    size_t count = 0;
    wb_err err = outbox_publisher_exceptions_supersede(&lane->exceptions, id, key_hash, &count);

    if (count > 0)
        outbox_publisher_unmarked(lane);
    if (err != WB_OK)
        outbox_publisher_judge(lane, OUTBOX_PUBLISHER_WAITS, wb_err_text(err));
}

/* ---- answers --------------------------------------------------------------------------------- */

static void acked(struct outbox_publisher_lane *lane, const struct outbox_publisher_sent *sent)
{
    WB_CRASH_POINT("outbox_publisher.acked");
    if (sent->exception)
        outbox_publisher_exceptions_done(&lane->exceptions, sent->row_id, sent->sequence);
    outbox_publisher_supersede(lane, sent->row_id, sent->key_hash);
    lane->acked_seq = sent->sequence;
    memcpy(lane->acked_msg_id, sent->msg_id, WB_ID_SIZE);
    lane->unmarked++;
    lane->unmarked_bytes += sent->bytes;
    lane->published++;
    lane->probe = false;
    lane->looks = 0;
    lane->outages = 0;
    if (lane->again_row == sent->row_id)
        lane->again_row = 0;
    lane->checked_mono_ns = outbox_publisher_now_ns(lane); /* the chain holds: that is a check */
    outbox_publisher_unmarked(lane);
    observe_add(lane->publisher->published, 1);
    if (sent->resent)
        observe_add(lane->publisher->republished, 1);
    if (sent->late)
        observe_add(lane->publisher->late, 1);
}

/* Stored, but not where the chain said it must be. */
static void misplaced(struct outbox_publisher_lane *lane, const struct outbox_publisher_sent *sent)
{
    struct wb_why why;

    if (sent->duplicate) {
        lane->duplicate_row = sent->row_id;
        lane->duplicate_seq = sent->sequence;
        lane->duplicate_resent = sent->resent;
    }
    (void)wb_fail(&why, WB_CONFLICT,
                  "row %lld should have become sequence %llu of stream %s, the bus says %s%llu%s",
                  (long long)sent->row_id, (unsigned long long)sent->expected, lane->stream,
                  sent->duplicate ? "duplicate of " : "", (unsigned long long)sent->sequence,
                  sent->stream_right ? "" : " of another stream");
    outbox_publisher_judge(lane, OUTBOX_PUBLISHER_LOOKS, why.text);
}

outbox_publisher_error_class outbox_publisher_classify(wb_err err)
{
    switch (err) {
    case WB_INVALID:
    case WB_TOO_BIG:
    case WB_DENIED:
        return OUTBOX_PUBLISHER_OF_ROW;
    case WB_CONFLICT: /* the stream is another than expected, or another one took it */
    case WB_TIMEOUT:
    case WB_UNKNOWN:
        return OUTBOX_PUBLISHER_OF_CHAIN;
    case WB_NOMEM:
    case WB_FULL: /* no room in the stream, or too much unanswered */
    case WB_BUSY:
    case WB_UNREACHABLE:
    case WB_NO_STREAM:
    case WB_NO_JETSTREAM:
    case WB_IO:
    case WB_DISK_FULL:
    case WB_READ_ONLY:
    case WB_CORRUPT:
    case WB_UNSUPPORTED: /* by the server: the next row will fare no better */
    case WB_CLOSED:
    /* No bus answers these to a publish. One that does is broken, not the row. */
    case WB_OK:
    case WB_NOT_FOUND:
    case WB_EXISTS:
    case WB_MISUSE:
    case WB_INTERNAL:
        break;
    }
    return OUTBOX_PUBLISHER_OF_STREAM;
}

static void failed(struct outbox_publisher_lane *lane, const struct outbox_publisher_sent *sent)
{
    struct wb_why why;

    outbox_publisher_flight_why(lane->flight, &why);
    switch (outbox_publisher_classify(sent->err)) {
    case OUTBOX_PUBLISHER_OF_ROW:
        outbox_publisher_refuse(lane, sent->row_id, sent->key_hash, false, why.text);
        lane->looks = 0; /* this row will not be sent again at once: that is progress */
        outbox_publisher_judge(lane, OUTBOX_PUBLISHER_LOOKS, why.text);
        break;
    case OUTBOX_PUBLISHER_OF_CHAIN:
        outbox_publisher_judge(lane, OUTBOX_PUBLISHER_LOOKS, why.text);
        break;
    case OUTBOX_PUBLISHER_OF_STREAM:
        outbox_publisher_judge(lane, OUTBOX_PUBLISHER_WAITS, why.text);
        break;
    }
}

/* The cursor must stay before it. */
static void in_vain(struct outbox_publisher_lane *lane, const struct outbox_publisher_sent *sent)
{
    if (sent->err == WB_TIMEOUT || sent->err == WB_UNKNOWN)
        lane->grace_ns = OUTBOX_PUBLISHER_GRACE_NS;
    if (lane->failed_id == 0 && !sent->exception &&
        outbox_publisher_exceptions_find(&lane->exceptions, sent->row_id) == NULL)
        lane->failed_id = sent->row_id;
}

bool outbox_publisher_collect(struct outbox_publisher_lane *lane)
{
    struct outbox_publisher_sent sent;
    bool any = false;

    for (; outbox_publisher_flight_take(lane->flight, &sent); any = true) {
        bool broken = lane->verdict != OUTBOX_PUBLISHER_GOES_ON;
        bool in_place = sent.err == WB_OK && !sent.duplicate && sent.stream_right &&
                        sent.sequence == sent.expected;
        if (!broken && in_place) {
            acked(lane, &sent);
            continue;
        }
        /* Behind a broken link of the chain an answer tells nothing; reading back will. */
        if (!broken && sent.err != WB_OK)
            failed(lane, &sent);
        else if (!broken)
            misplaced(lane, &sent);
        in_vain(lane, &sent);
    }
    if (any)
        lane->news_mono_ns = outbox_publisher_now_ns(lane);
    return any;
}
