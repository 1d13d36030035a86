#include "memory.h"

#include <stdlib.h>
#include <string.h>

/* ---- finding --------------------------------------------------------------------------------- */

struct memory_stream *event_bus_memory_stream_named(struct memory_bus *bus, const char *name)
{
    struct memory_stream *stream = bus->streams;

    while (stream != NULL && strcmp(stream->name, name) != 0)
        stream = stream->next;
    return stream;
}

static void keep(void *ctx, void *value)
{
    *(struct memory_stream **)ctx = value;
}

struct memory_stream *event_bus_memory_stream_of(struct memory_bus *bus, struct wb_str subject)
{
    struct memory_stream *found = NULL;

    subject_index_match(bus->stream_index, subject, keep, &found);
    return found;
}

static wb_err no_stream(const char *what, const char *name, struct wb_why *why)
{
    return wb_fail(why, WB_NO_STREAM, "%s: there is no stream '%s'; declare it first", what, name);
}

/* ---- limits ---------------------------------------------------------------------------------- */

/* It was taken out of the log. */
static void forget(struct memory_stream *stream, struct memory_message *stored)
{
    stream->bytes -= stored->size;
    stream->deleted -= stored->deleted;
    event_bus_memory_message_unref(stored);
}

static void drop_oldest(struct memory_stream *stream)
{
    forget(stream, event_bus_memory_log_shift(&stream->log));
}

static uint64_t stored_count(const struct memory_stream *stream)
{
    return stream->log.last_seq + 1 - stream->log.first_seq - stream->deleted;
}

static bool beyond_limits(const struct memory_stream *stream)
{
    const struct event_bus_stream_options *o = &stream->options;

    return o->discard_old && ((o->max_messages > 0 && stored_count(stream) > o->max_messages) ||
                              stream->bytes > o->max_bytes);
}

void event_bus_memory_stream_trim(struct memory_bus *bus, struct memory_stream *stream)
{
    const struct memory_message *oldest;
    int64_t now = memory_now(bus);

    while (beyond_limits(stream))
        drop_oldest(stream);
    while ((oldest = event_bus_memory_log_at(&stream->log, stream->log.first_seq)) != NULL) {
        if (now - oldest->stored_mono_ns < stream->options.max_age_ns) {
            event_bus_memory_arm(bus, &stream->timer,
                                 oldest->stored_mono_ns + stream->options.max_age_ns);
            return;
        }
        drop_oldest(stream);
    }
}

void event_bus_memory_stream_truncate(struct memory_bus *bus, struct memory_stream *stream,
                                      uint64_t last_seq)
{
    struct memory_message *stored;

    event_bus_memory_stream_trim(bus, stream);
    while (stream->log.last_seq > last_seq &&
           (stored = event_bus_memory_log_pop(&stream->log)) != NULL) {
        forget(stream, stored);
    }
    if (stream->log.last_seq > last_seq) { /* empty: even what limits had removed is undone */
        stream->log.last_seq = last_seq;
        stream->log.first_seq = last_seq + 1;
    }
    event_bus_memory_ids_keep(&stream->ids, stream->log.first_seq, stream->log.last_seq);
}

bool event_bus_memory_stream_remove(struct memory_stream *stream, uint64_t sequence)
{
    struct memory_message *stored = event_bus_memory_log_held(&stream->log, sequence);

    if (stored == NULL)
        return false;
    stored->deleted = true;
    stream->deleted++;
    stream->bytes -= stored->size;
    stored->size = 0;
    while ((stored = event_bus_memory_log_at(&stream->log, stream->log.first_seq)) != NULL &&
           stored->deleted)
        drop_oldest(stream);
    return true;
}

/* ---- declaring ------------------------------------------------------------------------------- */

static void free_subjects(struct event_bus_stream_options *options)
{
    for (size_t i = 0; i < options->subject_count; i++) {
        union {
            const char *constant;
            char *ours;
        } subject = {options->subjects[i]};
        free(subject.ours);
    }
    union {
        const char *const *constant;
        void *ours;
    } subjects = {options->subjects};
    free(subjects.ours);
    options->subjects = NULL;
    options->subject_count = 0;
}

