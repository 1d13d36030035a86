/*
 * The durability barrier: what was read survives a power cut once the log it came from is synced.
 *
 * What a reader sees comes from the log or from the database file. The file needs no sync of ours:
 * a checkpoint by a connection at synchronous NORMAL or FULL syncs the log, copies, and syncs the
 * file before the log may be used again or removed. So a missing or emptied log means that all is
 * in the file and synced already. The database file and -shm are never opened here, since closing a
 * descriptor of theirs would drop the POSIX locks of SQLite in this process.
 */
#include "db_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The first bytes of a log, its salts among them. Source: SQLite file format, section 4.1. */
struct log_head {
    uint8_t bytes[32];
};

struct db_barrier {
    char *wal_path;
    char *dir_path;
    int fd;          /* the log; -1: not open */
    bool dir_synced; /* the directory was synced since the log was opened */
    bool broken;     /* a sync of this log failed while it had broken_head */
    struct log_head broken_head;
};

/* The directory of a path, to be freed; NULL when out of memory. */
static char *dir_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (slash == NULL)
        return wb_str_dup(wb_str("."));
    return wb_str_dup(wb_str_n(path, slash == path ? 1 : (size_t)(slash - path)));
}

wb_err db_barrier_create(const char *path, struct db_barrier **ret_barrier, struct wb_why *why)
{
    assert(path != NULL);
    assert(ret_barrier != NULL);

    struct db_barrier *barrier = calloc(1, sizeof(*barrier));
    if (barrier == NULL)
        return wb_fail(why, WB_NOMEM, "out of memory making a barrier for %s", path);
    barrier->fd = -1;
    barrier->wal_path = db_path_with(path, "-wal");
    barrier->dir_path = dir_of(path);
    if (barrier->wal_path == NULL || barrier->dir_path == NULL) {
        db_barrier_destroy(barrier);
        return wb_fail(why, WB_NOMEM, "out of memory making a barrier for %s", path);
    }
    *ret_barrier = barrier;
    return WB_OK;
}

static void log_close(struct db_barrier *barrier)
{
    if (barrier->fd >= 0)
        close(barrier->fd);
    barrier->fd = -1;
    barrier->dir_synced = false;
    barrier->broken = false;
}

void db_barrier_destroy(struct db_barrier *barrier)
{
    if (barrier == NULL)
        return;
    log_close(barrier);
    free(barrier->wal_path);
    free(barrier->dir_path);
    free(barrier);
}

/*
 * Is the open log still the one in the directory? The numbers of inodes are given out again, so
 * they are compared only while the old file is held.
 */
static bool log_current(const struct db_barrier *barrier)
{
    struct stat held, named;

    if (barrier->fd < 0 || fstat(barrier->fd, &held) != 0 || held.st_nlink == 0)
        return false;
    return stat(barrier->wal_path, &named) == 0 && named.st_ino == held.st_ino &&
           named.st_dev == held.st_dev;
}

static wb_err log_open(struct db_barrier *barrier, struct wb_why *why)
{
    if (log_current(barrier))
        return WB_OK;
    int fd = open(barrier->wal_path, O_RDWR | O_CLOEXEC);
    if (fd < 0 && errno != ENOENT)
        return db_errno(errno, "open the write-ahead log", barrier->wal_path, why);
    log_close(barrier);
    barrier->fd = fd;
    return WB_OK;
}

/* A new file is found again after a power cut only when its directory was synced too. */
static wb_err dir_sync(struct db_barrier *barrier, struct wb_why *why)
{
    if (barrier->dir_synced)
        return WB_OK;
    int fd = open(barrier->dir_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return db_errno(errno, "open the directory", barrier->dir_path, why);
    int number = fsync(fd) == 0 ? 0 : errno;
    close(fd);
    if (number != 0) {
        db_errno(number, "sync the directory", barrier->dir_path, why);
        return WB_IO;
    }
    barrier->dir_synced = true;
    return WB_OK;
}

/* The head of a log changes whenever it starts anew; an emptied log has none. */
static void head_read(const struct db_barrier *barrier, struct log_head *ret_head)
{
    *ret_head = (struct log_head){0};
    if (pread(barrier->fd, ret_head->bytes, sizeof(ret_head->bytes), 0) < 0)
        *ret_head = (struct log_head){0};
}

/*
 * After a failed sync the kernel may call lost pages clean, so a second try proves nothing. A log
 * that has started anew was copied into the file and synced there, and holds none of them.
 */
static bool log_in_doubt(struct db_barrier *barrier)
{
    struct log_head head;

    if (!barrier->broken)
        return false;
    head_read(barrier, &head);
    barrier->broken = memcmp(&head, &barrier->broken_head, sizeof(head)) == 0;
    return barrier->broken;
}

static wb_err log_sync(struct db_barrier *barrier, struct wb_why *why)
{
    int result;

    if (log_in_doubt(barrier))
        return wb_fail(why, WB_IO,
                       "a sync of %s failed before, so what it holds is in doubt; check the disk; "
                       "after the next full checkpoint work goes on",
                       barrier->wal_path);
    do
        result = fdatasync(barrier->fd);
    while (result != 0 && errno == EINTR);
    if (result == 0)
        return WB_OK;
    db_errno(errno, "sync the write-ahead log", barrier->wal_path, why);
    barrier->broken = true;
    head_read(barrier, &barrier->broken_head);
    return WB_IO;
}

wb_err db_barrier_sync(struct db_barrier *barrier, struct wb_why *why)
{
    assert(barrier != NULL);

    wb_err err = log_open(barrier, why);
    if (err == WB_OK && barrier->fd >= 0)
        err = log_sync(barrier, why);
    if (err == WB_OK)
        err = dir_sync(barrier, why);
    return err;
}
