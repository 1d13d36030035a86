/* The configured bus on a real server. */
#include "test_support.h"

#include <stdio.h>

#include <waybill/event_bus_factory.h>

static struct config *load(const char *format, const char *url)
{
    struct config *config = NULL;
    struct wb_why why = {""};

    assert_ok(config_create(event_bus_factory_keys, event_bus_factory_key_count, &config));
    if (config_load_text(config, "test.conf", wb_str(format), &why) != WB_OK)
        fail_msg("%s", why.text);
    assert_ok(config_set(config, "nats.url", url, "--url", NULL));
    return config;
}

static void configured_streams_stand_on_the_configured_server(void **state)
{
    struct test_nats server;
    struct event_bus *bus = NULL;
    struct event_bus_stream_info info;
    struct wb_why why = {""};

    (void)state;
    test_nats_start(&server, &(struct test_nats_options){
                                 .conf = "authorization: { user: bob, password: hunter2 }"});
    struct config *config =
        load("bus = \"nats\"\n[nats]\nuser = \"bob\"\npassword = \"hunter2\"\n[stream.ORDERS]\n"
             "subjects = \"orders.> returns.>\"\nmax_age = \"1h\"\nduplicate_window = \"2m\"\n",
             server.url);
    if (event_bus_factory_create(config, NULL, true, &bus, &why) != WB_OK)
        fail_msg("%s", why.text);
    assert_string_equal(event_bus_kind(bus), "nats");
    assert_err(event_bus_factory_declare(config, bus, EVENT_BUS_VERIFY, NULL), WB_NO_STREAM);
    assert_ok(event_bus_factory_declare(config, bus, EVENT_BUS_CREATE, NULL));
    assert_ok(event_bus_factory_declare(config, bus, EVENT_BUS_VERIFY, NULL));
    assert_ok(event_bus_stream_info(bus, "ORDERS", &info, NULL));
    assert_string_equal(info.subjects, "orders.> returns.>");
    event_bus_destroy(bus);
    config_destroy(config);
    test_nats_stop(&server);
}

static void wrong_password_is_denied_and_not_told(void **state)
{
    struct test_nats server;
    struct event_bus *bus = NULL;
    struct wb_why why = {""};

    (void)state;
    test_nats_start(&server, &(struct test_nats_options){
                                 .conf = "authorization: { user: bob, password: another }"});
    struct config *config =
        load("bus = \"nats\"\n[nats]\nuser = \"bob\"\npassword = \"hunter2\"\n", server.url);
    assert_err(event_bus_factory_create(config, NULL, true, &bus, &why), WB_DENIED);
    assert_null(strstr(why.text, "hunter2"));
    config_destroy(config);
    test_nats_stop(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(configured_streams_stand_on_the_configured_server),
        cmocka_unit_test(wrong_password_is_denied_and_not_told),
    };
    return cmocka_run_group_tests_name("event_bus_factory nats", tests, NULL, NULL);
}
