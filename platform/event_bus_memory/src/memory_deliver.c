#include "memory.h"

#include <stdlib.h>

/* Messages delivered, or looked at, before the mutex is let go. */
#define SLICE 256

/* How soon to try again when memory was out. */
#define RETRY_NS (50 * WB_MS)

/* ---- one delivery ---------------------------------------------------------------------------- */

static void delivery_free(struct event_bus_delivery_impl *impl)
{
    struct memory_delivery *delivery = (struct memory_delivery *)impl;

    event_bus_memory_message_unref(delivery->stored);
    free(delivery);
}

struct memory_delivery *event_bus_memory_delivery_new(struct memory_message *stored,
                                                      uint64_t stream_id, uint32_t deliveries)
{
    struct memory_delivery *delivery = malloc(sizeof(*delivery));

    if (delivery == NULL)
        return NULL;
    event_bus_delivery_init(&delivery->impl);
    delivery->impl.view = (struct event_bus_delivery){.message = *stored->message,
                                                      .stream = stored->stream,
                                                      .sequence = stored->sequence,
                                                      .deliveries = deliveries,
                                                      .stored_wall_ns = stored->stored_wall_ns};
    delivery->impl.destroy = delivery_free;
    delivery->stored = stored;
    delivery->stream_id = stream_id;
    atomic_fetch_add(&stored->references, 1);
    return delivery;
}

/* Members take turns: the one who was given a message goes to the end of the line. */
static void end_turn(struct memory_group *group, struct memory_source *member)
{
    struct memory_source **link = &group->members;

    if (member->next == NULL)
        return;
    while (*link != member)
        link = &(*link)->next;
    *link = member->next;
    while (*link != NULL)
        link = &(*link)->next;
    *link = member;
    member->next = NULL;
}

/* Offer to the first member with room. NULL: all are full, or memory is out. */
static struct memory_source *offer(struct memory_bus *bus, struct memory_consumer *consumer,
                                   struct memory_message *stored, uint32_t deliveries)
{
    struct memory_delivery *delivery =
        event_bus_memory_delivery_new(stored, consumer->stream->id, deliveries);

    if (delivery == NULL) {
        event_bus_memory_arm(bus, &consumer->timer, memory_now(bus) + RETRY_NS);
        return NULL;
    }
    for (struct memory_source *m = consumer->group->members; m != NULL; m = m->next)
        if (!m->stopped && event_bus_offer(m->subscription, &delivery->impl)) {
            end_turn(consumer->group, m);
            return m;
        }
    delivery_free(&delivery->impl);
    return NULL;
}

/* ---- what comes next ------------------------------------------------------------------------- */

enum outcome {
    DELIVERED, /* or skipped: go on */
    BLOCKED,   /* until somebody settles, has room, or comes */
    CAUGHT_UP
};

static void wait_for_ack(struct memory_bus *bus, struct memory_consumer *consumer,
                         struct memory_pending_entry *entry, const struct memory_source *holder)
{
    int64_t due = memory_now(bus) + consumer->group->ack_wait_ns;

    entry->holder = holder;
    entry->deliveries++;
    event_bus_memory_pending_wait(&consumer->pending, entry, due);
    event_bus_memory_arm(bus, &consumer->timer, due);
}

static enum outcome redeliver(struct memory_bus *bus, struct memory_consumer *consumer)
{
    struct memory_pending_entry *entry = consumer->pending.ready_head;
    struct memory_message *stored =
        event_bus_memory_log_held(&consumer->stream->log, entry->sequence);

    if (stored == NULL) { /* gone by the limits of the stream, or deleted */
        event_bus_memory_pending_remove(&consumer->pending, entry);
        return DELIVERED;
    }
    const struct memory_source *holder = offer(bus, consumer, stored, entry->deliveries + 1);
    if (holder == NULL)
        return BLOCKED;
    wait_for_ack(bus, consumer, entry, holder);
    return DELIVERED;
}

static enum outcome deliver(struct memory_bus *bus, struct memory_consumer *consumer,
                            struct memory_message *stored)
{
    struct memory_pending *pending = &consumer->pending;

    if (consumer->group->ack_none)
        return offer(bus, consumer, stored, 1) != NULL ? DELIVERED : BLOCKED;
    if (pending->count >= consumer->group->max_ack_pending)
        return BLOCKED;
    if (!event_bus_memory_pending_reserve(pending)) {
        event_bus_memory_arm(bus, &consumer->timer, memory_now(bus) + RETRY_NS);
        return BLOCKED;
    }
    const struct memory_source *holder = offer(bus, consumer, stored, 1);
    if (holder == NULL)
        return BLOCKED;
    wait_for_ack(bus, consumer, event_bus_memory_pending_add(pending, stored->sequence), holder);
    return DELIVERED;
}

