/*
 * The audit: beside draining, what was acknowledged some time ago is read back.
 *
 * An acknowledgement tells that a server had taken an event, not that it still has it. So the
 * stream is read once more from where it was read back last, slice by slice, as far as it is old
 * enough for any power cut to have shown; and the rows up to there are compared. Rows that are not
 * found in their place are noted in outbox_late: they were stored out of order and come later, or
 * they are lost, which is known when everything is read that had been acknowledged by then.
 *
 * Reading a slice keeps the lane from sending for some milliseconds. It reads at once while there
 * is nothing else to do, and takes at most a fifth of the time otherwise.
 */
#include <stdlib.h>
#include <string.h>

#include "outbox_publisher_private.h"

#include <waybill/subject.h>

#define BUSY_EVERY_NS (100 * WB_MS)
#define BUSY_SHARE    4 /* after a step wait so many times what it took, when there is work */
#define RETRY_NS      WB_SEC

/* ---- memory ---------------------------------------------------------------------------------- */

static wb_err memory_open(struct outbox_publisher_lane *lane, struct wb_why *why)
{
    struct outbox_publisher_audit *audit = &lane->audit;

    if (audit->verifier != NULL)
        return WB_OK;
    if (audit->witnesses == NULL)
        audit->witnesses = calloc(OUTBOX_PUBLISHER_AUDIT_SLICE, sizeof(*audit->witnesses));
    if (audit->found == NULL)
        audit->found = calloc(OUTBOX_PUBLISHER_AUDIT_SLICE, sizeof(*audit->found));
    if (audit->missed == NULL)
        audit->missed = calloc(OUTBOX_PUBLISHER_AUDIT_SLICE, sizeof(*audit->missed));
    if (audit->witnesses == NULL || audit->found == NULL || audit->missed == NULL)
        return wb_fail(why, WB_NOMEM, "audit of stream %s: out of memory", lane->stream);
    return outbox_publisher_verifier_open(lane->store, &audit->verifier, why);
}

void outbox_publisher_audit_free(struct outbox_publisher_lane *lane)
{
    struct outbox_publisher_audit *audit = &lane->audit;

    outbox_publisher_verifier_close(audit->verifier);
    free(audit->witnesses);
    free(audit->found);
    free(audit->missed);
    *audit = (struct outbox_publisher_audit){.loaded = false};
}

