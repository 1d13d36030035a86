#include "contract.h"

#include <waybill/event_bus_memory.h>

static struct event_bus *make(void *ctx, struct observe *observe)
{
    const struct event_bus_memory_options options = {.observe = observe, .workers = 4};
    struct event_bus *bus = NULL;

    (void)ctx;
    assert_ok(event_bus_memory_create(&options, &bus));
    return bus;
}

static void lose_server(void *ctx, struct event_bus *bus)
{
    (void)ctx;
    event_bus_memory_set_down(bus, true);
}

static void return_server(void *ctx, struct event_bus *bus)
{
    (void)ctx;
    event_bus_memory_set_down(bus, false);
}

static void delete_message(void *ctx, struct event_bus *bus, const char *stream, uint64_t sequence)
{
    (void)ctx;
    assert_true(event_bus_memory_delete(bus, stream, sequence));
}

int main(void)
{
    const struct contract_bus memory = {.kind = "memory",
                                        .make = make,
                                        .lose_server = lose_server,
                                        .return_server = return_server,
                                        .delete_message = delete_message};

    return contract_run(&memory);
}
