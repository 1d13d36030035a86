/* The data structures of the in-memory bus against plain models, under seeded random operations. */
#include "test_support.h"

#include <stdio.h>

#include "memory.h"

/* ---- the log --------------------------------------------------------------------------------- */

static struct memory_message *store(uint64_t sequence)
{
    const struct message msg = {.subject = wb_str("a.b")};
    struct memory_message *stored = event_bus_memory_message_new(&msg, "STREAM");

    assert_non_null(stored);
    stored->sequence = sequence;
    return stored;
}

static void check_log(const struct memory_log *log, uint64_t first, uint64_t last)
{
    assert_int_equal(log->first_seq, first);
    assert_int_equal(log->last_seq, last);
    assert_null(event_bus_memory_log_at(log, first - 1));
    assert_null(event_bus_memory_log_at(log, last + 1));
    for (uint64_t seq = first; seq <= last; seq += 1 + (last - first) / 7)
        assert_int_equal(event_bus_memory_log_at(log, seq)->sequence, seq);
}

static void log_keeps_its_range_whatever_is_pushed_and_removed(void **state)
{
    struct memory_log log = {.first_seq = 1};
    struct wb_rng rng;
    uint64_t first = 1;
    uint64_t last = 0;

    (void)state;
    wb_rng_seed(&rng, 11);
    for (int round = 0; round < 400; round++) {
        uint64_t count = wb_rng_below(&rng, 900);
        uint64_t what = wb_rng_below(&rng, 4);
        for (uint64_t i = 0; i < count; i++) {
            struct memory_message *gone = NULL;
            if (what <= 1) {
                assert_true(event_bus_memory_log_push(&log, store(++last)));
            } else if (what == 2) {
                gone = event_bus_memory_log_shift(&log);
                if (gone != NULL)
                    assert_int_equal(gone->sequence, first++);
            } else {
                gone = event_bus_memory_log_pop(&log);
                if (gone != NULL)
                    assert_int_equal(gone->sequence, last--);
            }
            if (gone != NULL)
                event_bus_memory_message_unref(gone);
        }
        check_log(&log, first, last);
    }
    event_bus_memory_log_free(&log);
}

/* ---- the heap -------------------------------------------------------------------------------- */

#define DUES 200

static void heap_gives_what_is_due_first(void **state)
{
    struct memory_heap heap = {0};
    struct memory_due dues[DUES] = {{0}};
    struct wb_rng rng;

    (void)state;
    wb_rng_seed(&rng, 5);
    assert_true(event_bus_memory_heap_reserve(&heap, DUES));
    for (size_t i = 0; i < DUES; i++)
        dues[i].tie = i;
    for (int round = 0; round < 20000; round++) {
        struct memory_due *due = &dues[wb_rng_below(&rng, DUES)];
        if (wb_rng_below(&rng, 3) == 0)
            event_bus_memory_heap_remove(&heap, due);
        else
            event_bus_memory_heap_set(&heap, due, (int64_t)wb_rng_below(&rng, 50));
        const struct memory_due *first = NULL;
        for (size_t i = 0; i < DUES; i++) /* in order of ties, so an earlier equal one wins */
            if (dues[i].place != 0 && (first == NULL || dues[i].at_ns < first->at_ns))
                first = &dues[i];
        assert_ptr_equal(event_bus_memory_heap_first(&heap), first);
    }
    event_bus_memory_heap_free(&heap);
}

/* ---- ids ------------------------------------------------------------------------------------- */

static void ids_are_known_until_they_expire(void **state)
{
    struct memory_ids ids = {0};
    char text[16];
    const uint64_t window = 500;

    (void)state;
    for (uint64_t now = 1; now <= 3000; now++) {
        (void)snprintf(text, sizeof(text), "id-%llu", (unsigned long long)now);
        assert_int_equal(event_bus_memory_ids_find(&ids, wb_str(text), (int64_t)now), 0);
        assert_true(event_bus_memory_ids_reserve(&ids, (int64_t)now));
        event_bus_memory_ids_add(&ids, wb_str(text), now, (int64_t)(now + window));
        uint64_t old = now > window ? now - window : 0;
        (void)snprintf(text, sizeof(text), "id-%llu", (unsigned long long)old);
        assert_int_equal(event_bus_memory_ids_find(&ids, wb_str(text), (int64_t)now), 0);
        (void)snprintf(text, sizeof(text), "id-%llu", (unsigned long long)old + 1);
        assert_int_equal(event_bus_memory_ids_find(&ids, wb_str(text), (int64_t)now), old + 1);
        assert_true(ids.count <= window + 1); /* it holds a window, not a history */
    }
    event_bus_memory_ids_keep(&ids, 2900, 2950);
    assert_int_equal(ids.count, 51);
    assert_int_equal(event_bus_memory_ids_find(&ids, wb_str("id-2899"), 3000), 0);
    assert_int_equal(event_bus_memory_ids_find(&ids, wb_str("id-2900"), 3000), 2900);
    assert_int_equal(event_bus_memory_ids_find(&ids, wb_str("id-2951"), 3000), 0);
    event_bus_memory_ids_free(&ids);
}

