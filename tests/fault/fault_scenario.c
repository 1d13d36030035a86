/* fault_scenario.c - see fault_scenario.h. */
#include "fault_scenario.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <waybill/event_bus_memory.h>
#include <waybill/event_consumer.h>
#include <waybill/outbox_publisher.h>

#include "crash_vfs.h"
#include "fault_world.h"

enum { PUMP_ROUNDS = 6, BROKEN_MAX = 10 };

/* ---- saying which run it was ----------------------------------------------------------------- */

static const char *running = "";

static void say_run(int signal_number)
{
    static const char before[] = "fault: crashed in the run ";

    if (write(STDERR_FILENO, before, sizeof(before) - 1) >= 0 &&
        write(STDERR_FILENO, running, strlen(running)) >= 0 && write(STDERR_FILENO, "\n", 1) >= 0)
        (void)signal(signal_number, SIG_DFL);
    (void)raise(signal_number);
}

/* ---- the run --------------------------------------------------------------------------------- */

static void pump(struct fault_world *world)
{
    struct wb_why why = {""};

    for (int i = 0; i < PUMP_ROUNDS; i++) {
        (void)fault_world_open(world, &why);
        for (int j = 0; j < 3 && world->publisher != NULL; j++)
            (void)outbox_publisher_step(world->publisher);
        (void)event_bus_memory_run_until_idle(world->bus);
        for (int j = 0; j < 3 && world->consumer != NULL; j++)
            (void)event_consumer_step(world->consumer);
        fault_world_purge(world);
        event_bus_memory_advance(world->bus, 20 * WB_MS);
    }
}

static void write_and_pump(struct fault_world *world, bool poison)
{
    struct wb_why why = {""};

    (void)fault_world_open(world, &why);
    if (world->writer != NULL)
        (void)fault_writer_transact(world->writer, poison, &why);
    pump(world);
}

static void stop_in_order(struct fault_world *world)
{
    outbox_publisher_stop(world->publisher);
    world->publisher = NULL;
    fault_world_close(world); /* the last one out removes the log */
}

static void everything(struct fault_world *world)
{
    world->writing.sync = DB_SYNC_FULL;
    write_and_pump(world, false);
    write_and_pump(world, true);
    fault_world_checkpoint(world, SQLITE_CHECKPOINT_PASSIVE);
    write_and_pump(world, false);
    stop_in_order(world);
    world->writing.sync = DB_SYNC_NORMAL;
    write_and_pump(world, false);
    fault_world_checkpoint(world, SQLITE_CHECKPOINT_TRUNCATE);
    write_and_pump(world, false);
    fault_world_close(world);
    write_and_pump(world, false);
}

/* ---- afterwards ------------------------------------------------------------------------------ */

static size_t integrity(const char *path, const char *name)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *stmt = NULL;
    size_t broken = 1;

    if (sqlite3_open(path, &db) == SQLITE_OK &&
        sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &stmt, NULL) == SQLITE_OK &&
        sqlite3_step(stmt) == SQLITE_ROW &&
        strcmp((const char *)sqlite3_column_text(stmt, 0), "ok") == 0)
        broken = 0;
    else
        (void)printf("  BROKEN: run %s: %s is damaged\n", name, path);
    sqlite3_finalize(stmt);
    sqlite3_close(db);
    return broken;
}

static size_t afterwards(struct fault_world *world, const struct fault_injection *injection)
{
    struct wb_why why = {""};

    if (injection->reopen)
        fault_world_close(world);
    wb_err err = fault_world_open(world, &why);
    if (err != WB_OK) {
        (void)printf("  BROKEN: run %s: it does not open: %s\n", injection->name, why.text);
        return 1;
    }
    (void)fault_writer_transact(world->writer, false, &why);
    if (!fault_world_settle(world)) {
        struct outbox_publisher_health health;
        struct event_consumer_health consumer;
        outbox_publisher_health(world->publisher, &health);
        event_consumer_health(world->consumer, &consumer);
        (void)printf("  BROKEN: run %s: it does not go on: publisher %s %s, consumer %s\n",
                     injection->name, outbox_publisher_state_name(health.state), health.problem,
                     consumer.problem);
        return 1;
    }
    fault_world_close(world);
    size_t broken = integrity(world->paths.producer, injection->name) +
                    integrity(world->paths.consumer, injection->name) +
                    integrity(world->paths.archive, injection->name);
    sqlite3 *gathered = fault_gather(&world->paths, world->bus);
    size_t invariants = fault_check(gathered, false);
    if (invariants > 0)
        (void)printf("  ... in the run %s\n", injection->name);
    sqlite3_close(gathered);
    return broken + invariants;
}

size_t fault_scenario(const struct fault_injection *injection)
{
    struct fault_world world;

    running = injection->name;
    fault_world_begin(&world, 7);
    if (!injection->listen)
        crash_vfs_end();
    injection->arm(injection->ctx);
    everything(&world);
    injection->mend(injection->ctx);
    size_t broken = afterwards(&world, injection);
    fault_world_end(&world, broken > 0);
    return broken;
}

/* ---- many of them ---------------------------------------------------------------------------- */

size_t fault_scenario_runs(const char *what, uint64_t seed, uint64_t total, uint64_t count,
                           size_t (*run)(void *ctx, uint64_t number), void *ctx, uint64_t *ret_runs)
{
    static const int signals[] = {SIGSEGV, SIGABRT, SIGBUS, SIGFPE};
    int64_t told = wb_mono_ns(wb_clock_system());
    struct wb_rng rng;
    size_t broken = 0, bad_runs = 0;

    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        (void)signal(signals[i], say_run);
    wb_rng_seed(&rng, seed);
    count = count < total ? count : total;
    for (*ret_runs = 0; *ret_runs < count && bad_runs < BROKEN_MAX; ++*ret_runs) {
        uint64_t from = *ret_runs * total / count, to = (*ret_runs + 1) * total / count;
        size_t now_broken = run(ctx, from + wb_rng_below(&rng, to - from));
        bad_runs += now_broken > 0;
        broken += now_broken;
        int64_t now = wb_mono_ns(wb_clock_system());
        if (now - told < 10 * WB_SEC)
            continue;
        told = now;
        (void)fprintf(stderr, "%s: %llu of %llu runs\n", what, (unsigned long long)*ret_runs + 1,
                      (unsigned long long)count);
    }
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        (void)signal(signals[i], SIG_DFL);
    return broken;
}
