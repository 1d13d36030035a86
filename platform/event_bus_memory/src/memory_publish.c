#include "memory.h"

#include <stdlib.h>
#include <string.h>

/* An answer that waits for its turn, because another thread is giving answers. */
struct memory_completion {
    struct memory_completion *next;
    event_bus_published done;
    void *ctx;
    wb_err err;
    struct event_bus_ack_info ack;
    struct wb_why why;
};

static void set_ack(struct event_bus_ack_info *ack, const struct memory_stream *stream,
                    uint64_t sequence, bool duplicate)
{
    memcpy(ack->stream, stream->name, sizeof(ack->stream));
    ack->sequence = sequence;
    ack->duplicate = duplicate;
}

static wb_err no_stream(const struct message *msg, struct wb_why *why)
{
    return wb_fail(why, WB_NO_STREAM,
                   "publish '%.*s': no stream covers the subject; declare one that does",
                   (int)msg->subject.len, msg->subject.ptr);
}

/* ---- what the stream says -------------------------------------------------------------------- */

static wb_err check_room(const struct memory_stream *stream, const struct memory_message *stored,
                         struct wb_why *why)
{
    const struct event_bus_stream_options *o = &stream->options;
    uint64_t count = stream->log.last_seq + 1 - stream->log.first_seq - stream->deleted;

    if (stored->size > o->max_bytes)
        return wb_fail(why, WB_TOO_BIG, "stream '%s': %zu bytes, the whole stream may hold %llu",
                       stream->name, stored->size, (unsigned long long)o->max_bytes);
    if (o->discard_old)
        return WB_OK;
    if (o->max_messages > 0 && count >= o->max_messages)
        return wb_fail(why, WB_FULL, "stream '%s' is full: %llu messages; raise max_messages",
                       stream->name, (unsigned long long)o->max_messages);
    if (stream->bytes + stored->size > o->max_bytes)
        return wb_fail(why, WB_FULL, "stream '%s' is full: max_bytes is %llu; raise it",
                       stream->name, (unsigned long long)o->max_bytes);
    return WB_OK;
}

static wb_err check_size(const struct memory_stream *stream, const struct message *msg,
                         struct wb_why *why)
{
    size_t size = message_header_bytes(msg) + msg->payload.len;

    if (stream->options.max_message_size > 0 && size > stream->options.max_message_size)
        return wb_fail(why, WB_TOO_BIG, "stream '%s': message of %zu bytes, max_message_size is %u",
                       stream->name, size, stream->options.max_message_size);
    return WB_OK;
}

static wb_err store(struct memory_bus *bus, struct memory_stream *stream, const struct message *msg,
                    struct event_bus_ack_info *ack, struct wb_why *why)
{
    int64_t now = memory_now(bus);
    struct memory_message *stored = event_bus_memory_message_new(msg, stream->name);

    if (stored == NULL)
        return wb_fail(why, WB_NOMEM, "publish: out of memory");
    wb_err err = check_room(stream, stored, why);
    if (err == WB_OK && !event_bus_memory_ids_reserve(&stream->ids, now))
        err = wb_fail(why, WB_NOMEM, "publish: out of memory");
    if (err == WB_OK) {
        stored->sequence = stream->log.last_seq + 1;
        stored->stored_mono_ns = now;
        stored->stored_wall_ns = wb_wall_ns(bus->base.settings.clock);
        if (!event_bus_memory_log_push(&stream->log, stored))
            err = wb_fail(why, WB_NOMEM, "publish: out of memory");
    }
    if (err != WB_OK) {
        event_bus_memory_message_unref(stored);
        return err;
    }
    stream->bytes += stored->size;
    if (msg->msg_id.len > 0)
        event_bus_memory_ids_add(&stream->ids, msg->msg_id, stored->sequence,
                                 now + stream->options.duplicate_window_ns);
    set_ack(ack, stream, stored->sequence, false);
    event_bus_memory_deliver_new(bus, stream, stored);
    event_bus_memory_stream_trim(bus, stream);
    return WB_OK;
}

