/*
 * fault_broker.c - a broker whose store goes back in time, or is empty, while everybody goes on:
 * the publisher has to notice and bring back every row, and nothing may take effect twice.
 */
#include "fault_broker.h"

#include <stdio.h>
#include <stdlib.h>

#include <waybill/outbox_publisher.h>

#include "fault_live.h"
#include "fault_mounts.h"

enum {
    SWAPS_PER_STORE = 50, /* then all is checked, and new files begin */
    COPIES_MAX = 8,
};
#define NOTICE_LIMIT_NS (10 * WB_SEC)
#define HEAL_LIMIT_NS   (60 * WB_SEC)

/* A copy of the server's store, as it was at an earlier swap. */
struct copy {
    char dir[300];
    int64_t newest_row; /* it can hold no younger one */
};

struct broker {
    struct fault_live live;
    struct wb_rng rng;
    struct copy copies[COPIES_MAX];
    size_t copy_count;

    uint64_t swaps, rolled_back, wiped, lossless;
    /* Owned; of each loss. An empty server has no stream until somebody makes it. */
    int64_t *rolled_back_ns, *wiped_ns, *heal_ns;
    size_t rolled_back_losses, wiped_losses, losses;
    struct fault_report report;
};

/* ---- the store ------------------------------------------------------------------------------- */

static void copy_store(const char *from, const char *to)
{
    test_dir_remove(to);
    fault_must(fault_run((const char *[]){"cp", "-a", from, to, NULL}),
               "broker: copying %s to %s failed", from, to);
}

static void copy_keep(struct broker *self, const char *store)
{
    struct copy *copy = &self->copies[self->copy_count];

    if (self->copy_count == COPIES_MAX)
        return;
    (void)snprintf(copy->dir, sizeof(copy->dir), "%s/copy-%zu", self->live.server.dir,
                   self->copy_count++);
    copy->newest_row = fault_live_ask(&self->live, "SELECT max(id) FROM outbox");
    copy_store(store, copy->dir);
}

/* Returns the newest row that the store can hold afterwards. */
static int64_t exchange(struct broker *self)
{
    char store[300];
    uint64_t choice = wb_rng_below(&self->rng, 10);

    (void)snprintf(store, sizeof(store), "%s/store", self->live.server.dir);
    copy_keep(self, store);
    if (choice < 2) {
        test_dir_remove(store);
        self->wiped++;
        self->copy_count = 0;
        return 0;
    }
    if (choice < 8) {
        /* Copies younger than the one put back are of a past that is no more. */
        size_t which = (size_t)wb_rng_below(&self->rng, self->copy_count);
        copy_store(self->copies[which].dir, store);
        self->copy_count = which + 1;
        self->rolled_back++;
        return self->copies[which].newest_row;
    }
    self->lossless++;
    return INT64_MAX;
}

/* Nobody but who made a stream makes it anew; here we stand for the service at its start. */
static void declare_again(struct broker *self)
{
    struct event_bus_stream_info info;

    for (int i = 0; i < 4000; i++) {
        wb_err err = event_bus_stream_info(self->live.bus, FAULT_STREAM, &info, NULL);
        if (err == WB_NO_STREAM)
            fault_declare(self->live.bus);
        if (err == WB_OK || err == WB_NO_STREAM)
            return;
        fault_rest(5 * WB_MS);
    }
    fault_must(false, "broker: the server did not come back");
}

/* ---- a swap ---------------------------------------------------------------------------------- */

static bool noticed(struct broker *self, int64_t incidents)
{
    struct outbox_publisher_health health;

    outbox_publisher_health(self->live.publisher, &health);
    return health.state == OUTBOX_PUBLISHER_REPAIR ||
           fault_live_ask(&self->live, "SELECT count(*) FROM outbox_incident") > incidents;
}

static void broken(struct broker *self, const char *what)
{
    self->report.broken++;
    (void)printf("  at swap %llu\n", (unsigned long long)self->swaps);
    fault_live_say(&self->live, what);
}

static void wait_for_notice(struct broker *self, int64_t incidents, bool wiped)
{
    int64_t since = fault_now_ns();

    while (!noticed(self, incidents)) {
        if (fault_now_ns() - since > NOTICE_LIMIT_NS) {
            broken(self, "a loss was not noticed");
            return;
        }
        fault_rest(WB_MS / 2);
    }
    if (wiped)
        self->wiped_ns[self->wiped_losses++] = fault_now_ns() - since;
    else
        self->rolled_back_ns[self->rolled_back_losses++] =
            fault_now_ns() - atomic_load(&self->live.connected_ns);
}

