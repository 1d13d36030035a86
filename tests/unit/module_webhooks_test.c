/* The webhooks module: what GitHub sends becomes one event, byte for byte, or a refusal. */
#include "module_contract.h"
#include "module_fixture.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <waybill_modules/webhooks.h>

#define SECRET       "It's a Secret to Everybody"
#define BODY_MAX     ((size_t)(MESSAGE_PAYLOAD_MAX - 4096))
#define DELIVERY     "72d3162e-cc78-11e3-81ab-4c9367dc0958"
#define PUSH         "{\"ref\":\"refs/heads/main\",\"repository\":{\"full_name\":\"octo/repo\"}}"
#define COUNT_ROWS   "SELECT count(*) FROM webhooks_delivery"
#define COUNT_EVENTS "SELECT count(*) FROM outbox"

FIXTURE(webhooks_module)

/* A request as GitHub makes it; a test changes what it is about. NULL leaves a header out. */
struct delivery {
    const char *event;
    const char *id;
    const char *signature;
    const char *body;
    size_t body_len; /* 0: strlen(body) */
};

/* "sha256=" and the HMAC of a body, as docs.github.com describes it. */
static void sign(const char *secret, const char *body, size_t len, char out[72])
{
    uint8_t mac[EVP_MAX_MD_SIZE];
    unsigned mac_len;

    assert_non_null(HMAC(EVP_sha256(), secret, (int)strlen(secret), (const unsigned char *)body,
                         len, mac, &mac_len));
    memcpy(out, "sha256=", 7);
    wb_hex_encode(mac, 32, out + 7);
}

static void set_secret(struct fixture *f, const char *secret)
{
    struct wb_why why = {""};

    if (config_set(f->config, "webhooks.secret", secret, "--test", &why) != WB_OK)
        fail_msg("%s", why.text);
}

static int post(struct fixture *f, const struct delivery *d)
{
    struct message_header headers[4];
    size_t count = 0;

    headers[count++] = (struct message_header){wb_str("Content-Type"), wb_str("application/json")};
    if (d->event != NULL)
        headers[count++] = (struct message_header){wb_str("X-GitHub-Event"), wb_str(d->event)};
    if (d->id != NULL)
        headers[count++] = (struct message_header){wb_str("X-GitHub-Delivery"), wb_str(d->id)};
    if (d->signature != NULL)
        headers[count++] =
            (struct message_header){wb_str("X-Hub-Signature-256"), wb_str(d->signature)};
    const struct module_request request = {
        .method = wb_str("POST"),
        .path = wb_str("/webhooks/github"),
        .body = {d->body, d->body_len > 0 ? d->body_len : strlen(d->body)},
        .headers = headers,
        .header_count = count,
    };
    return fixture_request(f, &request);
}

/* With the right signature and a secret that is set. */
static int post_signed(struct fixture *f, struct delivery d)
{
    char signature[72];
    size_t len = d.body_len > 0 ? d.body_len : strlen(d.body);

    set_secret(f, SECRET);
    sign(SECRET, d.body, len, signature);
    d.signature = signature;
    return post(f, &d);
}

static void assert_nothing_written(struct fixture *f)
{
    assert_int_equal(fixture_number(f, COUNT_ROWS), 0);
    assert_int_equal(fixture_number(f, COUNT_EVENTS), 0);
}

/* ---- taking ---------------------------------------------------------------------------------- */

