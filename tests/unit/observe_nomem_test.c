/* Without memory nothing is counted, and nothing breaks. */
#include <waybill/observe.h>

#include "test_nomem.h"
#include "test_support.h"

static void create_without_memory_says_so(void **state)
{
    struct observe *observe = NULL;

    (void)state;
    test_nomem_after(0);
    assert_err(observe_create(&observe), WB_NOMEM);
    test_nomem_after(-1);
    assert_null(observe);
}

static void series_without_memory_counts_into_the_void_and_later_for_real(void **state)
{
    struct observe *observe;

    (void)state;
    assert_ok(observe_create(&observe));
    test_nomem_after(0);
    struct observe_series *nowhere = observe_series(observe, OBSERVE_BUS_RECONNECTS, NULL);
    test_nomem_after(-1);
    assert_ptr_equal(nowhere, observe_series(NULL, OBSERVE_BUS_RECONNECTS, NULL));
    observe_add(nowhere, 1);
    struct observe_series *real = observe_series(observe, OBSERVE_BUS_RECONNECTS, NULL);
    assert_ptr_not_equal(real, nowhere);
    assert_int_equal(observe_value(real), 0);
    observe_destroy(observe);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(create_without_memory_says_so),
        cmocka_unit_test(series_without_memory_counts_into_the_void_and_later_for_real),
    };
    return cmocka_run_group_tests_name("observe_nomem", tests, NULL, NULL);
}
