/* Letters go out of one file and into another, or back, and an event comes once. */
#include "dead_letter_fixture.h"

#define LETTERS_MAX 16

#define TEXTS_MAX 10

/* Letters of one file, whole, with copies of what they are views of. */
struct bag {
    struct dead_letter letters[LETTERS_MAX];
    size_t count;
    char *texts[LETTERS_MAX][TEXTS_MAX];
};

static void keep(char **room, struct wb_str *text)
{
    *room = wb_str_dup(*text);
    assert_non_null(*room);
    *text = wb_str_n(*room, text->len);
}

static bool put_in(void *ctx, const struct dead_letter *letter)
{
    struct bag *bag = ctx;
    struct dead_letter *kept = &bag->letters[bag->count];
    char **room = bag->texts[bag->count++];
    struct wb_str payload = wb_str_n(letter->payload.ptr, letter->payload.len);

    *kept = *letter;
    struct wb_str *texts[] = {&kept->state,  &kept->consumer, &kept->stream, &kept->subject,
                              &kept->key,    &kept->headers,  &kept->msg_id, &kept->source,
                              &kept->reason, &payload};
    for (size_t i = 0; i < TEXTS_MAX; i++)
        keep(&room[i], texts[i]);
    kept->payload = (struct wb_bytes){payload.ptr, payload.len};
    return bag->count < LETTERS_MAX;
}

static struct bag *bag_of(struct fixture *f, const char *where)
{
    struct bag *bag = calloc(1, sizeof(*bag));
    struct filter *filter = fixture_filter(where);

    assert_non_null(bag);
    assert_ok(dead_letter_list(
        f->db, &(struct dead_letter_query){.filter = filter, .payload = true}, put_in, bag, NULL));
    filter_destroy(filter);
    return bag;
}

static void bag_free(struct bag *bag)
{
    for (size_t i = 0; i < bag->count; i++)
        for (size_t j = 0; j < TEXTS_MAX; j++)
            free(bag->texts[i][j]);
    free(bag);
}

static void assert_imported(struct fixture *f, const struct bag *bag, size_t taken, size_t known)
{
    struct dead_letter_import_result result = {.taken = 99};
    const struct dead_letter_act act = fixture_act(f, "dlq import", "");
    struct wb_why why = {""};

    if (dead_letter_import(f->db, bag->letters, bag->count, &act, &result, &why) != WB_OK)
        fail_msg("%s", why.text);
    assert_int_equal(result.taken, taken);
    assert_int_equal(result.known, known);
}

static void discard_all(struct fixture *f)
{
    struct dead_letter_selection selection = {.count = 0};
    struct dead_letter_result result;
    const struct dead_letter_act act = fixture_act(f, "dlq discard", "by mistake");

    assert_ok(dead_letter_select(f->db, &(struct dead_letter_query){.limit = 0}, &selection, NULL));
    assert_ok(dead_letter_discard(f->db, &selection, &act, &result, NULL));
    dead_letter_selection_free(&selection);
}

static void letters_discarded_by_mistake_come_back(void **state)
{
    struct fixture *f = *state;

    fixture_outbox(f);
    fixture_inbox(f);
    struct bag *bag = bag_of(f, "state = parked");
    assert_int_equal(bag->count, 5);
    assert_imported(f, bag, 0, 5);
    discard_all(f);
    assert_imported(f, bag, 5, 0);
    assert_imported(f, bag, 0, 5);
    assert_value(f, "SELECT state || attempts || error FROM outbox_exception WHERE id = 2",
                 "parked10refused after 10 tries: code 10054");
    assert_value(f, "SELECT count(*) FROM outbox", "6");
    assert_value(f,
                 "SELECT consumer || state || failures || parked_at || key || source || row_id"
                 " || payload || length(fingerprint) FROM dead_letter WHERE reason LIKE '% 17'",
                 "billingparked5700000k100112233aabbccdd7{\"password\":\"x\"}16");
    bag_free(bag);
}

static void letters_of_another_file_come_once(void **state)
{
    struct fixture *from = *state;
    struct fixture *to = NULL;

    fixture_outbox(from);
    fixture_inbox(from);
    struct bag *bag = bag_of(from, "state = parked");
    assert_int_equal(fixture_setup((void **)&to), 0);
    assert_imported(to, bag, 5, 0);
    assert_imported(to, bag, 0, 5);
    assert_value(to,
                 "SELECT group_concat(o.subject || o.key || e.state || e.attempts) FROM outbox o"
                 " JOIN outbox_exception e ON e.id = o.id",
                 "orders.twok2parked10,bad subjectparked1");
    assert_value(to, "SELECT count(*) FROM dead_letter", "3");
    /* Retried and gone, it still is known. */
    fixture_sql(to, "DELETE FROM outbox_exception");
    assert_imported(to, bag, 0, 5);
    assert_value(to, "SELECT count(*) FROM operator_log", "1");
    fixture_teardown((void **)&to);
    bag_free(bag);
}

