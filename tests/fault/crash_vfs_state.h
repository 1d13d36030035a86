/* crash_vfs_state.h - what the shim of crash_vfs.h asks at each operation. */
#ifndef CRASH_VFS_STATE_H
#define CRASH_VFS_STATE_H

#include "crash_vfs.h"

/** One change of the disk; false: the power is gone, or goes now. kind is for the trace. */
bool crash_vfs_change(char kind, const char *path, int64_t at, int64_t len);
/** One operation that the fault can hit; does it? */
bool crash_vfs_fails(crash_fault fault);
/** false: everything passes through. */
bool crash_vfs_listens(void);
/** Do syncs of SQLite do anything now? */
bool crash_vfs_syncs(void);

#endif /* CRASH_VFS_STATE_H */
