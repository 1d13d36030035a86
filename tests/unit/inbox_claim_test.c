/* Claims and positions: what was handled is known, in little space, and a rollback undoes it. */
#include "inbox_fixture.h"

#include <inttypes.h>

static int setup(void **state)
{
    (void)state;
    fixture_attach("ar_accounts");
    return 0;
}

static const struct inbox_origin somewhere = {
    .stream = {"AUTH", 4}, .sequence = 7, .stored_wall_ns = WB_SEC, .stream_created_wall_ns = 1};

static const struct message event_at_hand = {.subject = {"auth.user.created", 17},
                                             .msg_id = {"id-1", 4}};

static wb_err claim_texts(const char *source, const char *row, const char *msg_id,
                          const struct inbox_origin *origin)
{
    const struct message_header headers[] = {
        {wb_str(MESSAGE_HEADER_SOURCE), wb_str(source)},
        {wb_str(MESSAGE_HEADER_ROW), wb_str(row)},
    };
    const struct message msg = {.subject = wb_str("auth.user.created"),
                                .headers = headers,
                                .header_count = source != NULL ? 2 : 0,
                                .msg_id = wb_str(msg_id)};

    return inbox_claim(inbox, &msg, origin, NULL);
}

static wb_err claim(uint64_t source, uint64_t row)
{
    char source_text[17], row_text[24];

    snprintf(source_text, sizeof(source_text), "%016" PRIx64, source);
    snprintf(row_text, sizeof(row_text), "%" PRIu64, row);
    return claim_texts(source_text, row_text, "any", &somewhere);
}

static void inbox_claim_knows_an_event_the_second_time(void **state)
{
    (void)state;
    assert_ok(db_begin(db, NULL));
    assert_ok(claim(1, 42));
    assert_err(claim(1, 42), WB_EXISTS);
    assert_ok(db_commit(db, NULL));
    assert_ok(db_begin(db, NULL));
    assert_err(claim(1, 42), WB_EXISTS);
    assert_ok(claim(2, 42));
    assert_ok(claim(1, 43));
    assert_ok(claim(1, 41));
    assert_ok(db_commit(db, NULL));
}

static void inbox_claim_that_was_rolled_back_is_forgotten(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        assert_ok(db_begin(db, NULL));
        assert_ok(claim(1, 42));
        assert_ok(claim_texts(NULL, NULL, "foreign", &somewhere));
        assert_ok(inbox_advance(inbox, &event_at_hand, &somewhere, NULL));
        db_rollback(db);
    }
    uint64_t position = 99;
    assert_ok(inbox_position(inbox, "AUTH", 1, &position, NULL));
    assert_int_equal(position, 0);
}

static void inbox_claim_and_advance_outside_a_transaction_are_misuse(void **state)
{
    struct wb_why why = {""};

    (void)state;
    assert_err(claim(1, 42), WB_MISUSE);
    assert_err(inbox_advance(inbox, &event_at_hand, &somewhere, &why), WB_MISUSE);
    assert_non_null(strstr(why.text, "ar_accounts"));
}

static void inbox_consumers_do_not_know_of_one_another(void **state)
{
    struct inbox *first = inbox;

    (void)state;
    assert_ok(inbox_attach(db_handle(db), "notify", &inbox, NULL));
    struct inbox *second = inbox;
    assert_ok(db_begin(db, NULL));
    assert_ok(claim(1, 42));
    assert_ok(claim_texts(NULL, NULL, "foreign", &somewhere));
    assert_ok(inbox_advance(inbox, &event_at_hand, &somewhere, NULL));
    inbox = first;
    assert_ok(claim(1, 42));
    assert_ok(claim_texts(NULL, NULL, "foreign", &somewhere));
    assert_ok(db_commit(db, NULL));
    uint64_t position = 99;
    assert_ok(inbox_position(first, "AUTH", 1, &position, NULL));
    assert_int_equal(position, 0);
    inbox_detach(second);
}

