/* What is counted is what is read, from all threads. */
#include <pthread.h>
#include <stdio.h>

#include <waybill/observe.h>

#include "test_support.h"

static struct observe *observe;

static int setup(void **state)
{
    (void)state;
    return observe_create(&observe) == WB_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    observe_destroy(observe);
    observe = NULL;
    return 0;
}

static void series_of_the_same_arguments_is_the_same(void **state)
{
    (void)state;
    struct observe_series *ok = observe_series(observe, OBSERVE_BUS_PUBLISHED, "ok");
    assert_ptr_equal(ok, observe_series(observe, OBSERVE_BUS_PUBLISHED, "ok"));
    assert_ptr_not_equal(ok, observe_series(observe, OBSERVE_BUS_PUBLISHED, "FULL"));
    assert_ptr_not_equal(ok, observe_series(observe, OBSERVE_HTTP_REQUESTS, "ok"));
    struct observe_series *plain = observe_series(observe, OBSERVE_BUS_RECONNECTS, NULL);
    assert_ptr_equal(plain, observe_series(observe, OBSERVE_BUS_RECONNECTS, ""));
    assert_ptr_equal(plain, observe_series(observe, OBSERVE_BUS_RECONNECTS, "no such label"));
}

static void counter_and_gauge_hold_what_was_put_in(void **state)
{
    (void)state;
    struct observe_series *counter = observe_series(observe, OBSERVE_BUS_RECONNECTS, NULL);
    struct observe_series *gauge = observe_series(observe, OBSERVE_BUS_IN_FLIGHT, NULL);
    observe_add(counter, 3);
    observe_add(counter, 4);
    observe_set(gauge, 10);
    observe_add(gauge, -12);
    assert_int_equal(observe_value(counter), 7);
    assert_int_equal(observe_value(gauge), -2);
}

static void gauge_in_seconds_is_kept_in_nanoseconds(void **state)
{
    (void)state;
    struct observe_series *gauge = observe_series(observe, OBSERVE_OUTBOX_OLDEST, "main");
    observe_set(gauge, 2);
    assert_int_equal(observe_value(gauge), 2 * WB_SEC);
    observe_add(gauge, 1);
    assert_int_equal(observe_value(gauge), 3 * WB_SEC);
    observe_set_ns(gauge, 1500 * WB_MS);
    assert_int_equal(observe_value(gauge), 1500 * WB_MS);
    observe_set(gauge, INT64_MAX); /* as large as can be, not turned over */
    assert_in_range(observe_value(gauge), INT64_MAX - WB_SEC, INT64_MAX);
}

static void series_without_registry_count_into_the_void(void **state)
{
    (void)state;
    struct observe_series *nowhere = observe_series(NULL, OBSERVE_BUS_PUBLISHED, "ok");
    assert_non_null(nowhere);
    assert_ptr_equal(nowhere, observe_series(NULL, OBSERVE_BUS_PUBLISH_SECONDS, NULL));
    observe_add(nowhere, 1);
    observe_set(nowhere, 2);
    observe_set_ns(nowhere, 3);
    observe_time(nowhere, 4);
    assert_int_equal(observe_value(nowhere), 0);
}

static void label_values_beyond_the_limit_share_other(void **state)
{
    char value[32];

    (void)state;
    for (int i = 0; i < OBSERVE_LABEL_VALUES_MAX; i++) {
        (void)snprintf(value, sizeof(value), "sub-%d", i);
        observe_add(observe_series(observe, OBSERVE_BUS_DELIVERED, value), 1);
    }
    struct observe_series *other = observe_series(observe, OBSERVE_BUS_DELIVERED, "one more");
    assert_ptr_equal(other, observe_series(observe, OBSERVE_BUS_DELIVERED, "and another"));
    assert_ptr_equal(other, observe_series(observe, OBSERVE_BUS_DELIVERED, "other"));
    observe_add(other, 5);
    assert_int_equal(observe_value(observe_series(observe, OBSERVE_BUS_DELIVERED, "sub-255")), 1);
    assert_int_equal(observe_value(other), 5);
}

static void label_values_too_long_or_no_utf8_share_other(void **state)
{
    char value[OBSERVE_LABEL_MAX + 2];

    (void)state;
    memset(value, 'x', sizeof(value));
    value[OBSERVE_LABEL_MAX + 1] = '\0';
    struct observe_series *other = observe_series(observe, OBSERVE_BUS_DELIVERED, "other");
    assert_ptr_equal(other, observe_series(observe, OBSERVE_BUS_DELIVERED, value));
    assert_ptr_equal(other, observe_series(observe, OBSERVE_BUS_DELIVERED, "\xff"));
    value[OBSERVE_LABEL_MAX] = '\0';
    assert_ptr_not_equal(other, observe_series(observe, OBSERVE_BUS_DELIVERED, value));
}

#define THREADS 4
#define ROUNDS  20000

static void *count_up(void *arg)
{
    struct observe_series *histogram = observe_series(observe, OBSERVE_BUS_PUBLISH_SECONDS, NULL);

    (void)arg;
    for (int i = 0; i < ROUNDS; i++) {
        char value[8];
        (void)snprintf(value, sizeof(value), "%d", i % 8);
        observe_add(observe_series(observe, OBSERVE_BUS_DELIVERED, value), 1);
        observe_time(histogram, i * WB_US);
    }
    return NULL;
}

static void threads_together_lose_no_count(void **state)
{
    pthread_t threads[THREADS];
    int64_t total = 0;

    (void)state;
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_up, NULL), 0);
    struct wb_buf text = {0}; /* rendered meanwhile */
    for (int i = 0; i < 20; i++) {
        wb_buf_clear(&text);
        observe_render(observe, &text);
    }
    wb_buf_free(&text);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < 8; i++) {
        char value[8];
        (void)snprintf(value, sizeof(value), "%d", i);
        total += observe_value(observe_series(observe, OBSERVE_BUS_DELIVERED, value));
    }
    assert_int_equal(total, THREADS * ROUNDS);
    assert_int_equal(observe_value(observe_series(observe, OBSERVE_BUS_PUBLISH_SECONDS, NULL)),
                     THREADS * ROUNDS);
}

static void destroy_of_null_is_a_no_op(void **state)
{
    (void)state;
    observe_destroy(NULL);
}

int main(void)
{
#define WITH_OBSERVE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        WITH_OBSERVE(series_of_the_same_arguments_is_the_same),
        WITH_OBSERVE(counter_and_gauge_hold_what_was_put_in),
        WITH_OBSERVE(gauge_in_seconds_is_kept_in_nanoseconds),
        WITH_OBSERVE(series_without_registry_count_into_the_void),
        WITH_OBSERVE(label_values_beyond_the_limit_share_other),
        WITH_OBSERVE(label_values_too_long_or_no_utf8_share_other),
        WITH_OBSERVE(threads_together_lose_no_count),
        cmocka_unit_test(destroy_of_null_is_a_no_op),
    };
    return cmocka_run_group_tests_name("observe_count", tests, NULL, NULL);
}
