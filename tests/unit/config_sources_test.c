/* Default < file < alias < WAYBILL_* < flag, secrets, and how settings are listed. */
#include "test_support.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <waybill/config.h>

static const struct config_key keys[] = {
    {"bus", CONFIG_CHOICE, "memory", "memory|nats|dual", 0, 0, NULL, false, "Which bus"},
    {"nats.url", CONFIG_STRING, "default", NULL, 0, 0, "NATS_URL", false, "Server"},
    {"http.max-body", CONFIG_SIZE, "1MiB", NULL, 0, 0, NULL, false, "Largest body"},
    {"http.workers", CONFIG_INT, "2", NULL, -5, 9, NULL, false, "Threads"},
    {"webhooks.secret", CONFIG_STRING, NULL, NULL, 0, 0, NULL, true, "Shared secret"},
    {"stream.*.subjects", CONFIG_STRING, NULL, NULL, 0, 0, NULL, false, "What it covers"},
    {"stream.*.max", CONFIG_INT, "7", NULL, 0, 0, NULL, false, "Messages"},
    {"last", CONFIG_BOOL, "false", NULL, 0, 0, NULL, false, "The end"},
};

static struct config *make(void)
{
    struct config *config = NULL;

    assert_ok(config_create(keys, sizeof(keys) / sizeof(keys[0]), &config));
    return config;
}

#define ENV(...) ((const char *const[]){__VA_ARGS__, NULL})

static struct config_entry entry_of(const struct config *config, const char *name)
{
    struct config_entry entry;

    for (size_t i = 0; config_entry(config, i, &entry); i++)
        if (strcmp(entry.name, name) == 0)
            return entry;
    fail_msg("no entry %s", name);
    return entry;
}

static void each_source_wins_over_the_ones_before_in_any_order_of_loading(void **state)
{
    struct config *config = make();

    (void)state;
    assert_string_equal(config_str(config, "nats.url"), "default");
    assert_string_equal(entry_of(config, "nats.url").origin, "default");
    assert_ok(config_load_text(config, "w.conf", wb_str("[nats]\nurl = \"file\"\n"), NULL));
    assert_string_equal(config_str(config, "nats.url"), "file");
    assert_ok(config_load_env(config, ENV("NATS_URL=alias"), NULL));
    assert_string_equal(config_str(config, "nats.url"), "alias");
    assert_string_equal(entry_of(config, "nats.url").origin, "env NATS_URL");
    assert_ok(config_load_env(config, ENV("WAYBILL_NATS_URL=env", "NATS_URL=alias"), NULL));
    assert_string_equal(config_str(config, "nats.url"), "env");
    assert_string_equal(entry_of(config, "nats.url").origin, "env WAYBILL_NATS_URL");
    assert_ok(config_set(config, "nats.url", "flag", "--server", NULL));
    assert_string_equal(config_str(config, "nats.url"), "flag");
    assert_string_equal(entry_of(config, "nats.url").origin, "flag --server");

    assert_ok(config_load_env(config, ENV("WAYBILL_NATS_URL=again"), NULL));
    assert_ok(config_load_text(config, "w.conf", wb_str("[nats]\nurl = \"again\"\n"), NULL));
    assert_string_equal(config_str(config, "nats.url"), "flag");
    config_destroy(config);
}

static void empty_alias_counts_as_unset(void **state)
{
    struct config *config = make();

    (void)state;
    assert_ok(config_load_env(config, ENV("NATS_URL="), NULL));
    assert_string_equal(config_str(config, "nats.url"), "default");
    config_destroy(config);
}

static void dashes_and_dots_become_underscores_in_a_variable(void **state)
{
    struct config *config = make();

    (void)state;
    assert_ok(config_load_env(config, ENV("WAYBILL_HTTP_MAX_BODY=2KiB", "WAYBILL_HTTP_WORKERS=-3"),
                              NULL));
    assert_int_equal(config_size(config, "http.max-body"), 2048);
    assert_int_equal(config_int(config, "http.workers"), -3);
    config_destroy(config);
}

