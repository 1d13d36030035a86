/*
 * fault_live.h - a writer, a publisher and a consumer at work in this process, with threads of
 * their own, around a nats-server; for campaigns in which something else than a process fails.
 */
#ifndef FAULT_LIVE_H
#define FAULT_LIVE_H

#include <pthread.h>
#include <stdatomic.h>

#include "fault.h"
#include "test_support.h"

struct outbox_publisher_health;

struct fault_live {
    struct fault_paths paths;
    struct test_nats server;
    struct event_bus *bus;
    struct outbox_publisher *publisher;
    struct event_consumer *consumer;
    struct db_checkpointer *checkpointers[2]; /* of both files, as a service has them */
    sqlite3 *look;                            /* our own eyes on the producer's file */

    pthread_t writer;
    atomic_bool stop;    /* the writer */
    atomic_bool writing; /* it does; otherwise it rests */
    uint64_t writer_seed;

    _Atomic(int64_t) connected_ns, lost_ns; /* when the bus last came, and went */
};

/* What a campaign with a server starts with; all zero is fine. */
struct fault_live_options {
    const char *dir;        /* of the databases; NULL: a new one */
    const char *server_dir; /* NULL: a new one */
    const char *server_conf;
    const char *url; /* instead of the server's own, e.g. of a proxy; asked for once it runs */
    int64_t duplicate_window_ns;
};

/** Only the server: for those who put something between. Then _begin(). */
void fault_live_serve(struct fault_live *self, const struct fault_live_options *options);
void fault_live_begin(struct fault_live *self, const struct fault_live_options *options,
                      uint64_t seed);

/** One number from the producer's database; 0 when it cannot be asked. */
int64_t fault_live_ask(struct fault_live *self, const char *sql);
/** Is everything published that was committed when last_row was the newest? */
bool fault_live_published(struct fault_live *self, int64_t last_row);
/** Print in what state everything is. */
void fault_live_say(struct fault_live *self, const char *what);
/** Print an end of a line: how long something took. Sorts the times. */
void fault_print_times(const char *what, int64_t *times, size_t count);

/** Let everything be handled, ask the checker, end all. Adds to the report; false: it hangs. */
bool fault_live_end(struct fault_live *self, struct fault_report *report);

#endif /* FAULT_LIVE_H */
