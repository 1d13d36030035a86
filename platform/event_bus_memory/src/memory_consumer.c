#include "memory.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* ---- consumers ------------------------------------------------------------------------------- */

static void leave_run_list(struct memory_bus *bus, const struct memory_consumer *consumer)
{
    struct memory_consumer *previous = NULL;

    if (!consumer->runnable)
        return;
    for (struct memory_consumer *c = bus->run_first; c != consumer; c = c->run_next)
        previous = c;
    if (previous != NULL)
        previous->run_next = consumer->run_next;
    else
        bus->run_first = consumer->run_next;
    if (bus->run_last == consumer)
        bus->run_last = previous;
}

static void consumer_free(struct memory_bus *bus, struct memory_consumer *consumer)
{
    for (size_t i = 0; i < consumer->group->pattern_count; i++)
        (void)subject_index_remove(consumer->stream->consumers,
                                   wb_str(consumer->group->patterns[i]), consumer);
    leave_run_list(bus, consumer);
    event_bus_memory_heap_remove(&bus->timers, &consumer->timer.due);
    bus->timer_room--;
    event_bus_memory_pending_free(&consumer->pending);
    free(consumer->heads);
    free(consumer);
}

/* Room for a message that all consumers of a stream want. */
static bool reserve_matches(struct memory_bus *bus, size_t count)
{
    if (count <= bus->match_capacity)
        return true;

    struct memory_consumer **matches =
        realloc(bus->matches, 2 * count * sizeof(struct memory_consumer *));
    if (matches == NULL)
        return false;
    bus->matches = matches;
    bus->match_capacity = 2 * count;
    return true;
}

static wb_err index_consumer(struct memory_bus *bus, struct memory_consumer *consumer)
{
    const struct memory_group *group = consumer->group;
    struct subject_index *index = consumer->stream->consumers;

    if (!reserve_matches(bus, subject_index_size(index) + group->pattern_count))
        return WB_NOMEM;
    for (size_t i = 0; i < group->pattern_count; i++)
        if (subject_index_add(index, wb_str(group->patterns[i]), consumer) != WB_OK)
            return WB_NOMEM;
    return WB_OK;
}

static wb_err consumer_add(struct memory_bus *bus, struct memory_group *group,
                           struct memory_stream *stream)
{
    if (!event_bus_memory_heap_reserve(&bus->timers, bus->timer_room + 1))
        return WB_NOMEM;

    struct memory_consumer *consumer = calloc(1, sizeof(*consumer));
    if (consumer == NULL)
        return WB_NOMEM;
    bus->timer_room++;
    consumer->id = ++bus->next_id;
    consumer->timer.kind = MEMORY_TIMER_CONSUMER;
    consumer->timer.due.tie = consumer->id;
    consumer->group = group;
    consumer->stream = stream;
    wb_err err = event_bus_memory_set_start(consumer);
    if (err == WB_OK)
        err = index_consumer(bus, consumer);
    if (err != WB_OK) {
        consumer_free(bus, consumer);
        return err;
    }
    consumer->next = group->consumers;
    group->consumers = consumer;
    event_bus_memory_run_later(bus, consumer);
    return WB_OK;
}

static bool reaches(const struct memory_group *group, const struct memory_stream *stream)
{
    for (size_t i = 0; i < group->pattern_count; i++)
        for (size_t j = 0; j < stream->options.subject_count; j++)
            if (subject_overlap(wb_str(group->patterns[i]), wb_str(stream->options.subjects[j])))
                return true;
    return false;
}

static struct memory_consumer *consumer_of(const struct memory_group *group, uint64_t stream_id)
{
    struct memory_consumer *consumer = group->consumers;

    while (consumer != NULL && consumer->stream->id != stream_id)
        consumer = consumer->next;
    return consumer;
}

