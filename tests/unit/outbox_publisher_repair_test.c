/* The bus loses what it had acknowledged: every row that is kept comes back, once and in order. */
#include "outbox_publisher_fixture.h"

/* ---- helpers --------------------------------------------------------------------------------- */

/* Rows '1' to 'n', payload and number alike; keys may be NULL, or one letter for each row. */
static void rows(struct fixture *f, int64_t from, int64_t to, const char *keys)
{
    for (int64_t id = from; id <= to; id++) {
        char payload[24], key[2] = {keys != NULL ? keys[id - from] : '\0', '\0'};
        (void)snprintf(payload, sizeof(payload), "%" PRId64, id);
        fixture_insert(f, "a.x", key, payload);
    }
}

static void many_rows(struct fixture *f, int64_t count)
{
    char sql[200];

    (void)snprintf(
        sql, sizeof(sql),
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %" PRId64
        ") INSERT INTO outbox(subject, payload) SELECT 'a.n', i FROM n",
        count);
    fixture_sql(f, sql);
}

static void foreign(struct fixture *f, const char *payload, const char *msg_id)
{
    const struct message msg = {.subject = wb_str("a.foreign"),
                                .payload = {.ptr = payload, .len = strlen(payload)},
                                .msg_id = wb_str(msg_id)};

    assert_ok(event_bus_publish(f->bus, &msg, NULL, NULL, NULL));
}

static void redeclare(struct fixture *f)
{
    event_bus_memory_advance(f->bus, WB_MS); /* another time of creation */
    assert_ok(event_bus_delete_stream(f->bus, "A", NULL));
    fixture_declare(f->bus, "A", "a.>");
}

static void declare_short(struct fixture *f, uint64_t max_messages)
{
    static const char *const subjects[] = {"a.>"};
    const struct event_bus_stream_options options = {.name = "A",
                                                     .subjects = subjects,
                                                     .subject_count = 1,
                                                     .max_messages = max_messages,
                                                     .discard_old = true};

    assert_ok(event_bus_declare_stream(f->bus, &options, EVENT_BUS_APPLY, NULL));
}

/* A check finds it: at the next one by itself, or when something is sent. */
static void look(struct fixture *f)
{
    fixture_pass(f, 6 * WB_SEC);
}

/* "kind rows gone" of every incident, joined by blanks. */
static void assert_incidents(struct fixture *f, const char *expected)
{
    struct sqlite3_stmt *stmt;
    struct wb_buf out = {0};

    assert_ok(db_prepare(f->db,
                         "SELECT kind || ' ' || rows || ' ' || gone FROM outbox_incident"
                         " ORDER BY id",
                         &stmt, NULL));
    while (sqlite3_step(stmt) == SQLITE_ROW)
        wb_buf_printf(&out, "%s%s", out.len > 0 ? " " : "", sqlite3_column_text(stmt, 0));
    (void)sqlite3_finalize(stmt);
    assert_string_equal(out.ptr != NULL ? out.ptr : "", expected);
    wb_buf_free(&out);
}

/* Everything is well: the machine drains, the cursor stands at the end, nothing is left aside. */
static void assert_at_rest(struct fixture *f)
{
    struct event_bus_stream_info info;

    assert_ok(event_bus_stream_info(f->bus, "A", &info, NULL));
    assert_int_equal(fixture_health(f).state, OUTBOX_PUBLISHER_DRAIN);
    assert_string_equal(fixture_health(f).problem, "");
    assert_int_equal(fixture_int(f, "SELECT last_seq FROM outbox_cursor"), info.last_seq);
    assert_int_equal(fixture_int(f, "SELECT repairing FROM outbox_cursor"), 0);
    assert_exceptions(f, "");
}

static void assert_late(struct fixture *f, uint64_t sequence, bool late)
{
    struct event_bus_delivery *delivery;

    assert_ok(event_bus_get(f->bus, "A", sequence, &delivery, NULL));
    assert_int_equal(message_header(&delivery->message, OUTBOX_HEADER_LATE).len, late ? 1 : 0);
    event_bus_release(delivery);
}

/* ---- what a broker can lose ------------------------------------------------------------------ */

static void stream_rolled_back_by_one_gets_its_last_row_again(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 5, NULL);
    fixture_start(f);
    fixture_run(f);
    event_bus_memory_restart(f->bus, "A", 4);
    look(f);
    assert_stream_holds(f, "A", "1 2 3 4 5");
    assert_incidents(f, "rolled-back 1 0");
    assert_int_equal(fixture_int(f, "SELECT first_seq FROM outbox_incident"), 5);
    assert_int_equal(fixture_int(f, "SELECT last_seq FROM outbox_incident"), 5);
    assert_int_equal(fixture_health(f).repairs, 1);
    assert_late(f, 5, false); /* in its place */
    assert_at_rest(f);
}