static void inbox_attach_refuses_a_name_that_is_no_token(void **state)
{
    static const char *const bad[] = {
        "",    "a b", "a.b",
        "a'b", "a\n", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    struct inbox *none = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_err(inbox_attach(db_handle(db), bad[i], &none, NULL), WB_INVALID);
    assert_null(none);
    inbox_detach(NULL);
}

static void inbox_attach_to_newer_tables_is_unsupported(void **state)
{
    struct inbox *none = NULL;

    (void)state;
    assert_ok(
        db_exec(db, "UPDATE waybill_schema SET version = 99 WHERE component = 'inbox'", NULL));
    assert_err(inbox_attach(db_handle(db), "late", &none, NULL), WB_UNSUPPORTED);
    assert_null(none);
}

/* ---- positions ------------------------------------------------------------------------------- */

static uint64_t position_of(const char *stream, int64_t created)
{
    uint64_t position = 99;

    assert_ok(inbox_position(inbox, stream, created, &position, NULL));
    return position;
}

static void inbox_position_belongs_to_one_incarnation_of_a_stream(void **state)
{
    struct inbox_origin origin = somewhere;

    (void)state;
    assert_int_equal(position_of("AUTH", 1), 0);
    assert_ok(db_begin(db, NULL));
    assert_ok(inbox_advance(inbox, &event_at_hand, &origin, NULL));
    assert_ok(db_commit(db, NULL));
    assert_int_equal(position_of("AUTH", 1), 7);
    assert_int_equal(position_of("AUTH", 2), 0);
    assert_int_equal(position_of("AR", 1), 0);
    origin.stream_created_wall_ns = 2;
    origin.sequence = 3;
    assert_ok(db_begin(db, NULL));
    assert_ok(inbox_advance(inbox, &event_at_hand, &origin, NULL));
    assert_ok(db_commit(db, NULL));
    assert_int_equal(position_of("AUTH", 2), 3);
    assert_int_equal(position_of("AUTH", 1), 0);
    assert_int_equal(query("SELECT count(*) FROM inbox_position"), 1);
}

static void inbox_position_goes_back_when_a_stream_is_read_again(void **state)
{
    struct inbox_origin origin = somewhere;

    (void)state;
    for (uint64_t sequence = 9; sequence >= 5; sequence -= 4) {
        origin.sequence = sequence;
        assert_ok(db_begin(db, NULL));
        assert_ok(inbox_advance(inbox, &event_at_hand, &origin, NULL));
        assert_ok(db_commit(db, NULL));
    }
    assert_int_equal(position_of("AUTH", 1), 5);
}

/* ---- foreign events -------------------------------------------------------------------------- */

static void inbox_malformed_headers_make_an_event_foreign(void **state)
{
    static const char *const bad[][2] = {
        {"0123456789abcde", "1"},
        {"0123456789abcdef0", "1"},
        {"0123456789abcdeg", "1"},
        {"0123456789abcdef", "0"},
        {"0123456789abcdef", "-1"},
        {"0123456789abcdef", "1x"},
        {"0123456789abcdef", ""},
        {"", "1"},
        {"0123456789abcdef", "9223372036854775808"},
        {"0123456789abcdef", "18446744073709551616"},
    };

    (void)state;
    assert_ok(db_begin(db, NULL));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char msg_id[16];
        snprintf(msg_id, sizeof(msg_id), "id-%zu", i);
        assert_ok(claim_texts(bad[i][0], bad[i][1], msg_id, &somewhere));
        assert_err(claim_texts(bad[i][0], bad[i][1], msg_id, &somewhere), WB_EXISTS);
        assert_err(claim_texts(NULL, NULL, msg_id, &somewhere), WB_EXISTS);
    }
    assert_ok(db_commit(db, NULL));
    assert_int_equal(query("SELECT count(*) FROM inbox_page"), 0);
    assert_int_equal(query("SELECT count(*) FROM inbox_foreign"), sizeof(bad) / sizeof(bad[0]));
}

