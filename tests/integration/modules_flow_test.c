/*
 * All modules together, each with its own database. The test carries the rows of each outbox to
 * those who subscribe, so what is proved is what the modules agree on: subjects, patterns,
 * payloads.
 */
#include "../unit/module_contract.h"
#include "../unit/module_fixture.h"

#include <waybill/subject.h>

#include <waybill_modules/ar.h>
#include <waybill_modules/audit.h>
#include <waybill_modules/auth.h>
#include <waybill_modules/notify.h>
#include <waybill_modules/webhooks.h>

enum { WEBHOOKS, AUTH, AR, NOTIFY, AUDIT, MODULES };

static const struct module *const modules[MODULES] = {&webhooks_module, &auth_module, &ar_module,
                                                      &notify_module, &audit_module};

struct house {
    struct fixture rooms[MODULES];
    int64_t carried[MODULES]; /* the last outbox row that was handed out */
};

static int setup(void **state)
{
    static struct house house;

    memset(&house, 0, sizeof(house));
    for (size_t i = 0; i < MODULES; i++)
        fixture_open(&house.rooms[i], modules[i]);
    *state = &house;
    return 0;
}

static int teardown(void **state)
{
    struct house *house = *state;

    for (size_t i = 0; i < MODULES; i++)
        fixture_close(&house->rooms[i]);
    return 0;
}

/* ---- carrying -------------------------------------------------------------------------------- */

static bool listens(const struct module *module, struct wb_str subject)
{
    for (size_t i = 0; i < module->subscription_count; i++)
        for (const char *const *p = module->subscriptions[i].patterns; *p != NULL; p++)
            if (subject_matches(wb_str(*p), subject))
                return true;
    return false;
}

struct carrier {
    struct house *house;
    size_t from;
};

static bool hand_out(void *ctx, const struct outbox_row *row)
{
    const struct carrier *carrier = ctx;
    struct house *house = carrier->house;
    struct message_header headers[MESSAGE_HEADERS_MAX];
    size_t count;
    char id[WB_ID_TEXT];
    struct wb_why why = {""};

    assert_ok(message_headers_parse(row->headers, headers, &count, &why));
    headers[count++] = (struct message_header){wb_str(MESSAGE_HEADER_KEY), row->key};
    wb_hex_encode(row->msg_id, WB_ID_SIZE, id);
    const struct message message = {.subject = row->subject,
                                    .payload = row->payload,
                                    .headers = headers,
                                    .header_count = count,
                                    .msg_id = wb_str(id)};
    for (size_t i = 0; i < MODULES; i++) {
        if (!listens(modules[i], row->subject))
            continue;
        if (fixture_event(&house->rooms[i], &message, modules[carrier->from]->stream,
                          (uint64_t)row->id, &why) != WB_OK)
            fail_msg("%s: %s", modules[i]->name, why.text);
    }
    house->carried[carrier->from] = row->id;
    return true;
}

static void carry_from(struct house *house, size_t from)
{
    struct carrier carrier = {house, from};
    const struct outbox_filter filter = {.after_id = house->carried[from], .limit = 1000};
    struct wb_why why = {""};

    assert_ok(
        outbox_list(db_handle(house->rooms[from].scope.db), &filter, hand_out, &carrier, &why));
}

