/* Where a consumer starts to read. */
#include "memory.h"

#include <stdlib.h>

/* First message stored at or after a time; times rise with sequences. */
static uint64_t sequence_at_time(const struct memory_log *log, int64_t wall_ns)
{
    uint64_t low = log->first_seq;
    uint64_t high = log->last_seq + 1;

    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (event_bus_memory_log_at(log, middle)->stored_wall_ns < wall_ns)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool wants(const struct memory_group *group, struct wb_str subject)
{
    for (size_t i = 0; i < group->pattern_count; i++)
        if (subject_matches(wb_str(group->patterns[i]), subject))
            return true;
    return false;
}

static int rising(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void count_visit(void *ctx, void *value)
{
    (void)ctx;
    (void)value;
}

/* The newest of each subject, found by going backwards and remembering the subjects seen. This
 * reads the whole stream once, under the lock. */
static wb_err find_heads(struct memory_consumer *consumer)
{
    const struct memory_log *log = &consumer->stream->log;
    struct subject_index *seen;
    size_t capacity = 0;
    wb_err err = subject_index_create(&seen);

    if (err != WB_OK)
        return err;
    for (uint64_t seq = log->last_seq; seq >= log->first_seq && err == WB_OK; seq--) {
        struct memory_message *stored = event_bus_memory_log_at(log, seq);
        struct wb_str subject = stored->message->subject;
        if (stored->deleted || !wants(consumer->group, subject) ||
            subject_index_match(seen, subject, count_visit, NULL) > 0)
            continue;
        if (consumer->head_count == capacity) {
            capacity = capacity > 0 ? 2 * capacity : 64;
            uint64_t *heads = realloc(consumer->heads, capacity * sizeof(*heads));
            if (heads == NULL) {
                err = WB_NOMEM;
                break;
            }
            consumer->heads = heads;
        }
        consumer->heads[consumer->head_count++] = seq;
        err = subject_index_add(seen, subject, stored);
    }
    subject_index_destroy(seen);
    if (err == WB_OK && consumer->head_count > 0)
        qsort(consumer->heads, consumer->head_count, sizeof(*consumer->heads), rising);
    return err;
}

wb_err event_bus_memory_set_start(struct memory_consumer *consumer)
{
    const struct memory_group *group = consumer->group;
    const struct memory_log *log = &consumer->stream->log;

    consumer->positioned = group->start != EVENT_BUS_START_POSITION;
    consumer->next_seq = log->last_seq + 1;
    switch (group->start) {
    case EVENT_BUS_START_ALL:
        consumer->next_seq = log->first_seq;
        return WB_OK;
    case EVENT_BUS_START_SEQUENCE:
        consumer->next_seq = group->start_sequence;
        return WB_OK;
    case EVENT_BUS_START_TIME:
        consumer->next_seq = sequence_at_time(log, group->start_wall_ns);
        return WB_OK;
    case EVENT_BUS_START_LAST_PER_SUBJECT:
        return find_heads(consumer);
    case EVENT_BUS_START_NEW:
    case EVENT_BUS_START_POSITION:
        break;
    }
    return WB_OK;
}
