#include "outbox_publisher_schedule.h"

#include <assert.h>
#include <stdlib.h>

enum { ROOM = 2 * OUTBOX_PUBLISHER_SCHEDULE_MAX };

static int compare(const void *a, const void *b)
{
    const struct outbox_publisher_due *x = a, *y = b;

    if (x->due_ms != y->due_ms)
        return x->due_ms < y->due_ms ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

void outbox_publisher_schedule_free(struct outbox_publisher_schedule *self)
{
    free(self->heap);
    *self = (struct outbox_publisher_schedule){.heap = NULL};
}

void outbox_publisher_schedule_reset(struct outbox_publisher_schedule *self)
{
    self->count = 0;
    self->known = self->whole = false;
}

static bool beyond(const struct outbox_publisher_schedule *self, struct outbox_publisher_due due)
{
    return !self->whole && (!self->known || compare(&due, &self->horizon) > 0);
}

/* The farther half goes back to the table. A sorted array is a heap. */
static void halve(struct outbox_publisher_schedule *self)
{
    qsort(self->heap, self->count, sizeof(*self->heap), compare);
    self->count = OUTBOX_PUBLISHER_SCHEDULE_MAX;
    self->horizon = self->heap[self->count - 1];
    self->known = true;
    self->whole = false;
}

static void rise(struct outbox_publisher_schedule *self, size_t at)
{
    struct outbox_publisher_due one = self->heap[at];

    while (at > 0 && compare(&one, &self->heap[(at - 1) / 2]) < 0) {
        self->heap[at] = self->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    self->heap[at] = one;
}

static wb_err push(struct outbox_publisher_schedule *self, struct outbox_publisher_due due)
{
    if (self->heap == NULL)
        self->heap = calloc(ROOM, sizeof(*self->heap));
    if (self->heap == NULL)
        return WB_NOMEM;
    if (self->count == ROOM)
        halve(self);
    if (beyond(self, due))
        return WB_OK;
    self->heap[self->count] = due;
    rise(self, self->count++);
    return WB_OK;
}

wb_err outbox_publisher_schedule_add(struct outbox_publisher_schedule *self, int64_t due_ms,
                                     int64_t id)
{
    const struct outbox_publisher_due due = {.due_ms = due_ms, .id = id};

    return beyond(self, due) ? WB_OK : push(self, due);
}

void outbox_publisher_schedule_extend(struct outbox_publisher_schedule *self,
                                      struct outbox_publisher_due last, bool whole)
{
    self->horizon = last;
    self->known = true;
    self->whole = whole;
}

bool outbox_publisher_schedule_wants(const struct outbox_publisher_schedule *self)
{
    return self->count == 0 && !self->whole;
}

const struct outbox_publisher_due *
outbox_publisher_schedule_first(const struct outbox_publisher_schedule *self)
{
    return self->count > 0 ? &self->heap[0] : NULL;
}

void outbox_publisher_schedule_pop(struct outbox_publisher_schedule *self)
{
    assert(self->count > 0);
    struct outbox_publisher_due one = self->heap[--self->count];
    size_t at = 0;

    for (size_t child = 1; child < self->count; child = 2 * at + 1) {
        if (child + 1 < self->count && compare(&self->heap[child + 1], &self->heap[child]) < 0)
            child++;
        if (compare(&one, &self->heap[child]) <= 0)
            break;
        self->heap[at] = self->heap[child];
        at = child;
    }
    self->heap[at] = one;
}