static void webhooks_signed_delivery_becomes_row_and_event(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(post_signed(f, (struct delivery){"push", DELIVERY, NULL, PUSH, 0}), 202);
    assert_body_has(f, "{\"delivery\":\"" DELIVERY "\",\"subject\":\"webhooks.github.push\","
                       "\"event_id\":\"");
    assert_string_equal(
        fixture_text(f, "SELECT id || '|' || event || '|' || coalesce(action, '-') || '|' || "
                        "received_at || '|' || body_size FROM webhooks_delivery")
            .text,
        DELIVERY "|push|-|2026-01-02T03:04:05.678Z|64");
    assert_string_equal(
        fixture_text(f, "SELECT subject || '|' || key || '|' || CAST(payload AS TEXT) FROM outbox")
            .text,
        "webhooks.github.push|octo/repo|" PUSH);
    assert_string_equal(fixture_text(f, "SELECT headers FROM outbox").text,
                        "content-type: application/json\nx-github-delivery: " DELIVERY
                        "\nx-github-event: push");
    char id_in_answer[80];
    snprintf(id_in_answer, sizeof(id_in_answer), "\"event_id\":\"%.32s\"",
             fixture_text(f, "SELECT lower(hex(msg_id)) FROM outbox").text);
    assert_body_has(f, id_in_answer);
}

/* GitHub's documentation gives this secret, body and signature for testing one's own code. */
static void webhooks_signature_of_githubs_documentation_is_the_one_we_compute(void **state)
{
    struct fixture *f = *state;
    const struct delivery d = {
        "push", DELIVERY, "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        "Hello, World!", 0};

    set_secret(f, "It's a Secret to Everybody");
    assert_int_equal(post(f, &d), 400); /* the sender is believed; the body is no JSON */
    assert_body_has(f, "no JSON object");
}

static void webhooks_real_deliveries_become_their_events_byte_for_byte(void **state)
{
    struct fixture *f = *state;
    char *text = test_file_read(TEST_DATA_DIR "/github/github-webhooks.ndjson", NULL);
    char *rest = text;
    int count = 0;

    for (char *line; (line = strsep(&rest, "\n")) != NULL && *line != '\0'; count++) {
        json_t *json = json_loads(line, 0, NULL);
        const char *event = json_string_value(json_object_get(json, "event"));
        const char *action =
            json_string_value(json_object_get(json_object_get(json, "payload"), "action"));
        const char *body = strstr(line, "\"payload\":") + strlen("\"payload\":");
        const size_t len = strlen(body) - 1; /* but for the last brace */
        char id[64];
        char expected[300];
        struct sqlite3_stmt *stmt;

        snprintf(id, sizeof(id), "real-%d", count);
        snprintf(expected, sizeof(expected), "webhooks.github.%s%s%s", event,
                 action != NULL ? "." : "", action != NULL ? action : "");
        assert_int_equal(post_signed(f, (struct delivery){event, id, NULL, body, len}), 202);
        assert_int_equal(sqlite3_prepare_v2(db_handle(f->scope.db),
                                            "SELECT subject, payload FROM outbox "
                                            "ORDER BY id DESC LIMIT 1",
                                            -1, &stmt, NULL),
                         SQLITE_OK);
        assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
        assert_string_equal(sqlite3_column_text(stmt, 0), expected);
        assert_int_equal(sqlite3_column_bytes(stmt, 1), len);
        assert_memory_equal(sqlite3_column_blob(stmt, 1), body, len);
        sqlite3_finalize(stmt);
        json_decref(json);
    }
    assert_int_equal(count, 220);
    assert_int_equal(fixture_number(f, COUNT_ROWS), 220);
    assert_int_equal(fixture_number(f, COUNT_EVENTS), 220);
    free(text);
}

static void webhooks_action_that_fits_no_subject_is_left_out(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *body;
        const char *subject;
    } cases[] = {
        {"{\"action\":\"opened\"}", "webhooks.github.issues.opened"},
        {"{\"action\":\"Opened-2_x\"}", "webhooks.github.issues.Opened-2_x"},
        {"{\"action\":\"a.b\"}", "webhooks.github.issues"},
        {"{\"action\":\"a b\"}", "webhooks.github.issues"},
        {"{\"action\":\">\"}", "webhooks.github.issues"},
        {"{\"action\":\"*\"}", "webhooks.github.issues"},
        {"{\"action\":\"\"}", "webhooks.github.issues"},
        {"{\"action\":\"a\\r\\nPUB x 1\"}", "webhooks.github.issues"},
        {"{\"action\":\"a\\u0000\"}", "webhooks.github.issues"},
        {"{\"action\":\"\303\244\"}", "webhooks.github.issues"},
        {"{\"action\":1}", "webhooks.github.issues"},
        {"{\"action\":null}", "webhooks.github.issues"},
        {"{\"action\":{\"x\":\"opened\"}}", "webhooks.github.issues"},
        {"{\"action\":\"0123456789012345678901234567890123456789012345678901234567890123\"}",
         "webhooks.github.issues.0123456789012345678901234567890123456789012345678901234567890123"},
        {"{\"action\":\"01234567890123456789012345678901234567890123456789012345678901234\"}",
         "webhooks.github.issues"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char id[32];
        snprintf(id, sizeof(id), "action-%zu", i);
        assert_int_equal(post_signed(f, (struct delivery){"issues", id, NULL, cases[i].body, 0}),
                         202);
        assert_string_equal(
            fixture_text(f, "SELECT subject FROM outbox ORDER BY id DESC LIMIT 1").text,
            cases[i].subject);
    }
}

static void webhooks_key_is_the_repository_or_the_organization_or_none(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *body;
        const char *key;
    } cases[] = {
        {"{\"repository\":{\"full_name\":\"a/b\"},\"organization\":{\"login\":\"a\"}}", "a/b"},
        {"{\"organization\":{\"login\":\"a\"}}", "a"},
        {"{\"repository\":null,\"organization\":{\"login\":\"a\"}}", "a"},
        {"{\"repository\":{\"full_name\":7}}", ""},
        {"{\"repository\":\"a/b\"}", ""},
        {"{}", ""},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char id[32];
        snprintf(id, sizeof(id), "key-%zu", i);
        assert_int_equal(post_signed(f, (struct delivery){"push", id, NULL, cases[i].body, 0}),
                         202);
        assert_string_equal(fixture_text(f, "SELECT key FROM outbox ORDER BY id DESC LIMIT 1").text,
                            cases[i].key);
    }
}

