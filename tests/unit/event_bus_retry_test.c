/* Blocking publish: what is tried again, how, and when it stops. */
#include "event_bus_fake.h"

static wb_err publish(struct fake_bus *fake, const char *id, int64_t timeout_ns, bool expect)
{
    const struct message msg = {.subject = wb_str("a.b"), .msg_id = wb_str(id)};
    const struct event_bus_publish_options options = {.timeout_ns = timeout_ns,
                                                      .expect_last_seq = expect};

    return event_bus_publish(&fake->base, &msg, &options, NULL, NULL);
}

static void script(struct fake_bus *fake, const wb_err *answers, size_t count)
{
    memcpy(fake->script, answers, count * sizeof(*answers));
    fake->script_count = count;
    fake->publishes = 0;
}

#define SCRIPT(fake, ...)                                                                          \
    script(fake, (const wb_err[]){__VA_ARGS__},                                                    \
           sizeof((const wb_err[]){__VA_ARGS__}) / sizeof(wb_err))

static void publish_with_an_id_is_tried_again_under_it(void **state)
{
    struct fake_bus fake;

    (void)state;
    fake_init(&fake, 1, NULL, NULL);
    SCRIPT(&fake, WB_TIMEOUT, WB_UNKNOWN, WB_UNREACHABLE, WB_FULL, WB_OK);
    assert_ok(publish(&fake, "id-1", 20 * WB_SEC, false));
    assert_int_equal(fake.publishes, 5);
    assert_string_equal(fake.last_id, "id-1");
    for (size_t i = 1; i < 5; i++) /* with a pause, so that an outage is no storm */
        assert_true(fake.published_at_ns[i] - fake.published_at_ns[i - 1] >= 10 * WB_MS);

    fake.refuse_at_once = true;
    SCRIPT(&fake, WB_UNREACHABLE, WB_OK);
    assert_ok(publish(&fake, "id-2", 20 * WB_SEC, false));
    assert_int_equal(fake.publishes, 2);
    event_bus_destroy(&fake.base);
}

static void publish_that_may_be_doubled_or_reordered_is_sent_once(void **state)
{
    struct fake_bus fake;

    (void)state;
    fake_init(&fake, 1, NULL, NULL);
    SCRIPT(&fake, WB_UNREACHABLE, WB_OK);
    assert_err(publish(&fake, NULL, 20 * WB_SEC, false), WB_UNREACHABLE);
    assert_int_equal(fake.publishes, 1);
    SCRIPT(&fake, WB_UNKNOWN, WB_OK);
    assert_err(publish(&fake, "id", 20 * WB_SEC, true), WB_UNKNOWN);
    assert_int_equal(fake.publishes, 1);
    event_bus_destroy(&fake.base);
}

static void publish_that_cannot_succeed_is_not_tried_again(void **state)
{
    static const wb_err final[] = {WB_NO_STREAM, WB_NO_JETSTREAM, WB_TOO_BIG,
                                   WB_DENIED,    WB_CONFLICT,     WB_CLOSED};
    struct fake_bus fake;

    (void)state;
    fake_init(&fake, 1, NULL, NULL);
    for (size_t i = 0; i < sizeof(final) / sizeof(final[0]); i++) {
        SCRIPT(&fake, final[i], WB_OK);
        assert_err(publish(&fake, "id", 20 * WB_SEC, false), final[i]);
        assert_int_equal(fake.publishes, 1);
    }
    event_bus_destroy(&fake.base);
}

static void publish_says_unknown_when_an_earlier_attempt_may_be_stored(void **state)
{
    struct fake_bus fake;

    (void)state;
    fake_init(&fake, 1, NULL, NULL);
    SCRIPT(&fake, WB_UNREACHABLE);
    assert_err(publish(&fake, "id", 100 * WB_MS, false), WB_UNREACHABLE);
    assert_true(fake.publishes > 1);
    SCRIPT(&fake, WB_TIMEOUT, WB_UNREACHABLE);
    assert_err(publish(&fake, "id", 100 * WB_MS, false), WB_UNKNOWN);
    event_bus_destroy(&fake.base);
}

struct publishing {
    struct fake_bus *fake;
    wb_err err;
};

static void *publish_for_long(void *ctx)
{
    struct publishing *publishing = ctx;

    publishing->err = publish(publishing->fake, "id", 3600 * WB_SEC, false);
    return NULL;
}

static bool has_tried(void *ctx)
{
    struct fake_bus *fake = ctx;

    pthread_mutex_lock(&fake->mutex);
    bool tried = fake->publishes > 2;
    pthread_mutex_unlock(&fake->mutex);
    return tried;
}

static void publish_between_two_attempts_ends_when_the_bus_closes(void **state)
{
    struct fake_bus fake;
    struct publishing publishing = {.fake = &fake};
    pthread_t thread;

    (void)state;
    fake_init(&fake, 1, NULL, NULL);
    SCRIPT(&fake, WB_UNREACHABLE);
    assert_int_equal(pthread_create(&thread, NULL, publish_for_long, &publishing), 0);
    assert_true(test_wait(has_tried, &fake, 20000));
    event_bus_close(&fake.base);
    pthread_join(thread, NULL);
    assert_true(publishing.err == WB_UNREACHABLE || publishing.err == WB_CLOSED);
    event_bus_destroy(&fake.base);
}

static void publish_in_manual_mode_is_tried_once(void **state)
{
    struct fake_bus fake;

    (void)state;
    fake_init(&fake, 0, NULL, NULL);
    SCRIPT(&fake, WB_UNREACHABLE, WB_OK);
    assert_err(publish(&fake, "id", 20 * WB_SEC, false), WB_UNREACHABLE);
    assert_int_equal(fake.publishes, 1);
    event_bus_destroy(&fake.base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(publish_with_an_id_is_tried_again_under_it),
        cmocka_unit_test(publish_that_may_be_doubled_or_reordered_is_sent_once),
        cmocka_unit_test(publish_that_cannot_succeed_is_not_tried_again),
        cmocka_unit_test(publish_says_unknown_when_an_earlier_attempt_may_be_stored),
        cmocka_unit_test(publish_between_two_attempts_ends_when_the_bus_closes),
        cmocka_unit_test(publish_in_manual_mode_is_tried_once),
    };

    return cmocka_run_group_tests_name("event_bus_retry", tests, NULL, NULL);
}
