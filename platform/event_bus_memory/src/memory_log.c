#include "memory.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK 1024 /* messages */

/* What a stored message counts for beyond its subject, headers and payload. */
#define STORED_OVERHEAD 32

struct memory_message *event_bus_memory_message_new(const struct message *msg, const char *stream)
{
    size_t name_len = strlen(stream);
    void *extra;
    struct message *copy = message_copy(msg, sizeof(struct memory_message) + name_len + 1, &extra);

    if (copy == NULL)
        return NULL;

    struct memory_message *stored = extra;
    char *name = (char *)(stored + 1);
    memcpy(name, stream, name_len + 1);
    *stored = (struct memory_message){.message = copy, .stream = wb_str_n(name, name_len)};
    stored->size =
        STORED_OVERHEAD + msg->subject.len + msg->payload.len + message_header_bytes(msg);
    atomic_init(&stored->references, 1);
    return stored;
}

void event_bus_memory_message_unref(struct memory_message *stored)
{
    if (atomic_fetch_sub(&stored->references, 1) == 1)
        free(stored->message);
}

static size_t stored_count(const struct memory_log *log)
{
    return (size_t)(log->last_seq + 1 - log->first_seq);
}

static struct memory_message **slot(const struct memory_log *log, size_t index)
{
    size_t at = log->offset + index;
    size_t chunk = (log->chunk_first + at / CHUNK) & (log->chunk_capacity - 1);

    return &log->chunks[chunk][at % CHUNK];
}

static bool grow_ring(struct memory_log *log)
{
    size_t capacity = log->chunk_capacity > 0 ? 2 * log->chunk_capacity : 4;
    struct memory_message ***chunks = calloc(capacity, sizeof(struct memory_message **));

    if (chunks == NULL)
        return false;
    for (size_t i = 0; i < log->chunk_count; i++)
        chunks[i] = log->chunks[(log->chunk_first + i) & (log->chunk_capacity - 1)];
    free(log->chunks);
    log->chunks = chunks;
    log->chunk_capacity = capacity;
    log->chunk_first = 0;
    return true;
}

static bool add_chunk(struct memory_log *log)
{
    if (log->chunk_count == log->chunk_capacity && !grow_ring(log))
        return false;

    struct memory_message **chunk = calloc(CHUNK, sizeof(struct memory_message *));
    if (chunk == NULL)
        return false;
    log->chunks[(log->chunk_first + log->chunk_count) & (log->chunk_capacity - 1)] = chunk;
    log->chunk_count++;
    return true;
}

bool event_bus_memory_log_push(struct memory_log *log, struct memory_message *stored)
{
    size_t count = stored_count(log);

    assert(stored->sequence == log->last_seq + 1);
    if (log->offset + count == log->chunk_count * CHUNK && !add_chunk(log))
        return false;
    *slot(log, count) = stored;
    log->last_seq++;
    return true;
}

struct memory_message *event_bus_memory_log_at(const struct memory_log *log, uint64_t sequence)
{
    if (sequence < log->first_seq || sequence > log->last_seq)
        return NULL;
    return *slot(log, (size_t)(sequence - log->first_seq));
}

struct memory_message *event_bus_memory_log_held(const struct memory_log *log, uint64_t sequence)
{
    struct memory_message *stored = event_bus_memory_log_at(log, sequence);

    return stored != NULL && !stored->deleted ? stored : NULL;
}

struct memory_message *event_bus_memory_log_shift(struct memory_log *log)
{
    if (stored_count(log) == 0)
        return NULL;

    struct memory_message *stored = *slot(log, 0);
    log->first_seq++;
    if (++log->offset == CHUNK) {
        free(log->chunks[log->chunk_first]);
        log->chunk_first = (log->chunk_first + 1) & (log->chunk_capacity - 1);
        log->chunk_count--;
        log->offset = 0;
    }
    return stored;
}

struct memory_message *event_bus_memory_log_pop(struct memory_log *log)
{
    size_t count = stored_count(log);

    if (count == 0)
        return NULL;

    struct memory_message *stored = *slot(log, count - 1);
    log->last_seq--;
    if (log->offset + count - 1 <= (log->chunk_count - 1) * CHUNK && log->chunk_count > 1) {
        log->chunk_count--;
        free(log->chunks[(log->chunk_first + log->chunk_count) & (log->chunk_capacity - 1)]);
    }
    return stored;
}

void event_bus_memory_log_free(struct memory_log *log)
{
    struct memory_message *stored;

    while ((stored = event_bus_memory_log_shift(log)) != NULL)
        event_bus_memory_message_unref(stored);
    for (size_t i = 0; i < log->chunk_count; i++)
        free(log->chunks[(log->chunk_first + i) & (log->chunk_capacity - 1)]);
    free(log->chunks);
    *log = (struct memory_log){.first_seq = 1};
}
