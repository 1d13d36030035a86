/* Reading back what was published some time ago, on a memory bus and a virtual clock. */
#include "outbox_publisher_fixture.h"

#define WAIT_NS (300 * WB_SEC) /* the default */

static void rows(struct fixture *f, int64_t count, const char *subject)
{
    char sql[300];

    (void)snprintf(
        sql, sizeof(sql),
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %" PRId64
        ") INSERT INTO outbox(subject, payload) SELECT '%s',"
        " (SELECT ifnull(max(id), 0) FROM outbox) + i FROM n",
        count, subject);
    fixture_sql(f, sql);
}

/* Let time pass in few steps: nothing here is shorter than a second. */
static void pass(struct fixture *f, int64_t ns)
{
    for (int64_t done = 0; done < ns; done += WB_SEC) {
        event_bus_memory_advance(f->bus, WB_SEC);
        fixture_run(f);
    }
}

static int64_t verified(struct fixture *f, const char *what)
{
    char sql[200];

    (void)snprintf(sql, sizeof(sql), "SELECT verified_%s FROM outbox_cursor WHERE stream = 'A'",
                   what);
    return fixture_int(f, sql);
}

static void assert_quiet(struct fixture *f)
{
    assert_int_equal(fixture_health(f).holes, 0);
    assert_int_equal(fixture_int(f, "SELECT count(*) FROM outbox_incident"), 0);
    assert_exceptions(f, "");
}

static uint64_t last_seq(struct fixture *f)
{
    struct event_bus_stream_info info;

    assert_ok(event_bus_stream_info(f->bus, "A", &info, NULL));
    return info.last_seq;
}

static void declare_short(struct fixture *f, uint64_t max_messages)
{
    static const char *const subjects[] = {"a.>"};

    assert_ok(
        event_bus_declare_stream(f->bus,
                                 &(struct event_bus_stream_options){.name = "A",
                                                                    .subjects = subjects,
                                                                    .subject_count = 1,
                                                                    .max_messages = max_messages,
                                                                    .discard_old = true},
                                 EVENT_BUS_APPLY, NULL));
}

/* ---- what is there --------------------------------------------------------------------------- */

static void rows_are_verified_when_they_are_old_enough(void **state)
{
    struct fixture *f = *state;

    fixture_start(f);
    rows(f, 10, "a.x");
    fixture_run(f);
    assert_int_equal(fixture_health(f).published, 10);
    pass(f, WAIT_NS - 10 * WB_SEC);
    assert_int_equal(verified(f, "id"), 0);
    assert_int_equal(fixture_health(f).audit_gap, 10);
    rows(f, 5, "a.x");
    pass(f, 20 * WB_SEC);
    assert_int_equal(verified(f, "id"), 10);
    assert_int_equal(verified(f, "seq"), 10);
    assert_int_equal(fixture_health(f).audit_gap, 5);
    assert_int_equal(fixture_int(f, "SELECT verified_msg_id = (SELECT msg_id FROM outbox"
                                    " WHERE id = 10) FROM outbox_cursor"),
                     1);
    assert_int_equal(verified(f, "at"), 1700000000000);
    assert_int_equal(fixture_health(f).verified_wall_ns, 1700000000 * WB_SEC);
    pass(f, WAIT_NS);
    assert_int_equal(verified(f, "id"), 15);
    assert_int_equal(fixture_health(f).audit_gap, 0);
    assert_int_equal(fixture_health(f).verified_wall_ns,
                     wb_wall_ns(event_bus_memory_clock(f->bus)) - WAIT_NS);
    assert_quiet(f);
}

static void verified_goes_on_after_a_restart(void **state)
{
    struct fixture *f = *state;

    fixture_start(f);
    rows(f, 10, "a.x");
    pass(f, WAIT_NS + WB_SEC);
    rows(f, 10, "a.x");
    fixture_run(f);
    fixture_crash(f);
    fixture_start(f);
    fixture_run(f);
    assert_int_equal(verified(f, "id"), 10);
    pass(f, WAIT_NS + WB_SEC);
    assert_int_equal(verified(f, "id"), 20);
    assert_int_equal(verified(f, "seq"), 20);
    assert_quiet(f);
}

