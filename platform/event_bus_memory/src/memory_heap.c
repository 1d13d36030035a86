#include "memory.h"

#include <stdlib.h>

bool event_bus_memory_heap_reserve(struct memory_heap *heap, size_t count)
{
    size_t capacity = heap->capacity > 0 ? heap->capacity : 16;

    if (count < heap->capacity)
        return true;
    while (capacity <= count)
        capacity *= 2;

    struct memory_due **items = realloc(heap->items, capacity * sizeof(struct memory_due *));
    if (items == NULL)
        return false;
    heap->items = items;
    heap->capacity = capacity;
    return true;
}

static bool before(const struct memory_due *a, const struct memory_due *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->tie < b->tie;
}

static void place(struct memory_heap *heap, struct memory_due *due, size_t at)
{
    heap->items[at] = due;
    due->place = at;
}

static void sift_up(struct memory_heap *heap, struct memory_due *due, size_t at)
{
    for (; at > 1 && before(due, heap->items[at / 2]); at /= 2)
        place(heap, heap->items[at / 2], at);
    place(heap, due, at);
}

static void sift_down(struct memory_heap *heap, struct memory_due *due, size_t at)
{
    for (size_t child = 2 * at; child <= heap->count; child = 2 * at) {
        if (child < heap->count && before(heap->items[child + 1], heap->items[child]))
            child++;
        if (!before(heap->items[child], due))
            break;
        place(heap, heap->items[child], at);
        at = child;
    }
    place(heap, due, at);
}

static void settle_in(struct memory_heap *heap, struct memory_due *due, size_t at)
{
    if (at > 1 && before(due, heap->items[at / 2]))
        sift_up(heap, due, at);
    else
        sift_down(heap, due, at);
}

void event_bus_memory_heap_set(struct memory_heap *heap, struct memory_due *due, int64_t at_ns)
{
    due->at_ns = at_ns;
    settle_in(heap, due, due->place != 0 ? due->place : ++heap->count);
}

void event_bus_memory_heap_remove(struct memory_heap *heap, struct memory_due *due)
{
    size_t at = due->place;

    if (at == 0)
        return;
    due->place = 0;
    struct memory_due *last = heap->items[heap->count--];
    if (last != due)
        settle_in(heap, last, at);
}

struct memory_due *event_bus_memory_heap_first(const struct memory_heap *heap)
{
    return heap->count > 0 ? heap->items[1] : NULL;
}

void event_bus_memory_heap_free(struct memory_heap *heap)
{
    free(heap->items);
    *heap = (struct memory_heap){0};
}
