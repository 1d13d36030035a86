/* Our own database goes back in time: noticed by the stream, nothing doubled, nothing lost. */
#include <unistd.h>

#include "outbox_publisher_fault_bus.h"
#include "outbox_publisher_fixture.h"

/* ---- helpers --------------------------------------------------------------------------------- */

static void insert(struct fixture *f, const char *subject, const char *payloads)
{
    for (const char *at = payloads; *at != '\0'; at++)
        if (*at != ' ')
            fixture_insert(f, subject, "", (const char[]){*at, '\0'});
}

static void publisher_end(struct fixture *f)
{
    outbox_publisher_stop(f->publisher);
    f->publisher = NULL;
}

static void backup_path(const struct fixture *f, const char *name, char out[400])
{
    (void)snprintf(out, 400, "%s/%s", f->dir, name);
}

static void backup(struct fixture *f, const char *name)
{
    char path[400], sql[450];

    backup_path(f, name, path);
    (void)snprintf(sql, sizeof(sql), "VACUUM INTO '%s'", path);
    fixture_sql(f, sql);
}

/* The copy is put back as a file, the way an operator does. */
static void put_back(struct fixture *f, const char *name)
{
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    char path[400], copy[400];
    size_t len = 0;

    db_close(f->db);
    for (size_t i = 0; i < 3; i++) {
        (void)snprintf(path, sizeof(path), "%s%s", f->path, suffixes[i]);
        (void)unlink(path);
    }
    backup_path(f, name, copy);
    char *content = test_file_read(copy, &len);
    FILE *out = fopen(f->path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(content, 1, len, out), len);
    assert_int_equal(fclose(out), 0);
    free(content);
    assert_ok(db_open(f->path, &(struct db_options){.sync = DB_SYNC_NORMAL}, &f->db, NULL));
}

static void run_all(struct fixture *f)
{
    fixture_start(f);
    fixture_pass(f, 300 * WB_MS);
}

/* "stream:row" of every orphan. */
static void assert_orphans(struct fixture *f, const char *expected)
{
    assert_column(f, "SELECT stream || ':' || row_id FROM outbox_orphan ORDER BY stream, sequence",
                  expected);
}

/* " source/row ", as the message says it. */
static void name_of(struct fixture *f, const char *stream, uint64_t sequence, char out[80])
{
    struct event_bus_delivery *delivery = NULL;

    assert_ok(event_bus_get(f->bus, stream, sequence, &delivery, NULL));
    struct wb_str source = message_header(&delivery->message, MESSAGE_HEADER_SOURCE);
    struct wb_str row = message_header(&delivery->message, MESSAGE_HEADER_ROW);
    (void)snprintf(out, 80, " %.*s/%.*s ", (int)source.len, source.ptr, (int)row.len, row.ptr);
    event_bus_release(delivery);
}

/* No two messages of all streams name the same row under the same source. */
static void assert_names_are_unique(struct fixture *f)
{
    struct event_bus_stream_info info;
    struct wb_buf seen = {0};
    char name[80] = "";

    wb_buf_str(&seen, " ");
    for (size_t i = 0; i < 2 && i < f->options.stream_count; i++) {
        if (event_bus_stream_info(f->bus, fixture_streams[i], &info, NULL) != WB_OK)
            continue;
        for (uint64_t seq = 1; seq <= info.last_seq; seq++) {
            name_of(f, fixture_streams[i], seq, name);
            if (strstr(seen.ptr, name) != NULL)
                fail_msg("%s stands twice", name);
            wb_buf_str(&seen, name + 1);
        }
    }
    wb_buf_free(&seen);
}

static void assert_at_rest(struct fixture *f)
{
    assert_int_equal(fixture_health(f).state, OUTBOX_PUBLISHER_DRAIN);
    assert_string_equal(fixture_health(f).problem, "");
    assert_exceptions(f, "");
    assert_names_are_unique(f);
}

static int64_t sources(struct fixture *f)
{
    return fixture_int(f, "SELECT count(*) FROM outbox_source");
}

/* ---- restored -------------------------------------------------------------------------------- */

