/* The second half of a survey: the rows that should be in the stream, against what was found. */
#include <stdio.h>

#include "outbox_publisher_private.h"

enum { WALK_SLICE = 4096 }; /* rows looked at in one step */

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
        outbox_publisher_survey_found(lane->survey, row->id))
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

void outbox_publisher_survey_floor(struct outbox_publisher_lane *lane)
{
    struct outbox_publisher_survey *survey = lane->survey;
    struct event_bus_stream_info info;
    struct wb_why why;

    if (event_bus_stream_info(lane->publisher->bus, lane->stream, &info, &why) != WB_OK) {
        outbox_publisher_survey_bus(lane, why.text);
        return;
    }
    if (info.created_wall_ns != survey->created || info.last_seq < survey->last) {
        outbox_publisher_survey_end(lane); /* not what was read any more */
        outbox_publisher_lane_go(lane, OUTBOX_PUBLISHER_CHECK, NULL);
        return;
    }
    survey->first = info.first_seq; /* limits may have been at work while it was read */
    wb_err err = floor_find(lane, &why);
    if (err != WB_OK) {
        outbox_publisher_survey_database(lane, err, why.text);
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

    if (outbox_publisher_survey_found(survey, row->id)) {
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

static void text_copy(char *out, size_t size, struct wb_str text)
{
    (void)snprintf(out, size, "%.*s", (int)text.len, text.ptr != NULL ? text.ptr : "");
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
    } else if (!outbox_publisher_survey_found(survey, row->id) &&
               (row->id <= survey->last_id || row->id <= lane->cursor.last_id)) {
        bool lost = row->id <= survey->last_id;
        if (owner == OUTBOX_PUBLISHER_DOUBTFUL) {
            struct outbox_publisher_doubt *doubt = &survey->doubts[survey->doubt_count++];
            *doubt = (struct outbox_publisher_doubt){.id = row->id, .lost = lost};
            text_copy(doubt->stream, sizeof(doubt->stream), row->stream);
            text_copy(doubt->subject, sizeof(doubt->subject), row->subject);
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
    const struct outbox_publisher_part part = {survey->walk, to, WALK_SLICE};
    wb_err err = WB_OK;

    survey->seen = 0;
    if (survey->walk < to && survey->phase == OUTBOX_PUBLISHER_PHASE_ASIDE)
        err = outbox_publisher_ledger_aside(survey->ledger, lane->stream, first, &part, kept_visit,
                                            lane, why);
    else if (survey->walk < to)
        err = outbox_publisher_ledger_rows(survey->ledger, &part, kept_visit, lane, why);
    *ret_done = survey->seen < WALK_SLICE &&
                survey->change_count + survey->doubt_count < OUTBOX_PUBLISHER_SURVEY_CHANGES;
    return err;
}

static void walk_done(struct outbox_publisher_survey *survey, int64_t to)
{
    survey->walk = to;
    if (survey->phase == OUTBOX_PUBLISHER_PHASE_ASIDE)
        survey->phase = OUTBOX_PUBLISHER_PHASE_ROWS;
    else if (survey->base + survey->ids < survey->walk_to &&
             survey->base + survey->ids < survey->bounds.high)
        outbox_publisher_survey_range_next(survey);
    else
        survey->phase = OUTBOX_PUBLISHER_PHASE_END;
}

void outbox_publisher_survey_walk(struct outbox_publisher_lane *lane)
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
        outbox_publisher_survey_bus(lane, why.text);
        return;
    }
    if (survey->change_count > 0) {
        wb_err noted = outbox_publisher_survey_note(lane, err == WB_OK ? &why : NULL);
        err = err == WB_OK ? noted : err;
    }
    if (err != WB_OK)
        outbox_publisher_survey_database(lane, err, why.text);
    else if (done)
        walk_done(survey, to);
}
