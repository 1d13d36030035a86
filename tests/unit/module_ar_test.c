/* The ar module: users get accounts, accounts get invoices, each with its event or not at all. */
#include "module_contract.h"
#include "module_fixture.h"

#include <waybill_modules/ar.h>

#define USER           "019aa5b2c3d47e5f8a6b7c8d9e0f1a2b"
#define USER_CREATED   "{\"user_id\":\"" USER "\",\"email\":\"ada@example.com\",\"name\":\"Ada\"}"
#define INVOICE        "{\"user_id\":\"" USER "\",\"amount_cents\":12050,\"currency\":\"EUR\"}"
#define COUNT_ACCOUNTS "SELECT count(*) FROM ar_account"
#define COUNT_INVOICES "SELECT count(*) FROM ar_invoice"
#define COUNT_EVENTS   "SELECT count(*) FROM outbox"
#define LAST_SUBJECT   "SELECT subject FROM outbox ORDER BY id DESC LIMIT 1"
#define LAST_PAYLOAD   "SELECT CAST(payload AS TEXT) FROM outbox ORDER BY id DESC LIMIT 1"
#define TRACE          "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

FIXTURE(ar_module)

static wb_err user_created(struct fixture *f, const char *payload, const char *trace,
                           struct wb_why *why)
{
    const struct message_header header = {wb_str("traceparent"), wb_str(trace)};
    const struct message message = {.subject = wb_str("auth.events.user.created"),
                                    .payload = {payload, strlen(payload)},
                                    .headers = &header,
                                    .header_count = trace != NULL ? 1 : 0,
                                    .msg_id = wb_str("0123456789abcdef0123456789abcdef")};

    return fixture_event(f, &message, "AUTH", 1, why);
}

static void open_account(struct fixture *f)
{
    struct wb_why why = {""};

    if (user_created(f, USER_CREATED, NULL, &why) != WB_OK)
        fail_msg("%s", why.text);
}

/* ---- accounts -------------------------------------------------------------------------------- */

static void ar_new_user_gets_an_account_and_it_is_told(void **state)
{
    struct fixture *f = *state;
    char expected[300];

    open_account(f);
    assert_string_equal(fixture_text(f, "SELECT user_id || '|' || opened_at FROM ar_account").text,
                        USER "|2026-01-02T03:04:05.678Z");
    snprintf(expected, sizeof(expected),
             "{\"account_id\":\"%.32s\",\"user_id\":\"" USER
             "\",\"opened_at\":\"2026-01-02T03:04:05.678Z\"}",
             fixture_text(f, "SELECT id FROM ar_account").text);
    assert_string_equal(fixture_text(f, LAST_PAYLOAD).text, expected);
    assert_string_equal(
        fixture_text(f, "SELECT subject || '|' || key || '|' || headers FROM outbox").text,
        "ar.events.account.opened|" USER "|content-type: application/json");
}

static void ar_second_event_of_a_user_changes_and_tells_nothing(void **state)
{
    struct fixture *f = *state;

    open_account(f);
    struct fixture_text before = fixture_text(f, "SELECT id FROM ar_account");
    open_account(f);
    assert_int_equal(fixture_number(f, COUNT_ACCOUNTS), 1);
    assert_int_equal(fixture_number(f, COUNT_EVENTS), 1);
    assert_string_equal(fixture_text(f, "SELECT id FROM ar_account").text, before.text);
}

static void ar_trace_of_the_cause_goes_on_in_the_effect(void **state)
{
    struct fixture *f = *state;
    struct wb_why why = {""};

    assert_ok(user_created(f, "{\"user_id\":\"a\"}", TRACE, &why));
    assert_string_equal(fixture_text(f, "SELECT traceparent FROM outbox").text, TRACE);
    assert_ok(user_created(f, "{\"user_id\":\"b\"}", "not a trace", &why));
    assert_string_equal(
        fixture_text(f, "SELECT traceparent FROM outbox ORDER BY id DESC LIMIT 1").text, "");
}

static void ar_event_without_a_sound_user_id_fails_with_a_reason(void **state)
{
    struct fixture *f = *state;
    static const char *const payloads[] = {
        "",
        "x",
        "[]",
        "{}",
        "{\"user_id\":7}",
        "{\"user_id\":\"\"}",
        "{\"user_id\":\"a b\"}",
        "{\"user_id\":\"a.b\"}",
        "{\"user_id\":\"a\",\"user_id\":\"b\"}",
        "{\"user_id\":\"01234567890123456789012345678901234567890123456789012345678901234\"}",
    };

    for (size_t i = 0; i < sizeof(payloads) / sizeof(payloads[0]); i++) {
        struct wb_why why = {""};
        assert_err(user_created(f, payloads[i], NULL, &why), WB_INVALID);
        assert_non_null(strstr(why.text, "user_id"));
    }
    assert_int_equal(fixture_number(f, COUNT_ACCOUNTS), 0);
    assert_int_equal(fixture_number(f, COUNT_EVENTS), 0);
}

