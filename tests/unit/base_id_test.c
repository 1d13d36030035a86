/* Ids drawn ahead: as good as others, and never given out twice. */
#include <sys/wait.h>
#include <unistd.h>

#include "test_support.h"

enum { IDS = 2000 };

static int compare_ids(const void *a, const void *b)
{
    return memcmp(a, b, WB_ID_SIZE);
}

static void id_source_gives_uuids_of_version_7_that_differ(void **state)
{
    struct wb_id_source *source = wb_id_source_create();
    uint8_t(*ids)[WB_ID_SIZE] = calloc(IDS, WB_ID_SIZE);
    struct wb_clock_virtual clock;

    (void)state;
    assert_non_null(source);
    assert_non_null(ids);
    wb_clock_virtual_init(&clock, 0, INT64_C(0x0123456789ab) * WB_MS);
    for (size_t i = 0; i < IDS; i++) {
        wb_id_source_next(source, &clock.clock, ids[i]);
        assert_memory_equal(ids[i], "\x01\x23\x45\x67\x89\xab", 6);
        assert_int_equal(ids[i][6] >> 4, 7);
        assert_int_equal(ids[i][8] >> 6, 2);
    }
    qsort(ids, IDS, WB_ID_SIZE, compare_ids);
    for (size_t i = 1; i < IDS; i++)
        assert_memory_not_equal(ids[i - 1], ids[i], WB_ID_SIZE);
    free(ids);
    wb_id_source_destroy(source);
}

static void child_of_a_fork_does_not_give_out_the_ids_of_its_parent(void **state)
{
    struct wb_id_source *source = wb_id_source_create();
    struct wb_clock_virtual clock;
    uint8_t mine[WB_ID_SIZE], of_child[WB_ID_SIZE];
    int ends[2];

    (void)state;
    wb_clock_virtual_init(&clock, 0, WB_SEC);
    wb_id_source_next(source, &clock.clock, mine); /* a page is drawn */
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        wb_id_source_next(source, &clock.clock, of_child);
        _exit(write(ends[1], of_child, WB_ID_SIZE) == WB_ID_SIZE ? 0 : 1);
    }
    assert_int_equal(read(ends[0], of_child, WB_ID_SIZE), WB_ID_SIZE);
    assert_int_equal(waitpid(child, NULL, 0), child);
    wb_id_source_next(source, &clock.clock, mine);
    assert_memory_not_equal(mine, of_child, WB_ID_SIZE);
    (void)close(ends[0]);
    (void)close(ends[1]);
    wb_id_source_destroy(source);
}

static void id_source_that_could_not_be_made_gives_ids_all_the_same(void **state)
{
    uint8_t first[WB_ID_SIZE], second[WB_ID_SIZE];

    (void)state;
    wb_id_source_next(NULL, wb_clock_system(), first);
    wb_id_source_next(NULL, wb_clock_system(), second);
    assert_memory_not_equal(first, second, WB_ID_SIZE);
    wb_id_source_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(id_source_gives_uuids_of_version_7_that_differ),
        cmocka_unit_test(child_of_a_fork_does_not_give_out_the_ids_of_its_parent),
        cmocka_unit_test(id_source_that_could_not_be_made_gives_ids_all_the_same),
    };
    return cmocka_run_group_tests_name("base_id", tests, NULL, NULL);
}
