/* service_impl.h - what the files of the running service share. */
#ifndef SERVICE_IMPL_H
#define SERVICE_IMPL_H

#include <pthread.h>

#include <waybill/event_consumer.h>
#include <waybill/http.h>
#include <waybill/observe.h>
#include <waybill/outbox_publisher.h>
#include <waybill/service.h>

#include "service_classes.h"

struct service;
struct service_retention;
struct service_api; /* publish and subscribe over HTTP */

/* ---- service_module.c: one module, running --------------------------------------------------- */

struct service_module;

/* Everything of a module but its HTTP routes: database, migrations, publisher, consumers. */
wb_err service_module_start(struct service *service, const struct module *module,
                            struct service_module **ret_module, struct wb_why *why);
void service_module_stop(struct service_module *self);
const struct module *service_module_of(const struct service_module *self);
wb_err service_module_crash_publisher(struct service_module *self, struct wb_why *why);
/* One line for each part; false when a part is unwell. */
bool service_module_ready(struct service_module *self, struct wb_buf *out);

/* A connection with all that module code runs with; made and used on one thread at a time. */
struct service_scope;
/* classes: for what the module writes, and must outlive the scope; NULL: none. */
wb_err service_scope_open(const struct config *config, const struct module *module,
                          const struct service_classes *classes, struct service_scope **ret_scope,
                          struct wb_why *why);
void service_scope_close(struct service_scope *self);
struct module_scope *service_scope_of(struct service_scope *self);
/* DATA/NAME.db */
wb_err service_db_path(const struct config *config, const struct module *module, char path[512],
                       struct wb_why *why);
/* A name for metrics, logs and inbox: "ar_accounts". */
#define SERVICE_NAME_MAX 65

/* ---- service_http.c: routing ----------------------------------------------------------------- */

struct service_http;
wb_err service_http_start(struct service *service, struct service_http **ret_http,
                          struct wb_why *why);
void service_http_stop(struct service_http *self);
uint16_t service_http_listen_port(const struct service_http *self);

/* ---- service_api.c: the bus over HTTP -------------------------------------------------------- */

wb_err service_api_create(struct event_bus *bus, struct service_api **ret_api);
void service_api_destroy(struct service_api *self);
void service_api_publish(struct service_api *self, const struct module_request *request,
                         struct module_response *response);
void service_api_subscribe(struct service_api *self, const struct module_request *request,
                           struct module_response *response);
void service_api_next(struct service_api *self, const struct module_request *request,
                      struct module_response *response);
/* End subscriptions that nobody polls any more. */
void service_api_reap(struct service_api *self);

/* ---- service.c ------------------------------------------------------------------------------- */

struct service {
    const struct config *config; /* constant after start */
    const struct module *const *modules;
    size_t module_count;
    struct service_classes *classes; /* constant after start */
    struct observe *observe;
    struct event_bus *bus;
    bool owns_bus;
    struct service_module *running[32]; /* constant after start */
    size_t running_count;
    struct service_retention *retention;
    struct service_api *api;
    struct service_http *http; /* NULL: off */
    pthread_t housekeeper;
    bool housekeeper_runs;
    pthread_mutex_t mutex;
    pthread_cond_t stop_cond;
    bool stopping;             /* guarded by mutex */
    bool streams_declared;     /* guarded by mutex */
    struct wb_why streams_why; /* guarded by mutex: why they are not */
};

#endif /* SERVICE_IMPL_H */
