/* What a server refuses, and how the bus says so: what, where, and what to do. */
#include "event_bus_nats_fixture.h"

#include <signal.h>

#include <waybill/observe.h>

static wb_err publish(struct event_bus *bus, const char *subject, size_t size, struct wb_why *why)
{
    static char payload[64 * 1024];
    const struct message msg = {.subject = wb_str(subject), .payload = {payload, size}};

    assert_true(size <= sizeof(payload));
    return event_bus_publish(bus, &msg, NULL, NULL, why);
}

/* ---- the server ------------------------------------------------------------------------------ */

static void jetstream_switched_off_is_told_apart(void **state)
{
    struct test_nats server;
    struct event_bus *bus = NULL;
    struct event_bus_health health;
    struct wb_why why = {""};

    (void)state;
    test_nats_start(&server, &(struct test_nats_options){.no_jetstream = true});
    const struct event_bus_nats_options options = {.url = server.url};
    assert_err(event_bus_nats_create(&options, true, &bus, &why), WB_NO_JETSTREAM);
    assert_null(bus);
    assert_non_null(strstr(why.text, "-js"));
    assert_ok(event_bus_nats_create(&options, false, &bus, NULL));
    assert_true(test_wait(is_connected, bus, PATIENCE_MS));
    event_bus_health(bus, &health);
    assert_non_null(strstr(health.problem, "JetStream"));
    int64_t begin = mono_ns();
    assert_err(publish(bus, "orders.a", 1, &why), WB_NO_JETSTREAM);
    assert_true(mono_ns() - begin < 2 * WB_SEC);
    assert_non_null(strstr(why.text, "-js"));
    event_bus_destroy(bus);
    test_nats_stop(&server);
}

static void unreachable_server_is_told_within_the_time_to_connect(void **state)
{
    struct world *w = *state;
    const struct event_bus_nats_options options = {.url = w->server.url,
                                                   .connect_timeout_ns = 500 * WB_MS};
    struct event_bus *bus = NULL;
    struct wb_why why = {""};

    test_nats_kill(&w->server);
    int64_t begin = mono_ns();
    assert_err(event_bus_nats_create(&options, true, &bus, &why), WB_UNREACHABLE);
    assert_true(mono_ns() - begin < 3 * WB_SEC);
    assert_non_null(strstr(why.text, w->server.url));
    assert_null(bus);
}

static bool publish_says_unreachable(void *bus)
{
    wb_err err = publish(bus, "orders.a", 1, NULL);

    assert_true(err == WB_UNREACHABLE || err == WB_UNKNOWN);
    return err == WB_UNREACHABLE;
}

static void subscribe_and_publish_while_away_say_unreachable(void **state)
{
    struct world *w = *state;
    const char *pattern = "orders.>";
    const struct event_bus_subscription_options options = {.patterns = &pattern,
                                                           .pattern_count = 1};
    struct event_bus_subscription *subscription = NULL;
    struct event_bus_stream_info info;
    struct wb_why why = {""};

    make_stream(w->bus, "ORDERS", "orders.>");
    test_nats_kill(&w->server);
    assert_true(test_wait(is_disconnected, w->bus, PATIENCE_MS));
    assert_err(event_bus_subscribe(w->bus, &options, &subscription, &why), WB_UNREACHABLE);
    assert_non_null(strstr(why.text, w->server.url));
    /* Publishing has a connection of its own, which may notice a moment later. */
    assert_true(test_wait(publish_says_unreachable, w->bus, PATIENCE_MS));
    assert_err(event_bus_stream_info(w->bus, "ORDERS", &info, NULL), WB_UNREACHABLE);
    test_nats_restart(&w->server);
}

/* ---- credentials ----------------------------------------------------------------------------- */

