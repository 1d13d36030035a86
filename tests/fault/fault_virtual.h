/*
 * fault_virtual.h - time and chance of our own code made repeatable, for campaigns on one thread.
 *
 * The linker sends clock_gettime(), nanosleep() and getrandom() of our code here. While virtual,
 * time passes only by sleeping and by looking at it, and random bytes come from a seed.
 */
#ifndef FAULT_VIRTUAL_H
#define FAULT_VIRTUAL_H

#include <stdint.h>

void fault_virtual_begin(uint64_t seed);
void fault_virtual_end(void);

#endif /* FAULT_VIRTUAL_H */
