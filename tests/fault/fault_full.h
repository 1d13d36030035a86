/* fault_full.h - campaigns on small disks: full ones, and ones that lose their power. */
#ifndef FAULT_FULL_H
#define FAULT_FULL_H

#include <stddef.h>
#include <stdint.h>

/** So many times the disk of the databases, or of the broker, gets full, and free again. */
size_t fault_full(uint64_t seed, uint64_t count);

/** So many times the disk of the databases, of the broker, or both lose their power. */
size_t fault_disk(uint64_t seed, uint64_t count);

#endif /* FAULT_FULL_H */
