/* Letters tried again, mended and given up; each change is in the operator log. */
#include "dead_letter_fixture.h"

#include <waybill/operator_log.h>

typedef wb_err (*change_fn)(struct db *db, const struct dead_letter_selection *selection,
                            const struct dead_letter_act *act,
                            struct dead_letter_result *ret_result, struct wb_why *why);

/* Choose and change; the result must be changed and left. */
static void assert_changed(struct fixture *f, change_fn change, struct dead_letter_query query,
                           const char *where, const char *reason, size_t changed)
{
    struct dead_letter_selection selection = {.count = 0};
    struct dead_letter_result result = {.changed = 99};
    struct filter *filter = where != NULL ? fixture_filter(where) : NULL;
    const struct dead_letter_act act = fixture_act(f, "dlq test", reason);
    struct wb_why why = {""};

    query.filter = filter;
    query.now_wall_ns = NOW_S * WB_SEC;
    if (dead_letter_select(f->db, &query, &selection, &why) != WB_OK ||
        change(f->db, &selection, &act, &result, &why) != WB_OK)
        fail_msg("%s", why.text);
    assert_int_equal(result.changed, changed);
    assert_int_equal(result.left, selection.count - changed);
    dead_letter_selection_free(&selection);
    filter_destroy(filter);
}

static const struct dead_letter_query all = {.limit = 0};

static struct dead_letter_query one(const char *id)
{
    return (struct dead_letter_query){.id = wb_str(id)};
}

#define LOG_COUNT "SELECT count(*) FROM operator_log"

/* ---- choosing -------------------------------------------------------------------------------- */

static void select_leaves_out_what_only_waits(void **state)
{
    struct fixture *f = *state;
    struct dead_letter_selection selection = {.count = 0};

    fixture_outbox(f);
    fixture_inbox(f);
    assert_ok(dead_letter_select(f->db, &all, &selection, NULL));
    assert_int_equal(selection.count, 6);
    assert_int_equal(selection.refs[0].number, 2);
    assert_int_equal(selection.refs[1].number, 5);
    dead_letter_selection_free(&selection);
    const struct dead_letter_query few = {.limit = 2};
    assert_ok(dead_letter_select(f->db, &few, &selection, NULL));
    assert_int_equal(selection.count, 2);
    dead_letter_selection_free(&selection);
}

static void select_of_a_blocked_one_names_what_is_in_its_way(void **state)
{
    struct fixture *f = *state;
    struct dead_letter_selection selection = {.count = 0};
    const struct dead_letter_query query = one("p3");
    struct wb_why why;

    fixture_outbox(f);
    assert_err(dead_letter_select(f->db, &query, &selection, &why), WB_CONFLICT);
    assert_non_null(strstr(why.text, "p2"));
    assert_null(selection.refs);
}

static void select_of_an_unknown_id_says_not_found(void **state)
{
    struct fixture *f = *state;
    struct dead_letter_selection selection = {.count = 0};
    const struct dead_letter_query query = one("p4");

    fixture_outbox(f);
    assert_err(dead_letter_select(f->db, &query, &selection, NULL), WB_NOT_FOUND);
}

static void select_of_a_whole_key_stays_with_kind_and_consumer(void **state)
{
    struct fixture *f = *state;
    struct dead_letter_selection selection = {.count = 0};
    struct dead_letter_query query = one("c2");

    fixture_outbox(f);
    fixture_inbox(f);
    query.whole_key = true;
    assert_ok(dead_letter_select(f->db, &query, &selection, NULL));
    assert_int_equal(selection.count, 2);
    assert_int_equal(selection.refs[0].number, 1); /* the oldest first */
    assert_int_equal(selection.refs[1].number, 2);
    dead_letter_selection_free(&selection);
    query.id = wb_str("p5"); /* has no key: it stands alone */
    assert_ok(dead_letter_select(f->db, &query, &selection, NULL));
    assert_int_equal(selection.count, 1);
    dead_letter_selection_free(&selection);
}

/* ---- retry ----------------------------------------------------------------------------------- */

