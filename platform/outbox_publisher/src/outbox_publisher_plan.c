/* What a repair would do: the very states that do it, in a lane without a role that writes nothing.
 */
#include <stdio.h>
#include <string.h>

#include "outbox_publisher_private.h"

void outbox_publisher_plan_fill(struct outbox_publisher_lane *lane,
                                const struct outbox_publisher_conclusion *conclusion)
{
    struct outbox_publisher_planning *planning = lane->plan;
    struct outbox_publisher_plan *plan = planning->plan;
    const struct outbox_publisher_survey *survey = lane->survey;
    const struct outbox_incident *incident = &conclusion->incident;

    planning->done = true;
    if (!conclusion->amiss)
        return;
    plan->needed = true;
    (void)snprintf(plan->kind, sizeof(plan->kind), "%s", incident->kind.ptr);
    (void)snprintf(plan->detail, sizeof(plan->detail), "%s", incident->detail.ptr);
    plan->first_seq = incident->first_seq;
    plan->last_seq = incident->last_seq;
    plan->rows = survey->again;
    plan->late = survey->late;
    plan->gone = incident->gone;
    plan->orphans = survey->orphans;
}

static struct outbox_publisher_lane *lane_named(struct outbox_publisher *publisher,
                                                const char *stream)
{
    for (size_t i = 0; i < publisher->lane_count; i++)
        if (strcmp(publisher->lanes[i]->stream, stream) == 0)
            return publisher->lanes[i];
    return NULL;
}

/* So that no row of another stream is taken for this one's. */
static void routes_learn(struct outbox_publisher *publisher)
{
    struct event_bus_stream_info info;

    for (size_t i = 0; i < publisher->lane_count; i++)
        if (event_bus_stream_info(publisher->bus, publisher->lanes[i]->stream, &info, NULL) ==
            WB_OK)
            outbox_publisher_route_set(publisher->lanes[i], info.subjects);
}

static bool looks(const struct outbox_publisher_lane *lane)
{
    return lane->state == OUTBOX_PUBLISHER_CHECK || lane->state == OUTBOX_PUBLISHER_SETTLE ||
           lane->state == OUTBOX_PUBLISHER_REPAIR || lane->state == OUTBOX_PUBLISHER_RESTORE;
}

/* Until it is found that nothing is missing, or all that is. */
static wb_err look(struct outbox_publisher_lane *lane, struct wb_why *why)
{
    const struct outbox_publisher_planning *planning = lane->plan;

    lane->state = OUTBOX_PUBLISHER_CHECK;
    while (!planning->done && looks(lane) && lane->database_retry_mono_ns == 0)
        (void)outbox_publisher_lane_step(lane);
    if (planning->done || lane->state == OUTBOX_PUBLISHER_DRAIN)
        return WB_OK;
    return wb_fail(why, looks(lane) ? WB_BUSY : WB_UNREACHABLE, "%s", lane->problem);
}

static wb_err plan_lane(struct outbox_publisher_lane *lane,
                        struct outbox_publisher_planning *planning, struct wb_why *why)
{
    struct outbox_publisher_plan *plan = planning->plan;
    struct event_bus_stream_info info;
    wb_err err = event_bus_stream_info(lane->publisher->bus, lane->stream, &info, why);

    if (err != WB_OK)
        return err;
    if (outbox_publisher_store_cursor(lane->store, lane->stream, &lane->cursor, NULL) != WB_OK)
        return wb_fail(why, WB_NOT_FOUND, "nothing was ever published to stream %s from %s",
                       lane->stream, lane->publisher->path);
    plan->cursor_id = lane->cursor.last_id;
    plan->cursor_seq = lane->cursor.last_seq;
    plan->stream_first = info.first_seq;
    plan->stream_last = info.last_seq;
    routes_learn(lane->publisher);
    lane->plan = planning;
    atomic_store(&lane->repair_wanted, true);
    return look(lane, why);
}

wb_err outbox_publisher_plan(const struct outbox_publisher_options *options, const char *stream,
                             outbox_publisher_plan_visit visit, void *ctx,
                             struct outbox_publisher_plan *ret_plan, struct wb_why *why)
{
    struct outbox_publisher_plan plan = {.needed = false};
    struct outbox_publisher_planning planning = {.plan = &plan, .visit = visit, .ctx = ctx};
    struct outbox_publisher *publisher = NULL;
    wb_err err = outbox_publisher_make(options, &publisher, why);

    if (err != WB_OK)
        return err;
    struct outbox_publisher_lane *lane = lane_named(publisher, stream);
    if (lane != NULL)
        err = plan_lane(lane, &planning, why);
    else
        err = wb_fail(why, WB_INVALID, "plan a repair: stream %s is not among those given", stream);
    outbox_publisher_free(publisher);
    if (err == WB_OK)
        *ret_plan = plan;
    return err;
}
