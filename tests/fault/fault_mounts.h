/*
 * fault_mounts.h - small disks for campaigns that fill them, or take their power: in a mount
 * namespace of this process, so that nothing is left behind.
 */
#ifndef FAULT_MOUNTS_H
#define FAULT_MOUNTS_H

#include <stdbool.h>
#include <stddef.h>

/** Run a program; false: it could not be run, or ended with an error. args ends with NULL. */
bool fault_run(const char *const *args);

/** Does this machine let us mount a tmpfs, and fill it? Else *ret_why says what is missing. */
bool fault_can_fill(const char **ret_why);
/** Does it let us mount an ext4 from a file, and shut it down? */
bool fault_can_cut(const char **ret_why);

/** First of all in a part that mounts: a mount namespace of its own. */
void fault_mounts_begin(void);

/** A tmpfs of that many bytes; at is made. */
void fault_tmpfs_mount(const char *at, size_t bytes);
/** Leave at most `left` bytes free; and give the room back. */
void fault_fill(const char *at, size_t left);
void fault_free(const char *at);

/** An ext4 in image, which is made if it is absent; at is made. */
void fault_ext4_mount(const char *image, const char *at, size_t bytes);
/** The power goes: nothing reaches the disk any more, also what the journal has not written. */
void fault_ext4_cut(const char *at);
/** All that was written up to now survives. */
void fault_sync(const char *at);
void fault_unmount(const char *at);

#endif /* FAULT_MOUNTS_H */