static void lost_end_comes_back_before_what_is_new(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 5, NULL);
    fixture_start(f);
    fixture_run(f);
    event_bus_memory_restart(f->bus, "A", 3);
    rows(f, 6, 7, NULL); /* sending it is what meets the loss */
    fixture_run(f);
    assert_stream_holds(f, "A", "1 2 3 4 5 6 7");
    assert_incidents(f, "rolled-back 2 0");
    assert_at_rest(f);
}

static void stream_rolled_back_by_many_gets_them_all(void **state)
{
    struct fixture *f = *state;
    struct event_bus_stream_info info;

    many_rows(f, 30000);
    fixture_start(f);
    fixture_run(f);
    event_bus_memory_restart(f->bus, "A", 7);
    look(f);
    assert_ok(event_bus_stream_info(f->bus, "A", &info, NULL));
    assert_int_equal(info.last_seq, 30000);
    assert_int_equal(
        fixture_int(f, "SELECT sum(last_id = 30000 AND last_seq = 30000) FROM outbox_cursor"), 1);
    assert_incidents(f, "rolled-back 29993 0");
    assert_at_rest(f);
}

static void wiped_stream_gets_every_row_that_is_kept(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 4, "abab");
    fixture_start(f);
    fixture_run(f);
    event_bus_memory_restart(f->bus, "A", 0);
    look(f);
    assert_stream_holds(f, "A", "1 2 3 4");
    assert_incidents(f, "rolled-back 4 0");
    assert_at_rest(f);
}

static void stream_made_anew_under_a_running_publisher_gets_every_row(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 4, NULL);
    fixture_start(f);
    fixture_run(f);
    redeclare(f);
    look(f);
    assert_stream_holds(f, "A", "1 2 3 4");
    assert_incidents(f, "made-anew 4 0");
    assert_at_rest(f);
}

/* Half of it is there again: somebody has copied a part of the old stream into the new one. */
static void rows_a_stream_made_anew_has_already_are_not_sent_twice(void **state)
{
    struct fixture *f = *state;
    struct event_bus_delivery *kept[2];

    rows(f, 1, 4, NULL);
    fixture_start(f);
    fixture_run(f);
    for (uint64_t i = 0; i < 2; i++)
        assert_ok(event_bus_get(f->bus, "A", 2 * i + 1, &kept[i], NULL));
    redeclare(f);
    for (int i = 0; i < 2; i++) {
        assert_ok(event_bus_publish(f->bus, &kept[i]->message, NULL, NULL, NULL));
        event_bus_release(kept[i]);
    }
    look(f);
    assert_stream_holds(f, "A", "1 3 2 4");
    assert_late(f, 3, true);
    assert_late(f, 4, false);
    assert_at_rest(f);
}

static void stream_others_have_grown_over_the_loss_gets_it_behind_them(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 3, NULL);
    fixture_start(f);
    fixture_run(f);
    event_bus_memory_restart(f->bus, "A", 2);
    foreign(f, "F", "x");
    foreign(f, "G", NULL);
    look(f);
    assert_stream_holds(f, "A", "1 2 F G 3");
    assert_incidents(f, "overwritten 1 0");
    assert_at_rest(f);
}

static void deleted_message_at_the_end_comes_back(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 3, NULL);
    fixture_start(f);
    fixture_run(f);
    assert_true(event_bus_memory_delete(f->bus, "A", 3));
    look(f);
    assert_stream_holds(f, "A", "1 2 3");
    assert_incidents(f, "hole 1 0");
    assert_at_rest(f);
}

static void holes_are_filled_behind_what_is_there_and_say_so(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 9, "kkkkkkkkk");
    fixture_start(f);
    fixture_run(f);
    assert_true(event_bus_memory_delete(f->bus, "A", 2));
    assert_true(event_bus_memory_delete(f->bus, "A", 5));
    event_bus_memory_restart(f->bus, "A", 7);
    rows(f, 10, 10, "k");
    fixture_run(f);
    /* 2 and 5 come late, yet before anything younger of their key that was not there. */
    assert_stream_holds(f, "A", "1 3 4 6 7 2 5 8 9 10");
    assert_late(f, 8, true);
    assert_late(f, 9, true);
    assert_late(f, 10, false);
    assert_incidents(f, "rolled-back 4 0");
    assert_int_equal(fixture_int(f, "SELECT count(*) FROM outbox_late"), 2);
    assert_int_equal(observe_value(observe_series(f->observe, OBSERVE_OUTBOX_REPUBLISHED, "m.db")),
                     4);
    assert_int_equal(observe_value(observe_series(f->observe, OBSERVE_OUTBOX_LATE, "m.db")), 2);
    assert_int_equal(observe_value(observe_series(f->observe, OBSERVE_OUTBOX_REPAIRS, "m.db")), 1);
    assert_at_rest(f);
}

