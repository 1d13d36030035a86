/* Marked fields are not seen, however the payload is written. */
#include "dead_letter_fixture.h"

static struct dead_letter_redaction *marked(struct fixture *f, const char *names)
{
    struct dead_letter_redaction *redaction = NULL;
    struct wb_why why = {""};

    if (dead_letter_redaction_create(f->db, wb_str(names), &redaction, &why) != WB_OK)
        fail_msg("%s: %s", names, why.text);
    return redaction;
}

static void assert_shown(struct dead_letter_redaction *redaction, const char *payload,
                         const char *expected)
{
    struct wb_buf out = {0};
    bool hidden = false;

    wb_buf_str(&out, "");
    assert_ok(dead_letter_redact_payload(redaction, (struct wb_bytes){payload, strlen(payload)},
                                         &out, &hidden, NULL));
    assert_string_equal(out.ptr, expected);
    assert_int_equal(hidden, strcmp(payload, expected) != 0);
    wb_buf_free(&out);
}

static void field_is_hidden_at_any_depth(void **state)
{
    struct dead_letter_redaction *r = marked(*state, "password, card.number");

    assert_shown(r, "{\"password\":\"x\",\"a\":1}", "{\"password\":\"***\",\"a\":1}");
    assert_shown(r, "[{\"a\":{\"password\":[1,2]}},{\"password\":null}]",
                 "[{\"a\":{\"password\":\"***\"}},{\"password\":\"***\"}]");
    assert_shown(r, "{\"PassWord\":1}", "{\"PassWord\":\"***\"}");
    assert_shown(r, "{\"card\":{\"number\":1,\"name\":\"n\"},\"number\":2}",
                 "{\"card\":{\"number\":\"***\",\"name\":\"n\"},\"number\":2}");
    assert_shown(r, "{\"card\":[{\"number\":1},[{\"number\":2}]]}",
                 "{\"card\":[{\"number\":\"***\"},[{\"number\":\"***\"}]]}");
    assert_shown(r, "{\"x\":{\"card\":{\"card\":{\"number\":1}}}}",
                 "{\"x\":{\"card\":{\"card\":{\"number\":\"***\"}}}}");
    dead_letter_redaction_destroy(r);
}

static void other_payloads_are_shown_as_they_are(void **state)
{
    struct dead_letter_redaction *r = marked(*state, "password card.number");

    assert_shown(r, "", "");
    assert_shown(r, "plain text", "plain text");
    assert_shown(r, "{ \"a\" : 1 }", "{ \"a\" : 1 }");
    assert_shown(r, "{\"card\":{\"x\":{\"number\":1}},\"passwords\":2}",
                 "{\"card\":{\"x\":{\"number\":1}},\"passwords\":2}");
    assert_shown(r, "{\"a\":\"password\"}", "{\"a\":\"password\"}");
    assert_shown(r, "{\"password\":\"***\"}", "{\"password\":\"***\"}");
    dead_letter_redaction_destroy(r);
    assert_shown(NULL, "{\"password\":1}", "{\"password\":1}");
}

/* What json_replace() can address depends on SQLite's version; what is not seen does not. */
static void assert_secret_hidden(struct dead_letter_redaction *redaction, const char *payload)
{
    struct wb_buf out = {0};
    bool hidden = false;

    assert_ok(dead_letter_redact_payload(redaction, (struct wb_bytes){payload, strlen(payload)},
                                         &out, &hidden, NULL));
    assert_null(strstr(out.ptr, "secret"));
    assert_non_null(strstr(out.ptr, "***"));
    assert_true(hidden);
    wb_buf_free(&out);
}

static void field_written_to_escape_is_hidden(void **state)
{
    struct dead_letter_redaction *r = marked(*state, "password");

    assert_secret_hidden(r, "{\"\\u0070assword\":\"secret\"}");
    assert_secret_hidden(r, "{\"a\\\"b\":{\"password\":\"secret\"}}");
    assert_secret_hidden(r, "{\"a\":{\"password\":\"x\",\"password\":\"secret\"}}");
    assert_secret_hidden(r, "{\"a.b\":{\"\":{\"password\":\"secret\"}}}");
    dead_letter_redaction_destroy(r);
}

static void broken_payload_that_mentions_a_field_is_hidden_whole(void **state)
{
    struct dead_letter_redaction *r = marked(*state, "card.number");
    const char nul[] = "{\"a\":1}\0{\"number\":\"secret\"}";
    struct wb_buf out = {0};
    bool hidden = false;

    assert_shown(r, "{\"card\":{\"NUMBER\":1", "***");
    assert_shown(r, "<number>1</number>", "***");
    assert_shown(r, "\xff{\"number\":1}", "***");
    assert_ok(dead_letter_redact_payload(r, (struct wb_bytes){nul, sizeof(nul) - 1}, &out, &hidden,
                                         NULL));
    assert_string_equal(out.ptr, "***");
    assert_true(hidden);
    wb_buf_free(&out);
    dead_letter_redaction_destroy(r);
}

