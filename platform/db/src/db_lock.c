#include "db_lock.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "db_internal.h"

enum { PAUSE_MIN_NS = 5000, PAUSE_FIRST_NS = 45000, PAUSE_MAX_NS = 1000000 };

/*
 * Byte 0 of the file is the lock. The bytes behind it are marks: a waiter of rank r holds a shared
 * lock on bytes 1 to r, and whoever finds one on a byte above its own rank stands back. A rank
 * comes by waiting; so nobody stands back for longer than it takes to reach RANK_OLD, however many
 * there are, and a waiter that was stopped cannot stop the others. Marks vanish with their owner.
 */
enum { RANK_OLD = 3, RANK_FIRST = 4 };

static const int64_t RANK_1_NS = 2 * WB_MS; /* each further rank takes twice as long */
static const int64_t BOLD_NS = 1 * WB_SEC;  /* after standing back for nobody */

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

/* Length 0 is to the end. */
static int lock_set(int fd, short type, off_t start, off_t len)
{
    struct flock range = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
    int result;

    do
        result = fcntl(fd, F_OFD_SETLK, &range);
    while (result != 0 && errno == EINTR);
    return result;
}

/* Has somebody else a lock on these bytes? */
static bool other_has(const struct db_lock *lock, off_t start, off_t len)
{
    struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = len};

    return fcntl(lock->fd, F_OFD_GETLK, &range) == 0 && range.l_type != F_UNLCK;
}

static bool other_goes_first(const struct db_lock *lock)
{
    return lock->rank < RANK_OLD && other_has(lock, lock->rank + 1, 0);
}

/* A mark that cannot be made costs fairness only. */
static void rank_set(struct db_lock *lock, short rank)
{
    if (rank <= lock->rank)
        return;
    lock->rank = rank;
    (void)lock_set(lock->fd, F_RDLCK, 1, rank);
}

static short rank_of(int64_t waited_ns)
{
    short rank = 0;

    for (int64_t ns = RANK_1_NS; rank < RANK_OLD && waited_ns >= ns; ns *= 2)
        rank++;
    return rank;
}

wb_err db_lock_try(struct db_lock *lock, struct wb_why *why)
{
    assert(lock->fd >= 0);
    assert(!lock->held);
    if (lock_set(lock->fd, F_WRLCK, 0, 1) == 0) {
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

/* Let the lock and the marks go. */
static void lock_clear(struct db_lock *lock)
{
    lock->held = false;
    lock->rank = 0;
    (void)lock_set(lock->fd, F_UNLCK, 0, 0);
}

/* Somebody who waits. */
struct turn {
    int64_t since_mono_ns;
    unsigned stood_back;  /* looks at which others went first */
    bool somebody_worked; /* the lock was not idle at all of them */
};

static wb_err try_in_turn(struct db_lock *lock, struct turn *turn, int64_t now, struct wb_why *why)
{
    if (now >= lock->bold_until_mono_ns && other_goes_first(lock)) {
        turn->stood_back++;
        turn->somebody_worked = turn->somebody_worked || other_has(lock, 0, 1);
    } else {
        wb_err err = db_lock_try(lock, why);
        /* Those we let go first were asleep all the time. */
        if (err == WB_OK && turn->stood_back > 0 && lock->rank == RANK_OLD &&
            !turn->somebody_worked)
            lock->bold_until_mono_ns = now + BOLD_NS;
        if (err != WB_BUSY)
            return err;
        turn->somebody_worked = true;
    }
    rank_set(lock, rank_of(now - turn->since_mono_ns));
    return WB_BUSY;
}

static wb_err wait_in_turn(struct db_lock *lock, struct wb_rng *rng, int64_t deadline_mono_ns,
                           struct wb_why *why)
{
    struct turn turn = {.since_mono_ns = wb_mono_ns(wb_clock_system())};
    int64_t now = turn.since_mono_ns;

    for (unsigned n = 0;; n++) {
        wb_err err = try_in_turn(lock, &turn, now, why);
        if (err == WB_OK)
            return WB_OK;
        if (err != WB_BUSY || now >= deadline_mono_ns) {
            lock_clear(lock);
            return err;
        }
        /* While others stand back for us the lock lies idle. */
        db_lock_pause(rng, lock->rank > 0 ? 0 : n);
        now = wb_mono_ns(wb_clock_system());
    }
}

wb_err db_lock_wait(struct db_lock *lock, struct wb_rng *rng, int64_t deadline_mono_ns,
                    struct wb_why *why)
{
    return wait_in_turn(lock, rng, deadline_mono_ns, why);
}

wb_err db_lock_wait_first(struct db_lock *lock, struct wb_rng *rng, int64_t deadline_mono_ns,
                          struct wb_why *why)
{
    rank_set(lock, RANK_FIRST);
    return wait_in_turn(lock, rng, deadline_mono_ns, why);
}

void db_lock_release(struct db_lock *lock)
{
    if (lock->held)
        lock_clear(lock);
}