static void second_loss_during_the_repair_is_repaired_too(void **state)
{
    struct fixture *f = *state;

    /* At each step of the repair once. */
    rows(f, 1, 6, NULL);
    fixture_start(f);
    fixture_run(f);
    for (int steps = 1; steps < 12; steps++) {
        event_bus_memory_restart(f->bus, "A", 4);
        event_bus_memory_advance(f->bus, 6 * WB_SEC);
        for (int i = 0; i < steps; i++)
            (void)outbox_publisher_step(f->publisher);
        event_bus_memory_restart(f->bus, "A", 2);
        fixture_pass(f, 6 * WB_SEC);
        assert_stream_holds(f, "A", "1 2 3 4 5 6");
        assert_at_rest(f);
    }
}

/* ---- what is not lost ------------------------------------------------------------------------ */

static void what_the_streams_limits_have_removed_is_not_sent_again(void **state)
{
    struct fixture *f = *state;

    declare_short(f, 4);
    rows(f, 1, 10, NULL);
    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "A", "7 8 9 10");
    event_bus_memory_restart(f->bus, "A", 8);
    look(f);
    assert_stream_holds(f, "A", "7 8 9 10");
    assert_incidents(f, "rolled-back 2 0");
    assert_at_rest(f);
}

/* Nothing of ours is left to tell which rows the limits took: the places that were lost do. */
static void as_many_rows_come_back_as_places_were_lost(void **state)
{
    struct fixture *f = *state;

    declare_short(f, 3);
    rows(f, 1, 10, NULL);
    fixture_start(f);
    fixture_run(f);
    event_bus_memory_restart(f->bus, "A", 7);
    assert_stream_holds(f, "A", "");
    look(f);
    assert_stream_holds(f, "A", "8 9 10");
    assert_incidents(f, "rolled-back 3 0");
    assert_at_rest(f);
}

static void late_row_is_missed_although_its_neighbours_went_by_limits(void **state)
{
    struct fixture *f = *state;

    declare_short(f, 4);
    rows(f, 1, 3, NULL);
    fixture_sql(f, "INSERT INTO outbox_exception(id, state) VALUES(2, 'parked')");
    rows(f, 4, 9, NULL);
    fixture_start(f);
    fixture_run(f);
    fixture_sql(f, "UPDATE outbox_exception SET state = 'retry', next_at = 0");
    look(f);
    assert_stream_holds(f, "A", "7 8 9 2");
    event_bus_memory_restart(f->bus, "A", 7);
    look(f);
    assert_stream_holds(f, "A", "7 8 2 9"); /* what was lost is older */
    assert_incidents(f, "rolled-back 2 0");
    assert_at_rest(f);
}

static void purged_stream_stays_empty(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 3, NULL);
    fixture_start(f);
    fixture_run(f);
    fixture_pass(f, 7 * WB_SEC); /* a while, with checks */
    event_bus_memory_advance(f->bus, INT64_C(8) * 24 * 3600 * WB_SEC);
    look(f);
    assert_stream_holds(f, "A", "");
    assert_incidents(f, "");
    rows(f, 4, 4, NULL);
    fixture_run(f);
    assert_stream_holds(f, "A", "4");
    assert_at_rest(f);
}

static void rows_no_longer_kept_are_told_not_passed_over(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 6, NULL);
    fixture_start(f);
    fixture_run(f);
    fixture_sql(f, "DELETE FROM outbox WHERE id <= 4");
    event_bus_memory_restart(f->bus, "A", 1);
    look(f);
    assert_stream_holds(f, "A", "1 5 6");
    assert_incidents(f, "rolled-back 2 3");
    assert_at_rest(f);
}

static void purged_rows_whose_messages_are_there_are_not_told_lost(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 6, NULL);
    fixture_start(f);
    fixture_run(f);
    fixture_sql(f, "DELETE FROM outbox WHERE id <= 3");
    event_bus_memory_restart(f->bus, "A", 4);
    look(f);
    assert_stream_holds(f, "A", "1 2 3 4 5 6");
    assert_incidents(f, "rolled-back 2 0");
    assert_int_equal(fixture_int(f, "SELECT count(*) FROM outbox_orphan"), 0);
    assert_at_rest(f);
}

