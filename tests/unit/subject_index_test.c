/* The index finds what a list would find, whatever came and went before. */
#include <stdio.h>

#include <waybill/subject.h>

#include "table.h"
#include "test_support.h"

struct entry {
    char pattern[64];
    uintptr_t value;
};

/* Visits counted by value, so that one too many shows as well as one too few. */
#define VALUES 64

static void tally(void *ctx, void *value)
{
    unsigned *counts = ctx;

    counts[(uintptr_t)value]++;
}

/* A text of 1 to 5 tokens from few, short and long ones, so that patterns meet often. */
static void random_text(struct wb_rng *rng, bool is_pattern, char out[64])
{
    static const char *const tokens[] = {"a", "b", "c", "user", "a-token-that-is-not-kept-inline"};
    size_t depth = 1 + (size_t)wb_rng_below(rng, 5);
    size_t len = 0;

    for (size_t i = 0; i < depth && len < 24; i++) {
        uint64_t pick = wb_rng_below(rng, 8);
        const char *token = tokens[pick % 5];
        if (is_pattern && pick == 6)
            token = "*";
        if (is_pattern && pick == 7)
            token = ">";
        len += (size_t)snprintf(out + len, 64 - len, "%s%s", len == 0 ? "" : ".", token);
        if (token[0] == '>')
            return;
    }
}

static void index_agrees_with_list(const struct subject_index *index, const struct entry *list,
                                   size_t count, const char *subject)
{
    unsigned expected[VALUES] = {0};
    unsigned got[VALUES] = {0};
    size_t total = 0;

    for (size_t i = 0; i < count; i++) {
        if (subject_matches(wb_str(list[i].pattern), wb_str(subject))) {
            expected[list[i].value]++;
            total++;
        }
    }
    assert_int_equal(subject_index_match(index, wb_str(subject), tally, got), total);
    assert_memory_equal(got, expected, sizeof(got));
}

#define STEPS   100000
#define ENTRIES 400

/* The same pairs in an index and in a list. */
struct twins {
    struct subject_index *index;
    struct entry list[ENTRIES];
    size_t count;
};

static void twins_add(struct twins *twins, struct wb_rng *rng)
{
    struct entry *entry = &twins->list[twins->count++];

    random_text(rng, true, entry->pattern);
    entry->value = (uintptr_t)wb_rng_below(rng, VALUES);
    assert_ok(subject_index_add(twins->index, wb_str(entry->pattern), (void *)entry->value));
}

static void twins_remove(struct twins *twins, struct wb_rng *rng)
{
    struct entry *entry = &twins->list[wb_rng_below(rng, twins->count)];

    assert_ok(subject_index_remove(twins->index, wb_str(entry->pattern), (void *)entry->value));
    *entry = twins->list[--twins->count];
}

static void index_after_any_history_agrees_with_a_list(void **state)
{
    static struct twins twins;
    struct wb_rng rng;
    size_t matches = 0;

    (void)state;
    wb_rng_seed(&rng, 20260101);
    assert_ok(subject_index_create(&twins.index));
    for (size_t step = 0; step < STEPS; step++) {
        bool grows = step / 5000 % 2 == 0; /* then it declines, down to nothing */
        uint64_t action = wb_rng_below(&rng, 8);
        if (action < (grows ? 4U : 2U) && twins.count < ENTRIES) {
            twins_add(&twins, &rng);
        } else if (action < 6 && twins.count > 0) {
            twins_remove(&twins, &rng);
        } else {
            char subject[64];
            random_text(&rng, false, subject);
            index_agrees_with_list(twins.index, twins.list, twins.count, subject);
            matches++;
        }
        assert_int_equal(subject_index_size(twins.index), twins.count);
    }
    assert_in_range(matches, STEPS / 8, STEPS);
    subject_index_destroy(twins.index);
}

static void index_remove_of_what_was_never_added_is_not_found(void **state)
{
    struct subject_index *index;
    int one;
    int other;

    (void)state;
    assert_ok(subject_index_create(&index));
    assert_err(subject_index_remove(index, wb_str("a.b"), &one), WB_NOT_FOUND);
    assert_ok(subject_index_add(index, wb_str("a.b.c"), &one));
    assert_err(subject_index_remove(index, wb_str("a.b"), &one), WB_NOT_FOUND);
    assert_err(subject_index_remove(index, wb_str("a.b.*"), &one), WB_NOT_FOUND);
    assert_err(subject_index_remove(index, wb_str("a.b.c.d"), &one), WB_NOT_FOUND);
    assert_err(subject_index_remove(index, wb_str("a.b.c"), &other), WB_NOT_FOUND);
    assert_int_equal(subject_index_size(index), 1);
    assert_ok(subject_index_remove(index, wb_str("a.b.c"), &one));
    assert_err(subject_index_remove(index, wb_str("a.b.c"), &one), WB_NOT_FOUND);
    subject_index_destroy(index);
}

static void index_with_a_pair_added_twice_visits_it_twice(void **state)
{
    struct subject_index *index;
    unsigned counts[VALUES] = {0};
    void *value = (void *)(uintptr_t)7;

    (void)state;
    assert_ok(subject_index_create(&index));
    assert_ok(subject_index_add(index, wb_str("a.>"), value));
    assert_ok(subject_index_add(index, wb_str("a.>"), value));
    assert_int_equal(subject_index_match(index, wb_str("a.b"), tally, counts), 2);
    assert_int_equal(counts[7], 2);
    assert_ok(subject_index_remove(index, wb_str("a.>"), value));
    assert_int_equal(subject_index_match(index, wb_str("a.b"), tally, counts), 1);
    subject_index_destroy(index);
}

