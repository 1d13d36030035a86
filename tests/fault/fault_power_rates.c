/* fault_power_rates.c - commits per second at NORMAL: alone, beside a publisher, with the barrier.
 */
#include "fault_power.h"

#include <stdio.h>

#include <waybill/event_bus_memory.h>
#include <waybill/outbox.h>
#include <waybill/outbox_publisher.h>

#include "crash_vfs.h"
#include "fault.h"
#include "test_support.h"

#define ROUND_NS (400 * WB_MS)
enum { ROUNDS = 3, MODES = 3 };

static const struct mode {
    const char *name;
    bool publisher;
    crash_plant plant;
} modes[MODES] = {{"without a publisher", false, CRASH_PLANT_NONE},
                  {"beside a publisher without the barrier", true, CRASH_PLANT_NO_BARRIER},
                  {"with the barrier", true, CRASH_PLANT_NONE}};

static double commits_per_second(const struct fault_paths *paths)
{
    const struct db_options options = {.sync = DB_SYNC_NORMAL};
    static const char payload[128] = "a commit of one event";
    const struct outbox_event event = {.subject = wb_str("fault.k1"),
                                       .payload = {payload, sizeof(payload)}};
    struct outbox *outbox = NULL;
    struct db *db = NULL;
    struct wb_why why = {""};
    uint64_t commits = 0;
    int64_t passed = 0;

    fault_must(db_open(paths->producer, &options, &db, &why) == WB_OK &&
                   outbox_attach(db_handle(db), &outbox, &why) == WB_OK,
               "rates: %s", why.text);
    int64_t start = wb_mono_ns(wb_clock_system());
    for (; passed < ROUND_NS; passed = wb_mono_ns(wb_clock_system()) - start, commits++) {
        fault_must(db_begin(db, &why) == WB_OK &&
                       outbox_enqueue(outbox, &event, NULL, &why) == WB_OK &&
                       db_commit(db, &why) == WB_OK,
                   "rates: %s", why.text);
        outbox_wake(outbox);
    }
    outbox_detach(outbox);
    db_close(db);
    return (double)commits * 1e9 / (double)passed;
}

static double rate(const struct mode *mode)
{
    struct outbox_publisher *publisher = NULL;
    struct db_checkpointer *checkpointer = NULL;
    struct event_bus *bus = NULL;
    struct fault_paths paths;
    struct wb_why why = {""};
    char dir[256];

    test_dir_make(dir);
    fault_paths_make(&paths, dir);
    fault_must(event_bus_memory_create(NULL, &bus) == WB_OK, "rates: no bus");
    fault_declare(bus);
    crash_vfs_plant(mode->plant);
    if (mode->publisher)
        publisher = fault_publisher_start(&paths, bus, NULL);
    fault_must(db_checkpointer_start(paths.producer, NULL, &checkpointer, &why) == WB_OK,
               "rates: %s", why.text);
    double result = commits_per_second(&paths);
    outbox_publisher_abandon(publisher);
    crash_vfs_plant(CRASH_PLANT_NONE);
    db_checkpointer_stop(checkpointer);
    event_bus_destroy(bus);
    test_dir_remove(dir);
    return result;
}

void fault_power_rates(void)
{
    double best[MODES] = {0};

    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < MODES; i++) {
            double now = rate(&modes[i]);
            best[i] = now > best[i] ? now : best[i];
        }
    (void)printf("power: commits/s at NORMAL, 128 B, best of %d: %s %.0f, %s %.0f, %s %.0f: "
                 "%.0f %% of NORMAL alone\n",
                 ROUNDS, modes[0].name, best[0], modes[1].name, best[1], modes[2].name, best[2],
                 100 * best[2] / best[0]);
}