struct bad_env {
    const char *entry;
    const char *message;
};

static const struct bad_env bad_envs[] = {
    {"WAYBILL_BSU=nats",
     "WAYBILL_BSU: no setting belongs to this environment variable; did you mean WAYBILL_BUS?"},
    {"WAYBILL_NATS_ULR=x", "did you mean WAYBILL_NATS_URL?"},
    {"WAYBILL_FROBNICATE=1",
     "WAYBILL_FROBNICATE: no setting belongs to this environment variable; unset it"},
    {"WAYBILL_BUS=natz",
     "WAYBILL_BUS: bus: expected one of memory, nats, dual, got \"natz\"; did you mean \"nats\"?"},
    {"WAYBILL_BUS=", "WAYBILL_BUS: bus: expected one of"},
    {"WAYBILL_LAST=yes", "WAYBILL_LAST: last: expected true or false, got \"yes\""},
    {"WAYBILL_HTTP_WORKERS=10", "expected an integer from -5 to 9, got \"10\""},
    {"WAYBILL_HTTP_WORKERS=1x", "expected an integer from -5 to 9, got \"1x\""},
    {"WAYBILL_NATS_URL=\xff", "WAYBILL_NATS_URL: nats.url is not valid UTF-8"},
    {"WAYBILL_BUS_FILE=/dev/null", "WAYBILL_BUS_FILE: no setting belongs"},
    {"WAYBILL_STREAM_A_SUBJECTS=a", "no setting belongs"},
    {"WAYBILL_=a", "no setting belongs"},
    {"waybill_bus=nats", NULL}, /* other names are not ours */
    {"WAYBILL_CONFIG=w.conf", NULL},
    {"WAYBILL_CRASH=a.b:3", NULL},
    {"PATH=/bin", NULL},
    {"without equals", NULL},
};

static void variable_that_is_wrong_is_refused_and_changes_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bad_envs) / sizeof(bad_envs[0]); i++) {
        struct config *config = make();
        struct wb_why why = {""};
        wb_err err =
            config_load_env(config, ENV("WAYBILL_HTTP_MAX_BODY=1KiB", bad_envs[i].entry), &why);
        if ((err == WB_OK) != (bad_envs[i].message == NULL) ||
            (err != WB_OK && strstr(why.text, bad_envs[i].message) == NULL))
            fail_msg("%s: %s, %s", bad_envs[i].entry, wb_err_name(err), why.text);
        assert_int_equal(config_size(config, "http.max-body"), err == WB_OK ? 1024 : 1 << 20);
        config_destroy(config);
    }
}

/* ---- flags ----------------------------------------------------------------------------------- */

static void set_of_an_unknown_name_suggests_the_nearest(void **state)
{
    struct config *config = make();
    struct wb_why why = {""};

    (void)state;
    assert_err(config_set(config, "nats.ulr", "x", "--set", &why), WB_NOT_FOUND);
    assert_non_null(
        strstr(why.text, "--set: no setting is called \"nats.ulr\"; did you mean \"nats.url\"?"));
    assert_err(config_set(config, "kafka", "x", "--set", &why), WB_NOT_FOUND);
    assert_null(strstr(why.text, "did you mean"));
    assert_err(config_set(config, "stream.A.B.subjects", "x", "--set", &why), WB_NOT_FOUND);
    assert_err(config_set(config, "stream..subjects", "x", "--set", &why), WB_NOT_FOUND);
    config_destroy(config);
}

static void set_of_a_bad_value_names_the_flag_and_keeps_the_old_one(void **state)
{
    struct config *config = make();
    struct wb_why why = {""};

    (void)state;
    assert_err(config_set(config, "bus", "kafka", "--bus", &why), WB_INVALID);
    assert_non_null(
        strstr(why.text, "--bus: bus: expected one of memory, nats, dual, got \"kafka\""));
    assert_string_equal(config_str(config, "bus"), "memory");
    config_destroy(config);
}