wb_err event_bus_memory_attach_stream(struct memory_bus *bus, struct memory_stream *stream)
{
    for (struct memory_group *group = bus->groups; group != NULL; group = group->next)
        if (reaches(group, stream) && consumer_of(group, stream->id) == NULL) {
            wb_err err = consumer_add(bus, group, stream);
            if (err != WB_OK)
                return err;
        }
    return WB_OK;
}

static void wait_for_positions(struct memory_bus *bus, const struct memory_group *group)
{
    while (group->positioning > 0)
        pthread_cond_wait(&bus->idle, &bus->mutex);
}

void event_bus_memory_detach_stream(struct memory_bus *bus, struct memory_stream *stream)
{
    for (struct memory_group *group = bus->groups; group != NULL; group = group->next) {
        wait_for_positions(bus, group);
        struct memory_consumer **link = &group->consumers;
        while (*link != NULL && (*link)->stream != stream)
            link = &(*link)->next;
        struct memory_consumer *consumer = *link;
        if (consumer != NULL) {
            *link = consumer->next;
            consumer_free(bus, consumer);
        }
    }
}

/* ---- groups ---------------------------------------------------------------------------------- */

static void group_free_memory(struct memory_group *group)
{
    for (size_t i = 0; i < group->pattern_count; i++)
        free(group->patterns[i]);
    free(group->patterns);
    free(group->queue_group);
    free(group->durable);
    free(group);
}

void event_bus_memory_group_free(struct memory_bus *bus, struct memory_group *group)
{
    struct memory_group **link = &bus->groups;

    wait_for_positions(bus, group);
    while (group->consumers != NULL) {
        struct memory_consumer *consumer = group->consumers;
        group->consumers = consumer->next;
        consumer_free(bus, consumer);
    }
    while (*link != group)
        link = &(*link)->next;
    *link = group->next;
    group_free_memory(group);
}

static bool copy_patterns(struct memory_group *group,
                          const struct event_bus_subscription_options *o)
{
    group->patterns = calloc(o->pattern_count, sizeof(*group->patterns));
    if (group->patterns == NULL)
        return false;
    for (; group->pattern_count < o->pattern_count; group->pattern_count++) {
        char *pattern = wb_str_dup(wb_str(o->patterns[group->pattern_count]));
        if (pattern == NULL)
            return false;
        group->patterns[group->pattern_count] = pattern;
    }
    return true;
}

static struct memory_group *group_new(const struct event_bus_subscription_options *o)
{
    struct memory_group *group = calloc(1, sizeof(*group));

    if (group == NULL)
        return NULL;
    group->start = o->start;
    group->start_sequence = o->start_sequence;
    group->start_wall_ns = o->start_wall_ns;
    group->ack_none = o->ack_none;
    if (o->durable != NULL)
        group->durable = wb_str_dup(wb_str(o->durable));
    if ((o->durable != NULL && group->durable == NULL) || !copy_patterns(group, o)) {
        group_free_memory(group);
        return NULL;
    }
    return group;
}

/* At the end of the list, so that consumers of a later stream are made in order of age. */
static void group_append(struct memory_bus *bus, struct memory_group *group)
{
    struct memory_group **link = &bus->groups;

    while (*link != NULL)
        link = &(*link)->next;
    *link = group;
}

static struct memory_group *group_named(struct memory_bus *bus, const char *durable)
{
    struct memory_group *group = bus->groups;

    while (group != NULL && (group->durable == NULL || strcmp(group->durable, durable) != 0))
        group = group->next;
    return group;
}

static bool has_pattern(const struct memory_group *group, const char *pattern)
{
    for (size_t i = 0; i < group->pattern_count; i++)
        if (strcmp(group->patterns[i], pattern) == 0)
            return true;
    return false;
}

static bool names_pattern(const struct event_bus_subscription_options *o, const char *pattern)
{
    for (size_t i = 0; i < o->pattern_count; i++)
        if (strcmp(o->patterns[i], pattern) == 0)
            return true;
    return false;
}

