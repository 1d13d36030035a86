/*
 * Rows that others may decide about: what is not of the straight path, and what has a due time.
 *
 * They may be cancelled until they are claimed, right before they are sent. From then on such a row
 * counts as lost: on its way, or to be sent before all others.
 */
#include "outbox_publisher_private.h"

/* ---- claiming -------------------------------------------------------------------------------- */

static size_t claims_make(struct outbox_publisher_lane *lane, struct outbox_publisher_claim *claims)
{
    size_t count = 0;

    for (size_t i = 0; i < lane->batch.count; i++) {
        const struct outbox_publisher_item *item = &lane->batch.items[i];
        const struct outbox_publisher_exception *one =
            outbox_publisher_exceptions_find(&lane->exceptions, item->row.id);
        if (!item->unclaimed || (one != NULL && one->state == OUTBOX_EXCEPTION_LOST))
            continue;
        claims[count++] = (struct outbox_publisher_claim){
            .id = item->row.id,
            .attempts = one != NULL ? one->attempts : 0,
            .known = one != NULL && one->state != OUTBOX_EXCEPTION_WAITING};
    }
    return count;
}

/* Somebody else has decided about a row meanwhile: it is not sent, and the table is read again. */
static wb_err claims_apply(struct outbox_publisher_lane *lane,
                           const struct outbox_publisher_claim *claims, size_t count)
{
    struct outbox_publisher_batch *batch = &lane->batch;
    wb_err err = WB_OK;
    size_t kept = 0, next = 0;

    for (size_t i = 0; i < batch->count; i++) {
        struct outbox_publisher_item item = batch->items[i];
        bool claim = next < count && claims[next].id == item.row.id;
        if (claim && !claims[next].claimed) {
            outbox_publisher_exceptions_forget(&lane->exceptions, item.row.id);
            lane->exceptions_stale = true;
            next++;
            continue;
        }
        if (claim && err == WB_OK)
            err = outbox_publisher_exceptions_claimed(
                &lane->exceptions, item.row.id, item.key_hash,
                outbox_publisher_policy_of(lane, item.row.subject), claims[next].attempts);
        item.exception = item.exception || claim;
        batch->items[kept++] = item;
        next += claim ? 1 : 0;
    }
    batch->count = kept;
    return err;
}

wb_err outbox_publisher_batch_claim(struct outbox_publisher_lane *lane, struct wb_why *why)
{
    struct outbox_publisher_claim claims[OUTBOX_PUBLISHER_BATCH_ROWS];
    size_t count = claims_make(lane, claims);

    if (count == 0)
        return WB_OK;
    wb_err err = outbox_publisher_store_claim(lane->store, lane->stream, lane->cursor.holder,
                                              claims, count, why);
    if (err == WB_OK)
        err = claims_apply(lane, claims, count);
    if (err != WB_OK) /* it may have happened all the same: the table tells */
        lane->exceptions_stale = true;
    if (err == WB_OK)
        WB_CRASH_POINT("outbox_publisher.claimed");
    return err;
}

/* ---- lost rows ------------------------------------------------------------------------------- */

struct losing {
    struct outbox_publisher_lane *lane;
    size_t room;
    bool failed;
};

static bool lost_visit(void *ctx, const struct outbox_row *row,
                       const struct outbox_publisher_exception *one)
{
    struct losing *losing = ctx;
    struct outbox_publisher_lane *lane = losing->lane;

    if (outbox_publisher_route_of(lane, row->stream, row->subject) == OUTBOX_PUBLISHER_OTHER ||
        outbox_publisher_exceptions_busy(&lane->exceptions, one->id))
        return true;
    if (losing->room == 0) {
        lane->lost_left = true;
        return false;
    }
    losing->room--;
    losing->failed = !outbox_publisher_exception_load(lane, row, one);
    lane->lost_from = one->id;
    return !losing->failed;
}

wb_err outbox_publisher_lost_load(struct outbox_publisher_lane *lane, int64_t after_id,
                                  struct wb_why *why)
{
    struct losing losing = {.lane = lane, .room = lane->publisher->lost_max};

    lane->lost_left = false;
    lane->lost_from = after_id;
    wb_err err = outbox_publisher_store_lost(lane->store, after_id, lost_visit, &losing, why);
    if (err == WB_OK && losing.failed)
        err = wb_fail(why, WB_NOMEM, "read the lost rows of the outbox: out of memory");
    lane->lost_left = lane->lost_left || err != WB_OK;
    return err;
}

/* ---- what others decided --------------------------------------------------------------------- */

static bool reload_visit(void *ctx, const struct outbox_row *row,
                         const struct outbox_publisher_exception *one)
{
    struct outbox_publisher_lane *lane = ctx;

    return outbox_publisher_exceptions_busy(&lane->exceptions, one->id) ||
           outbox_publisher_exception_load(lane, row, one);
}

/* Memory follows the table, but for what it knows better: what is on its way, or not written. */
wb_err outbox_publisher_exceptions_reload(struct outbox_publisher_lane *lane, struct wb_why *why)
{
    if (lane->exceptions_look) {
        lane->exceptions_look = false;
        if (outbox_publisher_store_revised(lane->store))
            lane->exceptions_stale = true;
    }
    if (!lane->exceptions_stale)
        return WB_OK;
    outbox_publisher_exceptions_reload_begin(&lane->exceptions);
    wb_err err = outbox_publisher_store_exceptions(lane->store, reload_visit, lane, why);
    if (err == WB_OK)
        err = outbox_publisher_lost_load(lane, 0, why);
    if (err != WB_OK)
        return err;
    outbox_publisher_exceptions_reload_end(&lane->exceptions);
    lane->exceptions_stale = false;
    outbox_publisher_unsynced(lane); /* rows may follow what was decided about older ones */
    return WB_OK;
}
