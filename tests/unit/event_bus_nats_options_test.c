/* URLs, files and keys: what is wrong without a server, said before there is one. */
#include "test_support.h"

#include <stdio.h>
#include <unistd.h>

#include "nats_bus.h"

static void assert_redacted(const char *urls, const char *expected)
{
    char *shown = event_bus_nats_redact(urls);

    assert_non_null(shown);
    assert_string_equal(shown, expected);
    free(shown);
}

static void url_is_shown_without_its_secrets(void **state)
{
    (void)state;
    assert_redacted("nats://127.0.0.1:4222", "nats://127.0.0.1:4222");
    assert_redacted("nats://bob:s3cr@t@host:1", "nats://***@host:1");
    assert_redacted("token@host", "***@host");
    assert_redacted("tls://a:b@one,nats://two:2,c:d@three", "tls://***@one,nats://two:2,***@three");
    assert_redacted("", "");
}

static wb_err check_url(const char *url, struct wb_why *why)
{
    const struct event_bus_nats_options options = {.url = url};

    return event_bus_nats_options_check(&options, why);
}

static void url_of_a_known_form_is_taken(void **state)
{
    static const char *const urls[] = {"nats://127.0.0.1:4222",
                                       "tls://host",
                                       "host:1",
                                       "host",
                                       "nats://user:pass@host:65535",
                                       "nats://[::1]:4222",
                                       "nats://[::1]",
                                       "nats://a:1,tls://b:2,c"};

    (void)state;
    for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++)
        if (check_url(urls[i], NULL) != WB_OK)
            fail_msg("refused: %s", urls[i]);
    assert_ok(check_url(NULL, NULL));
}

static void url_of_another_form_is_refused_and_its_password_not_told(void **state)
{
    static const char *const urls[] = {"http://host",          "nats://",
                                       "nats://host:0",        "nats://host:65536",
                                       "nats://host:4222x",    "nats://ho st",
                                       "nats://a:1,,nats://b", "nats://a:1,",
                                       "nats://bob:hunter2@",  "nats://bob:hunter2@h:x"};
    struct wb_why why;

    (void)state;
    for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
        if (check_url(urls[i], &why) != WB_INVALID)
            fail_msg("taken: %s", urls[i]);
        assert_null(strstr(why.text, "hunter2"));
    }
}

static void missing_files_are_named(void **state)
{
    const struct event_bus_nats_options creds = {.creds_file = "/nonexistent/a.creds"};
    const struct event_bus_nats_options ca = {.tls_ca_file = "/nonexistent/ca.pem"};
    const struct event_bus_nats_options half = {.tls_cert_file = "/dev/null"};
    struct wb_why why;

    (void)state;
    assert_err(event_bus_nats_options_check(&creds, &why), WB_INVALID);
    assert_non_null(strstr(why.text, "/nonexistent/a.creds"));
    assert_err(event_bus_nats_options_check(&ca, &why), WB_INVALID);
    assert_non_null(strstr(why.text, "/nonexistent/ca.pem"));
    assert_err(event_bus_nats_options_check(&half, &why), WB_INVALID);
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

/* The pair stands in the documentation of NATS. */
#define SEED   "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
#define PUBLIC "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"

static void seed_file_gives_its_public_key(void **state)
{
    char dir[256];
    char path[300];
    char key[57];

    (void)state;
    test_dir_make(dir);
    (void)snprintf(path, sizeof(path), "%s/seed", dir);
    write_file(path, "# a comment\n" SEED "\n");
    assert_ok(event_bus_nats_nkey_public(path, key, NULL));
    assert_string_equal(key, PUBLIC);
    test_dir_remove(dir);
}

static void damaged_seed_file_is_refused(void **state)
{
    struct wb_why why;
    char dir[256];
    char path[300];
    char damaged[] = SEED "\n";
    char key[57] = "untouched";

    (void)state;
    test_dir_make(dir);
    (void)snprintf(path, sizeof(path), "%s/seed", dir);
    assert_err(event_bus_nats_nkey_public(path, key, &why), WB_INVALID);
    damaged[20] = damaged[20] == 'A' ? 'B' : 'A';
    write_file(path, damaged);
    assert_err(event_bus_nats_nkey_public(path, key, &why), WB_INVALID);
    assert_null(strstr(why.text, "SUACSSL3"));
    write_file(path, "SUACSSL3\n");
    assert_err(event_bus_nats_nkey_public(path, key, &why), WB_INVALID);
    assert_string_equal(key, "untouched");
    test_dir_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(url_is_shown_without_its_secrets),
        cmocka_unit_test(url_of_a_known_form_is_taken),
        cmocka_unit_test(url_of_another_form_is_refused_and_its_password_not_told),
        cmocka_unit_test(missing_files_are_named),
        cmocka_unit_test(seed_file_gives_its_public_key),
        cmocka_unit_test(damaged_seed_file_is_refused),
    };
    return cmocka_run_group_tests_name("event_bus_nats options", tests, NULL, NULL);
}
