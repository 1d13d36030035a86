/* What was done by hand is written with what it tells of, bounded, and found again. */
#include <sqlite3.h>
#include <stdio.h>

#include <waybill/db.h>
#include <waybill/operator_log.h>

#include "test_support.h"

struct fixture {
    char dir[256];
    struct db *db;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    char path[300];

    assert_non_null(f);
    test_dir_make(f->dir);
    (void)snprintf(path, sizeof(path), "%s/m.db", f->dir);
    assert_ok(db_open(path, &(struct db_options){.sync = DB_SYNC_NORMAL}, &f->db, NULL));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    db_close(f->db);
    test_dir_remove(f->dir);
    free(f);
    return 0;
}

static void add(struct fixture *f, int64_t at_s, const char *command, const char *target)
{
    const struct operator_log_entry entry = {.at_wall_ns = at_s * WB_SEC,
                                             .who = wb_str("alice"),
                                             .command = wb_str(command),
                                             .target = wb_str(target)};

    assert_ok(db_begin(f->db, NULL));
    assert_ok(operator_log_add(db_handle(f->db), &entry, NULL));
    assert_ok(db_commit(f->db, NULL));
}

static bool add_line(void *ctx, const struct operator_log_entry *entry)
{
    wb_buf_printf(ctx, "%lld %lld %.*s %.*s\n", (long long)entry->id,
                  (long long)(entry->at_wall_ns / WB_SEC), (int)entry->command.len,
                  entry->command.ptr, (int)entry->target.len, entry->target.ptr);
    return true;
}

static void assert_listed(struct fixture *f, const char *where, int64_t before_id, size_t limit,
                          const char *lines)
{
    struct wb_buf out = {0};
    struct filter *filter = NULL;

    if (where != NULL)
        assert_ok(filter_parse(wb_str(where), operator_log_fields, operator_log_field_count,
                               &filter, NULL));
    const struct operator_log_query query = {
        .filter = filter, .before_id = before_id, .limit = limit, .now_wall_ns = 100 * WB_SEC};
    wb_buf_str(&out, "");
    assert_ok(operator_log_list(db_handle(f->db), &query, add_line, &out, NULL));
    assert_string_equal(out.ptr, lines);
    wb_buf_free(&out);
    filter_destroy(filter);
}

static void log_of_an_untouched_file_is_empty(void **state)
{
    assert_listed(*state, NULL, 0, 0, "");
}

static void log_outside_of_a_transaction_is_refused(void **state)
{
    struct fixture *f = *state;
    const struct operator_log_entry entry = {.command = wb_str("dlq retry")};

    assert_err(operator_log_add(db_handle(f->db), &entry, NULL), WB_MISUSE);
    assert_listed(f, NULL, 0, 0, "");
}

static void log_of_a_transaction_rolled_back_tells_nothing(void **state)
{
    struct fixture *f = *state;
    const struct operator_log_entry entry = {.command = wb_str("dlq retry")};

    assert_ok(db_begin(f->db, NULL));
    assert_ok(operator_log_add(db_handle(f->db), &entry, NULL));
    db_rollback(f->db);
    assert_listed(f, NULL, 0, 0, "");
}

static void log_is_listed_newest_first_by_pages_and_filter(void **state)
{
    struct fixture *f = *state;

    add(f, 10, "dlq retry", "p1");
    add(f, 20, "dlq discard", "p2");
    add(f, 90, "outbox fence", "ORDERS");
    assert_listed(f, NULL, 0, 0,
                  "3 90 outbox fence ORDERS\n2 20 dlq discard p2\n1 10 dlq retry p1\n");
    assert_listed(f, NULL, 0, 1, "3 90 outbox fence ORDERS\n");
    assert_listed(f, NULL, 3, 0, "2 20 dlq discard p2\n1 10 dlq retry p1\n");
    assert_listed(f, "command ~ DLQ and age > 85s", 0, 0, "1 10 dlq retry p1\n");
    assert_listed(f, "target in (p2, ORDERS) and id < 3", 0, 0, "2 20 dlq discard p2\n");
}

static bool keep_entry(void *ctx, const struct operator_log_entry *entry)
{
    wb_buf_printf(ctx, "%zu %zu %zu %.3s %d", entry->who.len, entry->target.len, entry->detail.len,
                  entry->detail.ptr + entry->detail.len - 3,
                  wb_utf8_valid(entry->detail) && entry->at_wall_ns > 0);
    return true;
}

static void log_cuts_long_texts_at_a_whole_character(void **state)
{
    struct fixture *f = *state;
    struct wb_buf text = {0};
    struct wb_buf out = {0};

    for (int i = 0; i < 40000; i++)
        wb_buf_str(&text, "\xc3\xa9"); /* two bytes: the limit less three falls into one */
    assert_false(text.failed);
    const struct wb_str all = wb_str_n(text.ptr, text.len);
    const struct operator_log_entry entry = {.who = all, .target = all, .detail = all};
    assert_ok(db_begin(f->db, NULL));
    assert_ok(operator_log_add(db_handle(f->db), &entry, NULL));
    assert_ok(db_commit(f->db, NULL));
    assert_ok(operator_log_list(db_handle(f->db), &(struct operator_log_query){.limit = 1},
                                keep_entry, &out, NULL));
    assert_string_equal(out.ptr, "199 1023 65535 ... 1");
    wb_buf_free(&out);
    wb_buf_free(&text);
}

static void log_keeps_the_newest_hundred_thousand(void **state)
{
    struct fixture *f = *state;

    add(f, 1, "first", "");
    assert_ok(db_exec(f->db,
                      "INSERT INTO operator_log(id, at, who, command, target, reason, detail)"
                      " VALUES(100000, 2000, '', 'late', '', '', '')",
                      NULL));
    assert_listed(f, "id = 1", 0, 0, "1 1 first \n");
    add(f, 3, "newest", "");
    assert_listed(f, NULL, 0, 0, "100001 3 newest \n100000 2 late \n");
}

static void who_names_claim_account_and_host(void **state)
{
    char with[OPERATOR_LOG_WHO_MAX + 1];
    char without[OPERATOR_LOG_WHO_MAX + 1];

    (void)state;
    assert_int_equal(setenv("WAYBILL_OPERATOR", "alice", 1), 0);
    operator_log_who(with);
    assert_int_equal(unsetenv("WAYBILL_OPERATOR"), 0);
    operator_log_who(without);
    assert_memory_equal(with, "alice (", 7);
    assert_non_null(strstr(without, " on "));
    assert_string_equal(strstr(with, " ("), strstr(without, " ("));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(log_of_an_untouched_file_is_empty, setup, teardown),
        cmocka_unit_test_setup_teardown(log_outside_of_a_transaction_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(log_of_a_transaction_rolled_back_tells_nothing, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(log_is_listed_newest_first_by_pages_and_filter, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(log_cuts_long_texts_at_a_whole_character, setup, teardown),
        cmocka_unit_test_setup_teardown(log_keeps_the_newest_hundred_thousand, setup, teardown),
        cmocka_unit_test(who_names_claim_account_and_host),
    };
    return cmocka_run_group_tests_name("operator_log", tests, NULL, NULL);
}