/* Until no outbox has a row that was not handed out. Those who publish stand in order of cause. */
static void carry_all(struct house *house)
{
    for (size_t i = 0; i < MODULES; i++)
        if (modules[i]->stream != NULL)
            carry_from(house, i);
    for (size_t i = 0; i < MODULES; i++)
        if (modules[i]->stream != NULL)
            assert_int_equal(house->carried[i],
                             fixture_number(&house->rooms[i], "SELECT max(id) FROM outbox"));
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void modules_new_user_gets_account_notification_and_audit_entry(void **state)
{
    struct house *house = *state;
    char invoice[200];

    assert_int_equal(fixture_post(&house->rooms[AUTH], "/auth/users",
                                  "{\"email\":\"ada@example.com\",\"name\":\"Ada\"}"),
                     201);
    struct fixture_text user = fixture_text(&house->rooms[AUTH], "SELECT id FROM auth_user");
    snprintf(invoice, sizeof(invoice),
             "{\"user_id\":\"%.32s\",\"amount_cents\":100,\"currency\":\"EUR\"}", user.text);
    assert_int_equal(fixture_post(&house->rooms[AR], "/ar/invoices", invoice), 404);
    carry_all(house);
    assert_string_equal(fixture_text(&house->rooms[AR], "SELECT user_id FROM ar_account").text,
                        user.text);
    assert_int_equal(fixture_post(&house->rooms[AR], "/ar/invoices", invoice), 201);
    carry_all(house);

    assert_string_equal(
        fixture_text(&house->rooms[NOTIFY],
                     "SELECT group_concat(subject || ' ' || about) FROM "
                     "(SELECT * FROM notify_notification ORDER BY subject DESC)")
            .text,
        fixture_text(&house->rooms[AUTH],
                     "SELECT 'auth.events.user.created ' || id || ',ar.events.invoice.issued ' || "
                     "id FROM auth_user")
            .text);
    assert_string_equal(
        fixture_text(&house->rooms[AUDIT], "SELECT group_concat(subject) FROM audit_entry").text,
        "auth.events.user.created,ar.events.account.opened,ar.events.invoice.issued");
}

static void modules_many_users_leave_equal_counts_everywhere(void **state)
{
    struct house *house = *state;
    struct wb_buf out = {0};
    struct wb_why why = {""};
    char body[100];

    for (int i = 0; i < 200; i++) {
        snprintf(body, sizeof(body), "{\"email\":\"u%d@x\",\"name\":\"n\"}", i);
        assert_int_equal(fixture_post(&house->rooms[AUTH], "/auth/users", body), 201);
        if (i % 7 == 0)
            carry_all(house);
    }
    carry_all(house);
    assert_int_equal(fixture_number(&house->rooms[AR], "SELECT count(*) FROM ar_account"), 200);
    assert_int_equal(
        fixture_number(&house->rooms[NOTIFY], "SELECT count(*) FROM notify_notification"), 200);
    assert_int_equal(fixture_number(&house->rooms[AUDIT], "SELECT count(*) FROM audit_entry"), 400);
    assert_ok(fixture_command(&house->rooms[AUDIT], "verify", NULL, NULL, false, &out, &why));
    assert_out_has(&out, "ok: 400 entries");
    wb_buf_free(&out);
}

/* Each stream belongs to one module, so no subject may belong to two. */
static void modules_subjects_do_not_overlap(void **state)
{
    (void)state;
    for (size_t i = 0; i < MODULES; i++)
        for (size_t k = i + 1; k < MODULES; k++)
            for (size_t n = 0; modules[i]->subjects != NULL && modules[i]->subjects[n]; n++)
                for (size_t m = 0; modules[k]->subjects != NULL && modules[k]->subjects[m]; m++)
                    assert_false(subject_overlap(wb_str(modules[i]->subjects[n]),
                                                 wb_str(modules[k]->subjects[m])));
}

static void assert_starts_with(const char *text, const char *start)
{
    if (strncmp(text, start, strlen(start)) != 0)
        fail_msg("'%s' does not start with '%s'", text, start);
}

/* Whose a route, setting or table is can be read off its name. */
static void modules_names_of_what_they_own_start_with_theirs(void **state)
{
    struct house *house = *state;
    char start[64];

    for (size_t i = 0; i < MODULES; i++) {
        snprintf(start, sizeof(start), "/%s/", modules[i]->name);
        for (size_t n = 0; n < modules[i]->route_count; n++)
            assert_starts_with(modules[i]->routes[n].path, start);
        snprintf(start, sizeof(start), "%s.", modules[i]->name);
        for (size_t n = 0; n < modules[i]->setting_count; n++)
            assert_starts_with(modules[i]->settings[n].name, start);
        snprintf(start, sizeof(start), "%s_", modules[i]->name);
        struct sqlite3_stmt *stmt;
        assert_int_equal(sqlite3_prepare_v2(db_handle(house->rooms[i].scope.db),
                                            "SELECT name FROM sqlite_schema WHERE type <> 'index' "
                                            "AND name NOT GLOB 'outbox*' AND name NOT GLOB "
                                            "'waybill*' AND name NOT GLOB 'sqlite*'",
                                            -1, &stmt, NULL),
                         SQLITE_OK);
        while (sqlite3_step(stmt) == SQLITE_ROW)
            assert_starts_with((const char *)sqlite3_column_text(stmt, 0), start);
        sqlite3_finalize(stmt);
    }
}

static void modules_contracts_name_what_each_consumes(void **state)
{
    (void)state;
    for (size_t i = 0; i < MODULES; i++) {
        json_t *contract = contract_load(modules[i]->name, "contract.json");
        const json_t *consumes = json_object_get(contract, "consumes");
        size_t count = 0;

        for (size_t n = 0; n < modules[i]->subscription_count; n++)
            for (const char *const *p = modules[i]->subscriptions[n].patterns; *p != NULL; p++)
                assert_string_equal(json_string_value(json_array_get(consumes, count++)), *p);
        assert_int_equal(json_array_size(consumes), count);
        json_decref(contract);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(modules_new_user_gets_account_notification_and_audit_entry),
        FIXTURE_TEST(modules_many_users_leave_equal_counts_everywhere),
        FIXTURE_TEST(modules_subjects_do_not_overlap),
        FIXTURE_TEST(modules_names_of_what_they_own_start_with_theirs),
        FIXTURE_TEST(modules_contracts_name_what_each_consumes),
    };
    return cmocka_run_group_tests_name("modules_flow", tests, NULL, NULL);
}