static void wait_for_repair(struct broker *self, bool lost)
{
    int64_t since = fault_now_ns();
    int64_t last_row = fault_live_ask(&self->live, "SELECT max(id) FROM outbox");

    while (!fault_live_published(&self->live, last_row)) {
        if (fault_now_ns() - since > HEAL_LIMIT_NS) {
            broken(self, "publication does not go on");
            return;
        }
        fault_rest(2 * WB_MS);
    }
    if (lost)
        self->heal_ns[self->losses++] = fault_now_ns() - atomic_load(&self->live.connected_ns);
}

static void swap(struct broker *self)
{
    fault_rest((int64_t)(50 + wb_rng_below(&self->rng, 350)) * WB_MS);
    int64_t incidents = fault_live_ask(&self->live, "SELECT count(*) FROM outbox_incident");
    test_nats_kill(&self->live.server);
    fault_rest(20 * WB_MS); /* what was acked may have to be marked yet */
    int64_t marked = fault_live_ask(&self->live, "SELECT last_id FROM outbox_cursor");
    uint64_t wiped = self->wiped;
    bool lost = exchange(self) < marked;
    fault_rest((int64_t)wb_rng_below(&self->rng, 100) * WB_MS);
    test_nats_restart(&self->live.server);
    declare_again(self);
    self->swaps++;
    if (lost)
        wait_for_notice(self, incidents, self->wiped > wiped);
    wait_for_repair(self, lost);
}

/* ---- the campaign ---------------------------------------------------------------------------- */

static void store_of(struct broker *self, uint64_t swaps)
{
    const struct fault_live_options options = {.url = NULL};

    self->live = (struct fault_live){.publisher = NULL};
    self->copy_count = 0;
    fault_live_serve(&self->live, &options);
    fault_live_begin(&self->live, &options, wb_rng_next(&self->rng));
    for (uint64_t i = 0; i < swaps && self->report.broken == 0; i++)
        swap(self);
    self->report.broken += fault_live_end(&self->live, &self->report) ? 0 : 1;
}

size_t fault_broker(uint64_t seed, uint64_t swaps)
{
    struct broker *self = calloc(1, sizeof(*self));
    int64_t started = fault_now_ns();

    fault_must(self != NULL, "broker: no memory");
    self->rolled_back_ns = calloc(swaps + 1, sizeof(*self->rolled_back_ns));
    self->wiped_ns = calloc(swaps + 1, sizeof(*self->wiped_ns));
    self->heal_ns = calloc(swaps + 1, sizeof(*self->heal_ns));
    fault_must(self->rolled_back_ns != NULL && self->wiped_ns != NULL && self->heal_ns != NULL,
               "broker: no memory");
    wb_rng_seed(&self->rng, seed);
    while (self->swaps < swaps && self->report.broken == 0) {
        uint64_t left = swaps - self->swaps;
        store_of(self, left < SWAPS_PER_STORE ? left : SWAPS_PER_STORE);
    }
    size_t found = self->report.broken;
    (void)printf("broker, seed %llu: %llu swaps (%llu rolled back, %llu wiped, %llu neither), %zu "
                 "with loss; %llu transactions, %llu events in %llu s",
                 (unsigned long long)seed, (unsigned long long)self->swaps,
                 (unsigned long long)self->rolled_back, (unsigned long long)self->wiped,
                 (unsigned long long)self->lossless, self->losses,
                 (unsigned long long)self->report.transactions,
                 (unsigned long long)self->report.events,
                 (unsigned long long)((fault_now_ns() - started) / WB_SEC));
    fault_print_times("rolled back: noticed after reconnecting", self->rolled_back_ns,
                      self->rolled_back_losses);
    fault_print_times("wiped: after the stream was made", self->wiped_ns, self->wiped_losses);
    fault_print_times("all back after", self->heal_ns, self->losses);
    (void)printf(": %zu broken\n", found);
    (void)fflush(stdout);
    free(self->rolled_back_ns);
    free(self->wiped_ns);
    free(self->heal_ns);
    free(self);
    return found;
}
