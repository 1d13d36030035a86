#include "memory.h"

#include <stdlib.h>
#include <string.h>

static struct memory_id **bucket(const struct memory_ids *ids, uint64_t hash)
{
    return &ids->buckets[(hash ^ hash >> 32) & (ids->bucket_count - 1)];
}

uint64_t event_bus_memory_ids_find(struct memory_ids *ids, struct wb_str id, int64_t now_ns)
{
    if (ids->count == 0)
        return 0;

    uint64_t hash = wb_hash(id.ptr, id.len);
    for (const struct memory_id *known = *bucket(ids, hash); known != NULL; known = known->next)
        if (known->hash == hash && wb_str_eq(wb_str_n(known->text, known->len), id) &&
            known->until_ns > now_ns)
            return known->sequence;
    return 0;
}

static void unlink_id(struct memory_ids *ids, struct memory_id *id)
{
    struct memory_id **link = bucket(ids, id->hash);

    while (*link != id)
        link = &(*link)->next;
    *link = id->next;
    ids->count--;
}

static void expire(struct memory_ids *ids, int64_t now_ns)
{
    while (ids->oldest != NULL && ids->oldest->until_ns <= now_ns) {
        struct memory_id *id = ids->oldest;
        ids->oldest = id->newer;
        if (ids->oldest == NULL)
            ids->newest = NULL;
        unlink_id(ids, id);
        id->next = ids->spare;
        ids->spare = id;
    }
}

static bool grow(struct memory_ids *ids)
{
    size_t count = ids->bucket_count > 0 ? 2 * ids->bucket_count : 64;
    struct memory_ids wider = {.bucket_count = count};

    wider.buckets = calloc(count, sizeof(struct memory_id *));
    if (wider.buckets == NULL)
        return false;
    for (struct memory_id *id = ids->oldest; id != NULL; id = id->newer) {
        struct memory_id **link = bucket(&wider, id->hash);
        id->next = *link;
        *link = id;
    }
    free(ids->buckets);
    ids->buckets = wider.buckets;
    ids->bucket_count = count;
    return true;
}

bool event_bus_memory_ids_reserve(struct memory_ids *ids, int64_t now_ns)
{
    expire(ids, now_ns);
    if (ids->count >= ids->bucket_count && !grow(ids))
        return false;
    if (ids->spare == NULL)
        ids->spare = calloc(1, sizeof(*ids->spare));
    return ids->spare != NULL;
}

static void append(struct memory_ids *ids, struct memory_id *id)
{
    id->newer = NULL;
    if (ids->newest != NULL)
        ids->newest->newer = id;
    else
        ids->oldest = id;
    ids->newest = id;
}

void event_bus_memory_ids_add(struct memory_ids *ids, struct wb_str id, uint64_t sequence,
                              int64_t until_ns)
{
    struct memory_id *known = ids->spare;

    ids->spare = known->next;
    known->sequence = sequence;
    known->until_ns = until_ns;
    known->hash = wb_hash(id.ptr, id.len);
    known->len = (uint8_t)id.len;
    memcpy(known->text, id.ptr, id.len);
    struct memory_id **link = bucket(ids, known->hash);
    known->next = *link;
    *link = known;
    ids->count++;
    append(ids, known);
}

void event_bus_memory_ids_keep(struct memory_ids *ids, uint64_t first_seq, uint64_t last_seq)
{
    struct memory_id *id = ids->oldest;

    ids->oldest = NULL;
    ids->newest = NULL;
    while (id != NULL) {
        struct memory_id *newer = id->newer;
        if (id->sequence < first_seq || id->sequence > last_seq) {
            unlink_id(ids, id);
            free(id);
        } else {
            append(ids, id);
        }
        id = newer;
    }
}

void event_bus_memory_ids_free(struct memory_ids *ids)
{
    event_bus_memory_ids_keep(ids, 1, 0);
    while (ids->spare != NULL) {
        struct memory_id *id = ids->spare;
        ids->spare = id->next;
        free(id);
    }
    free(ids->buckets);
    *ids = (struct memory_ids){0};
}
