/*
 * crash_vfs.h - SQLite's files on a disk that fails when told to, or loses its power.
 *
 * A shim over SQLite's default VFS, and over fdatasync() and fsync() of our own code (the linker
 * sends them here), so that the durability barrier is seen, too. The -shm file is memory: it passes
 * through and vanishes at a cut. One thread.
 */
#ifndef CRASH_VFS_H
#define CRASH_VFS_H

#include <stdbool.h>
#include <stdint.h>

struct wb_rng;

/** Become the default VFS of this process, for good. Until _begin() all passes through. */
void crash_vfs_install(void);

/** Listen from now on: no file is known, nothing is counted, nothing fails. */
void crash_vfs_begin(void);
/** Pass everything through again. */
void crash_vfs_end(void);

/* ---- power ----------------------------------------------------------------------------------- */

/** Cut the power instead of the n-th change from now (write, truncation, sync, removal; 1: the
 * next); the hook is called at once. After it every operation fails. 0: never. */
void crash_vfs_cut_at(uint64_t n, void (*hook)(void *ctx), void *ctx);
/** Cut it now. */
void crash_vfs_cut(void);
bool crash_vfs_is_dark(void);
/** Once every connection is closed: the files are what survived, and the power is back. */
void crash_vfs_power(struct wb_rng *rng);

/** Changes since _begin(), and a hash over them: the same run gives the same. */
uint64_t crash_vfs_changes(void);
uint64_t crash_vfs_trace(void);

/* ---- errors ---------------------------------------------------------------------------------- */

/*
 * A read that pretends the file ends there is not among them: SQLite takes the rest for zeros, as
 * the format says, and what has no checksums cannot know better.
 */
#define CRASH_FAULT_MAP(X)                                                                         \
    X(WRITE)      /* a write, truncation or removal fails */                                       \
    X(TORN)       /* a write fails half-way */                                                     \
    X(FULL)       /* the disk is full */                                                           \
    X(FSYNC)      /* a sync fails, the barrier's too */                                            \
    X(READ)       /* a read fails */                                                               \
    X(SHORT_READ) /* a read fails half-way */                                                      \
    X(CANTOPEN)   /* a file cannot be opened */                                                    \
    X(BUSY)       /* a lock is taken */

typedef enum crash_fault {
#define X(name) CRASH_##name,
    CRASH_FAULT_MAP(X)
#undef X
        CRASH_FAULTS
} crash_fault;

const char *crash_fault_name(crash_fault fault);

/** The n-th operation of that kind from now (1: the next) fails, and with for_good all later. */
void crash_vfs_fail_at(crash_fault fault, uint64_t n, bool for_good);
/** How many failed since. */
uint64_t crash_vfs_failures(void);
/** Nothing fails any more. */
void crash_vfs_mend(void);
/** Operations since _begin() that the fault could have hit. */
uint64_t crash_vfs_operations(crash_fault fault);

/* ---- planted bugs ---------------------------------------------------------------------------- */

typedef enum crash_plant {
    CRASH_PLANT_NONE,
    CRASH_PLANT_NO_BARRIER, /* db_barrier_sync() does nothing */
    CRASH_PLANT_NO_SYNC     /* SQLite's syncs do nothing */
} crash_plant;
void crash_vfs_plant(crash_plant plant);

#endif /* CRASH_VFS_H */