void outbox_publisher_audit_reset(struct outbox_publisher_lane *lane)
{
    lane->audit.loaded = false;
    lane->audit.in_hand = false;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* It goes out again at once, before any new row. */
static void lost(void *ctx, int64_t id)
{
    struct outbox_publisher_lane *lane = ctx;

    lane->audit.holes++;
    observe_add(lane->publisher->holes, 1);
    wb_log(WB_LOG_WARN, "outbox_publisher",
           "outbox=%s stream=%s row=%lld was stored and the stream has lost it: it is sent again",
           lane->publisher->name, lane->stream, (long long)id);
    lane->exceptions_stale = true; /* the table has it, the next batch begins with it */
}

/* What was compared so far; the sequence moves only when all of the slice is. */
static wb_err note(struct outbox_publisher_lane *lane, bool whole, struct wb_why *why)
{
    struct outbox_publisher_audit *audit = &lane->audit;
    struct outbox_publisher_progress progress = {.stream = lane->stream,
                                                 .holder = lane->cursor.holder,
                                                 .before = audit->verified,
                                                 .after = audit->verified,
                                                 .first_seq = audit->first_seq,
                                                 .found = audit->found,
                                                 .found_count = audit->found_count,
                                                 .missed = audit->missed,
                                                 .missed_count = audit->missed_count,
                                                 .missed_by = lane->cursor.last_seq,
                                                 .now_ms = outbox_publisher_wall_ms(lane)};
    bool more = true;
    wb_err err = WB_OK;

    progress.after.id = audit->reached.id;
    if (whole)
        progress.after = audit->reached;
    WB_CRASH_POINT("outbox_publisher.audited");
    while (err == WB_OK && more)
        err = outbox_publisher_verified_write(audit->verifier, &progress, lost, lane, &more, why);
    if (err != WB_OK)
        return err;
    audit->verified = progress.after;
    audit->missed_count = 0;
    if (whole)
        audit->witness_count = 0;
    audit->in_hand = audit->in_hand && !whole;
    return WB_OK;
}

/* ---- beginning ------------------------------------------------------------------------------- */

/*
 * A stream that ends before what was read back of it is another one, begun anew where that is no
 * loss: what it has not got, it was not to get.
 */
static wb_err load(struct outbox_publisher_lane *lane, struct wb_why *why)
{
    struct outbox_publisher_audit *audit = &lane->audit;
    wb_err err = memory_open(lane, why);

    if (err == WB_OK)
        err = outbox_publisher_verified_read(audit->verifier, lane->stream, &audit->verified, why);
    if (err != WB_OK)
        return err;
    audit->found_count = audit->missed_count = audit->witness_count = 0;
    audit->first_seq = 0;
    if (audit->verified.seq > lane->cursor.last_seq) {
        audit->verified.seq = lane->cursor.last_seq;
        audit->reached = audit->verified;
        audit->reached.id = lane->cursor.last_id;
        audit->reached.msg_id_len = 0;
        err = note(lane, true, why);
    }
    if (audit->next != audit->verified.seq + 1)
        audit->due_mono_ns = 0;
    audit->next = audit->verified.seq + 1;
    audit->jumped = false;
    audit->loaded = err == WB_OK;
    return err;
}

/* ---- comparing the rows ---------------------------------------------------------------------- */

struct comparing {
    struct outbox_publisher_lane *lane;
    size_t seen;
    bool doubtful; /* it stopped at a row of which only the bus can say whose it is */
    int64_t doubtful_id;
    char stream[EVENT_BUS_NAME_MAX + 1];
    char subject[SUBJECT_MAX + 1];
};

static bool is_found(const struct outbox_publisher_audit *audit, int64_t id)
{
    size_t low = 0, high = audit->found_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (audit->found[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < audit->found_count && audit->found[low].id == id;
}

/* true: the row is not this lane's, as far as is known. */
static bool is_others(struct comparing *comparing, const struct outbox_row *row)
{
    struct outbox_publisher_lane *lane = comparing->lane;

    switch (outbox_publisher_route_of(lane, row->stream, row->subject)) {
    case OUTBOX_PUBLISHER_MINE:
        return false;
    case OUTBOX_PUBLISHER_OTHER:
        return true;
    case OUTBOX_PUBLISHER_DOUBTFUL:
        break;
    }
    if (lane->audit.asked_id == row->id)
        return !lane->audit.asked_mine;
    comparing->doubtful = row->subject.len <= SUBJECT_MAX;
    if (!comparing->doubtful)
        return true;
    comparing->doubtful_id = row->id;
    memcpy(comparing->subject, row->subject.ptr, row->subject.len);
    comparing->subject[row->subject.len] = '\0';
    return false;
}

static bool compare_visit(void *ctx, const struct outbox_row *row, bool excepted)
{
    struct comparing *comparing = ctx;
    struct outbox_publisher_audit *audit = &comparing->lane->audit;

    if (!excepted && !is_found(audit, row->id) && row->id >= audit->gone_id) {
        bool others = is_others(comparing, row);
        if (comparing->doubtful)
            return false;
        if (!others)
            audit->missed[audit->missed_count++] = row->id;
    }
    comparing->seen++;
    audit->reached.id = row->id;
    return true;
}

/* Ours, if the stream that covers it is this one. */
static wb_err ask(struct outbox_publisher_lane *lane, const struct comparing *comparing,
                  struct wb_why *why)
{
    char stream[EVENT_BUS_NAME_MAX + 1];
    wb_err err =
        event_bus_stream_for(lane->publisher->bus, wb_str(comparing->subject), stream, why);

    if (err != WB_OK && err != WB_NO_STREAM)
        return err;
    lane->audit.asked_id = comparing->doubtful_id;
    lane->audit.asked_mine = err == WB_OK && strcmp(stream, lane->stream) == 0;
    return WB_OK;
}

static wb_err slice_compare(struct outbox_publisher_lane *lane, struct wb_why *why)
{
    struct outbox_publisher_audit *audit = &lane->audit;
    struct comparing comparing = {.lane = lane};
    wb_err err = WB_OK;

    audit->missed_count = 0; /* a step that failed begins again */
    audit->reached.id = audit->verified.id;
    if (audit->verified.id < audit->target)
        err = outbox_publisher_verified_rows(audit->verifier, audit->verified.id, audit->target,
                                             OUTBOX_PUBLISHER_AUDIT_SLICE, compare_visit,
                                             &comparing, why);
    bool whole = !comparing.doubtful && comparing.seen < OUTBOX_PUBLISHER_AUDIT_SLICE;
    if (whole && audit->reached.id < audit->target)
        audit->reached.id = audit->target;
    if (err == WB_OK)
        err = note(lane, whole, why);
    if (err == WB_OK && comparing.doubtful)
        err = ask(lane, &comparing, why);
    return err;
}

/* ---- the step -------------------------------------------------------------------------------- */

static bool has_work(const struct outbox_publisher_lane *lane)
{
    return !lane->audit.loaded || lane->audit.in_hand || lane->audit.next <= lane->cursor.last_seq;
}

static void pace(struct outbox_publisher_lane *lane, int64_t began_ns)
{
    int64_t now = outbox_publisher_now_ns(lane);
    int64_t pause = BUSY_SHARE * (now - began_ns);

    if (outbox_publisher_idle(lane))
        return;
    pause = pause > BUSY_EVERY_NS ? pause : BUSY_EVERY_NS;
    if (lane->audit.due_mono_ns < now + pause)
        lane->audit.due_mono_ns = now + pause;
}

bool outbox_publisher_audit(struct outbox_publisher_lane *lane)
{
    struct outbox_publisher_audit *audit = &lane->audit;
    int64_t now = outbox_publisher_now_ns(lane);
    struct wb_why why;
    wb_err err;

    if (!has_work(lane) || now < audit->retry_mono_ns ||
        (audit->loaded && now < audit->due_mono_ns))
        return false;
    if (!audit->loaded) {
        err = load(lane, &why);
    } else {
        audit->due_mono_ns = 0;
        err = audit->in_hand ? slice_compare(lane, &why) : outbox_publisher_audit_read(lane, &why);
    }
    if (err == WB_CONFLICT) {
        outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_FENCED, why.text);
        return true;
    }
    if (err != WB_OK) { /* what ails the bus or the database, draining finds out and tells */
        audit->retry_mono_ns = outbox_publisher_now_ns(lane) + RETRY_NS;
        return false;
    }
    pace(lane, now);
    return true;
}

void outbox_publisher_audit_report(const struct outbox_publisher_lane *lane,
                                   struct outbox_publisher_report *out)
{
    const struct outbox_publisher_audit *audit = &lane->audit;

    out->holes = audit->holes;
    if (!audit->loaded)
        return;
    out->audit_gap = lane->cursor.last_id - audit->verified.id;
    out->verified_ms = audit->verified.at_ms;
    if (!has_work(lane)) /* everything is read back, so that nothing older is left */
        out->verified_ms = (wb_wall_ns(lane->clock) - lane->publisher->audit_wait_ns) / WB_MS;
}

int64_t outbox_publisher_audit_due_ns(const struct outbox_publisher_lane *lane)
{
    const struct outbox_publisher_audit *audit = &lane->audit;

    if (!has_work(lane))
        return INT64_MAX;
    return audit->loaded && audit->due_mono_ns > audit->retry_mono_ns ? audit->due_mono_ns
                                                                      : audit->retry_mono_ns;
}