static void ar_account_whose_event_cannot_be_written_is_not_opened(void **state)
{
    struct fixture *f = *state;
    struct wb_why why = {""};

    fixture_break(f, "outbox");
    assert_int_not_equal(user_created(f, USER_CREATED, NULL, &why), WB_OK);
    assert_int_equal(fixture_number(f, COUNT_ACCOUNTS), 0);
    fixture_mend(f);
    open_account(f);
    assert_int_equal(fixture_number(f, COUNT_ACCOUNTS), 1);
}

/* ---- invoices -------------------------------------------------------------------------------- */

static void ar_invoice_becomes_row_and_event(void **state)
{
    struct fixture *f = *state;
    char expected[400];

    open_account(f);
    assert_int_equal(fixture_post(f, "/ar/invoices", INVOICE), 201);
    snprintf(expected, sizeof(expected),
             "{\"invoice_id\":\"%.32s\",\"user_id\":\"" USER
             "\",\"amount_cents\":12050,\"currency\":\"EUR\","
             "\"issued_at\":\"2026-01-02T03:04:05.678Z\"",
             fixture_text(f, "SELECT id FROM ar_invoice").text);
    assert_body_has(f, expected);
    snprintf(expected + strlen(expected), 2, "}");
    assert_string_equal(fixture_text(f, LAST_PAYLOAD).text, expected);
    assert_string_equal(fixture_text(f, LAST_SUBJECT).text, "ar.events.invoice.issued");
    assert_string_equal(fixture_text(f, "SELECT key FROM outbox ORDER BY id DESC LIMIT 1").text,
                        USER);
    assert_string_equal(fixture_text(f,
                                     "SELECT amount_cents || currency || "
                                     "(account_id = (SELECT id FROM ar_account)) FROM ar_invoice")
                            .text,
                        "12050EUR1");
}

static void ar_invoice_of_an_unknown_account_is_not_found(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(fixture_post(f, "/ar/invoices", INVOICE), 404);
    assert_body_has(f, USER);
    assert_body_has(f, "/auth/users");
    assert_int_equal(fixture_number(f, COUNT_EVENTS), 0);
}

static void ar_amounts_are_whole_cents_within_their_limits(void **state)
{
    struct fixture *f = *state;
    static const char *const bad[] = {"0",
                                      "-1",
                                      "1000000000001",
                                      "1.0",
                                      "1.5",
                                      "1e3",
                                      "\"1\"",
                                      "null",
                                      "true",
                                      "9223372036854775808",
                                      "[1]",
                                      "99999999999999999999"};
    static const char *const good[] = {"1", "1000000000000"};
    char body[200];

    open_account(f);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(body, sizeof(body),
                 "{\"user_id\":\"" USER "\",\"amount_cents\":%s,\"currency\":\"EUR\"}", bad[i]);
        assert_int_equal(fixture_post(f, "/ar/invoices", body), 400);
    }
    assert_int_equal(fixture_number(f, COUNT_INVOICES), 0);
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        snprintf(body, sizeof(body),
                 "{\"user_id\":\"" USER "\",\"amount_cents\":%s,\"currency\":\"EUR\"}", good[i]);
        assert_int_equal(fixture_post(f, "/ar/invoices", body), 201);
    }
    assert_int_equal(fixture_number(f, "SELECT sum(amount_cents) FROM ar_invoice"), 1000000000001);
}

static void ar_invoice_out_of_form_is_refused(void **state)
{
    struct fixture *f = *state;
    static const char *const bodies[] = {
        "",
        "x",
        "[]",
        "{}",
        "{\"user_id\":\"" USER "\",\"amount_cents\":1}",
        "{\"user_id\":\"" USER "\",\"amount_cents\":1,\"currency\":\"EU\"}",
        "{\"user_id\":\"" USER "\",\"amount_cents\":1,\"currency\":\"EURO\"}",
        "{\"user_id\":\"" USER "\",\"amount_cents\":1,\"currency\":\"eur\"}",
        "{\"user_id\":\"" USER "\",\"amount_cents\":1,\"currency\":\"E\\\"R\"}",
        "{\"user_id\":\"" USER "\",\"amount_cents\":1,\"currency\":978}",
        "{\"user_id\":\"a b\",\"amount_cents\":1,\"currency\":\"EUR\"}",
        "{\"user_id\":7,\"amount_cents\":1,\"currency\":\"EUR\"}",
        "{\"amount_cents\":1,\"currency\":\"EUR\"}",
        "{\"user_id\":\"" USER "\",\"amount_cents\":1,\"amount_cents\":2,\"currency\":\"EUR\"}",
    };

    open_account(f);
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++)
        assert_int_equal(fixture_post(f, "/ar/invoices", bodies[i]), 400);
    assert_int_equal(fixture_number(f, COUNT_INVOICES), 0);
    assert_int_equal(fixture_number(f, COUNT_EVENTS), 1);
}

