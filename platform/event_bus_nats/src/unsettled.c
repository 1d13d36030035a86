#include "unsettled.h"

#include <stdlib.h>
#include <string.h>

/* Index, from first, of the entry with seq or of the one it would stand before. */
static size_t find(const struct nats_unsettled *set, uint64_t seq)
{
    size_t low = 0;
    size_t high = set->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (set->entries[set->first + middle].seq < seq)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool make_room(struct nats_unsettled *set)
{
    if (set->first + set->count < set->capacity)
        return true;
    if (set->first > set->capacity / 2) {
        memmove(set->entries, set->entries + set->first, set->count * sizeof(*set->entries));
        set->first = 0;
        return true;
    }
    size_t capacity = set->capacity > 0 ? 2 * set->capacity : 64;
    struct nats_unsettled_entry *entries = calloc(capacity, sizeof(*entries));
    if (entries == NULL)
        return false;
    if (set->count > 0)
        memcpy(entries, set->entries + set->first, set->count * sizeof(*entries));
    free(set->entries);
    set->entries = entries;
    set->first = 0;
    set->capacity = capacity;
    return true;
}

bool event_bus_nats_unsettled_add(struct nats_unsettled *set,
                                  const struct nats_unsettled_entry *entry)
{
    size_t at = find(set, entry->seq);

    if (at < set->count && set->entries[set->first + at].seq == entry->seq) {
        set->entries[set->first + at] = *entry;
        return true;
    }
    if (!make_room(set))
        return false;
    struct nats_unsettled_entry *slot = set->entries + set->first + at;
    memmove(slot + 1, slot, (set->count - at) * sizeof(*slot));
    *slot = *entry;
    set->count++;
    return true;
}

void event_bus_nats_unsettled_remove(struct nats_unsettled *set, uint64_t seq)
{
    size_t at = find(set, seq);

    if (at == set->count || set->entries[set->first + at].seq != seq)
        return;
    set->entries[set->first + at].settled = true;
    while (set->count > 0 && set->entries[set->first].settled) {
        set->first++;
        set->count--;
    }
}

const struct nats_unsettled_entry *event_bus_nats_unsettled_lowest(const struct nats_unsettled *set)
{
    return set->count > 0 ? &set->entries[set->first] : NULL;
}

const struct nats_unsettled_entry *event_bus_nats_unsettled_at(const struct nats_unsettled *set,
                                                               size_t index)
{
    const struct nats_unsettled_entry *entry = &set->entries[set->first + index];

    return entry->settled ? NULL : entry;
}

void event_bus_nats_unsettled_clear(struct nats_unsettled *set)
{
    free(set->entries);
    *set = (struct nats_unsettled){0};
}
