/* crash_vfs.c - the shim itself, see crash_vfs.h; what it shall do says crash_vfs_state.c. */
#include "crash_vfs_state.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "crash_disk.h"
#include "fault.h"

struct shim_file {
    sqlite3_file base;
    struct crash_file *disk; /* NULL: not of those that matter */
    char path[300];
    sqlite3_file *real; /* behind this struct */
};

static struct {
    sqlite3_vfs *real;
    sqlite3_vfs vfs;
} shim;

/* ---- files ----------------------------------------------------------------------------------- */

static struct shim_file *shim_of(sqlite3_file *file)
{
    return (struct shim_file *)file;
}

static sqlite3_file *real_of(sqlite3_file *file)
{
    return shim_of(file)->real;
}

static int shim_close(sqlite3_file *file)
{
    return real_of(file)->pMethods->xClose(real_of(file));
}

static int shim_read(sqlite3_file *file, void *data, int len, sqlite3_int64 at)
{
    if (crash_vfs_is_dark() || crash_vfs_fails(CRASH_READ))
        return SQLITE_IOERR_READ;
    int code = real_of(file)->pMethods->xRead(real_of(file), data, len, at);
    if (!crash_vfs_fails(CRASH_SHORT_READ))
        return code;
    memset((char *)data + len / 2, 0, (size_t)(len - len / 2));
    return SQLITE_IOERR_READ;
}

static int shim_write(sqlite3_file *file, const void *data, int len, sqlite3_int64 at)
{
    struct shim_file *self = shim_of(file);
    int code = SQLITE_OK;

    if (!crash_vfs_change('w', self->path, at, len) || crash_vfs_fails(CRASH_WRITE))
        return SQLITE_IOERR_WRITE;
    if (crash_vfs_fails(CRASH_FULL))
        return SQLITE_FULL;
    if (crash_vfs_fails(CRASH_TORN)) {
        len /= 2;
        code = SQLITE_IOERR_WRITE;
    }
    if (crash_vfs_listens() && self->disk != NULL)
        crash_disk_write(self->disk, data, (size_t)len, at);
    int done = self->real->pMethods->xWrite(self->real, data, len, at);
    return code != SQLITE_OK ? code : done;
}

static int shim_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    struct shim_file *self = shim_of(file);

    if (!crash_vfs_change('t', self->path, size, 0) || crash_vfs_fails(CRASH_WRITE))
        return SQLITE_IOERR_TRUNCATE;
    if (crash_vfs_listens() && self->disk != NULL)
        crash_disk_truncate(self->disk, size);
    return self->real->pMethods->xTruncate(self->real, size);
}

static int shim_sync(sqlite3_file *file, int flags)
{
    struct shim_file *self = shim_of(file);

    if (!crash_vfs_change('s', self->path, 0, 0) || crash_vfs_fails(CRASH_FSYNC))
        return SQLITE_IOERR_FSYNC;
    if (crash_vfs_listens() && !crash_vfs_syncs())
        return SQLITE_OK;
    if (crash_vfs_listens() && self->disk != NULL)
        crash_disk_sync(self->disk);
    return self->real->pMethods->xSync(self->real, flags); /* syncs the directory of a new log */
}

static int shim_file_size(sqlite3_file *file, sqlite3_int64 *ret_size)
{
    return crash_vfs_is_dark() ? SQLITE_IOERR_FSTAT
                               : real_of(file)->pMethods->xFileSize(real_of(file), ret_size);
}

static int shim_lock(sqlite3_file *file, int level)
{
    return crash_vfs_fails(CRASH_BUSY) ? SQLITE_BUSY
                                       : real_of(file)->pMethods->xLock(real_of(file), level);
}

static int shim_unlock(sqlite3_file *file, int level)
{
    return real_of(file)->pMethods->xUnlock(real_of(file), level);
}

static int shim_check_lock(sqlite3_file *file, int *ret_held)
{
    return real_of(file)->pMethods->xCheckReservedLock(real_of(file), ret_held);
}

static int shim_control(sqlite3_file *file, int operation, void *arg)
{
    return real_of(file)->pMethods->xFileControl(real_of(file), operation, arg);
}

static int shim_sector_size(sqlite3_file *file)
{
    return real_of(file)->pMethods->xSectorSize(real_of(file));
}

static int shim_abilities(sqlite3_file *file)
{
    return real_of(file)->pMethods->xDeviceCharacteristics(real_of(file));
}

static int shim_shm_map(sqlite3_file *file, int page, int size, int extend, void volatile **ret)
{
    return real_of(file)->pMethods->xShmMap(real_of(file), page, size, extend, ret);
}

static int shim_shm_lock(sqlite3_file *file, int offset, int n, int flags)
{
    if ((flags & SQLITE_SHM_LOCK) != 0 && crash_vfs_fails(CRASH_BUSY))
        return SQLITE_BUSY;
    return real_of(file)->pMethods->xShmLock(real_of(file), offset, n, flags);
}

static void shim_shm_barrier(sqlite3_file *file)
{
    real_of(file)->pMethods->xShmBarrier(real_of(file));
}

static int shim_shm_unmap(sqlite3_file *file, int remove)
{
    return real_of(file)->pMethods->xShmUnmap(real_of(file), remove);
}

