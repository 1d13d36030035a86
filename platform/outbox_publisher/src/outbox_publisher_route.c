/*
 * Whose is a row? The stream it names, or the one whose subjects cover its subject. The patterns
 * are those the last CHECK has seen; what none of them covers is the first lane's, which asks the
 * bus.
 */
#include <stdio.h>
#include <string.h>

#include "outbox_publisher_private.h"

#include <waybill/subject.h>

static void route_parse(struct outbox_publisher_route *route, const char *subjects)
{
    char *at = route->text;

    (void)snprintf(route->text, sizeof(route->text), "%s", subjects);
    route->known = true;
    route->count = 0;
    while (*(at += strspn(at, " ")) != '\0' && route->count < OUTBOX_PUBLISHER_PATTERNS_MAX) {
        size_t len = strcspn(at, " ");
        route->patterns[route->count++] = wb_str_n(at, len);
        at += len;
    }
}

static bool route_covers(const struct outbox_publisher_route *route, struct wb_str subject)
{
    for (size_t i = 0; i < route->count; i++)
        if (subject_matches(route->patterns[i], subject))
            return true;
    return false;
}

void outbox_publisher_route_set(struct outbox_publisher_lane *lane, const char *subjects)
{
    struct outbox_publisher *publisher = lane->publisher;

    if (lane->route.known && strcmp(lane->route.text, subjects) == 0)
        return;
    route_parse(&lane->route, subjects);
    pthread_mutex_lock(&publisher->mutex);
    route_parse(&publisher->reports[lane->index].route, subjects);
    pthread_mutex_unlock(&publisher->mutex);
}

static bool other_lane_named(const struct outbox_publisher_lane *lane, struct wb_str stream)
{
    for (size_t i = 0; i < lane->publisher->lane_count; i++)
        if (i != lane->index && wb_str_eq(stream, wb_str(lane->publisher->lanes[i]->stream)))
            return true;
    return false;
}

static bool other_lane_covers(const struct outbox_publisher_lane *lane, struct wb_str subject)
{
    struct outbox_publisher *publisher = lane->publisher;
    bool covers = false;

    pthread_mutex_lock(&publisher->mutex);
    for (size_t i = 0; i < publisher->lane_count && !covers; i++)
        covers = i != lane->index && route_covers(&publisher->reports[i].route, subject);
    pthread_mutex_unlock(&publisher->mutex);
    return covers;
}

outbox_publisher_owner outbox_publisher_route_of(struct outbox_publisher_lane *lane,
                                                 struct wb_str stream, struct wb_str subject)
{
    const bool first = lane->index == 0;
    const bool mine = wb_str_eq(stream, wb_str(lane->stream));

    if (stream.len > 0 && !mine)
        return first && !other_lane_named(lane, stream) ? OUTBOX_PUBLISHER_DOUBTFUL
                                                        : OUTBOX_PUBLISHER_OTHER;
    /* Nobody covers what is no subject: somebody has to set the row aside. */
    if (subject_check(subject, NULL) != WB_OK)
        return mine || first ? OUTBOX_PUBLISHER_MINE : OUTBOX_PUBLISHER_OTHER;
    if (route_covers(&lane->route, subject))
        return OUTBOX_PUBLISHER_MINE;
    if (mine)
        return OUTBOX_PUBLISHER_DOUBTFUL;
    return first && !other_lane_covers(lane, subject) ? OUTBOX_PUBLISHER_DOUBTFUL
                                                      : OUTBOX_PUBLISHER_OTHER;
}

wb_err outbox_publisher_route_ask(struct outbox_publisher_lane *lane, struct wb_str named,
                                  struct wb_str subject, outbox_publisher_asked *ret_asked,
                                  struct wb_why *why)
{
    const bool mine = wb_str_eq(named, wb_str(lane->stream));
    char stream[EVENT_BUS_NAME_MAX + 1];

    *ret_asked = OUTBOX_PUBLISHER_ASKED_STRANGER;
    if (named.len > 0 && !mine)
        return WB_OK;
    wb_err err = event_bus_stream_for(lane->publisher->bus, subject, stream, why);
    if (err == WB_OK && strcmp(stream, lane->stream) == 0)
        *ret_asked = OUTBOX_PUBLISHER_ASKED_MINE;
    else if (err == WB_OK && !mine && other_lane_named(lane, wb_str(stream)))
        *ret_asked = OUTBOX_PUBLISHER_ASKED_OTHER;
    else if (err == WB_NO_STREAM)
        *ret_asked = OUTBOX_PUBLISHER_ASKED_UNCOVERED;
    return err == WB_NO_STREAM ? WB_OK : err;
}

/* Not this lane's, and that is no fault of the row: try again for as long as it takes. */
static void keep_trying(struct outbox_publisher_lane *lane,
                        const struct outbox_publisher_item *item, const char *error)
{
    struct outbox_publisher_exception *one =
        outbox_publisher_exceptions_find(&lane->exceptions, item->row.id);
    unsigned attempts = one != NULL ? one->attempts : 0;
    int64_t wait_ns = WB_SEC + wb_backoff_ns(&lane->rng, attempts, WB_SEC, 30 * WB_SEC);

    if (outbox_publisher_exceptions_put(
            &lane->exceptions, item->row.id, item->key_hash, OUTBOX_EXCEPTION_RETRY,
            outbox_publisher_wall_ms(lane) + wait_ns / WB_MS, error) != WB_OK) {
        outbox_publisher_judge(lane, OUTBOX_PUBLISHER_WAITS, "out of memory");
        return;
    }
    outbox_publisher_exceptions_find(&lane->exceptions, item->row.id)->attempts = attempts + 1;
    outbox_publisher_exceptions_policy(&lane->exceptions, item->row.id,
                                       outbox_publisher_policy_of(lane, item->row.subject));
    outbox_publisher_unmarked(lane);
}

bool outbox_publisher_route_resolve(struct outbox_publisher_lane *lane,
                                    const struct outbox_publisher_item *item)
{
    const struct wb_str subject = item->row.subject, named = item->row.stream;
    const bool mine = wb_str_eq(named, wb_str(lane->stream));
    char stream[EVENT_BUS_NAME_MAX + 1];
    struct wb_why why = {.text = ""};
    wb_err err = event_bus_stream_for(lane->publisher->bus, subject, stream, &why);

    if (err != WB_OK && err != WB_NO_STREAM) {
        outbox_publisher_judge(lane, OUTBOX_PUBLISHER_WAITS, why.text);
        return false;
    }
    if (err == WB_OK && strcmp(stream, lane->stream) == 0 && (mine || named.len == 0))
        return true;
    if (err == WB_NO_STREAM) {
        (void)wb_fail(&why, err, "no stream covers subject '%.*s': declare one, or mend the row",
                      (int)subject.len, subject.ptr);
    } else if (mine) {
        (void)wb_fail(&why, err,
                      "the row names stream %s, but its subject '%.*s' belongs to stream %s",
                      lane->stream, (int)subject.len, subject.ptr, stream);
        outbox_publisher_refuse(lane, item->row.id, item->key_hash, false, why.text);
        return false;
    } else {
        (void)wb_fail(&why, err,
                      "the row belongs to stream %.*s, which this publisher does not write to",
                      named.len > 0 ? (int)named.len : EVENT_BUS_NAME_MAX,
                      named.len > 0 ? named.ptr : stream);
    }
    keep_trying(lane, item, why.text);
    return false;
}