static void events_of_the_undone_time_are_listed_and_the_rest_goes_on(void **state)
{
    struct fixture *f = *state;

    insert(f, "a.x", "1 2 3");
    run_all(f);
    backup(f, "old");
    insert(f, "a.x", "4 5");
    fixture_run(f);
    publisher_end(f);
    put_back(f, "old");
    insert(f, "a.x", "x y z"); /* before anybody has noticed: rows 4 to 6 again */
    run_all(f);
    assert_stream_holds(f, "A", "1 2 3 4 5 x y z");
    assert_orphans(f, "A:4 A:5");
    assert_int_equal(sources(f), 2);
    assert_int_equal(fixture_int(f, "SELECT max(from_id) FROM outbox_source"), 4);
    assert_int_equal(fixture_int(f, "SELECT count(*) FROM outbox_incident WHERE kind = 'restored'"
                                    " AND rows = 2 AND first_seq = 4 AND last_seq = 5"),
                     1);
    assert_int_equal(fixture_int(f, "SELECT sum(subject = 'a.x' AND stored_at > 0 AND noticed_at"
                                    " > 0 AND length(msg_id) = 32) FROM outbox_orphan"),
                     2);
    assert_int_equal(fixture_health(f).restores, 1);
    assert_int_equal(observe_value(observe_series(f->observe, OBSERVE_OUTBOX_ORPHANS, "m.db")), 2);
    assert_at_rest(f);
}

static void nothing_new_since_the_restore_is_noticed_too(void **state)
{
    struct fixture *f = *state;

    insert(f, "a.x", "1 2");
    run_all(f);
    backup(f, "old");
    insert(f, "a.x", "3");
    fixture_run(f);
    publisher_end(f);
    put_back(f, "old");
    run_all(f);
    assert_orphans(f, "A:3");
    insert(f, "a.x", "n");
    fixture_run(f);
    assert_stream_holds(f, "A", "1 2 3 n");
    assert_at_rest(f);
}

/* The copy knew rows that were published only after it was made. */
static void rows_of_the_copy_that_were_published_since_are_found_not_sent(void **state)
{
    struct fixture *f = *state;

    insert(f, "a.x", "1 2");
    run_all(f);
    event_bus_memory_set_down(f->bus, true);
    insert(f, "a.x", "3 4");
    fixture_sql(f, "INSERT INTO outbox_exception(id, state) VALUES(3, 'parked')");
    backup(f, "old");
    event_bus_memory_set_down(f->bus, false);
    insert(f, "a.x", "5");
    fixture_pass(f, 3 * WB_SEC);
    publisher_end(f);
    assert_stream_holds(f, "A", "1 2 4 5");
    put_back(f, "old");
    insert(f, "a.x", "n");
    run_all(f);
    assert_stream_holds(f, "A", "1 2 4 5 n");
    assert_orphans(f, "A:5");
    assert_exceptions(f, "3 parked");
    assert_int_equal(fixture_int(f, "SELECT max(from_id) FROM outbox_source"), 5);
    fixture_sql(f, "UPDATE outbox_exception SET state = 'retry', next_at = 0");
    fixture_pass(f, 6 * WB_SEC);
    assert_stream_holds(f, "A", "1 2 4 5 n 3");
    assert_at_rest(f);
}

static void copy_from_before_the_first_event_is_noticed(void **state)
{
    struct fixture *f = *state;

    backup(f, "empty");
    insert(f, "a.x", "1 2 3");
    run_all(f);
    publisher_end(f);
    put_back(f, "empty");
    insert(f, "a.x", "n");
    run_all(f);
    assert_stream_holds(f, "A", "1 2 3 n");
    assert_orphans(f, "A:1 A:2 A:3");
    assert_at_rest(f);
}

/* On a bus that keeps what it has: the newest message is a stranger's, ours lie before it. */
static void copy_from_before_the_first_event_looks_at_the_whole_stream(void **state)
{
    struct fixture *f = *state;
    struct fault_bus *bus = fault_bus_create(f->bus, 1);
    const struct message stranger = {.subject = wb_str("a.foreign"), .payload = {"F", 1}};

    f->options.bus = &bus->base;
    f->options.observe = NULL;
    insert(f, "a.x", "1");
    backup(f, "first");
    fixture_start(f);
    insert(f, "a.x", "2");
    for (int i = 0; i < 30; i++) {
        (void)outbox_publisher_step(f->publisher);
        (void)fault_bus_pump(bus);
    }
    publisher_end(f);
    assert_ok(event_bus_publish(f->bus, &stranger, NULL, NULL, NULL));
    assert_stream_holds(f, "A", "1 2 F");
    event_bus_memory_advance(f->bus, 3600 * WB_SEC); /* beyond any duplicate window */
    put_back(f, "first");
    insert(f, "a.x", "n");
    fixture_start(f);
    for (int i = 0; i < 60; i++) {
        (void)outbox_publisher_step(f->publisher);
        (void)fault_bus_pump(bus);
        fault_bus_advance(bus, 10 * WB_MS);
    }
    assert_stream_holds(f, "A", "1 2 F n");
    assert_orphans(f, "A:2");
    assert_int_equal(fixture_int(f, "SELECT max(from_id) FROM outbox_source"), 2);
    publisher_end(f);
    event_bus_destroy(&bus->base);
}

