/*
 * fault_disk.c - the power of real file systems goes: that of the databases, of the broker, or of
 * both, with processes at work on them. What the kernel had not written is gone.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <waybill/event_bus_nats.h>

#include "fault_full.h"
#include "fault_mounts.h"
#include "fault_processes.h"

#define DISK_BYTES ((size_t)256 << 20)

enum { CUTS_PER_STORE = 25 };

struct disk {
    struct fault_processes processes;
    struct wb_rng rng;
    char dir[256], app[300], broker[300], app_image[300], broker_image[300], history[300];
    bool full_sync;  /* the writer of this life commits at FULL */
    long told_until; /* bytes of the history looked at */
    uint64_t cuts, app_cuts, broker_cuts, streams_gone, commits, undone;
    struct fault_report report;
};

/* ---- what survived --------------------------------------------------------------------------- */

static bool has_tx(sqlite3 *db, const char *tx)
{
    sqlite3_stmt *stmt = NULL;

    fault_must(sqlite3_prepare_v2(db, "SELECT 1 FROM fault_tx WHERE tx = ?", -1, &stmt, NULL) ==
                   SQLITE_OK,
               "disk: %s", sqlite3_errmsg(db));
    sqlite3_bind_text(stmt, 1, tx, -1, SQLITE_STATIC);
    bool has = sqlite3_step(stmt) == SQLITE_ROW;
    sqlite3_finalize(stmt);
    return has;
}

static sqlite3 *look_into(struct disk *self)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *stmt = NULL;

    fault_must(sqlite3_open(self->processes.paths.producer, &db) == SQLITE_OK, "disk: no memory");
    bool sound = sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &stmt, NULL) == SQLITE_OK &&
                 sqlite3_step(stmt) == SQLITE_ROW &&
                 strcmp((const char *)sqlite3_column_text(stmt, 0), "ok") == 0;
    sqlite3_finalize(stmt);
    if (!sound) {
        self->report.broken++;
        (void)printf("  BROKEN: %s is damaged after cut %llu: %s\n", self->processes.paths.producer,
                     (unsigned long long)self->cuts, sqlite3_errmsg(db));
    }
    (void)sqlite3_exec(db,
                       "CREATE TEMP TABLE fault_tx(tx TEXT PRIMARY KEY);"
                       "INSERT INTO fault_tx SELECT DISTINCT tx FROM work",
                       NULL, NULL, NULL);
    return db;
}

/* What was reported and is gone is told in the history, so that it may not come back. */
static void resolve_history(struct disk *self)
{
    sqlite3 *db = look_into(self);
    FILE *history = fopen(self->history, "r+e");
    char phase[FAULT_PHASE_SIZE], tx[FAULT_TX_SIZE];
    struct wb_buf lines = {0};

    fault_must(history != NULL && fseek(history, self->told_until, SEEK_SET) == 0,
               "disk: no history");
    while (self->report.broken == 0 && fault_history_next(history, phase, tx)) {
        bool ok = strcmp(phase, "ok") == 0;
        if (!ok && strcmp(phase, "invoke") != 0)
            continue;
        bool there = has_tx(db, tx);
        self->commits += ok;
        self->undone += ok && !there;
        if (ok && !there && self->full_sync && self->report.broken++ < 3)
            (void)printf("  BROKEN: %s was committed at FULL and is gone\n", tx);
        wb_buf_printf(&lines, FAULT_HISTORY_LINE, there ? "ok" : "fail", tx);
    }
    (void)fseek(history, 0, SEEK_END);
    fault_must(!lines.failed && fwrite(lines.ptr, 1, lines.len, history) == lines.len,
               "disk: write the history");
    self->told_until = ftell(history);
    (void)fclose(history);
    wb_buf_free(&lines);
    (void)sqlite3_close(db);
}

/* ---- cuts ------------------------------------------------------------------------------------ */

static void roles_start(struct disk *self)
{
    self->full_sync = wb_rng_below(&self->rng, 2) == 0;
    (void)setenv("FAULT_SYNC", self->full_sync ? "full" : "normal", 1);
    for (enum fault_role role = FAULT_WRITER; role < FAULT_ROLES; role++)
        fault_process_start(&self->processes, role, NULL);
}

