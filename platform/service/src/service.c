/* service.c - starts the rooms in order, keeps house while they run, ends them in reverse. */
#include <waybill/service.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <waybill/event_bus_factory.h>

#include "service_impl.h"
#include "service_retention.h"

#ifndef WAYBILL_VERSION
#define WAYBILL_VERSION "unknown"
#endif

#define MAX_MODULES (sizeof(((struct service *)0)->running) / sizeof(struct service_module *))

/* ---- streams --------------------------------------------------------------------------------- */

static event_bus_provision provision_mode(const struct config *config)
{
    const char *mode = config_str(config, "stream_provision");

    return strcmp(mode, "verify") == 0  ? EVENT_BUS_VERIFY
           : strcmp(mode, "apply") == 0 ? EVENT_BUS_APPLY
                                        : EVENT_BUS_CREATE;
}

static bool configured(const struct config *config, const char *stream)
{
    struct wb_str name;

    for (size_t i = 0; config_section(config, "stream.*", i, &name); i++)
        if (wb_str_eq(name, wb_str(stream)))
            return true;
    return false;
}

/* The configuration has the last word on a stream; a module declares what it leaves out. */
static wb_err declare_streams(struct service *self, struct wb_why *why)
{
    event_bus_provision mode = provision_mode(self->config);
    wb_err err = event_bus_factory_declare(self->config, self->bus, mode, why);

    for (size_t i = 0; err == WB_OK && i < self->module_count; i++) {
        const struct module *module = self->modules[i];
        if (module->stream == NULL || configured(self->config, module->stream))
            continue;
        struct event_bus_stream_options options = {.name = module->stream,
                                                   .subjects = module->subjects};
        while (module->subjects[options.subject_count] != NULL)
            options.subject_count++;
        err = event_bus_declare_stream(self->bus, &options, mode, why);
    }
    return err;
}

/* ---- housekeeping ---------------------------------------------------------------------------- */

static void try_streams(struct service *self)
{
    struct wb_why why = {""};
    wb_err err = declare_streams(self, &why);

    pthread_mutex_lock(&self->mutex);
    bool news = err == WB_OK || strcmp(why.text, self->streams_why.text) != 0;
    self->streams_declared = err == WB_OK;
    self->streams_why = why;
    pthread_mutex_unlock(&self->mutex);
    if (news)
        wb_log(err == WB_OK ? WB_LOG_INFO : WB_LOG_WARN, "service", "streams: %s",
               err == WB_OK ? "as declared" : why.text);
}

/* Once a second: declare streams until the server has them, end forgotten subscriptions. */
static void *keep_house(void *arg)
{
    struct service *self = arg;

    pthread_mutex_lock(&self->mutex);
    while (!self->stopping) {
        bool declared = self->streams_declared;
        pthread_mutex_unlock(&self->mutex);
        if (!declared)
            try_streams(self);
        service_api_reap(self->api);
        pthread_mutex_lock(&self->mutex);
        int64_t due = wb_mono_ns(wb_clock_system()) + WB_SEC;
        while (!self->stopping && wb_cond_wait_until(&self->stop_cond, &self->mutex, due))
            ;
    }
    pthread_mutex_unlock(&self->mutex);
    return NULL;
}

static wb_err start_housekeeper(struct service *self)
{
    if (pthread_create(&self->housekeeper, NULL, keep_house, self) != 0)
        return WB_NOMEM;
    self->housekeeper_runs = true;
    return WB_OK;
}

static void stop_housekeeper(struct service *self)
{
    if (!self->housekeeper_runs)
        return;
    pthread_mutex_lock(&self->mutex);
    self->stopping = true;
    pthread_cond_broadcast(&self->stop_cond);
    pthread_mutex_unlock(&self->mutex);
    pthread_join(self->housekeeper, NULL);
}

/* ---- start and stop -------------------------------------------------------------------------- */

static wb_err make_data_dir(const struct config *config, struct wb_why *why)
{
    const char *dir = config_str(config, "data");

    if (mkdir(dir, 0700) != 0 && errno != EEXIST)
        return wb_fail(why, errno == EROFS ? WB_READ_ONLY : WB_DENIED,
                       "make the data directory '%s': %s; create it, or name another with --data",
                       dir, strerror(errno));
    return WB_OK;
}