static void set_of_a_wildcard_setting_makes_the_section(void **state)
{
    struct config *config = make();
    struct wb_str name;

    (void)state;
    assert_ok(config_set(config, "stream.X.subjects", "x.>", "--stream", NULL));
    assert_true(config_section(config, "stream.*", 0, &name));
    assert_true(wb_str_eq(name, wb_str("X")));
    assert_string_equal(config_str(config, "stream.X.subjects"), "x.>");
    assert_int_equal(config_int(config, "stream.X.max"), 7);
    config_destroy(config);
}

/* ---- secrets --------------------------------------------------------------------------------- */

static void write_file(const char *path, const char *text, size_t len, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, len), len);
    assert_int_equal(fchmod(fd, mode), 0);
    assert_int_equal(close(fd), 0);
}

struct secret_file {
    const char *text;
    size_t len;
    mode_t mode;
    const char *secret;  /* NULL: refused */
    const char *message; /* when refused */
};

#define SECRET(text) (text), sizeof(text) - 1
static const struct secret_file secret_files[] = {
    {SECRET("hunter2"), 0600, "hunter2", NULL},
    {SECRET("hunter2\n"), 0400, "hunter2", NULL},
    {SECRET(" hunter 2\t\r\nsecond line\n"), 0640, "hunter 2", NULL},
    {SECRET("hunter2\n"), 0604, NULL, "every user of this machine; run chmod 600"},
    {SECRET("hunter2\n"), 0602, NULL, "every user of this machine"},
    {SECRET(""), 0600, NULL, "first line of"},
    {SECRET(" \nhunter2\n"), 0600, NULL, "is empty; expected the secret"},
    {SECRET("hun\0ter2\n"), 0600, NULL, "holds a NUL byte"},
    {SECRET("\xff\xfe"), 0600, NULL, "webhooks.secret is not valid UTF-8"},
};

static void secret_file_gives_its_first_line_unless_others_may_read_it(void **state)
{
    char dir[256], path[280], variable[320];

    (void)state;
    test_dir_make(dir);
    (void)snprintf(path, sizeof(path), "%s/secret", dir);
    (void)snprintf(variable, sizeof(variable), "WAYBILL_WEBHOOKS_SECRET_FILE=%s", path);
    for (size_t i = 0; i < sizeof(secret_files) / sizeof(secret_files[0]); i++) {
        const struct secret_file *file = &secret_files[i];
        struct config *config = make();
        struct wb_why why = {""};
        write_file(path, file->text, file->len, file->mode);
        wb_err err = config_load_env(config, ENV(variable), &why);
        if (file->secret != NULL) {
            assert_int_equal(err, WB_OK);
            assert_string_equal(config_str(config, "webhooks.secret"), file->secret);
        } else {
            assert_int_equal(err, WB_INVALID);
            if (strstr(why.text, file->message) == NULL)
                fail_msg("%s: expected %s", why.text, file->message);
            assert_null(strstr(why.text, "hunter2"));
            assert_null(config_str(config, "webhooks.secret"));
        }
        assert_int_equal(unlink(path), 0);
        config_destroy(config);
    }
    test_dir_remove(dir);
}

static void secret_file_absent_or_no_file_is_refused(void **state)
{
    struct config *config = make();
    struct wb_why why = {""};
    char dir[256], variable[320];

    (void)state;
    test_dir_make(dir);
    (void)snprintf(variable, sizeof(variable), "WAYBILL_WEBHOOKS_SECRET_FILE=%s/absent", dir);
    assert_err(config_load_env(config, ENV(variable), &why), WB_NOT_FOUND);
    (void)snprintf(variable, sizeof(variable), "WAYBILL_WEBHOOKS_SECRET_FILE=%s", dir);
    assert_err(config_load_env(config, ENV(variable), &why), WB_INVALID);
    assert_non_null(strstr(why.text, "is no regular file"));
    test_dir_remove(dir);
    config_destroy(config);
}

