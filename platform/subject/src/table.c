/* table.c - numbered slots with open addressing. */
#include "table.h"

#include <stdlib.h>
#include <string.h>

#define SLOTS_MIN 16
#define SLOTS_MAX ((size_t)1 << 31) /* ids and hashes have 32 bits */

static struct subject_slot *slots_alloc(size_t count)
{
    struct subject_slot *slots = aligned_alloc(64, count * sizeof(*slots)); /* a cache line */
    if (slots != NULL)
        memset(slots, 0, count * sizeof(*slots));
    return slots;
}

bool subject_table_init(struct subject_table *table)
{
    *table = (struct subject_table){.slots = slots_alloc(SLOTS_MIN), .mask = SLOTS_MIN - 1};
    return table->slots != NULL;
}

void subject_table_free(struct subject_table *table)
{
    free(table->slots);
    free(table->free_ids);
}

static struct subject_slot *free_slot(const struct subject_table *table, uint32_t hash)
{
    struct subject_slot *slot = subject_table_first(table, hash);
    while (slot->id != 0)
        slot = subject_table_next(table, slot);
    return slot;
}

static bool resize(struct subject_table *table, size_t count)
{
    struct subject_slot *old = table->slots;
    size_t old_mask = table->mask;
    struct subject_slot *slots = count > SLOTS_MAX ? NULL : slots_alloc(count);

    if (slots == NULL)
        return false;
    table->slots = slots;
    table->mask = count - 1;
    for (size_t i = 0; i <= old_mask; i++)
        if (old[i].id != 0)
            *free_slot(table, old[i].hash) = old[i];
    free(old);
    return true;
}

/* Giving an id back must not fail, so its place is made before it is handed out. */
static bool reserve_id(struct subject_table *table)
{
    if (table->free_count > 0 || table->last_id < table->free_capacity)
        return true;
    size_t capacity = table->free_capacity == 0 ? SLOTS_MIN : 2 * table->free_capacity;
    uint32_t *ids = realloc(table->free_ids, capacity * sizeof(*ids));
    if (ids == NULL)
        return false;
    table->free_ids = ids;
    table->free_capacity = capacity;
    return true;
}

struct subject_slot *subject_table_insert(struct subject_table *table, uint32_t hash)
{
    if (!reserve_id(table))
        return NULL;
    if ((table->count + 1) * 4 > (table->mask + 1) * 3 && !resize(table, 2 * (table->mask + 1)))
        return NULL;
    struct subject_slot *slot = free_slot(table, hash);
    slot->id = table->free_count > 0 ? table->free_ids[--table->free_count] : ++table->last_id;
    slot->hash = hash;
    table->count++;
    return slot;
}

/* Move back the slots behind a gap that are not at their first choice, until a free one. */
static void close_gap(struct subject_table *table, struct subject_slot *gap)
{
    struct subject_slot *slot = subject_table_next(table, gap);

    for (; slot->id != 0; slot = subject_table_next(table, slot)) {
        size_t first = slot->hash & table->mask;
        size_t at = (size_t)(slot - table->slots);
        size_t gap_at = (size_t)(gap - table->slots);
        if (((at - first) & table->mask) < ((at - gap_at) & table->mask))
            continue; /* the gap lies before its first choice */
        *gap = *slot;
        gap = slot;
    }
    memset(gap, 0, sizeof(*gap));
}

void subject_table_erase(struct subject_table *table, struct subject_slot *slot)
{
    table->free_ids[table->free_count++] = slot->id;
    table->count--;
    close_gap(table, slot);
    if (table->count == 0) { /* all ids are free: start again, without a list */
        free(table->free_ids);
        table->free_ids = NULL;
        table->free_count = 0;
        table->free_capacity = 0;
        table->last_id = 0;
    }
    if (table->mask + 1 > SLOTS_MIN && table->count * 8 < table->mask + 1)
        (void)resize(table, (table->mask + 1) / 2); /* without memory it stays large, and works */
}
