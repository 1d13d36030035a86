/* fault_io.c - every operation on SQLite's files fails in turn: once, and from then on for good. */
#include "fault_io.h"

#include <stdio.h>

#include <waybill/base.h>

#include "crash_vfs.h"
#include "fault.h"
#include "fault_scenario.h"

struct io {
    uint64_t points[CRASH_FAULTS]; /* operations of a run without fault */
    crash_fault fault;
    uint64_t nth; /* 0: none fails */
    bool for_good;
    uint64_t struck; /* runs in which one did fail */
};

static void arm(void *ctx)
{
    const struct io *self = ctx;

    if (self->nth > 0)
        crash_vfs_fail_at(self->fault, self->nth, self->for_good);
}

/* The first run counts what the others will hit. */
static void mend(void *ctx)
{
    struct io *self = ctx;

    self->struck += crash_vfs_failures() > 0;
    crash_vfs_mend();
    for (int i = 0; self->nth == 0 && i < CRASH_FAULTS; i++)
        self->points[i] = crash_vfs_operations((crash_fault)i);
}

/* Runs are numbered: fault by fault, point by point, once and for good, going on and reopening. */
static size_t run(void *ctx, uint64_t number)
{
    struct io *self = ctx;
    char name[80];
    int fault = 0;

    while (number >= 4 * self->points[fault])
        number -= 4 * self->points[fault++];
    self->fault = (crash_fault)fault;
    self->nth = number / 4 + 1;
    self->for_good = number % 2 == 1;
    (void)snprintf(name, sizeof(name), "%s at %llu%s%s", crash_fault_name(self->fault),
                   (unsigned long long)self->nth, self->for_good ? " for good" : "",
                   number / 2 % 2 == 1 ? ", reopened" : "");
    return fault_scenario(&(struct fault_injection){.name = name,
                                                    .arm = arm,
                                                    .mend = mend,
                                                    .ctx = self,
                                                    .listen = true,
                                                    .reopen = number / 2 % 2 == 1});
}

size_t fault_io(uint64_t seed, uint64_t count)
{
    int64_t started = wb_mono_ns(wb_clock_system());
    struct io self = {.nth = 0};
    uint64_t points = 0, runs = 0;

    crash_vfs_install();
    size_t broken = fault_scenario(&(struct fault_injection){
        .name = "without fault", .arm = arm, .mend = mend, .ctx = &self, .listen = true});
    for (int i = 0; i < CRASH_FAULTS; i++)
        points += self.points[i];
    if (broken == 0)
        broken = fault_scenario_runs("io", seed, 4 * points, count, run, &self, &runs);
    int64_t ms = (wb_mono_ns(wb_clock_system()) - started) / WB_MS;
    (void)printf("io, seed %llu: %llu points (", (unsigned long long)seed,
                 (unsigned long long)points);
    for (int i = 0; i < CRASH_FAULTS; i++)
        (void)printf("%s%s %llu", i > 0 ? ", " : "", crash_fault_name((crash_fault)i),
                     (unsigned long long)self.points[i]);
    (void)printf("), %llu runs (%llu struck) in %lld.%lld s: %zu broken\n",
                 (unsigned long long)runs, (unsigned long long)self.struck, (long long)(ms / 1000),
                 (long long)(ms % 1000 / 100), broken);
    (void)fflush(stdout);
    return broken;
}
