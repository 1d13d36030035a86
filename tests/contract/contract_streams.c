/* Streams: declaring, drift, limits, reading back. */
#include "contract.h"

#include <stdio.h>

static const char *const orders[] = {"orders.>"};

static struct event_bus_stream_options orders_options(void)
{
    return (struct event_bus_stream_options){
        .name = "ORDERS", .subjects = orders, .subject_count = 1};
}

static void stream_declared_twice_is_one_stream(void **state)
{
    struct contract *c = *state;
    const struct event_bus_stream_options options = orders_options();
    struct event_bus_stream_info info;

    contract_stream_with(c, &options);
    contract_publish(c, "orders.a", "1");
    assert_ok(event_bus_declare_stream(c->bus, &options, EVENT_BUS_CREATE, NULL));
    assert_ok(event_bus_declare_stream(c->bus, &options, EVENT_BUS_VERIFY, NULL));
    assert_ok(event_bus_declare_stream(c->bus, &options, EVENT_BUS_APPLY, NULL));
    assert_ok(event_bus_stream_info(c->bus, "ORDERS", &info, NULL));
    assert_string_equal(info.name, "ORDERS");
    assert_string_equal(info.subjects, "orders.>");
    assert_int_equal(info.messages, 1);
    assert_int_equal(info.first_seq, 1);
    assert_int_equal(info.last_seq, 1);
    assert_true(info.bytes > 0);
    assert_true(info.created_wall_ns > 0);
}

static void stream_that_is_absent_is_told(void **state)
{
    struct contract *c = *state;
    const struct event_bus_stream_options options = orders_options();
    struct event_bus_stream_info info;
    struct event_bus_delivery *delivery;
    struct wb_why why = {{0}};
    char name[EVENT_BUS_NAME_MAX + 1];

    assert_err(event_bus_declare_stream(c->bus, &options, EVENT_BUS_VERIFY, &why), WB_NO_STREAM);
    assert_non_null(strstr(why.text, "ORDERS"));
    assert_err(event_bus_stream_info(c->bus, "ORDERS", &info, NULL), WB_NO_STREAM);
    assert_err(event_bus_delete_stream(c->bus, "ORDERS", NULL), WB_NO_STREAM);
    assert_err(event_bus_get(c->bus, "ORDERS", 1, &delivery, NULL), WB_NO_STREAM);
    assert_err(event_bus_stream_for(c->bus, wb_str("orders.a"), name, NULL), WB_NO_STREAM);
}

static void stream_that_drifted_is_a_conflict_until_applied(void **state)
{
    struct contract *c = *state;
    static const char *const wider[] = {"orders.>", "returns.>"};
    struct event_bus_stream_options options = orders_options();
    struct wb_why why = {{0}};

    contract_stream_with(c, &options);
    options.subjects = wider;
    options.subject_count = 2;
    options.max_age_ns = 3600 * WB_SEC;
    assert_err(event_bus_declare_stream(c->bus, &options, EVENT_BUS_VERIFY, NULL), WB_CONFLICT);
    assert_err(event_bus_declare_stream(c->bus, &options, EVENT_BUS_CREATE, &why), WB_CONFLICT);
    assert_non_null(strstr(why.text, "returns.>"));
    assert_err(contract_publish_id(c, "returns.a", "1", NULL, NULL), WB_NO_STREAM);

    assert_ok(event_bus_declare_stream(c->bus, &options, EVENT_BUS_APPLY, NULL));
    assert_ok(event_bus_declare_stream(c->bus, &options, EVENT_BUS_VERIFY, NULL));
    assert_int_equal(contract_publish(c, "returns.a", "1"), 1);
}

static void stream_whose_subjects_overlap_anothers_is_a_conflict(void **state)
{
    struct contract *c = *state;
    static const char *const overlapping[] = {"invoices.>", "orders.eu.*"};
    const struct event_bus_stream_options options = {
        .name = "OTHER", .subjects = overlapping, .subject_count = 2};
    struct event_bus_stream_info info;

    contract_stream(c, "ORDERS", "orders.>");
    assert_err(event_bus_declare_stream(c->bus, &options, EVENT_BUS_CREATE, NULL), WB_CONFLICT);
    assert_err(event_bus_stream_info(c->bus, "OTHER", &info, NULL), WB_NO_STREAM);
}

static void refuse(struct contract *c, struct event_bus_stream_options options)
{
    struct wb_why why = {{0}};

    assert_err(event_bus_declare_stream(c->bus, &options, EVENT_BUS_CREATE, &why), WB_INVALID);
    assert_true(why.text[0] != '\0');
}

