/*
 * fault_memory.c - the same work in one process on the in-memory bus, whose streams outlive what
 * dies: at a crash point the running part is left where it stands, and made anew from its files.
 *
 * Everything runs on one thread under a virtual clock, so a seed gives the same run again.
 */
#include "fault.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <waybill/event_bus_memory.h>
#include <waybill/event_consumer.h>
#include <waybill/outbox_publisher.h>
#include <waybill/outbox_retention.h>

#include "test_support.h"

#define STEPS_MAX 2000000 /* a run that has not ended by then hangs */

static struct {
    jmp_buf out;
    const char *point; /* NULL: any */
    unsigned passages; /* left until the crash; 0: none is wanted */
} crash;

static void passing(const char *name)
{
    if (crash.passages == 0 || (crash.point != NULL && strcmp(crash.point, name) != 0))
        return;
    if (--crash.passages == 0)
        longjmp(crash.out, 1);
}

struct run {
    struct fault_paths paths;
    struct event_bus *bus;
    struct wb_rng rng;
    struct fault_writer *writer;
    struct outbox_publisher *publisher;
    struct event_consumer *consumer;
    struct outbox_retention *retention;
    enum { IN_PUBLISHER, IN_CONSUMER, IN_RETENTION } in; /* which of them a crash hits */
    struct fault_report report;
};

static void start_parts(struct run *self)
{
    const struct wb_clock *clock = event_bus_memory_clock(self->bus);

    if (self->publisher == NULL)
        self->publisher = fault_publisher_start(&self->paths, self->bus, clock);
    if (self->consumer == NULL)
        self->consumer = fault_consumer_start(&self->paths, self->bus, clock);
    if (self->retention == NULL)
        self->retention = fault_retention_start(&self->paths, clock);
}

/*
 * A row that was being sent by itself when a process ended, twice, may be what ends it: it waits,
 * and the younger ones of its key with it, while others go on.
 */
static void note_aside(struct run *self)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *stmt = NULL;

    fault_must(sqlite3_open(self->paths.producer, &db) == SQLITE_OK &&
                   sqlite3_prepare_v2(db,
                                      "SELECT CAST(substr(o.key, 8) AS INTEGER)"
                                      " FROM outbox_exception e JOIN outbox o USING (id)"
                                      " WHERE e.crashes > 0 AND o.key <> ''",
                                      -1, &stmt, NULL) == SQLITE_OK,
               "memory: look at the rows put aside");
    while (sqlite3_step(stmt) == SQLITE_ROW)
        self->report.keys_aside |= UINT64_C(1) << sqlite3_column_int(stmt, 0);
    sqlite3_finalize(stmt);
    sqlite3_close(db);
}

/* What a dead process leaves behind is its files; the rest is let go as the kernel would. */
static void bury(struct run *self)
{
    switch (self->in) {
    case IN_PUBLISHER:
        outbox_publisher_abandon(self->publisher);
        self->publisher = NULL;
        break;
    case IN_CONSUMER:
        event_consumer_stop(self->consumer);
        self->consumer = NULL;
        break;
    case IN_RETENTION:
        outbox_retention_close(self->retention);
        self->retention = NULL;
        break;
    }
}

static void one_step(struct run *self, bool writing)
{
    struct outbox_retention_result purged;
    struct wb_why why = {""};

    switch (wb_rng_below(&self->rng, 9)) {
    case 0:
        if (writing)
            fault_must(fault_writer_transact(self->writer, false, &why) == WB_OK, "memory: %s",
                       why.text);
        break;
    case 1:
        event_bus_memory_advance(self->bus, (int64_t)wb_rng_below(&self->rng, 60) * WB_MS);
        break;
    case 2:
        (void)event_bus_memory_run_until_idle(self->bus);
        break;
    case 3:
    case 4:
        self->in = IN_CONSUMER;
        (void)event_consumer_step(self->consumer);
        break;
    case 5:
        self->in = IN_RETENTION;
        (void)outbox_retention_step(self->retention, &purged, &why);
        break;
    default:
        self->in = IN_PUBLISHER;
        (void)outbox_publisher_step(self->publisher);
    }
}

/* Go on until the wanted crash has happened, then make the part that died anew. */
static void run_into(struct run *self, const char *point, unsigned passages)
{
    volatile unsigned steps = 0;

    crash.point = point;
    crash.passages = passages;
    if (setjmp(crash.out) == 0) {
        while (steps++ < STEPS_MAX)
            one_step(self, true);
        fault_must(false, "memory: crash point %s was not reached in %d steps",
                   point == NULL ? "(any)" : point, STEPS_MAX);
    }
    crash.passages = 0;
    bury(self);
    start_parts(self);
    note_aside(self);
}

static void settle(struct run *self)
{
    for (unsigned steps = 0; steps < STEPS_MAX; steps++) {
        one_step(self, false);
        if (steps % 256 == 0 && fault_behind(&self->paths) == 0)
            return;
    }
}

static void all_crashes(struct run *self, unsigned kills)
{
    wb_crash_hook(passing);
    for (; self->report.kills < kills; self->report.kills++)
        run_into(self, NULL, 1 + (unsigned)wb_rng_below(&self->rng, 40));
    for (size_t i = 0; i < fault_point_count; i++) {
        run_into(self, fault_points[i].name, 1);
        if (fault_points[i].later > 0)
            run_into(self, fault_points[i].name, fault_points[i].later);
        self->report.points += fault_points[i].later > 0 ? 2 : 1;
    }
    wb_crash_hook(NULL);
}

struct fault_report fault_memory(uint64_t seed, unsigned kills)
{
    const struct event_bus_memory_options options = {.manual = true, .seed = seed};
    struct run self = {.report.started_ns = fault_now_ns()};
    char dir[256];

    wb_rng_seed(&self.rng, seed);
    test_dir_make(dir);
    fault_paths_make(&self.paths, dir);
    fault_must(event_bus_memory_create(&options, &self.bus) == WB_OK, "memory: no bus");
    fault_declare(self.bus);
    self.writer = fault_writer_open(
        &self.paths, &(struct fault_writer_options){.sync = DB_SYNC_NORMAL,
                                                    .seed = wb_rng_next(&self.rng),
                                                    .clock = event_bus_memory_clock(self.bus)});
    start_parts(&self);
    all_crashes(&self, kills);
    settle(&self);
    event_consumer_stop(self.consumer);
    outbox_publisher_stop(self.publisher);
    outbox_retention_close(self.retention);
    fault_writer_close(self.writer);
    fault_conclude(&self.paths, self.bus, &self.report);
    event_bus_destroy(self.bus);
    if (self.report.broken == 0)
        test_dir_remove(dir);
    else
        (void)printf("the files are left in %s\n", dir);
    return self.report;
}