static void subject_no_stream_covers_any_more_is_told(void **state)
{
    struct fixture *f = *state;
    static const char *const wide[] = {"a.>", "c.>"};

    assert_ok(event_bus_declare_stream(
        f->bus,
        &(struct event_bus_stream_options){.name = "A", .subjects = wide, .subject_count = 2},
        EVENT_BUS_APPLY, NULL));
    rows(f, 1, 2, NULL);
    fixture_insert(f, "c.x", "", "3");
    fixture_start(f);
    fixture_run(f);
    redeclare(f);
    look(f);
    assert_stream_holds(f, "A", "1 2");
    assert_incidents(f, "made-anew 2 1");
}

static void forgetful_bus_made_anew_for_a_new_publisher_is_adopted(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 2, NULL);
    fixture_start(f);
    fixture_run(f);
    outbox_publisher_stop(f->publisher);
    f->publisher = NULL;
    event_bus_destroy(f->bus);
    fixture_bus_make(f, 1800000000 * WB_SEC);
    rows(f, 3, 3, NULL);
    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "A", "3");
    assert_incidents(f, "");
}

/* ---- rows aside ------------------------------------------------------------------------------ */

static void rows_set_aside_stay_so_and_the_order_of_each_key_holds(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 3, "klm");
    fixture_sql(f, "INSERT INTO outbox(subject, key, payload) VALUES('a b', 'k', 'bad')");
    rows(f, 5, 8, "klmn");
    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "A", "1 2 3 6 7 8");
    assert_exceptions(f, "4 parked 5 blocked");
    event_bus_memory_restart(f->bus, "A", 2);
    look(f);
    assert_stream_holds(f, "A", "1 2 3 6 7 8");
    assert_exceptions(f, "4 parked 5 blocked");
    fixture_sql(f, "UPDATE outbox_exception SET state = 'cancelled' WHERE id = 4");
    look(f);
    assert_stream_holds(f, "A", "1 2 3 6 7 8 5");
}

/* Row 5 is refused once and waits; the repair takes the path back to row 2. Older rows of the key
 * must not be overtaken by it when it falls due meanwhile. */
static void row_in_retry_waits_for_older_ones_that_are_sent_again(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 4, "kkkk");
    fixture_start(f);
    fixture_run(f);
    rows(f, 5, 5, "k");
    fixture_sql(f, "INSERT INTO outbox_exception(id, state, attempts, next_at)"
                   " VALUES(5, 'retry', 1, 0)");
    event_bus_memory_restart(f->bus, "A", 1);
    look(f);
    assert_stream_holds(f, "A", "1 2 3 4 5");
    assert_at_rest(f);
}

static void waiting_row_goes_out_when_due_whatever_happens_before(void **state)
{
    struct fixture *f = *state;
    char sql[160];

    rows(f, 1, 2, NULL);
    (void)snprintf(sql, sizeof(sql),
                   "INSERT INTO outbox(subject, due_at, payload) VALUES('a.x', %" PRId64 ", '3')",
                   wb_wall_ns(f->options.clock) / WB_MS + 20000);
    fixture_sql(f, sql);
    rows(f, 4, 4, NULL);
    fixture_start(f);
    fixture_run(f);
    event_bus_memory_restart(f->bus, "A", 0);
    look(f);
    assert_stream_holds(f, "A", "1 2 4");
    assert_exceptions(f, "3 waiting");
    fixture_pass(f, 20 * WB_SEC);
    assert_stream_holds(f, "A", "1 2 4 3");
    assert_at_rest(f);
}

static void cancelled_and_expired_rows_do_not_come_back(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 2, NULL);
    fixture_sql(f, "INSERT INTO outbox_exception(id, state) VALUES(1, 'cancelled')");
    fixture_sql(f, "INSERT INTO outbox(subject, expires_at, payload) VALUES('a.x', 1000, '3')");
    rows(f, 4, 4, NULL);
    fixture_start(f);
    fixture_run(f);
    event_bus_memory_restart(f->bus, "A", 0);
    look(f);
    assert_stream_holds(f, "A", "2 4");
    assert_exceptions(f, "1 cancelled 3 expired");
}

static void rows_of_other_streams_are_not_touched(void **state)
{
    struct fixture *f = *state;

    fixture_declare(f->bus, "B", "b.>");
    f->options.stream_count = 2;
    rows(f, 1, 2, NULL);
    fixture_insert(f, "b.x", "", "3");
    rows(f, 4, 4, NULL);
    fixture_insert(f, "b.x", "", "5");
    fixture_start(f);
    fixture_run(f);
    event_bus_memory_restart(f->bus, "A", 1);
    look(f);
    assert_stream_holds(f, "A", "1 2 4");
    assert_stream_holds(f, "B", "3 5");
    assert_incidents(f, "rolled-back 2 0");
    event_bus_memory_restart(f->bus, "B", 0);
    look(f);
    assert_stream_holds(f, "A", "1 2 4");
    assert_stream_holds(f, "B", "3 5");
}