static bool same_patterns(const struct memory_group *group,
                          const struct event_bus_subscription_options *o)
{
    bool same = true;

    for (size_t i = 0; i < o->pattern_count; i++)
        same = same && has_pattern(group, o->patterns[i]);
    for (size_t i = 0; i < group->pattern_count; i++)
        same = same && names_pattern(o, group->patterns[i]);
    return same;
}

static wb_err check_joining(const struct memory_group *group,
                            const struct event_bus_subscription_options *o, struct wb_why *why)
{
    if (!same_patterns(group, o))
        return wb_fail(why, WB_CONFLICT,
                       "durable '%s' exists with other patterns; delete it or name another",
                       o->durable);
    if (group->members == NULL)
        return WB_OK;
    if (o->queue_group == NULL || group->queue_group == NULL ||
        strcmp(o->queue_group, group->queue_group) != 0)
        return wb_fail(why, WB_CONFLICT,
                       "durable '%s' is bound already; members that share it name the same queue "
                       "group",
                       o->durable);
    return WB_OK;
}

/* The newest member's settings hold for all. */
static wb_err take_settings(struct memory_group *group,
                            const struct event_bus_subscription_options *o)
{
    char *queue_group = NULL;

    if (o->queue_group != NULL) {
        queue_group = wb_str_dup(wb_str(o->queue_group));
        if (queue_group == NULL)
            return WB_NOMEM;
    }
    free(group->queue_group);
    group->queue_group = queue_group;
    group->ack_wait_ns = o->ack_wait_ns;
    group->max_ack_pending = o->max_ack_pending;
    return WB_OK;
}

static bool reaches_any(const struct memory_bus *bus, const struct memory_group *group)
{
    for (const struct memory_stream *s = bus->streams; s != NULL; s = s->next)
        if (reaches(group, s))
            return true;
    return false;
}

static wb_err group_make(struct memory_bus *bus, const struct event_bus_subscription_options *o,
                         struct memory_group **ret_group, struct wb_why *why)
{
    struct memory_group *group = group_new(o);
    wb_err err = WB_OK;

    if (group == NULL)
        return wb_fail(why, WB_NOMEM, "subscribe: out of memory");
    if (!o->wait_for_stream && !reaches_any(bus, group)) {
        group_free_memory(group);
        return wb_fail(why, WB_NO_STREAM,
                       "subscribe to '%s': no stream has such subjects; declare one, or wait for "
                       "it with wait_for_stream",
                       o->patterns[0]);
    }
    group_append(bus, group);
    for (struct memory_stream *s = bus->streams; s != NULL && err == WB_OK; s = s->next)
        if (reaches(group, s))
            err = consumer_add(bus, group, s);
    if (err != WB_OK) {
        event_bus_memory_group_free(bus, group);
        return wb_fail(why, err, "subscribe: out of memory");
    }
    *ret_group = group;
    return WB_OK;
}

/* ---- position functions ---------------------------------------------------------------------- */

static struct memory_consumer *next_to_ask(struct memory_bus *bus)
{
    for (struct memory_group *group = bus->groups; group != NULL; group = group->next)
        for (struct memory_consumer *c = group->consumers; c != NULL; c = c->next)
            if (!c->positioned && !c->asking && !c->deferred && group->members != NULL)
                return c;
    return NULL;
}

/* A position beyond the end belongs to messages that were lost: what comes now is new. */
static void set_position(struct memory_consumer *consumer, uint64_t position)
{
    uint64_t last = consumer->stream->log.last_seq;

    consumer->deferred = position == EVENT_BUS_POSITION_LATER;
    if (consumer->deferred)
        return;
    consumer->next_seq = (position < last ? position : last) + 1;
    consumer->positioned = true;
}

