/* Keys as hashes, and sets of them: open addressing, never more than half full. */
#include <stdlib.h>
#include <string.h>

#include "outbox_publisher_exceptions.h"

uint64_t outbox_publisher_key_hash(struct wb_str key)
{
    uint64_t hash = key.len > 0 ? wb_hash(key.ptr, key.len) : 0;

    /* Two keys of one hash would only wait for each other. */
    return hash == 0 && key.len > 0 ? 1 : hash;
}

static uint64_t *keys_slot(const struct outbox_publisher_keys *keys, uint64_t hash)
{
    size_t at = (size_t)(hash * UINT64_C(0x9e3779b97f4a7c15)) & (keys->capacity - 1);

    while (keys->slots[at] != 0 && keys->slots[at] != hash)
        at = (at + 1) & (keys->capacity - 1);
    return &keys->slots[at];
}

bool outbox_publisher_keys_has(const struct outbox_publisher_keys *keys, uint64_t hash)
{
    return hash != 0 && keys->count > 0 && *keys_slot(keys, hash) == hash;
}

/* Empties the set and makes room for n members. */
wb_err outbox_publisher_keys_reset(struct outbox_publisher_keys *keys, size_t n)
{
    size_t capacity = 16;

    while (capacity < 2 * n)
        capacity *= 2;
    if (capacity > keys->capacity) {
        uint64_t *slots = calloc(capacity, sizeof(*slots));
        if (slots == NULL)
            return WB_NOMEM;
        free(keys->slots);
        keys->slots = slots;
        keys->capacity = capacity;
    } else if (keys->count > 0) {
        memset(keys->slots, 0, keys->capacity * sizeof(*keys->slots));
    }
    keys->count = 0;
    return WB_OK;
}

void outbox_publisher_keys_add(struct outbox_publisher_keys *keys, uint64_t hash)
{
    if (hash == 0)
        return;
    uint64_t *slot = keys_slot(keys, hash);
    keys->count += *slot == 0 ? 1 : 0;
    *slot = hash;
}

void outbox_publisher_keys_free(struct outbox_publisher_keys *keys)
{
    free(keys->slots);
    *keys = (struct outbox_publisher_keys){0};
}