static void inbox_headers_of_ours_count_whatever_the_msg_id(void **state)
{
    (void)state;
    assert_ok(db_begin(db, NULL));
    assert_ok(claim_texts("0123456789abcdef", "9223372036854775807", "one", &somewhere));
    assert_err(claim_texts("0123456789ABCDEF", "9223372036854775807", "two", &somewhere),
               WB_EXISTS);
    assert_ok(claim_texts(NULL, NULL, "one", &somewhere));
    assert_ok(db_commit(db, NULL));
}

static void inbox_event_without_any_id_is_known_by_place_and_time(void **state)
{
    struct inbox_origin later = somewhere, elsewhere = somewhere, again = somewhere;

    (void)state;
    later.stored_wall_ns++;
    elsewhere.stream = wb_str("AR");
    again.sequence++;
    assert_ok(db_begin(db, NULL));
    assert_ok(claim_texts(NULL, NULL, NULL, &somewhere));
    assert_err(claim_texts(NULL, NULL, NULL, &somewhere), WB_EXISTS);
    assert_ok(claim_texts(NULL, NULL, NULL, &later));
    assert_ok(claim_texts(NULL, NULL, NULL, &elsewhere));
    assert_ok(claim_texts(NULL, NULL, NULL, &again));
    assert_ok(db_commit(db, NULL));
}

static wb_err claim_foreign(int number, int64_t stored_wall_ns)
{
    struct inbox_origin origin = somewhere;
    char msg_id[24];

    origin.stored_wall_ns = stored_wall_ns;
    snprintf(msg_id, sizeof(msg_id), "foreign-%d", number);
    return claim_texts(NULL, NULL, msg_id, &origin);
}

static void inbox_foreign_events_are_forgotten_after_seven_days_of_the_stream(void **state)
{
    const int64_t day = INT64_C(86400) * WB_SEC;

    (void)state;
    assert_ok(db_begin(db, NULL));
    for (int i = 0; i < 20; i++)
        assert_ok(claim_foreign(i, day));
    assert_ok(claim_foreign(100, 8 * day));
    assert_err(claim_foreign(0, 8 * day), WB_EXISTS);
    /* Eight at a time. */
    for (int i = 101; i < 104; i++)
        assert_ok(claim_foreign(i, 8 * day + 1));
    assert_ok(db_commit(db, NULL));
    assert_int_equal(query("SELECT count(*) FROM inbox_foreign"), 4);
    assert_ok(db_begin(db, NULL));
    assert_ok(claim_foreign(0, 8 * day + 1));
    db_rollback(db);
}

static void inbox_foreign_events_are_bounded_by_number(void **state)
{
    enum { LIMIT = 100000, MORE = 50 };

    (void)state;
    assert_ok(db_begin(db, NULL));
    for (int i = 0; i < LIMIT + MORE; i++)
        assert_ok(claim_foreign(i, WB_SEC));
    assert_err(claim_foreign(MORE, WB_SEC), WB_EXISTS);
    assert_ok(claim_foreign(MORE - 1, WB_SEC));
    assert_ok(db_commit(db, NULL));
    assert_int_equal(query("SELECT count(*) FROM inbox_foreign"), LIMIT);
}

/* ---- space ----------------------------------------------------------------------------------- */

/* One thread: a sanitizer of threads finds nothing in it, and takes ten times as long. */
#ifdef __SANITIZE_THREAD__
enum { MILLION = 100000 };
#else
enum { MILLION = 1000000 };
#endif

static int64_t inbox_bytes(void)
{
    assert_ok(db_exec(db, "VACUUM", NULL));
    return query("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size");
}

