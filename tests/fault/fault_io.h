/* fault_io.h - errors of the disk, and of memory, at every place where one can happen. */
#ifndef FAULT_IO_H
#define FAULT_IO_H

#include <stddef.h>
#include <stdint.h>

/** At most count runs, spread over all points; prints a line; returns how many things are broken.
 */
size_t fault_io(uint64_t seed, uint64_t count);
size_t fault_alloc(uint64_t seed, uint64_t count);

#endif /* FAULT_IO_H */