/* ---- many ------------------------------------------------------------------------------------ */

/* Every other message is gone: far more exceptions than are held in memory. */
static void many_holes_go_out_in_turns_before_anything_new(void **state)
{
    struct fixture *f = *state;
    struct event_bus_stream_info info;
    enum { ROWS = 3000 };

    f->options.window = 50;
    many_rows(f, ROWS);
    fixture_start(f);
    f->publisher->lost_max = 100;
    fixture_run(f);
    for (uint64_t seq = 2; seq <= ROWS; seq += 2)
        assert_true(event_bus_memory_delete(f->bus, "A", seq));
    fixture_insert(f, "a.x", "", "new");
    event_bus_memory_restart(f->bus, "A", ROWS - 1);
    while (fixture_health(f).state != OUTBOX_PUBLISHER_REPAIR)
        assert_true(outbox_publisher_step(f->publisher));
    while (outbox_publisher_step(f->publisher))
        assert_true(f->publisher->lanes[0]->exceptions.count <= 100 + 50);
    assert_ok(event_bus_stream_info(f->bus, "A", &info, NULL));
    assert_int_equal(info.messages, ROWS + 1);
    struct event_bus_delivery *delivery;
    assert_ok(event_bus_get(f->bus, "A", info.last_seq, &delivery, NULL));
    assert_int_equal(delivery->message.payload.len, 3); /* "new" */
    event_bus_release(delivery);
    assert_at_rest(f);
}

/* A lost row was sent, and its publisher died; memory has room for another one only. */
static void lost_row_found_stored_is_not_sent_again_whether_loaded_or_not(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 5, NULL);
    fixture_sql(f, "INSERT INTO outbox_exception(id, state) VALUES(1, 'cancelled'),"
                   " (2, 'cancelled')");
    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "A", "3 4 5");
    outbox_publisher_stop(f->publisher);
    fixture_sql(f, "UPDATE outbox_exception SET state = 'lost';"
                   "INSERT INTO outbox_exception(id, state) VALUES(5, 'lost');"
                   "UPDATE outbox_cursor SET last_seq = 2,"
                   " last_msg_id = (SELECT msg_id FROM outbox WHERE id = 4)");
    event_bus_memory_advance(f->bus, 3600 * WB_SEC); /* beyond any duplicate window */
    fixture_start(f);
    f->publisher->lost_max = 1;
    fixture_run(f);
    assert_stream_holds(f, "A", "3 4 5 1 2");
    assert_at_rest(f);
}

static void lost_rows_that_wait_for_a_parked_one_hold_back_no_other_key(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 9, "xkkkkkkmn");
    fixture_start(f);
    fixture_run(f);
    outbox_publisher_stop(f->publisher);
    for (uint64_t seq = 2; seq <= 8; seq++)
        assert_true(event_bus_memory_delete(f->bus, "A", seq));
    rows(f, 10, 10, "n");
    /* A person has parked the first: what a refusal for good would do. */
    fixture_sql(f, "INSERT INTO outbox_exception(id, state) VALUES(2, 'parked');"
                   "UPDATE outbox_cursor SET repairing = stream_created");
    fixture_start(f);
    f->publisher->lost_max = 2;
    look(f);
    assert_stream_holds(f, "A", "1 9 8 10");
    assert_exceptions(f, "2 parked 3 blocked 4 blocked 5 blocked 6 blocked 7 blocked");
    fixture_sql(f, "UPDATE outbox_exception SET state = 'retry', next_at = 0 WHERE id = 2");
    look(f);
    assert_stream_holds(f, "A", "1 9 8 10 2 3 4 5 6 7");
    assert_at_rest(f);
}

static void rows_beyond_the_bitmap_are_compared_range_by_range(void **state)
{
    struct fixture *f = *state;
    struct event_bus_stream_info info;

    many_rows(f, 1000);
    fixture_start(f);
    f->publisher->survey_ids = 130;
    fixture_run(f);
    assert_true(event_bus_memory_delete(f->bus, "A", 5));
    assert_true(event_bus_memory_delete(f->bus, "A", 131));
    assert_true(event_bus_memory_delete(f->bus, "A", 700));
    event_bus_memory_restart(f->bus, "A", 950);
    look(f);
    assert_ok(event_bus_stream_info(f->bus, "A", &info, NULL));
    assert_int_equal(info.messages, 1000);
    assert_int_equal(info.last_seq, 1003);
    assert_incidents(f, "rolled-back 53 0");
    assert_at_rest(f);
}