static void rows_off_the_straight_path_and_of_others_are_passed(void **state)
{
    struct fixture *f = *state;

    f->options.stream_count = 2;
    fixture_declare(f->bus, "B", "b.>");
    fixture_start(f);
    rows(f, 2, "a.x");
    rows(f, 3, "b.x");
    fixture_sql(f, "INSERT INTO outbox(subject) VALUES('not a subject')"); /* parked */
    fixture_sql(f, "INSERT INTO outbox(subject, due_at) VALUES('a.x', 99999999999999)");
    rows(f, 2, "b.x");
    rows(f, 1, "a.x");
    pass(f, WAIT_NS + WB_SEC);
    assert_int_equal(verified(f, "id"), 10);
    assert_int_equal(verified(f, "seq"), 3);
    assert_int_equal(fixture_int(f, "SELECT verified_id FROM outbox_cursor WHERE stream = 'B'"),
                     10);
    assert_int_equal(fixture_health(f).holes, 0);
    assert_exceptions(f, "6 parked 7 waiting");
}

static void messages_of_others_are_passed_over(void **state)
{
    struct fixture *f = *state;
    const struct message foreign = {.subject = wb_str("a.foreign"), .msg_id = wb_str("theirs")};

    fixture_start(f);
    rows(f, 3, "a.x");
    fixture_run(f);
    assert_ok(event_bus_publish(f->bus, &foreign, NULL, NULL, NULL));
    rows(f, 3, "a.x");
    fixture_run(f);
    assert_ok(event_bus_publish(f->bus, &foreign, NULL, NULL, NULL));
    pass(f, WAIT_NS + 10 * WB_SEC);
    assert_int_equal(verified(f, "id"), 6);
    assert_true(verified(f, "seq") >= 7);
    assert_quiet(f);
}

/* ---- what is not ----------------------------------------------------------------------------- */

static void holes_are_found_and_sent_again(void **state)
{
    struct fixture *f = *state;

    fixture_start(f);
    rows(f, 10, "a.x");
    fixture_run(f);
    assert_true(event_bus_memory_delete(f->bus, "A", 4));
    assert_true(event_bus_memory_delete(f->bus, "A", 7));
    pass(f, WAIT_NS - WB_SEC);
    assert_quiet(f);
    pass(f, 3 * WB_SEC);
    assert_stream_holds(f, "A", "1 2 3 5 6 8 9 10 4 7");
    assert_int_equal(fixture_health(f).holes, 2);
    assert_int_equal(observe_value(f->publisher->holes), 2);
    assert_int_equal(verified(f, "id"), 10);
    assert_int_equal(fixture_int(f, "SELECT count(*) FROM outbox_incident WHERE kind = 'hole'"
                                    " AND rows = 2 AND stream = 'A'"),
                     1);
    assert_exceptions(f, "");
    pass(f, 2 * WAIT_NS);
    assert_int_equal(verified(f, "seq"), 12);
    assert_int_equal(fixture_health(f).holes, 2);
    assert_stream_holds(f, "A", "1 2 3 5 6 8 9 10 4 7");
}

static void hole_sent_again_and_lost_again_is_found_again(void **state)
{
    struct fixture *f = *state;

    fixture_start(f);
    rows(f, 10, "a.x");
    fixture_run(f);
    assert_true(event_bus_memory_delete(f->bus, "A", 4));
    pass(f, WAIT_NS + 2 * WB_SEC);
    assert_stream_holds(f, "A", "1 2 3 5 6 7 8 9 10 4");
    rows(f, 2, "a.x");
    fixture_run(f);
    assert_true(event_bus_memory_delete(f->bus, "A", 11));
    pass(f, WAIT_NS + 2 * WB_SEC);
    assert_stream_holds(f, "A", "1 2 3 5 6 7 8 9 10 11 12 4");
    assert_int_equal(fixture_health(f).holes, 2);
}