static void retry_of_a_row_counts_its_attempts_anew(void **state)
{
    struct fixture *f = *state;

    fixture_outbox(f);
    assert_changed(f, dead_letter_retry, one("p2"), NULL, "", 1);
    assert_value(f, "SELECT state || attempts || ' ' || next_at FROM outbox_exception WHERE id = 2",
                 "retry0 1000000");
    assert_value(f, "SELECT command || ' ' || target || ' ' || at FROM operator_log",
                 "dlq test p2 1000000");
    assert_value(f, "SELECT detail FROM operator_log",
                 "p2 orders.two refused after 10 tries: code 10054\n");
    assert_value(f, "SELECT state FROM outbox_exception WHERE id = 5", "parked");
}

static void retry_of_many_says_so_once_in_the_log(void **state)
{
    struct fixture *f = *state;

    fixture_outbox(f);
    fixture_inbox(f);
    assert_changed(f, dead_letter_retry, all, "state = parked", "", 5);
    assert_value(
        f, "SELECT group_concat(id || state) FROM (SELECT * FROM outbox_exception ORDER BY id)",
        "2retry,3blocked,4retry,5retry,6cancelled");
    assert_value(f,
                 "SELECT group_concat(id || state || ifnull(next_at, '')) FROM"
                 " (SELECT * FROM dead_letter ORDER BY id)",
                 "1retry1000000,2retry1000000,3retry,4retry1000000");
    assert_value(f, LOG_COUNT, "1");
    assert_value(f, "SELECT target FROM operator_log", "5 letters of p2 to c4");
}

static void retry_twice_changes_nothing_more(void **state)
{
    struct fixture *f = *state;

    fixture_outbox(f);
    fixture_inbox(f);
    assert_changed(f, dead_letter_retry, all, "consumer = audit", "", 1);
    assert_changed(f, dead_letter_retry, all, "consumer = audit", "", 0);
    assert_value(f, LOG_COUNT, "1");
}

static void change_of_many_goes_by_chunks(void **state)
{
    struct fixture *f = *state;

    fixture_outbox(f);
    fixture_sql(f, "INSERT INTO outbox(subject) WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1"
                   " FROM n WHERE i < 1200) SELECT 'bulk.x' FROM n;"
                   "INSERT INTO outbox_exception(id, state) SELECT id, 'parked' FROM outbox"
                   " WHERE subject = 'bulk.x'");
    assert_changed(f, dead_letter_retry, all, "subject = bulk.>", "", 1200);
    assert_value(f, "SELECT count(*) FROM outbox_exception WHERE state = 'retry'", "1201");
    assert_value(f, LOG_COUNT, "5");
}

static void what_somebody_else_has_changed_is_left_alone(void **state)
{
    struct fixture *f = *state;
    struct dead_letter_selection selection = {.count = 0};
    struct dead_letter_result result;
    const struct dead_letter_act act = fixture_act(f, "dlq discard", "old");

    fixture_outbox(f);
    assert_ok(dead_letter_select(f->db, &all, &selection, NULL));
    fixture_sql(f, "UPDATE outbox_exception SET state = 'lost' WHERE id = 2");
    assert_ok(dead_letter_discard(f->db, &selection, &act, &result, NULL));
    assert_int_equal(result.changed, 1);
    assert_int_equal(result.left, 1);
    assert_value(f, "SELECT state FROM outbox_exception WHERE id = 2", "lost");
    dead_letter_selection_free(&selection);
}

/* ---- discard --------------------------------------------------------------------------------- */

static void discard_without_a_reason_is_refused(void **state)
{
    struct fixture *f = *state;
    struct dead_letter_selection selection = {.count = 0};
    struct dead_letter_result result;
    const struct dead_letter_act act = fixture_act(f, "dlq discard", "");

    fixture_outbox(f);
    assert_ok(dead_letter_select(f->db, &all, &selection, NULL));
    assert_err(dead_letter_discard(f->db, &selection, &act, &result, NULL), WB_INVALID);
    assert_value(f, "SELECT count(*) FROM outbox_exception WHERE state = 'parked'", "2");
    dead_letter_selection_free(&selection);
}

static void discard_cancels_rows_and_deletes_letters(void **state)
{
    struct fixture *f = *state;

    fixture_outbox(f);
    fixture_inbox(f);
    assert_changed(f, dead_letter_discard, all, "id in (2, 3)", "customer is gone", 3);
    assert_value(f, "SELECT state || ': ' || error FROM outbox_exception WHERE id = 2",
                 "cancelled: discarded: customer is gone; it was parked for: refused after 10 "
                 "tries: code 10054");
    assert_value(f, "SELECT count(*) || min(id) || max(id) FROM dead_letter", "214");
    assert_value(f, "SELECT letters FROM dead_letter_total", "2");
    assert_value(f, "SELECT reason FROM operator_log", "customer is gone");
    assert_value(f,
                 "SELECT count(*) FROM operator_log WHERE detail LIKE '%c2 billing orders.two k1"
                 " m2 no such customer 18%'",
                 "1");
}

