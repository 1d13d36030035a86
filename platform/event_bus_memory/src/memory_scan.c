/* Reading a range of a stream, some at a time: no visitor runs under the lock. */
#include "memory.h"

/* Messages taken out of the lock at a time. */
#define SLICE 256

struct slice {
    struct memory_message *stored[SLICE]; /* with a reference each */
    size_t count;
    uint64_t next; /* the sequence behind what was looked at */
};

static wb_err gather(struct memory_bus *bus, const char *name, uint64_t from, uint64_t to,
                     struct slice *slice, struct wb_why *why)
{
    slice->count = 0;
    slice->next = from;
    pthread_mutex_lock(&bus->mutex);
    wb_err err = event_bus_memory_usable(bus, "scan", why);
    struct memory_stream *stream = err == WB_OK ? event_bus_memory_stream_named(bus, name) : NULL;
    if (err == WB_OK && stream == NULL)
        err = wb_fail(why, WB_NO_STREAM, "scan: there is no stream '%s'", name);
    if (stream != NULL) {
        event_bus_memory_stream_trim(bus, stream);
        if (slice->next < stream->log.first_seq)
            slice->next = stream->log.first_seq;
        to = to < stream->log.last_seq ? to : stream->log.last_seq;
    }
    for (; stream != NULL && slice->next <= to && slice->count < SLICE; slice->next++) {
        struct memory_message *stored = event_bus_memory_log_held(&stream->log, slice->next);
        if (stored == NULL)
            continue;
        atomic_fetch_add(&stored->references, 1);
        slice->stored[slice->count++] = stored;
    }
    pthread_mutex_unlock(&bus->mutex);
    return err;
}

/* Releases the slice; false: the visitor wants no more. */
static bool show(struct slice *slice, event_bus_scan_visit visit, void *ctx, uint64_t *ret_next)
{
    bool go_on = true;

    for (size_t i = 0; i < slice->count; i++) {
        struct memory_message *stored = slice->stored[i];
        struct event_bus_delivery view = {.message = *stored->message,
                                          .stream = stored->stream,
                                          .sequence = stored->sequence,
                                          .stored_wall_ns = stored->stored_wall_ns};
        view.message.payload = (struct wb_bytes){NULL, 0};
        if (go_on) {
            *ret_next = stored->sequence + 1;
            go_on = visit(ctx, &view);
        }
        event_bus_memory_message_unref(stored);
    }
    return go_on;
}

wb_err event_bus_memory_scan(struct event_bus *base, const char *stream, uint64_t from, uint64_t to,
                             event_bus_scan_visit visit, void *ctx, uint64_t *ret_next,
                             struct wb_why *why)
{
    struct slice slice;

    *ret_next = from;
    while (*ret_next <= to) {
        wb_err err = gather(memory_bus_of(base), stream, *ret_next, to, &slice, why);
        if (err != WB_OK)
            return err;
        if (!show(&slice, visit, ctx, ret_next))
            return WB_OK;
        if (slice.count < SLICE) /* that was all: the rest of the range is empty */
            slice.next = to + 1;
        *ret_next = slice.next;
    }
    return WB_OK;
}
