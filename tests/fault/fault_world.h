/*
 * fault_world.h - writer, publisher, consumer, retention and checkpoints on one thread, any call of
 * which may fail; the in-memory bus stands for the broker, which outlives what they lose.
 *
 * Time and chance are virtual, so a seed gives the same run again.
 */
#ifndef FAULT_WORLD_H
#define FAULT_WORLD_H

#include "fault.h"

struct fault_world {
    struct fault_paths paths;
    struct event_bus *bus;
    struct wb_rng rng;
    struct fault_writer_options writing; /* of the next writer */

    struct fault_writer *writer; /* each NULL while it is not open */
    struct outbox_publisher *publisher;
    struct event_consumer *consumer;
    struct outbox_retention *retention;
    struct db *checkpoints[2]; /* the producer's file, the consumer's */
};

/** Empty files on a disk of memory if there is one, an empty stream. */
void fault_world_begin(struct fault_world *self, uint64_t seed);
/** Close what is open, remove the files. */
void fault_world_end(struct fault_world *self, bool keep_files);

/** Open what is not open. The first failure ends it. */
wb_err fault_world_open(struct fault_world *self, struct wb_why *why);
/** Close all: the publisher as a crash would. */
void fault_world_close(struct fault_world *self);

/** Of both files, by the connections made for it. */
void fault_world_checkpoint(struct fault_world *self, int mode);

/** One step of retention, if it is open. */
void fault_world_purge(struct fault_world *self);

/** One step of what is open, by chance; failures of the database are part of life. */
void fault_world_step(struct fault_world *self, bool writing);

/** Go on until all rows are handled. false: it hangs. */
bool fault_world_settle(struct fault_world *self);

#endif /* FAULT_WORLD_H */