static void webhooks_json_beyond_what_a_reader_keeps_is_still_taken(void **state)
{
    struct fixture *f = *state;
    const char *body = "{\"id\":123456789012345678901234567890,\"text\":\"nul \\u0000 in it\"}";

    assert_int_equal(post_signed(f, (struct delivery){"push", "big", NULL, body, 0}), 202);
    assert_string_equal(fixture_text(f, "SELECT CAST(payload AS TEXT) FROM outbox").text, body);
}

/* ---- repeats --------------------------------------------------------------------------------- */

static void webhooks_repeated_delivery_is_answered_but_not_taken_again(void **state)
{
    struct fixture *f = *state;
    const struct delivery d = {"push", DELIVERY, NULL, PUSH, 0};
    char expected[300];

    assert_int_equal(post_signed(f, d), 202);
    snprintf(expected, sizeof(expected),
             "{\"duplicate\":true,\"delivery\":\"" DELIVERY
             "\",\"subject\":\"webhooks.github.push\",\"event_id\":\"%.32s\"}\n",
             fixture_text(f, "SELECT lower(hex(msg_id)) FROM outbox").text);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(post_signed(f, d), 200);
        assert_string_equal(f->response.body.ptr, expected);
    }
    assert_int_equal(fixture_number(f, COUNT_ROWS), 1);
    assert_int_equal(fixture_number(f, COUNT_EVENTS), 1);
}

static void webhooks_delivery_id_with_another_body_or_event_is_a_conflict(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(post_signed(f, (struct delivery){"push", DELIVERY, NULL, PUSH, 0}), 202);
    assert_int_equal(post_signed(f, (struct delivery){"push", DELIVERY, NULL, PUSH " ", 0}), 409);
    assert_body_has(f, DELIVERY);
    assert_int_equal(post_signed(f, (struct delivery){"ping", DELIVERY, NULL, PUSH, 0}), 409);
    assert_int_equal(fixture_number(f, COUNT_ROWS), 1);
    assert_int_equal(fixture_number(f, COUNT_EVENTS), 1);
}