static void secret_given_directly_and_by_file_is_refused(void **state)
{
    struct config *config = make();
    struct wb_why why = {""};
    char dir[256], path[280], variable[320];

    (void)state;
    test_dir_make(dir);
    (void)snprintf(path, sizeof(path), "%s/secret", dir);
    (void)snprintf(variable, sizeof(variable), "WAYBILL_WEBHOOKS_SECRET_FILE=%s", path);
    write_file(path, "a", 1, 0600);
    assert_err(config_load_env(config, ENV(variable, "WAYBILL_WEBHOOKS_SECRET=b"), &why),
               WB_INVALID);
    assert_non_null(
        strstr(why.text, "webhooks.secret is given directly and by WAYBILL_WEBHOOKS_SECRET_FILE"));
    assert_null(config_str(config, "webhooks.secret"));
    test_dir_remove(dir);
    config_destroy(config);
}

static void secret_is_shown_as_stars(void **state)
{
    struct config *config = make();

    (void)state;
    assert_null(entry_of(config, "webhooks.secret").value);
    assert_ok(config_load_env(config, ENV("WAYBILL_WEBHOOKS_SECRET=hunter2"), NULL));
    assert_string_equal(entry_of(config, "webhooks.secret").value, "***");
    assert_string_equal(config_str(config, "webhooks.secret"), "hunter2");
    config_destroy(config);
}

/* ---- listing --------------------------------------------------------------------------------- */

static void entries_come_in_the_order_of_the_table_with_sections_behind_their_key(void **state)
{
    static const char *const expected[] = {
        "bus",
        "nats.url",
        "http.max-body",
        "http.workers",
        "webhooks.secret",
        "stream.*.subjects",
        "stream.B.subjects",
        "stream.A.subjects",
        "stream.*.max",
        "stream.A.max",
        "last",
    };
    struct config *config = make();
    struct config_entry entry;
    size_t count = 0;

    (void)state;
    assert_ok(config_load_text(
        config, "w.conf",
        wb_str("last = true\n[stream.B]\nsubjects=\"b\"\n[stream.A]\nmax=1\nsubjects=\"a\"\n"),
        NULL));
    for (; config_entry(config, count, &entry); count++)
        assert_string_equal(entry.name, expected[count]);
    assert_int_equal(count, sizeof(expected) / sizeof(expected[0]));
    assert_string_equal(entry_of(config, "stream.A.max").value, "1");
    assert_string_equal(entry_of(config, "stream.A.max").origin, "file w.conf:5");
    assert_string_equal(entry_of(config, "stream.*.max").value, "7");
    assert_string_equal(entry_of(config, "last").help, "The end");
    config_destroy(config);
}

static void destroy_of_null_is_a_no_op(void **state)
{
    (void)state;
    config_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_source_wins_over_the_ones_before_in_any_order_of_loading),
        cmocka_unit_test(empty_alias_counts_as_unset),
        cmocka_unit_test(dashes_and_dots_become_underscores_in_a_variable),
        cmocka_unit_test(variable_that_is_wrong_is_refused_and_changes_nothing),
        cmocka_unit_test(set_of_an_unknown_name_suggests_the_nearest),
        cmocka_unit_test(set_of_a_bad_value_names_the_flag_and_keeps_the_old_one),
        cmocka_unit_test(set_of_a_wildcard_setting_makes_the_section),
        cmocka_unit_test(secret_file_gives_its_first_line_unless_others_may_read_it),
        cmocka_unit_test(secret_file_absent_or_no_file_is_refused),
        cmocka_unit_test(secret_given_directly_and_by_file_is_refused),
        cmocka_unit_test(secret_is_shown_as_stars),
        cmocka_unit_test(entries_come_in_the_order_of_the_table_with_sections_behind_their_key),
        cmocka_unit_test(destroy_of_null_is_a_no_op),
    };
    return cmocka_run_group_tests_name("config_sources", tests, NULL, NULL);
}