/* The configuration as it was, but for who may come in; then have the server read it. */
static void change_authorization(const struct test_nats *server, const char *line)
{
    char *conf = test_file_read(server->conf, NULL);
    char *old = strstr(conf, "authorization");

    assert_non_null(old);
    *old = '\0';
    FILE *file = fopen(server->conf, "w");
    assert_non_null(file);
    (void)fprintf(file, "%s%s\n", conf, line);
    assert_int_equal(fclose(file), 0);
    free(conf);
    assert_int_equal(kill(server->pid, SIGHUP), 0);
}

static void refused_credentials_work_once_they_are_put_right(void **state)
{
    struct test_nats server;
    struct event_bus *bus = NULL;
    struct event_bus_health health;
    struct wb_why why = {""};

    (void)state;
    test_nats_start(&server,
                    &(struct test_nats_options){
                        .conf = "authorization: { user: bob, password: \"another secret\" }"});
    const struct event_bus_nats_options options = {
        .url = server.url, .user = "bob", .password = "hunter2"};
    assert_err(event_bus_nats_create(&options, true, &bus, &why), WB_DENIED);
    assert_null(strstr(why.text, "hunter2"));
    assert_ok(event_bus_nats_create(&options, false, &bus, NULL));
    event_bus_health(bus, &health);
    assert_false(health.connected);
    assert_non_null(strstr(health.problem, "password"));

    change_authorization(&server, "authorization: { user: bob, password: hunter2 }");
    assert_true(test_wait(is_connected, bus, PATIENCE_MS));
    make_stream(bus, "ORDERS", "orders.>");
    assert_ok(publish(bus, "orders.a", 1, NULL));

    change_authorization(&server,
                         "authorization: { user: bob, password: \"changed while we were in\" }");
    assert_true(test_wait(is_disconnected, bus, PATIENCE_MS));
    change_authorization(&server, "authorization: { user: bob, password: hunter2 }");
    assert_true(test_wait(is_connected, bus, PATIENCE_MS));
    assert_ok(publish(bus, "orders.a", 1, NULL));
    event_bus_destroy(bus);
    test_nats_stop(&server);
}

static void seed_file_lets_its_user_in(void **state)
{
    struct test_nats server;
    struct event_bus *bus = NULL;
    char dir[256];
    char path[300];
    struct wb_why why = {""};

    (void)state;
    test_dir_make(dir);
    (void)snprintf(path, sizeof(path), "%s/seed", dir);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    /* The pair stands in the documentation of NATS. */
    (void)fprintf(file, "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY\n");
    assert_int_equal(fclose(file), 0);
    test_nats_start(&server,
                    &(struct test_nats_options){
                        .conf = "authorization: { users: [ { nkey: "
                                "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4 } ] }"});
    const struct event_bus_nats_options options = {.url = server.url, .nkey_seed_file = path};
    if (event_bus_nats_create(&options, true, &bus, &why) != WB_OK)
        fail_msg("%s", why.text);
    event_bus_destroy(bus);
    test_nats_stop(&server);
    test_dir_remove(dir);
}

#define RIGHTS                                                                                     \
    "authorization: { users: [ { user: admin, password: a }, { user: shop, password: s, "          \
    "permissions: { publish: { allow: [\"orders.>\", \"$JS.>\"], deny: "                           \
    "[\"$JS.API.STREAM.DELETE.>\"] }, subscribe: \"_INBOX.>\" } } ] }"

