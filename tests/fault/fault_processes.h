/*
 * fault_processes.h - writer, two publishers, consumer and retention as processes around a
 * nats-server, to be killed and stopped.
 */
#ifndef FAULT_PROCESSES_H
#define FAULT_PROCESSES_H

#include <sys/types.h>

#include "fault.h"
#include "test_support.h"

enum fault_role {
    FAULT_WRITER,
    FAULT_PUBLISHER,
    FAULT_STANDBY,
    FAULT_CONSUMER,
    FAULT_RETENTION,
    FAULT_ROLES
};

struct fault_processes {
    const char *self; /* the program */
    struct fault_paths paths;
    struct test_nats server;
    struct wb_rng rng;
    pid_t pids[FAULT_ROLES]; /* 0: it does not run */
    bool keeps_all;          /* no retention runs */
    struct fault_report report;
};

/* All zero is fine. */
struct fault_processes_options {
    const char *dir;        /* of the databases; NULL: a new one */
    const char *server_dir; /* NULL: a new one */
    bool keeps_all;         /* no retention: the broker may lose what it has confirmed */
};

/**
 * A server with a stream that remembers ids for 200 ms only, and all roles. In the environment,
 * FAULT_HISTORY is the file of the history instead of one beside the databases, and FAULT_SYNC=full
 * has the writer sync each commit.
 */
void fault_processes_begin(struct fault_processes *self, const char *program, uint64_t seed,
                           const struct fault_processes_options *options);
/** As the service does at its start: the stream, if it is gone. Was it? */
bool fault_processes_declare(struct fault_processes *self);
/** Let all be handled, end the roles in good order, ask the checker. */
void fault_processes_end(struct fault_processes *self);

/** crash: NULL, or what WAYBILL_CRASH is set to. Where all is kept, retention does not start. */
void fault_process_start(struct fault_processes *self, enum fault_role role, const char *crash);
/** SIGKILL; one that had ended by itself ends the campaign; one that does not run may. */
void fault_process_kill(struct fault_processes *self, enum fault_role role);
/** SIGSTOP, and it has stopped; SIGCONT. */
void fault_process_pause(struct fault_processes *self, enum fault_role role);
void fault_process_resume(struct fault_processes *self, enum fault_role role);

#endif /* FAULT_PROCESSES_H */
