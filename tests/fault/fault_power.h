/* fault_power.h - the campaign of power cuts under SQLite. */
#ifndef FAULT_POWER_H
#define FAULT_POWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fault_power_report {
    uint64_t cuts, changes, commits, undone, events;
    uint64_t trace; /* the same for the same seed */
    bool expected;  /* to break: say nothing of it */
    uint64_t phantoms, broken_commits, broken;
};

/** That many cuts, or until something is broken. */
struct fault_power_report fault_power_cuts(uint64_t seed, uint64_t cuts, bool expected);

/** Print what the barrier costs those who commit. */
void fault_power_rates(void);

/** Prove that it notices, run it, print a line; returns how many things are broken. */
size_t fault_power(uint64_t seed, uint64_t cuts);

#endif /* FAULT_POWER_H */