static void the_same_copy_put_back_twice_leaves_no_name_twice(void **state)
{
    struct fixture *f = *state;

    insert(f, "a.x", "1 2");
    run_all(f);
    backup(f, "old");
    insert(f, "a.x", "3 4");
    fixture_run(f);
    publisher_end(f);
    put_back(f, "old");
    insert(f, "a.x", "a b c");
    run_all(f);
    backup(f, "younger");
    insert(f, "a.x", "d");
    fixture_run(f);
    publisher_end(f);
    put_back(f, "younger");
    insert(f, "a.x", "e");
    run_all(f);
    assert_stream_holds(f, "A", "1 2 3 4 a b c d e");
    assert_orphans(f, "A:3 A:4 A:6");
    assert_int_equal(sources(f), 3);
    publisher_end(f);
    put_back(f, "old"); /* it has never heard of the second source */
    insert(f, "a.x", "f");
    run_all(f);
    assert_stream_holds(f, "A", "1 2 3 4 a b c d e f");
    assert_at_rest(f);
}

static void orphans_are_bounded_and_the_rest_is_counted(void **state)
{
    struct fixture *f = *state;

    insert(f, "a.x", "1");
    run_all(f);
    fixture_sql(f, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 99999)"
                   " INSERT INTO outbox_orphan SELECT 'Z', i, '', i, '', '', 0, 0 FROM n");
    backup(f, "old");
    insert(f, "a.x", "2 3 4");
    fixture_run(f);
    publisher_end(f);
    put_back(f, "old");
    run_all(f);
    assert_int_equal(fixture_int(f, "SELECT count(*) FROM outbox_orphan"), 100000);
    assert_int_equal(fixture_int(f, "SELECT rows FROM outbox_incident"), 3);
    assert_at_rest(f);
}

/* More orphans than are noted at once. */
static void many_orphans_are_noted_in_chunks(void **state)
{
    struct fixture *f = *state;

    insert(f, "a.x", "1");
    run_all(f);
    backup(f, "old");
    fixture_sql(f, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)"
                   " INSERT INTO outbox(subject, payload) SELECT 'a.n', i FROM n");
    fixture_run(f);
    publisher_end(f);
    put_back(f, "old");
    insert(f, "a.x", "n");
    run_all(f);
    assert_int_equal(fixture_int(f, "SELECT count(*) FROM outbox_orphan"), 500);
    assert_int_equal(fixture_int(f, "SELECT last_seq FROM outbox_cursor"), 502);
    assert_at_rest(f);
}

/* ---- crashes --------------------------------------------------------------------------------- */

static void crash_anywhere_in_a_restore_doubles_and_loses_nothing(void **state)
{
    struct fixture *f = *state;
    bool more = true;

    insert(f, "a.x", "1 2 3");
    run_all(f);
    backup(f, "old");
    insert(f, "a.x", "4 5 6");
    fixture_run(f);
    publisher_end(f);
    for (int steps = 1; more; steps++) {
        event_bus_memory_restart(f->bus, "A", 6);
        put_back(f, "old");
        insert(f, "a.x", "x y");
        fixture_start(f);
        for (int i = 0; i < steps && more; i++)
            more = outbox_publisher_step(f->publisher);
        fixture_crash(f);
        run_all(f);
        assert_stream_holds(f, "A", "1 2 3 4 5 6 x y");
        assert_orphans(f, "A:4 A:5 A:6");
        assert_int_equal(sources(f), 2);
        assert_at_rest(f);
        publisher_end(f);
        assert_true(more || steps > 6);
    }
}

/* ---- several streams ------------------------------------------------------------------------- */

static void several_streams_notice_and_share_one_new_source(void **state)
{
    struct fixture *f = *state;

    fixture_declare(f->bus, "B", "b.>");
    f->options.stream_count = 2;
    insert(f, "a.x", "1");
    insert(f, "b.x", "2");
    run_all(f);
    backup(f, "old");
    insert(f, "a.x", "3");
    insert(f, "b.x", "4");
    insert(f, "a.x", "5");
    fixture_run(f);
    publisher_end(f);
    put_back(f, "old");
    insert(f, "b.x", "x"); /* row 3 of stream B now; of stream A before */
    insert(f, "a.x", "y");
    run_all(f);
    assert_stream_holds(f, "A", "1 3 5 y");
    assert_stream_holds(f, "B", "2 4 x");
    assert_orphans(f, "A:3 A:5 B:4");
    assert_int_equal(sources(f), 2);
    assert_at_rest(f);
}

