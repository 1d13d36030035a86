/*
 * fault_power.c - the power goes off again and again, at any write, sync or removal, under writers
 * that do not sync (and some that do); after each cut what survived is read and work goes on.
 */
#include "fault_power.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <waybill/event_bus_memory.h>
#include <waybill/outbox_publisher.h>

#include "crash_vfs.h"
#include "fault_world.h"

enum {
    LIVES = 40, /* cuts of one pair of files; then all is checked, and new ones begin */
    TOLD_MAX = 4096,
    LIFE_STEPS = 10000
};

/* A transaction of this life, and what was said of it. */
struct told {
    char tx[FAULT_TX_SIZE];
    bool ok;
};

struct power {
    struct fault_world world;
    struct fault_power_report report;
    struct told told[TOLD_MAX];
    size_t told_count;
    uint64_t checked_seq; /* messages up to here were seen to have their rows */
    int64_t first_row;    /* of the table work, of this life */
};

/* ---- what survived --------------------------------------------------------------------------- */

static void told(void *ctx, const char *phase, const char *tx)
{
    struct power *self = ctx;

    if (strcmp(phase, "invoke") == 0) {
        fault_must(self->told_count < TOLD_MAX, "power: a life of too many transactions");
        (void)snprintf(self->told[self->told_count].tx, sizeof(self->told[0].tx), "%s", tx);
        self->told[self->told_count++].ok = false;
    } else if (strcmp(phase, "ok") == 0) {
        self->told[self->told_count - 1].ok = true;
    }
}

/* Closing it leaves the log as it is: what comes next has to recover, too. */
static sqlite3 *look_into(const char *path)
{
    sqlite3 *db = NULL;

    if (access(path, F_OK) != 0) /* even its name is gone */
        path = ":memory:";
    fault_must(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK &&
                   sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL) == SQLITE_OK,
               "power: open %s: %s", path, sqlite3_errmsg(db));
    return db;
}

static sqlite3_stmt *ask(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *stmt = NULL;

    fault_must(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) == SQLITE_OK, "power: %s: %s", sql,
               sqlite3_errmsg(db));
    return stmt;
}

static int64_t number(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *stmt = ask(db, sql);
    int64_t value = sqlite3_step(stmt) == SQLITE_ROW ? sqlite3_column_int64(stmt, 0) : 0;

    sqlite3_finalize(stmt);
    return value;
}

/* false: it is damaged, and not asked any further. */
static bool check_integrity(struct power *self, sqlite3 *db, const char *path)
{
    sqlite3_stmt *stmt = NULL;
    const char *text = NULL;

    if (sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &stmt, NULL) == SQLITE_OK &&
        sqlite3_step(stmt) == SQLITE_ROW)
        text = (const char *)sqlite3_column_text(stmt, 0);
    else
        text = sqlite3_errmsg(db);
    bool sound = text != NULL && strcmp(text, "ok") == 0;
    self->report.broken += !sound;
    if (!sound && !self->report.expected)
        (void)printf("  BROKEN: %s is damaged after cut %llu: %s\n", path,
                     (unsigned long long)self->report.cuts, text != NULL ? text : "?");
    sqlite3_finalize(stmt);
    return sound;
}

static bool has_table(sqlite3 *db, const char *name)
{
    return sqlite3_table_column_metadata(db, "main", name, NULL, NULL, NULL, NULL, NULL, NULL) ==
           SQLITE_OK;
}

/* What was reported and is gone is told in the history, so that it may not come back. */
static void check_told(struct power *self, sqlite3 *db)
{
    FILE *history = fopen(self->world.paths.history, "ae");
    sqlite3_stmt *stmt =
        has_table(db, "work") ? ask(db, "SELECT 1 FROM work WHERE rowid > ? AND tx = ?") : NULL;

    fault_must(history != NULL, "power: no history");
    for (size_t i = 0; i < self->told_count; i++) {
        bool there = false;
        if (stmt != NULL) {
            sqlite3_bind_int64(stmt, 1, self->first_row);
            sqlite3_bind_text(stmt, 2, self->told[i].tx, -1, SQLITE_STATIC);
            there = sqlite3_step(stmt) == SQLITE_ROW;
            sqlite3_reset(stmt);
        }
        bool promised = self->told[i].ok && self->world.writing.sync == DB_SYNC_FULL;
        self->report.commits += self->told[i].ok;
        self->report.undone += self->told[i].ok && !there;
        if (promised && !there && self->report.broken_commits++ < 3 && !self->report.expected)
            (void)printf("  BROKEN: %s was committed at FULL and is gone\n", self->told[i].tx);
        (void)fprintf(history, FAULT_HISTORY_LINE, there ? "ok" : "fail", self->told[i].tx);
    }
    (void)fclose(history);
    sqlite3_finalize(stmt);
    self->told_count = 0;
}

