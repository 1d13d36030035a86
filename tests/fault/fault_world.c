/* fault_world.c - see fault_world.h. */
#include "fault_world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <waybill/event_bus_memory.h>
#include <waybill/event_consumer.h>
#include <waybill/outbox_publisher.h>
#include <waybill/outbox_retention.h>

#include "crash_vfs.h"
#include "fault_virtual.h"
#include "test_support.h"

enum { SETTLE_STEPS = 200000 };

static void dir_make(char dir[256])
{
    if (access("/dev/shm", W_OK) == 0) {
        (void)snprintf(dir, 256, "/dev/shm/waybill-test-XXXXXX");
        if (mkdtemp(dir) != NULL)
            return;
    }
    test_dir_make(dir);
}

void fault_world_begin(struct fault_world *self, uint64_t seed)
{
    const struct event_bus_memory_options options = {.manual = true, .seed = seed};
    char dir[256];

    *self = (struct fault_world){.writing = {.seed = seed}};
    fault_virtual_begin(seed);
    wb_rng_seed(&self->rng, seed);
    dir_make(dir);
    fault_paths_make(&self->paths, dir);
    fault_must(event_bus_memory_create(&options, &self->bus) == WB_OK, "world: no bus");
    fault_declare(self->bus);
    crash_vfs_begin();
}

void fault_world_end(struct fault_world *self, bool keep_files)
{
    fault_world_close(self);
    crash_vfs_end();
    event_bus_destroy(self->bus);
    fault_virtual_end();
    if (keep_files)
        (void)printf("the files are left in %s\n", self->paths.dir);
    else
        test_dir_remove(self->paths.dir);
}

wb_err fault_world_open(struct fault_world *self, struct wb_why *why)
{
    const struct wb_clock *clock = event_bus_memory_clock(self->bus);
    const struct db_options options = {.sync = DB_SYNC_NORMAL};
    wb_err err = WB_OK;

    if (self->writer == NULL) {
        self->writing.seed = wb_rng_next(&self->rng);
        self->writing.clock = clock;
        err = fault_writer_try(&self->paths, &self->writing, &self->writer, why);
    }
    if (err == WB_OK && self->publisher == NULL)
        err = fault_publisher_try(&self->paths, self->bus, clock, &self->publisher, why);
    if (err == WB_OK && self->consumer == NULL)
        err = fault_consumer_try(&self->paths, self->bus, clock, &self->consumer, why);
    if (err == WB_OK && self->retention == NULL)
        err = fault_retention_try(&self->paths, clock, &self->retention, why);
    for (int i = 0; i < 2; i++)
        if (err == WB_OK && self->checkpoints[i] == NULL)
            err = db_open(i == 0 ? self->paths.producer : self->paths.consumer, &options,
                          &self->checkpoints[i], why);
    return err;
}

void fault_world_close(struct fault_world *self)
{
    fault_writer_close(self->writer);
    outbox_publisher_abandon(self->publisher);
    event_consumer_stop(self->consumer);
    outbox_retention_close(self->retention);
    db_close(self->checkpoints[0]);
    db_close(self->checkpoints[1]);
    self->writer = NULL;
    self->publisher = NULL;
    self->consumer = NULL;
    self->retention = NULL;
    self->checkpoints[0] = self->checkpoints[1] = NULL;
}

void fault_world_checkpoint(struct fault_world *self, int mode)
{
    for (int i = 0; i < 2; i++)
        if (self->checkpoints[i] != NULL)
            (void)sqlite3_wal_checkpoint_v2(db_handle(self->checkpoints[i]), "main", mode, NULL,
                                            NULL);
}

static void checkpoint_somehow(struct fault_world *self)
{
    static const int modes[] = {SQLITE_CHECKPOINT_PASSIVE, SQLITE_CHECKPOINT_PASSIVE,
                                SQLITE_CHECKPOINT_RESTART, SQLITE_CHECKPOINT_TRUNCATE};

    fault_world_checkpoint(self, modes[wb_rng_below(&self->rng, sizeof(modes) / sizeof(modes[0]))]);
}

/* One part ends in good order and will be opened again; where it is the last, its log goes. */
static void part_close(struct fault_world *self)
{
    switch (wb_rng_below(&self->rng, 5)) {
    case 0:
        fault_writer_close(self->writer);
        self->writer = NULL;
        break;
    case 1:
        outbox_publisher_stop(self->publisher);
        self->publisher = NULL;
        break;
    case 2:
        event_consumer_stop(self->consumer);
        self->consumer = NULL;
        break;
    case 3:
        outbox_retention_close(self->retention);
        self->retention = NULL;
        break;
    default:
        fault_world_close(self);
        break;
    }
}

static void write_some(struct fault_world *self)
{
    struct wb_why why = {""};

    if (self->writer != NULL)
        (void)fault_writer_transact(self->writer, wb_rng_below(&self->rng, 200) == 0, &why);
}

void fault_world_purge(struct fault_world *self)
{
    struct outbox_retention_result purged;
    struct wb_why why = {""};

    if (self->retention != NULL)
        (void)outbox_retention_step(self->retention, &purged, &why);
}

void fault_world_step(struct fault_world *self, bool writing)
{
    struct wb_why why = {""};

    switch (wb_rng_below(&self->rng, 64)) {
    case 0:
        checkpoint_somehow(self);
        return;
    case 1:
        if (wb_rng_below(&self->rng, 4) == 0)
            part_close(self);
        (void)fault_world_open(self, &why);
        return;
    default:
        break;
    }
    switch (wb_rng_below(&self->rng, 9)) {
    case 0:
    case 1:
        if (writing)
            write_some(self);
        break;
    case 2:
        event_bus_memory_advance(self->bus, (int64_t)wb_rng_below(&self->rng, 60) * WB_MS);
        break;
    case 3:
        (void)event_bus_memory_run_until_idle(self->bus);
        break;
    case 4:
    case 5:
        if (self->consumer != NULL)
            (void)event_consumer_step(self->consumer);
        break;
    case 6:
        fault_world_purge(self);
        break;
    default:
        if (self->publisher != NULL)
            (void)outbox_publisher_step(self->publisher);
        break;
    }
}

bool fault_world_settle(struct fault_world *self)
{
    for (unsigned steps = 0; steps < SETTLE_STEPS && !crash_vfs_is_dark(); steps++) {
        fault_world_step(self, false);
        if (steps % 256 == 0 && fault_behind(&self->paths) == 0)
            return true;
    }
    return crash_vfs_is_dark();
}
