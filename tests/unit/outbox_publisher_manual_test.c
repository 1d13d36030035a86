/* The state machine, step by step, on a memory bus and a virtual clock. */
#include "outbox_publisher_fault_bus.h"
#include "outbox_publisher_fixture.h"

/* ---- the straight path ----------------------------------------------------------------------- */

static void rows_are_published_in_order_and_marked(void **state)
{
    struct fixture *f = *state;

    fixture_insert(f, "a.x", "", "1");
    fixture_insert(f, "a.y", "", "2");
    fixture_insert(f, "a.x", "", "3");
    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "A", "1 2 3");
    assert_int_equal(fixture_int(f, "SELECT last_id FROM outbox_cursor"), 3);
    assert_int_equal(fixture_int(f, "SELECT last_seq FROM outbox_cursor"), 3);
    assert_int_equal(fixture_int(f, "SELECT holder FROM outbox_cursor"), 1);
    assert_int_equal(fixture_int(f, "SELECT last_msg_id = (SELECT msg_id FROM outbox WHERE id = 3)"
                                    " FROM outbox_cursor"),
                     1);
    assert_int_equal(fixture_health(f).state, OUTBOX_PUBLISHER_DRAIN);
    assert_int_equal(fixture_health(f).published, 3);
    assert_string_equal(fixture_health(f).problem, "");
}

static void message_carries_identity_source_row_key_and_headers(void **state)
{
    struct fixture *f = *state;
    struct event_bus_delivery *delivery;
    char source[OUTBOX_SOURCE_TEXT], msg_id[WB_ID_TEXT];

    fixture_sql(f, "INSERT INTO outbox(subject, key, headers, traceparent, payload)"
                   " VALUES('a.x', 'k 1', 'Color: red', '00-ab-cd-01', 'p')");
    fixture_start(f);
    fixture_run(f);
    assert_ok(event_bus_get(f->bus, "A", 1, &delivery, NULL));
    struct sqlite3_stmt *stmt;
    assert_ok(db_prepare(f->db,
                         "SELECT lower(hex(source)), (SELECT lower(hex(msg_id)) FROM outbox)"
                         " FROM outbox_source",
                         &stmt, NULL));
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    (void)snprintf(source, sizeof(source), "%s", sqlite3_column_text(stmt, 0));
    (void)snprintf(msg_id, sizeof(msg_id), "%s", sqlite3_column_text(stmt, 1));
    (void)sqlite3_finalize(stmt);
    const struct message *msg = &delivery->message;
    assert_true(wb_str_eq(msg->msg_id, wb_str(msg_id)));
    assert_true(wb_str_eq(message_header(msg, "waybill-source"), wb_str(source)));
    assert_true(wb_str_eq(message_header(msg, "waybill-row"), wb_str("1")));
    assert_true(wb_str_eq(message_header(msg, "waybill-key"), wb_str("k%201")));
    assert_true(wb_str_eq(message_header(msg, "traceparent"), wb_str("00-ab-cd-01")));
    assert_true(wb_str_eq(message_header(msg, "Color"), wb_str("red")));
    event_bus_release(delivery);
}

static void many_rows_go_out_in_batches_through_a_small_window(void **state)
{
    struct fixture *f = *state;

    f->options.window = 7;
    fixture_sql(f, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)"
                   " INSERT INTO outbox(subject, payload) SELECT 'a.n', i FROM n");
    fixture_start(f);
    fixture_run(f);
    struct event_bus_stream_info info;
    assert_ok(event_bus_stream_info(f->bus, "A", &info, NULL));
    assert_int_equal(info.last_seq, 5000);
    assert_int_equal(fixture_int(f, "SELECT last_id FROM outbox_cursor"), 5000);
    assert_int_equal(fixture_health(f).settles, 0);
}