static wb_err start_modules(struct service *self, struct wb_why *why)
{
    if (self->module_count > MAX_MODULES)
        return wb_fail(why, WB_TOO_BIG, "%zu modules: at most %zu run in one service",
                       self->module_count, MAX_MODULES);
    for (size_t i = 0; i < self->module_count; i++) {
        wb_err err = service_module_start(self, self->modules[i], &self->running[i], why);
        if (err != WB_OK)
            return err;
        self->running_count++;
    }
    return WB_OK;
}

static wb_err start_rooms(struct service *self, struct event_bus *bus, struct wb_why *why)
{
    wb_err err = service_classes_read(self->config, &self->classes, why);
    if (err == WB_OK)
        err = make_data_dir(self->config, why);
    if (err == WB_OK)
        err = observe_create(&self->observe);
    if (err != WB_OK)
        return err;
    observe_set(observe_series(self->observe, OBSERVE_BUILD_INFO, WAYBILL_VERSION), 1);

    self->bus = bus;
    self->owns_bus = bus == NULL;
    /* A service takes work while its bus is away: that is what the outbox is for. */
    if (bus == NULL)
        err = event_bus_factory_create(self->config, self->observe, false, &self->bus, why);
    if (err == WB_OK)
        err = service_api_create(self->bus, &self->api);
    if (err == WB_OK)
        try_streams(self);
    if (err == WB_OK)
        err = start_modules(self, why);
    if (err == WB_OK)
        err = service_retention_start(self, &self->retention, why);
    if (err == WB_OK && strcmp(config_str(self->config, "http.listen"), "off") != 0)
        err = service_http_start(self, &self->http, why);
    if (err == WB_OK)
        err = start_housekeeper(self);
    return err;
}

static void init_locks(struct service *self)
{
    pthread_mutex_init(&self->mutex, NULL);
    (void)wb_cond_init(&self->stop_cond);
}

wb_err service_start(const struct config *config, struct event_bus *bus,
                     const struct module *const *modules, size_t module_count,
                     struct service **ret_service, struct wb_why *why)
{
    struct service *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return WB_NOMEM;
    self->config = config;
    self->modules = modules;
    self->module_count = module_count;
    init_locks(self);

    wb_err err = start_rooms(self, bus, why);
    if (err != WB_OK) {
        service_stop(self);
        return err;
    }
    *ret_service = self;
    return WB_OK;
}

void service_stop(struct service *service)
{
    if (service == NULL)
        return;
    stop_housekeeper(service);
    service_http_stop(service->http);
    service_retention_stop(service->retention);
    while (service->running_count > 0)
        service_module_stop(service->running[--service->running_count]);
    service_api_destroy(service->api);
    if (service->owns_bus)
        event_bus_destroy(service->bus);
    observe_destroy(service->observe);
    service_classes_free(service->classes);
    pthread_cond_destroy(&service->stop_cond);
    pthread_mutex_destroy(&service->mutex);
    free(service);
}

uint16_t service_http_port(const struct service *service)
{
    return service->http == NULL ? 0 : service_http_listen_port(service->http);
}

wb_err service_crash_publisher(struct service *service, const char *module, struct wb_why *why)
{
    for (size_t i = 0; i < service->running_count; i++)
        if (strcmp(service_module_of(service->running[i])->name, module) == 0)
            return service_module_crash_publisher(service->running[i], why);
    return wb_fail(why, WB_NOT_FOUND, "no module '%s' runs in this service", module);
}

/* ---- health ---------------------------------------------------------------------------------- */

static bool bus_ready(struct service *self, struct wb_buf *out)
{
    struct event_bus_health health;

    event_bus_health(self->bus, &health);
    if (health.connected)
        wb_buf_printf(out, "[+]bus ok: %s\n", health.server);
    else
        wb_buf_printf(out, "[-]bus away: %s\n", health.problem);
    return health.connected;
}

static bool streams_ready(struct service *self, struct wb_buf *out)
{
    pthread_mutex_lock(&self->mutex);
    bool declared = self->streams_declared;
    struct wb_why why = self->streams_why;
    pthread_mutex_unlock(&self->mutex);
    if (declared)
        wb_buf_str(out, "[+]streams ok\n");
    else
        wb_buf_printf(out, "[-]streams: %s\n", why.text);
    return declared;
}

bool service_ready(struct service *service, struct wb_buf *out)
{
    bool ready = bus_ready(service, out);

    ready = streams_ready(service, out) && ready;
    for (size_t i = 0; i < service->running_count; i++)
        ready = service_module_ready(service->running[i], out) && ready;
    return ready;
}