/* ---- edit ------------------------------------------------------------------------------------ */

static wb_err edit(struct fixture *f, const char *id, const struct dead_letter_edit *edit,
                   struct wb_why *why)
{
    const struct dead_letter_act act = fixture_act(f, "dlq edit", "mended");

    return dead_letter_edit(f->db, wb_str(id), edit, &act, why);
}

static void edit_of_a_row_is_kept_beside_it_and_retried(void **state)
{
    struct fixture *f = *state;
    const struct wb_bytes payload = {"{\"id\":3}", 8};

    fixture_outbox(f);
    assert_ok(edit(f, "p2", &(struct dead_letter_edit){.payload = &payload}, NULL));
    assert_value(f,
                 "SELECT subject || '|' || headers || '|' || payload || '|' || edited_at"
                 " FROM outbox_edit WHERE id = 2",
                 "orders.two|x-a: 1|{\"id\":3}|1000000");
    assert_value(f, "SELECT payload FROM outbox WHERE id = 2", "{\"id\":2}");
    assert_value(f, "SELECT state || attempts FROM outbox_exception WHERE id = 2", "retry0");
    assert_value(f, "SELECT target || '|' || detail FROM operator_log",
                 "p2|was refused with: refused after 10 tries: code 10054\nsubject: orders.two\n"
                 "x-a: 1\n\n{\"id\":2}");
}

static void edit_mends_a_bad_subject_and_replaces_headers(void **state)
{
    struct fixture *f = *state;
    const struct wb_str subject = wb_str("orders.five");
    const struct message_header set[] = {{wb_str("X-A"), wb_str("2")}, {wb_str("b"), wb_str("3")}};
    const struct wb_str remove[] = {wb_str("c")};

    fixture_outbox(f);
    assert_ok(edit(f, "p5", &(struct dead_letter_edit){.subject = &subject}, NULL));
    assert_value(f, "SELECT subject || hex(payload) FROM outbox_edit WHERE id = 5",
                 "orders.five00FF");
    fixture_sql(f, "INSERT INTO outbox(id, subject, headers) VALUES(9, 'a.b', 'x-a: 1' || char(10)"
                   " || 'C: 1' || char(10) || 'd: 4');"
                   "INSERT INTO outbox_exception(id, state) VALUES(9, 'parked')");
    assert_ok(edit(
        f, "p9",
        &(struct dead_letter_edit){.set = set, .set_count = 2, .remove = remove, .remove_count = 1},
        NULL));
    assert_value(f, "SELECT headers FROM outbox_edit WHERE id = 9", "d: 4\nX-A: 2\nb: 3");
}

static void edit_of_a_consumers_letter_keeps_whose_event_it_is(void **state)
{
    struct fixture *f = *state;
    const struct wb_bytes payload = {"new", 3};
    const struct message_header set[] = {{wb_str("x-a"), wb_str("2")}};

    fixture_inbox(f);
    assert_ok(edit(f, "c1",
                   &(struct dead_letter_edit){.payload = &payload, .set = set, .set_count = 1},
                   NULL));
    assert_value(f,
                 "SELECT payload || '|' || state || next_at || '|' || headers FROM dead_letter"
                 " WHERE id = 1",
                 "new|retry1000000|waybill-source: 00112233aabbccdd\nwaybill-row: 7\n"
                 "waybill-key: k1\nx-a: 2");
}

