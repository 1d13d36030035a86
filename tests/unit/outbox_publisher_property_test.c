/*
 * Whatever happens - lost messages, lost answers, messages that arrive late, broken connections,
 * crashes between any two steps, a second publisher that believes in its role - the stream holds
 * each committed row once, in order, and nothing else.
 *
 * WAYBILL_SEEDS=n runs n seeds instead of the usual number; WAYBILL_SEED=s runs one.
 */
#include <unistd.h>

#include "outbox_publisher_fault_bus.h"
#include "outbox_publisher_fixture.h"

enum { SEEDS = 60, ACTIONS = 300, QUIET_ROUNDS = 20000 };

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

/* ---- actions -----------------------------------------------------------------------------------
 */

static void act_write(struct world *w)
{
    static const char *const keys[] = {"", "k", "l", "m"};

    assert_ok(db_begin(w->f->db, NULL));
    for (uint64_t n = 1 + below(w, 12); n > 0; n--)
        fixture_insert(w->f, "a.x", keys[below(w, 4)], "p");
    if (below(w, 20) == 0)
        fixture_insert(w->f, "not a subject", keys[below(w, 1)], "p");
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

static void start(struct world *w)
{
    static const size_t windows[] = {1, 2, 7, 50, 0};

    w->f->options.window = windows[below(w, 5)];
    w->f->options.seed = wb_rng_next(&w->rng);
    fixture_start(w->f);
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
    start(w);
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
    start(w);
}

static void act_outage(struct world *w)
{
    w->outages++;
    fault_bus_down(w->bus, !w->bus->down);
}

static void act(struct world *w)
{
    uint64_t choice = below(w, 100);

    if (choice < 25)
        act_write(w);
    else if (choice < 60)
        act_step(w);
    else if (choice < 85)
        act_pump(w);
    else if (choice < 90)
        event_bus_memory_advance(w->bus->inner, (int64_t)below(w, 3000) * WB_MS);
    else if (choice < 94)
        act_crash(w);
    else if (choice < 98)
        act_outage(w);
    else
        act_rival(w);
}

/* ---- the end
 * --------------------------------------------------------------------------------------- */

/* Everything heals; what can happen happens. */
static void settle_down(struct world *w)
{
    w->bus->faults_per_thousand = 0;
    fault_bus_down(w->bus, false);
    rival_end(w);
    for (int i = 0; i < QUIET_ROUNDS; i++) {
        bool busy = fault_bus_pump(w->bus);
        busy = outbox_publisher_step(w->f->publisher) || busy;
        if (!busy && fixture_health(w->f).state == OUTBOX_PUBLISHER_DRAIN)
            return;
        if (!busy)
            event_bus_memory_advance(w->bus->inner, 50 * WB_MS);
    }
    fail_msg("seed %llu: never comes to rest: %s %s", (unsigned long long)w->seed,
             outbox_publisher_state_name(fixture_health(w->f).state), fixture_health(w->f).problem);
}

static int64_t row_at(struct world *w, uint64_t sequence)
{
    struct event_bus_delivery *delivery;
    uint64_t id = 0;

    assert_ok(event_bus_get(w->bus->inner, "A", sequence, &delivery, NULL));
    assert_true(wb_str_to_u64(message_header(&delivery->message, "waybill-row"), &id));
    event_bus_release(delivery);
    return (int64_t)id;
}

static void assert_each_row_once_in_order(struct world *w)
{
    struct event_bus_stream_info info;
    struct sqlite3_stmt *stmt;
    uint64_t sequence = 0;

    assert_ok(event_bus_stream_info(w->bus->inner, "A", &info, NULL));
    assert_ok(db_prepare(w->f->db, "SELECT id FROM outbox WHERE subject = 'a.x' ORDER BY id", &stmt,
                         NULL));
    while (sqlite3_step(stmt) == SQLITE_ROW) {
        int64_t expected = sqlite3_column_int64(stmt, 0);
        int64_t got = ++sequence <= info.last_seq ? row_at(w, sequence) : 0;
        if (got != expected)
            fail_msg("seed %llu: sequence %llu should be row %lld, is %lld",
                     (unsigned long long)w->seed, (unsigned long long)sequence, (long long)expected,
                     (long long)got);
    }
    (void)sqlite3_finalize(stmt);
    assert_int_equal(info.last_seq, sequence);
    assert_int_equal(
        fixture_int(w->f, "SELECT count(*) FROM outbox_exception WHERE state <> 'parked'"), 0);
    assert_int_equal(fixture_int(w->f, "SELECT last_seq FROM outbox_cursor"), sequence);
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
    w.f->options.bus = &w.bus->base;
    w.f->options.observe = NULL;
    start(&w);
    for (int i = 0; i < ACTIONS; i++)
        act(&w);
    settle_down(&w);
    assert_each_row_once_in_order(&w);
    outbox_publisher_stop(w.f->publisher);
    w.f->publisher = NULL;
    event_bus_destroy(&w.bus->base);
    (void)fixture_teardown(&state);
}

static void any_history_ends_with_each_row_once_in_order(void **state)
{
    const char *one = getenv("WAYBILL_SEED"), *many = getenv("WAYBILL_SEEDS");
    uint64_t count = many != NULL ? strtoull(many, NULL, 10) : SEEDS;

    (void)state;
    if (one != NULL) {
        history_run(strtoull(one, NULL, 10));
        return;
    }
    for (uint64_t seed = 1; seed <= count; seed++)
        history_run(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_history_ends_with_each_row_once_in_order),
    };
    return cmocka_run_group_tests_name("outbox_publisher_property", tests, NULL, NULL);
}
