/* The auth module: a user and the event that tells of them, both or neither. */
#include "module_contract.h"
#include "module_fixture.h"

#include <waybill_modules/auth.h>

#define ADA          "{\"email\":\"ada@example.com\",\"name\":\"Ada Lovelace\"}"
#define COUNT_USERS  "SELECT count(*) FROM auth_user"
#define COUNT_EVENTS "SELECT count(*) FROM outbox"

FIXTURE(auth_module)

static void assert_nothing_written(struct fixture *f)
{
    assert_int_equal(fixture_number(f, COUNT_USERS), 0);
    assert_int_equal(fixture_number(f, COUNT_EVENTS), 0);
}

/* ---- adding ---------------------------------------------------------------------------------- */

static void auth_new_user_becomes_row_and_event(void **state)
{
    struct fixture *f = *state;
    char expected[400];

    assert_int_equal(fixture_post(f, "/auth/users", ADA), 201);
    struct fixture_text id = fixture_text(f, "SELECT id FROM auth_user");
    assert_int_equal(strlen(id.text), 32);
    assert_int_equal(id.text[12], '7'); /* UUIDv7 */
    snprintf(expected, sizeof(expected),
             "{\"user_id\":\"%.32s\",\"email\":\"ada@example.com\",\"name\":\"Ada Lovelace\","
             "\"created_at\":\"2026-01-02T03:04:05.678Z\"",
             id.text);
    assert_body_has(f, expected);
    snprintf(expected + strlen(expected), 2, "}");
    assert_string_equal(fixture_text(f, "SELECT CAST(payload AS TEXT) FROM outbox").text, expected);
    assert_string_equal(fixture_text(f, "SELECT key FROM outbox").text, id.text);
    assert_string_equal(fixture_text(f, "SELECT subject || '|' || headers FROM outbox").text,
                        "auth.events.user.created|content-type: application/json");
    assert_body_has(f, fixture_text(f, "SELECT lower(hex(msg_id)) FROM outbox").text);
}

static void auth_quotes_and_umlauts_survive_the_way_into_the_event(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(fixture_post(f, "/auth/users",
                                  "{\"email\":\"j\303\266rg@example.org\","
                                  "\"name\":\"J\303\266rg \\\"J\\\" \\\\ M\\u00fcller\"}"),
                     201);
    json_t *payload =
        json_loads(fixture_text(f, "SELECT CAST(payload AS TEXT) FROM outbox").text, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(payload, "name")),
                        "J\303\266rg \"J\" \\ M\303\274ller");
    json_decref(payload);
}

static void auth_email_that_exists_is_a_conflict_whatever_its_case(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(fixture_post(f, "/auth/users", ADA), 201);
    assert_int_equal(fixture_post(f, "/auth/users", ADA), 409);
    assert_body_has(f, "ada@example.com");
    assert_int_equal(
        fixture_post(f, "/auth/users", "{\"email\":\"ADA@Example.com\",\"name\":\"Other\"}"), 409);
    assert_int_equal(fixture_number(f, COUNT_USERS), 1);
    assert_int_equal(fixture_number(f, COUNT_EVENTS), 1);
}

/* ---- refusals -------------------------------------------------------------------------------- */

static void auth_body_that_is_no_sound_object_is_refused(void **state)
{
    struct fixture *f = *state;
    static const char *const bodies[] = {
        "", "x", "[]", "null", "\"a\"", "{\"email\":\"a@b\",\"email\":\"c@d\",\"name\":\"n\"}",
    };

    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        assert_int_equal(fixture_post(f, "/auth/users", bodies[i]), 400);
        assert_body_has(f, "no JSON object");
    }
    assert_nothing_written(f);
}

static void auth_email_out_of_form_is_refused(void **state)
{
    struct fixture *f = *state;
    static const char *const emails[] = {
        "null",     "1",          "\"\"",           "\"a\"",     "\"@\"",
        "\"a@\"",   "\"@b\"",     "\"a@b@c\"",      "\"a b@c\"", "\" a@b\"",
        "\"a@b \"", "\"a@b\\n\"", "\"a\\u007f@b\"", "[\"a@b\"]",
    };
    char body[300];

    for (size_t i = 0; i < sizeof(emails) / sizeof(emails[0]); i++) {
        snprintf(body, sizeof(body), "{\"email\":%s,\"name\":\"n\"}", emails[i]);
        assert_int_equal(fixture_post(f, "/auth/users", body), 400);
        assert_body_has(f, "email");
    }
    assert_int_equal(fixture_post(f, "/auth/users", "{\"name\":\"n\"}"), 400);
    assert_nothing_written(f);
}

