#include "outbox_publisher_survey.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "outbox_publisher_private.h"

enum {
    READ_SLICE = 16384, /* messages read in one step */
    WALK_SLICE = 4096   /* rows looked at in one step */
};

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

static bool found(const struct outbox_publisher_survey *survey, int64_t id)
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

static void give_up(struct outbox_publisher_lane *lane)
{
    outbox_publisher_survey_free(lane->survey);
    lane->survey = NULL;
}

/* The database refused: the lane comes back to this very step, or has lost its role. */
static void database_failed(struct outbox_publisher_lane *lane, wb_err err, const char *text)
{
    if (err == WB_CONFLICT) {
        give_up(lane);
        outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_FENCED, text);
    } else {
        outbox_publisher_lane_ours(lane, text);
    }
}

/* The bus refused: all begins anew when it is back, it may be another stream then. */
static void bus_failed(struct outbox_publisher_lane *lane, const char *text)
{
    give_up(lane);
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
        survey->err = outbox_publisher_ledger_is_late(survey->ledger, id, &late, &survey->why);
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
        survey->last_msg_id_len =
            outbox_publisher_identity(delivery->message.msg_id, survey->last_msg_id);
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
            give_up(lane);
            outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_CHECK, NULL);
            return;
        }
        survey->next = survey->stopped ? survey->next : next; /* what is absent was passed over */
    }
    if (err != WB_OK) {
        bus_failed(lane, why.text);
        return;
    }
    err = survey->err;
    why = survey->why;
    if (err == WB_OK)
        err = orphans_note(lane, &why);
    if (err != WB_OK)
        database_failed(lane, err, why.text);
    else if (survey->next > survey->last)
        survey->phase =
            survey->again_read ? OUTBOX_PUBLISHER_PHASE_ASIDE : OUTBOX_PUBLISHER_PHASE_FLOOR;
}

/* ---- what is not missed ---------------------------------------------------------------------- */

struct back {
    struct outbox_publisher_lane *lane;
    uint64_t budget;
    int64_t floor;
};

static bool back_visit(void *ctx, const struct outbox_publisher_kept *row)
{
    struct back *back = ctx;
    struct outbox_publisher_lane *lane = back->lane;

    if (atomic_load(&lane->stop))
        return false;
    if (outbox_publisher_route_of(lane, row->stream, row->subject) == OUTBOX_PUBLISHER_OTHER ||
        found(lane->survey, row->id))
        return true;
    if (back->budget == 0) {
        back->floor = row->id;
        return false;
    }
    back->budget--;
    return true;
}

uint64_t outbox_publisher_survey_lost_room(const struct outbox_publisher_lane *lane)
{
    const struct outbox_publisher_survey *survey = lane->survey;
    uint64_t end = survey->last > lane->cursor.last_seq ? survey->last : lane->cursor.last_seq;

    if (survey->made_anew)
        return lane->cursor.last_seq;
    uint64_t first = survey->first > 0 ? survey->first : 1; /* 0: it never held a message */
    uint64_t places = end + 1 > first ? end + 1 - first : 0;
    return places > survey->own ? places - survey->own : 0;
}

/*
 * What lay before the stream's first sequence went by the stream's own limits, or was purged: it is
 * not lost. Which rows those were, the first one still there tells, since the order of the table is
 * that of the stream; rows that were stored late are a case apart. When none is there, as many of
 * the newest are missed as there were places for.
 */
static wb_err floor_find(struct outbox_publisher_lane *lane, struct wb_why *why)
{
    struct outbox_publisher_survey *survey = lane->survey;
    struct back back = {.lane = lane};

    if (!survey->whole) {
        survey->floor = lane->cursor.last_id;
        return WB_OK;
    }
    if (survey->made_anew || survey->first <= 1)
        return WB_OK;
    if (survey->straight > 0) {
        survey->floor = survey->straight - 1;
        return WB_OK;
    }
    back.budget = outbox_publisher_survey_lost_room(lane);
    if (survey->bounds.high - survey->bounds.low > survey->ids)
        back.budget += survey->own; /* which of them are there, the bitmap cannot tell */
    wb_err err =
        outbox_publisher_ledger_back(survey->ledger, lane->cursor.last_id, back_visit, &back, why);
    survey->floor = back.floor;
    return err;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static void floor_step(struct outbox_publisher_lane *lane)
{
    struct outbox_publisher_survey *survey = lane->survey;
    struct event_bus_stream_info info;
    struct wb_why why;

    if (event_bus_stream_info(lane->publisher->bus, lane->stream, &info, &why) != WB_OK) {
        bus_failed(lane, why.text);
        return;
    }
    if (info.created_wall_ns != survey->created || info.last_seq < survey->last) {
        give_up(lane); /* not what was read any more */
        outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_CHECK, NULL);
        return;
    }
    survey->first = info.first_seq; /* limits may have been at work while it was read */
    wb_err err = floor_find(lane, &why);
    if (err != WB_OK) {
        database_failed(lane, err, why.text);
        return;
    }
    survey->last_id = larger(survey->top, survey->floor);
    survey->walk = survey->base;
    survey->walk_to = larger(larger(lane->cursor.last_id, survey->last_id), survey->bounds.lost);
    survey->phase = OUTBOX_PUBLISHER_PHASE_ASIDE;
}

