/*
 * crash_vfs_state.c - when the power goes and which operation fails; and the syncs of our own code.
 */
#include "crash_vfs_state.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include <waybill/db.h>

#include "crash_disk.h"
#include "fault.h"

static struct {
    bool on;
    crash_plant plant;

    bool dark;
    uint64_t changes, cut_at, trace;
    void (*hook)(void *ctx);
    void *hook_ctx;

    uint64_t operations[CRASH_FAULTS];
    crash_fault fault;
    uint64_t fail_in; /* operations left until it fails; 0: none does */
    bool for_good, failing;
    uint64_t failed;
} state;

void crash_vfs_cut(void)
{
    if (state.dark)
        return;
    state.dark = true;
    if (state.hook != NULL)
        state.hook(state.hook_ctx);
}

bool crash_vfs_change(char kind, const char *path, int64_t at, int64_t len)
{
    const int64_t what[3] = {kind, at, len};

    if (!state.on)
        return true;
    if (state.dark)
        return false;
    state.changes++;
    state.trace = state.trace * UINT64_C(0x9e3779b97f4a7c15) + wb_hash(what, sizeof(what));
    if (strlen(path) > 3) /* "-wal", "-journal", ".db" */
        state.trace += wb_hash(path + strlen(path) - 3, 3);
    if (state.cut_at == 0 || --state.cut_at > 0)
        return true;
    crash_vfs_cut();
    return false;
}

bool crash_vfs_fails(crash_fault fault)
{
    if (!state.on)
        return false;
    state.operations[fault]++;
    if (state.fault != fault)
        return false;
    if (state.fail_in > 0 && --state.fail_in == 0)
        state.failing = true;
    bool result = state.failing;
    state.failed += result;
    state.failing = state.failing && state.for_good;
    return result;
}

bool crash_vfs_listens(void)
{
    return state.on;
}

bool crash_vfs_syncs(void)
{
    return state.on && !state.dark && state.plant != CRASH_PLANT_NO_SYNC;
}

/* ---- our own syncs --------------------------------------------------------------------------- */

int __real_fdatasync(int fd);
int __real_fsync(int fd);
wb_err __real_db_barrier_sync(struct db_barrier *barrier, struct wb_why *why);
int __wrap_fdatasync(int fd);
int __wrap_fsync(int fd);
wb_err __wrap_db_barrier_sync(struct db_barrier *barrier, struct wb_why *why);

/* false: with errno set. */
static bool synced(int fd)
{
    struct crash_file *file = crash_disk_find(fd);
    struct stat st;

    if (!crash_vfs_change('b', "", 0, 0) || crash_vfs_fails(CRASH_FSYNC)) {
        errno = EIO;
        return false;
    }
    if (file != NULL)
        crash_disk_sync(file);
    else if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode))
        crash_disk_sync_names();
    return true;
}

int __wrap_fdatasync(int fd)
{
    if (state.on)
        return synced(fd) ? 0 : -1;
    return __real_fdatasync(fd);
}

int __wrap_fsync(int fd)
{
    if (state.on)
        return synced(fd) ? 0 : -1;
    return __real_fsync(fd);
}

wb_err __wrap_db_barrier_sync(struct db_barrier *barrier, struct wb_why *why)
{
    if (state.plant == CRASH_PLANT_NO_BARRIER)
        return WB_OK;
    return __real_db_barrier_sync(barrier, why);
}

/* ---- orders ---------------------------------------------------------------------------------- */

void crash_vfs_begin(void)
{
    crash_disk_forget();
    sqlite3_randomness(0, NULL); /* it draws anew from us */
    state.on = true;
    state.dark = false;
    state.changes = state.cut_at = state.trace = 0;
    state.hook = NULL;
    memset(state.operations, 0, sizeof(state.operations));
    crash_vfs_mend();
}

void crash_vfs_end(void)
{
    crash_disk_forget();
    state.on = state.dark = false;
}

void crash_vfs_cut_at(uint64_t n, void (*hook)(void *ctx), void *ctx)
{
    state.cut_at = n;
    state.hook = hook;
    state.hook_ctx = ctx;
}

bool crash_vfs_is_dark(void)
{
    return state.dark;
}

void crash_vfs_power(struct wb_rng *rng)
{
    crash_disk_cut(rng);
    state.cut_at = 0;
    state.dark = false;
}

uint64_t crash_vfs_changes(void)
{
    return state.changes;
}

uint64_t crash_vfs_trace(void)
{
    return state.trace;
}

const char *crash_fault_name(crash_fault fault)
{
    static const char *const texts[] = {
#define X(name) [CRASH_##name] = #name,
        CRASH_FAULT_MAP(X)
#undef X
    };
    return texts[fault];
}

void crash_vfs_fail_at(crash_fault fault, uint64_t n, bool for_good)
{
    state.fault = fault;
    state.fail_in = n;
    state.for_good = for_good;
    state.failing = false;
    state.failed = 0;
}

void crash_vfs_mend(void)
{
    crash_vfs_fail_at(CRASH_FAULTS, 0, false);
}

uint64_t crash_vfs_failures(void)
{
    return state.failed;
}

uint64_t crash_vfs_operations(crash_fault fault)
{
    return state.operations[fault];
}

void crash_vfs_plant(crash_plant plant)
{
    state.plant = plant;
}
