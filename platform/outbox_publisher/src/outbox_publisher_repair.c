/*
 * REPAIR: the bus has lost events it had acknowledged. What the stream still holds is compared with
 * the rows that are kept, and what is missing is sent again: under its own msg_id, source and row,
 * for it is the same event.
 *
 * Nothing but the stream is trusted: it is read whole. A lost end is the common case. Then the
 * cursor goes back to the last row before it, and the rows beyond are new again; no row beyond it
 * is in the stream. What is missing before that point becomes an exception 'lost', in chunks, and
 * goes out first; it lands behind younger rows, and a header says so.
 *
 * A crash anywhere before the last transaction begins the repair again, for the cursor remembers
 * that one was begun: what was noted by then is true of the stream that was read, and must not be
 * acted upon if another copy of it turns up. A crash after it finds a cursor that agrees with the
 * stream. Nothing is sent in between.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "outbox_publisher_private.h"

enum { REPAIRS_MAX = 5 }; /* one after the other without a moment of agreement between */

/* Something writes the stream anew under our hands, faster than it can be read. */
static bool hopeless(struct outbox_publisher_lane *lane, const char *text)
{
    struct wb_why why;

    if (++lane->repairs_in_a_row <= REPAIRS_MAX)
        return false;
    lane->repairs_in_a_row = REPAIRS_MAX - 1; /* one more try each time it is looked at */
    (void)wb_fail(
        &why, WB_CONFLICT,
        "%s; it was repaired %d times in a row, and contradicts the outbox again: find out "
        "who else changes stream %s, and stop it",
        text, REPAIRS_MAX, lane->stream);
    outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_HALTED, why.text);
    return true;
}

void outbox_publisher_repair_begin(struct outbox_publisher_lane *lane, const char *kind,
                                   const struct event_bus_stream_info *info, const char *text)
{
    const struct outbox_publisher_survey wanted = {
        .phase = OUTBOX_PUBLISHER_PHASE_BEGIN,
        .kind = kind,
        .whole = true,
        .made_anew = lane->cursor.stream_created != info->created_wall_ns,
        .created = info->created_wall_ns,
        .first = info->first_seq,
        .from = info->first_seq > 0 ? info->first_seq : 1,
        .last = info->last_seq,
    };
    struct wb_why why;

    if (text != NULL && hopeless(lane, text))
        return;
    if (outbox_publisher_survey_start(lane, &wanted, &why) != WB_OK) {
        outbox_publisher_lane_ours(lane, why.text);
        return;
    }
    atomic_store(&lane->repair_wanted, false);
    lane->duplicate_row = 0; /* what is at that sequence now, is found with the rest */
    outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_REPAIR, text);
}

/* ---- concluding ------------------------------------------------------------------------------ */

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/*
 * How many events cannot come back, at most: those between the newest one found and the oldest row
 * kept, if the stream had room for them; and those whose subject no stream covers any more.
 */
static uint64_t gone_count(const struct outbox_publisher_lane *lane)
{
    const struct outbox_publisher_survey *survey = lane->survey;
    uint64_t room = outbox_publisher_survey_lost_room(lane);
    int64_t newest = larger(survey->told, survey->floor);
    uint64_t missing = survey->bounds.low > newest ? (uint64_t)(survey->bounds.low - newest) : 0;

    if (!survey->whole)
        return 0;
    room = room > survey->again ? room - survey->again : 0;
    return (missing < room ? missing : room) + survey->uncovered;
}

/* Which sequences are concerned, as well as can be told. */
static void range_tell(const struct outbox_publisher_lane *lane, struct outbox_incident *incident)
{
    const struct outbox_publisher_survey *survey = lane->survey;
    uint64_t known = lane->cursor.last_seq;

    incident->last_seq = survey->whole ? known : survey->last;
    if (!survey->whole)
        incident->first_seq = survey->from;
    else if (survey->made_anew)
        incident->first_seq = 1;
    else if (survey->last < known)
        incident->first_seq = survey->last + 1;
    else
        incident->first_seq = survey->top_seq < known ? survey->top_seq + 1 : survey->from;
}

static void detail_tell(const struct outbox_publisher_lane *lane,
                        const struct outbox_publisher_conclusion *conclusion, struct wb_why *out)
{
    const struct outbox_publisher_survey *survey = lane->survey;

    (void)snprintf(
        out->text, sizeof(out->text),
        "the cursor stood at row %lld, sequence %llu; the stream ends at %llu and holds %llu of "
        "ours and %llu of others; %llu rows are sent again, %llu of them behind younger ones; "
        "%llu cannot come back; %llu messages have no row any more%s",
        (long long)lane->cursor.last_id, (unsigned long long)lane->cursor.last_seq,
        (unsigned long long)survey->last, (unsigned long long)survey->own,
        (unsigned long long)survey->foreign, (unsigned long long)survey->again,
        (unsigned long long)survey->late, (unsigned long long)conclusion->incident.gone,
        (unsigned long long)survey->orphans,
        conclusion->source_from_id > 0 ? ", the rows that follow have a new source" : "");
}

