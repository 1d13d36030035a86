/* The notify module: one row for each event, known by the event's id. */
#define FIXTURE_WITHOUT_OUTBOX
#include "module_fixture.h"

#include <waybill_modules/notify.h>

#define COUNT "SELECT count(*) FROM notify_notification"

FIXTURE(notify_module)

static wb_err happen(struct fixture *f, const char *subject, const char *id, uint64_t sequence,
                     struct wb_why *why)
{
    const struct message_header key = {wb_str(MESSAGE_HEADER_KEY), wb_str("user-1")};
    const struct message message = {
        .subject = wb_str(subject), .headers = &key, .header_count = 1, .msg_id = wb_str(id)};

    return fixture_event(f, &message, "AUTH", sequence, why);
}

static void notify_event_becomes_one_notification(void **state)
{
    struct fixture *f = *state;
    struct wb_why why = {""};

    assert_ok(happen(f, "auth.events.user.created", "id-1", 7, &why));
    assert_string_equal(
        fixture_text(f, "SELECT event_id || '|' || stream || '|' || subject || '|' || about || '|' "
                        "|| happened_at FROM notify_notification")
            .text,
        "id-1|AUTH|auth.events.user.created|user-1|2026-01-02T03:04:05.678Z");
}

static void notify_second_row_for_an_event_is_refused_by_the_table(void **state)
{
    struct fixture *f = *state;
    struct wb_why why = {""};

    assert_ok(happen(f, "auth.events.user.created", "id-1", 7, &why));
    assert_err(happen(f, "auth.events.user.created", "id-1", 8, &why), WB_INVALID);
    assert_ok(happen(f, "auth.events.user.created", "id-2", 8, &why));
    assert_int_equal(fixture_number(f, COUNT), 2);
}

static void notify_event_without_an_id_is_known_by_its_place(void **state)
{
    struct fixture *f = *state;
    struct wb_why why = {""};

    assert_ok(happen(f, "x.events.y.issued", NULL, UINT64_MAX, &why));
    assert_string_equal(fixture_text(f, "SELECT event_id FROM notify_notification").text,
                        "AUTH/18446744073709551615");
}

static void notify_listens_to_all_that_is_created_or_issued_and_publishes_nothing(void **state)
{
    const struct module_subscription *subscription = &notify_module.subscriptions[0];

    (void)state;
    assert_null(notify_module.stream);
    assert_string_equal(subscription->patterns[0], "*.events.*.created");
    assert_string_equal(subscription->patterns[1], "*.events.*.issued");
    assert_null(subscription->patterns[2]);
}

static void notify_list_is_bounded_newest_first_and_tells_the_total(void **state)
{
    struct fixture *f = *state;
    struct wb_why why = {""};

    assert_int_equal(fixture_get(f, "/notify/notifications", ""), 200);
    assert_string_equal(f->response.body.ptr, "{\"notifications\":[],\"total\":0}\n");
    for (uint64_t i = 1; i <= 120; i++) {
        char id[16];
        snprintf(id, sizeof(id), "id-%d", (int)i);
        assert_ok(happen(f, "ar.events.invoice.issued", id, i, &why));
    }
    assert_int_equal(fixture_get(f, "/notify/notifications", "limit=2"), 200);
    assert_body_has(f, "{\"notifications\":[{\"id\":120,\"event_id\":\"id-120\"");
    assert_body_has(f, "\"id\":119");
    assert_body_has(f, "],\"total\":120}");
    assert_null(strstr(f->response.body.ptr, "\"id\":118"));
    assert_int_equal(fixture_get(f, "/notify/notifications", ""), 200);
    assert_body_has(f, "\"id\":21,");
    assert_null(strstr(f->response.body.ptr, "\"id\":20,"));
    assert_int_equal(fixture_get(f, "/notify/notifications", "limit=1001"), 400);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(notify_event_becomes_one_notification),
        FIXTURE_TEST(notify_second_row_for_an_event_is_refused_by_the_table),
        FIXTURE_TEST(notify_event_without_an_id_is_known_by_its_place),
        FIXTURE_TEST(notify_listens_to_all_that_is_created_or_issued_and_publishes_nothing),
        FIXTURE_TEST(notify_list_is_bounded_newest_first_and_tells_the_total),
    };
    return cmocka_run_group_tests_name("module_notify", tests, NULL, NULL);
}