static void index_match_of_the_deepest_subject_finds_all(void **state)
{
    char subject[SUBJECT_MAX + 1];
    char pattern[SUBJECT_MAX + 1];
    struct subject_index *index;
    unsigned counts[VALUES] = {0};

    (void)state;
    for (size_t i = 0; i < SUBJECT_MAX; i++)
        subject[i] = i % 2 == 0 ? 't' : '.';
    subject[SUBJECT_MAX] = '\0';
    assert_ok(subject_check(wb_str(subject), NULL));
    assert_ok(subject_index_create(&index));
    assert_ok(subject_index_add(index, wb_str(subject), NULL));
    memcpy(pattern, subject, sizeof(pattern));
    for (size_t i = 0; i < SUBJECT_MAX; i += 2)
        pattern[i] = '*';
    assert_ok(subject_index_add(index, wb_str(pattern), NULL));
    pattern[SUBJECT_MAX - 1] = '>';
    assert_ok(subject_index_add(index, wb_str(pattern), NULL));
    assert_int_equal(subject_index_match(index, wb_str(subject), tally, counts), 3);
    subject_index_destroy(index);
}

/* More beginnings match than one round of lookups holds. */
static void index_of_all_masks_of_a_subject_finds_all(void **state)
{
    struct subject_index *index;
    unsigned counts[VALUES] = {0};

    (void)state;
    assert_ok(subject_index_create(&index));
    for (unsigned mask = 0; mask < 1024; mask++) {
        char pattern[64];
        size_t len = 0;
        for (unsigned i = 0; i < 10; i++)
            len += (size_t)snprintf(pattern + len, sizeof(pattern) - len, "%s%s", i == 0 ? "" : ".",
                                    (mask >> i & 1U) != 0 ? "*" : "x");
        assert_ok(subject_index_add(index, wb_str(pattern), NULL));
    }
    struct wb_str subject = wb_str("x.x.x.x.x.x.x.x.x.x");
    assert_int_equal(subject_index_match(index, subject, tally, counts), 1024);
    subject = wb_str("x.x.x.x.x.x.x.x.x.y");
    assert_int_equal(subject_index_match(index, subject, tally, counts), 512);
    subject_index_destroy(index);
}

static void index_with_many_values_of_one_pattern_keeps_them_apart(void **state)
{
    struct subject_index *index;
    unsigned counts[VALUES];

    (void)state;
    assert_ok(subject_index_create(&index));
    for (uintptr_t i = 0; i < VALUES; i++)
        assert_ok(subject_index_add(index, wb_str("a.*"), (void *)i));
    for (uintptr_t i = 0; i < VALUES; i++) {
        memset(counts, 0, sizeof(counts));
        assert_int_equal(subject_index_match(index, wb_str("a.b"), tally, counts), VALUES - i);
        for (uintptr_t j = 0; j < VALUES; j++)
            assert_int_equal(counts[j], j >= i ? 1 : 0);
        assert_ok(subject_index_remove(index, wb_str("a.*"), (void *)i));
    }
    assert_int_equal(subject_index_match(index, wb_str("a.b"), tally, counts), 0);
    subject_index_destroy(index);
}

/* ---- the table below it ---------------------------------------------------------------------- */

static void table_after_churn_has_the_size_it_began_with(void **state)
{
    struct subject_table table;

    (void)state;
    assert_true(subject_table_init(&table));
    size_t mask = table.mask;
    for (uint32_t round = 0; round < 100; round++) {
        for (uint32_t i = 0; i < 1000; i++)
            assert_non_null(subject_table_insert(&table, i * 7919 + round));
        assert_in_range(table.mask + 1, 1000 * 4 / 3, 4096);
        assert_true(table.last_id <= 1000);
        for (size_t i = 0; table.count > 0; i++)
            while (table.count > 0 && table.slots[i & table.mask].id != 0)
                subject_table_erase(&table, &table.slots[i & table.mask]);
        assert_int_equal(table.mask, mask);
        assert_int_equal(table.free_capacity, 0);
    }
    subject_table_free(&table);
}

static void table_with_equal_hashes_closes_its_gaps(void **state)
{
    struct subject_table table;

    (void)state;
    assert_true(subject_table_init(&table));
    for (uint32_t i = 0; i < 12; i++) /* a run over the end of the 16 slots */
        assert_non_null(subject_table_insert(&table, i % 3 == 0 ? 15 : 14));
    for (size_t left = 12; left > 0; left--) {
        size_t seen = 0;
        struct subject_slot *first = subject_table_first(&table, 14);
        struct subject_slot *slot = first;
        for (; slot->id != 0; slot = subject_table_next(&table, slot))
            seen++;
        struct subject_slot *other = subject_table_first(&table, 15);
        assert_true(first->id != 0 || other->id != 0);
        assert_true(seen == left || first->id == 0);
        subject_table_erase(&table, first->id != 0 && left % 2 == 0 ? first
                                    : other->id != 0                ? other
                                                                    : first);
    }
    assert_int_equal(table.count, 0);
    subject_table_free(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(index_after_any_history_agrees_with_a_list),
        cmocka_unit_test(index_remove_of_what_was_never_added_is_not_found),
        cmocka_unit_test(index_with_a_pair_added_twice_visits_it_twice),
        cmocka_unit_test(index_match_of_the_deepest_subject_finds_all),
        cmocka_unit_test(index_of_all_masks_of_a_subject_finds_all),
        cmocka_unit_test(index_with_many_values_of_one_pattern_keeps_them_apart),
        cmocka_unit_test(table_after_churn_has_the_size_it_began_with),
        cmocka_unit_test(table_with_equal_hashes_closes_its_gaps),
    };
    return cmocka_run_group_tests_name("subject_index", tests, NULL, NULL);
}
