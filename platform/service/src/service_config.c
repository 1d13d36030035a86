/*
 * service_config.c - every setting of the program in one table: its own, the bus's, the modules'.
 */
#include <waybill/service.h>

#include <stdlib.h>
#include <string.h>

#include <waybill/event_bus_factory.h>

#include "service_classes.h"

static const struct config_key service_keys[] = {
    {.name = "data",
     .type = CONFIG_STRING,
     .fallback = "./var",
     .help = "Directory of the modules' databases; made if absent"},
    {.name = "http.listen",
     .type = CONFIG_STRING,
     .fallback = "127.0.0.1:8480",
     .help = "HOST:PORT of the HTTP server; port 0 takes a free one, \"off\" none"},
    {.name = "http.hosts",
     .type = CONFIG_STRING,
     .fallback = "",
     .help = "Further names allowed in Host, separated by blanks"},
    {.name = "log.level",
     .type = CONFIG_CHOICE,
     .fallback = "info",
     .choices = "debug|info|warn|error",
     .help = "From which level lines are written"},
    {.name = "log.format",
     .type = CONFIG_CHOICE,
     .fallback = "logfmt",
     .choices = "logfmt|json",
     .help = "How lines are written to standard error"},
    {.name = "db.sync",
     .type = CONFIG_CHOICE,
     .fallback = "full",
     .choices = "full|normal",
     .help = "full: a commit survives a power cut; normal: it may vanish, but never after its "
             "events were published"},
    {.name = "dead_letter.redact",
     .type = CONFIG_STRING,
     .fallback = "",
     .help = "Fields and headers shown as *** in dead letters: \"password card.number\""},
    {.name = "dead_letter.max_letters",
     .type = CONFIG_INT,
     .fallback = "100000",
     .min = 1,
     .max = 1000000000,
     .help = "Consumers' dead letters in one file; when it is full the consumers wait"},
    {.name = "dead_letter.max_bytes",
     .type = CONFIG_SIZE,
     .fallback = "1GiB",
     .min = 1,
     .max = INT64_MAX,
     .help = "The same in bytes of headers and payloads"},
    {.name = "stream_provision",
     .type = CONFIG_CHOICE,
     .fallback = "create",
     .choices = "verify|create|apply",
     .help = "What to do about streams at start: only check, create missing ones, or also update"},
};

static size_t add_keys(struct config_key *to, size_t at, const struct config_key *from,
                       size_t count)
{
    if (count > 0)
        memcpy(to + at, from, count * sizeof(*to));
    return at + count;
}

wb_err service_config_create(const struct module *const *modules, size_t module_count,
                             struct config **ret_config)
{
    size_t own = sizeof(service_keys) / sizeof(service_keys[0]);
    size_t count = own + event_bus_factory_key_count + service_class_key_count;

    for (size_t i = 0; i < module_count; i++)
        count += modules[i]->setting_count;
    struct config_key *keys = calloc(count, sizeof(*keys));
    if (keys == NULL)
        return WB_NOMEM;
    size_t at = add_keys(keys, 0, event_bus_factory_keys, event_bus_factory_key_count);
    at = add_keys(keys, at, service_keys, own);
    at = add_keys(keys, at, service_class_keys, service_class_key_count);
    for (size_t i = 0; i < module_count; i++)
        at = add_keys(keys, at, modules[i]->settings, modules[i]->setting_count);
    wb_err err = config_create(keys, count, ret_config);
    free(keys); /* config has copied the table */
    return err;
}
