#include "outbox_publisher_survey.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "outbox_publisher_private.h"

enum { READ_SLICE = 16384 }; /* messages read in one step */

/* ---- the bitmap ------------------------------------------------------------------------------ */

static bool in_range(const struct outbox_publisher_survey *survey, int64_t id)
{
    return id > survey->base && id - survey->base <= survey->ids;
}

static void found_set(struct outbox_publisher_survey *survey, int64_t id)
{
    uint64_t at = (uint64_t)(id - survey->base - 1);

    if (in_range(survey, id))
        survey->bits[at / 64] |= UINT64_C(1) << at % 64;
}

bool outbox_publisher_survey_found(const struct outbox_publisher_survey *survey, int64_t id)
{
    uint64_t at = (uint64_t)(id - survey->base - 1);

    return in_range(survey, id) && (survey->bits[at / 64] >> at % 64 & 1) != 0;
}

static size_t bitmap_size(const struct outbox_publisher_survey *survey)
{
    return ((size_t)survey->ids + 63) / 64 * sizeof(*survey->bits);
}

/* ---- life ------------------------------------------------------------------------------------ */

void outbox_publisher_survey_free(struct outbox_publisher_survey *survey)
{
    if (survey == NULL)
        return;
    outbox_publisher_ledger_close(survey->ledger);
    free(survey->bits);
    free(survey->orphan_list);
    free(survey->doubts);
    free(survey);
}

/* Room for what is found: as much as the table needs, within the limit. */
static wb_err make_room(struct outbox_publisher_lane *lane, struct wb_why *why)
{
    struct outbox_publisher_survey *survey = lane->survey;
    int64_t kept = survey->bounds.high - survey->bounds.low;

    survey->base = survey->bounds.low;
    survey->ids = kept < lane->publisher->survey_ids ? kept : lane->publisher->survey_ids;
    survey->bits = calloc(1, bitmap_size(survey) + 1);
    survey->orphan_list = calloc(OUTBOX_PUBLISHER_SURVEY_ORPHANS, sizeof(*survey->orphan_list));
    survey->doubts = calloc(OUTBOX_PUBLISHER_SURVEY_CHANGES, sizeof(*survey->doubts));
    if (survey->bits == NULL || survey->orphan_list == NULL || survey->doubts == NULL)
        return wb_fail(why, WB_NOMEM, "repair of stream %s: out of memory", lane->stream);
    return WB_OK;
}

wb_err outbox_publisher_survey_start(struct outbox_publisher_lane *lane,
                                     const struct outbox_publisher_survey *wanted,
                                     struct wb_why *why)
{
    outbox_publisher_survey_free(lane->survey);
    lane->survey = malloc(sizeof(*lane->survey));
    if (lane->survey == NULL)
        return wb_fail(why, WB_NOMEM, "repair of stream %s: out of memory", lane->stream);
    struct outbox_publisher_survey *survey = lane->survey;
    *survey = *wanted;
    survey->next = survey->from;
    survey->store = lane->store;
    wb_err err = outbox_publisher_ledger_open(lane->store, &survey->ledger, why);
    if (err == WB_OK)
        err = outbox_publisher_ledger_bounds(survey->ledger, lane->stream, &survey->bounds, why);
    if (err == WB_OK)
        err = make_room(lane, why);
    if (err != WB_OK) {
        outbox_publisher_survey_free(survey);
        lane->survey = NULL;
    }
    return err;
}

void outbox_publisher_survey_end(struct outbox_publisher_lane *lane)
{
    outbox_publisher_survey_free(lane->survey);
    lane->survey = NULL;
}

/* The database refused: the lane comes back to this very step, or has lost its role. */
void outbox_publisher_survey_database(struct outbox_publisher_lane *lane, wb_err err,
                                      const char *text)
{
    if (err == WB_CONFLICT) {
        outbox_publisher_survey_end(lane);
        outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_FENCED, text);
    } else {
        outbox_publisher_lane_ours(lane, text);
    }
}

/* The bus refused: all begins anew when it is back, it may be another stream then. */
void outbox_publisher_survey_bus(struct outbox_publisher_lane *lane, const char *text)
{
    outbox_publisher_survey_end(lane);
    outbox_publisher_lane_outage(lane, text);
}

/* ---- reading the stream ---------------------------------------------------------------------- */

static void copy_text(char *out, size_t size, struct wb_str text)
{
    (void)snprintf(out, size, "%.*s", (int)text.len, text.ptr != NULL ? text.ptr : "");
}

static void orphan_found(struct outbox_publisher_survey *survey,
                         const struct event_bus_delivery *delivery,
                         const struct outbox_publisher_origin *origin)
{
    const struct message *msg = &delivery->message;
    struct outbox_publisher_orphan *one = &survey->orphan_list[survey->orphan_count++];

    *one = (struct outbox_publisher_orphan){.sequence = delivery->sequence,
                                            .row_id = origin->id,
                                            .stored_wall_ns = delivery->stored_wall_ns};
    copy_text(one->source, sizeof(one->source), message_header(msg, MESSAGE_HEADER_SOURCE));
    copy_text(one->msg_id, sizeof(one->msg_id), msg->msg_id);
    copy_text(one->subject, sizeof(one->subject), msg->subject);
    survey->orphans++;
    if (origin->current && (survey->orphan_low == 0 || origin->id < survey->orphan_low))
        survey->orphan_low = origin->id;
}

static void row_found(struct outbox_publisher_survey *survey, int64_t id, uint64_t sequence)
{
    if (id > survey->top) {
        survey->top = id;
        survey->top_seq = sequence;
    }
}