static bool copy_options(const struct event_bus_stream_options *from,
                         struct event_bus_stream_options *ret_copy)
{
    const char **subjects = calloc(from->subject_count, sizeof(*subjects));

    if (subjects == NULL)
        return false;
    *ret_copy = *from;
    ret_copy->subjects = subjects;
    ret_copy->subject_count = 0;
    for (; ret_copy->subject_count < from->subject_count; ret_copy->subject_count++) {
        subjects[ret_copy->subject_count] =
            wb_str_dup(wb_str(from->subjects[ret_copy->subject_count]));
        if (subjects[ret_copy->subject_count] == NULL) {
            free_subjects(ret_copy);
            return false;
        }
    }
    return true;
}

static wb_err check_overlap(const struct memory_bus *bus, const struct memory_stream *self,
                            const struct event_bus_stream_options *options, struct wb_why *why)
{
    for (const struct memory_stream *s = bus->streams; s != NULL; s = s->next)
        for (size_t i = 0; s != self && i < s->options.subject_count; i++)
            for (size_t j = 0; j < options->subject_count; j++)
                if (subject_overlap(wb_str(s->options.subjects[i]), wb_str(options->subjects[j])))
                    return wb_fail(why, WB_CONFLICT,
                                   "declare stream '%s': subject '%s' overlaps '%s' of stream "
                                   "'%s'; each subject belongs to one stream",
                                   options->name, options->subjects[j], s->options.subjects[i],
                                   s->name);
    return WB_OK;
}

static void unindex(struct memory_bus *bus, struct memory_stream *stream)
{
    for (size_t i = 0; i < stream->options.subject_count; i++)
        (void)subject_index_remove(bus->stream_index, wb_str(stream->options.subjects[i]), stream);
}

static wb_err index_subjects(struct memory_bus *bus, struct memory_stream *stream)
{
    for (size_t i = 0; i < stream->options.subject_count; i++)
        if (subject_index_add(bus->stream_index, wb_str(stream->options.subjects[i]), stream) !=
            WB_OK)
            return WB_NOMEM;
    return WB_OK;
}

void event_bus_memory_stream_free(struct memory_bus *bus, struct memory_stream *stream)
{
    unindex(bus, stream);
    event_bus_memory_heap_remove(&bus->timers, &stream->timer.due);
    subject_index_destroy(stream->consumers);
    event_bus_memory_log_free(&stream->log);
    event_bus_memory_ids_free(&stream->ids);
    free_subjects(&stream->options);
    free(stream);
    bus->timer_room--;
}

static struct memory_stream *stream_new(struct memory_bus *bus,
                                        const struct event_bus_stream_options *options)
{
    if (!event_bus_memory_heap_reserve(&bus->timers, bus->timer_room + 1))
        return NULL;

    struct memory_stream *stream = calloc(1, sizeof(*stream));
    if (stream == NULL)
        return NULL;
    bus->timer_room++;
    memcpy(stream->name, options->name, strlen(options->name) + 1);
    stream->id = ++bus->next_id;
    stream->timer.kind = MEMORY_TIMER_STREAM;
    stream->timer.due.tie = stream->id;
    stream->created_wall_ns = wb_wall_ns(bus->base.settings.clock);
    stream->log.first_seq = 1;
    if (!copy_options(options, &stream->options) ||
        subject_index_create(&stream->consumers) != WB_OK || index_subjects(bus, stream) != WB_OK) {
        event_bus_memory_stream_free(bus, stream);
        return NULL;
    }
    stream->options.name = stream->name;
    return stream;
}

static wb_err create(struct memory_bus *bus, const struct event_bus_stream_options *options,
                     struct wb_why *why)
{
    wb_err err = check_overlap(bus, NULL, options, why);

    if (err != WB_OK)
        return err;
    struct memory_stream *stream = stream_new(bus, options);
    if (stream == NULL)
        return wb_fail(why, WB_NOMEM, "declare stream '%s': out of memory", options->name);
    stream->next = bus->streams;
    bus->streams = stream;
    return event_bus_memory_attach_stream(bus, stream);
}

