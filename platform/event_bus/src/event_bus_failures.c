#include "event_bus_private.h"

#include <stdlib.h>

/* The bound of the table: above any sum of max_ack_pending that makes sense. Messages beyond it are
 * delivered as usual; only their failures are not counted. */
#define SLOTS_FIRST ((size_t)64)
#define SLOTS_MAX   ((size_t)1 << 18)

static uint64_t stream_key(const struct event_bus_delivery *delivery)
{
    return wb_hash(delivery->stream.ptr, delivery->stream.len);
}

/* Neighbouring sequences go to different slots (the multiplier is 2^64 divided by the golden
 * ratio). */
static size_t home(uint64_t stream, uint64_t sequence, size_t capacity)
{
    uint64_t h = (stream ^ sequence) * UINT64_C(0x9e3779b97f4a7c15);

    return (size_t)(h >> 32) & (capacity - 1);
}

static struct event_bus_failure *slot_for(struct event_bus_failures *table, uint64_t stream,
                                          uint64_t sequence)
{
    size_t at = home(stream, sequence, table->capacity);

    while (table->slots[at].used &&
           (table->slots[at].sequence != sequence || table->slots[at].stream != stream))
        at = (at + 1) & (table->capacity - 1);
    return &table->slots[at];
}

struct event_bus_failure *event_bus_failures_find(struct event_bus_failures *table,
                                                  const struct event_bus_delivery *delivery)
{
    if (table->count == 0)
        return NULL;

    struct event_bus_failure *slot = slot_for(table, stream_key(delivery), delivery->sequence);
    return slot->used ? slot : NULL;
}

static bool stale(const struct event_bus_failure *slot, int64_t now_ns)
{
    return slot->place != EVENT_BUS_QUEUED && slot->keep_until_ns < now_ns;
}

/* Move the live entries into a table of the given capacity; stale ones are left behind. */
static bool rebuild(struct event_bus_failures *table, size_t capacity, int64_t now_ns)
{
    struct event_bus_failures fresh = {.capacity = capacity, .swept_ns = table->swept_ns};

    fresh.slots = calloc(capacity, sizeof(*fresh.slots));
    if (fresh.slots == NULL)
        return false;
    for (size_t i = 0; i < table->capacity; i++) {
        const struct event_bus_failure *old = &table->slots[i];
        if (!old->used || stale(old, now_ns))
            continue;
        *slot_for(&fresh, old->stream, old->sequence) = *old;
        fresh.count++;
        fresh.handed += old->place == EVENT_BUS_HANDED;
    }
    free(table->slots);
    *table = fresh;
    return true;
}

/* It does not grow any more: sweep, but not for every message, as that reads the whole table. */
static bool make_room_at_bound(struct event_bus_failures *table, int64_t now_ns)
{
    const size_t limit = SLOTS_MAX / 4 * 3;

    if (table->count >= limit && now_ns - table->swept_ns >= WB_SEC) {
        (void)rebuild(table, SLOTS_MAX, now_ns);
        table->swept_ns = now_ns;
    }
    return table->count < limit;
}

/* Keep at least half of the slots free, so that probes stay short. */
static bool make_room(struct event_bus_failures *table, int64_t now_ns)
{
    if (table->count < table->capacity / 2)
        return true;
    if (table->capacity == SLOTS_MAX)
        return make_room_at_bound(table, now_ns);

    size_t live = 0;
    for (size_t i = 0; i < table->capacity; i++)
        live += table->slots[i].used && !stale(&table->slots[i], now_ns);

    size_t capacity = table->capacity > 0 ? table->capacity : SLOTS_FIRST;
    while (live >= capacity / 4 && capacity < SLOTS_MAX)
        capacity *= 2;
    return rebuild(table, capacity, now_ns);
}

struct event_bus_failure *event_bus_failures_add(struct event_bus_failures *table,
                                                 const struct event_bus_delivery *delivery,
                                                 int64_t now_ns)
{
    struct event_bus_failure *slot = event_bus_failures_find(table, delivery);

    if (slot != NULL)
        return slot;
    if (!make_room(table, now_ns))
        return NULL;
    slot = slot_for(table, stream_key(delivery), delivery->sequence);
    *slot = (struct event_bus_failure){.stream = stream_key(delivery),
                                       .sequence = delivery->sequence,
                                       .place = EVENT_BUS_QUEUED,
                                       .used = true};
    table->count++;
    return slot;
}

void event_bus_failures_place(struct event_bus_failures *table, struct event_bus_failure *entry,
                              enum event_bus_place place)
{
    table->handed -= entry->place == EVENT_BUS_HANDED;
    table->handed += place == EVENT_BUS_HANDED;
    entry->place = (uint8_t)place;
}

/* Close the gap: entries behind it that could not have their home slot move up. */
void event_bus_failures_remove(struct event_bus_failures *table, struct event_bus_failure *entry)
{
    size_t mask = table->capacity - 1;
    size_t gap = (size_t)(entry - table->slots);

    table->handed -= entry->place == EVENT_BUS_HANDED;
    table->count--;
    for (size_t at = (gap + 1) & mask; table->slots[at].used; at = (at + 1) & mask) {
        size_t wanted = home(table->slots[at].stream, table->slots[at].sequence, table->capacity);
        if (((at - wanted) & mask) >= ((at - gap) & mask)) {
            table->slots[gap] = table->slots[at];
            gap = at;
        }
    }
    table->slots[gap].used = false;
}