/* More than one slice, and more than one transaction takes. */
static void many_holes_are_all_found(void **state)
{
    struct fixture *f = *state;
    const uint64_t count = 5000, lost = 2500;

    fixture_start(f);
    rows(f, (int64_t)count, "a.x");
    fixture_run(f);
    for (uint64_t sequence = 1001; sequence <= 1000 + lost; sequence++)
        assert_true(event_bus_memory_delete(f->bus, "A", sequence));
    pass(f, WAIT_NS + 5 * WB_SEC);
    assert_int_equal(fixture_health(f).holes, lost);
    assert_int_equal(last_seq(f), count + lost);
    assert_exceptions(f, "");
    assert_int_equal(fixture_int(f, "SELECT sum(rows) FROM outbox_incident"), lost);
    pass(f, WAIT_NS + 5 * WB_SEC);
    assert_int_equal(fixture_health(f).holes, lost);
    assert_int_equal(verified(f, "seq"), count + lost);
}

/* ---- late, not lost -------------------------------------------------------------------------- */

static void rows_stored_late_are_not_called_lost(void **state)
{
    struct fixture *f = *state;
    char sql[200];

    fixture_start(f);
    rows(f, 1, "a.x");
    (void)snprintf(sql, sizeof(sql),
                   "INSERT INTO outbox(subject, payload, due_at) VALUES('a.x', 'late', %" PRId64
                   ")",
                   wb_wall_ns(event_bus_memory_clock(f->bus)) / WB_MS + 60000);
    fixture_sql(f, sql);
    rows(f, 4500, "a.x"); /* more than is read at a time */
    pass(f, 70 * WB_SEC);
    assert_int_equal(last_seq(f), 4502);
    pass(f, WAIT_NS);
    assert_int_equal(verified(f, "id"), 4502);
    assert_int_equal(verified(f, "seq"), 4502);
    assert_quiet(f);
    assert_int_equal(fixture_int(f, "SELECT sequence FROM outbox_late WHERE row_id = 2"), 4502);
}

/* ---- the stream's limits --------------------------------------------------------------------- */

static void rows_gone_by_limits_are_confirmed(void **state)
{
    struct fixture *f = *state;

    fixture_start(f);
    rows(f, 100, "a.x");
    fixture_run(f);
    declare_short(f, 10);
    pass(f, WAIT_NS + 2 * WB_SEC);
    assert_int_equal(verified(f, "id"), 100);
    assert_quiet(f);
    assert_int_equal(last_seq(f), 100);
}

static void hole_in_what_the_limits_have_left_is_found(void **state)
{
    struct fixture *f = *state;

    fixture_start(f);
    rows(f, 100, "a.x");
    fixture_run(f);
    declare_short(f, 20);
    assert_true(event_bus_memory_delete(f->bus, "A", 90));
    pass(f, WAIT_NS + 2 * WB_SEC);
    assert_int_equal(fixture_health(f).holes, 1);
    assert_int_equal(last_seq(f), 101);
    assert_int_equal(verified(f, "id"), 100);
}

static void stream_emptied_by_its_age_is_confirmed(void **state)
{
    struct fixture *f = *state;
    static const char *const subjects[] = {"a.>"};

    assert_ok(event_bus_declare_stream(
        f->bus,
        &(struct event_bus_stream_options){
            .name = "A", .subjects = subjects, .subject_count = 1, .max_age_ns = 200 * WB_SEC},
        EVENT_BUS_APPLY, NULL));
    fixture_start(f);
    rows(f, 50, "a.x");
    pass(f, WAIT_NS + 2 * WB_SEC);
    assert_int_equal(verified(f, "id"), 50);
    assert_int_equal(verified(f, "seq"), 50);
    assert_quiet(f);
    rows(f, 50, "a.x");
    pass(f, WAIT_NS + 2 * WB_SEC);
    assert_int_equal(verified(f, "id"), 100);
    assert_quiet(f);
}

/* ---- trouble --------------------------------------------------------------------------------- */