/* With a full window a lane sleeps until several are answered: not long, if only one ever is. */
static void lone_answer_to_a_full_window_is_soon_seen(void **state)
{
    struct fixture *f = *state;
    struct fault_bus *bus = fault_bus_create(f->bus, 1);

    f->options.bus = &bus->base;
    f->options.window = 16;
    fixture_start(f);
    const struct outbox_publisher_lane *lane = f->publisher->lanes[0];
    for (int i = 0; i < 40; i++)
        fixture_insert(f, "a.x", "", "p");
    fixture_run(f);
    assert_true(fault_bus_pump(bus)); /* the first goes alone */
    fixture_run(f);
    assert_true(outbox_publisher_answers_wanted(lane) > 1);
    assert_in_range(outbox_publisher_drain_wait_ns(lane), 1, 10 * WB_MS);

    assert_true(fault_bus_pump(bus));
    fixture_run(f);
    assert_true(outbox_publisher_answers_wanted(lane) > 1);
    assert_in_range(outbox_publisher_drain_wait_ns(lane), 1, 10 * WB_MS);
    outbox_publisher_stop(f->publisher);
    f->publisher = NULL;
    event_bus_destroy(&bus->base);
}

static void flush_returns_when_all_is_published_and_says_why_not(void **state)
{
    struct fixture *f = *state;
    struct wb_why why;

    fixture_insert(f, "a.x", "", "1");
    fixture_start(f);
    assert_ok(outbox_publisher_flush(f->publisher, WB_SEC, NULL));
    assert_stream_holds(f, "A", "1");
    event_bus_memory_set_down(f->bus, true);
    fixture_insert(f, "a.x", "", "2");
    assert_err(outbox_publisher_flush(f->publisher, WB_SEC, &why), WB_TIMEOUT);
    assert_non_null(strstr(why.text, "outage"));
}

/* ---- rows written by hand -------------------------------------------------------------------- */

static void bad_rows_are_parked_and_the_others_go_on(void **state)
{
    struct fixture *f = *state;

    fixture_insert(f, "a.x", "", "1");
    fixture_insert(f, "a b", "", "2");
    fixture_insert(f, "", "", "3");
    fixture_sql(f, "INSERT INTO outbox(subject, headers, payload) VALUES('a.x', 'no colon', '4'),"
                   " ('a.x', 'waybill-row: 7', '5'), ('a.x', 'Nats-Msg-Id: 7', '6'),"
                   " ('a.x', 'Good: yes', '7')");
    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "A", "1 7");
    assert_exceptions(f, "2 parked 3 parked 4 parked 5 parked 6 parked");
    assert_int_equal(fixture_int(f, "SELECT min(length(error)) > 0 FROM outbox_exception"), 1);
    assert_int_equal(fixture_int(f, "SELECT last_id FROM outbox_cursor"), 7);
}

static void payloads_of_any_type_go_out_as_their_bytes(void **state)
{
    struct fixture *f = *state;

    fixture_sql(f, "INSERT INTO outbox(subject, payload) VALUES('a.x', 'text'), ('a.x', x'686578'),"
                   " ('a.x', 42), ('a.x', 1.5), ('a.x', '')");
    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "A", "text hex 42 1.5 ");
}

static void too_big_row_is_retried_then_parked_and_blocks_only_its_key(void **state)
{
    struct fixture *f = *state;

    f->options.max_attempts = 3;
    fixture_sql(f,
                "INSERT INTO outbox(subject, key, payload) VALUES('a.x', 'k', zeroblob(2000000)),"
                " ('a.x', 'k', '2'), ('a.x', 'l', '3'), ('a.x', '', '4')");
    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "A", "3 4");
    assert_exceptions(f, "1 retry 2 blocked");
    assert_int_equal(fixture_int(f, "SELECT attempts FROM outbox_exception WHERE id = 1"), 1);
    fixture_pass(f, 5 * WB_SEC);
    assert_exceptions(f, "1 parked 2 blocked");
    assert_int_equal(fixture_int(f, "SELECT attempts FROM outbox_exception WHERE id = 1"), 3);
    assert_stream_holds(f, "A", "3 4");
}

