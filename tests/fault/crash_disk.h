/*
 * crash_disk.h - what a disk holds after a power cut, by the rules a kernel keeps.
 *
 * For each file it keeps what was synced, and every write and truncation since. At a cut the synced
 * part survives; of the rest each sector survives, vanishes, or is left at any state in between, on
 * its own, and so does the length; a truncation happens as a whole or not at all. A file that was
 * created or removed is found so after a cut only if its directory was synced meanwhile; otherwise
 * chance decides.
 *
 * It only listens: the real files are written beside it, and at a cut replaced by the survivors.
 * One thread.
 */
#ifndef CRASH_DISK_H
#define CRASH_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct wb_rng;
struct crash_file;

/** Files up to now are forgotten. */
void crash_disk_forget(void);

/** The file at path, which exists; made known as created just now when it is not known yet. */
struct crash_file *crash_disk_file(const char *path);
/** The known file behind a descriptor; NULL: none. */
struct crash_file *crash_disk_find(int fd);

void crash_disk_write(struct crash_file *file, const void *data, size_t len, int64_t at);
void crash_disk_truncate(struct crash_file *file, int64_t size);
void crash_disk_sync(struct crash_file *file);
void crash_disk_remove(const char *path);
/** All directories: creations and removals so far survive. */
void crash_disk_sync_names(void);

/** Bytes written and not synced, over all files. */
size_t crash_disk_unsynced(void);

/** The cut: the real files become the survivors, and those are all synced. */
void crash_disk_cut(struct wb_rng *rng);

#endif /* CRASH_DISK_H */