/* ---- drift ----------------------------------------------------------------------------------- */

static bool has_subject(const struct event_bus_stream_options *o, const char *subject)
{
    for (size_t i = 0; i < o->subject_count; i++)
        if (strcmp(o->subjects[i], subject) == 0)
            return true;
    return false;
}

static void diff_subjects(const struct event_bus_stream_options *is,
                          const struct event_bus_stream_options *wanted, struct wb_buf *out)
{
    for (size_t i = 0; i < is->subject_count; i++)
        if (!has_subject(wanted, is->subjects[i]))
            wb_buf_printf(out, " subject '%s' is not declared;", is->subjects[i]);
    for (size_t i = 0; i < wanted->subject_count; i++)
        if (!has_subject(is, wanted->subjects[i]))
            wb_buf_printf(out, " subject '%s' is missing;", wanted->subjects[i]);
}

static void diff_number(const char *what, int64_t is, int64_t wanted, struct wb_buf *out)
{
    if (is != wanted)
        wb_buf_printf(out, " %s is %lld, declared %lld;", what, (long long)is, (long long)wanted);
}

/* Every difference, in words; empty when there is none. */
static void diff(const struct event_bus_stream_options *is,
                 const struct event_bus_stream_options *wanted, struct wb_buf *out)
{
    diff_subjects(is, wanted, out);
    diff_number("max_age ns", is->max_age_ns, wanted->max_age_ns, out);
    diff_number("duplicate_window ns", is->duplicate_window_ns, wanted->duplicate_window_ns, out);
    diff_number("max_bytes", (int64_t)is->max_bytes, (int64_t)wanted->max_bytes, out);
    diff_number("max_messages", (int64_t)is->max_messages, (int64_t)wanted->max_messages, out);
    diff_number("max_message_size", is->max_message_size, wanted->max_message_size, out);
    diff_number("discard_old", is->discard_old, wanted->discard_old, out);
    diff_number("replicas", is->replicas, wanted->replicas, out);
}

static wb_err apply(struct memory_bus *bus, struct memory_stream *stream,
                    const struct event_bus_stream_options *options, struct wb_why *why)
{
    struct event_bus_stream_options copy;
    wb_err err = check_overlap(bus, stream, options, why);

    if (err != WB_OK)
        return err;
    if (!copy_options(options, &copy))
        return wb_fail(why, WB_NOMEM, "update stream '%s': out of memory", options->name);
    unindex(bus, stream);
    free_subjects(&stream->options);
    stream->options = copy;
    stream->options.name = stream->name;
    if (index_subjects(bus, stream) != WB_OK)
        return wb_fail(why, WB_NOMEM, "update stream '%s': out of memory", options->name);
    event_bus_memory_stream_trim(bus, stream);
    return event_bus_memory_attach_stream(bus, stream);
}

static wb_err reconcile(struct memory_bus *bus, struct memory_stream *stream,
                        const struct event_bus_stream_options *options, event_bus_provision mode,
                        struct wb_why *why)
{
    struct wb_buf text = {0};
    wb_err err = WB_OK;

    diff(&stream->options, options, &text);
    if (text.len > 0 && mode == EVENT_BUS_APPLY)
        err = apply(bus, stream, options, why);
    else if (text.len > 0)
        err = wb_fail(why, WB_CONFLICT, "stream '%s' is not as declared:%s apply to change it",
                      stream->name, text.ptr);
    wb_buf_free(&text);
    return err;
}

wb_err event_bus_memory_declare(struct event_bus *base,
                                const struct event_bus_stream_options *options,
                                event_bus_provision mode, struct wb_why *why)
{
    struct memory_bus *bus = memory_bus_of(base);

    pthread_mutex_lock(&bus->mutex);
    wb_err err = event_bus_memory_usable(bus, "declare stream", why);
    if (err == WB_OK) {
        struct memory_stream *stream = event_bus_memory_stream_named(bus, options->name);
        if (stream != NULL)
            err = reconcile(bus, stream, options, mode, why);
        else if (mode == EVENT_BUS_VERIFY)
            err = no_stream("verify", options->name, why);
        else
            err = create(bus, options, why);
    }
    event_bus_memory_ask_positions(bus);
    event_bus_memory_run(bus);
    pthread_mutex_unlock(&bus->mutex);
    return err;
}