/* ---- walking the rows ------------------------------------------------------------------------ */

static void again_count(struct outbox_publisher_lane *lane, int64_t id)
{
    struct outbox_publisher_survey *survey = lane->survey;
    bool late = id <= survey->last_id;

    survey->again++;
    survey->late += late ? 1 : 0;
    if (lane->plan != NULL && lane->plan->visit != NULL && !lane->plan->enough)
        lane->plan->enough = !lane->plan->visit(lane->plan->ctx, id, late);
}

static void change_add(struct outbox_publisher_survey *survey, int64_t id,
                       outbox_publisher_change_kind kind)
{
    survey->changes[survey->change_count++] =
        (struct outbox_publisher_change){.id = id, .kind = kind};
}

static void excepted_visit(struct outbox_publisher_lane *lane,
                           const struct outbox_publisher_kept *row)
{
    struct outbox_publisher_survey *survey = lane->survey;

    if (found(survey, row->id)) {
        if (row->state != OUTBOX_EXCEPTION_CANCELLED)
            change_add(survey, row->id, OUTBOX_PUBLISHER_CHANGE_STORED);
        return;
    }
    if (row->state != OUTBOX_EXCEPTION_LOST)
        return;
    again_count(lane, row->id);
    if (row->id > survey->last_id)
        change_add(survey, row->id, OUTBOX_PUBLISHER_CHANGE_NEW);
}

static void missed(struct outbox_publisher_lane *lane, int64_t id, bool lost)
{
    again_count(lane, id);
    if (lost)
        change_add(lane->survey, id, OUTBOX_PUBLISHER_CHANGE_LOST);
}

static bool kept_visit(void *ctx, const struct outbox_publisher_kept *row)
{
    struct outbox_publisher_lane *lane = ctx;
    struct outbox_publisher_survey *survey = lane->survey;
    outbox_publisher_owner owner = outbox_publisher_route_of(lane, row->stream, row->subject);

    survey->seen++;
    survey->walk = row->id;
    if (owner == OUTBOX_PUBLISHER_OTHER)
        return true;
    if (row->excepted) {
        excepted_visit(lane, row);
    } else if (!found(survey, row->id) &&
               (row->id <= survey->last_id || row->id <= lane->cursor.last_id)) {
        bool lost = row->id <= survey->last_id;
        if (owner == OUTBOX_PUBLISHER_DOUBTFUL) {
            struct outbox_publisher_doubt *doubt = &survey->doubts[survey->doubt_count++];
            *doubt = (struct outbox_publisher_doubt){.id = row->id, .lost = lost};
            copy_text(doubt->stream, sizeof(doubt->stream), row->stream);
            copy_text(doubt->subject, sizeof(doubt->subject), row->subject);
        } else {
            missed(lane, row->id, lost);
        }
    }
    return survey->change_count + survey->doubt_count < OUTBOX_PUBLISHER_SURVEY_CHANGES;
}

/* Rows of which the bus has to say whose they are: others were never published by this lane. */
static wb_err doubts_resolve(struct outbox_publisher_lane *lane, struct wb_why *why)
{
    struct outbox_publisher_survey *survey = lane->survey;
    wb_err err = WB_OK;

    for (size_t i = 0; err == WB_OK && i < survey->doubt_count; i++) {
        const struct outbox_publisher_doubt *doubt = &survey->doubts[i];
        outbox_publisher_asked asked = OUTBOX_PUBLISHER_ASKED_STRANGER;
        err = outbox_publisher_route_ask(lane, wb_str(doubt->stream), wb_str(doubt->subject),
                                         &asked, why);
        if (err == WB_OK && asked == OUTBOX_PUBLISHER_ASKED_MINE)
            missed(lane, doubt->id, doubt->lost);
        survey->uncovered += err == WB_OK && asked == OUTBOX_PUBLISHER_ASKED_UNCOVERED ? 1 : 0;
    }
    survey->doubt_count = 0;
    return err;
}

