/* Each allocation fails in turn: the error is NOMEM, the settings stay, nothing leaks. */
#include "test_support.h"

#include <waybill/config.h>

#include "test_nomem.h"

static const struct config_key keys[] = {
    {"bus", CONFIG_CHOICE, "memory", "memory|nats", 0, 0, NULL, false, ""},
    {"nats.url", CONFIG_STRING, "default", NULL, 0, 0, "NATS_URL", false, ""},
    {"stream.*.subjects", CONFIG_STRING, NULL, NULL, 0, 0, NULL, false, ""},
};

static wb_err load_file(struct config *config)
{
    return config_load_text(
        config, "w.conf",
        wb_str("bus = \"nats\"\n[nats]\nurl = \"file\"\n[stream.A]\nsubjects = \"a\"\n"), NULL);
}

static wb_err load_env(struct config *config)
{
    static const char *const environment[] = {"WAYBILL_BUS=nats", "NATS_URL=env", NULL};

    return config_load_env(config, environment, NULL);
}

static wb_err set_flag(struct config *config)
{
    return config_set(config, "stream.A.subjects", "a", "--stream", NULL);
}

/* What of the settings can be told from the defaults. */
static bool untouched(const struct config *config)
{
    struct config_entry entry;

    for (size_t i = 0; config_entry(config, i, &entry); i++)
        if (strcmp(entry.origin, "default") != 0)
            return false;
    return true;
}

static void fail_each_allocation(wb_err (*change)(struct config *))
{
    wb_err err = WB_NOMEM;
    int allowed = 0;

    for (; err == WB_NOMEM; allowed++) {
        struct config *config = NULL;
        assert_ok(config_create(keys, sizeof(keys) / sizeof(keys[0]), &config));
        test_nomem_after(allowed);
        err = change(config);
        test_nomem_after(-1);
        assert_int_equal(untouched(config), err != WB_OK);
        config_destroy(config);
    }
    assert_int_equal(err, WB_OK);
    assert_true(allowed > 3);
}

static void create_out_of_memory_leaves_nothing_behind(void **state)
{
    wb_err err = WB_NOMEM;
    int allowed = 0;

    (void)state;
    for (; err == WB_NOMEM; allowed++) {
        struct config *config = NULL;
        test_nomem_after(allowed);
        err = config_create(keys, sizeof(keys) / sizeof(keys[0]), &config);
        test_nomem_after(-1);
        assert_int_equal(config != NULL, err == WB_OK);
        config_destroy(config);
    }
    assert_int_equal(err, WB_OK);
    assert_true(allowed > 3);
}

static void load_of_a_file_out_of_memory_changes_nothing(void **state)
{
    (void)state;
    fail_each_allocation(load_file);
}

static void load_of_the_environment_out_of_memory_changes_nothing(void **state)
{
    (void)state;
    fail_each_allocation(load_env);
}

static void set_out_of_memory_changes_nothing(void **state)
{
    (void)state;
    fail_each_allocation(set_flag);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(create_out_of_memory_leaves_nothing_behind),
        cmocka_unit_test(load_of_a_file_out_of_memory_changes_nothing),
        cmocka_unit_test(load_of_the_environment_out_of_memory_changes_nothing),
        cmocka_unit_test(set_out_of_memory_changes_nothing),
    };
    return cmocka_run_group_tests_name("config_nomem", tests, NULL, NULL);
}