/* ---- asking and deleting --------------------------------------------------------------------- */

static void fill_subjects(const struct memory_stream *stream, struct event_bus_stream_info *info)
{
    size_t len = 0;

    for (size_t i = 0; i < stream->options.subject_count; i++) {
        size_t n = strlen(stream->options.subjects[i]);
        if (i > 0)
            info->subjects[len++] = ' ';
        memcpy(info->subjects + len, stream->options.subjects[i], n);
        len += n;
    }
    info->subjects[len] = '\0';
}

wb_err event_bus_memory_stream_info(struct event_bus *base, const char *name,
                                    struct event_bus_stream_info *ret_info, struct wb_why *why)
{
    struct memory_bus *bus = memory_bus_of(base);

    pthread_mutex_lock(&bus->mutex);
    wb_err err = event_bus_memory_usable(bus, "stream info", why);
    struct memory_stream *stream = err == WB_OK ? event_bus_memory_stream_named(bus, name) : NULL;
    if (stream != NULL) {
        event_bus_memory_stream_trim(bus, stream);
        *ret_info = (struct event_bus_stream_info){.created_wall_ns = stream->created_wall_ns,
                                                   .first_seq = stream->log.first_seq,
                                                   .last_seq = stream->log.last_seq,
                                                   .messages = stored_count(stream),
                                                   .bytes = stream->bytes,
                                                   .duplicate_window_ns =
                                                       stream->options.duplicate_window_ns};
        memcpy(ret_info->name, stream->name, sizeof(stream->name));
        fill_subjects(stream, ret_info);
    } else if (err == WB_OK) {
        err = no_stream("stream info", name, why);
    }
    pthread_mutex_unlock(&bus->mutex);
    return err;
}

wb_err event_bus_memory_stream_for(struct event_bus *base, struct wb_str subject,
                                   char ret_stream[EVENT_BUS_NAME_MAX + 1], struct wb_why *why)
{
    struct memory_bus *bus = memory_bus_of(base);

    pthread_mutex_lock(&bus->mutex);
    wb_err err = event_bus_memory_usable(bus, "stream for a subject", why);
    const struct memory_stream *stream =
        err == WB_OK ? event_bus_memory_stream_of(bus, subject) : NULL;
    if (stream != NULL)
        memcpy(ret_stream, stream->name, sizeof(stream->name));
    else if (err == WB_OK)
        err = wb_fail(why, WB_NO_STREAM, "no stream covers '%.*s'; declare one that does",
                      (int)subject.len, subject.ptr);
    pthread_mutex_unlock(&bus->mutex);
    return err;
}

static void unlink_stream(struct memory_bus *bus, const struct memory_stream *stream)
{
    struct memory_stream **link = &bus->streams;

    while (*link != stream)
        link = &(*link)->next;
    *link = stream->next;
}

wb_err event_bus_memory_delete_stream(struct event_bus *base, const char *name, struct wb_why *why)
{
    struct memory_bus *bus = memory_bus_of(base);

    pthread_mutex_lock(&bus->mutex);
    wb_err err = event_bus_memory_usable(bus, "delete stream", why);
    struct memory_stream *stream = err == WB_OK ? event_bus_memory_stream_named(bus, name) : NULL;
    if (stream != NULL) {
        unlink_stream(bus, stream); /* first: nobody finds it while its consumers are waited for */
        event_bus_memory_detach_stream(bus, stream);
        event_bus_memory_stream_free(bus, stream);
    } else if (err == WB_OK) {
        err = no_stream("delete stream", name, why);
    }
    pthread_mutex_unlock(&bus->mutex);
    return err;
}
