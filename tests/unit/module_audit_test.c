/*
 * The audit module: whatever is done to the record afterwards, verify finds the first broken link.
 */
#define FIXTURE_WITHOUT_OUTBOX
#include "module_fixture.h"

#include <waybill_modules/audit.h>

#define COUNT "SELECT count(*) FROM audit_entry"
#define TRIGGERS_OFF                                                                               \
    "DROP TRIGGER audit_entry_no_update; DROP TRIGGER audit_entry_no_delete; "                     \
    "DROP TRIGGER audit_entry_next;"

FIXTURE(audit_module)

static void record(struct fixture *f, const char *stream, uint64_t sequence, const char *subject,
                   const char *id, const char *payload)
{
    struct wb_why why = {""};
    const struct message message = {
        .subject = wb_str(subject), .payload = {payload, strlen(payload)}, .msg_id = wb_str(id)};

    if (fixture_event(f, &message, stream, sequence, &why) != WB_OK)
        fail_msg("%s", why.text);
}

static void record_ten(struct fixture *f)
{
    for (uint64_t i = 1; i <= 10; i++) {
        char id[16];
        snprintf(id, sizeof(id), "id-%d", (int)i);
        record(f, i % 2 == 0 ? "AUTH" : "AR", i, "x.events.y.created", id, "{}");
        wb_clock_virtual_advance(&f->clock, WB_SEC);
    }
}

/* "ok" and the anchor line, or the error's text. */
static struct fixture_text verify(struct fixture *f, const char *anchor)
{
    struct fixture_text ret = {""};
    struct wb_buf out = {0};
    struct wb_why why = {""};
    wb_err err =
        fixture_command(f, "verify", anchor != NULL ? "--anchor" : NULL, anchor, false, &out, &why);

    assert_true(err == WB_OK || err == WB_CORRUPT);
    snprintf(ret.text, sizeof(ret.text), "%s", err == WB_OK ? out.ptr : why.text);
    wb_buf_free(&out);
    return ret;
}

/* Verify must name the entry and must not say ok. */
static void assert_broken(struct fixture *f, const char *expected)
{
    struct fixture_text got = verify(f, NULL);

    if (strncmp(got.text, "ok", 2) == 0 || strstr(got.text, expected) == NULL)
        fail_msg("expected '%s', verify says: %s", expected, got.text);
}

static void assert_sound(struct fixture *f, const char *expected)
{
    struct fixture_text got = verify(f, NULL);

    if (strncmp(got.text, expected, strlen(expected)) != 0)
        fail_msg("expected '%s', verify says: %s", expected, got.text);
}

/* ---- the record ------------------------------------------------------------------------------ */

/* contracts/audit/contract.json has this entry with its hash, computed by other means. */
static void audit_hash_is_the_one_of_the_contract(void **state)
{
    struct fixture *f = *state;
    char *contract = test_file_read(TEST_DATA_DIR "/../../contracts/audit/contract.json", NULL);

    record(f, "AUTH", 7, "auth.events.user.created", "019aa5b2c3d47e5f8a6b7c8d9e0f1a2b", "{}");
    struct fixture_text hash = fixture_text(f, "SELECT lower(hex(hash)) FROM audit_entry");
    assert_string_equal(hash.text,
                        "93083ddc4519084b1b9b9fa7015aeb124412d4034f1036e2cdc24999773e2cae");
    assert_non_null(strstr(contract, hash.text));
    assert_non_null(strstr(contract, fixture_text(f, "SELECT stored_at_ns FROM audit_entry").text));
    free(contract);
}

static void audit_record_of_every_stream_is_one_chain_that_verifies(void **state)
{
    struct fixture *f = *state;

    assert_sound(f, "ok: 0 entries\nanchor: 0:000000000000");
    record_ten(f);
    assert_sound(f, "ok: 10 entries\nanchor: 10:");
    assert_string_equal(fixture_text(f, "SELECT group_concat(seq || stream) FROM audit_entry").text,
                        "1AR,2AUTH,3AR,4AUTH,5AR,6AUTH,7AR,8AUTH,9AR,10AUTH");
}

static void audit_listens_to_everything_and_publishes_nothing(void **state)
{
    (void)state;
    assert_null(audit_module.stream);
    assert_string_equal(audit_module.subscriptions[0].patterns[0], ">");
    assert_null(audit_module.subscriptions[0].patterns[1]);
}