/* Claim a million rows: the n-th of them is row(n). Returns what they take in the file. */
static int64_t claim_a_million(uint64_t (*row)(uint64_t n))
{
    int64_t before = inbox_bytes();

    for (uint64_t n = 0; n < MILLION;) {
        assert_ok(db_begin(db, NULL));
        for (int i = 0; i < 10000; i++, n++)
            assert_ok(claim(1, row(n)));
        assert_ok(db_commit(db, NULL));
    }
    return inbox_bytes() - before;
}

static uint64_t in_order(uint64_t n)
{
    return n + 1;
}

static uint64_t every_third(uint64_t n)
{
    return 3 * n + 1;
}

/* All of them, in disorder: 7919 is a prime that does not divide a million. */
static uint64_t shuffled(uint64_t n)
{
    return n * 7919 % MILLION + 1;
}

static void inbox_a_million_events_in_order_take_one_run(void **state)
{
    (void)state;
    assert_true(claim_a_million(in_order) <= 4096);
    assert_int_equal(query("SELECT count(*) FROM inbox_page"), 2);
    assert_int_equal(query("SELECT full FROM inbox_page WHERE page = 0"), MILLION / 2048);
}

static void inbox_a_million_of_three_million_events_take_less_than_a_mebibyte(void **state)
{
    (void)state;
    int64_t bytes = claim_a_million(every_third);
    print_message("1 M of 3 M events: %" PRId64 " bytes\n", bytes);
    assert_true(bytes <= 1 << 20);
}

static void inbox_a_million_events_in_disorder_end_as_one_run(void **state)
{
    (void)state;
    assert_true(claim_a_million(shuffled) <= 4096);
    assert_int_equal(query("SELECT count(*) FROM inbox_page"), 2);
}

static void claim_page(uint64_t page)
{
    for (uint64_t row = 2048 * page + 1; row <= 2048 * (page + 1); row++)
        assert_ok(claim(1, row));
}

static void inbox_full_pages_join_only_their_neighbours(void **state)
{
    (void)state;
    assert_ok(db_begin(db, NULL));
    claim_page(0);
    claim_page(5); /* the pages between are unknown, and stay so */
    claim_page(2);
    assert_int_equal(query("SELECT count(*) FROM inbox_page WHERE full = 1"), 3);
    claim_page(1);
    assert_int_equal(query("SELECT full FROM inbox_page WHERE page = 0"), 3);
    claim_page(4);
    assert_int_equal(query("SELECT full FROM inbox_page WHERE page = 4"), 2);
    claim_page(3);
    assert_int_equal(query("SELECT full FROM inbox_page WHERE page = 0"), 6);
    assert_int_equal(query("SELECT count(*) FROM inbox_page"), 1);
    assert_ok(claim(1, 6 * 2048 + 1));
    assert_ok(db_commit(db, NULL));
}

/* ---- against a plain set --------------------------------------------------------------------- */

enum { SOURCES = 2, ROWS = 40960, MODEL_STEPS = 60000 };

static bool model[SOURCES][ROWS + 1];
static bool tentative[SOURCES][ROWS + 1];

static uint64_t random_row(struct wb_rng *rng, uint64_t *front)
{
    switch (wb_rng_below(rng, 4)) {
    case 0:
        return 1 + wb_rng_below(rng, ROWS);
    case 1: /* around the edges of pages */
        return 1 +
               (2048 * (1 + wb_rng_below(rng, ROWS / 2048 - 1)) + wb_rng_below(rng, 5) - 2) % ROWS;
    default: /* mostly onwards */
        *front = *front % ROWS + 1;
        return *front;
    }
}

static void claim_and_compare(struct wb_rng *rng, uint64_t *fronts)
{
    uint64_t source = wb_rng_below(rng, SOURCES);
    uint64_t row = random_row(rng, &fronts[source]);
    wb_err expected = tentative[source][row] ? WB_EXISTS : WB_OK;
    wb_err got = claim(source, row);

    if (got != expected)
        fail_msg("source %" PRIu64 " row %" PRIu64 ": %s, expected %s", source, row,
                 wb_err_name(got), wb_err_name(expected));
    tentative[source][row] = true;
}