wb_err outbox_publisher_survey_note(struct outbox_publisher_lane *lane, struct wb_why *why)
{
    struct outbox_publisher_survey *survey = lane->survey;
    const struct outbox_publisher_note note = {
        .stream = lane->stream,
        .holder = lane->cursor.holder,
        .repairing = survey->created,
        .stored_by = survey->last,
        .resent = survey->whole,
        .text = survey->whole ? "the bus has lost it" : "passed over: the stream does not hold it"};
    wb_err err = WB_OK;

    if (lane->plan == NULL)
        err = outbox_publisher_ledger_change(survey->ledger, &note, survey->changes,
                                             survey->change_count, why);
    if (err != WB_OK)
        return err;
    survey->change_count = 0;
    return WB_OK;
}

/* One slice of rows in (walk, to]; *ret_done: there are no more. */
static wb_err walk_slice(struct outbox_publisher_lane *lane, int64_t to, bool *ret_done,
                         struct wb_why *why)
{
    struct outbox_publisher_survey *survey = lane->survey;
    /* Which late rows ought to be there can be told only by who has read the whole stream. */
    uint64_t first = survey->whole && !survey->made_anew ? survey->first : INT64_MAX;
    const struct outbox_publisher_kept_range range = {
        .after_id = survey->walk, .last_id = to, .limit = WALK_SLICE};
    wb_err err = WB_OK;

    survey->seen = 0;
    if (survey->walk < to && survey->phase == OUTBOX_PUBLISHER_PHASE_ASIDE)
        err = outbox_publisher_ledger_aside(survey->ledger, lane->stream, first, &range, kept_visit,
                                            lane, why);
    else if (survey->walk < to)
        err = outbox_publisher_ledger_rows(survey->ledger, &range, kept_visit, lane, why);
    *ret_done = survey->seen < WALK_SLICE &&
                survey->change_count + survey->doubt_count < OUTBOX_PUBLISHER_SURVEY_CHANGES;
    return err;
}

/* The next range of rows, with a reading of the stream of its own. */
static void range_next(struct outbox_publisher_survey *survey)
{
    survey->base += survey->ids;
    survey->walk = survey->base;
    survey->next = survey->from;
    survey->again_read = true;
    memset(survey->bits, 0, bitmap_size(survey));
    survey->phase = OUTBOX_PUBLISHER_PHASE_READ;
}

static void walk_done(struct outbox_publisher_survey *survey, int64_t to)
{
    survey->walk = to;
    if (survey->phase == OUTBOX_PUBLISHER_PHASE_ASIDE)
        survey->phase = OUTBOX_PUBLISHER_PHASE_ROWS;
    else if (survey->base + survey->ids < survey->walk_to &&
             survey->base + survey->ids < survey->bounds.high)
        range_next(survey);
    else
        survey->phase = OUTBOX_PUBLISHER_PHASE_END;
}

static void walk_step(struct outbox_publisher_lane *lane)
{
    struct outbox_publisher_survey *survey = lane->survey;
    int64_t to = survey->phase == OUTBOX_PUBLISHER_PHASE_ASIDE ? survey->floor : survey->walk_to;
    int64_t range_end = survey->base + survey->ids;
    struct wb_why why;
    bool done = false;

    to = larger(to < range_end ? to : range_end, survey->walk);
    /* What could not be noted the last time comes first. */
    wb_err err = survey->change_count > 0 ? WB_OK : walk_slice(lane, to, &done, &why);
    if (err == WB_OK && doubts_resolve(lane, &why) != WB_OK) {
        bus_failed(lane, why.text);
        return;
    }
    if (survey->change_count > 0) {
        wb_err noted = outbox_publisher_survey_note(lane, err == WB_OK ? &why : NULL);
        err = err == WB_OK ? noted : err;
    }
    if (err != WB_OK)
        database_failed(lane, err, why.text);
    else if (done)
        walk_done(survey, to);
}

/* ---- a step ---------------------------------------------------------------------------------- */

void outbox_publisher_survey_step(struct outbox_publisher_lane *lane)
{
    switch (lane->survey->phase) {
    case OUTBOX_PUBLISHER_PHASE_READ:
        read_step(lane);
        break;
    case OUTBOX_PUBLISHER_PHASE_FLOOR:
        floor_step(lane);
        break;
    case OUTBOX_PUBLISHER_PHASE_ASIDE:
    case OUTBOX_PUBLISHER_PHASE_ROWS:
        walk_step(lane);
        break;
    case OUTBOX_PUBLISHER_PHASE_BEGIN:
    case OUTBOX_PUBLISHER_PHASE_END:
        break;
    }
}