static void edit_refused_changes_nothing(void **state)
{
    struct fixture *f = *state;
    const struct wb_str subject = wb_str("a..b");
    const struct wb_bytes large = {calloc(1, MESSAGE_PAYLOAD_MAX + 1), MESSAGE_PAYLOAD_MAX + 1};
    const struct message_header ours[] = {{wb_str("Waybill-Row"), wb_str("2")}};
    const struct message_header theirs[] = {{wb_str("Nats-Msg-Id"), wb_str("2")}};
    const struct message_header broken[] = {{wb_str("a b"), wb_str("2")}};
    struct wb_why why;

    assert_non_null(large.ptr);
    fixture_outbox(f);
    fixture_inbox(f);
    assert_err(edit(f, "p2", &(struct dead_letter_edit){.subject = &subject}, &why), WB_INVALID);
    assert_err(edit(f, "c1", &(struct dead_letter_edit){.subject = &subject}, &why), WB_INVALID);
    assert_err(edit(f, "p2", &(struct dead_letter_edit){.payload = &large}, &why), WB_TOO_BIG);
    assert_err(edit(f, "p2", &(struct dead_letter_edit){.set = ours, .set_count = 1}, &why),
               WB_INVALID);
    assert_err(edit(f, "c1", &(struct dead_letter_edit){.set = theirs, .set_count = 1}, &why),
               WB_INVALID);
    assert_err(edit(f, "c1", &(struct dead_letter_edit){.set = broken, .set_count = 1}, &why),
               WB_INVALID);
    assert_err(edit(f, "p3", &(struct dead_letter_edit){.set_count = 0}, &why), WB_CONFLICT);
    assert_err(edit(f, "c3", &(struct dead_letter_edit){.set_count = 0}, &why), WB_CONFLICT);
    assert_err(edit(f, "c9", &(struct dead_letter_edit){.set_count = 0}, &why), WB_NOT_FOUND);
    assert_value(f, "SELECT count(*) FROM outbox_edit", "0");
    assert_value(f, "SELECT count(*) FROM sqlite_schema WHERE name = 'operator_log'", "0");
    assert_value(f, "SELECT count(*) FROM outbox_exception WHERE state = 'parked'", "2");
    free((void *)(uintptr_t)large.ptr);
}

static void edit_hides_marked_fields_in_the_log_and_refuses_the_mask(void **state)
{
    struct fixture *f = *state;
    struct dead_letter_redaction *redaction = NULL;
    const struct wb_bytes masked = {"{\"password\":\"***\"}", 18};
    const struct wb_bytes fresh = {"{\"password\":\"y\"}", 16};
    struct wb_why why;

    fixture_inbox(f);
    assert_ok(dead_letter_redaction_create(f->db, wb_str("password x-a"), &redaction, NULL));
    struct dead_letter_edit change = {.payload = &masked, .redaction = redaction};
    assert_err(edit(f, "c1", &change, &why), WB_INVALID);
    assert_non_null(strstr(why.text, "--reveal"));
    change.payload = &fresh;
    assert_ok(edit(f, "c1", &change, NULL));
    assert_value(f, "SELECT payload FROM dead_letter WHERE id = 1", "{\"password\":\"y\"}");
    assert_value(f,
                 "SELECT detail LIKE '%{\"password\":\"***\"}' AND detail LIKE '%x-a: ***%'"
                 " FROM operator_log",
                 "1");
    dead_letter_redaction_destroy(redaction);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(select_leaves_out_what_only_waits),
        FIXTURE_TEST(select_of_a_blocked_one_names_what_is_in_its_way),
        FIXTURE_TEST(select_of_an_unknown_id_says_not_found),
        FIXTURE_TEST(select_of_a_whole_key_stays_with_kind_and_consumer),
        FIXTURE_TEST(retry_of_a_row_counts_its_attempts_anew),
        FIXTURE_TEST(retry_of_many_says_so_once_in_the_log),
        FIXTURE_TEST(retry_twice_changes_nothing_more),
        FIXTURE_TEST(change_of_many_goes_by_chunks),
        FIXTURE_TEST(what_somebody_else_has_changed_is_left_alone),
        FIXTURE_TEST(discard_without_a_reason_is_refused),
        FIXTURE_TEST(discard_cancels_rows_and_deletes_letters),
        FIXTURE_TEST(edit_of_a_row_is_kept_beside_it_and_retried),
        FIXTURE_TEST(edit_mends_a_bad_subject_and_replaces_headers),
        FIXTURE_TEST(edit_of_a_consumers_letter_keeps_whose_event_it_is),
        FIXTURE_TEST(edit_refused_changes_nothing),
        FIXTURE_TEST(edit_hides_marked_fields_in_the_log_and_refuses_the_mask),
    };
    return cmocka_run_group_tests_name("dead_letter_change", tests, NULL, NULL);
}