/* A process that is killed leaves what it wrote in the kernel's hands; there the cut takes it. */
static void cut_app(struct disk *self)
{
    for (enum fault_role role = FAULT_WRITER; role < FAULT_ROLES; role++)
        fault_process_kill(&self->processes, role);
    fault_ext4_cut(self->app);
    fault_unmount(self->app);
    fault_ext4_mount(self->app_image, self->app, DISK_BYTES);
    resolve_history(self);
    self->app_cuts++;
}

static void cut_broker(struct disk *self)
{
    fault_ext4_cut(self->broker);
    test_nats_kill(&self->processes.server);
    fault_unmount(self->broker);
    fault_ext4_mount(self->broker_image, self->broker, DISK_BYTES);
    test_nats_restart(&self->processes.server);
    self->streams_gone += fault_processes_declare(&self->processes);
    self->broker_cuts++;
}

static void cut_once(struct disk *self)
{
    uint64_t which = wb_rng_below(&self->rng, 4); /* both: the broker is away meanwhile */

    fault_rest((int64_t)(300 + wb_rng_below(&self->rng, 900)) * WB_MS);
    if (which != 0)
        cut_app(self);
    if (which < 2)
        cut_broker(self);
    if (which != 0)
        roles_start(self);
    self->cuts++;
}

/* ---- the campaign ---------------------------------------------------------------------------- */

static void paths_make(struct disk *self)
{
    test_dir_make(self->dir);
    (void)snprintf(self->app, sizeof(self->app), "%s/app", self->dir);
    (void)snprintf(self->broker, sizeof(self->broker), "%s/broker", self->dir);
    (void)snprintf(self->app_image, sizeof(self->app_image), "%s/app.image", self->dir);
    (void)snprintf(self->broker_image, sizeof(self->broker_image), "%s/broker.image", self->dir);
    (void)snprintf(self->history, sizeof(self->history), "%s/history", self->dir);
    fault_ext4_mount(self->app_image, self->app, DISK_BYTES);
    fault_ext4_mount(self->broker_image, self->broker, DISK_BYTES);
}

static void store_of(struct disk *self, const char *program, uint64_t count)
{
    const struct fault_processes_options options = {
        .dir = self->app, .server_dir = self->broker, .keeps_all = true};

    paths_make(self);
    (void)setenv("FAULT_HISTORY", self->history, 1);
    self->told_until = 0;
    self->full_sync = false;
    fault_processes_begin(&self->processes, program, wb_rng_next(&self->rng), &options);
    fault_sync(self->broker); /* the server's configuration is not what is tried */
    for (uint64_t i = 0; i < count && self->report.broken == 0; i++)
        cut_once(self);
    fault_processes_end(&self->processes);
    self->report.broken += self->processes.report.broken;
    self->report.transactions += self->processes.report.transactions;
    self->report.events += self->processes.report.events;
    (void)unsetenv("FAULT_HISTORY");
    (void)unsetenv("FAULT_SYNC");
    if (self->report.broken > 0)
        return;
    fault_unmount(self->app);
    fault_unmount(self->broker);
    test_dir_remove(self->dir);
}

size_t fault_disk(uint64_t seed, uint64_t count)
{
    struct disk *self = calloc(1, sizeof(*self));
    int64_t started = fault_now_ns();

    fault_must(self != NULL, "disk: no memory");
    fault_mounts_begin();
    wb_rng_seed(&self->rng, seed);
    while (self->cuts < count && self->report.broken == 0) {
        uint64_t left = count - self->cuts;
        store_of(self, "/proc/self/exe", left < CUTS_PER_STORE ? left : CUTS_PER_STORE);
    }
    size_t found = self->report.broken;
    (void)printf("disk, seed %llu: %llu power cuts, %llu of the databases' disk, %llu of the "
                 "broker's (%llu times the stream was gone); %llu commits, %llu of them undone; "
                 "%llu transactions, %llu events in %llu s: %zu broken\n",
                 (unsigned long long)seed, (unsigned long long)self->cuts,
                 (unsigned long long)self->app_cuts, (unsigned long long)self->broker_cuts,
                 (unsigned long long)self->streams_gone, (unsigned long long)self->commits,
                 (unsigned long long)self->undone, (unsigned long long)self->report.transactions,
                 (unsigned long long)self->report.events,
                 (unsigned long long)((fault_now_ns() - started) / WB_SEC), found);
    (void)fflush(stdout);
    free(self);
    return found;
}