static void unparked_row_lets_its_key_follow_in_order(void **state)
{
    struct fixture *f = *state;

    /* Row 1 stands for one that a person has mended the world for: parked, then set to retry. */
    fixture_insert(f, "a.x", "k", "1");
    fixture_insert(f, "a.x", "k", "2");
    fixture_sql(f, "INSERT INTO outbox_exception(id, state) VALUES(1, 'parked')");
    fixture_start(f);
    fixture_run(f);
    fixture_insert(f, "a.x", "k", "3");
    fixture_insert(f, "a.x", "l", "4");
    fixture_run(f);
    assert_stream_holds(f, "A", "4");
    assert_exceptions(f, "1 parked 2 blocked 3 blocked");
    fixture_sql(f, "UPDATE outbox_exception SET state = 'retry', next_at = 0 WHERE id = 1");
    fixture_pass(f, 6 * WB_SEC); /* the lane looks at the tables again at its next check */
    assert_stream_holds(f, "A", "4 1 2 3");
    assert_exceptions(f, "");
}

static void row_of_no_stream_is_shown_and_goes_out_once_a_stream_covers_it(void **state)
{
    struct fixture *f = *state;

    fixture_insert(f, "b.x", "", "1");
    fixture_insert(f, "a.x", "", "2");
    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "A", "2");
    assert_exceptions(f, "1 retry");
    assert_int_equal(fixture_int(f, "SELECT error LIKE 'no stream covers%' FROM outbox_exception"),
                     1);
    fixture_pass(f, 60 * WB_SEC); /* it is never given up */
    assert_exceptions(f, "1 retry");

    const char *const wider[] = {"a.>", "b.>"};
    assert_ok(event_bus_declare_stream(
        f->bus,
        &(struct event_bus_stream_options){.name = "A", .subjects = wider, .subject_count = 2},
        EVENT_BUS_APPLY, NULL));
    fixture_pass(f, 60 * WB_SEC);
    assert_stream_holds(f, "A", "2 1");
    assert_exceptions(f, "");
}

static void row_that_names_a_stream_which_does_not_cover_it_is_parked_in_the_end(void **state)
{
    struct fixture *f = *state;

    f->options.max_attempts = 2;
    fixture_declare(f->bus, "B", "b.>");
    fixture_sql(f, "INSERT INTO outbox(stream, subject, payload) VALUES('A', 'b.x', '1'),"
                   " ('A', 'a.x', '2')");
    fixture_start(f);
    fixture_run(f);
    fixture_pass(f, 2 * WB_SEC);
    assert_stream_holds(f, "A", "2");
    assert_stream_holds(f, "B", "");
    assert_exceptions(f, "1 parked");
}

static void row_of_a_stream_of_others_is_shown_not_sent(void **state)
{
    struct fixture *f = *state;

    fixture_declare(f->bus, "C", "c.>");
    fixture_sql(f, "INSERT INTO outbox(stream, subject, payload) VALUES('C', 'c.x', '1'),"
                   " ('', 'c.x', '2')");
    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "C", "");
    assert_exceptions(f, "1 retry 2 retry");
}

static void two_streams_each_get_their_rows(void **state)
{
    struct fixture *f = *state;

    fixture_declare(f->bus, "B", "b.>");
    f->options.stream_count = 2;
    fixture_insert(f, "a.x", "", "1");
    fixture_insert(f, "b.x", "", "2");
    fixture_sql(f, "INSERT INTO outbox(stream, subject, payload) VALUES('B', 'b.y', '3')");
    fixture_insert(f, "a.x", "", "4");
    fixture_insert(f, "c.x", "", "5");
    fixture_start(f);
    fixture_run(f);
    fixture_pass(f, 2 * WB_SEC);
    assert_stream_holds(f, "A", "1 4");
    assert_stream_holds(f, "B", "2 3");
    assert_exceptions(f, "5 retry");
    assert_int_equal(fixture_int(f, "SELECT min(last_id) FROM outbox_cursor"), 5);

    fixture_sql(f, "DELETE FROM outbox_exception");
}