static void crashes_in_the_audit_lose_and_double_nothing(void **state)
{
    struct fixture *f = *state;
    struct wb_rng rng;

    fixture_start(f);
    rows(f, 6000, "a.x");
    fixture_run(f);
    for (uint64_t sequence = 100; sequence < 6000; sequence += 500)
        assert_true(event_bus_memory_delete(f->bus, "A", sequence));
    event_bus_memory_advance(f->bus, WAIT_NS + WB_SEC);
    wb_rng_seed(&rng, 5);
    for (int i = 0; i < 25; i++) {
        for (uint64_t steps = 1 + wb_rng_below(&rng, 14); steps > 0; steps--)
            (void)outbox_publisher_step(f->publisher);
        fixture_crash(f);
        fixture_start(f);
    }
    pass(f, WAIT_NS + 2 * WB_SEC);
    pass(f, WAIT_NS + 2 * WB_SEC);
    assert_int_equal(verified(f, "id"), 6000);
    assert_int_equal(fixture_int(f, "SELECT sum(rows) FROM outbox_incident"), 12);
    assert_int_equal(last_seq(f), 6012);
    assert_exceptions(f, "");
}

/* Overtaken between reading the stream and writing down what was found. */
static void audit_of_one_overtaken_writes_nothing(void **state)
{
    struct fixture *f = *state;

    fixture_start(f);
    rows(f, 10, "a.x");
    fixture_run(f);
    assert_true(event_bus_memory_delete(f->bus, "A", 5));
    event_bus_memory_advance(f->bus, WAIT_NS + WB_SEC);
    while (!f->publisher->lanes[0]->audit.in_hand)
        assert_true(outbox_publisher_step(f->publisher));
    fixture_sql(f, "UPDATE outbox_cursor SET holder = holder + 1");
    (void)outbox_publisher_step(f->publisher);
    assert_int_equal(fixture_health(f).state, OUTBOX_PUBLISHER_FENCED);
    assert_int_equal(fixture_int(f, "SELECT count(*) FROM outbox_incident"), 0);
    assert_int_equal(verified(f, "id"), 0);
    assert_int_equal(verified(f, "seq"), 0);
    assert_exceptions(f, "");
}

static void never(void *ctx, int64_t id)
{
    (void)ctx;
    fail_msg("row %" PRId64 " was told to be lost", id);
}

static void progress_is_noted_by_the_holder_only(void **state)
{
    struct fixture *f = *state;
    struct outbox_publisher_store *store;
    struct outbox_publisher_verifier *verifier;
    const int64_t missed[] = {3};
    struct outbox_publisher_progress progress = {.stream = "A",
                                                 .holder = 1,
                                                 .after = {.id = 10, .seq = 10},
                                                 .missed = missed,
                                                 .missed_count = 1,
                                                 .missed_by = 5};
    bool more;

    rows(f, 10, "a.x");
    fixture_sql(f, "INSERT INTO outbox_cursor(stream, holder) VALUES('A', 2)");
    assert_ok(outbox_publisher_store_open(f->path, &store, NULL));
    assert_ok(outbox_publisher_verifier_open(store, &verifier, NULL));
    assert_err(outbox_publisher_verified_write(verifier, &progress, never, NULL, &more, NULL),
               WB_CONFLICT);
    assert_exceptions(f, "");
    assert_int_equal(fixture_int(f, "SELECT count(*) FROM outbox_late"), 0);
    assert_int_equal(verified(f, "id"), 0);
    progress.holder = 2;
    progress.missed_by = 20;
    assert_ok(outbox_publisher_verified_write(verifier, &progress, never, NULL, &more, NULL));
    assert_int_equal(verified(f, "id"), 10);
    assert_int_equal(fixture_int(f, "SELECT sequence FROM outbox_late WHERE row_id = 3"), 20);
    outbox_publisher_verifier_close(verifier);
    outbox_publisher_store_close(store);
}