/* ---- pending --------------------------------------------------------------------------------- */

static struct memory_pending_entry *add(struct memory_pending *pending, uint64_t sequence,
                                        int64_t at_ns)
{
    assert_true(event_bus_memory_pending_reserve(pending));
    struct memory_pending_entry *entry = event_bus_memory_pending_add(pending, sequence);
    event_bus_memory_pending_wait(pending, entry, at_ns);
    return entry;
}

static void assert_ready(const struct memory_pending *pending, const uint64_t *expected,
                         size_t count)
{
    const struct memory_pending_entry *entry = pending->ready_head;

    for (size_t i = 0; i < count; i++, entry = entry->ready_next) {
        assert_non_null(entry);
        assert_int_equal(entry->sequence, expected[i]);
    }
    assert_null(entry);
}

static void pending_that_expire_together_are_ready_in_sequence(void **state)
{
    struct memory_pending pending = {0};
    static const uint64_t order[] = {9, 4, 6, 7};

    (void)state;
    for (uint64_t seq = 1; seq <= 100; seq++)
        add(&pending, seq, 1000);
    event_bus_memory_pending_ready(&pending, event_bus_memory_pending_find(&pending, 9));
    event_bus_memory_pending_wait(&pending, event_bus_memory_pending_find(&pending, 7), 10);
    event_bus_memory_pending_wait(&pending, event_bus_memory_pending_find(&pending, 4), 12);
    event_bus_memory_pending_wait(&pending, event_bus_memory_pending_find(&pending, 6), 11);
    event_bus_memory_pending_expire(&pending, 12);
    assert_ready(&pending, order, 4);
    event_bus_memory_pending_free(&pending);
}

static void pending_of_a_holder_that_leaves_are_ready_in_sequence(void **state)
{
    struct memory_pending pending = {0};
    struct memory_source one = {0};
    struct memory_source other = {0};
    static const uint64_t order[] = {5, 1, 3, 7};

    (void)state;
    for (uint64_t seq = 8; seq >= 1; seq--)
        add(&pending, seq, 1000)->holder = seq % 2 == 1 ? &one : &other;
    event_bus_memory_pending_ready(&pending, event_bus_memory_pending_find(&pending, 5));
    event_bus_memory_pending_hand_back(&pending, &one);
    assert_ready(&pending, order, 4);
    event_bus_memory_pending_free(&pending);
}

static void pending_settled_anywhere_is_gone_everywhere(void **state)
{
    struct memory_pending pending = {0};
    bool there[301] = {false};
    size_t count = 0;
    struct wb_rng rng;

    (void)state;
    wb_rng_seed(&rng, 3);
    for (int round = 0; round < 20000; round++) {
        uint64_t seq = 1 + wb_rng_below(&rng, 300);
        struct memory_pending_entry *entry = event_bus_memory_pending_find(&pending, seq);
        assert_int_equal(entry != NULL, there[seq]);
        if (entry == NULL) {
            add(&pending, seq, (int64_t)wb_rng_below(&rng, 100));
        } else if (wb_rng_below(&rng, 2) == 0) {
            event_bus_memory_pending_ready(&pending, entry);
            continue;
        } else {
            event_bus_memory_pending_remove(&pending, entry);
        }
        count += !there[seq];
        count -= there[seq];
        there[seq] = !there[seq];
        assert_int_equal(pending.count, count);
    }
    event_bus_memory_pending_truncate(&pending, 100);
    for (uint64_t seq = 1; seq <= 300; seq++)
        assert_int_equal(event_bus_memory_pending_find(&pending, seq) != NULL,
                         there[seq] && seq <= 100);
    for (const struct memory_pending_entry *e = pending.ready_head; e != NULL; e = e->ready_next)
        assert_true(e->sequence <= 100);
    event_bus_memory_pending_free(&pending);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(log_keeps_its_range_whatever_is_pushed_and_removed),
        cmocka_unit_test(heap_gives_what_is_due_first),
        cmocka_unit_test(ids_are_known_until_they_expire),
        cmocka_unit_test(pending_that_expire_together_are_ready_in_sequence),
        cmocka_unit_test(pending_of_a_holder_that_leaves_are_ready_in_sequence),
        cmocka_unit_test(pending_settled_anywhere_is_gone_everywhere),
    };

    return cmocka_run_group_tests_name("event_bus_memory_parts", tests, NULL, NULL);
}