static bool wanted(const struct memory_consumer *consumer, struct wb_str subject)
{
    for (size_t i = 0; i < consumer->group->pattern_count; i++)
        if (subject_matches(wb_str(consumer->group->patterns[i]), subject))
            return true;
    return false;
}

static enum outcome deliver_head(struct memory_bus *bus, struct memory_consumer *consumer)
{
    struct memory_message *stored =
        event_bus_memory_log_held(&consumer->stream->log, consumer->heads[consumer->head_at]);

    enum outcome outcome = stored != NULL ? deliver(bus, consumer, stored) : DELIVERED;
    if (outcome == DELIVERED)
        consumer->head_at++;
    return outcome;
}

static enum outcome deliver_next(struct memory_bus *bus, struct memory_consumer *consumer)
{
    const struct memory_log *log = &consumer->stream->log;

    if (consumer->head_at < consumer->head_count)
        return deliver_head(bus, consumer);
    if (consumer->next_seq < log->first_seq)
        consumer->next_seq = log->first_seq;
    struct memory_message *stored = event_bus_memory_log_at(log, consumer->next_seq);
    if (stored == NULL)
        return CAUGHT_UP;
    enum outcome outcome = DELIVERED;
    if (!stored->deleted && wanted(consumer, stored->message->subject))
        outcome = deliver(bus, consumer, stored);
    if (outcome == DELIVERED)
        consumer->next_seq++;
    return outcome;
}

/* true: the slice ended before the work did. */
static bool deliver_slice(struct memory_bus *bus, struct memory_consumer *consumer)
{
    enum outcome outcome = DELIVERED;

    if (bus->down || !consumer->positioned || consumer->group->members == NULL)
        return false;
    for (int n = 0; n < SLICE && outcome == DELIVERED; n++)
        outcome = consumer->pending.ready_head != NULL ? redeliver(bus, consumer)
                                                       : deliver_next(bus, consumer);
    consumer->caught_up = outcome == CAUGHT_UP;
    return outcome == DELIVERED;
}

/* ---- the line of consumers with work --------------------------------------------------------- */

void event_bus_memory_run_later(struct memory_bus *bus, struct memory_consumer *consumer)
{
    if (consumer->runnable)
        return;
    consumer->runnable = true;
    consumer->run_next = NULL;
    if (bus->run_last != NULL)
        bus->run_last->run_next = consumer;
    else
        bus->run_first = consumer;
    bus->run_last = consumer;
}

void event_bus_memory_run(struct memory_bus *bus)
{
    while (bus->run_first != NULL) {
        struct memory_consumer *consumer = bus->run_first;
        bus->run_first = consumer->run_next;
        if (bus->run_first == NULL)
            bus->run_last = NULL;
        consumer->runnable = false;
        if (deliver_slice(bus, consumer)) {
            event_bus_memory_run_later(bus, consumer);
            pthread_mutex_unlock(&bus->mutex); /* let publishers pass */
            pthread_mutex_lock(&bus->mutex);
        }
    }
}

void event_bus_memory_consumer_due(struct memory_bus *bus, struct memory_consumer *consumer)
{
    event_bus_memory_pending_expire(&consumer->pending, memory_now(bus));

    const struct memory_due *next = event_bus_memory_heap_first(&consumer->pending.waiting);
    if (next != NULL)
        event_bus_memory_arm(bus, &consumer->timer, next->at_ns);
    event_bus_memory_run_later(bus, consumer);
}

/* ---- a message just stored ------------------------------------------------------------------- */

static void collect(void *ctx, void *value)
{
    struct memory_bus *bus = ctx;

    bus->matches[bus->match_count++] = value; /* attaching has made room for all */
}

static int by_id(const void *a, const void *b)
{
    const struct memory_consumer *x = *(struct memory_consumer *const *)a;
    const struct memory_consumer *y = *(struct memory_consumer *const *)b;

    return (x->id > y->id) - (x->id < y->id);
}

static void deliver_to(struct memory_bus *bus, struct memory_consumer *consumer,
                       struct memory_message *stored)
{
    /* Behind: it will find the message by itself. Ahead: it has it, or starts later. */
    if (!consumer->caught_up || consumer->next_seq > stored->sequence)
        return;
    consumer->next_seq = stored->sequence;
    if (consumer->pending.ready_head == NULL && !bus->down &&
        deliver(bus, consumer, stored) == DELIVERED) {
        consumer->next_seq++;
        return;
    }
    consumer->caught_up = false;
}

void event_bus_memory_deliver_new(struct memory_bus *bus, struct memory_stream *stream,
                                  struct memory_message *stored)
{
    bus->match_count = 0;
    subject_index_match(stream->consumers, stored->message->subject, collect, bus);
    if (bus->manual &&
        bus->match_count > 1) /* the index promises no order, a repeatable run does */
        qsort(bus->matches, bus->match_count, sizeof(struct memory_consumer *), by_id);
    for (size_t i = 0; i < bus->match_count; i++)
        deliver_to(bus, bus->matches[i], stored);
}