static void row_handed_to_another_stream_goes_out_there_once(void **state)
{
    struct fixture *f = *state;
    const char *const wider[] = {"b.>", "c.>"};

    fixture_declare(f->bus, "B", "b.>");
    f->options.stream_count = 2;
    fixture_insert(f, "c.x", "", "1");
    fixture_start(f);
    fixture_run(f);
    assert_exceptions(f, "1 retry");
    assert_ok(event_bus_declare_stream(
        f->bus,
        &(struct event_bus_stream_options){.name = "B", .subjects = wider, .subject_count = 2},
        EVENT_BUS_APPLY, NULL));
    fixture_pass(f, 90 * WB_SEC);
    assert_stream_holds(f, "B", "1");
    assert_exceptions(f, "");
}

/* ---- time ------------------------------------------------------------------------------------ */

static void row_goes_out_when_it_is_due(void **state)
{
    struct fixture *f = *state;
    char sql[200];
    int64_t now_ms = wb_wall_ns(f->options.clock) / WB_MS;

    (void)snprintf(sql, sizeof(sql),
                   "INSERT INTO outbox(subject, due_at, payload) VALUES('a.x', %" PRId64
                   ", 'late'), ('a.x', NULL, 'now')",
                   now_ms + 3000);
    fixture_sql(f, sql);
    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "A", "now");
    assert_exceptions(f, "1 waiting");
    fixture_pass(f, 2900 * WB_MS);
    assert_stream_holds(f, "A", "now");
    fixture_pass(f, 200 * WB_MS);
    assert_stream_holds(f, "A", "now late");
    assert_exceptions(f, "");
}

static void row_past_its_time_expires(void **state)
{
    struct fixture *f = *state;

    fixture_sql(f, "INSERT INTO outbox(subject, expires_at, payload) VALUES('a.x', 1000, '1'),"
                   " ('a.x', 9999999999999, '2')");
    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "A", "2");
    assert_exceptions(f, "1 expired");
}

/* ---- the bus fails --------------------------------------------------------------------------- */

static void outage_burns_no_attempts_and_ends_with_the_connection(void **state)
{
    struct fixture *f = *state;

    fixture_start(f);
    fixture_run(f);
    event_bus_memory_set_down(f->bus, true);
    fixture_insert(f, "a.x", "", "1");
    fixture_run(f);
    assert_int_equal(fixture_health(f).state, OUTBOX_PUBLISHER_OUTAGE);
    assert_true(fixture_health(f).problem[0] != '\0');
    fixture_pass(f, 30 * WB_SEC);
    assert_int_equal(fixture_health(f).state, OUTBOX_PUBLISHER_OUTAGE);
    assert_exceptions(f, "");
    event_bus_memory_set_down(f->bus, false);
    fixture_run(f); /* the listener cuts the backoff short */
    assert_stream_holds(f, "A", "1");
    assert_int_equal(fixture_health(f).state, OUTBOX_PUBLISHER_DRAIN);
    assert_string_equal(fixture_health(f).problem, "");
}

static void missing_stream_is_an_outage_until_it_is_there(void **state)
{
    struct fixture *f = *state;
    static const char *const only[] = {"Z"};

    f->options.streams = only;
    fixture_insert(f, "z.x", "", "1");
    fixture_start(f);
    fixture_run(f);
    assert_int_equal(fixture_health(f).state, OUTBOX_PUBLISHER_OUTAGE);
    fixture_declare(f->bus, "Z", "z.>");
    fixture_pass(f, WB_SEC);
    assert_stream_holds(f, "Z", "1");
}

