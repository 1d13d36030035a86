/*
 * Whatever happens - lost messages, lost answers, messages that arrive late, broken connections,
 * crashes between any two steps, a second publisher that believes in its role - the stream holds
 * each committed row once and nothing else: in the order of the table, or, when the bus refuses
 * rows at times, in the order of each key.
 */
#include <unistd.h>

#include "outbox_publisher_history.h"

enum { SEEDS = 60, ACTIONS = 300 };

struct world {
    struct fixture *f;
    struct fault_bus *bus;
    struct outbox_publisher *rival; /* has lost its role without knowing; NULL: none */
    struct wb_rng rng;
    uint64_t seed;
    unsigned crashes, rivals, outages;
};

static uint64_t below(struct world *w, uint64_t bound)
{
    return wb_rng_below(&w->rng, bound);
}

/* ---- actions --------------------------------------------------------------------------------- */

static void act_write(struct world *w)
{
    static const char *const keys[] = {"", "k", "l", "m"};

    assert_ok(db_begin(w->f->db, NULL));
    for (uint64_t n = 1 + below(w, 12); n > 0; n--)
        fixture_insert(w->f, "a.x", keys[below(w, 4)], "p");
    if (below(w, 20) == 0)
        fixture_insert(w->f, "not a subject", "", "p");
    if (below(w, 8) == 0)
        db_rollback(w->f->db);
    else
        assert_ok(db_commit(w->f->db, NULL));
}

static void act_step(struct world *w)
{
    for (uint64_t n = below(w, 6); n > 0; n--)
        (void)outbox_publisher_step(w->f->publisher);
    for (uint64_t n = below(w, 4); w->rival != NULL && n > 0; n--)
        (void)outbox_publisher_step(w->rival);
}

static void act_pump(struct world *w)
{
    for (uint64_t n = below(w, 30); n > 0; n--)
        (void)fault_bus_pump(w->bus);
}

static void rival_end(struct world *w)
{
    if (w->rival != NULL)
        outbox_publisher_abandon(w->rival);
    w->rival = NULL;
}

static void act_crash(struct world *w)
{
    w->crashes++;
    fixture_crash(w->f);
    fault_bus_orphan(w->bus);
    history_start(w->f, &w->rng);
}

/* As if an operator had forced a new role file while the old publisher was paused. */
static void act_rival(struct world *w)
{
    char path[320];

    (void)snprintf(path, sizeof(path), "%s-A-publisher", w->f->path);
    w->rivals++;
    rival_end(w);
    w->rival = w->f->publisher;
    assert_int_equal(unlink(path), 0);
    history_start(w->f, &w->rng);
}

static void act_outage(struct world *w)
{
    w->outages++;
    fault_bus_down(w->bus, !w->bus->down);
}

static void act_time(struct world *w)
{
    int64_t longest_ms = below(w, 3) == 0 ? 3000 : 150;

    fault_bus_advance(w->bus, (int64_t)below(w, (uint64_t)longest_ms) * WB_MS);
}

static void act(struct world *w)
{
    uint64_t choice = below(w, 100);

    if (choice < 25)
        act_write(w);
    else if (choice < 60)
        act_step(w);
    else if (choice < 80)
        act_pump(w);
    else if (choice < 91)
        act_time(w);
    else if (choice < 94)
        act_crash(w);
    else if (choice < 98)
        act_outage(w);
    else
        act_rival(w);
}

/* ---- the end --------------------------------------------------------------------------------- */

/* Everything heals but the refusals; what can happen happens. */
static void settle_down(struct world *w)
{
    rival_end(w);
    history_rest(w->f, w->bus, w->seed,
                 "SELECT count(*) FROM outbox_exception WHERE state <> 'parked'");
}

/* The key of a row, as one of the few there are. */
static size_t key_of(const struct message *msg)
{
    struct wb_str key = message_header(msg, "waybill-key");

    return key.len == 1 ? (size_t)(unsigned char)key.ptr[0] : 0;
}

static void assert_each_row_once_in_order(struct world *w)
{
    struct event_bus_stream_info info;
    int64_t newest[256] = {0}, last_id = fixture_int(w->f, "SELECT max(id) FROM outbox");
    bool *seen = calloc((size_t)last_id + 1, sizeof(*seen));
    bool by_key = w->bus->refusals_per_thousand > 0;

    assert_non_null(seen);
    assert_ok(event_bus_stream_info(w->bus->inner, "A", &info, NULL));
    for (uint64_t sequence = 1; sequence <= info.last_seq; sequence++) {
        struct event_bus_delivery *delivery;
        uint64_t id = 0;
        assert_ok(event_bus_get(w->bus->inner, "A", sequence, &delivery, NULL));
        assert_true(wb_str_to_u64(message_header(&delivery->message, "waybill-row"), &id));
        assert_in_range(id, 1, last_id);
        size_t key = key_of(&delivery->message);
        event_bus_release(delivery);
        int64_t *before = &newest[by_key ? key : 0];
        bool free_order = by_key && key == 0;
        if (seen[id] || (!free_order && *before > (int64_t)id))
            fail_msg("seed %llu: sequence %llu is row %llu %s", (unsigned long long)w->seed,
                     (unsigned long long)sequence, (unsigned long long)id,
                     seen[id] ? "again" : "too late");
        seen[id] = true;
        *before = (int64_t)id;
    }
    free(seen);
    assert_int_equal(fixture_int(w->f, "SELECT count(*) FROM outbox WHERE subject = 'a.x'"),
                     info.last_seq);
    assert_int_equal(fixture_int(w->f, "SELECT last_seq FROM outbox_cursor"), info.last_seq);
}

/* Rows that are no events are all set aside, and nothing else is. */
static void assert_bad_rows_parked(struct world *w)
{
    assert_int_equal(
        fixture_int(w->f, "SELECT count(*) FROM outbox o LEFT JOIN outbox_exception e USING(id)"
                          " WHERE (o.subject = 'a.x') <> (e.id IS NULL)"),
        0);
    assert_int_equal(
        fixture_int(w->f, "SELECT count(*) FROM outbox_exception WHERE state <> 'parked'"), 0);
}

static void history_run(uint64_t seed)
{
    void *state;
    struct world w = {.seed = seed};

    wb_rng_seed(&w.rng, seed);
    (void)fixture_setup(&state);
    w.f = state;
    w.bus = fault_bus_create(w.f->bus, wb_rng_next(&w.rng));
    w.bus->faults_per_thousand = (unsigned)below(&w, 60);
    w.bus->refusals_per_thousand = seed % 2 == 0 ? (unsigned)below(&w, 30) : 0;
    w.f->options.max_attempts = 1000000;
    w.f->options.bus = &w.bus->base;
    w.f->options.observe = NULL;
    history_start(w.f, &w.rng);
    for (int i = 0; i < ACTIONS; i++)
        act(&w);
    settle_down(&w);
    assert_each_row_once_in_order(&w);
    assert_bad_rows_parked(&w);
    history_end(w.f, w.bus);
}

static void any_history_ends_with_each_row_once_in_order(void **state)
{
    (void)state;
    (void)history_seeds(SEEDS, history_run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_history_ends_with_each_row_once_in_order),
    };
    return cmocka_run_group_tests_name("outbox_publisher_property", tests, NULL, NULL);
}
