/*
 * fault_full.c - the disk of the databases, or that of the broker, gets full under load and free
 * again; nothing may be lost, and everything has to go on without being started anew.
 */
#include "fault_full.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fault_live.h"
#include "fault_mounts.h"

#define APP_BYTES       ((size_t)24 << 20)
#define BROKER_BYTES    ((size_t)64 << 20)
#define RESUME_LIMIT_NS (30 * WB_SEC)

enum { COUNT_PER_STORE = 20 };

struct full {
    struct fault_live live;
    struct wb_rng rng;
    char app[300], broker[300];
    int64_t *resume_ns; /* owned */
    size_t resumes;
    uint64_t app_full, broker_full, server_restarts;
    struct fault_report report;
};

/* Everything committed up to now gets through; a server that does not recover is helped. */
static void wait_for_resume(struct full *self, bool broker)
{
    int64_t since = fault_now_ns();
    int64_t last_row = fault_live_ask(&self->live, "SELECT max(id) FROM outbox");
    bool helped = false;

    while (!fault_live_published(&self->live, last_row)) {
        int64_t passed = fault_now_ns() - since;
        if (passed > RESUME_LIMIT_NS) {
            self->report.broken++;
            fault_live_say(&self->live,
                           broker ? "the broker's disk was full" : "the databases' disk was full");
            return;
        }
        if (broker && !helped && passed > RESUME_LIMIT_NS / 3) {
            helped = true;
            self->server_restarts++;
            test_nats_restart(&self->live.server);
        }
        fault_rest(WB_MS);
    }
    self->resume_ns[self->resumes++] = fault_now_ns() - since;
}

static void fill_once(struct full *self)
{
    bool broker = wb_rng_below(&self->rng, 3) == 0;
    const char *at = broker ? self->broker : self->app;

    fault_rest((int64_t)wb_rng_below(&self->rng, 200) * WB_MS);
    fault_fill(at, (size_t)wb_rng_below(&self->rng, 16) * 4096);
    fault_rest((int64_t)(200 + wb_rng_below(&self->rng, 600)) * WB_MS);
    fault_free(at);
    *(broker ? &self->broker_full : &self->app_full) += 1;
    wait_for_resume(self, broker);
}

static void store_of(struct full *self, uint64_t count)
{
    char dir[256], history[300];

    test_dir_make(dir);
    (void)snprintf(self->app, sizeof(self->app), "%s/app", dir);
    (void)snprintf(self->broker, sizeof(self->broker), "%s/broker", dir);
    (void)snprintf(history, sizeof(history), "%s/history", dir);
    fault_tmpfs_mount(self->app, APP_BYTES);
    fault_tmpfs_mount(self->broker, BROKER_BYTES);
    (void)setenv("FAULT_HISTORY", history, 1);
    const struct fault_live_options options = {.dir = self->app, .server_dir = self->broker};
    self->live = (struct fault_live){.publisher = NULL};
    fault_live_serve(&self->live, &options);
    fault_live_begin(&self->live, &options, wb_rng_next(&self->rng));
    for (uint64_t i = 0; i < count && self->report.broken == 0; i++)
        fill_once(self);
    self->report.broken += fault_live_end(&self->live, &self->report) ? 0 : 1;
    (void)unsetenv("FAULT_HISTORY");
    if (self->report.broken > 0)
        return;
    fault_unmount(self->app);
    fault_unmount(self->broker);
    test_dir_remove(dir);
}

size_t fault_full(uint64_t seed, uint64_t count)
{
    struct full *self = calloc(1, sizeof(*self));
    int64_t started = fault_now_ns();

    fault_must(self != NULL, "full: no memory");
    self->resume_ns = calloc(count + 1, sizeof(*self->resume_ns));
    fault_must(self->resume_ns != NULL, "full: no memory");
    fault_mounts_begin();
    wb_rng_seed(&self->rng, seed);
    for (uint64_t done = 0; done < count && self->report.broken == 0; done += COUNT_PER_STORE)
        store_of(self, count - done < COUNT_PER_STORE ? count - done : COUNT_PER_STORE);
    size_t found = self->report.broken;
    (void)printf("full, seed %llu: %llu times the databases' disk, %llu times the broker's; %llu "
                 "restarts of a server that did not recover; %llu transactions, %llu events in "
                 "%llu s",
                 (unsigned long long)seed, (unsigned long long)self->app_full,
                 (unsigned long long)self->broker_full, (unsigned long long)self->server_restarts,
                 (unsigned long long)self->report.transactions,
                 (unsigned long long)self->report.events,
                 (unsigned long long)((fault_now_ns() - started) / WB_SEC));
    fault_print_times("all through after", self->resume_ns, self->resumes);
    (void)printf(": %zu broken\n", found);
    (void)fflush(stdout);
    free(self->resume_ns);
    free(self);
    return found;
}