/* In the end, every row: those that were claimed and kept, and no other, are known. */
static void claim_the_rest(void)
{
    assert_ok(db_begin(db, NULL));
    for (uint64_t source = 0; source < SOURCES; source++)
        for (uint64_t row = 1; row <= ROWS; row++)
            assert_int_equal(claim(source, row), model[source][row] ? WB_EXISTS : WB_OK);
    assert_ok(db_commit(db, NULL));
}

/* One transaction of some claims, kept or not; returns how many. */
static int claim_some(struct wb_rng *rng, uint64_t *fronts)
{
    int claims = (int)wb_rng_below(rng, 3000);

    memcpy(tentative, model, sizeof(model));
    assert_ok(db_begin(db, NULL));
    for (int i = 0; i < claims; i++)
        claim_and_compare(rng, fronts);
    if (wb_rng_below(rng, 3) == 0) {
        db_rollback(db);
        return claims;
    }
    assert_ok(db_commit(db, NULL));
    memcpy(model, tentative, sizeof(model));
    return claims;
}

static void inbox_knows_what_a_plain_set_knows_over_random_claims_and_rollbacks(void **state)
{
    struct wb_rng rng;
    uint64_t fronts[SOURCES] = {0};

    (void)state;
    wb_rng_seed(&rng, 20260101);
    memset(model, 0, sizeof(model));
    for (int step = 0; step < MODEL_STEPS;)
        step += claim_some(&rng, fronts);
    claim_the_rest();
    assert_int_equal(query("SELECT count(*) FROM inbox_page WHERE full = 20"), SOURCES);
    assert_int_equal(query("SELECT count(*) FROM inbox_page"), SOURCES);
}

static void inbox_damaged_page_is_corrupt(void **state)
{
    (void)state;
    assert_ok(db_begin(db, NULL));
    assert_ok(claim(1, 1));
    assert_ok(db_commit(db, NULL));
    static const char *const damage[] = {"UPDATE inbox_page SET bits = x'00'",
                                         "UPDATE inbox_page SET full = -1, bits = x''",
                                         "UPDATE inbox_page SET full = 0, bits = x''"};
    for (size_t i = 0; i < sizeof(damage) / sizeof(damage[0]); i++) {
        assert_ok(db_exec(db, damage[i], NULL));
        assert_ok(db_begin(db, NULL));
        assert_err(claim(1, 1), WB_CORRUPT);
        db_rollback(db);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(inbox_claim_knows_an_event_the_second_time),
        T(inbox_claim_that_was_rolled_back_is_forgotten),
        T(inbox_claim_and_advance_outside_a_transaction_are_misuse),
        T(inbox_consumers_do_not_know_of_one_another),
        T(inbox_attach_refuses_a_name_that_is_no_token),
        T(inbox_attach_to_newer_tables_is_unsupported),
        T(inbox_position_belongs_to_one_incarnation_of_a_stream),
        T(inbox_position_goes_back_when_a_stream_is_read_again),
        T(inbox_malformed_headers_make_an_event_foreign),
        T(inbox_headers_of_ours_count_whatever_the_msg_id),
        T(inbox_event_without_any_id_is_known_by_place_and_time),
        T(inbox_foreign_events_are_forgotten_after_seven_days_of_the_stream),
        T(inbox_foreign_events_are_bounded_by_number),
        T(inbox_a_million_events_in_order_take_one_run),
        T(inbox_a_million_of_three_million_events_take_less_than_a_mebibyte),
        T(inbox_a_million_events_in_disorder_end_as_one_run),
        T(inbox_full_pages_join_only_their_neighbours),
        T(inbox_knows_what_a_plain_set_knows_over_random_claims_and_rollbacks),
        T(inbox_damaged_page_is_corrupt),
#undef T
    };
    return cmocka_run_group_tests_name("inbox_claim", tests, NULL, NULL);
}