/* ---- refusals -------------------------------------------------------------------------------- */

static void webhooks_without_a_secret_nobody_is_believed(void **state)
{
    struct fixture *f = *state;
    char signature[72];
    const struct delivery d = {"push", DELIVERY, signature, PUSH, 0};

    sign("", PUSH, strlen(PUSH), signature);
    assert_int_equal(post(f, &d), 503);
    assert_body_has(f, "WAYBILL_WEBHOOKS_SECRET");
    set_secret(f, "");
    assert_int_equal(post(f, &d), 503);
    assert_nothing_written(f);
}

static void webhooks_missing_or_malformed_signature_is_refused(void **state)
{
    struct fixture *f = *state;
    char right[72];
    char upper_prefix[72];
    char wrong_digit[72];
    char other_algorithm[72];
    char longer[80];

    sign(SECRET, PUSH, strlen(PUSH), right);
    snprintf(upper_prefix, sizeof(upper_prefix), "SHA256=%s", right + 7);
    snprintf(wrong_digit, sizeof(wrong_digit), "%.70sg", right);
    snprintf(other_algorithm, sizeof(other_algorithm), "sha1=%.40s", right + 7);
    snprintf(longer, sizeof(longer), "%s0", right);
    const char *const cases[] = {NULL,         "",          "sha256=", right + 7,
                                 upper_prefix, wrong_digit, longer,    other_algorithm};
    set_secret(f, SECRET);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(post(f, &(struct delivery){"push", DELIVERY, cases[i], PUSH, 0}), 401);
        assert_body_has(f, "missing or not");
    }
    assert_nothing_written(f);
}

static void webhooks_wrong_signature_is_refused(void **state)
{
    struct fixture *f = *state;
    char other_secret[72];
    char other_body[72];

    sign(SECRET "!", PUSH, strlen(PUSH), other_secret);
    sign(SECRET, PUSH " ", strlen(PUSH) + 1, other_body);
    set_secret(f, SECRET);
    assert_int_equal(post(f, &(struct delivery){"push", DELIVERY, other_secret, PUSH, 0}), 401);
    assert_body_has(f, "does not belong");
    assert_int_equal(post(f, &(struct delivery){"push", DELIVERY, other_body, PUSH, 0}), 401);
    assert_nothing_written(f);
}

static void webhooks_each_digit_of_the_signature_counts(void **state)
{
    struct fixture *f = *state;
    char signature[72];

    sign(SECRET, PUSH, strlen(PUSH), signature);
    set_secret(f, SECRET);
    for (size_t i = 7; i < 71; i++) {
        char right = signature[i];
        signature[i] = right == '0' ? '1' : '0';
        assert_int_equal(post(f, &(struct delivery){"push", DELIVERY, signature, PUSH, 0}), 401);
        signature[i] = right;
    }
    assert_int_equal(post(f, &(struct delivery){"push", DELIVERY, signature, PUSH, 0}), 202);
}

static void webhooks_signature_is_looked_at_before_anything_else(void **state)
{
    struct fixture *f = *state;

    set_secret(f, SECRET);
    assert_int_equal(post(f, &(struct delivery){NULL, NULL, NULL, "no json", 0}), 401);
}

static void webhooks_headers_out_of_form_are_refused(void **state)
{
    struct fixture *f = *state;
    static const char name_64[] =
        "abcdefghijklmnopqrstuvwxyz_abcdefghijklmnopqrstuvwxyz_abcdefghij";
    static const char name_65[] =
        "abcdefghijklmnopqrstuvwxyz_abcdefghijklmnopqrstuvwxyz_abcdefghijk";
    const char *const events[] = {NULL, "", "Push", "push.x", "push event", ">", "push-1", name_65};
    const char *const ids[] = {
        NULL,   "",
        "a b",  "a_b",
        "a.b",  "\303\244",
        "a\nb", "0123456789012345678901234567890123456789012345678901234567890123-"};

    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
        assert_int_equal(post_signed(f, (struct delivery){events[i], DELIVERY, NULL, PUSH, 0}),
                         400);
        assert_body_has(f, "X-GitHub-Event");
    }
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        assert_int_equal(post_signed(f, (struct delivery){"push", ids[i], NULL, PUSH, 0}), 400);
        assert_body_has(f, "X-GitHub-Delivery");
    }
    assert_nothing_written(f);
    assert_int_equal(post_signed(f, (struct delivery){name_64, DELIVERY, NULL, PUSH, 0}), 202);
}