void event_bus_memory_ask_positions(struct memory_bus *bus)
{
    struct memory_consumer *c;

    while ((c = next_to_ask(bus)) != NULL) {
        const struct event_bus_subscription_options *o =
            event_bus_subscription_options_of(c->group->members->subscription);
        char stream[EVENT_BUS_NAME_MAX + 1];
        int64_t created = c->stream->created_wall_ns;

        memcpy(stream, c->stream->name, sizeof(stream));
        c->asking = true;
        c->group->positioning++;
        pthread_mutex_unlock(&bus->mutex);
        uint64_t position = o->position(o->ctx, stream, created);
        pthread_mutex_lock(&bus->mutex);
        c->group->positioning--;
        c->asking = false;
        set_position(c, position);
        event_bus_memory_run_later(bus, c);
        pthread_cond_broadcast(&bus->idle);
    }
}

/* ---- operations ------------------------------------------------------------------------------ */

static void run_group(struct memory_bus *bus, const struct memory_group *group)
{
    for (struct memory_consumer *c = group->consumers; c != NULL; c = c->next)
        event_bus_memory_run_later(bus, c);
}

static wb_err join(struct memory_bus *bus, struct event_bus_subscription *subscription,
                   struct memory_source *source, struct wb_why *why)
{
    const struct event_bus_subscription_options *o =
        event_bus_subscription_options_of(subscription);
    struct memory_group *group = o->durable != NULL ? group_named(bus, o->durable) : NULL;
    wb_err err = group != NULL ? check_joining(group, o, why) : group_make(bus, o, &group, why);

    if (err != WB_OK)
        return err;
    assert(group != NULL);
    if (take_settings(group, o) != WB_OK) {
        if (group->durable == NULL)
            event_bus_memory_group_free(bus, group);
        return wb_fail(why, WB_NOMEM, "subscribe: out of memory");
    }
    *source = (struct memory_source){
        .next = group->members, .group = group, .subscription = subscription};
    group->members = source;
    run_group(bus, group);
    return WB_OK;
}

wb_err event_bus_memory_start(struct event_bus *base, struct event_bus_subscription *subscription,
                              void **ret_source, struct wb_why *why)
{
    struct memory_bus *bus = memory_bus_of(base);
    struct memory_source *source = calloc(1, sizeof(*source));

    if (source == NULL)
        return wb_fail(why, WB_NOMEM, "subscribe: out of memory");
    pthread_mutex_lock(&bus->mutex);
    wb_err err = event_bus_memory_usable(bus, "subscribe", why);
    if (err == WB_OK)
        err = join(bus, subscription, source, why);
    if (err == WB_OK) {
        event_bus_memory_ask_positions(bus);
        event_bus_memory_run(bus);
    }
    pthread_mutex_unlock(&bus->mutex);
    if (err == WB_OK)
        *ret_source = source;
    else
        free(source);
    return err;
}

static void leave(struct memory_bus *bus, struct memory_source *source)
{
    struct memory_group *group = source->group;
    struct memory_source **link = &group->members;

    while (*link != source)
        link = &(*link)->next;
    *link = source->next;
    if (group->durable == NULL) {
        event_bus_memory_group_free(bus, group);
        return;
    }
    for (struct memory_consumer *c = group->consumers; c != NULL; c = c->next)
        event_bus_memory_pending_hand_back(&c->pending, source);
    run_group(bus, group);
    event_bus_memory_run(bus);
}

void event_bus_memory_stop(struct event_bus *base, void *source, bool keep_settling)
{
    struct memory_bus *bus = memory_bus_of(base);
    struct memory_source *self = source;

    pthread_mutex_lock(&bus->mutex);
    self->stopped = true;
    wait_for_positions(bus, self->group);
    if (!keep_settling)
        leave(bus, self);
    pthread_mutex_unlock(&bus->mutex);
    if (!keep_settling)
        free(self);
}

void event_bus_memory_resume(struct event_bus *base, void *source)
{
    struct memory_bus *bus = memory_bus_of(base);

    pthread_mutex_lock(&bus->mutex);
    run_group(bus, ((struct memory_source *)source)->group);
    event_bus_memory_run(bus);
    pthread_mutex_unlock(&bus->mutex);
}

