/*
 * trash.h - messages that are to be destroyed, many at a time.
 *
 * nats.c destroys messages on a thread of its own, which it wakes for each, and which then waits
 * for the lock that hands over the next: that costs more than the message. Some hundred are kept
 * back here, so that it is woken once for all of them (with 64 a drain switched threads half as
 * often again as with 512).
 */
#ifndef EVENT_BUS_NATS_TRASH_H
#define EVENT_BUS_NATS_TRASH_H

#include <pthread.h>

#include <nats/nats.h>

#define NATS_TRASH_MAX   512
#define NATS_TRASH_BYTES (256U << 10)

struct nats_trash {
    pthread_mutex_t mutex; /* guards the rest */
    natsMsg *messages[NATS_TRASH_MAX];
    size_t count;
    size_t bytes;
};

int event_bus_nats_trash_init(struct nats_trash *trash);
/** Takes msg over, which may be NULL. */
void event_bus_nats_trash_add(struct nats_trash *trash, natsMsg *msg);
void event_bus_nats_trash_free(struct nats_trash *trash);

#endif /* EVENT_BUS_NATS_TRASH_H */
