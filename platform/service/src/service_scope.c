/* service_scope.c - a database connection with all that module code runs with. */
#include "service_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <waybill/outbox.h>

struct service_scope {
    struct module_scope scope;
};

wb_err service_db_path(const struct config *config, const struct module *module, char path[512],
                       struct wb_why *why)
{
    int len = snprintf(path, 512, "%s/%s.db", config_str(config, "data"), module->name);

    if (len < 0 || len >= 512)
        return wb_fail(why, WB_TOO_BIG, "the data directory's path is longer than 500 bytes");
    return WB_OK;
}

wb_err service_scope_open(const struct config *config, const struct module *module,
                          const struct service_classes *classes, struct service_scope **ret_scope,
                          struct wb_why *why)
{
    char path[512];
    struct db_options options = {.sync = strcmp(config_str(config, "db.sync"), "normal") == 0
                                             ? DB_SYNC_NORMAL
                                             : DB_SYNC_FULL};
    wb_err err = service_db_path(config, module, path, why);
    if (err != WB_OK)
        return err;
    struct service_scope *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return WB_NOMEM;
    self->scope =
        (struct module_scope){.module = module, .config = config, .clock = wb_clock_system()};
    err = db_open(path, &options, &self->scope.db, why);
    if (err == WB_OK)
        err = db_migrate(db_handle(self->scope.db), module->name, module->migrations,
                         module->migration_count, why);
    if (err == WB_OK)
        err = outbox_attach(db_handle(self->scope.db), &self->scope.outbox, why);
    if (err != WB_OK) {
        service_scope_close(self);
        return err;
    }
    service_classes_use(classes, self->scope.outbox);
    *ret_scope = self;
    return WB_OK;
}

void service_scope_close(struct service_scope *self)
{
    if (self == NULL)
        return;
    outbox_detach(self->scope.outbox);
    db_close(self->scope.db);
    free(self);
}

struct module_scope *service_scope_of(struct service_scope *self)
{
    return &self->scope;
}