static void auth_email_and_name_have_a_longest_length(void **state)
{
    struct fixture *f = *state;
    char email[256];
    char name[202];
    char body[600];

    memset(email, 'e', sizeof(email));
    memset(name, 'n', sizeof(name));
    email[1] = '@';
    email[255] = '\0';
    name[200] = '\0';
    snprintf(body, sizeof(body), "{\"email\":\"%s\",\"name\":\"%s\"}", email, name);
    assert_int_equal(fixture_post(f, "/auth/users", body), 400);
    email[254] = '\0';
    name[200] = 'n';
    name[201] = '\0';
    snprintf(body, sizeof(body), "{\"email\":\"%s\",\"name\":\"%s\"}", email, name);
    assert_int_equal(fixture_post(f, "/auth/users", body), 400);
    name[200] = '\0';
    assert_nothing_written(f);
    snprintf(body, sizeof(body), "{\"email\":\"%s\",\"name\":\"%s\"}", email, name);
    assert_int_equal(fixture_post(f, "/auth/users", body), 201);
}

static void auth_name_out_of_form_is_refused(void **state)
{
    struct fixture *f = *state;
    static const char *const names[] = {"null", "\"\"",      "\" a\"",       "\"a \"",
                                        "{}",   "\"a\\nb\"", "\"a\\u0000\"", "7"};
    char body[100];

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(body, sizeof(body), "{\"email\":\"a@b\",\"name\":%s}", names[i]);
        assert_int_equal(fixture_post(f, "/auth/users", body), 400);
    }
    assert_nothing_written(f);
}

/* ---- all or nothing -------------------------------------------------------------------------- */

static void auth_event_that_cannot_be_written_leaves_no_user(void **state)
{
    struct fixture *f = *state;

    fixture_break(f, "outbox");
    assert_int_equal(fixture_post(f, "/auth/users", ADA), 500);
    assert_nothing_written(f);
    fixture_mend(f);
    assert_int_equal(fixture_post(f, "/auth/users", ADA), 201);
}

static void auth_user_that_cannot_be_written_leaves_no_event(void **state)
{
    struct fixture *f = *state;

    fixture_break(f, "auth_user");
    assert_int_equal(fixture_post(f, "/auth/users", ADA), 500);
    assert_nothing_written(f);
}