static void stream_with_invalid_options_is_refused(void **state)
{
    struct contract *c = *state;
    static const char *const twice[] = {"orders.>", "orders.a"};
    static const char *const reserved[] = {"$JS.API.>"};
    static const char *const mixed[] = {"orders.a*"};
    struct event_bus_stream_options options = orders_options();

    options.name = "with blank";
    refuse(c, options);
    options.name = "with.dot";
    refuse(c, options);
    options.name = "";
    refuse(c, options);
    options = orders_options();
    options.subject_count = 0;
    refuse(c, options);
    options.subjects = twice;
    options.subject_count = 2;
    refuse(c, options);
    options.subject_count = 1;
    options.subjects = reserved;
    refuse(c, options);
    options.subjects = mixed;
    refuse(c, options);
    options = orders_options();
    options.duplicate_window_ns = 99 * WB_MS;
    refuse(c, options);
    options.duplicate_window_ns = 2 * WB_SEC;
    options.max_age_ns = WB_SEC;
    refuse(c, options);
}

static void stream_for_a_subject_is_the_one_that_covers_it(void **state)
{
    struct contract *c = *state;
    char name[EVENT_BUS_NAME_MAX + 1] = "";

    contract_stream(c, "ORDERS", "orders.>");
    contract_stream(c, "AUTH", "auth.*");
    assert_ok(event_bus_stream_for(c->bus, wb_str("orders.eu.created"), name, NULL));
    assert_string_equal(name, "ORDERS");
    assert_ok(event_bus_stream_for(c->bus, wb_str("auth.login"), name, NULL));
    assert_string_equal(name, "AUTH");
    assert_err(event_bus_stream_for(c->bus, wb_str("auth"), name, NULL), WB_NO_STREAM);
    assert_err(event_bus_stream_for(c->bus, wb_str("auth.*"), name, NULL), WB_INVALID);
}

static void stream_made_anew_starts_from_one_and_shows_it(void **state)
{
    struct contract *c = *state;
    struct event_bus_stream_info before;
    struct event_bus_stream_info after;

    contract_stream(c, "ORDERS", "orders.>");
    contract_publish(c, "orders.a", "1");
    assert_ok(event_bus_stream_info(c->bus, "ORDERS", &before, NULL));
    assert_ok(event_bus_delete_stream(c->bus, "ORDERS", NULL));
    assert_err(contract_publish_id(c, "orders.a", "1", NULL, NULL), WB_NO_STREAM);
    contract_stream(c, "ORDERS", "orders.>");
    assert_int_equal(contract_publish(c, "orders.a", "1"), 1);
    assert_ok(event_bus_stream_info(c->bus, "ORDERS", &after, NULL));
    assert_true(after.created_wall_ns != before.created_wall_ns);
}

/* ---- limits ---------------------------------------------------------------------------------- */

static wb_err publish_briefly(struct contract *c, const char *msg_id,
                              struct event_bus_ack_info *ret_ack)
{
    const struct event_bus_publish_options options = {.timeout_ns = 300 * WB_MS};
    const struct message msg = {.subject = wb_str("orders.a"), .msg_id = wb_str(msg_id)};

    return event_bus_publish(c->bus, &msg, &options, ret_ack, NULL);
}

static void stream_that_is_full_refuses_but_knows_its_ids(void **state)
{
    struct contract *c = *state;
    struct event_bus_stream_options options = orders_options();
    struct event_bus_ack_info ack;

    options.max_messages = 2;
    contract_stream_with(c, &options);
    assert_ok(publish_briefly(c, "id-1", &ack));
    assert_ok(publish_briefly(c, "id-2", &ack));
    assert_err(publish_briefly(c, NULL, &ack), WB_FULL);
    assert_err(publish_briefly(c, "id-3", &ack), WB_FULL);
    assert_ok(publish_briefly(c, "id-1", &ack));
    assert_true(ack.duplicate);
    assert_int_equal(ack.sequence, 1);
}

static void stream_that_was_full_takes_the_refused_id_later(void **state)
{
    struct contract *c = *state;
    struct event_bus_stream_options options = orders_options();
    struct event_bus_ack_info ack;

    options.max_messages = 1;
    contract_stream_with(c, &options);
    assert_ok(publish_briefly(c, "id-1", &ack));
    assert_err(publish_briefly(c, "id-2", &ack), WB_FULL);
    options.max_messages = 10;
    assert_ok(event_bus_declare_stream(c->bus, &options, EVENT_BUS_APPLY, NULL));
    assert_ok(publish_briefly(c, "id-2", &ack));
    assert_false(ack.duplicate);
    assert_int_equal(ack.sequence, 2);
}

static void stream_that_discards_old_keeps_the_newest(void **state)
{
    struct contract *c = *state;
    struct event_bus_stream_options options = orders_options();
    struct event_bus_stream_info info;
    struct event_bus_delivery *delivery;

    options.max_messages = 3;
    options.discard_old = true;
    contract_stream_with(c, &options);
    for (int i = 0; i < 5; i++)
        contract_publish(c, "orders.a", "x");
    assert_ok(event_bus_stream_info(c->bus, "ORDERS", &info, NULL));
    assert_int_equal(info.messages, 3);
    assert_int_equal(info.first_seq, 3);
    assert_int_equal(info.last_seq, 5);
    assert_err(event_bus_get(c->bus, "ORDERS", 2, &delivery, NULL), WB_NOT_FOUND);

    struct event_bus_subscription *s = contract_poll(c, "orders.>", NULL);
    contract_expect(s, 3, 1);
    contract_expect(s, 4, 1);
    contract_expect(s, 5, 1);
    event_bus_unsubscribe(s);
}