/* ---- known ids ------------------------------------------------------------------------------- */

/* Within the duplicate window the bus calls the ids of deleted messages known. */
static void known_ids_of_lost_rows_cost_one_look_not_one_each(void **state)
{
    struct fixture *f = *state;
    struct event_bus_stream_info info;

    rows(f, 1, 40, NULL);
    fixture_start(f);
    fixture_run(f);
    for (uint64_t seq = 11; seq <= 30; seq++)
        assert_true(event_bus_memory_delete(f->bus, "A", seq));
    assert_true(event_bus_memory_delete(f->bus, "A", 40)); /* so that it is noticed */
    look(f);
    assert_ok(event_bus_stream_info(f->bus, "A", &info, NULL));
    assert_int_equal(info.last_seq, 40 + 21);
    assert_int_equal(info.messages, 40);
    assert_int_equal(fixture_health(f).settles, 0); /* the stream was as expected each time */
    assert_int_equal(f->publisher->lanes[0]->again_count, 1);
    assert_at_rest(f);
    /* Under their longer ids they are the same events: a further repair finds them. */
    event_bus_memory_restart(f->bus, "A", 60);
    look(f);
    assert_ok(event_bus_stream_info(f->bus, "A", &info, NULL));
    assert_int_equal(info.last_seq, 61);
    assert_int_equal(info.messages, 40);
    assert_incidents(f, "hole 21 0 rolled-back 1 0");
    assert_at_rest(f);
}

/* ---- crashes --------------------------------------------------------------------------------- */

/* A step writes at most one transaction: a crash between any two of them is one at any write. */
static bool repair_and_crash(struct fixture *f, int steps)
{
    bool reached = true;

    for (int i = 0; i < steps && reached; i++)
        reached = outbox_publisher_step(f->publisher);
    fixture_crash(f);
    fixture_start(f);
    fixture_pass(f, 300 * WB_MS);
    return reached;
}

static void crash_anywhere_in_a_repair_doubles_and_loses_nothing(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 8, "abcabcab");
    fixture_start(f);
    fixture_run(f);
    outbox_publisher_stop(f->publisher);
    f->publisher = NULL;
    int steps = 1;
    for (bool more = true; more; steps++) {
        struct event_bus_stream_info info;
        int64_t ids = 0;
        assert_ok(event_bus_stream_info(f->bus, "A", &info, NULL));
        (void)event_bus_memory_delete(f->bus, "A", info.last_seq - 5);
        event_bus_memory_restart(f->bus, "A", info.last_seq - 2);
        fixture_start(f);
        more = repair_and_crash(f, steps);
        look(f);
        assert_ok(event_bus_stream_info(f->bus, "A", &info, NULL));
        assert_int_equal(info.messages, 8);
        for (uint64_t seq = info.first_seq; seq <= info.last_seq; seq++) {
            struct event_bus_delivery *delivery;
            uint64_t id = 0;
            if (event_bus_get(f->bus, "A", seq, &delivery, NULL) != WB_OK)
                continue;
            assert_true(wb_str_to_u64(message_header(&delivery->message, "waybill-row"), &id));
            event_bus_release(delivery);
            ids |= INT64_C(1) << id;
        }
        assert_int_equal(ids, 0x1fe); /* each once */
        assert_at_rest(f);
        outbox_publisher_stop(f->publisher);
        f->publisher = NULL;
    }
    assert_true(steps > 8); /* there was something to crash in */
}

/* The stream that was compared goes away while the repair is open, and the right one comes back. */
static void notes_of_an_interrupted_repair_are_not_acted_upon(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 6, NULL);
    fixture_start(f);
    fixture_run(f);
    outbox_publisher_stop(f->publisher);
    f->publisher = NULL;
    /* As if a repair had found row 3 missing in another copy of the stream, and crashed. */
    fixture_sql(f, "INSERT INTO outbox_exception(id, state, next_at, resent)"
                   " VALUES(3, 'lost', 0, 1);"
                   "UPDATE outbox_cursor SET repairing = stream_created");
    event_bus_memory_advance(f->bus, 3600 * WB_SEC); /* beyond any duplicate window */
    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "A", "1 2 3 4 5 6");
    assert_incidents(f, "resumed 0 0");
    assert_at_rest(f);
}