static void full_stream_is_an_outage_not_a_fault_of_the_row(void **state)
{
    struct fixture *f = *state;
    static const char *const only[] = {"F"};
    static const char *const subjects[] = {"f.>"};
    struct event_bus_stream_options options = {
        .name = "F", .subjects = subjects, .subject_count = 1, .max_messages = 2};

    assert_ok(event_bus_declare_stream(f->bus, &options, EVENT_BUS_CREATE, NULL));
    f->options.streams = only;
    for (int i = 1; i <= 4; i++)
        fixture_insert(f, "f.x", "", (const char[]){(char)('0' + i), '\0'});
    fixture_start(f);
    fixture_run(f);
    assert_int_equal(fixture_health(f).state, OUTBOX_PUBLISHER_OUTAGE);
    assert_stream_holds(f, "F", "1 2");
    assert_exceptions(f, "");
    options.max_messages = 10;
    assert_ok(event_bus_declare_stream(f->bus, &options, EVENT_BUS_APPLY, NULL));
    fixture_pass(f, WB_SEC);
    assert_stream_holds(f, "F", "1 2 3 4");
}

/* ---- the stream is not as expected ----------------------------------------------------------- */

static void publish_foreign(struct fixture *f, const char *payload, const char *msg_id)
{
    const struct message msg = {.subject = wb_str("a.foreign"),
                                .payload = {.ptr = payload, .len = strlen(payload)},
                                .msg_id = wb_str(msg_id)};

    assert_ok(event_bus_publish(f->bus, &msg, NULL, NULL, NULL));
}

static void foreign_messages_are_accepted_and_the_chain_goes_on(void **state)
{
    struct fixture *f = *state;

    fixture_insert(f, "a.x", "", "1");
    fixture_start(f);
    fixture_run(f);
    publish_foreign(f, "F", NULL);
    fixture_insert(f, "a.x", "", "2");
    fixture_run(f);
    publish_foreign(f, "G", "some-id");
    fixture_insert(f, "a.x", "", "3");
    fixture_run(f);
    assert_stream_holds(f, "A", "1 F 2 G 3");
    assert_int_equal(fixture_health(f).settles, 2);
    fixture_pass(f, 6 * WB_SEC);
    assert_int_equal(fixture_health(f).state, OUTBOX_PUBLISHER_DRAIN);
}

static void id_known_for_another_message_goes_out_under_a_new_one(void **state)
{
    struct fixture *f = *state;
    char msg_id[WB_ID_TEXT];
    uint8_t raw[WB_ID_SIZE] = {1, 2, 3};

    wb_hex_encode(raw, sizeof(raw), msg_id);
    fixture_start(f);
    fixture_run(f);
    publish_foreign(f, "F", msg_id);
    fixture_sql(f, "INSERT INTO outbox(subject, msg_id, payload)"
                   " VALUES('a.x', x'01020300000000000000000000000000', '1')");
    fixture_insert(f, "a.x", "", "2");
    fixture_run(f);
    assert_stream_holds(f, "A", "F 1 2");
    fixture_pass(f, 6 * WB_SEC); /* a check finds its end where it left it */
    assert_int_equal(fixture_health(f).state, OUTBOX_PUBLISHER_DRAIN);
    assert_int_equal(fixture_int(f, "SELECT last_seq FROM outbox_cursor"), 3);
}

static void stream_with_a_past_of_its_own_is_adopted_at_its_end(void **state)
{
    struct fixture *f = *state;

    publish_foreign(f, "F", "x");
    publish_foreign(f, "G", NULL);
    fixture_insert(f, "a.x", "", "1");
    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "A", "F G 1");
    assert_int_equal(fixture_health(f).settles, 0);
}

static void memory_bus_made_anew_goes_on_with_the_rows_not_yet_published(void **state)
{
    struct fixture *f = *state;

    fixture_insert(f, "a.x", "", "1");
    fixture_start(f);
    fixture_run(f);
    outbox_publisher_stop(f->publisher);
    f->publisher = NULL;
    event_bus_destroy(f->bus);
    fixture_bus_make(f, 1800000000 * WB_SEC);
    fixture_insert(f, "a.x", "", "2");
    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "A", "2");
    assert_int_equal(fixture_int(f, "SELECT last_seq FROM outbox_cursor"), 1);
    assert_int_equal(fixture_int(f, "SELECT holder FROM outbox_cursor"), 2);
}

