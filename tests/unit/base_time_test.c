/* Durations, sizes, time stamps, ids, chance. */
#include "test_support.h"

static void duration_parse_knows_its_units(void **state)
{
    static const struct {
        const char *text;
        int64_t ns;
    } good[] = {{"5s", 5 * WB_SEC},
                {"1h30m", 5400 * WB_SEC},
                {"500ms", 500 * WB_MS},
                {"1.5s", 1500 * WB_MS},
                {"10us", 10 * WB_US},
                {"7d", 604800 * WB_SEC},
                {"0", 0},
                {"3ns", 3},
                {"0.000000001s", 1},
                {"106751d", WB_SEC * 86400 * 106751}};
    static const char *const bad[] = {"",     "5",   "s",       "5 s",
                                      "-5s",  "5x",  "1.s",     ".5s",
                                      "1e3s", "5sm", "106752d", "99999999999999999999s"};
    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        int64_t ns = -1;
        assert_true(wb_duration_parse(wb_str(good[i].text), &ns));
        assert_true(ns == good[i].ns);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        int64_t ns = -1;
        if (wb_duration_parse(wb_str(bad[i]), &ns))
            fail_msg("duration '%s' is taken as %lld ns", bad[i], (long long)ns);
        assert_int_equal(ns, -1);
    }
}

static void size_parse_tells_1000_from_1024(void **state)
{
    uint64_t bytes = 0;

    (void)state;
    assert_true(wb_size_parse(wb_str("64"), &bytes) && bytes == 64);
    assert_true(wb_size_parse(wb_str("2MB"), &bytes) && bytes == 2000000);
    assert_true(wb_size_parse(wb_str("2MiB"), &bytes) && bytes == 2097152);
    assert_true(wb_size_parse(wb_str("1.5KiB"), &bytes) && bytes == 1536);
    assert_false(wb_size_parse(wb_str("2mb"), &bytes));
    assert_false(wb_size_parse(wb_str("-1"), &bytes));
    assert_false(wb_size_parse(wb_str("9999999999GiB"), &bytes));
}

static void time_format_and_parse_are_each_others_inverse(void **state)
{
    static const struct {
        const char *text;
        int64_t ns;
    } times[] = {{"1970-01-01T00:00:00.000Z", 0},
                 {"2000-02-29T23:59:59.999Z", INT64_C(951868799999) * WB_MS},
                 {"1969-12-31T23:59:59.500Z", -500 * WB_MS}};
    char text[32];
    int64_t ns;

    (void)state;
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        wb_time_format(times[i].ns, text);
        assert_string_equal(text, times[i].text);
        assert_true(wb_time_parse(wb_str(text), &ns));
        assert_true(ns == times[i].ns);
    }
    assert_true(wb_time_parse(wb_str("2026-01-02T03:04:05+02:30"), &ns));
    wb_time_format(ns, text);
    assert_string_equal(text, "2026-01-02T00:34:05.000Z");
}

static void time_parse_refuses_what_is_no_time(void **state)
{
    static const char *const bad[] = {"",
                                      "2026-01-02",
                                      "2026-02-30T00:00:00Z",
                                      "2026-13-01T00:00:00Z",
                                      "2026-01-02T24:00:00Z",
                                      "2026-01-02T03:04:05",
                                      "2026-01-02T03:04:05.Z",
                                      "2026-01-02 03:04:05Z",
                                      "2026-01-02T03:04:05+2:00",
                                      "2026-01-02T03:04:05Zx",
                                      "0001-01-01T00:00:00Z"};
    int64_t ns;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (wb_time_parse(wb_str(bad[i]), &ns))
            fail_msg("time '%s' is accepted", bad[i]);
}

static void id_new_is_a_version_7_uuid_that_sorts_by_time(void **state)
{
    struct wb_clock_virtual clock;
    uint8_t before[WB_ID_SIZE];
    uint8_t after[WB_ID_SIZE];

    (void)state;
    wb_clock_virtual_init(&clock, 0, INT64_C(0x0123456789ab) * WB_MS);
    wb_id_new(&clock.clock, before);
    wb_clock_virtual_advance(&clock, WB_MS);
    wb_id_new(&clock.clock, after);
    assert_memory_equal(before, "\x01\x23\x45\x67\x89\xab", 6);
    assert_int_equal(before[6] >> 4, 7);
    assert_int_equal(before[8] >> 6, 2);
    assert_true(memcmp(before, after, WB_ID_SIZE) < 0);
}

static void hex_decode_is_exact(void **state)
{
    uint8_t bytes[4] = {9, 9, 9, 9};
    char text[9];

    (void)state;
    assert_true(wb_hex_decode(wb_str("00fFa7B1"), bytes, 4));
    wb_hex_encode(bytes, 4, text);
    assert_string_equal(text, "00ffa7b1");
    assert_false(wb_hex_decode(wb_str("00ffa7b"), bytes, 4));
    assert_false(wb_hex_decode(wb_str("00ffa7bg"), bytes, 4));
    assert_int_equal(bytes[3], 0xb1); /* untouched by failures */
}

static void rng_same_seed_gives_the_same_choices(void **state)
{
    struct wb_rng a;
    struct wb_rng b;
    bool seen[10] = {false};

    (void)state;
    wb_rng_seed(&a, 42);
    wb_rng_seed(&b, 42);
    for (int i = 0; i < 1000; i++) {
        uint64_t below = wb_rng_below(&a, 10);
        assert_true(below < 10);
        assert_true(below == wb_rng_below(&b, 10));
        seen[below] = true;
    }
    for (int i = 0; i < 10; i++)
        assert_true(seen[i]);
}

static void backoff_doubles_up_to_its_maximum(void **state)
{
    struct wb_rng rng;
    int64_t longest[8] = {0};

    (void)state;
    wb_rng_seed(&rng, 1);
    for (unsigned attempt = 0; attempt < 8; attempt++)
        for (int i = 0; i < 2000; i++) {
            int64_t ns = wb_backoff_ns(&rng, attempt, 100, 1000);
            int64_t limit = attempt < 4 ? 100 << attempt : 1000;
            assert_true(ns >= 0 && ns <= limit);
            longest[attempt] = ns > longest[attempt] ? ns : longest[attempt];
        }
    assert_true(longest[0] > 90 && longest[3] > 750 && longest[7] > 950);
    assert_true(wb_backoff_ns(&rng, 4000000000U, 1, INT64_MAX / 2) >= 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(duration_parse_knows_its_units),
        cmocka_unit_test(size_parse_tells_1000_from_1024),
        cmocka_unit_test(time_format_and_parse_are_each_others_inverse),
        cmocka_unit_test(time_parse_refuses_what_is_no_time),
        cmocka_unit_test(id_new_is_a_version_7_uuid_that_sorts_by_time),
        cmocka_unit_test(hex_decode_is_exact),
        cmocka_unit_test(rng_same_seed_gives_the_same_choices),
        cmocka_unit_test(backoff_doubles_up_to_its_maximum),
    };
    return cmocka_run_group_tests_name("base_time", tests, NULL, NULL);
}
