/* fault_alloc.c - every allocation fails in turn, ours and SQLite's: once, and for good. */
#include <stdio.h>

#include <waybill/base.h>

#include "crash_vfs.h"
#include "fault.h"
#include "fault_io.h"
#include "fault_scenario.h"
#include "test_nomem.h"

/* ---- SQLite's allocations -------------------------------------------------------------------- */

static sqlite3_mem_methods real;

static void *sqlite_malloc(int size)
{
    return test_nomem_fails() ? NULL : real.xMalloc(size);
}

static void *sqlite_realloc(void *ptr, int size)
{
    return test_nomem_fails() ? NULL : real.xRealloc(ptr, size);
}

/* Without the small blocks that each connection keeps for itself, so that all come through here. */
static void take_over(bool on)
{
    sqlite3_mem_methods ours;

    fault_must(sqlite3_shutdown() == SQLITE_OK, "alloc: SQLite is in use");
    if (on)
        fault_must(sqlite3_config(SQLITE_CONFIG_GETMALLOC, &real) == SQLITE_OK, "alloc: config");
    ours = real;
    ours.xMalloc = on ? sqlite_malloc : real.xMalloc;
    ours.xRealloc = on ? sqlite_realloc : real.xRealloc;
    fault_must(sqlite3_config(SQLITE_CONFIG_MALLOC, &ours) == SQLITE_OK &&
                   sqlite3_config(SQLITE_CONFIG_LOOKASIDE, on ? 0 : 1200, on ? 0 : 40) ==
                       SQLITE_OK &&
                   sqlite3_initialize() == SQLITE_OK,
               "alloc: config");
    crash_vfs_install();
}

/* ---- runs ------------------------------------------------------------------------------------ */

struct alloc {
    uint64_t points; /* allocations of a run without fault */
    uint64_t nth;    /* 0: none fails */
    bool for_good;
    uint64_t struck; /* runs in which one did fail */
};

static void arm(void *ctx)
{
    const struct alloc *self = ctx;

    if (self->nth == 0)
        test_nomem_count_from_here();
    else if (self->for_good)
        test_nomem_after((int)self->nth - 1);
    else
        test_nomem_once((int)self->nth - 1);
}

static void mend(void *ctx)
{
    struct alloc *self = ctx;

    if (self->nth == 0)
        self->points = test_nomem_count();
    self->struck += test_nomem_failures() > 0;
    test_nomem_after(-1);
}

static size_t run(void *ctx, uint64_t number)
{
    struct alloc *self = ctx;
    char name[80];

    self->nth = number / 2 + 1;
    self->for_good = number % 2 == 1;
    (void)snprintf(name, sizeof(name), "allocation %llu%s", (unsigned long long)self->nth,
                   self->for_good ? " for good" : "");
    return fault_scenario(&(struct fault_injection){
        .name = name, .arm = arm, .mend = mend, .ctx = self, .reopen = number / 2 % 2 == 1});
}

size_t fault_alloc(uint64_t seed, uint64_t count)
{
    int64_t started = wb_mono_ns(wb_clock_system());
    struct alloc self = {.nth = 0};
    uint64_t runs = 0;

    take_over(true);
    size_t broken = fault_scenario(
        &(struct fault_injection){.name = "without fault", .arm = arm, .mend = mend, .ctx = &self});
    if (broken == 0)
        broken = fault_scenario_runs("alloc", seed, 2 * self.points, count, run, &self, &runs);
    take_over(false);
    int64_t ms = (wb_mono_ns(wb_clock_system()) - started) / WB_MS;
    (void)printf(
        "alloc, seed %llu: %llu points, %llu runs (%llu struck) in %lld.%lld s: %zu broken\n",
        (unsigned long long)seed, (unsigned long long)self.points, (unsigned long long)runs,
        (unsigned long long)self.struck, (long long)(ms / 1000), (long long)(ms % 1000 / 100),
        broken);
    (void)fflush(stdout);
    return broken;
}
