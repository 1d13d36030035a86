/*
 * fault_scenario.h - one run through everything that touches the database, with one fault in it.
 *
 * Open and migrate, enqueue, publish, mark, consume, park, checkpoint, stop and open again; no call
 * may crash, and once the fault is gone everything must come right by itself.
 */
#ifndef FAULT_SCENARIO_H
#define FAULT_SCENARIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What fails, and when; ctx as given. */
struct fault_injection {
    const char *name; /* of the run, said when it crashes or breaks something */
    void (*arm)(void *ctx);
    void (*mend)(void *ctx);
    void *ctx;
    bool listen; /* the crash VFS counts and fails; otherwise all of it passes through */
    bool reopen; /* once it is mended, instead of going on with what is open */
};

/** Returns how many things are broken; 0 for a sound run. */
size_t fault_scenario(const struct fault_injection *injection);

/**
 * One of the runs 0 to total - 1 in each of `count` equal parts, by chance; all of them when count
 * is not less than total. Calls run(ctx, number) for each, prints a line each 10 s. Returns how
 * many things are broken; ends after ten runs that broke something.
 */
size_t fault_scenario_runs(const char *what, uint64_t seed, uint64_t total, uint64_t count,
                           size_t (*run)(void *ctx, uint64_t number), void *ctx,
                           uint64_t *ret_runs);

#endif /* FAULT_SCENARIO_H */