static void ar_invoice_and_its_event_are_written_both_or_neither(void **state)
{
    struct fixture *f = *state;
    static const char *const tables[] = {"outbox", "ar_invoice"};

    open_account(f);
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
        fixture_break(f, tables[i]);
        assert_int_equal(fixture_post(f, "/ar/invoices", INVOICE), 500);
        fixture_mend(f);
        assert_int_equal(fixture_number(f, COUNT_INVOICES), 0);
        assert_int_equal(fixture_number(f, COUNT_EVENTS), 1);
    }
    assert_int_equal(fixture_post(f, "/ar/invoices", INVOICE), 201);
}

static void ar_database_held_by_another_asks_for_a_repeat(void **state)
{
    struct fixture *f = *state;
    struct sqlite3 *other;

    open_account(f);
    assert_int_equal(sqlite3_open(f->path, &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(fixture_post(f, "/ar/invoices", INVOICE), 503);
    sqlite3_close(other);
    assert_int_equal(fixture_post(f, "/ar/invoices", INVOICE), 201);
}

/* ---- listing --------------------------------------------------------------------------------- */

static void ar_accounts_are_listed_with_their_invoices(void **state)
{
    struct fixture *f = *state;
    struct wb_buf out = {0};
    struct wb_why why = {""};

    assert_int_equal(fixture_get(f, "/ar/accounts", ""), 200);
    assert_string_equal(f->response.body.ptr, "{\"accounts\":[]}\n");
    open_account(f);
    assert_int_equal(fixture_post(f, "/ar/invoices", INVOICE), 201);
    assert_int_equal(fixture_post(f, "/ar/invoices", INVOICE), 201);
    assert_int_equal(fixture_get(f, "/ar/accounts", "limit=5"), 200);
    assert_body_has(f, "\"user_id\":\"" USER "\"");
    assert_body_has(f, "\"invoices\":2}]}");
    assert_int_equal(fixture_get(f, "/ar/accounts", "limit=0"), 400);

    assert_ok(fixture_command(f, "ls", NULL, NULL, false, &out, &why));
    assert_out_has(&out, "  " USER "  2026-01-02T03:04:05.678Z  2\n");
    wb_buf_clear(&out);
    assert_ok(fixture_command(f, "ls", "--limit", "1", true, &out, &why));
    assert_out_has(&out, "{\"accounts\":[{\"account_id\":");
    assert_err(fixture_command(f, "ls", "x", NULL, false, &out, &why), WB_MISUSE);
    wb_buf_free(&out);
}

/* ---- contract -------------------------------------------------------------------------------- */

static void ar_contract_is_what_the_module_declares(void **state)
{
    (void)state;
    contract_check(&ar_module);
}

static void ar_events_are_what_the_contract_promises(void **state)
{
    struct fixture *f = *state;

    open_account(f);
    contract_check_event(&ar_module, fixture_text(f, LAST_SUBJECT).text,
                         fixture_text(f, LAST_PAYLOAD).text, true);
    assert_int_equal(fixture_post(f, "/ar/invoices", INVOICE), 201);
    contract_check_event(&ar_module, fixture_text(f, LAST_SUBJECT).text,
                         fixture_text(f, LAST_PAYLOAD).text, true);
}

/* What auth promises is enough for ar: every example of it opens an account. */
static void ar_handles_every_example_of_the_event_it_consumes(void **state)
{
    struct fixture *f = *state;
    json_t *schema = contract_load("auth", "auth.events.user.created.v1.schema.json");
    json_t *examples = json_object_get(schema, "examples");
    size_t i;
    json_t *example;

    json_array_foreach(examples, i, example)
    {
        struct wb_why why = {""};
        char *payload = json_dumps(example, JSON_COMPACT);
        assert_non_null(payload);
        assert_ok(user_created(f, payload, NULL, &why));
        free(payload);
    }
    assert_int_equal(fixture_number(f, COUNT_ACCOUNTS), json_array_size(examples));
    json_decref(schema);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(ar_new_user_gets_an_account_and_it_is_told),
        FIXTURE_TEST(ar_second_event_of_a_user_changes_and_tells_nothing),
        FIXTURE_TEST(ar_trace_of_the_cause_goes_on_in_the_effect),
        FIXTURE_TEST(ar_event_without_a_sound_user_id_fails_with_a_reason),
        FIXTURE_TEST(ar_account_whose_event_cannot_be_written_is_not_opened),
        FIXTURE_TEST(ar_invoice_becomes_row_and_event),
        FIXTURE_TEST(ar_invoice_of_an_unknown_account_is_not_found),
        FIXTURE_TEST(ar_amounts_are_whole_cents_within_their_limits),
        FIXTURE_TEST(ar_invoice_out_of_form_is_refused),
        FIXTURE_TEST(ar_invoice_and_its_event_are_written_both_or_neither),
        FIXTURE_TEST(ar_database_held_by_another_asks_for_a_repeat),
        FIXTURE_TEST(ar_accounts_are_listed_with_their_invoices),
        FIXTURE_TEST(ar_contract_is_what_the_module_declares),
        FIXTURE_TEST(ar_events_are_what_the_contract_promises),
        FIXTURE_TEST(ar_handles_every_example_of_the_event_it_consumes),
    };
    return cmocka_run_group_tests_name("module_ar", tests, NULL, NULL);
}