static void overtaken_publisher_does_not_conclude_a_repair(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 6, NULL);
    fixture_start(f);
    fixture_run(f);
    event_bus_memory_restart(f->bus, "A", 2);
    event_bus_memory_advance(f->bus, 6 * WB_SEC);
    while (fixture_health(f).state != OUTBOX_PUBLISHER_REPAIR)
        (void)outbox_publisher_step(f->publisher);
    fixture_sql(f, "UPDATE outbox_cursor SET holder = holder + 5");
    while (fixture_health(f).state == OUTBOX_PUBLISHER_REPAIR)
        assert_true(outbox_publisher_step(f->publisher));
    assert_int_equal(fixture_health(f).state, OUTBOX_PUBLISHER_FENCED);
    assert_int_equal(fixture_int(f, "SELECT last_seq FROM outbox_cursor"), 6);
    assert_incidents(f, "");
    fixture_pass(f, 300 * WB_MS); /* nobody else wants the role */
    assert_stream_holds(f, "A", "1 2 3 4 5 6");
}

/* ---- what needs a person --------------------------------------------------------------------- */

static void stream_that_is_changed_faster_than_repaired_halts(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 6, NULL);
    fixture_start(f);
    fixture_run(f);
    event_bus_memory_advance(f->bus, 6 * WB_SEC);
    for (int i = 0; i < 200 && fixture_health(f).state != OUTBOX_PUBLISHER_HALTED; i++) {
        /* Whenever a repair has ended, its end is taken away. */
        if (fixture_health(f).state == OUTBOX_PUBLISHER_CHECK)
            event_bus_memory_restart(f->bus, "A", 5 - fixture_health(f).repairs);
        (void)outbox_publisher_step(f->publisher);
    }
    assert_int_equal(fixture_health(f).state, OUTBOX_PUBLISHER_HALTED);
    assert_non_null(strstr(fixture_health(f).problem, "who else changes stream A"));
    fixture_pass(f, 11 * WB_SEC); /* they have stopped */
    assert_stream_holds(f, "A", "1 2 3 4 5 6");
    assert_at_rest(f);
}

static void incidents_are_bounded_and_the_oldest_go(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 2, NULL);
    fixture_sql(f, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
                   " WHERE i < 10000) INSERT INTO outbox_incident(id, at, stream, kind, first_seq,"
                   " last_seq, rows, detail) SELECT i, 0, 'A', 'x', 0, 0, 0, '' FROM n");
    fixture_start(f);
    fixture_run(f);
    event_bus_memory_restart(f->bus, "A", 1);
    look(f);
    assert_int_equal(fixture_int(f, "SELECT count(*) FROM outbox_incident"), 10000);
    assert_int_equal(fixture_int(f, "SELECT min(id) FROM outbox_incident"), 2);
}

/* ---- plans ----------------------------------------------------------------------------------- */

static bool plan_visit(void *ctx, int64_t row_id, bool late)
{
    wb_buf_printf(ctx, " %" PRId64 "%s", row_id, late ? "l" : "");
    return true;
}

static void plan_says_what_a_repair_does_and_changes_nothing(void **state)
{
    struct fixture *f = *state;
    struct outbox_publisher_plan plan;
    struct wb_buf told = {0};

    rows(f, 1, 8, NULL);
    fixture_start(f);
    fixture_run(f);
    assert_ok(outbox_publisher_plan(&f->options, "A", plan_visit, &told, &plan, NULL));
    assert_false(plan.needed);
    assert_int_equal(plan.cursor_seq, 8);
    fixture_sql(f, "DELETE FROM outbox WHERE id = 1");
    assert_true(event_bus_memory_delete(f->bus, "A", 3));
    event_bus_memory_restart(f->bus, "A", 6);
    int64_t before = fixture_int(f, "SELECT total_changes()");
    assert_ok(outbox_publisher_plan(&f->options, "A", plan_visit, &told, &plan, NULL));
    assert_true(plan.needed);
    assert_string_equal(plan.kind, "rolled-back");
    assert_string_equal(told.ptr, " 3l 7 8");
    assert_int_equal(plan.rows, 3);
    assert_int_equal(plan.late, 1);
    assert_int_equal(plan.gone, 0);
    assert_int_equal(plan.first_seq, 7);
    assert_int_equal(plan.last_seq, 8);
    assert_int_equal(fixture_int(f, "SELECT total_changes()"), before);
    assert_incidents(f, "");
    assert_exceptions(f, "");
    assert_int_equal(fixture_int(f, "SELECT last_seq + repairing FROM outbox_cursor"), 8);
    wb_buf_free(&told);
    look(f);
    assert_stream_holds(f, "A", "1 2 4 5 6 3 7 8");
    assert_err(outbox_publisher_plan(&f->options, "Z", NULL, NULL, &plan, NULL), WB_INVALID);
}

/* ---- asked for ------------------------------------------------------------------------------- */

