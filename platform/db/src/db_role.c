#include <waybill/db.h>

#include <assert.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "db_lock.h"

struct db_role {
    struct db_lock lock;
    char *path;
    int watch_fd; /* inotify on the file; -1: nobody asked for it, or there is none to be had */
};

wb_err db_role_open(const char *path, struct db_role **ret_role, struct wb_why *why)
{
    assert(path != NULL);
    assert(ret_role != NULL);

    struct db_role *role = calloc(1, sizeof(*role));
    if (role == NULL)
        return wb_fail(why, WB_NOMEM, "out of memory opening the role file %s", path);
    role->lock.fd = -1;
    role->watch_fd = -1;
    role->path = wb_str_dup(wb_str(path));
    wb_err err = role->path != NULL
                     ? db_lock_open(&role->lock, path, why)
                     : wb_fail(why, WB_NOMEM, "out of memory opening the role file %s", path);
    if (err != WB_OK) {
        db_role_close(role);
        return err;
    }
    *ret_role = role;
    return WB_OK;
}

void db_role_close(struct db_role *role)
{
    if (role == NULL)
        return;
    if (role->watch_fd >= 0)
        (void)close(role->watch_fd);
    db_lock_close(&role->lock);
    free(role->path);
    free(role);
}

/* ---- the file may be another by now ---------------------------------------------------------- */

/* Does the path still name the file we have open? A lock on another one excludes nobody. */
static bool is_current(const struct db_role *role)
{
    struct stat ours, named;

    return fstat(role->lock.fd, &ours) == 0 && ours.st_nlink > 0 &&
           lstat(role->path, &named) == 0 && ours.st_dev == named.st_dev &&
           ours.st_ino == named.st_ino;
}

static wb_err reopen(struct db_role *role, struct wb_why *why)
{
    struct db_lock fresh = {.fd = -1};
    wb_err err = db_lock_open(&fresh, role->path, why);

    if (err != WB_OK)
        return err;
    db_lock_close(&role->lock);
    role->lock = fresh;
    return WB_OK;
}

/* ---- waiting --------------------------------------------------------------------------------- */

/* The same file gives the same watch, so this may be done at any time. */
static void watch(struct db_role *role)
{
    _Alignas(struct inotify_event) char events[4096];

    if (role->watch_fd < 0)
        return;
    while (read(role->watch_fd, events, sizeof(events)) > 0)
        continue;
    (void)inotify_add_watch(role->watch_fd, role->path,
                            IN_CLOSE_WRITE | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF);
}

int db_role_fd(struct db_role *role)
{
    assert(role != NULL);
    if (role->watch_fd < 0) {
        role->watch_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
        watch(role);
    }
    return role->watch_fd;
}

wb_err db_role_try(struct db_role *role, struct wb_why *why)
{
    wb_err err = WB_OK;

    assert(role != NULL);
    if (role->lock.held)
        return WB_OK;
    if (!is_current(role))
        err = reopen(role, why);
    if (err != WB_OK)
        return err;
    watch(role); /* before the look, so that what happens after it is noticed */
    err = db_lock_try(&role->lock, why);
    if (err == WB_OK && !is_current(role)) { /* replaced between the open and the lock */
        db_lock_release(&role->lock);
        err = WB_BUSY;
    }
    if (err == WB_BUSY)
        return wb_fail(why, WB_BUSY,
                       "the role %s is taken: its holder is another process or thread; wait for "
                       "its end",
                       role->path);
    return err;
}

void db_role_release(struct db_role *role)
{
    assert(role != NULL);
    if (!role->lock.held)
        return;
    db_lock_release(&role->lock);
    (void)futimens(role->lock.fd, NULL); /* a sign to those who wait: an unlock gives none */
}
