/* fault_network.h - the campaign of bad weather between product and server. */
#ifndef FAULT_NETWORK_H
#define FAULT_NETWORK_H

#include <stddef.h>
#include <stdint.h>

/** That many troubles of the network, of all kinds in turn. Prints a line. */
size_t fault_network(uint64_t seed, uint64_t troubles);

#endif /* FAULT_NETWORK_H */