/* ---- all of it --------------------------------------------------------------------------------
 */

static void metrics_tell_what_was_done(void **state)
{
    struct fixture *f = *state;

    fixture_insert(f, "a.x", "", "1");
    fixture_insert(f, "a b", "", "2");
    f->options.name = "mine";
    fixture_start(f);
    fixture_run(f);
#define METRIC(id) observe_value(observe_series(f->observe, OBSERVE_##id, "mine"))
    assert_int_equal(METRIC(OUTBOX_PUBLISHED), 1);
    assert_int_equal(METRIC(OUTBOX_PARKED), 1);
    assert_int_equal(METRIC(OUTBOX_BARRIERS), 1);
    assert_int_equal(METRIC(OUTBOX_STATE), OUTBOX_PUBLISHER_DRAIN);
    event_bus_memory_set_down(f->bus, true);
    fixture_insert(f, "a.x", "", "3");
    fixture_run(f);
    assert_int_equal(METRIC(OUTBOX_STATE), OUTBOX_PUBLISHER_OUTAGE);
}

static void start_refuses_what_makes_no_sense(void **state)
{
    struct fixture *f = *state;
    static const char *const twice[] = {"A", "A"};
    static const char *const bad[] = {"A B"};

    f->options.stream_count = 0;
    assert_err(outbox_publisher_start(&f->options, &f->publisher, NULL), WB_INVALID);
    f->options.stream_count = 17;
    assert_err(outbox_publisher_start(&f->options, &f->publisher, NULL), WB_INVALID);
    f->options.streams = twice;
    f->options.stream_count = 2;
    assert_err(outbox_publisher_start(&f->options, &f->publisher, NULL), WB_INVALID);
    f->options.streams = bad;
    f->options.stream_count = 1;
    assert_err(outbox_publisher_start(&f->options, &f->publisher, NULL), WB_INVALID);
    assert_null(f->publisher);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        T(rows_are_published_in_order_and_marked),
        T(message_carries_identity_source_row_key_and_headers),
        T(many_rows_go_out_in_batches_through_a_small_window),
        T(lone_answer_to_a_full_window_is_soon_seen),
        T(flush_returns_when_all_is_published_and_says_why_not),
        T(bad_rows_are_parked_and_the_others_go_on),
        T(payloads_of_any_type_go_out_as_their_bytes),
        T(too_big_row_is_retried_then_parked_and_blocks_only_its_key),
        T(unparked_row_lets_its_key_follow_in_order),
        T(row_of_no_stream_is_shown_and_goes_out_once_a_stream_covers_it),
        T(row_that_names_a_stream_which_does_not_cover_it_is_parked_in_the_end),
        T(row_of_a_stream_of_others_is_shown_not_sent),
        T(two_streams_each_get_their_rows),
        T(row_handed_to_another_stream_goes_out_there_once),
        T(row_goes_out_when_it_is_due),
        T(row_past_its_time_expires),
        T(outage_burns_no_attempts_and_ends_with_the_connection),
        T(missing_stream_is_an_outage_until_it_is_there),
        T(full_stream_is_an_outage_not_a_fault_of_the_row),
        T(foreign_messages_are_accepted_and_the_chain_goes_on),
        T(id_known_for_another_message_goes_out_under_a_new_one),
        T(stream_with_a_past_of_its_own_is_adopted_at_its_end),
        T(memory_bus_made_anew_goes_on_with_the_rows_not_yet_published),
        T(metrics_tell_what_was_done),
        T(start_refuses_what_makes_no_sense),
    };
    return cmocka_run_group_tests_name("outbox_publisher_manual", tests, NULL, NULL);
}
