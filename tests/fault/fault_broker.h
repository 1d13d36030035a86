/* fault_broker.h - the campaign of a broker that forgets. */
#ifndef FAULT_BROKER_H
#define FAULT_BROKER_H

#include <stddef.h>
#include <stdint.h>

/**
 * Under load a nats-server is killed, its store exchanged for an older copy of itself, or emptied,
 * and started again, `swaps` times. Prints a line; returns how many things are broken.
 */
size_t fault_broker(uint64_t seed, uint64_t swaps);

#endif /* FAULT_BROKER_H */
