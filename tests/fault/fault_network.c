/*
 * fault_network.c - a proxy between product and server delays, chops, throttles, swallows and cuts;
 * a dead connection must be noticed, and all go on once the weather is good again.
 */
#include "fault_network.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <waybill/event_bus.h>
#include <waybill/outbox_publisher.h>

#include "fault_live.h"
#include "test_proxy.h"

#define NOTICE_LIMIT_NS (5 * WB_SEC)  /* of a connection that says nothing any more */
#define RESUME_LIMIT_NS (30 * WB_SEC) /* of publication; the figure is printed */

enum { TROUBLES_PER_STORE = 100 };

static const struct trouble {
    const char *name;
    struct test_proxy_weather weather;
    bool reset, half_open;
    bool silent; /* lasts until it is noticed, which must happen */
} troubles[] = {
    {.name = "delay", .weather = {.delay_ns = 150 * WB_MS}},
    {.name = "reset", .reset = true},
    {.name = "refused", .weather = {.refuse = true}, .reset = true},
    {.name = "half open", .half_open = true, .silent = true},
    {.name = "black hole",
     .weather = {.deaf_to_client = true, .deaf_to_server = true},
     .silent = true},
    {.name = "deaf to the client", .weather = {.deaf_to_client = true}, .silent = true},
    {.name = "deaf to the server", .weather = {.deaf_to_server = true}, .silent = true},
    {.name = "pieces of 1 byte", .weather = {.piece = 1}},
    {.name = "16 KiB/s", .weather = {.rate = 16384}},
};

#define KIND_COUNT (sizeof(troubles) / sizeof(troubles[0]))

struct network {
    struct fault_live live;
    struct test_proxy *proxy;
    struct wb_rng rng;
    int64_t *notice_ns, *resume_ns; /* owned */
    int64_t slowest_ns[KIND_COUNT]; /* of resume_ns, by kind */
    size_t notices, resumes;
    uint64_t troubles;
    struct fault_report report;
};

static void broken(struct network *self, const struct trouble *trouble, const char *what)
{
    char text[120];

    self->report.broken++;
    (void)snprintf(text, sizeof(text), "trouble %llu, %s: %s", (unsigned long long)self->troubles,
                   trouble->name, what);
    fault_live_say(&self->live, text);
}

static void wait_for_notice(struct network *self, const struct trouble *trouble)
{
    int64_t since = fault_now_ns();

    while (atomic_load(&self->live.lost_ns) < since) {
        if (fault_now_ns() - since > 2 * NOTICE_LIMIT_NS) {
            broken(self, trouble, "the dead connection was not noticed");
            return;
        }
        fault_rest(WB_MS);
    }
    self->notice_ns[self->notices] = fault_now_ns() - since;
    if (self->notice_ns[self->notices++] > NOTICE_LIMIT_NS)
        broken(self, trouble, "the dead connection was noticed after more than 5 s");
}

/* Everything committed up to now must get through. */
static void wait_for_resume(struct network *self, const struct trouble *trouble)
{
    int64_t since = fault_now_ns();
    int64_t last_row = fault_live_ask(&self->live, "SELECT max(id) FROM outbox");

    while (!fault_live_published(&self->live, last_row)) {
        if (fault_now_ns() - since > RESUME_LIMIT_NS) {
            broken(self, trouble, "publication does not go on");
            return;
        }
        fault_rest(WB_MS);
    }
    self->resume_ns[self->resumes] = fault_now_ns() - since;
    self->slowest_ns[trouble - troubles] =
        self->resume_ns[self->resumes] > self->slowest_ns[trouble - troubles]
            ? self->resume_ns[self->resumes]
            : self->slowest_ns[trouble - troubles];
    self->resumes++;
}

static void make_trouble(struct network *self, const struct trouble *trouble)
{
    static const struct test_proxy_weather fair = {.delay_ns = 0};

    fault_rest((int64_t)wb_rng_below(&self->rng, 100) * WB_MS);
    test_proxy_set(self->proxy, &trouble->weather);
    if (trouble->reset)
        test_proxy_reset(self->proxy);
    if (trouble->half_open)
        test_proxy_half_open(self->proxy);
    if (trouble->silent)
        wait_for_notice(self, trouble);
    else
        fault_rest((int64_t)(50 + wb_rng_below(&self->rng, 950)) * WB_MS);
    test_proxy_set(self->proxy, &fair);
    wait_for_resume(self, trouble);
    self->troubles++;
}

static void store_of(struct network *self, uint64_t count)
{
    struct fault_live_options options = {.url = NULL};
    char url[64];

    self->live = (struct fault_live){.publisher = NULL};
    fault_live_serve(&self->live, &options);
    test_proxy_start(self->live.server.port, &self->proxy);
    (void)snprintf(url, sizeof(url), "nats://127.0.0.1:%u", test_proxy_port(self->proxy));
    options.url = url;
    fault_live_begin(&self->live, &options, wb_rng_next(&self->rng));
    for (uint64_t i = 0; i < count && self->report.broken == 0; i++)
        make_trouble(self, &troubles[self->troubles % KIND_COUNT]);
    self->report.broken += fault_live_end(&self->live, &self->report) ? 0 : 1;
    test_proxy_stop(self->proxy);
}

size_t fault_network(uint64_t seed, uint64_t count)
{
    struct network *self = calloc(1, sizeof(*self));
    int64_t started = fault_now_ns();

    fault_must(self != NULL, "network: no memory");
    self->notice_ns = calloc(count + 1, sizeof(*self->notice_ns));
    self->resume_ns = calloc(count + 1, sizeof(*self->resume_ns));
    fault_must(self->notice_ns != NULL && self->resume_ns != NULL, "network: no memory");
    wb_rng_seed(&self->rng, seed);
    while (self->troubles < count && self->report.broken == 0) {
        uint64_t left = count - self->troubles;
        store_of(self, left < TROUBLES_PER_STORE ? left : TROUBLES_PER_STORE);
    }
    size_t found = self->report.broken;
    (void)printf(
        "network, seed %llu: %llu troubles of %zu kinds; %llu transactions, %llu events in "
        "%llu s",
        (unsigned long long)seed, (unsigned long long)self->troubles, KIND_COUNT,
        (unsigned long long)self->report.transactions, (unsigned long long)self->report.events,
        (unsigned long long)((fault_now_ns() - started) / WB_SEC));
    fault_print_times("dead connections noticed after", self->notice_ns, self->notices);
    fault_print_times("all through after", self->resume_ns, self->resumes);
    for (size_t i = 0; i < KIND_COUNT; i++)
        (void)printf("%s %s %lld", i == 0 ? " (at most:" : ",", troubles[i].name,
                     (long long)(self->slowest_ns[i] / WB_MS));
    (void)printf("): %zu broken\n", found);
    (void)fflush(stdout);
    free(self->notice_ns);
    free(self->resume_ns);
    free(self);
    return found;
}