static bool is_gone(void *ctx)
{
    struct contract *c = ctx;
    struct event_bus_delivery *delivery;
    wb_err err = event_bus_get(c->bus, "ORDERS", 1, &delivery, NULL);

    if (err == WB_OK)
        event_bus_release(delivery);
    return err == WB_NOT_FOUND;
}

static void stream_forgets_what_is_older_than_max_age(void **state)
{
    struct contract *c = *state;
    struct event_bus_stream_options options = orders_options();

    options.max_age_ns = 200 * WB_MS;
    contract_stream_with(c, &options);
    contract_publish(c, "orders.a", "old");
    assert_true(test_wait(is_gone, c, (int)(CONTRACT_PATIENCE_NS / WB_MS)));
    assert_int_equal(contract_publish(c, "orders.a", "new"), 2);
}

static void stream_with_max_message_size_refuses_larger(void **state)
{
    struct contract *c = *state;
    struct event_bus_stream_options options = orders_options();

    options.max_message_size = 40;
    contract_stream_with(c, &options);
    assert_int_equal(contract_publish(c, "orders.a", "0123456789012345678901234567890123456789"),
                     1);
    assert_err(
        contract_publish_id(c, "orders.a", "01234567890123456789012345678901234567890", NULL, NULL),
        WB_TOO_BIG);
    assert_err(contract_publish_id(c, "orders.a", "01234567890123456789", "headers-count", NULL),
               WB_TOO_BIG);
}

/* ---- reading back ---------------------------------------------------------------------------- */

static void get_reads_what_was_stored(void **state)
{
    struct contract *c = *state;
    struct event_bus_delivery *delivery;
    const struct message_header headers[] = {{wb_str("kind"), wb_str("test")}};
    const struct message msg = {.subject = wb_str("orders.eu"),
                                .payload = {"body", 4},
                                .headers = headers,
                                .header_count = 1,
                                .msg_id = wb_str("id-7")};

    contract_stream(c, "ORDERS", "orders.>");
    contract_publish(c, "orders.a", "1");
    assert_ok(event_bus_publish(c->bus, &msg, NULL, NULL, NULL));
    assert_ok(event_bus_get(c->bus, "ORDERS", 2, &delivery, NULL));
    assert_true(wb_str_eq(delivery->message.subject, msg.subject));
    assert_int_equal(delivery->message.payload.len, 4);
    assert_memory_equal(delivery->message.payload.ptr, "body", 4);
    assert_true(wb_str_eq(delivery->message.msg_id, msg.msg_id));
    assert_true(wb_str_eq(message_header(&delivery->message, "Kind"), wb_str("test")));
    assert_true(wb_str_eq(delivery->stream, wb_str("ORDERS")));
    assert_int_equal(delivery->sequence, 2);
    assert_int_equal(delivery->deliveries, 0);
    assert_err(event_bus_ack(delivery), WB_MISUSE);
    event_bus_release(delivery);
    assert_err(event_bus_get(c->bus, "ORDERS", 3, &delivery, NULL), WB_NOT_FOUND);
    assert_err(event_bus_get(c->bus, "ORDERS", 0, &delivery, NULL), WB_NOT_FOUND);
}

static const struct contract_case cases[] = {
    CONTRACT_CASE(stream_declared_twice_is_one_stream),
    CONTRACT_CASE(stream_that_is_absent_is_told),
    CONTRACT_CASE(stream_that_drifted_is_a_conflict_until_applied),
    CONTRACT_CASE(stream_whose_subjects_overlap_anothers_is_a_conflict),
    CONTRACT_CASE(stream_with_invalid_options_is_refused),
    CONTRACT_CASE(stream_for_a_subject_is_the_one_that_covers_it),
    CONTRACT_CASE(stream_made_anew_starts_from_one_and_shows_it),
    CONTRACT_CASE(stream_that_is_full_refuses_but_knows_its_ids),
    CONTRACT_CASE(stream_that_was_full_takes_the_refused_id_later),
    CONTRACT_CASE(stream_that_discards_old_keeps_the_newest),
    CONTRACT_CASE(stream_forgets_what_is_older_than_max_age),
    CONTRACT_CASE(stream_with_max_message_size_refuses_larger),
    CONTRACT_CASE(get_reads_what_was_stored),
};

const struct contract_cases contract_stream_cases = {cases, sizeof(cases) / sizeof(cases[0])};