/* Only the last stream holds what gives the restore away; the first must not send before it. */
static void no_stream_is_written_to_before_each_was_looked_at(void **state)
{
    struct fixture *f = *state;

    fixture_declare(f->bus, "B", "b.>");
    f->options.stream_count = 2;
    insert(f, "a.x", "1");
    run_all(f);
    backup(f, "old");
    insert(f, "b.x", "2");
    fixture_run(f);
    publisher_end(f);
    put_back(f, "old");
    insert(f, "a.x", "x"); /* row 2 again */
    run_all(f);
    assert_stream_holds(f, "A", "1 x");
    assert_stream_holds(f, "B", "2");
    assert_orphans(f, "B:2");
    assert_at_rest(f); /* the row x went out under another source than the orphan */
}

static void stream_that_is_missing_holds_back_no_other(void **state)
{
    struct fixture *f = *state;

    f->options.stream_count = 2; /* there is no B */
    insert(f, "a.x", "1");
    fixture_start(f);
    fixture_run(f);
    assert_stream_holds(f, "A", "1");
}

/* ---- both at once ---------------------------------------------------------------------------- */

/* The host went back: the database to one moment, the stream to a later one that was made anew. */
static void database_restored_and_stream_made_anew_are_found_together(void **state)
{
    struct fixture *f = *state;
    struct event_bus_delivery *kept[4];

    insert(f, "a.x", "1 2");
    run_all(f);
    backup(f, "old");
    insert(f, "a.x", "3 4");
    fixture_run(f);
    publisher_end(f);
    for (uint64_t i = 0; i < 4; i++)
        assert_ok(event_bus_get(f->bus, "A", i + 1, &kept[i], NULL));
    put_back(f, "old");
    run_all(f); /* notices the restore, and has seen the stream */
    assert_orphans(f, "A:3 A:4");
    insert(f, "a.x", "n");
    fixture_run(f);
    event_bus_memory_advance(f->bus, WB_MS);
    assert_ok(event_bus_delete_stream(f->bus, "A", NULL));
    fixture_declare(f->bus, "A", "a.>");
    for (int i = 0; i < 4; i++) {
        if (i != 1) /* row 2 is lost on the way */
            assert_ok(event_bus_publish(f->bus, &kept[i]->message, NULL, NULL, NULL));
        event_bus_release(kept[i]);
    }
    fixture_pass(f, 6 * WB_SEC);
    assert_stream_holds(f, "A", "1 3 4 2 n");
    assert_int_equal(sources(f), 2);
    assert_at_rest(f);
}

static void plan_of_a_restore_lists_what_would_be_done(void **state)
{
    struct fixture *f = *state;
    struct outbox_publisher_plan plan;

    insert(f, "a.x", "1 2");
    run_all(f);
    backup(f, "old");
    insert(f, "a.x", "3 4");
    fixture_run(f);
    publisher_end(f);
    put_back(f, "old");
    assert_ok(outbox_publisher_plan(&f->options, "A", NULL, NULL, &plan, NULL));
    assert_true(plan.needed);
    assert_string_equal(plan.kind, "restored");
    assert_int_equal(plan.orphans, 2);
    assert_int_equal(plan.rows, 0);
    assert_int_equal(sources(f), 1);
    assert_orphans(f, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        T(events_of_the_undone_time_are_listed_and_the_rest_goes_on),
        T(nothing_new_since_the_restore_is_noticed_too),
        T(rows_of_the_copy_that_were_published_since_are_found_not_sent),
        T(copy_from_before_the_first_event_is_noticed),
        T(copy_from_before_the_first_event_looks_at_the_whole_stream),
        T(the_same_copy_put_back_twice_leaves_no_name_twice),
        T(orphans_are_bounded_and_the_rest_is_counted),
        T(many_orphans_are_noted_in_chunks),
        T(crash_anywhere_in_a_restore_doubles_and_loses_nothing),
        T(several_streams_notice_and_share_one_new_source),
        T(no_stream_is_written_to_before_each_was_looked_at),
        T(stream_that_is_missing_holds_back_no_other),
        T(database_restored_and_stream_made_anew_are_found_together),
        T(plan_of_a_restore_lists_what_would_be_done),
    };
    return cmocka_run_group_tests_name("outbox_publisher_restore", tests, NULL, NULL);
}