size_t event_bus_memory_source_streams(struct event_bus *base, void *source)
{
    struct memory_bus *bus = memory_bus_of(base);
    size_t count = 0;

    pthread_mutex_lock(&bus->mutex);
    for (struct memory_consumer *c = ((struct memory_source *)source)->group->consumers; c != NULL;
         c = c->next)
        count++;
    pthread_mutex_unlock(&bus->mutex);
    return count;
}

static void wait_again(struct memory_bus *bus, struct memory_consumer *consumer,
                       struct memory_pending_entry *entry, int64_t at_ns)
{
    event_bus_memory_pending_wait(&consumer->pending, entry, at_ns);
    event_bus_memory_arm(bus, &consumer->timer, at_ns);
}

static void settle_entry(struct memory_bus *bus, struct memory_consumer *consumer,
                         struct memory_pending_entry *entry, event_bus_verdict verdict,
                         int64_t delay_ns)
{
    int64_t now = memory_now(bus);

    switch (verdict) {
    case EVENT_BUS_ACK:
    case EVENT_BUS_TERM:
        event_bus_memory_pending_remove(&consumer->pending, entry);
        break;
    case EVENT_BUS_NAK:
        entry->holder = NULL;
        if (delay_ns > 0)
            wait_again(bus, consumer, entry,
                       delay_ns < INT64_MAX - now ? now + delay_ns : INT64_MAX);
        else if (!entry->ready)
            event_bus_memory_pending_ready(&consumer->pending, entry);
        break;
    case EVENT_BUS_IN_PROGRESS:
        if (!entry->ready)
            wait_again(bus, consumer, entry, now + consumer->group->ack_wait_ns);
        break;
    }
}

/* An entry that is gone was settled through another copy, or went with its stream. */
wb_err event_bus_memory_settle(struct event_bus *base, void *source,
                               struct event_bus_delivery_impl *delivery, event_bus_verdict verdict,
                               int64_t delay_ns)
{
    struct memory_bus *bus = memory_bus_of(base);
    struct memory_group *group = ((struct memory_source *)source)->group;
    uint64_t stream_id = ((struct memory_delivery *)delivery)->stream_id;

    pthread_mutex_lock(&bus->mutex);
    wb_err err = event_bus_memory_usable(bus, "settle", NULL);
    struct memory_consumer *consumer = err == WB_OK ? consumer_of(group, stream_id) : NULL;
    struct memory_pending_entry *entry = NULL;
    if (consumer != NULL)
        entry = event_bus_memory_pending_find(&consumer->pending, delivery->view.sequence);
    if (entry != NULL) {
        settle_entry(bus, consumer, entry, verdict, delay_ns);
        if (!consumer->caught_up || consumer->pending.ready_head != NULL)
            event_bus_memory_run_later(bus, consumer);
        event_bus_memory_run(bus);
    }
    pthread_mutex_unlock(&bus->mutex);
    return err;
}

wb_err event_bus_memory_delete_durable(struct event_bus *base, const char *durable,
                                       struct wb_why *why)
{
    struct memory_bus *bus = memory_bus_of(base);

    pthread_mutex_lock(&bus->mutex);
    wb_err err = event_bus_memory_usable(bus, "delete durable", why);
    struct memory_group *group = err == WB_OK ? group_named(bus, durable) : NULL;
    if (group != NULL && group->members != NULL)
        err = wb_fail(why, WB_CONFLICT, "durable '%s' is bound; unsubscribe first", durable);
    else if (group != NULL)
        event_bus_memory_group_free(bus, group);
    else if (err == WB_OK)
        err = wb_fail(why, WB_NOT_FOUND, "there is no durable '%s'", durable);
    pthread_mutex_unlock(&bus->mutex);
    return err;
}
