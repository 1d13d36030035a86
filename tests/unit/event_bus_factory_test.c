/* From settings to a bus and its streams. */
#include "test_support.h"

#include <waybill/event_bus_factory.h>

static struct config *load(const char *text)
{
    struct config *config = NULL;
    struct wb_why why = {""};

    assert_ok(config_create(event_bus_factory_keys, event_bus_factory_key_count, &config));
    if (config_load_text(config, "test.conf", wb_str(text), &why) != WB_OK)
        fail_msg("%s", why.text);
    return config;
}

static struct event_bus *create(const struct config *config)
{
    struct event_bus *bus = NULL;
    struct wb_why why = {""};

    if (event_bus_factory_create(config, NULL, true, &bus, &why) != WB_OK)
        fail_msg("%s", why.text);
    return bus;
}

static void bus_without_settings_is_in_memory(void **state)
{
    struct config *config = load("");
    struct event_bus *bus = create(config);

    (void)state;
    assert_string_equal(event_bus_kind(bus), "memory");
    assert_string_equal(config_str(config, "nats.url"), "nats://127.0.0.1:4222");
    event_bus_destroy(bus);
    config_destroy(config);
}

static void bus_that_is_not_built_says_which_are(void **state)
{
    struct config *config = load("bus = \"dual\"\n");
    struct event_bus *bus = NULL;
    struct wb_why why = {""};

    (void)state;
    assert_err(event_bus_factory_create(config, NULL, true, &bus, &why), WB_UNSUPPORTED);
    assert_non_null(strstr(why.text, "memory"));
    assert_non_null(strstr(why.text, "nats"));
    assert_null(bus);
    config_destroy(config);
}

static void variables_of_the_nats_tools_are_honoured(void **state)
{
    static const char *const environment[] = {
        "NATS_URL=nats://there:1", "NATS_USER=bob",     "NATS_PASSWORD=hunter2",
        "NATS_CREDS=/a.creds",     "NATS_NKEY=/a.seed", "NATS_CA=/ca.pem",
        "NATS_CERT=/cert.pem",     "NATS_KEY=/key.pem", NULL};
    static const char *const expected[][2] = {
        {"nats.url", "nats://there:1"}, {"nats.user", "bob"},     {"nats.password", "hunter2"},
        {"nats.creds", "/a.creds"},     {"nats.nkey", "/a.seed"}, {"nats.ca", "/ca.pem"},
        {"nats.cert", "/cert.pem"},     {"nats.key", "/key.pem"}};
    struct config *config = load("");

    (void)state;
    assert_ok(config_load_env(config, environment, NULL));
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
        assert_string_equal(config_str(config, expected[i][0]), expected[i][1]);
    config_destroy(config);
}

static void secrets_are_never_shown(void **state)
{
    struct config *config = load("[nats]\npassword = \"hunter2\"\ntoken = \"hunter2\"\n");
    struct config_entry entry;
    size_t hidden = 0;

    (void)state;
    for (size_t i = 0; config_entry(config, i, &entry); i++) {
        assert_true(entry.value == NULL || strstr(entry.value, "hunter2") == NULL);
        hidden += entry.value != NULL && strcmp(entry.value, "***") == 0;
    }
    assert_int_equal(hidden, 2);
    config_destroy(config);
}

static void streams_are_declared_as_configured(void **state)
{
    struct config *config = load("[stream.ORDERS]\nsubjects = \"orders.>  returns.*\"\n"
                                 "max_messages = 2\ndiscard = \"old\"\n"
                                 "[stream.AUTH]\nsubjects = \"auth.>\"\nmax_messages = 1\n");
    struct event_bus *bus = create(config);
    struct event_bus_stream_info info;
    const struct message order = {.subject = wb_str("orders.a")};
    const struct message login = {.subject = wb_str("auth.login")};
    const struct event_bus_publish_options hasty = {.timeout_ns = 50 * WB_MS};

    (void)state;
    assert_ok(event_bus_factory_declare(config, bus, EVENT_BUS_CREATE, NULL));
    assert_ok(event_bus_factory_declare(config, bus, EVENT_BUS_VERIFY, NULL));
    assert_ok(event_bus_stream_info(bus, "ORDERS", &info, NULL));
    assert_string_equal(info.subjects, "orders.> returns.*");
    for (int i = 0; i < 3; i++) /* drops its oldest */
        assert_ok(event_bus_publish(bus, &order, NULL, NULL, NULL));
    assert_ok(event_bus_publish(bus, &login, NULL, NULL, NULL));
    assert_err(event_bus_publish(bus, &login, &hasty, NULL, NULL), WB_FULL);
    event_bus_destroy(bus);
    config_destroy(config);
}

static void stream_without_subjects_names_its_section(void **state)
{
    struct config *config = load("[stream.ORDERS]\nmax_age = \"1h\"\n");
    struct event_bus *bus = create(config);
    struct wb_why why = {""};

    (void)state;
    assert_err(event_bus_factory_declare(config, bus, EVENT_BUS_CREATE, &why), WB_INVALID);
    assert_non_null(strstr(why.text, "[stream.ORDERS]"));
    event_bus_destroy(bus);
    config_destroy(config);
}

static void streams_that_differ_stop_the_declaration(void **state)
{
    struct config *config = load("[stream.ORDERS]\nsubjects = \"orders.>\"\n");
    struct config *other = load("[stream.ORDERS]\nsubjects = \"orders.>\"\nmax_bytes = \"1MiB\"\n"
                                "[stream.AUTH]\nsubjects = \"auth.>\"\n");
    struct event_bus *bus = create(config);
    struct event_bus_stream_info info;

    (void)state;
    assert_ok(event_bus_factory_declare(config, bus, EVENT_BUS_CREATE, NULL));
    assert_err(event_bus_factory_declare(other, bus, EVENT_BUS_CREATE, NULL), WB_CONFLICT);
    assert_err(event_bus_stream_info(bus, "AUTH", &info, NULL), WB_NO_STREAM);
    event_bus_destroy(bus);
    config_destroy(other);
    config_destroy(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bus_without_settings_is_in_memory),
        cmocka_unit_test(bus_that_is_not_built_says_which_are),
        cmocka_unit_test(variables_of_the_nats_tools_are_honoured),
        cmocka_unit_test(secrets_are_never_shown),
        cmocka_unit_test(streams_are_declared_as_configured),
        cmocka_unit_test(stream_without_subjects_names_its_section),
        cmocka_unit_test(streams_that_differ_stop_the_declaration),
    };
    return cmocka_run_group_tests_name("event_bus_factory", tests, NULL, NULL);
}
