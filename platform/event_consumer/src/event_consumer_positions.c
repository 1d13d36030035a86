#include "event_consumer_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { STREAMS_MAX = 4096 };

wb_err event_consumer_positions_open(struct consumer_positions *positions, struct event_bus *bus,
                                     const char *path, const char *consumer, struct wb_why *why)
{
    const struct db_options reading = {.read_only = true};
    struct db *db = NULL;
    wb_err err = db_open(path, &reading, &db, why);

    if (err == WB_OK)
        err = inbox_attach(db_handle(db), consumer, &positions->inbox, why);
    if (err != WB_OK) {
        db_close(db);
        return err;
    }
    positions->db = db;
    positions->bus = bus;
    return WB_OK;
}

void event_consumer_positions_close(struct consumer_positions *positions)
{
    inbox_detach(positions->inbox);
    db_close(positions->db);
    free(positions->streams);
    positions->inbox = NULL;
    positions->db = NULL;
    positions->streams = NULL;
    positions->count = positions->capacity = 0;
}

static struct consumer_stream *stream_find(struct consumer_positions *positions,
                                           struct wb_str stream)
{
    for (size_t i = 0; i < positions->count; i++)
        if (wb_str_eq(wb_str(positions->streams[i].name), stream))
            return &positions->streams[i];
    return NULL;
}

/* NULL when out of memory, or when there are more streams than anybody has. */
static struct consumer_stream *stream_add(struct consumer_positions *positions)
{
    if (positions->count == positions->capacity) {
        size_t capacity = positions->capacity > 0 ? 2 * positions->capacity : 8;
        if (capacity > STREAMS_MAX)
            return NULL;
        struct consumer_stream *streams = realloc(positions->streams, capacity * sizeof(*streams));
        if (streams == NULL)
            return NULL;
        positions->streams = streams;
        positions->capacity = capacity;
    }
    return &positions->streams[positions->count++];
}

/* A stream that could not be noted goes by created 0: it is read from its start another time. */
static void stream_note(struct consumer_positions *positions, const char *stream,
                        int64_t created_wall_ns)
{
    struct consumer_stream *known = stream_find(positions, wb_str(stream));

    if (known != NULL) {
        if (known->created_wall_ns != created_wall_ns)
            known->earlier_wall_ns = known->created_wall_ns;
        known->created_wall_ns = created_wall_ns;
        return;
    }
    struct consumer_stream *added = stream_add(positions);
    size_t len = strlen(stream);
    if (added == NULL || len >= sizeof(added->name)) {
        wb_log(WB_LOG_WARN, "event_consumer", "position in stream %s cannot be kept", stream);
        if (added != NULL)
            positions->count--;
        return;
    }
    memcpy(added->name, stream, len + 1);
    added->created_wall_ns = added->earlier_wall_ns = created_wall_ns;
}

/* ---- is it still the stream that was read? --------------------------------------------------- */

/* Without the mutex while it waits for the bus. */
static wb_err holds(struct consumer_positions *positions, const struct event_bus_stream_info *info,
                    const struct inbox_point *point, bool *ret_holds, struct wb_why *why)
{
    struct event_bus_delivery *found = NULL;

    *ret_holds = point->sequence < info->first_seq; /* all that is there lies behind it */
    if (point->sequence < info->first_seq || point->sequence > info->last_seq)
        return WB_OK;
    wb_err err = event_bus_get(positions->bus, info->name, point->sequence, &found, why);
    if (err != WB_OK)
        return err == WB_NOT_FOUND ? WB_OK : err;
    const struct inbox_origin origin = {.stream = wb_str(info->name),
                                        .sequence = found->sequence,
                                        .stored_wall_ns = found->stored_wall_ns,
                                        .stream_created_wall_ns = info->created_wall_ns};
    pthread_mutex_lock(&positions->mutex);
    err = inbox_point_holds(positions->inbox, point, &found->message, &origin, ret_holds, why);
    pthread_mutex_unlock(&positions->mutex);
    event_bus_release(found);
    return err;
}

static void went_back(struct consumer_positions *positions, const char *stream, uint64_t from,
                      uint64_t to)
{
    wb_log(WB_LOG_WARN, "event_consumer",
           "stream %s does not hold what was read at sequence %llu: it has lost messages; reading "
           "on behind %llu, where it last agreed",
           stream, (unsigned long long)from, (unsigned long long)to);
    pthread_mutex_lock(&positions->mutex);
    positions->went_back++;
    pthread_mutex_unlock(&positions->mutex);
}

/* The highest point that still holds; 0: none does. */
static wb_err choose(struct consumer_positions *positions, const char *stream,
                     const struct inbox_point *points, size_t count, uint64_t *ret_sequence,
                     struct wb_why *why)
{
    struct event_bus_stream_info info;
    uint64_t sequence = 0;
    bool found = false;

    if (count == 0) {
        *ret_sequence = 0;
        return WB_OK;
    }
    wb_err err = event_bus_stream_info(positions->bus, stream, &info, why);
    for (size_t i = 0; err == WB_OK && !found && i < count; i++) {
        err = holds(positions, &info, &points[i], &found, why);
        sequence = found ? points[i].sequence : 0;
    }
    if (err != WB_OK)
        return err;
    if (sequence != points[0].sequence)
        went_back(positions, stream, points[0].sequence, sequence);
    *ret_sequence = sequence;
    return WB_OK;
}

uint64_t event_consumer_positions_ask(struct consumer_positions *positions, const char *stream,
                                      int64_t created_wall_ns)
{
    struct inbox_point points[INBOX_POINTS_MAX];
    uint64_t sequence = 0;
    size_t count = 0;
    struct wb_why why;

    pthread_mutex_lock(&positions->mutex);
    stream_note(positions, stream, created_wall_ns);
    wb_err err = inbox_points(positions->inbox, stream, created_wall_ns, points, &count, &why);
    pthread_mutex_unlock(&positions->mutex);
    /* From the start is always right, if slow: what was handled is known. */
    if (err != WB_OK) {
        wb_log(WB_LOG_WARN, "event_consumer", "reading %s from its start: %s", stream, why.text);
        return 0;
    }
    err = choose(positions, stream, points, count, &sequence, &why);
    if (err == WB_OK)
        return sequence;
    wb_log(WB_LOG_WARN, "event_consumer", "position in stream %s: %s", stream, why.text);
    return EVENT_BUS_POSITION_LATER;
}

int64_t event_consumer_positions_created(struct consumer_positions *positions,
                                         const struct event_bus_delivery *delivery)
{
    int64_t created = 0;

    pthread_mutex_lock(&positions->mutex);
    const struct consumer_stream *known = stream_find(positions, delivery->stream);
    /*
     * Messages of an earlier incarnation may still be in the queue when the bus tells of a new one.
     * Their sequences must not count as positions in the new one, or it would be skipped so far.
     */
    if (known != NULL)
        created = delivery->stored_wall_ns >= known->created_wall_ns ? known->created_wall_ns
                                                                     : known->earlier_wall_ns;
    pthread_mutex_unlock(&positions->mutex);
    return created;
}