/* Is the newest message the one that was expected? */
static bool newest_is(const struct memory_stream *stream, const char *msg_id)
{
    const struct memory_message *newest =
        event_bus_memory_log_at(&stream->log, stream->log.last_seq);

    return msg_id[0] == '\0' ||
           (newest != NULL && wb_str_eq(newest->message->msg_id, wb_str(msg_id)));
}

/* The expectation is looked at before the id: a conflict is told even for a known id. */
static wb_err accept(struct memory_bus *bus, struct memory_stream *stream,
                     const struct message *msg, const struct event_bus_publish_options *options,
                     struct event_bus_ack_info *ack, struct wb_why *why)
{
    uint64_t last = stream->log.last_seq;

    event_bus_memory_stream_trim(bus, stream);
    if (options->expect_last_seq && options->last_seq != last) {
        set_ack(ack, stream, last, false);
        return wb_fail(why, WB_CONFLICT, "stream '%s': expected last sequence %llu, it is %llu",
                       stream->name, (unsigned long long)options->last_seq,
                       (unsigned long long)last);
    }
    if (!newest_is(stream, options->last_msg_id)) {
        set_ack(ack, stream, last, false);
        return wb_fail(why, WB_CONFLICT, "stream '%s': the newest message is not %s", stream->name,
                       options->last_msg_id);
    }
    wb_err err = check_size(stream, msg, why);
    if (err != WB_OK)
        return err;
    uint64_t known = event_bus_memory_ids_find(&stream->ids, msg->msg_id, memory_now(bus));
    if (known != 0) {
        set_ack(ack, stream, known, true);
        return WB_OK;
    }
    return store(bus, stream, msg, ack, why);
}

/* ---- answers in order ------------------------------------------------------------------------ */

/* Somebody else is giving answers: queue behind. The mutex is held. false: out of memory. */
static bool queue_completion(struct memory_bus *bus, const struct memory_completion *one)
{
    struct memory_completion *copy = malloc(sizeof(*copy));

    if (copy == NULL)
        return false;
    *copy = *one;
    if (bus->completion_last != NULL)
        bus->completion_last->next = copy;
    else
        bus->completion_first = copy;
    bus->completion_last = copy;
    return true;
}

static struct memory_completion *take_completion(struct memory_bus *bus)
{
    struct memory_completion *one = bus->completion_first;

    if (one != NULL) {
        bus->completion_first = one->next;
        if (bus->completion_first == NULL)
            bus->completion_last = NULL;
    }
    return one;
}

/* Answer this one, then those that were queued meanwhile. The mutex is held, but released around
 * each. One thread at a time does this, so answers come in the order of the stream. */
static void complete(struct memory_bus *bus, struct memory_completion *one)
{
    struct memory_completion *next = one;

    bus->completing = true;
    while (next != NULL) {
        pthread_mutex_unlock(&bus->mutex);
        next->done(next->ctx, next->err, &next->ack, &next->why);
        if (next != one)
            free(next);
        pthread_mutex_lock(&bus->mutex);
        next = take_completion(bus);
    }
    bus->completing = false;
    pthread_cond_broadcast(&bus->idle);
}

wb_err event_bus_memory_publish(struct event_bus *base, const struct message *msg,
                                const struct event_bus_publish_options *options,
                                event_bus_published done, void *ctx, struct wb_why *why)
{
    struct memory_bus *bus = memory_bus_of(base);
    struct memory_completion one = {.done = done, .ctx = ctx};
    struct memory_stream *stream = NULL;

    pthread_mutex_lock(&bus->mutex);
    wb_err err = event_bus_memory_usable(bus, "publish", why);
    if (err == WB_OK) {
        stream = event_bus_memory_stream_of(bus, msg->subject);
        if (stream == NULL)
            err = no_stream(msg, why);
    }
    if (stream != NULL) {
        one.err = accept(bus, stream, msg, options, &one.ack, &one.why);
        event_bus_memory_run(bus);
        if (!bus->completing)
            complete(bus, &one);
        else if (!queue_completion(bus, &one))
            err = wb_fail(why, WB_UNKNOWN, "publish: out of memory for the answer");
    }
    pthread_mutex_unlock(&bus->mutex);
    return err;
}
