#include "db_lock.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "db_internal.h"

enum { PAUSE_MIN_NS = 5000, PAUSE_FIRST_NS = 45000, PAUSE_MAX_NS = 1000000 };

wb_err db_lock_open(struct db_lock *lock, const char *path, struct wb_why *why)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0)
        return db_errno(errno, "open the lock file", path, why);
    *lock = (struct db_lock){.fd = fd};
    return WB_OK;
}

void db_lock_close(struct db_lock *lock)
{
    if (lock->fd >= 0)
        close(lock->fd);
    *lock = (struct db_lock){.fd = -1};
}

static int lock_set(int fd, short type)
{
    struct flock whole = {.l_type = type, .l_whence = SEEK_SET};
    int result;

    do
        result = fcntl(fd, F_OFD_SETLK, &whole);
    while (result != 0 && errno == EINTR);
    return result;
}

wb_err db_lock_try(struct db_lock *lock, struct wb_why *why)
{
    assert(lock->fd >= 0);
    assert(!lock->held);
    if (lock_set(lock->fd, F_WRLCK) == 0) {
        lock->held = true;
        return WB_OK;
    }
    if (errno == EAGAIN || errno == EACCES)
        return WB_BUSY;
    return db_errno(errno, "take the lock of", "a lock file", why);
}

void db_lock_pause(struct wb_rng *rng, unsigned n)
{
    uint64_t most = n < 64 ? (uint64_t)PAUSE_FIRST_NS << (n / 8) : PAUSE_MAX_NS;

    if (most > PAUSE_MAX_NS)
        most = PAUSE_MAX_NS;
    long ns = (long)(PAUSE_MIN_NS + wb_rng_below(rng, most - PAUSE_MIN_NS + 1));
    nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
}

wb_err db_lock_wait(struct db_lock *lock, struct wb_rng *rng, int64_t deadline_mono_ns,
                    struct wb_why *why)
{
    for (unsigned n = 0;; n++) {
        wb_err err = db_lock_try(lock, why);

        if (err != WB_BUSY || wb_mono_ns(wb_clock_system()) >= deadline_mono_ns)
            return err;
        db_lock_pause(rng, n);
    }
}

void db_lock_release(struct db_lock *lock)
{
    if (!lock->held)
        return;
    lock->held = false;
    lock_set(lock->fd, F_UNLCK);
}