static void missing_rights_are_told_at_once_and_counted(void **state)
{
    struct test_nats server;
    struct event_bus *admin = NULL;
    struct event_bus *bus = NULL;
    struct observe *observe = NULL;
    struct event_bus_health health;
    struct wb_why why = {""};

    (void)state;
    test_nats_start(&server, &(struct test_nats_options){.conf = RIGHTS});
    assert_ok(observe_create(&observe));
    const struct event_bus_nats_options as_admin = {
        .url = server.url, .user = "admin", .password = "a"};
    const struct event_bus_nats_options as_shop = {
        .url = server.url, .user = "shop", .password = "s", .observe = observe};
    assert_ok(event_bus_nats_create(&as_admin, true, &admin, NULL));
    make_stream(admin, "ALL", "*.>");
    assert_ok(event_bus_nats_create(&as_shop, true, &bus, NULL));
    assert_ok(publish(bus, "orders.a", 1, NULL));

    int64_t begin = mono_ns();
    assert_err(publish(bus, "salaries.a", 1, &why), WB_DENIED);
    assert_true(mono_ns() - begin < 2 * WB_SEC);
    assert_non_null(strstr(why.text, "salaries.a"));
    event_bus_health(bus, &health);
    assert_true(health.connected);
    assert_non_null(strstr(health.problem, "salaries.a"));
    assert_int_equal(observe_value(observe_series(observe, OBSERVE_BUS_ASYNC_ERRORS, NULL)), 1);

    assert_err(event_bus_delete_stream(bus, "ALL", &why), WB_DENIED);
    assert_non_null(strstr(why.text, "$JS.API.STREAM.DELETE.ALL"));
    assert_ok(publish(bus, "orders.a", 1, NULL));
    event_bus_destroy(bus);
    event_bus_destroy(admin);
    observe_destroy(observe);
    test_nats_stop(&server);
}

/* ---- sizes and limits ------------------------------------------------------------------------ */

static void limits_of_server_and_stream_are_told(void **state)
{
    struct test_nats server;
    const char *subject = "orders.>";
    const struct event_bus_stream_options small = {.name = "ORDERS",
                                                   .subjects = &subject,
                                                   .subject_count = 1,
                                                   .max_messages = 3,
                                                   .max_message_size = 1000};
    struct event_bus_health health;
    struct wb_why why = {""};

    (void)state;
    test_nats_start(&server, &(struct test_nats_options){.conf = "max_payload: 4096"});
    struct event_bus *bus = make_bus(&server);
    event_bus_health(bus, &health);
    assert_int_equal(health.max_payload, 4096);
    assert_ok(event_bus_declare_stream(bus, &small, EVENT_BUS_CREATE, NULL));
    assert_err(publish(bus, "orders.a", 4097, &why), WB_TOO_BIG);
    assert_err(publish(bus, "orders.a", 1001, &why), WB_TOO_BIG);
    assert_non_null(strstr(why.text, "10054"));
    for (int i = 0; i < 3; i++)
        assert_ok(publish(bus, "orders.a", 900, NULL));
    assert_err(publish(bus, "orders.a", 900, &why), WB_FULL);
    event_bus_destroy(bus);
    test_nats_stop(&server);
}

static void note_done(void *ctx, wb_err err, const struct event_bus_ack_info *ack,
                      const struct wb_why *why)
{
    (void)err;
    (void)ack;
    (void)why;
    atomic_store((atomic_bool *)ctx, true);
}

static bool is_done(void *ctx)
{
    return atomic_load((atomic_bool *)ctx);
}

static void full_window_waits_for_its_deadline_and_says_full(void **state)
{
    struct world *w = *state;
    const struct event_bus_nats_options narrow = {.url = w->server.url, .publish_window = 1};
    const struct event_bus_publish_options patient = {.timeout_ns = PATIENCE_NS};
    const struct event_bus_publish_options hasty = {.timeout_ns = 300 * WB_MS};
    const struct message msg = {.subject = wb_str("orders.a")};
    struct event_bus *bus = NULL;
    struct wb_why why = {""};
    atomic_bool done = false;

    make_stream(w->bus, "ORDERS", "orders.>");
    assert_ok(event_bus_nats_create(&narrow, true, &bus, NULL));
    test_nats_pause(&w->server);
    assert_ok(event_bus_publish_async(bus, &msg, &patient, note_done, &done, NULL));
    int64_t begin = mono_ns();
    wb_err err = event_bus_publish_async(bus, &msg, &hasty, note_done, &done, &why);
    int64_t took = mono_ns() - begin;
    test_nats_resume(&w->server);
    assert_err(err, WB_FULL);
    assert_true(took >= 290 * WB_MS && took < 2 * WB_SEC);
    assert_non_null(strstr(why.text, "window"));
    assert_true(test_wait(is_done, &done, PATIENCE_MS));
    event_bus_destroy(bus);
}

