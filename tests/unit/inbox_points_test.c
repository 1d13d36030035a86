/* Places in a stream to go back to: few, sparser with their distance, and told from others. */
#include "inbox_fixture.h"

#include <inttypes.h>

static int setup(void **state)
{
    (void)state;
    fixture_attach("worker");
    return 0;
}

static struct inbox_origin place(const char *stream, uint64_t sequence, int64_t stored_ns)
{
    return (struct inbox_origin){.stream = wb_str(stream),
                                 .sequence = sequence,
                                 .stored_wall_ns = stored_ns,
                                 .stream_created_wall_ns = 7};
}

static const struct message *event(const char *id)
{
    static struct message msg;

    msg = (struct message){.subject = wb_str("a.b"), .msg_id = wb_str(id)};
    return &msg;
}

static void advance(const char *stream, uint64_t sequence)
{
    struct inbox_origin origin = place(stream, sequence, (int64_t)sequence);

    assert_ok(inbox_advance(inbox, event("any"), &origin, NULL));
}

static size_t points(const char *stream, struct inbox_point out[INBOX_POINTS_MAX])
{
    size_t count = 99;

    assert_ok(inbox_points(inbox, stream, 7, out, &count, NULL));
    assert_true(count <= INBOX_POINTS_MAX);
    for (size_t i = 1; i < count; i++)
        assert_true(out[i].sequence < out[i - 1].sequence);
    return count;
}

static void inbox_points_grow_sparser_with_their_distance(void **state)
{
    struct inbox_point out[INBOX_POINTS_MAX];
    const uint64_t last = 1000000;

    (void)state;
    assert_ok(db_begin(db, NULL));
    for (uint64_t sequence = 64; sequence <= last; sequence += 64)
        advance("A", sequence);
    assert_ok(db_commit(db, NULL));
    size_t count = points("A", out);
    assert_int_equal(count, INBOX_POINTS_MAX);
    assert_int_equal(out[0].sequence, last);
    assert_int_equal(out[count - 1].sequence, 512); /* far back, too */
    /* Whatever was lost, at most so much more is read again, the oldest gap apart. */
    for (size_t i = 1; i + 1 < count; i++) {
        uint64_t lost = last - out[i].sequence + 1;
        assert_true(out[i].sequence - out[i + 1].sequence <= 2 * lost + 1024);
    }
}

static void inbox_points_of_streams_and_consumers_are_their_own(void **state)
{
    struct inbox_point out[INBOX_POINTS_MAX];
    struct inbox *first = inbox, *other = NULL;

    (void)state;
    assert_ok(inbox_attach(db_handle(db), "other", &other, NULL));
    assert_ok(db_begin(db, NULL));
    for (uint64_t sequence = 100; sequence <= 5000; sequence += 100) {
        advance("A", sequence);
        advance("B", sequence / 100);
        inbox = other;
        advance("A", 10 * sequence);
        inbox = first;
    }
    assert_ok(db_commit(db, NULL));
    assert_int_equal(points("B", out), 1);
    assert_int_equal(out[0].sequence, 50);
    assert_true(points("A", out) > 5);
    assert_int_equal(out[0].sequence, 5000);
    inbox = other;
    assert_true(points("A", out) > 5);
    assert_int_equal(out[0].sequence, 50000);
    inbox = first;
    assert_int_equal(points("C", out), 0);
    inbox_detach(other);
}

static void inbox_points_of_an_earlier_stream_are_forgotten(void **state)
{
    struct inbox_point out[INBOX_POINTS_MAX];
    struct inbox_origin anew = place("A", 600, 1);
    size_t count = 0;

    (void)state;
    assert_ok(db_begin(db, NULL));
    for (uint64_t sequence = 600; sequence <= 6000; sequence += 600)
        advance("A", sequence);
    anew.stream_created_wall_ns = 8;
    assert_ok(inbox_advance(inbox, event("any"), &anew, NULL));
    assert_ok(db_commit(db, NULL));
    assert_int_equal(points("A", out), 0);
    assert_ok(inbox_points(inbox, "A", 8, out, &count, NULL));
    assert_int_equal(count, 1);
    assert_int_equal(out[0].sequence, 600);
}

static void inbox_points_beyond_the_position_stay(void **state)
{
    struct inbox_point out[INBOX_POINTS_MAX];

    (void)state;
    assert_ok(db_begin(db, NULL));
    for (uint64_t sequence = 600; sequence <= 6000; sequence += 600)
        advance("A", sequence);
    advance("A", 1300); /* it went back */
    assert_ok(db_commit(db, NULL));
    size_t count = points("A", out);
    bool found = false;
    for (size_t i = 0; i < count; i++)
        found |= out[i].sequence == 1300;
    assert_true(found);
    assert_int_equal(out[0].sequence, 6000);
}

static void inbox_point_holds_for_its_own_message_only(void **state)
{
    struct inbox_point out[INBOX_POINTS_MAX];
    struct inbox_origin origin = place("A", 5, 1000), later = place("A", 5, 1001);
    bool holds = false;

    (void)state;
    assert_ok(db_begin(db, NULL));
    assert_ok(inbox_advance(inbox, event("x"), &origin, NULL));
    assert_ok(db_commit(db, NULL));
    assert_int_equal(points("A", out), 1);
    assert_ok(inbox_point_holds(inbox, &out[0], event("x"), &origin, &holds, NULL));
    assert_true(holds);
    assert_ok(inbox_point_holds(inbox, &out[0], event("y"), &origin, &holds, NULL));
    assert_false(holds);
    /* The same event, stored again. */
    assert_ok(inbox_point_holds(inbox, &out[0], event("x"), &later, &holds, NULL));
    assert_false(holds);
    out[0].mark = 0; /* of an older file */
    assert_ok(inbox_point_holds(inbox, &out[0], event("y"), &later, &holds, NULL));
    assert_true(holds);
}

static void inbox_points_are_written_rarely(void **state)
{
    (void)state;
    assert_ok(db_begin(db, NULL));
    int before = sqlite3_total_changes(db_handle(db));
    advance("A", 511);
    assert_int_equal(sqlite3_total_changes(db_handle(db)) - before, 1); /* the position alone */
    for (uint64_t sequence = 512; sequence < 1024; sequence++)
        advance("A", sequence);
    assert_ok(db_commit(db, NULL));
    struct inbox_point out[INBOX_POINTS_MAX];
    assert_int_equal(points("A", out), 2);
    assert_int_equal(out[1].sequence, 512);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(inbox_points_grow_sparser_with_their_distance),
        T(inbox_points_of_streams_and_consumers_are_their_own),
        T(inbox_points_of_an_earlier_stream_are_forgotten),
        T(inbox_points_beyond_the_position_stay),
        T(inbox_point_holds_for_its_own_message_only),
        T(inbox_points_are_written_rarely),
#undef T
    };
    return cmocka_run_group_tests_name("inbox_points", tests, NULL, NULL);
}