/* Is it in this file, the producer's or its archive? stmt NULL: the table is not there. */
static bool has_row(sqlite3_stmt *stmt, uint64_t row, struct wb_str msg_id)
{
    if (stmt == NULL || msg_id.len < 32)
        return false;
    sqlite3_bind_int64(stmt, 1, (int64_t)row);
    sqlite3_bind_text(stmt, 2, msg_id.ptr, 32, SQLITE_STATIC);
    bool has = sqlite3_step(stmt) == SQLITE_ROW;
    sqlite3_reset(stmt);
    return has;
}

/* Each message of the stream must have its row. */
static void check_stream(struct power *self, sqlite3 *db, sqlite3 *archive)
{
    struct event_bus_stream_info info;
    sqlite3_stmt *kept =
        has_table(db, "outbox")
            ? ask(db, "SELECT 1 FROM outbox WHERE id = ? AND lower(hex(msg_id)) = ?")
            : NULL;
    sqlite3_stmt *archived =
        has_table(archive, "outbox_archive")
            ? ask(archive, "SELECT 1 FROM outbox_archive WHERE id = ? AND lower(hex(msg_id)) = ?")
            : NULL;

    fault_must(event_bus_stream_info(self->world.bus, FAULT_STREAM, &info, NULL) == WB_OK,
               "power: the bus is gone");
    while (self->checked_seq < info.last_seq) {
        struct event_bus_delivery *delivery;
        uint64_t row = 0;
        fault_must(event_bus_get(self->world.bus, FAULT_STREAM, ++self->checked_seq, &delivery,
                                 NULL) == WB_OK,
                   "power: a message is gone");
        const struct wb_str msg_id = delivery->message.msg_id;
        (void)wb_str_to_u64(message_header(&delivery->message, MESSAGE_HEADER_ROW), &row);
        if (!has_row(kept, row, msg_id) && !has_row(archived, row, msg_id) &&
            self->report.phantoms++ < 3 && !self->report.expected)
            (void)printf("  BROKEN: message %llu is of row %llu, which was never committed\n",
                         (unsigned long long)self->checked_seq, (unsigned long long)row);
        event_bus_release(delivery);
    }
    sqlite3_finalize(kept);
    sqlite3_finalize(archived);
}

static void check_survivors(struct power *self)
{
    sqlite3 *producer = look_into(self->world.paths.producer);
    sqlite3 *consumer = look_into(self->world.paths.consumer);
    sqlite3 *archive = look_into(self->world.paths.archive);

    if (check_integrity(self, producer, self->world.paths.producer) &&
        check_integrity(self, consumer, self->world.paths.consumer) &&
        check_integrity(self, archive, self->world.paths.archive)) {
        check_told(self, producer);
        check_stream(self, producer, archive);
        self->first_row =
            has_table(producer, "work") ? number(producer, "SELECT max(rowid) FROM work") : 0;
    }
    sqlite3_close(producer);
    sqlite3_close(consumer);
    sqlite3_close(archive);
}

/* ---- lives ----------------------------------------------------------------------------------- */

/* The broker stands elsewhere: nothing reaches it any more. */
static void in_the_dark(void *ctx)
{
    struct power *self = ctx;

    event_bus_memory_set_down(self->world.bus, true);
}

/* Let all rows be published and handled, and sync everything. */
static void get_through(struct power *self)
{
    struct fault_world *world = &self->world;
    struct outbox_publisher_health health;
    struct wb_why why = {""};

    fault_must(fault_world_open(world, &why) == WB_OK, "power: %s", why.text);
    bool through = fault_world_settle(world);
    fault_must(fault_world_open(world, &why) == WB_OK, "power: %s", why.text);
    fault_world_checkpoint(world, SQLITE_CHECKPOINT_PASSIVE);
    if (through)
        return;
    self->report.broken++;
    outbox_publisher_health(world->publisher, &health);
    if (!self->report.expected)
        (void)printf("  BROKEN: publication does not go on: %s %s\n",
                     outbox_publisher_state_name(health.state), health.problem);
}

static void live(struct power *self)
{
    static const unsigned lengths[] = {12, 60, 250, 700, 2000};
    struct fault_world *world = &self->world;
    struct wb_why why = {""};
    unsigned most = lengths[wb_rng_below(&world->rng, sizeof(lengths) / sizeof(lengths[0]))];

    world->writing.sync = wb_rng_below(&world->rng, 3) == 0 ? DB_SYNC_FULL : DB_SYNC_NORMAL;
    /*
     * What ends the process five times, one after another, is taken for poison; chance must not.
     * So now and then all has time to get through, and to the disk.
     */
    if (self->report.cuts % 4 == 3)
        get_through(self);
    crash_vfs_cut_at(1 + wb_rng_below(&world->rng, most), in_the_dark, self);
    wb_err err = fault_world_open(world, &why);
    fault_must(err == WB_OK || crash_vfs_is_dark(), "power: %s", why.text);
    for (unsigned i = 0; i < LIFE_STEPS && !crash_vfs_is_dark(); i++)
        fault_world_step(world, true);
    crash_vfs_cut();
    fault_world_close(world);
}

