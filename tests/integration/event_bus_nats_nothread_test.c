/* A connection whose threads cannot be made. */
#include "event_bus_nats_fixture.h"

#include <errno.h>
#include <limits.h>
#include <unistd.h>

#include "wire.h"

static atomic_int threads_left = INT_MAX;

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *arg);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *arg)
{
    if (atomic_fetch_sub(&threads_left, 1) > 0)
        return __real_pthread_create(thread, attributes, run, arg);
    (void)usleep(50000); /* for the thread that is there to get on */
    return EAGAIN;
}

/* With neither thread, with one of the two; the one that is there has long begun its work. */
static void connecting_fails_and_leaves_none(void **state)
{
    struct world *w = *state;

    for (int count = 0; count < 2; count++) {
        struct nats_wire wire;
        natsConnection *nc = NULL;
        natsOptions *options;

        assert_ok(event_bus_nats_wire_init(&wire, 10 * WB_SEC));
        assert_int_equal(natsOptions_Create(&options), NATS_OK);
        assert_int_equal(natsOptions_SetURL(options, w->server.url), NATS_OK);
        assert_int_equal(event_bus_nats_wire_set_options(&wire, options), NATS_OK);
        atomic_store(&threads_left, count);
        assert_int_equal(natsConnection_Connect(&nc, options), NATS_SYS_ERROR);
        atomic_store(&threads_left, INT_MAX);
        event_bus_nats_wire_close(&wire);
        assert_int_equal(natsConnection_Connect(&nc, options), NATS_OK);
        assert_int_equal(natsConnection_FlushTimeout(nc, 5000), NATS_OK);
        event_bus_nats_wire_close(&wire);
        natsConnection_Destroy(nc);
        natsOptions_Destroy(options);
        event_bus_nats_wire_fini(&wire);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(connecting_fails_and_leaves_none, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
