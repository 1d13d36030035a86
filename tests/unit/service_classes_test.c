/* The [class.NAME] sections: what becomes of good ones, and what is said of bad ones. */
#include "test_support.h"

#include "service_classes.h"

static struct config *config;
static struct service_classes *classes;

static int setup(void **state)
{
    (void)state;
    classes = NULL;
    assert_ok(config_create(service_class_keys, service_class_key_count, &config));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    service_classes_free(classes);
    config_destroy(config);
    return 0;
}

static wb_err read_text(const char *text, struct wb_why *why)
{
    wb_err err = config_load_text(config, "test.conf", wb_str(text), why);

    return err == WB_OK ? service_classes_read(config, &classes, why) : err;
}

static void service_classes_without_a_section_are_none(void **state)
{
    size_t count = 1;

    (void)state;
    assert_ok(read_text("", NULL));
    (void)service_classes_list(classes, &count);
    assert_int_equal(count, 0);
}

static void service_classes_take_every_key_in_the_order_of_the_file(void **state)
{
    size_t count = 0;

    (void)state;
    assert_ok(read_text("[class.second-name]\n"
                        "subjects = \"a.>  b.*\"\n"
                        "on_poison = \"latest-wins\"\n"
                        "max_pending_rows = 10\n"
                        "max_pending_bytes = \"1KiB\"\n"
                        "max_pending_age = \"5m\"\n"
                        "pending = \"warn\"\n"
                        "keep_age = \"1h\"\n"
                        "keep_bytes = \"2MiB\"\n"
                        "keep_rows = 7\n"
                        "archive = true\n"
                        "[class.first]\n"
                        "subjects = \">\"\n",
                        NULL));
    const struct outbox_class *list = service_classes_list(classes, &count);
    assert_int_equal(count, 2);
    assert_string_equal(list[0].name, "second-name");
    assert_int_equal(list[0].pattern_count, 2);
    assert_string_equal(list[0].patterns[0], "a.>");
    assert_string_equal(list[0].patterns[1], "b.*");
    assert_int_equal(list[0].policy, OUTBOX_LATEST_WINS);
    assert_int_equal(list[0].max_pending_rows, 10);
    assert_int_equal(list[0].max_pending_bytes, 1024);
    assert_int_equal(list[0].max_pending_age_ns, 300 * WB_SEC);
    assert_true(list[0].warn);
    assert_int_equal(list[0].keep_age_ns, 3600 * WB_SEC);
    assert_int_equal(list[0].keep_bytes, 2 << 20);
    assert_int_equal(list[0].keep_rows, 7);
    assert_true(list[0].archive);
    assert_string_equal(list[1].name, "first");
    assert_int_equal(list[1].policy, OUTBOX_BLOCK_KEY);
    assert_false(list[1].warn);
    assert_false(list[1].archive);
    assert_int_equal(list[1].keep_age_ns, 0);
}

static void service_classes_with_bad_values_name_key_and_line(void **state)
{
    static const struct {
        const char *text, *said[3];
    } cases[] = {
        {"[class.a]\nkeep_rows = 5\n", {"[class.a]", "no subjects", "subjects ="}},
        {"[class.a]\n\nsubjects = \" \"\n", {"test.conf:3", "[class.a]", "no subjects"}},
        {"[class.a]\nsubjects = \"x.> a..b\"\n", {"test.conf:2", "class.a.subjects", "a..b"}},
        {"[class.a]\nsubjects = \"x\"\non_poison = \"drop\"\n",
         {"test.conf:3", "class.a.on_poison", "block-key"}},
        {"[class.a]\nsubjects = \"x\"\nkeep_rows = 0\n", {"test.conf:3", "class.a.keep_rows", "1"}},
        {"[class.a]\nsubjects = \"x\"\nkeep_age = \"1\"\n",
         {"test.conf:3", "class.a.keep_age", ""}},
        {"[class.a]\nsubjects = \"x\"\narchive = \"yes\"\n", {"test.conf:3", "archive", "true"}},
        {"[class.a]\nsubject = \"x\"\n", {"test.conf:2", "subject", "subjects"}},
        {"[class]\nsubjects = \"x\"\n", {"test.conf:1", "[class.NAME]", ""}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct wb_why why = {""};
        struct config *fresh = NULL;
        assert_ok(config_create(service_class_keys, service_class_key_count, &fresh));
        config_destroy(config);
        config = fresh;
        assert_err(read_text(cases[i].text, &why), WB_INVALID);
        assert_null(classes);
        for (size_t n = 0; n < 3; n++)
            if (strstr(why.text, cases[i].said[n]) == NULL)
                fail_msg("case %zu: '%s' lacks '%s'", i, why.text, cases[i].said[n]);
    }
}

static void service_classes_have_limits(void **state)
{
    struct wb_buf text = {0};
    struct wb_why why = {""};

    (void)state;
    wb_buf_str(&text, "[class.a]\nsubjects = \"");
    for (int i = 0; i < 65; i++)
        wb_buf_printf(&text, "a%d ", i);
    wb_buf_str(&text, "\"\n");
    assert_err(read_text(text.ptr, &why), WB_TOO_BIG);
    assert_non_null(strstr(why.text, "test.conf:2"));
    wb_buf_clear(&text);
    for (int i = 0; i < 65; i++)
        wb_buf_printf(&text, "[class.c%d]\nsubjects = \"a\"\n", i);
    assert_err(read_text(text.ptr, &why), WB_TOO_BIG);
    assert_null(classes);
    wb_buf_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(service_classes_without_a_section_are_none),
        T(service_classes_take_every_key_in_the_order_of_the_file),
        T(service_classes_with_bad_values_name_key_and_line),
        T(service_classes_have_limits),
#undef T
    };
    return cmocka_run_group_tests_name("service_classes", tests, NULL, NULL);
}