static void holes_leave_no_trace_at_the_end_and_are_found_when_asked(void **state)
{
    struct fixture *f = *state;
    struct outbox_publisher_plan plan;

    rows(f, 1, 6, NULL);
    fixture_start(f);
    fixture_run(f);
    assert_true(event_bus_memory_delete(f->bus, "A", 3));
    look(f);
    assert_incidents(f, "");
    assert_ok(outbox_publisher_plan(&f->options, "A", NULL, NULL, &plan, NULL));
    assert_true(plan.needed);
    assert_int_equal(plan.rows, 1);
    outbox_publisher_stop(f->publisher);
    f->options.repair = "B";
    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "A", "1 2 4 5 6");
    outbox_publisher_stop(f->publisher);
    f->options.repair = "A";
    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "A", "1 2 4 5 6 3");
    assert_incidents(f, "hole 1 0");
    assert_at_rest(f);
    outbox_publisher_stop(f->publisher);
    f->options.repair = "*";
    fixture_start(f);
    fixture_run(f);
    assert_incidents(f, "hole 1 0"); /* and nothing the second time */
    assert_int_equal(fixture_health(f).repairs, 0);
    assert_true(fixture_health(f).scanned >= 6);
}

/* The newest message known is a stranger's without an id: it is told by when it was stored. */
static void stranger_at_the_end_does_not_hide_a_stream_that_grew_again(void **state)
{
    struct fixture *f = *state;

    rows(f, 1, 3, NULL);
    fixture_start(f);
    fixture_run(f);
    foreign(f, "F", NULL);
    rows(f, 4, 4, NULL);
    fixture_run(f);
    foreign(f, "G", NULL);
    look(f);
    assert_stream_holds(f, "A", "1 2 3 F 4 G");
    event_bus_memory_restart(f->bus, "A", 1);
    for (int i = 0; i < 6; i++)
        foreign(f, "H", NULL);
    look(f);
    assert_stream_holds(f, "A", "1 H H H H H H 2 3 4");
    assert_incidents(f, "overwritten 3 0");
    assert_at_rest(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        T(stream_rolled_back_by_one_gets_its_last_row_again),
        T(lost_end_comes_back_before_what_is_new),
        T(stream_rolled_back_by_many_gets_them_all),
        T(wiped_stream_gets_every_row_that_is_kept),
        T(stream_made_anew_under_a_running_publisher_gets_every_row),
        T(rows_a_stream_made_anew_has_already_are_not_sent_twice),
        T(stream_others_have_grown_over_the_loss_gets_it_behind_them),
        T(deleted_message_at_the_end_comes_back),
        T(holes_are_filled_behind_what_is_there_and_say_so),
        T(second_loss_during_the_repair_is_repaired_too),
        T(what_the_streams_limits_have_removed_is_not_sent_again),
        T(as_many_rows_come_back_as_places_were_lost),
        T(late_row_is_missed_although_its_neighbours_went_by_limits),
        T(purged_stream_stays_empty),
        T(rows_no_longer_kept_are_told_not_passed_over),
        T(purged_rows_whose_messages_are_there_are_not_told_lost),
        T(subject_no_stream_covers_any_more_is_told),
        T(forgetful_bus_made_anew_for_a_new_publisher_is_adopted),
        T(rows_set_aside_stay_so_and_the_order_of_each_key_holds),
        T(row_in_retry_waits_for_older_ones_that_are_sent_again),
        T(waiting_row_goes_out_when_due_whatever_happens_before),
        T(cancelled_and_expired_rows_do_not_come_back),
        T(rows_of_other_streams_are_not_touched),
        T(many_holes_go_out_in_turns_before_anything_new),
        T(lost_row_found_stored_is_not_sent_again_whether_loaded_or_not),
        T(lost_rows_that_wait_for_a_parked_one_hold_back_no_other_key),
        T(rows_beyond_the_bitmap_are_compared_range_by_range),
        T(known_ids_of_lost_rows_cost_one_look_not_one_each),
        T(crash_anywhere_in_a_repair_doubles_and_loses_nothing),
        T(notes_of_an_interrupted_repair_are_not_acted_upon),
        T(overtaken_publisher_does_not_conclude_a_repair),
        T(stream_that_is_changed_faster_than_repaired_halts),
        T(incidents_are_bounded_and_the_oldest_go),
        T(holes_leave_no_trace_at_the_end_and_are_found_when_asked),
        T(stranger_at_the_end_does_not_hide_a_stream_that_grew_again),
        T(plan_says_what_a_repair_does_and_changes_nothing),
    };
    return cmocka_run_group_tests_name("outbox_publisher_repair", tests, NULL, NULL);
}
