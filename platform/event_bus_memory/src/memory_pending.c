#include "memory.h"

#include <stdlib.h>

static struct memory_pending_entry **bucket(const struct memory_pending *pending, uint64_t sequence)
{
    return &pending->buckets[sequence & (pending->bucket_count - 1)];
}

static bool grow(struct memory_pending *pending)
{
    size_t count = pending->bucket_count > 0 ? 2 * pending->bucket_count : 16;
    struct memory_pending wider = {.bucket_count = count};

    wider.buckets = calloc(count, sizeof(struct memory_pending_entry *));
    if (wider.buckets == NULL)
        return false;
    for (size_t i = 0; i < pending->bucket_count; i++)
        while (pending->buckets[i] != NULL) {
            struct memory_pending_entry *entry = pending->buckets[i];
            struct memory_pending_entry **link = bucket(&wider, entry->sequence);
            pending->buckets[i] = entry->next;
            entry->next = *link;
            *link = entry;
        }
    free(pending->buckets);
    pending->buckets = wider.buckets;
    pending->bucket_count = count;
    return true;
}

bool event_bus_memory_pending_reserve(struct memory_pending *pending)
{
    if (!event_bus_memory_heap_reserve(&pending->waiting, pending->count + 1))
        return false;
    if (pending->count >= pending->bucket_count && !grow(pending))
        return false;
    if (pending->spare == NULL)
        pending->spare = calloc(1, sizeof(*pending->spare));
    return pending->spare != NULL;
}

struct memory_pending_entry *event_bus_memory_pending_find(const struct memory_pending *pending,
                                                           uint64_t sequence)
{
    struct memory_pending_entry *entry = pending->count > 0 ? *bucket(pending, sequence) : NULL;

    while (entry != NULL && entry->sequence != sequence)
        entry = entry->next;
    return entry;
}

struct memory_pending_entry *event_bus_memory_pending_add(struct memory_pending *pending,
                                                          uint64_t sequence)
{
    struct memory_pending_entry *entry = pending->spare;
    struct memory_pending_entry **link = bucket(pending, sequence);

    pending->spare = entry->next;
    *entry = (struct memory_pending_entry){
        .sequence = sequence, .due = {.tie = sequence}, .next = *link};
    *link = entry;
    pending->count++;
    return entry;
}

static void leave_ready(struct memory_pending *pending, struct memory_pending_entry *entry)
{
    if (!entry->ready)
        return;
    if (entry->ready_prev != NULL)
        entry->ready_prev->ready_next = entry->ready_next;
    else
        pending->ready_head = entry->ready_next;
    if (entry->ready_next != NULL)
        entry->ready_next->ready_prev = entry->ready_prev;
    else
        pending->ready_tail = entry->ready_prev;
    entry->ready_next = NULL;
    entry->ready_prev = NULL;
    entry->ready = false;
}

void event_bus_memory_pending_remove(struct memory_pending *pending,
                                     struct memory_pending_entry *entry)
{
    struct memory_pending_entry **link = bucket(pending, entry->sequence);

    leave_ready(pending, entry);
    event_bus_memory_heap_remove(&pending->waiting, &entry->due);
    while (*link != entry)
        link = &(*link)->next;
    *link = entry->next;
    entry->next = pending->spare;
    pending->spare = entry;
    pending->count--;
}

void event_bus_memory_pending_wait(struct memory_pending *pending,
                                   struct memory_pending_entry *entry, int64_t at_ns)
{
    leave_ready(pending, entry);
    event_bus_memory_heap_set(&pending->waiting, &entry->due, at_ns);
}

void event_bus_memory_pending_ready(struct memory_pending *pending,
                                    struct memory_pending_entry *entry)
{
    event_bus_memory_heap_remove(&pending->waiting, &entry->due);
    leave_ready(pending, entry);
    entry->ready_prev = pending->ready_tail;
    if (pending->ready_tail != NULL)
        pending->ready_tail->ready_next = entry;
    else
        pending->ready_head = entry;
    pending->ready_tail = entry;
    entry->ready = true;
}

/* What fell due together is ordered by a heap of sequences, as its time does not matter now. */
static void ready_in_order(struct memory_pending *pending, struct memory_heap *batch)
{
    struct memory_due *due;

    while ((due = event_bus_memory_heap_first(batch)) != NULL) {
        event_bus_memory_heap_remove(batch, due);
        event_bus_memory_pending_ready(pending, (struct memory_pending_entry *)due);
    }
    event_bus_memory_heap_free(batch);
}

void event_bus_memory_pending_expire(struct memory_pending *pending, int64_t now_ns)
{
    struct memory_heap batch = {0};
    struct memory_due *due;

    while ((due = event_bus_memory_heap_first(&pending->waiting)) != NULL && due->at_ns <= now_ns) {
        event_bus_memory_heap_remove(&pending->waiting, due);
        if (event_bus_memory_heap_reserve(&batch, batch.count + 1))
            event_bus_memory_heap_set(&batch, due, 0);
        else /* out of memory: at once, in the order of time */
            event_bus_memory_pending_ready(pending, (struct memory_pending_entry *)due);
    }
    ready_in_order(pending, &batch);
}

void event_bus_memory_pending_hand_back(struct memory_pending *pending,
                                        const struct memory_source *holder)
{
    struct memory_heap batch = {0};

    for (size_t i = 0; i < pending->bucket_count; i++)
        for (struct memory_pending_entry *e = pending->buckets[i]; e != NULL; e = e->next) {
            if (e->holder != holder)
                continue;
            e->holder = NULL;
            if (e->ready)
                continue;
            event_bus_memory_heap_remove(&pending->waiting, &e->due);
            if (event_bus_memory_heap_reserve(&batch, batch.count + 1))
                event_bus_memory_heap_set(&batch, &e->due, 0);
            else
                event_bus_memory_pending_ready(pending, e);
        }
    ready_in_order(pending, &batch);
}

void event_bus_memory_pending_truncate(struct memory_pending *pending, uint64_t last_seq)
{
    for (size_t i = 0; i < pending->bucket_count; i++) {
        struct memory_pending_entry *entry = pending->buckets[i];
        while (entry != NULL) {
            struct memory_pending_entry *next = entry->next;
            if (entry->sequence > last_seq)
                event_bus_memory_pending_remove(pending, entry);
            entry = next;
        }
    }
}

void event_bus_memory_pending_free(struct memory_pending *pending)
{
    event_bus_memory_pending_truncate(pending, 0);
    while (pending->spare != NULL) {
        struct memory_pending_entry *entry = pending->spare;
        pending->spare = entry->next;
        free(entry);
    }
    free(pending->buckets);
    event_bus_memory_heap_free(&pending->waiting);
    *pending = (struct memory_pending){0};
}