/* Version 2: no mapped files, all reads and writes come through here. */
static const sqlite3_io_methods methods = {
    .iVersion = 2,
    .xClose = shim_close,
    .xRead = shim_read,
    .xWrite = shim_write,
    .xTruncate = shim_truncate,
    .xSync = shim_sync,
    .xFileSize = shim_file_size,
    .xLock = shim_lock,
    .xUnlock = shim_unlock,
    .xCheckReservedLock = shim_check_lock,
    .xFileControl = shim_control,
    .xSectorSize = shim_sector_size,
    .xDeviceCharacteristics = shim_abilities,
    .xShmMap = shim_shm_map,
    .xShmLock = shim_shm_lock,
    .xShmBarrier = shim_shm_barrier,
    .xShmUnmap = shim_shm_unmap,
};

/* ---- the file system ------------------------------------------------------------------------- */

static int shim_open(sqlite3_vfs *vfs, const char *path, sqlite3_file *file, int flags,
                     int *ret_flags)
{
    struct shim_file *self = shim_of(file);

    (void)vfs;
    *self = (struct shim_file){.real = (sqlite3_file *)(void *)(self + 1)};
    if (crash_vfs_is_dark() || crash_vfs_fails(CRASH_CANTOPEN))
        return SQLITE_CANTOPEN;
    int code = shim.real->xOpen(shim.real, path, self->real, flags, ret_flags);
    if (code != SQLITE_OK)
        return code;
    self->base.pMethods = &methods;
    if (crash_vfs_listens() &&
        (flags & (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL))) {
        fault_must(strlen(path) < sizeof(self->path), "crash VFS: %s is too long", path);
        memcpy(self->path, path, strlen(path) + 1);
        self->disk = crash_disk_file(path);
    }
    return SQLITE_OK;
}

static int shim_delete(sqlite3_vfs *vfs, const char *path, int sync)
{
    (void)vfs;
    if (!crash_vfs_change('d', path, 0, sync) || crash_vfs_fails(CRASH_WRITE))
        return SQLITE_IOERR_DELETE;
    int code = shim.real->xDelete(shim.real, path, sync);
    if (code == SQLITE_OK && crash_vfs_listens())
        crash_disk_remove(path);
    if (code == SQLITE_OK && sync && crash_vfs_syncs())
        crash_disk_sync_names();
    return code;
}

static int shim_access(sqlite3_vfs *vfs, const char *path, int flags, int *ret_result)
{
    (void)vfs;
    return shim.real->xAccess(shim.real, path, flags, ret_result);
}

static int shim_full_path(sqlite3_vfs *vfs, const char *path, int size, char *ret_path)
{
    (void)vfs;
    return shim.real->xFullPathname(shim.real, path, size, ret_path);
}

/* From our generator, which can be seeded: salts of the log and randomblob() repeat then. */
static int shim_randomness(sqlite3_vfs *vfs, int len, char *ret_bytes)
{
    (void)vfs;
    wb_random_fill(ret_bytes, (size_t)len);
    return len;
}

/* As our own code sleeps, so that time can be virtual. */
static int shim_sleep(sqlite3_vfs *vfs, int us)
{
    (void)vfs;
    (void)nanosleep(&(struct timespec){.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000L},
                    NULL);
    return us;
}

static int shim_time(sqlite3_vfs *vfs, double *ret_days)
{
    (void)vfs;
    return shim.real->xCurrentTime(shim.real, ret_days);
}

static int shim_time64(sqlite3_vfs *vfs, sqlite3_int64 *ret_ms)
{
    (void)vfs;
    return shim.real->xCurrentTimeInt64(shim.real, ret_ms);
}

static int shim_last_error(sqlite3_vfs *vfs, int size, char *ret_text)
{
    (void)vfs;
    return shim.real->xGetLastError(shim.real, size, ret_text);
}

/* SQLite opens a directory for one thing only: to sync it. */
static int (*open_directory)(const char *path, int *ret_fd);

static int directory_opened(const char *path, int *ret_fd)
{
    if (crash_vfs_syncs())
        crash_disk_sync_names();
    return open_directory(path, ret_fd);
}

void crash_vfs_install(void)
{
    union {
        sqlite3_syscall_ptr any;
        int (*open_directory)(const char *path, int *ret_fd);
    } call;

    if (shim.real != NULL)
        return;
    shim.real = sqlite3_vfs_find(NULL);
    fault_must(shim.real != NULL && shim.real->iVersion >= 3, "crash VFS: no VFS to stand upon");
    call.any = shim.real->xGetSystemCall(shim.real, "openDirectory");
    open_directory = call.open_directory;
    call.open_directory = directory_opened;
    fault_must(shim.real->xSetSystemCall(shim.real, "openDirectory", call.any) == SQLITE_OK,
               "crash VFS: cannot see directories being synced");
    shim.vfs = (sqlite3_vfs){
        .iVersion = 2,
        .szOsFile = (int)sizeof(struct shim_file) + shim.real->szOsFile,
        .mxPathname = shim.real->mxPathname,
        .zName = "crash",
        .xOpen = shim_open,
        .xDelete = shim_delete,
        .xAccess = shim_access,
        .xFullPathname = shim_full_path,
        .xRandomness = shim_randomness,
        .xSleep = shim_sleep,
        .xCurrentTime = shim_time,
        .xCurrentTimeInt64 = shim_time64,
        .xGetLastError = shim_last_error,
    };
    fault_must(sqlite3_vfs_register(&shim.vfs, 1) == SQLITE_OK, "crash VFS: not registered");
}
