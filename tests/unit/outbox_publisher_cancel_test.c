/*
 * Cancelling between any two steps of a publisher, of one that has crashed, and of its successor:
 * a row whose cancelling was answered with OK is never in the stream; every other row is, once.
 */
#include "outbox_publisher_history.h"

#include <waybill/outbox.h>

enum { SEEDS = 60, ACTIONS = 300, ROWS_MAX = 4096 };

struct world {
    struct fixture *f;
    struct fault_bus *bus;
    struct outbox *outbox;
    struct wb_rng rng;
    uint64_t seed;
    bool cancelled[ROWS_MAX];
    unsigned cancels, too_late, crashes;
};

static uint64_t below(struct world *w, uint64_t bound)
{
    return wb_rng_below(&w->rng, bound);
}

static int64_t newest_row(struct world *w)
{
    return fixture_int(w->f, "SELECT ifnull(max(id), 0) FROM outbox");
}

/* ---- actions --------------------------------------------------------------------------------- */

static void act_write(struct world *w)
{
    int64_t now_ms = wb_wall_ns(event_bus_memory_clock(w->f->bus)) / WB_MS;
    char text[200];

    assert_ok(db_begin(w->f->db, NULL));
    for (uint64_t n = 1 + below(w, 8); n > 0; n--) {
        if (below(w, 3) == 0) {
            fixture_insert(w->f, "a.x", below(w, 2) == 0 ? "k" : "", "p");
            continue;
        }
        (void)snprintf(text, sizeof(text),
                       "INSERT INTO outbox(subject, key, payload, due_at)"
                       " VALUES('a.x', '%s', 'p', %lld)",
                       below(w, 4) == 0 ? "k" : "",
                       (long long)(now_ms + (int64_t)below(w, 400) - 100));
        fixture_sql(w->f, text);
    }
    assert_ok(db_commit(w->f->db, NULL));
}

static void act_cancel(struct world *w)
{
    int64_t newest = newest_row(w);

    if (newest == 0)
        return;
    assert_true(newest < ROWS_MAX);
    int64_t id = newest - (int64_t)below(w, (uint64_t)(newest < 40 ? newest : 40));
    assert_ok(db_begin(w->f->db, NULL));
    wb_err err = outbox_cancel(w->outbox, id, NULL);
    if (below(w, 8) == 0) {
        db_rollback(w->f->db);
        return;
    }
    assert_ok(db_commit(w->f->db, NULL));
    assert_true(err == WB_OK || err == WB_CONFLICT);
    w->cancels += err == WB_OK ? 1 : 0;
    w->too_late += err == WB_CONFLICT ? 1 : 0;
    if (err == WB_OK)
        w->cancelled[id] = true;
    else
        assert_false(w->cancelled[id]);
}

static void act_step(struct world *w)
{
    for (uint64_t n = below(w, 5); n > 0; n--)
        (void)outbox_publisher_step(w->f->publisher);
}

static void act_pump(struct world *w)
{
    for (uint64_t n = below(w, 30); n > 0; n--)
        (void)fault_bus_pump(w->bus);
}

static void act_crash(struct world *w)
{
    w->crashes++;
    fixture_crash(w->f);
    fault_bus_orphan(w->bus);
    history_start(w->f, &w->rng);
}

static void act(struct world *w)
{
    uint64_t choice = below(w, 100);

    if (choice < 15)
        act_write(w);
    else if (choice < 40)
        act_cancel(w);
    else if (choice < 65)
        act_step(w);
    else if (choice < 80)
        act_pump(w);
    else if (choice < 93)
        fault_bus_advance(w->bus, (int64_t)below(w, 100) * WB_MS);
    else if (choice < 96)
        act_crash(w);
    else
        fault_bus_down(w->bus, !w->bus->down);
}

/* ---- the end --------------------------------------------------------------------------------- */

static void settle_down(struct world *w)
{
    w->bus->refusals_per_thousand = 0;
    history_rest(w->f, w->bus, w->seed,
                 "SELECT count(*) FROM outbox_exception WHERE state <> 'cancelled'");
}

static void assert_each_row_as_told(struct world *w)
{
    struct event_bus_stream_info info;
    int64_t newest = newest_row(w);
    unsigned *seen = calloc(ROWS_MAX, sizeof(*seen));

    assert_non_null(seen);
    assert_ok(event_bus_stream_info(w->f->bus, "A", &info, NULL));
    for (uint64_t sequence = 1; sequence <= info.last_seq; sequence++) {
        struct event_bus_delivery *delivery;
        uint64_t id = 0;
        assert_ok(event_bus_get(w->f->bus, "A", sequence, &delivery, NULL));
        assert_true(wb_str_to_u64(message_header(&delivery->message, "waybill-row"), &id));
        event_bus_release(delivery);
        assert_in_range(id, 1, newest);
        seen[id]++;
    }
    for (int64_t id = 1; id <= newest; id++)
        if (seen[id] != (w->cancelled[id] ? 0U : 1U))
            fail_msg("seed %llu: row %lld%s is %u times in the stream", (unsigned long long)w->seed,
                     (long long)id, w->cancelled[id] ? ", cancelled," : "", seen[id]);
    free(seen);
}

static unsigned all_cancels, all_too_late, all_crashes;

static void history_run(uint64_t seed)
{
    void *state;
    struct world *w = calloc(1, sizeof(*w));

    assert_non_null(w);
    w->seed = seed;
    wb_rng_seed(&w->rng, seed);
    (void)fixture_setup(&state);
    w->f = state;
    assert_ok(outbox_attach(db_handle(w->f->db), &w->outbox, NULL));
    w->bus = fault_bus_create(w->f->bus, wb_rng_next(&w->rng));
    w->bus->faults_per_thousand = (unsigned)below(w, 60);
    w->bus->refusals_per_thousand = seed % 2 == 0 ? (unsigned)below(w, 60) : 0;
    w->f->options.max_attempts = 1000000;
    w->f->options.bus = &w->bus->base;
    w->f->options.observe = NULL;
    history_start(w->f, &w->rng);
    for (int i = 0; i < ACTIONS; i++)
        act(w);
    settle_down(w);
    assert_each_row_as_told(w);
    outbox_detach(w->outbox);
    history_end(w->f, w->bus);
    all_cancels += w->cancels;
    all_too_late += w->too_late;
    all_crashes += w->crashes;
    free(w);
}

static void cancelled_rows_are_never_sent_and_all_others_once(void **state)
{
    (void)state;
    (void)history_seeds(SEEDS, history_run);
    print_message("%u rows cancelled, %u times too late, %u crashes\n", all_cancels, all_too_late,
                  all_crashes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cancelled_rows_are_never_sent_and_all_others_once),
    };
    return cmocka_run_group_tests_name("outbox_publisher_cancel", tests, NULL, NULL);
}
