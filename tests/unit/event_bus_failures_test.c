/* The dispatcher's table of unsettled messages, against a plain model. */
#include "test_support.h"

#include "event_bus_private.h"

#define SEQUENCES 400

static struct event_bus_delivery delivery(const char *stream, uint64_t sequence)
{
    return (struct event_bus_delivery){.stream = wb_str(stream), .sequence = sequence};
}

static void failures_are_found_until_removed(void **state)
{
    struct event_bus_failures table = {0};
    uint32_t model[2][SEQUENCES] = {{0}}; /* failures + 1; 0: absent */
    static const char *const streams[] = {"ORDERS", "AUTH"};
    struct wb_rng rng;

    (void)state;
    wb_rng_seed(&rng, 17);
    for (int round = 0; round < 50000; round++) {
        size_t which = wb_rng_below(&rng, 2);
        uint64_t sequence = wb_rng_below(&rng, SEQUENCES);
        const struct event_bus_delivery d = delivery(streams[which], sequence);
        struct event_bus_failure *entry = event_bus_failures_find(&table, &d);
        uint32_t *expected = &model[which][sequence];

        assert_int_equal(entry != NULL, *expected > 0);
        if (entry != NULL)
            assert_int_equal(entry->failures + 1, *expected);
        if (entry != NULL && wb_rng_below(&rng, 2) == 0) {
            event_bus_failures_remove(&table, entry);
            *expected = 0;
        } else {
            event_bus_failures_add(&table, &d, 0)->failures++;
            *expected = *expected > 0 ? *expected + 1 : 2;
        }
    }
    free(table.slots);
}

static void failures_count_those_handed_out(void **state)
{
    struct event_bus_failures table = {0};
    const struct event_bus_delivery one = delivery("ORDERS", 1);
    const struct event_bus_delivery two = delivery("ORDERS", 2);

    (void)state;
    struct event_bus_failure *entry = event_bus_failures_add(&table, &one, 0);
    event_bus_failures_place(&table, entry, EVENT_BUS_HANDED);
    event_bus_failures_place(&table, event_bus_failures_add(&table, &two, 0), EVENT_BUS_HANDED);
    assert_int_equal(table.handed, 2);
    event_bus_failures_place(&table, event_bus_failures_find(&table, &one), EVENT_BUS_NAKED);
    assert_int_equal(table.handed, 1);
    event_bus_failures_remove(&table, event_bus_failures_find(&table, &two));
    assert_int_equal(table.handed, 0);
    free(table.slots);
}

/* Settled by another process: nothing tells us, so the entry goes when its time has passed. */
static void failures_settled_elsewhere_do_not_pile_up(void **state)
{
    struct event_bus_failures table = {0};

    (void)state;
    for (uint64_t now = 1; now <= 100000; now++) {
        const struct event_bus_delivery d = delivery("ORDERS", now);
        struct event_bus_failure *entry = event_bus_failures_add(&table, &d, (int64_t)now);
        assert_non_null(entry);
        event_bus_failures_place(&table, entry, EVENT_BUS_HANDED);
        entry->keep_until_ns = (int64_t)now + 100;
    }
    assert_true(table.capacity <= 1024);
    assert_true(table.handed == table.count);
    const struct event_bus_delivery young = delivery("ORDERS", 99950);
    assert_non_null(event_bus_failures_find(&table, &young));
    free(table.slots);
}

static void failures_beyond_the_bound_are_not_counted(void **state)
{
    struct event_bus_failures table = {0};
    struct event_bus_delivery d = delivery("ORDERS", 0);

    (void)state;
    struct event_bus_failure *entry;
    while ((entry = event_bus_failures_add(&table, &d, 0)) != NULL) {
        event_bus_failures_place(&table, entry, EVENT_BUS_HANDED);
        entry->keep_until_ns = 10 * WB_SEC;
        assert_true(++d.sequence <= 1U << 18);
    }
    assert_true(d.sequence > 1U << 17);
    assert_null(event_bus_failures_add(&table, &d, 5 * WB_SEC));
    d.sequence = 5;
    assert_non_null(event_bus_failures_find(&table, &d));
    d.sequence = 1U << 20;
    assert_non_null(event_bus_failures_add(&table, &d, 11 * WB_SEC)); /* the others are stale */
    assert_int_equal(table.count, 1);
    free(table.slots);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failures_are_found_until_removed),
        cmocka_unit_test(failures_count_those_handed_out),
        cmocka_unit_test(failures_settled_elsewhere_do_not_pile_up),
        cmocka_unit_test(failures_beyond_the_bound_are_not_counted),
    };

    return cmocka_run_group_tests_name("event_bus_failures", tests, NULL, NULL);
}
