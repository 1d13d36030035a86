/*
 * fault_processes.h - writer, two publishers and consumer as processes around a nats-server, to be
 * killed and stopped.
 */
#ifndef FAULT_PROCESSES_H
#define FAULT_PROCESSES_H

#include <sys/types.h>

#include "fault.h"
#include "test_support.h"

enum fault_role { FAULT_WRITER, FAULT_PUBLISHER, FAULT_STANDBY, FAULT_CONSUMER, FAULT_ROLES };

struct fault_processes {
    const char *self; /* the program */
    struct fault_paths paths;
    struct test_nats server;
    struct wb_rng rng;
    pid_t pids[FAULT_ROLES]; /* 0: it does not run */
    struct fault_report report;
};

/** A server with a stream that remembers ids for 200 ms only, and all roles. */
void fault_processes_begin(struct fault_processes *self, const char *program, uint64_t seed);
/** Let all be handled, end the roles in good order, ask the checker. */
void fault_processes_end(struct fault_processes *self);

/** crash: NULL, or what WAYBILL_CRASH is set to. */
void fault_process_start(struct fault_processes *self, enum fault_role role, const char *crash);
/** SIGKILL; one that had ended by itself ends the campaign. */
void fault_process_kill(struct fault_processes *self, enum fault_role role);
/** SIGSTOP, and it has stopped; SIGCONT. */
void fault_process_pause(struct fault_processes *self, enum fault_role role);
void fault_process_resume(struct fault_processes *self, enum fault_role role);

#endif /* FAULT_PROCESSES_H */
