/*
 * outbox_publisher_history.h - what tests share that try histories of a publisher by chance, on a
 * bus with faults: a seed for each, a quiet end, and who to blame.
 *
 * WAYBILL_SEEDS=n runs n seeds instead of the usual number; WAYBILL_SEED=s runs one.
 */
#ifndef OUTBOX_PUBLISHER_HISTORY_H
#define OUTBOX_PUBLISHER_HISTORY_H

#include "outbox_publisher_fault_bus.h"
#include "outbox_publisher_fixture.h"

/* Runs each; returns how many. */
static inline uint64_t history_seeds(uint64_t usual, void (*run)(uint64_t seed))
{
    const char *one = getenv("WAYBILL_SEED"), *many = getenv("WAYBILL_SEEDS");
    uint64_t first = one != NULL ? strtoull(one, NULL, 10) : 1;
    uint64_t count = one != NULL ? 1 : many != NULL ? strtoull(many, NULL, 10) : usual;

    for (uint64_t seed = first; seed < first + count; seed++)
        run(seed);
    return count;
}

/* A publisher with a window by chance. */
static inline void history_start(struct fixture *f, struct wb_rng *rng)
{
    static const size_t windows[] = {1, 2, 7, 50, 0};

    f->options.window = windows[wb_rng_below(rng, 5)];
    f->options.seed = wb_rng_next(rng);
    fixture_start(f);
}

/* No further faults; until nothing is left to do and left_sql counts nothing. */
static inline void history_rest(struct fixture *f, struct fault_bus *bus, uint64_t seed,
                                const char *left_sql)
{
    enum { QUIET_ROUNDS = 20000 };

    bus->faults_per_thousand = 0;
    fault_bus_down(bus, false);
    for (int i = 0; i < QUIET_ROUNDS; i++) {
        bool busy = fault_bus_pump(bus);
        busy = outbox_publisher_step(f->publisher) || busy;
        if (!busy && fixture_health(f).state == OUTBOX_PUBLISHER_DRAIN &&
            fixture_int(f, left_sql) == 0)
            return;
        if (!busy)
            fault_bus_advance(bus, 50 * WB_MS);
    }
    fail_msg("seed %llu: never comes to rest: %s %s", (unsigned long long)seed,
             outbox_publisher_state_name(fixture_health(f).state), fixture_health(f).problem);
}

static inline void history_end(struct fixture *f, struct fault_bus *bus)
{
    void *state = f;

    outbox_publisher_stop(f->publisher);
    f->publisher = NULL;
    event_bus_destroy(&bus->base);
    (void)fixture_teardown(&state);
}

#endif /* OUTBOX_PUBLISHER_HISTORY_H */