static void auth_database_held_by_another_asks_for_a_repeat(void **state)
{
    struct fixture *f = *state;
    struct sqlite3 *other;

    assert_int_equal(sqlite3_open(f->path, &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(fixture_post(f, "/auth/users", ADA), 503);
    sqlite3_close(other);
    assert_int_equal(fixture_post(f, "/auth/users", ADA), 201);
}

/* ---- listing --------------------------------------------------------------------------------- */

static void add_users(struct fixture *f, int count)
{
    char body[100];

    for (int i = 0; i < count; i++) {
        wb_clock_virtual_advance(&f->clock, WB_MS); /* ids of one millisecond have no order */
        snprintf(body, sizeof(body), "{\"email\":\"u%d@x\",\"name\":\"n\"}", i);
        assert_int_equal(fixture_post(f, "/auth/users", body), 201);
    }
}

static size_t listed(struct fixture *f, const char *query, const char *first_email)
{
    assert_int_equal(fixture_get(f, "/auth/users", query), 200);
    json_t *body = json_loads(f->response.body.ptr, 0, NULL);
    json_t *users = json_object_get(body, "users");
    size_t count = json_array_size(users);

    assert_true(json_is_array(users));
    if (count > 0)
        assert_string_equal(json_string_value(json_object_get(json_array_get(users, 0), "email")),
                            first_email);
    json_decref(body);
    return count;
}

static void auth_list_is_bounded_and_newest_first(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(listed(f, "", ""), 0);
    add_users(f, 103);
    assert_int_equal(listed(f, "", "u102@x"), 100);
    assert_int_equal(listed(f, "limit=1", "u102@x"), 1);
    assert_int_equal(listed(f, "limit=1000", "u102@x"), 103);
}

static void auth_list_with_another_query_is_refused(void **state)
{
    struct fixture *f = *state;
    static const char *const queries[] = {
        "limit=0",  "limit=1001", "limit=", "limit=-1", "limit=1&x",
        "offset=1", "limit",      "x",      "limit=%31"};

    for (size_t i = 0; i < sizeof(queries) / sizeof(queries[0]); i++)
        assert_int_equal(fixture_get(f, "/auth/users", queries[i]), 400);
}

/* ---- commands -------------------------------------------------------------------------------- */

static void auth_commands_add_and_list(void **state)
{
    struct fixture *f = *state;
    struct wb_buf out = {0};
    struct wb_why why = {""};

    assert_ok(fixture_command(f, "ls", NULL, NULL, false, &out, &why));
    assert_int_equal(out.len, 0);
    assert_ok(fixture_command(f, "add", "ada@example.com", "Ada", false, &out, &why));
    assert_int_equal(out.len, 33);
    wb_buf_clear(&out);
    assert_ok(fixture_command(f, "add", "bob@example.com", "Bob", true, &out, &why));
    assert_out_has(&out, "\"email\":\"bob@example.com\"");
    wb_buf_clear(&out);
    assert_ok(fixture_command(f, "ls", NULL, NULL, false, &out, &why));
    assert_out_has(&out, "  ada@example.com  Ada");
    wb_buf_clear(&out);
    assert_ok(fixture_command(f, "ls", "--limit", "1", true, &out, &why));
    assert_out_has(&out, "{\"users\":[{\"user_id\":");
    wb_buf_free(&out);
    assert_int_equal(fixture_number(f, COUNT_EVENTS), 2);
}

static void auth_commands_refuse_what_they_do_not_understand(void **state)
{
    struct fixture *f = *state;
    struct wb_buf out = {0};
    struct wb_why why = {""};

    assert_err(fixture_command(f, "add", "ada@example.com", NULL, false, &out, &why), WB_MISUSE);
    assert_err(fixture_command(f, "add", "ada", "Ada", false, &out, &why), WB_INVALID);
    assert_err(fixture_command(f, "ls", "--limit", "0", false, &out, &why), WB_MISUSE);
    assert_err(fixture_command(f, "ls", "--limit", NULL, false, &out, &why), WB_MISUSE);
    assert_ok(fixture_command(f, "add", "ada@example.com", "Ada", false, &out, &why));
    assert_err(fixture_command(f, "add", "ada@example.com", "Ada", false, &out, &why), WB_EXISTS);
    assert_int_equal(fixture_number(f, COUNT_USERS), 1);
    wb_buf_free(&out);
}

/* ---- contract -------------------------------------------------------------------------------- */

static void auth_contract_is_what_the_module_declares(void **state)
{
    (void)state;
    contract_check(&auth_module);
}

static void auth_events_are_what_the_contract_promises(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(fixture_post(f, "/auth/users", ADA), 201);
    contract_check_event(&auth_module, fixture_text(f, "SELECT subject FROM outbox").text,
                         fixture_text(f, "SELECT CAST(payload AS TEXT) FROM outbox").text, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(auth_new_user_becomes_row_and_event),
        FIXTURE_TEST(auth_quotes_and_umlauts_survive_the_way_into_the_event),
        FIXTURE_TEST(auth_email_that_exists_is_a_conflict_whatever_its_case),
        FIXTURE_TEST(auth_body_that_is_no_sound_object_is_refused),
        FIXTURE_TEST(auth_email_out_of_form_is_refused),
        FIXTURE_TEST(auth_email_and_name_have_a_longest_length),
        FIXTURE_TEST(auth_name_out_of_form_is_refused),
        FIXTURE_TEST(auth_event_that_cannot_be_written_leaves_no_user),
        FIXTURE_TEST(auth_user_that_cannot_be_written_leaves_no_event),
        FIXTURE_TEST(auth_database_held_by_another_asks_for_a_repeat),
        FIXTURE_TEST(auth_list_is_bounded_and_newest_first),
        FIXTURE_TEST(auth_list_with_another_query_is_refused),
        FIXTURE_TEST(auth_commands_add_and_list),
        FIXTURE_TEST(auth_commands_refuse_what_they_do_not_understand),
        FIXTURE_TEST(auth_contract_is_what_the_module_declares),
        FIXTURE_TEST(auth_events_are_what_the_contract_promises),
    };
    return cmocka_run_group_tests_name("module_auth", tests, NULL, NULL);
}