static void audit_event_without_id_and_payload_is_recorded(void **state)
{
    struct fixture *f = *state;
    struct wb_why why = {""};
    const struct message message = {.subject = wb_str("a.b")};

    assert_ok(fixture_event(f, &message, "A", 1, &why));
    assert_sound(f, "ok: 1 entries");
    assert_string_equal(
        fixture_text(f, "SELECT msg_id || '|' || lower(hex(payload_sha256)) FROM audit_entry").text,
        "|e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

static void audit_failed_handler_leaves_the_chain_as_it_was(void **state)
{
    struct fixture *f = *state;
    struct wb_why why = {""};
    const struct message message = {.subject = wb_str("a.b")};

    record_ten(f);
    fixture_sql(f, "CREATE TRIGGER broken BEFORE UPDATE ON audit_end BEGIN "
                   "SELECT RAISE(ABORT, 'broken'); END");
    assert_int_not_equal(fixture_event(f, &message, "A", 1, &why), WB_OK);
    fixture_mend(f);
    assert_sound(f, "ok: 10 entries");
    assert_ok(fixture_event(f, &message, "A", 1, &why));
    assert_sound(f, "ok: 11 entries");
}

/* ---- append-only ----------------------------------------------------------------------------- */

static void audit_table_refuses_update_delete_replace_and_gaps(void **state)
{
    struct fixture *f = *state;
    static const char *const attempts[] = {
        "UPDATE audit_entry SET subject = 'x' WHERE seq = 3",
        "DELETE FROM audit_entry WHERE seq = 10",
        "DELETE FROM audit_entry",
        "INSERT OR REPLACE INTO audit_entry SELECT seq, 'x', stream_seq, subject, msg_id, "
        "payload_sha256, stored_at_ns, hash FROM audit_entry WHERE seq = 3",
        "INSERT INTO audit_entry SELECT 12, stream, stream_seq, subject, msg_id, payload_sha256, "
        "stored_at_ns, hash FROM audit_entry WHERE seq = 3",
    };

    record_ten(f);
    for (size_t i = 0; i < sizeof(attempts) / sizeof(attempts[0]); i++) {
        struct wb_why why = {""};
        assert_err(db_exec(f->scope.db, attempts[i], &why), WB_INVALID);
        assert_non_null(strstr(why.text, "append-only"));
    }
    assert_sound(f, "ok: 10 entries");
}

/* ---- tampering, with the triggers dropped ---------------------------------------------------- */

static void audit_edit_of_any_column_is_caught_at_its_entry(void **state)
{
    struct fixture *f = *state;
    static const char *const columns[][2] = {
        {"stream", "'OTHER'"},    {"stream_seq", "99"},
        {"subject", "'x.y'"},     {"msg_id", "'other'"},
        {"stored_at_ns", "1"},    {"payload_sha256", "zeroblob(32)"},
        {"hash", "zeroblob(32)"}, {"payload_sha256", "zeroblob(31)"},
        {"hash", "zeroblob(33)"}, {"hash", "x''"},
    };

    record_ten(f);
    fixture_sql(f, TRIGGERS_OFF "CREATE TABLE backup AS SELECT * FROM audit_entry");
    for (size_t i = 0; i < sizeof(columns) / sizeof(columns[0]); i++) {
        char sql[200];
        snprintf(sql, sizeof(sql), "UPDATE audit_entry SET %s = %s WHERE seq = 4", columns[i][0],
                 columns[i][1]);
        fixture_sql(f, sql);
        assert_broken(f, "entry 4");
        fixture_sql(f, "REPLACE INTO audit_entry SELECT * FROM backup");
        assert_sound(f, "ok: 10 entries");
    }
}

static void audit_text_moved_over_a_border_between_columns_is_caught(void **state)
{
    struct fixture *f = *state;

    record_ten(f);
    fixture_sql(f, TRIGGERS_OFF "UPDATE audit_entry SET subject = subject || substr(msg_id, 1, 1), "
                                "msg_id = substr(msg_id, 2) WHERE seq = 4");
    assert_broken(f, "entry 4");
}

static void audit_removed_entry_is_caught_wherever_it_stood(void **state)
{
    struct fixture *f = *state;

    record_ten(f);
    fixture_sql(f, TRIGGERS_OFF "CREATE TABLE backup AS SELECT * FROM audit_entry");
    for (int seq = 1; seq <= 10; seq++) {
        char sql[100];
        char expected[60];
        snprintf(sql, sizeof(sql), "DELETE FROM audit_entry WHERE seq = %d", seq);
        fixture_sql(f, sql);
        snprintf(expected, sizeof(expected), seq < 10 ? "entry %d is missing" : "noted at %d", seq);
        assert_broken(f, expected);
        fixture_sql(f, "REPLACE INTO audit_entry SELECT * FROM backup");
    }
    fixture_sql(f, "DELETE FROM audit_entry");
    assert_broken(f, "ends with entry 0");
}

static void audit_removed_entry_with_the_rest_renumbered_is_caught(void **state)
{
    struct fixture *f = *state;

    record_ten(f);
    fixture_sql(f, TRIGGERS_OFF "DELETE FROM audit_entry WHERE seq = 4; "
                                "UPDATE audit_entry SET seq = seq - 1 WHERE seq > 4");
    assert_broken(f, "entry 4 ");
}

static void audit_swapped_entries_are_caught_at_the_first(void **state)
{
    struct fixture *f = *state;

    record_ten(f);
    fixture_sql(f, TRIGGERS_OFF "UPDATE audit_entry SET seq = 99 WHERE seq = 4; "
                                "UPDATE audit_entry SET seq = 4 WHERE seq = 5; "
                                "UPDATE audit_entry SET seq = 5 WHERE seq = 99");
    assert_broken(f, "entry 4 ");
}

static void audit_inserted_entry_is_caught(void **state)
{
    struct fixture *f = *state;

    record_ten(f);
    fixture_sql(f, "INSERT INTO audit_entry SELECT 11, stream, stream_seq, subject, msg_id, "
                   "payload_sha256, stored_at_ns, hash FROM audit_entry WHERE seq = 10");
    assert_broken(f, "entry 11 ");
}

static void audit_lost_note_of_the_end_is_caught_and_stops_recording(void **state)
{
    struct fixture *f = *state;
    struct wb_why why = {""};
    const struct message message = {.subject = wb_str("a.b")};

    record_ten(f);
    fixture_sql(f, "UPDATE audit_end SET hash = x'00'");
    assert_broken(f, "note of the record's end");
    assert_err(fixture_event(f, &message, "A", 1, &why), WB_CORRUPT);
    fixture_sql(f, "DELETE FROM audit_end");
    assert_broken(f, "note of the record's end");
    assert_err(fixture_event(f, &message, "A", 1, &why), WB_CORRUPT);
    assert_int_equal(fixture_number(f, COUNT), 10);
}

/* ---- anchors --------------------------------------------------------------------------------- */

/* The anchor that verify printed last. */
static struct fixture_text anchor_now(struct fixture *f)
{
    struct fixture_text said = verify(f, NULL);
    struct fixture_text ret = {""};
    const char *anchor = strstr(said.text, "anchor: ");

    assert_non_null(anchor);
    snprintf(ret.text, sizeof(ret.text), "%.*s", (int)strcspn(anchor + 8, "\n"), anchor + 8);
    return ret;
}

static void audit_anchor_holds_while_the_record_grows(void **state)
{
    struct fixture *f = *state;
    struct fixture_text empty = anchor_now(f);

    record_ten(f);
    struct fixture_text ten = anchor_now(f);
    record_ten(f);
    assert_int_equal(strncmp(verify(f, empty.text).text, "ok: 20", 6), 0);
    assert_int_equal(strncmp(verify(f, ten.text).text, "ok: 20", 6), 0);
}

static void audit_end_cut_off_with_its_note_is_caught_by_an_anchor(void **state)
{
    struct fixture *f = *state;

    record_ten(f);
    struct fixture_text ten = anchor_now(f);
    fixture_sql(f, TRIGGERS_OFF "DELETE FROM audit_entry WHERE seq > 7; UPDATE audit_end SET seq = "
                                "7, hash = (SELECT hash FROM audit_entry WHERE seq = 7)");
    assert_sound(f, "ok: 7 entries"); /* the chain alone cannot tell */
    assert_non_null(strstr(verify(f, ten.text).text, "before the anchor 10"));
}

static void audit_record_written_anew_is_caught_by_an_anchor(void **state)
{
    struct fixture *f = *state;

    record_ten(f);
    struct fixture_text ten = anchor_now(f);
    fixture_sql(f, TRIGGERS_OFF "DELETE FROM audit_entry; "
                                "UPDATE audit_end SET seq = 0, hash = zeroblob(32)");
    record_ten(f); /* at other times, so with other hashes */
    assert_sound(f, "ok: 10 entries");
    assert_non_null(strstr(verify(f, ten.text).text, "another hash than the anchor"));
}

/* ---- commands -------------------------------------------------------------------------------- */

static void audit_verify_tells_machines_where_the_chain_breaks(void **state)
{
    struct fixture *f = *state;
    struct wb_buf out = {0};
    struct wb_why why = {""};

    record_ten(f);
    assert_ok(fixture_command(f, "verify", NULL, NULL, true, &out, &why));
    assert_out_has(&out, "{\"ok\":true,\"entries\":10,\"anchor\":\"10:");
    wb_buf_clear(&out);
    fixture_sql(f, TRIGGERS_OFF "UPDATE audit_entry SET subject = 'x' WHERE seq = 4");
    assert_err(fixture_command(f, "verify", NULL, NULL, true, &out, &why), WB_CORRUPT);
    assert_out_has(&out, "{\"ok\":false,\"broken_at\":4,\"reason\":\"entry 4 (x)");
    wb_buf_free(&out);
}

static void audit_verify_refuses_an_anchor_out_of_form(void **state)
{
    struct fixture *f = *state;
    static const char *const anchors[] = {NULL, "", "10", ":", "10:abc", "x:00", "10:00:00"};
    struct wb_buf out = {0};
    struct wb_why why = {""};

    for (size_t i = 0; i < sizeof(anchors) / sizeof(anchors[0]); i++)
        assert_err(fixture_command(f, "verify", "--anchor", anchors[i], false, &out, &why),
                   WB_MISUSE);
    assert_err(fixture_command(f, "verify", "x", NULL, false, &out, &why), WB_MISUSE);
    wb_buf_free(&out);
}

static void audit_ls_shows_the_newest_entries_in_order(void **state)
{
    struct fixture *f = *state;
    struct wb_buf out = {0};
    struct wb_why why = {""};

    assert_ok(fixture_command(f, "ls", NULL, NULL, false, &out, &why));
    assert_int_equal(out.len, 0);
    record_ten(f);
    assert_ok(fixture_command(f, "ls", "--limit", "2", false, &out, &why));
    assert_int_equal(strncmp(out.ptr, "9  AR 9  x.events.y.created  id-9  ", 35), 0);
    assert_out_has(&out, "\n10  AUTH 10  x.events.y.created  id-10  ");
    wb_buf_clear(&out);
    assert_ok(fixture_command(f, "ls", NULL, NULL, true, &out, &why));
    assert_out_has(&out, "{\"entries\":[{\"seq\":1,\"stream\":\"AR\"");
    assert_err(fixture_command(f, "ls", "--limit", "0", false, &out, &why), WB_MISUSE);
    wb_buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(audit_hash_is_the_one_of_the_contract),
        FIXTURE_TEST(audit_record_of_every_stream_is_one_chain_that_verifies),
        FIXTURE_TEST(audit_listens_to_everything_and_publishes_nothing),
        FIXTURE_TEST(audit_event_without_id_and_payload_is_recorded),
        FIXTURE_TEST(audit_failed_handler_leaves_the_chain_as_it_was),
        FIXTURE_TEST(audit_table_refuses_update_delete_replace_and_gaps),
        FIXTURE_TEST(audit_edit_of_any_column_is_caught_at_its_entry),
        FIXTURE_TEST(audit_text_moved_over_a_border_between_columns_is_caught),
        FIXTURE_TEST(audit_removed_entry_is_caught_wherever_it_stood),
        FIXTURE_TEST(audit_removed_entry_with_the_rest_renumbered_is_caught),
        FIXTURE_TEST(audit_swapped_entries_are_caught_at_the_first),
        FIXTURE_TEST(audit_inserted_entry_is_caught),
        FIXTURE_TEST(audit_lost_note_of_the_end_is_caught_and_stops_recording),
        FIXTURE_TEST(audit_anchor_holds_while_the_record_grows),
        FIXTURE_TEST(audit_end_cut_off_with_its_note_is_caught_by_an_anchor),
        FIXTURE_TEST(audit_record_written_anew_is_caught_by_an_anchor),
        FIXTURE_TEST(audit_verify_tells_machines_where_the_chain_breaks),
        FIXTURE_TEST(audit_verify_refuses_an_anchor_out_of_form),
        FIXTURE_TEST(audit_ls_shows_the_newest_entries_in_order),
    };
    return cmocka_run_group_tests_name("module_audit", tests, NULL, NULL);
}
