/*
 * db_lock.h - a lock file that the kernel frees the moment its holder dies.
 *
 * Open file description locks (fcntl(2), F_OFD_SETLK) belong to the descriptor, not to the process:
 * two threads with a lock each exclude one another, and closing somebody else's descriptor of the
 * same file loses nothing. The file itself stays; it is empty and says nothing.
 */
#ifndef DB_LOCK_H
#define DB_LOCK_H

#include <waybill/base.h>

struct db_lock {
    int fd; /* -1: not open */
    bool held;
    short rank;                 /* which of our waiting marks others can see; 0: none */
    int64_t bold_until_mono_ns; /* until then nobody's marks are respected */
};

/** Open the file, created with mode 0600 if absent; a symbolic link is refused. */
wb_err db_lock_open(struct db_lock *lock, const char *path, struct wb_why *why);
void db_lock_close(struct db_lock *lock);

/** Take it if it is free. WB_BUSY (why untouched) when somebody else has it. */
wb_err db_lock_try(struct db_lock *lock, struct wb_why *why);

/**
 * Take it, looking again after short random pauses until deadline. WB_BUSY (why untouched). Who has
 * waited for some milliseconds marks the file, and whoever came later stands back.
 */
wb_err db_lock_wait(struct db_lock *lock, struct wb_rng *rng, int64_t deadline_mono_ns,
                    struct wb_why *why);

/** The same before all others who wait, for rare and short work that everybody gains by. */
wb_err db_lock_wait_first(struct db_lock *lock, struct wb_rng *rng, int64_t deadline_mono_ns,
                          struct wb_why *why);

/** Let it go; does nothing when it is not held. */
void db_lock_release(struct db_lock *lock);

/**
 * The n-th pause of somebody who waits for a writer to finish: random, so that nobody is always
 * second, from 5 to 45 us at first and up to 1 ms later.
 */
void db_lock_pause(struct wb_rng *rng, unsigned n);

#endif /* DB_LOCK_H */