/* Who asks for a comparison, or looks at a stream for the first time, may find nothing lost. */
static void kind_tell(const struct outbox_publisher_survey *survey,
                      struct outbox_publisher_conclusion *it)
{
    bool asked = strcmp(survey->kind, "hole") == 0 || strcmp(survey->kind, "adopted") == 0;

    if (!asked || survey->again + it->incident.gone > 0)
        return;
    it->amiss = survey->orphan_low > 0;
    it->incident.kind = wb_str("restored");
    it->incident.rows = survey->orphans;
}

static struct outbox_publisher_conclusion conclusion_of(const struct outbox_publisher_lane *lane)
{
    const struct outbox_publisher_survey *survey = lane->survey;
    struct outbox_publisher_conclusion it = {
        .cursor = lane->cursor,
        .made_anew = survey->made_anew,
        .stream_first = survey->first,
        .source_from_id = outbox_publisher_restore_source(lane),
        .amiss = true,
        .incident = {.at_wall_ns = wb_wall_ns(lane->clock),
                     .stream = wb_str(lane->stream),
                     .kind = wb_str(survey->kind),
                     .rows = survey->whole ? survey->again : survey->orphans,
                     .gone = gone_count(lane)},
    };

    it.cursor.last_id = survey->last_id;
    it.cursor.last_seq = survey->last;
    it.cursor.last_msg_id_len = survey->last_msg_id_len;
    memcpy(it.cursor.last_msg_id, survey->last_msg_id, survey->last_msg_id_len);
    it.cursor.stream_created = survey->created;
    it.cursor.repairing = 0;
    range_tell(lane, &it.incident);
    kind_tell(survey, &it);
    it.verify_anew = survey->whole && it.amiss;
    return it;
}

static void concluded(struct outbox_publisher_lane *lane,
                      const struct outbox_publisher_conclusion *it)
{
    struct outbox_publisher_survey *survey = lane->survey;
    struct outbox_publisher *publisher = lane->publisher;

    wb_log(it->amiss ? WB_LOG_WARN : WB_LOG_INFO, "outbox_publisher", "outbox=%s stream=%s %s: %s",
           publisher->name, lane->stream, it->amiss ? it->incident.kind.ptr : "complete",
           it->incident.detail.ptr);
    if (survey->whole && it->amiss) {
        lane->resend_id = larger(lane->resend_id, lane->cursor.last_id);
        lane->again_all = false;
        lane->repairs++;
        observe_add(publisher->repairs, 1);
    }
    if (!survey->whole || it->source_from_id > 0) {
        lane->restores++;
        observe_add(publisher->restores, 1);
    }
    observe_add(publisher->orphans, (int64_t)survey->noted);
    lane->cursor = it->cursor;
    lane->tables_stale = true;
    if (it->source_from_id > 0)
        outbox_publisher_restore_tell(lane);
}

static void conclude(struct outbox_publisher_lane *lane)
{
    struct outbox_publisher_conclusion it = conclusion_of(lane);
    struct wb_why detail, why;
    wb_err err = WB_OK;

    detail_tell(lane, &it, &detail);
    it.incident.detail = wb_str(detail.text);
    if (lane->plan != NULL)
        outbox_publisher_plan_fill(lane, &it);
    else
        err = outbox_publisher_ledger_conclude(lane->survey->ledger, lane->stream, &it, &why);
    if (err == WB_CONFLICT) {
        outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_FENCED, why.text);
    } else if (err != WB_OK) {
        outbox_publisher_lane_ours(lane, why.text);
        return; /* once more */
    } else {
        concluded(lane, &it);
        outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_CHECK, NULL);
    }
    outbox_publisher_survey_free(lane->survey);
    lane->survey = NULL;
}

/* ---- the state ------------------------------------------------------------------------------- */

static void begin(struct outbox_publisher_lane *lane)
{
    struct wb_why why;
    /* Nothing was found yet: this only has the cursor remember that a repair was begun. */
    wb_err err = lane->survey->whole ? outbox_publisher_survey_note(lane, &why) : WB_OK;

    if (err == WB_CONFLICT)
        outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_FENCED, why.text);
    else if (err != WB_OK)
        outbox_publisher_lane_ours(lane, why.text);
    else
        lane->survey->phase = OUTBOX_PUBLISHER_PHASE_READ;
}

bool outbox_publisher_repair(struct outbox_publisher_lane *lane)
{
    if (atomic_load(&lane->bus_changed)) { /* it may be another stream now */
        outbox_publisher_survey_free(lane->survey);
        lane->survey = NULL;
        outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_CHECK, NULL);
        return true;
    }
    switch (lane->survey->phase) {
    case OUTBOX_PUBLISHER_PHASE_BEGIN:
        begin(lane);
        break;
    case OUTBOX_PUBLISHER_PHASE_END:
        conclude(lane);
        break;
    default:
        outbox_publisher_survey_step(lane);
        break;
    }
    return true;
}
