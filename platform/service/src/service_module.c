/* service_module.c - one module, running: its database, publisher and consumers. */
#include "service_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <waybill/outbox.h>

struct module_consumer {
    struct service_module *module;
    const struct module_subscription *subscription;
    struct event_consumer *consumer;
    char name[SERVICE_NAME_MAX];
    struct module_scope scope; /* owned by the consumer's thread between open and close */
};

struct service_module {
    struct service *service;
    const struct module *module;
    char path[512];
    struct db_checkpointer *checkpointer;
    pthread_mutex_t mutex;
    struct outbox_publisher *publisher; /* guarded by mutex; NULL: the module publishes nothing */
    struct module_consumer *consumers;  /* module->subscription_count of them */
};

/* ---- consumers: the platform's transaction around the module's handler ----------------------- */

static wb_err consumer_open(void *ctx, struct db *db, void **ret_scope, struct wb_why *why)
{
    struct module_consumer *self = ctx;
    struct service *service = self->module->service;

    self->scope = (struct module_scope){.module = self->module->module,
                                        .config = service->config,
                                        .clock = wb_clock_system(),
                                        .db = db};
    wb_err err = outbox_attach(db_handle(db), &self->scope.outbox, why);
    if (err != WB_OK)
        return err;
    service_classes_use(service->classes, self->scope.outbox);
    *ret_scope = &self->scope;
    return WB_OK;
}

static void consumer_close(void *ctx, void *scope)
{
    (void)ctx;
    outbox_detach(((struct module_scope *)scope)->outbox);
}

static void consumer_committed(void *ctx, void *scope)
{
    (void)ctx;
    outbox_wake(((struct module_scope *)scope)->outbox);
}

static wb_err consumer_handle(void *ctx, const struct event_consumer_event *event,
                              struct wb_why *why)
{
    const struct module_consumer *self = ctx;
    struct module_event seen = {.message = &event->delivery->message,
                                .stream = event->delivery->stream,
                                .sequence = event->delivery->sequence,
                                .stored_wall_ns = event->delivery->stored_wall_ns};

    return self->subscription->handle(event->scope, &seen, why);
}

static wb_err start_consumer(struct module_consumer *self, struct wb_why *why)
{
    struct service *service = self->module->service;
    const struct module_subscription *subscription = self->subscription;
    struct event_consumer_options options = {
        .name = self->name,
        .path = self->module->path,
        .bus = service->bus,
        .patterns = subscription->patterns,
        .handler = consumer_handle,
        .open = consumer_open,
        .close = consumer_close,
        .committed = consumer_committed,
        .ctx = self,
        .sync = strcmp(config_str(service->config, "db.sync"), "normal") == 0 ? DB_SYNC_NORMAL
                                                                              : DB_SYNC_FULL,
        .max_letters = (uint64_t)config_int(service->config, "dead_letter.max_letters"),
        .max_letter_bytes = config_size(service->config, "dead_letter.max_bytes"),
        .observe = service->observe,
    };
    while (subscription->patterns[options.pattern_count] != NULL)
        options.pattern_count++;
    return event_consumer_start(&options, &self->consumer, why);
}

static wb_err start_consumers(struct service_module *self, struct wb_why *why)
{
    const struct module *module = self->module;

    self->consumers = calloc(module->subscription_count + 1, sizeof(*self->consumers));
    if (self->consumers == NULL)
        return WB_NOMEM;
    for (size_t i = 0; i < module->subscription_count; i++) {
        struct module_consumer *consumer = &self->consumers[i];
        consumer->module = self;
        consumer->subscription = &module->subscriptions[i];
        int len = snprintf(consumer->name, sizeof(consumer->name), "%s_%s", module->name,
                           consumer->subscription->name);
        if (len < 0 || (size_t)len >= sizeof(consumer->name))
            return wb_fail(why, WB_TOO_BIG, "subscription '%s' of module '%s': name over 64 bytes",
                           consumer->subscription->name, module->name);
        wb_err err = start_consumer(consumer, why);
        if (err != WB_OK)
            return err;
    }
    return WB_OK;
}

/* ---- the module ------------------------------------------------------------------------------ */