static void assert_headers(struct fixture *f, const char *where, const char *expected)
{
    struct bag *bag = bag_of(f, where);

    assert_int_equal(bag->count, 1);
    assert_true(wb_str_eq(bag->letters[0].headers, wb_str(expected)));
    bag_free(bag);
}

static void letters_keep_their_trace_context(void **state)
{
    struct fixture *from = *state;
    struct fixture *to = NULL;

    fixture_outbox(from);
    fixture_sql(from,
                "INSERT INTO outbox(id, subject, headers, traceparent, payload)"
                " VALUES(101, 'a.b', 'a: b', '00-17-01', ''), (102, 'a.b', '', '00-17-01', ''),"
                " (103, 'a.b', 'Traceparent: 00-18-01', '00-17-01', '')");
    fixture_sql(from, "INSERT INTO outbox_exception(id, state) VALUES(101, 'parked'),"
                      " (102, 'parked'), (103, 'parked')");
    assert_headers(from, "row = 101", "a: b\ntraceparent: 00-17-01");
    assert_headers(from, "row = 102", "traceparent: 00-17-01");
    assert_headers(from, "row = 103", "Traceparent: 00-18-01");
    struct bag *bag = bag_of(from, "row = 101");
    assert_int_equal(fixture_setup((void **)&to), 0);
    assert_imported(to, bag, 1, 0);
    assert_headers(to, "state = parked", "a: b\ntraceparent: 00-17-01");
    fixture_teardown((void **)&to);
    bag_free(bag);
}

static void events_imported_count_as_handled(void **state)
{
    struct fixture *from = *state;
    struct fixture *to = NULL;
    struct inbox *inbox = NULL;
    const struct message_header headers[] = {{wb_str("waybill-source"), wb_str("00112233aabbccdd")},
                                             {wb_str("waybill-row"), wb_str("7")}};
    const struct message msg = {
        .subject = wb_str("orders.one"), .headers = headers, .header_count = 2};
    const struct inbox_origin origin = {.stream = wb_str("ORDERS"), .sequence = 11};

    fixture_inbox(from);
    struct bag *bag = bag_of(from, "row = 7");
    assert_int_equal(fixture_setup((void **)&to), 0);
    assert_imported(to, bag, 1, 0);
    assert_ok(inbox_attach(db_handle(to->db), "billing", &inbox, NULL));
    assert_ok(db_begin(to->db, NULL));
    assert_err(inbox_claim(inbox, &msg, &origin, NULL), WB_EXISTS);
    db_rollback(to->db);
    inbox_detach(inbox);
    fixture_teardown((void **)&to);
    bag_free(bag);
}

static void letter_that_is_not_whole_takes_no_other_in(void **state)
{
    struct fixture *f = *state;
    struct dead_letter_import_result result;
    const struct dead_letter_act act = fixture_act(f, "dlq import", "");
    struct wb_why why;

    fixture_outbox(f);
    fixture_inbox(f);
    struct bag *bag = bag_of(f, "state = parked");
    discard_all(f);
    bag->letters[4].redacted = true;
    assert_err(dead_letter_import(f->db, bag->letters, 5, &act, &result, &why), WB_INVALID);
    assert_non_null(strstr(why.text, "--reveal"));
    bag->letters[4].redacted = false;
    bag->letters[4].consumer = wb_str("a b");
    assert_err(dead_letter_import(f->db, bag->letters, 5, &act, &result, &why), WB_INVALID);
    bag->letters[0].msg_id = wb_str("x");
    assert_err(dead_letter_import(f->db, bag->letters, 5, &act, &result, &why), WB_INVALID);
    assert_value(f, "SELECT count(*) FROM dead_letter", "0");
    assert_value(f, "SELECT count(*) FROM outbox_exception WHERE state = 'parked'", "0");
    bag_free(bag);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(letters_discarded_by_mistake_come_back),
        FIXTURE_TEST(letters_of_another_file_come_once),
        FIXTURE_TEST(letters_keep_their_trace_context),
        FIXTURE_TEST(events_imported_count_as_handled),
        FIXTURE_TEST(letter_that_is_not_whole_takes_no_other_in),
    };
    return cmocka_run_group_tests_name("dead_letter_import", tests, NULL, NULL);
}
