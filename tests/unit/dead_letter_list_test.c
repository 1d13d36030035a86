/* Dead letters of both kinds as one list, chosen by filters, grouped by their reasons. */
#include "dead_letter_fixture.h"

static bool add_line(void *ctx, const struct dead_letter *letter)
{
    char id[DEAD_LETTER_ID_TEXT];

    dead_letter_id_format(letter->kind, letter->number, id);
    wb_buf_printf(ctx, "%s %.*s %.*s\n", id, (int)letter->state.len, letter->state.ptr,
                  (int)letter->subject.len, letter->subject.ptr);
    return true;
}

static void assert_listed(struct fixture *f, struct dead_letter_query query, const char *where,
                          const char *lines)
{
    struct wb_buf out = {0};
    struct filter *filter = where != NULL ? fixture_filter(where) : NULL;

    query.filter = filter;
    query.now_wall_ns = NOW_S * WB_SEC;
    wb_buf_str(&out, "");
    assert_ok(dead_letter_list(f->db, &query, add_line, &out, NULL));
    assert_string_equal(out.ptr, lines);
    wb_buf_free(&out);
    filter_destroy(filter);
}

#define P2 "p2 parked orders.two\n"
#define P3 "p3 blocked orders.three\n"
#define P5 "p5 parked bad subject\n"
#define C1 "c1 parked orders.one\n"
#define C2 "c2 parked orders.two\n"
#define C3 "c3 retry orders.three\n"
#define C4 "c4 parked orders.four\n"

static void list_without_tables_says_not_found(void **state)
{
    struct fixture *f = *state;

    assert_err(
        dead_letter_list(f->db, &(struct dead_letter_query){.limit = 1}, add_line, NULL, NULL),
        WB_NOT_FOUND);
}

static void list_of_a_file_with_one_kind_has_that_kind(void **state)
{
    struct fixture *f = *state;

    fixture_outbox(f);
    assert_listed(f, (struct dead_letter_query){.limit = 0}, NULL, P2 P3 P5);
    assert_listed(f, (struct dead_letter_query){.id = wb_str("c1")}, NULL, "");
}

static void list_has_the_publishers_letters_then_the_consumers(void **state)
{
    struct fixture *f = *state;

    fixture_outbox(f);
    fixture_inbox(f);
    assert_listed(f, (struct dead_letter_query){.limit = 0}, NULL, P2 P3 P5 C1 C2 C3 C4);
    assert_listed(f, (struct dead_letter_query){.only_publisher = true}, NULL, P2 P3 P5);
    assert_listed(f, (struct dead_letter_query){.consumer = wb_str("billing")}, NULL, C1 C2 C3);
    assert_listed(f, (struct dead_letter_query){.consumer = wb_str("nobody")}, NULL, "");
    assert_listed(f, (struct dead_letter_query){.id = wb_str("c4")}, NULL, C4);
}

static void list_goes_on_behind_any_id(void **state)
{
    struct fixture *f = *state;

    fixture_outbox(f);
    fixture_inbox(f);
    assert_listed(f, (struct dead_letter_query){.limit = 2}, NULL, P2 P3);
    assert_listed(f, (struct dead_letter_query){.after = wb_str("p3"), .limit = 2}, NULL, P5 C1);
    assert_listed(f, (struct dead_letter_query){.after = wb_str("c1"), .limit = 9}, NULL, C2 C3 C4);
}

static void list_has_what_a_filter_means(void **state)
{
    struct fixture *f = *state;
    const struct dead_letter_query all = {.limit = 0};

    fixture_outbox(f);
    fixture_inbox(f);
    assert_listed(f, all, "kind = publisher and state = parked", P2 P5);
    assert_listed(f, all, "subject = orders.* and not key in (k1, k2)", C3);
    assert_listed(f, all, "reason ~ CUSTOMER", C1 C2);
    assert_listed(f, all, "age > 500s and age < 800s", P3);
    assert_listed(f, all, "at >= 1970-01-01T00:15:00Z", C3 C4);
    assert_listed(f, all, "failures >= 10", P2);
    assert_listed(f, all, "row = 7..8 and source = 00112233aabbccdd", C1 C2);
    assert_listed(f, all, "payload ~ password", C1);
    assert_listed(f, all, "headers ~ x-a", P2 C1);
    assert_listed(f, all, "size = 2 and msg_id in (m2, m3)", C2 C3);
    assert_listed(f, all, "stream = ORDERS and consumer = audit and id = 4", C4);
}

static void list_refuses_what_is_no_id(void **state)
{
    struct fixture *f = *state;
    static const char *const ids[] = {"x1", "p", "p-1", "17", "p1x", "p9223372036854775808"};
    struct wb_why why;

    fixture_outbox(f);
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        const struct dead_letter_query query = {.id = wb_str(ids[i])};
        assert_err(dead_letter_list(f->db, &query, add_line, NULL, &why), WB_INVALID);
        assert_non_null(strstr(why.text, "as p17 or c4"));
    }
}

static void list_of_older_tables_says_what_to_do(void **state)
{
    struct fixture *f = *state;
    struct wb_why why;

    fixture_outbox(f);
    fixture_sql(f, "UPDATE waybill_schema SET version = 1");
    assert_err(
        dead_letter_list(f->db, &(struct dead_letter_query){.limit = 1}, add_line, NULL, &why),
        WB_UNSUPPORTED);
    assert_non_null(strstr(why.text, "start the service"));
}

static void row_behind_one_that_is_tried_again_is_no_dead_letter(void **state)
{
    struct fixture *f = *state;

    fixture_outbox(f);
    fixture_sql(f, "UPDATE outbox_exception SET state = 'retry' WHERE id = 2");
    assert_listed(f, (struct dead_letter_query){.limit = 0}, NULL, P5);
}