/* ---- streams --------------------------------------------------------------------------------- */

static void drift_is_told_with_what_differs(void **state)
{
    struct world *w = *state;
    const char *subjects[] = {"orders.>", "returns.>"};
    struct event_bus_stream_options options = {
        .name = "ORDERS", .subjects = subjects, .subject_count = 2};
    struct event_bus_stream_info info;
    struct wb_why why = {""};

    assert_err(event_bus_declare_stream(w->bus, &options, EVENT_BUS_VERIFY, &why), WB_NO_STREAM);
    assert_ok(event_bus_declare_stream(w->bus, &options, EVENT_BUS_CREATE, NULL));
    assert_ok(event_bus_declare_stream(w->bus, &options, EVENT_BUS_VERIFY, NULL));
    const char *turned[] = {"returns.>", "orders.>"};
    options.subjects = turned; /* their order does not matter */
    assert_ok(event_bus_declare_stream(w->bus, &options, EVENT_BUS_CREATE, NULL));

    options.max_age_ns = 3600 * WB_SEC;
    options.subject_count = 1;
    assert_err(event_bus_declare_stream(w->bus, &options, EVENT_BUS_CREATE, &why), WB_CONFLICT);
    assert_non_null(strstr(why.text, "max_age"));
    assert_non_null(strstr(why.text, "subjects"));
    assert_null(strstr(why.text, "max_bytes"));
    assert_ok(event_bus_declare_stream(w->bus, &options, EVENT_BUS_APPLY, NULL));
    assert_ok(event_bus_declare_stream(w->bus, &options, EVENT_BUS_VERIFY, NULL));
    assert_ok(event_bus_stream_info(w->bus, "ORDERS", &info, NULL));
    assert_string_equal(info.subjects, "returns.>");
}

static void overlapping_subjects_are_a_conflict(void **state)
{
    struct world *w = *state;
    const char *subject = "orders.a";
    const struct event_bus_stream_options options = {
        .name = "OTHER", .subjects = &subject, .subject_count = 1};
    struct wb_why why = {""};

    make_stream(w->bus, "ORDERS", "orders.>");
    assert_err(event_bus_declare_stream(w->bus, &options, EVENT_BUS_CREATE, &why), WB_CONFLICT);
    assert_non_null(strstr(why.text, "overlap"));
}

static void stream_that_reserves_too_much_says_what_to_change(void **state)
{
    struct world *w = *state;
    const char *subject = "orders.>";
    const struct event_bus_stream_options options = {
        .name = "ORDERS", .subjects = &subject, .subject_count = 1, .max_bytes = UINT64_C(1) << 50};
    struct wb_why why = {""};

    assert_err(event_bus_declare_stream(w->bus, &options, EVENT_BUS_CREATE, &why), WB_FULL);
    assert_non_null(strstr(why.text, "max_bytes"));
    assert_non_null(strstr(why.text, "max_file_store"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jetstream_switched_off_is_told_apart),
        cmocka_unit_test_setup_teardown(unreachable_server_is_told_within_the_time_to_connect,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(subscribe_and_publish_while_away_say_unreachable, setup,
                                        teardown),
        cmocka_unit_test(refused_credentials_work_once_they_are_put_right),
        cmocka_unit_test(seed_file_lets_its_user_in),
        cmocka_unit_test(missing_rights_are_told_at_once_and_counted),
        cmocka_unit_test(limits_of_server_and_stream_are_told),
        cmocka_unit_test_setup_teardown(full_window_waits_for_its_deadline_and_says_full, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(drift_is_told_with_what_differs, setup, teardown),
        cmocka_unit_test_setup_teardown(overlapping_subjects_are_a_conflict, setup, teardown),
        cmocka_unit_test_setup_teardown(stream_that_reserves_too_much_says_what_to_change, setup,
                                        teardown),
    };
    return cmocka_run_group_tests_name("event_bus_nats refusal", tests, NULL, NULL);
}
