/* A message that its sender has given up must not arrive before the one it followed. */
#include "outbox_publisher_fault_bus.h"
#include "outbox_publisher_fixture.h"

static void step(struct fixture *f)
{
    for (int i = 0; i < 20; i++)
        (void)outbox_publisher_step(f->publisher);
}

static void given_up_message_never_lands_behind_a_stranger_to_its_chain(void **state)
{
    struct fixture *f = *state;
    struct fault_bus *bus = fault_bus_create(f->bus, 1);
    const struct event_bus_ack_info none = {.sequence = 0};

    f->options.bus = &bus->base;
    fixture_start(f);
    fixture_insert(f, "a.x", "z", "1");
    step(f);
    bus->refusals_per_thousand = 1000;
    assert_true(fault_bus_pump(bus)); /* row 1 is refused: it will be tried again */
    bus->refusals_per_thousand = 0;
    step(f);
    assert_exceptions(f, "1 retry");

    fixture_insert(f, "a.x", "", "2");
    fixture_insert(f, "a.x", "k", "3");
    fixture_insert(f, "a.x", "k", "4");
    step(f);
    assert_true(fault_bus_pump(bus)); /* row 2 is stored; rows 3 and 4 follow in the chain */
    step(f);
    event_bus_memory_advance(f->bus, WB_SEC); /* meanwhile row 1 falls due */
    struct transit *third = transit_take(bus), *fourth = transit_take(bus);
    assert_null(bus->first);
    transit_answer(third, WB_UNKNOWN, &none); /* lost */
    transit_free(third);
    transit_answer(fourth, WB_UNKNOWN, &none); /* given up, and still on its way */
    fourth->done = NULL;

    step(f);
    (void)fault_bus_pump(bus); /* if row 1 was sent, it overtakes row 4 */
    transit_arrive(bus, fourth, false);
    fault_bus_advance(bus, 300 * WB_MS);
    for (int i = 0; i < 20; i++) {
        step(f);
        (void)fault_bus_pump(bus);
    }
    assert_stream_holds(f, "A", "2 1 3 4");

    outbox_publisher_stop(f->publisher);
    f->publisher = NULL;
    event_bus_destroy(&bus->base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(given_up_message_never_lands_behind_a_stranger_to_its_chain,
                                        fixture_setup, fixture_teardown),
    };
    return cmocka_run_group_tests_name("outbox_publisher_late", tests, NULL, NULL);
}
