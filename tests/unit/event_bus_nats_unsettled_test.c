/* Which messages are in doubt when a consumer is lost. */
#include "test_support.h"

#include "unsettled.h"

static void add(struct nats_unsettled *set, uint64_t seq)
{
    const struct nats_unsettled_entry entry = {.seq = seq, .consumer_seq = seq, .deliveries = 1};

    assert_true(event_bus_nats_unsettled_add(set, &entry));
}

static uint64_t lowest(const struct nats_unsettled *set)
{
    const struct nats_unsettled_entry *entry = event_bus_nats_unsettled_lowest(set);

    return entry != NULL ? entry->seq : 0;
}

static void lowest_unsettled_is_where_a_new_consumer_begins(void **state)
{
    struct nats_unsettled set = {0};

    (void)state;
    assert_int_equal(lowest(&set), 0);
    for (uint64_t seq = 10; seq <= 15; seq++)
        add(&set, seq);
    event_bus_nats_unsettled_remove(&set, 12);
    event_bus_nats_unsettled_remove(&set, 11);
    assert_int_equal(lowest(&set), 10);
    event_bus_nats_unsettled_remove(&set, 10);
    assert_int_equal(lowest(&set), 13);
    event_bus_nats_unsettled_remove(&set, 99);
    event_bus_nats_unsettled_remove(&set, 13);
    event_bus_nats_unsettled_remove(&set, 15);
    event_bus_nats_unsettled_remove(&set, 14);
    assert_int_equal(lowest(&set), 0);
    event_bus_nats_unsettled_clear(&set);
}

static void redelivery_brings_its_entry_up_to_date(void **state)
{
    struct nats_unsettled set = {0};
    const struct nats_unsettled_entry again = {.seq = 2, .consumer_seq = 9, .deliveries = 3};

    (void)state;
    add(&set, 3);
    add(&set, 2); /* a redelivery of what an earlier holder had */
    assert_true(event_bus_nats_unsettled_add(&set, &again));
    assert_int_equal(set.count, 2);
    assert_int_equal(event_bus_nats_unsettled_at(&set, 0)->consumer_seq, 9);
    assert_int_equal(event_bus_nats_unsettled_at(&set, 0)->deliveries, 3);
    event_bus_nats_unsettled_remove(&set, 3);
    assert_null(event_bus_nats_unsettled_at(&set, 1));
    event_bus_nats_unsettled_clear(&set);
}

/* A window that moves over a long stream takes no more room than the window. */
static void long_stream_takes_bounded_room(void **state)
{
    struct nats_unsettled set = {0};

    (void)state;
    for (uint64_t seq = 1; seq <= 100000; seq++) {
        add(&set, seq);
        if (seq > 100)
            event_bus_nats_unsettled_remove(&set, seq - 100);
    }
    assert_int_equal(lowest(&set), 99901);
    assert_int_equal(set.count, 100);
    assert_true(set.capacity <= 512);
    event_bus_nats_unsettled_clear(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lowest_unsettled_is_where_a_new_consumer_begins),
        cmocka_unit_test(redelivery_brings_its_entry_up_to_date),
        cmocka_unit_test(long_stream_takes_bounded_room),
    };
    return cmocka_run_group_tests_name("event_bus_nats unsettled", tests, NULL, NULL);
}