/* ---- show ------------------------------------------------------------------------------------ */

static bool add_all(void *ctx, const struct dead_letter *letter)
{
    wb_buf_printf(ctx, "%u %lld %lld %lld %.*s %.*s|%.*s|%zu", letter->failures,
                  (long long)letter->behind, (long long)(letter->at_wall_ns / WB_SEC),
                  (long long)letter->row_id, (int)letter->reason.len, letter->reason.ptr,
                  (int)letter->headers.len, letter->headers.ptr, (int)letter->payload.len,
                  (const char *)letter->payload.ptr, letter->size);
    return true;
}

static void assert_shown(struct fixture *f, const char *id, const char *text)
{
    struct wb_buf out = {0};

    assert_ok(dead_letter_show(f->db, wb_str(id), NULL, add_all, &out, NULL));
    assert_string_equal(out.ptr, text);
    wb_buf_free(&out);
}

static void show_tells_all_of_a_letter(void **state)
{
    struct fixture *f = *state;
    struct wb_why why;

    fixture_outbox(f);
    fixture_inbox(f);
    assert_shown(f, "p2", "10 0 200 2 refused after 10 tries: code 10054 x-a: 1|{\"id\":2}|8");
    assert_shown(f, "p3", "0 2 300 3  |3|1");
    assert_shown(f, "c2",
                 "5 0 800 8 no such customer 18 waybill-source: 00112233aabbccdd\nwaybill-row: 8\n"
                 "waybill-key: k1|{}|2");
    assert_err(dead_letter_show(f->db, wb_str("p4"), NULL, add_all, NULL, &why), WB_NOT_FOUND);
    assert_err(dead_letter_show(f->db, wb_str("c9"), NULL, add_all, NULL, &why), WB_NOT_FOUND);
    assert_err(dead_letter_show(f->db, wb_str(""), NULL, add_all, NULL, &why), WB_INVALID);
}

static void show_of_an_edited_row_tells_what_will_be_sent(void **state)
{
    struct fixture *f = *state;

    fixture_outbox(f);
    fixture_sql(f, "INSERT INTO outbox_edit VALUES(2, 'orders.new', 'y: 2', 1, 'new')");
    assert_shown(f, "p2", "10 0 200 2 refused after 10 tries: code 10054 y: 2|new|3");
}

/* ---- groups ---------------------------------------------------------------------------------- */

static bool add_group(void *ctx, const struct dead_letter_group *group)
{
    wb_buf_printf(ctx, "%d %d %lld %lld %s %.*s\n", (int)group->count, (int)group->blocked,
                  (long long)(group->oldest_wall_ns / WB_SEC),
                  (long long)(group->newest_wall_ns / WB_SEC), group->example,
                  (int)group->reason.len, group->reason.ptr);
    return true;
}

static void groups_put_reasons_of_a_kind_together(void **state)
{
    struct fixture *f = *state;
    struct wb_buf out = {0};
    struct filter *filter = fixture_filter("state != blocked");

    fixture_outbox(f);
    fixture_inbox(f);
    fixture_sql(f, "UPDATE dead_letter SET reason = 'no such customer 19' WHERE id = 4;"
                   "UPDATE dead_letter SET parked_at = 1000 WHERE id = 2");
    assert_ok(dead_letter_groups(f->db, &(struct dead_letter_query){.filter = filter}, add_group,
                                 &out, NULL));
    assert_non_null(strstr(out.ptr, "3 0 1 950 c2 no such customer 18\n2 0 200 500 p2 refused"));
    assert_non_null(strstr(out.ptr, "1 0 900 900 c3 timeout\n"));
    wb_buf_clear(&out);
    assert_ok(
        dead_letter_groups(f->db, &(struct dead_letter_query){.limit = 1}, add_group, &out, NULL));
    assert_string_equal(out.ptr, "3 0 1 950 c2 no such customer 18\n");
    wb_buf_free(&out);
    filter_destroy(filter);
}

static bool keep_fingerprint(void *ctx, const struct dead_letter_group *group)
{
    wb_buf_printf(ctx, "fingerprint = %s", group->fingerprint);
    return true;
}

static void group_is_chosen_by_its_fingerprint(void **state)
{
    struct fixture *f = *state;
    struct wb_buf where = {0};

    fixture_outbox(f);
    fixture_inbox(f);
    assert_ok(dead_letter_groups(
        f->db, &(struct dead_letter_query){.limit = 1, .consumer = wb_str("billing")},
        keep_fingerprint, &where, NULL));
    assert_listed(f, (struct dead_letter_query){.limit = 0}, where.ptr, C1 C2);
    wb_buf_free(&where);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(list_without_tables_says_not_found),
        FIXTURE_TEST(list_of_a_file_with_one_kind_has_that_kind),
        FIXTURE_TEST(list_has_the_publishers_letters_then_the_consumers),
        FIXTURE_TEST(list_goes_on_behind_any_id),
        FIXTURE_TEST(list_has_what_a_filter_means),
        FIXTURE_TEST(list_refuses_what_is_no_id),
        FIXTURE_TEST(list_of_older_tables_says_what_to_do),
        FIXTURE_TEST(row_behind_one_that_is_tried_again_is_no_dead_letter),
        FIXTURE_TEST(show_tells_all_of_a_letter),
        FIXTURE_TEST(show_of_an_edited_row_tells_what_will_be_sent),
        FIXTURE_TEST(groups_put_reasons_of_a_kind_together),
        FIXTURE_TEST(group_is_chosen_by_its_fingerprint),
    };
    return cmocka_run_group_tests_name("dead_letter_list", tests, NULL, NULL);
}