static void payload_with_very_many_marked_fields_is_hidden_whole(void **state)
{
    struct dead_letter_redaction *r = marked(*state, "p");
    struct wb_buf many = {0};

    wb_buf_str(&many, "[");
    for (int i = 0; i < 300; i++)
        wb_buf_str(&many, "{\"p\":1},");
    wb_buf_str(&many, "0]");
    assert_shown(r, many.ptr, "***");
    wb_buf_free(&many);
    dead_letter_redaction_destroy(r);
}

static void assert_headers(struct dead_letter_redaction *redaction, const char *headers,
                           const char *expected)
{
    struct wb_buf out = {0};
    bool hidden = false;

    wb_buf_str(&out, "");
    dead_letter_redact_headers(redaction, wb_str(headers), &out, &hidden);
    assert_string_equal(out.ptr, expected);
    assert_int_equal(hidden, strcmp(headers, expected) != 0);
    wb_buf_free(&out);
}

static void header_of_a_marked_name_is_hidden(void **state)
{
    struct dead_letter_redaction *r = marked(*state, "authorization x.y");

    assert_headers(r, "a: 1\nAuthorization: Bearer x\n x.y :2\nb: 3",
                   "a: 1\nAuthorization: ***\n x.y : ***\nb: 3");
    assert_headers(r, "authorization", "authorization");
    assert_headers(r, "", "");
    assert_headers(NULL, "authorization: x", "authorization: x");
    dead_letter_redaction_destroy(r);
}

static void names_that_are_none_are_refused(void **state)
{
    struct fixture *f = *state;
    struct dead_letter_redaction *r = NULL;
    struct wb_buf many = {0};
    struct wb_why why;

    assert_err(dead_letter_redaction_create(f->db, wb_str("a..b"), &r, &why), WB_INVALID);
    assert_err(dead_letter_redaction_create(f->db, wb_str("ok .b"), &r, &why), WB_INVALID);
    assert_err(dead_letter_redaction_create(f->db, wb_str("a.b.c.d.e.f.g.h.i"), &r, &why),
               WB_INVALID);
    for (int i = 0; i < 33; i++)
        wb_buf_printf(&many, "n%d ", i);
    assert_err(dead_letter_redaction_create(f->db, wb_str(many.ptr), &r, &why), WB_INVALID);
    wb_buf_free(&many);
    assert_null(r);
    r = marked(f, "a.b.c.d.e.f.g.h");
    assert_shown(r, "{\"a\":{\"b\":{\"c\":{\"d\":{\"e\":{\"f\":{\"g\":{\"h\":1}}}}}}}}",
                 "{\"a\":{\"b\":{\"c\":{\"d\":{\"e\":{\"f\":{\"g\":{\"h\":\"***\"}}}}}}}}");
    dead_letter_redaction_destroy(r);
    r = marked(f, "");
    assert_shown(r, "{\"a\":1}", "{\"a\":1}");
    dead_letter_redaction_destroy(r);
}

static bool keep(void *ctx, const struct dead_letter *letter)
{
    wb_buf_printf(ctx, "%d %.*s\n", letter->redacted, (int)letter->payload.len,
                  (const char *)letter->payload.ptr);
    return true;
}

static void list_says_which_letters_hide_something(void **state)
{
    struct fixture *f = *state;
    struct wb_buf out = {0};

    fixture_inbox(f);
    struct dead_letter_redaction *r = marked(f, "password");
    const struct dead_letter_query query = {.payload = true, .redaction = r, .limit = 2};
    assert_ok(dead_letter_list(f->db, &query, keep, &out, NULL));
    assert_string_equal(out.ptr, "1 {\"password\":\"***\"}\n0 {}\n");
    wb_buf_free(&out);
    dead_letter_redaction_destroy(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(field_is_hidden_at_any_depth),
        FIXTURE_TEST(other_payloads_are_shown_as_they_are),
        FIXTURE_TEST(field_written_to_escape_is_hidden),
        FIXTURE_TEST(broken_payload_that_mentions_a_field_is_hidden_whole),
        FIXTURE_TEST(payload_with_very_many_marked_fields_is_hidden_whole),
        FIXTURE_TEST(header_of_a_marked_name_is_hidden),
        FIXTURE_TEST(names_that_are_none_are_refused),
        FIXTURE_TEST(list_says_which_letters_hide_something),
    };
    return cmocka_run_group_tests_name("dead_letter_redact", tests, NULL, NULL);
}