/* Whether its row is kept or not: it is ours, and may be the first in the order of the table. */
static void own_found(struct outbox_publisher_survey *survey, int64_t id)
{
    bool late = false;

    if (survey->straight == 0) {
        survey->err = outbox_publisher_store_is_late(survey->store, id, &late, &survey->why);
        if (survey->err != WB_OK)
            return;
        survey->straight = late ? 0 : id;
    }
    survey->own++;
    survey->told = id > survey->told ? id : survey->told;
}

static void message_count(struct outbox_publisher_survey *survey,
                          const struct event_bus_delivery *delivery,
                          const struct outbox_publisher_origin *origin)
{
    switch (origin->kind) {
    case OUTBOX_PUBLISHER_STORED:
        row_found(survey, origin->id, delivery->sequence);
        own_found(survey, origin->id);
        break;
    case OUTBOX_PUBLISHER_PAST:
        own_found(survey, origin->id);
        break;
    case OUTBOX_PUBLISHER_ORPHAN:
        survey->own++;
        orphan_found(survey, delivery, origin);
        break;
    case OUTBOX_PUBLISHER_FOREIGN:
        survey->foreign++;
        break;
    }
    if (delivery->sequence == survey->last)
        survey->last_msg_id_len = outbox_publisher_identity(delivery, survey->last_msg_id);
}

static bool read_visit(void *ctx, const struct event_bus_delivery *delivery)
{
    struct outbox_publisher_lane *lane = ctx;
    struct outbox_publisher_survey *survey = lane->survey;
    struct outbox_publisher_origin origin;

    survey->stopped = true; /* unless this ends well */
    if (atomic_load(&lane->stop))
        return false;
    survey->err = outbox_publisher_origin_of(lane, &delivery->message, &origin, &survey->why);
    if (survey->err != WB_OK)
        return false;
    if (origin.kind == OUTBOX_PUBLISHER_STORED)
        found_set(survey, origin.id);
    if (!survey->again_read)
        message_count(survey, delivery, &origin);
    if (survey->err != WB_OK)
        return false;
    survey->next = delivery->sequence + 1;
    lane->scanned++;
    survey->stopped = survey->orphan_count == OUTBOX_PUBLISHER_SURVEY_ORPHANS;
    return !survey->stopped;
}

/* Orphans are noted as they are found; what was noted stays so, whatever comes of the repair. */
static wb_err orphans_note(struct outbox_publisher_lane *lane, struct wb_why *why)
{
    struct outbox_publisher_survey *survey = lane->survey;
    uint64_t noted = survey->bounds.orphans;
    size_t room =
        noted < OUTBOX_PUBLISHER_ORPHANS_MAX ? (size_t)(OUTBOX_PUBLISHER_ORPHANS_MAX - noted) : 0;
    size_t added = 0;
    wb_err err = WB_OK;

    if (survey->orphan_count > 0 && lane->plan == NULL)
        err = outbox_publisher_ledger_orphans(survey->ledger, lane->stream,
                                              outbox_publisher_wall_ms(lane), survey->orphan_list,
                                              survey->orphan_count, room, &added, why);
    if (err != WB_OK)
        return err;
    survey->bounds.orphans += added;
    survey->noted += added;
    survey->orphan_count = 0;
    return WB_OK;
}

static void read_step(struct outbox_publisher_lane *lane)
{
    struct outbox_publisher_survey *survey = lane->survey;
    uint64_t to = survey->last, next = 0;
    struct wb_why why;
    wb_err err = WB_OK;

    survey->stopped = false;
    survey->err = WB_OK;
    if (survey->orphan_count == 0 && survey->next <= survey->last) {
        to = survey->last - survey->next >= READ_SLICE ? survey->next + READ_SLICE - 1 : to;
        err = event_bus_scan(lane->publisher->bus, lane->stream, survey->next, to, read_visit, lane,
                             &next, &why);
        if (err == WB_OK && !survey->stopped && next <= to) { /* it has become shorter meanwhile */
            outbox_publisher_survey_end(lane);
            outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_CHECK, NULL);
            return;
        }
        survey->next = survey->stopped ? survey->next : next; /* what is absent was passed over */
    }
    if (err != WB_OK) {
        outbox_publisher_survey_bus(lane, why.text);
        return;
    }
    err = survey->err;
    why = survey->why;
    if (err == WB_OK)
        err = orphans_note(lane, &why);
    if (err != WB_OK)
        outbox_publisher_survey_database(lane, err, why.text);
    else if (survey->next > survey->last)
        survey->phase =
            survey->again_read ? OUTBOX_PUBLISHER_PHASE_ASIDE : OUTBOX_PUBLISHER_PHASE_FLOOR;
}

/* The next range of rows, with a reading of the stream of its own. */
void outbox_publisher_survey_range_next(struct outbox_publisher_survey *survey)
{
    survey->base += survey->ids;
    survey->walk = survey->base;
    survey->next = survey->from;
    survey->again_read = true;
    memset(survey->bits, 0, bitmap_size(survey));
    survey->phase = OUTBOX_PUBLISHER_PHASE_READ;
}

/* ---- a step ---------------------------------------------------------------------------------- */

void outbox_publisher_survey_step(struct outbox_publisher_lane *lane)
{
    switch (lane->survey->phase) {
    case OUTBOX_PUBLISHER_PHASE_READ:
        read_step(lane);
        break;
    case OUTBOX_PUBLISHER_PHASE_FLOOR:
        outbox_publisher_survey_floor(lane);
        break;
    case OUTBOX_PUBLISHER_PHASE_ASIDE:
    case OUTBOX_PUBLISHER_PHASE_ROWS:
        outbox_publisher_survey_walk(lane);
        break;
    case OUTBOX_PUBLISHER_PHASE_BEGIN:
    case OUTBOX_PUBLISHER_PHASE_END:
        break;
    }
}
