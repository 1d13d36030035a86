/*
 * waybill/service.h - the program as a library: an array of modules in, a running service or a
 * command out.
 *
 *     static const struct service_program program = {.modules = modules, .module_count = 5};
 *     int main(int argc, char **argv) { return service_main(argc, argv, &program); }
 *
 * Threads   The service starts one housekeeping thread, one that lets old rows of all outboxes go,
 *           and those of its bus, publishers, consumers and HTTP server. Start and stop belong to
 *           one thread.
 */
#ifndef WAYBILL_SERVICE_H
#define WAYBILL_SERVICE_H

#include <waybill/event_bus.h>
#include <waybill/module.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A command that the program adds to the command line, `waybill <name> ...`; it parses its own
 * arguments. argv[0] is the command's name. Returns the exit code. */
struct service_command {
    const char *name;
    const char *usage; /* "[--bus memory|nats]" */
    const char *help;
    int (*run)(int argc, char **argv);
};

/* What main() hands over: constant and static. */
struct service_program {
    const struct module *const *modules;
    size_t module_count;
    const struct service_command *commands;
    size_t command_count;
};

/**
 * Run the command line. Returns the exit code: 0 ok, 1 failure, 2 usage, 3 not found,
 * 4 unreachable or timed out, 5 denied, 6 conflict, 7 invalid, 8 partly done, 130 interrupted.
 */
int service_main(int argc, char **argv, const struct service_program *program);

/* ---- the running service --------------------------------------------------------------------- */

struct service;

/**
 * Start everything: databases, bus, streams, publishers, consumers, HTTP.
 *
 * @param config  made with service_config_create() and loaded; borrowed until stop.
 * @param bus     NULL: made from config; otherwise borrowed (for tests and the demo).
 */
wb_err service_start(const struct config *config, struct event_bus *bus,
                     const struct module *const *modules, size_t module_count,
                     struct service **ret_service, struct wb_why *why);

/** In reverse order. NULL does nothing. */
void service_stop(struct service *service);

/** Where HTTP listens; 0 when it is off. */
uint16_t service_http_port(const struct service *service);

/** Let one module's publisher go as a crash would, and start it anew; for drills. WB_NOT_FOUND. */
wb_err service_crash_publisher(struct service *service, const char *module, struct wb_why *why);

/** All is well: bus connected, publishers draining, databases writable. Appends one line each. */
bool service_ready(struct service *service, struct wb_buf *out);

/** The settings of the service, its bus and the modules: defaults only. WB_NOMEM. */
wb_err service_config_create(const struct module *const *modules, size_t module_count,
                             struct config **ret_config);

#ifdef __cplusplus
}
#endif
#endif /* WAYBILL_SERVICE_H */