/* It says it is row 5 of this outbox, and is another event. */
static void message_with_another_identity_is_no_witness(void **state)
{
    struct fixture *f = *state;
    char source[OUTBOX_SOURCE_TEXT];
    struct sqlite3_stmt *stmt;

    fixture_start(f);
    rows(f, 10, "a.x");
    fixture_run(f);
    outbox_publisher_stop(f->publisher);
    f->publisher = NULL;
    assert_ok(db_prepare(f->db, "SELECT source FROM outbox_source", &stmt, NULL));
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    wb_hex_encode(sqlite3_column_blob(stmt, 0), OUTBOX_SOURCE_SIZE, source);
    (void)sqlite3_finalize(stmt);
    const struct message_header headers[] = {{wb_str(MESSAGE_HEADER_SOURCE), wb_str(source)},
                                             {wb_str(MESSAGE_HEADER_ROW), wb_str("5")}};
    const struct message msg = {.subject = wb_str("a.x"),
                                .headers = headers,
                                .header_count = 2,
                                .msg_id = wb_str("ffffffffffffffffffffffffffffffff")};
    assert_ok(event_bus_publish(f->bus, &msg, NULL, NULL, NULL));
    fixture_sql(f, "UPDATE outbox_cursor SET last_seq = 11,"
                   " last_msg_id = x'ffffffffffffffffffffffffffffffff'");
    assert_true(event_bus_memory_delete(f->bus, "A", 5));
    fixture_start(f);
    pass(f, WAIT_NS + 2 * WB_SEC);
    assert_int_equal(fixture_health(f).holes, 1);
    assert_stream_holds(f, "A", "1 2 3 4 6 7 8 9 10  5");
}

static void audit_waits_for_a_bus_that_is_away(void **state)
{
    struct fixture *f = *state;

    fixture_start(f);
    rows(f, 10, "a.x");
    fixture_run(f);
    event_bus_memory_set_down(f->bus, true);
    pass(f, WAIT_NS + WB_SEC);
    assert_int_equal(verified(f, "id"), 0);
    event_bus_memory_set_down(f->bus, false);
    pass(f, 5 * WB_SEC);
    assert_int_equal(verified(f, "id"), 10);
    assert_quiet(f);
}

/* A bus that forgets when its process ends: the new stream was never to hold the old rows. */
static void stream_begun_anew_is_read_from_its_beginning(void **state)
{
    struct fixture *f = *state;

    fixture_start(f);
    rows(f, 10, "a.x");
    pass(f, WAIT_NS + WB_SEC);
    rows(f, 5, "a.x");
    fixture_run(f);
    fixture_crash(f);
    event_bus_destroy(f->bus);
    fixture_bus_make(f, 1700001000 * WB_SEC);
    fixture_start(f);
    fixture_run(f);
    rows(f, 3, "a.x");
    pass(f, WAIT_NS + WB_SEC);
    assert_int_equal(verified(f, "id"), 18);
    assert_int_equal(verified(f, "seq"), 3);
    assert_quiet(f);
    assert_stream_holds(f, "A", "16 17 18");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        T(rows_are_verified_when_they_are_old_enough),
        T(verified_goes_on_after_a_restart),
        T(rows_off_the_straight_path_and_of_others_are_passed),
        T(messages_of_others_are_passed_over),
        T(holes_are_found_and_sent_again),
        T(hole_sent_again_and_lost_again_is_found_again),
        T(many_holes_are_all_found),
        T(rows_stored_late_are_not_called_lost),
        T(rows_gone_by_limits_are_confirmed),
        T(hole_in_what_the_limits_have_left_is_found),
        T(stream_emptied_by_its_age_is_confirmed),
        T(crashes_in_the_audit_lose_and_double_nothing),
        T(audit_of_one_overtaken_writes_nothing),
        T(progress_is_noted_by_the_holder_only),
        T(message_with_another_identity_is_no_witness),
        T(audit_waits_for_a_bus_that_is_away),
        T(stream_begun_anew_is_read_from_its_beginning),
    };
    return cmocka_run_group_tests_name("outbox_publisher_audit", tests, NULL, NULL);
}
