/* service_retention.c - one thread that lets old rows of all outboxes go, a little at a time. */
#include "service_retention.h"

#include <stdlib.h>
#include <string.h>

#include <waybill/outbox_retention.h>

#include "service_impl.h"

#define AGAIN_NS (5 * WB_SEC) /* after a step that failed */

struct file {
    char path[512];
    const char *name;
    struct outbox_retention *retention; /* NULL: not opened yet */
    int64_t next_mono_ns;
    struct wb_why told; /* why it fails, as last said */
};

struct service_retention {
    struct service *service;
    struct file *files; /* constant after start but for what the thread does with them */
    size_t file_count;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    bool stopping; /* guarded by mutex */
};

static wb_err step(struct service_retention *self, struct file *file,
                   struct outbox_retention_result *result, struct wb_why *why)
{
    struct outbox_retention_options options = {
        .path = file->path, .observe = self->service->observe, .name = file->name};
    wb_err err = WB_OK;

    options.classes = service_classes_list(self->service->classes, &options.class_count);
    if (file->retention == NULL)
        err = outbox_retention_open(&options, &file->retention, why);
    return err == WB_OK ? outbox_retention_step(file->retention, result, why) : err;
}

static void work(struct service_retention *self, struct file *file, int64_t now)
{
    struct outbox_retention_result result = {.next_ns = AGAIN_NS};
    struct wb_why why = {""};
    wb_err err = step(self, file, &result, &why);

    if (err != WB_OK && err != WB_BUSY && strcmp(file->told.text, why.text) != 0)
        wb_log(WB_LOG_WARN, "retention", "%s: %s", file->name, why.text);
    if (err != WB_BUSY)
        file->told = why;
    file->next_mono_ns = now + (err == WB_OK ? result.next_ns : AGAIN_NS);
}

static void *run(void *ctx)
{
    struct service_retention *self = ctx;

    pthread_mutex_lock(&self->mutex);
    while (!self->stopping) {
        int64_t next = INT64_MAX;
        pthread_mutex_unlock(&self->mutex);
        for (size_t i = 0; i < self->file_count; i++) {
            int64_t now = wb_mono_ns(wb_clock_system());
            if (now >= self->files[i].next_mono_ns)
                work(self, &self->files[i], now);
            if (self->files[i].next_mono_ns < next)
                next = self->files[i].next_mono_ns;
        }
        pthread_mutex_lock(&self->mutex);
        if (!self->stopping)
            (void)wb_cond_wait_until(&self->wake, &self->mutex, next);
    }
    pthread_mutex_unlock(&self->mutex);
    return NULL;
}

static wb_err add_files(struct service_retention *self, struct wb_why *why)
{
    const struct service *service = self->service;
    wb_err err = WB_OK;

    self->files = calloc(service->module_count + 1, sizeof(*self->files));
    if (self->files == NULL)
        return WB_NOMEM;
    for (size_t i = 0; err == WB_OK && i < service->module_count; i++) {
        struct file *file = &self->files[self->file_count];
        if (service->modules[i]->stream == NULL)
            continue;
        file->name = service->modules[i]->name;
        err = service_db_path(service->config, service->modules[i], file->path, why);
        self->file_count++;
    }
    return err;
}

static void locks_init(struct service_retention *self)
{
    pthread_mutex_init(&self->mutex, NULL);
    (void)wb_cond_init(&self->wake);
}

static void retention_free(struct service_retention *self)
{
    for (size_t i = 0; i < self->file_count; i++)
        outbox_retention_close(self->files[i].retention);
    pthread_cond_destroy(&self->wake);
    pthread_mutex_destroy(&self->mutex);
    free(self->files);
    free(self);
}

wb_err service_retention_start(struct service *service, struct service_retention **ret_retention,
                               struct wb_why *why)
{
    struct service_retention *self = calloc(1, sizeof(*self));

    if (self == NULL)
        return WB_NOMEM;
    self->service = service;
    locks_init(self);
    wb_err err = add_files(self, why);
    if (err == WB_OK && pthread_create(&self->thread, NULL, run, self) != 0)
        err = WB_NOMEM;
    if (err != WB_OK) {
        retention_free(self);
        return err;
    }
    *ret_retention = self;
    return WB_OK;
}

void service_retention_stop(struct service_retention *retention)
{
    if (retention == NULL)
        return;
    pthread_mutex_lock(&retention->mutex);
    retention->stopping = true;
    pthread_cond_signal(&retention->wake);
    pthread_mutex_unlock(&retention->mutex);
    pthread_join(retention->thread, NULL);
    retention_free(retention);
}