static void webhooks_body_that_is_no_sound_object_is_refused(void **state)
{
    struct fixture *f = *state;
    static const char *const bodies[] = {
        "x",
        "[]",
        "[{}]",
        "\"{}\"",
        "null",
        "{} {}",
        "{\"a\":1,\"a\":2}",
        "{\"a\":1,",
        "payload=%7B%7D",
        "{\"a\":\"\xff\"}",
    };

    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        assert_int_equal(post_signed(f, (struct delivery){"push", DELIVERY, NULL, bodies[i], 0}),
                         400);
        assert_body_has(f, "no JSON object");
    }
    assert_nothing_written(f);
}

static void webhooks_empty_body_is_refused(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(post_signed(f, (struct delivery){"push", DELIVERY, NULL, "", 0}), 400);
    assert_nothing_written(f);
}

static void webhooks_body_nested_too_deep_is_refused(void **state)
{
    struct fixture *f = *state;
    const size_t depth = 100000;
    char *body = malloc(2 * depth + 16);

    assert_non_null(body);
    memcpy(body, "{\"a\":", 5);
    memset(body + 5, '[', depth);
    memset(body + 5 + depth, ']', depth);
    memcpy(body + 5 + 2 * depth, "}", 2);
    assert_int_equal(post_signed(f, (struct delivery){"push", DELIVERY, NULL, body, 0}), 400);
    assert_body_has(f, "depth");
    free(body);
    assert_nothing_written(f);
}

static void webhooks_key_that_no_header_could_carry_is_refused(void **state)
{
    struct fixture *f = *state;
    char body[400];
    char name[260];

    memset(name, 'x', sizeof(name));
    name[256] = '\0';
    snprintf(body, sizeof(body), "{\"repository\":{\"full_name\":\"%s\"}}", name);
    assert_int_equal(post_signed(f, (struct delivery){"push", DELIVERY, NULL, body, 0}), 400);
    assert_body_has(f, "full_name");
    name[255] = '\0';
    assert_nothing_written(f);
    snprintf(body, sizeof(body), "{\"repository\":{\"full_name\":\"%s\"}}", name);
    assert_int_equal(post_signed(f, (struct delivery){"push", DELIVERY, NULL, body, 0}), 202);
}

/* A JSON object of exactly len bytes. */
static char *padded_body(size_t len)
{
    char *body = malloc(len + 1);

    assert_non_null(body);
    memset(body, 'x', len);
    memcpy(body, "{\"a\":\"", 6);
    memcpy(body + len - 2, "\"}", 3);
    return body;
}

static void webhooks_largest_body_is_taken_and_one_byte_more_is_told_the_limit(void **state)
{
    struct fixture *f = *state;
    char *body = padded_body(BODY_MAX);

    assert_int_equal(webhooks_module.routes[0].max_body, BODY_MAX);
    assert_int_equal(post_signed(f, (struct delivery){"push", "max", NULL, body, BODY_MAX}), 202);
    free(body);
    body = padded_body(BODY_MAX + 1);
    assert_int_equal(post_signed(f, (struct delivery){"push", "more", NULL, body, BODY_MAX + 1}),
                     413);
    assert_body_has(f, "1044480");
    free(body);
    assert_int_equal(fixture_number(f, COUNT_ROWS), 1);
}

/* ---- all or nothing -------------------------------------------------------------------------- */

