/* Without memory the index says so, and is what it was before. */
#include <waybill/subject.h>

#include "test_nomem.h"
#include "test_support.h"

static void ignore(void *ctx, void *value)
{
    (void)ctx;
    (void)value;
}

static void index_create_out_of_memory_leaves_nothing_behind(void **state)
{
    struct subject_index *index = NULL;
    wb_err err = WB_NOMEM;
    int failures = 0;

    (void)state;
    for (; err == WB_NOMEM; failures++) {
        test_nomem_after(failures);
        err = subject_index_create(&index);
        test_nomem_after(-1);
        assert_true((err == WB_OK) == (index != NULL));
    }
    assert_ok(err);
    assert_int_equal(failures, 4); /* the index and its two tables were each made to fail */
    subject_index_destroy(index);
}

/* Fail the first allocation of an add, then the second, ...: each time the index is as before. */
static void index_add_out_of_memory_changes_nothing(void **state)
{
    static const char *const patterns[] = {
        "a.b.c",
        "a-first-token-beyond-sixteen-bytes.b.*",
        "a.b.c",
        "a.b.c",
        "d.e.f.g.h.i.j.k.l.m",
        "n.o.p.q.r.s.t.u.v.w.>",
        "another-token-beyond-sixteen-bytes.and-one-more-beyond-16.x.y.z",
    };
    struct subject_index *index;
    size_t size = 0;
    int failures = 0;

    (void)state;
    assert_ok(subject_index_create(&index));
    for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
        for (int allowed = 0;; allowed++) {
            test_nomem_after(allowed);
            wb_err err = subject_index_add(index, wb_str(patterns[i]), index);
            test_nomem_after(-1);
            if (err == WB_OK)
                break;
            assert_int_equal(err, WB_NOMEM);
            assert_int_equal(subject_index_size(index), size);
            failures++;
        }
        size++;
    }
    assert_in_range(failures, 8, 100);
    assert_int_equal(subject_index_match(index, wb_str("a.b.c"), ignore, NULL), 3);
    for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++)
        assert_ok(subject_index_remove(index, wb_str(patterns[i]), index));
    assert_int_equal(subject_index_size(index), 0);
    subject_index_destroy(index);
}

/* Add single tokens that are new, as many as fit into the room that an index begins with. */
static void assert_room_is_left(struct subject_index *index)
{
    test_nomem_after(0);
    for (const char *c = "ABCDEFGH"; *c != '\0'; c++) {
        wb_err err = subject_index_add(index, wb_str_n(c, 1), index);
        test_nomem_after(err == WB_OK ? 0 : -1);
        assert_ok(err);
    }
    test_nomem_after(-1);
}

static void assert_add_fails(struct subject_index *index, const char *pattern)
{
    test_nomem_after(0);
    wb_err err = subject_index_add(index, wb_str(pattern), index);
    test_nomem_after(-1);
    assert_int_equal(err, WB_NOMEM);
}

static void index_add_failed_at_a_token_leaves_no_nodes(void **state)
{
    struct subject_index *index;

    (void)state;
    assert_ok(subject_index_create(&index));
    assert_ok(subject_index_add(index, wb_str("a"), index));
    for (const char *c = "bcdefghijklmnopqrstuvwxyz"; *c != '\0'; c++) {
        char pattern[] = "?.a-token-beyond-sixteen-bytes";
        pattern[0] = *c;
        assert_add_fails(index, pattern);
    }
    assert_room_is_left(index);
    subject_index_destroy(index);
}

static void index_add_failed_at_a_node_leaves_no_tokens(void **state)
{
    const struct wb_str filling =
        wb_str("*.*.*.*.*.*.*.*.*.*.*"); /* with "a": all room for nodes */
    struct subject_index *index;

    (void)state;
    assert_ok(subject_index_create(&index));
    assert_ok(subject_index_add(index, wb_str("a"), index));
    assert_ok(subject_index_add(index, filling, index));
    for (const char *c = "bcdefghijklmnopqrstuvwxyz"; *c != '\0'; c++) {
        char pattern[] = {*c, '\0'};
        assert_add_fails(index, pattern);
    }
    assert_ok(subject_index_remove(index, filling, index));
    assert_room_is_left(index);
    subject_index_destroy(index);
}

static void index_remove_and_match_need_no_memory(void **state)
{
    struct subject_index *index;
    int values[40];

    (void)state;
    assert_ok(subject_index_create(&index));
    for (size_t i = 0; i < 40; i++) {
        char pattern[] = {'a', '.', (char)('A' + i), '\0'};
        assert_ok(subject_index_add(index, wb_str(pattern), &values[i]));
        assert_ok(subject_index_add(index, wb_str("a.*"), &values[i]));
    }
    test_nomem_after(0);
    assert_int_equal(subject_index_match(index, wb_str("a.B"), ignore, NULL), 41);
    for (size_t i = 0; i < 40; i++) {
        char pattern[] = {'a', '.', (char)('A' + i), '\0'};
        assert_ok(subject_index_remove(index, wb_str(pattern), &values[i]));
        assert_ok(subject_index_remove(index, wb_str("a.*"), &values[i]));
    }
    assert_int_equal(subject_index_match(index, wb_str("a.B"), ignore, NULL), 0);
    test_nomem_after(-1);
    subject_index_destroy(index);
}

static void subject_refused_without_memory_still_says_why(void **state)
{
    struct wb_why why;

    (void)state;
    test_nomem_after(0);
    assert_err(subject_check(wb_str("a..b"), &why), WB_INVALID);
    test_nomem_after(-1);
    assert_non_null(strstr(why.text, "empty token"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(index_create_out_of_memory_leaves_nothing_behind),
        cmocka_unit_test(index_add_out_of_memory_changes_nothing),
        cmocka_unit_test(index_add_failed_at_a_token_leaves_no_nodes),
        cmocka_unit_test(index_add_failed_at_a_node_leaves_no_tokens),
        cmocka_unit_test(index_remove_and_match_need_no_memory),
        cmocka_unit_test(subject_refused_without_memory_still_says_why),
    };
    return cmocka_run_group_tests_name("subject_nomem", tests, NULL, NULL);
}