static void power_again(struct power *self)
{
    const struct fault_paths *paths = &self->world.paths;
    const char *const files[] = {paths->producer, paths->consumer, paths->archive};
    char path[330];

    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        (void)snprintf(path, sizeof(path), "%s-shm", files[i]);
        (void)remove(path);
    }
    crash_vfs_power(&self->world.rng);
    event_bus_memory_set_down(self->world.bus, false);
    self->report.cuts++;
}

static void conclude(struct power *self)
{
    struct fault_world *world = &self->world;

    get_through(self);
    check_told(self, db_handle(world->checkpoints[0]));
    fault_world_close(world);
    sqlite3 *gathered = fault_gather(&world->paths, world->bus);
    self->report.broken += fault_check(gathered, self->report.expected);
    self->report.events += fault_rows(gathered, "SELECT count(*) FROM stream");
    sqlite3_close(gathered);
}

static bool is_broken(const struct fault_power_report *report)
{
    return report->broken + report->phantoms + report->broken_commits > 0;
}

static void pair_of_files(struct power *self, uint64_t seed, uint64_t lives)
{
    fault_world_begin(&self->world, seed);
    self->world.writing.told = told;
    self->world.writing.ctx = self;
    self->checked_seq = 0;
    self->first_row = 0;
    for (uint64_t i = 0; i < lives && !is_broken(&self->report); i++) {
        live(self);
        power_again(self);
        check_survivors(self);
    }
    if (!is_broken(&self->report))
        conclude(self);
    self->report.trace = self->report.trace * 31 + crash_vfs_trace();
    self->report.changes += crash_vfs_changes();
    fault_world_end(&self->world, is_broken(&self->report) && !self->report.expected);
}

struct fault_power_report fault_power_cuts(uint64_t seed, uint64_t cuts, bool expected)
{
    struct power *self = calloc(1, sizeof(*self));

    fault_must(self != NULL, "power: no memory");
    self->report.expected = expected;
    crash_vfs_install();
    for (uint64_t i = 0; self->report.cuts < cuts && !is_broken(&self->report); i++) {
        uint64_t left = cuts - self->report.cuts;
        pair_of_files(self, seed + i * 1000003, left < LIVES ? left : LIVES);
    }
    struct fault_power_report report = self->report;
    free(self);
    return report;
}

/* ---- the campaign ---------------------------------------------------------------------------- */

/* A campaign that does not notice these would prove nothing. */
static void prove(uint64_t seed)
{
    crash_vfs_plant(CRASH_PLANT_NO_BARRIER);
    struct fault_power_report bare = fault_power_cuts(seed, 1000, true);
    fault_must(bare.phantoms > 0, "power: does not notice that the barrier is missing");
    crash_vfs_plant(CRASH_PLANT_NO_SYNC);
    struct fault_power_report lying = fault_power_cuts(seed, 1000, true);
    fault_must(is_broken(&lying), "power: does not notice that SQLite's syncs do nothing");
    crash_vfs_plant(CRASH_PLANT_NONE);
    (void)printf("power: without the barrier %llu phantoms after %llu cuts; without syncs broken "
                 "after %llu\n",
                 (unsigned long long)bare.phantoms, (unsigned long long)bare.cuts,
                 (unsigned long long)lying.cuts);
    struct fault_power_report once = fault_power_cuts(seed, 20, false);
    struct fault_power_report again = fault_power_cuts(seed, 20, false);
    fault_must(once.trace == again.trace && once.changes == again.changes,
               "power: the same seed gave two different runs");
}

size_t fault_power(uint64_t seed, uint64_t cuts)
{
    int64_t started = wb_mono_ns(wb_clock_system());

    prove(seed);
    struct fault_power_report done = fault_power_cuts(seed, cuts, false);
    int64_t ms = (wb_mono_ns(wb_clock_system()) - started) / WB_MS;
    (void)printf("power, seed %llu: %llu cuts at %llu changes; %llu commits, %llu of them undone "
                 "(none published), %llu messages in %lld.%lld s, trace %016llx: %llu phantoms, "
                 "%llu commits at FULL lost, %llu invariants broken\n",
                 (unsigned long long)seed, (unsigned long long)done.cuts,
                 (unsigned long long)done.changes, (unsigned long long)done.commits,
                 (unsigned long long)done.undone, (unsigned long long)done.events,
                 (long long)(ms / 1000), (long long)(ms % 1000 / 100),
                 (unsigned long long)done.trace, (unsigned long long)done.phantoms,
                 (unsigned long long)done.broken_commits, (unsigned long long)done.broken);
    fault_power_rates();
    (void)fflush(stdout);
    return done.phantoms + done.broken_commits + done.broken;
}