static void webhooks_event_that_cannot_be_written_leaves_no_row(void **state)
{
    struct fixture *f = *state;
    const struct delivery d = {"push", DELIVERY, NULL, PUSH, 0};

    fixture_break(f, "outbox");
    assert_int_equal(post_signed(f, d), 500);
    assert_nothing_written(f);
    fixture_mend(f);
    assert_int_equal(post_signed(f, d), 202);
}

static void webhooks_row_that_cannot_be_written_leaves_no_event(void **state)
{
    struct fixture *f = *state;
    const struct delivery d = {"push", DELIVERY, NULL, PUSH, 0};

    fixture_break(f, "webhooks_delivery");
    assert_int_equal(post_signed(f, d), 500);
    assert_nothing_written(f);
    fixture_mend(f);
    assert_int_equal(post_signed(f, d), 202);
}

static void webhooks_database_held_by_another_asks_for_a_repeat(void **state)
{
    struct fixture *f = *state;
    const struct delivery d = {"push", DELIVERY, NULL, PUSH, 0};
    struct sqlite3 *other;

    assert_int_equal(sqlite3_open(f->path, &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(post_signed(f, d), 503);
    assert_body_has(f, "send it again");
    sqlite3_close(other);
    assert_int_equal(post_signed(f, d), 202);
}

/* ---- contract -------------------------------------------------------------------------------- */

static void webhooks_contract_is_what_the_module_declares(void **state)
{
    (void)state;
    contract_check(&webhooks_module);
}

static void webhooks_events_are_what_the_contract_promises(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(post_signed(f, (struct delivery){"push", DELIVERY, NULL, PUSH, 0}), 202);
    contract_check_event(&webhooks_module, fixture_text(f, "SELECT subject FROM outbox").text,
                         fixture_text(f, "SELECT CAST(payload AS TEXT) FROM outbox").text, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(webhooks_signed_delivery_becomes_row_and_event),
        FIXTURE_TEST(webhooks_signature_of_githubs_documentation_is_the_one_we_compute),
        FIXTURE_TEST(webhooks_real_deliveries_become_their_events_byte_for_byte),
        FIXTURE_TEST(webhooks_action_that_fits_no_subject_is_left_out),
        FIXTURE_TEST(webhooks_key_is_the_repository_or_the_organization_or_none),
        FIXTURE_TEST(webhooks_json_beyond_what_a_reader_keeps_is_still_taken),
        FIXTURE_TEST(webhooks_repeated_delivery_is_answered_but_not_taken_again),
        FIXTURE_TEST(webhooks_delivery_id_with_another_body_or_event_is_a_conflict),
        FIXTURE_TEST(webhooks_without_a_secret_nobody_is_believed),
        FIXTURE_TEST(webhooks_missing_or_malformed_signature_is_refused),
        FIXTURE_TEST(webhooks_wrong_signature_is_refused),
        FIXTURE_TEST(webhooks_each_digit_of_the_signature_counts),
        FIXTURE_TEST(webhooks_signature_is_looked_at_before_anything_else),
        FIXTURE_TEST(webhooks_headers_out_of_form_are_refused),
        FIXTURE_TEST(webhooks_body_that_is_no_sound_object_is_refused),
        FIXTURE_TEST(webhooks_empty_body_is_refused),
        FIXTURE_TEST(webhooks_body_nested_too_deep_is_refused),
        FIXTURE_TEST(webhooks_key_that_no_header_could_carry_is_refused),
        FIXTURE_TEST(webhooks_largest_body_is_taken_and_one_byte_more_is_told_the_limit),
        FIXTURE_TEST(webhooks_event_that_cannot_be_written_leaves_no_row),
        FIXTURE_TEST(webhooks_row_that_cannot_be_written_leaves_no_event),
        FIXTURE_TEST(webhooks_database_held_by_another_asks_for_a_repeat),
        FIXTURE_TEST(webhooks_contract_is_what_the_module_declares),
        FIXTURE_TEST(webhooks_events_are_what_the_contract_promises),
    };
    return cmocka_run_group_tests_name("module_webhooks", tests, NULL, NULL);
}