static wb_err start_publisher(struct service_module *self, struct wb_why *why)
{
    if (self->module->stream == NULL)
        return WB_OK;
    struct outbox_publisher_options options = {.path = self->path,
                                               .bus = self->service->bus,
                                               .streams = &self->module->stream,
                                               .stream_count = 1,
                                               .name = self->module->name,
                                               .observe = self->service->observe};
    options.classes = service_classes_list(self->service->classes, &options.class_count);
    return outbox_publisher_start(&options, &self->publisher, why);
}

/* Opening a scope once creates the file and its tables before anybody else needs them. */
static wb_err prepare_database(struct service_module *self, struct wb_why *why)
{
    struct service_scope *scope;
    wb_err err = service_db_path(self->service->config, self->module, self->path, why);

    if (err == WB_OK)
        err = service_scope_open(self->service->config, self->module, NULL, &scope, why);
    if (err != WB_OK)
        return err;
    err = db_checkpointer_start(self->path, self->service->observe, &self->checkpointer, why);
    service_scope_close(scope);
    return err;
}

wb_err service_module_start(struct service *service, const struct module *module,
                            struct service_module **ret_module, struct wb_why *why)
{
    struct service_module *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return WB_NOMEM;
    self->service = service;
    self->module = module;
    pthread_mutex_init(&self->mutex, NULL);

    wb_err err = prepare_database(self, why);
    if (err == WB_OK)
        err = start_publisher(self, why);
    if (err == WB_OK)
        err = start_consumers(self, why);
    if (err != WB_OK) {
        service_module_stop(self);
        return err;
    }
    *ret_module = self;
    return WB_OK;
}

void service_module_stop(struct service_module *self)
{
    for (size_t i = 0; self->consumers != NULL && i < self->module->subscription_count; i++)
        event_consumer_stop(self->consumers[i].consumer);
    outbox_publisher_stop(self->publisher);
    db_checkpointer_stop(self->checkpointer);
    pthread_mutex_destroy(&self->mutex);
    free(self->consumers);
    free(self);
}

const struct module *service_module_of(const struct service_module *self)
{
    return self->module;
}

wb_err service_module_crash_publisher(struct service_module *self, struct wb_why *why)
{
    if (self->module->stream == NULL)
        return wb_fail(why, WB_NOT_FOUND, "module '%s' publishes nothing", self->module->name);
    pthread_mutex_lock(&self->mutex);
    outbox_publisher_abandon(self->publisher);
    self->publisher = NULL;
    wb_err err = start_publisher(self, why);
    pthread_mutex_unlock(&self->mutex);
    return err;
}

/* ---- health ---------------------------------------------------------------------------------- */

static bool publisher_ready(struct service_module *self, struct wb_buf *out)
{
    struct outbox_publisher_health health;

    if (self->module->stream == NULL)
        return true;
    pthread_mutex_lock(&self->mutex);
    if (self->publisher != NULL)
        outbox_publisher_health(self->publisher, &health);
    else
        health = (struct outbox_publisher_health){.state = OUTBOX_PUBLISHER_STOPPING};
    pthread_mutex_unlock(&self->mutex);
    bool well = health.state <= OUTBOX_PUBLISHER_DRAIN;
    wb_buf_printf(out, "[%c]outbox %s %s%s%s\n", well ? '+' : '-', self->module->name,
                  outbox_publisher_state_name(health.state), health.problem[0] ? ": " : "",
                  health.problem);
    return well;
}

static bool consumer_ready(const struct module_consumer *self, struct wb_buf *out)
{
    struct event_consumer_health health;

    event_consumer_health(self->consumer, &health);
    bool well = health.problem[0] == '\0';
    wb_buf_printf(out, "[%c]consumer %s %s%s\n", well ? '+' : '-', self->name,
                  well ? "ok" : "retries: ", health.problem);
    return well;
}

/* A log that cannot be emptied slows everybody down, yet all work goes on: ready, with a word. */
static void database_tell(struct service_module *self, struct wb_buf *out)
{
    struct db_checkpointer_health health;

    db_checkpointer_health(self->checkpointer, &health);
    if (health.problem[0] != '\0')
        wb_buf_printf(out, "[!]database %s: %s\n", self->module->name, health.problem);
}

bool service_module_ready(struct service_module *self, struct wb_buf *out)
{
    bool ready = publisher_ready(self, out);

    database_tell(self, out);
    for (size_t i = 0; i < self->module->subscription_count; i++)
        ready = consumer_ready(&self->consumers[i], out) && ready;
    return ready;
}
